//! A first look over a cluster that is too large to be held.
//!
//! Objects come by one after the other. Of an address nothing is kept but eight
//! bytes, until what its allocation names has come by as well: its handle, and the pod, tunnel or Service that
//! uses it. What is left over is suspicious, and is to be read anew for [`check`](super::check()),
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
use prints::{NO_PROOF, NOTHING, Prints, Span};

mod prints;

/// What is kept of a block.
#[derive(Clone, Copy, Debug)]
struct Light {
    cidr: Cidr,
    /// The number of its owner.
    owner: Option<u32>,
    /// The number of the pool it lies in.
    pool: Option<u32>,
    is_empty: bool,
    /// Where its addresses are.
    span: Span,
}

/// What all stages share.
#[derive(Debug)]
struct Common {
    hasher: RandomState,
    pools: Vec<IpPool>,
    clock: Clock,
    owners: BTreeMap<Owner, u32>,
    blocks: Vec<Light>,
    /// The handles that must come by, and have not yet.
    handles: Prints,
    /// The users that must come by with the address, and have not yet.
    users: Prints,
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
    fn print(&self, parts: &[&str], addr: Option<IpAddr>) -> u32 {
        Prints::of(self.hasher.hash_one((parts, addr)))
    }

    /// Returns the fingerprint of who must come by for the allocation to be in order.
    fn user(&self, held: &Allocation, holder: &Attributes) -> u32 {
        let fact = |key: &str| held.owner.get(key).map(String::as_str);
        let handle = held.handle.as_ref().map(uses::handle_name);
        if uses::is_respected(holder) {
            return if fact("pod").is_some() { NO_PROOF } else { NOTHING };
        }
        let addr = Some(held.addr);
        if fact("type").is_some_and(|kind| kind.ends_with("TunnelAddress")) {
            return fact("node").map_or(NO_PROOF, |node| self.print(&["tunnel", node], addr));
        }
        let is_service = fact("service").is_some();
        if let Some(handle) = handle.filter(|name| is_service || name.starts_with("lb-")) {
            return self.print(&["service", &handle], addr);
        }
        match (fact("namespace"), fact("pod"), fact("node")) {
            (Some(namespace), Some(pod), Some(node)) => {
                self.print(&["pod", namespace, pod, node], addr)
            }
            _ => NO_PROOF,
        }
    }

    fn block(&mut self, block: &Block) {
        let number = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        let owner = block.affinity.clone().map(|owner| self.number_of(owner));
        let pool = (0_u32..).zip(&self.pools).find(|(_, pool)| pool.cidr.covers(&block.cidr));
        let pool = pool.map(|(number, _)| number);
        let is_empty = slots::is_empty(block, self.clock);
        let len = block.allocations.len();
        let span = self.handles.add(len);
        // Both are filled alike.
        self.users.add(len);
        self.blocks.push(Light { cidr: block.cidr, owner, pool, is_empty, span });
        if pool.is_none() || owner.is_none() || check::damage(block).is_some() {
            self.suspect(number);
        }
        self.elsewhere.blocks = self.elsewhere.blocks.saturating_add(1);
        for (held, holder) in uses::allocations(block) {
            let name = held.handle.as_ref().map(uses::handle_name);
            let handle = name.map_or(NOTHING, |name| self.print(&["handle", &name], None));
            self.handles.demand(span, held.ordinal, handle);
            let user = self.user(&held, holder);
            self.users.demand(span, held.ordinal, user);
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

    /// Returns the numbers of the blocks in which something was not seen, and how often.
    fn open(&self, prints: &Prints) -> Vec<(u32, usize)> {
        let blocks = (0_u32..).zip(&self.blocks);
        let open = blocks.map(|(number, block)| (number, prints.open(block.span)));
        open.filter(|(_, count)| *count > 0).collect()
    }

    /// Blocks that share addresses, and empty ones whose owner has another block of the pool.
    fn suspect_by_place(&mut self) {
        let cidrs = self.blocks.iter().map(|block| block.cidr).collect();
        let nested: BTreeSet<Cidr> =
            check::nested(cidrs).into_iter().flat_map(|(one, other)| [one, other]).collect();
        let mut homes: BTreeMap<(Option<u32>, Option<u32>), (usize, bool)> = BTreeMap::new();
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
            handles: Prints::default(),
            users: Prints::default(),
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
        let print = self.common.print(&["handle", &name], None);
        let span = |cidr: &Cidr| Some(self.common.light(self.index.number(*cidr)?)?.span);
        let counted: Option<Vec<(Span, usize)>> = handle
            .blocks
            .iter()
            .map(|(cidr, count)| Some((span(cidr)?, usize::try_from(*count).ok()?)))
            .collect();
        let counted = counted.filter(|counted| {
            let handles = &self.common.handles;
            let is_right =
                |(span, count): &(Span, usize)| *count > 0 && handles.count(*span, print) == *count;
            !counted.is_empty() && counted.iter().all(is_right)
        });
        // What is not seen makes its block suspicious: also what the handle holds beside
        // the blocks that it counts.
        match counted {
            None => drop(self.suspicious.insert(handle.id.clone())),
            Some(counted) => {
                for (span, _) in &counted {
                    self.common.handles.see_all(*span, print);
                }
            }
        }
    }

    /// All handles have come by.
    #[must_use]
    pub fn done(self) -> Users {
        let Self { mut common, index, suspicious } = self;
        let handles = std::mem::take(&mut common.handles);
        for (number, _) in common.open(&handles) {
            common.suspect(number);
        }
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
            let print = self.common.print(&["pod", namespace, name, node.as_str()], Some(*addr));
            self.uses(*addr, print) || is_stray
        });
        if is_stray {
            self.pods.push(pod.clone());
        }
    }

