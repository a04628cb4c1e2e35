//! What a pod asks for by annotation, and what the delegate is told of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::annotations::{
    FLOATING_IPS, HW_ADDR, IP_ADDRS, IP_ADDRS_NO_IPAM, IP_FAMILIES, IPV4_POOLS, IPV6_POOLS,
    VRF_NAME,
};
use cni::config::{FeatureControl, unicast_mac};
use cni::{Error, ErrorCode};
use model::id::NodeName;
use model::net::{Family, MacAddr};
use model::vrf::{InvalidVrfName, VrfName};
use serde_json::{Map, Value, json};

/// The plugin that knows of VRFs.
const CALICO_IPAM: &str = "calico-ipam";

type Annotations = BTreeMap<String, String>;

/// What the annotations of a pod and its namespace ask for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wishes {
    /// `hwAddr`: the Ethernet address inside the container.
    pub(crate) mac: Option<MacAddr>,
    /// `ipAddrs`: addresses from our pools.
    pub(crate) addrs: Vec<IpAddr>,
    /// `ipAddrsNoIpam`: addresses that no IPAM plugin knows.
    pub(crate) addrs_without_ipam: Vec<IpAddr>,
    /// `ipv4pools`: names or CIDRs; `None` leaves it to the configuration.
    pub(crate) ipv4_pools: Option<Vec<String>>,
    /// `ipv6pools`.
    pub(crate) ipv6_pools: Option<Vec<String>>,
    /// `ipFamilies`; `None` leaves it to the configuration.
    pub(crate) families: Option<Vec<Family>>,
    /// `vrf.projectcalico.org/name` of the namespace; a pod's own counts for nothing.
    pub(crate) vrf: Option<VrfName>,
    /// Annotations that are not followed, each with the reason.
    pub(crate) ignored: Vec<String>,
}

impl Wishes {
    /// Reads the annotations; those of the pod go before those of its namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] that names the annotation.
    pub(crate) fn read(
        pod: &Annotations,
        namespace: &Annotations,
        features: FeatureControl,
    ) -> Result<Self, Error> {
        let either = |name| match list(pod, name)? {
            None => list(namespace, name),
            found => Ok(found),
        };
        let mut wishes = Self {
            mac: mac(pod)?,
            addrs: addrs(pod, IP_ADDRS)?,
            ipv4_pools: either(IPV4_POOLS)?,
            ipv6_pools: either(IPV6_POOLS)?,
            vrf: vrf(namespace)?,
            families: either(IP_FAMILIES)?.map(|list| families(&list)).transpose()?,
            ..Self::default()
        };
        wishes.read_guarded(pod, features)?;
        let are_both = !wishes.addrs.is_empty() && !wishes.addrs_without_ipam.is_empty();
        if are_both {
            return Err(wrong(IP_ADDRS_NO_IPAM, "together with ipAddrs", "keep one of the two"));
        }
        if let (Some(vrf), Some(addr)) = (&wishes.vrf, wishes.addrs_without_ipam.first()) {
            let remedy = format!("the namespace is of VRF {vrf}, so use ipAddrs, from its pools");
            return Err(wrong(IP_ADDRS_NO_IPAM, &addr.to_string(), &remedy));
        }
        Ok(wishes)
    }

    /// Reads what a pod may ask for only if the administrator allows it (CVE-2022-28224).
    fn read_guarded(&mut self, pod: &Annotations, features: FeatureControl) -> Result<(), Error> {
        if features.allows_addrs_without_ipam {
            self.addrs_without_ipam = addrs(pod, IP_ADDRS_NO_IPAM)?;
        } else if get(pod, IP_ADDRS_NO_IPAM).is_some() {
            self.ignored.push(off(IP_ADDRS_NO_IPAM, "ip_addrs_no_ipam"));
        }
        match (get(pod, FLOATING_IPS), features.allows_floating_ips) {
            (None, _) => {}
            // calico-node would follow it, so that it must not be passed over.
            (Some(text), false) => {
                let remedy = "feature_control.floating_ips of the network configuration is off: \
                              switch it on, or remove the annotation";
                return Err(wrong(FLOATING_IPS, text, remedy));
            }
            // calico-node translates them.
            (Some(text), true) => {
                let addrs: Vec<String> = list(pod, FLOATING_IPS)?.unwrap_or_default();
                if addrs.iter().any(|addr| addr.parse::<IpAddr>().is_err()) {
                    return Err(wrong(FLOATING_IPS, text, "use addresses"));
                }
            }
        }
        Ok(())
    }

