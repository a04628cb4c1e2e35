//! A first look over a cluster that is too large to be held.
//!
//! Objects come by one after the other. Of an allocation that is in order nothing is kept but 24
//! bytes, until what it names has come by as well: its handle, and the pod, tunnel or Service that
//! uses it. What is left over is suspicious, and is to be read anew for [`check`](super::check),
//! which alone says what is wrong.
//!
//! ```text
//!  blocks ─► Blocks ─► handles ─► Handles ─► nodes, Services, pods ─► Users ─► Suspects
//! ```
//!
//! The order matters: whoever uses an address is looked at after the address.
//!
//! Not noticed are two pods with one address outside of every pool.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use model::block::{Affinity, Attributes, Block, Handle, Owner};
use model::id::{HandleId, NodeName};
use model::net::Cidr;
use model::pool::IpPool;

use super::{Allocation, Elsewhere, PodUse, ServiceUse, Snapshot, TunnelUse, check, uses};
use crate::slots::{self, Clock};

/// An allocation whose holder needs no proof.
const NEEDS_NONE: u64 = 0;
/// An allocation whose holder cannot be proven here.
const HAS_NONE: u64 = 1;

/// What is kept of an allocation.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// A hash of who uses it, and where; or one of the two constants.
    user: u64,
    /// A hash of its handle; zero if it has none.
    handle: u64,
    /// The block's number.
    block: u32,
}

/// What is kept of a block.
#[derive(Clone, Copy, Debug)]
struct Light {
    cidr: Cidr,
    /// The number of its owner.
    owner: Option<u32>,
    /// The number of the pool it lies in.
    pool: Option<usize>,
    is_empty: bool,
}

/// What all stages share.
#[derive(Debug)]
struct Common {
    hasher: RandomState,
    pools: Vec<IpPool>,
    clock: Clock,
    owners: BTreeMap<Owner, u32>,
    blocks: Vec<Light>,
    entries: Vec<Entry>,
    /// Which entries were seen to be in order, in this stage.
    marks: Vec<bool>,
    /// The numbers of blocks, and how many allocations of each nobody uses.
    suspects: BTreeMap<u32, usize>,
    elsewhere: Elsewhere,
}

/// The first stage: blocks come by.
#[derive(Debug)]
pub struct Blocks(Common);

/// Blocks by their ranges.
#[derive(Debug)]
struct Index {
    sorted: Vec<(Cidr, u32)>,
    lengths: BTreeSet<u8>,
}

/// The second stage: handles come by.
#[derive(Debug)]
pub struct Handles {
    common: Common,
    index: Index,
    suspicious: BTreeSet<HandleId>,
}

/// The last stage: whoever uses addresses comes by.
#[derive(Debug)]
pub struct Users {
    common: Common,
    index: Index,
    handles: BTreeSet<HandleId>,
    pods: Vec<PodUse>,
}

/// What is to be read anew, and how much else there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Suspects {
    /// Blocks, to be read with all that their allocations name, and how many allocations of each
    /// nobody was seen to use.
    pub blocks: BTreeMap<Cidr, usize>,
    /// Handles, with the blocks that they count.
    pub handles: BTreeSet<HandleId>,
    /// Claims.
    pub claims: BTreeSet<(Owner, Cidr)>,
    /// Pods that use addresses of pools which no block gave to them.
    pub pods: Vec<PodUse>,
    /// Everything, the suspects with it.
    pub elsewhere: Elsewhere,
}

impl Suspects {
    /// Returns what there is beside the part of the cluster that was read anew.
    #[must_use]
    pub fn beside(&self, part: &Snapshot) -> Elsewhere {
        let read: BTreeSet<Cidr> = part.blocks.iter().map(|block| block.value.cidr).collect();
        let all = || part.blocks.iter().flat_map(|block| uses::allocations(&block.value));
        let counted = all().filter(|(_, holder)| !uses::is_respected(holder)).count();
        let of_pods = all().filter(|(held, _)| held.owner.contains_key("pod")).count();
        let unread = self.blocks.iter().filter(|(cidr, _)| !read.contains(cidr));
        Elsewhere {
            blocks: self.elsewhere.blocks.saturating_sub(read.len()),
            allocations: self.elsewhere.allocations.saturating_sub(counted),
            of_pods: self.elsewhere.of_pods.saturating_sub(of_pods),
            pods: self.elsewhere.pods.saturating_sub(part.pods.len()),
            unused: unread.map(|(_, unused)| *unused).sum(),
            ..self.elsewhere.clone()
        }
    }
}

