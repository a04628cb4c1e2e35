//! Policies, of Kubernetes and of Calico, become complete values of the model.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

use std::fmt::Write as _;

use api::PolicyObject as _;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::policy::{EntityMatch, Policy, Rule};
use serde::de::DeserializeOwned;

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

/// Writes values with commas between them.
fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Writes what one end must be like.
fn end(entity: &EntityMatch) -> String {
    let mut text = String::new();
    let mut part = |name: &str, value: String| {
        if !value.is_empty() {
            write!(text, " {name}({value})").unwrap();
        }
    };
    part("nets", list(entity.nets.as_deref().unwrap_or_default()));
    part("not-nets", list(&entity.not_nets));
    part("selector", entity.selector.as_ref().map(ToString::to_string).unwrap_or_default());
    part("not-selector", entity.not_selector.as_ref().map(ToString::to_string).unwrap_or_default());
    part("service", entity.service.as_ref().map(ToString::to_string).unwrap_or_default());
    part("ports", list(entity.ports.as_deref().unwrap_or_default()));
    text
}

/// Writes a policy, a line for itself and one for each rule.
fn lines(policy: &Policy) -> Vec<String> {
    let rules = |name: &'static str, rules: &Option<Vec<Rule>>| {
        let Some(rules) = rules else { return Vec::new() };
        let mut lines = vec![format!("{name}:")];
        lines.extend(rules.iter().map(|rule| {
            let protocol = rule.protocol.map(|protocol| format!(" {protocol}"));
            let (source, destination) = (end(&rule.source), end(&rule.destination));
            let ends = [("from", source), ("to", destination)];
            let ends: Vec<String> = ends
                .into_iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(name, text)| format!(" {name}{text}"))
                .collect();
            format!("{:?}{}{}", rule.action, protocol.unwrap_or_default(), ends.concat())
        }));
        lines
    };
    let head =
        format!("{} {} {} {}", policy.id, policy.tier, policy.order.number(), policy.selector);
    [vec![head], rules("ingress", &policy.ingress), rules("egress", &policy.egress)].concat()
}

fn policy(spec: &str) -> Vec<String> {
    let text = format!("metadata: {{name: p, namespace: shop}}\nspec:\n{spec}");
    lines(&yaml::<NetworkPolicy>(&text).reading().complete().unwrap())
}

const PODS: &str = r#"projectcalico.org/orchestrator == "k8s""#;
const SHOP: &str = r#"projectcalico.org/namespace == "shop""#;

#[test]
fn an_empty_policy_denies_what_arrives() {
    let expected = [format!("knp/shop/p default 1000 ({PODS} && {SHOP})"), "ingress:".into()];
    assert_eq!(policy("  podSelector: {}"), expected);
    assert_eq!(policy("  podSelector: {}\n  ingress: []"), expected);
    let both = policy("  podSelector: {}\n  policyTypes: [Ingress, Egress]");
    assert_eq!(both[1..], ["ingress:", "egress:"]);
    let egress = policy("  podSelector: {}\n  policyTypes: [Egress]");
    assert_eq!(egress[1..], ["egress:"]);
}

#[test]
fn no_peers_and_no_ports_are_all() {
    for rule in ["{}", "{from: []}", "{ports: []}", "{from: [], ports: []}"] {
        assert_eq!(policy(&format!("  ingress: [{rule}]"))[1..], ["ingress:", "Allow"], "{rule}");
    }
}

