//! When pods were seen to have a node, and to be ready, by a watch.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use datastore::{Change, Client, Filter, Mirror, Options};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use lab::Error;

/// When a pod was seen to be what, since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// It has a node.
    pub(super) scheduled: Duration,
    /// The kubelet calls it ready.
    pub(super) ready: Option<Duration>,
}

/// Watches until so many pods are ready.
///
/// # Errors
///
/// [`Error::Timeout`] with how far they have come.
pub(super) fn until_ready(
    kubeconfig: &Path,
    pods: u64,
    within: Duration,
) -> Result<BTreeMap<String, Seen>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut seen = BTreeMap::new();
    let watching = async {
        let client = Client::connect(&Options::kubeconfig(kubeconfig.to_owned()))?;
        watch(&client, pods, &mut seen).await
    };
    let outcome = runtime
        .map_err(Error::wrong)?
        .block_on(async { tokio::time::timeout(within, watching).await });
    match outcome {
        Ok(result) => result.map(|()| seen),
        Err(_) => Err(Error::Timeout {
            what: format!("{pods} pods to be ready"),
            seconds: within.as_secs(),
            detail: format!("; {} are", seen.values().filter(|seen| seen.ready.is_some()).count()),
        }),
    }
}

async fn watch(client: &Client, pods: u64, seen: &mut BTreeMap<String, Seen>) -> Result<(), Error> {
    let labels = Some("app=many".to_owned());
    let filter = Filter { namespace: Some("bench".to_owned()), labels, ..Filter::default() };
    let mut stream = pin!(client.watch::<Pod>(&filter));
    let mut mirror = Mirror::default();
    let wanted = usize::try_from(pods).unwrap_or(usize::MAX);
    while let Some(event) = stream.next().await {
        for change in mirror.apply(event) {
            if let Change::Upsert(key, pod) = change {
                note(seen, key.name, &pod, now());
            }
        }
        if seen.values().filter(|seen| seen.ready.is_some()).count() >= wanted {
            return Ok(());
        }
    }
    Err(Error::wrong("the watch has ended"))
}

/// Takes note of what a pod is for the first time.
fn note(seen: &mut BTreeMap<String, Seen>, name: String, pod: &Pod, now: Duration) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    if node.is_none() {
        return;
    }
    let entry = seen.entry(name).or_insert(Seen { scheduled: now, ready: None });
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    if is_ready {
        entry.ready.get_or_insert(now);
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_sight_counts() {
        let mut seen = BTreeMap::new();
        let ready = json!([{"type": "Ready", "status": "True"}]);
        for (second, spec, status) in [
            (1, json!({"containers": []}), json!({})),
            (2, json!({"containers": [], "nodeName": "n"}), json!({})),
            (3, json!({"containers": [], "nodeName": "n"}), json!({"conditions": ready})),
            (4, json!({"containers": [], "nodeName": "n"}), json!({"conditions": ready})),
        ] {
            let pod = json!({"metadata": {"name": "a"}, "spec": spec, "status": status});
            let pod = serde_json::from_value(pod).unwrap();
            note(&mut seen, "a".to_owned(), &pod, Duration::from_secs(second));
        }
        let Seen { scheduled, ready } = seen["a"];
        assert_eq!((scheduled.as_secs(), ready.map(|at| at.as_secs())), (2, Some(3)));
    }
}
