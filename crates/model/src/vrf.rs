//! VRFs: tenants with a routing table of their own, whose ranges may overlap others' (ADR 9).
//!
//! A pool says which VRF it belongs to ([`PoolVrf`]); all pools of a name together make the VRF
//! ([`Vrf`]), as [`vrfs`] finds them. Its one number is its routing table, its VXLAN network
//! identifier and its zone of connection tracking, the same on every node, so that whatever a
//! kernel shows of a tenant has the number that the pool has.

mod zone;

pub use zone::Zone;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::net::{Cidr, Family, IfName};
use crate::pool::IpPool;

/// The name of a VRF: 1 to 10 lower-case letters, digits and `-`, starting and ending with a
/// letter or digit, so that the names of its devices fit the kernel; `default` is none, since
/// that is what everybody else is in.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VrfName(String);

/// Text that cannot name a VRF.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no name of a VRF: use 1 to 10 lower-case letters, digits and `-`, starting and \
     ending with a letter or digit, and not `default`"
)]
pub struct InvalidVrfName(pub String);

impl VrfName {
    /// The most bytes that a name may have.
    pub const MAX_LEN: usize = 10;
    /// What says in a list of imports that those without a VRF are meant.
    pub const DEFAULT: &'static str = "default";

    /// How the names of VRFs' devices start.
    pub const DEVICE_PREFIX: &'static str = "vrf-";

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the VRF's device, which always fits: `vrf-red`.
    #[must_use]
    pub fn device(&self) -> Option<IfName> {
        format!("{}{}", Self::DEVICE_PREFIX, self.0).parse().ok()
    }

    /// Returns the VRF whose device has this name, if the name is of that form.
    #[must_use]
    pub fn of_device(device: &IfName) -> Option<Self> {
        device.as_str().strip_prefix(Self::DEVICE_PREFIX)?.parse().ok()
    }
}

impl FromStr for VrfName {
    type Err = InvalidVrfName;

    fn from_str(text: &str) -> Result<Self, InvalidVrfName> {
        let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let is_right = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(is_inner)
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text != Self::DEFAULT;
        if is_right { Ok(Self(text.to_owned())) } else { Err(InvalidVrfName(text.to_owned())) }
    }
}

impl fmt::Display for VrfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a VRF, 1,000 to 65,535, the same on every node.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VrfId(u16);

/// A number that no VRF can have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no number of a VRF: use 1000 to 65535, which no other VRF has")]
pub struct InvalidVrfId(pub String);

impl VrfId {
    /// The smallest number, beyond the tables that distributions and Calico use.
    pub const MIN: u16 = 1000;

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Returns the routing table (ip-rule(8)).
    #[must_use]
    pub fn table(self) -> u32 {
        self.0.into()
    }

    /// Returns the VXLAN network identifier (RFC 7348 §5).
    #[must_use]
    pub fn vni(self) -> u32 {
        self.0.into()
    }

    /// Returns the name of the device by which pods of this family reach other nodes, which always
    /// fits: `vxvrf5001`, `vx6vrf5001`.
    #[must_use]
    pub fn tunnel(self, family: Family) -> Option<IfName> {
        format!("{}{}", Self::tunnel_prefix(family), self.0).parse().ok()
    }

    /// Returns how the names of such devices start.
    #[must_use]
    pub const fn tunnel_prefix(family: Family) -> &'static str {
        match family {
            Family::V4 => Self::TUNNEL_V4,
            Family::V6 => Self::TUNNEL_V6,
        }
    }

    /// Returns the VRF and the family whose tunnel's device has this name, if it is of that form.
    #[must_use]
    pub fn of_tunnel(device: &IfName) -> Option<(Self, Family)> {
        let parse = |prefix| device.as_str().strip_prefix(prefix)?.parse().ok();
        let v4 = parse(Self::TUNNEL_V4).map(|id| (id, Family::V4));
        v4.or_else(|| parse(Self::TUNNEL_V6).map(|id| (id, Family::V6)))
    }

    const TUNNEL_V4: &'static str = "vxvrf";
    const TUNNEL_V6: &'static str = "vx6vrf";
}

impl FromStr for VrfId {
    type Err = InvalidVrfId;

    fn from_str(text: &str) -> Result<Self, InvalidVrfId> {
        let is_plain = !text.starts_with(['+', '0']);
        let number = text.parse().ok().filter(|number| is_plain && *number >= Self::MIN);
        number.map(Self).ok_or_else(|| InvalidVrfId(text.to_owned()))
    }
}

impl fmt::Display for VrfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a pool says of its VRF.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolVrf {
    /// The VRF.
    pub name: VrfName,
    /// Its number; all pools of the VRF say the same.
    pub id: VrfId,
    /// The VRFs whose routes it takes; `None` is those without a VRF.
    pub imports: BTreeSet<Option<VrfName>>,
}

