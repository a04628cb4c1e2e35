//! Objects as people write them, of the group `projectcalico.org/v3`, and as Calico keeps them in
//! Kubernetes, of `crd.projectcalico.org/v1`.
//!
//! The spec is the same. What people write into `metadata` is kept in an annotation, as JSON, but
//! for labels and annotations of Calico's own, which also stand where Kubernetes has them; and the
//! uid is another one.

use model::net::Cidr;
use serde_json::{Map, Value, json};

use crate::annotations::METADATA;
use crate::invalid::Fault;
use crate::{
    API_VERSION, BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, CalicoNetworkPolicy,
    CalicoNodeStatus, ClusterInformation, FelixConfiguration, GlobalNetworkPolicy,
    GlobalNetworkSet, HostEndpoint, Invalid, IpPool, IpReservation, IpamConfig,
    KubeControllersConfiguration, NetworkSet, PolicyObject, Profile, StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy, StagedNetworkPolicy, Tier, WorkloadEndpoint,
};

/// The group of the objects that people write, with its version.
pub const VERSION: &str = "projectcalico.org/v3";

/// A kind of object that people write.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// The kind: `IPPool`.
    pub kind: &'static str,
    /// The kind of the object that is kept.
    pub stored_kind: &'static str,
    /// That kind in URLs.
    pub plural: &'static str,
    /// Whether objects are in namespaces.
    pub is_namespaced: bool,
    /// Whether people may change such objects, or programs only.
    pub is_writable: bool,
    /// What people may write instead of the kind, in lower case; plurals need not be listed.
    names: &'static [&'static str],
    /// Whether the name people gave is kept in the annotation too, as policies' is since 3.32.
    keeps_name: bool,
    check: fn(&Value) -> Result<(), Invalid>,
}

/// Makes a check of a kind that has a model.
macro_rules! checked {
    ($object:ty => $model:ty) => {
        |json| {
            let object = <$object>::from_json(json)?;
            <$model>::try_from(&object).map(drop)
        }
    };
    ($object:ty) => {
        |json| <$object>::from_json(json).map(drop)
    };
    (policy $object:ty) => {
        |json| <$object>::from_json(json)?.reading().complete().map(drop)
    };
}

const NONE: Resource = Resource {
    kind: "",
    stored_kind: "",
    plural: "",
    is_namespaced: false,
    is_writable: true,
    names: &[],
    keeps_name: false,
    check: |_| Ok(()),
};