    /// Takes note of a pod that is in another network, as far as it is known: what was given to
    /// itself is in use, and the rest of its addresses are not from here.
    pub fn foreign_pod(&mut self, pod: &PodUse) {
        let Some(node) = pod.node.as_ref().filter(|_| !pod.is_terminated) else { return };
        if !self.common.elsewhere.occupied.contains(node) {
            self.common.elsewhere.occupied.insert(node.clone());
        }
        let (namespace, name) = (&pod.pod.namespace, &pod.pod.name);
        for addr in &pod.addrs {
            let print = self.common.print(&["pod", namespace, name, node.as_str()], Some(*addr));
            self.see(*addr, print);
        }
    }

    /// Takes note of a tunnel's address.
    pub fn tunnel(&mut self, tunnel: &TunnelUse) {
        let print = self.common.print(&["tunnel", tunnel.node.as_str()], Some(tunnel.addr));
        self.uses(tunnel.addr, print);
    }

    /// Takes note of a Service of type `LoadBalancer`.
    pub fn service(&mut self, service: &ServiceUse) {
        let handle = uses::handle_name(&service.handle);
        for addr in &service.addrs {
            let print = self.common.print(&["service", &handle], Some(*addr));
            self.uses(*addr, print);
        }
    }

    /// Takes note of a use; returns whether no block gave the address to that user.
    fn uses(&mut self, addr: IpAddr, print: u32) -> bool {
        let (covering, is_known) = self.see(addr, print);
        if is_known || !self.common.pools.iter().any(|pool| pool.cidr.contains(addr)) {
            return false;
        }
        for number in covering {
            self.common.suspect(number);
        }
        self.common.elsewhere.strays.insert(addr);
        true
    }

    /// Takes note that a user came by; returns the blocks with the address, and whether one of them
    /// gave it to that user.
    fn see(&mut self, addr: IpAddr, print: u32) -> (Vec<u32>, bool) {
        let covering = self.index.covering(addr);
        let is_known = covering.iter().fold(false, |is_known, number| {
            let light = self.common.light(*number).copied();
            let place = light.and_then(|light| {
                let ordinal = u32::try_from(light.cidr.ordinal_of(addr)?).ok()?;
                Some((light.span, ordinal))
            });
            let users = &mut self.common.users;
            place.is_some_and(|(span, ordinal)| users.see(span, ordinal, print)) || is_known
        });
        (covering, is_known)
    }

    /// Everything has come by; `claims` and `nodes` are all that there are.
    #[must_use]
    pub fn done<'a>(
        self,
        claims: impl Iterator<Item = &'a Affinity>,
        nodes: &BTreeSet<NodeName>,
    ) -> Suspects {
        let Self { mut common, index, handles, pods } = self;
        for (number, count) in common.open(&common.users) {
            let unused = common.suspect(number);
            *unused = unused.saturating_add(count);
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
