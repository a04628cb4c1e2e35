//! ADD's first step: waiting for what must answer before any container is attached.

use std::time::Duration;

use cni::{Error, ErrorCode};
use http::{Request, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long all gates together may take, as in Calico.
const WITHIN: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait between two questions. Differs from Calico, which asks every five seconds:
/// a pod should not wait for what answers by now.
const PAUSE: Duration = Duration::from_millis(500);

type Gates = Client<HttpConnector, Empty<&'static [u8]>>;

/// Waits until every gate, a URL, answers GET with a status from 200 to 299.
///
/// # Errors
///
/// [`ErrorCode::UnsupportedField`] for what is no `http` URL, [`ErrorCode::TryAgainLater`] with
/// the gate that stayed closed.
pub(crate) async fn wait(gates: &[String]) -> Result<(), Error> {
    if gates.is_empty() {
        return Ok(());
    }
    let until = Instant::now().checked_add(WITHIN).unwrap_or_else(Instant::now);
    wait_until(gates, until).await
}

async fn wait_until(gates: &[String], until: Instant) -> Result<(), Error> {
    let client: Gates = Client::builder(TokioExecutor::new()).build_http();
    for gate in gates {
        let uri = uri(gate)?;
        let mut problem = "it was not asked in time".to_owned();
        let opening = async {
            while let Err(found) = ask(&client, &uri).await {
                problem = found;
                sleep(PAUSE).await;
            }
        };
        if timeout_at(until, opening).await.is_err() {
            let message = format!(
                "readiness gate {gate} did not open within {} s: start what answers there, or \
                 remove it from `readiness_gates`",
                WITHIN.as_secs()
            );
            return Err(Error::new(ErrorCode::TryAgainLater, message).with_details(problem));
        }
    }
    Ok(())
}

fn uri(gate: &str) -> Result<Uri, Error> {
    let uri = gate.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    uri.ok_or_else(|| {
        let message = format!(
            "network configuration has `readiness_gates` with {gate}, which is not supported: \
             use URLs such as http://localhost:9099/readiness"
        );
        Error::new(ErrorCode::UnsupportedField, message)
    })
}

async fn ask(client: &Gates, uri: &Uri) -> Result<(), String> {
    let request = Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
    match timeout(ANSWER_WITHIN, client.request(request)).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("it answers {}", answer.status())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with the next status.
    async fn serve(statuses: &'static [u16]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        addr
    }

    async fn outcome(gates: &[String], within: Duration) -> Result<(), Error> {
        wait_until(gates, Instant::now() + within).await
    }

    #[tokio::test]
    async fn every_gate_must_open() {
        let (first, second) = (serve(&[503, 200]).await, serve(&[204]).await);
        let gates = [first, second].map(|addr| format!("http://{addr}/readiness"));
        assert_eq!(outcome(&gates, Duration::from_secs(60)).await, Ok(()));
        assert_eq!(wait(&[]).await, Ok(()));
    }

    #[tokio::test]
    async fn a_gate_that_stays_closed_is_named() {
        let addr = serve(&[503]).await;
        let gates = [format!("http://{addr}/x")];
        let error = outcome(&gates, Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::TryAgainLater);
        assert!(error.message.contains(&gates[0]), "{error}");
        assert!(error.details.contains("503"), "{error}");
    }

    #[tokio::test]
    async fn only_plain_urls_can_be_asked() {
        for gate in ["https://localhost/", "localhost:80", "", "unix:/run/x"] {
            let error = wait(&[gate.to_owned()]).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsupportedField, "{gate}");
        }
    }
}
