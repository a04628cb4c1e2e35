//! What the tests have in common: objects of any kind.

use std::path::{Path, PathBuf};

use api::Invalid;
use serde_json::Value;

/// Returns the path of test data.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/api").join(name)
}

/// Reads an object into the model and writes it back.
macro_rules! read {
    ($object:ty => $model:ty, $json:expr) => {{
        let object = <$object>::from_json($json)?;
        <$model>::try_from(&object).map_err(Invalid::from)?;
        Ok(serde_json::to_value(object).unwrap())
    }};
}

/// Reads an object of any kind into the model and returns what writing it back gives.
pub(crate) fn read(json: &Value) -> Result<Value, Invalid> {
    use model::{bgp_filter, block, cluster, host_endpoint, network_set, peer, policy, pool, tier};
    match json["kind"].as_str().unwrap() {
        "BGPConfiguration" => read!(api::BgpConfiguration => peer::BgpConfiguration, json),
        "BGPFilter" => read!(api::BgpFilter => bgp_filter::BgpFilter, json),
        "BGPPeer" => read!(api::BgpPeer => peer::BgpPeer, json),
        "BlockAffinity" => read!(api::BlockAffinity => block::Affinity, json),
        "CalicoNodeStatus" => read!(api::CalicoNodeStatus => cluster::NodeStatusRequest, json),
        "ClusterInformation" => {
            let object = api::ClusterInformation::from_json(json)?;
            let _ = cluster::ClusterInformation::from(&object);
            Ok(serde_json::to_value(object).unwrap())
        }
        "FelixConfiguration" => {
            let object = api::FelixConfiguration::from_json(json)?;
            object.check()?;
            Ok(serde_json::to_value(object).unwrap())
        }
        "GlobalNetworkPolicy" => read!(api::GlobalNetworkPolicy => policy::Policy, json),
        "GlobalNetworkSet" => read!(api::GlobalNetworkSet => network_set::NetworkSet, json),
        "HostEndpoint" => read!(api::HostEndpoint => host_endpoint::HostEndpoint, json),
        "IPAMBlock" => read!(api::IpamBlock => block::Block, json),
        "IPAMConfig" => read!(api::IpamConfig => block::IpamConfig, json),
        "IPAMHandle" => read!(api::IpamHandle => block::Handle, json),
        "IPPool" => read!(api::IpPool => pool::IpPool, json),
        "IPReservation" => {
            let object = api::IpReservation::from_json(json)?;
            object.ranges()?;
            Ok(serde_json::to_value(object).unwrap())
        }
        "KubeControllersConfiguration" => {
            read!(api::KubeControllersConfiguration => cluster::ControllersConfiguration, json)
        }
        "NetworkPolicy" => read!(api::CalicoNetworkPolicy => policy::Policy, json),
        "NetworkSet" => read!(api::NetworkSet => network_set::NetworkSet, json),
        "StagedGlobalNetworkPolicy" => {
            read!(api::StagedGlobalNetworkPolicy => policy::Policy, json)
        }
        "StagedKubernetesNetworkPolicy" => {
            read!(api::StagedKubernetesNetworkPolicy => policy::Policy, json)
        }
        "StagedNetworkPolicy" => read!(api::StagedNetworkPolicy => policy::Policy, json),
        "Tier" => read!(api::Tier => tier::Tier, json),
        other => panic!("unknown kind {other}"),
    }
}
