//! `BGPFilter`: which routes a peer is told, and which are taken from it.

use std::ops::RangeInclusive;

use model::bgp_filter::{
    BgpFilter as Filter, FilterOperation, FilterRule, PrefixMatch, PrefixOperator, SessionKind,
};
use model::net::{Cidr, Family};
use serde_json::Value;

use super::{asn, community};
use crate::invalid::{Fault, parse, within, word};
use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object};

/// Rules for routes to and from a peer.
pub type BgpFilter = Object<BgpFilterSpec>;

wire! {
    /// The spec of a [`BgpFilter`].
    pub struct BgpFilterSpec {
        /// For IPv4 routes to the peer.
        export_v4: Option<Vec<FilterRuleSpec>> = "exportV4",
        /// For IPv4 routes from the peer.
        import_v4: Option<Vec<FilterRuleSpec>> = "importV4",
        /// For IPv6 routes to the peer.
        export_v6: Option<Vec<FilterRuleSpec>> = "exportV6",
        /// For IPv6 routes from the peer.
        import_v6: Option<Vec<FilterRuleSpec>> = "importV6",
    }

    /// What happens to routes that have all the marks that are set here.
    pub struct FilterRuleSpec {
        /// The network that the destination is compared with.
        cidr: Option<String> = "cidr",
        /// How: `Equal`, `NotEqual`, `In` or `NotIn`.
        match_operator: Option<String> = "matchOperator",
        /// The lengths of prefix that the destination may have.
        prefix_length: Option<PrefixLengthSpec> = "prefixLength",
        /// `RemotePeers`: only routes learned by BGP.
        source: Option<String> = "source",
        /// The interface that the route leads out of; `*` stands for any text.
        interface: Option<String> = "interface",
        /// The kind of the session: `eBGP` or `iBGP`.
        peer_type: Option<String> = "peerType",
        /// The communities that the route has.
        communities: Option<FilterCommunitiesSpec> = "communities",
        /// How the AS path starts.
        as_path_prefix: Option<Vec<Value>> = "asPathPrefix",
        /// The metric in the kernel.
        priority: Option<i64> = "priority",
        /// `Accept` or `Reject`.
        action: String = "action",
        /// What is done to the routes that are accepted.
        operations: Option<Vec<FilterOperationSpec>> = "operations",
    }

    /// Lengths of prefixes.
    pub struct PrefixLengthSpec {
        /// The shortest.
        min: Option<i64> = "min",
        /// The longest.
        max: Option<i64> = "max",
    }

    /// Communities of a route.
    pub struct FilterCommunitiesSpec {
        /// `aa:nn` or `aa:nn:mm`.
        values: Vec<String> = "values",
    }

    /// What is done to a route: exactly one of these.
    pub struct FilterOperationSpec {
        /// Marks it.
        add_community: Option<FilterCommunitySpec> = "addCommunity",
        /// Makes its AS path longer.
        prepend_as_path: Option<FilterAsPathSpec> = "prependASPath",
        /// Sets its metric in the kernel.
        set_priority: Option<FilterPrioritySpec> = "setPriority",
    }

    /// A community to mark a route with.
    pub struct FilterCommunitySpec {
        /// `aa:nn` or `aa:nn:mm`.
        value: String = "value",
    }

    /// A piece of an AS path.
    pub struct FilterAsPathSpec {
        /// The AS numbers.
        prefix: Vec<Value> = "prefix",
    }

    /// A metric.
    pub struct FilterPrioritySpec {
        /// 1 to 2147483646.
        value: i64 = "value",
    }
}

kind! { BgpFilterSpec: "BGPFilter" "bgpfilters" cluster }

/// The metrics that routes may have.
const PRIORITIES: RangeInclusive<u32> = 1..=2_147_483_646;

/// The most operations of a rule.
const MAX_OPERATIONS: usize = 10;

impl TryFrom<&BgpFilter> for Filter {
    type Error = Invalid;

    fn try_from(object: &BgpFilter) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let rules = |field: &str, rules: &Option<Vec<FilterRuleSpec>>, family| {
            let read = |(index, wire): (usize, &FilterRuleSpec)| {
                rule(wire, family).map_err(|fault| fault.under(format!("{field}[{index}]")))
            };
            let rules = rules.iter().flatten().enumerate().map(read);
            rules.collect::<Result<Vec<_>, _>>().map_err(|fault| object.faulty(fault))
        };
        Ok(Self {
            name: object.name().to_owned(),
            export_v4: rules("exportV4", &spec.export_v4, Family::V4)?,
            import_v4: rules("importV4", &spec.import_v4, Family::V4)?,
            export_v6: rules("exportV6", &spec.export_v6, Family::V6)?,
            import_v6: rules("importV6", &spec.import_v6, Family::V6)?,
        })
    }
}

