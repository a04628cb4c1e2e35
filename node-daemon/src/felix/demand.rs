//! Watches that come and go with what is configured: Secrets of passwords, Services, and other
//! nodes' claims on blocks.

use std::collections::BTreeMap;
use std::path::Path;

use datastore::{Client, Filter, Mirror, WatchEvent};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Secret, Service};
use model::id::NodeName;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::border;
use super::event::{Demand, Kind};
use super::watch::{Gone, Listeners, follow, report};

/// Where Kubernetes says which namespace a pod is in.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Watches what `demand` asks for on node `node`, until nobody asks any more.
pub(crate) async fn run(
    client: Client,
    node: NodeName,
    listeners: Listeners,
    mut demand: watch::Receiver<Demand>,
) {
    let namespace = namespace();
    let mut tasks = JoinSet::new();
    let mut secrets: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let (mut services, mut blocks) = (None, None);
    while demand.changed().await.is_ok() {
        let wanted = demand.borrow_and_update().clone();
        secrets.retain(|name, task| {
            let is_wanted = wanted.secrets.contains(name);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for name in wanted.secrets {
            let watch = || follow_secret(&client, &namespace, name.clone(), listeners.clone());
            secrets.entry(name.clone()).or_insert_with(|| tasks.spawn(watch()));
        }
        keep(&mut services, wanted.has_services, || {
            let stream = client.watch::<Service>(&Filter::default());
            tasks.spawn(follow(Kind::Services, stream, listeners.clone(), border::service))
        });
        keep(&mut blocks, wanted.has_all_blocks, || {
            let stream = client.watch::<api::BlockAffinity>(&affinities(&node, Whose::Others));
            let kind = Kind::OtherAffinities;
            tasks.spawn(follow(kind, stream, listeners.clone(), border::affinity))
        });
    }
}

/// Starts a watch that is wanted, and ends one that is not.
fn keep(task: &mut Option<AbortHandle>, is_wanted: bool, start: impl FnOnce() -> AbortHandle) {
    match (is_wanted, task.take()) {
        (true, running) => *task = running.or_else(|| Some(start())),
        (false, running) => running.into_iter().for_each(|running| running.abort()),
    }
}

/// Whose claims on blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    /// This node's.
    Own,
    /// All others.
    Others,
}

/// Returns what selects claims on blocks, so that nothing is heard of twice.
pub(crate) fn affinities(node: &NodeName, whose: Whose) -> Filter {
    let operator = match whose {
        Whose::Own => "=",
        Whose::Others => "!=",
    };
    let hash = api::names::hostname_hash(node.as_str());
    let labels = format!("{}{operator}{hash}", api::names::HOSTNAME_HASH_LABEL);
    Filter { labels: Some(labels), ..Filter::default() }
}

/// Returns the namespace that passwords lie in: that of calico-node.
fn namespace() -> String {
    let said = std::env::var("NAMESPACE").ok();
    let mounted = || std::fs::read_to_string(Path::new(NAMESPACE_FILE)).ok();
    let namespace = said.or_else(mounted).map(|text| text.trim().to_owned());
    namespace.filter(|text| !text.is_empty()).unwrap_or_else(|| "kube-system".to_owned())
}

/// Watches one Secret, which a Role for just this one allows.
fn follow_secret(
    client: &Client,
    namespace: &str,
    name: String,
    listeners: Listeners,
) -> impl Future<Output = ()> + use<> {
    let filter = Filter {
        namespace: Some(namespace.to_owned()),
        fields: Some(format!("metadata.name={name}")),
        ..Filter::default()
    };
    let stream = client.watch::<Secret>(&filter);
    async move {
        let mut stream = std::pin::pin!(stream);
        let mut mirror = Mirror::default();
        while let Some(event) = stream.next().await {
            if on_event(&name, event, &mut mirror, &listeners).await.is_err() {
                return;
            }
        }
    }
}

/// A Secret that must not be read is as good as absent, or everything would wait for it.
async fn on_event(
    name: &str,
    event: WatchEvent<Secret>,
    mirror: &mut Mirror<Secret>,
    listeners: &Listeners,
) -> Result<(), Gone> {
    report(Kind::Secrets, &event);
    let is_refused = matches!(&event, WatchEvent::Failed(error) if !error.is_retryable());
    if is_refused && !mirror.is_synced() {
        return listeners.tell(border::secret(name, None)).await;
    }
    for change in mirror.apply(event) {
        match change {
            datastore::Change::Upsert(_, secret) => {
                listeners.tell(border::secret(name, Some(&secret))).await?;
            }
            datastore::Change::Unreadable(..) | datastore::Change::Delete(_) => {
                listeners.tell(border::secret(name, None)).await?;
            }
            datastore::Change::Synced if mirror.is_empty() => {
                listeners.tell(border::secret(name, None)).await?;
            }
            datastore::Change::Synced => {}
        }
    }
    Ok(())
}
