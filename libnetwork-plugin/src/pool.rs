//! Which pool a network's subnet is: one that exists, or one to be made.

use std::collections::BTreeMap;

use api::IpPoolSpec;
use model::net::{Cidr, Family};
use model::pool::{AssignmentMode, IpPool, Use};

use crate::error::Error;
use crate::shared;
use crate::wire::RequestPool;

/// What the pools of networks without a subnet are called in Docker, as in Calico's plugin.
pub(crate) const ANY: [(Family, &str); 2] =
    [(Family::V4, "CalicoPoolIPv4"), (Family::V6, "CalicoPoolIPv6")];

/// What a network's addresses come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PoolId {
    /// Any pool that selects this node.
    Any(Family),
    /// The pool of this range.
    Range(Cidr),
}

/// What is to be done for a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Nothing: pools are there.
    Any(Family),
    /// Nothing: the pool of that name is there.
    Existing(String),
    /// This one must be made.
    Make(Box<api::IpPool>),
}

impl PoolId {
    /// Reads what Docker keeps.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] for what we never gave it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if let Some((family, _)) = ANY.into_iter().find(|(_, id)| *id == text) {
            return Ok(Self::Any(family));
        }
        text.parse().map(Self::Range).map_err(|_| {
            Error::wrong(format!("`{text}` is no pool of calico-ipam: make the network anew"))
        })
    }

    /// Returns what Docker is to keep.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Range(cidr) => cidr.to_string(),
            Self::Any(family) => {
                let found = ANY.into_iter().find(|(known, _)| *known == family);
                found.map_or_else(String::new, |(_, id)| id.to_owned())
            }
        }
    }

    /// Returns the family.
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Any(family) => family,
            Self::Range(cidr) => cidr.family(),
        }
    }

    /// Returns the range that Docker is told: all there is, if it is any pool's.
    pub(crate) fn range(self) -> String {
        match self {
            Self::Range(cidr) => cidr.to_string(),
            Self::Any(family) => everything(family).to_owned(),
        }
    }
}

/// Returns the range with all addresses of a family; it stands for the gateway that we have not.
pub(crate) const fn everything(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    }
}

/// Decides what a network's addresses come from.
///
/// # Errors
///
/// [`Error`] for whoever makes the network.
pub(crate) fn decide(pools: &[IpPool], request: &RequestPool) -> Result<Decision, Error> {
    if !request.sub_pool.is_empty() {
        let text = "--ip-range is not supported by calico-ipam: leave it out, or make an IPPool of \
                    that range and use it as --subnet";
        return Err(Error::wrong(text));
    }
    let family = if request.is_v6 { Family::V6 } else { Family::V4 };
    if request.pool.is_empty() {
        if let Some(name) = request.options.keys().next() {
            return Err(unknown(name, "is only for a pool that --subnet makes"));
        }
        return any(pools, family);
    }
    let subnet: Cidr = request.pool.parse().map_err(|error| {
        Error::wrong(format!("--subnet {}: {error}; use a form such as 10.65.0.0/16", request.pool))
    })?;
    if let Some(pool) = pools.iter().find(|pool| pool.cidr == subnet) {
        check_same(pool, &request.options)?;
        return match obstacle(pool) {
            None => Ok(Decision::Existing(pool.name.clone())),
            Some(reason) => {
                Err(Error::Unusable { pool: pool.name.clone(), range: pool.cidr, reason })
            }
        };
    }
    if let Some(pool) = pools.iter().find(|pool| pool.cidr.overlaps(&subnet)) {
        return Err(Error::Overlap { subnet, pool: pool.name.clone(), range: pool.cidr });
    }
    made(subnet, &request.options).map(|pool| Decision::Make(Box::new(pool)))
}