#[test]
fn peers_times_protocols_are_rules() {
    let found = policy(
        "
  podSelector:
    matchLabels: {b: '2', a: '1'}
    matchExpressions:
      - {key: c, operator: In, values: [x, y]}
      - {key: d, operator: NotIn, values: [z]}
      - {key: e, operator: Exists}
      - {key: f, operator: DoesNotExist}
  ingress:
    - from:
        - podSelector: {matchLabels: {role: db}}
        - namespaceSelector: {matchLabels: {team: a}}
          podSelector: {matchLabels: {role: api}}
        - namespaceSelector: {}
        - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
      ports:
        - {port: 80}
        - {port: 81, endPort: 90, protocol: TCP}
        - {port: 53, protocol: UDP}
        - {port: dns, protocol: UDP}
  egress:
    - to: [{ipBlock: {cidr: 'fd00::/8'}}]
      ports: [{protocol: SCTP}]
",
    );
    assert_eq!(
        found[0],
        format!(
            "knp/shop/p default 1000 (({PODS} && a == \"1\" && b == \"2\" && c in {{\"x\", \"y\"}} \
             && d not in {{\"z\"}} && has(e) && !has(f)) && {SHOP})"
        )
    );
    let db = format!(r#"selector(({SHOP} && ({PODS} && role == "db")))"#);
    let api = format!(r#"selector((pcns.team == "a" && ({PODS} && role == "api")))"#);
    let any = format!("selector((has(projectcalico.org/namespace) && {PODS}))");
    let block = "nets(10.0.0.0/8) not-nets(10.1.0.0/16)".to_owned();
    let mut expected = vec!["ingress:".to_owned()];
    for peer in [db, api, any, block] {
        expected.push(format!("Allow TCP from {peer} to ports(80:90)"));
        expected.push(format!("Allow UDP from {peer} to ports(53,dns)"));
    }
    expected.extend(["egress:".to_owned(), "Allow SCTP to nets(fd00::/8)".to_owned()]);
    assert_eq!(found[1..], expected);
}

#[test]
fn a_protocol_without_port_is_all_its_ports() {
    let found = policy("  ingress: [{ports: [{protocol: TCP}, {port: 80}, {port: 443}]}]");
    assert_eq!(found[1..], ["ingress:", "Allow TCP"]);
}

#[test]
fn wrong_policies_of_kubernetes_are_refused() {
    let wrong = |spec: &str| {
        let text = format!("metadata: {{name: p, namespace: shop}}\nspec:\n  {spec}");
        yaml::<NetworkPolicy>(&text).reading().complete().unwrap_err().to_string()
    };
    for (spec, line) in [
        (
            "ingress: [{from: [{}]}]",
            "spec.ingress[0].from[0].podSelector is missing: \
             use podSelector, namespaceSelector or ipBlock",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.0.2.0/24]}}]}]",
            "spec.ingress[0].from[0].ipBlock.except `192.0.2.0/24` does not lie in 10.0.0.0/8: \
             leave it out",
        ),
        (
            "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
            "spec.egress[0].to[0].ipBlock `10.0.0.0/8`: excludes podSelector and \
             namespaceSelector: make it a peer of its own",
        ),
        (
            "ingress: [{ports: [{port: 0}]}]",
            "spec.ingress[0].ports[0].port `0` is no port: use 1 to 65535",
        ),
        (
            "ingress: [{ports: [{port: 80, endPort: 79}]}]",
            "spec.ingress[0].ports[0].endPort `79` is less than port: use 80 or more",
        ),
        (
            "ingress: [{ports: [{port: http, endPort: 79}]}]",
            "spec.ingress[0].ports[0].endPort `79` needs a port that is a number",
        ),
        (
            "ingress: [{ports: [{protocol: ICMP}]}]",
            "spec.ingress[0].ports[0].protocol `ICMP` is none of the values: \
             use TCP, UDP or SCTP",
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            "spec.podSelector.matchExpressions `a In` needs values: list some",
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}",
            "spec.podSelector.matchExpressions `a Is` is no operator: \
             use In, NotIn, Exists or DoesNotExist",
        ),
    ] {
        assert_eq!(wrong(spec), format!("NetworkPolicy shop/p: {line}"));
    }
}

fn calico(spec: &str) -> Vec<String> {
    let object: api::CalicoNetworkPolicy =
        yaml(&format!("metadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}"));
    lines(&Policy::try_from(&object).unwrap())
}

fn global(spec: &str) -> Vec<String> {
    let object: api::GlobalNetworkPolicy =
        yaml(&format!("metadata: {{name: p}}\nspec: {{{spec}}}"));
    lines(&Policy::try_from(&object).unwrap())
}

#[test]
fn the_directions_of_a_policy_follow_from_its_rules() {
    let directions = |spec: &str| calico(spec)[1..].join(" ");
    assert_eq!(directions(""), "ingress:");
    assert_eq!(directions("ingress: [{action: Deny}]"), "ingress: Deny");
    assert_eq!(directions("egress: [{action: Deny}]"), "egress: Deny");
    assert_eq!(
        directions("ingress: [{action: Deny}], egress: [{action: Deny}]"),
        "ingress: Deny egress: Deny"
    );
    assert_eq!(directions("types: [Egress], ingress: [{action: Deny}]"), "egress:");
}

