//! The benchmark `bgp`: our speaker between two BIRDs, beside BIRD, FRR and GoBGP, and as a
//! reflector with many clients.
//!
//! ```text
//!  injector (BIRD) ── device under test ── monitor (BIRD)      each in its namespace
//! ```
//!
//! And how fast calico-node and BIRD bring routes into the kernel.

mod bird;
mod chain;
mod client;
mod device;
mod fib;
mod network;
mod reflector;
mod report;
/// What calico-node has around the speaker, compiled in: it is measured too, and nothing else
/// of the daemon is built for it.
#[expect(dead_code, unreachable_pub, reason = "the benchmark needs less of it than the daemon")]
#[path = "../../node-daemon/src/bgp/mod.rs"]
mod shell;
pub(crate) mod speaker;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use lab::Error;

use self::chain::{Row, Session, Words};
use self::device::Device;
use crate::cni::world::NODE_ADDR;
use crate::{cni, isolation, load_average, step};

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// How many /32 routes are passed on.
    #[arg(long, value_delimiter = ',', default_value = "100000,500000")]
    routes: Vec<u32>,
    /// Whose speakers.
    #[arg(long, value_delimiter = ',', default_value = "ours,bird,frr,gobgp")]
    devices: Vec<Device>,
    /// Up to how many routes GoBGP is measured with: more take it minutes.
    #[arg(long, default_value_t = 100_000)]
    gobgp_most: u32,
    /// How many routes go into the kernel's table; 0 leaves this part out.
    #[arg(long, default_value_t = 100_000)]
    installed: u32,
    /// After so many minutes nothing more is begun, and nothing is waited for; what was left out is
    /// said.
    #[arg(long, default_value_t = 12)]
    minutes: u32,
    /// Where cargo has put the programs; `release` beside it goes first.
    #[arg(long, env = "CALICO_BIN_DIR", default_value = "target/lab")]
    bin_dir: PathBuf,
    /// How many clients the reflector has; none leaves this part out.
    #[arg(long, value_delimiter = ',', default_value = "200,1000")]
    clients: Vec<u32>,
    /// How many routes the reflector's clients announce, all together.
    #[arg(long, default_value_t = 5000)]
    client_routes: u32,
    /// Whose reflectors.
    #[arg(long, value_delimiter = ',', default_value = "ours,bird")]
    reflectors: Vec<Device>,
}

/// Everything that was measured.
#[derive(Debug)]
struct Findings {
    rows: Vec<Row>,
    reflectors: Vec<reflector::Row>,
    installs: Vec<fib::Row>,
    /// What there was no time for.
    left_out: Vec<String>,
    load_average: [String; 2],
}

/// Measures and prints the report.
///
/// # Errors
///
/// [`Error`] if something cannot be measured. What is measured and bad is no error.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let mut findings = Findings {
        rows: Vec::new(),
        reflectors: Vec::new(),
        installs: Vec::new(),
        left_out: Vec::new(),
        load_average: [load_average(), String::new()],
    };
    let until = Until::in_minutes(arguments.minutes);
    isolation::furnish(NODE_ADDR)?;
    network::make()?;
    for task in tasks(arguments) {
        step(&task.to_string());
        if until.within(Duration::MAX).is_zero() {
            findings.left_out.push(task.to_string());
            continue;
        }
        // One that cannot be measured does not take the others along.
        if let Err(error) = findings.add(task, arguments, until) {
            findings.left_out.push(format!("{task}: {error}"));
        }
    }
    findings.load_average[1] = load_average();
    report::print(&findings);
    Ok(ExitCode::SUCCESS)
}

/// When everything must be over.
#[derive(Clone, Copy, Debug)]
struct Until(Option<Instant>);

impl Until {
    fn in_minutes(minutes: u32) -> Self {
        Self(Instant::now().checked_add(Duration::from_secs(60).saturating_mul(minutes)))
    }

    /// Returns how long something may take that takes at most `most`.
    fn within(self, most: Duration) -> Duration {
        let left = self.0.map(|at| at.saturating_duration_since(Instant::now()));
        left.map_or(most, |left| left.min(most))
    }
}

/// Something to measure.
#[derive(Clone, Copy, Debug)]
enum Task {
    Chain(Device, Session, Words, u32),
    Reflector(Device, u32),
    Install(Device, u32),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(device, session, words, routes) => {
                write!(f, "{} {session:?} {words:?} {routes}", device.name())
            }
            Self::Reflector(device, clients) => {
                write!(f, "{} reflecting to {clients} clients", device.name())
            }
            Self::Install(device, routes) => {
                write!(f, "{} installing {routes} routes", device.name())
            }
        }
    }
}

impl Findings {
    fn add(&mut self, task: Task, arguments: &Arguments, until: Until) -> Result<(), Error> {
        match task {
            Task::Chain(device, session, words, routes) => {
                self.rows.push(chain::measure(device, session, words, routes, until)?);
            }
            Task::Reflector(device, clients) => {
                let routes = arguments.client_routes;
                self.reflectors.push(reflector::measure(device, clients, routes, until)?);
            }
            Task::Install(device, routes) => {
                let bin = cni::programs(&arguments.bin_dir)?;
                self.installs.push(fib::measure(device, routes, &bin, until)?);
            }
        }
        Ok(())
    }
}

/// Returns all that is to be measured, what matters most first.
fn tasks(arguments: &Arguments) -> Vec<Task> {
    let (few, many) = arguments.routes.split_at(arguments.routes.len().min(1));
    let mut tasks: Vec<Task> = few.iter().flat_map(|routes| chains(arguments, *routes)).collect();
    if arguments.installed != 0 {
        let install = |device| Task::Install(device, arguments.installed);
        tasks.extend([Device::Ours, Device::Bird].map(install));
    }
    for clients in &arguments.clients {
        let reflect = |device: &Device| Task::Reflector(*device, *clients);
        tasks.extend(arguments.reflectors.iter().map(reflect));
    }
    tasks.extend(many.iter().flat_map(|routes| chains(arguments, *routes)));
    tasks
}

fn chains(arguments: &Arguments, routes: u32) -> Vec<Task> {
    let is_asked = |device: &&Device| **device != Device::Gobgp || routes <= arguments.gobgp_most;
    let devices: Vec<Device> = arguments.devices.iter().filter(is_asked).copied().collect();
    let mut tasks = Vec::new();
    for words in [Words::Same, Words::Unique] {
        for session in [Session::External, Session::Reflected] {
            let chain = |device: &Device| Task::Chain(*device, session, words, routes);
            tasks.extend(devices.iter().map(chain));
        }
    }
    tasks
}

/// Returns the name of a value as the command line has it.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
