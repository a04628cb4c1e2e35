//! The environment that matters while `calico-node` starts.

use std::net::IpAddr;
use std::time::Duration;

use model::id::NodeName;
use model::net::Asn;
use selector::Selector;

use crate::source::{Problem, Sources};
use crate::table::Names::Variable;
use crate::table::{Group, Parameter, group};
use crate::value::{
    AddressMethod, AddressSource, Backend, EncapsulationMode, LogSeverity, Number, PoolSource,
    RouterId,
};

/// All settings of the start, by group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StartupConfig {
    /// The node itself and its addresses.
    pub node: NodeSettings,
    /// The connection to the datastore.
    pub datastore: DatastoreSettings,
    /// The first IPv4 pool.
    pub ipv4_pool: Ipv4PoolSettings,
    /// The first IPv6 pool.
    pub ipv6_pool: Ipv6PoolSettings,
}

impl StartupConfig {
    /// Reads all settings and reports those that could not be taken as they are.
    ///
    /// Unlike those of Felix they should be fatal: a pool or an address that
    /// nobody asked for is hard to get rid of again.
    #[must_use]
    pub fn resolve(sources: &Sources) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let config = Self {
            node: Group::read(sources, &mut problems),
            datastore: Group::read(sources, &mut problems),
            ipv4_pool: Group::read(sources, &mut problems),
            ipv6_pool: Group::read(sources, &mut problems),
        };
        (config, problems)
    }

    /// Returns the table, group by group, with the groups' headings.
    #[must_use]
    pub fn groups() -> Vec<(&'static str, Vec<Parameter>)> {
        vec![
            (NodeSettings::TITLE, NodeSettings::parameters()),
            (DatastoreSettings::TITLE, DatastoreSettings::parameters()),
            (Ipv4PoolSettings::TITLE, Ipv4PoolSettings::parameters()),
            (Ipv6PoolSettings::TITLE, Ipv6PoolSettings::parameters()),
        ]
    }
}

group! {
    /// The node itself and its addresses.
    NodeSettings, "Start: the node and its addresses" {
        /// The node's name, as Kubernetes knows it; not set is HOSTNAME, then the host's
        /// own name in lower case.
        name: Option<NodeName> = None, Variable("NODENAME"), Used;
        /// The node's name where NODENAME is not set.
        hostname: Option<String> = None, Variable("HOSTNAME"), Used;
        /// The name of the Kubernetes Node, where it differs from NODENAME.
        kubernetes_node: Option<NodeName> = None, Variable("CALICO_K8S_NODE_REF"), Used;
        /// Whether the Node is made if there is none: for hosts without a kubelet, such as those
        /// of Docker.
        is_created: bool = false, Variable("CALICO_CREATE_NODE"), Used;
        /// The node's IPv4 address; not set keeps the one it has, and detects one if it has none.
        ipv4: Option<AddressSource> = None, Variable("IP"), Used;
        /// The node's IPv6 address; not set keeps the one it has.
        ipv6: Option<AddressSource> = None, Variable("IP6"), Used;
        /// How the IPv4 address is detected.
        ipv4_method: AddressMethod = AddressMethod::FirstFound,
            Variable("IP_AUTODETECTION_METHOD"), Used;
        /// How the IPv6 address is detected.
        ipv6_method: AddressMethod = AddressMethod::FirstFound,
            Variable("IP6_AUTODETECTION_METHOD"), Used;
        /// How often addresses are detected anew while the daemon runs; 0 is never.
        poll_interval: Duration = Duration::from_secs(60),
            Variable("AUTODETECT_POLL_INTERVAL"), Accepted;
        /// Whether another node may have the same address.
        is_conflict_allowed: bool = false, Variable("DISABLE_NODE_IP_CHECK"), Used;
        /// The node's AS; not set keeps the one it has, or the cluster's.
        asn: Option<Asn> = None, Variable("AS"), Used;
        /// The BGP Identifier.
        router_id: RouterId = RouterId::NodeAddr, Variable("CALICO_ROUTER_ID"), Used;
        /// What brings routes to other nodes.
        backend: Backend = Backend::Bird, Variable("CALICO_NETWORKING_BACKEND"), Used;
        /// What kind of cluster this is, in words with commas; goes into `ClusterInformation`.
        cluster_type: Vec<String> = Vec::new(), Variable("CLUSTER_TYPE"), Used;
        /// The file that the CNI plugin reads the node's name from.
        nodename_file: String = "/var/lib/calico/nodename".to_owned(),
            Variable("CALICO_NODENAME_FILE"), Used;
        /// The least severe messages of the start that are logged.
        log_severity: LogSeverity = LogSeverity::Info, Variable("CALICO_STARTUP_LOGLEVEL"), Used;
        /// The least severe messages of BGP that are logged.
        bgp_log_severity: LogSeverity = LogSeverity::Info, Variable("BGP_LOGSEVERITYSCREEN"), Accepted;
        /// Whether logs go to standard error only. This daemon writes no log files of its own.
        no_file_logging: bool = true, Variable("CALICO_DISABLE_FILE_LOGGING"), Accepted;
        /// Whether the CNI plugin's credentials are kept fresh.
        manage_cni: bool = true, Variable("CALICO_MANAGE_CNI"), Used;
        /// Whether calls of the CNI plugin, with these credentials, have their work at the
        /// datastore done by the daemon.
        serves_cni: bool = true, Variable("CALICO_SERVE_CNI"), Used;
        /// Whether pods have addresses from the Node's `podCIDRs`, without our IPAM.
        use_pod_cidr: bool = false, Variable("USE_POD_CIDR"), Accepted;
        /// Networks of services that are announced whatever `BGPConfiguration` says.
        advertised_services: Vec<model::net::Cidr> = Vec::new(),
            Variable("CALICO_ADVERTISE_CLUSTER_IPS"), Accepted;
        /// The address that services of the eBPF dataplane reach the API server by.
        service_host: Option<IpAddr> = None, Variable("KUBERNETES_SERVICE_HOST"), Accepted;
    }
}

