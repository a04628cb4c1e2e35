//! Policies that cannot be read as a whole open nothing.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use api::{PolicyObject, Reading};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::policy::{Policy, PolicyId, PolicyKind, Rule, Stage};
use serde::de::DeserializeOwned;

const SHOP: &str = r#"projectcalico.org/namespace == "shop""#;
const PODS: &str = r#"projectcalico.org/orchestrator == "k8s""#;

fn read<T: PolicyObject + DeserializeOwned>(metadata: &str, spec: &str) -> Reading {
    let text = format!("metadata: {{{metadata}}}\nspec: {{{spec}}}");
    serde_saphyr::from_str::<T>(&text).unwrap().reading()
}

/// Writes whom a policy is for, and its rules: `!` is one that denies as it could not be read.
fn written(policy: &Policy) -> String {
    let rules = |name: &str, rules: &Option<Vec<Rule>>| {
        let Some(rules) = rules else { return String::new() };
        let word = |rule: &Rule| match &rule.refused {
            Some(reason) => {
                assert!(reason.starts_with("spec.") || reason.contains(':'), "{reason}");
                "!".to_owned()
            }
            None => format!("{:?}", rule.action),
        };
        format!(" | {name} {}", rules.iter().map(word).collect::<Vec<_>>().join(" "))
    };
    let (ingress, egress) = (rules("in", &policy.ingress), rules("out", &policy.egress));
    format!("{}{ingress}{egress}", policy.selector)
}

fn namespaced(spec: &str) -> (String, usize) {
    let reading = read::<api::CalicoNetworkPolicy>("name: p, namespace: shop", spec);
    (written(&reading.policy), reading.faults.len())
}

fn global(spec: &str) -> (String, usize) {
    let reading = read::<api::GlobalNetworkPolicy>("name: p", spec);
    (written(&reading.policy), reading.faults.len())
}

fn kubernetes(spec: &str) -> (String, usize) {
    let reading = read::<NetworkPolicy>("name: p, namespace: shop", spec);
    (written(&reading.policy), reading.faults.len())
}

#[test]
fn a_rule_that_cannot_be_read_denies_in_its_place() {
    for (rules, expected) in [
        ("{action: Allow}, {action: allow}, {action: Deny}", "Allow ! Deny"),
        ("{action: Allow, protocol: HTTP}, {action: Allow}", "! Allow"),
        ("{action: Log, source: {selector: 'a =='}}", "!"),
        ("{action: Pass, destination: {ports: [99999]}, protocol: TCP}", "!"),
    ] {
        let found = namespaced(&format!("ingress: [{rules}]"));
        assert_eq!(found, (format!("{SHOP} | in {expected}"), 1), "{rules}");
    }
}

#[test]
fn what_leaves_no_doubt_is_done_and_reported() {
    let allow = "ingress: [{action: Allow}]";
    let expected = (format!("{SHOP} | in Allow"), 1);
    assert_eq!(namespaced(&format!("types: [Ingress, Ingress], {allow}")), (expected.0.clone(), 1));
    assert_eq!(namespaced(&format!("performanceHints: [Fast], {allow}")), expected);
}

#[test]
fn unreadable_types_deny_both_directions() {
    let found = namespaced("types: [ingress], ingress: [{action: Allow}]");
    assert_eq!(found, (format!("{SHOP} | in ! | out !"), 1));
    let found = kubernetes("podSelector: {}, policyTypes: [Both], ingress: [{}]");
    assert_eq!(found, (format!("({PODS} && {SHOP}) | in  | out "), 1));
}

#[test]
fn an_unreadable_selector_denies_in_its_namespace() {
    let allow = "types: [Egress], egress: [{action: Allow}]";
    let found = namespaced(&format!("selector: a == b, {allow}"));
    assert_eq!(found, (format!("{SHOP} | out !"), 1));
    let found = namespaced(&format!("selector: has(a), serviceAccountSelector: 'b ==', {allow}"));
    assert_eq!(found, (format!("(has(a) && {SHOP}) | out !"), 1));
    let found = kubernetes(
        "podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}, ingress: [{}]",
    );
    assert_eq!(found, (format!("{SHOP} | in "), 1));
}

#[test]
fn an_unreadable_selector_of_all_namespaces_denies_only_what_else_bounds_it() {
    let allow = "types: [Ingress], ingress: [{action: Allow}]";
    for (selectors, expected) in [
        ("selector: a == b", "!all()"),
        ("namespaceSelector: a == b", "!all()"),
        ("selector: all(), namespaceSelector: a == b", "!all()"),
        ("selector: has(a), namespaceSelector: a == b", "has(a)"),
        ("selector: a == b, namespaceSelector: has(c)", "has(pcns.c)"),
    ] {
        let found = global(&format!("{selectors}, {allow}"));
        assert_eq!(found, (format!("{expected} | in !"), 1), "{selectors}");
    }
}

#[test]
fn contradictions_of_stages_deny_as_early_as_one_of_them_says() {
    let stage = |spec: &str| {
        let reading = read::<api::GlobalNetworkPolicy>("name: p", spec);
        assert_eq!(reading.faults.len(), 1, "{spec}");
        assert!(written(&reading.policy).ends_with("| in !"), "{spec}");
        reading.policy.stage
    };
    let both = "doNotTrack: true, preDNAT: true, applyOnForward: true";
    assert_eq!(stage(both), Stage::Untracked);
    assert_eq!(stage("preDNAT: true, ingress: [{action: Allow}]"), Stage::PreDnat);
}

#[test]
fn a_rule_of_kubernetes_that_cannot_be_read_allows_nothing() {
    let found = kubernetes("podSelector: {}, ingress: [{from: [{}]}, {ports: [{port: 80}]}]");
    assert_eq!(found, (format!("({PODS} && {SHOP}) | in Allow"), 1));
}

#[test]
fn an_object_of_which_only_the_name_is_known_denies_in_its_namespace() {
    let found = |kind, namespace: Option<&str>| {
        let id = PolicyId { kind, namespace: namespace.map(str::to_owned), name: "p".into() };
        let reading = Reading::unreadable(id, "invalid type: map".to_owned());
        assert_eq!(reading.faults.len(), 1);
        written(&reading.policy)
    };
    assert_eq!(found(PolicyKind::Network, Some("shop")), format!("{SHOP} | in ! | out !"));
    assert_eq!(found(PolicyKind::Kubernetes, Some("shop")), format!("{SHOP} | in  | out "));
    assert_eq!(found(PolicyKind::Global, None), "!all() | in ! | out !");
}
