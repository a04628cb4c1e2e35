//! Requests for objects: which kind, which verb, which body; and what comes back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::api::{Admitted, Api, missing, not_allowed};
use super::duplicates::duplicates;
use super::info::Resource as Asked;
use super::media::{self, Accepted, PatchType};
use super::table::Include;
use super::{body, limit, view};
use crate::resource::{Body, Subresource};
use crate::service::{Patch, PatchKind, Service, Stream, Target};
use crate::status::{Reason, Status};
use crate::verb::options::FieldValidation;
use crate::verb::{DeleteOptions, ListOptions, WriteOptions};

/// A frame of a watch holds as many events as are ready, up to so many bytes.
const FRAME: usize = 32 * 1024;

/// One request for objects.
struct Call<'a> {
    api: &'a Api,
    service: &'a Service,
    request: &'a Admitted,
    target: Target,
    accepted: Accepted,
    include: Include,
}

/// Answers a request for objects.
pub(crate) async fn answer(api: &Api, request: &Admitted, body: Incoming) -> Answer {
    let accepted = match media::accept(request.header(&ACCEPT)) {
        Ok(accepted) => accepted,
        Err(status) => return answer::failure(media::Format::Json, &status),
    };
    let Some(asked) = &request.info.resource else { return answer::page_not_found() };
    let registry = api.service.registry();
    let Some(resource) = registry.get(&asked.group, &asked.version, &asked.plural) else {
        let is_builtin = registry
            .iter()
            .any(|it| matches!(it.body, Body::Builtin(_)) && *it.group == *asked.group);
        if is_builtin {
            return answer::failure(accepted.format, &missing());
        }
        return answer::page_not_found();
    };
    let include = match Include::parse(request.query.get("includeObject")) {
        Ok(include) => include,
        Err(status) if accepted.view == media::View::Table => {
            return answer::failure(accepted.format, &status);
        }
        Err(_) => Include::Metadata,
    };
    let answered = match target(asked, resource, request) {
        Err(status) => Err(status),
        Ok(target) => {
            let service = &api.service;
            let call = Call { api, service, request, target, accepted, include };
            let is_write = !matches!(request.info.verb, "get" | "list" | "watch");
            let answered = call.answer(body).await;
            if is_write {
                api.guard.written(&asked.group);
            }
            answered
        }
    };
    answered.unwrap_or_else(|status| answer::failure(accepted.format, &status))
}

/// Checks that the path and the method are those of the kind.
fn target(
    asked: &Asked,
    resource: &Arc<crate::resource::Resource>,
    request: &Admitted,
) -> Result<Target, Status> {
    let subresource = match asked.subresource.as_str() {
        "" => None,
        name => Some(resource.subresource(name).ok_or_else(missing)?),
    };
    // The path of a namespace names itself as its namespace.
    let namespace = if resource.namespaced { asked.namespace.as_str() } else { "" };
    let names_itself = asked.plural == "namespaces" && asked.group.is_empty();
    let is_elsewhere = !resource.namespaced && !asked.namespace.is_empty() && !names_itself;
    let is_homeless = resource.namespaced && namespace.is_empty() && asked.is_object;
    if asked.has_rest || is_elsewhere || is_homeless {
        return Err(missing());
    }
    let verb = request.info.verb;
    let is_everywhere = resource.namespaced && namespace.is_empty();
    let verbs = subresource.map_or(resource.verbs, Subresource::verbs);
    let is_known = verbs.contains(&verb) && request.method != Method::HEAD;
    let is_placed = match verb {
        "create" => subresource.is_some() == asked.is_object && !is_everywhere,
        "update" | "patch" => asked.is_object,
        "deletecollection" => !is_everywhere,
        _ => true,
    };
    if !is_known || !is_placed {
        return Err(not_allowed());
    }
    let name = if asked.is_object { asked.name.clone() } else { String::new() };
    Ok(Target {
        resource: Arc::clone(resource),
        namespace: namespace.to_owned(),
        name,
        subresource,
    })
}

