//! Tunnels: what comes before what, and what stays meanwhile.

use kernel::tunnels::State;
use model::desired::{TunnelDevice, TunnelEntry, TunnelEntryKey};
use model::net::{IfName, MacAddr, Mtu};
use model::pool::EncapsulationScope;

use super::super::super::event::{DeviceChange, EntryChange, RouteSettings};
use super::*;

const VXLAN: Encapsulation = Encapsulation::Vxlan(EncapsulationScope::Always);

fn pool_of(encapsulation: Encapsulation) -> Event {
    let Event::Store(Change::Pool(name, Some(pool))) = pool() else { unreachable!() };
    Event::Store(Change::Pool(name, Some(Box::new(IpPool { encapsulation, ..*pool }))))
}

/// Node `name` at 10.0.0.`byte` with the tunnel address `tunnel`.
fn far(name: &str, byte: u8, tunnel: Option<&str>) -> Event {
    let Event::Store(Change::Node(name, Some(mut node))) = node(name, &format!("10.0.0.{byte}/24"))
    else {
        unreachable!()
    };
    node.tunnel_addrs.vxlan_v4 = tunnel.map(|addr| addr.parse().unwrap());
    node.tunnel_addrs.vxlan_mac_v4 = Some(MacAddr([0x66, 0, 0, 0, 0, byte]));
    Event::Store(Change::Node(name, Some(node)))
}

fn block_of(owner: &str, cidr: &str) -> Event {
    let Event::Store(Change::Affinity(_, Some(affinity))) = block(cidr) else { unreachable!() };
    let owner = Owner::Host(owner.parse().unwrap());
    let name = format!("{owner}-{cidr}");
    Event::Store(Change::Affinity(name, Some(Affinity { owner, ..affinity })))
}

/// A kernel as it would be, which the engine's changes are made in.
#[derive(Default)]
struct Simulated {
    tunnels: State,
    routes: BTreeMap<RouteKey, Route>,
    /// What cannot be made.
    refused: Option<IfName>,
    said: Vec<String>,
}

impl Simulated {
    fn report(&self) -> Event {
        Event::Kernel(Box::new(KernelState {
            routes: self.routes.clone(),
            underlay: UnderlayTable::new([("10.0.0.0/24".parse().unwrap(), Underlay::OnLink)]),
            tunnels: self.tunnels.clone(),
            host_mtu: Some(Mtu(1500)),
            ..KernelState::default()
        }))
    }

    /// Carries out what the engine wants until it wants nothing, and returns what that was.
    fn settle(&mut self, engine: &mut Engine, now: Timestamp) -> Vec<String> {
        for _ in 0..20 {
            let effects = engine.flush(now);
            let mut is_idle = true;
            for effect in effects {
                is_idle &= !self.carry_out(effect, engine, now);
            }
            if is_idle {
                return std::mem::take(&mut self.said);
            }
        }
        panic!("no end: {:?}", self.said);
    }

    /// Returns whether there may be more to do.
    fn carry_out(&mut self, effect: Effect, engine: &mut Engine, now: Timestamp) -> bool {
        match effect {
            Effect::ListKernel => engine.handle(self.report(), now),
            Effect::Devices(changes) => {
                let results = changes.into_iter().map(|change| (self.device(&change), change));
                let results = results.map(|(result, change)| (change, result)).collect();
                engine.handle(Event::DevicesApplied(results), now);
            }
            Effect::Entries(changes) => {
                for change in &changes {
                    self.entry(change);
                }
                let results = changes.into_iter().map(|change| (change, Ok(()))).collect();
                engine.handle(Event::EntriesApplied(results), now);
            }
            Effect::Routes(changes) => {
                for change in &changes {
                    self.said.push(words(change));
                    match change {
                        RouteChange::Upsert(key, route) => {
                            self.routes.insert(*key, route.clone());
                        }
                        RouteChange::Delete(key, _) => {
                            self.routes.remove(key);
                        }
                    }
                }
                let results = changes.into_iter().map(|change| (change, Ok(()))).collect();
                engine.handle(Event::Applied(results), now);
            }
            Effect::TunnelAddrs(needs) => {
                self.said.extend(needs.demands.keys().map(|kind| format!("wants {kind:?}")));
            }
            Effect::PodMtu(mtu) => self.said.push(format!("pods {}", mtu.0)),
            Effect::Demand(_)
            | Effect::Ways(_)
            | Effect::PeeringAddrs(_)
            | Effect::Listen(_)
            | Effect::Advertise(_)
            | Effect::Sessions(_)
            | Effect::Wireguard(_)
            | Effect::Vrfs(_)
            | Effect::Problems(_) => return false,
        }
        true
    }

