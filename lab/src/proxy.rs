//! A way to the API server on which answers get lost and connections end.
//!
//! It takes plain HTTP and asks the server as the owner of a kubeconfig does, so that what the
//! server permits is not changed by it. A lost answer is that of a request which the server has
//! carried out: the worst case for whoever asked.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::Error;
use crate::rest::{JSON, Request, Rest};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It passes, and so does its answer.
    Passes,
    /// It passes, and its answer is lost with the connection.
    LosesAnswer,
    /// It is lost with the connection.
    IsLost,
    /// It passes after that time, as a busy server's would.
    IsLate(Duration),
}

/// A request that comes by.
#[derive(Clone, Debug)]
pub struct Passing {
    /// The verb.
    pub method: Method,
    /// The path with its query.
    pub path: String,
}

type Judge = Box<dyn FnMut(&Passing) -> Fate + Send>;

struct Shared {
    rest: Rest,
    judge: Mutex<Judge>,
    cuts: watch::Sender<u64>,
}

/// The way; dropping it closes it.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _alive: oneshot::Sender<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Opens a way to the server of a kubeconfig; port zero takes a free one.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kubeconfig cannot be read or nobody can listen there.
    pub fn open(kubeconfig: &Path, at: SocketAddr) -> Result<Self, Error> {
        let judge: Judge = Box::new(|_| Fate::Passes);
        let shared = Arc::new(Shared {
            rest: Rest::connect(kubeconfig)?,
            judge: Mutex::new(judge),
            cuts: watch::Sender::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::program("tokio", error))?;
        let listener = runtime.block_on(TcpListener::bind(at));
        let listener = listener.map_err(|error| Error::program("proxy", error))?;
        let addr = listener.local_addr().map_err(|error| Error::program("proxy", error))?;
        let (alive, ended) = oneshot::channel::<()>();
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, server) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self { addr, shared, _alive: alive })
    }

    /// Decides from now on about each request.
    pub fn judge(&self, judge: impl FnMut(&Passing) -> Fate + Send + 'static) {
        *self.shared.judge.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(judge);
    }

    /// Ends every connection, watches with them.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Writes a kubeconfig for those who are to go this way.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write_kubeconfig(&self, path: &Path) -> Result<(), Error> {
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": format!("http://{}", self.addr)}}],
            "users": [{"name": "lab", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        std::fs::write(path, text.to_string()).map_err(Error::file(path))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // Nothing that a single connection does ends the way.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cuts.subscribe();
    let service = service_fn(|request| pass(request, Arc::clone(&shared)));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A lost answer is an error here, and meant.
        _ = connection => {}
        _ = cut.changed() => {}
    }
}

async fn pass(
    request: http::Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Incoming>, Error> {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let passing = Passing { method: request.method().clone(), path: path.to_owned() };
    let content_type = content_type(&request);
    let body = request.into_body().collect().await.map_err(Error::wrong)?.to_bytes();
    let Passing { method, path } = passing.clone();
    let onward = Request { method, path, content_type, body: body.to_vec() };
    let lost = || Error::wrong("lost on the way, as it was decided");
    let fate = {
        let mut judge = shared.judge.lock().unwrap_or_else(PoisonError::into_inner);
        judge(&passing)
    };
    match fate {
        Fate::Passes => shared.rest.open(onward).await,
        Fate::LosesAnswer => {
            shared.rest.send(onward).await?;
            Err(lost())
        }
        Fate::IsLost => Err(lost()),
        Fate::IsLate(time) => {
            tokio::time::sleep(time).await;
            shared.rest.open(onward).await
        }
    }
}

/// Returns the type of the body; requests of ours have one of a few.
fn content_type(request: &http::Request<Incoming>) -> &'static str {
    const PATCHES: [&str; 3] = [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/json-patch+json",
    ];
    let told = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let known = PATCHES.into_iter().find(|known| told.is_some_and(|told| told.starts_with(known)));
    known.unwrap_or(JSON)
}
