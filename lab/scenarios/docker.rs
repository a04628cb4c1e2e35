//! Hosts with Docker and without Kubernetes: real daemons, containers, and what breaks.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::docker::{self, Hosts, NewContainer, docker, refused};
use lab::node::Node;
use lab::reachability::Matrix;
use lab::routes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::faults::{OUTAGE, require_lossless};

#[path = "docker/people.rs"]
mod people;

/// How long routes, policies and clean-ups may take, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);
/// Containers on each host.
const ON_EACH: usize = 10;
/// Containers that come and go.
const CHURN: usize = 100;
/// How many of them at once.
const AT_ONCE: usize = 8;

fn hosts(dir: &Path, control_plane: Kind, nodes: u8, families: Families) -> Result<Hosts, Error> {
    let plan = Plan { control_plane, nodes, families, fabric: Fabric::Bridge };
    let cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    let hosts = Hosts::up(cluster)?;
    eprintln!("calico-node, calico-docker and dockerd run on every host");
    Ok(hosts)
}

/// Ten containers on each of two hosts reach each other by BGP, pods reach them when they may,
/// and policies find them by their labels.
pub(crate) fn reach(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut hosts = hosts(dir, control_plane, 2, Families::V4)?;
    hosts.create_network("web", &["--subnet", "10.244.0.0/16"])?;
    let started = run_everywhere(&hosts, ON_EACH)?;
    hosts.cluster.pods.extend(started);
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    eprintln!("every container reaches every container");
    hosts.require_as_docker_has_it(WITHIN)?;
    hosts.cluster.add_pods("pod", 2)?;
    eventually("pods to be kept out by the network's profile", WITHIN, || {
        require_unreached(&hosts, |from, to| is_pod(from) && !is_pod(to))
    })?;
    hosts.cluster.api.create_any(&policy(
        "let-pods-in",
        500,
        "has(web)",
        &["has(web)", "app == 'lab'"],
    ))?;
    eventually("pods to be let in by a policy", WITHIN, || {
        Matrix::probe(&hosts.cluster, Duration::from_secs(1))?.require_full()
    })?;
    hosts.cluster.api.create_any(&policy("guard", 10, "role == 'db'", &["role == 'front'"]))?;
    let role = |pod: &RunningPod, role: &str| pod.pod.name.contains(role);
    eventually("policy by labels of containers", WITHIN, || {
        require_unreached(&hosts, |from, to| {
            role(to, "db") && !role(from, "front") && from.pod.name != to.pod.name
        })
    })?;
    eprintln!("policy finds containers by their labels");
    routes::require_as_modelled(&hosts.cluster).or_else(|_| {
        eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&hosts.cluster))
    })
}

/// Runs containers on all nodes at once: the first of each is the database, the second the front.
fn run_everywhere(hosts: &Hosts, on_each: usize) -> Result<Vec<RunningPod>, Error> {
    let started = std::thread::scope(|scope| {
        let on_node = |node: &Node| {
            (0..on_each)
                .map(|number| {
                    let role = ["db", "front", "other"].get(number).unwrap_or(&"other");
                    let digit = node.name.rsplit('-').next().unwrap_or_default();
                    let name = format!("{role}-{digit}-{number}");
                    let labels = [("role", *role)];
                    let wanted = NewContainer {
                        name: &name,
                        network: "web",
                        labels: &labels,
                        arguments: &[],
                    };
                    docker::run(node, &wanted)
                })
                .collect::<Result<Vec<_>, Error>>()
        };
        let threads: Vec<_> =
            hosts.cluster.nodes.iter().map(|node| scope.spawn(move || on_node(node))).collect();
        threads.into_iter().map(joined).collect::<Result<Vec<_>, Error>>()
    });
    Ok(started?.concat())
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err(Error::wrong("a thread panicked")))
}

fn is_pod(pod: &RunningPod) -> bool {
    pod.pod.namespace != "libnetwork"
}

