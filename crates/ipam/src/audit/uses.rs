//! Who uses which address, and whether an allocation's holder still exists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::block::{Attributes, Block};
use model::id::{HandleId, NodeName};
use model::net::Family;
use model::time::WallTime;

use super::{Allocation, Confidence, PodUse, Revisioned, Snapshot, WINDOWS_HANDLE};
use crate::slots;

/// Who uses an address now.
#[derive(Clone, Copy, Debug)]
pub(super) enum User<'a> {
    Pod(&'a PodUse),
    Tunnel(&'a NodeName),
    Service(&'a str),
}

/// What became of an allocation's holder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It exists, or cannot be judged.
    Live,
    /// It does not, for this reason.
    Gone(Confidence, String),
    /// It does not, but somebody else uses the address.
    Elsewhere(String),
}

/// The users of addresses in a snapshot.
#[derive(Debug)]
pub(super) struct Uses<'a> {
    snapshot: &'a Snapshot,
    pods: BTreeMap<(&'a str, &'a str), &'a PodUse>,
    services: BTreeSet<String>,
    users: BTreeMap<IpAddr, Vec<User<'a>>>,
    /// The nodes that pods run on, whether these nodes exist or not.
    occupied: BTreeSet<&'a NodeName>,
}

/// Must the allocation be left alone, whatever there is or is not?
///
/// Windows nodes reserve addresses that nobody uses, virtual machines keep theirs while they
/// are off or move, and without facts about the holder nothing can be known of him.
#[must_use]
pub fn is_respected(holder: &Attributes) -> bool {
    let handle = holder.handle.as_ref().map_or("", |handle| handle.0.as_str());
    let is_windows = handle.split('\r').next() == Some(WINDOWS_HANDLE);
    let has = |key: &str| holder.owner.contains_key(key);
    let is_machine = handle.contains(".vmi.")
        || ["vmi-name", "vmi-uid", "vm-uid", "vmim-uid"].into_iter().any(has)
        || !holder.alternate_owner.is_empty();
    let is_known = has("type") || has("service") || (has("pod") && has("namespace"));
    let is_balanced = handle.starts_with("lb-");
    is_windows || is_machine || !(is_known || is_balanced)
}

/// Is the allocation's holder gone, as far as this snapshot of him tells?
///
/// For a last look before a release: the snapshot holds what the allocation names, read anew.
#[must_use]
pub fn is_gone(snapshot: &Snapshot, held: &Allocation) -> bool {
    let holder = Attributes {
        handle: held.handle.clone(),
        owner: held.owner.clone(),
        ..Attributes::default()
    };
    matches!(Uses::of(snapshot).judge(held, &holder), Verdict::Gone(..))
}

/// Returns everything that the block gave away, in order. Addresses that rest are nobody's.
pub fn allocations(block: &Block) -> impl Iterator<Item = (Allocation, &Attributes)> {
    let ordinals = (0_u32..).zip(&block.allocations).map(|(ordinal, _)| ordinal);
    ordinals.filter_map(|ordinal| {
        let holder = slots::holder(block, ordinal)?;
        let allocation = Allocation {
            addr: slots::address(block, ordinal)?,
            block: block.cidr,
            ordinal,
            handle: holder.handle.clone(),
            owner: holder.owner.clone(),
            sequence_number: block.allocated_at.get(&ordinal).copied(),
        };
        Some((allocation, holder))
    })
}

/// Returns the name of a handle's object; old blocks have text behind a `\r` in the id.
pub(super) fn handle_name(id: &HandleId) -> String {
    id.0.split('\r').next().unwrap_or_default().to_lowercase()
}

/// Returns when the address was taken, from the holder's `timestamp`
/// (`2026-06-24 11:32:35.123 +0000 UTC`).
pub(super) fn since(owner: &BTreeMap<String, String>) -> Option<WallTime> {
    let mut words = owner.get("timestamp")?.split(' ');
    let mut date = words.next()?.split('-').map(str::parse::<i64>);
    let mut time = words.next()?.split(':');
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (hour, minute) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
    let seconds = time.next()?.split('.').next()?.parse::<i64>().ok()?;
    let fits = (1970..10_000).contains(&year) && (1..=12).contains(&month);
    if !fits || !(1..=31).contains(&day) || !(0..24).contains(&hour) {
        return None;
    }
    let seconds = days_from_civil(year, month, day)?
        .checked_mul(24)?
        .checked_add(hour)?
        .checked_mul(60)?
        .checked_add(minute)?
        .checked_mul(60)?
        .checked_add(seconds)?;
    Some(WallTime(i128::from(seconds).checked_mul(1_000_000_000)?))
}

/// Returns the days between 1970-01-01 and a date of the Gregorian calendar, by counting the
/// year from March on, so that the leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_late = month > 2;
    let year = if is_late { year } else { year.checked_sub(1)? };
    let month = if is_late { month.checked_sub(3)? } else { month.checked_add(9)? };
    let of_year = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?.checked_add(day)?;
    let leaps = year
        .checked_div(4)?
        .checked_sub(year.checked_div(100)?)?
        .checked_add(year.checked_div(400)?)?;
    year.checked_mul(365)?.checked_add(leaps)?.checked_add(of_year)?.checked_sub(719_469)
}

