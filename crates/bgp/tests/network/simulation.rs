//! A network of speakers: connections with delay, a kernel for each node, and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp::{ConnectionId, Input, Output, PeerStatus, Speaker, SpeakerConfig};
use model::desired::{Advertisements, BgpSession, Origination, Reflection};
use model::net::{Asn, Cidr, Family};
use model::peer::Community;
use model::time::Timestamp;

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub(crate) fn node_addr(node: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => format!("10.0.0.{}", node + 1).parse().unwrap(),
        Family::V6 => format!("fd00::{:x}", node + 1).parse().unwrap(),
    }
}

fn block(node: usize, family: Family) -> Cidr {
    match family {
        Family::V4 => cidr(&format!("10.244.{node}.0/26")),
        Family::V6 => cidr(&format!("fd00:244:0:{node:x}::/122")),
    }
}

struct Node {
    speaker: Option<Speaker>,
    sessions: Vec<BgpSession>,
    advertisements: Advertisements,
    kernel: BTreeMap<Cidr, BTreeSet<IpAddr>>,
    has_converged: bool,
    has_lived: bool,
}

/// One end of a connection.
type End = (usize, ConnectionId);

enum Event {
    Input(usize, u32, Input),
    Dial { from: End, life: u32, to: usize },
}

pub(crate) struct Network {
    family: Family,
    nodes: Vec<Node>,
    /// How often each node has been started, so that events for an earlier life are dropped.
    lives: Vec<u32>,
    ends: BTreeMap<End, End>,
    events: BTreeMap<(Timestamp, u64), Event>,
    last_arrival: BTreeMap<End, Timestamp>,
    now: Timestamp,
    sequence: u64,
    random: u64,
    is_partitioned: bool,
    /// Nodes that take seconds to read what they are sent.
    slow: BTreeSet<usize>,
    send_limit: usize,
    are_withdrawals_forbidden: bool,
    pub(crate) connects: usize,
    pub(crate) sends: usize,
}

impl Network {
    pub(crate) fn mesh(count: usize, seed: u64) -> Self {
        Self::mesh_of(count, seed, Family::V4)
    }

    pub(crate) fn mesh_of(count: usize, seed: u64, family: Family) -> Self {
        Self::new(&vec![64_512; count], seed, family, |a, b| a != b, true)
    }

    pub(crate) fn mesh_without_passive(count: usize, seed: u64) -> Self {
        Self::new(&vec![64_512; count], seed, Family::V4, |a, b| a != b, false)
    }

    pub(crate) fn chain(asns: [u32; 3], seed: u64) -> Self {
        Self::new(&asns, seed, Family::V4, |a, b| a.abs_diff(b) == 1, true)
    }

    fn new(
        asns: &[u32],
        seed: u64,
        family: Family,
        is_peer: impl Fn(usize, usize) -> bool,
        has_passive: bool,
    ) -> Self {
        let count = asns.len();
        let node = |node: usize| Node {
            speaker: None,
            sessions: (0..count)
                .filter(|other| is_peer(node, *other))
                .map(|other| BgpSession {
                    local_addr: Some(node_addr(node, family)),
                    is_passive: has_passive && other > node,
                    ..BgpSession::new(
                        format!("Mesh_{other}"),
                        node_addr(other, family),
                        Asn(asns[node]),
                        Asn(asns[other]),
                    )
                })
                .collect(),
            advertisements: Advertisements {
                originated: BTreeMap::from([(block(node, family), Origination::default())]),
                exportable: BTreeSet::from([cidr("10.244.0.0/16"), cidr("fd00:244::/32")]),
                not_exported: BTreeSet::new(),
                ..Advertisements::default()
            },
            kernel: BTreeMap::new(),
            has_converged: false,
            has_lived: false,
        };
        let mut network = Self {
            family,
            nodes: (0..count).map(node).collect(),
            lives: vec![0; count],
            ends: BTreeMap::new(),
            events: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            now: Timestamp::ZERO,
            sequence: 0,
            random: seed * 2 + 1,
            is_partitioned: false,
            slow: BTreeSet::new(),
            send_limit: SpeakerConfig::SEND_LIMIT,
            are_withdrawals_forbidden: false,
            connects: 0,
            sends: 0,
        };
        (0..count).for_each(|node| network.start(node));
        network
    }

