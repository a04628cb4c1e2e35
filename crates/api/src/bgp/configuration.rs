//! `BGPConfiguration`: how the cluster, or one node, speaks BGP.

use std::net::IpAddr;

use model::net::{Asn, Cidr, Family};
use model::peer::{
    AdvertisedServices, BgpConfiguration as Configuration, BgpNodeConfiguration, BindMode,
    PrefixAdvertisement, RoutePriority, SecretKey,
};
use serde_json::Value;

use super::{asn, community};
use crate::invalid::{Fault, parse, within, word};
use crate::object::kind;
use crate::time::duration;
use crate::wire::wire;
use crate::{Invalid, Object};

/// How the cluster (`default`), or one node (`node.<name>`), speaks BGP.
pub type BgpConfiguration = Object<BgpConfigurationSpec>;

wire! {
    /// The spec of a [`BgpConfiguration`]; absent fields have Calico's defaults.
    pub struct BgpConfigurationSpec {
        /// From which severity on the speaker logs: `Info`.
        log_severity_screen: Option<String> = "logSeverityScreen",
        /// Whether every node peers with every other.
        node_to_node_mesh_enabled: Option<bool> = "nodeToNodeMeshEnabled",
        /// The AS of nodes that name none: a number, or text such as `1.10`.
        as_number: Option<Value> = "asNumber",
        /// The TCP port to listen on.
        listen_port: Option<i64> = "listenPort",
        /// Where to listen: `None` on all addresses, `NodeIP` on the node's.
        bind_mode: Option<String> = "bindMode",
        /// How long mesh peers keep the routes of a node that is away: `120s`.
        node_mesh_max_restart_time: Option<String> = "nodeMeshMaxRestartTime",
        /// The password of mesh sessions.
        node_mesh_password: Option<PasswordSpec> = "nodeMeshPassword",
        /// Names for communities.
        communities: Option<Vec<NamedCommunity>> = "communities",
        /// Ranges with the communities of routes in them.
        prefix_advertisements: Option<Vec<PrefixAdvertisementSpec>> = "prefixAdvertisements",
        /// Ranges of addresses of load balancers that are announced.
        service_load_balancer_ips: Option<Vec<CidrEntry>> = "serviceLoadBalancerIPs",
        /// Ranges of external addresses of Services that are announced.
        service_external_ips: Option<Vec<CidrEntry>> = "serviceExternalIPs",
        /// Ranges of cluster addresses of Services that are announced.
        service_cluster_ips: Option<Vec<CidrEntry>> = "serviceClusterIPs",
        /// Whether load balancers' ranges are announced whole: `Enabled` or `Disabled`.
        service_load_balancer_aggregation: Option<String> = "serviceLoadBalancerAggregation",
        /// Interfaces whose networks are not announced; `*` stands for any text.
        ignored_interfaces: Option<Vec<String>> = "ignoredInterfaces",
        /// The IPv4 address that local workloads peer with.
        local_workload_peering_ip_v4: Option<String> = "localWorkloadPeeringIPV4",
        /// The IPv6 address that local workloads peer with.
        local_workload_peering_ip_v6: Option<String> = "localWorkloadPeeringIPV6",
        /// Which routes to other nodes' blocks BGP writes.
        program_cluster_routes: Option<String> = "programClusterRoutes",
        /// The metric of usual IPv4 routes.
        ipv4_normal_route_priority: Option<i64> = "ipv4NormalRoutePriority",
        /// The metric of usual IPv6 routes.
        ipv6_normal_route_priority: Option<i64> = "ipv6NormalRoutePriority",
    }

    /// A name for a community.
    pub struct NamedCommunity {
        /// The name.
        name: Option<String> = "name",
        /// `aa:nn` or `aa:nn:mm`.
        value: Option<String> = "value",
    }

    /// Communities for the routes of one range.
    pub struct PrefixAdvertisementSpec {
        /// The range.
        cidr: Option<String> = "cidr",
        /// Names, or values as they are.
        communities: Option<Vec<String>> = "communities",
    }

    /// A range.
    pub struct CidrEntry {
        /// The range.
        cidr: String = "cidr",
    }

    /// Where a password is.
    pub struct PasswordSpec {
        /// The key of a Secret.
        secret_key_ref: Option<SecretKeySpec> = "secretKeyRef",
    }

    /// A key of a Secret.
    pub struct SecretKeySpec {
        /// The Secret.
        name: Option<String> = "name",
        /// The key in it.
        key: String = "key",
        /// Whether it may be absent.
        optional: Option<bool> = "optional",
    }
}

