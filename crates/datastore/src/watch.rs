//! Watches that never end: list, watch, resume, and list again when the history is gone.
//!
//! `kube::runtime::watcher` does the protocol. Around it, this module reads objects one at a
//! time, waits with jitter between failures, and starts over when the server's history does not
//! reach back to where we were.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, Stream, StreamExt as _};
use kube::runtime::watcher;
use tokio::sync::Mutex;

use crate::client::{Client, Filter, Object};
use crate::error::{Error, Target};
use crate::item::{Item, ObjectKey};
use crate::request::from_kube;
use crate::transport::{Failure, Shared};

/// The wait after the first failure.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// The longest wait, so that a node is current within ten seconds after an outage.
const LAST_DELAY: Duration = Duration::from_secs(8);

/// The longest wait for a kind that the server does not know: nobody waits for one that may never
/// come, and a thousand nodes ask for it.
const UNKNOWN_DELAY: Duration = Duration::from_secs(120);

/// How long the server keeps one watch open before it is resumed. The watcher gives up on one
/// that is silent for longer than this.
const WATCH_SECONDS: u32 = 290;

/// Failures in a row after which the watch is listed again instead of resumed.
const RESUME_ATTEMPTS: u32 = 5;

/// The least time between two starts of one watch, in case a proxy ends each at once.
const START_PERIOD: Duration = Duration::from_millis(500);

/// What a watch reports, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum WatchEvent<T> {
    /// A list begins; one that was begun and not done is void.
    Init,
    /// An object of the list.
    InitApply(T),
    /// The list is complete: what was known before and is not in it is gone.
    InitDone,
    /// An object was created or changed.
    Apply(T),
    /// An object was deleted.
    Delete(ObjectKey),
    /// An object is there but cannot be read, until it changes.
    Invalid {
        /// Which one.
        key: ObjectKey,
        /// [`Error::Invalid`] with the field and the reason.
        error: Error,
    },
    /// The server could not be asked; the watch is retried by itself after a while.
    Failed(Error),
}

/// Watches the objects of `filter`; see [`Client::watch`].
pub(crate) fn watch<T: Object>(
    client: Client,
    filter: Filter,
) -> impl Stream<Item = WatchEvent<T>> + Send {
    let target = client.target::<T>("watch", filter.namespace.as_deref().unwrap_or_default());
    let watch = Watch { client, filter, target, events: None, failures: 0, delay: None };
    futures::stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await;
        Some((event, watch))
    })
}

type Events<T> = BoxStream<'static, watcher::Result<watcher::Event<Item<T>>>>;

struct Watch<T: Object> {
    client: Client,
    filter: Filter,
    target: Target,
    events: Option<Events<T>>,
    /// Failures since the last event that only a working server can cause.
    failures: u32,
    /// What to wait before the server is asked again.
    delay: Option<Duration>,
}

impl<T: Object> Watch<T> {
    async fn next(&mut self) -> WatchEvent<T> {
        loop {
            if let Some(delay) = self.delay.take() {
                tokio::time::sleep(delay).await;
            }
            let events = self.events.get_or_insert_with(|| start(&self.client, &self.filter));
            match events.next().await {
                Some(Ok(event)) => return self.succeeded(event),
                Some(Err(error)) => {
                    if let Some(event) = self.failed(error) {
                        return event;
                    }
                }
                None => self.events = None,
            }
        }
    }

    fn succeeded(&mut self, event: watcher::Event<Item<T>>) -> WatchEvent<T> {
        // Init is said before the server is asked, so it proves nothing.
        if !matches!(event, watcher::Event::Init) {
            self.failures = 0;
        }
        match event {
            watcher::Event::Init => WatchEvent::Init,
            watcher::Event::InitDone => WatchEvent::InitDone,
            watcher::Event::InitApply(item) => self.read(item, WatchEvent::InitApply),
            watcher::Event::Apply(item) => self.read(item, WatchEvent::Apply),
            watcher::Event::Delete(item) => WatchEvent::Delete(item.key()),
        }
    }

