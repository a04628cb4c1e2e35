//! The syntax of names, label keys and label values, with the words of Kubernetes' validation.

/// The longest DNS label, label value and name part of a label's key, in bytes.
const LABEL_BYTES: usize = 63;
/// The longest DNS subdomain, in bytes.
const SUBDOMAIN_BYTES: usize = 253;

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
    for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
    '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters \
    or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Returns what is wrong with the key of a label or an annotation.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let suffix =
                "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED} {suffix}")];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            errors.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES {
        errors.push(format!("name part {}", too_long(LABEL_BYTES)));
    }
    if !is_qualified(name) {
        errors.push(format!("name part {QUALIFIED}"));
    }
    errors
}

/// Returns what is wrong with the value of a label.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let is_well_formed = text.is_empty() || is_qualified(text);
    check(text, LABEL_BYTES, is_well_formed, LABEL_VALUE)
}

/// Returns what is wrong with an RFC 1123 subdomain: the name of most objects.
#[must_use]
pub fn subdomain(text: &str) -> Vec<String> {
    check(text, SUBDOMAIN_BYTES, text.split('.').all(is_dns_label), SUBDOMAIN)
}

/// Returns what is wrong with an RFC 1123 label: the name of a namespace.
#[must_use]
pub fn dns_label(text: &str) -> Vec<String> {
    check(text, LABEL_BYTES, is_dns_label(text), DNS_LABEL)
}

/// Returns what is wrong with an RFC 1035 label: the name of a service, of a kind.
#[must_use]
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let starts_well = text.starts_with(|first: char| first.is_ascii_lowercase());
    check(text, LABEL_BYTES, starts_well && is_dns_label(text), DNS_1035_LABEL)
}

fn check(text: &str, limit: usize, is_well_formed: bool, message: &str) -> Vec<String> {
    let too_long = (text.len() > limit).then(|| too_long(limit));
    let malformed = (!is_well_formed).then(|| message.to_owned());
    too_long.into_iter().chain(malformed).collect()
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn is_qualified(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    is_bounded(text, |byte| byte.is_ascii_alphanumeric()) && text.bytes().all(is_inner)
}

fn is_dns_label(text: &str) -> bool {
    let is_outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    is_bounded(text, is_outer) && text.bytes().all(|byte| byte == b'-' || is_outer(byte))
}

fn is_bounded(text: &str, is_outer: impl Fn(u8) -> bool) -> bool {
    let (first, last) = (text.bytes().next(), text.bytes().next_back());
    first.is_some_and(&is_outer) && last.is_some_and(&is_outer)
}
