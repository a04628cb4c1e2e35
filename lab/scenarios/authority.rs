//! The cluster gets another certificate authority, as Kubernetes documents it: no daemon is started
//! anew for it, and pods start at every step.

use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::{AuthorityStep, Kind, binary};
use lab::node::Node;
use lab::reachability::Matrix;

/// How long daemons may take to notice.
const WITHIN: Duration = Duration::from_secs(60);
/// Long enough for a packet that comes at all.
const SOON: Duration = Duration::from_secs(1);
/// The credentials that calico-node keeps for the plugin.
const CREDENTIALS: &str = "/etc/cni/net.d/calico-kubeconfig";
/// What they were before.
const OLD_CREDENTIALS: &str = "/run/old-kubeconfig";
/// Nobody reaches any pod: whether calico-node still hears what is new.
const CLOSED: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: lab}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

/// The steps, and what is done with `ca.crt` in each.
const STEPS: [(&str, AuthorityStep); 3] = [
    ("everybody trusts the old authority and the new one", AuthorityStep::Announce),
    ("the API server is of the new one", AuthorityStep::Use),
    ("everybody trusts the new one alone", AuthorityStep::Retire),
];

/// The first node's daemon has the service account of a pod, the second's a kubeconfig.
pub(crate) fn changes_under_pods(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    let token = cluster.api.create_token("kube-system", "calico-node")?;
    let pids = start(&cluster, &token)?;
    cluster.add_pods("before", 2)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    for node in &cluster.nodes {
        node.run(&["cp", CREDENTIALS, OLD_CREDENTIALS])?;
        credentials_are_good(node, CREDENTIALS)?;
    }
    for (number, (what, step)) in STEPS.into_iter().enumerate() {
        cluster.control_plane.change_authority(step)?;
        // The lab itself is a client that trusts what it once read.
        cluster.api = cluster.control_plane.api()?;
        cluster.write_account(cluster.node("node-1")?, what, &token)?;
        eprintln!("{what}");
        for node in &cluster.nodes {
            plugin_trusts_what_we_do(&cluster, node)?;
            credentials_are_good(node, CREDENTIALS)?;
        }
        cluster.add_pods(&format!("step-{number}"), 2)?;
        Matrix::probe(&cluster, WITHIN)?.require_full()?;
        daemons_hear_what_is_new(&cluster)?;
        eprintln!("pods start, reach each other, and are under policy");
    }
    for (node, pid) in cluster.nodes.iter().zip(pids) {
        if node.program_pid("calico-node")? != pid {
            return Err(Error::wrong(format!("calico-node of {} is another process", node.name)));
        }
        require_refused(node)?;
    }
    eprintln!("each daemon is the same process, and credentials of before would do no more");
    Ok(())
}

/// Starts both daemons and returns their process ids.
fn start(cluster: &Cluster, token: &str) -> Result<Vec<Option<i32>>, Error> {
    let authority = cluster.control_plane.file("ca.crt");
    let authority = authority.to_string_lossy();
    let outside = [("KUBE_CA_FILE", authority.as_ref())];
    cluster.write_account(cluster.node("node-1")?, "at first", token)?;
    for (name, more) in [("node-1", [("KUBECONFIG", "")]), ("node-2", outside)] {
        let node = cluster.node(name)?;
        cluster.start_daemon_as_pod(node, &more)?;
    }
    cluster.wait_ready()?;
    for node in &cluster.nodes {
        plugin_trusts_what_we_do(cluster, node)?;
        let conf = "/etc/cni/net.d/10-calico.conflist";
        let kubeconfig = cluster.control_plane.kubeconfig(lab::control_plane::Identity::CniPlugin);
        let script = format!("s|{}|{CREDENTIALS}|", kubeconfig.display());
        node.run(&["sed", "-i", &script, conf])?;
        node.run(&["grep", "--quiet", CREDENTIALS, conf])?;
    }
    cluster.nodes.iter().map(|node| node.program_pid("calico-node")).collect()
}

/// Waits until the plugin's credentials have the authority that the daemon is given.
fn plugin_trusts_what_we_do(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let given = cluster.control_plane.file("ca.crt");
    let given = given.to_string_lossy();
    let script = "sed -n 's/.*certificate-authority-data: \"\\(.*\\)\"/\\1/p' \"$1\" | base64 -d | \
                  cmp - \"$2\"";
    eventually(&format!("the plugin on {} to trust ca.crt", node.name), WITHIN, || {
        node.run(&["sh", "-c", script, "sh", CREDENTIALS, &given]).map(drop)
    })
}

/// The plugin's credentials are taken, by the authority that is in them.
fn credentials_are_good(node: &Node, path: &str) -> Result<(), Error> {
    let binary = binary()?;
    let ask = [&binary.to_string_lossy(), "kubectl", "--kubeconfig", path, "get", "ippools"];
    node.run(&ask).map(drop)
}

/// Without all that the plugin would not know the server any more.
fn require_refused(node: &Node) -> Result<(), Error> {
    match credentials_are_good(node, OLD_CREDENTIALS) {
        Err(error) if error.to_string().contains("unknown authority") => Ok(()),
        other => Err(Error::wrong(format!("with the credentials of before: {other:?}"))),
    }
}

/// A policy closes all pods, and goes again.
fn daemons_hear_what_is_new(cluster: &Cluster) -> Result<(), Error> {
    cluster.api.apply(CLOSED)?;
    let pods = cluster.pods.len();
    let others = pods.saturating_mul(pods.saturating_sub(1));
    eventually("no pod to be reached by another", WITHIN, || {
        let closed = Matrix::probe(cluster, SOON)?.unreached().len();
        // Some count themselves, too: a pod reaches itself without asking anybody.
        if closed >= others { Ok(()) } else { Err(Error::wrong(format!("{closed} of {others}"))) }
    })?;
    let path = "/apis/networking.k8s.io/v1/namespaces/lab/networkpolicies/closed";
    let gone = lab::rest::Request { method: http::Method::DELETE, ..lab::rest::Request::get(path) };
    cluster.api.send(gone)?.success()?;
    let full = || Matrix::probe(cluster, SOON)?.require_full();
    eventually("all pods to be reached again", WITHIN, full)
}
