//! What a node says of the policies that it enforces, as a `ConfigMap` that it writes (ADR 6).
//!
//! Each node has one of its own, which nobody watches but who wants to know.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use model::id::NodeName;
use model::policy::{NodeReport, PolicyId};
use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::invalid::{Fault, parse};

/// The namespace of the reports.
pub const NAMESPACE: &str = "kube-system";
/// The label that finds them; its value is empty.
pub const LABEL: &str = "projectcalico.org/policy-report";
/// The key of a report in its `ConfigMap`.
const KEY: &str = "report.json";
/// The most bytes of a report: an object may have a mebibyte, its metadata included.
const MAX_LEN: usize = 900_000;

/// A report as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    node: String,
    heard: String,
    programmed: BTreeMap<String, i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// Returns the name of a node's report.
#[must_use]
pub fn name(node: &NodeName) -> String {
    let name = format!("calico-policy-report-{node}");
    // A hash takes the place of an end that would not fit.
    if model::id::is_dns_subdomain(&name) {
        return name;
    }
    format!("calico-policy-report-{}", crate::names::hostname_hash(node.as_str()).to_lowercase())
}

/// Returns a report as an object; `owner` is the node's, with which the report goes.
///
/// What does not fit into an object is left out, and nodes seem not to enforce it.
#[must_use]
pub fn config_map(report: &NodeReport, owner: Option<OwnerReference>) -> ConfigMap {
    let mut left = MAX_LEN;
    let fits = |(id, generation): (&PolicyId, &i64)| {
        let id = id.to_string();
        // Quotes, colon, comma and a number of at most 19 digits.
        left = left.checked_sub(id.len().saturating_add(24))?;
        Some((id, *generation))
    };
    let wire = Wire {
        node: report.node.to_string(),
        heard: report.heard.to_string(),
        programmed: report.programmed.iter().map_while(fits).collect(),
        failure: report.failure.clone(),
    };
    let text = serde_json::to_string(&wire).unwrap_or_default();
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(&report.node)),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some([(LABEL.to_owned(), String::new())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

/// Returns the owner of a node's report.
#[must_use]
pub fn owner(node: &NodeName, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_string(),
        uid,
        ..OwnerReference::default()
    }
}

/// Reads a report; policies whose names make no sense are left out.
///
/// # Errors
///
/// [`Invalid`] if it is no report, or says not whose it is.
pub fn policy_report(object: &ConfigMap) -> Result<NodeReport, Invalid> {
    let read = || {
        let text = object.data.as_ref().and_then(|data| data.get(KEY));
        let text = text.map(String::as_str).unwrap_or_default();
        let problem = "delete it, and the node writes it anew";
        let wire: Wire = serde_json::from_str(text)
            .map_err(|error| Fault::new(KEY, "", format!("is no report: {error}: {problem}")))?;
        let programmed =
            wire.programmed.iter().filter_map(|(id, at)| Some((id.parse().ok()?, *at)));
        Ok(NodeReport {
            node: parse("node", &wire.node)?,
            heard: parse("heard", &wire.heard)?,
            programmed: programmed.collect(),
            failure: wire.failure,
        })
    };
    read().map_err(|fault: Fault| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        fault.under("data").of(format!("ConfigMap {NAMESPACE}/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> NodeReport {
        let mut report = NodeReport {
            node: "node-1".parse().unwrap(),
            heard: model::policy::Heard::default(),
            programmed: [("np/shop/a".parse().unwrap(), 3), ("gnp/b".parse().unwrap(), 1)].into(),
            failure: Some("no memory".to_owned()),
        };
        report.heard.toggle(&"gnp/b".parse().unwrap(), 1);
        report
    }

    #[test]
    fn what_is_written_is_read() {
        let owner = owner(&"node-1".parse().unwrap(), "1-2".to_owned());
        let object = config_map(&report(), Some(owner));
        assert_eq!(object.metadata.name.as_deref(), Some("calico-policy-report-node-1"));
        assert_eq!(policy_report(&object), Ok(report()));
    }

    #[test]
    fn a_report_fits_into_an_object() {
        let ids = (0..20_000).map(|number| format!("np/shop/{number}{}", "x".repeat(80)));
        let programmed = ids.map(|id| (id.parse().unwrap(), i64::MAX)).collect();
        let object = config_map(&NodeReport { programmed, ..report() }, None);
        let text = serde_json::to_string(&object).unwrap();
        assert!(text.len() < 1 << 20 && text.len() > 500_000, "{}", text.len());
        assert!(policy_report(&object).is_ok());
    }

    #[test]
    fn what_is_no_report_says_so() {
        let mut object = config_map(&report(), None);
        object.data = Some([(KEY.to_owned(), "[".to_owned())].into());
        let error = policy_report(&object).unwrap_err().to_string();
        assert!(error.contains("calico-policy-report-node-1: data.report.json"), "{error}");
        object.data = None;
        assert!(policy_report(&object).is_err());
    }

    #[test]
    fn names_of_long_nodes_are_hashed() {
        let long: NodeName = format!("{}.a", "n".repeat(60)).repeat(4).parse().unwrap();
        assert!(model::id::is_dns_subdomain(&name(&long)), "{}", name(&long));
    }
}