impl Common {
    fn hash(&self, parts: &[&str], addr: Option<IpAddr>) -> u64 {
        // The two lowest are taken.
        self.hasher.hash_one((parts, addr)).max(HAS_NONE.saturating_add(1))
    }

    /// Returns a hash of who must come by for the allocation to be in order.
    fn user(&self, held: &Allocation, holder: &Attributes) -> u64 {
        let fact = |key: &str| held.owner.get(key).map(String::as_str);
        let handle = held.handle.as_ref().map(uses::handle_name);
        if uses::is_respected(holder) {
            return if fact("pod").is_some() { HAS_NONE } else { NEEDS_NONE };
        }
        let addr = Some(held.addr);
        if fact("type").is_some_and(|kind| kind.ends_with("TunnelAddress")) {
            return fact("node").map_or(HAS_NONE, |node| self.hash(&["tunnel", node], addr));
        }
        let is_service = fact("service").is_some();
        if let Some(handle) = handle.filter(|name| is_service || name.starts_with("lb-")) {
            return self.hash(&["service", &handle], addr);
        }
        match (fact("namespace"), fact("pod"), fact("node")) {
            (Some(namespace), Some(pod), Some(node)) => {
                self.hash(&["pod", namespace, pod, node], addr)
            }
            _ => HAS_NONE,
        }
    }

    fn block(&mut self, block: &Block) {
        let number = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        let owner = block.affinity.clone().map(|owner| self.number_of(owner));
        let pool = self.pools.iter().position(|pool| pool.cidr.covers(&block.cidr));
        let is_empty = slots::is_empty(block, self.clock);
        self.blocks.push(Light { cidr: block.cidr, owner, pool, is_empty });
        if pool.is_none() || owner.is_none() || check::damage(block).is_some() {
            self.suspect(number);
        }
        self.elsewhere.blocks = self.elsewhere.blocks.saturating_add(1);
        for (held, holder) in uses::allocations(block) {
            let name = held.handle.as_ref().map(uses::handle_name);
            let handle = name.map_or(0, |name| self.hash(&["handle", &name], None));
            let entry = Entry { user: self.user(&held, holder), handle, block: number };
            self.entries.push(entry);
            let counts = &mut self.elsewhere;
            if !uses::is_respected(holder) {
                counts.allocations = counts.allocations.saturating_add(1);
            }
            if held.owner.contains_key("pod") {
                counts.of_pods = counts.of_pods.saturating_add(1);
            }
        }
    }

    fn number_of(&mut self, owner: Owner) -> u32 {
        let next = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        *self.owners.entry(owner).or_insert(next)
    }

    /// Begins a stage: `key` is what entries are found by.
    fn sort_by(&mut self, key: impl Fn(&Entry) -> u64) {
        self.entries.sort_unstable_by_key(|entry| (key(entry), entry.block));
        self.marks.clear();
        self.marks.resize(self.entries.len(), false);
    }

    /// Returns the places of the entries with this key.
    fn places(&self, key: impl Fn(&Entry) -> u64, wanted: u64) -> std::ops::Range<usize> {
        let from = self.entries.partition_point(|entry| key(entry) < wanted);
        let to = self.entries.partition_point(|entry| key(entry) <= wanted);
        from..to
    }

    fn light(&self, number: u32) -> Option<&Light> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    /// Is it a node that is gone, and every pod that ran on it?
    fn is_lost(&self, owner: &Owner, nodes: &BTreeSet<NodeName>) -> bool {
        let Owner::Host(node) = owner else { return false };
        !nodes.contains(node) && !self.elsewhere.occupied.contains(node)
    }

    fn suspect(&mut self, number: u32) -> &mut usize {
        self.suspects.entry(number).or_default()
    }

