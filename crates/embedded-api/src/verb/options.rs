//! The parameters of requests: the options of meta/v1, from the query and the body.

use serde_json::{Value, json};

use crate::cause::{Cause, quote};
use crate::status::{Reason, Status};

/// The parameters of a URL, decoded, in their order.
pub type Query = [(String, String)];

const META: &str = "meta.k8s.io";

/// What happens to fields that the kind does not have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and the answer warns of them.
    #[default]
    Warn,
    /// The request fails.
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WriteOptions {
    /// Whether everything is done but the write.
    pub is_dry_run: bool,
    /// What happens to unknown fields.
    pub validation: FieldValidation,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeleteOptions {
    /// Whether everything is done but the write.
    pub is_dry_run: bool,
    /// Seconds until the object is gone; absent is the kind's default.
    pub grace_period: Option<i64>,
    /// The object must have this UID.
    pub uid: Option<String>,
    /// The object must be at this resourceVersion.
    pub resource_version: Option<String>,
    /// What becomes of dependents; it is checked, and then nothing: there is no garbage collector.
    pub propagation: Option<String>,
}

/// How `resourceVersion` of a list is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Match {
    /// The state at exactly this revision.
    Exact,
    /// The state at this revision or a later one.
    NotOlderThan,
}

/// `ListOptions`: of list, watch and deletecollection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListOptions {
    /// Whether a watch is asked for.
    pub is_watch: bool,
    /// The text of the label selector.
    pub label_selector: String,
    /// The text of the field selector.
    pub field_selector: String,
    /// At most so many objects.
    pub limit: Option<usize>,
    /// Where the last page ended.
    pub continue_token: Option<String>,
    /// The revision as the client wrote it.
    pub resource_version: Option<String>,
    /// How that is meant.
    pub version_match: Option<Match>,
    /// Whether a watch sends bookmarks.
    pub allow_bookmarks: bool,
    /// Whether a watch begins with what there is.
    pub send_initial_events: Option<bool>,
    /// When a watch ends, in seconds.
    pub timeout: Option<u64>,
}

fn get<'a>(query: &'a Query, key: &str) -> Option<&'a str> {
    query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn text(query: &Query, key: &str) -> Option<String> {
    get(query, key).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// Reads a flag as apimachinery does: everything but `false` and `0` is true.
fn flag(query: &Query, key: &str) -> Option<bool> {
    get(query, key).map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

fn number(query: &Query, key: &str) -> Result<Option<i64>, Status> {
    let Some(value) = get(query, key).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| Status::bad_request(parse_error("ParseInt", value)))
}

/// Words what Go's `strconv` says of a number that is none.
#[must_use]
pub(crate) fn parse_error(function: &str, value: &str) -> String {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let signed = function == "ParseInt" || digits == value;
    let why = if is_number && signed { "value out of range" } else { "invalid syntax" };
    format!("strconv.{function}: parsing {}: {why}", quote(value))
}

impl WriteOptions {
    /// Reads `CreateOptions`, `UpdateOptions` or `PatchOptions`; `kind` is the name of those.
    ///
    /// # Errors
    ///
    /// 422 with a value that is not known.
    pub fn from_query(kind: &str, query: &Query) -> Result<Self, Status> {
        let mut causes = Vec::new();
        let validation = match get(query, "fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let known = ["", "Ignore", "Strict", "Warn"];
                causes.push(Cause::unsupported("fieldValidation", &json!(other), &known));
                FieldValidation::Warn
            }
        };
        if kind == "PatchOptions" && get(query, "force").is_some() {
            causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
        }
        check_manager(query, &mut causes);
        let is_dry_run = dry_run(&dry_run_values(query), &mut causes);
        refuse(kind, &causes)?;
        Ok(Self { is_dry_run, validation })
    }
}

