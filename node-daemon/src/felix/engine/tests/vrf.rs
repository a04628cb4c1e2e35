//! VRFs: what the loop beside this one is told, and what the main table has of them.

use model::pool::IpPool;
use model::vrf::PoolVrf;

use super::*;
use crate::felix::vrf::Wanted;

/// A pool of the VRF `red`, which exchanges routes with everybody or with nobody.
fn red(is_open: bool) -> Event {
    let imports = is_open.then_some(None).into_iter().collect();
    let vrf = PoolVrf { name: "red".parse().unwrap(), id: "5001".parse().unwrap(), imports };
    let pool = IpPool::plain("red", "10.1.0.0/16".parse().unwrap());
    let pool = IpPool { vrf: Some(vrf), ..pool };
    Event::Store(Change::Pool(pool.name.clone(), Some(Box::new(pool))))
}

fn block_of_red(cidr: &str, owner: &str) -> Event {
    let cidr: Cidr = cidr.parse().unwrap();
    let (owner, state) = (Owner::Host(owner.parse().unwrap()), AffinityState::Confirmed);
    let affinity = Affinity { owner, cidr, state, is_deleted: false };
    Event::Store(Change::VrfAffinity(cidr.object_name(), "red".parse().unwrap(), affinity))
}

fn told(engine: &mut Engine) -> Option<Wanted> {
    engine
        .flush(NOW)
        .into_iter()
        .find_map(|effect| if let Effect::Vrfs(wanted) = effect { Some(wanted) } else { None })
}

/// A node whose cluster has the VRF, and that knows all blocks.
fn started(is_open: bool) -> Engine {
    let mut engine = engine(vec![
        node("b", "10.0.0.2/24"),
        red(is_open),
        block_of_red("10.1.0.0/26", "a"),
        block_of_red("10.1.0.64/26", "b"),
        kernel(&[], &[]),
    ]);
    let demand = Demand { has_all_blocks: true, ..Demand::default() };
    assert_eq!(engine.flush(NOW), [Effect::Demand(demand)], "before that nothing is known");
    engine.handle(Event::Synced(Kind::OtherAffinities), NOW);
    engine
}

#[test]
fn a_vrf_is_told_once_and_again_when_it_goes() {
    let mut engine = started(false);
    let wanted = told(&mut engine).unwrap();
    let device = wanted.devices.by_name.get(&"red".parse().unwrap()).unwrap();
    assert_eq!((device.routes.len(), device.tunnels.len()), (3, 1));
    assert!(wanted.devices.main_routes.is_empty());
    assert_eq!(told(&mut engine), None);
    engine.handle(block_of_red("10.1.0.128/26", "b"), NOW);
    let wanted = told(&mut engine).unwrap();
    assert_eq!(wanted.devices.by_name.values().next().unwrap().routes.len(), 4);
    engine.handle(Event::Store(Change::Pool("red".to_owned(), None)), NOW);
    assert!(told(&mut engine).unwrap().is_empty());
}

#[test]
fn the_main_table_has_what_is_open_once_the_tunnel_is_up() {
    let own = ["+ 10.1.0.0/26 blackhole proto 80"];
    assert_eq!(changes(&mut started(false), NOW), [""; 0]);
    let mut engine = started(true);
    assert_eq!(changes(&mut engine, NOW), own);
    let Event::Kernel(mut state) = kernel(&["10.1.0.0/26 blackhole"], &[]) else { unreachable!() };
    state.vrf_tunnels.insert("vxvrf5001".parse().unwrap());
    engine.handle(Event::Kernel(state), NOW);
    assert_eq!(
        changes(&mut engine, NOW),
        ["+ 10.1.0.64/26 via 10.0.0.2 dev vxvrf5001 onlink proto 80"]
    );
}