/// All kinds, by name.
pub const RESOURCES: [Resource; 20] = [
    Resource {
        check: checked!(BgpConfiguration => model::peer::BgpConfiguration),
        names: &["bgpconfig", "bgpconfigs"],
        ..plain("BGPConfiguration", "bgpconfigurations")
    },
    Resource {
        check: checked!(BgpFilter => model::bgp_filter::BgpFilter),
        ..plain("BGPFilter", "bgpfilters")
    },
    Resource { check: checked!(BgpPeer => model::peer::BgpPeer), ..plain("BGPPeer", "bgppeers") },
    Resource {
        check: checked!(BlockAffinity => model::block::Affinity),
        is_writable: false,
        names: &["blockaffinities", "affinity", "affinities"],
        ..plain("BlockAffinity", "blockaffinities")
    },
    Resource {
        check: checked!(CalicoNodeStatus => model::cluster::NodeStatusRequest),
        names: &["caliconodestatuses"],
        ..plain("CalicoNodeStatus", "caliconodestatuses")
    },
    Resource {
        check: checked!(ClusterInformation),
        is_writable: false,
        names: &["clusterinfo", "clusterinfos"],
        ..plain("ClusterInformation", "clusterinformations")
    },
    Resource {
        check: checked!(FelixConfiguration),
        names: &["felixconfig", "felixconfigs"],
        ..plain("FelixConfiguration", "felixconfigurations")
    },
    Resource {
        check: checked!(policy GlobalNetworkPolicy),
        names: &["gnp", "gnps", "globalnetworkpolicies"],
        keeps_name: true,
        ..plain("GlobalNetworkPolicy", "globalnetworkpolicies")
    },
    Resource {
        check: checked!(GlobalNetworkSet => model::network_set::NetworkSet),
        ..plain("GlobalNetworkSet", "globalnetworksets")
    },
    Resource {
        check: checked!(HostEndpoint => model::host_endpoint::HostEndpoint),
        names: &["hep", "heps"],
        ..plain("HostEndpoint", "hostendpoints")
    },
    Resource {
        check: checked!(IpamConfig => model::block::IpamConfig),
        stored_kind: "IPAMConfig",
        names: &["ipamconfig", "ipamconfigs"],
        ..plain("IPAMConfiguration", "ipamconfigs")
    },
    Resource {
        check: checked!(IpPool => model::pool::IpPool),
        names: &["ipp", "ipps", "pool", "pools"],
        ..plain("IPPool", "ippools")
    },
    Resource {
        check: |json| IpReservation::from_json(json)?.ranges().map(drop),
        names: &["ipres"],
        ..plain("IPReservation", "ipreservations")
    },
    Resource {
        check: checked!(KubeControllersConfiguration => model::cluster::ControllersConfiguration),
        names: &["kcc", "kccs", "kubecontrollersconfig"],
        ..plain("KubeControllersConfiguration", "kubecontrollersconfigurations")
    },
    Resource {
        check: checked!(policy CalicoNetworkPolicy),
        is_namespaced: true,
        names: &["policy", "np", "policies", "pol", "pols", "networkpolicies"],
        keeps_name: true,
        ..plain("NetworkPolicy", "networkpolicies")
    },
    Resource {
        check: checked!(NetworkSet => model::network_set::NetworkSet),
        is_namespaced: true,
        names: &["netset", "netsets"],
        ..plain("NetworkSet", "networksets")
    },
    Resource {
        check: checked!(policy StagedGlobalNetworkPolicy),
        names: &["sgnp", "sgnps", "stagedglobalnetworkpolicies"],
        keeps_name: true,
        ..plain("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies")
    },
    Resource {
        check: checked!(policy StagedKubernetesNetworkPolicy),
        is_namespaced: true,
        names: &["sknp", "sknps", "stagedkubernetesnetworkpolicies"],
        ..plain("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies")
    },
    Resource {
        check: checked!(policy StagedNetworkPolicy),
        is_namespaced: true,
        names: &["snp", "snps", "stagednetworkpolicies"],
        keeps_name: true,
        ..plain("StagedNetworkPolicy", "stagednetworkpolicies")
    },
    Resource { check: checked!(Tier => model::tier::Tier), ..plain("Tier", "tiers") },
];

/// Kinds that a cluster has only where Docker's containers are in it (`manifests/docker`).
pub const OF_DOCKER: [Resource; 2] = [
    Resource {
        check: |json| {
            let profile = Profile::from_json(json)?;
            crate::profile(&profile).1.into_iter().next().map_or(Ok(()), Err)
        },
        names: &["pro", "pros"],
        ..plain("Profile", "profiles")
    },
    Resource {
        check: checked!(WorkloadEndpoint => model::endpoint::WorkloadEndpoint),
        is_namespaced: true,
        is_writable: false,
        names: &["wep", "weps"],
        ..plain("WorkloadEndpoint", "workloadendpoints")
    },
];

const fn plain(kind: &'static str, plural: &'static str) -> Resource {
    Resource { kind, stored_kind: kind, plural, ..NONE }
}

