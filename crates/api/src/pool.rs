//! `IPPool`: ranges of addresses to hand out.

use model::net::{Cidr, Family};
use model::pool::{AllowedUses, AssignmentMode, Encapsulation, EncapsulationScope};
use model::time::WallTime;
use model::vrf::{PoolVrf, VrfName};
use selector::Selector;

use crate::annotations::{VRF_ID, VRF_IMPORT, VRF_NAME};
use crate::invalid::Fault;
use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object};

/// A range of addresses to hand out.
pub type IpPool = Object<IpPoolSpec>;

wire! {
    /// The spec of an [`IpPool`]; absent fields have Calico's defaults.
    pub struct IpPoolSpec {
        /// The range.
        cidr: String = "cidr",
        /// `Never`, `Always` or `CrossSubnet`.
        ipip_mode: Option<String> = "ipipMode",
        /// `Never`, `Always` or `CrossSubnet`.
        vxlan_mode: Option<String> = "vxlanMode",
        /// Whether packets to the world outside the pools are masqueraded.
        nat_outgoing: Option<bool> = "natOutgoing",
        /// Whether new addresses are refused.
        disabled: Option<bool> = "disabled",
        /// Whether the pool stays out of BGP.
        disable_bgp_export: Option<bool> = "disableBGPExport",
        /// The prefix length of blocks: 20 to 32, or 116 to 128.
        block_size: Option<i64> = "blockSize",
        /// The nodes that may claim blocks.
        node_selector: Option<String> = "nodeSelector",
        /// The namespaces whose pods may have addresses.
        namespace_selector: Option<String> = "namespaceSelector",
        /// `Workload`, `Tunnel`, or `LoadBalancer` alone.
        allowed_uses: Option<Vec<String>> = "allowedUses",
        /// `Automatic` or `Manual`.
        assignment_mode: Option<String> = "assignmentMode",
    }
}

kind! { IpPoolSpec: "IPPool" "ippools" cluster ["ipp", "ipps", "pool", "pools"] }

impl TryFrom<&IpPool> for model::pool::IpPool {
    type Error = Invalid;

    fn try_from(object: &IpPool) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let cidr = cidr(object)?;
        let node_selector = selector(object, "spec.nodeSelector", spec.node_selector.as_deref())?;
        let namespaces = spec.namespace_selector.as_deref().filter(|text| !text.trim().is_empty());
        let namespace_selector = match namespaces {
            Some(text) => Some(selector(object, "spec.namespaceSelector", Some(text))?),
            None => None,
        };
        let encapsulation = encapsulation(object, cidr.family())?;
        let allowed_uses = allowed_uses(object)?;
        check_uses(object, allowed_uses, encapsulation)?;
        Ok(Self {
            name: object.name().to_owned(),
            cidr,
            block_len: block_len(object, cidr)?,
            encapsulation,
            nat_outgoing: spec.nat_outgoing.unwrap_or_default(),
            // One that is being deleted stays until its addresses are back, and gives no new ones.
            is_disabled: spec.disabled.unwrap_or_default()
                || object.metadata.deletion_timestamp.is_some(),
            is_bgp_export_disabled: spec.disable_bgp_export.unwrap_or_default(),
            node_selector,
            namespace_selector,
            allowed_uses,
            assignment: assignment(object)?,
            vrf: vrf(object, allowed_uses)?,
            created: created(object),
        })
    }
}

/// Returns when the server made a pool; one that it has not made yet is older than all.
fn created(object: &IpPool) -> WallTime {
    let time = object.metadata.creation_timestamp.as_ref();
    time.map(|time| WallTime(time.0.as_nanosecond())).unwrap_or_default()
}

/// Reads what a pool says of its VRF (ADR 9).
fn vrf(object: &IpPool, uses: AllowedUses) -> Result<Option<PoolVrf>, Invalid> {
    let wrong = |name: &str, value: &str, problem: &dyn ToString| {
        object.misannotated(Fault::new(name, value, problem.to_string()))
    };
    let Some(name) = object.annotation(VRF_NAME) else {
        return match [VRF_ID, VRF_IMPORT]
            .iter()
            .find_map(|key| Some((key, object.annotation(key)?)))
        {
            Some((key, value)) => {
                Err(wrong(key, &value, &format!("is of a VRF: say which by {VRF_NAME}")))
            }
            None => Ok(None),
        };
    };
    let id = object.annotation(VRF_ID).unwrap_or_default();
    if uses.load_balancer {
        let problem = "Services are everybody's; leave it away from pools for LoadBalancer";
        return Err(wrong(VRF_NAME, &name, &problem));
    }
    let imports = object.annotation(VRF_IMPORT).unwrap_or_default();
    let import = |text: &str| match text {
        VrfName::DEFAULT => Ok(None),
        other => other.parse().map(Some).map_err(|error| wrong(VRF_IMPORT, &imports, &error)),
    };
    let words = imports.split(',').map(str::trim).filter(|word| !word.is_empty() && *word != name);
    Ok(Some(PoolVrf {
        imports: words.map(import).collect::<Result<_, _>>()?,
        name: name.parse().map_err(|error| wrong(VRF_NAME, &name, &error))?,
        id: id.parse().map_err(|error| wrong(VRF_ID, &id, &error))?,
    }))
}

