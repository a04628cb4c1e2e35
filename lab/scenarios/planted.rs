//! What somebody breaks on a node or in a cluster, and what is then said: one table.
//!
//! `planted-faults-are-named` plants all of it where the lab calls the plugin, and asks
//! `calicoctl check` besides; `a-clusters-life` plants what pods suffer from where a kubelet does,
//! and reads the pods' events.

use http::Method;
use lab::Error;
use lab::api_access::Api;
use lab::control_plane::root;
use lab::node::Node;
use lab::rest::Request;
use serde_json::{Value, json};

/// Something that somebody breaks.
pub(super) struct Fault {
    /// What.
    pub(super) what: &'static str,
    /// How it is broken.
    pub(super) plant: Deed,
    /// How it is mended.
    pub(super) mend: Deed,
    /// The code of the error that a pod gets, and words of it; `None` if it starts all the same.
    /// The code is zero if the error is another plugin's.
    pub(super) told: Option<(u32, &'static [&'static str])>,
    /// What `calicoctl check` calls it.
    pub(super) id: &'static str,
}

/// Something to be done.
pub(super) enum Deed {
    /// In the node's shell.
    Shell(&'static str),
    /// As the cluster's administrator.
    Api(fn(&Api) -> Result<(), Error>),
    /// What only they can do who have the API server; kubelets need it themselves.
    StopApiServer,
    /// The same.
    StartApiServer,
}
use Deed::{Api as ApiDeed, Shell, StartApiServer, StopApiServer};

/// The node's files, as `install-cni` leaves them: the kubeconfig in YAML, or in JSON.
const FILES: &str = r#"
CONF=/etc/cni/net.d/10-calico.conflist; KUBECONFIG=/etc/cni/net.d/calico-kubeconfig
set_token() { sed -i -E "s/(\"?token\"?: *\")[^\"]*/\1$1/" $KUBECONFIG; }
jwt() { printf '%s.%s.%s' "$(printf '{"alg":"RS256"}' | base64 -w0 | tr -d =)" \
    "$(printf "$1" | base64 -w0 | tr '+/' '-_' | tr -d =)" c2ln; }
server() { sed -nE 's|.*https://([0-9.]+):.*|\1|p' $KUBECONFIG; }
keep() { mkdir -p /run/as-found; cp -p /etc/cni/net.d/* /run/as-found/; }
restore() { cp -p /run/as-found/* /etc/cni/net.d/; chmod 0600 /etc/cni/net.d/*; }
"#;
/// Puts the files back as they were.
const RESTORE: Deed = Shell("restore");
/// What the pools of the lab's clusters lie in.
const EVERY_POOL: &str = "10.192.0.0/10";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const RESERVATIONS: &str = "ipreservations.crd.projectcalico.org";

/// All of it: first a node's files and its kernel, then the cluster.
pub(super) const FAULTS: &[Fault] = &[
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
        told: Some((109, &["does not accept our credentials", "check the token"])),
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
        what: "the kubeconfig names another server",
        plant: Shell("sed -i -E 's|https://[^\" ]+|https://127.0.0.1:1|' $KUBECONFIG"),
        mend: RESTORE,
        told: Some((112, &["https://127.0.0.1:1", "no connection", "refused"])),
        id: "api-server-unreachable",
    },
    Fault {
        what: "the kubeconfig names another authority",
        plant: Shell(
            "sed -i -E \"s|(authority-data: *).*|\\1$(base64 -w0 $OTHER_AUTHORITY)|; \
                 s|(authority\\\": *)\\\"[^\\\"]*|\\1\\\"$OTHER_AUTHORITY|\" $KUBECONFIG",
        ),
        mend: RESTORE,
        told: Some((122, &["certificate", "calico-node writes it anew"])),
        id: "authority-unknown",
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
        told: Some((0, &["bridge", "/opt/cni/bin"])),
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
        what: "there is no way to the API server",
        plant: Shell("ip route add unreachable $(server)/32"),
        mend: Shell("ip route del unreachable $(server)/32"),
        told: Some((112, &["No route to host", "check the network to the server"])),
        id: "api-server-unreachable",
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
    Fault {
        what: "a kind is not defined",
        plant: ApiDeed(|api| {
            let path = format!("{DEFINITIONS}/{RESERVATIONS}");
            api.send(Request::json(Method::DELETE, path, &json!({})))?.success()?;
            Ok(())
        }),
        mend: ApiDeed(|api| {
            let path = root().join(format!("manifests/crds/{RESERVATIONS}.yaml"));
            api.apply_file(&path)?;
            api.wait_established()
        }),
        told: Some((111, &["IPReservation", "custom resource definitions"])),
        id: "definitions-missing",
    },
    Fault {
        what: "the role of the plugin is gone",
        plant: ApiDeed(|api| set_rules(api, &json!([]))),
        mend: ApiDeed(|api| api.apply_file(&root().join("manifests/parts/rbac.yaml"))),
        told: Some((110, &["not permitted", "ClusterRole"])),
        id: "not-permitted",
    },
    Fault {
        what: "the datastore is locked",
        plant: ApiDeed(|api| {
            change(
                api,
                "ClusterInformation",
                "default",
                &json!({"spec": {"datastoreReady": false}}),
            )
        }),
        mend: ApiDeed(|api| {
            change(api, "ClusterInformation", "default", &json!({"spec": {"datastoreReady": true}}))
        }),
        told: Some((114, &["ClusterInformation `default`", "calicoctl datastore migrate unlock"])),
        id: "datastore-locked",
    },
    Fault {
        what: "the cluster was never set up",
        plant: ApiDeed(|api| api.delete_any(&named("ClusterInformation", "default"))),
        mend: ApiDeed(|api| {
            create(api, "ClusterInformation", "default", &json!({"datastoreReady": true}))
        }),
        told: Some((113, &["no ClusterInformation `default`", "calico-node makes it"])),
        id: "cluster-not-set-up",
    },
    Fault {
        what: "every pool is disabled",
        plant: ApiDeed(|api| set_disabled(api, true)),
        mend: ApiDeed(|api| set_disabled(api, false)),
        told: Some((118, &["no configured Calico pools for node node-1", "default-ipv4-ippool"])),
        id: "no-pool",
    },
    Fault {
        what: "all addresses are reserved",
        plant: ApiDeed(|api| {
            create(api, "IPReservation", "all", &json!({"reservedCIDRs": [EVERY_POOL]}))
        }),
        mend: ApiDeed(|api| api.delete_any(&named("IPReservation", "all"))),
        told: Some((106, &["pool default-ipv4-ippool", "add an IPPool"])),
        id: "pools-exhausted",
    },
    Fault {
        what: "the node may claim no block, and borrow from none",
        plant: ApiDeed(|api| {
            set_disabled(api, true)?;
            add_pool(api)?;
            api.delete_any(&named("IPAMConfig", "default"))?;
            create(
                api,
                "IPAMConfig",
                "default",
                &json!({"strictAffinity": true, "autoAllocateBlocks": false}),
            )
        }),
        mend: ApiDeed(|api| {
            delete_pool(api)?;
            api.delete_any(&named("IPAMConfig", "default"))?;
            set_disabled(api, false)
        }),
        told: Some((119, &["node node-1", "autoAllocateBlocks to true in IPAMConfig `default`"])),
        id: "node-limited",
    },
    Fault {
        what: "the API server is away",
        plant: StopApiServer,
        mend: StartApiServer,
        told: Some((112, &["no connection"])),
        id: "api-server-unreachable",
    },
];

impl Fault {
    /// Returns what a pod of a kubelet's gets, where that can be planted.
    pub(super) fn in_events(&self) -> Option<(u32, &'static [&'static str])> {
        self.told.filter(|_| !matches!(self.plant, StopApiServer))
    }

    /// Whether the API server refuses something for it.
    pub(super) fn is_of_permissions(&self) -> bool {
        self.id == "not-permitted"
    }
}

impl Deed {
    /// Does it; the API server's end is not among what can be done so.
    pub(super) fn act(&self, node: &Node, api: &Api) -> Result<(), Error> {
        match self {
            Shell(script) => sh(node, script).map(drop),
            ApiDeed(change) => change(api),
            StopApiServer | StartApiServer => Err(Error::wrong("nobody here has the API server")),
        }
    }
}

/// Keeps the node's files as they are, for what is broken to be mended.
pub(super) fn keep_files(node: &Node) -> Result<(), Error> {
    sh(node, "keep").map(drop)
}

/// Runs a script in the node's shell, which knows the node's files.
pub(super) fn sh(node: &Node, script: &str) -> Result<String, Error> {
    let other = root().join("testdata/lab/other-authority.crt");
    node.run(&["sh", "-ec", &format!("OTHER_AUTHORITY={}\n{FILES}\n{script}", other.display())])
}

fn named(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name}})
}

fn create(api: &Api, kind: &str, name: &str, spec: &Value) -> Result<(), Error> {
    let mut object = named(kind, name);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("spec".to_owned(), spec.clone());
    }
    api.create_any(&object).map(drop)
}

fn change(api: &Api, kind: &str, name: &str, patch: &Value) -> Result<(), Error> {
    api.patch_any(&named(kind, name), patch).map(drop)
}

/// Makes a second pool.
pub(super) fn add_pool(api: &Api) -> Result<(), Error> {
    create(api, "IPPool", "other", &json!({"cidr": "10.99.0.0/24", "blockSize": 26}))
}

/// Takes it away again.
pub(super) fn delete_pool(api: &Api) -> Result<(), Error> {
    api.delete_any(&named("IPPool", "other"))
}

/// Turns the cluster's first pool off, or on.
pub(super) fn set_disabled(api: &Api, is_disabled: bool) -> Result<(), Error> {
    let patch = json!({"spec": {"disabled": is_disabled}});
    change(api, "IPPool", "default-ipv4-ippool", &patch)
}

/// Gives the plugin's role other rules.
pub(super) fn set_rules(api: &Api, rules: &Value) -> Result<(), Error> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "calico-cni-plugin"},
    });
    api.patch_any(&role, &json!({"rules": rules})).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/testing.md`.
    fn table() -> String {
        let row = |fault: &Fault| {
            let code = match fault.told {
                None => "the pod starts".to_owned(),
                Some((0, _)) => "another plugin's".to_owned(),
                Some((code, _)) => code.to_string(),
            };
            let events = if fault.in_events().is_some() { "yes" } else { "" };
            format!("| {} | {code} | `{}` | {events} |\n", fault.what, fault.id)
        };
        FAULTS.iter().map(row).collect()
    }

    #[test]
    fn the_documentation_has_every_fault() {
        let documentation = std::fs::read_to_string(root().join("docs/testing.md")).unwrap();
        assert!(documentation.contains(&table()), "docs/testing.md should have:\n{}", table());
    }
}
