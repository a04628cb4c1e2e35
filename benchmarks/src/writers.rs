//! Clients that write many objects at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::Error;
use lab::rest::{Request, Rest};
use tokio::task::JoinSet;

/// How many clients write where their number is not what is measured.
pub(crate) const WRITERS: usize = 16;

/// When clients stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// When they have written so many together.
    Count(usize),
    /// When so much time is over.
    Over(Duration),
}

/// Has `clients`, each with a connection of its own, write objects called `prefix-NUMBER`, and
/// returns how long each write took.
///
/// # Errors
///
/// [`Error`] of the first write that is refused.
pub(crate) async fn write(
    kubeconfig: &Path,
    clients: usize,
    until: Until,
    object: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> Result<Vec<Duration>, Error> {
    let (next, object) = (Arc::new(AtomicUsize::new(0)), Arc::new(object));
    let mut connections = Vec::new();
    for _ in 0..clients {
        let client = Rest::connect(kubeconfig)?;
        // Opens the connection, which is not what is measured.
        client.send(Request::get("/version")).await?.success()?;
        connections.push(client);
    }
    let started = Instant::now();
    let mut writers = JoinSet::new();
    for client in connections {
        let (next, object) = (Arc::clone(&next), Arc::clone(&object));
        writers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let is_done = match until {
                    Until::Count(count) => number >= count,
                    Until::Over(time) => started.elapsed() >= time,
                };
                if is_done {
                    return Ok::<_, Error>(took);
                }
                let sent = Instant::now();
                client.send(object(number)).await?.success()?;
                took.push(sent.elapsed());
            }
        });
    }
    let mut all = Vec::new();
    while let Some(took) = writers.join_next().await {
        all.extend(took.map_err(Error::wrong)??);
    }
    Ok(all)
}