fn check_manager(query: &Query, causes: &mut Vec<Cause>) {
    let manager = get(query, "fieldManager").unwrap_or_default();
    if manager.len() > 128 {
        causes.push(Cause::too_long("fieldManager", 128));
    }
    let strange = manager.chars().enumerate().find(|(_, letter)| letter.is_control());
    if let Some((at, letter)) = strange {
        let code = u32::from(letter);
        let detail = format!("invalid character U+{code:04X} (at position {at})");
        causes.push(Cause::invalid("fieldManager", &json!(manager), &detail));
    }
}

fn dry_run_values(query: &Query) -> Vec<String> {
    let values = query.iter().filter(|(name, _)| name == "dryRun");
    values.map(|(_, value)| value.clone()).collect()
}

fn dry_run(values: &[String], causes: &mut Vec<Cause>) -> bool {
    if values.iter().any(|value| value != "All") {
        causes.push(Cause::unsupported("dryRun", &json!(values), &["All"]));
    }
    !values.is_empty()
}

fn refuse(kind: &str, causes: &[Cause]) -> Result<(), Status> {
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid((kind, META), "", causes)) }
}

impl DeleteOptions {
    /// Reads the options from the body, or from the query if there is none.
    ///
    /// # Errors
    ///
    /// 400 if the body is no `DeleteOptions`, 422 with a value that is not known.
    pub fn from_request(query: &Query, body: Option<&Value>) -> Result<Self, Status> {
        let mut causes = Vec::new();
        let mut this = match body {
            Some(body) => Self::from_body(body, &mut causes)?,
            None => Self {
                is_dry_run: dry_run(&dry_run_values(query), &mut causes),
                grace_period: number(query, "gracePeriodSeconds")?,
                propagation: text(query, "propagationPolicy"),
                ..Self::default()
            },
        };
        if let Some(policy) = &this.propagation {
            let known = ["Foreground", "Background", "Orphan"];
            if !known.contains(&policy.as_str()) {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                causes.push(Cause::unsupported("propagationPolicy", &json!(policy), &known));
            }
        }
        let orphans = body.and_then(|body| body.get("orphanDependents")).filter(|v| !v.is_null());
        if let Some(policy) = this.propagation.as_ref().filter(|_| orphans.is_some()) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            causes.push(Cause::invalid("propagationPolicy", &json!(policy), detail));
        }
        if this.grace_period.is_some_and(|seconds| seconds < 0) {
            this.grace_period = Some(1);
        }
        refuse("DeleteOptions", &causes)?;
        Ok(this)
    }

    fn from_body(body: &Value, causes: &mut Vec<Cause>) -> Result<Self, Status> {
        let options = body.as_object().ok_or_else(|| {
            Status::bad_request(
                "the body of a deletion must be DeleteOptions; send none, or a JSON object",
            )
        })?;
        let kind = options.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            let version = options.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            let (kind, version) = (quote(kind), quote(version));
            let message = format!(
                "no kind {kind} is registered for version {version} in scheme \"pkg/runtime/scheme.go:110\""
            );
            return Err(Status::new(500, Reason::Unknown, message));
        }
        if let Some(grace) =
            options.get("gracePeriodSeconds").filter(|value| !value.is_i64() && !value.is_null())
        {
            let found = super::meta::go_kind(grace);
            let message = format!(
                "json: cannot unmarshal {found} into Go struct field DeleteOptions.gracePeriodSeconds of type int64"
            );
            return Err(Status::new(500, Reason::Unknown, message));
        }
        let words = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let text_at = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            is_dry_run: options.get("dryRun").is_some_and(|values| dry_run(&words(values), causes)),
            grace_period: options.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text_at("/preconditions/uid"),
            resource_version: text_at("/preconditions/resourceVersion"),
            propagation: text_at("/propagationPolicy"),
        })
    }
}

