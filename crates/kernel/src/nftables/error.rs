//! Why the kernel's tables could not be read or changed.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// Why nftables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no tokio runtime to wait with.
    #[error("no tokio runtime: open the monitor from within one that has IO enabled")]
    NoRuntime,
    /// The socket cannot be made.
    #[error("cannot open a netfilter socket: {source}; run as root with CAP_NET_ADMIN")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] crate::netns::Error),
    /// The socket failed under a request.
    #[error("the netfilter socket failed: {source}")]
    Socket {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a transaction; nothing of it was done.
    #[error("the kernel refused a transaction of {steps} steps: {}", list(.refusals))]
    Refused {
        /// How many steps it had.
        steps: usize,
        /// The steps that failed, and why; never empty.
        refusals: Vec<Refusal>,
    },
    /// Somebody has changed nftables since the transaction was planned; nothing of it was done.
    #[error("nftables have changed since they were read: read them again and plan anew")]
    Outdated,
    /// Every attempt to read the tables met a change of them.
    #[error("nftables changed during each of {attempts} readings: read them again later")]
    KeepsChanging {
        /// How often.
        attempts: u32,
    },
    /// The kernel would not list something.
    #[error("cannot list the {what} of nftables: {errno}")]
    Unreadable {
        /// What was to be listed.
        what: &'static str,
        /// The kernel's number for the reason.
        errno: Errno,
    },
    /// A message of the kernel's makes no sense to us, or is missing.
    #[error("the kernel's answer about the {what} of nftables cannot be read")]
    Malformed {
        /// What was asked about.
        what: &'static str,
    },
}

/// The kernel's refusal of one step of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The step, as the command of nft(8) that does the same.
    pub step: String,
    /// The kernel's number for the reason.
    pub errno: Errno,
    /// The kernel's own words, if it had any.
    pub detail: Option<String>,
}

impl Error {
    /// May the same request succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let is_passing = |errno: Errno| {
            matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM)
        };
        match self {
            Self::Netns(error) => error.is_retryable(),
            Self::Open { .. } | Self::Socket { .. } | Self::KeepsChanging { .. } => true,
            Self::Refused { refusals, .. } => {
                refusals.iter().all(|refusal| is_passing(refusal.errno))
            }
            Self::Unreadable { errno, .. } => is_passing(*errno),
            Self::NoRuntime | Self::Outdated | Self::Malformed { .. } => false,
        }
    }

    /// Did the tables differ from what was planned for? Reading them again helps.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        let is_drift = |errno: Errno| matches!(errno, Errno::ENOENT | Errno::EEXIST | Errno::EBUSY);
        match self {
            Self::Outdated => true,
            Self::Refused { refusals, .. } => {
                refusals.iter().any(|refusal| is_drift(refusal.errno))
            }
            Self::NoRuntime
            | Self::Open { .. }
            | Self::Netns(_)
            | Self::Socket { .. }
            | Self::KeepsChanging { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. } => false,
        }
    }
}

/// The most refusals that an error's text shows: one missing table refuses all that follows.
const SHOWN: usize = 3;

fn list(refusals: &[Refusal]) -> String {
    let shown = refusals.iter().take(SHOWN).map(Refusal::to_string).collect::<Vec<_>>();
    match refusals.len().saturating_sub(SHOWN) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.step, self.errno)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(remedy) = remedy(self.errno) {
            write!(f, ", {remedy}")?;
        }
        Ok(())
    }
}

/// Returns what can be done about `errno`, where that is known.
#[expect(clippy::wildcard_enum_match_arm, reason = "there are 130 numbers")]
fn remedy(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EPERM | Errno::EACCES => "run as root with CAP_NET_ADMIN",
        Errno::ENOENT => "what it names is gone, or the kernel lacks an expression of it",
        Errno::EEXIST => "it is there already, or overlaps one that is",
        Errno::EBUSY => "something still leads to it",
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => "the running kernel lacks this: load its module",
        Errno::ENOBUFS | Errno::ENOMEM | Errno::EMSGSIZE => "the kernel is short of memory",
        Errno::EMLINK => {
            "too many chains lead to each other: raise sysctl net.netfilter.nf_tables_jumps_max_netns"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_was_refused_and_what_to_do() {
        let refusal =
            |step: &str| Refusal { step: step.to_owned(), errno: Errno::ENOENT, detail: None };
        let steps = ["flush chain ip calico a", "b", "c", "d", "e"];
        let error = Error::Refused { steps: 9, refusals: steps.map(refusal).to_vec() };
        let text = error.to_string();
        assert!(text.starts_with(
            "the kernel refused a transaction of 9 steps: `flush chain ip calico a`: ENOENT"
        ));
        assert!(text.contains("what it names is gone"), "{text}");
        assert!(text.ends_with("; and 2 more"), "{text}");
        assert!(error.is_drift() && !error.is_retryable());
    }
}