kind! {
    BgpConfigurationSpec: "BGPConfiguration" "bgpconfigurations" cluster
    ["bgpconfig", "bgpconfigs"]
}

impl TryFrom<&BgpConfiguration> for Configuration {
    type Error = Invalid;

    fn try_from(object: &BgpConfiguration) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let read = || {
            check(object.name(), spec)?;
            let restart = spec.node_mesh_max_restart_time.as_deref();
            let port = within("listenPort", spec.listen_port, 1..=u16::MAX)?;
            Ok(Self {
                is_mesh_enabled: spec.node_to_node_mesh_enabled.unwrap_or(true),
                asn: asn("asNumber", spec.as_number.as_ref())?.unwrap_or(Asn::DEFAULT),
                listen_port: port.unwrap_or(Self::DEFAULT_PORT),
                mesh_max_restart_time: duration("nodeMeshMaxRestartTime", restart)?,
                prefix_advertisements: prefix_advertisements(spec)?,
                bind: bind(spec)?.unwrap_or_default(),
                mesh_password: password("nodeMeshPassword", spec.node_mesh_password.as_ref())?,
                services: services(spec)?,
                workload_peering_addrs: workload_peering_addrs(spec)?,
                normal_priority: normal_priority(spec)?,
            })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

/// Reads what can be read of the cluster's configuration, and says what cannot.
///
/// Were the whole object refused for one field, the mesh would go on with Calico's defaults,
/// without the password that the object asks for. Without a readable password there is no mesh.
#[must_use]
pub fn configuration(object: &BgpConfiguration) -> (Configuration, Vec<Invalid>) {
    let mut faults: Vec<Invalid> = Vec::new();
    let mut rest = object.clone();
    loop {
        let fault = match Configuration::try_from(&rest) {
            Ok(read) => {
                let is_open = faults.iter().any(|fault| top_field(fault) == "nodeMeshPassword");
                let is_mesh_enabled = read.is_mesh_enabled && !is_open;
                return (Configuration { is_mesh_enabled, ..read }, faults);
            }
            Err(fault) => fault,
        };
        let without = forget(&rest.spec, top_field(&fault));
        faults.push(fault);
        let Some(spec) = without else {
            return (Configuration { is_mesh_enabled: false, ..Configuration::default() }, faults);
        };
        rest.spec = spec;
    }
}

/// Returns the field of the spec that a fault is in.
fn top_field(fault: &Invalid) -> &str {
    let path = fault.field.strip_prefix("spec.").unwrap_or(&fault.field);
    path.split(['.', '[']).next().unwrap_or_default()
}

/// Returns a spec without one field; `None` if that would be no other spec.
fn forget(spec: &BgpConfigurationSpec, field: &str) -> Option<BgpConfigurationSpec> {
    let mut json = serde_json::to_value(spec).ok()?;
    json.as_object_mut()?.remove(field)?;
    serde_json::from_value(json).ok()
}

impl TryFrom<&BgpConfiguration> for BgpNodeConfiguration {
    type Error = Invalid;

    fn try_from(object: &BgpConfiguration) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let read = || {
            check(object.name(), spec)?;
            Ok(Self {
                listen_port: within("listenPort", spec.listen_port, 1..=u16::MAX)?,
                bind: bind(spec)?,
                prefix_advertisements: prefix_advertisements(spec)?,
            })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

fn bind(spec: &BgpConfigurationSpec) -> Result<Option<BindMode>, Fault> {
    let modes = [("None", Some(BindMode::All)), ("NodeIP", Some(BindMode::NodeAddr))];
    word("bindMode", spec.bind_mode.as_deref(), &modes, None)
}

fn services(spec: &BgpConfigurationSpec) -> Result<AdvertisedServices, Fault> {
    let switch = [("Enabled", true), ("Disabled", false)];
    let aggregation = spec.service_load_balancer_aggregation.as_deref();
    let external = spec.service_external_ips.as_ref();
    let load_balancer = spec.service_load_balancer_ips.as_ref();
    Ok(AdvertisedServices {
        cluster: ranges("serviceClusterIPs", spec.service_cluster_ips.as_ref())?,
        external: ranges("serviceExternalIPs", external)?,
        load_balancer: ranges("serviceLoadBalancerIPs", load_balancer)?,
        is_aggregated: word("serviceLoadBalancerAggregation", aggregation, &switch, true)?,
    })
}

fn ranges(field: &str, ranges: Option<&Vec<CidrEntry>>) -> Result<Vec<Cidr>, Fault> {
    let read =
        |(index, range): (usize, &CidrEntry)| parse(&format!("{field}[{index}].cidr"), &range.cidr);
    ranges.into_iter().flatten().enumerate().map(read).collect()
}

fn workload_peering_addrs(spec: &BgpConfigurationSpec) -> Result<Vec<IpAddr>, Fault> {
    let mut addrs = Vec::new();
    for (field, addr, family) in [
        ("localWorkloadPeeringIPV4", &spec.local_workload_peering_ip_v4, Family::V4),
        ("localWorkloadPeeringIPV6", &spec.local_workload_peering_ip_v6, Family::V6),
    ] {
        let Some(text) = addr.as_deref().filter(|text| !text.is_empty()) else { continue };
        let addr = crate::invalid::addr(field, text)?;
        if Family::of(addr) != family {
            return Err(Fault::new(field, text, format!("is no {family} address: use one")));
        }
        addrs.push(addr);
    }
    Ok(addrs)
}

/// Checks what the model has no place for yet.
fn check(name: &str, spec: &BgpConfigurationSpec) -> Result<(), Fault> {
    if name != "default" {
        refuse_cluster_wide(spec)?;
    }
    severity("logSeverityScreen", spec.log_severity_screen.as_deref())?;
    let routes = [("Enabled", ()), ("Disabled", ()), ("EnabledNoEncapOnly", ())];
    word("programClusterRoutes", spec.program_cluster_routes.as_deref(), &routes, ())?;
    normal_priority(spec).map(drop)
}

fn normal_priority(spec: &BgpConfigurationSpec) -> Result<RoutePriority, Fault> {
    let read = |field, metric, default| {
        within(field, metric, 1..=2_147_483_646).map(|found| found.unwrap_or(default))
    };
    let RoutePriority { v4, v6 } = RoutePriority::NORMAL;
    Ok(RoutePriority {
        v4: read("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority, v4)?,
        v6: read("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority, v6)?,
    })
}

/// Refuses in a node's object what only the cluster's may say.
fn refuse_cluster_wide(spec: &BgpConfigurationSpec) -> Result<(), Fault> {
    let fields = [
        ("nodeToNodeMeshEnabled", spec.node_to_node_mesh_enabled.is_some()),
        ("asNumber", spec.as_number.is_some()),
        ("serviceLoadBalancerIPs", spec.service_load_balancer_ips.is_some()),
        ("serviceExternalIPs", spec.service_external_ips.is_some()),
        ("serviceClusterIPs", spec.service_cluster_ips.is_some()),
        ("nodeMeshPassword", spec.node_mesh_password.is_some()),
        ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.is_some()),
    ];
    match fields.iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => {
            let problem = "is for the whole cluster: set it in the object named default";
            Err(Fault::new(*field, "", problem))
        }
        None => Ok(()),
    }
}

/// Checks the name of a severity.
pub(crate) fn severity(field: &str, text: Option<&str>) -> Result<(), Fault> {
    let names = ["Trace", "Debug", "Info", "Warning", "Error", "Fatal", "Panic", "None"];
    word(field, text, &names.map(|name| (name, ())), ())
}

/// Returns where a password is.
pub(super) fn password(
    field: &str,
    password: Option<&PasswordSpec>,
) -> Result<Option<SecretKey>, Fault> {
    let Some(password) = password else { return Ok(None) };
    let place = password.secret_key_ref.as_ref().and_then(|place| {
        let secret = place.name.clone().filter(|name| !name.is_empty())?;
        (!place.key.is_empty()).then(|| SecretKey { secret, key: place.key.clone() })
    });
    let problem = "name and key are needed: say which key of which Secret";
    place.map(Some).ok_or_else(|| Fault::new(format!("{field}.secretKeyRef"), "", problem))
}

fn prefix_advertisements(spec: &BgpConfigurationSpec) -> Result<Vec<PrefixAdvertisement>, Fault> {
    let names = spec.communities.as_deref().unwrap_or_default();
    for (index, named) in names.iter().enumerate() {
        let value = named.value.as_deref().unwrap_or_default();
        if community(value).is_none() {
            let problem = "is no community: use aa:nn or aa:nn:mm";
            return Err(Fault::new(format!("communities[{index}].value"), value, problem));
        }
    }
    let resolve = |text: &String| {
        let value = names.iter().find(|named| named.name.as_ref() == Some(text));
        let value = value.and_then(|named| named.value.as_ref()).unwrap_or(text);
        community(value).ok_or_else(|| {
            let problem = "is no community: use aa:nn, aa:nn:mm, or a name of spec.communities";
            Fault::new("communities", text, problem)
        })
    };
    let read = |(index, wire): (usize, &PrefixAdvertisementSpec)| {
        let read = || {
            let cidr = parse("cidr", wire.cidr.as_deref().unwrap_or_default())?;
            let communities = wire.communities.iter().flatten().map(resolve);
            Ok(PrefixAdvertisement { cidr, communities: communities.collect::<Result<_, _>>()? })
        };
        read().map_err(|fault: Fault| fault.under(format!("prefixAdvertisements[{index}]")))
    };
    spec.prefix_advertisements.iter().flatten().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &Value) -> (Configuration, Vec<String>) {
        let object = json!({
            "apiVersion": crate::API_VERSION, "kind": "BGPConfiguration",
            "metadata": {"name": "default"}, "spec": spec,
        });
        let (read, faults) = configuration(&BgpConfiguration::from_json(&object).unwrap());
        (read, faults.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn one_field_that_cannot_be_read_opens_no_mesh_without_its_password() {
        let key = json!({"secretKeyRef": {"name": "bgp", "key": "mesh"}});
        let (found, faults) = read(&json!({
            "asNumber": 65001, "listenPort": 0, "nodeMeshPassword": key,
            "serviceClusterIPs": [{"cidr": "10.96.0.0/99"}],
        }));
        assert_eq!(faults, ["spec.listenPort", "spec.serviceClusterIPs[0].cidr"]);
        assert_eq!((found.asn, found.listen_port), (Asn(65_001), Configuration::DEFAULT_PORT));
        assert!(found.is_mesh_enabled && found.mesh_password.is_some());
    }

    #[test]
    fn a_mesh_whose_password_cannot_be_read_is_off() {
        let key = json!({"secretKeyRef": {"name": "", "key": "mesh"}});
        let (found, faults) = read(&json!({"nodeMeshPassword": key, "asNumber": 65001}));
        assert_eq!(faults, ["spec.nodeMeshPassword.secretKeyRef"]);
        assert!(!found.is_mesh_enabled && found.asn == Asn(65_001));
    }

    #[test]
    fn what_can_be_read_is_as_it_is_written() {
        let (found, faults) = read(&json!({"nodeToNodeMeshEnabled": false}));
        assert!(!found.is_mesh_enabled && faults.is_empty());
    }
}