impl Call<'_> {
    async fn answer(self, body: Incoming) -> Result<Answer, Status> {
        match self.request.info.verb {
            "get" => self.get().await,
            "list" => self.list().await,
            "watch" => self.watch().await,
            "create" | "update" => self.write(limit::read(body).await?).await,
            "patch" => self.patch(limit::read(body).await?).await,
            _ => self.delete(limit::read(body).await?).await,
        }
    }

    fn pairs(&self) -> &[(String, String)] {
        self.request.query.pairs()
    }

    fn object(&self, answered: &crate::service::Answer) -> Result<Answer, Status> {
        let code = StatusCode::from_u16(answered.code).unwrap_or(StatusCode::OK);
        let Call { accepted, include, target, .. } = self;
        let json = (code, &*answered.json);
        let mut answer = view::object(*accepted, &target.resource, *include, json)?;
        answer::warn(&mut answer, &answered.warnings);
        Ok(answer)
    }

    async fn get(self) -> Result<Answer, Status> {
        let version = self.request.query.text("resourceVersion");
        let answered = self.service.get(&self.target, version).await?;
        self.object(&answered)
    }

    async fn list(self) -> Result<Answer, Status> {
        let options = ListOptions::from_query(self.pairs())?;
        let list = self.service.list(&self.target, &options).await?;
        view::list(self.accepted, &self.target.resource, self.include, &list)
    }

    async fn watch(self) -> Result<Answer, Status> {
        let mut pairs = self.pairs().to_vec();
        // The old form has no parameter, and may name one object in its path.
        pairs.insert(0, ("watch".to_owned(), "true".to_owned()));
        if !self.target.name.is_empty() {
            pairs.push(("fieldSelector".to_owned(), format!("metadata.name={}", self.target.name)));
        }
        let options = ListOptions::from_query(&pairs)?;
        let events = view::Events::new(self.accepted, &self.target.resource, self.include)?;
        let target = Target { name: String::new(), ..self.target };
        let stream = self.service.watch(&target, &options).await?;
        Ok(answer::stream(frames(stream, events, self.api.stop.clone())))
    }

    async fn write(self, body: Bytes) -> Result<Answer, Status> {
        let Call { service, request, target, .. } = &self;
        let (service, target) = (*service, target.clone());
        let is_token = target.subresource == Some(Subresource::Token);
        let kind = if is_token { "TokenRequest" } else { &target.resource.kind };
        let repeated = duplicates(&body);
        let body = body::decode(request.header(&CONTENT_TYPE), &body, kind)?;
        let name = if request.info.verb == "create" { "CreateOptions" } else { "UpdateOptions" };
        let options = WriteOptions::from_query(name, self.pairs())?;
        if options.validation == FieldValidation::Strict && !repeated.is_empty() {
            let (version, repeated) = (&target.resource.version, repeated.join(", "));
            return Err(Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: \
                 strict decoding error: {repeated}"
            )));
        }
        let mut answered = match request.info.verb {
            "create" if is_token => {
                service.token_request(target, options, body, &*self.api.issuer).await?
            }
            "create" => service.create(target, options, body).await?,
            _ => service.update(target, options, body).await?,
        };
        if options.validation == FieldValidation::Warn {
            answered.warnings.extend(repeated);
        }
        self.object(&answered)
    }

    async fn patch(self, body: Bytes) -> Result<Answer, Status> {
        let kind = match media::patch_type(self.request.header(&CONTENT_TYPE))? {
            PatchType::Json => PatchKind::Json,
            PatchType::Merge => PatchKind::Merge,
            PatchType::Strategic => PatchKind::Strategic,
            PatchType::Apply => return Err(no_apply()),
        };
        let body: Value = serde_json::from_slice(&body).map_err(|error| {
            Status::bad_request(format!("error decoding patch: {}", body::go_error(&error, &body)))
        })?;
        let options = WriteOptions::from_query("PatchOptions", self.pairs())?;
        let answered =
            self.service.patch(self.target.clone(), options, Patch { kind, body }).await?;
        self.object(&answered)
    }

    async fn delete(self, body: Bytes) -> Result<Answer, Status> {
        let content_type = self.request.header(&CONTENT_TYPE);
        let decoded =
            (!body.is_empty()).then(|| body::decode(content_type, &body, "DeleteOptions"));
        let body = decoded.transpose()?;
        let options = DeleteOptions::from_request(self.pairs(), body.as_ref())?;
        if !self.target.name.is_empty() {
            let answered = self.service.delete(self.target.clone(), options).await?;
            return self.object(&answered);
        }
        let list = ListOptions::from_query(self.pairs())?;
        let list = self.service.delete_collection(self.target.clone(), list, options).await?;
        view::list(self.accepted, &self.target.resource, self.include, &list)
    }
}

fn no_apply() -> Status {
    let message = "server-side apply is not supported by calico-datastore: \
                   apply from the client, as `kubectl apply` does without --server-side";
    Status::new(415, Reason::UnsupportedMediaType, message)
}

/// Returns the events of a watch, as many in a frame as are ready.
fn frames(
    stream: Stream,
    events: view::Events,
    stop: watch::Receiver<bool>,
) -> impl futures::Stream<Item = Bytes> + Send + 'static {
    futures::stream::unfold(
        (stream, events, stop),
        |(mut stream, mut events, mut stop)| async move {
            let first = tokio::select! {
                event = stream.next() => event?,
                _ = stop.wait_for(|is_stopping| *is_stopping) => return None,
            };
            let mut frame = BytesMut::from(events.line(&first).as_slice());
            while frame.len() < FRAME {
                let Some(Some(event)) = stream.next().now_or_never() else { break };
                frame.extend_from_slice(&events.line(&event));
            }
            Some((frame.freeze(), (stream, events, stop)))
        },
    )
}
