//! Connections: TCP, TLS, HTTP/1.1 and HTTP/2, and their end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::answer::Answer;
use super::limit;

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// How long requests may go on when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when the kernel has no more file descriptors.
const RECOVER: Duration = Duration::from_millis(100);

/// Serves connections until `stop` says so, and then until they are done.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    handler: Arc<impl Handler>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limit::CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stop.wait_for(|is_stopping| *is_stopping) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, place)) => {
                let (tls, handler, stop) = (tls.clone(), Arc::clone(&handler), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(stream, tls, handler, stop).await {
                        debug!(%error, "a connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(RECOVER).await;
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        connections.shutdown().await;
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // A request waits for no other: Nagle would hold short answers back for 40 ms.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    handler: Arc<impl Handler>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = tokio::time::timeout(limit::PATIENCE, tls.accept(stream)).await??;
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, std::convert::Infallible>(handler.handle(request).await) }
    });
    let builder = builder();
    let served = builder.serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        done = served.as_mut() => return done,
        _ = stop.wait_for(|is_stopping| *is_stopping) => served.as_mut().graceful_shutdown(),
    }
    served.await
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limit::PATIENCE)
        .max_buf_size(usize::try_from(limit::HEADERS).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limit::HEADERS)
        .max_concurrent_streams(limit::STREAMS)
        .keep_alive_interval(limit::SILENCE)
        .keep_alive_timeout(limit::PATIENCE);
    builder
}