    fn device(&mut self, change: &DeviceChange) -> Result<(), String> {
        let name = change.key().clone();
        if self.refused.as_ref() == Some(&name) {
            return Err("no such module".to_owned());
        }
        self.said.push(match change {
            DeviceChange::Upsert(..) => format!("+ {name}"),
            DeviceChange::Delete(..) => format!("- {name}"),
        });
        match change {
            DeviceChange::Upsert(_, device) => self.tunnels.devices.insert(name, *device),
            DeviceChange::Delete(..) => self.tunnels.devices.remove(&name),
        };
        Ok(())
    }

    fn entry(&mut self, change: &EntryChange) {
        let (key, value) = match change {
            EntryChange::Upsert(key, value) => (key, Some(*value)),
            EntryChange::Delete(key, _) => (key, None),
        };
        assert!(self.tunnels.devices.contains_key(key.device()), "{key} without its device");
        self.said.push(format!("{} {key}", if value.is_some() { "+" } else { "-" }));
        match value {
            Some(value) => self.tunnels.entries.insert(key.clone(), value),
            None => self.tunnels.entries.remove(key),
        };
    }
}

/// An engine of node `a`, in sync, that knows of `b` and its block and has learned its route.
fn started(mode: Encapsulation, tunnel_of_b: Option<&str>) -> (Engine, Simulated) {
    let events = vec![
        far("a", 1, Some("10.244.0.0")),
        far("b", 2, tunnel_of_b),
        pool_of(mode),
        block_of("b", "10.244.1.0/26"),
        learned("10.244.1.0/26", &["10.0.0.2"]),
        Event::BgpConverged,
    ];
    let mut engine = engine(events);
    let mut kernel = Simulated::default();
    kernel.settle(&mut engine, NOW);
    engine.handle(Event::Synced(Kind::OtherAffinities), NOW);
    (engine, kernel)
}

const UPS: [&str; 4] = [
    "+ vxlan.calico",
    "+ neighbour 10.244.1.0 dev vxlan.calico",
    "+ fdb 66:00:00:00:00:02 dev vxlan.calico",
    "+ 10.244.1.0/26 via 10.244.1.0 dev vxlan.calico onlink proto 80",
];

#[test]
fn the_device_comes_first_then_the_far_end_then_the_route() {
    let (mut engine, mut kernel) = started(VXLAN, Some("10.244.1.0"));
    let said = kernel.settle(&mut engine, NOW);
    assert_eq!(said[..4], UPS);
    assert_eq!(said[4..], ["wants VxlanV4", "pods 1450"]);
    assert_eq!(kernel.settle(&mut engine, NOW), [""; 0]);
}

#[test]
fn bgp_leads_to_a_node_until_it_has_a_tunnel_address() {
    let plain = "10.244.1.0/26 via 10.0.0.2 proto 80";
    let (mut engine, mut kernel) = started(Encapsulation::None, None);
    let words = |kernel: &Simulated| -> Vec<String> {
        kernel.routes.iter().map(|(key, route)| format!("{} {route}", key.dst)).collect()
    };
    kernel.settle(&mut engine, NOW);
    assert_eq!(words(&kernel), [plain]);
    engine.handle(pool_of(VXLAN), NOW);
    kernel.settle(&mut engine, NOW);
    engine.handle(block_of("b", "10.244.1.0/26"), NOW);
    engine.handle(Event::Synced(Kind::OtherAffinities), NOW);
    assert_eq!(kernel.settle(&mut engine, NOW), ["+ vxlan.calico", "wants VxlanV4"]);
    assert_eq!(words(&kernel), [plain]);
    engine.handle(far("b", 2, Some("10.244.1.0")), NOW);
    assert_eq!(kernel.settle(&mut engine, NOW), UPS[1..], "the route is replaced, never missing");
    engine.handle(far("b", 2, None), NOW);
    kernel.settle(&mut engine, NOW);
    assert_eq!(words(&kernel), [plain]);
}

