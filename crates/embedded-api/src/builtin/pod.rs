//! Pods: the defaults, names and references that the API server looks at, and what may change later.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::core::{default, items, list, one_of, port, section, text};
use super::{Rules, Trait};
use crate::Object;
use crate::cause::Cause;
use crate::verb::names;

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// Seconds between a deletion and its end, if the pod names no others.
pub(crate) const GRACE_PERIOD: i64 = 30;

pub(super) const fn pod(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::Generation, Trait::ReturnsDeleted],
        default: default_pod,
        on_create,
        on_status: complete_status,
        validate,
        validate_update,
        ..rules
    }
}

fn default_pod(pod: &mut Object) {
    let Some(spec) = section(pod, "spec") else { return };
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(GRACE_PERIOD)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
    ] {
        default(spec, field, value);
    }
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        default(spec, "serviceAccount", account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        spec.insert("serviceAccountName".to_owned(), account);
    }
    let is_host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for field in ["initContainers", "containers"] {
        items(spec, field).for_each(|container| default_container(container, is_host_network));
    }
    items(spec, "volumes").for_each(default_volume);
}

fn default_container(container: &mut Map<String, Value>, is_host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    for (field, value) in [
        ("resources", json!({})),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("imagePullPolicy", json!(policy)),
    ] {
        default(container, field, value);
    }
    for port in items(container, "ports") {
        default(port, "protocol", json!("TCP"));
        if is_host_network && let Some(number) = port.get("containerPort").cloned() {
            default(port, "hostPort", number);
        }
    }
    for variable in items(container, "env") {
        let from = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef"));
        if let Some(from) = from.and_then(Value::as_object_mut) {
            default(from, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            default_probe(probe);
        }
    }
    // What is limited and not requested is requested up to the limit.
    if let Some(Value::Object(resources)) = container.get_mut("resources")
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        if let Value::Object(requests) = requests {
            limits.into_iter().for_each(|(name, limit)| default(requests, &name, limit));
        }
    }
}

fn default_probe(probe: &mut Map<String, Value>) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        default(probe, field, json!(value));
    }
    if let Some(Value::Object(get)) = probe.get_mut("httpGet") {
        default(get, "path", json!("/"));
        default(get, "scheme", json!("HTTP"));
    }
}

fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_volume(volume: &mut Map<String, Value>) {
    const MODE: i64 = 0o644;
    if volume.len() <= 1 {
        default(volume, "emptyDir", json!({}));
    }
    for (field, mode) in [
        ("configMap", "defaultMode"),
        ("secret", "defaultMode"),
        ("projected", "defaultMode"),
        ("downwardAPI", "defaultMode"),
    ] {
        if let Some(source) = volume.get_mut(field).and_then(Value::as_object_mut) {
            default(source, mode, json!(MODE));
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        default(path, "type", json!(""));
    }
    if let Some(items_of) = volume.get_mut("downwardAPI").and_then(Value::as_object_mut) {
        for item in items(items_of, "items") {
            if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
                default(field, "apiVersion", json!("v1"));
            }
        }
    }
    if let Some(projected) = volume.get_mut("projected").and_then(Value::as_object_mut) {
        for source in items(projected, "sources") {
            if let Some(token) =
                source.get_mut("serviceAccountToken").and_then(Value::as_object_mut)
            {
                default(token, "expirationSeconds", json!(3600));
            }
        }
    }
}

/// What admission and the strategy add: default tolerations, priority, the first status.
fn on_create(pod: &mut Object) {
    let quality = quality(pod.body.get("spec").unwrap_or(&Value::Null));
    pod.body.insert("status".to_owned(), json!({"phase": "Pending", "qosClass": quality}));
    let Some(spec) = section(pod, "spec") else { return };
    default(spec, "priority", json!(0));
    default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(tolerations) = tolerations else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |toleration: &Value| {
            let effect = text(toleration, "effect");
            let for_key = text(toleration, "key");
            (for_key == key || for_key.is_empty()) && (effect.is_empty() || effect == "NoExecute")
        };
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }));
        }
    }
}

