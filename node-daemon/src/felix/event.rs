//! Everything that can change what Felix does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ::bgp::rib::Gateways;
use calc::next_hop::UnderlayTable;
use calc::{Change, Problem, TunnelSettings, WireguardSettings};
use kernel::tunnels;
use model::desired::{
    Advertisements, BgpSession, Route, RouteKey, RouteProtocol, TunnelAddrDemand, TunnelDevice,
    TunnelEntry, TunnelEntryKey,
};
use model::net::{Cidr, Family, IfName, Mtu};
use model::node::{TunnelAddrs, TunnelKind};
use model::peer::RoutePriority;
use model::policy::PolicyKind;

use super::{vrf, wireguard};

/// An input of the [`Engine`](super::engine::Engine).
#[derive(Debug)]
pub(crate) enum Event {
    /// An object of the datastore has a new value, or none.
    Store(Change),
    /// All objects of a kind have been seen once.
    Synced(Kind),
    /// What administrators decide has changed.
    Settings(Box<RouteSettings>),
    /// What the kernel holds now.
    Kernel(Box<KernelState>),
    /// Routes that BGP learned with their next hops, or lost where there is none.
    Learned(Vec<(Cidr, Gateways)>),
    /// BGP knows what its reachable peers know; what it has not learned by now is stale.
    BgpConverged,
    /// What carries the packets of a tunnel spoils those checksums that are left to it.
    Corrupting(IfName),
    /// How the changes of the last [`Effect::Routes`] went.
    Applied(Vec<Applied>),
    /// How the changes of the last [`Effect::Devices`] went.
    DevicesApplied(Vec<DeviceApplied>),
    /// How the changes of the last [`Effect::Entries`] went.
    EntriesApplied(Vec<EntryApplied>),
    /// How the changes of the last [`Effect::PeeringAddrs`] went.
    PeeringAddrsApplied(Vec<PeeringAddrApplied>),
}

/// What administrators decide about routes and tunnels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RouteSettings {
    /// The protocol number of local workloads' routes.
    pub(crate) device_route_protocol: RouteProtocol,
    /// The metric of routes that BGP does not teach us.
    pub(crate) priority: RoutePriority,
    /// May workloads have floating addresses?
    pub(crate) has_floating: bool,
    /// The routing tables that no VRF may have.
    pub(crate) table_ranges: Vec<RangeInclusive<u32>>,
    /// Tunnels; the host's MTU is the kernel's to tell.
    pub(crate) tunnels: TunnelSettings,
    /// Encryption.
    pub(crate) wireguard: WireguardSettings,
    /// What is ours of encryption, wanted or not.
    pub(crate) wireguard_places: BTreeMap<Family, wireguard::Place>,
}

/// The kinds of objects that are watched.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    /// Nodes.
    Nodes,
    /// Pools.
    Pools,
    /// This node's claims on blocks.
    Affinities,
    /// Other nodes' claims on blocks, while a pool's packets travel in tunnels.
    OtherAffinities,
    /// Pods.
    Endpoints,
    /// `BGPConfiguration`.
    BgpConfigurations,
    /// `BGPPeer`.
    BgpPeers,
    /// `FelixConfiguration`.
    FelixConfigurations,
    /// Namespaces, each of them a profile.
    Namespaces,
    /// Service accounts, each of them a profile.
    ServiceAccounts,
    /// Calico's `NetworkPolicy`.
    Policies,
    /// `GlobalNetworkPolicy`.
    GlobalPolicies,
    /// The `NetworkPolicy` of Kubernetes.
    KubernetesPolicies,
    /// `ClusterNetworkPolicy`.
    ClusterPolicies,
    /// `StagedNetworkPolicy`.
    StagedPolicies,
    /// `StagedGlobalNetworkPolicy`.
    StagedGlobalPolicies,
    /// `StagedKubernetesNetworkPolicy`.
    StagedKubernetesPolicies,
    /// Tiers.
    Tiers,
    /// `NetworkSet`.
    NetworkSets,
    /// `GlobalNetworkSet`.
    GlobalNetworkSets,
    /// `HostEndpoint`.
    HostEndpoints,
    /// Who answers for Services.
    EndpointSlices,
    /// `BGPFilter`.
    BgpFilters,
    /// Services, while some of their addresses are announced.
    Services,
    /// Secrets that passwords of peers lie in.
    Secrets,
    /// `WorkloadEndpoint`: what is attached and is no pod.
    WorkloadEndpoints,
    /// `Profile`: what those endpoints inherit.
    Profiles,
}

