//! A node of namespaces: the machine, its pods, and somebody outside.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kernel::netlink::{NextHop, RouteEntry, Target};
use kernel::{Netns, Nftables};
use model::desired::RouteProtocol;
use model::desired::policy::{EndpointPath, PolicyState, WorkloadPolicy};
use model::id::NamespacedName;
use model::net::{Cidr, IfIndex, MacAddr};
use render::{Renderer, Settings, plan};

use crate::sandbox::{Sandbox, addr, cidr, if_name};

/// How long an answer may take; only packets that are dropped take so long.
const PATIENCE: Duration = Duration::from_millis(250);

/// What somebody who tried to connect saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// An answer.
    Answer,
    /// Nothing at all.
    Nothing,
}

/// A pod, or a machine outside.
pub(crate) struct Machine {
    pub(crate) sandbox: Sandbox,
    pub(crate) addrs: [IpAddr; 2],
    pub(crate) mac: MacAddr,
    pub(crate) link: IfIndex,
}

/// A node with pods `cali0`, `cali1` and so on, and an outside machine behind `eth0`.
pub(crate) struct Cluster {
    pub(crate) host: Sandbox,
    pub(crate) pods: Vec<Machine>,
    pub(crate) outside: Machine,
}

impl Cluster {
    pub(crate) async fn new(pods: u8) -> Self {
        let host = Sandbox::new().await;
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            host.sysctl(name, "1");
        }
        quick_addresses(&host);
        let outside = machine(&host, "eth0", ["192.0.2.2", "2001:db8::2"]).await;
        let link = host.netlink.require_link(&if_name("eth0")).await.unwrap().index;
        for text in ["192.0.2.1/24", "2001:db8::1/64"] {
            host.netlink.add_addr(link, addr(text)).await.unwrap();
        }
        let mut all = Vec::new();
        for number in 0..pods {
            let last = number + 2;
            let addrs = [format!("10.65.0.{last}"), format!("fd65::{last}")];
            let addrs = [addrs[0].as_str(), addrs[1].as_str()];
            all.push(machine(&host, &format!("cali{number}"), addrs).await);
        }
        Self { host, pods: all, outside }
    }

    /// A state in which each pod has a path.
    pub(crate) fn state(&self, paths: &[&EndpointPath]) -> PolicyState {
        let mut state = PolicyState::default();
        for (number, path) in paths.iter().enumerate() {
            let workload = self.workload(number, path);
            state.workloads.insert(format!("cali{number}").parse().unwrap(), workload);
        }
        state
    }

    pub(crate) fn workload(&self, number: usize, path: &EndpointPath) -> WorkloadPolicy {
        let pod = &self.pods[number];
        let name = format!("pod-{number}");
        WorkloadPolicy {
            endpoint: NamespacedName { namespace: "default".to_owned(), name },
            addrs: pod.addrs.to_vec(),
            mac: Some(pod.mac),
            allowed_sources: Vec::new(),
            controls: model::endpoint::Controls::default(),
            path: Arc::new(path.clone()),
        }
    }

    /// Has the kernel enforce a state.
    pub(crate) fn enforce(&self, state: PolicyState, settings: Settings) -> Enforced {
        let mut nftables = Nftables::open_in(&self.host.netns).unwrap();
        let renderer = Renderer::new(state, settings);
        let transaction = plan(renderer.tables(), &nftables.snapshot().unwrap());
        nftables.apply(&transaction).unwrap();
        Enforced { nftables, renderer }
    }
}

/// What the kernel enforces.
pub(crate) struct Enforced {
    pub(crate) nftables: Nftables,
    pub(crate) renderer: Renderer,
}

impl Machine {
    pub(crate) fn netns(&self) -> &Netns {
        &self.sandbox.netns
    }

    pub(crate) fn v4(&self) -> IpAddr {
        self.addrs[0]
    }

    pub(crate) fn v6(&self) -> IpAddr {
        self.addrs[1]
    }
}

fn quick_addresses(sandbox: &Sandbox) {
    sandbox.sysctl("net/ipv6/conf/default/accept_dad", "0");
    sandbox.sysctl("net/ipv6/conf/default/autoconf", "0");
}

