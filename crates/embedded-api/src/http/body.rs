//! The bodies of requests: JSON or YAML, and what clients hear if they are neither.

use serde_json::Value;

use super::media::{self, BodyFormat};
use super::protobuf;
use crate::status::Status;

/// Decodes the body of a request for a kind.
///
/// # Errors
///
/// 415 for other types, 400 in the words of a real server.
pub(crate) fn decode(content_type: Option<&str>, body: &[u8], kind: &str) -> Result<Value, Status> {
    let unreadable = |error: String| {
        let summary = summary(body);
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): \
             couldn't get version/kind; json parse error: {error} ({summary})"
        ))
    };
    let value: Value = match media::body_format(content_type)? {
        BodyFormat::Protobuf => {
            return protobuf::decode(body).map_err(|error| Status::bad_request(error.to_string()));
        }
        BodyFormat::Json => {
            serde_json::from_slice(body).map_err(|error| unreadable(go_error(&error, body)))?
        }
        BodyFormat::Yaml => {
            let text = std::str::from_utf8(body).map_err(|error| unreadable(error.to_string()))?;
            serde_saphyr::from_str(text).map_err(|error| unreadable(error.to_string()))?
        }
    };
    match strange_type(&value) {
        Some(error) => Err(unreadable(error)),
        None => Ok(value),
    }
}

/// Returns what Go's decoder says of a body that is no object, or whose kind is no text.
fn strange_type(value: &Value) -> Option<String> {
    let refused = |found: &Value, place: &str| {
        let found = crate::verb::meta::go_kind(found);
        Some(format!("json: cannot unmarshal {found} into Go {place}"))
    };
    let Value::Object(fields) = value else {
        let known = r#"value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        return refused(value, known);
    };
    for field in ["apiVersion", "kind"] {
        let found = fields.get(field).filter(|found| !found.is_string() && !found.is_null());
        if let Some(found) = found {
            return refused(found, &format!("struct field .{field} of type string"));
        }
    }
    None
}

/// Words a failure as Go's `encoding/json` does.
pub(crate) fn go_error(error: &serde_json::Error, body: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let letter = line.and_then(|line| line.get(error.column().saturating_sub(1)));
    let Some(letter) = letter else { return error.to_string() };
    let place = match error.to_string() {
        text if text.starts_with("key must be a string") => {
            "looking for beginning of object key string"
        }
        text if text.starts_with("expected `,` or `}`") => "after object key:value pair",
        text if text.starts_with("expected `,` or `]`") => "after array element",
        text if text.starts_with("expected `:`") => "after object key",
        text if text.starts_with("trailing characters") => "after top-level value",
        _ => "looking for beginning of value",
    };
    format!("invalid character '{}' {place}", char::from(*letter))
}

/// Shows the beginning of a body.
fn summary(body: &[u8]) -> String {
    const MOST: usize = 30;
    let (shown, more) = match body.split_at_checked(MOST) {
        Some((shown, rest)) if !rest.is_empty() => (shown, " ..."),
        _ => (body, ""),
    };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", data_encoding::HEXLOWER.encode(shown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_in_the_words_of_a_real_server() {
        let begin = "the object provided is unrecognized (must be of type Pod): \
                     couldn't get version/kind; json parse error: ";
        let cases = [
            ("", "unexpected end of JSON input (<empty>)"),
            ("{", "unexpected end of JSON input ({)"),
            ("abc", "invalid character 'a' looking for beginning of value (616263)"),
            ("{\"a\":1}x", "invalid character 'x' after top-level value ({\"a\":1}x)"),
        ];
        for (body, expected) in cases {
            let refused = decode(None, body.as_bytes(), "Pod").unwrap_err();
            assert_eq!(refused.message, format!("{begin}{expected}"));
        }
    }

    #[test]
    fn reads_yaml() {
        let value = decode(Some("application/yaml"), b"kind: Pod\nspec: {a: [1, x]}\n", "Pod");
        assert_eq!(value.unwrap(), serde_json::json!({"kind": "Pod", "spec": {"a": [1, "x"]}}));
    }

    proptest::proptest! {
        #[test]
        fn survives_any_body(body in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = decode(None, &body, "Pod");
            let _ = decode(Some("application/yaml"), &body, "Pod");
        }
    }
}