impl Resource {
    /// Finds a kind by what people write: `IPPool`, `ippools`, `pool`.
    #[must_use]
    pub fn find(word: &str) -> Option<&'static Self> {
        let word = word.to_lowercase();
        RESOURCES.iter().chain(&OF_DOCKER).find(|one| {
            let kind = one.kind.to_lowercase();
            word == kind
                || word == format!("{kind}s")
                || word == one.plural
                || one.names.contains(&word.as_str())
        })
    }

    /// Makes the object that is kept of one that somebody wrote.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for what the kind does not allow; with it the reason.
    pub fn to_stored(&self, written: &Value) -> Result<Value, Invalid> {
        let metadata = written.get("metadata").and_then(Value::as_object).cloned();
        let metadata = metadata.unwrap_or_default();
        let mut spec = written.get("spec").cloned().unwrap_or_else(|| json!({}));
        self.fill_in(&mut spec, &metadata);
        let mut stored = json!({
            "apiVersion": API_VERSION,
            "kind": self.stored_kind,
            "metadata": self.stored_metadata(metadata, &spec),
            "spec": spec,
        });
        if let (Some(status), Some(object)) = (written.get("status"), stored.as_object_mut()) {
            object.insert("status".to_owned(), status.clone());
        }
        (self.check)(&stored)?;
        Ok(stored)
    }

    /// Makes the object that people see of one that is kept.
    #[must_use]
    pub fn to_written(&self, stored: &Value) -> Value {
        let kept = stored.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        let annotations = texts(kept.get("annotations"));
        let nested = annotations.get(METADATA).and_then(Value::as_str);
        let nested: Map<String, Value> =
            nested.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut metadata = nested.clone();
        metadata.retain(|_, value| !value.is_null());
        for key in ["name", "namespace", "resourceVersion", "generation", "deletionTimestamp"] {
            let value = kept.get(key).cloned();
            metadata.extend(value.map(|value| (key.to_owned(), value)));
        }
        if let Some(name) = self.name_of(&kept, &nested, stored) {
            metadata.insert("name".to_owned(), name.into());
        }
        if !metadata.contains_key("creationTimestamp") {
            let time = kept.get("creationTimestamp").cloned();
            metadata.extend(time.map(|time| ("creationTimestamp".to_owned(), time)));
        }
        let uid = kept.get("uid").and_then(Value::as_str).map(mirrored);
        metadata.extend(uid.map(|uid| ("uid".to_owned(), uid.into())));
        for key in ["labels", "annotations"] {
            let mut all = texts(kept.get(key));
            all.remove(METADATA);
            all.extend(texts(nested.get(key)));
            metadata.remove(key);
            if !all.is_empty() {
                metadata.insert(key.to_owned(), all.into());
            }
        }
        let mut written = Map::new();
        written.insert("apiVersion".to_owned(), VERSION.into());
        written.insert("kind".to_owned(), self.kind.into());
        written.insert("metadata".to_owned(), metadata.into());
        for key in ["spec", "status"] {
            written.extend(stored.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        written.into()
    }

    /// Returns the name that a policy of an old release shows.
    fn name_of(
        &self,
        kept: &Map<String, Value>,
        nested: &Map<String, Value>,
        stored: &Value,
    ) -> Option<String> {
        let name = kept.get("name").and_then(Value::as_str)?;
        let has_name =
            nested.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        let tier = stored.pointer("/spec/tier").and_then(Value::as_str).unwrap_or("default");
        let is_old = self.keeps_name && !has_name && matches!(tier, "" | "default");
        name.strip_prefix("default.").filter(|_| is_old).map(str::to_owned)
    }

    fn stored_metadata(&self, mut metadata: Map<String, Value>, spec: &Value) -> Value {
        let mut kept = Map::new();
        for key in ["name", "namespace", "resourceVersion"] {
            let value = metadata.get(key).cloned();
            kept.extend(value.map(|value| (key.to_owned(), value)));
        }
        let uid = metadata.get("uid").and_then(Value::as_str).map(mirrored);
        kept.extend(uid.map(|uid| ("uid".to_owned(), uid.into())));
        for key in ["namespace", "resourceVersion", "uid", "generation", "managedFields"] {
            metadata.remove(key);
        }
        if !self.keeps_name {
            metadata.remove("name");
        }
        let is_calicos = |key: &String| {
            key.contains("projectcalico.org/") || key.contains("operator.tigera.io/")
        };
        let native = |key: &str, metadata: &Map<String, Value>| {
            let mut all = texts(metadata.get(key));
            all.retain(|key, _| is_calicos(key));
            all
        };
        let mut labels = native("labels", &metadata);
        let mut annotations = native("annotations", &metadata);
        if self.keeps_name {
            let tier = spec.get("tier").and_then(Value::as_str).unwrap_or("default");
            labels.insert("projectcalico.org/tier".to_owned(), tier.into());
        }
        metadata.entry("creationTimestamp").or_insert(Value::Null);
        annotations.insert(METADATA.to_owned(), Value::Object(metadata).to_string().into());
        if !labels.is_empty() {
            kept.insert("labels".to_owned(), labels.into());
        }
        kept.insert("annotations".to_owned(), annotations.into());
        kept.into()
    }

    /// Writes down what is meant where nothing is written, as Calico's programs do.
    fn fill_in(&self, spec: &mut Value, metadata: &Map<String, Value>) {
        let Some(spec) = spec.as_object_mut() else { return };
        match self.kind {
            "IPPool" => {
                let cidr = spec.get("cidr").and_then(Value::as_str);
                let cidr: Option<Cidr> = cidr.and_then(|text| text.parse().ok());
                let is_v6 = cidr.is_some_and(|cidr| cidr.addr().is_ipv6());
                let is_balanced = spec
                    .get("allowedUses")
                    .and_then(Value::as_array)
                    .is_some_and(|uses| uses.contains(&json!("LoadBalancer")));
                put(spec, "blockSize", json!(if is_v6 { 122 } else { 26 }));
                put(spec, "ipipMode", json!("Never"));
                put(spec, "vxlanMode", json!("Never"));
                put(spec, "nodeSelector", json!("all()"));
                put(spec, "assignmentMode", json!("Automatic"));
                if !is_balanced {
                    put(spec, "allowedUses", json!(["Workload", "Tunnel"]));
                }
            }
            "NetworkPolicy"
            | "GlobalNetworkPolicy"
            | "StagedNetworkPolicy"
            | "StagedGlobalNetworkPolicy" => {
                put(spec, "tier", json!("default"));
                let has = |key: &str| {
                    spec.get(key).and_then(Value::as_array).is_some_and(|rules| !rules.is_empty())
                };
                let types = match (has("ingress"), has("egress")) {
                    (true, true) => json!(["Ingress", "Egress"]),
                    (false, true) => json!(["Egress"]),
                    (_, false) => json!(["Ingress"]),
                };
                put(spec, "types", types);
            }
            "IPAMConfiguration" => {
                put(spec, "strictAffinity", json!(false));
                put(spec, "autoAllocateBlocks", json!(true));
            }
            "Tier" => {
                // Those that every cluster has have their own.
                let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
                if !model::tier::Tier::fixed().iter().any(|(fixed, ..)| *fixed == name) {
                    put(spec, "defaultAction", json!("Deny"));
                }
            }
            _ => {}
        }
    }
}

/// Reads which kind an object is that somebody wrote, in either of the two forms.
///
/// # Errors
///
/// [`Invalid`] for a kind or a version that is none of ours.
pub fn resource_of(object: &Value) -> Result<&'static Resource, Invalid> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let title = || format!("{kind} {}", text("/metadata/name")).trim().to_owned();
    if ![VERSION, API_VERSION].contains(&version) {
        let problem = format!("is none that is known here: use {VERSION}");
        return Err(Fault::new("apiVersion", version, problem).of(title()));
    }
    let found = RESOURCES
        .iter()
        .chain(&OF_DOCKER)
        .find(|one| if version == VERSION { one.kind == kind } else { one.stored_kind == kind });
    found.ok_or_else(|| {
        let kinds: Vec<&str> = RESOURCES.iter().chain(&OF_DOCKER).map(|one| one.kind).collect();
        let problem = format!("is none that is known here: use one of {}", kinds.join(", "));
        Fault::new("kind", kind, problem).of(title())
    })
}

/// Returns the texts of a map.
fn texts(value: Option<&Value>) -> Map<String, Value> {
    let mut all = value.and_then(Value::as_object).cloned().unwrap_or_default();
    all.retain(|_, value| value.is_string());
    all
}

fn put(spec: &mut Map<String, Value>, key: &str, value: Value) {
    let is_absent = spec.get(key).is_none_or(|old| old.is_null() || old == "" || old == &json!(0));
    if is_absent {
        spec.insert(key.to_owned(), value);
    }
}

/// Turns the uid of one form into that of the other: the bits of all bytes but two are reversed.
fn mirrored(uid: &str) -> String {
    let digits: String = uid.chars().filter(|digit| *digit != '-').collect();
    let Ok(mut bytes) = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()) else {
        return uid.to_owned();
    };
    if bytes.len() != 16 {
        return uid.to_owned();
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        // These two have the version and the variant of the uid (RFC 9562 §4).
        if index != 6 && index != 8 {
            *byte = byte.reverse_bits();
        }
    }
    let text = data_encoding::HEXLOWER.encode(&bytes);
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().to_owned();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

#[cfg(test)]
mod tests;
