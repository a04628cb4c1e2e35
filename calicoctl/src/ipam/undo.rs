//! The way back from a repair.
//!
//! The file is written before the first write, with each object as it was, and again after the
//! last, with the revisions that the writes made. Taking a repair back is as careful as the repair:
//! what is as the repair left it becomes what it was; of a block that others have written since,
//! the addresses return to their holders that nobody else has; everything else stays, and is said.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ipam::Record;
use ipam::audit::{Change, Plan};
use ipam::slots::{self, Clock};
use ledger::{Scene, Stored};
use model::block::Block;
use model::net::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::apply::{self, Outcome};
use super::moment;
use crate::Error;

/// What such a file calls itself.
const KIND: &str = "CalicoctlUndo";

/// The contents of an undo file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UndoFile {
    kind: String,
    /// When the repair was made (RFC 3339).
    pub time: String,
    /// The API server that it was made on.
    pub server: String,
    /// What was written, in order.
    pub steps: Vec<Step>,
}

/// What one write changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The write, for people.
    pub what: String,
    /// The object as it was; absent if it was created.
    pub before: Option<Value>,
    /// The object that was created.
    pub created: Option<Value>,
    /// The object's revision after the write, empty if it was deleted; absent if it is unknown.
    pub revision: Option<String>,
}

/// What to do to take a step back.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing: the write was never done.
    Nothing,
    /// Create this.
    Create(Stored),
    /// Put this in its place.
    Update(Stored),
    /// Delete this.
    Delete(Stored),
    /// Nothing, for this reason.
    Leave(String),
}

impl UndoFile {
    /// Prepares the way back from a plan.
    ///
    /// # Errors
    ///
    /// [`Error::Unprintable`].
    pub fn of(plan: &Plan, scene: &Scene, server: String) -> Result<Self, Error> {
        let step = |write: &ipam::audit::Write| {
            let before = scene.objects.get(&apply::key_of(write)).filter(|_| write.base.is_some());
            let created = match (&write.base, &write.change) {
                (None, Change::Put(record)) => {
                    Some(to_json(&Stored::of(record, scene.vrf.as_ref()))?)
                }
                _ => None,
            };
            Ok::<_, Error>(Step {
                what: apply::summary(write),
                before: before.map(to_json).transpose()?,
                created,
                revision: None,
            })
        };
        Ok(Self {
            kind: KIND.to_owned(),
            time: moment::text(scene.snapshot.now),
            server,
            steps: plan.writes.iter().map(step).collect::<Result<_, _>>()?,
        })
    }

    /// Notes how the writes went; what was not done needs no way back.
    pub fn note(&mut self, outcomes: &[Outcome]) {
        let steps = std::mem::take(&mut self.steps).into_iter().zip(outcomes);
        let kept = steps.filter_map(|(step, outcome)| match outcome {
            Outcome::Done(revision) => Some(Step { revision: Some(revision.clone()), ..step }),
            Outcome::Failed(_) => Some(step),
            Outcome::Changed | Outcome::Skipped => None,
        });
        self.steps = kept.collect();
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file: Self = super::from_json_file(path)?;
        if file.kind == KIND {
            return Ok(file);
        }
        let problem = format!("kind `{}`: name a file that `ipam repair` has written", file.kind);
        Err(Error::Unreadable { path: path.to_owned(), problem })
    }

    /// Writes a new file, which must not exist.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn create(&self, path: &Path) -> Result<(), Error> {
        self.write(path, path)
    }

    /// Writes the file anew, in one step.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn replace(&self, path: &Path) -> Result<(), Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        self.write(Path::new(&name), path)
    }

    fn write(&self, path: &Path, finally: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Unprintable(error.to_string()))?;
        let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        if path == finally { Ok(()) } else { std::fs::rename(path, finally).map_err(failed) }
    }
}