impl Kind {
    /// What must be in sync before routes are changed.
    ///
    /// Besides, what [`Demand`] asks for must be known once.
    pub(crate) const ROUTES: [Self; 10] = [
        Self::Nodes,
        Self::Pools,
        Self::Affinities,
        Self::Endpoints,
        Self::BgpConfigurations,
        Self::BgpPeers,
        Self::BgpFilters,
        Self::FelixConfigurations,
        Self::EndpointSlices,
        Self::WorkloadEndpoints,
    ];

    /// What must be in sync before policy is changed.
    pub(crate) const POLICY: [Self; 21] = [
        Self::Nodes,
        Self::Pools,
        Self::BgpConfigurations,
        Self::Endpoints,
        Self::FelixConfigurations,
        Self::Namespaces,
        Self::ServiceAccounts,
        Self::Policies,
        Self::GlobalPolicies,
        Self::KubernetesPolicies,
        Self::ClusterPolicies,
        Self::StagedPolicies,
        Self::StagedGlobalPolicies,
        Self::StagedKubernetesPolicies,
        Self::Tiers,
        Self::NetworkSets,
        Self::GlobalNetworkSets,
        Self::HostEndpoints,
        Self::EndpointSlices,
        Self::WorkloadEndpoints,
        Self::Profiles,
    ];

    /// The kinds of policies.
    const POLICIES: [(Self, PolicyKind); 7] = [
        (Self::Policies, PolicyKind::Network),
        (Self::GlobalPolicies, PolicyKind::Global),
        (Self::KubernetesPolicies, PolicyKind::Kubernetes),
        (Self::ClusterPolicies, PolicyKind::KubernetesCluster),
        (Self::StagedPolicies, PolicyKind::StagedNetwork),
        (Self::StagedGlobalPolicies, PolicyKind::StagedGlobal),
        (Self::StagedKubernetesPolicies, PolicyKind::StagedKubernetes),
    ];

    /// Returns which policies these objects are, if they are policies.
    pub(crate) fn of_policy(self) -> Option<PolicyKind> {
        let found = Self::POLICIES.into_iter().find(|(kind, _)| *kind == self);
        found.map(|(_, of)| of)
    }

    /// May a cluster be without the kind?
    ///
    /// One that was installed with older definitions, or without those of others, does not know
    /// such a kind; it has none of it then, and nobody waits for it.
    pub(crate) const fn is_optional(self) -> bool {
        matches!(
            self,
            Self::ClusterPolicies
                | Self::StagedPolicies
                | Self::StagedGlobalPolicies
                | Self::StagedKubernetesPolicies
                | Self::WorkloadEndpoints
                | Self::Profiles
        )
    }

    /// Is it a kind that clusters without Docker have neither definitions nor rights for (ADR 10)?
    ///
    /// Who may not see such endpoints lets none of their packets pass.
    pub(crate) const fn is_of_docker(self) -> bool {
        matches!(self, Self::WorkloadEndpoints | Self::Profiles)
    }
}

