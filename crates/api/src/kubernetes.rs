//! The Kubernetes kinds that we read: Node and Pod.

mod node;
mod pod;

pub use node::node;
pub use pod::{pod_addrs, workload_endpoint};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Invalid;

/// Returns an annotation's value; an empty one counts as absent.
fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    let value = metadata.annotations.as_ref()?.get(name)?;
    (!value.is_empty()).then_some(value)
}

/// Returns the error for a field of a Kubernetes object.
#[expect(clippy::needless_pass_by_value, reason = "callers pass literals and errors alike")]
fn invalid(
    kind: &str,
    metadata: &ObjectMeta,
    (field, value): (&str, &str),
    problem: impl ToString,
) -> Invalid {
    let name = metadata.name.as_deref().unwrap_or_default();
    let object = match &metadata.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    let (field, value) = (field.to_owned(), value.to_owned());
    Invalid { object, field, value, problem: problem.to_string() }
}
