//! The benchmark `cni`: what attaching and detaching a pod costs.

pub(crate) mod floor;
mod measure;
mod memory;
pub(crate) mod plugin;
mod report;
pub(crate) mod served;
mod start;
mod trace;
pub(crate) mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lab::Error;
use lab::control_plane::Kind;

use self::measure::{Load, Measured};
use self::served::Served;
use self::world::World;
use crate::{isolation, load_average, step};

/// How much to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// Enough to see whether it works.
    Quick,
    /// Enough to say something.
    Full,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Which programs.
    pub(crate) bin: PathBuf,
    /// How many of them ran at once, and what came of it.
    pub(crate) loads: Vec<(Load, Loads)>,
    /// Round trips of an ADD and of a DEL to the API server.
    pub(crate) requests: [Option<u64>; 2],
    /// From start to the first byte sent.
    pub(crate) first_byte: Vec<Duration>,
    /// Resident memory of an idle calico-node, or why it is not known.
    pub(crate) node_kib: Result<u64, String>,
    /// The machine's load average before and after.
    pub(crate) load_average: [String; 2],
}

/// What came of one load, by who has carried it.
#[derive(Debug)]
pub(crate) struct Loads {
    /// The plugin alone.
    pub(crate) alone: Measured,
    /// The plugin, with calico-node's service.
    pub(crate) served: Measured,
    /// What is compared with.
    pub(crate) floor: Measured,
}

impl Extent {
    const fn loads(self) -> [Load; 3] {
        let (alone, many) = match self {
            Self::Quick => (10, 50),
            Self::Full => (120, 250),
        };
        [
            Load { name: "alone", at_once: 1, count: alone },
            Load { name: "ten", at_once: 10, count: many },
            Load { name: "fifty", at_once: 50, count: many },
        ]
    }

    const fn starts(self) -> usize {
        match self {
            Self::Quick => 10,
            Self::Full => 100,
        }
    }
}

/// Measures the programs in `bin_dir`, or the release beside them, and prints the report.
///
/// # Errors
///
/// [`Error`] if something cannot be measured. What is measured and bad is no error.
pub(crate) fn run(bin_dir: &Path, extent: Extent) -> Result<ExitCode, Error> {
    let bin = programs(bin_dir)?;
    isolation::furnish(world::NODE_ADDR)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let findings = runtime.map_err(Error::wrong)?.block_on(measure_all(bin, extent))?;
    report::print(&findings);
    Ok(ExitCode::SUCCESS)
}

async fn measure_all(bin: PathBuf, extent: Extent) -> Result<Findings, Error> {
    let before = load_average();
    step(&format!("measuring {}; load average {before}", bin.display()));
    step("starting etcd and kube-apiserver");
    let world = World::start(Kind::Kubernetes).await?;
    let plugins = world.install(&bin)?;
    step("counting round trips");
    let requests = measure::count_requests(&world, &plugins).await?;
    let mut loads = Vec::new();
    for load in extent.loads() {
        step(&format!("{} pods, {} at once", load.count, load.at_once));
        let alone = measure::plugin(&world, &plugins, load, None).await?;
        let service = Served::start(&world)?;
        let served = measure::plugin(&world, &plugins, load, Some(&service)).await?;
        drop(service);
        let floor = measure::floor(&world, load).await?;
        loads.push((load, Loads { alone, served, floor }));
    }
    step("from start to first byte");
    let first_byte = start::first_byte(&world, &plugins, extent.starts()).await?;
    step("calico-node, idle");
    let node_kib = memory::idle_kib(&world, &bin).await.map_err(|error| error.to_string());
    let load_average = [before, load_average()];
    Ok(Findings { bin, loads, requests, first_byte, node_kib, load_average })
}

/// Returns where the programs are: what is released goes before what the lab runs.
pub(crate) fn programs(bin_dir: &Path) -> Result<PathBuf, Error> {
    let has_all =
        |dir: &PathBuf| report::PROGRAMS.iter().all(|program| dir.join(program).is_file());
    let released = bin_dir.parent().map(|target| target.join("release"));
    let mut candidates = released.into_iter().chain([bin_dir.to_owned()]);
    let found = candidates.find(has_all);
    let found = found.ok_or_else(|| {
        let names = report::PROGRAMS.join(", ");
        Error::wrong(format!(
            "{} has not all of {names}, nor has release beside it: `cargo xtask bench cni` builds them",
            bin_dir.display()
        ))
    })?;
    found.canonicalize().map_err(Error::file(&found))
}