    fn random(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % limit
    }

    /// Starts a node's speaker; it is restarting if it has lived before.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.random(1 << 30);
        let has_lived = self.nodes[node].has_lived;
        let config = SpeakerConfig {
            identifier: bgp::BgpIdentifier(0x0a00_0001 + u32::try_from(node).unwrap()),
            is_restarting: has_lived,
            seed,
            send_limit: self.send_limit,
        };
        self.nodes[node].speaker = Some(Speaker::new(config));
        self.nodes[node].has_lived = true;
        self.nodes[node].has_converged = false;
        let sessions = self.nodes[node].sessions.clone();
        self.input(node, Input::Configure(sessions));
        let advertisements = self.nodes[node].advertisements.clone();
        self.input(node, Input::Advertise(advertisements));
    }

    /// Ends a node's speaker as SIGKILL does: the kernel closes its connections.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        self.lives[node] += 1;
        let own: Vec<End> = self.ends.keys().filter(|end| end.0 == node).copied().collect();
        for end in own {
            self.close(end);
        }
    }

    pub(crate) fn originate(&mut self, node: usize, blocks: &[&str]) {
        self.nodes[node].advertisements.originated =
            blocks.iter().map(|text| (cidr(text), Origination::default())).collect();
        let advertisements = self.nodes[node].advertisements.clone();
        self.input(node, Input::Advertise(advertisements));
    }

    /// Has a node mark what it passes on.
    pub(crate) fn mark(&mut self, node: usize, marks: BTreeMap<Cidr, BTreeSet<Community>>) {
        self.nodes[node].advertisements.marks = marks;
        let advertisements = self.nodes[node].advertisements.clone();
        self.input(node, Input::Advertise(advertisements));
    }

    /// Says to a node that `interface` leads everywhere.
    pub(crate) fn lead_by(&mut self, node: usize, interface: &str) {
        let ways = [(cidr("0.0.0.0/0"), interface.parse().unwrap())].into();
        self.input(node, Input::Ways(ways));
    }

    pub(crate) fn expect_asn(&mut self, node: usize, peer: usize, asn: u32) {
        let addr = node_addr(peer, self.family);
        let sessions = &mut self.nodes[node].sessions;
        sessions.iter_mut().filter(|each| each.peer_addr == addr).for_each(|each| {
            each.peer_asn = Asn(asn);
        });
        let sessions = sessions.clone();
        self.input(node, Input::Configure(sessions));
    }

    /// Connects every client with every reflector, and the reflectors with one another.
    pub(crate) fn reflected(reflectors: usize, clients: usize, seed: u64) -> Self {
        let count = reflectors + clients;
        let is_peer = |a: usize, b: usize| a != b && (a < reflectors || b < reflectors);
        let mut network = Self::new(&vec![64_512; count], seed, Family::V4, is_peer, true);
        for node in 0..reflectors {
            network.reconfigure(node, |peer, session| {
                let cluster_id = u32::try_from(node).unwrap() + 1;
                session.reflection = Some(Reflection { cluster_id, is_client: peer >= reflectors });
            });
        }
        network
    }

    /// Changes a node's sessions, each given with the number of its peer.
    pub(crate) fn reconfigure(
        &mut self,
        node: usize,
        mut change: impl FnMut(usize, &mut BgpSession),
    ) {
        let count = self.nodes.len();
        let addrs: Vec<IpAddr> = (0..count).map(|peer| node_addr(peer, self.family)).collect();
        for session in &mut self.nodes[node].sessions {
            let peer = addrs.iter().position(|addr| *addr == session.peer_addr).unwrap();
            change(peer, session);
        }
        let sessions = self.nodes[node].sessions.clone();
        self.input(node, Input::Configure(sessions));
    }

    /// Makes a node take seconds to read, and all others careful with what they send.
    pub(crate) fn slow_down(&mut self, node: usize) {
        self.slow.insert(node);
    }

    /// Lets the speakers that start from now on have only so many bytes on the way to a peer.
    pub(crate) fn limit_sends(&mut self, send_limit: usize) {
        self.send_limit = send_limit;
        for node in 0..self.nodes.len() {
            self.kill(node);
            self.start(node);
        }
    }

    pub(crate) fn deconfigure(&mut self, node: usize, peer: usize) {
        let addr = node_addr(peer, self.family);
        self.nodes[node].sessions.retain(|each| each.peer_addr != addr);
        let sessions = self.nodes[node].sessions.clone();
        self.input(node, Input::Configure(sessions));
    }

    pub(crate) fn forbid_withdrawals(&mut self) {
        self.are_withdrawals_forbidden = true;
    }

    pub(crate) fn partition(&mut self) {
        self.is_partitioned = true;
    }

    pub(crate) fn heal(&mut self) {
        self.is_partitioned = false;
    }

    /// Breaks things at random: connections, speakers, blocks.
    pub(crate) fn shake(&mut self, times: usize) {
        for _ in 0..times {
            let pause = Duration::from_millis(self.random(4000));
            self.run_for(pause);
            let node = usize::try_from(self.random(self.nodes.len() as u64)).unwrap();
            match self.random(4) {
                0 if self.nodes[node].speaker.is_some() => self.kill(node),
                0 | 1 if self.nodes[node].speaker.is_none() => self.start(node),
                2 => {
                    let extra = format!("10.244.{node}.64/26");
                    let own = block(node, self.family).to_string();
                    let both = [own.as_str(), extra.as_str()];
                    let count = usize::try_from(self.random(2)).unwrap() + 1;
                    self.originate(node, &both[..count]);
                }
                _ => {
                    if let Some(end) = self.ends.keys().next().copied() {
                        self.close(end);
                        let why = "reset".to_owned();
                        self.deliver(end, Input::Closed { connection: end.1, why });
                    }
                }
            }
        }
        let dead = |node: &usize| self.nodes[*node].speaker.is_none();
        let dead: Vec<usize> = (0..self.nodes.len()).filter(dead).collect();
        for node in dead {
            self.start(node);
        }
    }

    pub(crate) fn kernel(&self, node: usize) -> String {
        let line = |(cidr, gateways): (&Cidr, &BTreeSet<IpAddr>)| {
            let gateways: Vec<String> = gateways.iter().map(ToString::to_string).collect();
            format!("{cidr} via {}\n", gateways.join(" "))
        };
        self.nodes[node].kernel.iter().map(line).collect()
    }

    pub(crate) fn has_converged(&self, node: usize) -> bool {
        self.nodes[node].has_converged
    }

    pub(crate) fn live_connections(&self) -> usize {
        self.ends.len() / 2
    }

    pub(crate) fn peer(&self, node: usize, peer: usize) -> PeerStatus {
        let status = self.nodes[node].speaker.as_ref().unwrap().status();
        let addr = node_addr(peer, self.family);
        status.peers.into_iter().find(|each| each.peer_addr == addr).unwrap()
    }

    /// Every node's kernel holds exactly what the others originate.
    pub(crate) fn assert_complete(&self, what: &str) {
        for (number, node) in self.nodes.iter().enumerate() {
            let mut expected: BTreeMap<Cidr, BTreeSet<IpAddr>> = BTreeMap::new();
            for (other, peer) in self.nodes.iter().enumerate().filter(|(other, _)| *other != number)
            {
                for cidr in peer.advertisements.originated.keys() {
                    expected.entry(*cidr).or_default().insert(node_addr(other, self.family));
                }
            }
            // What a node originates itself leads nowhere else.
            expected.retain(|cidr, _| !node.advertisements.originated.contains_key(cidr));
            assert_eq!(node.kernel, expected, "node {number}, {what}");
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let deadlines = self.nodes.iter().enumerate().filter_map(|(number, node)| {
                Some((node.speaker.as_ref()?.next_deadline()?, number))
            });
            let deadline = deadlines.min();
            let event_at = event.filter(|at| *at <= end);
            match deadline.filter(|(at, _)| *at <= end && event_at.is_none_or(|event| *at < event))
            {
                Some((at, node)) => {
                    self.now = self.now.max(at);
                    self.input(node, Input::DeadlineReached);
                }
                None if event_at.is_some() => self.next_event(),
                None => break,
            }
        }
        self.now = end;
    }

    fn next_event(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else { return };
        self.now = self.now.max(at);
        match event {
            Event::Input(node, life, input) if self.lives[node] == life => self.input(node, input),
            Event::Dial { from, life, to } if self.lives[from.0] == life => self.dial(from, to),
            Event::Input(..) | Event::Dial { .. } => {}
        }
    }

    fn dial(&mut self, from: End, to: usize) {
        let (node, connection) = from;
        if self.is_partitioned {
            return;
        }
        if self.nodes[to].speaker.is_none() {
            let why = "connection refused".to_owned();
            self.input(node, Input::Closed { connection, why });
            return;
        }
        self.sequence += 1;
        let remote = (to, ConnectionId::Incoming(self.sequence));
        self.ends.insert(from, remote);
        self.ends.insert(remote, from);
        let local_addr = node_addr(node, self.family);
        let accepted = Input::Accepted {
            connection: remote.1,
            peer_addr: local_addr,
            local_addr: node_addr(to, self.family),
        };
        self.deliver(remote, accepted);
        self.input(node, Input::Connected { connection, local_addr });
    }

    /// Delivers to one end of a connection, later but in order.
    fn deliver(&mut self, end: End, input: Input) {
        let other = self.ends.get(&end).map(|other| other.0);
        let is_slow = [Some(end.0), other].into_iter().flatten().any(|n| self.slow.contains(&n));
        let delay = self.random(if is_slow { 4_000_000 } else { 20_000 });
        let delay = Duration::from_micros(delay);
        let last = self.last_arrival.get(&end).copied().unwrap_or_default();
        let at = (self.now + delay).max(last);
        self.last_arrival.insert(end, at);
        self.sequence += 1;
        let life = self.lives[end.0];
        self.events.insert((at, self.sequence), Event::Input(end.0, life, input));
    }

    fn close(&mut self, end: End) {
        let Some(other) = self.ends.remove(&end) else { return };
        self.ends.remove(&other);
        if !self.is_partitioned {
            let why = "closed by the peer".to_owned();
            self.deliver(other, Input::Closed { connection: other.1, why });
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.now;
        let Some(speaker) = self.nodes[node].speaker.as_mut() else { return };
        let outputs = speaker.handle(input, now);
        for output in outputs {
            self.output(node, output);
        }
    }

    fn output(&mut self, node: usize, output: Output) {
        match output {
            Output::Connect { connection, to, .. } => {
                self.connects += 1;
                let is_peer = |other: &usize| node_addr(*other, self.family) == to.ip();
                let peer = (0..self.nodes.len()).find(is_peer).unwrap();
                let at = self.now + Duration::from_micros(self.random(20_000));
                self.sequence += 1;
                let life = self.lives[node];
                let dial = Event::Dial { from: (node, connection), life, to: peer };
                self.events.insert((at, self.sequence), dial);
            }
            Output::Send { connection, bytes } => {
                self.sends += 1;
                let len = bytes.len();
                if let Some(other) = self.ends.get(&(node, connection)).copied()
                    && !self.is_partitioned
                {
                    self.deliver(
                        other,
                        Input::Received { connection: other.1, bytes: bytes.to_vec() },
                    );
                }
                self.deliver((node, connection), Input::Sent { connection, len });
            }
            Output::Close { connection } => self.close((node, connection)),
            Output::RoutesChanged(routes) => {
                for (cidr, gateways) in routes {
                    if gateways.addrs.is_empty() {
                        assert!(!self.are_withdrawals_forbidden, "node {node} lost {cidr}");
                        self.nodes[node].kernel.remove(&cidr);
                    } else {
                        self.nodes[node].kernel.insert(cidr, gateways.addrs.clone());
                    }
                }
            }
            Output::Converged => {
                let held = &mut self.nodes[node];
                held.has_converged = true;
                let speaker = held.speaker.as_ref().unwrap();
                let wanted: BTreeMap<_, _> =
                    speaker.routes().map(|(cidr, gateways)| (*cidr, gateways.clone())).collect();
                let is_lost = held.kernel.keys().any(|cidr| !wanted.contains_key(cidr));
                assert!(!(self.are_withdrawals_forbidden && is_lost), "node {node} lost routes");
                held.kernel = wanted;
            }
            Output::SessionChanged { .. } | Output::Report(_) => {}
        }
    }
}
