//! Facts about tenants: zones of connection tracking, and the guard between them.
//!
//! Whether packets of a VRF's device are told by its links needs the kernel's module `vrf`: a
//! scenario shows that. Here nothing is under a device.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use kernel::conntrack::Conntrack;
use model::desired::policy::EndpointPath;
use model::net::Family;
use model::vrf::Zone;
use render::{Settings, Tenants, tunnel};

use crate::cluster::{Cluster, Enforced, Seen, counters, serve_tcp, tcp};
use crate::policies::{open, with};

const RED: Zone = Zone::Vrfs(5001);

fn open_in(zone: Zone) -> EndpointPath {
    let mut path = open();
    (path.ingress.zone, path.egress.zone) = (zone, zone);
    path
}

fn settings() -> Settings {
    let vrfs = [("red", "5001", RED), ("green", "5003", Zone::Default)];
    let vrfs = vrfs.map(|(name, id, zone)| (name.parse().unwrap(), (id.parse().unwrap(), zone)));
    Settings {
        tenants: Tenants { vrfs: vrfs.into(), ..Tenants::default() },
        tunnels: tunnel::Tunnels {
            pools: Family::ALL.map(tunnel::Pool::Vrf).into(),
            ..tunnel::Tunnels::default()
        },
        ..Settings::default()
    }
}

fn enforce(cluster: &Cluster, zones: [Zone; 3]) -> Enforced {
    let paths = zones.map(open_in);
    let state = with(cluster.state(&[&paths[0], &paths[1], &paths[2]]), "p", Vec::new());
    cluster.enforce(state, settings())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_leaves_or_enters_a_tenant() {
    let cluster = Cluster::new(3).await;
    for pod in &cluster.pods {
        serve_tcp(pod.netns(), 80);
    }
    // Without a VRF's device all come from outside of it: only what is in no VRF is reached.
    let enforced = enforce(&cluster, [Zone::Default, Zone::Default, RED]);
    let seen = |from: usize, to: usize| {
        cluster.pods[to].addrs.map(|addr| tcp(cluster.pods[from].netns(), (addr, 80)))
    };
    assert_eq!(seen(0, 1), [Seen::Answer; 2]);
    assert_eq!(seen(0, 2), [Seen::Nothing; 2]);
    assert_eq!(tcp(cluster.outside.netns(), (cluster.pods[2].v4(), 80)), Seen::Nothing);
    let counters = counters(&cluster.host.netns);
    assert!(counters["into a VRF that exchanges no routes with the sender's"] > 0, "{counters:?}");
    // What is there is what was written: nothing is left to do.
    let mut nftables = enforced.nftables;
    let left = render::plan(enforced.renderer.tables(), &nftables.snapshot().unwrap());
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_is_in_a_vrf_without_pools_is_cut_off() {
    let cluster = Cluster::new(3).await;
    for pod in &cluster.pods {
        serve_tcp(pod.netns(), 80);
    }
    let _enforced = enforce(&cluster, [Zone::Default, Zone::Nowhere, Zone::Default]);
    let seen = |from: usize, to: usize| {
        cluster.pods[to].addrs.map(|addr| tcp(cluster.pods[from].netns(), (addr, 80)))
    };
    assert_eq!(seen(0, 2), [Seen::Answer; 2]);
    assert_eq!((seen(0, 1), seen(1, 0)), ([Seen::Nothing; 2], [Seen::Nothing; 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_of_tenants_are_in_zones_of_their_own() {
    let cluster = Cluster::new(3).await;
    for pod in &cluster.pods[1..] {
        serve_tcp(pod.netns(), 80);
    }
    let _enforced = enforce(&cluster, [Zone::Default, Zone::Default, RED]);
    // This machine reaches its workloads: those of tenants by their zone.
    let [plain, red] = [cluster.pods[1].v4(), cluster.pods[2].v4()];
    for addr in [plain, red] {
        assert_eq!(tcp(&cluster.host.netns, (addr, 80)), Seen::Answer, "{addr}");
    }
    let mut conntrack = Conntrack::open_in(&cluster.host.netns).unwrap();
    let mut zones = |addr: IpAddr| -> BTreeSet<u16> {
        let few = conntrack.flows_of(&[addr].into()).unwrap();
        let all = [addr, Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into()];
        let all = conntrack.flows_of(&all.into()).unwrap();
        assert_eq!(few.len(), all.len());
        few.iter().map(|flow| flow.zone).collect()
    };
    assert_eq!((zones(plain), zones(red)), (BTreeSet::from([0]), BTreeSet::from([5001])));
    // Whoever else has had the address keeps his connections.
    let other_zone = conntrack.forget(&[(0, red), (5001, plain), (5002, red)].into()).unwrap();
    assert_eq!(other_zone, 0);
    for (zone, addr) in [(0, plain), (5001, red)] {
        assert!(conntrack.forget(&[(zone, addr)].into()).unwrap() > 0);
        assert_eq!(conntrack.flows_of(&[addr].into()).unwrap(), []);
    }
}
