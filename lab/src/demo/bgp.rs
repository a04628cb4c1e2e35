//! BGP, shown: a rack with two switches, route reflectors, and a Service that is reached from
//! outside over all of them.
//!
//! ```text
//!              client (AS 65100)
//!             /                 \
//!     tor-a (AS 65001)   tor-b (AS 65002)      BIRD, each with all nodes
//!             \                 /
//!      ────────┴── 192.0.2.0/24 ┴────────
//!        node-1     node-2     node-3          AS 64512; the first two reflect
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde_json::{Value, json};

use super::{Afterwards, keep_hints, print};
use crate::Error;
use crate::cluster::{Cluster, Fabric, Families, NAMESPACE, Plan, eventually};
use crate::control_plane::Kind;
use crate::fabric;
use crate::node::Node;
use crate::process::ip;
use crate::reachability::Matrix;
use crate::sandbox::Inside;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(60);
/// The API group of our objects.
const GROUP: &str = "crd.projectcalico.org/v1";
/// The address of the Service, and the range that it lies in.
const SERVICE: (&str, &str) = ("198.51.100.10", "198.51.100.0/24");
/// The port that pods answer on.
const PORT: u16 = 7;
/// How many connections are tried each time.
const CONNECTIONS: usize = 60;
/// The AS of nodes, and of the client.
const ASNS: [u32; 2] = [64_512, 65_100];
/// The switches: name, AS, place on the nodes' network.
const TORS: [(&str, u32, u8); 2] = [("tor-a", 65_001, 91), ("tor-b", 65_002, 92)];

/// A cluster with its rack.
#[derive(Debug)]
pub struct Rack {
    /// The cluster.
    pub cluster: Cluster,
    /// The switches.
    tors: Vec<Node>,
    /// Somebody outside.
    client: Node,
}

/// Runs the demonstration.
///
/// # Errors
///
/// The step that failed, or did not show what it should.
pub fn run(inside: &mut Inside, kind: Kind, afterwards: Afterwards) -> Result<(), Error> {
    let started = Instant::now();
    let mut say =
        |text: &str| print(&format!("\n[{:6.2} s] {text}", started.elapsed().as_secs_f32()));
    let rack = Rack::up(&inside.dir, kind, &mut say)?;
    rack.show(&mut say)?;
    if afterwards == Afterwards::Keep {
        print(&keep_hints(inside, &rack.cluster)?);
        inside.keep()?;
    }
    Ok(())
}

