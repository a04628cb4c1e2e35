//! Errors as a plugin prints them on standard output (CNI spec §5 "Error").

use std::fmt;

use serde_json::{Value, json};

use crate::version::{UnsupportedVersion, Version};

/// What kind of error it is, as a number that the runtime may act on; for people docs/cni.md.
///
/// | Code | Meaning | What the runtime or a person should do |
/// |---|---|---|
/// | 1 | the configuration's `cniVersion` is not ours | use one that VERSION lists |
/// | 2 | a field, or a value of it, is not supported | remove or change it |
/// | 3 | the container is unknown; nothing to clean up | nothing |
/// | 4 | `CNI_…` variables are missing or wrong | correct the runtime |
/// | 5 | reading or writing failed | look at the named file |
/// | 6 | standard input is not what it should be | correct the caller |
/// | 7 | the network configuration is wrong | correct the conflist |
/// | 8 | the network namespace cannot be used | let the runtime make a new one |
/// | 11 | try again later: not ready, or too busy | the runtime repeats the call |
/// | 50 | the plugin is not available (STATUS) | wait; no ADD will succeed |
/// | 51 | not available, and existing containers may suffer | as 50 |
/// | 100 | any other error, as in Calico | read the message |
/// | 101 | the datastore refused or could not be reached | look at the API server and our access to it |
/// | 102 | the IPAM plugin could not be run, or answered nonsense | look at `CNI_PATH` and the delegate |
/// | 103 | the kernel refused to make or change a link, address, route or setting | read the message |
/// | 104 | CHECK found a difference | let the runtime recreate the container |
/// | 105 | a signal ended the call; everything was undone | repeat the call |
/// | 106 | no address is free | add a pool or free addresses |
/// | 107 | the requested address is taken or outside every pool | request another |
/// | 108 | the kubeconfig is missing, unreadable or wrong | look at the named file |
/// | 109 | the API server does not accept our credentials | have calico-node renew the token; compare the clocks |
/// | 110 | the API server does not permit what we ask | correct the ClusterRole |
/// | 111 | the API server does not know Calico's kinds | apply the custom resource definitions |
/// | 112 | no connection to the API server | look at it and the way to it |
/// | 113 | the cluster was never set up: no ClusterInformation | start calico-node |
/// | 114 | the datastore is locked | unlock it |
/// | 115 | this node was never set up: no file with its name | start calico-node on it |
/// | 116 | the MTU file is missing or wrong | start calico-node, or set `mtu` |
/// | 117 | no Node object has this node's name | correct the name |
/// | 118 | no IP pool may be used for the pod | enable, or add, a pool |
/// | 119 | this node may not take the addresses that are free | relax the IPAMConfig, or add a pool |
/// | 120 | the pod is not in the datastore | nothing, if it was deleted |
/// | 121 | a certificate is not valid at this time | compare the clocks, renew it |
/// | 122 | the API server's certificate is by an authority that we do not know | correct the kubeconfig |
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorCode {
    /// 1.
    IncompatibleVersion,
    /// 2.
    UnsupportedField,
    /// 3.
    UnknownContainer,
    /// 4.
    InvalidEnvironment,
    /// 5.
    Io,
    /// 6.
    Decode,
    /// 7.
    InvalidConfig,
    /// 8.
    InvalidNetns,
    /// 11.
    TryAgainLater,
    /// 50.
    NotAvailable,
    /// 51.
    NotAvailableLimited,
    /// 100.
    Generic,
    /// 101.
    Datastore,
    /// 102.
    Delegate,
    /// 103.
    Kernel,
    /// 104.
    CheckFailed,
    /// 105.
    Interrupted,
    /// 106.
    NoFreeAddress,
    /// 107.
    AddressUnavailable,
    /// 108.
    Kubeconfig,
    /// 109.
    Credentials,
    /// 110.
    Forbidden,
    /// 111.
    UnknownKind,
    /// 112.
    Unreachable,
    /// 113.
    NotSetUp,
    /// 114.
    Locked,
    /// 115.
    NodeNotSetUp,
    /// 116.
    MtuFile,
    /// 117.
    UnknownNode,
    /// 118.
    NoPool,
    /// 119.
    NotThisNode,
    /// 120.
    UnknownPod,
    /// 121.
    Certificate,
    /// 122.
    Authority,
    /// A number that another plugin chose.
    Other(u32),
}

