//! A node as the lab sees it: what to tell its agent, and where its cable is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::Error;
use crate::agent::Kind;
use crate::protocol::{
    Answer, Attached, Attempt, Knocks, Ledger, Numbered, Pod, Reached, Request, Traffic, Trial,
};
use crate::sandbox::failed;

type Waiting = Arc<Mutex<BTreeMap<u64, mpsc::Sender<Answer>>>>;

/// A node of the lab; dropping it ends all that runs in it.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub addrs: Vec<IpAddr>,
    /// Where its files are, seen from outside.
    pub dir: PathBuf,
    child: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next_id: AtomicU64,
}

impl Node {
    /// Starts a node without any network.
    ///
    /// # Errors
    ///
    /// [`Error`] if its agent cannot be started or does not come up.
    pub fn start(name: &str, dir: &Path) -> Result<Self, Error> {
        Self::start_as(Kind::Node, name, dir)
    }

    /// Starts a node that is a machine of its own, with process ids of its own: all that is
    /// ever started in it ends with it.
    ///
    /// # Errors
    ///
    /// As for [`Node::start`].
    pub fn start_machine(name: &str, dir: &Path) -> Result<Self, Error> {
        Self::start_as(Kind::Machine, name, dir)
    }

    fn start_as(kind: Kind, name: &str, dir: &Path) -> Result<Self, Error> {
        crate::sandbox::make_dirs(dir)?;
        let program = std::env::current_exe().map_err(Error::file(dir))?;
        let mut command = Command::new(program);
        command.arg("agent").arg(name).arg(dir).arg("--kind").arg(kind.name());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // It is below the /run of the machine outside, and a node has its own: runc would fail there.
        command.env_remove("XDG_RUNTIME_DIR");
        let log = dir.join("agent.log");
        command.stderr(File::create(&log).map_err(Error::file(&log))?);
        let mut child = spawn(kind, command)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| Error::wrong("an agent without pipes"))?;
        let waiting = Waiting::default();
        let (ready, is_ready) = mpsc::channel();
        lock(&waiting).insert(0, ready);
        let waiters = Arc::clone(&waiting);
        std::thread::spawn(move || listen(stdout, &waiters));
        let pid = dir.join("pid");
        std::fs::write(&pid, child.id().to_string()).map_err(Error::file(&pid))?;
        is_ready.recv().map_err(|_| {
            Error::program("agent", {
                format!("{name} did not come up: {}", crate::process::tail(&log))
            })
        })?;
        Ok(Self {
            name: name.to_owned(),
            addrs: Vec::new(),
            dir: dir.to_owned(),
            child,
            stdin: Mutex::new(stdin),
            waiting,
            next_id: AtomicU64::new(1),
        })
    }

    /// Returns the process id whose namespaces are the node's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the node's IPv4 address.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it has no address.
    pub fn addr(&self) -> Result<IpAddr, Error> {
        self.addrs.first().copied().ok_or_else(|| Error::wrong("a node without address"))
    }

    /// Tells the agent what to do and waits until it is done.
    ///
    /// # Errors
    ///
    /// [`Error`] with what the agent says, or that it is gone.
    pub fn call(&self, body: Request) -> Result<Answer, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = mpsc::channel();
        lock(&self.waiting).insert(id, answered);
        let mut line = serde_json::to_string(&Numbered { id, body }).map_err(Error::wrong)?;
        line.push('\n');
        lock(&self.stdin).write_all(line.as_bytes()).map_err(Error::file(&self.dir))?;
        match answer.recv() {
            Ok(Answer::Failed(what)) => Err(Error::program(&self.name, what)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(Error::program(&self.name, "the agent is gone")),
        }
    }

    /// Ends all that runs in it, at once.
    pub fn stop(&mut self) {
        // Its programs go with it: their parent death signal is from the agent's threads.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn traffic(&self, what: Traffic) -> Result<Answer, Error> {
        self.call(Request::Traffic(what))
    }

    /// Runs a program in the node and returns what it prints.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn run(&self, command: &[&str]) -> Result<String, Error> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let answer = self.call(Request::Run { command })?;
        let Answer::Text(text) = answer else { return Err(unexpected(&answer)) };
        Ok(text)
    }

    /// Starts a program in the background.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn start_program(
        &self,
        name: &str,
        command: &[&str],
        env: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.call(Request::Start { name: name.to_owned(), command, env: env.clone() }).map(drop)
    }

    /// Ends a program with a signal and waits until it has.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn end_program(&self, name: &str, signal: Signal) -> Result<(), Error> {
        self.call(Request::End { name: name.to_owned(), signal: signal as i32 }).map(drop)
    }

    /// Returns the process id of a program that was started and runs.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn program_pid(&self, name: &str) -> Result<Option<i32>, Error> {
        let answer = self.call(Request::Pid { name: name.to_owned() })?;
        let Answer::Pid(pid) = answer else { return Err(unexpected(&answer)) };
        Ok(pid)
    }

    /// Calls CNI ADD for a pod, in a new namespace.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`], with the plugin's error.
    pub fn add(&self, pod: &Pod) -> Result<Attached, Error> {
        let answer = self.call(Request::Add { pod: pod.clone() })?;
        let Answer::Attached(attached) = answer else { return Err(unexpected(&answer)) };
        Ok(attached)
    }

    /// Calls CNI DEL for a pod and removes its namespace; returns how long the plugins took, in µs.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`], with the plugin's error.
    pub fn del(&self, pod: &Pod) -> Result<u64, Error> {
        let answer = self.call(Request::Del { pod: pod.clone() })?;
        let Answer::Attached(attached) = answer else { return Err(unexpected(&answer)) };
        Ok(attached.took_us)
    }

    /// Calls CNI CHECK for a pod.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`], with the plugin's error.
    pub fn check(&self, pod: &Pod) -> Result<(), Error> {
        self.call(Request::Check { pod: pod.clone() }).map(drop)
    }

    /// Tries to reach addresses from all pods of the node.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn probe(&self, targets: &[IpAddr], within_ms: u64) -> Result<Vec<Reached>, Error> {
        let answer = self.traffic(Traffic::Probe { targets: targets.to_vec(), within_ms })?;
        let Answer::Reached(reached) = answer else { return Err(unexpected(&answer)) };
        Ok(reached)
    }

    /// Lets a pod answer on more ports.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn serve(&self, container: &str, ports: &[u16]) -> Result<(), Error> {
        let (container, ports) = (container.to_owned(), ports.to_vec());
        self.traffic(Traffic::Serve { container, ports }).map(drop)
    }

    /// Has a pod answer no more, as it is gone.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn silence(&self, container: &str) -> Result<(), Error> {
        self.traffic(Traffic::Silence { container: container.to_owned() }).map(drop)
    }

    /// Makes a pod's network namespace before it is attached.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn prepare(&self, container: &str) -> Result<(), Error> {
        self.call(Request::Prepare { container: container.to_owned() }).map(drop)
    }

    /// Starts to knock from a pod at an address all the time.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn start_knocking(&self, container: &str, target: IpAddr) -> Result<(), Error> {
        self.traffic(Traffic::StartKnocking { container: container.to_owned(), target }).map(drop)
    }

    /// Ends that and returns what came of it.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn stop_knocking(&self, container: &str, target: IpAddr) -> Result<Knocks, Error> {
        let answer =
            self.traffic(Traffic::StopKnocking { container: container.to_owned(), target })?;
        let Answer::Knocks(knocks) = answer else { return Err(unexpected(&answer)) };
        Ok(knocks)
    }

    /// Makes attempts from pods of the node; returns what came through for each trial.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn attempt(&self, trials: Vec<Trial>, within_ms: u64) -> Result<Vec<Vec<Attempt>>, Error> {
        let answer = self.traffic(Traffic::Try { trials, within_ms })?;
        let Answer::Tried(passed) = answer else { return Err(unexpected(&answer)) };
        Ok(passed)
    }

    /// Starts to talk from a pod to an address all the time.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn start_flow(&self, container: &str, target: IpAddr) -> Result<(), Error> {
        self.traffic(Traffic::StartFlow { container: container.to_owned(), target }).map(drop)
    }

    /// Ends a flow and returns what it lost.
    ///
    /// # Errors
    ///
    /// As for [`Node::call`].
    pub fn stop_flow(&self, container: &str, target: IpAddr) -> Result<Ledger, Error> {
        let answer = self.traffic(Traffic::StopFlow { container: container.to_owned(), target })?;
        let Answer::Ledger(ledger) = answer else { return Err(unexpected(&answer)) };
        Ok(ledger)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the agent of a machine as the first of new process ids, any other in ours.
///
/// What unshares can have no threads in the new namespace and never leaves it, hence the thread.
fn spawn(kind: Kind, mut command: Command) -> Result<Child, Error> {
    let start = move || {
        if kind == Kind::Machine {
            unshare(CloneFlags::CLONE_NEWPID).map_err(failed("make a PID namespace"))?;
        }
        command.spawn().map_err(|error| Error::program("agent", error))
    };
    let started = std::thread::spawn(start).join();
    started.unwrap_or_else(|_| Err(Error::wrong("the thread that starts an agent has died")))
}

fn listen(stdout: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Ok(Numbered { id, body }) = serde_json::from_str(&line) else { continue };
        if let Some(waiter) = lock(waiting).remove(&id) {
            // Whoever asked may have given up.
            drop(waiter.send(body));
        }
    }
    // Nobody will answer any more: whoever waits is told so by the end of the channel.
    lock(waiting).clear();
}

fn unexpected(answer: &Answer) -> Error {
    Error::wrong(format!("the agent answered something else: {answer:?}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
