//! Why something in the lab failed.

use std::path::{Path, PathBuf};

/// Why something in the lab failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program that is not where it should be.
    #[error("{} is missing: `cargo xtask setup` builds it", .0.display())]
    Missing(PathBuf),
    /// A program that could not be started, or that failed.
    #[error("{program}: {what}")]
    Program {
        /// Its name.
        program: String,
        /// What went wrong, with what it printed.
        what: String,
    },
    /// Something that did not come in time.
    #[error("waited {seconds} s for {what}{detail}")]
    Timeout {
        /// What for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was seen last.
        detail: String,
    },
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::netlink::Error),
    /// A network namespace.
    #[error(transparent)]
    Netns(#[from] kernel::netns::Error),
    /// The API server.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// A CNI plugin that refused.
    #[error("{plugin} {command}: code {code}: {message}")]
    Cni {
        /// The plugin.
        plugin: String,
        /// `ADD`, `DEL` or another.
        command: String,
        /// The error's code.
        code: u32,
        /// The error's message and details.
        message: String,
    },
    /// Something is not as it should be; the text says what was expected and what is.
    #[error("{0}")]
    Wrong(String),
}

impl Error {
    /// Returns the error of a file operation.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// Returns the error of a program.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass text and errors alike")]
    pub fn program(program: &str, what: impl ToString) -> Self {
        Self::Program { program: program.to_owned(), what: what.to_string() }
    }

    /// Returns the error that something is not as it should be.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass text and errors alike")]
    pub fn wrong(what: impl ToString) -> Self {
        Self::Wrong(what.to_string())
    }
}
