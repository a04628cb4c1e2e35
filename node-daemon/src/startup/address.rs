//! Which addresses and AS the node shall have, given what it has and what is asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::annotations;
use config::startup::NodeSettings;
use config::value::{AddressMethod, AddressSource, Backend};
use model::net::{Asn, Family, InterfaceAddr};
use model::node::Node;
use serde_json::{Value, json};

use super::autodetect::{self, Answers, Detection};
use super::host::Host;

/// What the node shall say about itself, and how that was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Identity {
    /// Its IPv4 address.
    pub(crate) ipv4: Option<InterfaceAddr>,
    /// Its IPv6 address.
    pub(crate) ipv6: Option<InterfaceAddr>,
    /// Its AS; `None` is the cluster's.
    pub(crate) asn: Option<Asn>,
    /// How each address was found or not.
    pub(crate) looks: Vec<Look>,
}

/// How the address of one family came about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Look {
    /// The family.
    pub(crate) family: Family,
    /// Where the address comes from.
    pub(crate) origin: Origin,
}

/// Where an address comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// It is detected, or was looked for in vain.
    Detected(Detection),
    /// The environment names it, and it is on the host.
    Given,
    /// The environment names it, and no interface has it.
    GivenButAbsent,
    /// The node has it from before.
    Kept,
}

/// Why a node cannot be what it shall be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is no address at all, so nobody could reach the node's pods.
    #[error(
        "this node has no address ({looks}); set IP or IP6, choose another IP_AUTODETECTION_METHOD, \
         or set CALICO_NETWORKING_BACKEND=none if something else brings the routes"
    )]
    NoAddress {
        /// What was looked at.
        looks: String,
    },
    /// The variable names an address of the other family.
    #[error("{variable}={addr} is not an {family} address; use the variable of the other family")]
    WrongFamily {
        /// `IP` or `IP6`.
        variable: &'static str,
        /// The address.
        addr: IpAddr,
        /// The family that the variable is for.
        family: Family,
    },
    /// Another node says that it has the address.
    #[error(
        "node {other} has the address {addr} too; give one of them another (IP, IP6 or \
         IP_AUTODETECTION_METHOD), delete the Node if it is gone, or set \
         DISABLE_NODE_IP_CHECK=true if that is meant"
    )]
    Conflict {
        /// The other node.
        other: model::id::NodeName,
        /// The address.
        addr: IpAddr,
    },
}

/// One family's side of the settings.
struct Wish<'a> {
    family: Family,
    variable: &'static str,
    source: Option<AddressSource>,
    method: &'a AddressMethod,
    current: Option<InterfaceAddr>,
}

/// Decides addresses and AS of the node that now is `current`.
///
/// # Errors
///
/// [`Refusal::WrongFamily`], or [`Refusal::NoAddress`] with everything that was looked at.
pub(crate) fn decide(
    settings: &NodeSettings,
    current: &Node,
    host: &Host,
    answers: impl Fn(Family) -> Answers,
) -> Result<Identity, Refusal> {
    let mut identity = Identity { asn: settings.asn.or(current.asn), ..Identity::default() };
    let wishes = [
        Wish {
            family: Family::V4,
            variable: "IP",
            source: settings.ipv4,
            method: &settings.ipv4_method,
            current: current.ipv4,
        },
        Wish {
            family: Family::V6,
            variable: "IP6",
            source: settings.ipv6,
            method: &settings.ipv6_method,
            current: current.ipv6,
        },
    ];
    for wish in wishes {
        let addr = wish.decide(host, &answers, &mut identity.looks)?;
        match wish.family {
            Family::V4 => identity.ipv4 = addr,
            Family::V6 => identity.ipv6 = addr,
        }
    }
    let is_lost = identity.ipv4.is_none() && identity.ipv6.is_none();
    if is_lost && settings.backend != Backend::None {
        return Err(Refusal::NoAddress { looks: identity.describe() });
    }
    Ok(identity)
}

