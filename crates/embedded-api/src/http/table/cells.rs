//! The rows of the built-in kinds, as the printers of kube-apiserver make them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::human::{self, first};
use super::pod;

/// The cells of a row behind the name.
pub(super) type Cells = Vec<Value>;

pub(super) const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    object.pointer(path).filter(|value| !value.is_null())
}

pub(super) fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    at(object, path)?.as_str().filter(|text| !text.is_empty())
}

pub(super) fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns every cell of an object's row.
pub(super) fn row(resource: &str, object: &Value, now: Timestamp) -> Cells {
    let name = json!(text(object, "/metadata/name").unwrap_or_default());
    let created = at(object, "/metadata/creationTimestamp");
    let age = || json!(human::age(created, now));
    let rest = match resource {
        "pods" => pod::cells(object, now),
        "nodes" => node(object, age()),
        "namespaces" => vec![json!(text(object, "/status/phase").unwrap_or_default()), age()],
        "services" => service(object, age()),
        "serviceaccounts" => vec![json!(list(object, "/secrets").len()), age()],
        "configmaps" => {
            vec![json!(size(object, "/data").saturating_add(size(object, "/binaryData"))), age()]
        }
        "secrets" => {
            let kind = text(object, "/type").unwrap_or_default();
            vec![json!(kind), json!(size(object, "/data")), age()]
        }
        // Events show their name last.
        "events" | "events.events.k8s.io" => return event(object, &name, now),
        "endpoints" => vec![json!(endpoints(object)), age()],
        "endpointslices.discovery.k8s.io" => slice(object, age()),
        "networkpolicies.networking.k8s.io" => {
            vec![json!(selector(at(object, "/spec/podSelector"))), age()]
        }
        "leases.coordination.k8s.io" => {
            vec![json!(text(object, "/spec/holderIdentity").unwrap_or_default()), age()]
        }
        "poddisruptionbudgets.policy" => budget(object, age()),
        "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => binding(object, age()),
        // Definitions and roles show when they were made.
        _ => vec![created.cloned().unwrap_or_default()],
    };
    std::iter::once(name).chain(rest).collect()
}