impl ErrorCode {
    const NAMED: [Self; 34] = [
        Self::IncompatibleVersion,
        Self::UnsupportedField,
        Self::UnknownContainer,
        Self::InvalidEnvironment,
        Self::Io,
        Self::Decode,
        Self::InvalidConfig,
        Self::InvalidNetns,
        Self::TryAgainLater,
        Self::NotAvailable,
        Self::NotAvailableLimited,
        Self::Generic,
        Self::Datastore,
        Self::Delegate,
        Self::Kernel,
        Self::CheckFailed,
        Self::Interrupted,
        Self::NoFreeAddress,
        Self::AddressUnavailable,
        Self::Kubeconfig,
        Self::Credentials,
        Self::Forbidden,
        Self::UnknownKind,
        Self::Unreachable,
        Self::NotSetUp,
        Self::Locked,
        Self::NodeNotSetUp,
        Self::MtuFile,
        Self::UnknownNode,
        Self::NoPool,
        Self::NotThisNode,
        Self::UnknownPod,
        Self::Certificate,
        Self::Authority,
    ];

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::NotAvailableLimited => 51,
            Self::Generic => 100,
            Self::Datastore => 101,
            Self::Delegate => 102,
            Self::Kernel => 103,
            Self::CheckFailed => 104,
            Self::Interrupted => 105,
            Self::NoFreeAddress => 106,
            Self::AddressUnavailable => 107,
            Self::Kubeconfig => 108,
            Self::Credentials => 109,
            Self::Forbidden => 110,
            Self::UnknownKind => 111,
            Self::Unreachable => 112,
            Self::NotSetUp => 113,
            Self::Locked => 114,
            Self::NodeNotSetUp => 115,
            Self::MtuFile => 116,
            Self::UnknownNode => 117,
            Self::NoPool => 118,
            Self::NotThisNode => 119,
            Self::UnknownPod => 120,
            Self::Certificate => 121,
            Self::Authority => 122,
            Self::Other(number) => number,
        }
    }
}

impl From<u32> for ErrorCode {
    fn from(number: u32) -> Self {
        let is_it = |code: &Self| code.number() == number;
        Self::NAMED.into_iter().find(is_it).unwrap_or(Self::Other(number))
    }
}

/// An error with everything that a plugin may say about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    /// What kind it is.
    pub code: ErrorCode,
    /// One line: what is wrong and what to do about it.
    pub message: String,
    /// More about the cause; may be empty.
    pub details: String,
}

impl Error {
    /// Makes an error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// Adds what is known about the cause.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Returns this as STATUS says it: no ADD would be served, and existing containers may suffer
    /// too if there is `trouble`. The details end with the code of the cause, as `code 112`.
    #[must_use]
    pub fn unavailable(self, trouble: Option<String>) -> Self {
        let code = match (&trouble, self.code) {
            (Some(_), _) | (None, ErrorCode::NotAvailableLimited) => ErrorCode::NotAvailableLimited,
            (None, _) => ErrorCode::NotAvailable,
        };
        let is_cause =
            !matches!(self.code, ErrorCode::NotAvailable | ErrorCode::NotAvailableLimited);
        let cause = is_cause.then_some(self.code);
        let details = joined([trouble.unwrap_or_default(), self.details], cause);
        Self { code, message: self.message, details }
    }

    /// Returns the code of what STATUS found, if this is what it said.
    #[must_use]
    pub fn cause(&self) -> Option<ErrorCode> {
        let number = self.details.rsplit("; ").next()?.strip_prefix("code ")?;
        number.parse().ok().map(|number: u32| number.into())
    }

