//! Network namespaces: opened by path, made by name, entered on threads of their own
//! (`network_namespaces(7)`).
//!
//! `netns-rs` makes and removes the named ones, as ip-netns(8) does. It is not
//! used to enter them: after a panic its `run` leaves the thread in the other
//! namespace, and the thread may belong to a pool.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};

/// Where ip-netns(8) keeps namespaces that have a name.
pub const NAMED: &str = "/var/run/netns";

/// An open network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

/// What tells one namespace from another: device and inode of its file.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NetnsId {
    dev: u64,
    inode: u64,
}

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file of that name.
    #[error("network namespace {path} does not exist: its owner has ended or removed it")]
    Missing {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error("cannot open network namespace {path}: {source}")]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file is something else than a network namespace.
    #[error("{path} is no network namespace: give a file such as {NAMED}/NAME or /proc/PID/ns/net")]
    NotNetns {
        /// What was opened.
        path: PathBuf,
    },
    /// The thread may not enter the namespace.
    #[error("cannot enter network namespace {path}: {errno}; run as root with CAP_SYS_ADMIN")]
    Enter {
        /// What was to be entered.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No thread could be started to enter the namespace with.
    #[error(
        "cannot start a thread for network namespace {path}: {source}; raise the limit of tasks"
    )]
    Thread {
        /// What was to be entered.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A namespace of that name is there already.
    #[error("network namespace `{name}` exists already: remove it first or choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// The name cannot be a file's.
    #[error("`{name}` is no name for a network namespace: use letters, digits, `.`, `_` and `-`")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// A named namespace cannot be made.
    #[error("cannot create network namespace `{name}`: {source}")]
    Create {
        /// The name.
        name: String,
        /// What went wrong.
        source: Box<netns_rs::Error>,
    },
    /// A named namespace cannot be removed.
    #[error("cannot remove network namespace `{name}`: {source}")]
    Remove {
        /// The name.
        name: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// May the same call succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Thread { .. } => true,
            Self::Open { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
            }
            Self::Enter { errno, .. } => *errno == Errno::ENOMEM,
            Self::Missing { .. }
            | Self::NotNetns { .. }
            | Self::Exists { .. }
            | Self::InvalidName { .. }
            | Self::Create { .. }
            | Self::Remove { .. } => false,
        }
    }

    /// Is the namespace simply not there?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl Netns {
    /// Opens the namespace that `path` names.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Open`], or [`Error::NotNetns`] for any other file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // O_NONBLOCK: a FIFO put in the way must not hang us.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|source| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::NotFound {
                Error::Missing { path }
            } else {
                Error::Open { path, source }
            }
        })?;
        let netns = Self { file, path: path.to_owned() };
        if netns.is_netns() { Ok(netns) } else { Err(Error::NotNetns { path: path.to_owned() }) }
    }

    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if /proc is not mounted or no file descriptor is left.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens the namespace that ip-netns(8) calls `name`.
    ///
    /// # Errors
    ///
    /// As for [`Netns::open`], and [`Error::InvalidName`].
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::open(&path_of(name)?)
    }

    /// Makes a namespace and gives it a name under [`NAMED`].
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::InvalidName`] or [`Error::Create`].
    pub fn create(name: &str) -> Result<Self, Error> {
        // `netns-rs` answers EPERM for an existing name, so look first.
        if path_of(name)?.exists() {
            return Err(Error::Exists { name: name.to_owned() });
        }
        netns_rs::NetNs::new(name)
            .map_err(|source| Error::Create { name: name.to_owned(), source: Box::new(source) })?;
        Self::named(name)
    }

    /// Removes the name, and with it the namespace once nobody is in it;
    /// returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] or [`Error::Remove`].
    pub fn remove(name: &str) -> Result<bool, Error> {
        let path = path_of(name)?;
        let failed = |source| Error::Remove { name: name.to_owned(), source };
        match Self::open(&path) {
            Ok(_) => {
                let named = netns_rs::NetNs::get(name).map_err(|source| failed(source.into()))?;
                named.remove().map_err(|source| failed(source.into()))?;
                Ok(true)
            }
            Err(Error::Missing { .. }) => Ok(false),
            // What a crash between making the file and mounting on it leaves behind.
            Err(Error::NotNetns { .. }) => {
                std::fs::remove_file(&path).map_err(|source| failed(source.into()))?;
                Ok(true)
            }
            Err(other) => Err(other),
        }
    }

    /// Runs `f` inside the namespace, on a thread that ends with it, and waits.
    ///
    /// A panic in `f` goes on in the caller, whose own namespace is untouched.
    ///
    /// # Errors
    ///
    /// [`Error::Enter`] or [`Error::Thread`]; `f` has not run then.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Enter { path: self.path.clone(), errno })?;
            Ok(f())
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, inside)
                .map_err(|source| Error::Thread { path: self.path.clone(), source })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Returns what tells this namespace from others.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if the file cannot be examined.
    pub fn id(&self) -> Result<NetnsId, Error> {
        let found = self
            .file
            .metadata()
            .map_err(|source| Error::Open { path: self.path.clone(), source })?;
        Ok(NetnsId { dev: found.dev(), inode: found.ino() })
    }

    /// Returns the path that this was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the kernel for the type of the namespace (`ioctl_ns(2)`).
    fn is_netns(&self) -> bool {
        ns_type(self.file.as_fd()) == Ok(libc::CLONE_NEWNET)
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Returns the file of the namespace called `name`.
fn path_of(name: &str) -> Result<PathBuf, Error> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_allowed) {
        return Err(Error::InvalidName { name: name.to_owned() });
    }
    Ok(Path::new(NAMED).join(name))
}

/// Returns the `CLONE_NEW…` flag of the namespace that `file` is, by `NS_GET_NSTYPE`.
#[expect(unsafe_code, reason = "ioctl has no safe form")]
fn ns_type(file: BorrowedFd<'_>) -> Result<i32, Errno> {
    nix::ioctl_none_bad!(get_ns_type, nix::request_code_none!(0xb7, 0x3));
    // SAFETY: the descriptor is open for the length of the call, and this request
    // takes no argument: the kernel reads and writes none of our memory.
    unsafe { get_ns_type(file.as_raw_fd()) }
}
