//! `manifests/calico.yaml` as it is, IP in IP and all, on machines with kubelets.
//!
//! Everything that people do not do themselves is real: kube-apiserver, kubelet, containerd, runc and
//! the module `ipip`, which is why it needs the second kernel. It says how long each step took.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::Error;
use lab::capture::Capture;
use lab::cluster::eventually;
use lab::control_plane::Kind;
use lab::kubernetes::{self, Kubernetes, Plan};
use lab::machine::ProxyMode;

/// How long anything may take on a busy machine of the usual kind.
const WITHIN: Duration = Duration::from_secs(120);
/// Packets in IP in IP (RFC 2003 §3.1).
const WRAPPED: &str = "ip proto 4";
/// The device of the kernel's module.
const DEVICE: &str = "tunl0";
/// A pod on each machine.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: default}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "localhost/busybox:lab", command: [sleep, "2147483647"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: default}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "localhost/busybox:lab", command: [sleep, "2147483647"]}]
"#;

/// Says each step, and how long it was since the last.
struct Watch(Instant);

impl Watch {
    fn say(&mut self, step: &str) {
        eprintln!("{:>6.1} s  {step}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}

/// Applies the manifest, and looks for what it promises.
pub(crate) fn as_it_is(dir: &Path, _: Kind) -> Result<(), Error> {
    let mut watch = Watch(Instant::now());
    let plan = Plan { machines: 2, proxy: ProxyMode::Iptables };
    let cluster = Kubernetes::up(dir, plan, &mut |step| watch.say(step))?;
    let outcome = install(dir, &cluster, &mut watch);
    outcome.map_err(|error| Error::wrong(format!("{error}\n{}", cluster.describe())))
}

fn install(dir: &Path, cluster: &Kubernetes, watch: &mut Watch) -> Result<(), Error> {
    cluster.apply(&kubernetes::manifest("calico.yaml"))?;
    watch.say("kubectl apply -f manifests/calico.yaml");
    cluster.wait_ready()?;
    watch.say("every node is ready");
    for machine in &cluster.machines {
        eventually(&format!("{DEVICE} on {}", machine.node.name), WITHIN, || {
            let show = ["ip", "-4", "-o", "address", "show", "dev", DEVICE, "up"];
            let said = machine.node.run(&show)?;
            if said.contains(" inet 10.217.") { Ok(()) } else { Err(Error::wrong(said)) }
        })?;
    }
    watch.say("tunl0 is up on every node, with an address of the pool");
    eventually("calico-node to be ready by its probes", WITHIN, || {
        let path = "jsonpath={.status.numberReady}";
        let get = ["get", "daemonset", "calico-node", "--namespace", "kube-system", "--output"];
        let ready = cluster.control_plane.kubectl(&[&get[..], &[path]].concat())?;
        let is_so = ready.parse() == Ok(cluster.machines.len());
        if is_so { Ok(()) } else { Err(Error::wrong(format!("{ready} are ready"))) }
    })?;
    watch.say("every calico-node is ready by its probes");
    cluster.api.apply(PODS)?;
    let addrs = ["one", "two"].map(|pod| running(cluster, pod));
    let [one, two] = addrs;
    let (one, two) = (one?, two?);
    watch.say("a pod runs on each node");
    let capture = Capture::start(dir, "wrapped", WRAPPED)?;
    reach(cluster, "one", &two)?;
    reach(cluster, "two", &one)?;
    watch.say("the pods reach each other");
    let seen = capture.end()?.packets;
    for (from, to) in [(&one, &two), (&two, &one)] {
        let words = format!("IP {from} > {to}: ICMP echo request");
        let is_it = |line: &&String| line.contains(&words) && line.matches(" > ").count() == 2;
        let line = seen.iter().find(is_it);
        let line = line.ok_or_else(|| Error::wrong(format!("no `{words}` in {seen:#?}")))?;
        eprintln!("on the fabric: {line}");
    }
    watch.say("their packets are IP in IP on the fabric");
    Ok(())
}

/// Waits until a pod runs, and returns its address.
fn running(cluster: &Kubernetes, pod: &str) -> Result<String, Error> {
    eventually(&format!("pod {pod} to run"), WITHIN, || {
        let path = "jsonpath={.status.phase} {.status.podIP}";
        let said = cluster.control_plane.kubectl(&["get", "pod", pod, "--output", path])?;
        match said.split_once(' ') {
            Some(("Running", addr)) if !addr.is_empty() => Ok(addr.to_owned()),
            _ => Err(Error::wrong(said)),
        }
    })
}

fn reach(cluster: &Kubernetes, pod: &str, addr: &str) -> Result<(), Error> {
    eventually(&format!("pod {pod} to reach {addr}"), WITHIN, || {
        let exec = ["exec", pod, "--", "ping", "-c", "3", "-W", "5", addr];
        cluster.control_plane.kubectl(&exec).map(drop)
    })
}
