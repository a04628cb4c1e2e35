//! One history: clients, what they want, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::{
    AddressRelease, Assigned, Assignment, Expected, Failure, Machine, Op, Outcome, Release,
    Request, Scene, Step, View, seed_of, slots,
};
use model::block::{Block, IpamConfig};
use model::id::{HandleId, NodeName};
use model::net::{Cidr, Family};
use model::pool::IpPool;
use model::time::WallTime;

use crate::collector::{self, Cluster};
use crate::common::store::{Revisions, Store};
use crate::common::{brief, brief_outcome, pool};

/// How much of a failed history is told.
const LINES: usize = 200;

/// How often things go wrong, in percent of all requests or steps.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) crash: u64,
    /// Do the clients see the pool with different block sizes?
    pub(crate) is_block_len_mixed: bool,
}

/// Steele, Lea and Flood's `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

enum Task {
    Assign(Box<Assignment>),
    Release(Release),
    ReleaseAddress(AddressRelease),
}

enum End {
    Assigned(Assigned),
    Released,

    Failed(Failure),
}

impl Task {
    /// Returns the requests of the next step, or how it ended.
    fn next(&mut self) -> Result<Vec<Op>, End> {
        fn ops<T>(step: Step<T>, end: impl Fn(T) -> End) -> Result<Vec<Op>, End> {
            match step {
                Step::Act(ops) => Ok(ops),
                Step::Enter { before, inside } => Ok([before, inside].concat()),
                Step::Done(done) => Err(end(done)),
                Step::Failed(failure) => Err(End::Failed(failure)),
            }
        }
        match self {
            Self::Assign(machine) => ops(machine.next(), End::Assigned),
            Self::Release(machine) => ops(machine.next(), |_| End::Released),
            Self::ReleaseAddress(machine) => ops(machine.next(), |_| End::Released),
        }
    }

    fn feed(&mut self, op: Op, outcome: Outcome) {
        match self {
            Self::Assign(machine) => machine.feed(op, outcome),
            Self::Release(machine) => machine.feed(op, outcome),
            Self::ReleaseAddress(machine) => machine.feed(op, outcome),
        }
    }
}

struct Client {
    node: String,
    task: Option<Task>,
    handle: HandleId,
    pending: Vec<Op>,
    revisions: Revisions,
    tasks_left: usize,
    /// Handles that this client got addresses for, or tried to.
    handles: Vec<HandleId>,
}

/// A write whose sender no longer waits for it.
type InFlight = (Op, Revisions);

pub(crate) struct World {
    seed: u64,
    random: Random,
    faults: Faults,
    config: IpamConfig,
    reserved: Vec<Cidr>,
    pools: Vec<IpPool>,
    store: Store,
    clients: Vec<Client>,
    in_flight: Vec<InFlight>,
    /// Addresses whose owners were told so and have not begun to release them.
    live: BTreeMap<IpAddr, HandleId>,
    handles: BTreeSet<HandleId>,
    now: WallTime,
    log: Vec<String>,
}

