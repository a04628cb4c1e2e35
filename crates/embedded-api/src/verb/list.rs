//! Lists: which revision is meant, where a page begins, which objects match.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::options::{ListOptions, Match, parse_error};
use crate::cause::quote;
use crate::resource::{Body, Resource};
use crate::selector::{Fields, Labels, Selectable};
use crate::status::{Reason, Status};
use crate::{Object, store};

/// What a continued list that is too old is told; there is no token for an inconsistent rest.
const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.";

/// Which objects of a scope are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    labels: Labels,
    fields: Fields,
}

impl Filter {
    /// Parses the selectors.
    ///
    /// # Errors
    ///
    /// 400 in the words of Kubernetes.
    pub(crate) fn parse(resource: &Resource, options: &ListOptions) -> Result<Self, Status> {
        let labels = Labels::parse(&options.label_selector)?;
        let qualified = resource.qualified();
        let selectable = match &resource.body {
            Body::Builtin(_) => Selectable::Builtin(&qualified),
            Body::Custom { kind, version } => kind.selectable(version),
        };
        let fields = Fields::parse(selectable, &options.field_selector)?;
        Ok(Self { labels, fields })
    }

    /// Returns whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Returns the name that matching objects must have.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name").filter(|name| !name.is_empty())
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// Returns whether a stored object matches.
    ///
    /// # Errors
    ///
    /// 500 if the file was damaged.
    pub(crate) fn matches_json(&self, json: &[u8]) -> Result<bool, Status> {
        if self.is_empty() {
            return Ok(true);
        }
        Ok(self.matches(&store::decode(json)?))
    }
}

/// Which state a list shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The latest.
    Latest,
    /// The latest, which must not be older than this.
    NotOlderThan(u64),
    /// That at this revision.
    At(u64),
    /// What follows an object in the state at a revision.
    After(Token),
}

/// Where a page ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    /// The revision of the whole list.
    pub(crate) revision: u64,
    /// The namespace of the last object.
    pub(crate) namespace: String,
    /// The name of the last object.
    pub(crate) name: String,
}

impl Token {
    /// Writes the token as the API server does; clients must not look inside.
    pub(crate) fn encode(&self, is_one_namespace: bool) -> String {
        let namespace = if is_one_namespace || self.namespace.is_empty() {
            String::new()
        } else {
            format!("/{}", self.namespace)
        };
        let start = format!("{namespace}/{}\0", self.name);
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str, namespace: &str) -> Result<Self, Status> {
        let refuse = |why: String| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let bytes = bytes.map_err(|_| refuse("illegal base64 data".to_owned()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| refuse(not_json(&bytes)))?;
        let start = value.get("start").and_then(Value::as_str).unwrap_or_default();
        let key = start.strip_suffix('\0').unwrap_or(start).trim_start_matches('/');
        let (namespace, name) = match key.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => (namespace, key),
        };
        let revision = value.get("rv").and_then(Value::as_u64);
        let Some(revision) = revision.filter(|_| !name.is_empty()) else {
            return Err(refuse("incorrect encoded start resourceVersion".to_owned()));
        };
        Ok(Self { revision, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Words what Go's decoder says of text that does not even begin as JSON.
fn not_json(bytes: &[u8]) -> String {
    let first = match bytes.first().copied().unwrap_or_default() {
        control @ ..=0x1f => format!("\\x{control:02x}"),
        control @ 0x7f..=0x9f => format!("\\u{control:04x}"),
        letter => char::from(letter).to_string(),
    };
    format!("invalid character '{first}' looking for beginning of value")
}

/// Says which state the options mean.
///
/// # Errors
///
/// 400 for a token or revision that is none.
pub(crate) fn start(options: &ListOptions, namespace: &str) -> Result<Start, Status> {
    if let Some(token) = &options.continue_token {
        let token = Token::decode(token, namespace)?;
        if options.resource_version.as_deref().is_some_and(|version| version != "0") {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(message));
        }
        return Ok(Start::After(token));
    }
    let Some(version) = &options.resource_version else { return Ok(Start::Latest) };
    let revision = revision(version)
        .map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
    Ok(match (revision, options.version_match) {
        (0, _) => Start::Latest,
        (revision, Some(Match::Exact)) => Start::At(revision),
        // Without a word, pages are of exactly that revision, whole lists of a later one too.
        (revision, None) if options.limit.is_some() => Start::At(revision),
        (revision, _) => Start::NotOlderThan(revision),
    })
}

/// Reads a resourceVersion.
///
/// # Errors
///
/// What Kubernetes says of it.
pub(crate) fn revision(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        let why = parse_error("ParseUint", text);
        format!("resourceVersion: Invalid value: {}: {why}", quote(text))
    })
}

/// Reads the resourceVersion of a get or watch.
///
/// # Errors
///
/// 500, as the API server answers.
pub(crate) fn plain_revision(text: Option<&str>) -> Result<u64, Status> {
    let text = text.unwrap_or("0");
    revision(text).map_err(|message| Status::new(500, Reason::Unknown, message))
}

/// What a continued list is told whose revision is gone.
pub(crate) fn too_old() -> Status {
    Status::expired(TOO_OLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_where_a_page_ended() {
        let token = Token { revision: 392, namespace: "a".to_owned(), name: "nokind".to_owned() };
        for is_one_namespace in [true, false] {
            let text = token.encode(is_one_namespace);
            assert_eq!(Token::decode(&text, "a").unwrap(), token);
        }
        let expected = "eyJydiI6MzkyLCJzdGFydCI6Ii9ub2tpbmRcdTAwMDAiLCJ2IjoibWV0YS5rOHMuaW8vdjEifQ";
        assert_eq!(token.encode(true), expected);
    }

    #[test]
    fn refuses_tokens_of_others() {
        let expected = "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value";
        assert_eq!(Token::decode("abc", "").unwrap_err().message, expected);
    }

    #[test]
    fn reads_revisions_as_kubernetes_means_them() {
        let options = |version: &str, version_match, limit| ListOptions {
            resource_version: Some(version.to_owned()),
            version_match,
            limit,
            ..ListOptions::default()
        };
        let cases = [
            (options("0", None, Some(1)), Start::Latest),
            (options("7", None, None), Start::NotOlderThan(7)),
            (options("7", None, Some(1)), Start::At(7)),
            (options("7", Some(Match::NotOlderThan), Some(1)), Start::NotOlderThan(7)),
            (options("7", Some(Match::Exact), None), Start::At(7)),
        ];
        for (options, expected) in cases {
            assert_eq!(start(&options, "").unwrap(), expected);
        }
        let expected = "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax";
        assert_eq!(start(&options("abc", None, None), "").unwrap_err().message, expected);
    }
}
