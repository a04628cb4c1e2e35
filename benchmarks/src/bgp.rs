//! The benchmark `bgp`: our speaker between two BIRDs, beside BIRD, FRR and GoBGP, and as a
//! reflector with many clients.
//!
//! ```text
//!  injector (BIRD) ── device under test ── monitor (BIRD)      each in its namespace
//! ```

mod bird;
mod chain;
mod client;
mod device;
mod network;
mod reflector;
mod report;
/// What calico-node has around the speaker, compiled in: it is measured too, and nothing else
/// of the daemon is built for it.
#[expect(dead_code, unreachable_pub, reason = "the benchmark needs less of it than the daemon")]
#[path = "../../node-daemon/src/bgp/mod.rs"]
mod shell;
pub(crate) mod speaker;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use lab::Error;

use self::chain::{Row, Session, Words};
use self::device::Device;
use crate::{isolation, load_average, step};

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// How many /32 routes are passed on.
    #[arg(long, value_delimiter = ',', default_value = "100000,500000")]
    routes: Vec<u32>,
    /// Whose speakers.
    #[arg(long, value_delimiter = ',', default_value = "ours,bird,frr,gobgp")]
    devices: Vec<Device>,
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
    load_average: [String; 2],
}

/// Measures and prints the report.
///
/// # Errors
///
/// [`Error`] if something cannot be measured. What is measured and bad is no error.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let before = load_average();
    isolation::furnish("10.97.0.1")?;
    network::make()?;
    let mut rows = Vec::new();
    for routes in arguments.routes.iter().copied() {
        for words in [Words::Same, Words::Unique] {
            for session in [Session::External, Session::Reflected] {
                for device in &arguments.devices {
                    step(&format!("{} {session:?} {words:?} {routes}", device.name()));
                    rows.push(chain::measure(*device, session, words, routes)?);
                }
            }
        }
    }
    let mut reflectors = Vec::new();
    for clients in &arguments.clients {
        for device in &arguments.reflectors {
            step(&format!("{} reflecting to {clients} clients", device.name()));
            reflectors.push(reflector::measure(*device, *clients, arguments.client_routes)?);
        }
    }
    let load_average = [before, load_average()];
    report::print(&Findings { rows, reflectors, load_average });
    Ok(ExitCode::SUCCESS)
}

/// Returns the name of a value as the command line has it.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