impl Drop for World {
    /// Tells the end of a history that failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = self.log.len().saturating_sub(LINES);
            eprintln!("history {}:\n{}", self.seed, self.log[told..].join("\n"));
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut random = Random(seed);
        let config = IpamConfig {
            is_strict_affinity: random.percent(30),
            auto_allocate_blocks: true,
            max_blocks_per_host: [20, 20, 2, 1][random.below(4)],
            cooldown: Duration::from_secs([0, 0, 0, 5][random.below(4)]),
        };
        let reserved = if random.percent(30) { vec!["10.0.0.5/32", "10.0.0.8/30"] } else { vec![] };
        let pools = [("a", "10.0.0.0/28", 30), ("b", "10.0.1.0/29", 31)];
        let pools = pools[..=random.below(2)].iter();
        let mut world = Self {
            seed,
            faults,
            config,
            reserved: reserved.into_iter().map(|cidr| cidr.parse().unwrap()).collect(),
            pools: pools.map(|(name, cidr, len)| pool(name, cidr, *len)).collect(),
            store: Store::default(),
            clients: Vec::new(),
            in_flight: Vec::new(),
            live: BTreeMap::new(),
            handles: BTreeSet::new(),
            now: WallTime(1_700_000_000_000_000_000),
            log: Vec::new(),
            random,
        };
        for number in 0..2 + world.random.below(5) {
            let client = Client {
                node: format!("n{}", number % (1 + world.random.below(3))),
                task: None,
                handle: HandleId(String::new()),
                pending: Vec::new(),
                revisions: Revisions::new(),
                tasks_left: 1 + world.random.below(6),
                handles: Vec::new(),
            };
            world.clients.push(client);
        }
        world
    }

    /// Runs the history to its end and checks what is left.
    pub(crate) fn run(mut self) {
        let mut ticks = 0;
        while self.clients.iter().any(|client| client.task.is_some() || client.tasks_left > 0) {
            self.tick();
            ticks += 1;
            assert!(ticks < 20_000, "history {} does not end", self.seed);
        }
        while !self.in_flight.is_empty() {
            self.deliver();
        }
        self.store.check_handles_lead_to_addresses();
        self.collect();
        self.repair();
        for block in self.store.blocks() {
            let held: Vec<_> =
                block.attributes.iter().filter(|one| one.released_at.is_none()).collect();
            assert!(held.is_empty(), "history {}: lost {held:?}", self.seed);
        }
        assert_eq!(self.store.handle_count(), 0, "history {}", self.seed);
    }

    fn tick(&mut self) {
        self.now.0 += i128::from(self.random.next() % 2_000_000_000);
        if self.random.percent(1) {
            self.now.0 += 70_000_000_000;
        }
        if !self.in_flight.is_empty() && self.random.percent(20) {
            return self.deliver();
        }
        let at = self.random.below(self.clients.len());
        if self.clients[at].task.is_none() {
            return self.begin(at);
        }
        if self.clients[at].pending.is_empty() {
            let task = self.clients[at].task.as_mut().unwrap();
            match task.next() {
                Ok(ops) => self.clients[at].pending = ops,
                Err(end) => return self.end(at, &end),
            }
        }
        if self.random.percent(self.faults.crash) {
            return self.crash(at);
        }
        self.request(at);
    }

    /// Carries out one of the client's requests, in any order.
    fn request(&mut self, at: usize) {
        let is_lost = self.random.percent(self.faults.lost);
        let is_done = self.random.percent(50);
        let index = self.random.below(self.clients[at].pending.len());
        let client = &mut self.clients[at];
        let op = client.pending.swap_remove(index);
        let is_write = matches!(op, Op::Create(_) | Op::Update(_) | Op::Delete(_));
        self.log.push(format!("{at}: {}", brief(&op)));
        let outcome = if is_lost && is_write {
            if is_done {
                self.store.apply(&op, &mut client.revisions.clone());
            } else {
                self.in_flight.push((op.clone(), client.revisions.clone()));
            }
            Outcome::Lost
        } else {
            self.store.apply(&op, &mut client.revisions)
        };
        self.log.push(format!("   {}", brief_outcome(&outcome)));
        client.task.as_mut().unwrap().feed(op, outcome);
    }

    /// The client is gone; what it had sent may still arrive.
    fn crash(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.task = None;
        self.log.push(format!("{at}: dies"));
        for op in std::mem::take(&mut client.pending) {
            self.in_flight.push((op, client.revisions.clone()));
        }
        client.revisions.clear();
    }

    fn deliver(&mut self) {
        let index = self.random.below(self.in_flight.len());
        let (op, mut revisions) = self.in_flight.swap_remove(index);
        if self.random.percent(80) {
            let outcome = self.store.apply(&op, &mut revisions);
            self.log.push(format!("late: {} {}", brief(&op), brief_outcome(&outcome)));
        }
    }

    fn begin(&mut self, at: usize) {
        if self.clients[at].tasks_left == 0 {
            return;
        }
        self.clients[at].tasks_left -= 1;
        let known = self.clients[at].handles.len();
        let choice = self.random.below(10);
        self.log.push(format!("{at} on {}: begins", self.clients[at].node));
        let task = if known > 0 && choice < 4 {
            let index = self.random.below(known);
            let handle = self.clients[at].handles.swap_remove(index);
            self.clients[at].handle = handle.clone();
            let held =
                self.live.iter().find(|(_, holder)| **holder == handle).map(|(addr, _)| *addr);
            self.live.retain(|_, holder| *holder != handle);
            match held {
                Some(addr) if self.random.percent(30) => {
                    let expected = Expected { handle: Some(handle), sequence_number: None };
                    let machine = AddressRelease::new(addr, expected, &self.config, self.now);
                    Task::ReleaseAddress(machine)
                }
                _ => Task::Release(Release::new(handle, &self.config, self.now)),
            }
        } else {
            if known == 0 || choice < 8 {
                let number = self.handles.len();
                self.clients[at].handles.push(HandleId(format!("net.{number}")));
            }
            // Or once more for the last handle, as a runtime that retries.
            let handle = self.clients[at].handles.last().unwrap().clone();
            self.handles.insert(handle.clone());
            self.clients[at].handle = handle.clone();
            Task::Assign(Box::new(self.assignment(at, handle)))
        };
        self.clients[at].task = Some(task);
    }

    fn assignment(&mut self, at: usize, handle: HandleId) -> Assignment {
        let node = self.clients[at].node.parse().unwrap();
        let is_explicit = self.random.percent(15);
        let last_octet = u8::try_from(self.random.below(16)).unwrap();
        let mut pools = self.pools.clone();
        if self.faults.is_block_len_mixed {
            pools[0].block_len = [29, 30, 31][self.random.below(3)];
        }
        let facts =
            [("node", &self.clients[at].node), ("namespace", &"ns".to_owned()), ("pod", &handle.0)]
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .into();
        let request = Request {
            seed: seed_of(&node),
            node,
            handle,
            owner: facts,
            family: Family::V4,
            addr: is_explicit.then(|| [10, 0, 0, last_octet].into()),
            max_blocks: None,
        };
        let scene = Scene {
            config: self.config,
            reserved: self.reserved.clone(),
            selected: pools.iter().map(|pool| pool.cidr).collect(),
            pools,
            newest_first: self.some_blocks(),
            now: self.now,
        };
        let mut view = View::default();
        let listed = self.store.apply(&Op::ListAffinities, &mut self.clients[at].revisions);
        view.feed(Op::ListAffinities, listed);
        Assignment::new(request, scene, view)
    }

    /// Returns some blocks in any order, as what was read long ago.
    fn some_blocks(&mut self) -> Vec<Cidr> {
        let mut blocks: Vec<Cidr> = self.store.blocks().map(|block| block.cidr).collect();
        let mut some = Vec::new();
        while !blocks.is_empty() && self.random.percent(80) {
            let index = self.random.below(blocks.len());
            some.push(blocks.swap_remove(index));
        }
        some
    }

    fn end(&mut self, at: usize, end: &End) {
        let client = &mut self.clients[at];
        client.task = None;
        let handle = client.handle.clone();
        match end {
            End::Assigned(Assigned { addr, block }) => {
                let found = self.store.blocks().find(|one| one.cidr == *block).unwrap();
                let held = slots::held_by(found, &handle);
                assert!(
                    held.iter().any(|ordinal| slots::address(found, *ordinal) == Some(*addr)),
                    "history {}: {handle} was told {addr} and does not hold it",
                    self.seed
                );
                if let Some(other) = self.live.insert(*addr, handle.clone()) {
                    assert_eq!(other, handle, "history {}: {addr} was given twice", self.seed);
                }
            }
            End::Failed(Failure::Contention { attempts }) => {
                panic!("history {}: gave up after {attempts}", self.seed)
            }
            End::Released | End::Failed(_) => {}
        }
    }

    /// Collects what the dead left, as kube-controllers does when all is quiet.
    fn collect(&mut self) {
        let nodes: Vec<NodeName> =
            ["n0", "n1", "n2"].iter().map(|name| name.parse().unwrap()).collect();
        let node_of = |handle: &HandleId| {
            let client = self.clients.iter().find(|client| client.handles.contains(handle));
            client.unwrap().node.parse().unwrap()
        };
        let live = self.live.iter();
        let live = live.map(|(addr, handle)| (*addr, (handle.clone(), node_of(handle)))).collect();
        let cluster = Cluster {
            pools: &self.pools,
            config: self.config,
            now: self.now,
            live: &live,
            nodes: &nodes,
        };
        collector::collect(&mut self.store, &cluster);
        self.store.check_handles_lead_to_addresses();
        for (addr, (handle, _)) in &live {
            let holds = |block: &Block| {
                let held = slots::held_by(block, handle);
                held.iter().any(|ordinal| slots::address(block, *ordinal) == Some(*addr))
            };
            assert!(self.store.blocks().any(holds), "history {}: {addr} was freed", self.seed);
        }
    }

    /// Releases every handle, as a repair does, without faults.
    fn repair(&mut self) {
        for handle in std::mem::take(&mut self.handles) {
            let mut task = Task::Release(Release::new(handle, &self.config, self.now));
            let mut revisions = Revisions::new();
            loop {
                match task.next() {
                    Ok(ops) => {
                        for op in ops {
                            let outcome = self.store.apply(&op, &mut revisions);
                            task.feed(op, outcome);
                        }
                    }
                    Err(End::Released) => break,
                    Err(End::Failed(failure)) => panic!("history {}: {failure}", self.seed),
                    Err(End::Assigned(_)) => unreachable!(),
                }
            }
        }
    }
}
