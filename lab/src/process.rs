//! Child processes that end with the lab, whatever ends it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// A program to run in the background.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// What people call it.
    pub name: String,
    /// The command line.
    pub command: Vec<OsString>,
    /// Additional environment.
    pub env: Vec<(String, OsString)>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A program in the background; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    ended: Mutex<mpsc::Receiver<std::io::Result<ExitStatus>>>,
}

impl Program {
    /// Makes a program of a name and a command line.
    pub fn new<A: Into<OsString>>(
        name: &str,
        log: &Path,
        command: impl IntoIterator<Item = A>,
    ) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { name: name.to_owned(), command, env: Vec::new(), log: log.to_owned() }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// Starts the program.
    ///
    /// `setpriv` ties its life to ours, so that not even `kill -9` of the lab
    /// leaves it behind. That bond is to a thread, hence the thread of its own.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for its log and [`Error::Program`] if it cannot be started.
    pub fn start(&self) -> Result<Process, Error> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(Error::file(&self.log))?;
        let log_too = log.try_clone().map_err(Error::file(&self.log))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.command);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        let (started, starts) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || match command.spawn() {
            Ok(child) => watch(child, &started, &end),
            Err(error) => drop(started.send(Err(error))),
        });
        let pid = starts
            .recv()
            .map_err(|error| Error::program(&self.name, error))?
            .map_err(|error| Error::program(&self.name, error))?;
        Ok(Process {
            name: self.name.clone(),
            pid,
            log: self.log.clone(),
            ended: Mutex::new(ended),
        })
    }
}

fn watch(
    mut child: Child,
    started: &mpsc::Sender<std::io::Result<Pid>>,
    end: &mpsc::Sender<std::io::Result<ExitStatus>>,
) {
    let pid = i32::try_from(child.id()).map(Pid::from_raw).map_err(std::io::Error::other);
    drop(started.send(pid));
    drop(end.send(child.wait()));
}

impl Process {
    /// Returns its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns how it ended, if it has; that is told once.
    #[must_use]
    pub fn has_ended(&self) -> Option<String> {
        match self.ended.lock().unwrap_or_else(PoisonError::into_inner).try_recv() {
            Ok(Ok(status)) => Some(status.to_string()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some("ended before".to_owned()),
        }
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        kill(self.pid, None).is_ok()
    }

    /// Sends a signal and waits until the program has ended; kills it if that takes too long.
    pub fn end(&self, signal: Signal) {
        // It may have ended already, which is as good.
        let _ = kill(self.pid, signal);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(
            ended.recv_timeout(Duration::from_secs(10)),
            Err(mpsc::RecvTimeoutError::Timeout)
        ) {
            let _ = kill(self.pid, Signal::SIGKILL);
            drop(ended.recv_timeout(Duration::from_secs(10)));
        }
    }

    /// Returns an error if the program has ended, with the last lines of its log.
    ///
    /// # Errors
    ///
    /// [`Error::Program`].
    pub fn require_running(&self) -> Result<(), Error> {
        match self.has_ended() {
            None => Ok(()),
            Some(how) => {
                let what =
                    format!("{how}; the end of {}:\n{}", self.log.display(), tail(&self.log));
                Err(Error::program(&self.name, what))
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// Returns the last lines of a file.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
///
/// [`Error::Program`] if it cannot be started or fails, with what it printed on stderr.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::program(&name, error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let what = format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Err(Error::program(&name, what))
}

/// Runs ip(8) in the namespaces of this process.
///
/// # Errors
///
/// [`Error::Program`] with what it says.
pub fn ip(arguments: &[&str]) -> Result<String, Error> {
    let what = |error: Error| Error::program("ip", format!("{}: {error}", arguments.join(" ")));
    output(Command::new("ip").args(arguments)).map_err(what)
}
