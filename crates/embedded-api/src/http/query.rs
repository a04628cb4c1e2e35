//! The query of a URL (RFC 3986 §3.4), decoded as browsers encode forms.

/// Names and values, in the order of the URL.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes what stands behind the question mark.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// Returns all of them.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Returns the first value of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns a value that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Returns a truth as Kubernetes reads it: everything is true but absence, `0` and `false`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        let value = self.get(name).map(str::to_ascii_lowercase);
        value.is_some_and(|value| value != "false" && value != "0")
    }
}

/// Resolves `%XX`; what is no escape stays as it is, and what is no UTF-8 becomes U+FFFD.
pub(crate) fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.split_at_checked(2)).flatten();
        let value = escaped.and_then(|(digits, _)| hex(digits));
        bytes.push(value.unwrap_or(byte));
        rest = match (value, escaped) {
            (Some(_), Some((_, after))) => after,
            _ => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    digits.iter().all(u8::is_ascii_hexdigit).then(|| u8::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_forms() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier!%3Ddb&x=a+b&watch&limit=5&x=2");
        assert_eq!(query.get("labelSelector"), Some("app=web,tier!=db"));
        assert_eq!(query.get("x"), Some("a b"));
        assert_eq!(query.text("limit"), Some("5"));
        assert!(query.is_true("watch"));
        assert_eq!(query.get("none"), None);
    }

    #[test]
    fn truth_is_everything_but_false_and_0() {
        for (text, expected) in [
            ("w=1", true),
            ("w=true", true),
            ("w=abc", true),
            ("w=", true),
            ("w=0", false),
            ("w=False", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(text).is_true("w"), expected, "{text}");
        }
    }

    #[test]
    fn keeps_what_is_no_escape() {
        for text in ["100%", "%", "%4", "%zz", "%+1"] {
            assert_eq!(decode(text), text);
        }
        assert_eq!(decode("a%2Fb%20c"), "a/b c");
        assert_eq!(decode("%ff"), "\u{fffd}");
    }

    proptest::proptest! {
        #[test]
        fn survives_any_text(text in "\\PC*") {
            Query::parse(&text);
        }
    }
}