    fn read(&self, item: Item<T>, event: fn(T) -> WatchEvent<T>) -> WatchEvent<T> {
        let key = item.key();
        match item.contents {
            Ok(object) => event(object),
            Err(problem) => {
                let target = Target { object: key.to_string(), ..self.target.clone() };
                let error = Error::Invalid { target: Box::new(target), problem };
                WatchEvent::Invalid { key, error }
            }
        }
    }

    /// Decides how to go on; returns nothing if this is the ordinary end of the server's memory.
    fn failed(&mut self, error: watcher::Error) -> Option<WatchEvent<T>> {
        let error = self.error(error);
        self.failures = self.failures.saturating_add(1);
        let is_expired = matches!(error, Error::Expired { .. });
        // A restored or replaced server may know nothing of our version, and say so in many ways.
        if is_expired || self.failures.checked_rem(RESUME_ATTEMPTS) == Some(0) {
            self.events = None;
        }
        if is_expired && self.failures == 1 {
            tracing::debug!(%error, "listing again");
            return None;
        }
        let is_unknown = matches!(error, Error::UnknownKind { .. });
        let longest = if is_unknown { UNKNOWN_DELAY } else { LAST_DELAY };
        let delay = error.retry_after().unwrap_or_default().max(backoff(self.failures, longest));
        self.delay = Some(delay);
        Some(WatchEvent::Failed(error))
    }

    fn error(&self, error: watcher::Error) -> Error {
        let target = self.target.clone();
        let error = match error {
            watcher::Error::InitialListFailed(cause)
            | watcher::Error::WatchStartFailed(cause)
            | watcher::Error::WatchFailed(cause) => from_kube(target, cause),
            watcher::Error::WatchError(status) => Error::from_status(target, &status, None),
            watcher::Error::NoResourceVersion => Error::Rejected {
                target: Box::new(target),
                code: 200,
                message: "the answer holds no resourceVersion".to_owned(),
            },
        };
        if self.client.transport().may_renew_token() { error.of_token_file() } else { error }
    }
}

fn start<T: Object>(client: &Client, filter: &Filter) -> Events<T> {
    let gate = Gate { transport: client.transport(), last_start: Arc::default() };
    let service = tower::service_fn(move |request| gate.clone().send(request));
    let kube = kube::Client::new(service, "default");
    let api: kube::Api<Item<T>> = match &filter.namespace {
        Some(namespace) => kube::Api::namespaced_with(kube, namespace, &()),
        None => kube::Api::all(kube),
    };
    let config = watcher::Config {
        label_selector: filter.labels.clone(),
        field_selector: filter.fields.clone(),
        timeout: Some(WATCH_SECONDS),
        ..watcher::Config::default()
    };
    watcher::watcher(api, config).boxed()
}

/// Keeps a watch that ends at once from being started in a tight loop.
#[derive(Clone)]
struct Gate {
    transport: Shared,
    last_start: Arc<Mutex<Option<Instant>>>,
}

impl Gate {
    async fn send(
        self,
        request: http::Request<kube::client::Body>,
    ) -> Result<http::Response<hyper::body::Incoming>, Failure> {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if is_watch {
            let mut last = self.last_start.lock().await;
            if let Some(last) = *last {
                tokio::time::sleep(START_PERIOD.saturating_sub(last.elapsed())).await;
            }
            *last = Some(Instant::now());
        }
        self.transport.send(request).await
    }
}

/// Returns the wait after so many failures in a row: doubling, half of it at random.
fn backoff(failures: u32, last: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let longest = FIRST_DELAY.saturating_mul(1_u32 << doublings).min(last);
    let half = longest.mul_f64(0.5);
    half.saturating_add(half.mul_f64(random_fraction()))
}

/// Returns a number from 0 to 1; jitter needs no better than the system gives.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_a_fifth_of_a_second_to_eight_with_half_of_it_random() {
        for (failures, longest) in [(1, 200), (2, 400), (3, 800), (6, 6400), (7, 8000), (99, 8000)]
        {
            let longest = Duration::from_millis(longest);
            let delay = backoff(failures, LAST_DELAY);
            assert!(delay >= longest / 2 && delay <= longest, "{failures}: {delay:?}");
        }
        assert!(backoff(99, UNKNOWN_DELAY) >= UNKNOWN_DELAY / 2);
    }
}
