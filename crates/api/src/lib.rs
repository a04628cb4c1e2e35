//! The objects of the datastore and their values: `crd.projectcalico.org/v1` and Kubernetes.
//!
//! Reading: an [`Object`] becomes a `model` value by `TryFrom`, once, at the
//! border; what is wrong with it is an [`Invalid`] that names the object, the
//! field, the value and the remedy. Writing: `from_model` makes a new object,
//! `set` changes one that was read. Fields that this version does not know
//! survive both, since every level keeps what it does not understand.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod annotations;
mod bgp;
mod cluster;
mod controllers;
pub mod crd;
pub mod daemon_status;
pub mod endpoint_status;
mod felix;
mod host_endpoint;
mod invalid;
mod ipam;
pub mod kubernetes;
pub mod names;
mod network_set;
mod node_status;
mod object;
mod policy;
pub mod policy_report;
mod pool;
mod profile;
pub mod qos;
mod tier;
mod time;
pub mod v3;
mod wire;
mod workload_endpoint;

pub use bgp::{
    BgpConfiguration, BgpConfigurationSpec, BgpFilter, BgpFilterSpec, BgpPeer, BgpPeerSpec,
    CidrEntry, FilterAsPathSpec, FilterCommunitiesSpec, FilterCommunitySpec, FilterOperationSpec,
    FilterPrioritySpec, FilterRuleSpec, NamedCommunity, PasswordSpec, PrefixAdvertisementSpec,
    PrefixLengthSpec, SecretKeySpec, bgp_configuration,
};
pub use cluster::{
    CALICO_VERSION, ClusterInformation, ClusterInformationSpec, IpReservation, IpReservationSpec,
    IpamConfig, IpamConfigSpec,
};
pub use controllers::{
    AutoHostEndpointSpec, ControllersSpec, HostEndpointTemplateSpec, KubeControllersConfiguration,
    KubeControllersConfigurationSpec, KubeControllersStatus, LoadBalancerControllerSpec,
    MigrationControllerSpec, NodeControllerSpec, ReconcilerSpec,
};
pub use felix::{FelixConfiguration, FelixConfigurationSpec};
pub use host_endpoint::{EndpointPortSpec, HostEndpoint, HostEndpointSpec};
pub use invalid::Invalid;
pub use ipam::{
    AllocationAttribute, BlockAffinity, BlockAffinitySpec, IpamBlock, IpamBlockSpec, IpamHandle,
    IpamHandleSpec, vrf_of,
};
pub use network_set::{GlobalNetworkSet, GlobalNetworkSetSpec, NetworkSet, NetworkSetSpec};
pub use node_status::{
    AgentStatus, BgpStatus, CalicoNodeStatus, CalicoNodeStatusSpec, CalicoNodeStatusStatus,
    LearnedFromStatus, PeerStatus, RouteStatus, RoutesStatus, SpeakerStatus,
};
pub use object::{API_VERSION, Kind, Object};
pub use policy::{
    CalicoNetworkPolicy, CalicoNetworkPolicySpec, EntityRuleSpec, GlobalNetworkPolicy,
    GlobalNetworkPolicySpec, HttpPathSpec, HttpSpec, IcmpSpec, KubernetesRuleSpec,
    LabelSelectorSpec, PolicyObject, Reading, RuleMetadataSpec, RuleSpec, ServiceAccountsSpec,
    ServiceRefSpec, StagedGlobalNetworkPolicy, StagedGlobalNetworkPolicySpec,
    StagedKubernetesNetworkPolicy, StagedKubernetesNetworkPolicySpec, StagedNetworkPolicy,
    StagedNetworkPolicySpec,
};
pub use pool::{IpPool, IpPoolSpec};
pub use profile::{Profile, ProfileSpec, is_reserved_profile, profile};
pub use tier::{Tier, TierSpec};
pub use time::{go_time, span as duration};
pub use wire::Decimal;
pub use workload_endpoint::{
    LIBNETWORK, WorkloadEndpoint, WorkloadEndpointSpec, WorkloadPortSpec, workload_id,
};