/// Makes a machine behind the link `host_name` of `host`, which is its way to everywhere.
async fn machine(host: &Sandbox, host_name: &str, addrs: [&str; 2]) -> Machine {
    let sandbox = Sandbox::new().await;
    quick_addresses(&sandbox);
    let host_link = host.connect(&sandbox, host_name, "eth0").await;
    host.netlink.set_link_up(host_link).await.unwrap();
    let link = sandbox.netlink.require_link(&if_name("eth0")).await.unwrap();
    let addrs: [IpAddr; 2] = addrs.map(|addr| addr.parse().unwrap());
    let gateways = [("169.254.1.1", "0.0.0.0/0"), ("fe80::1", "::/0")];
    for (own, (gateway, everywhere)) in addrs.iter().zip(gateways) {
        let gateway: IpAddr = gateway.parse().unwrap();
        let net = Cidr::host(*own);
        sandbox.netlink.add_addr(link.index, addr(&net.to_string())).await.unwrap();
        let mac = MacAddr::WORKLOAD_HOST_SIDE;
        sandbox.netlink.upsert_neighbour(link.index, gateway, mac).await.unwrap();
        let hop = NextHop { gateway, link: Some(link.index), is_on_link: true };
        let default =
            RouteEntry::new(cidr(everywhere), Target::Via(vec![hop]), RouteProtocol::BOOT);
        sandbox.netlink.upsert_route(&default).await.unwrap();
        let way = RouteEntry::new(net, Target::Link(host_link), RouteProtocol::BOOT);
        host.netlink.upsert_route(&way).await.unwrap();
    }
    let mac = link.mac.expect("a veth has an Ethernet address");
    Machine { sandbox, addrs, mac, link: link.index }
}

/// Answers on a TCP port: sends back who asks, and then all that comes.
pub(crate) fn serve_tcp(netns: &Netns, port: u16) {
    let listener = netns.run(|| TcpListener::bind(SocketAddr::new("::".parse().unwrap(), port)));
    let listener = listener.unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let Ok(peer) = stream.peer_addr() else { return };
                let _ = writeln!(stream, "{}", peer.ip().to_canonical());
                let mut bytes = [0; 64];
                while let Ok(len @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..len]);
                }
            });
        }
    });
}

/// Answers on a UDP port.
pub(crate) fn serve_udp(netns: &Netns, addr: IpAddr, port: u16) {
    let socket = netns.run(|| UdpSocket::bind(SocketAddr::new(addr, port))).unwrap().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..len], from);
        }
    });
}

/// Connects; the stream has told who asked.
pub(crate) fn connect(netns: &Netns, to: (IpAddr, u16)) -> Option<(TcpStream, String)> {
    let mut stream =
        netns.run(|| TcpStream::connect_timeout(&SocketAddr::from(to), PATIENCE)).unwrap().ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut who = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        who.push(byte[0]);
    }
    Some((stream, String::from_utf8(who).unwrap()))
}

pub(crate) fn tcp(from: &Netns, to: (IpAddr, u16)) -> Seen {
    if connect(from, to).is_some() { Seen::Answer } else { Seen::Nothing }
}

/// Makes a socket that can ask `to`, from one of the machine's addresses.
pub(crate) fn udp_socket(netns: &Netns, from: IpAddr, to: (IpAddr, u16)) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind(SocketAddr::new(from, 0))).unwrap().unwrap();
    socket.connect(SocketAddr::from(to)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Asks once.
pub(crate) fn ask(socket: &UdpSocket) -> Seen {
    let mut bytes = [0; 8];
    let answer = socket.send(b"ping").and_then(|_| socket.recv(&mut bytes));
    if answer.is_ok() { Seen::Answer } else { Seen::Nothing }
}

pub(crate) fn udp(machine: &Machine, to: (IpAddr, u16)) -> Seen {
    let from = if to.0.is_ipv4() { machine.v4() } else { machine.v6() };
    ask(&udp_socket(machine.netns(), from, to))
}

/// Sends an echo request (RFC 792, RFC 4443).
pub(crate) fn ping(from: &Netns, to: IpAddr) -> Seen {
    let mut command = Command::new("ping");
    command.args(["-c1", "-W0.25", "-q", &to.to_string()]);
    let output = from.run(|| command.output()).unwrap().expect("these tests need iputils-ping");
    if output.status.success() { Seen::Answer } else { Seen::Nothing }
}

/// Reads how many packets each rule with a note has met, by nft(8).
pub(crate) fn counters(netns: &Netns) -> BTreeMap<String, u64> {
    let mut command = Command::new("nft");
    command.args(["list", "table", "ip", "calico"]);
    let output = netns.run(|| command.output()).unwrap().expect("these tests need nftables");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut counters = BTreeMap::new();
    for line in text.lines() {
        let packets = line.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        let note = line.rsplit("; ").next().filter(|_| line.contains("comment \"cali:"));
        if let (Some(packets), Some(note)) = (packets, note) {
            let count: u64 = packets.parse().unwrap();
            *counters.entry(note.trim_end_matches('"').to_owned()).or_default() += count;
        }
    }
    counters
}
