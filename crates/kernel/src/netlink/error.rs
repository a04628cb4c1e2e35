//! What goes wrong between us and the kernel, and what to do about it.

use std::fmt;
use std::io;

use model::net::IfName;
use nix::errno::Errno;

/// Why a netlink request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no tokio runtime to wait with.
    #[error("no tokio runtime: open route sockets from within one that has IO enabled")]
    NoRuntime,
    /// The socket cannot be made.
    #[error("cannot open a route socket: {source}")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] crate::netns::Error),
    /// The socket failed under a request.
    #[error("the route socket failed: {source}")]
    Socket {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no link of that name.
    #[error(
        "there is no link `{if_name}` in this network namespace: create it or correct the name"
    )]
    NoSuchLink {
        /// The name.
        if_name: IfName,
    },
    /// Every attempt to read a table met a change of it.
    #[error("the {table} changed during each of {attempts} readings: read them again later")]
    KeepsChanging {
        /// What was read.
        table: &'static str,
        /// How often.
        attempts: u32,
    },
    /// A message of the kernel's makes no sense to us.
    #[error("the kernel's answer about {table} cannot be read: {problem}")]
    Malformed {
        /// What was read.
        table: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The interface got no link-local address in time.
    #[error(
        "`{if_name}` has no usable IPv6 link-local address: set the link up and \
         sysctl net.ipv6.conf.{if_name}.disable_ipv6=0"
    )]
    NoLinkLocal {
        /// The interface.
        if_name: IfName,
    },
    /// A route names no gateway, or one of the other address family.
    #[error("route {dst} cannot be written: {problem}")]
    Unwritable {
        /// The route's destination.
        dst: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The kernel's refusal of one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What we wanted to do: `add`, `delete` and so on.
    pub action: &'static str,
    /// What we wanted to do it to, as ip(8) would write it.
    pub object: String,
    /// The kernel's number for the reason.
    pub errno: Errno,
    /// The kernel's own words, if it had any.
    pub detail: Option<String>,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.action, self.object, self.errno)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(remedy) = remedy(self.errno) {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl Refusal {
    /// May the same request succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.errno,
            Errno::EAGAIN
                | Errno::EBUSY
                | Errno::EINTR
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::ETIMEDOUT
        )
    }
}

impl Error {
    /// May the same request succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Netns(error) => error.is_retryable(),
            Self::Open { .. }
            | Self::Socket { .. }
            | Self::KeepsChanging { .. }
            | Self::NoLinkLocal { .. } => true,
            Self::NoRuntime
            | Self::NoSuchLink { .. }
            | Self::Malformed { .. }
            | Self::Unwritable { .. } => false,
        }
    }

    /// Names the object of a refusal anew.
    #[must_use]
    pub(crate) fn about(mut self, object: String) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.object = object;
        }
        self
    }

    /// Is the object there already?
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Did the kernel take the request for nonsense? It says so also of what is not there.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.errno() == Some(Errno::EINVAL)
    }

    /// Is the object, or the link it needs, not there?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NoSuchLink { .. })
            || matches!(
                self.errno(),
                Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
            )
    }

    /// Returns the kernel's number for the reason, if the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        if let Self::Refused(refusal) = self { Some(refusal.errno) } else { None }
    }
}

/// Returns what a person can do about `errno`, where that is known.
fn remedy(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EPERM | Errno::EACCES => "run as root with CAP_NET_ADMIN",
        Errno::EEXIST => "delete the one that is there, or choose another name",
        Errno::ENODEV => "the link is gone: look whether its owner removed it",
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => {
            "no link leads to the gateway: set the link up and give it an address first"
        }
        Errno::ENETDOWN => "set the link up first",
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => {
            "the running kernel lacks this feature: load its module"
        }
        Errno::ENOBUFS | Errno::ENOMEM => "the kernel is short of memory: try again",
        Errno::EBUSY => "another program is using it: try again",
        _ => return None,
    })
}