#[test]
fn selectors_of_policies_are_complete() {
    assert_eq!(calico("")[0], format!("np/shop/p default inf {SHOP}"));
    assert_eq!(
        calico("order: 5, selector: a == 'b', serviceAccountSelector: has(c), tier: t")[0],
        format!(r#"np/shop/p t 5 ((a == "b" && has(pcsa.c)) && {SHOP})"#)
    );
    assert_eq!(global("")[0], "gnp/p default inf all()");
    assert_eq!(global("namespaceSelector: a == 'b'")[0], r#"gnp/p default inf pcns.a == "b""#);
    assert_eq!(
        global("namespaceSelector: all()")[0],
        "gnp/p default inf has(projectcalico.org/namespace)"
    );
    assert_eq!(
        global("namespaceSelector: global()")[0],
        "gnp/p default inf !has(projectcalico.org/namespace)"
    );
}

#[test]
fn a_namespaced_rule_selects_in_its_namespace() {
    let from = |source: &str| {
        calico(&format!("ingress: [{{action: Allow, source: {{{source}}}}}]"))[2].clone()
    };
    assert_eq!(from("nets: [10.0.0.1/8]"), "Allow from nets(10.0.0.0/8)");
    assert_eq!(from("selector: has(a)"), format!("Allow from selector(({SHOP} && has(a)))"));
    assert_eq!(
        from("notSelector: has(a)"),
        format!("Allow from selector({SHOP}) not-selector(has(a))")
    );
    assert_eq!(
        from("selector: has(a), namespaceSelector: has(b)"),
        "Allow from selector((has(pcns.b) && has(a)))"
    );
    assert_eq!(
        from("serviceAccounts: {names: [x, y], selector: has(c)}"),
        format!(
            "Allow from selector(({SHOP} && (projectcalico.org/serviceaccount in {{\"x\", \"y\"}} \
             && has(pcsa.c))))"
        )
    );
    assert_eq!(
        from("namespaceSelector: global(), selector: has(a)"),
        "Allow from selector((!has(projectcalico.org/namespace) && has(a)))"
    );
}

#[test]
fn nan_is_no_order() {
    let spec = api::TierSpec { order: Some(f64::NAN.into()), ..api::TierSpec::default() };
    let tier = api::Tier::named("t", spec);
    assert_eq!(
        model::tier::Tier::try_from(&tier).unwrap_err().to_string(),
        "Tier t: spec.order `NaN`: NaN is no order: use a number, or leave it out to come last"
    );
}

#[test]
fn an_empty_cluster_selector_is_not_all_of_kubernetes() {
    // `podSelector: {}` is every pod of the namespace; its absence beside
    // `namespaceSelector` is every pod of those namespaces.
    let one = policy("  ingress: [{from: [{podSelector: {}}]}]");
    assert_eq!(one[2], format!("Allow from selector(({SHOP} && {PODS}))"));
    let all = policy("  ingress: [{from: [{namespaceSelector: {}}]}]");
    assert_eq!(
        all[2],
        format!("Allow from selector((has(projectcalico.org/namespace) && {PODS}))")
    );
}

#[test]
fn exceptions_of_one_family_make_a_rule_one_of_that_family() {
    use model::net::Family;
    let family = |source: &str| {
        let object: api::CalicoNetworkPolicy = yaml(&format!(
            "{{metadata: {{namespace: ns, name: p}}, spec: {{ingress: [{{action: Allow, source: {source}}}]}}}}"
        ));
        Policy::try_from(&object).unwrap().ingress.unwrap()[0].family
    };
    assert_eq!(family("{notNets: [10.0.0.0/8]}"), Some(Family::V4));
    assert_eq!(family("{notNets: ['fd00::/8']}"), Some(Family::V6));
    assert_eq!(family("{notNets: [10.0.0.0/8, 'fd00::/8']}"), None);
    assert_eq!(family("{nets: [10.0.0.0/8]}"), None);
}