/// What the kernel holds, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct KernelState {
    /// Routes that are ours by their protocol number and interface (ADR 3).
    pub(crate) routes: BTreeMap<RouteKey, Route>,
    /// Everybody else's routes, by which next hops are reached.
    pub(crate) underlay: UnderlayTable,
    /// The interfaces that those lead out of, and those that link-local neighbours are on.
    pub(crate) ways: BTreeMap<Cidr, IfName>,
    /// Workload interfaces that are up.
    pub(crate) workload_links: BTreeSet<IfName>,
    /// IP addresses on those, and whether each is ours.
    pub(crate) workload_link_addrs: BTreeMap<(IfName, IpAddr), bool>,
    /// Tunnel devices and their entries.
    pub(crate) tunnels: tunnels::State,
    /// VRFs' tunnels that are up.
    pub(crate) vrf_tunnels: BTreeSet<IfName>,
    /// The MTU of the links between nodes; `None` if none of them can be told.
    pub(crate) host_mtu: Option<Mtu>,
}

/// Something to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// Look what the kernel holds and report it as [`Event::Kernel`].
    ListKernel,
    /// Make these changes of routes and report each in [`Event::Applied`].
    Routes(Vec<RouteChange>),
    /// Make these changes of tunnel devices and report each in [`Event::DevicesApplied`].
    Devices(Vec<DeviceChange>),
    /// Make these changes of tunnels' entries and report each in [`Event::EntriesApplied`].
    Entries(Vec<EntryChange>),
    /// Make these changes of addresses on workloads' interfaces and report each in
    /// [`Event::PeeringAddrsApplied`].
    PeeringAddrs(Vec<PeeringAddrChange>),
    /// Have these addresses for tunnels, and no others.
    TunnelAddrs(TunnelNeeds),
    /// Have this of WireGuard.
    Wireguard(wireguard::Wanted),
    /// Have this of VRFs.
    Vrfs(vrf::Wanted),
    /// Tell the CNI plugin the MTU of pods.
    PodMtu(Mtu),
    /// Watch these besides, and nothing else.
    Demand(Demand),
    /// Listen for peers there, and nowhere else.
    Listen(BTreeSet<SocketAddr>),
    /// Announce this, and nothing else.
    Advertise(Advertisements),
    /// Judge filters that ask for interfaces by these.
    Ways(BTreeMap<Cidr, IfName>),
    /// Have these sessions, and no others.
    Sessions(Vec<BgpSession>),
    /// Tell people what in the datastore cannot be followed; empty when all is well again.
    Problems(Vec<Problem>),
}

/// What must be watched only because of what is configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Demand {
    /// The names of Secrets, in the namespace of calico-node.
    pub(crate) secrets: BTreeSet<String>,
    /// Whether Services are announced.
    pub(crate) has_services: bool,
    /// Whether packets travel in tunnels, to blocks of other nodes.
    pub(crate) has_all_blocks: bool,
}

/// The addresses that this node's tunnels need, and have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TunnelNeeds {
    /// Where they may come from, for each kind that needs one.
    pub(crate) demands: BTreeMap<TunnelKind, TunnelAddrDemand>,
    /// What the node's annotations say.
    pub(crate) annotated: TunnelAddrs,
}

/// A change of one of the kernel's routes.
pub(crate) type RouteChange = reconcile::Change<RouteKey, Route>;

/// What came of a change: nothing more to say, or what the kernel said.
pub(crate) type Applied = (RouteChange, Result<(), String>);

/// A change of one of the tunnel devices.
pub(crate) type DeviceChange = reconcile::Change<IfName, TunnelDevice>;

/// What came of it.
pub(crate) type DeviceApplied = (DeviceChange, Result<(), String>);

/// A change of a tunnel's entry.
pub(crate) type EntryChange = reconcile::Change<TunnelEntryKey, TunnelEntry>;

/// What came of it.
pub(crate) type EntryApplied = (EntryChange, Result<(), String>);

/// A change of the addresses on workloads' interfaces that workloads peer with.
pub(crate) type PeeringAddrChange = reconcile::Change<(IfName, IpAddr), ()>;

/// What came of it.
pub(crate) type PeeringAddrApplied = (PeeringAddrChange, Result<(), String>);