impl<'a> Uses<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut users: BTreeMap<IpAddr, Vec<User<'a>>> = BTreeMap::new();
        let alive = snapshot.pods.iter().filter(|pod| !pod.is_terminated);
        let mut occupied = BTreeSet::new();
        for pod in alive {
            occupied.extend(&pod.node);
            for addr in &pod.addrs {
                users.entry(*addr).or_default().push(User::Pod(pod));
            }
        }
        for tunnel in &snapshot.tunnels {
            users.entry(tunnel.addr).or_default().push(User::Tunnel(&tunnel.node));
        }
        for service in &snapshot.services {
            for addr in &service.addrs {
                users.entry(*addr).or_default().push(User::Service(&service.handle.0));
            }
        }
        let key = |pod: &'a PodUse| (pod.pod.namespace.as_str(), pod.pod.name.as_str());
        Self {
            snapshot,
            pods: snapshot.pods.iter().map(|pod| (key(pod), pod)).collect(),
            services: snapshot.services.iter().map(|it| handle_name(&it.handle)).collect(),
            users,
            occupied,
        }
    }

    /// Returns who uses the address now.
    pub(super) fn users(&self, addr: IpAddr) -> &[User<'a>] {
        self.users.get(&addr).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns every address in use with its users.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, &[User<'a>])> {
        self.users.iter().map(|(addr, users)| (*addr, users.as_slice()))
    }

    /// Is the node gone, and every pod that ran on it?
    pub(super) fn is_gone(&self, node: &NodeName) -> bool {
        !self.snapshot.nodes.contains(node)
            && !self.occupied.contains(node)
            && !self.snapshot.elsewhere.occupied.contains(node)
    }

    /// Returns the pod that the allocation names, if it exists.
    pub(super) fn pod_of(&self, allocation: &Allocation) -> Option<&'a PodUse> {
        let namespace = allocation.owner.get("namespace")?;
        let pod = allocation.owner.get("pod")?;
        self.pods.get(&(namespace.as_str(), pod.as_str())).copied()
    }

    /// Judges an allocation.
    pub(super) fn judge(&self, allocation: &Allocation, holder: &Attributes) -> Verdict {
        if is_respected(holder) {
            return Verdict::Live;
        }
        let Some((confidence, reason)) = self.absence(allocation) else { return Verdict::Live };
        match self.users(allocation.addr).first() {
            None => Verdict::Gone(confidence, reason),
            Some(user) => Verdict::Elsewhere(format!("{reason}, and {user} uses the address")),
        }
    }

    /// Returns why the holder is not there any more; `None` if it is.
    fn absence(&self, allocation: &Allocation) -> Option<(Confidence, String)> {
        let fact = |key: &str| allocation.owner.get(key).map(String::as_str);
        let node: Option<NodeName> = fact("node").and_then(|node| node.parse().ok());
        let handle = allocation.handle.as_ref();
        if fact("type").is_some_and(|kind| kind.ends_with("TunnelAddress")) {
            // The address leads to what still runs there, so it goes last.
            let gone = node.filter(|node| self.is_gone(node))?;
            return Some((Confidence::Certain, format!("node {gone} does not exist")));
        }
        if fact("service").is_some() || handle.is_some_and(|id| id.0.starts_with("lb-")) {
            let name = handle.map(handle_name)?;
            let text = "no Service of type LoadBalancer has this handle";
            return (!self.services.contains(&name)).then(|| (Confidence::Likely, text.to_owned()));
        }
        let name = format!("pod {}/{}", fact("namespace")?, fact("pod")?);
        let Some(pod) = self.pod_of(allocation) else {
            return Some(match node.filter(|node| self.is_gone(node)) {
                Some(node) => (Confidence::Certain, format!("{name} and node {node} do not exist")),
                None => (Confidence::Likely, format!("{name} does not exist")),
            });
        };
        let reason = absence_from(pod, allocation, node.as_ref())?;
        Some((Confidence::Likely, format!("{name} {reason}")))
    }
}

/// Returns why a pod that exists does not hold the address; `None` if it may.
fn absence_from(pod: &PodUse, held: &Allocation, node: Option<&NodeName>) -> Option<String> {
    if pod.is_terminated {
        return Some("has ended".to_owned());
    }
    if pod.addrs.contains(&held.addr) {
        return None;
    }
    let family = Family::of(held.addr);
    // Without an address of that family the pod may be about to get this one.
    if let Some(other) = pod.addrs.iter().find(|addr| Family::of(**addr) == family) {
        return Some(format!("has {other} instead"));
    }
    match (node, &pod.node) {
        (Some(node), Some(runs_on)) if node != runs_on => {
            Some(format!("runs on node {runs_on}, not {node}"))
        }
        _ => None,
    }
}

impl std::fmt::Display for User<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "pod {}", pod.pod),
            Self::Tunnel(node) => write!(f, "a tunnel of node {node}"),
            Self::Service(handle) => write!(f, "the Service with handle {handle}"),
        }
    }
}

/// Per handle, by the name of its object, what the blocks say that it holds.
pub(super) fn held(blocks: &[Revisioned<Block>]) -> BTreeMap<String, Held> {
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    for block in blocks {
        for (allocation, holder) in allocations(&block.value) {
            let Some(id) = &allocation.handle else { continue };
            let held = all.entry(handle_name(id)).or_insert_with(|| Held {
                id: HandleId(id.0.split('\r').next().unwrap_or_default().to_owned()),
                counts: BTreeMap::new(),
                is_respected: false,
            });
            held.is_respected |= is_respected(holder);
            let count = held.counts.entry(block.value.cidr).or_default();
            *count = count.saturating_add(1);
        }
    }
    all
}

/// What one handle holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: HandleId,
    pub(super) counts: BTreeMap<model::net::Cidr, u32>,
    pub(super) is_respected: bool,
}
