//! The upgrade from host-local: addresses that it gave to pods become ours.
//!
//! host-local keeps a file per address, in a directory per network; its name is the address, its
//! first line the container. Each is assigned to the same container, and its file removed, so that
//! an upgrade that was interrupted goes on. Pods keep running, and their DEL finds what it frees.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use datastore::{Client, Filter};
use ipam::Selectors;
use k8s_openapi::api::core::v1::Pod;
use ledger::{Driver, HostLock, Wanted};
use model::id::{NamespacedName, NodeName};
use tracing::{info, warn};

use crate::Error;
use crate::add::{AddRequest, add};
use crate::holder::Holder;

/// Where host-local keeps the addresses of Calico's network.
pub const DIRECTORY: &str = "/var/lib/cni/networks/k8s-pod-network";
/// The network of Calico's own configuration list.
const NETWORK: &str = "k8s-pod-network";

/// Takes the addresses over that host-local gave to containers of `node`; there being none is fine.
///
/// # Errors
///
/// [`Error::HostLocal`] with the first address that cannot be taken over, and how many there are;
/// the others were.
pub async fn adopt(
    client: &Client,
    lock: &HostLock,
    node: &NodeName,
    directory: &Path,
) -> Result<(), Error> {
    let files = files(directory)?;
    if files.is_empty() {
        return Ok(());
    }
    let filter = Filter { fields: Some(format!("spec.nodeName={node}")), ..Filter::default() };
    let pods: Vec<Pod> = client.list(&filter).await?;
    let mut failures = Vec::new();
    for (addr, path) in files {
        let mut driver = Driver::new(client.clone(), lock.clone());
        match take(&mut driver, (node, &pods), addr, &path).await {
            Ok(container) => info!(%addr, container, "took over from host-local"),
            Err(error) => {
                warn!(%addr, %error, "cannot take over from host-local");
                failures.push(format!("{addr}: {error}"));
            }
        }
    }
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(Error::HostLocal {
            directory: directory.to_owned(),
            count: failures.len(),
            first: first.clone(),
        }),
    }
}

async fn take(
    driver: &mut Driver,
    (node, pods): (&NodeName, &[Pod]),
    addr: IpAddr,
    path: &Path,
) -> Result<String, Error> {
    let failed =
        |error: io::Error| Error::Marker { path: path.to_owned(), problem: error.to_string() };
    let text = fs::read_to_string(path).map_err(failed)?;
    let container = text.lines().next().unwrap_or_default().trim().to_owned();
    let pod = pods.iter().find(|pod| has(pod, addr)).map(|pod| NamespacedName {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    });
    let holder = Holder { network: NETWORK.to_owned(), container_id: container.clone(), pod };
    let request = AddRequest {
        node: node.clone(),
        holder,
        vrf: None,
        wanted: vec![Wanted::This(addr)],
        selectors: Selectors::OfRequestedIgnored,
    };
    Box::pin(add(driver, &request)).await?;
    fs::remove_file(path).map_err(failed)?;
    Ok(container)
}

/// Does the pod have this address?
fn has(pod: &Pod, addr: IpAddr) -> bool {
    let addrs = api::kubernetes::pod_addrs(pod).unwrap_or_default();
    addrs.contains(&addr)
}

/// Returns the files that are named like addresses; others are host-local's own.
fn files(directory: &Path) -> Result<Vec<(IpAddr, PathBuf)>, Error> {
    let failed =
        |error: io::Error| Error::Marker { path: directory.to_owned(), problem: error.to_string() };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        files.extend(name.parse().ok().map(|addr: IpAddr| (addr, path.clone())));
    }
    files.sort();
    Ok(files)
}
