//! The engine against a kernel that is one [`Snapshot`].

use std::sync::Arc;

use calc::policy::Change;
use model::endpoint::WorkloadEndpoint;
use model::id::NamespacedName;
use model::policy::Profile;
use model::ruleset::{Element, Step, Tables};
use model::vrf::PoolVrf;

use super::*;

const REFRESH: Duration = Duration::from_secs(180);

struct World {
    engine: Engine,
    kernel: Tables,
    now: Timestamp,
    applied: usize,
}

impl World {
    fn new(beginning: Beginning, kernel: Tables) -> Self {
        let node = "node-1".parse().unwrap();
        let engine = Engine::new(node, Settings::default(), beginning, REFRESH);
        Self { engine, kernel, now: Timestamp::ZERO, applied: 0 }
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.now);
    }

    fn sync(&mut self) {
        for kind in Kind::POLICY {
            self.handle(Event::Synced(kind));
        }
    }

    /// Lets the engine do what it wants until it wants no more.
    fn settle(&mut self) {
        while let Some(effect) = self.engine.flush(self.now) {
            let event = match effect {
                Effect::List => Event::Kernel(Box::new(Snapshot::of(&self.kernel, 1))),
                Effect::Apply(transaction) => {
                    assert!(!transaction.is_empty());
                    self.applied += 1;
                    self.kernel = self.wanted();
                    Event::Applied(Outcome::Done)
                }
            };
            self.handle(event);
        }
    }

    fn wanted(&self) -> Tables {
        let empty = || render::render(&PolicyState::default(), &self.engine.settings());
        self.engine.renderer.as_ref().map_or_else(empty, |renderer| renderer.tables().clone())
    }
}

fn profile(name: &str) -> Change {
    let profile = Profile { name: name.to_owned(), ..Profile::default_allow() };
    Change::Profile(name.to_owned(), Some(Arc::new(profile)))
}

fn pod(name: &str, addr: &str) -> Change {
    let pod = NamespacedName { namespace: "default".to_owned(), name: name.to_owned() };
    let endpoint = WorkloadEndpoint {
        profiles: vec!["kns.default".to_owned()],
        ..WorkloadEndpoint::new(
            pod.clone(),
            "node-1".parse().unwrap(),
            format!("cali{name}").parse().unwrap(),
            vec![addr.parse().unwrap()],
        )
    };
    Change::Workload(pod, Some(Arc::new(endpoint)))
}

#[test]
fn a_machine_without_workloads_starts_closed() {
    let mut world = World::new(Beginning::Empty, Tables::new());
    world.settle();
    assert_eq!(world.kernel, render::render(&PolicyState::default(), &Settings::default()));
    assert!(!world.engine.is_in_force());
}

#[test]
fn a_machine_with_workloads_is_left_alone_until_in_sync() {
    let mut world = World::new(Beginning::Populated, Tables::new());
    world.settle();
    assert_eq!(world.applied, 0);
    world.sync();
    world.settle();
    assert_eq!(world.applied, 1);
    assert!(world.engine.is_in_force());
}

#[test]
fn what_an_earlier_life_left_is_adopted() {
    let mut before = World::new(Beginning::Empty, Tables::new());
    before.handle(Event::Change(profile("kns.default")));
    before.handle(Event::Change(pod("web", "10.244.0.5")));
    before.sync();
    before.settle();

    let mut after = World::new(Beginning::Populated, before.kernel.clone());
    after.settle();
    after.handle(Event::Change(pod("web", "10.244.0.5")));
    after.handle(Event::Change(profile("kns.default")));
    after.sync();
    after.settle();
    assert_eq!((after.applied, after.kernel == before.kernel), (0, true));
}

#[test]
fn a_pod_is_a_small_change() {
    let mut world = World::new(Beginning::Empty, Tables::new());
    world.handle(Event::Change(profile("kns.default")));
    world.handle(Event::Change(pod("web", "10.244.0.5")));
    world.sync();
    world.settle();
    world.handle(Event::Change(pod("db", "10.244.0.6")));
    let Some(Effect::Apply(transaction)) = world.engine.flush(world.now) else {
        panic!("a pod changes the tables")
    };
    let is_element = |(_, step): &(_, Step)| matches!(step, Step::Add(..));
    assert!(transaction.steps.iter().all(is_element), "{transaction:?}");
}

#[test]
fn after_a_failure_the_kernel_is_read_again_but_not_at_once() {
    let mut world = World::new(Beginning::Empty, Tables::new());
    world.sync();
    world.settle();
    world.handle(Event::Change(profile("kns.default")));
    world.handle(Event::Change(pod("web", "10.244.0.5")));
    assert!(matches!(world.engine.flush(world.now), Some(Effect::Apply(_))));
    world.handle(Event::Applied(Outcome::Failed));
    assert_eq!(world.engine.flush(world.now), None);
    world.now = world.engine.next_deadline().unwrap();
    assert_eq!(world.engine.flush(world.now), Some(Effect::List));
    world.settle();
    assert_eq!(world.kernel, world.wanted());
}

#[test]
fn what_somebody_else_deletes_comes_back() {
    let mut world = World::new(Beginning::Empty, Tables::new());
    world.handle(Event::Change(profile("kns.default")));
    world.handle(Event::Change(pod("web", "10.244.0.5")));
    world.sync();
    world.settle();
    let right = std::mem::take(&mut world.kernel);
    world.handle(Event::Drift);
    world.settle();
    assert_eq!(world.kernel, right);
}

