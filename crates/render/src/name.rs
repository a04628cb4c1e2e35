//! The names of chains and sets.

use model::desired::policy::{Direction, SetId, SetKind};
use model::net::Family;
use model::policy::PolicyId;
use model::vrf::Zone;
use sha2::{Digest, Sha256};

/// Which way a packet goes, seen from an endpoint.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Toward {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl Toward {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Ingress => 'i',
            Self::Egress => 'o',
        }
    }
}

/// The most bytes that the kernel takes, less the zero at the end.
const MAX_LEN: usize = 255;

/// Returns the chain with a policy's rules for endpoints of a zone.
pub(crate) fn policy(id: &PolicyId, toward: Toward, zone: Zone) -> String {
    limited(format!("cali-p{}-{id}{}", toward.letter(), zone.suffix()))
}

/// Returns the chain with a profile's rules for endpoints of a zone.
pub(crate) fn profile(name: &str, toward: Toward, zone: Zone) -> String {
    limited(format!("cali-pr{}-{name}{}", toward.letter(), zone.suffix()))
}

/// Returns the chain of all endpoints with this path; `prefix` tells its uses apart.
pub(crate) fn path(prefix: &str, direction: &Direction) -> String {
    let mut hash = Sha256::new();
    for tier in &direction.tiers {
        hash.update(format!("tier {} {:?}\n", tier.tier, tier.default_action));
        for id in &tier.policies {
            hash.update(format!("policy {id}\n"));
        }
    }
    for profile in &direction.profiles {
        hash.update(format!("profile {profile}\n"));
    }
    hash.update(direction.zone.suffix());
    format!("{prefix}{}", short(hash))
}

/// Returns the set with the addresses of `id`, as Calico calls it.
pub(crate) fn addrs(id: SetId, family: Family) -> String {
    format!("cali{}0{id}", family.number())
}

/// Returns the set that holds many of `kind`.
pub(crate) fn shared(kind: SetKind, family: Family) -> String {
    let what = match kind {
        SetKind::ServiceAddrs => "services",
        SetKind::Selected | SetKind::ServicePorts | SetKind::NamedPort => "selectors",
    };
    format!("cali{}-members-{what}", family.number())
}

/// Returns the set with the networks of `id`.
pub(crate) fn nets(id: SetId, family: Family) -> String {
    format!("cali{}0{id}-net", family.number())
}

/// Returns the set with members that rules themselves name.
pub(crate) fn literal(kind: &str, members: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(members);
    format!("cali-{kind}-{}", short(hash))
}

/// Shortens a name that the kernel would not take.
fn limited(name: String) -> String {
    if name.len() <= MAX_LEN && name.chars().all(is_allowed) {
        return name;
    }
    let mut hash = Sha256::new();
    hash.update(&name);
    let readable: String = name.chars().filter(|c| is_allowed(*c)).take(200).collect();
    format!("{readable}_{}", short(hash))
}

/// Does nft(8) take it in names?
const fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.')
}

/// Returns 64 bits of a hash in hexadecimal.
fn short(hash: Sha256) -> String {
    let bits =
        hash.finalize().iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    format!("{bits:016x}")
}

#[cfg(test)]
mod tests {
    use model::policy::PolicyKind;

    use super::*;

    #[test]
    fn policies_are_named_as_people_know_them() {
        let id = |name: &str| PolicyId {
            kind: PolicyKind::Kubernetes,
            namespace: Some("default".to_owned()),
            name: name.to_owned(),
        };
        assert_eq!(
            policy(&id("allow-dns"), Toward::Ingress, Zone::Default),
            "cali-pi-knp/default/allow-dns"
        );
        let long = policy(&id(&"a".repeat(253)), Toward::Egress, Zone::Default);
        assert!(long.len() <= MAX_LEN && long.starts_with("cali-po-knp/default/aaa"), "{long}");
        let odd = policy(&id("a b"), Toward::Egress, Zone::Default);
        assert!(odd.starts_with("cali-po-knp/default/ab_"), "{odd}");
    }
}
