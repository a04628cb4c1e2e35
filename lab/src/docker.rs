//! Hosts with Docker and without Kubernetes: a real dockerd in each node, with our drivers.
//!
//! Containers run `sleep`; the lab speaks and listens inside their network namespaces, as it
//! does in those of pods, so that all that is known about pods can be asked of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Error;
use crate::cluster::{Cluster, Families, RunningPod, eventually};
use crate::control_plane::{Identity, root};
use crate::node::Node;
use crate::protocol::{Attached, Pod};
use crate::rest::Request;

/// Debian's client and daemon: what else is called so on a machine may be of any version.
const DOCKER: &str = "/usr/bin/docker";
const DOCKERD: &str = "/usr/sbin/dockerd";
/// A shell and some tools in one program that needs no libraries.
const BUSYBOX: &str = "/bin/busybox";
/// What the daemon and our plugin are called in a node.
const DAEMON: &str = "dockerd";
const PLUGIN: &str = "calico-docker";
/// The port that the lab's echo servers answer on.
pub const ECHO_PORT: u16 = 7;
/// How long a daemon may take, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);
/// How soon the plugin gives back what nobody owns, in seconds: a minute, were this no test.
pub const GRACE: u64 = 3;

/// What is to be run in a container.
#[derive(Clone, Debug, Default)]
pub struct NewContainer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its network.
    pub network: &'a str,
    /// Its labels for policies, without `org.projectcalico.label.`.
    pub labels: &'a [(&'a str, &'a str)],
    /// Other arguments of `docker run`.
    pub arguments: &'a [&'a str],
}

/// A cluster whose nodes are hosts with Docker.
#[derive(Debug)]
pub struct Hosts {
    /// The nodes; containers are among its pods.
    pub cluster: Cluster,
}

