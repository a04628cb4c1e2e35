//! The profile of a network: its endpoints reach each other and everybody, and nobody else reaches
//! more of them than what is published.

use std::collections::BTreeMap;

use api::{EntityRuleSpec, Profile, ProfileSpec, RuleSpec};

use crate::shared;

/// The name of all ports that hosts publish.
pub(crate) const PUBLISHED: &str = "published";
/// The longest name of an object.
const MAX_NAME: usize = 253;

/// Returns the name of a network's profile.
///
/// It is the network's where that can be an object's name; otherwise, what is left of it and a
/// number that follows from all of it.
pub(crate) fn name(network: &str) -> String {
    let is_fine = model::id::is_dns_subdomain(network) && !api::is_reserved_profile(network);
    if is_fine {
        return network.to_owned();
    }
    let plain = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() { c } else { '-' }
    };
    let plain: String = network.chars().map(plain).take(MAX_NAME.saturating_sub(24)).collect();
    format!("net-{}-{:016x}", plain.trim_matches('-'), fnv(network))
}

/// Returns the profile that a new network has.
pub(crate) fn new(network: &str) -> Profile {
    let allow = || RuleSpec { action: "Allow".to_owned(), ..RuleSpec::default() };
    let selector = Some(format!("has({network})"));
    let source = Some(EntityRuleSpec { selector, ..EntityRuleSpec::default() });
    let published = ["TCP", "UDP", "SCTP"].map(|protocol| {
        let ports = Some(vec![PUBLISHED.into()]);
        let destination = Some(EntityRuleSpec { ports, ..EntityRuleSpec::default() });
        RuleSpec { protocol: Some(protocol.into()), destination, ..allow() }
    });
    let rules = std::iter::once(RuleSpec { source, ..allow() }).chain(published);
    let spec = ProfileSpec {
        ingress: Some(rules.collect()),
        egress: Some(vec![allow()]),
        labels_to_apply: Some(BTreeMap::from([(network.to_owned(), String::new())])),
        ..ProfileSpec::default()
    };
    let mut profile = Profile::named(name(network), spec);
    shared::mark(&mut profile.metadata);
    profile
}

/// Does the profile say what it said when it was made?
pub(crate) fn is_as_made(profile: &Profile) -> bool {
    let labels = profile.spec.labels_to_apply.iter().flatten();
    let mut networks = labels.map(|(name, _)| name);
    let (Some(network), None) = (networks.next(), networks.next()) else { return false };
    new(network).spec == profile.spec
}

/// Returns a number that follows from the text, the same on every host (FNV-1a, 64 bits).
fn fnv(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_networks_where_they_can_be() {
        assert_eq!(name("web"), "web");
        assert_eq!(name("shop.front-1"), "shop.front-1");
        let (one, other) = (name("My_Net"), name("my.net_"));
        assert!(one.starts_with("net-my-net-") && other.starts_with("net-my-net-"));
        assert_ne!(one, other);
        for odd in ["kns.default", "projectcalico-default-allow", &"x".repeat(300), "___"] {
            let name = name(odd);
            assert!(model::id::is_dns_subdomain(&name), "{name}");
            assert!(!api::is_reserved_profile(&name), "{name}");
        }
    }

    #[test]
    fn endpoints_of_a_network_reach_each_other_by_its_tag() {
        let (profile, faults) = api::profile(&new("My_Net-1.x"));
        assert!(faults.is_empty(), "{faults:?}");
        assert!(profile.labels_to_apply.contains_key("My_Net-1.x"));
        let [ingress, published @ ..] = &profile.ingress[..] else { panic!("rules") };
        assert_eq!(published.len(), 3);
        let selector = ingress.source.selector.clone().unwrap();
        assert!(selector.matches(&profile.labels_to_apply));
        assert!(!selector.matches(&BTreeMap::new()));
        assert_eq!(profile.egress.len(), 1);
    }

    #[test]
    fn what_people_have_changed_is_known() {
        let mut profile = new("web");
        assert!(is_as_made(&profile));
        profile.spec.egress = None;
        assert!(!is_as_made(&profile));
        profile.spec.labels_to_apply = None;
        assert!(!is_as_made(&profile));
    }
}