impl Rack {
    /// Starts the cluster, the switches and the client, with all sessions up.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn up(dir: &Path, kind: Kind, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let plan =
            Plan { control_plane: kind, nodes: 3, families: Families::V4, fabric: Fabric::Bridge };
        let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
        configure(&cluster)?;
        let client = Node::start("client", &dir.join("client"))?;
        let mut tors = Vec::new();
        for (place, (name, _, number)) in TORS.into_iter().enumerate() {
            let mut tor = Node::start(name, &dir.join(name))?;
            fabric::connect(Fabric::Bridge, &mut tor, number)?;
            join(&tor, &client, place)?;
            tors.push(tor);
        }
        for node in tors.iter().chain([&client]) {
            // Connections, not hosts, are spread over the paths.
            node.run(&["sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1"])?;
            node.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        }
        for (place, (tor, (_, asn, _))) in tors.iter().zip(TORS).enumerate() {
            start_bird(tor, &tor_configuration(&cluster, tor, asn, place)?)?;
        }
        start_bird(&client, &client_configuration()?)?;
        for node in &cluster.nodes {
            cluster.start_daemon(node)?;
        }
        cluster.wait_ready()?;
        cluster.add_pods("web", 3)?;
        let rack = Self { cluster, tors, client };
        eventually("all sessions", WITHIN, || rack.require_sessions())?;
        say("two switches (BIRD) peer with three nodes, of which two reflect; there is no mesh");
        Ok(rack)
    }

    /// Shows and checks one thing after the other.
    ///
    /// # Errors
    ///
    /// [`Error`] with what is not as it should be.
    pub fn show(&self, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let node = self.cluster.node("node-3")?;
        print(&node.run(&[&self.cluster.program("calico-node"), "bgp", "status"])?);
        Matrix::probe(&self.cluster, WITHIN)?.require_full()?;
        say("pods reach each other by what the reflectors pass on");
        self.make_service()?;
        let all = ["node-1", "node-2", "node-3"];
        self.require_paths(&all)?;
        say(&format!("{} is announced by every node with a ready endpoint", SERVICE.0));
        self.print_paths()?;
        let before = self.connect()?;
        print(&format!("{CONNECTIONS} connections of the client, by node: {before:?}"));
        if before.values().any(|count| *count == 0) {
            return Err(Error::wrong(format!("not every node was used: {before:?}")));
        }
        self.set_ready("node-3", false)?;
        self.require_paths(&["node-1", "node-2"])?;
        say("the endpoint of node-3 is not ready any more, so node-3 withdraws the address");
        self.print_paths()?;
        let after = self.connect()?;
        print(&format!("{CONNECTIONS} more, added up: {after:?}"));
        if after.get("node-3") != before.get("node-3") {
            return Err(Error::wrong("node-3 was used after it had withdrawn the address"));
        }
        self.set_ready("node-3", true)?;
        self.require_paths(&all)?;
        say("it is ready again, and all three nodes are used; no connection has failed");
        Ok(())
    }

    fn require_sessions(&self) -> Result<(), Error> {
        for bird in self.tors.iter().chain([&self.client]) {
            let text = ask_bird(bird, "show protocols")?;
            let down = text.lines().filter(|line| line.contains("BGP"));
            let down: Vec<&str> = down.filter(|line| !line.contains("Established")).collect();
            if !down.is_empty() {
                return Err(Error::wrong(format!("{}: {down:?}", bird.name)));
            }
        }
        Ok(())
    }

    /// Makes the Service with an endpoint on each node. What kube-proxy does on a node, one rule
    /// does here: it leads to the pod of the node itself.
    fn make_service(&self) -> Result<(), Error> {
        let api = &self.cluster.api;
        api.create::<core::Service>(json!({
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                     "ports": [{"port": PORT, "protocol": "TCP"}]},
        }))?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": SERVICE.0}]}}});
        api.patch_status::<core::Service>(Some(NAMESPACE), "web", &status)?;
        for pod in &self.cluster.pods {
            let addr = pod.addr()?.to_string();
            api.create::<discovery::EndpointSlice>(json!({
                "metadata": {"name": format!("web-{}", pod.node), "namespace": NAMESPACE,
                             "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "ports": [{"port": PORT, "protocol": "TCP"}],
                "endpoints": [{"addresses": [addr], "nodeName": pod.node,
                               "conditions": {"ready": true}}],
            }))?;
            let rules = format!(
                "table ip rack {{ chain prerouting {{ \
                 type nat hook prerouting priority dstnat; \
                 ip daddr {} tcp dport {PORT} counter dnat to {addr}; }}; }}",
                SERVICE.0
            );
            self.cluster.node(&pod.node)?.run(&["nft", &rules])?;
        }
        Ok(())
    }

    fn set_ready(&self, node: &str, is_ready: bool) -> Result<(), Error> {
        let name = format!("web-{node}");
        eventually("the endpoint to be written", WITHIN, || {
            let slice = self.cluster.api.get_in::<discovery::EndpointSlice>(NAMESPACE, &name)?;
            let mut slice = slice.ok_or_else(|| Error::wrong("an EndpointSlice has gone"))?;
            for endpoint in &mut slice.endpoints {
                endpoint.conditions.get_or_insert_default().ready = Some(is_ready);
            }
            self.cluster.api.update(&slice).map(drop)
        })
    }

    /// Waits until each switch has a path over exactly these nodes, and the client over both
    /// switches.
    fn require_paths(&self, nodes: &[&str]) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for name in nodes {
            wanted.push(self.cluster.node(name)?.addr()?.to_string());
        }
        for tor in &self.tors {
            eventually("the switch's paths", WITHIN, || require_hops(tor, &wanted))?;
        }
        let tors = (0..TORS.len()).map(|place| ends(place).0).collect::<Vec<_>>();
        eventually("the client's paths", WITHIN, || require_hops(&self.client, &tors))
    }

    fn print_paths(&self) -> Result<(), Error> {
        for node in self.tors.iter().chain([&self.client]) {
            let route = node.run(&["ip", "route", "show", SERVICE.0])?;
            print(&format!("{}: {}", node.name, route.trim_end()));
        }
        Ok(())
    }

    /// Connects from the client again and again; returns how many connections each node has had.
    fn connect(&self) -> Result<BTreeMap<String, u64>, Error> {
        let script = format!(
            "for i in $(seq {CONNECTIONS}); do \
             timeout 5 bash -c '</dev/tcp/{}/{PORT}' || exit 1; done",
            SERVICE.0
        );
        self.client.run(&["bash", "-c", &script])?;
        let mut counts = BTreeMap::new();
        for node in &self.cluster.nodes {
            let text = node.run(&["nft", "list", "table", "ip", "rack"])?;
            let mut words = text.split_whitespace().skip_while(|word| *word != "packets").skip(1);
            let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            counts.insert(node.name.clone(), count);
        }
        Ok(counts)
    }
}

