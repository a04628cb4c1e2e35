//! Delete: preconditions, grace periods, finalizers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::rules;
use super::update::carry;
use super::{Context, DeleteOptions, stamp};
use crate::Object;
use crate::resource::Resource;
use crate::status::Status;

/// What a deletion does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deletion {
    /// The object goes; this was its last state.
    Gone(Object),
    /// It stays until something else is done, marked like this.
    Marked(Object),
    /// It is marked already.
    Unchanged,
}

/// Decides a deletion.
///
/// # Errors
///
/// 409 if a precondition fails.
pub(crate) fn delete(
    resource: &Resource,
    old: &Object,
    options: &DeleteOptions,
    context: &Context,
) -> Result<Deletion, Status> {
    check(resource, old, options)?;
    let grace = rules::grace_period(resource, old, options.grace_period);
    if old.is_terminating() && !shortens(old, grace) {
        let held = old.finalizers().next().is_some() || rules::is_held(old);
        let wait = old.metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
        if held || wait.unwrap_or(0) > 0 {
            return Ok(Deletion::Unchanged);
        }
    }
    let mut new = old.clone();
    rules::prepare_delete(resource, &mut new, &context.now);
    let is_held = new.finalizers().next().is_some() || rules::is_held(&new);
    if grace.is_none() && !is_held {
        return Ok(Deletion::Gone(new));
    }
    mark(&mut new, grace.unwrap_or(0), context);
    // These two are marked by strategies of their own.
    if rules::is_namespace(resource) || rules::is_definition(resource) {
        new.metadata.remove("deletionGracePeriodSeconds");
        carry(&mut new, old, "generation");
    }
    let waits = is_held || grace.is_some_and(|seconds| seconds > 0);
    Ok(if waits { Deletion::Marked(new) } else { Deletion::Gone(new) })
}

fn check(resource: &Resource, old: &Object, options: &DeleteOptions) -> Result<(), Status> {
    let name = old.name().unwrap_or_default();
    // The API server names the kind here, not the plural.
    let names = (&*resource.kind, &*resource.group);
    let uid = old.uid().unwrap_or_default();
    if let Some(asked) = options.uid.as_deref().filter(|asked| *asked != uid) {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(names, name, &why));
    }
    let version = old.resource_version().unwrap_or_default();
    if let Some(asked) = options.resource_version.as_deref().filter(|asked| *asked != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(Status::conflict(names, name, &why));
    }
    Ok(())
}

/// Returns whether a second deletion ends earlier than the first.
fn shortens(old: &Object, grace: Option<i64>) -> bool {
    let now = old.metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    matches!((grace, now), (Some(asked), Some(now)) if asked < now)
}

/// Marks an object as one that is being deleted, which changes its specification.
pub(crate) fn mark(new: &mut Object, grace: i64, context: &Context) {
    if !new.is_terminating() {
        let generation = new.metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
        if generation > 0 {
            new.set_meta("generation", json!(generation.saturating_add(1)));
        }
    }
    let now: Timestamp = context.now.parse().unwrap_or_default();
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    new.set_meta("deletionTimestamp", stamp(end));
    new.set_meta("deletionGracePeriodSeconds", json!(grace));
}
