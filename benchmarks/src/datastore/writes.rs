//! How many objects a second clients create, each of which is on the disk before it is answered.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::Error;

use super::objects;
use crate::statistics::{Summary, per_second};
use crate::writers::{self, Until};

/// What clients managed.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) clients: usize,
    pub(crate) per_second: f64,
    pub(crate) summary: Summary,
}

/// Has `clients` create configuration maps for some time, one after the other each.
pub(super) async fn measure(
    kubeconfig: PathBuf,
    clients: usize,
    time: Duration,
) -> Result<Writes, Error> {
    let started = Instant::now();
    let map = move |number| objects::map(&format!("written-by-{clients}-{number}"));
    let took = writers::write(&kubeconfig, clients, Until::Over(time), map).await?;
    let per_second = per_second(took.len(), started.elapsed());
    Ok(Writes { clients, per_second, summary: Summary::of(&took) })
}