/// Fails unless exactly these pairs do not reach each other.
fn require_unreached(
    hosts: &Hosts,
    is_closed: impl Fn(&RunningPod, &RunningPod) -> bool,
) -> Result<(), Error> {
    let found = Matrix::probe(&hosts.cluster, Duration::from_millis(700))?;
    let found: BTreeSet<String> = found.unreached().into_iter().collect();
    let pods = &hosts.cluster.pods;
    let pairs = pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to)));
    let closed = pairs.filter(|(from, to)| is_closed(from, to));
    let wanted: BTreeSet<String> = closed
        .flat_map(|(from, to)| {
            to.addrs()
                .iter()
                .map(move |addr| format!("{} -> {} ({addr})", from.pod.name, to.pod.name))
        })
        .collect();
    if found == wanted && !wanted.is_empty() {
        return Ok(());
    }
    let open: Vec<_> = wanted.difference(&found).take(5).collect();
    let shut: Vec<_> = found.difference(&wanted).take(5).collect();
    Err(Error::wrong(format!(
        "open but should not be: {open:?}; closed but should not be: {shut:?}"
    )))
}

/// A policy for packets to some, from some others.
fn policy(name: &str, order: i64, selector: &str, sources: &[&str]) -> Value {
    let allow = |source: &&str| json!({"action": "Allow", "source": {"selector": source}});
    json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "order": order,
            "selector": selector,
            "types": ["Ingress"],
            "ingress": sources.iter().map(allow).chain(
                (order < 100).then(|| json!({"action": "Deny"}))
            ).collect::<Vec<_>>(),
        },
    })
}

/// Kills each program of a host while containers talk; then all at once, with a container that
/// ends unseen.
pub(crate) fn kills(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut hosts = hosts(dir, control_plane, 2, Families::V4)?;
    hosts.create_network("web", &["--subnet", "10.66.0.0/24", "--ipam-opt", "blockSize=28"])?;
    for node in ["node-1", "node-2"] {
        for name in ["talks", "goes"] {
            let name = format!("{name}-{}", node.rsplit('-').next().unwrap_or_default());
            hosts.run(
                node,
                &NewContainer { name: &name, network: "web", ..NewContainer::default() },
            )?;
        }
    }
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    let (one, two) = (hosts.pod("talks-1")?.clone(), hosts.pod("talks-2")?.clone());
    let flows = [(&one, &two), (&two, &one)];
    for (from, to) in flows {
        hosts.cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    let victim = hosts.cluster.node("node-1")?;
    hosts.kill_plugin(victim)?;
    std::thread::sleep(OUTAGE);
    hosts.start_plugin(victim)?;
    hosts.cluster.end_daemon(victim, Signal::SIGKILL)?;
    std::thread::sleep(OUTAGE);
    hosts.start_daemon(victim)?;
    hosts.cluster.wait_ready()?;
    docker::kill_dockerd(victim)?;
    std::thread::sleep(OUTAGE);
    docker::start_dockerd(victim)?;
    docker::wait_for_docker(victim)?;
    eprintln!("plugin, calico-node and dockerd were killed and started again");
    // A container ends while nobody looks, and with it go those who would have told of it.
    let facts = docker::inspect(victim, "goes-1")?;
    let pid = facts.pointer("/State/Pid").and_then(Value::as_i64).unwrap_or_default();
    hosts.kill_plugin(victim)?;
    docker::kill_dockerd(victim)?;
    victim.run(&["sh", "-c", &format!("kill -9 {pid}")])?;
    docker::start_dockerd(victim)?;
    docker::wait_for_docker(victim)?;
    hosts.start_plugin(victim)?;
    hosts.require_as_docker_has_it(WITHIN)?;
    for (from, to) in flows {
        let node = hosts.cluster.node(&from.node)?;
        require_lossless(from, to, &node.stop_flow(&from.pod.container, to.addr()?)?)?;
    }
    eprintln!("running containers have lost nothing, and the one that ended has left nothing");
    victim.silence("goes-1")?;
    hosts.run(
        "node-1",
        &NewContainer { name: "later", network: "web", ..NewContainer::default() },
    )?;
    hosts.cluster.pods.retain(|pod| pod.pod.name != "goes-1");
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    hosts.require_as_docker_has_it(WITHIN)?;
    reboot(&mut hosts)
}

/// Somebody pulls a host's plug: what it had is given back, what it restarts is reached again.
fn reboot(hosts: &mut Hosts) -> Result<(), Error> {
    let comes_back = NewContainer {
        name: "returns",
        network: "web",
        arguments: &["--restart", "always"],
        ..NewContainer::default()
    };
    hosts.run("node-1", &comes_back)?;
    hosts.reboot(1)?;
    hosts.cluster.pods.retain(|pod| pod.node != "node-1");
    hosts.cluster.wait_ready()?;
    let node = hosts.cluster.node("node-1")?;
    eventually("Docker to start a container again", WITHIN, || {
        let facts = docker::inspect(node, "returns")?;
        let state = facts.pointer("/State").cloned().unwrap_or_default();
        let is_running = state.pointer("/Running").and_then(Value::as_bool).unwrap_or_default();
        if is_running { Ok(()) } else { Err(Error::wrong(format!("its state is {state}"))) }
    })?;
    hosts.require_as_docker_has_it(WITHIN)?;
    docker(node, &["start", "talks-1"])?;
    for name in ["returns", "talks-1"] {
        let running = docker::enter(hosts.cluster.node("node-1")?, name)?;
        hosts.cluster.pods.push(running);
    }
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    hosts.require_as_docker_has_it(WITHIN)?;
    eprintln!("a host was rebooted: its containers are reached, and hold what they have alone");
    Ok(())
}

/// A hundred containers come and go, eight at once, and leave nothing.
pub(crate) fn churn(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let hosts = hosts(dir, control_plane, 1, Families::V4)?;
    hosts.create_network("web", &["--subnet", "10.66.0.0/24"])?;
    let node = hosts.cluster.node("node-1")?;
    let names: Vec<String> = (1..=CHURN).map(|number| format!("c{number}")).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || -> Result<(), Error> {
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(name) = names.get(index) else { return Ok(()) };
                let wanted = NewContainer { name, network: "web", ..NewContainer::default() };
                let arguments = docker::run_arguments(&wanted);
                docker(node, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
                docker(node, &["rm", "--force", name])?;
            }
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(joined)
    })?;
    eprintln!("{CHURN} containers came and went");
    hosts.require_as_docker_has_it(WITHIN)?;
    require_nothing_left(&hosts)?;
    docker(node, &["network", "rm", "web"])?;
    require_no_objects(&hosts)
}

