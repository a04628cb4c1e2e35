//! The rules of a kind, whether it is built in or defined by a custom resource.

use serde_json::{Value, json};

use super::names;
use crate::Object;
use crate::builtin::core::NAMESPACE_FINALIZER;
use crate::builtin::{Rules, Trait, pod};
use crate::cause::Cause;
use crate::crd::Version;
use crate::resource::{Body, Resource};

/// What keeps a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn builtin(resource: &Resource) -> Option<&'static Rules> {
    match &resource.body {
        Body::Builtin(kind) => Some(&kind.rules),
        Body::Custom { .. } => None,
    }
}

pub(crate) fn name_rule(resource: &Resource) -> names::Rule {
    builtin(resource).map_or(names::Rule::Subdomain, |rules| rules.name)
}

/// Returns whether `metadata.generation` counts changes; it does for all custom resources.
pub(crate) fn has_generation(resource: &Resource) -> bool {
    builtin(resource).is_none_or(|rules| rules.traits.contains(&Trait::Generation))
}

/// Returns whether an update must name the revision that it replaces.
pub(crate) fn requires_version(resource: &Resource) -> bool {
    builtin(resource).is_none_or(|rules| rules.traits.contains(&Trait::RequiresVersion))
}

/// Returns whether an update of what is not there creates it.
pub(crate) fn creates_on_update(resource: &Resource) -> bool {
    builtin(resource).is_some_and(|rules| rules.traits.contains(&Trait::CreatesOnUpdate))
}

/// Returns whether a deletion answers with the object.
pub(crate) fn returns_deleted(resource: &Resource) -> bool {
    builtin(resource).is_some_and(|rules| rules.traits.contains(&Trait::ReturnsDeleted))
}

pub(crate) fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && &*resource.plural == "namespaces"
}

pub(crate) fn is_definition(resource: &Resource) -> bool {
    &*resource.group == "apiextensions.k8s.io"
}

fn is_pod(resource: &Resource) -> bool {
    resource.group.is_empty() && &*resource.plural == "pods"
}

/// Sets what a client does not choose at creation.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Object) {
    if resource.has_status() && !keeps_status(resource) {
        object.body.remove("status");
    }
    if let Some(rules) = builtin(resource) {
        (rules.on_create)(object);
    }
}

/// Nodes come with their status: the kubelet registers them so.
fn keeps_status(resource: &Resource) -> bool {
    resource.group.is_empty() && &*resource.plural == "nodes"
}

/// Carries over what a client does not choose at an update.
pub(crate) fn prepare_update(resource: &Resource, new: &mut Object, old: &Object) {
    if let Some(rules) = builtin(resource) {
        (rules.on_update)(new, old);
    }
}

/// Completes a status.
pub(crate) fn prepare_status(resource: &Resource, new: &mut Object, old: &Object) {
    if let Some(rules) = builtin(resource) {
        (rules.on_status)(new);
    }
    // These are not part of a status in any kind.
    for field in ["ownerReferences", "finalizers"] {
        match old.metadata.get(field) {
            Some(value) if is_pod(resource) => new.set_meta(field, value.clone()),
            _ => {}
        }
    }
}

pub(crate) fn validate(resource: &Resource, object: &Object) -> Vec<Cause> {
    match &resource.body {
        Body::Builtin(kind) => (kind.rules.validate)(object),
        Body::Custom { version, .. } => conform(version, object, None),
    }
}

pub(crate) fn validate_update(resource: &Resource, new: &Object, old: &Object) -> Vec<Cause> {
    match &resource.body {
        Body::Builtin(kind) => (kind.rules.validate_update)(new, old),
        Body::Custom { version, .. } => conform(version, new, Some(old)),
    }
}

/// Judges an update of a subresource.
pub(crate) fn validate_status(resource: &Resource, new: &Object, old: &Object) -> Vec<Cause> {
    match &resource.body {
        Body::Builtin(kind) => (kind.rules.validate_status)(new, old),
        Body::Custom { version, .. } => conform(version, new, Some(old)),
    }
}