#[test]
fn a_kernel_that_refuses_limits_gets_policy_without_them() {
    let mut world = World::new(Beginning::Empty, Tables::new());
    world.handle(Event::Change(profile("kns.default")));
    world.sync();
    world.settle();
    let Change::Workload(name, Some(plain)) = pod("web", "10.244.0.5") else { unreachable!() };
    let mut limited = (*plain).clone();
    limited.controls.ingress.connections = Some(5);
    world.handle(Event::Change(Change::Workload(name, Some(Arc::new(limited)))));
    for _ in 0..2 {
        assert!(matches!(world.engine.flush(world.now), Some(Effect::Apply(_))));
        world.handle(Event::Applied(Outcome::Failed));
        world.now = world.engine.next_deadline().unwrap();
        assert_eq!(world.engine.flush(world.now), Some(Effect::List));
        world.handle(Event::Kernel(Box::new(Snapshot::of(&world.kernel, 1))));
    }
    world.settle();
    assert!(world.engine.is_in_force());
    let text: String = world.kernel.iter().map(|(family, table)| table.text(*family)).collect();
    assert!(text.contains("caliweb") && !text.contains("ct count"), "{text}");
}

/// Returns the floating addresses that the tables translate.
fn translated(world: &World) -> Vec<String> {
    let chains = world.kernel.values().filter_map(|table| table.chains.get("cali-fip-dnat"));
    chains.flat_map(|chain| &chain.rules).map(|rule| rule.statements[0].to_string()).collect()
}

#[test]
fn floating_addresses_are_translated_while_nobody_else_has_them() {
    let settings = Settings { floating: Some(BTreeMap::new()), ..Settings::default() };
    let mut world = World::new(Beginning::Empty, Tables::new());
    let Change::Workload(name, Some(endpoint)) = pod("web", "10.244.0.5") else { unreachable!() };
    let floating = ["10.244.9.1", "10.244.9.2", "192.0.2.1"].map(|addr| {
        let (addr, to) = (addr.parse().unwrap(), endpoint.addrs[0]);
        model::endpoint::Floating { addr, to }
    });
    let endpoint = WorkloadEndpoint { floating: floating.to_vec(), ..(*endpoint).clone() };
    let pool = model::pool::IpPool {
        is_disabled: true,
        ..model::pool::IpPool::plain("pool", "10.244.0.0/16".parse().unwrap())
    };
    world.handle(Event::Change(Change::Workload(name, Some(Arc::new(endpoint)))));
    world.handle(Event::Pool("pool".to_owned(), Some(Box::new(pool))));
    world.sync();
    world.settle();
    assert_eq!(translated(&world), [""; 0], "not unless administrators say so");
    world.handle(Event::Settings(Box::new(settings)));
    world.settle();
    assert_eq!(translated(&world), ["dnat to 10.244.0.5"; 2]);
    let Change::Workload(id, Some(other)) = pod("other", "10.244.9.2") else { unreachable!() };
    let other = WorkloadEndpoint { node: "node-2".parse().unwrap(), ..(*other).clone() };
    world.handle(Event::Change(Change::Workload(id.clone(), Some(Arc::new(other)))));
    world.settle();
    assert_eq!(translated(&world), ["dnat to 10.244.0.5"]);
    world.handle(Event::Change(Change::Workload(id, None)));
    world.settle();
    assert_eq!(translated(&world), ["dnat to 10.244.0.5"; 2]);
}

#[test]
fn what_pools_say_of_tenants_reaches_the_tables() {
    let pool = |name: &str, cidr: &str, vrf: Option<(&str, bool)>| {
        let vrf = vrf.map(|(id, is_leaking)| PoolVrf {
            name: name.parse().unwrap(),
            id: id.parse().unwrap(),
            imports: is_leaking.then_some(None).into_iter().collect(),
        });
        let plain = IpPool::plain(name, cidr.parse().unwrap());
        Event::Pool(name.to_owned(), Some(Box::new(IpPool { vrf, nat_outgoing: true, ..plain })))
    };
    let mut world = World::new(Beginning::Empty, Tables::new());
    world.handle(Event::Change(profile("kns.default")));
    world.handle(pool("plain", "10.244.0.0/16", None));
    world.handle(pool("red", "10.244.0.0/16", Some(("5001", false))));
    world.handle(pool("green", "10.245.0.0/16", Some(("5003", true))));
    let Change::Workload(name, Some(plain)) = pod("web", "10.244.0.5") else { unreachable!() };
    let vrf = Some("red".parse().unwrap());
    let red = Arc::new(WorkloadEndpoint { vrf, ..WorkloadEndpoint::clone(&plain) });
    world.handle(Event::Change(Change::Workload(name, Some(red))));
    world.sync();
    world.settle();
    let settings = world.engine.settings();
    let pools = settings.pools.iter().map(|pool| (pool.net.to_string(), pool.is_translated));
    let expected = [("10.245.0.0/16".to_owned(), false), ("10.244.0.0/16".to_owned(), true)];
    assert_eq!(pools.collect::<Vec<_>>(), expected);
    let zone = |world: &World| {
        let elements = |name: &str| world.kernel[&Family::V4].sets[name].elements.clone();
        let of_pod = |element: &Element| element.to_string().starts_with("\"caliweb\"");
        elements("cali-vrf-links-map").into_iter().find(of_pod).map(|found| found.to_string())
    };
    assert_eq!(zone(&world).unwrap(), "\"caliweb\" : goto cali-zone-5001");
    // Its ranges overlap those of nobody that it exchanges routes with.
    world.handle(pool("plain", "10.246.0.0/16", None));
    world.handle(pool("red", "10.244.0.0/16", Some(("5001", true))));
    world.settle();
    assert_eq!((zone(&world), world.kernel == world.wanted()), (None, true));
}
