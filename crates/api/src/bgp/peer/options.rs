//! Annotations of a BGPPeer: what Calico's definition of it has no field for.

use std::collections::BTreeSet;
use std::time::Duration;

use model::desired::{AddPath, BfdSettings, Role};
use model::net::{Family, IfName};
use model::peer::PeerOptions;

use super::BgpPeer;
use crate::Invalid;
use crate::annotations::{
    BGP_ADD_PATH, BGP_BFD_INTERVAL, BGP_BFD_MULTIPLIER, BGP_EXTENDED_MESSAGES, BGP_FAMILIES,
    BGP_INTERFACE, BGP_MAX_PREFIXES, BGP_REQUIRE_POLICY, BGP_ROLE, VRF_NAME,
};
use crate::invalid::{Fault, parse, within, word};
use crate::time::duration;

/// How often BFD packets may be sent at most and at least.
const BFD_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// How many BFD packets are missed before the path counts as down, unless configured otherwise.
const BFD_MULTIPLIER: u8 = 3;

/// Reads all of them.
pub(super) fn of(object: &BgpPeer) -> Result<PeerOptions, Invalid> {
    let read = |name: &str| object.annotation(name);
    let switch =
        |name: &str| word(name, read(name).as_deref(), &[("false", false), ("true", true)], false);
    let options = || {
        // Without its VRF the session would bring a tenant's network to everybody.
        if let Some(vrf) = read(VRF_NAME) {
            let problem = "calico-node has no sessions inside a VRF, so there is none; delete the \
                           annotation to have one that is everybody's";
            return Err(Fault::new(VRF_NAME, vrf, problem));
        }
        Ok(PeerOptions {
            families: families(read(BGP_FAMILIES).as_deref())?,
            max_prefixes: number(
                BGP_MAX_PREFIXES,
                read(BGP_MAX_PREFIXES).as_deref(),
                1..=u32::MAX,
            )?,
            role: role(read(BGP_ROLE).as_deref())?,
            allows_extended_messages: switch(BGP_EXTENDED_MESSAGES)?,
            requires_policy: switch(BGP_REQUIRE_POLICY)?,
            add_path: add_path(read(BGP_ADD_PATH).as_deref())?,
            bfd: bfd(read(BGP_BFD_INTERVAL).as_deref(), read(BGP_BFD_MULTIPLIER).as_deref())?,
        })
    };
    options().map_err(|fault: Fault| object.misannotated(fault))
}

/// Reads on which interface the peer is found.
pub(super) fn interface(object: &BgpPeer) -> Result<Option<IfName>, Invalid> {
    let text = object.annotation(BGP_INTERFACE);
    let name = text.map(|text| parse(BGP_INTERFACE, text.trim())).transpose();
    name.map_err(|fault: Fault| object.misannotated(fault))
}

fn families(text: Option<&str>) -> Result<Option<BTreeSet<Family>>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let words = [("ipv4", Some(Family::V4)), ("ipv6", Some(Family::V6))];
    let read = |part: &str| word(BGP_FAMILIES, Some(part.trim()), &words, None);
    let families: BTreeSet<Option<Family>> = text.split(',').map(read).collect::<Result<_, _>>()?;
    let families: BTreeSet<Family> = families.into_iter().flatten().collect();
    if families.is_empty() {
        return Err(Fault::new(BGP_FAMILIES, text, "names no family: use ipv4, ipv6 or ipv4,ipv6"));
    }
    Ok(Some(families))
}

fn role(text: Option<&str>) -> Result<Option<Role>, Fault> {
    let roles = [
        ("provider", Some(Role::Provider)),
        ("rs", Some(Role::RouteServer)),
        ("rs-client", Some(Role::RouteServerClient)),
        ("customer", Some(Role::Customer)),
        ("peer", Some(Role::Peer)),
    ];
    word(BGP_ROLE, text, &roles, None)
}

fn add_path(text: Option<&str>) -> Result<AddPath, Fault> {
    let of = |receives, sends| AddPath { receives, sends };
    let words = [
        ("both", of(true, true)),
        ("receive", of(true, false)),
        ("send", of(false, true)),
        ("none", of(false, false)),
    ];
    word(BGP_ADD_PATH, text, &words, AddPath::default())
}

fn bfd(interval: Option<&str>, multiplier: Option<&str>) -> Result<Option<BfdSettings>, Fault> {
    let multiplier = number(BGP_BFD_MULTIPLIER, multiplier, 1..=u8::MAX)?;
    let Some(interval) = duration(BGP_BFD_INTERVAL, interval)? else {
        return match multiplier {
            None => Ok(None),
            Some(multiplier) => {
                let problem = format!("has no effect alone: set {BGP_BFD_INTERVAL} too");
                Err(Fault::new(BGP_BFD_MULTIPLIER, multiplier, problem))
            }
        };
    };
    if !BFD_INTERVALS.contains(&interval) {
        let problem = "out of range: use 10ms to 60s";
        return Err(Fault::new(BGP_BFD_INTERVAL, format!("{interval:?}"), problem));
    }
    Ok(Some(BfdSettings { interval, multiplier: multiplier.unwrap_or(BFD_MULTIPLIER) }))
}

fn number<T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy>(
    name: &str,
    text: Option<&str>,
    range: std::ops::RangeInclusive<T>,
) -> Result<Option<T>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let problem = || Fault::new(name, text, "is no number: use digits only");
    let number = text.trim().parse().map_err(|_| problem())?;
    within(name, Some(number), range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::METADATA;

    fn peer(annotations: &[(&str, &str)]) -> BgpPeer {
        let mut peer = BgpPeer::default();
        let owned = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        peer.metadata.annotations = Some(owned.collect());
        peer
    }

    #[test]
    fn without_annotations_there_is_nothing_special() {
        assert_eq!(of(&peer(&[])).unwrap(), PeerOptions::default());
    }

    #[test]
    fn a_session_inside_a_vrf_is_refused() {
        let refused = of(&peer(&[(VRF_NAME, "red")])).unwrap_err().to_string();
        assert!(refused.contains("no sessions inside a VRF"), "{refused}");
    }

    #[test]
    fn every_annotation_is_read() {
        let options = of(&peer(&[
            (BGP_FAMILIES, "ipv6, ipv4"),
            (BGP_MAX_PREFIXES, "1000"),
            (BGP_ROLE, "rs-client"),
            (BGP_EXTENDED_MESSAGES, "true"),
            (BGP_REQUIRE_POLICY, "true"),
            (BGP_ADD_PATH, "receive"),
            (BGP_BFD_INTERVAL, "300ms"),
        ]));
        let expected = PeerOptions {
            families: Some(Family::ALL.into()),
            max_prefixes: Some(1000),
            role: Some(Role::RouteServerClient),
            allows_extended_messages: true,
            requires_policy: true,
            add_path: AddPath { receives: true, sends: false },
            bfd: Some(BfdSettings { interval: Duration::from_millis(300), multiplier: 3 }),
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn what_calicos_programs_keep_for_people_is_read_too() {
        let json = r#"{"annotations": {"bgp.projectcalico.org/max-prefixes": "7"}}"#;
        assert_eq!(of(&peer(&[(METADATA, json)])).unwrap().max_prefixes, Some(7));
    }
}