fn rule(wire: &FilterRuleSpec, family: Family) -> Result<FilterRule, Fault> {
    let action = wire.action.as_str();
    if action.is_empty() {
        return Err(Fault::new("action", "", "is missing: use Accept or Reject"));
    }
    let actions = [("Accept", true), ("Reject", false)];
    let is_accepted = word("action", Some(action), &actions, false)?;
    let sessions = [("eBGP", Some(SessionKind::External)), ("iBGP", Some(SessionKind::Internal))];
    let values = wire.communities.iter().flat_map(|communities| &communities.values);
    let path = wire.as_path_prefix.iter().flatten();
    Ok(FilterRule {
        is_accepted,
        prefix: prefix(wire, family)?,
        from_peers_only: word("source", wire.source.as_deref(), &[("RemotePeers", true)], false)?,
        interface: wire.interface.clone().filter(|name| !name.is_empty()),
        session: word("peerType", wire.peer_type.as_deref(), &sessions, None)?,
        communities: values
            .map(|text| filter_community("communities.values", text))
            .collect::<Result<_, _>>()?,
        as_path_prefix: path
            .filter_map(|value| asn("asPathPrefix", Some(value)).transpose())
            .collect::<Result<_, _>>()?,
        priority: within("priority", wire.priority, PRIORITIES)?,
        operations: operations(wire, is_accepted)?,
    })
}

fn filter_community(field: &str, text: &str) -> Result<model::peer::Community, Fault> {
    let problem = "is no community: use aa:nn or aa:nn:mm";
    community(text).ok_or_else(|| Fault::new(field, text, problem))
}

fn prefix(wire: &FilterRuleSpec, family: Family) -> Result<Option<PrefixMatch>, Fault> {
    let operators = [
        ("Equal", Some(PrefixOperator::Equal)),
        ("NotEqual", Some(PrefixOperator::NotEqual)),
        ("In", Some(PrefixOperator::In)),
        ("NotIn", Some(PrefixOperator::NotIn)),
    ];
    let operator = word("matchOperator", wire.match_operator.as_deref(), &operators, None)?;
    let text = wire.cidr.as_deref().filter(|text| !text.is_empty());
    let (text, operator) = match (text, operator) {
        (Some(text), Some(operator)) => (text, operator),
        (None, None) if wire.prefix_length.is_none() => return Ok(None),
        (None, _) => {
            let problem = "is missing: matchOperator and prefixLength need a network";
            return Err(Fault::new("cidr", "", problem));
        }
        (Some(_), None) => {
            let problem = "is missing: use Equal, NotEqual, In or NotIn beside cidr";
            return Err(Fault::new("matchOperator", "", problem));
        }
    };
    let cidr: Cidr = parse("cidr", text)?;
    if cidr.family() != family {
        let problem = format!("is not {family}: use the list of rules of its family");
        return Err(Fault::new("cidr", text, problem));
    }
    let lengths = wire.prefix_length.as_ref();
    let bound = |field, number| within(field, number, 0..=family.bits());
    let min = bound("prefixLength.min", lengths.and_then(|lengths| lengths.min))?;
    let max = bound("prefixLength.max", lengths.and_then(|lengths| lengths.max))?;
    let lengths = min.unwrap_or_else(|| cidr.prefix_len())..=max.unwrap_or_else(|| family.bits());
    if lengths.is_empty() {
        let problem = format!("is more than the maximum: use at most {}", lengths.end());
        return Err(Fault::new("prefixLength.min", lengths.start(), problem));
    }
    Ok(Some(PrefixMatch { cidr, operator, lengths }))
}

fn operations(wire: &FilterRuleSpec, is_accepted: bool) -> Result<Vec<FilterOperation>, Fault> {
    let operations = wire.operations.as_deref().unwrap_or_default();
    let count = operations.len();
    if count > MAX_OPERATIONS {
        return Err(Fault::new("operations", count, format!("too many: use {MAX_OPERATIONS}")));
    }
    if !is_accepted && count > 0 {
        let problem = "rejected routes cannot be changed: use them with action Accept";
        return Err(Fault::new("operations", "", problem));
    }
    let read = |(index, wire)| {
        operation(wire).map_err(|fault| fault.under(format!("operations[{index}]")))
    };
    operations.iter().enumerate().map(read).collect()
}

fn operation(wire: &FilterOperationSpec) -> Result<FilterOperation, Fault> {
    match (&wire.add_community, &wire.prepend_as_path, &wire.set_priority) {
        (Some(add), None, None) => {
            filter_community("addCommunity.value", &add.value).map(FilterOperation::AddCommunity)
        }
        (None, Some(prepend), None) => {
            let read = |value| asn("prependASPath.prefix", Some(value)).transpose();
            let path: Result<Vec<_>, _> = prepend.prefix.iter().filter_map(read).collect();
            let path = path?;
            if path.is_empty() {
                let problem = "is missing: list the AS numbers to put in front";
                return Err(Fault::new("prependASPath.prefix", "", problem));
            }
            Ok(FilterOperation::PrependAsPath(path))
        }
        (None, None, Some(set)) => {
            let priority = within("setPriority.value", Some(set.value), PRIORITIES)?;
            Ok(FilterOperation::SetPriority(priority.unwrap_or(*PRIORITIES.start())))
        }
        _ => {
            let problem = "one is needed: addCommunity, prependASPath or setPriority";
            Err(Fault::new("addCommunity", "", problem))
        }
    }
}