/// Nothing of any container is left on a host: interfaces, files, handles.
fn require_nothing_left(hosts: &Hosts) -> Result<(), Error> {
    let node = hosts.cluster.node("node-1")?;
    eventually("nothing of containers to be left", WITHIN, || {
        let links = node.run(&["ip", "-brief", "link", "show"])?;
        let links: Vec<&str> = links.lines().filter(|line| line.starts_with("cali")).collect();
        let files = node.run(&["find", "/run/calico/libnetwork", "-type", "f"])?;
        let handles = hosts.cluster.api.list::<api::IpamHandle>()?;
        let handles: Vec<&str> = handles.iter().map(api::IpamHandle::name).collect();
        if links.is_empty() && files.trim().is_empty() && handles.is_empty() {
            return Ok(());
        }
        Err(Error::wrong(format!("links {links:?}, files {files}, handles {handles:?}")))
    })
}

/// The pools and profiles of networks that are gone are gone, too.
fn require_no_objects(hosts: &Hosts) -> Result<(), Error> {
    eventually("pools and profiles of networks to be gone", WITHIN, || {
        let profiles = hosts.cluster.api.list::<api::Profile>()?;
        let pools = hosts.cluster.api.list::<api::IpPool>()?;
        let pools: Vec<&str> = pools
            .iter()
            .map(api::IpPool::name)
            .filter(|name| name.starts_with("docker-"))
            .collect();
        let profiles: Vec<&str> = profiles.iter().map(api::Profile::name).collect();
        if pools.is_empty() && profiles.is_empty() {
            return Ok(());
        }
        Err(Error::wrong(format!("pools {pools:?}, profiles {profiles:?}")))
    })
}

