//! Errors as a plugin prints them on standard output (CNI spec §5 "Error").

use std::fmt;

use serde_json::{Map, Value, json};

use crate::version::{UnsupportedVersion, Version};

/// What kind of error it is, as a number that the runtime may act on.
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
    /// A number that another plugin chose.
    Other(u32),
}

impl ErrorCode {
    const NAMED: [Self; 19] = [
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

    /// Returns what goes to standard output; `version` is that of the configuration,
    /// or [`Version::NEWEST`] if none could be read.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("cniVersion".into(), json!(version.as_str()));
        object.insert("code".into(), json!(self.code.number()));
        object.insert("msg".into(), json!(self.message));
        if !self.details.is_empty() {
            object.insert("details".into(), json!(self.details));
        }
        Value::Object(object)
    }

    /// Reads what a failed plugin printed, if it is an error.
    #[must_use]
    pub fn from_json(stdout: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(stdout).ok()?;
        let code = u32::try_from(value.get("code")?.as_u64()?).ok()?;
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { code: code.into(), message: text("msg"), details: text("details") })
    }
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
    fn errors_round_trip() {
        let error = Error::new(ErrorCode::InvalidConfig, "wrong").with_details("why");
        let text = error.to_json(Version::V0_4_0).to_string();
        assert_eq!(text, r#"{"cniVersion":"0.4.0","code":7,"details":"why","msg":"wrong"}"#);
        assert_eq!(Error::from_json(text.as_bytes()), Some(error));
        assert_eq!(Error::from_json(b"panic!"), None);
    }
}
