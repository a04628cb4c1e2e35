//! Why something that Docker asks cannot be done, in one line for whoever called docker.

use std::net::IpAddr;

use model::net::Cidr;

/// Why something that Docker asks cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request is wrong; the text says what and what to do.
    #[error("{0}")]
    Wrong(String),
    /// A method that the protocol has not, or that we have not.
    #[error("{0} is no method of this driver")]
    NoMethod(String),
    /// A request that is none.
    #[error("cannot read the request for {method}: {problem}")]
    Undecodable {
        /// The method.
        method: String,
        /// What is wrong.
        problem: String,
    },
    /// A range that is not ours to make a pool of.
    #[error(
        "subnet {subnet} overlaps IPPool {pool} ({range}): use --subnet {range}, or a subnet that \
         overlaps no pool"
    )]
    Overlap {
        /// What was asked for.
        subnet: Cidr,
        /// Whom it overlaps.
        pool: String,
        /// That one's range.
        range: Cidr,
    },
    /// A pool that exists and must not be used.
    #[error("IPPool {pool} ({range}) {reason}")]
    Unusable {
        /// The pool.
        pool: String,
        /// Its range.
        range: Cidr,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An address of no pool.
    #[error("address {addr} is not in {range}, the subnet of the network")]
    Outside {
        /// The address.
        addr: IpAddr,
        /// The network's range.
        range: Cidr,
    },
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// An object of the datastore.
    #[error(transparent)]
    Object(#[from] api::Invalid),
    /// Address management.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::netlink::Error),
    /// A kernel parameter.
    #[error(transparent)]
    Sysctl(#[from] kernel::sysctl::Error),
    /// A network namespace.
    #[error(transparent)]
    Netns(#[from] kernel::netns::Error),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] kernel::files::Error),
    /// A directory of ours.
    #[error(transparent)]
    Directory(#[from] kernel::directory::Error),
    /// Docker's own API.
    #[error("cannot ask Docker at {socket}: {problem}")]
    Docker {
        /// Where.
        socket: String,
        /// What is wrong.
        problem: String,
    },
    /// iptables, which Docker needs too.
    #[error("{program}: {problem}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it says.
        problem: String,
    },
}

impl Error {
    /// Makes the error of a request that is wrong.
    pub(crate) fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }

    /// Returns the status of the answer (Docker's plugin protocol).
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::NoMethod(_) => 404,
            Self::Undecodable { .. } => 400,
            Self::Wrong(_)
            | Self::Overlap { .. }
            | Self::Unusable { .. }
            | Self::Outside { .. }
            | Self::Datastore(_)
            | Self::Object(_)
            | Self::Ledger(_)
            | Self::Kernel(_)
            | Self::Sysctl(_)
            | Self::Netns(_)
            | Self::File(_)
            | Self::Directory(_)
            | Self::Docker { .. }
            | Self::Program { .. } => 500,
        }
    }

    /// Returns the message as one line.
    pub(crate) fn line(&self) -> String {
        let text = self.to_string();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