    /// Returns the blocks of the entries that were not marked, once for each entry.
    fn unmarked(&self, is_concerned: impl Fn(&Entry) -> bool) -> Vec<u32> {
        let rest = self.entries.iter().zip(&self.marks);
        let rest = rest.filter(|(entry, is_marked)| !**is_marked && is_concerned(entry));
        rest.map(|(entry, _)| entry.block).collect()
    }

    /// Blocks that share addresses, and empty ones whose owner has another block of the pool.
    fn suspect_by_place(&mut self) {
        let cidrs = self.blocks.iter().map(|block| block.cidr).collect();
        let nested: BTreeSet<Cidr> =
            check::nested(cidrs).into_iter().flat_map(|(one, other)| [one, other]).collect();
        let mut homes: BTreeMap<(Option<u32>, Option<usize>), (usize, bool)> = BTreeMap::new();
        for block in &self.blocks {
            let (count, has_empty) = homes.entry((block.owner, block.pool)).or_default();
            *count = count.saturating_add(1);
            *has_empty |= block.is_empty;
        }
        let is_suspicious = |block: &Light| {
            let home = homes.get(&(block.owner, block.pool));
            let is_crowded = home.is_some_and(|(count, has_empty)| *count > 1 && *has_empty);
            is_crowded || nested.contains(&block.cidr)
        };
        let numbers = (0_u32..).zip(&self.blocks);
        let found: Vec<u32> =
            numbers.filter(|(_, block)| is_suspicious(block)).map(|(number, _)| number).collect();
        for number in found {
            self.suspect(number);
        }
    }
}

impl Blocks {
    /// Starts with all pools; `hasher` must be a random one.
    #[must_use]
    pub fn new(pools: Vec<IpPool>, clock: Clock, hasher: RandomState) -> Self {
        Self(Common {
            hasher,
            pools,
            clock,
            owners: BTreeMap::new(),
            blocks: Vec::new(),
            entries: Vec::new(),
            marks: Vec::new(),
            suspects: BTreeMap::new(),
            elsewhere: Elsewhere::default(),
        })
    }

    /// Takes note of a block.
    pub fn block(&mut self, block: &Block) {
        self.0.block(block);
    }

    /// All blocks have come by.
    #[must_use]
    pub fn done(self) -> Handles {
        let mut common = self.0;
        common.suspect_by_place();
        common.sort_by(|entry| entry.handle);
        let index = Index::of(&common.blocks);
        Handles { common, index, suspicious: BTreeSet::new() }
    }
}

impl Index {
    fn of(blocks: &[Light]) -> Self {
        let numbers = (0_u32..).zip(blocks);
        let mut sorted: Vec<(Cidr, u32)> =
            numbers.map(|(number, block)| (block.cidr, number)).collect();
        sorted.sort_unstable();
        let lengths = sorted.iter().map(|(cidr, _)| cidr.prefix_len()).collect();
        Self { sorted, lengths }
    }

    fn number(&self, cidr: Cidr) -> Option<u32> {
        let at = self.sorted.binary_search_by_key(&cidr, |(cidr, _)| *cidr).ok()?;
        self.sorted.get(at).map(|(_, number)| *number)
    }

    /// Returns the blocks that contain an address.
    fn covering(&self, addr: IpAddr) -> Vec<u32> {
        let ranges = self.lengths.iter().filter_map(|len| Cidr::containing(addr, *len).ok());
        ranges.filter_map(|cidr| self.number(cidr)).collect()
    }
}

impl Handles {
    /// Takes note of a handle.
    pub fn handle(&mut self, handle: &Handle) {
        let name = uses::handle_name(&handle.id);
        let key = self.common.hash(&["handle", &name], None);
        let places = self.common.places(|entry| entry.handle, key);
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for entry in self.common.entries.get(places.clone()).unwrap_or_default() {
            let count = held.entry(entry.block).or_default();
            *count = count.saturating_add(1);
        }
        let number = |cidr: &Cidr| self.index.number(*cidr);
        let counted: Option<BTreeMap<u32, u32>> =
            handle.blocks.iter().map(|(cidr, count)| Some((number(cidr)?, *count))).collect();
        if held.is_empty() || counted != Some(held) {
            // Without a mark, the blocks that it is in are suspicious as well.
            self.suspicious.insert(handle.id.clone());
        } else if let Some(marks) = self.common.marks.get_mut(places) {
            marks.fill(true);
        }
    }

