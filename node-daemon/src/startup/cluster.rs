//! What every cluster has one of: information about itself, three tiers, Felix's defaults.

use api::{
    CALICO_VERSION, ClusterInformation, ClusterInformationSpec, FelixConfiguration,
    FelixConfigurationSpec, Tier, TierSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::id::NodeName;
use model::net::Cidr;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A write that `ClusterInformation` needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// There is none yet.
    Create(ClusterInformation),
    /// Something is missing in it.
    Update(ClusterInformation),
}

/// Decides what to write into `ClusterInformation`; `None` if it is as it should be.
///
/// What people set stays: `datastoreReady` above all, which stops the cluster while
/// its datastore is migrated.
pub(crate) fn information(
    current: Option<&ClusterInformation>,
    kinds: &[String],
    random: [u8; 16],
) -> Option<Write> {
    let mut wanted = current
        .cloned()
        .unwrap_or_else(|| ClusterInformation::named("default", ClusterInformationSpec::default()));
    let spec = &mut wanted.spec;
    if spec.cluster_guid.as_deref().unwrap_or_default().is_empty() {
        spec.cluster_guid = Some(guid(random));
    }
    spec.cluster_type = Some(cluster_type(spec.cluster_type.as_deref().unwrap_or_default(), kinds));
    spec.calico_version = Some(CALICO_VERSION.to_owned());
    spec.datastore_ready.get_or_insert(true);
    match current {
        None => Some(Write::Create(wanted)),
        Some(current) => (*current != wanted).then_some(Write::Update(wanted)),
    }
}

/// Returns the words of `current` and those of `kinds` that it lacks, `kdd` last.
fn cluster_type(current: &str, kinds: &[String]) -> String {
    const LAST: &str = "kdd";
    let mut words: Vec<&str> = Vec::new();
    let all = current.split(',').chain(kinds.iter().map(String::as_str)).map(str::trim);
    for word in all.filter(|word| !word.is_empty() && *word != LAST) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.push(LAST);
    words.join(",")
}

/// Returns a random UUID (RFC 9562 §5.4) without its dashes.
fn guid(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    format!("{:032x}", u128::from_be_bytes(random))
}

/// Returns the tiers that every cluster has.
pub(crate) fn tiers() -> [Tier; 3] {
    let tier = |name: &str, order: f64, action: &str| {
        let default_action = Some(action.to_owned());
        Tier::named(
            name,
            TierSpec { order: Some(order.into()), default_action, unknown: Map::new() },
        )
    };
    [
        tier("kube-admin", 1_000.0, "Pass"),
        tier("default", 1_000_000.0, "Deny"),
        tier("kube-baseline", 10_000_000.0, "Pass"),
    ]
}

/// Returns the Node of a machine without a kubelet, with the labels that a kubelet would give it.
pub(crate) fn node(name: &NodeName) -> Node {
    let labels = [("kubernetes.io/hostname", name.as_str()), ("kubernetes.io/os", "linux")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let metadata = ObjectMeta {
        name: Some(name.to_string()),
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    };
    Node { metadata, ..Node::default() }
}

/// Returns Felix's settings for all nodes, as Calico creates them.
pub(crate) fn felix_configuration() -> FelixConfiguration {
    let fields = [("reportingInterval", "0s"), ("logSeverityScreen", "Info")];
    let fields = fields.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let spec = FelixConfigurationSpec { fields: fields.into_iter().collect() };
    FelixConfiguration::named("default", spec)
}

/// kubeadm's configuration of the cluster, as far as it concerns us.
#[derive(Deserialize)]
struct ClusterConfiguration {
    #[serde(default)]
    networking: Networking,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Networking {
    #[serde(default)]
    pod_subnet: String,
}

/// Why kubeadm's `podSubnet` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidKubeadm {
    #[error("ClusterConfiguration is no YAML of kubeadm: {0}")]
    Yaml(String),
    #[error("networking.podSubnet: {0}")]
    Subnet(#[from] model::net::InvalidCidr),
}

/// Reads the ranges of `networking.podSubnet`, one of each family at most.
pub(crate) fn pod_subnets(yaml: &str) -> Result<Vec<Cidr>, InvalidKubeadm> {
    let configuration: ClusterConfiguration =
        serde_saphyr::from_str(yaml).map_err(|error| InvalidKubeadm::Yaml(error.to_string()))?;
    let subnets = configuration.networking.pod_subnet;
    let subnets = subnets.split(',').map(str::trim).filter(|subnet| !subnet.is_empty());
    Ok(subnets.map(str::parse).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_new_cluster_gets_an_identity() {
        let Some(Write::Create(created)) = information(None, &words("k8s,bgp,kubeadm"), [0xff; 16])
        else {
            panic!("it is created");
        };
        let expected = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "ClusterInformation",
            "metadata": {"name": "default"},
            "spec": {
                "clusterGUID": "ffffffffffff4fffbfffffffffffffff",
                "clusterType": "k8s,bgp,kubeadm,kdd",
                "calicoVersion": "v3.32.1",
                "datastoreReady": true,
            },
        });
        assert_eq!(serde_json::to_value(&created).unwrap(), expected);
    }

    #[test]
    fn what_people_set_stays() {
        let Some(Write::Create(mut current)) = information(None, &words("k8s"), [1; 16]) else {
            panic!("it is created");
        };
        current.spec.datastore_ready = Some(false);
        current.spec.cluster_type = Some("typha,k8s,kdd".to_owned());
        assert_eq!(information(Some(&current), &words("k8s"), [2; 16]), None);
        let Some(Write::Update(updated)) = information(Some(&current), &words("k8s,bgp"), [2; 16])
        else {
            panic!("it is updated");
        };
        assert_eq!(updated.spec.cluster_type.as_deref(), Some("typha,k8s,bgp,kdd"));
        assert_eq!(updated.spec.datastore_ready, Some(false));
        assert_eq!(updated.spec.cluster_guid, current.spec.cluster_guid);
    }

    #[test]
    fn tiers_are_written_as_calico_does() {
        let [first, ..] = tiers();
        let expected = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "Tier",
            "metadata": {"name": "kube-admin"},
            "spec": {"order": 1000, "defaultAction": "Pass"},
        });
        assert_eq!(serde_json::to_value(&first).unwrap(), expected);
    }

    #[test]
    fn kubeadms_subnets_are_read() {
        let yaml = |subnet: &str| {
            format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: {subnet}\n"
            )
        };
        let read = |text: &str| {
            let subnets = pod_subnets(text).map_err(|error| error.to_string())?;
            Ok::<_, String>(subnets.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(read(&yaml("10.244.0.0/16")).unwrap(), ["10.244.0.0/16"]);
        let both = ["10.244.0.0/16", "fd00:10::/56"];
        assert_eq!(read(&yaml("10.244.0.0/16, fd00:10::/56")).unwrap(), both);
        assert_eq!(read("kind: ClusterConfiguration").unwrap(), Vec::<String>::new());
        assert_eq!(
            read(&yaml("10.244.0.1/16")).unwrap_err(),
            "networking.podSubnet: `10.244.0.1/16` has host bits set: use 10.244.0.0/16"
        );
        assert!(read("- a\n- list").unwrap_err().starts_with("ClusterConfiguration is no YAML"));
    }
}
