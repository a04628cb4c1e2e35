//! A watcher: a cursor in the history, and never more than a handful of events.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::hub::{Found, Hub, News};
use super::query::{self, Reach};
use super::readers::Readers;
use super::{Event, Revision, Scope, error};
use crate::{Reason, Status};

/// How much of the history a watcher reads at once when it is behind what is in memory.
const REACH: Reach = Reach { revisions: 1000, bytes: 64 << 10 };

/// Every change of a scope after a revision, in order, without end.
pub struct Watch {
    scope: Scope,
    hub: Arc<Hub>,
    readers: Readers,
    news: watch::Receiver<News>,
    /// Events that were found and not returned yet.
    found: VecDeque<Arc<Event>>,
    /// The revision up to which events were found.
    seen: Revision,
    /// The history begins after `seen`.
    expired: bool,
}

impl Watch {
    pub(super) fn new(scope: Scope, from: Revision, hub: Arc<Hub>, readers: Readers) -> Self {
        let news = hub.subscribe();
        let expired = from < hub.position().compacted;
        Self { scope, hub, readers, news, found: VecDeque::new(), seen: from, expired }
    }

    /// Waits for the next event. May be given up at any time; nothing is lost.
    ///
    /// # Errors
    ///
    /// 410 Expired if what comes next was compacted, 503 if the store was closed,
    /// 500 if the disk fails.
    pub async fn next(&mut self) -> Result<Arc<Event>, Status> {
        loop {
            if let Some(event) = self.found.pop_front() {
                return Ok(event);
            }
            if self.expired {
                return Err(too_old(self.seen, self.hub.position().compacted));
            }
            let news = *self.news.borrow_and_update();
            match self.hub.after(&self.scope, self.seen) {
                Found::Events(found, through) => (self.found, self.seen) = (found, through),
                Found::Older => self.page().await?,
                Found::Nothing if news == News::Closed => return Err(closed()),
                Found::Nothing => self.news.changed().await.map_err(|_| closed())?,
            }
        }
    }

    /// Returns the revision up to which every event was returned.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.found.front().map_or(self.seen, |event| event.revision.saturating_sub(1))
    }

    /// Finds events that are not in memory any more.
    async fn page(&mut self) -> Result<(), Status> {
        let (scope, seen) = (self.scope.clone(), self.seen);
        let stretch = self.readers.read(move |snapshot| {
            if seen < snapshot.compacted() {
                return Err(too_old(seen, snapshot.compacted()));
            }
            let stretch = query::events(snapshot.connection, &scope, seen, REACH);
            stretch.map_err(|e| error::failure(&e))
        });
        let stretch = stretch.await?;
        self.found = stretch.events.into_iter().map(Arc::new).collect();
        self.seen = stretch.through;
        Ok(())
    }
}

fn closed() -> Status {
    error::unavailable("the datastore is closed")
}

fn too_old(seen: Revision, compacted: Revision) -> Status {
    let message = format!("too old resource version: {seen} ({compacted})");
    Status::new(410, Reason::Expired, message)
}
