//! The recent events, for all watchers together, in a bounded part of the memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::query::Position;
use super::{Event, Revision, Scope};

/// What one look at the recent events may take with it: events and their bytes.
const HANDFUL: (usize, usize) = (64, 64 << 10);

/// What the writer tells the watchers.
#[derive(Debug)]
pub(super) struct Hub {
    recent: Mutex<Recent>,
    /// How many bytes of events stay.
    bound: usize,
    news: watch::Sender<News>,
}

/// What wakes the watchers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// The latest revision.
    Head(Revision),
    /// There will be no other one.
    Closed,
}

/// The last events without a gap: the one after `start` is the first.
#[derive(Debug)]
struct Recent {
    events: VecDeque<Arc<Event>>,
    start: Revision,
    size: usize,
    compacted: Revision,
}

/// What a watcher finds after the last revision that it saw.
#[derive(Debug)]
pub(super) enum Found {
    /// Some events of the scope, and how far that reaches.
    Events(VecDeque<Arc<Event>>, Revision),
    /// It saw all there is.
    Nothing,
    /// Those events are not in memory any more.
    Older,
}

impl Hub {
    pub(super) fn new(position: Position, bound: usize) -> Self {
        let Position { head, compacted } = position;
        let recent = Recent { events: VecDeque::new(), start: head, size: 0, compacted };
        Self { recent: Mutex::new(recent), bound, news: watch::Sender::new(News::Head(head)) }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where the history that watchers know begins and ends.
    pub(super) fn position(&self) -> Position {
        let recent = self.recent();
        Position { head: recent.head(), compacted: recent.compacted }
    }

    /// Returns what tells a watcher that there is something new.
    pub(super) fn subscribe(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Makes known what was committed.
    pub(super) fn publish(&self, events: Vec<Arc<Event>>, compacted: Revision) {
        let head = {
            let mut recent = self.recent();
            recent.compacted = compacted;
            for event in events {
                recent.push(event, self.bound);
            }
            recent.head()
        };
        let news = News::Head(head);
        self.news.send_if_modified(|known| std::mem::replace(known, news) != news);
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        self.news.send_replace(News::Closed);
    }

    /// Looks for events of a scope after a revision.
    pub(super) fn after(&self, scope: &Scope, seen: Revision) -> Found {
        self.recent().after(scope, seen)
    }
}

impl Recent {
    fn head(&self) -> Revision {
        self.events.back().map_or(self.start, |event| event.revision)
    }

    fn push(&mut self, event: Arc<Event>, bound: usize) {
        self.size = self.size.saturating_add(event.size());
        self.events.push_back(event);
        // The last one stays: it tells the latest revision.
        while self.size > bound && self.events.len() > 1 {
            let Some(gone) = self.events.pop_front() else { break };
            self.size = self.size.saturating_sub(gone.size());
            self.start = gone.revision;
        }
    }

    fn after(&self, scope: &Scope, seen: Revision) -> Found {
        if seen >= self.head() {
            return Found::Nothing;
        }
        // Revisions have no gaps, so the distance is the index.
        let Some(skip) = seen.checked_sub(self.start) else { return Found::Older };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let (mut found, mut through, mut size) = (VecDeque::new(), seen, 0_usize);
        for event in self.events.iter().skip(skip) {
            through = event.revision;
            if !scope.contains(&event.entry.key) {
                continue;
            }
            size = size.saturating_add(event.size());
            found.push_back(Arc::clone(event));
            if found.len() >= HANDFUL.0 || size >= HANDFUL.1 {
                break;
            }
        }
        Found::Events(found, through)
    }
}
