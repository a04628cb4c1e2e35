//! A cluster of one node for the plugins to work in, and pods that want attaching.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{ClusterInformation, IpPool};
use datastore::{Client, Filter, Options};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod as PodObject};
use kernel::Netns;
use lab::Error;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::isolation;

/// The node's name.
pub(crate) const NODE: &str = "bench-node";
/// The node's address.
pub(crate) const NODE_ADDR: &str = "192.0.2.10";
/// The only pool.
const POOL: &str = "10.244.0.0/16";
/// What says to the plugins that calico-node is ready, and which node this is.
const NODE_NAME_FILE: &str = "/var/lib/calico/nodename";

/// The cluster; all of it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct World {
    /// The API server, and etcd if it needs one.
    control_plane: ControlPlane,
    /// For traces and the like.
    directory: TempDir,
}

/// A pod that wants attaching, with its namespace; that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its name in the namespace `default`.
    pub(crate) name: String,
    /// Its unique id.
    pub(crate) uid: String,
    /// The container that stands for it.
    pub(crate) container_id: String,
    /// The file of its network namespace.
    pub(crate) netns: PathBuf,
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It goes with our mounts at the latest.
        let _ = Netns::remove(&self.name);
    }
}

impl World {
    /// Starts a control plane and makes a cluster that is ready for pods.
    ///
    /// # Errors
    ///
    /// [`Error`] of what does not start.
    pub(crate) async fn start(kind: Kind) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("calico-benchmarks-").tempdir();
        let directory = directory.map_err(Error::file(&std::env::temp_dir()))?;
        let settings = Settings::loopback(kind, &directory.path().join("control-plane"));
        let control_plane = ControlPlane::start(settings)?;
        control_plane.install()?;
        let world = Self { control_plane, directory };
        world.make_ready().await?;
        Ok(world)
    }

    async fn make_ready(&self) -> Result<(), Error> {
        std::fs::write(NODE_NAME_FILE, NODE).map_err(Error::file(Path::new(NODE_NAME_FILE)))?;
        let client = self.client()?;
        let mut tries = 100_u32;
        // The API server makes its own namespaces a moment after it is ready.
        while client.get::<Namespace>("default").await?.is_none() {
            tries = tries
                .checked_sub(1)
                .ok_or_else(|| Error::wrong("the API server does not make namespace `default`"))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let node: Node = object(json!({"metadata": {"name": NODE}}))?;
        client.create(&node).await?;
        let cluster: ClusterInformation = object(json!({
            "apiVersion": api::API_VERSION, "kind": "ClusterInformation",
            "metadata": {"name": "default"}, "spec": {"datastoreReady": true},
        }))?;
        client.create(&cluster).await?;
        let pool: IpPool = object(json!({
            "apiVersion": api::API_VERSION, "kind": "IPPool",
            "metadata": {"name": "default-ipv4-ippool"},
            "spec": {"cidr": POOL, "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never",
                     "natOutgoing": true, "nodeSelector": "all()", "allowedUses": ["Workload"]},
        }))?;
        client.create(&pool).await?;
        wait_for_caches(&client).await
    }

    /// Opens a connection as the administrator.
    ///
    /// # Errors
    ///
    /// [`Error::Datastore`].
    pub(crate) fn client(&self) -> Result<Client, Error> {
        Ok(Client::connect(&Options::kubeconfig(self.kubeconfig(Identity::Admin)))?)
    }

    /// Returns the path of an identity's kubeconfig.
    pub(crate) fn kubeconfig(&self, identity: Identity) -> PathBuf {
        self.control_plane.kubeconfig(identity)
    }

    /// Returns a directory for files of the benchmark.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Puts the plugin of `bin` where a runtime finds it by both of its names, as `install-cni`
    /// does, and returns the directory.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn install(&self, bin: &Path) -> Result<PathBuf, Error> {
        let directory = self.directory().join("plugins");
        let (program, other) = (directory.join("calico"), directory.join("calico-ipam"));
        std::fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
        std::fs::copy(bin.join("calico"), &program).map_err(Error::file(&program))?;
        std::fs::hard_link(&program, &other).map_err(Error::file(&other))?;
        Ok(directory)
    }

    /// Makes `count` pods of this node and a network namespace for each.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first that cannot be made.
    pub(crate) async fn pods(&self, prefix: &str, count: usize) -> Result<Vec<Pod>, Error> {
        let client = self.client()?;
        let mut pods = Vec::new();
        for index in 0..count {
            let name = format!("{}-{prefix}-{index}", isolation::prefix());
            let made: PodObject = client.create(&pod_object(&name)?).await?;
            Netns::create(&name)?;
            let netns = Path::new(kernel::netns::NAMED).join(&name);
            let container_id = container_id(prefix, index);
            let uid = made.metadata.uid.unwrap_or_default();
            pods.push(Pod { name, uid, container_id, netns });
        }
        Ok(pods)
    }
}

/// Waits until the API server's own memory has what was made: the plugins read from it.
async fn wait_for_caches(client: &Client) -> Result<(), Error> {
    for _ in 0..100 {
        let pools = client.list_recent::<IpPool>(&Filter::default()).await?;
        let cluster = client.get_recent::<ClusterInformation>("default").await?;
        if !pools.is_empty() && cluster.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::wrong("the API server does not answer with the pool that was made"))
}

fn pod_object(name: &str) -> Result<PodObject, Error> {
    object(json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}},
        "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "none"}]},
    }))
}

/// Returns a container id: 64 hexadecimal digits, of which the text's bytes are the first.
fn container_id(prefix: &str, index: usize) -> String {
    let bytes = prefix.bytes().rev().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(byte));
    format!("{bytes:016x}{index:048x}")
}

/// Makes a typed object of JSON.
///
/// # Errors
///
/// [`Error::Wrong`] if it is none.
pub(crate) fn object<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(Error::wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_of_different_loads_differ() {
        let names = ["alone", "ten", "fifty", "alone-s", "ten-s", "fifty-s"];
        let all = names.iter().flat_map(|name| [(*name).to_owned(), format!("one-more-{name}")]);
        let ids: Vec<String> = all.map(|name| container_id(&name, 1)).collect();
        assert!(ids.iter().all(|id| id.len() == 64));
        let different: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert!(container_id("ten", 1) != container_id("ten", 2));
    }

    #[test]
    fn pods_belong_to_the_node() {
        let pod = pod_object("p").unwrap();
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some(NODE));
    }
}
