//! Objects that there is one of: `ClusterInformation` and `IPAMConfig`; and `IPReservation`.

use std::time::Duration;

use k8s_openapi::ClusterResourceScope;
use model::net::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Invalid, Kind, Object};

/// What the cluster is and whether its datastore may be used.
pub type ClusterInformation = Object<ClusterInformationSpec>;

/// The spec of a [`ClusterInformation`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInformationSpec {
    /// 32 hexadecimal digits.
    #[serde(rename = "clusterGUID", skip_serializing_if = "Option::is_none")]
    pub cluster_guid: Option<String>,
    /// What is known of the cluster, separated by commas: `k8s,bgp,kubeadm,kdd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_type: Option<String>,
    /// The version of Calico that the cluster has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calico_version: Option<String>,
    /// Whether the datastore may be used; `false` while it is migrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    /// The edition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for ClusterInformationSpec {
    const KIND: &'static str = "ClusterInformation";
    const PLURAL: &'static str = "clusterinformations";
    type Scope = ClusterResourceScope;
}

/// How addresses are assigned throughout the cluster.
pub type IpamConfig = Object<IpamConfigSpec>;

/// The spec of an [`IpamConfig`]; absent fields have Calico's defaults.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamConfigSpec {
    /// Whether nodes assign only from blocks of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_affinity: Option<bool>,
    /// Whether nodes may claim new blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_allocate_blocks: Option<bool>,
    /// The most blocks that a node may own; zero is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_blocks_per_host: Option<i64>,
    /// Whether virtual machines keep their addresses: `Enabled` or `Disabled`.
    #[serde(rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "Option::is_none")]
    pub kubevirt_persistence: Option<String>,
    /// How long an address rests after its release, in seconds: 0 to 1200.
    #[serde(rename = "ipCooldownSeconds", skip_serializing_if = "Option::is_none")]
    pub cooldown_seconds: Option<i64>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for IpamConfigSpec {
    const KIND: &'static str = "IPAMConfig";
    const PLURAL: &'static str = "ipamconfigs";
    type Scope = ClusterResourceScope;
}

impl TryFrom<&IpamConfig> for model::block::IpamConfig {
    type Error = Invalid;

    fn try_from(object: &IpamConfig) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let is_strict_affinity = spec.strict_affinity.unwrap_or_default();
        let auto_allocate_blocks = spec.auto_allocate_blocks.unwrap_or(true);
        if !is_strict_affinity && !auto_allocate_blocks {
            let problem = "without strictAffinity nodes must be able to claim blocks; \
                           set one of the two to true";
            return Err(object.invalid("spec.autoAllocateBlocks", false, problem));
        }
        let max = spec.max_blocks_per_host.unwrap_or_default();
        let max_blocks_per_host = match u32::try_from(max) {
            Ok(0) => Self::DEFAULT_MAX_BLOCKS,
            Ok(max) => max,
            Err(_) => {
                let problem = "use 0 for the default, or a number of blocks";
                return Err(object.invalid("spec.maxBlocksPerHost", max, problem));
            }
        };
        let seconds = spec.cooldown_seconds.unwrap_or_default();
        let cooldown = u64::try_from(seconds).ok().filter(|seconds| *seconds <= 1200);
        let cooldown = cooldown.ok_or_else(|| {
            object.invalid("spec.ipCooldownSeconds", seconds, "use 0 to 1200 seconds")
        })?;
        Ok(Self {
            is_strict_affinity,
            auto_allocate_blocks,
            max_blocks_per_host,
            cooldown: Duration::from_secs(cooldown),
        })
    }
}

/// Addresses that are not to be assigned.
pub type IpReservation = Object<IpReservationSpec>;

/// The spec of an [`IpReservation`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct IpReservationSpec {
    /// The ranges.
    #[serde(rename = "reservedCIDRs")]
    pub reserved_cidrs: Vec<String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for IpReservationSpec {
    const KIND: &'static str = "IPReservation";
    const PLURAL: &'static str = "ipreservations";
    type Scope = ClusterResourceScope;
}

impl IpReservation {
    /// Returns the reserved ranges; a bare address is a range of its own.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for the first that is no range.
    pub fn ranges(&self) -> Result<Vec<Cidr>, Invalid> {
        let read = |text: &String| match text.parse() {
            Ok(addr) => Ok(Cidr::host(addr)),
            Err(_) => text.parse().map_err(|error| self.invalid("spec.reservedCIDRs", text, error)),
        };
        self.spec.reserved_cidrs.iter().map(read).collect()
    }
}