    /// Returns what goes to standard output; `version` is that of the configuration,
    /// or [`Version::NEWEST`] if none could be read.
    ///
    /// The details end with the code, as `code 112`, or with that of the cause: runtimes keep
    /// the number to themselves, and people read the pod's events.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let code = self.cause().is_none().then_some(self.code);
        let details = joined([self.details.clone()], code);
        json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.message,
            "details": details,
        })
    }

    /// Reads what a failed plugin printed, if it is an error.
    #[must_use]
    pub fn from_json(stdout: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(stdout).ok()?;
        let code = u32::try_from(value.get("code")?.as_u64()?).ok()?;
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let (message, details) = (text("msg").to_owned(), text("details"));
        let code = ErrorCode::from(code);
        let code_in_words = words(code);
        let details = match details.strip_suffix(&code_in_words) {
            Some("") => "",
            Some(rest) => rest.strip_suffix("; ").unwrap_or(details),
            None => details,
        };
        Some(Self { code, message, details: details.to_owned() })
    }
}

/// Returns how details tell a code.
fn words(code: ErrorCode) -> String {
    format!("code {}", code.number())
}

/// Returns details of these parts, and of a code at last.
fn joined<const N: usize>(parts: [String; N], code: Option<ErrorCode>) -> String {
    let parts = parts.into_iter().chain(code.map(words)).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl std::error::Error for Error {}

impl From<UnsupportedVersion> for Error {
    fn from(error: UnsupportedVersion) -> Self {
        Self::new(ErrorCode::IncompatibleVersion, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_one_to_one() {
        for number in 0..200 {
            assert_eq!(ErrorCode::from(number).number(), number);
        }
        assert_eq!(ErrorCode::from(11), ErrorCode::TryAgainLater);
        assert_eq!(ErrorCode::from(999), ErrorCode::Other(999));
    }

    #[test]
    fn status_tells_the_code_of_the_cause() {
        let error = Error::new(ErrorCode::UnknownNode, "no node").with_details("why");
        let told = error.unavailable(None);
        assert_eq!(
            told,
            Error::new(ErrorCode::NotAvailable, "no node").with_details("why; code 117")
        );
        assert_eq!(told.cause(), Some(ErrorCode::UnknownNode));
        // One plugin hands on what another says.
        assert_eq!(told.clone().unavailable(None), told);
        let suffering = told.unavailable(Some("calico-node is away".to_owned()));
        assert_eq!(suffering.code, ErrorCode::NotAvailableLimited);
        assert_eq!(suffering.details, "calico-node is away; why; code 117");
        assert_eq!(Error::new(ErrorCode::Io, "x").cause(), None);
    }

    #[test]
    fn errors_round_trip() {
        let error = Error::new(ErrorCode::InvalidConfig, "wrong").with_details("why");
        let text = error.to_json(Version::V0_4_0).to_string();
        let expected = r#"{"cniVersion":"0.4.0","code":7,"details":"why; code 7","msg":"wrong"}"#;
        assert_eq!(text, expected);
        assert_eq!(Error::from_json(text.as_bytes()), Some(error.clone()));
        let plain = Error::new(ErrorCode::Io, "x");
        let told = plain.to_json(Version::NEWEST);
        assert_eq!(told["details"], "code 5");
        assert_eq!(Error::from_json(told.to_string().as_bytes()), Some(plain));
        // STATUS tells the cause, and not what it says itself besides.
        let status = error.unavailable(None);
        let told = status.to_json(Version::NEWEST);
        assert_eq!(
            (told["code"].as_u64(), told["details"].as_str()),
            (Some(50), Some("why; code 7"))
        );
        assert_eq!(Error::from_json(told.to_string().as_bytes()), Some(status));
        assert_eq!(Error::from_json(b"panic!"), None);
    }
}
