//! VRFs: connection tracking by zones, and a guard between tenants.
//!
//! What comes in by a link under a VRF's device passes twice where packets arrive: first as the
//! link's, then as the device's. All is done the first time. Later it is the device's, and its
//! link is told beside (`sdifname`). What this machine sends by such a link passes twice where it
//! is sent, the other way round.
//!
//! ```text
//!  raw-PREROUTING ─ by link ─► cali-zone-5001: its connections are those of zone 5001
//!  filter-FORWARD ─► cali-vrf-guard
//!     leaves by a link of zone 5001 ─► cali-to-zone-5001: has it come from a VRF of that zone?
//!     leaves by another link, and came from a VRF with a zone ─► dropped
//! ```

use std::collections::BTreeMap;

use model::desired::policy::WorkloadPolicy;
use model::net::{Family, IfName};
use model::ruleset::{
    Element, ElementKind, InterfacePattern, Is, Match, Rule, Statement, Verdict, Way,
};
use model::vrf::{VrfId, VrfName, Vrfs, Zone};

use crate::fragment::Part;
use crate::frame::map_of;

/// From a VRF's links to what gives their packets a zone, in the order of packets' ways.
const LINKS: &str = "cali-vrf-links";
const ZONES_IN: &str = "cali-vrf-zones-in";
const ZONES_OUT: &str = "cali-vrf-zones-out";
/// VRFs' devices: what was looked at as a link's is not looked at again.
const DEVICES: &str = "cali-vrf-devices";
const GUARD: &str = "cali-vrf-guard";
/// From a zone's links to its guard, and the devices whose packets leave by no other links.
const GUARD_LINKS: &str = "cali-vrf-guard-links";
const GUARD_DEVICES: &str = "cali-vrf-guard-devices";
const PASS: &str = "cali-vrf-pass";
const LEAVES: &str = "cali-vrf-leaves";

/// The cluster's VRFs, as far as packets are concerned; the default is none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tenants {
    /// The VRFs, with their numbers and zones.
    pub vrfs: BTreeMap<VrfName, (VrfId, Zone)>,
    /// What else this machine has under their devices than workloads and tunnels.
    pub links: BTreeMap<IfName, VrfName>,
}

impl Tenants {
    /// Returns those that the pools make.
    #[must_use]
    pub fn of(vrfs: &Vrfs) -> Self {
        let zone = |name: &VrfName| vrfs.zone(Some(name));
        let vrfs = vrfs.by_name.iter();
        let vrfs = vrfs.map(|(name, vrf)| (name.clone(), (vrf.id, zone(name)))).collect();
        Self { vrfs, ..Self::default() }
    }

