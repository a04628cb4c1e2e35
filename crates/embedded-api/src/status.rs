//! The answer to a request that fails: `Status` of meta/v1, as the API conventions give it.

use serde_json::{Map, Value, json};

/// A failure as the client sees it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The machine's word for what is wrong.
    pub reason: Reason,
    /// One line for people.
    pub message: String,
    /// `details` of the status: name, group, kind, uid, causes, retryAfterSeconds.
    pub details: Option<Value>,
}

/// Why a request failed: `StatusReason` of meta/v1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// 404.
    NotFound,
    /// 409, on creation.
    AlreadyExists,
    /// 409, on a stale resourceVersion or a failed precondition.
    Conflict,
    /// 422.
    Invalid,
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 415.
    UnsupportedMediaType,
    /// 413.
    RequestEntityTooLarge,
    /// 410, a resourceVersion that was compacted away.
    Expired,
    /// 410, a resourceVersion that is too old to watch from.
    Gone,
    /// 504.
    Timeout,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 503.
    ServiceUnavailable,
    /// No word for it.
    Unknown,
}

impl Reason {
    /// Returns the word as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::Expired => "Expired",
            Self::Gone => "Gone",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Unknown => "",
        }
    }
}

impl Status {
    /// Returns a failure without details.
    #[must_use]
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    /// Returns the body of the answer.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = Map::from_iter([
            ("kind".to_owned(), json!("Status")),
            ("apiVersion".to_owned(), json!("v1")),
            ("metadata".to_owned(), json!({})),
            ("status".to_owned(), json!("Failure")),
            ("message".to_owned(), json!(self.message)),
            ("code".to_owned(), json!(self.code)),
        ]);
        if self.reason != Reason::Unknown {
            body.insert("reason".to_owned(), json!(self.reason.as_str()));
        }
        if let Some(details) = &self.details {
            body.insert("details".to_owned(), details.clone());
        }
        Value::Object(body)
    }
}