fn cidr(object: &IpPool) -> Result<Cidr, Invalid> {
    let text = &object.spec.cidr;
    let wrong = |problem: &dyn ToString| object.invalid("spec.cidr", text, problem.to_string());
    let cidr: Cidr = text.parse().map_err(|error| wrong(&error))?;
    let link_local: [Result<Cidr, _>; 2] = ["169.254.0.0/16".parse(), "fe80::/10".parse()];
    if link_local.into_iter().flatten().any(|range| range.overlaps(&cidr)) {
        return Err(wrong(&"overlaps the link-local range; use another"));
    }
    Ok(cidr)
}

fn block_len(object: &IpPool, cidr: Cidr) -> Result<u8, Invalid> {
    let (default, range) = match cidr.family() {
        Family::V4 => (26, 20..=32),
        Family::V6 => (122, 116..=128),
    };
    let given = object.spec.block_size.filter(|size| *size != 0).unwrap_or(default);
    let wrong = |problem: String| object.invalid("spec.blockSize", given, problem);
    let len = u8::try_from(given).ok().filter(|len| range.contains(len));
    let len = len.ok_or_else(|| {
        wrong(format!("use {} to {} for {}", range.start(), range.end(), cidr.family()))
    })?;
    if len < cidr.prefix_len() {
        return Err(wrong(format!(
            "a block would be larger than the pool {cidr}; use {} or more",
            cidr.prefix_len()
        )));
    }
    Ok(len)
}

fn selector(object: &IpPool, field: &str, text: Option<&str>) -> Result<Selector, Invalid> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|error: selector::InvalidSelector| object.invalid(field, text, error))
}

fn encapsulation(object: &IpPool, family: Family) -> Result<Encapsulation, Invalid> {
    let ipip = scope(object, "spec.ipipMode", object.spec.ipip_mode.as_deref())?;
    let vxlan = scope(object, "spec.vxlanMode", object.spec.vxlan_mode.as_deref())?;
    let given = object.spec.ipip_mode.clone().unwrap_or_default();
    match (ipip, vxlan) {
        (None, None) => Ok(Encapsulation::None),
        (None, Some(scope)) => Ok(Encapsulation::Vxlan(scope)),
        (Some(scope), None) if family == Family::V4 => Ok(Encapsulation::Ipip(scope)),
        (Some(_), None) => {
            let problem = "IP-in-IP carries IPv4 only; use Never, or vxlanMode";
            Err(object.invalid("spec.ipipMode", given, problem))
        }
        (Some(_), Some(_)) => {
            let problem = "ipipMode and vxlanMode exclude each other; set one of them to Never";
            Err(object.invalid("spec.ipipMode", given, problem))
        }
    }
}

fn scope(
    object: &IpPool,
    field: &str,
    mode: Option<&str>,
) -> Result<Option<EncapsulationScope>, Invalid> {
    match mode.unwrap_or("Never") {
        "" | "Never" => Ok(None),
        "Always" => Ok(Some(EncapsulationScope::Always)),
        "CrossSubnet" => Ok(Some(EncapsulationScope::CrossSubnet)),
        other => Err(object.invalid(field, other, "use Never, Always or CrossSubnet")),
    }
}

fn allowed_uses(object: &IpPool) -> Result<AllowedUses, Invalid> {
    let Some(names) = object.spec.allowed_uses.as_ref().filter(|names| !names.is_empty()) else {
        return Ok(AllowedUses::default());
    };
    let mut uses = AllowedUses { workload: false, tunnel: false, load_balancer: false };
    for name in names {
        match name.as_str() {
            "Workload" => uses.workload = true,
            "Tunnel" => uses.tunnel = true,
            "LoadBalancer" => uses.load_balancer = true,
            other => {
                let problem = "use Workload, Tunnel or LoadBalancer";
                return Err(object.invalid("spec.allowedUses", other, problem));
            }
        }
    }
    Ok(uses)
}

/// Refuses what the uses and the rest of the pool say against each other.
fn check_uses(
    object: &IpPool,
    uses: AllowedUses,
    encapsulation: Encapsulation,
) -> Result<(), Invalid> {
    let names = object.spec.allowed_uses.clone().unwrap_or_default().join(", ");
    let wrong = |problem: &str| Err(object.invalid("spec.allowedUses", &names, problem));
    let has_namespaces = object.spec.namespace_selector.as_deref().is_some_and(|s| !s.is_empty());
    if uses.load_balancer && (uses.workload || uses.tunnel) {
        return wrong("LoadBalancer excludes other uses; make a pool of its own for it");
    }
    if uses.load_balancer && encapsulation != Encapsulation::None {
        return wrong(
            "a LoadBalancer pool has no encapsulation; set ipipMode and vxlanMode to Never",
        );
    }
    let nodes = object.spec.node_selector.as_deref().unwrap_or_default();
    if uses.load_balancer && !nodes.is_empty() && nodes != "all()" {
        return wrong("a LoadBalancer pool belongs to no node; set nodeSelector to all()");
    }
    if uses.tunnel && has_namespaces && object.spec.allowed_uses.is_some() {
        return wrong("tunnels have no namespace; leave Tunnel out, or the namespaceSelector");
    }
    Ok(())
}

fn assignment(object: &IpPool) -> Result<AssignmentMode, Invalid> {
    match object.spec.assignment_mode.as_deref().unwrap_or_default() {
        "" | "Automatic" => Ok(AssignmentMode::Automatic),
        "Manual" => Ok(AssignmentMode::Manual),
        other => Err(object.invalid("spec.assignmentMode", other, "use Automatic or Manual")),
    }
}