/// Turns the mesh off, makes two nodes reflectors and the switches everybody's peers.
fn configure(cluster: &Cluster) -> Result<(), Error> {
    let api = &cluster.api;
    for name in ["node-1", "node-2"] {
        let node = api.get::<core::Node>(name)?;
        let mut node = node.ok_or_else(|| Error::wrong("a node has gone"))?;
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert("reflector".to_owned(), "true".to_owned());
        let annotations = node.metadata.annotations.get_or_insert_default();
        let name = "projectcalico.org/RouteReflectorClusterID".to_owned();
        annotations.insert(name, "244.0.0.1".to_owned());
        api.update(&node)?;
    }
    api.create::<api::BgpConfiguration>(json!({
        "apiVersion": GROUP, "kind": "BGPConfiguration", "metadata": {"name": "default"},
        "spec": {"nodeToNodeMeshEnabled": false, "asNumber": ASNS[0],
                 "serviceLoadBalancerIPs": [{"cidr": SERVICE.1}]},
    }))?;
    let mut peers = vec![(
        "reflectors".to_owned(),
        json!({"nodeSelector": "all()", "peerSelector": "has(reflector)"}),
    )];
    for (name, asn, number) in TORS {
        let addr = tor_addr(number);
        peers.push((name.to_owned(), json!({"peerIP": addr, "asNumber": asn})));
    }
    for (name, spec) in peers {
        api.create::<api::BgpPeer>(json!({
            "apiVersion": GROUP, "kind": "BGPPeer", "metadata": {"name": name}, "spec": spec,
        }))?;
    }
    Ok(())
}

/// Returns a switch's address on the nodes' network.
fn tor_addr(number: u8) -> String {
    format!("192.0.2.{}", number.saturating_add(10))
}

/// Returns the ends of the cable between a switch and the client.
fn ends(place: usize) -> (String, String) {
    let first = place.saturating_mul(2);
    (format!("203.0.113.{first}"), format!("203.0.113.{}", first.saturating_add(1)))
}

fn join(tor: &Node, client: &Node, place: usize) -> Result<(), Error> {
    let (tor_pid, client_pid) = (tor.pid().to_string(), client.pid().to_string());
    let name = format!("uplink{place}");
    ip(&[
        "link",
        "add",
        "client",
        "netns",
        &tor_pid,
        "type",
        "veth",
        "peer",
        "name",
        &name,
        "netns",
        &client_pid,
    ])?;
    let (at_tor, at_client) = ends(place);
    for (node, link, addr) in [(tor, "client", at_tor), (client, name.as_str(), at_client)] {
        node.run(&["ip", "address", "add", &format!("{addr}/31"), "dev", link])?;
        node.run(&["ip", "link", "set", link, "up"])?;
    }
    Ok(())
}

