//! What a network configuration says of the API server, and what a plugin tells of our errors.

use cni::ErrorCode;
use cni::config::Kubernetes;

use crate::{Error, Inline, Source};

/// What a certificate's problem is called by rustls, if it is one of time.
const OF_TIME: [&str; 4] = ["Expired", "NotValidYet", "expired", "not valid yet"];

/// What it is called if we do not know who has signed it.
const OF_AUTHORITY: [&str; 2] = ["UnknownIssuer", "BadSignature"];

/// Who must do what besides what the error says itself.
const REMEDIES: [(ErrorCode, &str); 4] = [
    (
        ErrorCode::Credentials,
        "calico-node renews the token in the file that `kubernetes.kubeconfig` names: check that \
         it runs on this node and that the clocks agree",
    ),
    (
        ErrorCode::Certificate,
        "compare this machine's clock with the API server's, then look at the validity of the \
         server's certificate",
    ),
    (
        ErrorCode::Authority,
        "the kubeconfig names another authority than the one that has signed the API server's \
         certificate: delete the kubeconfig and calico-node writes it anew, with the cluster's; \
         if that does not help, see who answers at this address",
    ),
    (ErrorCode::Forbidden, "apply the ClusterRole calico-cni-plugin of the manifest again"),
];

impl From<&Error> for ErrorCode {
    /// Returns the code that tells this cause from all others.
    fn from(error: &Error) -> Self {
        match error {
            Error::Unreachable { problem, .. } if is_of_time(problem) => Self::Certificate,
            Error::Unreachable { problem, .. } if is_of_authority(problem) => Self::Authority,
            Error::Unreachable { .. } => Self::Unreachable,
            Error::Unauthorized { .. } => Self::Credentials,
            Error::Forbidden { .. } => Self::Forbidden,
            Error::UnknownKind { .. } => Self::UnknownKind,
            Error::Config { .. } => Self::Kubeconfig,
            error if error.is_retryable() || error.is_contention() => Self::TryAgainLater,
            Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Conflict { .. }
            | Error::Rejected { .. }
            | Error::Throttled { .. }
            | Error::ServerFailure { .. }
            | Error::Expired { .. }
            | Error::LostResponse { .. }
            | Error::Timeout { .. }
            | Error::Invalid { .. }
            | Error::Unwritable { .. } => Self::Datastore,
        }
    }
}

impl From<&Error> for cni::Error {
    /// Returns the error for the runtime; it says itself who must act.
    fn from(error: &Error) -> Self {
        let code = ErrorCode::from(error);
        let known = REMEDIES.iter().find(|(known, _)| *known == code);
        let remedy = known.map(|(_, remedy)| *remedy).unwrap_or_default();
        Self::new(code, error.to_string()).with_details(remedy)
    }
}

impl From<&Kubernetes> for Source {
    /// Returns where the API server is, and who the plugin is there.
    fn from(kubernetes: &Kubernetes) -> Self {
        if let Some(path) = &kubernetes.kubeconfig {
            if kubernetes.is_written_out() {
                tracing::warn!("k8s_api_root and its like are ignored: the kubeconfig says it");
            }
            return Self::Kubeconfig(path.clone());
        }
        if kubernetes.is_written_out() {
            return Self::Inline(Inline::new(kubernetes.to_kubeconfig().expose().clone()));
        }
        Self::Infer
    }
}

/// Whether nobody whom we know vouches for a certificate, or somebody else of the same name does.
fn is_of_authority(problem: &str) -> bool {
    problem.contains("certificate") && OF_AUTHORITY.iter().any(|word| problem.contains(word))
}

fn is_of_time(problem: &str) -> bool {
    problem.contains("certificate") && OF_TIME.iter().any(|word| problem.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    fn target() -> Target {
        Target {
            verb: "get",
            kind: "Pod",
            object: "default/a".to_owned(),
            server: "https://127.0.0.1:6443".to_owned(),
        }
    }

    fn unreachable(problem: &str) -> Error {
        let (problem, remedy) = (problem.to_owned(), "look");
        Error::Unreachable { target: target().into(), problem, remedy }
    }

    #[test]
    fn each_cause_has_its_code() {
        let message = String::new;
        for (error, code) in [
            (unreachable("connection refused"), ErrorCode::Unreachable),
            (unreachable("invalid peer certificate: Expired"), ErrorCode::Certificate),
            (unreachable("invalid peer certificate: certificate not valid yet: x"), {
                ErrorCode::Certificate
            }),
            (unreachable("invalid peer certificate: UnknownIssuer"), ErrorCode::Authority),
            (unreachable("invalid peer certificate: NotValidForName"), ErrorCode::Unreachable),
            (
                Error::Unauthorized { target: target().into(), message: message(), remedy: "" },
                ErrorCode::Credentials,
            ),
            (
                Error::Forbidden { target: target().into(), message: message() },
                ErrorCode::Forbidden,
            ),
            (Error::UnknownKind { target: target().into() }, ErrorCode::UnknownKind),
            (
                Error::Conflict { target: target().into(), message: message() },
                ErrorCode::TryAgainLater,
            ),
            (
                Error::ServerFailure { target: target().into(), code: 500, message: message() },
                ErrorCode::TryAgainLater,
            ),
            (
                Error::Rejected { target: target().into(), code: 422, message: message() },
                ErrorCode::Datastore,
            ),
            (
                Error::Config { path: "/k".into(), problem: "is a directory".to_owned() },
                ErrorCode::Kubeconfig,
            ),
        ] {
            assert_eq!(ErrorCode::from(&error), code, "{error}");
        }
    }
}