fn size(object: &Value, path: &str) -> usize {
    at(object, path).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn node(node: &Value, age: Value) -> Cells {
    let ready =
        list(node, "/status/conditions").iter().find(|it| text(it, "/type") == Some("Ready"));
    let mut status = vec![match ready.map(|condition| text(condition, "/status")) {
        None => "Unknown",
        Some(Some("True")) => "Ready",
        Some(_) => "NotReady",
    }];
    if at(node, "/spec/unschedulable") == Some(&json!(true)) {
        status.push("SchedulingDisabled");
    }
    let address = |kind| {
        let all = list(node, "/status/addresses").iter();
        let found =
            all.filter(|it| text(it, "/type") == Some(kind)).find_map(|it| text(it, "/address"));
        json!(found.unwrap_or(NONE))
    };
    let about = |path, absent| json!(text(node, path).unwrap_or(absent));
    vec![
        json!(status.join(",")),
        json!(roles(node)),
        age,
        about("/status/nodeInfo/kubeletVersion", ""),
        address("InternalIP"),
        address("ExternalIP"),
        about("/status/nodeInfo/osImage", UNKNOWN),
        about("/status/nodeInfo/kernelVersion", UNKNOWN),
        about("/status/nodeInfo/containerRuntimeVersion", UNKNOWN),
    ]
}

fn roles(node: &Value) -> String {
    let labels = at(node, "/metadata/labels").and_then(Value::as_object);
    let role = |(key, value): (&String, &Value)| {
        let named = key.strip_prefix("node-role.kubernetes.io/").map(str::to_owned);
        let older = (key == "kubernetes.io/role").then(|| value.as_str().map(str::to_owned));
        named.or(older.flatten()).filter(|role| !role.is_empty())
    };
    let mut roles: Vec<String> = labels.into_iter().flatten().filter_map(role).collect();
    roles.sort();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn service(service: &Value, age: Value) -> Cells {
    let kind = text(service, "/spec/type").unwrap_or_default();
    let ports: Vec<String> = list(service, "/spec/ports").iter().map(port).collect();
    let ports = if ports.is_empty() { NONE.to_owned() } else { ports.join(",") };
    let labels = at(service, "/spec/selector").and_then(Value::as_object);
    let labels: Vec<String> =
        labels.into_iter().flatten().map(|(key, value)| equals(key, value)).collect();
    let labels = if labels.is_empty() { NONE.to_owned() } else { labels.join(",") };
    vec![
        json!(kind),
        json!(text(service, "/spec/clusterIP").unwrap_or(NONE)),
        json!(external(service, kind)),
        json!(ports),
        age,
        json!(labels),
    ]
}

fn equals(key: &str, value: &Value) -> String {
    format!("{key}={}", value.as_str().unwrap_or_default())
}

fn port(port: &Value) -> String {
    let number = |path| at(port, path).and_then(Value::as_i64).unwrap_or(0);
    let protocol = text(port, "/protocol").unwrap_or_default();
    match number("/nodePort") {
        0 => format!("{}/{protocol}", number("/port")),
        node => format!("{}:{node}/{protocol}", number("/port")),
    }
}

fn external(service: &Value, kind: &str) -> String {
    let strings = |path| -> Vec<String> {
        list(service, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let given = strings("/spec/externalIPs");
    let ingress = list(service, "/status/loadBalancer/ingress").iter();
    let balancer: Vec<String> = ingress
        .filter_map(|it| text(it, "/ip").or_else(|| text(it, "/hostname")))
        .map(str::to_owned)
        .collect();
    match kind {
        "ExternalName" => text(service, "/spec/externalName").unwrap_or_default().to_owned(),
        "LoadBalancer" if balancer.is_empty() && given.is_empty() => "<pending>".to_owned(),
        "LoadBalancer" => [balancer, given].concat().join(","),
        _ if given.is_empty() => NONE.to_owned(),
        _ => given.join(","),
    }
}

fn event(event: &Value, name: &Value, now: Timestamp) -> Cells {
    let either = |core: &str, events: &str| text(event, core).or_else(|| text(event, events));
    let about = |field: &str| {
        let core = text(event, &format!("/involvedObject/{field}"));
        core.or_else(|| text(event, &format!("/regarding/{field}"))).unwrap_or_default()
    };
    let mut first = either("/firstTimestamp", "/deprecatedFirstTimestamp");
    let time = text(event, "/eventTime");
    first = first.or(time);
    let series = text(event, "/series/lastObservedTime");
    let last = series.or_else(|| either("/lastTimestamp", "/deprecatedLastTimestamp"));
    let count = at(event, "/series/count").or_else(|| at(event, "/count"));
    let count = count.or_else(|| at(event, "/deprecatedCount")).and_then(Value::as_i64);
    let component = either("/source/component", "/deprecatedSource/component");
    let component = component.or_else(|| either("/reportingComponent", "/reportingController"));
    let host = either("/source/host", "/deprecatedSource/host");
    let host = host.or_else(|| text(event, "/reportingInstance"));
    let source: Vec<&str> = component.into_iter().chain(host).collect();
    let when = |time: Option<&str>| json!(human::age(time.map(|time| json!(time)).as_ref(), now));
    let object = format!("{}/{}", about("kind").to_lowercase(), about("name"));
    vec![
        when(last.or(first)),
        json!(text(event, "/type").unwrap_or_default()),
        json!(text(event, "/reason").unwrap_or_default()),
        json!(object),
        json!(about("fieldPath")),
        json!(source.join(", ")),
        json!(either("/message", "/note").unwrap_or_default().trim()),
        when(first),
        json!(count.unwrap_or(1).max(1)),
        name.clone(),
    ]
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let addresses = || list(subset, "/addresses").iter().filter_map(|it| text(it, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = at(port, "/port").and_then(Value::as_i64).unwrap_or(0);
            all.extend(addresses().map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
            }));
        }
    }
    if all.is_empty() { NONE.to_owned() } else { first(&all, 3) }
}

fn slice(slice: &Value, age: Value) -> Cells {
    const UNSET: &str = "<unset>";
    let port = |port: &Value| at(port, "/port").map_or_else(|| "*".to_owned(), Value::to_string);
    let ports: Vec<String> = list(slice, "/ports").iter().map(port).collect();
    let addresses = list(slice, "/endpoints").iter().flat_map(|it| list(it, "/addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    let shown = |all: &[String]| if all.is_empty() { UNSET.to_owned() } else { first(all, 3) };
    let kind = text(slice, "/addressType").unwrap_or_default();
    vec![json!(kind), json!(shown(&ports)), json!(shown(&addresses)), age]
}

/// Writes a label selector as `metav1.FormatLabelSelector` does.
fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.to_owned() };
    let labels = at(selector, "/matchLabels").and_then(Value::as_object);
    let mut terms: Vec<(String, String)> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), equals(key, value)))
        .collect();
    for expression in list(selector, "/matchExpressions") {
        let key = text(expression, "/key").unwrap_or_default();
        let values = list(expression, "/values").iter().filter_map(Value::as_str);
        let mut values: Vec<&str> = values.collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match text(expression, "/operator").unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    if terms.is_empty() { NONE.to_owned() } else { terms.join(",") }
}

fn budget(budget: &Value, age: Value) -> Cells {
    let bound = |path| match at(budget, path) {
        None => json!("N/A"),
        Some(Value::String(percent)) => json!(percent),
        Some(number) => json!(number.to_string()),
    };
    let allowed = at(budget, "/status/disruptionsAllowed").cloned().unwrap_or_else(|| json!(0));
    vec![bound("/spec/minAvailable"), bound("/spec/maxUnavailable"), allowed, age]
}

fn binding(binding: &Value, age: Value) -> Cells {
    let role = format!(
        "{}/{}",
        text(binding, "/roleRef/kind").unwrap_or_default(),
        text(binding, "/roleRef/name").unwrap_or_default()
    );
    let subjects = |kind: &str| {
        let all = list(binding, "/subjects").iter().filter(|it| text(it, "/kind") == Some(kind));
        let names = all.map(|it| {
            let name = text(it, "/name").unwrap_or_default();
            let namespace = text(it, "/namespace").unwrap_or_default();
            if kind == "ServiceAccount" { format!("{namespace}/{name}") } else { name.to_owned() }
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![json!(role), age, subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}