#[test]
fn a_device_that_nobody_wants_goes_after_a_while() {
    let (mut engine, mut kernel) = started(VXLAN, Some("10.244.1.0"));
    kernel.settle(&mut engine, NOW);
    engine.handle(pool_of(Encapsulation::None), later(100));
    assert_eq!(
        kernel.settle(&mut engine, later(100)),
        [
            "+ 10.244.1.0/26 via 10.0.0.2 proto 80",
            "- neighbour 10.244.1.0 dev vxlan.calico",
            "- fdb 66:00:00:00:00:02 dev vxlan.calico",
            "pods 1500",
        ]
    );
    assert_eq!(engine.next_deadline(), Some(later(110)));
    assert_eq!(kernel.settle(&mut engine, later(109)), [""; 0]);
    assert_eq!(kernel.settle(&mut engine, later(110)), ["- vxlan.calico"]);
}

#[test]
fn a_device_that_changes_its_network_gets_its_entries_again() {
    let (mut engine, mut kernel) = started(VXLAN, Some("10.244.1.0"));
    kernel.settle(&mut engine, NOW);
    let tunnels = calc::TunnelSettings { vni: 4097, ..calc::TunnelSettings::default() };
    let settings = RouteSettings { tunnels, ..settings(RoutePriority::NORMAL) };
    engine.handle(Event::Settings(Box::new(settings)), NOW);
    // The kernel makes it anew, without entries and routes.
    let Some(Effect::Devices(changes)) = engine.flush(NOW).into_iter().next() else { panic!() };
    kernel.carry_out(Effect::Devices(changes), &mut engine, NOW);
    kernel.tunnels.entries.clear();
    kernel.routes.clear();
    assert_eq!(kernel.settle(&mut engine, NOW), UPS);
}

#[test]
fn the_mtu_follows_the_links() {
    let (mut engine, mut kernel) = started(VXLAN, Some("10.244.1.0"));
    kernel.settle(&mut engine, NOW);
    let Event::Kernel(state) = kernel.report() else { unreachable!() };
    let state = KernelState { host_mtu: Some(Mtu(9000)), ..*state };
    engine.handle(Event::Kernel(Box::new(state)), NOW);
    let Some(Effect::Devices(changes)) = engine.flush(NOW).into_iter().next() else { panic!() };
    let [DeviceChange::Upsert(_, device)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(device.mtu, Mtu(8950));
}

#[test]
fn a_device_that_cannot_be_made_holds_nothing_else_up() {
    let ipip = Encapsulation::Ipip(EncapsulationScope::Always);
    let (mut engine, mut kernel) = started(ipip, None);
    kernel.refused = Some(TunnelDevice::IPIP.parse().unwrap());
    engine.handle(block("10.244.0.0/26"), NOW);
    let said = kernel.settle(&mut engine, NOW);
    assert_eq!(said, ["+ 10.244.0.0/26 blackhole proto 80", "wants Ipip", "pods 1480"]);
    assert_eq!(engine.failing_routes(), 1);
    kernel.refused = None;
    assert_eq!(
        kernel.settle(&mut engine, later(1)),
        ["+ tunl0", "+ 10.244.1.0/26 via 10.0.0.2 dev tunl0 onlink proto 80"]
    );
}

#[test]
fn what_an_earlier_life_left_of_a_tunnel_is_kept_as_it_is() {
    let (mut engine, mut kernel) = started(VXLAN, Some("10.244.1.0"));
    kernel.settle(&mut engine, NOW);
    let (mut again, _) = started(VXLAN, Some("10.244.1.0"));
    let said = kernel.settle(&mut again, NOW);
    assert_eq!(said, ["wants VxlanV4", "pods 1450"], "nothing was changed");
    let stranger = TunnelEntryKey::Forward("vxlan.calico".parse().unwrap(), MacAddr([2; 6]));
    kernel.tunnels.entries.insert(stranger, TunnelEntry::Node("10.0.0.9".parse().unwrap()));
    again.handle(kernel.report(), NOW);
    assert_eq!(kernel.settle(&mut again, NOW), ["- fdb 02:02:02:02:02:02 dev vxlan.calico"]);
}