    /// All handles have come by.
    #[must_use]
    pub fn done(self) -> Users {
        let Self { mut common, index, suspicious } = self;
        for number in common.unmarked(|entry| entry.handle != 0) {
            common.suspect(number);
        }
        common.sort_by(|entry| entry.user);
        Users { common, index, handles: suspicious, pods: Vec::new() }
    }
}

impl Users {
    /// Takes note of a pod.
    pub fn pod(&mut self, pod: &PodUse) {
        self.common.elsewhere.pods = self.common.elsewhere.pods.saturating_add(1);
        if pod.is_terminated {
            return;
        }
        let Some(node) = &pod.node else { return };
        if !self.common.elsewhere.occupied.contains(node) {
            self.common.elsewhere.occupied.insert(node.clone());
        }
        let (namespace, name) = (&pod.pod.namespace, &pod.pod.name);
        let is_stray = pod.addrs.iter().fold(false, |is_stray, addr| {
            let key = self.common.hash(&["pod", namespace, name, node.as_str()], Some(*addr));
            self.uses(*addr, key) || is_stray
        });
        if is_stray {
            self.pods.push(pod.clone());
        }
    }

    /// Takes note of a tunnel's address.
    pub fn tunnel(&mut self, tunnel: &TunnelUse) {
        let key = self.common.hash(&["tunnel", tunnel.node.as_str()], Some(tunnel.addr));
        self.uses(tunnel.addr, key);
    }

    /// Takes note of a Service of type `LoadBalancer`.
    pub fn service(&mut self, service: &ServiceUse) {
        let handle = uses::handle_name(&service.handle);
        for addr in &service.addrs {
            let key = self.common.hash(&["service", &handle], Some(*addr));
            self.uses(*addr, key);
        }
    }

    /// Takes note of a use; returns whether no block gave the address to that user.
    fn uses(&mut self, addr: IpAddr, key: u64) -> bool {
        let places = self.common.places(|entry| entry.user, key);
        let is_new =
            self.common.marks.get(places.clone()).is_some_and(|marks| !marks.contains(&true));
        if !places.is_empty() && is_new {
            if let Some(marks) = self.common.marks.get_mut(places) {
                marks.fill(true);
            }
            return false;
        }
        if !self.common.pools.iter().any(|pool| pool.cidr.contains(addr)) {
            return false;
        }
        for number in self.index.covering(addr) {
            self.common.suspect(number);
        }
        self.common.elsewhere.strays.insert(addr);
        true
    }

    /// Everything has come by; `claims` and `nodes` are all that there are.
    #[must_use]
    pub fn done<'a>(
        self,
        claims: impl Iterator<Item = &'a Affinity>,
        nodes: &BTreeSet<NodeName>,
    ) -> Suspects {
        let Self { mut common, index, handles, pods } = self;
        for number in common.unmarked(|entry| entry.user != NEEDS_NONE) {
            let unused = common.suspect(number);
            *unused = unused.saturating_add(1);
        }
        let mut claimed: BTreeSet<u32> = BTreeSet::new();
        let mut suspicious = BTreeSet::new();
        for claim in claims {
            let number = index.number(claim.cidr);
            let owner = common.owners.get(&claim.owner).copied();
            let block = number.and_then(|number| common.light(number));
            let is_right = owner.is_some() && block.is_some_and(|block| block.owner == owner);
            if let Some(number) = number.filter(|_| is_right) {
                claimed.insert(number);
            }
            if !is_right || common.is_lost(&claim.owner, nodes) {
                suspicious.insert((claim.owner.clone(), claim.cidr));
                number.map(|number| common.suspect(number));
            }
        }
        for number in index.sorted.iter().map(|(_, number)| *number) {
            if !claimed.contains(&number) {
                common.suspect(number);
            }
        }
        let suspects = common.suspects.iter();
        let blocks = suspects.filter_map(|(number, unused)| {
            common.light(*number).map(|block| (block.cidr, *unused))
        });
        Suspects {
            blocks: blocks.collect(),
            handles,
            claims: suspicious,
            pods,
            elsewhere: common.elsewhere.clone(),
        }
    }
}
