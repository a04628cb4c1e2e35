//! A lab's own little machine: a process whose end is the end of everything in it.
//!
//! The program that the user started stays outside. It starts itself again as the
//! first process of a new PID namespace, which then takes a network and a mount
//! namespace of its own. The kernel ends all processes of a PID namespace with its
//! first one, and namespaces with their last process: so no network namespace, no
//! link, no mount and no process can survive the lab, not even after `kill -9`.
//! Only the lab's directory can, and the next run removes it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How the directories of labs are called.
const PREFIX: &str = "calab-";
/// Exit code after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

/// What is known of a running lab, in its directory.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    /// The lab's first process.
    pub pid: i32,
    /// When that started, in clock ticks since boot: process ids are used again.
    pub start_time: u64,
    /// Whether it waits for a look around; another may be somebody's test.
    pub is_kept: bool,
}

/// Runs this program again inside a lab of its own, and returns its exit code.
///
/// Must be called before any thread is started. `arguments` are what [`Inside::enter`]'s
/// caller sees after `inside DIR`.
///
/// # Errors
///
/// [`Error`] if the lab cannot be made.
pub fn run(arguments: &[String]) -> Result<u8, Error> {
    remove_leftovers();
    let dir = make_dir()?;
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().map_err(failed("block signals"))?;
    let signals = SignalFd::new(&signals).map_err(failed("signalfd"))?;
    let ended = dir.join("ended");
    nix::unistd::mkfifo(&ended, Mode::S_IRWXU).map_err(failed("mkfifo"))?;
    let options = OFlag::O_NONBLOCK.bits();
    let ended = File::options().read(true).custom_flags(options).open(&ended);
    let mut ended = ended.map_err(Error::file(&dir))?;
    let mut child = spawn(&dir, arguments)?;
    let mut polled = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(ended.as_fd(), PollFlags::POLLIN),
    ];
    while poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let is_interrupted = polled.first().and_then(PollFd::any).unwrap_or_default();
    let mut said = String::new();
    // Nothing to read means that the lab just ended.
    drop(ended.read_to_string(&mut said));
    if !is_interrupted && said.starts_with("kept") {
        return Ok(0);
    }
    if is_interrupted {
        eprintln!("interrupted: removing the lab");
        drop(child.kill());
    }
    let status = child.wait().map_err(Error::file(&dir))?;
    remove(&dir);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(if is_interrupted { INTERRUPTED } else { code.unwrap_or(1) })
}

fn spawn(dir: &Path, arguments: &[String]) -> Result<Child, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::file(dir))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(failed("make a PID namespace (root is needed)"))?;
    let program = std::env::current_exe().map_err(Error::file(dir))?;
    let mut command = Command::new(program);
    command.arg("inside").arg(dir).args(arguments).stdin(Stdio::from(OwnedFd::from(listener)));
    let child = command.spawn().map_err(|error| Error::program("lab", error))?;
    let pid = i32::try_from(child.id()).map_err(Error::wrong)?;
    let state = State { pid, start_time: start_time(pid).unwrap_or_default(), is_kept: false };
    write_state(dir, &state)?;
    Ok(child)
}

fn write_state(dir: &Path, state: &State) -> Result<(), Error> {
    let text = serde_json::to_string(state).map_err(Error::wrong)?;
    let path = dir.join("state.json");
    std::fs::write(&path, text).map_err(Error::file(&path))
}

/// The inside of a lab.
#[derive(Debug)]
pub struct Inside {
    /// The lab's directory.
    pub dir: PathBuf,
    host: Option<TcpListener>,
    outer: File,
}

impl Inside {
    /// Makes this process, the first of its PID namespace, a little machine of its own.
    ///
    /// Must be called before any thread is started.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn enter(dir: &Path) -> Result<Self, Error> {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("set the parent death signal"))?;
        let path = dir.join("ended");
        let outer = File::options().write(true).open(&path).map_err(Error::file(&path))?;
        let host = std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::file(dir))?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .map_err(failed("make namespaces"))?;
        make_private()?;
        mount_new("proc", Path::new("/proc"))?;
        mount_new("tmpfs", Path::new("/run"))?;
        make_dirs(Path::new("/run/netns"))?;
        crate::process::ip(&["link", "set", "lo", "up"])?;
        Ok(Self { dir: dir.to_owned(), host: Some(TcpListener::from(host)), outer })
    }

    /// Forwards connections to a loopback port outside of the lab to `target`, and returns it.
    ///
    /// # Errors
    ///
    /// [`Error`] if it was called before.
    pub fn forward(&mut self, target: SocketAddr) -> Result<SocketAddr, Error> {
        let listener = self.host.take().ok_or_else(|| Error::wrong("forwards once only"))?;
        let addr = listener.local_addr().map_err(Error::file(&self.dir))?;
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || relay(&client, target));
            }
        });
        Ok(addr)
    }

    /// Lets the lab outlive the program that the user started, until `lab down`.
    ///
    /// # Errors
    ///
    /// [`Error`] if the user's program is gone.
    pub fn keep(&mut self) -> Result<(), Error> {
        prctl::set_pdeathsig(None).map_err(failed("clear the parent death signal"))?;
        let text = std::fs::read(self.dir.join("state.json")).map_err(Error::file(&self.dir))?;
        let state: State = serde_json::from_slice(&text).map_err(Error::wrong)?;
        write_state(&self.dir, &State { is_kept: true, ..state })?;
        // Whoever reads what the user's program prints must see its end.
        let null = File::options().write(true).open("/dev/null").map_err(Error::file(&self.dir))?;
        nix::unistd::dup2_stdout(&null).map_err(failed("close standard output"))?;
        nix::unistd::dup2_stderr(&null).map_err(failed("close standard error"))?;
        self.outer.write_all(b"kept\n").map_err(Error::file(&self.dir))?;
        loop {
            std::thread::park();
        }
    }
}

