//! STATUS: could a container get an address?
//!
//! An assignment is played up to its first write to a block or a claim, which proves that
//! there is a place; nothing is written. The search through a full cluster reads every
//! block, so its result is kept in a file beside the lock, for a minute or until this
//! node releases something.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use cni::NetworkConfig;
use ipam::{
    Assignment, Candidates, Failure, Machine, Op, Outcome, Record, Request, Scene, Selectors, Step,
    pools_for, seed_of,
};
use ledger::surroundings::{self, Surroundings};
use ledger::{Age, Driver};
use model::id::{HandleId, NodeName};
use model::net::{Cidr, Family};
use model::pool::{IpPool, Use};
use model::vrf::{VrfName, vrfs};
use tracing::warn;

use crate::Error;

/// How long it is believed that there is no address.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// Where it is kept that a network's pools are exhausted.
#[derive(Clone, Debug)]
pub struct Memory(PathBuf);

impl Memory {
    /// Returns that of the network which `config` describes.
    #[must_use]
    pub fn of(config: &NetworkConfig) -> Self {
        Self(config.ipam_lock_file.with_extension(format!("{}.exhausted", config.name)))
    }

    /// Forgets it: an address was given back.
    pub fn forget(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, path = %self.0.display(), "STATUS may miss for a minute that there is room");
        }
    }

    /// Returns the reason, if it is not old.
    fn recall(&self) -> Option<String> {
        let written = fs::metadata(&self.0).and_then(|file| file.modified()).ok()?;
        let is_recent = written.elapsed().is_ok_and(|age| age < BELIEVED_FOR);
        fs::read_to_string(&self.0).ok().filter(|_| is_recent)
    }

    fn keep(&self, reason: &str) {
        if let Err(error) = fs::write(&self.0, reason) {
            warn!(%error, path = %self.0.display(), "the next STATUS will search again");
        }
    }
}

/// Fails if no pod on `node` could get an address of each of `families`.
///
/// Pools for some namespaces, those of VRFs, and those that a pod must name, count as well.
///
/// # Errors
///
/// [`Error::Refused`] or [`Error::Exhausted`] with the reason, and what the datastore fails with.
pub async fn check(
    driver: &mut Driver,
    node: &NodeName,
    families: &[Family],
    memory: &Memory,
) -> Result<(), Error> {
    if let Some(reason) = memory.recall() {
        return Err(Error::Exhausted(reason));
    }
    let Err(error) = Box::pin(check_vrf(driver, node, families, None)).await else {
        memory.forget();
        return Ok(());
    };
    if !matches!(error, Error::Refused(_)) {
        return Err(error);
    }
    let pools = surroundings::read_pools(driver.client(), Age::Recent).await?;
    for vrf in vrfs(&pools).by_name.into_keys() {
        if Box::pin(check_vrf(driver, node, families, Some(vrf))).await.is_ok() {
            memory.forget();
            return Ok(());
        }
    }
    if matches!(error, Error::Refused(Failure::Exhausted { .. })) {
        memory.keep(&error.to_string());
    }
    Err(error)
}

/// Fails if no pod of a VRF, or of none, could get an address of each of `families`.
async fn check_vrf(
    driver: &mut Driver,
    node: &NodeName,
    families: &[Family],
    vrf: Option<VrfName>,
) -> Result<(), Error> {
    driver.enter_vrf(vrf);
    let (around, view) = Box::pin(Surroundings::read(driver, node, None, Age::Recent)).await?;
    for family in families {
        let scene = scene(&around, *family);
        if scene.pools.is_empty() {
            pools_for(&around.pools, *family, &candidates(node, &around))?;
        }
        let mut machine = Assignment::new(request(node, *family), scene, view.clone());
        search(driver, &mut machine).await??;
    }
    Ok(())
}

/// Plays `machine` until it would write a block or a claim, or gives up.
async fn search(
    driver: &mut Driver,
    machine: &mut Assignment,
) -> Result<Result<(), Failure>, Error> {
    loop {
        let ops = match machine.next() {
            Step::Act(ops) => ops,
            Step::Enter { before, inside } => [before, inside].concat(),
            Step::Done(_) => return Ok(Ok(())),
            Step::Failed(failure) => return Ok(Err(failure)),
        };
        let is_imagined = |op: &Op| match op {
            Op::Create(Record::Handle(_)) | Op::Update(Record::Handle(_)) => true,
            Op::Delete(key) => matches!(key, ipam::Key::Handle(_)),
            Op::Create(_) | Op::Update(_) | Op::Read(_) | Op::ListBlocks | Op::ListAffinities => {
                false
            }
        };
        let is_read = |op: &Op| matches!(op, Op::Read(_) | Op::ListBlocks | Op::ListAffinities);
        let (imagined, real): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(is_imagined);
        if !real.iter().all(is_read) {
            return Ok(Ok(()));
        }
        let answers = driver.act(real).await?;
        let imagined = imagined.into_iter().map(|op| (op, Outcome::Written));
        for (op, outcome) in imagined.chain(answers) {
            machine.feed(op, outcome);
        }
    }
}

fn request(node: &NodeName, family: Family) -> Request {
    Request {
        node: node.clone(),
        handle: HandleId("status".to_owned()),
        owner: BTreeMap::new(),
        family,
        addr: None,
        max_blocks: None,
        seed: seed_of(node),
    }
}

fn scene(around: &Surroundings, family: Family) -> Scene {
    let pools = usable(around, family);
    Scene {
        config: around.config,
        reserved: around.reserved.clone(),
        // Nothing is to be given up: that would be a write, and no place.
        selected: everything(family).into_iter().collect(),
        pools,
        newest_first: around.newest_first.clone(),
        now: ledger::now(),
    }
}

fn everything(family: Family) -> Option<Cidr> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    Cidr::containing(any, 0).ok()
}

fn candidates<'a>(node: &'a NodeName, around: &'a Surroundings) -> Candidates<'a> {
    Candidates {
        requested: &[],
        node,
        node_labels: &around.node_labels,
        namespace_labels: None,
        intended: Use::Workload,
        selectors: Selectors::OfRequestedIgnored,
    }
}

/// Returns the pools of which some pod of the node may get an address.
fn usable(around: &Surroundings, family: Family) -> Vec<IpPool> {
    let is_usable = |pool: &&IpPool| {
        pool.family() == family
            && !pool.is_disabled
            && pool.allowed_uses.allow(Use::Workload)
            && pool.node_selector.matches(&around.node_labels)
    };
    around.pools.iter().filter(is_usable).cloned().collect()
}