    /// Are there any?
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.vrfs.is_empty()
    }

    /// Returns how the links are told by which packets have come, where these are for this machine
    /// or forwarded.
    pub(crate) fn ways_in(&self) -> &'static [Way] {
        if self.is_used() { &[Way::In, Way::Slave] } else { &[Way::In] }
    }

    fn when_used(&self, rules: impl FnOnce() -> Vec<Rule>) -> Vec<Rule> {
        if self.is_used() { rules() } else { Vec::new() }
    }

    /// First of all that arrives, and first of all that this machine sends: the zone, before
    /// connections are tracked.
    pub(crate) fn zones(&self, way: Way) -> Vec<Rule> {
        self.when_used(|| match way {
            Way::Out => vec![pass(way), jump(ZONES_OUT)],
            Way::In | Way::Slave => vec![jump(ZONES_IN), pass(way)],
        })
    }

    /// Lets pass what has passed, or will, as a link's.
    pub(crate) fn pass(&self, way: Way) -> Vec<Rule> {
        self.when_used(|| vec![pass(way)])
    }

    /// Before all else that is forwarded.
    pub(crate) fn guard(&self) -> Vec<Rule> {
        self.when_used(|| vec![jump(GUARD)])
    }

    /// Before addresses are translated: those of tenants mean others elsewhere.
    pub(crate) fn untranslated(&self) -> Vec<Rule> {
        let zone = Match::Zone(Is::NotIn, Zone::Default.number());
        self.when_used(|| vec![Rule::new(vec![zone], vec![Verdict::Accept.into()]).noted("VRF")])
    }

    /// Returns the mark of packets that are no tenants'.
    pub(crate) fn default_only(&self) -> Option<Match> {
        self.is_used().then(|| Match::Zone(Is::In, Zone::Default.number()))
    }

    /// Drops what leaves by VRFs' tunnels, which are not encrypted.
    pub(crate) fn strict(&self, family: Family) -> Vec<Rule> {
        let tunnels = VrfId::tunnel_prefix(family).to_owned();
        let out = Match::Interface(Way::Out, Is::In, InterfacePattern::Prefix(tunnels));
        let drop = Rule::new(vec![out], vec![Verdict::Drop.into()]);
        self.when_used(|| vec![drop.noted("not encrypted: WireGuard is strict")])
    }

    /// Adds the chains and maps of all VRFs.
    pub(crate) fn add(&self, part: &mut Part<'_>) {
        if !self.is_used() {
            return;
        }
        add_maps(part);
        let devices = map_of(DEVICES);
        part.set(devices.clone(), ElementKind::Dispatch, []);
        let dispatch =
            |way, map: &str| Rule::new(vec![], vec![Statement::Dispatch(way, map_of(map))]);
        part.chain(ZONES_IN, vec![dispatch(Way::In, LINKS)]);
        part.chain(ZONES_OUT, vec![dispatch(Way::Out, LINKS)]);
        part.set(map_of(GUARD_DEVICES), ElementKind::Dispatch, []);
        let guard = vec![dispatch(Way::Out, GUARD_LINKS), dispatch(Way::In, GUARD_DEVICES)];
        part.chain(GUARD, guard);
        let leaves = Rule::new(vec![], vec![Verdict::Drop.into()]);
        part.chain(
            LEAVES,
            vec![leaves.noted("out of a VRF that exchanges no routes with the receiver's")],
        );
        for (name, (id, zone)) in &self.vrfs {
            let Some(device) = name.device() else { continue };
            part.element(devices.clone(), Element::Dispatch(device.clone(), PASS.to_owned()));
            let Zone::Vrfs(number) = *zone else { continue };
            add_zone(part, number);
            let to = |chain: &str| Element::Dispatch(device.clone(), chain.to_owned());
            part.element(map_of(&to_zone(number)), to(PASS));
            part.element(map_of(GUARD_DEVICES), to(LEAVES));
            part.element(map_of(LINKS), to(&zone_chain(number)));
            let others = self.links.iter().filter(|(_, vrf)| *vrf == name).map(|(link, _)| link);
            let tunnel = id.tunnel(part.family);
            for link in others.chain(&tunnel) {
                add_link(part, link, number);
            }
        }
    }
}

/// Adds a workload's link, if it is in a zone of its own.
pub(crate) fn add_workload(part: &mut Part<'_>, link: &IfName, workload: &WorkloadPolicy) {
    if let Zone::Vrfs(number) = workload.zone() {
        add_maps(part);
        add_zone(part, number);
        add_link(part, link, number);
    }
}

fn add_maps(part: &mut Part<'_>) {
    for map in [LINKS, GUARD_LINKS] {
        part.set(map_of(map), ElementKind::Dispatch, []);
    }
    part.chain(PASS, Vec::new());
}

/// Adds what all links of a zone lead to.
fn add_zone(part: &mut Part<'_>, number: u16) {
    part.chain(zone_chain(number), vec![Rule::new(vec![], vec![Statement::SetZone(number)])]);
    let guard = to_zone(number);
    let map = map_of(&guard);
    part.set(map.clone(), ElementKind::Dispatch, []);
    let drop = |matches, note: &str| Rule::new(matches, vec![Verdict::Drop.into()]).noted(note);
    let rules = vec![
        // Whoever translated it meant somebody without a VRF.
        drop(vec![Match::Translated(Is::In)], "a translated address into a VRF"),
        Rule::new(vec![], vec![Statement::Dispatch(Way::In, map)]),
        drop(vec![], "into a VRF that exchanges no routes with the sender's"),
    ];
    part.chain(guard, rules);
}

fn add_link(part: &mut Part<'_>, link: &IfName, number: u16) {
    let to = |chain| Element::Dispatch(link.clone(), chain);
    part.element(map_of(LINKS), to(zone_chain(number)));
    part.element(map_of(GUARD_LINKS), to(to_zone(number)));
}

fn zone_chain(number: u16) -> String {
    format!("cali-zone-{number}")
}

fn to_zone(number: u16) -> String {
    format!("cali-to-zone-{number}")
}

fn jump(chain: &str) -> Rule {
    Rule::new(vec![], vec![Verdict::Jump(chain.to_owned()).into()])
}

fn pass(way: Way) -> Rule {
    Rule::new(vec![], vec![Statement::Dispatch(way, map_of(DEVICES))])
}
