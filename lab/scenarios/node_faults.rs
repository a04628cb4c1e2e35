//! What goes wrong with nodes: each fault has its code in what pods get, and its name in
//! `calicoctl check`, with the object and the remedy.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::Method;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, eventually};
use lab::control_plane::{Identity, Kind, root};
use lab::node::Node;
use lab::protocol::Pod;
use lab::rest::Request;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::churn::require_no_address;

/// How long a fault may take to have its effect, and to lose it: servers keep roles and kinds
/// in memory for a while.
const WITHIN: Duration = Duration::from_secs(40);

/// The node's files, as `install-cni` leaves them.
const FILES: &str = "
CONF=/etc/cni/net.d/10-calico.conflist; KUBECONFIG=/etc/cni/net.d/calico-kubeconfig
set_token() { sed -i -E \"s/(\\\"token\\\": *\\\")[^\\\"]*/\\1$1/\" $KUBECONFIG; }
jwt() { printf '%s.%s.%s' \"$(printf '{\"alg\":\"RS256\"}' | base64 -w0 | tr -d =)\" \\
    \"$(printf \"$1\" | base64 -w0 | tr '+/' '-_' | tr -d =)\" c2ln; }
restore() { cp -p /run/as-found/* /etc/cni/net.d/; chmod 0600 /etc/cni/net.d/*; }
";

/// Something that somebody breaks.
struct Fault {
    /// What.
    what: &'static str,
    /// How it is broken.
    plant: Deed,
    /// How it is mended.
    mend: Deed,
    /// The code of the error that a pod gets, and words of it; `None` if it starts all the same.
    told: Option<(u32, &'static [&'static str])>,
    /// What `calicoctl check` calls it.
    id: &'static str,
}

/// Something to be done.
enum Deed {
    /// In the node's shell.
    Shell(&'static str),
    /// With the cluster.
    Api(fn(&mut Cluster) -> Result<(), Error>),
}
use Deed::{Api, Shell};

/// Puts the files back as they were.
const RESTORE: Deed = Shell("restore");

/// What somebody does to a node's files and its kernel.
const OF_FILES: &[Fault] = &[
    Fault {
        what: "the token has expired",
        plant: Shell("set_token \"$(jwt '{\"iat\":1,\"exp\":2}')\""),
        mend: RESTORE,
        told: Some((109, &["does not accept our credentials", "calico-node renews the token"])),
        id: "token-expired",
    },
    Fault {
        what: "the clock was set back",
        plant: Shell("set_token \"$(jwt '{\"iat\":9999999999,\"exp\":99999999999}')\""),
        mend: RESTORE,
        told: Some((109, &["the clocks agree"])),
        id: "clock-behind",
    },
    Fault {
        what: "the token is of another cluster",
        plant: Shell("set_token nonsense"),
        mend: RESTORE,
        told: Some((109, &["ClusterInformation", "token"])),
        id: "credentials-refused",
    },
    Fault {
        what: "the kubeconfig is a directory",
        plant: Shell("rm $KUBECONFIG; mkdir $KUBECONFIG"),
        mend: Shell("rmdir $KUBECONFIG; restore"),
        told: Some((108, &["/etc/cni/net.d/calico-kubeconfig"])),
        id: "kubeconfig-unreadable",
    },
    Fault {
        what: "everybody may read the kubeconfig",
        plant: Shell("chmod 0644 $KUBECONFIG"),
        mend: RESTORE,
        told: None,
        id: "kubeconfig-open",
    },
    Fault {
        what: "the configuration has a wrong value",
        plant: Shell("sed -i 's/\"mtu\": 0/\"mtu\": \"big\"/' $CONF"),
        mend: RESTORE,
        told: Some((7, &["`mtu` = \"big\"", "use a whole number"])),
        id: "conflist-wrong",
    },
    Fault {
        what: "the MTU file is missing where it must be",
        plant: Shell(
            "sed -i 's/\"mtu\": 0/\"mtu\": 0, \"require_mtu_file\": true/' $CONF; \
                 mv /var/lib/calico/mtu /run/mtu",
        ),
        mend: Shell("mv /run/mtu /var/lib/calico/mtu; restore"),
        told: Some((116, &["/var/lib/calico/mtu", "check that the calico/node container"])),
        id: "mtu-file",
    },
    Fault {
        what: "calico-node never ran here",
        plant: Shell("mv /var/lib/calico/nodename /run/nodename"),
        mend: Shell("mv /run/nodename /var/lib/calico/nodename"),
        told: Some((115, &["/var/lib/calico/nodename", "check that the calico/node"])),
        id: "node-not-set-up",
    },
    Fault {
        what: "the configuration names another node",
        plant: Shell("sed -i 's/\"node-1\"/\"node-9\"/' $CONF"),
        mend: RESTORE,
        told: Some((117, &["node node-9", "correct `nodename`"])),
        id: "node-unknown",
    },
    Fault {
        what: "the IPAM plugin is gone",
        plant: Shell("mv /opt/cni/bin/calico-ipam /run/calico-ipam"),
        mend: Shell("mv /run/calico-ipam /opt/cni/bin/calico-ipam"),
        told: Some((102, &["`calico-ipam`", "/opt/cni/bin", "install it there"])),
        id: "plugin-missing",
    },
    Fault {
        what: "another network comes first",
        plant: Shell(
            "printf '{\"name\":\"other\",\"plugins\":[{\"type\":\"bridge\"}]}' \
                 > /etc/cni/net.d/05-other.conflist",
        ),
        mend: Shell("rm /etc/cni/net.d/05-other.conflist"),
        told: Some((0, &["/opt/cni/bin/bridge"])),
        id: "conflist-shadowed",
    },
    Fault {
        what: "there are two configurations of Calico",
        plant: Shell("cp -p $CONF /etc/cni/net.d/20-calico.conflist"),
        mend: Shell("rm /etc/cni/net.d/20-calico.conflist"),
        told: None,
        id: "conflist-several",
    },
    Fault {
        what: "the kernel forwards nothing",
        plant: Shell("echo 0 > /proc/sys/net/ipv4/ip_forward"),
        mend: Shell("echo 1 > /proc/sys/net/ipv4/ip_forward"),
        told: None,
        id: "forwarding-off",
    },
    Fault {
        what: "iptables drop what is forwarded",
        plant: Shell("iptables-nft -P FORWARD DROP"),
        mend: Shell("iptables-nft -P FORWARD ACCEPT"),
        told: None,
        id: "forward-dropped",
    },
];

/// What somebody does to the cluster.
const OF_THE_CLUSTER: &[Fault] = &[
    Fault {
        what: "a kind is not defined",
        plant: Api(|cluster| {
            let path = format!("{DEFINITIONS}/{RESERVATIONS}");
            cluster.api.send(Request::json(Method::DELETE, path, &json!({})))?.success()?;
            Ok(())
        }),
        mend: Api(|cluster| {
            let path = root().join(format!("manifests/crds/{RESERVATIONS}.yaml"));
            cluster.api.apply_file(&path)?;
            cluster.api.wait_established()
        }),
        told: Some((111, &["IPReservation", "custom resource definitions"])),
        id: "definitions-missing",
    },
    Fault {
        what: "the role of the plugin is gone",
        plant: Api(|cluster| set_rules(cluster, &json!([]))),
        mend: Api(|cluster| cluster.api.apply_file(&root().join("manifests/parts/rbac.yaml"))),
        told: Some((110, &["not permitted", "ClusterRole"])),
        id: "not-permitted",
    },
    Fault {
        what: "the datastore is locked",
        plant: Api(|cluster| {
            change(
                "ClusterInformation",
                "default",
                cluster,
                &json!({
                    "spec": {"datastoreReady": false},
                }),
            )
        }),
        mend: Api(|cluster| {
            change(
                "ClusterInformation",
                "default",
                cluster,
                &json!({
                    "spec": {"datastoreReady": true},
                }),
            )
        }),
        told: Some((114, &["ClusterInformation `default`", "calicoctl datastore migrate unlock"])),
        id: "datastore-locked",
    },
    Fault {
        what: "the cluster was never set up",
        plant: Api(|cluster| cluster.api.delete_any(&named("ClusterInformation", "default"))),
        mend: Api(|cluster| {
            create(cluster, "ClusterInformation", "default", &json!({"datastoreReady": true}))
        }),
        told: Some((113, &["no ClusterInformation `default`", "calico-node makes it"])),
        id: "cluster-not-set-up",
    },
    Fault {
        what: "every pool is disabled",
        plant: Api(|cluster| set_disabled(cluster, true)),
        mend: Api(|cluster| set_disabled(cluster, false)),
        told: Some((118, &["no configured Calico pools for node node-1", "default-ipv4-ippool"])),
        id: "no-pool",
    },
    Fault {
        what: "all addresses are reserved",
        plant: Api(|cluster| {
            create(cluster, "IPReservation", "all", &json!({"reservedCIDRs": ["10.244.0.0/16"]}))
        }),
        mend: Api(|cluster| cluster.api.delete_any(&named("IPReservation", "all"))),
        told: Some((106, &["pool default-ipv4-ippool", "add an IPPool"])),
        id: "pools-exhausted",
    },
    Fault {
        what: "the node may claim no block, and borrow from none",
        plant: Api(|cluster| {
            set_disabled(cluster, true)?;
            create(cluster, "IPPool", "other", &json!({"cidr": "10.99.0.0/24", "blockSize": 26}))?;
            cluster.api.delete_any(&named("IPAMConfig", "default"))?;
            create(
                cluster,
                "IPAMConfig",
                "default",
                &json!({"strictAffinity": true, "autoAllocateBlocks": false}),
            )
        }),
        mend: Api(|cluster| {
            cluster.api.delete_any(&named("IPPool", "other"))?;
            cluster.api.delete_any(&named("IPAMConfig", "default"))?;
            set_disabled(cluster, false)
        }),
        told: Some((119, &["node node-1", "autoAllocateBlocks to true in IPAMConfig `default`"])),
        id: "node-limited",
    },
    Fault {
        what: "the API server is away",
        plant: Api(|cluster| {
            cluster.control_plane.stop_api_server();
            Ok(())
        }),
        mend: Api(|cluster| cluster.control_plane.start_api_server()),
        told: Some((112, &["no connection"])),
        id: "api-server-unreachable",
    },
];

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const RESERVATIONS: &str = "ipreservations.crd.projectcalico.org";
/// A process that is as old as the scenario and takes the lock of address management at last.
const HOLDER: &str =
    "until [ -e /run/take-lock ]; do sleep 0.1; done; exec flock /run/calico/ipam.lock sleep 600";

/// Plants one fault after the other, and sees what pods and `calicoctl check` say.
pub(crate) fn are_named(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 1, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    let node = cluster.node("node-1")?;
    let ours = cluster.control_plane.kubeconfig(Identity::CniPlugin);
    let script = format!(
        "set -e; cp {0} $KUBECONFIG; sed -i 's|{0}|/etc/cni/net.d/calico-kubeconfig|' $CONF; \
         chmod 0600 /etc/cni/net.d/*; mkdir -p /run/as-found; cp -p /etc/cni/net.d/* /run/as-found/",
        ours.display()
    );
    sh(node, &script)?;
    node.start_program("holder", &["sh", "-c", HOLDER], &BTreeMap::new())?;
    let pod = cluster.create_pod(&NewPod {
        namespace: NAMESPACE.to_owned(),
        name: "victim".to_owned(),
        node: "node-1".to_owned(),
        labels: BTreeMap::new(),
        account: String::new(),
        ports: json!([]),
    })?;
    well(&cluster, &pod)?;
    for fault in OF_FILES.iter().chain(OF_THE_CLUSTER) {
        eprintln!("{}", fault.what);
        act(&mut cluster, &fault.plant)?;
        eventually(fault.what, WITHIN, || is_told(&cluster, &pod, fault))?;
        eventually(fault.what, WITHIN, || is_found(&cluster, fault.id, fault.told))?;
        act(&mut cluster, &fault.mend)?;
        eventually(&format!("mended: {}", fault.what), WITHIN, || well(&cluster, &pod))?;
    }
    // Whatever an ADD stumbled over, it has kept no address.
    require_no_address(&cluster)?;
    let node = cluster.node("node-1")?;
    sh(node, "touch /run/take-lock")?;
    eventually("the lock is held", WITHIN, || is_found(&cluster, "lock-held", None))?;
    node.end_program("holder", Signal::SIGKILL)
}

fn act(cluster: &mut Cluster, deed: &Deed) -> Result<(), Error> {
    match deed {
        Shell(script) => sh(cluster.node("node-1")?, script).map(drop),
        Api(change) => change(cluster),
    }
}

/// A pod starts and ends, and the check finds nothing.
fn well(cluster: &Cluster, pod: &Pod) -> Result<(), Error> {
    let node = cluster.node("node-1")?;
    node.add(pod)?;
    node.del(pod)?;
    let found = check(cluster)?;
    let findings = found.get("findings").and_then(Value::as_array).map_or(0, Vec::len);
    if findings == 0 { Ok(()) } else { Err(Error::wrong(format!("without a fault: {found}"))) }
}

/// A pod gets the fault's code and words; or starts, if it should.
fn is_told(cluster: &Cluster, pod: &Pod, fault: &Fault) -> Result<(), Error> {
    let node = cluster.node("node-1")?;
    let outcome = node.add(pod);
    if outcome.is_ok() {
        node.del(pod)?;
    }
    let said = outcome.err().map(|error| error.to_string());
    let is_right = match (fault.told, &said) {
        (None, None) => true,
        (Some((code, words)), Some(said)) => {
            let has_code = code == 0 || said.contains(&format!("calico ADD: code {code}: "));
            has_code && words.iter().all(|word| said.contains(word))
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(Error::wrong(format!("ADD: {said:?}"))) }
}

/// The check names the fault, with the same code that pods get.
fn is_found(
    cluster: &Cluster,
    id: &str,
    told: Option<(u32, &'static [&'static str])>,
) -> Result<(), Error> {
    let found = check(cluster)?;
    let findings = found.get("findings").and_then(Value::as_array).into_iter().flatten();
    let finding = findings.into_iter().find(|finding| finding["id"] == id);
    let finding = finding.ok_or_else(|| Error::wrong(format!("no {id}: {found}")))?;
    let code = told.map(|(code, _)| code).filter(|code| *code != 0);
    let has_code = code.is_none_or(|code| finding["code"] == code);
    let has_text = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
    if has_code && has_text("object") && has_text("message") {
        return Ok(());
    }
    Err(Error::wrong(format!("{id} is not as it should be: {finding}")))
}

fn check(cluster: &Cluster) -> Result<Value, Error> {
    // Exit code 3 says that there are findings.
    let script = format!("{} check -o json || [ $? = 3 ]", cluster.program("calicoctl"));
    let text = sh(cluster.node("node-1")?, &script)?;
    serde_json::from_str(&text).map_err(Error::wrong)
}

fn sh(node: &Node, script: &str) -> Result<String, Error> {
    node.run(&["sh", "-c", &format!("{FILES}\n{script}")])
}

fn named(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name}})
}

fn create(cluster: &Cluster, kind: &str, name: &str, spec: &Value) -> Result<(), Error> {
    let mut object = named(kind, name);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("spec".to_owned(), spec.clone());
    }
    cluster.api.create_any(&object).map(drop)
}

fn change(kind: &str, name: &str, cluster: &Cluster, patch: &Value) -> Result<(), Error> {
    cluster.api.patch_any(&named(kind, name), patch).map(drop)
}

fn set_disabled(cluster: &Cluster, is_disabled: bool) -> Result<(), Error> {
    let patch = json!({"spec": {"disabled": is_disabled}});
    change("IPPool", "default-ipv4-ippool", cluster, &patch)
}

fn set_rules(cluster: &Cluster, rules: &Value) -> Result<(), Error> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "calico-cni-plugin"},
    });
    cluster.api.patch_any(&role, &json!({"rules": rules})).map(drop)
}
