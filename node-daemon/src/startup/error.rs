//! Why a node cannot start.

use model::id::NodeName;

use super::address::Refusal;

/// Why a node cannot start; each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// Variables of the environment have values that are refused.
    #[error("the environment is not valid: {}", problems.join("; "))]
    Environment {
        /// What is wrong with each.
        problems: Vec<String>,
    },
    /// The node's name is no name.
    #[error(
        "this node has no usable name ({problem}); set NODENAME to the name of its Kubernetes Node"
    )]
    Name {
        /// What is wrong.
        problem: String,
    },
    /// Kubernetes knows no node of this name.
    #[error(
        "Kubernetes has no Node {name}; start the kubelet, or set NODENAME to the name that \
         `kubectl get nodes` shows, or CALICO_CREATE_NODE=true where there is no kubelet"
    )]
    NoNode {
        /// The name.
        name: NodeName,
    },
    /// The node's addresses cannot be what they should be.
    #[error(transparent)]
    Address(#[from] Refusal),
    /// The environment asks for a pool that cannot be, or an object cannot be read.
    #[error("{0}")]
    Object(#[from] api::Invalid),
    /// The datastore does not do what is asked.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// The kernel does not tell interfaces, addresses or routes.
    #[error("cannot read the interfaces of this machine: {0}")]
    Kernel(#[from] kernel::netlink::Error),
    /// A file that the CNI plugin needs cannot be written.
    #[error(
        "{0}; the CNI plugin needs this file: mount its directory from the host and make it writable"
    )]
    File(#[from] kernel::files::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers ({0}); check that /dev/urandom is there")]
    Random(#[from] getrandom::Error),
}

impl StartupError {
    /// May waiting help, with nothing changed by us?
    ///
    /// A missing permission, kind or Node counts: it may be on its way.
    #[must_use]
    pub fn is_worth_waiting(&self) -> bool {
        match self {
            Self::Datastore(error) => !matches!(
                error,
                datastore::Error::Config { .. } | datastore::Error::Rejected { .. }
            ),
            Self::Kernel(error) => error.is_retryable(),
            Self::File(error) => error.is_retryable(),
            // An interface may get its address later; the conflicting node may go away.
            Self::NoNode { .. }
            | Self::Address(Refusal::NoAddress { .. } | Refusal::Conflict { .. }) => true,
            Self::Address(Refusal::WrongFamily { .. })
            | Self::Environment { .. }
            | Self::Name { .. }
            | Self::Object(_)
            | Self::Random(_) => false,
        }
    }

    /// Did another node write first, or is the outcome of a write unknown?
    #[must_use]
    pub fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Datastore(error) => error.is_contention() || error.may_be_applied(),
            Self::Environment { .. }
            | Self::Name { .. }
            | Self::NoNode { .. }
            | Self::Address(_)
            | Self::Object(_)
            | Self::Kernel(_)
            | Self::File(_)
            | Self::Random(_) => false,
        }
    }
}
