//! The inside of a node: one process with its own network, mounts and host name.
//!
//! It does what kubelet and the container runtime do there: runs the daemon, makes
//! namespaces for pods and calls the CNI plugins. It does what it is told on
//! stdin, several things at once, and answers on stdout ([`crate::protocol`]).

mod attempt;
mod echo;
mod flow;
mod knock;
mod machine;
mod runtime;
mod sctp;

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::Error;
use crate::process::{Process, Program, output};
use crate::protocol::{Answer, Numbered, Request, Traffic};
use crate::sandbox::{failed, make_dirs, make_private};
use flow::Flow;
use knock::Knocker;
use runtime::Runtime;

/// Directories that each node has for itself, below its directory in the lab.
pub const OWN_DIRS: &[&str] = &["/run", "/var/lib", "/var/log", "/opt"];
/// Where CNI plugins are, in a node.
pub const PLUGIN_DIR: &str = "/opt/cni/bin";
/// Where the CNI configuration is, in a node.
pub const CONFIG_DIR: &str = "/etc/cni/net.d";

/// What kind of node an agent is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Kind {
    /// Pods are made by the agent.
    Node,
    /// Pods are made by a kubelet and a container runtime.
    Machine,
}

impl Kind {
    /// Returns the word for it on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Machine => "machine",
        }
    }
}

/// What the agent looks after.
#[derive(Debug)]
struct Agent {
    dir: PathBuf,
    programs: Mutex<BTreeMap<String, Process>>,
    flows: Mutex<BTreeMap<(String, IpAddr), Flow>>,
    knockers: Mutex<BTreeMap<(String, IpAddr), Knocker>>,
    runtime: Runtime,
}

/// Makes this process a node and does what it is told until stdin ends.
///
/// Must be called before any thread is started.
///
/// # Errors
///
/// [`Error`] with the step that failed.
pub fn run(name: &str, dir: &Path, kind: Kind) -> Result<(), Error> {
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(failed("make a node's namespaces"))?;
    make_private()?;
    nix::unistd::sethostname(name).map_err(failed("set the host name"))?;
    make_own_dirs(dir)?;
    if kind == Kind::Machine {
        machine::furnish(dir)?;
    }
    crate::process::ip(&["link", "set", "lo", "up"])?;
    let agent = Arc::new(Agent {
        dir: dir.to_owned(),
        programs: Mutex::default(),
        flows: Mutex::default(),
        knockers: Mutex::default(),
        runtime: Runtime::default(),
    });
    say(0, Answer::Done);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::file(dir))?;
        let Numbered { id, body } = serde_json::from_str(&line).map_err(Error::wrong)?;
        let agent = Arc::clone(&agent);
        std::thread::spawn(move || {
            let answer = agent.answer(body);
            say(id, answer.unwrap_or_else(|error| Answer::Failed(error.to_string())));
        });
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "answers go to standard output")]
fn say(id: u64, body: Answer) {
    if let Ok(line) = serde_json::to_string(&Numbered { id, body }) {
        println!("{line}");
        // If the lab is gone, so is this process.
        drop(std::io::stdout().flush());
    }
}

/// Hides the machine's directories behind the node's own.
fn make_own_dirs(dir: &Path) -> Result<(), Error> {
    let own = |path: &str| dir.join(path.trim_start_matches('/').replace('/', "-"));
    for path in OWN_DIRS {
        let own = own(path);
        make_dirs(&own)?;
        mount(Some(&own), *path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(failed("bind a node's directory"))?;
    }
    // The rest of /etc stays visible: an overlay adds the CNI configuration to it.
    let (upper, work) = (dir.join("etc"), dir.join("etc-work"));
    make_dirs(&upper)?;
    make_dirs(&work)?;
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("etc"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(failed("lay the node's own /etc over the machine's"))?;
    for path in
        [CONFIG_DIR, PLUGIN_DIR, "/run/netns", "/run/calico", "/var/lib/calico", "/var/log/calico"]
    {
        make_dirs(Path::new(path))?;
    }
    Ok(())
}

impl Agent {
    fn answer(&self, request: Request) -> Result<Answer, Error> {
        match request {
            Request::Run { command } => {
                let (program, arguments) =
                    command.split_first().ok_or_else(|| Error::wrong("an empty command"))?;
                output(Command::new(program).args(arguments)).map(Answer::Text)
            }
            Request::Start { name, command, env } => {
                let mut program =
                    Program::new(&name, &self.dir.join(format!("{name}.log")), command);
                for (key, value) in &env {
                    program = program.env(key, value);
                }
                lock(&self.programs).insert(name, program.start()?);
                Ok(Answer::Done)
            }
            Request::End { name, signal } => {
                let signal = Signal::try_from(signal).map_err(failed("signal"))?;
                let process = lock(&self.programs).remove(&name);
                process.ok_or_else(|| Error::wrong(format!("{name} was not started")))?.end(signal);
                Ok(Answer::Done)
            }
            Request::Pid { name } => {
                let programs = lock(&self.programs);
                let running = programs.get(&name).filter(|process| process.is_running());
                Ok(Answer::Pid(running.map(|process| process.pid().as_raw())))
            }
            Request::Add { pod } => self.runtime.add(&pod).map(Answer::Attached),
            Request::Del { pod } => self.runtime.del(&pod).map(|took_us| {
                Answer::Attached(crate::protocol::Attached { took_us, ..Default::default() })
            }),
            Request::Check { pod } => self.runtime.check(&pod).map(|()| Answer::Done),
            Request::Prepare { container } => {
                self.runtime.prepare(&container).map(|_| Answer::Done)
            }
            Request::Traffic(traffic) => self.answer_traffic(traffic),
        }
    }

    /// Answers what is about packets of pods.
    fn answer_traffic(&self, traffic: Traffic) -> Result<Answer, Error> {
        match traffic {
            Traffic::Probe { targets, within_ms } => {
                let within = Duration::from_millis(within_ms);
                self.runtime.probe(&targets, within).map(Answer::Reached)
            }
            Traffic::Serve { container, ports } => {
                self.runtime.serve(&container, &ports).map(|()| Answer::Done)
            }
            Traffic::Silence { container } => {
                self.runtime.silence(&container);
                Ok(Answer::Done)
            }
            Traffic::Try { trials, within_ms } => {
                let within = Duration::from_millis(within_ms);
                self.runtime.attempt(&trials, within).map(Answer::Tried)
            }
            Traffic::StartKnocking { container, target } => {
                let knocker = Knocker::start(&self.runtime.netns(&container)?, target)?;
                lock(&self.knockers).insert((container, target), knocker);
                Ok(Answer::Done)
            }
            Traffic::StopKnocking { container, target } => {
                let knocker = lock(&self.knockers).remove(&(container, target));
                let knocker = knocker.ok_or_else(|| Error::wrong("nobody knocks there"))?;
                Ok(Answer::Knocks(knocker.stop()))
            }
            Traffic::StartFlow { container, target } => {
                let flow = Flow::start(&self.runtime.netns(&container)?, target)?;
                lock(&self.flows).insert((container, target), flow);
                Ok(Answer::Done)
            }
            Traffic::StopFlow { container, target } => {
                let flow = lock(&self.flows).remove(&(container, target));
                let flow = flow.ok_or_else(|| Error::wrong("no such flow"))?;
                Ok(Answer::Ledger(flow.stop()))
            }
        }
    }
}

/// Locks, also after another thread has panicked: what is in there is still true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