/// What every BIRD has: the kernel's routes, several paths of each.
fn common(id: &str) -> String {
    format!(
        "router id {id};\nprotocol device {{}}\n\
         protocol kernel {{ merge paths on; ipv4 {{ export where source = RTS_BGP; }}; }}\n"
    )
}

fn session(name: &str, local: (&str, u32), peer: (&str, u32), export: &str) -> String {
    format!(
        "protocol bgp {name} {{ local {} as {}; neighbor {} as {}; \
         connect delay time 1; connect retry time 1; error wait time 1, 2; \
         ipv4 {{ import all; export {export}; next hop self; }}; }}\n",
        local.0, local.1, peer.0, peer.1
    )
}

fn tor_configuration(
    cluster: &Cluster,
    tor: &Node,
    asn: u32,
    place: usize,
) -> Result<String, Error> {
    let addr = tor.addr()?.to_string();
    let mut text = common(&addr);
    text.push_str("protocol direct { ipv4; interface \"client\"; }\n");
    let own = (addr.as_str(), asn);
    for (number, node) in cluster.nodes.iter().enumerate() {
        let peer = node.addr()?.to_string();
        // Nodes learn where the client is.
        let export = "where source = RTS_DEVICE";
        text.push_str(&session(&format!("node{number}"), own, (&peer, ASNS[0]), export));
    }
    let (at_tor, at_client) = ends(place);
    let service = format!("where net ~ [{}+]", SERVICE.1);
    text.push_str(&session("outside", (&at_tor, asn), (&at_client, ASNS[1]), &service));
    Ok(text)
}

fn client_configuration() -> Result<String, Error> {
    let mut text = common("203.0.113.1");
    for (place, (_, asn, _)) in TORS.into_iter().enumerate() {
        let (at_tor, at_client) = ends(place);
        let name = format!("tor{place}");
        write!(text, "{}", session(&name, (&at_client, ASNS[1]), (&at_tor, asn), "none"))
            .map_err(Error::wrong)?;
    }
    Ok(text)
}

fn start_bird(node: &Node, configuration: &str) -> Result<(), Error> {
    let config = node.dir.join("bird.conf");
    std::fs::write(&config, configuration).map_err(Error::file(&config))?;
    let socket = node.dir.join("bird.socket");
    let command = ["bird", "-f", "-c", &config.to_string_lossy(), "-s", &socket.to_string_lossy()];
    node.start_program("bird", &command, &BTreeMap::new())
}

fn ask_bird(node: &Node, question: &str) -> Result<String, Error> {
    let socket = node.dir.join("bird.socket").to_string_lossy().into_owned();
    let words = ["birdc", "-s", &socket].into_iter().chain(question.split(' '));
    node.run(&words.collect::<Vec<_>>())
}

/// Fails unless the node's route to the Service leads to exactly these gateways.
fn require_hops(node: &Node, wanted: &[String]) -> Result<(), Error> {
    let text = node.run(&["ip", "-json", "route", "show", SERVICE.0])?;
    let routes: Vec<Value> = serde_json::from_str(&text).map_err(Error::wrong)?;
    let mut found = Vec::new();
    for route in &routes {
        let hops = route.get("nexthops").and_then(Value::as_array).into_iter().flatten();
        for hop in hops.chain([route]) {
            found.extend(hop.get("gateway").and_then(Value::as_str).map(str::to_owned));
        }
    }
    found.sort();
    let mut wanted = wanted.to_vec();
    wanted.sort();
    if found == wanted {
        return Ok(());
    }
    Err(Error::wrong(format!("{} reaches {} by {found:?}, not {wanted:?}", node.name, SERVICE.0)))
}