impl Hosts {
    /// Starts calico-node, our plugin and dockerd on all nodes of a cluster without daemons.
    ///
    /// Their Nodes are made by calico-node, as nobody else would.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn up(cluster: Cluster) -> Result<Self, Error> {
        cluster.control_plane.install_docker()?;
        for node in &cluster.nodes {
            let path = format!("/api/v1/nodes/{}", node.name);
            let request = Request { method: http::Method::DELETE, ..Request::get(path) };
            cluster.api.send(request)?.success()?;
        }
        let this = Self { cluster };
        for node in &this.cluster.nodes {
            this.start_daemon(node)?;
            this.start_plugin(node)?;
            start_dockerd(node)?;
        }
        this.cluster.wait_ready()?;
        let made = this.cluster.api.list::<core::Node>()?.len();
        if made != this.cluster.nodes.len() {
            return Err(Error::wrong(format!("calico-node has made {made} Nodes")));
        }
        for node in &this.cluster.nodes {
            wait_for_docker(node)?;
            load_image(node)?;
        }
        Ok(this)
    }

    /// Starts calico-node as on a host without a kubelet.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started.
    pub fn start_daemon(&self, node: &Node) -> Result<(), Error> {
        let unit = unit("calico-node")?;
        // Where the credentials are is what only this machine knows.
        let of_units = unit.env.iter().filter(|(name, _)| *name != "KUBECONFIG");
        let env: Vec<(&str, &str)> =
            of_units.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.cluster.start_daemon_with(node, &env)
    }

    /// Starts our plugin on a node.
    ///
    /// # Errors
    ///
    /// [`Error`] if it is missing or cannot be started.
    pub fn start_plugin(&self, node: &Node) -> Result<(), Error> {
        let program = self.cluster.program(PLUGIN);
        if !Path::new(&program).exists() {
            return Err(Error::Missing(program.into()));
        }
        let kubeconfig = self.cluster.control_plane.kubeconfig(Identity::Docker);
        let grace = GRACE.to_string();
        let env = [
            ("NODENAME", node.name.as_str()),
            ("KUBECONFIG", &kubeconfig.to_string_lossy()),
            ("CALICO_LIBNETWORK_RELEASE_GRACE", &grace),
            ("CALICO_LIBNETWORK_RESYNC_PERIOD", "1"),
            ("CALICO_DEBUG", "true"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = unit(PLUGIN)?.env.into_iter().chain(env).collect();
        node.start_program(PLUGIN, &[&program], &env)
    }

    /// Pulls the plug of a host, counted from one, and starts it again with all its programs: what
    /// is on its disk stays, and nothing else.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn reboot(&mut self, number: u8) -> Result<(), Error> {
        let name = format!("node-{number}");
        let node = self.cluster.node(&name)?;
        let (namespace, group) = (mount_namespace(node.pid().into())?, group(node));
        eventually("all programs of a host to end", WITHIN, || {
            let left = processes(&namespace, &group);
            for pid in &left {
                // One that has just ended by itself is fine.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if left.is_empty() { Ok(()) } else { Err(Error::wrong(format!("{left:?} run"))) }
        })?;
        self.cluster.restart_node(number)?;
        let node = self.cluster.node(&name)?;
        self.start_daemon(node)?;
        self.start_plugin(node)?;
        start_dockerd(node)?;
        wait_for_docker(node)
    }

    /// Kills our plugin, as a crash would.
    ///
    /// # Errors
    ///
    /// [`Error`] if it was not started.
    pub fn kill_plugin(&self, node: &Node) -> Result<(), Error> {
        node.end_program(PLUGIN, Signal::SIGKILL)
    }

    /// Makes a network on all nodes.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] with what Docker says.
    pub fn create_network(&self, name: &str, arguments: &[&str]) -> Result<(), Error> {
        self.cluster.nodes.iter().try_for_each(|node| create_network(node, name, arguments))
    }

    /// Runs a container on a node and has it answer; it is one of the cluster's pods then.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] with what Docker says.
    pub fn run(&mut self, node: &str, wanted: &NewContainer<'_>) -> Result<(), Error> {
        let running = run(self.cluster.node(node)?, wanted)?;
        self.cluster.pods.push(running);
        Ok(())
    }

    /// Returns a container or pod by its name.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if there is none.
    pub fn pod(&self, name: &str) -> Result<&RunningPod, Error> {
        let found = self.cluster.pods.iter().find(|pod| pod.pod.name == name);
        found.ok_or_else(|| Error::wrong(format!("there is no {name}")))
    }

    /// Waits until the datastore holds exactly what containers of all hosts have: addresses,
    /// handles and endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with the difference.
    pub fn require_as_docker_has_it(&self, within: Duration) -> Result<(), Error> {
        eventually("the datastore to say what Docker has", within, || {
            let mut live: Vec<(String, IpAddr)> = Vec::new();
            for node in &self.cluster.nodes {
                live.extend(attachments(node)?);
            }
            let mut wanted: Vec<String> = live.iter().map(|(_, addr)| addr.to_string()).collect();
            wanted.sort();
            let mut held = self.held()?;
            held.sort();
            // What a network keeps for others is held, but no container has it.
            let mut kept = Vec::new();
            for node in &self.cluster.nodes {
                kept.extend(kept_addrs(node)?);
            }
            held.retain(|addr| !kept.contains(addr));
            let mut endpoints = self.endpoint_addrs()?;
            endpoints.sort();
            if held == wanted && endpoints == wanted {
                return Ok(());
            }
            Err(Error::wrong(format!(
                "containers have {wanted:?}\naddresses are held {held:?}\nendpoints have {endpoints:?}"
            )))
        })
    }

    /// Returns the addresses that blocks say are held for containers.
    fn held(&self) -> Result<Vec<String>, Error> {
        let mut held = Vec::new();
        for object in self.cluster.api.list::<api::IpamBlock>()? {
            let block = model::block::Block::try_from(&object).map_err(Error::wrong)?;
            for (ordinal, holder) in (0_u128..).zip(&block.allocations) {
                let holder = holder.and_then(|index| block.attributes.get(index));
                let is_dockers = holder.is_some_and(|holder| {
                    holder.owner.get("orchestrator").is_some_and(|name| name == "libnetwork")
                });
                if let (true, Some(addr)) = (is_dockers, block.cidr.nth(ordinal)) {
                    held.push(addr.to_string());
                }
            }
        }
        Ok(held)
    }

    fn endpoint_addrs(&self) -> Result<Vec<String>, Error> {
        let objects = self.cluster.api.list::<api::WorkloadEndpoint>()?;
        let nets = objects.iter().flat_map(|object| object.spec.ip_networks.iter().flatten());
        Ok(nets.map(|net| net.split('/').next().unwrap_or_default().to_owned()).collect())
    }

    /// Returns which of the families the cluster has.
    #[must_use]
    pub const fn families(&self) -> Families {
        self.cluster.plan().families
    }
}

/// Runs Docker's client on a node and returns what it prints.
///
/// # Errors
///
/// [`Error::Program`] with what it says.
pub fn docker(node: &Node, arguments: &[&str]) -> Result<String, Error> {
    node.run(&[&[DOCKER], arguments].concat())
}

/// Runs Docker's client on a node, and returns what it says as it fails.
///
/// # Errors
///
/// [`Error::Wrong`] if it does not fail.
pub fn refused(node: &Node, arguments: &[&str]) -> Result<String, Error> {
    match docker(node, arguments) {
        Err(error) => Ok(error.to_string()),
        Ok(said) => {
            Err(Error::wrong(format!("docker {} is done: {}", arguments.join(" "), said.trim())))
        }
    }
}

/// Starts Docker's daemon on a node, whose end containers outlive.
///
/// # Errors
///
/// [`Error`] if it cannot be started.
pub fn start_dockerd(node: &Node) -> Result<(), Error> {
    start_dockerd_with(node, &["--live-restore"])
}

/// What a unit of systemd starts.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// The program, with its path.
    pub program: String,
    /// Its environment, but for what only this machine knows.
    pub env: BTreeMap<String, String>,
}

