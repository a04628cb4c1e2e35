//! `Profile`: what the endpoints of a network of Docker inherit.
//!
//! In Kubernetes, Calico makes profiles of namespaces and service accounts and keeps none. Those
//! of networks are objects of their own (ADR 10), with the fields of `projectcalico.org/v3`.

use std::collections::BTreeMap;

use model::policy::Profile as Model;

use crate::object::kind;
use crate::policy::{RuleSpec, profile_rules};
use crate::wire::wire;
use crate::{Invalid, Object};

/// What endpoints inherit: labels, and rules for what no policy decides.
pub type Profile = Object<ProfileSpec>;

wire! {
    /// The spec of a [`Profile`].
    pub struct ProfileSpec {
        /// Rules for packets to its endpoints; what none allows is denied.
        ingress: Option<Vec<RuleSpec>> = "ingress",
        /// Rules for packets from its endpoints; what none allows is denied.
        egress: Option<Vec<RuleSpec>> = "egress",
        /// Labels that its endpoints have beside their own.
        labels_to_apply: Option<BTreeMap<String, String>> = "labelsToApply",
    }
}

kind! { ProfileSpec: "Profile" "profiles" cluster }

/// Reads a profile; a rule that cannot be read denies everything in its place.
///
/// Returns what is wrong with it, too.
#[must_use]
pub fn profile(object: &Profile) -> (Model, Vec<Invalid>) {
    let (ingress, mut faults) = profile_rules("ingress", object.spec.ingress.as_deref());
    let (egress, more) = profile_rules("egress", object.spec.egress.as_deref());
    faults.extend(more);
    let profile = Model {
        name: object.name().to_owned(),
        labels_to_apply: object.spec.labels_to_apply.clone().unwrap_or_default(),
        ingress,
        egress,
    };
    (profile, faults.into_iter().map(|fault| object.faulty(fault)).collect())
}

/// Is it the name of a profile that Calico makes of something else?
///
/// Whoever may write profiles must not be able to write those of namespaces, of accounts, or the
/// one that allows everything.
#[must_use]
pub fn is_reserved_profile(name: &str) -> bool {
    ["kns.", "ksa.", "projectcalico-"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use model::policy::Action;
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_read_and_those_that_cannot_be_deny() {
        let object = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "Profile",
            "metadata": {"name": "web"},
            "spec": {
                "ingress": [
                    {"action": "Allow", "source": {"selector": "has(web)"}},
                    {"action": "Allow", "source": {"selector": "has("}},
                ],
                "egress": [{"action": "Allow"}],
                "labelsToApply": {"web": ""},
            },
        });
        let (profile, faults) = profile(&Profile::from_json(&object).unwrap());
        assert_eq!(profile.labels_to_apply, [("web".to_owned(), String::new())].into());
        let actions: Vec<Action> = profile.ingress.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [Action::Allow, Action::Deny]);
        assert_eq!(profile.egress.len(), 1);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains("spec.ingress[1].source.selector"), "{}", faults[0]);
    }

    #[test]
    fn profiles_of_namespaces_are_not_for_everybody_to_write() {
        for name in ["kns.default", "ksa.a.b", "projectcalico-default-allow"] {
            assert!(is_reserved_profile(name));
        }
        assert!(!is_reserved_profile("web"));
    }
}
