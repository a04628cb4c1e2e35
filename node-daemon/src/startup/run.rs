//! One pass of the start after the other, until one succeeds or there is no hope.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use api::kubernetes;
use config::felix::FelixConfig;
use config::{Problem, Sources, StartupConfig};
use datastore::{Client, Object};
use k8s_openapi::api::core::v1::Node;
use kernel::{Netlink, files};
use model::id::NodeName;
use model::net::{Family, Mtu};
use tracing::{info, warn};

use super::address::{self, Identity, Origin};
use super::cluster::{self, Write};
use super::host::Host;
use super::world::{self, Stored};
use super::{StartupError, mtu, name, patience, pools, router_id};

/// Everyone may read what the CNI plugin needs.
const READABLE: u32 = 0o644;

/// What the start works with.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The datastore.
    pub client: &'a Client,
    /// The network namespace of the node.
    pub netlink: &'a Netlink,
    /// The environment of the start.
    pub startup: &'a StartupConfig,
    /// The environment and `felix.cfg`, for Felix's settings.
    pub sources: &'a Sources,
    /// The file that the CNI plugin reads the MTU from.
    pub mtu_file: PathBuf,
}

/// A node that may serve.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedNode {
    /// Its name.
    pub name: NodeName,
    /// The name of its Kubernetes Node.
    pub kubernetes_name: NodeName,
    /// The node, as the others see it from now on.
    pub node: model::node::Node,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// The MTU of pods.
    pub mtu: Mtu,
    /// Felix's settings.
    pub felix: FelixConfig,
    /// Settings that could not be taken as they are.
    pub problems: Vec<Problem>,
}

