//! The row of a pod, as `printPod` of kube-apiserver makes it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{Cells, NONE, at, list, text};
use super::human;

/// What the containers tell together.
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Cells {
    let summary = summarize(pod);
    let sidecars = list(pod, "/spec/initContainers").iter().filter(|it| is_restartable(it));
    let total = list(pod, "/spec/containers").iter().chain(sidecars).count();
    let restarts = match summary.last_restart.filter(|_| summary.restarts != 0) {
        None => summary.restarts.to_string(),
        Some(last) => {
            let ago = human::duration(now.as_second().saturating_sub(last.as_second()));
            format!("{} ({ago} ago)", summary.restarts)
        }
    };
    let ip = text(pod, "/status/podIPs/0/ip").or_else(|| text(pod, "/status/podIP"));
    let node = text(pod, "/spec/nodeName").unwrap_or(NONE);
    let nominated = text(pod, "/status/nominatedNodeName").unwrap_or(NONE);
    vec![
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.reason),
        json!(restarts),
        json!(human::age(at(pod, "/metadata/creationTimestamp"), now)),
        json!(ip.unwrap_or(NONE)),
        json!(node),
        json!(nominated),
        json!(gates(pod)),
    ]
}

/// Returns the conditions of a row: kubectl leaves out pods that are done on request.
pub(super) fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(pod, "/status/phase")? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let is_true = |gate: &&Value| {
        let kind = text(gate, "/conditionType").unwrap_or_default();
        has_condition(pod, kind)
    };
    format!("{}/{}", gates.iter().filter(is_true).count(), gates.len())
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    list(pod, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == Some(kind) && text(condition, "/status") == Some("True")
    })
}

fn is_restartable(container: &Value) -> bool {
    text(container, "/restartPolicy") == Some("Always")
}

fn summarize(pod: &Value) -> Summary {
    let gated = list(pod, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == Some("PodScheduled")
            && text(condition, "/reason") == Some("SchedulingGated")
    });
    let phase = text(pod, "/status/phase").unwrap_or_default();
    let reason = text(pod, "/status/reason").unwrap_or(phase);
    let reason = if gated { "SchedulingGated" } else { reason }.to_owned();
    let mut summary = Summary { reason, ready: 0, restarts: 0, last_restart: None };
    let is_initializing = summary.initialize(pod);
    if !is_initializing || has_condition(pod, "Initialized") {
        summary.run(pod);
    }
    if at(pod, "/metadata/deletionTimestamp").is_some() {
        if text(pod, "/status/reason") == Some("NodeLost") {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

impl Summary {
    /// Takes in the init containers; returns whether one of them keeps the pod from running.
    fn initialize(&mut self, pod: &Value) -> bool {
        let specs = list(pod, "/spec/initContainers");
        let (mut sidecar_restarts, mut sidecar_last) = (0_i64, None);
        let mut is_initializing = false;
        for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.count(status);
            let name = text(status, "/name");
            let is_sidecar =
                specs.iter().any(|spec| text(spec, "/name") == name && is_restartable(spec));
            if is_sidecar {
                sidecar_restarts = sidecar_restarts.saturating_add(restarts(status));
                sidecar_last = sidecar_last.max(finished(status));
            }
            if at(status, "/state/terminated/exitCode") == Some(&json!(0)) {
                continue;
            }
            if is_sidecar && at(status, "/started") == Some(&json!(true)) {
                self.ready = self.ready.saturating_add(usize::from(is_ready(status)));
                continue;
            }
            self.reason = init_reason(status, index, specs.len());
            is_initializing = true;
            break;
        }
        if !is_initializing || has_condition(pod, "Initialized") {
            (self.restarts, self.last_restart) = (sidecar_restarts, sidecar_last);
        }
        is_initializing
    }

    /// Takes in the containers, the last one first: the first one's reason wins.
    fn run(&mut self, pod: &Value) {
        let mut is_running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.count(status);
            let waiting = text(status, "/state/waiting/reason");
            if let Some(reason) = waiting.or_else(|| text(status, "/state/terminated/reason")) {
                reason.clone_into(&mut self.reason);
            } else if let Some(terminated) = at(status, "/state/terminated") {
                self.reason = end(terminated);
            } else if is_ready(status) && at(status, "/state/running").is_some() {
                is_running = true;
                self.ready = self.ready.saturating_add(1);
            }
        }
        if self.reason == "Completed" && is_running {
            let is_ready = has_condition(pod, "Ready");
            if is_ready { "Running" } else { "NotReady" }.clone_into(&mut self.reason);
        }
    }

    fn count(&mut self, status: &Value) {
        self.restarts = self.restarts.saturating_add(restarts(status));
        self.last_restart = self.last_restart.max(finished(status));
    }
}

fn init_reason(status: &Value, index: usize, total: usize) -> String {
    let waiting = text(status, "/state/waiting/reason").filter(|it| *it != "PodInitializing");
    match (at(status, "/state/terminated"), waiting) {
        (Some(terminated), _) => {
            let reason = text(terminated, "/reason").map(str::to_owned);
            format!("Init:{}", reason.unwrap_or_else(|| end(terminated)))
        }
        (None, Some(reason)) => format!("Init:{reason}"),
        (None, None) => format!("Init:{index}/{total}"),
    }
}

fn end(terminated: &Value) -> String {
    let number = |path| at(terminated, path).and_then(Value::as_i64).unwrap_or(0);
    match number("/signal") {
        0 => format!("ExitCode:{}", number("/exitCode")),
        signal => format!("Signal:{signal}"),
    }
}

fn restarts(status: &Value) -> i64 {
    at(status, "/restartCount").and_then(Value::as_i64).unwrap_or(0)
}

fn finished(status: &Value) -> Option<Timestamp> {
    text(status, "/lastState/terminated/finishedAt")?.parse().ok()
}

fn is_ready(status: &Value) -> bool {
    at(status, "/ready") == Some(&json!(true))
}