fn any(pools: &[IpPool], family: Family) -> Result<Decision, Error> {
    let fits = |pool: &&IpPool| {
        let is_unasked = pool.assignment == AssignmentMode::Automatic;
        pool.family() == family && is_unasked && obstacle(pool).is_none()
    };
    if pools.iter().any(|pool| fits(&pool)) {
        return Ok(Decision::Any(family));
    }
    let text = format!(
        "there is no {family} IPPool that gives addresses unasked: name one by --subnet, or make one"
    );
    Err(Error::wrong(text))
}

/// Returns why no network may use the pool.
fn obstacle(pool: &IpPool) -> Option<&'static str> {
    if pool.is_disabled {
        return Some("is disabled: set its spec.disabled to false, or use another --subnet");
    }
    let is_allowed = pool.allowed_uses.allow(Use::Workload);
    (!is_allowed).then_some("is not for workloads: add Workload to its spec.allowedUses")
}

/// A network that is made on several hosts is made by the same command on each: the pool that the
/// first one has made must be what the others ask for.
fn check_same(pool: &IpPool, options: &BTreeMap<String, String>) -> Result<(), Error> {
    let wanted = IpPool::try_from(&made(pool.cidr, options)?)?;
    let differs = |name: &str| match name {
        "blockSize" => wanted.block_len != pool.block_len,
        "natOutgoing" => wanted.nat_outgoing != pool.nat_outgoing,
        _ => wanted.encapsulation != pool.encapsulation,
    };
    match options.iter().find(|(name, _)| differs(name)) {
        None => Ok(()),
        Some((name, value)) => {
            let why = format!("is not what IPPool {} says: leave it out", pool.name);
            Err(unknown(&format!("{name}={value}"), &why))
        }
    }
}

/// Returns the pool to be made.
///
/// Only who names it gets addresses of it: pods that are in the same cluster do not.
fn made(subnet: Cidr, options: &BTreeMap<String, String>) -> Result<api::IpPool, Error> {
    let (default, most) = match subnet.family() {
        Family::V4 => (26, 32),
        Family::V6 => (122, 128),
    };
    let mut spec = IpPoolSpec {
        cidr: subnet.to_string(),
        block_size: Some(i64::from(subnet.prefix_len().max(default).min(most))),
        nat_outgoing: Some(subnet.family() == Family::V4),
        ipip_mode: Some("Never".to_owned()),
        vxlan_mode: Some("Never".to_owned()),
        node_selector: Some("all()".to_owned()),
        allowed_uses: Some(vec!["Workload".to_owned()]),
        assignment_mode: Some("Manual".to_owned()),
        ..IpPoolSpec::default()
    };
    for (name, value) in options {
        let wrong = |what: &str| Error::wrong(format!("--ipam-opt {name}={value}: use {what}"));
        match name.as_str() {
            "blockSize" => {
                spec.block_size = Some(value.parse().map_err(|_| wrong("a prefix length"))?);
            }
            "natOutgoing" => {
                spec.nat_outgoing = Some(value.parse().map_err(|_| wrong("true or false"))?);
            }
            "ipipMode" => spec.ipip_mode = Some(value.clone()),
            "vxlanMode" => spec.vxlan_mode = Some(value.clone()),
            _ => {
                let known = "is unknown: use blockSize, natOutgoing, ipipMode or vxlanMode";
                return Err(unknown(name, known));
            }
        }
    }
    let mut object = api::IpPool::named(format!("docker-{}", subnet.object_name()), spec);
    shared::mark(&mut object.metadata);
    IpPool::try_from(&object)?;
    Ok(object)
}