/// Makes the node ready to serve; waits for the datastore if `WAIT_FOR_DATASTORE` says so.
///
/// May be called again at any time: it changes only what is missing.
///
/// # Errors
///
/// [`StartupError`] with the cause and the remedy.
pub async fn run(inputs: &Inputs<'_>) -> Result<StartedNode, StartupError> {
    let name = name::node_name(&inputs.startup.node)?;
    let mut failures: u32 = 0;
    loop {
        let error = match Box::pin(attempt(inputs, &name)).await {
            Ok(started) => return Ok(started),
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        let is_waited = inputs.startup.datastore.is_waited_for && error.is_worth_waiting();
        let is_repeated = error.is_worth_repeating() && failures < patience::REPEATS;
        if !is_waited && !is_repeated {
            return Err(error);
        }
        let pause = patience::pause(failures, random::<1>()?[0]);
        warn!(attempt = failures, %error, ?pause, "cannot start yet");
        tokio::time::sleep(pause).await;
    }
}

async fn attempt(inputs: &Inputs<'_>, name: &NodeName) -> Result<StartedNode, StartupError> {
    let startup = inputs.startup;
    let kubernetes_name = startup.node.kubernetes_node.as_ref().unwrap_or(name);
    let (stored, host) = tokio::join!(
        Stored::read(inputs.client, kubernetes_name.as_str()),
        Host::read(inputs.netlink)
    );
    let (mut stored, host) = (stored?, host?);
    if stored.node.is_none() && startup.node.is_created {
        let made = create_or_take(inputs.client, cluster::node(kubernetes_name)).await?;
        stored.node = Some(made);
    }
    let object = stored.node.as_ref();
    let object = object.ok_or_else(|| StartupError::NoNode { name: kubernetes_name.clone() })?;

    let node = identify(inputs, object, &stored, &host).await?;
    let (felix, problems) = felix_config(inputs.sources, &stored);
    let all_pools = fill_cluster(inputs, &stored, &host, (&node, &felix)).await?;
    let mtu = mtu::of_pods(&felix, &all_pools, &host);
    // The plugin waits for the second file, so it comes last.
    write_mtu(&inputs.mtu_file, mtu)?;
    write_file(Path::new(&startup.node.nodename_file), name.as_str())?;
    info!(%name, mtu = mtu.0, "this node is ready to serve");
    Ok(StartedNode {
        name: name.clone(),
        kubernetes_name: kubernetes_name.clone(),
        router_id: router_id::of(startup.node.router_id, &node),
        node,
        mtu,
        felix,
        problems,
    })
}

/// Decides who the node is and writes it into its Node.
async fn identify(
    inputs: &Inputs<'_>,
    object: &Node,
    stored: &Stored,
    host: &Host,
) -> Result<model::node::Node, StartupError> {
    let settings = &inputs.startup.node;
    let current = kubernetes::node(object)?;
    let [v4, v6] = world::answers(settings, object).await;
    let identity = address::decide(settings, &current, host, |family| match family {
        Family::V4 => v4.clone(),
        Family::V6 => v6.clone(),
    })?;
    log(&identity);
    if settings.is_conflict_allowed {
        info!("DISABLE_NODE_IP_CHECK is set: other nodes may have this node's address");
    } else {
        identity.check_conflict(&current.name, &stored.nodes)?;
    }
    let annotations = object.metadata.annotations.clone().unwrap_or_default();
    let Some(patch) = identity.patch(&annotations) else { return Ok(current) };
    let written: Node = inputs.client.patch_status(None, current.name.as_str(), &patch).await?;
    Ok(kubernetes::node(&written)?)
}

fn log(identity: &Identity) {
    for look in &identity.looks {
        let family = look.family;
        match &look.origin {
            Origin::Detected(detection) => {
                for candidate in &detection.candidates {
                    info!(%family, %candidate, "looking for this node's address");
                }
            }
            Origin::Given => info!(%family, "this node's address is given"),
            Origin::Kept => info!(%family, "this node keeps its address"),
            Origin::GivenButAbsent => {
                warn!(%family, "this node's given address is on none of its interfaces");
            }
        }
    }
    let addrs: Vec<String> = identity.addrs().map(|addr| addr.to_string()).collect();
    info!(addrs = addrs.join(","), "this node has addresses");
}

/// Puts together Felix's settings as this node sees them.
fn felix_config(sources: &Sources, stored: &Stored) -> (FelixConfig, Vec<Problem>) {
    let default = stored.felix_default.clone().unwrap_or_default();
    let sources = sources.clone().with_cluster(default).with_node(stored.felix_node.clone());
    FelixConfig::resolve(&sources)
}

/// Creates what every cluster has and this one lacks; returns all pools.
async fn fill_cluster(
    inputs: &Inputs<'_>,
    stored: &Stored,
    host: &Host,
    (node, felix): (&model::node::Node, &FelixConfig),
) -> Result<Vec<model::pool::IpPool>, StartupError> {
    let client = inputs.client;
    let plan = pools::plan(&pools::Situation {
        startup: inputs.startup,
        felix,
        existing: &stored.pools,
        kubeadm: stored.kubeadm.as_deref().unwrap_or_default(),
        host,
        has_ipv6: node.ipv6.is_some(),
        random: random()?,
    })?;
    for warning in &plan.warnings {
        warn!("{warning}");
    }
    let mut all_pools = stored.pools.clone();
    for pool in plan.creates {
        all_pools.push(create_or_take(client, pool).await?);
    }
    let mut kinds = inputs.startup.node.cluster_type.clone();
    kinds.extend(stored.kubeadm.is_some().then(|| "kubeadm".to_owned()));
    match cluster::information(stored.information.as_ref(), &kinds, random()?) {
        None => {}
        Some(Write::Create(information)) => drop(create_or_take(client, information).await?),
        Some(Write::Update(information)) => drop(client.update(&information).await?),
    }
    for tier in cluster::tiers() {
        create_or_take(client, tier).await?;
    }
    if stored.felix_default.is_none() {
        create_or_take(client, cluster::felix_configuration()).await?;
    }
    let readable = |pool: &api::IpPool| {
        let model = model::pool::IpPool::try_from(pool);
        model.inspect_err(|problem| warn!(%problem, "leaving out a pool")).ok()
    };
    Ok(all_pools.iter().filter_map(readable).collect())
}

/// Creates `object` unless there is one of its name, and returns the one that is there then.
///
/// Several nodes start at once: whoever is second takes what the first one made.
async fn create_or_take<T: Object>(client: &Client, object: T) -> Result<T, datastore::Error> {
    let name = object.metadata().name.clone().unwrap_or_default();
    if let Some(found) = client.get::<T>(&name).await? {
        return Ok(found);
    }
    match client.create(&object).await {
        Ok(created) => {
            info!(kind = T::KIND, name, "created what every cluster has");
            Ok(created)
        }
        Err(datastore::Error::AlreadyExists { .. }) => {
            Ok(client.get::<T>(&name).await?.unwrap_or(object))
        }
        Err(error) => Err(error),
    }
}

/// Writes the MTU of pods for the CNI plugin; returns whether that is news.
pub(crate) fn write_mtu(path: &Path, mtu: Mtu) -> Result<bool, files::Error> {
    write_file(path, &mtu.0.to_string())
}

/// Writes a file unless it says so already; returns whether it did not.
fn write_file(path: &Path, text: &str) -> Result<bool, files::Error> {
    /// Longer than any name or number that we write.
    const LIMIT: u64 = 1024;
    if files::read(path, LIMIT).is_ok_and(|found| found == text) {
        return Ok(false);
    }
    files::write(path, text.as_bytes(), READABLE)?;
    Ok(true)
}

fn random<const LEN: usize>() -> Result<[u8; LEN], StartupError> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
