//! Namespace and `ServiceAccount`: profiles, from which endpoints inherit labels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::Labels;
use model::policy::{Action, Profile, Rule};
use model::vrf::VrfName;

use super::{annotation, invalid};
use crate::{Invalid, annotations};

/// Returns the profile of a namespace: it allows everything, since Kubernetes
/// does as long as no policy applies, and its labels are found as `pcns.…`.
#[must_use]
pub fn namespace_profile(object: &Namespace) -> Profile {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Profile {
        name: format!("kns.{name}"),
        labels_to_apply: inherited("pcns.", &object.metadata, name),
        ingress: vec![Rule::of(Action::Allow)],
        egress: vec![Rule::of(Action::Allow)],
    }
}

/// Returns the VRF that new pods of a namespace get addresses of.
///
/// # Errors
///
/// [`Invalid`] for what cannot name a VRF.
pub fn namespace_vrf(object: &Namespace) -> Result<Option<VrfName>, Invalid> {
    let metadata = &object.metadata;
    let Some(text) = annotation(metadata, annotations::VRF_NAME) else { return Ok(None) };
    let field = ("annotation vrf.projectcalico.org/name", text);
    text.parse().map(Some).map_err(|error| invalid("Namespace", metadata, field, error))
}

/// Returns the profile of a service account: only labels, found as `pcsa.…`.
#[must_use]
pub fn service_account_profile(object: &ServiceAccount) -> Profile {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    Profile {
        name: format!("ksa.{namespace}.{name}"),
        labels_to_apply: inherited("pcsa.", &object.metadata, name),
        ingress: Vec::new(),
        egress: Vec::new(),
    }
}

/// Returns labels with a prefix, and the name among them, which users cannot forge.
fn inherited(prefix: &str, metadata: &ObjectMeta, name: &str) -> Labels {
    let own = metadata.labels.iter().flatten();
    let mut labels: BTreeMap<_, _> =
        own.map(|(key, value)| (format!("{prefix}{key}"), value.clone())).collect();
    labels.insert(format!("{prefix}projectcalico.org/name"), name.to_owned());
    labels
}
