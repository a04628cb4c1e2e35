//! Measures the door's costs on this machine, in fresh network namespaces; needs root.
//!
//! `cargo run --profile lab -p kernel --example measure`

use std::error::Error;
use std::time::{Duration, Instant};

use kernel::netlink::{RouteChange, RouteEntry, RouteFilter, Target, VethSpec};
use kernel::{Netlink, Netns};
use model::desired::RouteProtocol;
use model::net::{Cidr, IfIndex, IfName, MacAddr, Mtu};

const ROUTES: u32 = 10_000;
const VETHS: u32 = 200;
const ROUNDS: u32 = 5;

/// Namespaces that go when the program ends.
struct Named([String; 2]);

impl Drop for Named {
    fn drop(&mut self) {
        for name in &self.0 {
            drop(Netns::remove(name));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = |end: &str| format!("kernel-measure-{end}-{}", std::process::id());
    let named = Named([name("host"), name("pod")]);
    let [host, pod] = &named.0;
    let (host, pod) = (Netns::create(host)?, Netns::create(pod)?);
    let netlink = Netlink::open_in(&host)?;
    netlink.set_link_up(IfIndex(1)).await?;
    routes(&netlink, "10.0.0.0/8").await?;
    routes(&netlink, "fd00::/64").await?;
    veths(&netlink, &pod).await?;
    sockets(&host)
}

async fn routes(netlink: &Netlink, net: &str) -> Result<(), Box<dyn Error>> {
    let net: Cidr = net.parse()?;
    let filter = RouteFilter::of_protocols([RouteProtocol::CALICO]);
    let hosts = (0..ROUTES).filter_map(|number| net.nth(number.into())).map(Cidr::host);
    let entry = |dst| RouteEntry::new(dst, Target::Link(IfIndex(1)), RouteProtocol::CALICO);
    let entries: Vec<RouteEntry> = hosts.map(entry).collect();
    let upserts: Vec<_> = entries.iter().cloned().map(RouteChange::Upsert).collect();
    let deletes: Vec<_> = entries.iter().cloned().map(RouteChange::Delete).collect();
    let mut best = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        netlink.apply_routes(&upserts).await?;
        let written = start.elapsed();
        let start = Instant::now();
        netlink.routes(&filter).await?;
        let listed = start.elapsed();
        let start = Instant::now();
        netlink.apply_routes(&deletes).await?;
        let removed = start.elapsed();
        let start = Instant::now();
        for entry in &entries {
            netlink.upsert_route(entry).await?;
        }
        let singly = start.elapsed();
        netlink.apply_routes(&deletes).await?;
        for (best, found) in best.iter_mut().zip([written, listed, removed, singly]) {
            *best = found.min(*best);
        }
    }
    let [written, listed, removed, singly] = best;
    let family = net.family();
    report(&format!("{family}: write {ROUTES} routes in a batch"), written);
    report(&format!("{family}: list them"), listed);
    report(&format!("{family}: delete them in a batch"), removed);
    report(&format!("{family}: write them one by one"), singly);
    Ok(())
}

async fn veths(netlink: &Netlink, pod: &Netns) -> Result<(), Box<dyn Error>> {
    let peer_name: IfName = "eth0".parse()?;
    let (mut added, mut deleted) = (Vec::new(), Vec::new());
    for number in 0..VETHS {
        let host_name: IfName = format!("cali{number}").parse()?;
        let veth = VethSpec {
            host_name: &host_name,
            host_mac: MacAddr::WORKLOAD_HOST_SIDE,
            peer_name: &peer_name,
            peer_mac: None,
            peer_netns: pod,
            mtu: Some(Mtu(1450)),
            master: None,
        };
        let start = Instant::now();
        netlink.add_veth(&veth).await?;
        added.push(start.elapsed());
        let start = Instant::now();
        netlink.delete_link(&host_name).await?;
        deleted.push(start.elapsed());
    }
    report("add a veth pair across namespaces, median", median(added));
    report("delete it, median", median(deleted));
    Ok(())
}

fn sockets(host: &Netns) -> Result<(), Box<dyn Error>> {
    let mut opened = Vec::new();
    for _ in 0..VETHS {
        let start = Instant::now();
        Netlink::open_in(host)?;
        opened.push(start.elapsed());
    }
    report("open a route socket in another namespace, median", median(opened));
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "what it measures is its output")]
fn report(what: &str, time: Duration) {
    println!("{what}: {time:.3?}");
}
