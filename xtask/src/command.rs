//! Child processes with progress, and the errors of those that fail.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program could not be started.
    #[error("cannot run `{line}`: {source}; {remedy}")]
    NotStarted {
        /// The command line.
        line: String,
        /// What helps.
        remedy: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program ran and failed; its own output says why.
    #[error("`{line}` failed: {status}")]
    Failed {
        /// The command line.
        line: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The machine lacks something that cannot be installed from here.
    #[error("{0}")]
    Machine(String),
    /// The tree breaks rules of the house; each is a line of its own.
    #[error("{} broken rule(s):\n{}", .0.len(), .0.join("\n"))]
    Untidy(Vec<String>),
}

impl Failure {
    /// Returns the exit code of the whole: the failed program's own where there is one.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed { status, .. } => {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                code.map_or(ExitCode::FAILURE, ExitCode::from)
            }
            Self::NotStarted { .. } | Self::File { .. } | Self::Machine(_) | Self::Untidy(_) => {
                ExitCode::FAILURE
            }
        }
    }
}

/// Says on stderr what comes next.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

/// A program about to run.
pub(crate) struct Run {
    command: Command,
    line: String,
}

impl Run {
    /// Prepares `program`, which is looked up in PATH if it has no slash.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program);
        let mut command = Command::new(program);
        // Cargo tells us about our own package, and what it builds for us depends on what it is
        // told: with that, it would all be built again for whoever calls it without.
        let own = std::env::vars_os().map(|(name, _)| name);
        let own = own.filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_"));
        for name in own.chain(["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"].map(OsString::from)) {
            command.env_remove(name);
        }
        Self { command, line: name.to_string_lossy().into_owned() }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets the directory to run in.
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.command.env(key, value.into());
        self
    }

    /// Runs the program with this terminal as its own.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let status = self.command.status();
        self.end(status)
    }

    /// Runs the program behind a line that shows how long it has taken and what it does now.
    ///
    /// Without a terminal a line is printed now and then instead.
    pub(crate) fn run_quietly(mut self, what: &str) -> Result<(), Failure> {
        let progress = Progress::start(what);
        let child = self.command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return self.end(Err(error)),
        };
        let mut tail = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                progress.note(&line);
                tail.push(line);
                if tail.len() > 20 {
                    tail.remove(0);
                }
            }
        }
        let result = self.end(child.wait());
        if result.is_err() {
            eprintln!("{}", tail.join("\n"));
        }
        progress.end(result.is_ok());
        result
    }

    /// Runs the program and returns what it prints.
    pub(crate) fn output(mut self) -> Result<String, Failure> {
        let output = self.command.stderr(Stdio::inherit()).output();
        match output {
            Ok(output) => {
                self.end(Ok(output.status))?;
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Err(error) => self.end(Err(error)).map(|()| String::new()),
        }
    }

    /// Starts the program without a terminal, with all that it prints in `log`.
    pub(crate) fn start(mut self, log: File) -> Result<Child, Failure> {
        let started = log
            .try_clone()
            .and_then(|too| self.command.stdin(Stdio::null()).stdout(log).stderr(too).spawn());
        started.map_err(|source| not_started(self.line, source))
    }

    fn end(self, status: std::io::Result<ExitStatus>) -> Result<(), Failure> {
        let line = self.line;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::Failed { line, status }),
            Err(source) => Err(not_started(line, source)),
        }
    }
}

fn not_started(line: String, source: std::io::Error) -> Failure {
    let remedy = "see README.md for what this machine must have".to_owned();
    Failure::NotStarted { line, remedy, source }
}

/// A line that shows that something goes on.
struct Progress {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
    last_line: std::cell::Cell<Instant>,
}

/// How often a line is printed where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(30);

impl Progress {
    fn start(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            step(what);
        }
        let started = Instant::now();
        Self { what: what.to_owned(), started, bar, last_line: std::cell::Cell::new(started) }
    }

    fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            None if self.last_line.get().elapsed() > LINE_EVERY => {
                self.last_line.set(Instant::now());
                eprintln!("    {} ({} s): {line}", self.what, self.started.elapsed().as_secs());
            }
            None => {}
        }
    }

    fn end(self, is_done: bool) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        let state = if is_done { "done" } else { "failed" };
        eprintln!("    {}: {state} in {} s", self.what, self.started.elapsed().as_secs());
    }
}