fn unknown(name: &str, why: &str) -> Error {
    Error::wrong(format!("--ipam-opt {name} {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(name: &str, cidr: &str, change: &Value) -> IpPool {
        let mut object = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": {"cidr": cidr},
        });
        for (field, value) in change.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        IpPool::try_from(&api::IpPool::from_json(&object).unwrap()).unwrap()
    }

    fn pools() -> Vec<IpPool> {
        vec![
            pool("default", "10.244.0.0/16", &json!({})),
            pool("off", "10.1.0.0/16", &json!({"disabled": true})),
            pool("tunnels", "10.2.0.0/16", &json!({"allowedUses": ["Tunnel"]})),
            pool("asked", "fd00::/48", &json!({"assignmentMode": "Manual"})),
        ]
    }

    fn request(subnet: &str, is_v6: bool, options: &[(&str, &str)]) -> RequestPool {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let pool = subnet.to_owned();
        RequestPool { pool, is_v6, options: options.collect(), ..RequestPool::default() }
    }

    #[test]
    fn a_subnet_is_the_pool_of_that_range() {
        let decided = decide(&pools(), &request("10.244.0.0/16", false, &[])).unwrap();
        assert_eq!(decided, Decision::Existing("default".to_owned()));
        let same = [("blockSize", "26"), ("natOutgoing", "false"), ("ipipMode", "Never")];
        let decided = decide(&pools(), &request("10.244.0.0/16", false, &same)).unwrap();
        assert_eq!(decided, Decision::Existing("default".to_owned()));
        let decided = decide(&pools(), &request("fd00::/48", true, &[])).unwrap();
        assert_eq!(decided, Decision::Existing("asked".to_owned()));
        let decided = decide(&pools(), &request("", false, &[])).unwrap();
        assert_eq!(decided, Decision::Any(Family::V4));
    }

    #[test]
    fn another_subnet_becomes_a_pool_for_those_who_name_it() {
        let options = [("blockSize", "28"), ("natOutgoing", "false")];
        for (subnet, is_v6, options, size, nat) in [
            ("10.65.0.0/16", false, &[][..], 26, true),
            ("10.65.0.0/29", false, &[], 29, true),
            ("10.65.0.0/24", false, &options, 28, false),
            ("fd01::/64", true, &[], 122, false),
        ] {
            let Decision::Make(pool) = decide(&pools(), &request(subnet, is_v6, options)).unwrap()
            else {
                panic!("{subnet} is made");
            };
            assert_eq!(pool.spec.block_size, Some(size), "{subnet}");
            assert_eq!(pool.spec.nat_outgoing, Some(nat), "{subnet}");
            assert_eq!(pool.spec.assignment_mode.as_deref(), Some("Manual"));
            assert!(pool.name().starts_with("docker-"), "{}", pool.name());
        }
    }

    #[test]
    fn what_cannot_be_is_said_with_the_remedy() {
        let sub_pool = RequestPool { sub_pool: "10.0.0.0/24".into(), ..RequestPool::default() };
        for (request, expected) in [
            (sub_pool, "--ip-range is not supported"),
            (request("10.244.1.0/24", false, &[]), "overlaps IPPool default (10.244.0.0/16)"),
            (request("10.0.0.0/8", false, &[]), "overlaps IPPool"),
            (request("10.1.0.0/16", false, &[]), "IPPool off (10.1.0.0/16) is disabled"),
            (request("10.2.0.0/16", false, &[]), "is not for workloads"),
            (request("", true, &[]), "there is no IPv6 IPPool"),
            (request("10.65.0.0/33", false, &[]), "--subnet 10.65.0.0/33"),
            (request("10.65.0.0/16", false, &[("color", "red")]), "--ipam-opt color is unknown"),
            (request("10.65.0.0/16", false, &[("blockSize", "x")]), "use a prefix length"),
            (request("10.65.0.0/16", false, &[("blockSize", "8")]), "spec.blockSize"),
            (request("10.65.0.0/16", false, &[("ipipMode", "x")]), "spec.ipipMode"),
            (request("", false, &[("blockSize", "26")]), "only for a pool that --subnet makes"),
            (request("10.244.0.0/16", false, &[("blockSize", "28")]), "is not what IPPool default"),
        ] {
            let error = decide(&pools(), &request).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn pool_ids_are_read_as_they_were_given() {
        let range = PoolId::Range("10.65.0.0/16".parse().unwrap());
        for id in [PoolId::Any(Family::V4), PoolId::Any(Family::V6), range] {
            assert_eq!(PoolId::parse(&id.text()).unwrap(), id);
        }
        assert!(PoolId::parse("something").is_err());
    }
}
