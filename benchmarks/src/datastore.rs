//! The benchmark `datastore`: the embedded datastore beside kube-apiserver and etcd.

mod fan_out;
mod list;
mod objects;
mod report;
mod start;
mod writes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lab::Error;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::fan_out::FanOut;
use self::list::Lists;
use self::start::Starts;
use self::writes::Writes;
use crate::{load_average, memory, step};

/// How long one part may take before the benchmark gives up.
const WITHIN: Duration = Duration::from_secs(240);
/// How long servers are left alone before their memory is read.
const IDLE: Duration = Duration::from_secs(5);

/// How much to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// How often the embedded datastore is started; Kubernetes, which takes seconds, less often.
    pub(crate) starts: usize,
    /// How long clients write.
    pub(crate) write_for: Duration,
    /// How many objects are told to watchers, and how many pods are listed.
    pub(crate) objects: usize,
    /// How many watchers there are.
    pub(crate) watchers: usize,
    /// How often the pods are listed.
    pub(crate) lists: usize,
}

/// What was measured of one kind of control plane.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) kind: Kind,
    pub(crate) starts: Starts,
    /// Resident memory of its processes, idle after the start, in KiB.
    pub(crate) idle_kib: u64,
    /// The same when everything else has been measured.
    pub(crate) loaded_kib: u64,
    pub(crate) writes: [Writes; 2],
    pub(crate) fan_out: FanOut,
    pub(crate) lists: Lists,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) figures: Vec<Figures>,
    /// The machine's load average before and after.
    pub(crate) load_average: [String; 2],
}

impl Extent {
    /// Enough to see whether it works.
    pub(crate) const QUICK: Self =
        Self { starts: 3, write_for: Duration::from_secs(1), objects: 500, watchers: 10, lists: 3 };
    /// Enough to say something.
    pub(crate) const FULL: Self = Self {
        starts: 20,
        write_for: Duration::from_secs(10),
        objects: 10_000,
        watchers: 100,
        lists: 10,
    };
}

/// Measures each kind of control plane and prints the report.
///
/// # Errors
///
/// [`Error`] if something cannot be measured. What is measured and bad is no error.
pub(crate) fn run(kinds: &[Kind], extent: Extent) -> Result<ExitCode, Error> {
    let before = load_average();
    step(&format!("load average {before}"));
    let figures = kinds.iter().map(|kind| measure(*kind, extent)).collect::<Result<_, _>>()?;
    report::print(&Findings { figures, load_average: [before, load_average()] });
    Ok(ExitCode::SUCCESS)
}

fn measure(kind: Kind, extent: Extent) -> Result<Figures, Error> {
    let name = kind.name();
    step(&format!("{name}: start to ready"));
    let starts = start::measure(kind, extent.starts)?;
    let server = Server::start(kind)?;
    std::thread::sleep(IDLE);
    let idle_kib = server.resident_kib()?;
    step(&format!("{name}: writes"));
    let writes =
        |clients| server.within(writes::measure(server.target(), clients, extent.write_for));
    let writes = [writes(1)?, writes(16)?];
    let Extent { objects, watchers, .. } = extent;
    step(&format!("{name}: {objects} objects to {watchers} watchers"));
    let fan_out = server.within(fan_out::measure(server.target(), watchers, objects))?;
    step(&format!("{name}: lists of {objects} pods"));
    let lists = server.within(list::measure(server.target(), objects, extent.lists))?;
    let loaded_kib = server.resident_kib()?;
    Ok(Figures { kind, starts, idle_kib, loaded_kib, writes, fan_out, lists })
}

/// A control plane that runs; it ends when this is dropped.
struct Server {
    control_plane: ControlPlane,
    runtime: Runtime,
    _directory: TempDir,
}

impl Server {
    fn start(kind: Kind) -> Result<Self, Error> {
        let directory = directory()?;
        let control_plane = ControlPlane::start(settings(kind, directory.path()))?;
        control_plane.api()?.wait_namespace("default")?;
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().map_err(Error::wrong)?;
        Ok(Self { control_plane, runtime, _directory: directory })
    }

    /// Returns the kubeconfig of the administrator.
    fn target(&self) -> PathBuf {
        self.control_plane.kubeconfig(Identity::Admin)
    }

    fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let outcome = self.runtime.block_on(async { tokio::time::timeout(WITHIN, work).await });
        outcome.unwrap_or_else(|_| {
            let (what, seconds) = ("a part of the benchmark".to_owned(), WITHIN.as_secs());
            Err(Error::Timeout { what, seconds, detail: String::new() })
        })
    }

    fn resident_kib(&self) -> Result<u64, Error> {
        let each =
            self.control_plane.processes().map(|process| memory::resident_kib(process.pid()));
        each.sum()
    }
}

/// Returns settings with writes that reach the disk before they are answered.
fn settings(kind: Kind, directory: &Path) -> Settings {
    Settings::loopback(kind, &directory.join("control-plane"))
}

fn directory() -> Result<TempDir, Error> {
    let directory = tempfile::Builder::new().prefix("calico-benchmarks-").tempdir();
    directory.map_err(Error::file(&std::env::temp_dir()))
}
