//! What can go wrong between us and the API server, and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kube::core::Status;

/// What to do about credentials that stay what they are.
const OF_KUBECONFIG: &str = "check the token or client certificate in the kubeconfig";
/// What happens about a pod's own token: a kubelet does not hear that it is refused.
const OF_TOKEN_FILE: &str = "it is read again when whoever writes the token's file has renewed it: \
    the kubelet renews the token of a pod within an hour; to have it now, as after a change of the \
    cluster's signing key, delete the pod, whose successor gets a new one";

/// The request that failed: verb, kind, object and server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// What was asked: `get`, `list`, `create`, `update`, `delete`, `patch status of`, `watch`.
    pub verb: &'static str,
    /// The kind of object, as in `IPAMBlock`.
    pub kind: &'static str,
    /// The object, `namespace/name` or `name`; empty for a whole kind.
    pub object: String,
    /// The API server's URL.
    pub server: String,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {} {}", self.verb, self.kind)?;
        if !self.object.is_empty() {
            write!(formatter, " {}", self.object)?;
        }
        write!(formatter, " at {}", self.server)
    }
}

/// A failed operation on the datastore.
///
/// [`Error::is_retryable`] tells whether the same call may succeed later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The object, or the namespace it should be in, does not exist.
    #[error("{target}: it does not exist ({message}); read again and create it if it is needed")]
    NotFound {
        /// The request.
        target: Box<Target>,
        /// The server's words.
        message: String,
    },
    /// The server does not know the kind.
    #[error(
        "{target}: the server does not know this kind; apply the manifests of the custom resource definitions"
    )]
    UnknownKind {
        /// The request.
        target: Box<Target>,
    },
    /// Somebody else created an object of that name first.
    #[error("{target}: it exists already; read it and decide again")]
    AlreadyExists {
        /// The request.
        target: Box<Target>,
    },
    /// Somebody else changed the object since it was read.
    #[error("{target}: it was changed by somebody else ({message}); read it and decide again")]
    Conflict {
        /// The request.
        target: Box<Target>,
        /// The server's words.
        message: String,
    },
    /// The credentials are missing, wrong or expired.
    #[error("{target}: the server does not accept our credentials ({message}); {remedy}")]
    Unauthorized {
        /// The request.
        target: Box<Target>,
        /// The server's words.
        message: String,
        /// Who gets others.
        remedy: &'static str,
    },
    /// The credentials are right but lack a permission.
    #[error("{target}: not permitted ({message}); grant this verb in the ClusterRole of this user")]
    Forbidden {
        /// The request.
        target: Box<Target>,
        /// The server's words.
        message: String,
    },
    /// The server refuses the request itself.
    #[error(
        "{target}: the server rejects the request with status {code} ({message}); correct the object"
    )]
    Rejected {
        /// The request.
        target: Box<Target>,
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The server asks for fewer requests.
    #[error(
        "{target}: the server is overloaded ({message}); try again later or raise its priority and fairness limits"
    )]
    Throttled {
        /// The request.
        target: Box<Target>,
        /// The server's words.
        message: String,
        /// How long the server asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The server failed; a write may have been applied.
    #[error(
        "{target}: the server fails with status {code} ({message}); look into the logs of kube-apiserver and etcd"
    )]
    ServerFailure {
        /// The request.
        target: Box<Target>,
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The history that a watch or a page needs is gone from the server; list again.
    #[error(
        "{target}: the requested version is no longer kept by the server ({message}); list again"
    )]
    Expired {
        /// The request.
        target: Box<Target>,
        /// The server's words.
        message: String,
    },
    /// No connection: the request was not sent.
    #[error("{target}: no connection ({problem}); {remedy}")]
    Unreachable {
        /// The request.
        target: Box<Target>,
        /// The causes, outermost first.
        problem: String,
        /// What to look at.
        remedy: &'static str,
    },
    /// The request was sent and no whole answer came: a write may have been applied or not.
    #[error(
        "{target}: sent, but the answer was lost ({problem}); read again to see whether it was applied"
    )]
    LostResponse {
        /// The request.
        target: Box<Target>,
        /// The causes, outermost first.
        problem: String,
    },
    /// No answer in time to a request that changes nothing.
    #[error("{target}: no answer within {} s; check the load of the server and the network to it", timeout.as_secs_f32())]
    Timeout {
        /// The request.
        target: Box<Target>,
        /// How long we waited.
        timeout: Duration,
    },
    /// The server sent an object that we cannot read.
    #[error("{target}: the object is not valid ({problem}); correct it with kubectl or calicoctl")]
    Invalid {
        /// The request.
        target: Box<Target>,
        /// Which field and why.
        problem: String,
    },
    /// The caller passed an object that cannot be written.
    #[error("{target}: {problem}")]
    Unwritable {
        /// The request.
        target: Box<Target>,
        /// What is missing, and the remedy.
        problem: String,
    },
    /// The kubeconfig or the service account cannot be used.
    #[error("cannot use the datastore configuration {}: {problem}", path.display())]
    Config {
        /// The file or directory with the problem.
        path: PathBuf,
        /// The problem and its remedy.
        problem: String,
    },
}

impl Error {
    /// Returns whether the same call may succeed later without anybody changing a thing.
    ///
    /// [`Error::Conflict`] and [`Error::AlreadyExists`] are not retryable as such: the caller
    /// has to read and decide again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. }
            | Self::ServerFailure { .. }
            | Self::Expired { .. }
            | Self::Unreachable { .. }
            | Self::LostResponse { .. }
            | Self::Timeout { .. } => true,
            Self::NotFound { .. }
            | Self::UnknownKind { .. }
            | Self::AlreadyExists { .. }
            | Self::Conflict { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::Rejected { .. }
            | Self::Invalid { .. }
            | Self::Unwritable { .. }
            | Self::Config { .. } => false,
        }
    }

    /// Returns whether a write that failed this way may have been applied all the same.
    #[must_use]
    pub fn may_be_applied(&self) -> bool {
        matches!(self, Self::LostResponse { .. } | Self::ServerFailure { .. })
    }

    /// Returns whether somebody else wrote first, so that reading and deciding again helps.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AlreadyExists { .. })
    }

    /// Returns how long the server asked us to wait, if it did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Throttled { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Returns this as it is for a client whose token is in a file that somebody else renews.
    pub(crate) fn of_token_file(self) -> Self {
        if let Self::Unauthorized { target, message, .. } = self {
            return Self::Unauthorized { target, message, remedy: OF_TOKEN_FILE };
        }
        self
    }

    /// Reads the error answer `status`, with the HTTP status in its `code`.
    pub(crate) fn from_status(
        target: Target,
        status: &Status,
        retry_after: Option<Duration>,
    ) -> Self {
        let target = Box::new(target);
        let message = status.message.clone();
        match status.code {
            401 => Self::Unauthorized { target, message, remedy: OF_KUBECONFIG },
            403 => Self::Forbidden { target, message },
            404 if status.reason == "NotFound" && status.details.is_some() => {
                Self::NotFound { target, message }
            }
            404 => Self::UnknownKind { target },
            409 if status.reason == "AlreadyExists" => Self::AlreadyExists { target },
            409 => Self::Conflict { target, message },
            410 => Self::Expired { target, message },
            429 => Self::Throttled { target, message, retry_after },
            code @ 500.. => Self::ServerFailure { target, code, message },
            code => Self::Rejected { target, code, message },
        }
    }
}

/// Returns `error` and its causes in one line, without repeating what a cause says again.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        next = cause.source();
    }
    line
}