    /// Returns the configuration for the delegate: all of `raw`, and what is wished for.
    pub(crate) fn delegate_config(
        &self,
        raw: &Map<String, Value>,
        node: &NodeName,
        pod_cidrs: &[String],
    ) -> Result<Value, Error> {
        let mut object = raw.clone();
        object.insert("nodename".into(), json!(node.as_str()));
        let Some(ipam) = object.get_mut("ipam").and_then(Value::as_object_mut) else {
            return Ok(Value::Object(object));
        };
        // Only the namespace says it.
        ipam.remove("vrf");
        if let Some(vrf) = &self.vrf {
            let plugin = ipam.get("type").and_then(Value::as_str).unwrap_or_default();
            if plugin != CALICO_IPAM {
                let message = format!(
                    "the namespace is of VRF {vrf}, whose addresses only {CALICO_IPAM} gives out, \
                     and ipam.type is {plugin}: set it to {CALICO_IPAM}"
                );
                return Err(Error::new(ErrorCode::InvalidConfig, message));
            }
            ipam.insert("vrf".into(), json!(vrf.as_str()));
        }
        if let Some(pools) = &self.ipv4_pools {
            ipam.insert("ipv4_pools".into(), json!(pools));
        }
        if let Some(pools) = &self.ipv6_pools {
            ipam.insert("ipv6_pools".into(), json!(pools));
        }
        if let Some(families) = self.wanted_families() {
            // Calico writes these as texts; both plugins read either form.
            let is_wanted = |family| families.contains(&family).to_string();
            ipam.insert("assign_ipv4".into(), json!(is_wanted(Family::V4)));
            ipam.insert("assign_ipv6".into(), json!(is_wanted(Family::V6)));
        }
        replace_pod_cidrs(ipam, pod_cidrs)?;
        if !self.addrs.is_empty() {
            let args = object.entry("args").or_insert_with(|| json!({}));
            if let Some(args) = args.as_object_mut() {
                let cni = args.entry("cni").or_insert_with(|| json!({}));
                if let Some(cni) = cni.as_object_mut() {
                    cni.insert("ips".into(), json!(self.addrs));
                }
            }
        }
        Ok(Value::Object(object))
    }

    /// Returns the families that the pod decides on itself, if it does.
    fn wanted_families(&self) -> Option<Vec<Family>> {
        if self.addrs.is_empty() {
            return self.families.clone();
        }
        Some(self.addrs.iter().map(|addr| Family::of(*addr)).collect())
    }
}

/// Does the delegate's configuration need this node's pod CIDRs?
pub(crate) fn needs_pod_cidrs(raw: &Map<String, Value>) -> bool {
    let mut ipam = raw.get("ipam").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut is_needed = false;
    for subnet in subnets(&mut ipam) {
        is_needed |= pod_cidr_family(subnet).is_some();
    }
    is_needed
}

/// Returns the configuration for a delegate that gives nothing out: all of `raw`.
///
/// The node's CIDRs are not read for that; host-local only wants something that
/// it can parse, and finds addresses by container.
pub(crate) fn delegate_config_to_release(raw: &Map<String, Value>) -> Value {
    let mut object = raw.clone();
    if let Some(ipam) = object.get_mut("ipam").and_then(Value::as_object_mut) {
        for subnet in subnets(ipam) {
            match pod_cidr_family(subnet) {
                Some(Family::V4) => *subnet = json!("0.0.0.0/0"),
                Some(Family::V6) => *subnet = json!("::/0"),
                None => {}
            }
        }
    }
    Value::Object(object)
}

