//! Tunnels between nodes: their packets come from nodes only, and are not tracked.
//!
//! Whoever can send to this machine could otherwise put packets into its pods' network past every
//! router on the way, with any source that he likes.

use std::collections::BTreeSet;

use model::net::{Cidr, Family, IfName};
use model::policy::Protocol;
use model::pool::{Encapsulation, IpPool};
use model::ruleset::{InterfacePattern, Is, Match, Rule, SetName, Side, Statement, Verdict, Way};

/// The protocol number of IP in IP (RFC 2003).
const IPIP: Protocol = Protocol(4);

/// Which tunnels there are, as far as packets are concerned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tunnels {
    /// Whether IP in IP is used; `None` is whether a pool wants it (`ipipEnabled`).
    pub ipip: Option<bool>,
    /// Whether VXLAN is used; `None` is whether a pool wants it (`vxlanEnabled`).
    pub vxlan: Option<bool>,
    /// The UDP port of VXLAN (`vxlanPort`).
    pub port: u16,
    /// Who else may send through tunnels (`externalNodesList`).
    pub external: Vec<Cidr>,
    /// What pools want.
    pub pools: BTreeSet<Pool>,
}

/// What a pool wants of tunnels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Pool {
    /// IP in IP.
    Ipip,
    /// VXLAN, for this family.
    Vxlan(Family),
    /// A VRF's, which is always VXLAN, whatever administrators say of the others' tunnels.
    Vrf(Family),
}

impl Pool {
    /// Returns what a pool wants, if anything.
    #[must_use]
    pub fn of(pool: &IpPool) -> Option<Self> {
        let family = pool.family();
        if pool.vrf.is_some() {
            return Some(Self::Vrf(family));
        }
        match pool.encapsulation {
            Encapsulation::None => None,
            Encapsulation::Ipip(_) => Some(Self::Ipip),
            Encapsulation::Vxlan(_) => Some(Self::Vxlan(family)),
        }
    }
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { ipip: None, vxlan: None, port: 4789, external: Vec::new(), pools: BTreeSet::new() }
    }
}

impl Tunnels {
    fn is_ipip(&self, family: Family) -> bool {
        let by_pool = self.pools.contains(&Pool::Ipip);
        family == Family::V4 && self.ipip.unwrap_or(by_pool)
    }

    fn is_vxlan(&self, family: Family) -> bool {
        let by_pool = self.pools.contains(&Pool::Vxlan(family));
        match (family, self.vxlan) {
            (Family::V4, Some(is_enabled)) => is_enabled,
            (Family::V4 | Family::V6, setting) => setting != Some(false) && by_pool,
        }
    }

    /// Are there packets of VXLAN, its own devices' or VRFs'?
    fn has_vxlan(&self, family: Family) -> bool {
        self.is_vxlan(family) || self.pools.contains(&Pool::Vrf(family))
    }

    /// Returns the marks of packets of each tunnel that is used, and what it is called.
    fn kinds(&self, family: Family) -> impl Iterator<Item = (Vec<Match>, &'static str)> {
        let vxlan = self.has_vxlan(family).then(|| (self.vxlan_packets(), "VXLAN"));
        let ipip = vec![Match::Protocol(Is::In, IPIP)];
        let ipip = self.is_ipip(family).then_some((ipip, "IP in IP"));
        vxlan.into_iter().chain(ipip)
    }

    fn vxlan_packets(&self) -> Vec<Match> {
        let port = Match::Ports(Side::Destination, Is::In, (self.port, self.port));
        vec![Match::Protocol(Is::In, Protocol::UDP), port]
    }

    /// For packets to this machine, before all else: the nodes are in the set `hosts`.
    pub(crate) fn input(&self, family: Family, hosts: &str) -> Vec<Rule> {
        self.kinds(family)
            .flat_map(|(packets, name)| {
                let node = Match::InSet(Side::Source, Is::In, hosts.to_owned());
                let external = self.external.iter().filter(|net| net.family() == family);
                let external = external.map(|net| Match::Net(Side::Source, Is::In, *net));
                let accept = |sender| {
                    let matches = packets.iter().cloned().chain([sender]).collect();
                    let rule = Rule::new(matches, vec![Verdict::Accept.into()]);
                    rule.noted(format!("{name} from a node"))
                };
                let mut rules: Vec<Rule> =
                    std::iter::once(node).chain(external).map(accept).collect();
                let drop = Rule::new(packets.clone(), vec![Verdict::Drop.into()]);
                rules.push(drop.noted(format!("{name} from a stranger")));
                rules
            })
            .collect()
    }

    /// For packets of this machine, before policy of hosts.
    pub(crate) fn output(&self, family: Family, hosts: &str) -> Vec<Rule> {
        let accept = |(mut packets, name): (Vec<Match>, &str)| {
            packets.push(Match::InSet(Side::Destination, Is::In, hosts.to_owned()));
            let rule = Rule::new(packets, vec![Verdict::Accept.into()]);
            rule.noted(format!("{name} to a node"))
        };
        self.kinds(family).map(accept).collect()
    }

    /// Before connections are tracked: each flow of pods has a source port of its own, and would
    /// be one more connection to the kernel.
    pub(crate) fn untracked(&self, family: Family) -> Option<Rule> {
        let rule = || Rule::new(self.vxlan_packets(), vec![Statement::NoTrack]).noted("VXLAN");
        self.has_vxlan(family).then(rule)
    }

    /// What this machine sends through a tunnel has the tunnel's address, or the answer would come
    /// past it: the fabric need not know pods.
    pub(crate) fn translated(&self, family: Family, hosts: &SetName) -> Vec<Rule> {
        let vxlan = self.is_vxlan(family).then_some(match family {
            Family::V4 => "vxlan.calico",
            Family::V6 => "vxlan-v6.calico",
        });
        let ipip = self.is_ipip(family).then_some("tunl0");
        let names = vxlan.into_iter().chain(ipip).filter_map(|name| name.parse::<IfName>().ok());
        let rule = |name| {
            let out = Match::Interface(Way::Out, Is::In, InterfacePattern::Name(name));
            let own = Match::InSet(Side::Source, Is::In, hosts.clone());
            let statement = Statement::Masquerade { ports: None };
            Rule::new(vec![out, own], vec![statement]).noted("this machine through a tunnel")
        };
        names.map(rule).collect()
    }
}
