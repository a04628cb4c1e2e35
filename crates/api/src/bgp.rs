//! How the cluster speaks BGP, with whom, and about which routes.

mod configuration;
mod filter;
mod peer;

pub use configuration::{
    BgpConfiguration, BgpConfigurationSpec, CidrEntry, NamedCommunity, PasswordSpec,
    PrefixAdvertisementSpec, SecretKeySpec, configuration as bgp_configuration,
};
pub use filter::{
    BgpFilter, BgpFilterSpec, FilterAsPathSpec, FilterCommunitiesSpec, FilterCommunitySpec,
    FilterOperationSpec, FilterPrioritySpec, FilterRuleSpec, PrefixLengthSpec,
};
pub use peer::{BgpPeer, BgpPeerSpec};

pub(crate) use configuration::severity;

use model::net::Asn;
use model::peer::Community;
use serde_json::Value;

use crate::invalid::{Fault, parse};

/// Reads an AS number, which stands there as a number or as text.
fn asn(field: &str, value: Option<&Value>) -> Result<Option<Asn>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => parse(field, text).map(Some),
        Some(other) => parse(field, &other.to_string()).map(Some),
    }
}

/// Reads a community.
fn community(text: &str) -> Option<Community> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [a, b] => Some(Community::Standard(a.parse().ok()?, b.parse().ok()?)),
        [a, b, c] => Some(Community::Large(a.parse().ok()?, b.parse().ok()?, c.parse().ok()?)),
        _ => None,
    }
}
