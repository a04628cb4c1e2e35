//! Watch: what there is, if asked for, and then every change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Service, Target};
use crate::status::Status;
use crate::store::{Entry, Store, Watch};
use crate::verb::ListOptions;
use crate::verb::list::{self, Filter};
use crate::verb::watch::{self, Kind};

/// How often a quiet watch tells how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch tells how far it is.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How many objects of the beginning are in memory at once.
const PAGE: usize = 500;

/// One event of a watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamEvent {
    /// What happened.
    pub kind: Kind,
    /// The object, or a Status.
    pub json: Arc<[u8]>,
}

impl StreamEvent {
    /// Writes the event as a line of a stream.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = format!(r#"{{"type":"{}","object":"#, self.kind.as_str()).into_bytes();
        json.extend_from_slice(&self.json);
        json.extend_from_slice(b"}\n");
        json
    }
}

/// A watch; it holds a page of events at most, however slowly it is read.
pub struct Stream {
    target: Target,
    store: Store,
    filter: Filter,
    watch: Watch,
    /// The objects of the beginning that are still to come.
    initial: Option<Initial>,
    bookmarks: Option<Instant>,
    is_bookmarked_at_end: bool,
    end: Option<Instant>,
    is_over: bool,
}

struct Initial {
    revision: u64,
    found: VecDeque<Entry>,
    after: Option<(String, String)>,
    is_last: bool,
    ends_with_bookmark: bool,
}

enum Next {
    Event(Result<Arc<crate::store::Event>, Status>),
    Bookmark,
    End,
}

impl Service {
    /// Begins a watch.
    ///
    /// # Errors
    ///
    /// 400 for selectors that are none, 500 for a revision that is none.
    pub async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Stream, Status> {
        let filter = Filter::parse(&target.resource, options)?;
        let asked = list::plain_revision(options.resource_version.as_deref())?;
        let current = self.store.read(|snapshot| Ok(snapshot.revision())).await?;
        let begins = options.send_initial_events.unwrap_or(asked == 0);
        if begins && asked > current {
            return Err(Status::too_large_revision(asked, current));
        }
        let initial = begins.then(|| Initial {
            revision: current,
            found: VecDeque::new(),
            after: None,
            is_last: false,
            ends_with_bookmark: options.send_initial_events == Some(true)
                && options.allow_bookmarks,
        });
        let from = if begins || asked == 0 { current } else { asked };
        let now = Instant::now();
        let end = options.timeout.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
        Ok(Stream {
            watch: self.store.watch(target.scope(&filter), from),
            target: target.clone(),
            store: self.store.clone(),
            filter,
            initial,
            bookmarks: options.allow_bookmarks.then(|| next_bookmark(now)).flatten(),
            is_bookmarked_at_end: !options.allow_bookmarks,
            end,
            is_over: false,
        })
    }
}

fn next_bookmark(now: Instant) -> Option<Instant> {
    now.checked_add(BOOKMARK_EVERY)
}

impl Stream {
    /// Waits for the next event; `None` is the end. May be given up at any time.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        if self.is_over {
            return None;
        }
        let event = self.step().await;
        match event {
            Ok(Some(event)) => Some(event),
            Ok(None) => {
                self.is_over = true;
                None
            }
            Err(status) => {
                self.is_over = true;
                let json = serde_json::to_vec(&status.body()).unwrap_or_default().into();
                Some(StreamEvent { kind: Kind::Error, json })
            }
        }
    }

    async fn step(&mut self) -> Result<Option<StreamEvent>, Status> {
        loop {
            if self.initial.is_some() {
                if let Some(event) = self.next_initial().await? {
                    return Ok(Some(event));
                }
                continue;
            }
            match self.wait().await {
                Next::Event(event) => {
                    let event = event?;
                    if let Some((kind, json)) = watch::seen(&self.filter, &event)? {
                        let json = super::read::shown(&self.target.resource, json)?;
                        return Ok(Some(StreamEvent { kind, json }));
                    }
                }
                Next::Bookmark => {
                    self.bookmarks = next_bookmark(Instant::now());
                    return self.bookmark(self.watch.revision(), false).map(Some);
                }
                Next::End if !self.is_bookmarked_at_end => {
                    self.is_bookmarked_at_end = true;
                    return self.bookmark(self.watch.revision(), false).map(Some);
                }
                Next::End => return Ok(None),
            }
        }
    }

    /// Waits for what comes first: a change, the time for a bookmark, the end.
    async fn wait(&mut self) -> Next {
        let end = self.end;
        let before_end = end.and_then(|end| end.checked_sub(BOOKMARK_BEFORE_END));
        let end = if self.is_bookmarked_at_end { end } else { before_end.or(end) };
        let bookmark = self.bookmarks;
        tokio::select! {
            event = self.watch.next() => Next::Event(event),
            () = until(end) => Next::End,
            () = until(bookmark) => Next::Bookmark,
        }
    }

    /// Takes the next object of the beginning, page by page; the last one may be a bookmark.
    async fn next_initial(&mut self) -> Result<Option<StreamEvent>, Status> {
        let Some(initial) = &mut self.initial else { return Ok(None) };
        while let Some(entry) = initial.found.pop_front() {
            if self.filter.matches_json(&entry.json)? {
                let json = super::read::shown(&self.target.resource, entry.json)?;
                return Ok(Some(StreamEvent { kind: Kind::Added, json }));
            }
        }
        if initial.is_last {
            let (revision, bookmarks) = (initial.revision, initial.ends_with_bookmark);
            self.initial = None;
            return if bookmarks { self.bookmark(revision, true).map(Some) } else { Ok(None) };
        }
        let (scope, revision, after) =
            (self.target.scope(&self.filter), initial.revision, initial.after.clone());
        let read = self.store.read(move |snapshot| {
            let after = after.as_ref().map(|(namespace, name)| (&**namespace, &**name));
            snapshot.page(&scope, Some(revision), after, Some(PAGE))
        });
        let page = read.await?;
        initial.is_last = page.remaining.is_none();
        initial.after = page
            .entries
            .last()
            .map(|entry| (entry.key.namespace.to_string(), entry.key.name.to_string()));
        initial.found = page.entries.into();
        Ok(None)
    }

    fn bookmark(&self, revision: u64, ends_initial: bool) -> Result<StreamEvent, Status> {
        let object = watch::bookmark(&self.target.resource, revision, ends_initial);
        Ok(StreamEvent { kind: Kind::Bookmark, json: watch::to_json(&object)? })
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("target", &self.target).finish_non_exhaustive()
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
