//! The way of a request: who, may they, what is it, who answers.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::answer::{self, Answer};
use super::info::Info;
use super::listen::Handler;
use super::media::{self, Format};
use super::query::Query;
use super::{discovery, limit, openapi, verbs};
use crate::auth::guard::Guard;
use crate::auth::jwt::Issuer;
use crate::service::Service;
use crate::status::{Reason, Status};

/// What every request needs.
pub(crate) struct Api {
    /// Lets in.
    pub(crate) guard: Arc<Guard>,
    /// Does what is asked for.
    pub(crate) service: Service,
    /// Signs the tokens of service accounts.
    pub(crate) issuer: Arc<Issuer>,
    /// `HOST:PORT`, as discovery shows it.
    pub(crate) address: String,
    /// Ends the watches when the server stops.
    pub(crate) stop: watch::Receiver<bool>,
    /// The places of requests that are no watches.
    pub(crate) places: Semaphore,
}

/// A request whose sender may do what it asks for.
pub(crate) struct Admitted {
    /// What it is about.
    pub(crate) info: Info,
    /// Its parameters.
    pub(crate) query: Query,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its method.
    pub(crate) method: Method,
}

impl Admitted {
    /// Returns a header, if it is text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        header(&self.headers, name)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Handler for Api {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = Info::parse(&parts.method, parts.uri.path(), &query);
        let headers = parts.headers;
        let request = Admitted { info, query, headers, method: parts.method };
        match self.admit(&request).await {
            Ok(()) => self.limited(request, body).await,
            Err(status) => answer::failure(Format::Json, &status),
        }
    }
}

impl Api {
    async fn admit(&self, request: &Admitted) -> Result<(), Status> {
        let user = self.guard.authenticate(request.header(&AUTHORIZATION)).await?;
        let user = self.guard.impersonate(user, &request.headers).await?;
        self.guard.authorize(&user, &request.info).await
    }

    /// Answers within the limits for time and number; watches have their own.
    async fn limited(&self, request: Admitted, body: Incoming) -> Answer {
        if request.info.verb == "watch" {
            return self.answer(request, body).await;
        }
        let Ok(_place) = self.places.try_acquire() else {
            return answer::failure(Format::Json, &limit::too_many());
        };
        match tokio::time::timeout(limit::REQUEST, self.answer(request, body)).await {
            Ok(answer) => answer,
            Err(_) => answer::failure(Format::Json, &limit::too_slow()),
        }
    }

    async fn answer(&self, request: Admitted, body: Incoming) -> Answer {
        if request.info.resource.is_some() {
            return verbs::answer(self, &request, body).await;
        }
        let header = request.header(&ACCEPT);
        if media::wants_aggregated(header) {
            return self.document(&request, Format::Json);
        }
        match media::accept(header) {
            Ok(accepted) => self.document(&request, accepted.format),
            Err(status) => answer::failure(Format::Json, &status),
        }
    }

    /// Answers what is no object: discovery, the version, health.
    fn document(&self, request: &Admitted, format: Format) -> Answer {
        let Info { path, .. } = &request.info;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if let ["healthz" | "livez" | "readyz", ..] = parts.as_slice() {
            return health(&parts, &request.query);
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return answer::failure(format, &not_allowed());
        }
        let registry = &self.service.registry();
        let is_aggregated = media::wants_aggregated(request.header(&ACCEPT));
        let document = match parts.as_slice() {
            [] => Some(discovery::index(registry)),
            ["version"] => Some(version()),
            ["api"] if is_aggregated => {
                return aggregated(&discovery::aggregated(registry, str::is_empty));
            }
            ["apis"] if is_aggregated => {
                return aggregated(&discovery::aggregated(registry, |name| !name.is_empty()));
            }
            ["api"] => Some(discovery::core_versions(&self.address)),
            ["apis"] => Some(discovery::groups(registry)),
            ["openapi", "v3"] => Some(openapi::index(registry)),
            ["openapi", "v3", "api", version] => openapi::document(registry, "", version),
            ["openapi", "v3", "apis", group, version] => {
                openapi::document(registry, group, version)
            }
            ["apis", group] => discovery::group(registry, group),
            ["api", version] => discovery::resources(registry, "", version),
            ["apis", group, version] => discovery::resources(registry, group, version),
            _ => None,
        };
        match document {
            Some(document) => answer::value(StatusCode::OK, format, &document),
            None => answer::page_not_found(),
        }
    }
}

/// Aggregated discovery says in its type what it is.
fn aggregated(document: &Value) -> Answer {
    let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let mut answer = answer::value(StatusCode::OK, Format::Json, document);
    let kind = http::HeaderValue::from_static(kind);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

/// The version of Kubernetes whose behaviour this server has.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "34",
        "emulationMajor": "1",
        "emulationMinor": "34",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "33",
        "gitVersion": concat!("v1.34.4+calico-datastore-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// What answers is well: there is nothing else that could be ill.
fn health(parts: &[&str], query: &Query) -> Answer {
    const CHECKS: [&str; 2] = ["ping", "store"];
    match parts {
        [name] if query.get("verbose").is_some() => {
            let lines = CHECKS.map(|check| format!("[+]{check} ok\n")).concat();
            answer::text(StatusCode::OK, format!("{lines}{name} check passed\n"))
        }
        [_] => answer::text(StatusCode::OK, "ok"),
        [_, check] if CHECKS.contains(check) => answer::text(StatusCode::OK, "ok"),
        _ => answer::page_not_found(),
    }
}

/// Returns the failure for a resource that does not exist.
pub(crate) fn missing() -> Status {
    let message = "the server could not find the requested resource";
    media::generic(404, Reason::NotFound, message)
}

/// Returns the failure for a method that a path does not take.
pub(crate) fn not_allowed() -> Status {
    let message = "the server does not allow this method on the requested resource";
    media::generic(405, Reason::MethodNotAllowed, message)
}