impl Wish<'_> {
    fn decide(
        &self,
        host: &Host,
        answers: impl Fn(Family) -> Answers,
        looks: &mut Vec<Look>,
    ) -> Result<Option<InterfaceAddr>, Refusal> {
        let (addr, origin) = match (self.source, self.current) {
            (Some(AddressSource::None), _) => return Ok(None),
            (Some(AddressSource::Given(addr, len)), _) => self.given(host, addr, len)?,
            (None, Some(current)) => (Some(current), Origin::Kept),
            // Only IPv4 is looked for unasked, as in Calico.
            (None, None) if self.family == Family::V6 => return Ok(None),
            (Some(AddressSource::Autodetect), _) | (None, None) => {
                let answers = answers(self.family);
                let detection = autodetect::detect(self.method, self.family, host, &answers);
                (detection.found, Origin::Detected(detection))
            }
        };
        looks.push(Look { family: self.family, origin });
        Ok(addr)
    }

    /// Takes the given address, with the prefix length of its interface if none is given.
    fn given(
        &self,
        host: &Host,
        addr: IpAddr,
        len: Option<u8>,
    ) -> Result<(Option<InterfaceAddr>, Origin), Refusal> {
        if Family::of(addr) != self.family {
            let (variable, family) = (self.variable, self.family);
            return Err(Refusal::WrongFamily { variable, addr, family });
        }
        let on_host = host.find(addr).map(|(_, found)| found);
        let origin = if on_host.is_some() { Origin::Given } else { Origin::GivenButAbsent };
        let bits = on_host.map_or(self.family.bits(), |found| found.prefix_len());
        Ok((InterfaceAddr::new(addr, len.unwrap_or(bits)).ok(), origin))
    }
}

impl Identity {
    /// Returns the addresses, IPv4 first.
    pub(crate) fn addrs(&self) -> impl Iterator<Item = InterfaceAddr> {
        self.ipv4.into_iter().chain(self.ipv6)
    }

    /// Says in one line how the addresses were looked for.
    pub(crate) fn describe(&self) -> String {
        let look = |look: &Look| match &look.origin {
            Origin::Detected(detection) => format!("{}: {detection}", look.family),
            Origin::Given => format!("{}: given", look.family),
            Origin::GivenButAbsent => format!("{}: given, on no interface", look.family),
            Origin::Kept => format!("{}: kept", look.family),
        };
        if self.looks.is_empty() {
            return "none was looked for".to_owned();
        }
        self.looks.iter().map(look).collect::<Vec<_>>().join(" | ")
    }

    /// Checks that no other node has one of these addresses.
    ///
    /// # Errors
    ///
    /// [`Refusal::Conflict`] with the first one that does.
    pub(crate) fn check_conflict<'a>(
        &self,
        own_name: &model::id::NodeName,
        nodes: impl IntoIterator<Item = &'a Node>,
    ) -> Result<(), Refusal> {
        let others = nodes.into_iter().filter(|node| node.name != *own_name);
        for other in others {
            let theirs = [other.ipv4, other.ipv6].into_iter().flatten();
            for theirs in theirs {
                if self.addrs().any(|ours| ours.addr() == theirs.addr()) {
                    let (other, addr) = (other.name.clone(), theirs.addr());
                    return Err(Refusal::Conflict { other, addr });
                }
            }
        }
        Ok(())
    }

    /// Returns the patch of the Node's status that makes its annotations `self`; `None` if they are.
    pub(crate) fn patch(&self, current: &BTreeMap<String, String>) -> Option<Value> {
        let addr = |addr: Option<InterfaceAddr>| addr.map(|addr| addr.to_string());
        let wanted = [
            (annotations::NODE_IPV4, addr(self.ipv4)),
            (annotations::NODE_IPV6, addr(self.ipv6)),
            (annotations::NODE_ASN, self.asn.map(|asn| asn.to_string())),
        ];
        let changes: serde_json::Map<String, Value> = wanted
            .into_iter()
            .filter(|(name, wanted)| current.get(*name) != wanted.as_ref())
            .map(|(name, wanted)| (name.to_owned(), json!(wanted)))
            .collect();
        (!changes.is_empty()).then(|| json!({ "metadata": { "annotations": changes } }))
    }
}

#[cfg(test)]
mod tests;
