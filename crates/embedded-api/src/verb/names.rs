//! What names may look like, in the words of apimachinery's `validation`.

use serde_json::json;

use crate::cause::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What the names of a kind must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// RFC 1123, with dots: most kinds.
    Subdomain,
    /// RFC 1123, without dots: namespaces.
    Label,
    /// RFC 1035: services.
    Label1035,
    /// A segment of a path: the kinds of RBAC.
    Segment,
}

impl Rule {
    /// Returns what is wrong with a name; a prefix may end in a dash.
    pub(crate) fn problems(self, name: &str, is_prefix: bool) -> Vec<String> {
        let shortened = name.strip_suffix('-').filter(|_| is_prefix);
        // A prefix that ends in a dash is judged as if a letter came after it.
        let masked = shortened.map(|name| format!("{name}a"));
        let name = masked.as_deref().unwrap_or(name);
        match self {
            Self::Subdomain => subdomain(name),
            Self::Label => label(name, LABEL, is_alphanumeric),
            Self::Label1035 => label(name, LABEL_1035, |byte| byte.is_ascii_lowercase()),
            Self::Segment => segment(name),
        }
    }
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str, may_start: impl Fn(u8) -> bool) -> bool {
    let ends = text.bytes().next().is_some_and(may_start)
        && text.bytes().last().is_some_and(is_alphanumeric);
    ends && text.bytes().all(|byte| is_alphanumeric(byte) || byte == b'-')
}

fn too_long(text: &str, most: usize) -> Vec<String> {
    let problem = format!("must be no more than {most} characters");
    if text.len() > most { vec![problem] } else { Vec::new() }
}

/// Returns what keeps a text from being an RFC 1123 subdomain.
pub(crate) fn subdomain(text: &str) -> Vec<String> {
    let mut problems = too_long(text, 253);
    if !text.split('.').all(|part| is_label(part, is_alphanumeric)) {
        problems.push(SUBDOMAIN.to_owned());
    }
    problems
}

/// Returns what keeps a text from being an RFC 1123 label.
pub(crate) fn dns_label(text: &str) -> Vec<String> {
    label(text, LABEL, is_alphanumeric)
}

fn label(text: &str, rule: &str, may_start: impl Fn(u8) -> bool) -> Vec<String> {
    let mut problems = too_long(text, 63);
    if !is_label(text, may_start) {
        let has_dots = rule == LABEL && text.split('.').all(|part| is_label(part, is_alphanumeric));
        problems.push(if has_dots { "must not contain dots" } else { rule }.to_owned());
    }
    problems
}

fn segment(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    let found = ['/', '%'].into_iter().filter(|bad| name.contains(*bad));
    found.map(|bad| format!("may not contain '{bad}'")).collect()
}

fn is_name_part(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ends(text.bytes().next()) && ends(text.bytes().last()) && text.bytes().all(inner)
}

/// Returns what keeps a text from being a qualified name: `example.com/MyName`.
pub(crate) fn qualified(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(subdomain(prefix).iter().map(|p| format!("prefix part {p}")));
            }
            *name
        }
        _ => {
            let with = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {NAME_PART} {with}")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 characters".to_owned());
    }
    if !is_name_part(name) {
        problems.push(format!("name part {NAME_PART}"));
    }
    problems
}

/// Returns what keeps a text from being the value of a label.
pub(crate) fn label_value(text: &str) -> Vec<String> {
    let mut problems = too_long(text, 63);
    if !text.is_empty() && !is_name_part(text) {
        problems.push(VALUE.to_owned());
    }
    problems
}

/// Returns what keeps a text from being a key of a `ConfigMap` or Secret.
pub(crate) fn config_key(text: &str) -> Vec<String> {
    let mut problems = too_long(text, 253);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(inner) {
        problems.push(CONFIG_KEY.to_owned());
    } else if text == "." {
        problems.push("must not be '.'".to_owned());
    } else if text == ".." {
        problems.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        problems.push("must not start with '..'".to_owned());
    }
    problems
}

/// Makes causes of what is wrong with a text.
pub(crate) fn causes(field: &str, text: &str, problems: &[String]) -> Vec<Cause> {
    problems.iter().map(|problem| Cause::invalid(field, &json!(text), problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_names_by_the_rule_of_the_kind() {
        let cases = [
            (Rule::Subdomain, "a.b-c.9", true),
            (Rule::Subdomain, "a..b", false),
            (Rule::Subdomain, "-a", false),
            (Rule::Subdomain, "A", false),
            (Rule::Label, "a-9", true),
            (Rule::Label, "a.b", false),
            (Rule::Label1035, "9s", false),
            (Rule::Label1035, "s9", true),
            (Rule::Segment, "system:node", true),
            (Rule::Segment, "a/b", false),
        ];
        for (rule, name, is_fine) in cases {
            assert_eq!(rule.problems(name, false).is_empty(), is_fine, "{name}");
        }
    }

    #[test]
    fn lets_a_prefix_end_in_a_dash() {
        assert!(Rule::Label.problems("gen-", true).is_empty());
        assert!(!Rule::Label.problems("gen-", false).is_empty());
    }

    #[test]
    fn allows_a_long_name_up_to_its_limit() {
        assert!(dns_label(&"a".repeat(63)).is_empty());
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }
}
