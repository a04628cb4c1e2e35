//! Create, update and patch.

use serde_json::{Value, json};

use super::remove::remove;
use super::{Answer, Service, Target, context};
use crate::builtin::allocate::{Taken, allocate};
use crate::cause::Cause;
use crate::resource::{Body, Resource};
use crate::status::{Reason, Status};
use crate::store::{Entry, Key, Scope, Transaction};
use crate::verb::decode::{self, Decoded};
use crate::verb::update::{Outcome, Wanted};
use crate::verb::{Context, WriteOptions, create, meta, rules, update, watch};
use crate::{Object, crd, patch};

const NO_STRATEGIC: &str = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
/// How often a generated name is tried.
const TRIES: usize = 8;

/// The kinds of patches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' own, for built-in kinds.
    Strategic,
}

/// A patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// How the body is meant.
    pub kind: PatchKind,
    /// The body.
    pub body: Value,
}

impl Service {
    /// Creates an object.
    ///
    /// # Errors
    ///
    /// 400 for what cannot be decoded, 403, 404 or 409 if it cannot be there, 422 with what is wrong.
    pub async fn create(
        &self,
        target: Target,
        options: WriteOptions,
        body: Value,
    ) -> Result<Answer, Status> {
        let decoded = decode::decode(&target.resource, body, options.validation)?;
        let changes_kinds = rules::is_definition(&target.resource) && !options.is_dry_run;
        let mut decoded = decoded;
        in_namespace(&target, &mut decoded.object)?;
        let warnings = decoded.warnings;
        let object = decoded.object;
        let mut tries: usize = 1;
        let json = loop {
            let (target, object, context) = (target.clone(), object.clone(), context()?);
            let is_named = object.name().is_some();
            let decide = move |tx: &mut Transaction<'_>| {
                let entry = created(tx, &target, object, &context, options.is_dry_run)?;
                super::read::shown(&target.resource, entry)
            };
            match self.store.write(decide).await {
                Err(status)
                    if status.reason == Reason::AlreadyExists && !is_named && tries < TRIES =>
                {
                    tries = tries.saturating_add(1);
                }
                other => break other?,
            }
        };
        if changes_kinds {
            self.refresh().await?;
        }
        Ok(Answer { code: 201, json, warnings })
    }

    /// Replaces an object, or a part of it.
    ///
    /// # Errors
    ///
    /// As [`Service::create`]; 409 if somebody else wrote since.
    pub async fn update(
        &self,
        target: Target,
        options: WriteOptions,
        body: Value,
    ) -> Result<Answer, Status> {
        let mut decoded = decode::decode(&target.resource, body, options.validation)?;
        check_name(&target, &decoded.object)?;
        in_namespace(&target, &mut decoded.object)?;
        let context = context()?;
        let shared = target.clone();
        let decide = move |tx: &mut Transaction<'_>| {
            let Decoded { object, warnings } = decoded;
            let Some(entry) = tx.get(&target.key())? else {
                if target.subresource.is_some() || !rules::creates_on_update(&target.resource) {
                    return Err(target.not_found());
                }
                let json = created(tx, &target, object, &context, options.is_dry_run)?;
                let json = super::read::shown(&target.resource, json)?;
                return Ok(Answer { code: 201, json, warnings });
            };
            let wanted = Wanted { object, subresource: target.subresource, is_patch: false };
            let json = updated(tx, &target, &entry, wanted, (&context, options))?;
            Ok(Answer { code: 200, json, warnings })
        };
        let answer = self.store.write(decide).await?;
        self.refresh_after(&shared.resource, options.is_dry_run).await?;
        Ok(answer)
    }

    /// Changes an object, or a part of it.
    ///
    /// # Errors
    ///
    /// As [`Service::update`]; 415 for a strategic patch of a custom resource.
    pub async fn patch(
        &self,
        target: Target,
        options: WriteOptions,
        patch: Patch,
    ) -> Result<Answer, Status> {
        let context = context()?;
        let shared = target.clone();
        let decide = move |tx: &mut Transaction<'_>| {
            let entry = tx.get(&target.key())?.ok_or_else(|| target.not_found())?;
            let mut current = entry.object()?;
            decode::show(&target.resource, &mut current);
            let value = patched(&target.resource, &current.into_value(), &patch)?;
            let decoded = decode_patched(&target, value, options)?;
            let Decoded { mut object, warnings } = decoded;
            check_name(&target, &object)?;
            in_namespace(&target, &mut object)?;
            let wanted = Wanted { object, subresource: target.subresource, is_patch: true };
            let json = updated(tx, &target, &entry, wanted, (&context, options))?;
            Ok(Answer { code: 200, json, warnings })
        };
        let answer = self.store.write(decide).await?;
        self.refresh_after(&shared.resource, options.is_dry_run).await?;
        Ok(answer)
    }

    /// Learns the kinds again if a definition was written, or went with its last object.
    pub(super) async fn refresh_after(
        &self,
        resource: &Resource,
        is_dry_run: bool,
    ) -> Result<(), Status> {
        let changes = match resource.body {
            _ if is_dry_run => false,
            Body::Builtin(_) => rules::is_definition(resource) || rules::is_namespace(resource),
            Body::Custom { .. } => {
                let key = definition_of(resource);
                self.store.read(move |snapshot| Ok(snapshot.get(&key)?.is_none())).await?
            }
        };
        if changes {
            self.refresh().await?;
        }
        Ok(())
    }
}

