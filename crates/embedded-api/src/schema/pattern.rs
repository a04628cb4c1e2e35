//! Regular expressions as Go reads them: classes like `\d` are ASCII.

use regex::Regex;

/// The `pattern` of a schema.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// As it was written.
    pub(super) text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// The words of the compiler, on one line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let regex = Regex::new(&ascii_classes(text));
        let regex = regex.map_err(|error| error.to_string().replace('\n', " "))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// Replaces the classes that Rust's expressions would take for those of Unicode.
fn ascii_classes(pattern: &str) -> String {
    let mut replaced = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    let mut is_in_class = false;
    while let Some(c) = chars.next() {
        if c != '\\' {
            is_in_class = match c {
                '[' => true,
                ']' => false,
                _ => is_in_class,
            };
            replaced.push(c);
            continue;
        }
        let escaped = chars.next();
        let members = match escaped {
            Some('d' | 'D') => "0-9",
            Some('w' | 'W') => "0-9A-Za-z_",
            Some('s' | 'S') => "\\t\\n\\f\\r ",
            _ => "",
        };
        match escaped {
            Some('d' | 'w' | 's') if is_in_class => replaced.push_str(members),
            Some('d' | 'w' | 's') => replaced.extend(["[", members, "]"]),
            Some('D' | 'W' | 'S') => replaced.extend(["[^", members, "]"]),
            Some('b') if !is_in_class => replaced.push_str("(?-u:\\b)"),
            Some('B') if !is_in_class => replaced.push_str("(?-u:\\B)"),
            // Go escapes any punctuation; Rust refuses some that mean nothing.
            Some(other)
                if matches!(
                    other,
                    '/' | '"' | '\'' | ':' | '@' | '%' | ',' | ';' | '=' | '_' | '`' | '!'
                ) =>
            {
                replaced.push(other);
            }
            Some(other) => replaced.extend(['\\', other]),
            None => replaced.push('\\'),
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_expressions_as_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "٣", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^\S+\s\S+$", "a b", true),
            (r"^a\/b\bx?", "a/b", true),
            (r"^[^\d]$", "a", true),
            (r"^.$", "é", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(text),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(Pattern::parse("(").is_err());
    }
}
