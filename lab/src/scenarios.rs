//! Scenarios: a cluster, what happens to it, and what must be true afterwards.
//!
//! Each runs in a lab of its own; one file each in `lab/scenarios/`.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::Error;

#[path = "../scenarios/churn.rs"]
mod churn;
#[path = "../scenarios/faults.rs"]
mod faults;
#[path = "../scenarios/objects.rs"]
mod objects;
#[path = "../scenarios/peers.rs"]
mod peers;
#[path = "../scenarios/reachable.rs"]
mod reachable;

/// How long one scenario may take, on a busy machine.
const WITHIN: Duration = Duration::from_secs(240);

/// What is run in a lab's directory.
type Run = fn(&Path) -> Result<(), Error>;

/// All scenarios, by name.
const ALL: &[(&str, Run)] = &[
    ("thirty-pods-reach-each-other", reachable::thirty_pods),
    ("dual-stack-pods-reach-each-other", reachable::dual_stack),
    ("objects-keep-unknown-fields", objects::round_trip),
    ("routes-equal-the-model", churn::routes_as_modelled),
    ("killed-daemon-loses-no-packet", faults::daemon_killed),
    ("bird-holds-exactly-the-blocks", peers::bird_holds_the_blocks),
    ("del-leaves-nothing", churn::nothing_is_left),
    ("pods-talk-without-api-server", faults::api_server_stopped),
    ("pulled-cable-heals", faults::cable_pulled),
    ("parted-nodes-find-together", faults::partition),
    ("routed-fabric-with-a-router", peers::routed_fabric),
];

/// Returns the names of all scenarios.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}

/// Runs one scenario in this lab.
pub(crate) fn run_one(dir: &Path, name: &str) -> Result<(), Error> {
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, run) = found.ok_or_else(|| unknown(name))?;
    run(dir)
}

/// Runs scenarios one after the other, each in a new lab; returns the exit code.
pub(crate) fn run_all(wanted: &[String]) -> Result<u8, Error> {
    if let Some(name) = wanted.iter().find(|name| !names().contains(&name.as_str())) {
        return Err(unknown(name));
    }
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for name in names() {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let started = Instant::now();
        let outcome = run_apart(name);
        let seconds = started.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed = passed.saturating_add(1);
                crate::say(&format!("pass  {name} ({seconds:.1} s)"));
            }
            Err(error) => {
                failed = failed.saturating_add(1);
                crate::say(&format!("FAIL  {name} ({seconds:.1} s)\n{error}"));
            }
        }
    }
    crate::say(&format!("{passed} passed, {failed} failed"));
    Ok(u8::from(failed > 0))
}

/// Runs a scenario in a process of its own, with what it says in the error.
fn run_apart(name: &str) -> Result<(), Error> {
    let path = std::env::temp_dir().join(format!("lab-scenario-{}.log", std::process::id()));
    let log = File::create(&path).map_err(Error::file(&path))?;
    let log_too = log.try_clone().map_err(Error::file(&path))?;
    let program = std::env::current_exe().map_err(Error::file(&path))?;
    let mut command = Command::new(program);
    command.arg("scenario").arg(name).stdin(Stdio::null()).stdout(log).stderr(log_too);
    let mut child = command.spawn().map_err(|error| Error::program(name, error))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| Error::program(name, error))? {
            break status.to_string();
        }
        if started.elapsed() > WITHIN {
            // The lab ends with this process: the kernel sees to it.
            drop(child.kill());
            drop(child.wait());
            break format!("took more than {} s", WITHIN.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    drop(std::fs::remove_file(&path));
    if status == "exit status: 0" {
        return Ok(());
    }
    Err(Error::program(name, format!("{status}\n{said}")))
}

fn unknown(name: &str) -> Error {
    Error::wrong(format!("there is no scenario `{name}`: there are {}", names().join(", ")))
}