/// Reads one of our units, such as `calico-node`: labs start what it starts.
///
/// # Errors
///
/// [`Error`] if there is none.
pub fn unit(name: &str) -> Result<Unit, Error> {
    let path = root().join(format!("manifests/systemd/{name}.service"));
    let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    let mut unit = Unit::default();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("ExecStart=") {
            command.split_whitespace().next().unwrap_or_default().clone_into(&mut unit.program);
        }
        if let Some((name, value)) =
            line.strip_prefix("Environment=").and_then(|it| it.split_once('='))
        {
            unit.env.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(unit)
}

fn mount_namespace(pid: i64) -> Result<PathBuf, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
    std::fs::read_link(&path).map_err(Error::file(&path))
}

/// Returns all processes that run in a host, and those of its containers.
fn processes(namespace: &Path, group: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_of_host = |pid: &i32| {
        // Those that have ended, and are not waited for yet, have no namespace.
        let Ok(found) = mount_namespace((*pid).into()) else { return false };
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        found == namespace || groups.contains(&format!("{group}/"))
    };
    pids.filter(is_of_host).collect()
}

/// Returns the control group of a host's containers.
fn group(node: &Node) -> String {
    // The control groups are the machine's, and go with the lab.
    let lab = node.dir.ancestors().nth(2).unwrap_or(&node.dir);
    format!("{}/{}", crate::cgroups::of(lab), node.name)
}

/// Starts Docker's daemon on a node, with these arguments besides.
///
/// # Errors
///
/// [`Error`] if it cannot be started.
pub fn start_dockerd_with(node: &Node, more: &[&str]) -> Result<(), Error> {
    let parent = group(node);
    let command = [
        DOCKERD,
        "--cgroup-parent",
        &parent,
        "--storage-driver",
        "overlay2",
        "--shutdown-timeout",
        "1",
    ];
    node.start_program(DAEMON, &[&command[..], more].concat(), &BTreeMap::new())
}

/// Kills Docker's daemon, and with it its containerd; containers live on.
///
/// # Errors
///
/// [`Error`] if it was not started.
pub fn kill_dockerd(node: &Node) -> Result<(), Error> {
    node.end_program(DAEMON, Signal::SIGKILL)?;
    // It leaves these, and takes them for another one that runs.
    node.run(&["rm", "-f", "/run/docker.pid", "/run/docker/containerd/containerd.pid"]).map(drop)
}

/// Waits until Docker answers on a node.
///
/// # Errors
///
/// [`Error::Timeout`] with the end of its log.
pub fn wait_for_docker(node: &Node) -> Result<(), Error> {
    eventually("dockerd to answer", WITHIN, || {
        docker(node, &["version"]).map(drop).map_err(|error| {
            let log = crate::process::tail(&node.dir.join(format!("{DAEMON}.log")));
            Error::wrong(format!("{error}\n{log}"))
        })
    })
}

/// Makes the image of the lab's containers: one program.
fn load_image(node: &Node) -> Result<(), Error> {
    let script = format!(
        "mkdir -p /run/image/bin && cd /run/image && cp {BUSYBOX} bin/busybox && \
         for name in sh sleep ip ping wget nc; do ln -sf busybox bin/$name; done && \
         tar -c bin | {DOCKER} import - lab"
    );
    node.run(&["sh", "-c", &script]).map(drop)
}

/// Makes a network on a node.
///
/// # Errors
///
/// [`Error::Program`] with what Docker says.
pub fn create_network(node: &Node, name: &str, arguments: &[&str]) -> Result<(), Error> {
    let drivers = ["network", "create", "--driver", "calico", "--ipam-driver", "calico-ipam"];
    docker(node, &[&drivers[..], arguments, &[name]].concat()).map(drop)
}

