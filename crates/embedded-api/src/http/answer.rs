//! Answers: whole ones and streams, with the headers that a real server sends.

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::media::Format;
use crate::status::Status;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An answer.
pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Returns a whole answer.
pub(crate) fn whole(code: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// Returns a text.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = whole(code, TEXT, body);
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert("x-content-type-options", nosniff);
    answer
}

/// Returns what is not there, as Go's file server says it.
pub(crate) fn page_not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Returns JSON that was written down before.
pub(crate) fn json(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    whole(code, JSON, body)
}

/// Writes a value down in the format that the client takes.
pub(crate) fn value(code: StatusCode, format: Format, value: &impl Serialize) -> Answer {
    match format {
        Format::Json => match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                json(code, body)
            }
            Err(error) => failure(Format::Json, &Status::internal(error)),
        },
        Format::Yaml => match serde_saphyr::to_string(value) {
            Ok(body) => whole(code, YAML, body),
            Err(error) => failure(Format::Json, &Status::internal(error)),
        },
    }
}

/// Writes a failure down.
pub(crate) fn failure(format: Format, status: &Status) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = value(code, format, &status.body());
    let headers = answer.headers_mut();
    let details = status.details.as_ref();
    let retry = details.and_then(|details| details.get("retryAfterSeconds")?.as_u64());
    if let Some(seconds) = retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// Returns an answer that goes on until the stream ends.
pub(crate) fn stream(frames: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let frames = frames.map(|bytes| Ok(Frame::data(bytes)));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// Adds the warnings of a request (RFC 7234 §5.5, code 299), which kubectl shows.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|char| !char.is_control())
            .flat_map(|char| if matches!(char, '"' | '\\') { vec!['\\', char] } else { vec![char] })
            .collect();
        if let Ok(header) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(http::header::WARNING, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Reason;

    #[test]
    fn failures_carry_what_clients_look_for() {
        let unauthorized = Status::new(401, Reason::Unauthorized, "Unauthorized");
        let answer = failure(Format::Json, &unauthorized);
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer");
        let later = failure(Format::Json, &Status::too_large_revision(9, 1));
        assert_eq!(later.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn warnings_are_quoted() {
        let mut answer = json(StatusCode::OK, "{}");
        warn(&mut answer, &["unknown field \"spec.x\"".to_owned(), "a\nb".to_owned()]);
        let headers: Vec<_> = answer.headers().get_all(http::header::WARNING).iter().collect();
        assert_eq!(headers, ["299 - \"unknown field \\\"spec.x\\\"\"", "299 - \"ab\""]);
    }
}
