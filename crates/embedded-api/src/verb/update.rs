//! Update and patch: what stays, what may change, and who was faster.

use serde_json::{Value, json};

use super::meta;
use super::rules;
use crate::Object;
use crate::cause::Cause;
use crate::resource::{Body, Resource, Subresource};
use crate::status::{Reason, Status};

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// Metadata that only the server writes.
const KEPT: [&str; 4] =
    ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// What an update does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing would be different.
    Unchanged,
    /// This replaces the object.
    Replaced(Object),
    /// The last finalizer of a deleted object is gone; this is what the client wrote.
    Deleted(Object),
}

/// What the client wants the object to be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The decoded object.
    pub(crate) object: Object,
    /// The part of it that is meant.
    pub(crate) subresource: Option<Subresource>,
    /// A patch without a revision or UID is meant for whatever is there.
    pub(crate) is_patch: bool,
}

/// Decides an update of what is stored.
///
/// # Errors
///
/// 409 if somebody else wrote since, 422 with what is wrong.
pub(crate) fn update(resource: &Resource, wanted: Wanted, old: &Object) -> Result<Outcome, Status> {
    let Wanted { object: mut new, subresource, is_patch } = wanted;
    let name = old.name().unwrap_or_default();
    let names = (&*resource.plural, &*resource.group);
    check_version(resource, &mut new, old)?;
    match (new.uid(), old.uid()) {
        (None, Some(uid)) => {
            let uid = uid.to_owned();
            new.set_meta("uid", uid);
        }
        (Some(asked), Some(uid)) if asked != uid && !is_patch => {
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}",
                key(resource, old),
            );
            return Err(Status::conflict(names, name, &why));
        }
        _ => {}
    }
    for field in KEPT {
        carry(&mut new, old, field);
    }
    if new.meta("generateName").is_none() {
        carry(&mut new, old, "generateName");
    }
    prepare(resource, &mut new, old, subresource);
    if rules::changes_generation(resource, &new, old) {
        let generation = old.metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
        new.set_meta("generation", json!(generation.saturating_add(1)));
    }
    let causes = judge(resource, &new, old, subresource);
    if !causes.is_empty() {
        return Err(Status::invalid((&resource.kind, &resource.group), name, &causes));
    }
    Ok(outcome(new, old))
}

/// Returns the key that etcd would have, which messages show.
fn key(resource: &Resource, object: &Object) -> String {
    let prefix = match (&resource.body, &*resource.plural) {
        (Body::Custom { .. }, plural) => format!("{}/{plural}", resource.group),
        (Body::Builtin(_), "services") => "services/specs".to_owned(),
        (Body::Builtin(_), "nodes") => "minions".to_owned(),
        (Body::Builtin(_), plural) => plural.to_owned(),
    };
    let namespace = object.namespace().map(|namespace| format!("/{namespace}")).unwrap_or_default();
    format!("/registry/{prefix}{namespace}/{}", object.name().unwrap_or_default())
}

/// Copies a field of the metadata, absence included.
pub(super) fn carry(new: &mut Object, old: &Object, field: &str) {
    match old.metadata.get(field) {
        Some(value) => new.set_meta(field, value.clone()),
        None => {
            new.metadata.remove(field);
        }
    }
}

fn check_version(resource: &Resource, new: &mut Object, old: &Object) -> Result<(), Status> {
    let names = (&*resource.plural, &*resource.group);
    let name = old.name().unwrap_or_default();
    match new.resource_version().filter(|version| *version != "0") {
        None if rules::requires_version(resource) => {
            let detail = "must be specified for an update";
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), detail);
            // The API server names the plural here, not the kind.
            return Err(Status::invalid(names, name, &[cause]));
        }
        None => {}
        Some(version) => {
            if version.parse::<u64>().is_err() {
                let message = super::options::parse_error("ParseUint", version);
                return Err(Status::new(500, Reason::Unknown, message));
            }
            if Some(version) != old.resource_version() {
                return Err(Status::conflict(names, name, MODIFIED));
            }
        }
    }
    carry(new, old, "resourceVersion");
    Ok(())
}

/// Puts back what this path does not write.
fn prepare(resource: &Resource, new: &mut Object, old: &Object, subresource: Option<Subresource>) {
    match subresource {
        Some(Subresource::Status) => {
            let status = new.body.remove("status");
            new.body.clone_from(&old.body);
            new.body.remove("status");
            if let Some(status) = status {
                new.body.insert("status".to_owned(), status);
            }
            if matches!(resource.body, Body::Builtin(_)) {
                rules::prepare_status(resource, new, old);
            } else {
                // Custom resources keep all their metadata.
                new.metadata.clone_from(&old.metadata);
            }
        }
        Some(Subresource::Finalize) => {
            let spec = new.body.remove("spec");
            new.body.clone_from(&old.body);
            new.metadata.clone_from(&old.metadata);
            if let Some(spec) = spec {
                new.body.insert("spec".to_owned(), spec);
            }
        }
        _ => {
            if resource.has_status() {
                new.body.remove("status");
                if let Some(status) = old.body.get("status") {
                    new.body.insert("status".to_owned(), status.clone());
                }
            }
            rules::prepare_update(resource, new, old);
        }
    }
}

/// Collects causes as often and in the order in which the API server does.
fn judge(
    resource: &Resource,
    new: &Object,
    old: &Object,
    subresource: Option<Subresource>,
) -> Vec<Cause> {
    let rule = rules::name_rule(resource);
    let mut causes = meta::validate(new, rule);
    causes.extend(meta::validate_update(new, old));
    causes.extend(meta::validate_update(new, old));
    if matches!(resource.body, Body::Builtin(_)) {
        causes.extend(meta::validate(new, rule));
    }
    match subresource {
        None => causes.extend(rules::validate_update(resource, new, old)),
        Some(_) => causes.extend(rules::validate_status(resource, new, old)),
    }
    causes
}

fn outcome(new: Object, old: &Object) -> Outcome {
    if new.is_terminating() && is_finished(&new) {
        return Outcome::Deleted(new);
    }
    if new == *old { Outcome::Unchanged } else { Outcome::Replaced(new) }
}

/// Returns whether nothing holds an object that is being deleted.
fn is_finished(object: &Object) -> bool {
    let grace = object.metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    object.finalizers().next().is_none() && grace.unwrap_or(0) == 0 && !rules::is_held(object)
}