/// Checks a custom resource by its schema.
fn conform(version: &Version, new: &Object, old: Option<&Object>) -> Vec<Cause> {
    let old = old.map(|old| old.clone().into_value());
    version.schema.validate(&new.clone().into_value(), old.as_ref())
}

/// Returns whether an update is one that `metadata.generation` counts.
pub(crate) fn changes_generation(resource: &Resource, new: &Object, old: &Object) -> bool {
    if !has_generation(resource) {
        return false;
    }
    let same = |field: &str| new.body.get(field) == old.body.get(field);
    if &*resource.plural == "endpointslices" {
        // All of it is its specification, labels and annotations included.
        let labels = ["labels", "annotations"];
        let moved = labels.iter().any(|f| new.metadata.get(*f) != old.metadata.get(*f));
        return moved || new.body != old.body;
    }
    match &resource.body {
        Body::Builtin(_) => !same("spec"),
        Body::Custom { version, .. } => {
            let is_meant = |field: &&String| !version.has_status || *field != "status";
            let fields = new.body.keys().chain(old.body.keys()).filter(is_meant);
            fields.into_iter().any(|field| !same(field))
        }
    }
}

/// Returns whether something else than a finalizer of the metadata holds a deleted object.
pub(crate) fn is_held(object: &Object) -> bool {
    let is_namespace = object.body.get("kind").and_then(Value::as_str) == Some("Namespace")
        && object.body.get("apiVersion").and_then(Value::as_str) == Some("v1");
    let finalizers = object.body.get("spec").and_then(|spec| spec.get("finalizers"));
    is_namespace && finalizers.and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// Returns the seconds until a deletion ends; absent if the kind does not know such a thing.
pub(crate) fn grace_period(
    resource: &Resource,
    object: &Object,
    asked: Option<i64>,
) -> Option<i64> {
    if !is_pod(resource) {
        return None;
    }
    let null = Value::Null;
    let spec = object.body.get("spec").unwrap_or(&null);
    let phase = object.body.get("status").and_then(|status| status.get("phase"));
    let is_over = matches!(phase.and_then(Value::as_str), Some("Failed" | "Succeeded"));
    let is_scheduled = spec.get("nodeName").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if is_over || !is_scheduled {
        return Some(0);
    }
    let own = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    Some(asked.or(own).unwrap_or(pod::GRACE_PERIOD))
}

/// Changes what a deletion changes besides the metadata.
pub(crate) fn prepare_delete(resource: &Resource, object: &mut Object, now: &str) {
    if is_namespace(resource) {
        object.body.insert("status".to_owned(), json!({"phase": "Terminating"}));
    }
    if is_definition(resource) && !object.is_terminating() {
        object.set_meta("finalizers", with_cleanup(object));
        let conditions = object.body.get_mut("status").and_then(|s| s.get_mut("conditions"));
        if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
            conditions.push(json!({
                "type": "Terminating",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "InstanceDeletionPending",
                "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            }));
        }
    }
}

/// Adds the finalizer of definitions, whose objects go first.
fn with_cleanup(definition: &Object) -> Value {
    let mut finalizers: Vec<&str> = definition.finalizers().collect();
    if !finalizers.contains(&CLEANUP) {
        finalizers.push(CLEANUP);
    }
    json!(finalizers)
}

/// Takes the finalizer off a definition whose objects are gone.
pub(crate) fn finish_definition(definition: &mut Object) {
    let rest: Vec<&str> = definition.finalizers().filter(|name| *name != CLEANUP).collect();
    let rest = json!(rest);
    definition.set_meta("finalizers", rest);
}

/// Takes the finalizer off a namespace that is empty.
pub(crate) fn finish_namespace(namespace: &mut Object) {
    let finalizers = namespace.body.get_mut("spec").and_then(|spec| spec.get_mut("finalizers"));
    if let Some(list) = finalizers.and_then(Value::as_array_mut) {
        list.retain(|finalizer| finalizer != NAMESPACE_FINALIZER);
    }
}
