//! What one client may cost: the limits of the server and what it says beyond them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::media::generic;
use crate::status::{Reason, Status};

/// The most bytes of a request's body, as a real server's.
pub(crate) const BODY: usize = 3 * 1024 * 1024;
/// How much is read and dropped of a body that is too long.
const BEYOND: usize = 256 * 1024;
/// The most bytes of a request's line and headers.
pub(crate) const HEADERS: u32 = 64 * 1024;
/// Connections at once; the next ones wait in the kernel's queue.
pub(crate) const CONNECTIONS: usize = 2048;
/// Requests at once on one connection of HTTP/2; watches count.
pub(crate) const STREAMS: u32 = 1000;
/// Requests at once, without watches.
pub(crate) const REQUESTS: usize = 400;
/// How long a handshake, the headers of a request, or its body may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request may take that is no watch, as a real server's.
pub(crate) const REQUEST: Duration = Duration::from_secs(60);
/// How long a connection may be silent until it is asked whether it is still there.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Reads the body of a request.
///
/// # Errors
///
/// 413 if it is too long, 408 if it takes too long, 400 if the connection breaks.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = tokio::time::timeout(PATIENCE, collect(body)).await;
    read.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} s", PATIENCE.as_secs());
        Err(Status::new(408, Reason::Timeout, message))
    })
}

/// Reads a little beyond the limit, so that a client that still writes hears the refusal.
async fn collect<B>(mut body: B) -> Result<Bytes, Status>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut whole, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("cannot read the body: {}", error.into()))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= BODY {
            whole.extend_from_slice(&data);
        } else if length > BODY.saturating_add(BEYOND) {
            break;
        }
    }
    if length > BODY { Err(too_large()) } else { Ok(whole.freeze()) }
}

fn too_large() -> Status {
    let message = format!("Request entity too large: limit is {BODY}");
    Status::new(413, Reason::RequestEntityTooLarge, message)
}

/// Returns the refusal of one request too many.
pub(crate) fn too_many() -> Status {
    let details = serde_json::json!({"retryAfterSeconds": 1});
    let message = "too many requests, please try again later";
    let mut status = Status::new(429, Reason::TooManyRequests, message);
    status.details = Some(details);
    status
}

/// Returns the failure of a request that took too long.
pub(crate) fn too_slow() -> Status {
    let message = "Timeout: request did not complete within the requested timeout";
    generic(504, Reason::Timeout, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn reads_up_to_the_limit_and_not_beyond() {
        let body = |length| Full::new(Bytes::from(vec![b'x'; length]));
        assert_eq!(read(body(BODY)).await.unwrap().len(), BODY);
        let refused = read(body(BODY + 1)).await.unwrap_err();
        assert_eq!(refused.message, "Request entity too large: limit is 3145728");
    }
}