/// A tenant, made of all pools that name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vrf {
    /// The number.
    pub id: VrfId,
    /// The ranges of its pools.
    pub ranges: BTreeSet<Cidr>,
    /// The VRFs that it exchanges routes with; `None` is those without a VRF.
    pub partners: BTreeSet<Option<VrfName>>,
    /// The zone of connection tracking, which it shares with all that it exchanges routes with,
    /// since their connections are one's and the other's; 0 where those without a VRF are among
    /// them, else the smallest number of these VRFs.
    pub zone: u16,
}

/// The VRFs of a cluster, and what is wrong with what its pools say of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Vrfs {
    /// The VRFs.
    pub by_name: BTreeMap<VrfName, Vrf>,
    /// Per pool what of it has no effect, why, and what to do.
    pub problems: Vec<(String, String)>,
}

/// Finds the VRFs of a cluster's pools, whatever their order.
///
/// * A pool that gives its VRF another number than that VRF's first pool does, and a VRF whose
///   number an earlier one has, count as absent.
/// * Two VRFs exchange routes if each imports the other; for those without a VRF it is enough that
///   they are imported. What would bring overlapping ranges together has no effect.
/// * Older pools go first, and of those of the same second the first by name: so a new one puts
///   nothing out of effect that is in use, but for a pool without a VRF whose range overlaps that of a
///   VRF which imports these.
#[must_use]
pub fn vrfs<'a>(pools: impl IntoIterator<Item = &'a IpPool>) -> Vrfs {
    let mut pools: Vec<&IpPool> = pools.into_iter().collect();
    pools.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
    let mut found = Vrfs::default();
    let mut imports: Vec<Import<'_>> = Vec::new();
    let mut numbers: BTreeMap<VrfId, &VrfName> = BTreeMap::new();
    for pool in &pools {
        let Some(vrf) = &pool.vrf else { continue };
        let fresh = || Vrf {
            id: vrf.id,
            ranges: BTreeSet::new(),
            partners: BTreeSet::new(),
            zone: vrf.id.number(),
        };
        let holder = numbers.get(&vrf.id).copied().unwrap_or(&vrf.name);
        let id = found.by_name.get(&vrf.name).map_or(vrf.id, |known| known.id);
        if holder != &vrf.name || id != vrf.id {
            let message = if id == vrf.id {
                format!(
                    "VRF {} cannot have the number {id}, which is {holder}'s; give it another",
                    vrf.name
                )
            } else {
                format!(
                    "VRF {} has the number {id} by another pool, not {}; say {id}",
                    vrf.name, vrf.id
                )
            };
            found.problems.push((pool.name.clone(), message));
            continue;
        }
        numbers.insert(vrf.id, &vrf.name);
        found.by_name.entry(vrf.name.clone()).or_insert_with(fresh).ranges.insert(pool.cidr);
        for whom in &vrf.imports {
            let import = Import { vrf: &vrf.name, whom, pool: &pool.name };
            // Of several pools of a VRF the oldest has said so.
            if !imports.iter().any(|known| (known.vrf, known.whom) == (import.vrf, whom)) {
                imports.push(import);
            }
        }
    }
    let plain = pools.iter().filter(|pool| pool.vrf.is_none()).map(|pool| pool.cidr).collect();
    found.join(&imports, plain);
    found
}

/// A VRF's wish for another one's routes.
#[derive(Clone, Copy, Debug)]
struct Import<'a> {
    vrf: &'a VrfName,
    whom: &'a Option<VrfName>,
    /// The pool that says so.
    pool: &'a str,
}

