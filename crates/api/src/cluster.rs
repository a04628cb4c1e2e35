//! Objects that there is one of: `ClusterInformation` and `IPAMConfig`; and `IPReservation`.

use std::time::Duration;

use model::net::Cidr;

use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object};

/// The release of Calico that our objects and files are like.
///
/// `calicoctl` refuses to work if its own version differs from the one in
/// `ClusterInformation`, so this is the text of that release and not our version.
pub const CALICO_VERSION: &str = "v3.32.1";

/// What the cluster is and whether its datastore may be used.
pub type ClusterInformation = Object<ClusterInformationSpec>;

wire! {
    /// The spec of a [`ClusterInformation`].
    pub struct ClusterInformationSpec {
        /// 32 hexadecimal digits.
        cluster_guid: Option<String> = "clusterGUID",
        /// What is known of the cluster, separated by commas: `k8s,bgp,kubeadm,kdd`.
        cluster_type: Option<String> = "clusterType",
        /// The version of Calico that the cluster has.
        calico_version: Option<String> = "calicoVersion",
        /// Whether the datastore may be used; `false` while it is migrated.
        datastore_ready: Option<bool> = "datastoreReady",
        /// The edition.
        variant: Option<String> = "variant",
    }
}

kind! { ClusterInformationSpec: "ClusterInformation" "clusterinformations" cluster }

impl From<&ClusterInformation> for model::cluster::ClusterInformation {
    fn from(object: &ClusterInformation) -> Self {
        let spec = &object.spec;
        let types = spec.cluster_type.iter().flat_map(|text| text.split(','));
        Self {
            guid: spec.cluster_guid.clone().unwrap_or_default(),
            types: types
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            calico_version: spec.calico_version.clone().unwrap_or_default(),
            is_datastore_ready: spec.datastore_ready.unwrap_or_default(),
        }
    }
}

impl ClusterInformation {
    /// Puts `cluster` into this object; what this version does not know stays.
    pub fn set(&mut self, cluster: &model::cluster::ClusterInformation) {
        let some = |text: String| (!text.is_empty()).then_some(text);
        self.spec.cluster_guid = some(cluster.guid.clone());
        self.spec.cluster_type = some(cluster.types.join(","));
        self.spec.calico_version = some(cluster.calico_version.clone());
        self.spec.datastore_ready = Some(cluster.is_datastore_ready);
    }
}

/// How addresses are assigned throughout the cluster.
pub type IpamConfig = Object<IpamConfigSpec>;

wire! {
    /// The spec of an [`IpamConfig`]; absent fields have Calico's defaults.
    pub struct IpamConfigSpec {
        /// Whether nodes assign only from blocks of their own.
        strict_affinity: Option<bool> = "strictAffinity",
        /// Whether nodes may claim new blocks.
        auto_allocate_blocks: Option<bool> = "autoAllocateBlocks",
        /// The most blocks that a node may own; zero is the default.
        max_blocks_per_host: Option<i64> = "maxBlocksPerHost",
        /// Whether virtual machines keep their addresses: `Enabled` or `Disabled`.
        kubevirt_persistence: Option<String> = "kubeVirtVMAddressPersistence",
        /// How long an address rests after its release, in seconds: 0 to 1200.
        cooldown_seconds: Option<i64> = "ipCooldownSeconds",
    }
}

kind! { IpamConfigSpec: "IPAMConfig" "ipamconfigs" cluster {"autoAllocateBlocks", "strictAffinity"} }

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
        let persistence = spec.kubevirt_persistence.as_deref().unwrap_or_default();
        if !["", "Enabled", "Disabled"].contains(&persistence) {
            let field = "spec.kubeVirtVMAddressPersistence";
            return Err(object.invalid(field, persistence, "use Enabled or Disabled"));
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

wire! {
    /// The spec of an [`IpReservation`].
    pub struct IpReservationSpec {
        /// The ranges.
        reserved_cidrs: Option<Vec<String>> = "reservedCIDRs",
    }
}

kind! { IpReservationSpec: "IPReservation" "ipreservations" cluster }

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
        self.spec.reserved_cidrs.iter().flatten().map(read).collect()
    }
}
