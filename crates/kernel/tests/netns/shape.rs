//! Facts about limits on how fast packets go.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kernel::Netns;
use kernel::netlink::{RateLimit, ifb_name};

use crate::sandbox::{Sandbox, addr, if_name};

/// A megabyte per second, and a tenth of it at once.
const LIMIT: RateLimit = RateLimit { rate: 1_000_000, burst: 100_000 };
const HOST: &str = "10.9.0.1/24";
const POD: &str = "10.9.0.2/24";

#[tokio::test]
async fn what_a_link_sends_and_receives_waits_for_its_turn() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let link = host.connect(&pod, "cali1", "eth0").await;
    let peer = pod.netlink.require_link(&if_name("eth0")).await.unwrap().index;
    host.netlink.add_addr(link, addr(HOST)).await.unwrap();
    pod.netlink.add_addr(peer, addr(POD)).await.unwrap();
    let ifb = ifb_name(&if_name("cali1")).unwrap();
    let far = IpAddr::from([10, 9, 0, 2]);

    host.netlink.limit_sending(link, LIMIT).await.unwrap();
    assert_eq!(host.netlink.limits().await.unwrap()[&link].rate, LIMIT.rate);
    let burst = host.netlink.limits().await.unwrap()[&link].burst;
    assert!(burst.abs_diff(LIMIT.burst) < 1000, "{burst}");
    assert!(transfer(&host.netns, &pod.netns, far) > Duration::from_millis(200));
    assert!(host.netlink.unlimit_sending(link).await.unwrap());
    assert!(!host.netlink.unlimit_sending(link).await.unwrap());

    host.netlink.limit_receiving(link, &ifb, LIMIT).await.unwrap();
    host.netlink.limit_receiving(link, &ifb, LIMIT).await.unwrap();
    let near = IpAddr::from([10, 9, 0, 1]);
    assert!(transfer(&pod.netns, &host.netns, near) > Duration::from_millis(200));
    assert!(host.netlink.unlimit_receiving(link, &ifb).await.unwrap());
    assert!(!host.netlink.unlimit_receiving(link, &ifb).await.unwrap());
    assert!(host.netlink.limits().await.unwrap().is_empty());
    transfer(&pod.netns, &host.netns, near);
}

#[tokio::test]
async fn others_queues_are_not_ours() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let link = host.connect(&pod, "cali1", "eth0").await;
    let tc = "qdisc add dev cali1 root handle 1: tbf rate 1mbit burst 32k latency 25ms";
    let words: Vec<&str> = tc.split(' ').collect();
    let run = || std::process::Command::new("tc").args(&words).status().unwrap();
    assert!(host.netns.run(run).unwrap().success());
    assert!(host.netlink.limits().await.unwrap().is_empty());
    assert!(!host.netlink.unlimit_sending(link).await.unwrap());
}

/// Sends 400 kilobytes and returns how long they took.
fn transfer(from: &Netns, to: &Netns, addr: IpAddr) -> Duration {
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(addr, 0)).unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    let started = Instant::now();
    let sending = from
        .run(|| TcpStream::connect_timeout(&at, Duration::from_secs(30)).unwrap())
        .map(|mut stream| std::thread::spawn(move || stream.write_all(&vec![7; 400_000]).unwrap()))
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert_eq!(received.len(), 400_000);
    started.elapsed()
}
