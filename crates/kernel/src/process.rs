//! Child processes with limits: so much output, so much time.
//!
//! For CNI plugins and the like, which answer on standard output. Only the child itself is
//! ever killed, by its own number.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// What to run.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// The program's file.
    pub path: &'a Path,
    /// Its arguments, without its own name.
    pub arguments: &'a [&'a str],
    /// Its whole environment; nothing of ours is passed on.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// What it reads from standard input.
    pub stdin: &'a [u8],
    /// The most bytes that it may write to standard output, and to standard error.
    pub output_limit: u64,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot run `{path}`: {source}; install it there, executable, or correct the path")]
    Start {
        /// The program.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{path}` took longer than {timeout:?} and was killed")]
    TimedOut {
        /// The program.
        path: PathBuf,
        /// How long it had.
        timeout: Duration,
    },
    /// It wrote too much and was killed.
    #[error("`{path}` wrote more than {limit} bytes to {stream} and was killed")]
    TooMuchOutput {
        /// The program.
        path: PathBuf,
        /// Where to.
        stream: &'static str,
        /// The most bytes that are read.
        limit: u64,
    },
    /// Reading from it failed.
    #[error("cannot read what `{path}` writes: {source}")]
    Read {
        /// The program.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// May the same call succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Read { .. } => true,
            Self::TooMuchOutput { .. } => false,
            Self::Start { source, .. } => {
                matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
            }
        }
    }
}

impl Program<'_> {
    /// Runs the program to its end.
    ///
    /// Dropping the future kills it.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started or exceeds a limit. How it exits is in
    /// [`Output::status`].
    pub async fn run(&self) -> Result<Output, Error> {
        let path = || self.path.to_owned();
        let mut child = Command::new(self.path)
            .args(self.arguments)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Start { path: path(), source })?;
        let outcome = tokio::time::timeout(self.timeout, self.talk(&mut child)).await;
        let outcome = outcome
            .unwrap_or_else(|_| Err(Error::TimedOut { path: path(), timeout: self.timeout }));
        if outcome.is_err() {
            // It may have ended by itself, which is as good.
            drop(child.kill().await);
        }
        outcome
    }

    async fn talk(&self, child: &mut Child) -> Result<Output, Error> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input may still answer.
                drop(stdin.write_all(self.stdin).await);
            }
            Ok(())
        };
        let ((), stdout, stderr) = tokio::try_join!(
            write,
            self.read(stdout, "standard output"),
            self.read(stderr, "standard error"),
        )?;
        let status = child.wait().await.map_err(|source| self.unreadable(source))?;
        Ok(Output { status, stdout, stderr })
    }

    async fn read(
        &self,
        stream: Option<impl AsyncRead + Unpin>,
        name: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let Some(stream) = stream else { return Ok(bytes) };
        let mut limited = stream.take(self.output_limit.saturating_add(1));
        limited.read_to_end(&mut bytes).await.map_err(|source| self.unreadable(source))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > self.output_limit {
            let path = self.path.to_owned();
            return Err(Error::TooMuchOutput { path, stream: name, limit: self.output_limit });
        }
        Ok(bytes)
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read { path: self.path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(program: &str, stdin: &[u8], timeout: Duration) -> Result<Output, Error> {
        let environment = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
        let path = Path::new(program);
        Program {
            path,
            arguments: &[],
            environment: &environment,
            stdin,
            output_limit: 1000,
            timeout,
        }
        .run()
        .await
    }

    /// Long enough for any machine; only a fault makes a test wait for it.
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn passes_input_and_output() {
        let output = run("/bin/cat", b"question", LONG).await.unwrap();
        assert_eq!(output.stdout, b"question");
        assert!(output.status.success());
    }

    #[tokio::test]
    async fn passes_on_nothing_of_our_environment() {
        let output = run("/usr/bin/env", b"", LONG).await.unwrap();
        assert_eq!(output.stdout, b"PATH=/usr/bin:/bin\n");
    }

    #[tokio::test]
    async fn failure_of_the_program_is_its_status() {
        assert!(!run("/bin/false", b"ignored", LONG).await.unwrap().status.success());
    }

    #[tokio::test]
    async fn kills_what_takes_too_long() {
        let error = run("/bin/sh", b"exec sleep 60", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn kills_what_writes_too_much() {
        let error = run("/usr/bin/yes", b"", LONG).await.unwrap_err();
        assert!(matches!(error, Error::TooMuchOutput { limit: 1000, .. }), "{error}");
    }

    #[tokio::test]
    async fn says_what_cannot_be_started() {
        let error = run("/nonexistent/plugin", b"", LONG).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot run `/nonexistent/plugin`"), "{error}");
    }
}