fn relay(client: &TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Write));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
}

/// Ends the labs that were kept and removes what crashed ones left; returns how many there were.
///
/// Others that run are somebody's demo or test, and end by themselves.
#[must_use]
pub fn down() -> usize {
    let mut count: usize = 0;
    for (dir, state) in labs() {
        let Some(state) = state else { continue };
        if is_running(&state) {
            if !state.is_kept {
                continue;
            }
            // If it has just ended by itself, that is as good.
            let _ = kill(Pid::from_raw(state.pid), Signal::SIGKILL);
        }
        remove(&dir);
        count = count.saturating_add(1);
    }
    count
}

/// Returns the directories of the labs that were kept.
#[must_use]
pub fn kept() -> Vec<PathBuf> {
    let is_here = |state: &State| state.is_kept && is_running(state);
    let here = |(dir, state): (PathBuf, Option<State>)| state.filter(is_here).map(|_| dir);
    labs().into_iter().filter_map(here).collect()
}

fn remove_leftovers() {
    for (dir, state) in labs() {
        // Without a state it may be one that is just being made.
        if state.is_some_and(|state| !is_running(&state)) {
            eprintln!("removing what an earlier lab left in {}", dir.display());
            remove(&dir);
        }
    }
}

fn labs() -> Vec<(PathBuf, Option<State>)> {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| {
            let text = std::fs::read_to_string(entry.path().join("state.json"));
            let state = text.ok().and_then(|text| serde_json::from_str(&text).ok());
            (entry.path(), state)
        })
        .collect()
}

fn is_running(state: &State) -> bool {
    start_time(state.pid) == Some(state.start_time)
}

/// Returns when a process started, proc(5) field 22, unless it has ended.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let is_ended = fields.next()? == "Z";
    let started = fields.nth(18)?.parse().ok()?;
    (!is_ended).then_some(started)
}

fn make_dir() -> Result<PathBuf, Error> {
    let dir = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Error::file(&dir))?;
    Ok(dir)
}

/// Removes a lab's directory and control groups; the kernel may take a moment to let go of them.
fn remove(dir: &Path) {
    let group = crate::cgroups::of(dir);
    for _ in 0..200 {
        let is_empty = crate::cgroups::remove(&group);
        if is_empty && (std::fs::remove_dir_all(dir).is_ok() || !dir.exists()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    eprintln!(
        "could not remove {} and the control groups {group}: remove them by hand",
        dir.display()
    );
}

/// Keeps mounts of this namespace from the rest of the machine.
pub(crate) fn make_private() -> Result<(), Error> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed("mount"))
}

/// Mounts a new file system of a kind.
pub(crate) fn mount_new(kind: &str, at: &Path) -> Result<(), Error> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
        .map_err(|error| Error::program("mount", format!("{kind} on {}: {error}", at.display())))
}

pub(crate) fn make_dirs(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(Error::file(dir))
}

pub(crate) fn failed(what: &'static str) -> impl Fn(Errno) -> Error {
    move |error| Error::program("lab", format!("{what}: {error}"))
}

/// Runs a program in a node of the lab that was kept, and returns its exit code.
///
/// # Errors
///
/// [`Error::Wrong`] if there is no such node.
pub fn run_in_node(node: &str, command: &[String]) -> Result<u8, Error> {
    let here = |(dir, state): (PathBuf, Option<State>)| {
        let state = state.filter(|state| state.is_kept && is_running(state))?;
        let pid = std::fs::read_to_string(dir.join("nodes").join(node).join("pid")).ok()?;
        Some((dir, state, pid))
    };
    let found = labs().into_iter().find_map(here);
    let (dir, state, pid) = found.ok_or_else(|| {
        Error::wrong(format!(
            "no lab that runs has a node `{node}`: start one with `lab demo --keep`"
        ))
    })?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &state.pid.to_string(), "--pid", "--mount", "--net", "--"]);
    enter.args(["nsenter", "--target", pid.trim(), "--pid", "--mount", "--net", "--uts", "--"]);
    enter.args(command).env("PATH", format!("{path}:{}", dir.join("bin").display()));
    let status = enter.status().map_err(|error| Error::program("nsenter", error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
