//! Facts about connections: found, forgotten, and ended.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::IpAddr;

use kernel::conntrack::{Conntrack, Flow};
use render::Settings;

use crate::cluster::{Cluster, Seen, ask, connect, ping, serve_tcp, serve_udp, udp_socket};
use crate::policies::{ingress, open, with};

/// Is it the connection to this port?
fn is_to(flow: &Flow, port: u16) -> bool {
    flow.original.destination_port == port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn marked_connections_end_with_a_reset_and_others_go_on() {
    let cluster = Cluster::new(2).await;
    let (from, to) = (&cluster.pods[0], &cluster.pods[1]);
    let ports = [80, 81];
    for port in ports {
        serve_tcp(to.netns(), port);
    }
    let settings = Settings { ends_denied: true, ..Settings::default() };
    let mark = settings.marks.ended();
    let state = with(cluster.state(&[&open(), &open()]), "p", vec![]);
    let _enforced = cluster.enforce(state, settings);
    let mut conntrack = Conntrack::open_in(&cluster.host.netns).unwrap();
    for addr in to.addrs {
        let mut streams = ports.map(|port| connect(from.netns(), (addr, port)).unwrap().0);
        let addrs: BTreeSet<IpAddr> = [addr].into();
        let flows = conntrack.flows(|flow| flow.is_of_any(&addrs) && is_to(flow, 80)).unwrap();
        assert_eq!(flows.len(), 1, "{flows:?}");
        conntrack.mark(&flows[0], mark.value, mark.mask).unwrap();
        let ended = streams[0].write_all(b"x").and_then(|()| streams[0].read(&mut [0]));
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        streams[1].write_all(b"x").unwrap();
        assert_eq!(streams[1].read(&mut [0]).unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_forgotten_connection_is_judged_as_a_new_one() {
    let cluster = Cluster::new(2).await;
    let (from, to) = (&cluster.pods[0], &cluster.pods[1]);
    for addr in to.addrs {
        serve_udp(to.netns(), addr, 53);
    }
    let state = with(cluster.state(&[&open(), &open()]), "p", vec![]);
    let _enforced = cluster.enforce(state, Settings::default());
    let mut conntrack = Conntrack::open_in(&cluster.host.netns).unwrap();
    for addr in to.addrs {
        // Until neighbours know each other, the first packets may be late.
        assert!((0..40).any(|_| ping(from.netns(), addr) == Seen::Answer), "{addr}");
    }
    let sockets = [0, 1].map(|n| udp_socket(from.netns(), from.addrs[n], (to.addrs[n], 53)));
    for socket in &sockets {
        assert_eq!(ask(socket), Seen::Answer);
    }
    let closed = with(cluster.state(&[&open(), &ingress(&["p"])]), "p", vec![]);
    let _enforced = cluster.enforce(closed, Settings::default());
    for socket in &sockets {
        assert_eq!(ask(socket), Seen::Answer, "what was known");
    }
    let flows = conntrack.flows_of(&to.addrs.into()).unwrap();
    assert_eq!(flows.iter().filter(|flow| is_to(flow, 53)).count(), 2, "{flows:?}");
    // The kernel's own comparing finds the same as ours.
    for addrs in [to.addrs, from.addrs] {
        let mut told = conntrack.flows_of(&addrs.into()).unwrap();
        let mut compared = conntrack.flows(|flow| flow.is_of_any(&addrs.into())).unwrap();
        for flows in [&mut told, &mut compared] {
            flows.sort_by_key(ToString::to_string);
        }
        assert_eq!(told, compared);
        let nobody = "10.65.0.250".parse().unwrap();
        assert_eq!(conntrack.flows_of(&[nobody].into()).unwrap(), []);
    }
    conntrack.forget(&to.addrs.map(|addr| (0, addr)).into()).unwrap();
    for socket in &sockets {
        assert_eq!(ask(socket), Seen::Nothing);
    }
    for gone in &flows {
        conntrack.delete(gone).unwrap();
    }
}
