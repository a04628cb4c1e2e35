//! How long a list of many pods takes, whole and in pages.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::Error;
use lab::rest::{Request, Rest};
use serde_json::Value;

use super::objects::{self, PODS};
use crate::writers::{self, Until, WRITERS};

/// How many pods are in a page, as clients of Kubernetes ask for.
const PAGE: usize = 500;

/// How long lists took, until their last byte was there.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) pods: usize,
    /// How long it took to create them.
    pub(crate) written: Duration,
    /// Bytes of one list.
    pub(crate) bytes: usize,
    /// In one answer each.
    pub(crate) whole: Vec<Duration>,
    /// In pages each, one after the other.
    pub(crate) paged: Vec<Duration>,
}

/// Creates `pods` pods and lists them `times` times.
pub(super) async fn measure(
    kubeconfig: PathBuf,
    pods: usize,
    times: usize,
) -> Result<Lists, Error> {
    let started = Instant::now();
    let pod = |number| objects::pod(&format!("pod-{number}"));
    writers::write(&kubeconfig, WRITERS, Until::Count(pods), pod).await?;
    let mut lists =
        Lists { pods, written: started.elapsed(), bytes: 0, whole: Vec::new(), paged: Vec::new() };
    let client = Rest::connect(&kubeconfig)?;
    for _ in 0..times {
        let started = Instant::now();
        let answer = client.send(Request::get(PODS)).await?;
        lists.whole.push(started.elapsed());
        lists.bytes = answer.body.len();
        require(pods, items(&answer.success()?))?;
        let started = Instant::now();
        let listed = in_pages(&client).await?;
        lists.paged.push(started.elapsed());
        require(pods, listed)?;
    }
    Ok(lists)
}

/// Lists page by page and returns how many pods there were.
async fn in_pages(client: &Rest) -> Result<usize, Error> {
    let (mut listed, mut token) = (0_usize, String::new());
    loop {
        let path = format!("{PODS}?limit={PAGE}&continue={token}");
        let page = client.send(Request::get(path)).await?.success()?;
        listed = listed.saturating_add(items(&page));
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(listed),
        }
    }
}

fn items(list: &Value) -> usize {
    list.get("items").and_then(Value::as_array).map_or(0, Vec::len)
}

fn require(wanted: usize, found: usize) -> Result<(), Error> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::wrong(format!("a list has {found} of {wanted} pods")))
}
