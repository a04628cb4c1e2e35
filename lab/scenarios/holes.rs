//! Watches with holes: what was missed is found out, and in the end all is as the lists say.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::{Identity, Kind};
use lab::proxy::{Fate, Passing, Proxy};
use lab::reachability::Matrix;
use lab::routes;
use model::block::{Affinity, AffinityState, Owner};
use serde_json::json;

/// How long routes may take; an absent server is asked again after 8 s at the latest.
const WITHIN: Duration = Duration::from_secs(60);
/// Where the daemons reach the API server, with holes.
const PROXY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 6444);
/// Blocks that come and go: two objects each.
const BLOCKS: u32 = 300;

/// A thousand changes while watches are killed again and again, and once while nobody watches and
/// the server forgets its history: every node's routes equal the lists (R24).
pub(crate) fn are_filled(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    let kubeconfig = cluster.control_plane.kubeconfig(Identity::Node);
    let proxy = Proxy::open(&kubeconfig, PROXY)?;
    proxy.write_kubeconfig(&kubeconfig)?;
    for node in &cluster.nodes {
        cluster.start_daemon(node)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 4)?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    for number in 0..BLOCKS {
        if number % 30 == 29 {
            proxy.cut();
        }
        make(&cluster, number)?;
        if number % 2 == 1 {
            remove(&cluster, number)?;
        }
    }
    eventually("routes as modelled after cuts", WITHIN, || routes::require_as_modelled(&cluster))?;

    // Nobody watches: what happens now, deletions too, is only in the next list.
    proxy.judge(|_: &Passing| Fate::IsLost);
    proxy.cut();
    for number in (0..BLOCKS).step_by(4) {
        remove(&cluster, number)?;
    }
    for number in BLOCKS..BLOCKS.saturating_add(20) {
        make(&cluster, number)?;
    }
    cluster.control_plane.stop_api_server();
    cluster.control_plane.start_api_server()?;
    cluster.control_plane.forget_history()?;
    proxy.judge(|_: &Passing| Fate::Passes);
    eventually("routes as modelled after a hole", WITHIN, || {
        routes::require_as_modelled(&cluster)
    })?;
    cluster.add_pods("later", 4)?;
    eventually("routes as modelled at the end", WITHIN, || routes::require_as_modelled(&cluster))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Makes a block of one of the nodes, with its claim.
fn make(cluster: &Cluster, number: u32) -> Result<(), Error> {
    let node = format!("node-{}", 1_u32.saturating_add(number % 2));
    let cidr = cidr(number);
    cluster.api.create::<api::IpamBlock>(json!({
        "metadata": {"name": cidr.replace(['.', '/'], "-")},
        "spec": {
            "cidr": cidr, "affinity": format!("host:{node}"), "strictAffinity": false,
            "allocations": vec![json!(null); 4], "unallocated": [0, 1, 2, 3], "attributes": [],
        },
    }))?;
    // With the labels by which its node looks for it.
    let claim = api::BlockAffinity::from_model(&Affinity {
        owner: Owner::Host(node.parse().map_err(Error::wrong)?),
        cidr: cidr.parse().map_err(Error::wrong)?,
        state: AffinityState::Confirmed,
        is_deleted: false,
    });
    cluster
        .api
        .create::<api::BlockAffinity>(serde_json::to_value(&claim).map_err(Error::wrong)?)?;
    Ok(())
}

fn remove(cluster: &Cluster, number: u32) -> Result<(), Error> {
    let node = format!("node-{}", 1_u32.saturating_add(number % 2));
    let cidr = cidr(number);
    if let Some(claim) = cluster.api.get::<api::BlockAffinity>(&claim(&node, &cidr))? {
        cluster.api.delete(&claim)?;
    }
    match cluster.api.get::<api::IpamBlock>(&cidr.replace(['.', '/'], "-"))? {
        Some(block) => cluster.api.delete(&block),
        None => Ok(()),
    }
}

fn claim(node: &str, cidr: &str) -> String {
    format!("{node}-{}", cidr.replace(['.', '/'], "-"))
}

/// Returns one of many blocks of four addresses, in the upper half of the pool.
fn cidr(number: u32) -> String {
    let first = 0x0af4_8000_u32.saturating_add(number.saturating_mul(4));
    format!("{}/30", std::net::Ipv4Addr::from(first))
}
