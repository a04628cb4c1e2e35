//! The answer to a request that fails: `Status` of meta/v1, as the API conventions give it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::cause::{Cause, quote};

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

/// Joins the lines of several failures as the API server does: once each, in brackets if many.
fn joined(lines: impl Iterator<Item = String>) -> String {
    let mut seen = HashSet::new();
    let lines: Vec<String> = lines.filter(|line| seen.insert(line.clone())).collect();
    match lines.as_slice() {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn details(name: &str, group: &str, kind: &str, causes: Option<Value>) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(causes) = causes {
        details.insert("causes".to_owned(), causes);
    }
    Value::Object(details)
}

/// The names of a resource in messages: plural (or kind, in [`Status::invalid`]) and group.
pub type GroupName<'a> = (&'a str, &'a str);

fn qualified((name, group): GroupName<'_>) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Status {
    /// 404: there is no such object.
    #[must_use]
    pub fn not_found((plural, group): GroupName<'_>, name: &str) -> Self {
        let message = format!("{} {} not found", qualified((plural, group)), quote(name));
        let details = Some(details(name, group, plural, None));
        Self { code: 404, reason: Reason::NotFound, message, details }
    }

    /// 409: an object of this name is there already.
    #[must_use]
    pub fn already_exists((plural, group): GroupName<'_>, name: &str) -> Self {
        let message = format!("{} {} already exists", qualified((plural, group)), quote(name));
        let details = Some(details(name, group, plural, None));
        Self { code: 409, reason: Reason::AlreadyExists, message, details }
    }

    /// 409: the object is not as the client believes.
    #[must_use]
    pub fn conflict((plural, group): GroupName<'_>, name: &str, why: &str) -> Self {
        let qualified = qualified((plural, group));
        let message =
            format!("Operation cannot be fulfilled on {qualified} {}: {why}", quote(name));
        let details = Some(details(name, group, plural, None));
        Self { code: 409, reason: Reason::Conflict, message, details }
    }

    /// 403: nobody may do this now.
    #[must_use]
    pub fn forbidden((plural, group): GroupName<'_>, name: &str, why: &str) -> Self {
        let qualified = qualified((plural, group));
        let message = if name.is_empty() {
            format!("{qualified} is forbidden: {why}")
        } else {
            format!("{qualified} {} is forbidden: {why}", quote(name))
        };
        let details = Some(details(name, group, plural, None));
        Self { code: 403, reason: Reason::Forbidden, message, details }
    }

    /// 422: the object breaks rules; the kind, not the plural, names it.
    #[must_use]
    pub fn invalid((kind, group): GroupName<'_>, name: &str, causes: &[Cause]) -> Self {
        let lines = joined(causes.iter().map(Cause::text));
        let message = format!("{} {} is invalid: {lines}", qualified((kind, group)), quote(name));
        let causes = causes.iter().map(Cause::to_value);
        let details = Some(details(name, group, kind, Some(causes.collect())));
        Self { code: 422, reason: Reason::Invalid, message, details }
    }

    /// 400: the request makes no sense.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 405: the kind does not take the verb.
    #[must_use]
    pub fn method_not_allowed((plural, group): GroupName<'_>, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind {}",
            quote(&qualified((plural, group)))
        );
        let details = Some(details("", group, plural, None));
        Self { code: 405, reason: Reason::MethodNotAllowed, message, details }
    }

    /// 500: a failure of this server; `what` tells the operator what to look at.
    #[must_use]
    pub fn internal(what: impl std::fmt::Display) -> Self {
        let message = format!("Internal error occurred: {what}");
        let details = Some(json!({"causes": [{"message": what.to_string()}]}));
        Self { code: 500, reason: Reason::InternalError, message, details }
    }

    /// 410: the revision was compacted away.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 504: the revision lies in the future.
    #[must_use]
    pub fn too_large_revision(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause =
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let details = Some(json!({"causes": [cause], "retryAfterSeconds": 1}));
        Self { code: 504, reason: Reason::Timeout, message, details }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_failures_as_kubernetes() {
        let cases = [
            (
                Status::not_found(("configmaps", ""), "none").body(),
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"none\" not found","reason":"NotFound","details":{"name":"none","kind":"configmaps"},"code":404}"#,
            ),
            (
                Status::too_large_revision(999_999_999, 215).body(),
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource version: 999999999, current: 215","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}"#,
            ),
            (
                Status::invalid(
                    ("CreateOptions", "meta.k8s.io"),
                    "",
                    &[Cause::unsupported("dryRun", &json!(["foo"]), &["All"])],
                )
                .body(),
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"foo\"]: supported values: \"All\"","reason":"Invalid","details":{"group":"meta.k8s.io","kind":"CreateOptions","causes":[{"reason":"FieldValueNotSupported","message":"Unsupported value: [\"foo\"]: supported values: \"All\"","field":"dryRun"}]},"code":422}"#,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(body, serde_json::from_str::<Value>(expected).unwrap());
        }
    }

    #[test]
    fn says_each_thing_once() {
        let cause = Cause::required("spec.a", "");
        let status = Status::invalid(("Gadget", "x.org"), "g", &[cause.clone(), cause]);
        assert_eq!(status.message, "Gadget.x.org \"g\" is invalid: spec.a: Required value");
    }
}