fn check_name(target: &Target, object: &Object) -> Result<(), Status> {
    let wanted = &target.name;
    match object.name() {
        Some(name) if name == wanted => Ok(()),
        Some(name) => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        None => Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
    }
}

/// Puts the object into the namespace of the request.
fn in_namespace(target: &Target, object: &mut Object) -> Result<(), Status> {
    if !target.resource.namespaced {
        object.metadata.remove("namespace");
        return Ok(());
    }
    if object.namespace().is_some_and(|namespace| namespace != target.namespace) {
        let message =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    object.set_meta("namespace", target.namespace.clone());
    Ok(())
}

fn patched(resource: &Resource, current: &Value, patch: &Patch) -> Result<Value, Status> {
    match patch.kind {
        PatchKind::Json => patch::json(current, &patch.body),
        PatchKind::Merge => patch::merge(current, &patch.body),
        PatchKind::Strategic => match &resource.body {
            Body::Builtin(_) => patch::strategic(&resource.kind, current, &patch.body),
            Body::Custom { .. } => {
                Err(Status::new(415, Reason::UnsupportedMediaType, NO_STRATEGIC))
            }
        },
    }
}

/// Decodes what a patch made; its problems are those of the patch.
fn decode_patched(target: &Target, value: Value, options: WriteOptions) -> Result<Decoded, Status> {
    let shown = match target.resource.body {
        Body::Builtin(_) => meta::as_patched(&value),
        Body::Custom { .. } => value.to_string(),
    };
    if matches!(target.resource.body, Body::Custom { .. }) {
        check_head(target, &value)?;
    }
    let decoded = decode::decode_body(&target.resource, value, options.validation);
    decoded.map_err(|problem| {
        let cause = Cause::invalid("patch", &json!(shown), &problem);
        Status::invalid(("", ""), "", &[cause])
    })
}

/// Refuses a patch that makes something else of a custom resource.
fn check_head(target: &Target, value: &Value) -> Result<(), Status> {
    let resource = &target.resource;
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.to_string())];
    let mut causes = Vec::new();
    for (field, expected) in expected {
        let found = value.get(field).and_then(Value::as_str).unwrap_or_default();
        if found != expected {
            causes.push(Cause::invalid(field, &json!(found), &format!("must be {expected}")));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid((&resource.kind, &resource.group), &target.name, &causes))
}

type Json = std::sync::Arc<[u8]>;

/// Creates an object in a transaction.
fn created(
    tx: &mut Transaction<'_>,
    target: &Target,
    mut object: Object,
    context: &Context,
    is_dry_run: bool,
) -> Result<Json, Status> {
    create::generate_name(&mut object, context.random);
    let name = object.name().unwrap_or_default().to_owned();
    require_definition(tx, target)?;
    require_namespace(tx, target, &name)?;
    let mut object = create::create(&target.resource, object, context)?;
    let key = target.key_of(&name);
    if let Some(existing) = tx.get(&key)? {
        let mut status = Status::already_exists(target.names(), &name);
        if existing.object()?.is_terminating() {
            status.message.insert_str(0, "object is being deleted: ");
        }
        return Err(status);
    }
    place(tx, target, &mut object, context)?;
    if is_dry_run {
        return watch::to_json(&object);
    }
    let entry = tx.put(key, object)?;
    establish(tx, target, &entry, context)?;
    Ok(entry.json)
}