/// Puts the node's CIDRs where `usePodCidr` and `usePodCidrIPv6` stand.
fn replace_pod_cidrs(ipam: &mut Map<String, Value>, pod_cidrs: &[String]) -> Result<(), Error> {
    for subnet in subnets(ipam) {
        let Some(family) = pod_cidr_family(subnet) else { continue };
        let is_it = |text: &&String| text.contains(':') == (family == Family::V6);
        let found = pod_cidrs.iter().find(is_it).ok_or_else(|| {
            let message = format!(
                "ipam.subnet is {subnet}, but this node has no {family} podCIDR: \
                 run kube-controller-manager with --allocate-node-cidrs"
            );
            Error::new(ErrorCode::TryAgainLater, message)
        })?;
        *subnet = json!(found);
    }
    Ok(())
}

/// Returns every place where host-local takes a subnet.
fn subnets(ipam: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut found = Vec::new();
    for (key, value) in ipam.iter_mut() {
        match (key.as_str(), value) {
            ("subnet", value) => found.push(value),
            ("ranges", Value::Array(sets)) => {
                let ranges = sets.iter_mut().filter_map(Value::as_array_mut).flatten();
                found.extend(ranges.filter_map(|range| range.get_mut("subnet")));
            }
            _ => {}
        }
    }
    found
}

fn pod_cidr_family(subnet: &Value) -> Option<Family> {
    match subnet.as_str()?.to_lowercase().as_str() {
        "usepodcidr" => Some(Family::V4),
        "usepodcidripv6" => Some(Family::V6),
        _ => None,
    }
}

fn get<'a>(annotations: &'a Annotations, name: &str) -> Option<&'a str> {
    let value = annotations.get(name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// Reads an annotation that holds a JSON list of texts.
fn list(annotations: &Annotations, name: &str) -> Result<Option<Vec<String>>, Error> {
    let Some(text) = get(annotations, name) else { return Ok(None) };
    let list = serde_json::from_str(text);
    list.map(Some).map_err(|_| wrong(name, text, "use a JSON list of texts such as [\"a\"]"))
}

/// Reads a list of addresses, at most one of each family.
fn addrs(annotations: &Annotations, name: &str) -> Result<Vec<IpAddr>, Error> {
    let texts = list(annotations, name)?.unwrap_or_default();
    let addr = |text: &String| text.parse().ok();
    let addrs: Option<Vec<IpAddr>> = texts.iter().map(addr).collect();
    let addrs = addrs.ok_or_else(|| wrong(name, &texts.join(", "), "use addresses"))?;
    for family in Family::ALL {
        if addrs.iter().filter(|addr| Family::of(**addr) == family).count() > 1 {
            let remedy = "use at most one address of each family";
            return Err(wrong(name, &texts.join(", "), remedy));
        }
    }
    Ok(addrs)
}

fn families(list: &[String]) -> Result<Vec<Family>, Error> {
    let family = |text: &String| match text.to_lowercase().as_str() {
        "ipv4" => Some(Family::V4),
        "ipv6" => Some(Family::V6),
        _ => None,
    };
    let families: Option<Vec<_>> = list.iter().map(family).collect();
    let families = families.filter(|families| !families.is_empty());
    families.ok_or_else(|| wrong(IP_FAMILIES, &list.join(", "), "use IPv4, IPv6 or both"))
}

fn vrf(namespace: &Annotations) -> Result<Option<VrfName>, Error> {
    let Some(text) = get(namespace, VRF_NAME) else { return Ok(None) };
    let name: Result<VrfName, InvalidVrfName> = text.parse();
    name.map(Some).map_err(|error| wrong(VRF_NAME, text, &error.to_string()))
}

fn mac(pod: &Annotations) -> Result<Option<MacAddr>, Error> {
    let Some(text) = get(pod, HW_ADDR) else { return Ok(None) };
    unicast_mac(text)
        .map(Some)
        .ok_or_else(|| wrong(HW_ADDR, text, "use an address such as 02:00:00:00:00:01"))
}

fn wrong(name: &str, value: &str, remedy: &str) -> Error {
    let message = format!("annotation `{name}` is `{value}`: {remedy}");
    Error::new(ErrorCode::InvalidConfig, message)
}

fn off(name: &str, feature: &str) -> String {
    format!("annotation `{name}` is ignored: feature_control.{feature} is off")
}

#[cfg(test)]
mod tests;