/// Returns the arguments of `docker` that run a container.
#[must_use]
pub fn run_arguments(wanted: &NewContainer<'_>) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["run", "--detach", "--name", wanted.name].map(str::to_owned).into();
    if !wanted.network.is_empty() {
        arguments.extend(["--network".to_owned(), wanted.network.to_owned()]);
    }
    for (name, value) in wanted.labels {
        arguments.extend(["--label".to_owned(), format!("org.projectcalico.label.{name}={value}")]);
    }
    arguments.extend(wanted.arguments.iter().map(|&word| word.to_owned()));
    arguments.extend(["lab", "/bin/sleep", "3600"].map(str::to_owned));
    arguments
}

/// Runs a container on a node and has it answer.
///
/// # Errors
///
/// [`Error::Program`] with what Docker says.
pub fn run(node: &Node, wanted: &NewContainer<'_>) -> Result<RunningPod, Error> {
    let arguments = run_arguments(wanted);
    docker(node, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    enter(node, wanted.name)
}

/// Removes a container from a node, whether it runs or not.
///
/// # Errors
///
/// [`Error::Program`] with what Docker says.
pub fn remove(node: &Node, name: &str) -> Result<(), Error> {
    node.silence(name)?;
    docker(node, &["rm", "--force", name])?;
    node.run(&["rm", "-f", &format!("/run/netns/{name}")]).map(drop)
}

/// Has a container that runs answer, and returns it as a pod.
///
/// # Errors
///
/// [`Error`] if Docker does not know it, or its namespace cannot be entered.
pub fn enter(node: &Node, name: &str) -> Result<RunningPod, Error> {
    let facts = inspect(node, name)?;
    let text = |pointer: &str| facts.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (id, sandbox) = (text("/Id").to_owned(), text("/NetworkSettings/SandboxKey").to_owned());
    node.silence(name)?;
    node.run(&["ln", "-sf", &sandbox, &format!("/run/netns/{name}")])?;
    node.serve(name, &[ECHO_PORT])?;
    let attached = Attached { addrs: addrs(&facts), ..Attached::default() };
    let pod = Pod {
        namespace: "libnetwork".to_owned(),
        name: name.to_owned(),
        uid: id,
        container: name.to_owned(),
    };
    Ok(RunningPod { pod, node: node.name.clone(), attached })
}

/// Returns what Docker knows of a container.
///
/// # Errors
///
/// [`Error::Program`] with what Docker says.
pub fn inspect(node: &Node, name: &str) -> Result<Value, Error> {
    let text = docker(node, &["container", "inspect", name])?;
    let list: Vec<Value> = serde_json::from_str(&text).map_err(Error::wrong)?;
    list.into_iter().next().ok_or_else(|| Error::wrong(format!("no container {name}")))
}

/// Returns a container's addresses.
fn addrs(facts: &Value) -> Vec<IpAddr> {
    let networks = facts.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let networks = networks.into_iter().flatten();
    let of = |network: &Value| {
        let addr = |field: &str| network.get(field)?.as_str()?.parse().ok();
        [addr("IPAddress"), addr("GlobalIPv6Address")]
    };
    networks.flat_map(|(_, network)| of(network)).flatten().collect()
}

/// Returns a node's networks of ours.
fn networks(node: &Node) -> Result<Vec<Value>, Error> {
    let list = ["network", "ls", "--quiet", "--no-trunc", "--filter", "driver=calico"];
    let mut found = Vec::new();
    for id in docker(node, &list)?.lines() {
        let text = docker(node, &["network", "inspect", id])?;
        let networks: Vec<Value> = serde_json::from_str(&text).map_err(Error::wrong)?;
        found.extend(networks);
    }
    Ok(found)
}

/// Returns the addresses that a node's networks of ours keep for others (`--aux-address`).
fn kept_addrs(node: &Node) -> Result<Vec<String>, Error> {
    let networks = networks(node)?;
    let configs = networks.iter().filter_map(|it| it.pointer("/IPAM/Config")?.as_array()).flatten();
    let kept = configs.filter_map(|config| config.get("AuxiliaryAddresses")?.as_object());
    let kept = kept.flat_map(serde_json::Map::values).filter_map(Value::as_str);
    Ok(kept.map(str::to_owned).collect())
}

/// Returns the addresses of all containers of a node's networks of ours, with their names.
fn attachments(node: &Node) -> Result<Vec<(String, IpAddr)>, Error> {
    let mut found = Vec::new();
    for network in networks(node)? {
        let containers = network.get("Containers").and_then(Value::as_object);
        for facts in containers.into_iter().flat_map(serde_json::Map::values) {
            let text = |field: &str| facts.get(field).and_then(Value::as_str).unwrap_or_default();
            for field in ["IPv4Address", "IPv6Address"] {
                let addr = text(field).split('/').next().unwrap_or_default().parse();
                found.extend(addr.map(|addr| (text("Name").to_owned(), addr)));
            }
        }
    }
    Ok(found)
}