impl Vrfs {
    /// Lets those exchange routes that want to and can; who has wanted it first goes first.
    fn join(&mut self, imports: &[Import<'_>], plain: BTreeSet<Cidr>) {
        // Who is with whom: by the zone, the members and their ranges.
        let mut domains: BTreeMap<u16, (BTreeSet<Option<VrfName>>, BTreeSet<Cidr>)> =
            BTreeMap::new();
        domains.insert(0, (BTreeSet::from([None]), plain));
        for (name, vrf) in &self.by_name {
            let members = BTreeSet::from([Some(name.clone())]);
            domains.insert(vrf.id.number(), (members, vrf.ranges.clone()));
        }
        for Import { vrf: name, whom: other, pool } in imports.iter().copied() {
            let mut refuse = |why: String| {
                let them = other.as_ref().map_or(VrfName::DEFAULT, VrfName::as_str);
                let message = format!("VRF {name} does not exchange routes with {them}: {why}");
                self.problems.push((pool.to_owned(), message));
            };
            let own = Some(name.clone());
            let is_mutual = match other {
                None => true,
                Some(other) => imports.iter().any(|their| (their.vrf, their.whom) == (other, &own)),
            };
            if !is_mutual {
                refuse(format!("let a pool of it import {name}, too"));
                continue;
            }
            let zone_of = |member: &Option<VrfName>| {
                domains
                    .iter()
                    .find(|(_, (members, _))| members.contains(member))
                    .map(|(zone, _)| *zone)
            };
            let (Some(one), Some(two)) = (zone_of(&own), zone_of(other)) else { continue };
            if one != two {
                let overlap = domains.get(&one).zip(domains.get(&two)).and_then(|(one, two)| {
                    one.1
                        .iter()
                        .find_map(|a| two.1.iter().find(|b| a.overlaps(b)).map(|b| (*a, *b)))
                });
                if let Some((a, b)) = overlap {
                    refuse(format!("{a} and {b} overlap; use ranges of their own"));
                    continue;
                }
                let (members, ranges) = domains.remove(&one.max(two)).unwrap_or_default();
                let joined = domains.entry(one.min(two)).or_default();
                joined.0.extend(members);
                joined.1.extend(ranges);
            }
            if let Some(vrf) = self.by_name.get_mut(name) {
                vrf.partners.insert(other.clone());
            }
        }
        for (zone, (members, _)) in domains {
            for member in members.into_iter().flatten() {
                if let Some(vrf) = self.by_name.get_mut(&member) {
                    vrf.zone = zone;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;

    fn pool(name: &str, cidr: &str, vrf: Option<(&str, &str, &[&str])>) -> IpPool {
        let vrf = vrf.map(|(vrf, id, imports)| PoolVrf {
            name: vrf.parse().unwrap(),
            id: id.parse().unwrap(),
            imports: imports
                .iter()
                .map(|import| (*import != "default").then(|| import.parse().unwrap()))
                .collect(),
        });
        IpPool { vrf, ..IpPool::plain(name, cidr.parse().unwrap()) }
    }

    /// Per VRF the number, the zone and the partners, and the pools with problems.
    fn summary(pools: &[IpPool]) -> (Vec<String>, Vec<String>) {
        let found = vrfs(pools.iter().rev());
        assert_eq!(found, vrfs(pools), "the order of pools means nothing");
        let partner =
            |name: &Option<VrfName>| name.as_ref().map_or("default".into(), VrfName::to_string);
        let line = |(name, vrf): (&VrfName, &Vrf)| {
            let partners: Vec<String> = vrf.partners.iter().map(partner).collect();
            format!("{name} {} zone {} with [{}]", vrf.id, vrf.zone, partners.join(" "))
        };
        let problems = found.problems.iter().map(|(pool, _)| pool.clone()).collect();
        (found.by_name.iter().map(line).collect(), problems)
    }

    /// A name, pools, the VRFs that they make, and the pools that are wrong.
    type Case<'a> = (&'a str, &'a [IpPool], &'a [&'a str], &'a [&'a str]);

    fn check(cases: &[Case<'_>]) {
        for (case, pools, lines, problems) in cases {
            let (found, refused) = summary(pools);
            assert_eq!(&found, lines, "{case}");
            assert_eq!(&refused, problems, "{case}");
        }
    }

    #[test]
    fn vrfs_are_made_of_their_pools() {
        check(&[
            ("none", &[pool("a", "10.0.0.0/16", None)], &[], &[]),
            (
                "ranges may overlap",
                &[
                    pool("a", "10.0.0.0/16", None),
                    pool("b", "10.0.0.0/16", Some(("red", "5001", &[]))),
                    pool("c", "10.0.0.0/16", Some(("blue", "5002", &[]))),
                    pool("d", "fd00::/64", Some(("red", "5001", &[]))),
                ],
                &["blue 5002 zone 5002 with []", "red 5001 zone 5001 with []"],
                &[],
            ),
            (
                "two numbers of one, and one of two",
                &[
                    pool("a", "10.0.0.0/16", Some(("red", "5001", &[]))),
                    pool("b", "10.1.0.0/16", Some(("red", "5002", &[]))),
                    pool("c", "10.2.0.0/16", Some(("blue", "5001", &[]))),
                ],
                &["red 5001 zone 5001 with []"],
                &["b", "c"],
            ),
        ]);
    }

    #[test]
    fn older_pools_go_before_newer_ones_whatever_their_names() {
        let aged = |seconds: i128, pool: IpPool| {
            let created = WallTime(seconds.saturating_mul(1_000_000_000));
            IpPool { created, ..pool }
        };
        let red = |name: &str, id| pool(name, "10.0.0.0/16", Some(("red", id, &[])));
        let blue = |name: &str, id| pool(name, "10.1.0.0/16", Some(("blue", id, &[])));
        check(&[
            (
                "a new pool with another number",
                &[aged(7, red("a", "5002")), aged(3, red("z", "5001"))],
                &["red 5001 zone 5001 with []"],
                &["a"],
            ),
            (
                "a new VRF with a number that is taken",
                &[aged(7, blue("a", "5001")), aged(3, red("z", "5001"))],
                &["red 5001 zone 5001 with []"],
                &["a"],
            ),
            (
                "a number that its pool could not have is still free",
                &[aged(3, red("z", "5001")), aged(4, red("y", "5002")), aged(5, blue("x", "5002"))],
                &["blue 5002 zone 5002 with []", "red 5001 zone 5001 with []"],
                &["y"],
            ),
            (
                "a new VRF that would be in the way of an old one's exchange",
                &[
                    aged(1, pool("plain", "10.9.0.0/16", None)),
                    aged(3, pool("z", "10.0.0.0/16", Some(("red", "5001", &["default"])))),
                    aged(5, pool("a", "10.0.0.0/24", Some(("aaa", "5002", &["default"])))),
                ],
                &["aaa 5002 zone 5002 with []", "red 5001 zone 0 with [default]"],
                &["a"],
            ),
            (
                "of one second the first by name",
                &[aged(3, red("z", "5001")), aged(3, red("a", "5002"))],
                &["red 5002 zone 5002 with []"],
                &["z"],
            ),
        ]);
    }

    #[test]
    fn vrfs_exchange_routes_if_both_want_to_and_can() {
        check(&[
            (
                "one-sided",
                &[
                    pool("a", "10.0.0.0/16", Some(("red", "5001", &["blue"]))),
                    pool("b", "10.1.0.0/16", Some(("blue", "5002", &[]))),
                ],
                &["blue 5002 zone 5002 with []", "red 5001 zone 5001 with []"],
                &["a"],
            ),
            (
                "both",
                &[
                    pool("a", "10.0.0.0/16", Some(("red", "5001", &["blue"]))),
                    pool("b", "10.1.0.0/16", Some(("blue", "5002", &["red"]))),
                ],
                &["blue 5002 zone 5001 with [red]", "red 5001 zone 5001 with [blue]"],
                &[],
            ),
            (
                "the default of one of two",
                &[
                    pool("0", "10.9.0.0/16", None),
                    pool("a", "10.0.0.0/16", Some(("red", "5001", &["blue"]))),
                    pool("b", "10.1.0.0/16", Some(("blue", "5002", &["red", "default"]))),
                ],
                &["blue 5002 zone 0 with [default red]", "red 5001 zone 0 with [blue]"],
                &[],
            ),
            (
                "overlap by a third",
                &[
                    pool("0", "10.0.0.0/16", None),
                    pool("a", "10.0.0.0/16", Some(("red", "5001", &["blue"]))),
                    pool("b", "10.1.0.0/16", Some(("blue", "5002", &["red", "default"]))),
                ],
                &["blue 5002 zone 5001 with [red]", "red 5001 zone 5001 with [blue]"],
                &["b"],
            ),
        ]);
    }

    #[test]
    fn who_exchanges_routes_is_in_one_zone() {
        let found = vrfs(&[
            pool("a", "10.0.0.0/16", Some(("red", "5001", &["blue"]))),
            pool("b", "10.1.0.0/16", Some(("blue", "5002", &["red"]))),
            pool("c", "10.2.0.0/16", Some(("green", "5003", &["default"]))),
        ]);
        let zone = |name: &str| found.zone(Some(&name.parse().unwrap()));
        assert_eq!(found.zone(None), Zone::Default);
        assert_eq!(zone("green"), Zone::Default);
        assert_eq!([zone("red"), zone("blue")], [Zone::Vrfs(5001); 2]);
        assert_eq!(zone("gone"), Zone::Nowhere);
    }

    #[test]
    fn names_and_numbers_fit_the_kernel() {
        for right in ["a", "red", "tenant-0-1", "0"] {
            let name: VrfName = right.parse().unwrap();
            let device = name.device().unwrap();
            assert_eq!(VrfName::of_device(&device), Some(name));
        }
        for wrong in ["", "Red", "a.b", "-a", "a-", "a_b", "default", "elevenchars"] {
            assert!(wrong.parse::<VrfName>().is_err(), "{wrong}");
        }
        for right in ["1000", "65535"] {
            let id: VrfId = right.parse().unwrap();
            for family in Family::ALL {
                assert_eq!(VrfId::of_tunnel(&id.tunnel(family).unwrap()), Some((id, family)));
            }
        }
        for wrong in ["", "0", "999", "65536", "+1000", "01000", "1000 "] {
            assert!(wrong.parse::<VrfId>().is_err(), "{wrong}");
        }
    }
}
