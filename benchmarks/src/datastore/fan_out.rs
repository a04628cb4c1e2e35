//! How long it takes until many watchers know of many objects.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use lab::Error;
use lab::rest::{Request, Rest};
use serde_json::Value;
use tokio::task::JoinSet;

use super::objects::{self, MAPS};
use crate::statistics::per_second;
use crate::writers::{self, Until, WRITERS};

/// What was told to whom, and when.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) watchers: usize,
    pub(crate) objects: usize,
    /// From the first write until the last was answered.
    pub(crate) written: Duration,
    /// From the first write until the last watcher had the last event.
    pub(crate) told: Duration,
    /// Bytes of all events to one watcher.
    pub(crate) bytes_each: usize,
}

impl FanOut {
    /// Returns how many events a second reached watchers.
    pub(crate) fn events_per_second(&self) -> f64 {
        per_second(self.watchers.saturating_mul(self.objects), self.told)
    }
}

/// Opens `watchers` watches, each on a connection of its own, and creates `count` objects.
pub(super) async fn measure(
    kubeconfig: PathBuf,
    watchers: usize,
    count: usize,
) -> Result<FanOut, Error> {
    let path = watch_path(&kubeconfig).await?;
    let mut readers = JoinSet::new();
    for _ in 0..watchers {
        let client = Rest::connect(&kubeconfig)?;
        let answer = client.open(Request::get(&path)).await?;
        if !answer.status().is_success() {
            return Err(Error::wrong(format!("GET {path}: {}", answer.status())));
        }
        // The client must outlive the answer, which ends with its connection.
        readers.spawn(async move { (read(answer.into_body(), count).await, client).0 });
    }
    let started = Instant::now();
    let map = |number| objects::map(&format!("told-{number}"));
    writers::write(&kubeconfig, WRITERS, Until::Count(count), map).await?;
    let written = started.elapsed();
    let mut bytes_each = 0;
    while let Some(read) = readers.join_next().await {
        bytes_each = read.map_err(Error::wrong)??;
    }
    Ok(FanOut { watchers, objects: count, written, told: started.elapsed(), bytes_each })
}

/// Returns the path of a watch that begins after what there is now.
async fn watch_path(kubeconfig: &Path) -> Result<String, Error> {
    let list = Rest::connect(kubeconfig)?.send(Request::get(format!("{MAPS}?limit=1"))).await?;
    let list = list.success()?;
    let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let revision = revision.ok_or_else(|| Error::wrong("a list without resourceVersion"))?;
    Ok(format!("{MAPS}?watch=true&resourceVersion={revision}"))
}

/// Reads until `count` events, which are a line each, are there; returns their bytes.
async fn read(mut body: Incoming, count: usize) -> Result<usize, Error> {
    let (mut lines, mut bytes) = (0_usize, 0_usize);
    while lines < count {
        let frame = body.frame().await.ok_or_else(|| {
            Error::wrong(format!("a watch ended after {lines} of {count} events"))
        })?;
        let frame = frame.map_err(Error::wrong)?;
        let data = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
        let ends = data.split(|byte| *byte == b'\n').count().saturating_sub(1);
        lines = lines.saturating_add(ends);
        bytes = bytes.saturating_add(data.len());
    }
    Ok(bytes)
}
