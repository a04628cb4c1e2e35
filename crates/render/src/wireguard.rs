//! What WireGuard needs of the tables, and what holds it in strict mode.

use std::collections::BTreeMap;

use model::net::{Family, IfName};
use model::policy::Protocol;
use model::ruleset::{InterfacePattern, Is, Mark, Match, Rule, Side, Statement, Verdict, Way};

/// What WireGuard needs of the tables; the default is nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wireguard {
    /// The device of each family, and the UDP port of the packets that carry others.
    pub devices: BTreeMap<Family, (IfName, u16)>,
    /// The mark that such packets get as they come in, where nodes' own packets are encrypted, too
    /// (`wireguardHostEncryptionEnabled`): as the kernel looks for the way back to their
    /// senders, they must not seem to have come by the wrong device.
    pub incoming: Option<Mark>,
    /// Must packets to pods of other nodes not leave but by these devices (`wireguardStrictMode`)?
    pub is_strict: bool,
}

impl Wireguard {
    /// Before connections are tracked, for packets that `come` from outside.
    pub(crate) fn incoming(&self, family: Family, come: Vec<Match>) -> Option<Rule> {
        let mark = self.incoming?;
        let matches = come.into_iter().chain(self.packets(family)?).collect();
        Some(Rule::new(matches, vec![Statement::SetMark(mark)]).noted("WireGuard"))
    }

    /// For packets between this machine and the nodes in the set `hosts`, before policy of hosts.
    ///
    /// Who else sends them is told by WireGuard itself, that answers nobody without a key.
    pub(crate) fn exchanged(&self, family: Family, (side, hosts): (Side, &str)) -> Option<Rule> {
        let mut matches = self.packets(family)?;
        matches.push(Match::InSet(side, Is::In, hosts.to_owned()));
        Some(Rule::new(matches, vec![Verdict::Accept.into()]).noted("WireGuard between nodes"))
    }

    /// What this machine sends to pods has the device's address: others may not come by it, unless
    /// nodes' own packets are encrypted, too.
    pub(crate) fn translated(&self, family: Family, hosts: &str) -> Option<Rule> {
        let (name, _) = self.devices.get(&family).filter(|_| self.incoming.is_none())?;
        let out = Match::Interface(Way::Out, Is::In, InterfacePattern::Name(name.clone()));
        let own = Match::InSet(Side::Source, Is::In, hosts.to_owned());
        let statement = Statement::Masquerade { ports: None };
        Some(Rule::new(vec![out, own], vec![statement]).noted("this machine through WireGuard"))
    }

    /// After routing: drops what is for a pool, and leaves by anything but workloads' interfaces
    /// (which `leave` excludes) and ours, whatever has become of routes, rules and devices.
    pub(crate) fn strict(&self, leave: Vec<Match>, pools: &str) -> Option<Rule> {
        if !self.is_strict || self.devices.is_empty() {
            return None;
        }
        let names = self.devices.values().map(|(name, _)| name.clone());
        let others = names
            .chain("lo".parse::<IfName>())
            .map(|name| Match::Interface(Way::Out, Is::NotIn, InterfacePattern::Name(name)));
        let mut matches: Vec<Match> = leave.into_iter().chain(others).collect();
        matches.push(Match::InSet(Side::Destination, Is::In, pools.to_owned()));
        let rule = Rule::new(matches, vec![Verdict::Drop.into()]);
        Some(rule.noted("not encrypted: WireGuard is strict"))
    }

    fn packets(&self, family: Family) -> Option<Vec<Match>> {
        let (_, port) = self.devices.get(&family)?;
        let port = Match::Ports(Side::Destination, Is::In, (*port, *port));
        Some(vec![Match::Protocol(Is::In, Protocol::UDP), port])
    }
}
