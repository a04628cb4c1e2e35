//! A cluster in the lab: control plane, nodes, daemons and pods.

mod account;
mod pods;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::Error;
use crate::agent::{CONFIG_DIR, PLUGIN_DIR};
use crate::api_access::Api;
use crate::control_plane::{ControlPlane, Extent, Identity, Kind, Settings, root};
use crate::fabric;
pub use crate::fabric::BRIDGE;
use crate::node::Node;
use crate::patience;
use crate::process::{Process, Program};
pub use pods::{NewPod, RunningPod};

/// The namespace that the lab's pods live in.
pub const NAMESPACE: &str = "lab";
/// What the daemon is called in its node.
const DAEMON: &str = "calico-node";
/// Runs a program with the machine's directories in a new root, which has `/host` besides.
const CONTAINER: &str = "\
root=/run/container; mkdir -p $root; mount -t tmpfs container $root
for entry in /*; do
  if [ -L $entry ]; then cp -P $entry $root/
  elif [ -d $entry ]; then mkdir $root$entry; mount --rbind $entry $root$entry; fi
done
mkdir -p $root/host/etc/cni/net.d; mount --bind /etc/cni/net.d $root/host/etc/cni/net.d
exec chroot $root \"$1\"";
/// The program that works for the whole cluster.
const CONTROLLERS: &str = "calico-kube-controllers";
/// Programs that few scenarios need; where one is missing, they say so when they start it.
const SELDOM: [&str; 3] = [CONTROLLERS, "calicoctl", "calico-docker"];
/// The plugin for published ports, of containernetworking-plugins.
const PORTMAP: &str = "/usr/lib/cni/portmap";
/// How long daemons may take until they are ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What joins the nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fabric {
    /// One bridge: all nodes are neighbours.
    Bridge,
    /// A router, with a subnet per node.
    Routed,
    /// A router, with a subnet per rack of two nodes, for both families.
    Racks,
}

/// Which addresses pods get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// One of each.
    Dual,
}

/// What kind of cluster to make.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which control plane.
    pub control_plane: Kind,
    /// How many nodes, 1 to 99.
    pub nodes: u8,
    /// Which addresses pods get.
    pub families: Families,
    /// What joins the nodes.
    pub fabric: Fabric,
}

/// A running cluster; dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<Node>,
    /// The pods, in the order they were made.
    pub pods: Vec<RunningPod>,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The API, as administrator.
    pub api: Api,
    plan: Plan,
    bin_dir: PathBuf,
}

impl Cluster {
    /// Starts a control plane and the nodes, with the daemons ready; `say` hears of each step.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn up(dir: &Path, plan: Plan, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let this = Self::without_daemons(dir, plan, say)?;
        for node in &this.nodes {
            this.start_daemon(node)?;
        }
        this.wait_ready()?;
        say("calico-node is ready on every node, its BGP sessions established");
        Ok(this)
    }

    /// Starts a control plane and the nodes, with everything installed and nothing started.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn without_daemons(
        dir: &Path,
        plan: Plan,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        fabric::make(plan.fabric)?;
        let settings = Settings {
            kind: plan.control_plane,
            dir: dir.join("control-plane"),
            addr: fabric::SERVER.into(),
            port: 6443,
            is_durable: true,
            extent: Extent::ApiServer,
        };
        let control_plane = ControlPlane::start(settings)?;
        say("the control plane is ready");
        control_plane.install()?;
        say("CRDs, roles and the service accounts' tokens are in place");
        let api = control_plane.api()?;
        api.create::<core::Namespace>(json!({"metadata": {"name": NAMESPACE}}))?;
        let bin_dir = install_programs(dir)?;
        let mut this =
            Self { nodes: Vec::new(), pods: Vec::new(), control_plane, api, plan, bin_dir };
        for number in 1..=plan.nodes {
            let node = this.add_node(dir, number)?;
            say(&format!("{} is up: {}", node.name, list(&node.addrs)));
            this.nodes.push(node);
        }
        if plan.fabric == Fabric::Bridge {
            fabric::introduce(&this.nodes)?;
        }
        Ok(this)
    }

    /// Makes one more node, with everything installed and nothing started.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn add_node(&self, dir: &Path, number: u8) -> Result<Node, Error> {
        let name = format!("node-{number}");
        let mut node = Node::start(&name, &dir.join("nodes").join(&name))?;
        fabric::connect(self.plan.fabric, &mut node, number)?;
        self.register(&node)?;
        self.install_plugins(&node)?;
        Ok(node)
    }

    /// Makes a node's object, as its kubelet does.
    fn register(&self, node: &Node) -> Result<(), Error> {
        let name = node.name.as_str();
        self.api.create::<core::Node>(json!({"metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        }}))?;
        let addrs = node.addrs.iter().map(|addr| json!({"type": "InternalIP", "address": addr}));
        let addrs: Vec<_> = addrs.chain([json!({"type": "Hostname", "address": name})]).collect();
        let patch = json!({"status": {"addresses": addrs}});
        self.api.patch_status::<core::Node>(None, name, &patch).map(drop)
    }

    /// Gives a node, whose daemon has ended and whose object is gone, another name: its kernel, its
    /// disk and its addresses are what they were.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is none, or with the step that failed.
    pub fn rename_node(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let node = self.nodes.iter_mut().find(|node| node.name == from);
        let node = node.ok_or_else(|| Error::wrong(format!("there is no {from} in the lab")))?;
        to.clone_into(&mut node.name);
        let node = self.node(to)?;
        node.run(&["hostname", to])?;
        self.register(node)?;
        self.install_plugins(node)
    }

    /// Starts a node again that has ended, counted from one: what was in /run and in its kernel is
    /// gone, what is on its disk is there.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is none, or with the step that failed.
    pub fn restart_node(&mut self, number: u8) -> Result<(), Error> {
        let at = usize::from(number).saturating_sub(1);
        let node = self.nodes.get_mut(at);
        let node = node.ok_or_else(|| Error::wrong(format!("there is no node {number}")))?;
        let (name, dir) = (node.name.clone(), node.dir.clone());
        node.stop();
        let run = dir.join("run");
        std::fs::remove_dir_all(&run).map_err(Error::file(&run))?;
        fabric::disconnect(&name);
        *node = Node::start(&name, &dir)?;
        fabric::connect(self.plan.fabric, node, number)
    }

    /// Installs what the `install-cni` container of a DaemonSet would.
    fn install_plugins(&self, node: &Node) -> Result<(), Error> {
        // One program with two names.
        let program = self.bin_dir.join("calico");
        for plugin in ["calico", "calico-ipam"] {
            let link = format!("{PLUGIN_DIR}/{plugin}");
            node.run(&["ln", "--symbolic", "--force", &program.to_string_lossy(), &link])?;
        }
        let template = root().join("manifests/cni/10-calico.conflist");
        let text = std::fs::read_to_string(&template).map_err(Error::file(&template))?;
        let text = with_portmap(node, &text)?;
        let kubeconfig = self.control_plane.kubeconfig(Identity::CniPlugin);
        let assign_ipv6 = self.plan.families == Families::Dual;
        let text = text
            .replace("__LOG_LEVEL__", "info")
            .replace("__LOG_FILE_PATH__", "/var/log/calico/cni/cni.log")
            .replace("__DATASTORE_TYPE__", "kubernetes")
            .replace("__KUBERNETES_NODE_NAME__", &node.name)
            .replace("__CNI_MTU__", "0")
            .replace("__ASSIGN_IPV4__", "true")
            .replace("__ASSIGN_IPV6__", &assign_ipv6.to_string())
            .replace("__KUBECONFIG_FILEPATH__", &kubeconfig.to_string_lossy());
        // The node's /etc is an overlay: what goes into its upper directory shows only through it.
        let path = format!("{CONFIG_DIR}/10-calico.conflist");
        let script = format!("umask 077 && printf %s \"$1\" > {path}");
        node.run(&["sh", "-c", &script, "sh", &text]).map(drop)
    }

    /// Starts calico-node on a node, with the identity and settings of its DaemonSet.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started.
    pub fn start_daemon(&self, node: &Node) -> Result<(), Error> {
        self.start_daemon_with(node, &[])
    }

    /// Starts calico-node with more settings.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started.
    pub fn start_daemon_with(&self, node: &Node, more: &[(&str, &str)]) -> Result<(), Error> {
        node.start_program(DAEMON, &[&self.program(DAEMON)], &self.settings_of(node, more))
    }

    /// Starts calico-node as in a container: in a root directory of its own, where the node's
    /// directory of CNI configurations is mounted as in the DaemonSet, with what a kubelet says of the
    /// API server and with more settings.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started.
    pub fn start_daemon_as_pod(&self, node: &Node, more: &[(&str, &str)]) -> Result<(), Error> {
        let program = self.program(DAEMON);
        let command = ["unshare", "--mount", "sh", "-ec", CONTAINER, "sh", &program];
        let server = self.control_plane.endpoint();
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let server = [
            ("KUBERNETES_SERVICE_HOST", host.as_str()),
            ("KUBERNETES_SERVICE_PORT", port.as_str()),
        ];
        let settings = self.settings_of(node, &[&server, more].concat());
        node.start_program(DAEMON, &command, &settings)
    }

    /// Returns the settings of calico-node's DaemonSet, and more.
    fn settings_of(&self, node: &Node, more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let kubeconfig = self.control_plane.kubeconfig(Identity::Node);
        let kubeconfig = kubeconfig.to_string_lossy();
        let mut env: BTreeMap<&str, &str> = BTreeMap::from([
            ("KUBECONFIG", kubeconfig.as_ref()),
            ("NODENAME", node.name.as_str()),
            ("DATASTORE_TYPE", "kubernetes"),
            ("CALICO_NETWORKING_BACKEND", "bird"),
            ("CLUSTER_TYPE", "k8s,bgp"),
            ("IP", "autodetect"),
            ("IP_AUTODETECTION_METHOD", "interface=eth0"),
            ("CALICO_IPV4POOL_CIDR", "10.244.0.0/16"),
            ("CALICO_IPV4POOL_IPIP", "Never"),
            ("CALICO_IPV4POOL_VXLAN", "Never"),
            ("CALICO_IPV4POOL_NAT_OUTGOING", "false"),
            ("FELIX_IPV6SUPPORT", "false"),
            ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
            ("FELIX_HEALTHENABLED", "true"),
            ("FELIX_PROMETHEUSMETRICSENABLED", "true"),
            ("FELIX_LOGSEVERITYSCREEN", "Info"),
        ]);
        if self.plan.families == Families::Dual {
            env.extend([
                ("IP6", "autodetect"),
                ("IP6_AUTODETECTION_METHOD", "interface=eth0"),
                ("CALICO_IPV6POOL_CIDR", "fd00:10:244::/48"),
                ("FELIX_IPV6SUPPORT", "true"),
            ]);
        }
        let env = env.into_iter().chain(more.iter().copied());
        env.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Starts calico-kube-controllers, with the identity of its Deployment.
    ///
    /// # Errors
    ///
    /// [`Error`] if it is missing or cannot be started.
    pub fn start_controllers(&self, dir: &Path) -> Result<Process, Error> {
        let path = self.bin_dir.join(CONTROLLERS);
        if !path.exists() {
            return Err(Error::Missing(path));
        }
        let kubeconfig = self.control_plane.kubeconfig(Identity::KubeControllers);
        let log = dir.join(format!("{CONTROLLERS}.log"));
        Program::new(CONTROLLERS, &log, [path])
            .env("KUBECONFIG", kubeconfig)
            .env("ENABLED_CONTROLLERS", "node")
            .env("LOG_LEVEL", "info")
            .start()
    }

    /// Ends calico-node on a node with a signal.
    ///
    /// # Errors
    ///
    /// [`Error`] if it was not started.
    pub fn end_daemon(&self, node: &Node, signal: Signal) -> Result<(), Error> {
        node.end_program(DAEMON, signal)
    }

    /// Waits until calico-node says on every node that it is ready, as kubelet asks it.
    ///
    /// # Errors
    ///
    /// [`Error`] if one ends, or is not ready in time; with the end of its log.
    pub fn wait_ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        let within = patience::on_this_machine(READY_WITHIN);
        for node in &self.nodes {
            let ask = [self.program(DAEMON), "-felix-ready".to_owned(), "-bird-ready".to_owned()];
            let ask: Vec<&str> = ask.iter().map(String::as_str).collect();
            loop {
                let Err(error) = node.run(&ask) else { break };
                let is_running = node.program_pid(DAEMON)?.is_some();
                if !is_running || started.elapsed() > within {
                    return Err(Error::Timeout {
                        what: format!("calico-node on {} to be ready", node.name),
                        seconds: started.elapsed().as_secs(),
                        detail: format!(": {error}{}", self.ends_of_logs()),
                    });
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Returns the last lines of every daemon's log: the cause is often another node's.
    fn ends_of_logs(&self) -> String {
        let log = |node: &Node| {
            let end = crate::process::tail(&node.dir.join(format!("{DAEMON}.log")));
            format!("\nthe end of the log of {}:\n{end}", node.name)
        };
        self.nodes.iter().map(log).collect()
    }

    /// Returns the path of one of our programs, valid in all nodes.
    #[must_use]
    pub fn program(&self, name: &str) -> String {
        self.bin_dir.join(name).to_string_lossy().into_owned()
    }

    /// Returns a node by its name.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if there is none.
    pub fn node(&self, name: &str) -> Result<&Node, Error> {
        let node = self.nodes.iter().find(|node| node.name == name);
        node.ok_or_else(|| Error::wrong(format!("there is no {name} in the lab")))
    }

    /// Returns what kind of cluster this is.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        self.plan
    }

    /// Pulls a node's cable, at the fabric's end.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] of ip(8).
    pub fn unplug(&self, node: &Node) -> Result<(), Error> {
        crate::process::ip(&["link", "set", &fabric::port(&node.name), "down"]).map(drop)
    }

    /// Parts a node from the other nodes that are parted; the API server stays reachable.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] of ip(8).
    pub fn part(&self, node: &Node) -> Result<(), Error> {
        set_isolated(node, "on")
    }

    /// Ends the parting of a node.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] of ip(8).
    pub fn rejoin(&self, node: &Node) -> Result<(), Error> {
        set_isolated(node, "off")
    }

    /// Puts a node's cable back.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] of ip(8).
    pub fn plug(&self, node: &Node) -> Result<(), Error> {
        crate::process::ip(&["link", "set", &fabric::port(&node.name), "up"]).map(drop)
    }
}

/// Chains portmap behind ours where this machine has it, as clusters do; without it our own
/// plugin stands alone in the list.
fn with_portmap(node: &Node, template: &str) -> Result<String, Error> {
    if Path::new(PORTMAP).exists() {
        node.run(&["ln", "--symbolic", "--force", PORTMAP, PLUGIN_DIR])?;
        return Ok(template.to_owned());
    }
    let head = template.split_once(",\n    {\n      \"type\": \"portmap\"").map(|(head, _)| head);
    let head =
        head.ok_or_else(|| Error::wrong("portmap is not the last plugin of the template"))?;
    Ok(format!("{head}\n  ]\n}}\n"))
}

/// Isolated ports of a bridge do not reach each other, but all others.
fn set_isolated(node: &Node, state: &str) -> Result<(), Error> {
    let port = fabric::port(&node.name);
    let set = ["link", "set", "dev", &port, "type", "bridge_slave", "isolated", state];
    crate::process::ip(&set).map(drop)
}

/// Returns where our programs were built.
///
/// # Errors
///
/// [`Error::Program`] if nobody can tell.
pub(crate) fn program_dir() -> Result<PathBuf, Error> {
    let myself = std::env::current_exe().map_err(|error| Error::program("lab", error))?;
    let beside = || myself.parent().unwrap_or(&myself).to_owned();
    Ok(std::env::var_os("CALICO_BIN_DIR").map_or_else(beside, PathBuf::from))
}

/// Copies our programs to where all nodes see them: from where the environment says, or
/// from beside the lab itself, so that what was built together runs together.
fn install_programs(dir: &Path) -> Result<PathBuf, Error> {
    let from = program_dir()?;
    let bin_dir = dir.join("bin");
    crate::sandbox::make_dirs(&bin_dir)?;
    for program in ["calico", "calico-node"] {
        let path = from.join(program);
        if !path.exists() {
            return Err(Error::Missing(path));
        }
        std::fs::copy(&path, bin_dir.join(program)).map_err(Error::file(&path))?;
    }
    for program in SELDOM {
        let path = from.join(program);
        if path.exists() {
            std::fs::copy(&path, bin_dir.join(program)).map_err(Error::file(&path))?;
        }
    }
    Ok(bin_dir)
}

fn list(addrs: &[IpAddr]) -> String {
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Asks again and again until the answer is right, and returns it.
///
/// # Errors
///
/// [`Error::Timeout`] with the last error.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let within = patience::on_this_machine(within);
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if started.elapsed() > within => {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    seconds: within.as_secs(),
                    detail: format!(": {error}"),
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
