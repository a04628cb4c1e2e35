//! One request and its answer: when to ask again, and which error it was.

use std::time::{Duration, Instant};

use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kube::client::Body;
use kube::core::Status;

use crate::error::{Error, Target, chain};
use crate::transport::{Failure, Transport};

/// A request, or why it cannot be made.
pub(crate) type Built = Result<Request<Vec<u8>>, kube::core::request::Error>;

/// Whether a request changes something on the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Read,
    Write,
}

/// Sends a request and returns the body of its good answer, within the time limit.
///
/// It asks again while that is certain to do no harm: the server asked for patience or did not
/// accept a token that may have been renewed, or a read lost its connection.
pub(crate) async fn answer(
    transport: &Transport,
    target: &Target,
    request: Built,
    effect: Effect,
) -> Result<Vec<u8>, Error> {
    let request = request.map_err(|error| Error::Unwritable {
        target: Box::new(target.clone()),
        problem: format!("{}; correct the name", chain(&error)),
    })?;
    let timeout = transport.timeout();
    let insist = insist(transport, target, &request, effect);
    tokio::time::timeout(timeout, insist)
        .await
        .unwrap_or_else(|_| Err(failed(target, Failure::Silent(timeout), effect)))
}

/// Translates an error of kube's watcher.
#[expect(clippy::wildcard_enum_match_arm, reason = "a broken answer, however it broke")]
pub(crate) fn from_kube(target: Target, error: kube::Error) -> Error {
    let failure = match error {
        kube::Error::Api(status) => return Error::from_status(target, &status, None),
        kube::Error::Service(cause) => match cause.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(cause) => Failure::Lost(chain(cause.as_ref())),
        },
        other => Failure::Lost(chain(&other)),
    };
    settled(failed(&target, failure, Effect::Read), Effect::Read)
}

async fn insist(
    transport: &Transport,
    target: &Target,
    request: &Request<Vec<u8>>,
    effect: Effect,
) -> Result<Vec<u8>, Error> {
    let start = Instant::now();
    let (mut was_lost, mut was_refused) = (false, false);
    loop {
        let error = match attempt(transport, target, request, effect).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let left = transport.timeout().saturating_sub(start.elapsed());
        match (&error, effect) {
            (Error::Throttled { retry_after: Some(delay), .. }, _) if *delay < left => {
                tokio::time::sleep(*delay).await;
            }
            (Error::Unauthorized { .. }, _) if transport.may_renew_token() && !was_refused => {
                was_refused = true;
            }
            (Error::LostResponse { .. }, Effect::Read) if !was_lost => was_lost = true,
            _ => return Err(settled(error, effect)),
        }
    }
}

async fn attempt(
    transport: &Transport,
    target: &Target,
    request: &Request<Vec<u8>>,
    effect: Effect,
) -> Result<Vec<u8>, Error> {
    let mut sent = Request::new(Body::from(request.body().clone()));
    *sent.method_mut() = request.method().clone();
    *sent.uri_mut() = request.uri().clone();
    sent.headers_mut().clone_from(request.headers());
    let answer = transport.send(sent).await.map_err(|failure| failed(target, failure, effect))?;
    let status = answer.status();
    let retry_after = retry_after(&answer);
    let bytes = answer
        .into_body()
        .collect()
        .await
        .map_err(|error| failed(target, Failure::Lost(chain(&error)), effect))?
        .to_bytes();
    if status.is_success() {
        return Ok(bytes.to_vec());
    }
    let mut told: Status = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        // A proxy, or a path that the server does not know, answers in prose.
        let prose: String = String::from_utf8_lossy(&bytes).trim().chars().take(200).collect();
        Status::failure(&prose, "")
    });
    told.code = status.as_u16();
    let error = Error::from_status(target.clone(), &told, retry_after);
    Err(if transport.may_renew_token() { error.of_token_file() } else { error })
}

fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn failed(target: &Target, failure: Failure, effect: Effect) -> Error {
    let target = Box::new(target.clone());
    match (failure, effect) {
        (Failure::Unreachable(problem), _) => {
            let remedy = remedy(&problem);
            Error::Unreachable { target, problem, remedy }
        }
        (Failure::Silent(timeout), Effect::Read) => Error::Timeout { target, timeout },
        (Failure::Silent(timeout), Effect::Write) => {
            let problem = Failure::Silent(timeout).to_string();
            Error::LostResponse { target, problem }
        }
        (Failure::Lost(problem), _) => Error::LostResponse { target, problem },
    }
}

/// A read whose answer was lost twice is as good as one that was never sent.
fn settled(error: Error, effect: Effect) -> Error {
    match (error, effect) {
        (Error::LostResponse { target, problem }, Effect::Read) => Error::Unreachable {
            target,
            problem,
            remedy: "check that kube-apiserver runs and stays up",
        },
        (error, _) => error,
    }
}

fn remedy(problem: &str) -> &'static str {
    if problem.contains("certificate") {
        "check certificate-authority and tls-server-name in the kubeconfig, or in a pod ca.crt of \
         its service account, which is the ConfigMap kube-root-ca.crt; both are read again for \
         each connection"
    } else if problem.contains("refused") {
        "check that kube-apiserver runs there and the server URL in the kubeconfig"
    } else if problem.contains("dns error") {
        "check the host name in the server URL of the kubeconfig"
    } else {
        "check the network to the server and the server URL in the kubeconfig"
    }
}