/// What people do with networks, and what they are told when it cannot be.
pub(crate) fn networks(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut hosts = hosts(dir, control_plane, 1, Families::Dual)?;
    people::units(&hosts.cluster)?;
    refusals(&hosts)?;
    people::compose(&mut hosts)?;
    let subnets = ["--ipv6", "--subnet", "10.66.0.0/24", "--subnet", "fd00:66::/64"];
    hosts.create_network("dual", &subnets)?;
    let kept = ["--subnet", "10.69.0.0/24", "--aux-address", "router=10.69.0.9"];
    hosts.create_network("other", &kept)?;
    hosts.create_network("any", &[])?;
    let given = ["--ip", "10.66.0.77", "--ip6", "fd00:66::77", "--publish", "8080:7"];
    let one =
        NewContainer { name: "one", network: "dual", arguments: &given, ..Default::default() };
    hosts.run("node-1", &one)?;
    let two = NewContainer { name: "two", network: "dual", ..NewContainer::default() };
    hosts.run("node-1", &two)?;
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    eprintln!("two containers with two addresses each reach each other");
    published(&hosts)?;
    taken(&hosts)?;
    let node = hosts.cluster.node("node-1")?;
    docker(node, &["network", "connect", "other", "two"])?;
    let three = NewContainer {
        name: "three",
        network: "other",
        arguments: &["--expose", "7", "--publish-all"],
        ..NewContainer::default()
    };
    let third = docker::run(node, &three)?;
    hosts.require_as_docker_has_it(WITHIN)?;
    let addr = third.addr()?.to_string();
    eventually("the second network of a container", WITHIN, || {
        node.run(&["ip", "netns", "exec", "two", "ping", "-c", "1", "-W", "1", &addr]).map(drop)
    })?;
    people::chosen_port(&hosts)?;
    // What was reached by the first network still is.
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    docker::remove(node, "three")?;
    docker(node, &["network", "disconnect", "other", "two"])?;
    hosts.require_as_docker_has_it(WITHIN)?;
    eprintln!("a container was connected to a second network and disconnected");
    // A daemon that restarts finds its containers, and they each other.
    node.end_program("dockerd", Signal::SIGTERM)?;
    docker::start_dockerd(node)?;
    docker::wait_for_docker(node)?;
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    hosts.require_as_docker_has_it(WITHIN)?;
    published(&hosts)?;
    docker(node, &["restart", "--time", "0", "two"])?;
    hosts.require_as_docker_has_it(WITHIN)?;
    for name in ["one", "two"] {
        docker::remove(node, name)?;
    }
    docker(node, &["network", "rm", "dual", "other", "any"])?;
    hosts.require_as_docker_has_it(WITHIN)?;
    require_nothing_left(&hosts)?;
    require_no_objects(&hosts)?;
    swarm(node)
}

/// The host's port leads to the container: from the host and from elsewhere.
fn published(hosts: &Hosts) -> Result<(), Error> {
    let node = hosts.cluster.node("node-1")?;
    let host = node.addr()?;
    let ask_here = |addr: &str| {
        let script = format!("printf hello | timeout 2 /bin/busybox nc {addr} 8080");
        require_echo(addr, &node.run(&["sh", "-c", &script])?)
    };
    let ask_from_elsewhere = || {
        let mut stream = TcpStream::connect_timeout(&(host, 8080).into(), Duration::from_secs(2))
            .map_err(Error::wrong)?;
        let mut said = [0; 5];
        let asked = stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut said));
        asked.map_err(Error::wrong)?;
        require_echo("the host from elsewhere", &String::from_utf8_lossy(&said))
    };
    eventually("a published port to answer", WITHIN, || {
        ask_here(&host.to_string())?;
        ask_here("127.0.0.1")?;
        ask_from_elsewhere()
    })
}

fn require_echo(whom: &str, said: &str) -> Result<(), Error> {
    if said.starts_with("hello") {
        return Ok(());
    }
    Err(Error::wrong(format!("{whom} says `{said}`")))
}

/// What is taken is not given twice, and whoever asks for it leaves nothing.
fn taken(hosts: &Hosts) -> Result<(), Error> {
    let node = hosts.cluster.node("node-1")?;
    let before = people::footprint(hosts)?;
    let cases: [(&[&str], &str); 6] = [
        (&["--network", "dual", "--ip", "10.66.0.77"], "10.66.0.77"),
        (&["--network", "dual", "--ip", "10.69.0.7"], "10.69.0.7"),
        (&["--network", "dual", "--ip6", "fd00:66::77"], "fd00:66::77"),
        (&["--network", "other", "--ip", "10.69.0.9"], "10.69.0.9"),
        (&["--network", "dual", "--publish", "8080:80"], "port 8080/tcp of the host is published"),
        (&["--network", "dual", "--publish", "8080-8080:80"], "port 8080/tcp of the host"),
    ];
    for (arguments, expected) in cases {
        let all = [&["run", "--name", "never"], arguments, &["lab", "/bin/sleep", "1"]].concat();
        require_line(&refused(node, &all)?, expected)?;
        docker(node, &["rm", "--force", "never"])?;
        people::require_same(hosts, &before)?;
    }
    people::in_use(hosts)?;
    people::require_same(hosts, &before)?;
    hosts.require_as_docker_has_it(WITHIN)
}