impl ListOptions {
    /// Reads the options of list, watch and deletecollection.
    ///
    /// # Errors
    ///
    /// 400 for numbers that are none, 422 for options that contradict each other.
    pub fn from_query(query: &Query) -> Result<Self, Status> {
        let limit = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok());
        let timeout = number(query, "timeoutSeconds")?.and_then(|s| u64::try_from(s).ok());
        let this = Self {
            is_watch: flag(query, "watch").unwrap_or(false),
            label_selector: text(query, "labelSelector").unwrap_or_default(),
            field_selector: text(query, "fieldSelector").unwrap_or_default(),
            // What comes from the cache of the API server comes whole.
            limit: limit.filter(|limit| *limit > 0 && get(query, "resourceVersion") != Some("0")),
            continue_token: text(query, "continue"),
            resource_version: text(query, "resourceVersion"),
            version_match: match get(query, "resourceVersionMatch") {
                Some("Exact") => Some(Match::Exact),
                Some("NotOlderThan") => Some(Match::NotOlderThan),
                _ => None,
            },
            allow_bookmarks: flag(query, "allowWatchBookmarks").unwrap_or(false),
            send_initial_events: flag(query, "sendInitialEvents"),
            timeout: timeout.filter(|seconds| *seconds > 0),
        };
        let word = get(query, "resourceVersionMatch").unwrap_or_default();
        let causes = if this.is_watch { this.check_watch(word) } else { this.check_list(word) };
        refuse("ListOptions", &causes)?;
        Ok(this)
    }

    fn check_list(&self, word: &str) -> Vec<Cause> {
        const FIELD: &str = "resourceVersionMatch";
        let mut causes = Vec::new();
        if !word.is_empty() {
            if self.resource_version.is_none() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                causes.push(Cause::forbidden(FIELD, why));
            }
            if self.continue_token.is_some() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                causes.push(Cause::forbidden(FIELD, why));
            }
            if self.version_match.is_none() {
                let known = ["Exact", "NotOlderThan", ""];
                causes.push(Cause::unsupported(FIELD, &json!(word), &known));
            }
            if word == "Exact" && self.resource_version.as_deref() == Some("0") {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                causes.push(Cause::forbidden(FIELD, why));
            }
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            causes.push(Cause::forbidden("sendInitialEvents", why));
        }
        causes
    }

    fn check_watch(&self, word: &str) -> Vec<Cause> {
        const FIELD: &str = "resourceVersionMatch";
        let mut causes = Vec::new();
        if !word.is_empty() {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                causes.push(Cause::forbidden(FIELD, why));
            }
            if word != "NotOlderThan" {
                causes.push(Cause::unsupported(FIELD, &json!(word), &["NotOlderThan"]));
            }
        }
        if self.continue_token.is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            causes.push(Cause::forbidden(FIELD, why));
        }
        if self.send_initial_events.is_some() && word.is_empty() {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden(FIELD, why));
        }
        causes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn refuses_options_that_contradict_each_other() {
        let cases = [
            ("limit=abc", r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
            (
                "limit=5000000000000000000000",
                r#"strconv.ParseInt: parsing "5000000000000000000000": value out of range"#,
            ),
            (
                "resourceVersionMatch=Foo",
                r#"ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported value: "Foo": supported values: "Exact", "NotOlderThan", ""]"#,
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
            ),
            (
                "sendInitialEvents=true",
                r#"ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"#,
            ),
            (
                "watch=1&sendInitialEvents=true",
                r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(ListOptions::from_query(&query(text)).unwrap_err().message, expected);
        }
    }

    #[test]
    fn reads_flags_as_go() {
        for (text, expected) in [("watch=bla", true), ("watch=0", false), ("watch=False", false)] {
            assert_eq!(ListOptions::from_query(&query(text)).unwrap().is_watch, expected);
        }
    }

    #[test]
    fn names_the_value_of_a_wrong_dry_run() {
        let status = WriteOptions::from_query("CreateOptions", &query("dryRun=foo")).unwrap_err();
        let expected = r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["foo"]: supported values: "All""#;
        assert_eq!(status.message, expected);
    }
}