/// Decides how to take a step back, given the object as it is and the blocks that there are.
///
/// # Errors
///
/// [`Error::InvalidObject`] if the file or the object makes no sense.
pub fn decide(
    step: &Step,
    current: Option<&Stored>,
    blocks: &[Cidr],
    clock: Clock,
) -> Result<Action, Error> {
    let before = step.before.as_ref().map(from_json).transpose()?;
    let is_untouched =
        |current: &Stored| step.revision.as_deref().is_some_and(|left| left == current.revision());
    match (before, current) {
        (None, None) => Ok(Action::Nothing),
        (None, Some(current)) if is_untouched(current) => Ok(Action::Delete(current.clone())),
        (Some(before), None) => recreated(&before, blocks),
        (Some(before), Some(current)) if before.revision() == current.revision() => {
            Ok(Action::Nothing)
        }
        (Some(before), Some(current)) => match (before.record()?, current.record()?) {
            (Record::Block(was), Record::Block(is)) => {
                Ok(restored(&was, &is, current, (is_untouched(current), clock)))
            }
            (was, _) if is_untouched(current) => Ok(Action::Update(current.with(&was))),
            _ => Ok(Action::Leave("it was written since".to_owned())),
        },
        (None, Some(_)) => Ok(Action::Leave("it was written since".to_owned())),
    }
}

/// Makes an object again, but no block in which addresses would be taken twice.
fn recreated(before: &Stored, blocks: &[Cidr]) -> Result<Action, Error> {
    if let Record::Block(block) = before.record()? {
        let is_held = block.allocations.iter().any(Option::is_some);
        let other =
            blocks.iter().find(|other| **other != block.cidr && other.overlaps(&block.cidr));
        if let (true, Some(other)) = (is_held, other) {
            return Ok(Action::Leave(format!("block {other} has these addresses now")));
        }
    }
    Ok(Action::Create(before.detached()))
}

/// Gives addresses back to those who had them, as far as nobody else has them now; a block that
/// nobody has written since becomes all that it was.
fn restored(
    was: &Block,
    is: &Block,
    current: &Stored,
    (is_untouched, clock): (bool, Clock),
) -> Action {
    let mut block = is.clone();
    let mut lost = Vec::new();
    for ordinal in 0..u32::try_from(was.allocations.len()).unwrap_or(u32::MAX) {
        let Some(holder) = slots::holder(was, ordinal) else { continue };
        if slots::holder(&block, ordinal) == Some(holder) {
            continue;
        }
        match slots::allocate(&block, ordinal, holder, clock) {
            Some(given) => block = given,
            None => lost.extend(slots::address(&block, ordinal).map(|addr| addr.to_string())),
        }
    }
    if is_untouched {
        block.affinity.clone_from(&was.affinity);
        block.claimed_at = was.claimed_at;
    }
    if block == *is {
        let reason = match lost.as_slice() {
            [] => "it was written since".to_owned(),
            some => format!("{} went to others since", some.join(", ")),
        };
        return Action::Leave(reason);
    }
    Action::Update(current.with(&Record::Block(block)))
}

/// Returns an object as JSON.
fn to_json(object: &Stored) -> Result<Value, Error> {
    let json = match object {
        Stored::Block(object) => serde_json::to_value(object),
        Stored::Affinity(object) => serde_json::to_value(object),
        Stored::Handle(object) => serde_json::to_value(object),
    };
    json.map_err(|error| Error::Unprintable(error.to_string()))
}

/// Reads an object of one of the three kinds that are repaired.
///
/// # Errors
///
/// [`Error::InvalidObject`], and [`Error::Refused`] for another kind.
pub(super) fn from_json(json: &Value) -> Result<Stored, Error> {
    let kind = json.get("kind").and_then(Value::as_str).unwrap_or_default();
    Ok(match kind {
        "IPAMBlock" => Stored::Block(Box::new(api::IpamBlock::from_json(json)?)),
        "BlockAffinity" => Stored::Affinity(Box::new(api::BlockAffinity::from_json(json)?)),
        "IPAMHandle" => Stored::Handle(Box::new(api::IpamHandle::from_json(json)?)),
        other => {
            let kinds = "IPAMBlock, BlockAffinity or IPAMHandle";
            return Err(Error::Refused(format!("kind `{other}` is not repaired: use {kinds}")));
        }
    })
}

#[cfg(test)]
mod tests;
