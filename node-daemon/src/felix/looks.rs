//! When to look at what the kernel holds: the clock of the loops that keep a part of it as wanted.
//!
//! They look when something else is wanted, soon after the kernel has changed, again after a
//! failure, and now and then, since somebody may have changed what nobody is told of.

use std::time::{Duration, Instant};

use ::kernel::monitor::{Monitor, Topic};
use ::kernel::netlink::Error;
use tokio::sync::watch;

/// How often all is looked at though nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the kernel may change before it is looked at: one look for a burst.
const SETTLE: Duration = Duration::from_millis(20);
/// How soon what has failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What came of a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// All is as it should be.
    Done,
    /// All is, but more is to be done at this time.
    Until(Instant),
    /// Something is not, and is tried again.
    Failed,
    /// There is nothing, and nothing to look after until something else is wanted.
    Idle,
}

/// The looks of one loop, in time.
#[derive(Debug)]
pub(crate) struct Looks<T> {
    /// As long as it is `None` nobody knows what should be, and there are no looks.
    wanted: watch::Receiver<Option<T>>,
    monitor: Monitor,
    /// When the next is due; without one, when something else is wanted.
    next: Option<Instant>,
}

impl<T: Clone> Looks<T> {
    /// Has looks at what is wanted, and at these parts of the kernel.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel cannot be talked to at all.
    pub(crate) fn open(
        wanted: watch::Receiver<Option<T>>,
        topics: &[Topic],
    ) -> Result<Self, Error> {
        let monitor = Monitor::open(topics)?;
        Ok(Self { wanted, monitor, next: Some(Instant::now()) })
    }

    /// Waits until a look is due, and returns what should be; nothing when nobody is left to
    /// say so. Say what came of it by [`Looks::looked`].
    ///
    /// A future dropped while it waits loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel no longer tells of changes.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            let due = self.next;
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.next = Some(Instant::now()),
                    Err(_) => return Ok(None),
                },
                heard = self.monitor.next_batch() => {
                    heard?;
                    self.next = due.map(|due| due.min(after(SETTLE)));
                }
                () = until(due) => {
                    let wanted = self.wanted.borrow_and_update().clone();
                    self.next = wanted.is_some().then(|| after(RETRY));
                    if let Some(wanted) = wanted {
                        return Ok(Some(wanted));
                    }
                }
            }
        }
    }

    /// Returns what should be, if anybody knows.
    pub(crate) fn wanted(&self) -> Option<T> {
        self.wanted.borrow().clone()
    }

    /// Takes note of what came of the last look.
    pub(crate) fn looked(&mut self, outcome: Outcome) {
        self.next = match outcome {
            Outcome::Done => Some(after(LOOK_EVERY)),
            Outcome::Until(at) => Some(at.min(after(LOOK_EVERY))),
            Outcome::Failed => Some(after(RETRY)),
            Outcome::Idle => None,
        };
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns the time that is so much later than now.
pub(crate) fn after(time: Duration) -> Instant {
    Instant::now().checked_add(time).unwrap_or_else(Instant::now)
}