group! {
    /// The connection to the datastore.
    DatastoreSettings, "Start: the datastore" {
        /// Whether the daemon waits for the datastore instead of giving up.
        is_waited_for: bool = false, Variable("WAIT_FOR_DATASTORE"), Used;
        /// The file that says how to reach the API server; not set is ~/.kube/config, then
        /// the pod's own account.
        kubeconfig: Option<String> = None, Variable("KUBECONFIG"), Used;
        /// The kind of datastore; only `kubernetes` is supported.
        kind: String = "kubernetes".to_owned(), Variable("DATASTORE_TYPE"), Used;
        /// The group of the custom resources; only crd.projectcalico.org/v1 is supported.
        api_group: String = "crd.projectcalico.org/v1".to_owned(), Variable("CALICO_API_GROUP"), Accepted;
        /// The namespace with the secrets that BGP passwords are in.
        namespace: String = "kube-system".to_owned(), Variable("NAMESPACE"), Accepted;
    }
}

group! {
    /// The first IPv4 pool, made if there is no IPv4 pool.
    Ipv4PoolSettings, "Start: the first IPv4 pool" {
        /// Whether no pool is made at all, of either family.
        no_default_pools: bool = false, Variable("NO_DEFAULT_POOLS"), Used;
        /// The pool's range; not set is kubeadm's `podSubnet`, then 192.168.0.0/16, or another
        /// private range if that clashes with a route of the host.
        cidr: Option<PoolSource> = None, Variable("CALICO_IPV4POOL_CIDR"), Used;
        /// The prefix length of its blocks.
        block_size: Number<20, 32> = Number::clamped(26), Variable("CALICO_IPV4POOL_BLOCK_SIZE"), Used;
        /// When packets travel in IP-in-IP; not set is `Always`, or `Never` where VXLAN is used.
        ipip: Option<EncapsulationMode> = None, Variable("CALICO_IPV4POOL_IPIP"), Used;
        /// When packets travel in VXLAN.
        vxlan: EncapsulationMode = EncapsulationMode::Never, Variable("CALICO_IPV4POOL_VXLAN"), Used;
        /// Whether packets to the outside are masqueraded.
        nat_outgoing: bool = true, Variable("CALICO_IPV4POOL_NAT_OUTGOING"), Used;
        /// The nodes that use it.
        node_selector: Selector = Selector::all(), Variable("CALICO_IPV4POOL_NODE_SELECTOR"), Used;
        /// Whether its blocks stay out of BGP.
        no_bgp_export: bool = false, Variable("CALICO_IPV4POOL_DISABLE_BGP_EXPORT"), Used;
    }
}

group! {
    /// The first IPv6 pool, made if IPv6 is supported and there is no IPv6 pool.
    Ipv6PoolSettings, "Start: the first IPv6 pool" {
        /// The pool's range; not set is kubeadm's `podSubnet`, then a random range of `fd00::/8`
        /// with 48 bits.
        cidr: Option<PoolSource> = None, Variable("CALICO_IPV6POOL_CIDR"), Used;
        /// The prefix length of its blocks.
        block_size: Number<116, 128> = Number::clamped(122),
            Variable("CALICO_IPV6POOL_BLOCK_SIZE"), Used;
        /// When packets travel in VXLAN.
        vxlan: EncapsulationMode = EncapsulationMode::Never, Variable("CALICO_IPV6POOL_VXLAN"), Used;
        /// Whether packets to the outside are masqueraded.
        nat_outgoing: bool = false, Variable("CALICO_IPV6POOL_NAT_OUTGOING"), Used;
        /// The nodes that use it.
        node_selector: Selector = Selector::all(), Variable("CALICO_IPV6POOL_NODE_SELECTOR"), Used;
        /// Whether its blocks stay out of BGP.
        no_bgp_export: bool = false, Variable("CALICO_IPV6POOL_DISABLE_BGP_EXPORT"), Used;
    }
}