/// Says what is wrong in a line, and leaves nothing.
fn refusals(hosts: &Hosts) -> Result<(), Error> {
    let node = hosts.cluster.node("node-1")?;
    let mut pool = hosts.cluster.api.create::<api::IpPool>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "closed"},
        "spec": {"cidr": "10.67.0.0/24", "disabled": true},
    }))?;
    let calico = ["--driver", "calico", "--ipam-driver", "calico-ipam"];
    let before = people::footprint(hosts)?;
    let cases: &[(&[&str], &str)] = &[
        (&["--subnet", "10.244.8.0/24"], "overlaps IPPool default-ipv4-ippool"),
        (&["--subnet", "10.67.0.0/24"], "IPPool closed (10.67.0.0/24) is disabled"),
        (&["--subnet", "10.68.0.0/24", "--opt", "color=red"], "--opt color is unknown"),
        (&["--subnet", "10.68.0.0/24", "--ipam-opt", "color=red"], "--ipam-opt color is unknown"),
        (
            &["--subnet", "10.68.0.0/24", "--ip-range", "10.68.0.0/28"],
            "--ip-range is not supported",
        ),
        (&["--subnet", "10.68.0.0/24", "--gateway", "10.68.0.1"], "leave --gateway out"),
        (&["--internal"], "--internal is not supported"),
        (&["--subnet", "10.68.0.0/24", "--ipam-opt", "blockSize=8"], "spec.blockSize"),
        (&["--subnet", "10.68.0.0/24", "--ipam-opt", "ipipMode=x"], "spec.ipipMode"),
        (
            &["--subnet", "10.68.0.0/24", "--opt", "com.docker.network.driver.mtu=12"],
            "use 68 to 65535",
        ),
        (&["--subnet", "10.244.0.0/16", "--ipam-opt", "blockSize=28"], "is not what IPPool"),
        (&["--ipam-opt", "blockSize=28"], "only for a pool that --subnet makes"),
    ];
    for (arguments, expected) in cases {
        let all = [&["network", "create"], &calico[..], arguments, &["never"]].concat();
        require_line(&refused(node, &all)?, expected)?;
        people::require_same(hosts, &before)?;
    }
    let without = ["network", "create", "--driver", "calico", "never"];
    require_line(&refused(node, &without)?, "add --ipam-driver calico-ipam")?;
    people::require_same(hosts, &before)?;
    pool.spec.disabled = Some(false);
    hosts.cluster.api.delete(&hosts.cluster.api.update(&pool)?)
}

/// Swarm's networks are those of many hosts: Docker itself refuses ours, in words.
fn swarm(node: &Node) -> Result<(), Error> {
    // Swarm and live restore exclude each other.
    node.end_program("dockerd", Signal::SIGTERM)?;
    docker::start_dockerd_with(node, &[])?;
    docker::wait_for_docker(node)?;
    docker(node, &["swarm", "init", "--advertise-addr", "192.0.2.11"])?;
    let create = ["network", "create", "--scope", "swarm", "--driver", "calico", "never"];
    let said = refused(node, &create)?;
    docker(node, &["swarm", "leave", "--force"])?;
    require_line(&said, "not supported in swarm mode")
}

/// Fails unless Docker has said it, in one line.
fn require_line(said: &str, expected: &str) -> Result<(), Error> {
    eprintln!("{}", said.trim());
    let is_line = said.lines().any(|line| line.contains(expected));
    if is_line { Ok(()) } else { Err(Error::wrong(format!("`{expected}` is not in: {said}"))) }
}

/// Nobody answers for the datastore: containers live on, and new ones are refused in a line.
pub(crate) fn datastore_down(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut hosts = hosts(dir, control_plane, 1, Families::V4)?;
    hosts.create_network("web", &["--subnet", "10.244.0.0/16"])?;
    for name in ["one", "two"] {
        hosts.run("node-1", &NewContainer { name, network: "web", ..NewContainer::default() })?;
    }
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    hosts.cluster.control_plane.stop_api_server();
    let node = hosts.cluster.node("node-1")?;
    let run = ["run", "--name", "never", "--network", "web", "lab", "/bin/sleep", "1"];
    require_line(&refused(node, &run)?, "check that kube-apiserver runs there")?;
    let create =
        ["network", "create", "--driver", "calico", "--ipam-driver", "calico-ipam", "never"];
    require_line(&refused(node, &create)?, "check that kube-apiserver runs there")?;
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    // Containers end also now, and what they held goes when it can.
    docker::remove(node, "two")?;
    docker(node, &["rm", "--force", "never"])?;
    hosts.cluster.control_plane.start_api_server()?;
    hosts.require_as_docker_has_it(WITHIN)
}