/// Accepts the names of a definition, which its controllers would do soon.
fn establish(
    tx: &mut Transaction<'_>,
    target: &Target,
    entry: &Entry,
    context: &Context,
) -> Result<(), Status> {
    if !rules::is_definition(&target.resource) {
        return Ok(());
    }
    let all = tx.list(&Scope::All { resource: entry.key.resource.clone() })?;
    let others = all.iter().filter(|other| other.key != entry.key).map(Entry::object);
    let others = others.collect::<Result<Vec<_>, _>>()?;
    let old = entry.object()?;
    let mut new = old.clone();
    crd::establish(&mut new, &others.iter().collect::<Vec<_>>(), &context.now);
    if new != old {
        tx.put(entry.key.clone(), new)?;
    }
    Ok(())
}

/// Returns the key of the definition of a custom resource.
fn definition_of(resource: &Resource) -> Key {
    Key {
        resource: "customresourcedefinitions.apiextensions.k8s.io".into(),
        namespace: "".into(),
        name: resource.qualified().into(),
    }
}

/// Refuses objects of a kind whose definition is going or gone.
fn require_definition(tx: &Transaction<'_>, target: &Target) -> Result<(), Status> {
    if !matches!(target.resource.body, Body::Custom { .. }) {
        return Ok(());
    }
    match tx.get(&definition_of(&target.resource))? {
        Some(entry) if !entry.object()?.is_terminating() => Ok(()),
        _ => {
            let why = "create not allowed while custom resource definition is terminating";
            Err(Status::new(405, Reason::MethodNotAllowed, why))
        }
    }
}

/// Refuses objects in namespaces that are not there, or not for long.
fn require_namespace(tx: &Transaction<'_>, target: &Target, name: &str) -> Result<(), Status> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let namespace = &target.namespace;
    let key = Key {
        resource: "namespaces".into(),
        namespace: "".into(),
        name: namespace.as_str().into(),
    };
    let Some(entry) = tx.get(&key)? else {
        return Err(Status::not_found(("namespaces", ""), namespace));
    };
    if !entry.object()?.is_terminating() {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut status = Status::forbidden(target.names(), name, &why);
    if let Some(details) = status.details.as_mut().and_then(Value::as_object_mut) {
        let cause = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        details.insert("causes".to_owned(), cause);
    }
    Err(status)
}

/// Gives services their addresses.
fn place(
    tx: &Transaction<'_>,
    target: &Target,
    object: &mut Object,
    context: &Context,
) -> Result<(), Status> {
    if !target.resource.group.is_empty() || &*target.resource.plural != "services" {
        return Ok(());
    }
    let own = (target.namespace.as_str(), object.name().unwrap_or_default().to_owned());
    let all = tx.list(&Scope::All { resource: "services".into() })?;
    let is_other = |entry: &&Entry| (&*entry.key.namespace, &*entry.key.name) != (own.0, &*own.1);
    let others = all.iter().filter(is_other).map(Entry::object).collect::<Result<Vec<_>, _>>()?;
    let causes = allocate(object, &Taken::by(&others), context.start);
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid((&target.resource.kind, ""), &own.1, &causes))
}

/// Updates an object in a transaction.
fn updated(
    tx: &mut Transaction<'_>,
    target: &Target,
    entry: &Entry,
    wanted: Wanted,
    (context, options): (&Context, WriteOptions),
) -> Result<Json, Status> {
    let old = entry.object()?;
    let is_main = wanted.subresource.is_none();
    let json = match update::update(&target.resource, wanted, &old)? {
        Outcome::Unchanged => entry.json.clone(),
        Outcome::Replaced(mut object) => {
            if is_main {
                place(tx, target, &mut object, context)?;
            }
            if options.is_dry_run {
                watch::to_json(&object)?
            } else {
                let entry = tx.put(entry.key.clone(), object)?;
                establish(tx, target, &entry, context)?;
                entry.json
            }
        }
        Outcome::Deleted(object) => {
            let json = watch::to_json(&object)?;
            if !options.is_dry_run {
                // Watchers are told the last state that was stored.
                remove(tx, &entry.key, old)?;
            }
            json
        }
    };
    super::read::shown(&target.resource, json)
}