/// Returns the class of a pod's quality of service.
fn quality(spec: &Value) -> &'static str {
    let containers = || list(spec, "initContainers").iter().chain(list(spec, "containers"));
    let amount = |container: &Value, of: &str, name: &str| {
        container.get("resources")?.get(of)?.get(name).cloned()
    };
    let names = ["cpu", "memory"];
    let is_any = containers().any(|container| {
        names.iter().any(|name| {
            amount(container, "requests", name)
                .or_else(|| amount(container, "limits", name))
                .is_some()
        })
    });
    let is_all = containers().all(|container| {
        names.iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && amount(container, "requests", name) == limit
        })
    });
    match (is_any, is_all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// `podIP` and `podIPs` follow each other; the class never changes.
fn complete_status(pod: &mut Object) {
    let quality = quality(pod.body.get("spec").unwrap_or(&Value::Null));
    let Some(status) = section(pod, "status") else { return };
    default(status, "qosClass", json!(quality));
    match (status.get("podIP").cloned(), status.get("podIPs").cloned()) {
        (Some(ip), None) => {
            status.insert("podIPs".to_owned(), json!([{"ip": ip}]));
        }
        (None, Some(ips)) => {
            let first = ips.get(0).and_then(|first| first.get("ip")).cloned();
            if let Some(ip) = first {
                status.insert("podIP".to_owned(), ip);
            }
        }
        // The older field wins.
        (Some(ip), Some(mut ips)) => {
            if let Some(first) = ips.get_mut(0).and_then(Value::as_object_mut) {
                first.insert("ip".to_owned(), ip);
            }
            status.insert("podIPs".to_owned(), ips);
        }
        (None, None) => {}
    }
    for condition in items(status, "conditions") {
        default(condition, "lastProbeTime", Value::Null);
        default(condition, "lastTransitionTime", Value::Null);
    }
}

fn validate(pod: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let null = Value::Null;
    let spec = pod.body.get("spec").unwrap_or(&null);
    let volumes: HashSet<&str> = list(spec, "volumes").iter().map(|v| text(v, "name")).collect();
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        name(&format!("spec.volumes[{at}].name"), text(volume, "name"), &mut causes);
    }
    if list(spec, "containers").is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let mut seen = HashSet::new();
    for field in ["containers", "initContainers"] {
        for (at, container) in list(spec, field).iter().enumerate() {
            let path = format!("spec.{field}[{at}]");
            validate_container(&path, container, &volumes, &mut causes);
            let name = text(container, "name");
            if !name.is_empty() && !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &json!(name)));
            }
        }
    }
    let restart = text(spec, "restartPolicy");
    one_of("spec.restartPolicy", restart, &["Always", "OnFailure", "Never"], &mut causes);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of("spec.dnsPolicy", text(spec, "dnsPolicy"), &policies, &mut causes);
    let subdomain = ["nodeName", "serviceAccountName"];
    for field in subdomain {
        let value = text(spec, field);
        if !value.is_empty() {
            let problems = names::subdomain(value);
            causes.extend(names::causes(&format!("spec.{field}"), value, &problems));
        }
    }
    let hostname = text(spec, "hostname");
    if !hostname.is_empty() {
        causes.extend(names::causes("spec.hostname", hostname, &names::dns_label(hostname)));
    }
    causes
}

fn name(field: &str, value: &str, causes: &mut Vec<Cause>) {
    if value.is_empty() {
        causes.push(Cause::required(field, ""));
    } else {
        causes.extend(names::causes(field, value, &names::dns_label(value)));
    }
}

fn validate_container(
    path: &str,
    container: &Value,
    volumes: &HashSet<&str>,
    causes: &mut Vec<Cause>,
) {
    name(&format!("{path}.name"), text(container, "name"), causes);
    if text(container, "image").is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    }
    for (at, entry) in list(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{at}]");
        let number = entry.get("containerPort").and_then(Value::as_i64).unwrap_or(0);
        if number == 0 {
            causes.push(Cause::required(format!("{path}.containerPort"), ""));
        } else {
            port(&format!("{path}.containerPort"), number, causes);
        }
        let known = ["SCTP", "TCP", "UDP"];
        one_of(&format!("{path}.protocol"), text(entry, "protocol"), &known, causes);
    }
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        let volume = text(mount, "name");
        if volume.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        }
        if !volumes.contains(volume) {
            causes.push(Cause::not_found(format!("{path}.name"), &json!(volume)));
        }
        if text(mount, "mountPath").is_empty() {
            causes.push(Cause::required(format!("{path}.mountPath"), ""));
        }
    }
    let known = ["Always", "IfNotPresent", "Never"];
    one_of(&format!("{path}.imagePullPolicy"), text(container, "imagePullPolicy"), &known, causes);
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    let mut causes = validate(new);
    for field in ["containers", "initContainers"] {
        if count(new, field) != count(old, field) {
            let detail = "pod updates may not add or remove containers";
            causes.push(Cause::forbidden(format!("spec.{field}"), detail));
            return causes;
        }
    }
    if without_changeable(new, old) != without_changeable(old, old) {
        causes.push(Cause::forbidden("spec", CHANGEABLE));
    }
    causes
}

fn count(pod: &Object, field: &str) -> usize {
    list(pod.body.get("spec").unwrap_or(&Value::Null), field).len()
}

/// Returns the spec with the fields that may change set to one value.
fn without_changeable(pod: &Object, old: &Object) -> Value {
    let mut spec = pod.body.get("spec").cloned().unwrap_or_default();
    let Some(map) = spec.as_object_mut() else { return spec };
    for field in ["containers", "initContainers"] {
        items(map, field).for_each(|container| {
            container.remove("image");
        });
    }
    map.remove("activeDeadlineSeconds");
    let old_spec = old.body.get("spec").unwrap_or(&Value::Null);
    let known = list(old_spec, "tolerations");
    let now = list(&Value::Object(map.clone()), "tolerations").to_vec();
    if known.iter().all(|toleration| now.contains(toleration)) {
        map.insert("tolerations".to_owned(), json!(known));
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_latest_images_always() {
        let cases = [
            ("x", true),
            ("x:latest", true),
            ("host:5000/x", true),
            ("x:1", false),
            ("y@sha256:aa", false),
        ];
        for (image, expected) in cases {
            assert_eq!(is_latest(image), expected, "{image}");
        }
    }

    #[test]
    fn lets_images_and_more_tolerations_change() {
        let pod = |image: &str, tolerations: Value, node: &str| {
            let mut pod = Object::from_value(json!({"metadata": {"name": "p"}, "spec": {
                "containers": [{"name": "a", "image": image}],
                "tolerations": tolerations,
                "nodeName": node,
            }}))
            .unwrap();
            default_pod(&mut pod);
            pod
        };
        let old = pod("a", json!([{"key": "a"}]), "n");
        let changed = |new: &Object| !validate_update(new, &old).is_empty();
        assert!(!changed(&pod("b", json!([{"key": "a"}, {"key": "b"}]), "n")));
        assert!(changed(&pod("a", json!([]), "n")));
        assert!(changed(&pod("a", json!([{"key": "a"}]), "m")));
    }
}
