//! The benchmark `ipam`: addresses assigned and released, and what a large cluster adds to that.

mod load;
pub(crate) mod look;
mod objects;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use lab::Error;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use tokio::runtime::Runtime;

use self::load::Load;
use self::look::{Look, Size};
use crate::writers::{self, Until, WRITERS};
use crate::{load_average, step};

/// How long one part may take before the benchmark gives up.
const WITHIN: Duration = Duration::from_secs(600);

/// How much to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// Addresses assigned, and released, per measurement.
    pub(crate) addresses: usize,
    /// The numbers of clients at once.
    pub(crate) clients: &'static [usize],
    /// The numbers of nodes that the clients are on.
    pub(crate) nodes: &'static [usize],
    /// The numbers of other nodes, each with a block, in ascending order.
    pub(crate) others: &'static [usize],
    /// The clusters that garbage collection looks at.
    pub(crate) looks: &'static [Size],
}

impl Extent {
    /// Enough to see whether it works.
    pub(crate) const QUICK: Self = Self {
        addresses: 40,
        clients: &[1, 8],
        nodes: &[1, 5],
        others: &[10, 50],
        looks: &[SMALL],
    };
    /// Enough to say something.
    pub(crate) const FULL: Self = Self {
        addresses: 640,
        clients: &[1, 8, 64],
        nodes: &[1, 50],
        others: &[10, 500, 5_000],
        looks: &[SMALL, Size { nodes: 500, ..SMALL }, Size { nodes: 5_000, ..SMALL }],
    };
}

/// A cluster of which a look takes seconds.
const SMALL: Size = Size { nodes: 50, blocks_per_node: 20, addresses_per_block: 60 };

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) kind: Kind,
    /// By number of nodes and clients.
    pub(crate) loads: Vec<Load>,
    /// By number of other nodes: one client on a node that has a block, then first addresses
    /// of nodes that have none.
    pub(crate) sizes: Vec<(usize, Load, Load)>,
    /// By size of the cluster.
    pub(crate) looks: Vec<(Size, Look)>,
    /// The machine's load average before and after.
    pub(crate) load_average: [String; 2],
}

/// Measures on a control plane of that kind and prints the report.
///
/// # Errors
///
/// [`Error`] if something cannot be measured. What is measured and bad is no error.
pub(crate) fn run(kind: Kind, extent: Extent) -> Result<ExitCode, Error> {
    let before = load_average();
    let directory = tempfile::Builder::new().prefix("calico-benchmarks-").tempdir();
    let directory = directory.map_err(Error::file(&std::env::temp_dir()))?;
    let settings = Settings::loopback(kind, &directory.path().join("control-plane"));
    let plane = ControlPlane::start(settings)?;
    plane.install()?;
    plane.api()?.apply(&objects::cluster(&extent))?;
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().map_err(Error::wrong)?;
    let world = World { plane, runtime, locks: directory.path().to_owned() };
    let loads = world.loads(&extent)?;
    let sizes = world.sizes(&extent)?;
    let look = |size: &Size| Ok((*size, look::measure(directory.path(), *size)?));
    let looks = extent.looks.iter().map(look).collect::<Result<_, Error>>()?;
    let load_average = [before, load_average()];
    report::print(&Findings { kind, loads, sizes, looks, load_average });
    Ok(ExitCode::SUCCESS)
}

struct World {
    plane: ControlPlane,
    runtime: Runtime,
    /// Where the nodes have their lock files.
    locks: std::path::PathBuf,
}

impl World {
    fn loads(&self, extent: &Extent) -> Result<Vec<Load>, Error> {
        let mut loads = Vec::new();
        for nodes in extent.nodes {
            for clients in extent.clients {
                step(&format!(
                    "{} addresses: {nodes} node(s), {clients} client(s)",
                    extent.addresses
                ));
                let names = (0..*nodes).map(|number| format!("node-{number}")).collect();
                loads.push(self.load(names, *clients, extent.addresses)?);
            }
        }
        Ok(loads)
    }

    fn sizes(&self, extent: &Extent) -> Result<Vec<(usize, Load, Load)>, Error> {
        let mut sizes = Vec::new();
        let mut written = 0_usize;
        for (round, others) in extent.others.iter().enumerate() {
            step(&format!("{others} nodes with blocks"));
            self.write_others(written, others.saturating_sub(written))?;
            written = *others;
            let warm = self.load(vec!["node-0".to_owned()], 1, extent.addresses.div_ceil(8))?;
            let fresh = (0..objects::FRESH).map(|number| format!("fresh-{round}-{number}"));
            let cold = self.load(fresh.collect(), 1, objects::FRESH)?;
            sizes.push((*others, warm, cold));
        }
        Ok(sizes)
    }

    /// Writes the blocks and affinities of `count` more nodes, straight to the API server.
    fn write_others(&self, first: usize, count: usize) -> Result<(), Error> {
        let kubeconfig = self.plane.kubeconfig(Identity::Admin);
        for object in [objects::affinity, objects::block] {
            let create = move |number: usize| object(first.saturating_add(number));
            self.within(writers::write(&kubeconfig, WRITERS, Until::Count(count), create))?;
        }
        Ok(())
    }

    fn load(&self, nodes: Vec<String>, clients: usize, addresses: usize) -> Result<Load, Error> {
        let kubeconfig = self.plane.kubeconfig(Identity::CniPlugin);
        self.within(load::measure(
            &kubeconfig,
            &self.locks,
            load::Shape { nodes, clients, addresses },
        ))
    }

    fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let outcome = self.runtime.block_on(async { tokio::time::timeout(WITHIN, work).await });
        outcome.unwrap_or_else(|_| {
            let (what, seconds) = ("a part of the benchmark".to_owned(), WITHIN.as_secs());
            Err(Error::Timeout { what, seconds, detail: String::new() })
        })
    }
}
