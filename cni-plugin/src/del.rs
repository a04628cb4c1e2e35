//! DEL: undo an ADD, however much of it there is.
//!
//! It succeeds for containers that never were, keeps going after errors and
//! reports the first: what could be freed is freed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::{Error, ErrorCode};
use cni_service::facts::Subject;
use k8s_openapi::api::core::v1::Pod;
use kernel::conntrack::Conntrack;
use tokio::runtime::Handle;

use crate::call::Call;
use crate::delegate;
use crate::store::{Store, holding, is_locked, require_ready};
use crate::wire::{self, Ends};
use crate::wishes::delegate_config_to_release;

/// How often to read the pod again if somebody else changes it meanwhile.
const ATTEMPTS: usize = 5;

/// Detaches the container.
///
/// # Errors
///
/// The first [`Error`]; everything else was tried.
pub(crate) async fn run(call: &Call<'_>) -> Result<(), Error> {
    let ends = open(call);
    let has_ends = matches!(ends, Ok(Some(_)));
    let by_name = if has_ends { LinkByName::Leave } else { LinkByName::Delete };
    let is_in_vrf = match &ends {
        Ok(Some(ends)) => ends.vrf_above(&call.host_name).await.is_ok_and(|vrf| vrf.is_some()),
        Ok(None) | Err(_) => false,
    };
    let store = Store::served(call.config, call.trace).await;
    let (pod, link) =
        tokio::join!(release_pod(call, by_name, store.as_ref()), delete_link(call, ends));
    call.trace.end_phase("datastore_and_link");
    let link = match link {
        Ok(true) => {
            // In a VRF others may have the same addresses; calico-node knows the zones.
            if !is_in_vrf {
                forget_connections(call);
            }
            wire::delete_limit(&call.host_name).await
        }
        link => link.map(drop),
    };
    call.trace.end_phase("connections");
    let (pod, is_locked) = match pod {
        Ok(Pods::Released) => (Ok(()), false),
        Ok(Pods::Locked(error)) => (Err(error), true),
        Err(error) => (Err(error), false),
    };
    // A locked datastore must not be written to, nor may the addresses be given back
    // before the link that carries them is gone.
    let addresses = if is_locked || link.is_err() {
        Ok(())
    } else {
        release_addresses(call, store.as_ref().ok()).await
    };
    call.trace.end_phase("addresses");
    link.and(pod).and(addresses)
}

/// What to do with the host's side, which only its name tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LinkByName {
    /// It goes with the container's side.
    Leave,
    /// There is no namespace to find the container's side in. The kernel takes links
    /// down some time after their namespace, and until then this one has its routes.
    Delete,
}

/// What came of writing the pod's annotations.
enum Pods {
    /// The container does not hold the pod's addresses (any more).
    Released,
    /// The datastore is locked; nothing was written.
    Locked(Error),
}

/// Writes that the container no longer holds the pod's addresses, if it does.
async fn release_pod(
    call: &Call<'_>,
    by_name: LinkByName,
    store: Result<&Store<'_>, &Error>,
) -> Result<Pods, Error> {
    let store = store.map_err(Clone::clone)?;
    let host_side = match by_name {
        LinkByName::Leave => None,
        LinkByName::Delete => wire::host_side(&call.host_name).await?,
    };
    let pod = call.pod_name();
    let facts = store.read(Subject { pod, ..Subject::default() }).await?;
    let mut pod = facts.pod.clone().filter(|pod| is_holder(call, pod));
    // Without a namespace only the name tells which link to delete, and a newer
    // container of the same pod may have it by now.
    let is_ours = facts.pod.is_none() || pod.is_some();
    if let Some(link) = host_side.filter(|_| is_ours) {
        let now = wire::host_side(&call.host_name).await?;
        if now.is_some_and(|now| now.index == link.index) {
            wire::delete_on_host(&call.host_name).await?;
            wire::delete_limit(&call.host_name).await?;
        }
    }
    if let (true, Err(error)) = (is_locked(&facts), require_ready(&facts)) {
        return Ok(Pods::Locked(error));
    }
    for _ in 0..ATTEMPTS {
        let Some(current) = pod.filter(|pod| is_holder(call, pod)) else {
            return Ok(Pods::Released);
        };
        match store.clear(&current).await {
            Err(error) if error.code == ErrorCode::TryAgainLater => {
                pod = store.read_again(&current).await?;
            }
            Err(error) => {
                // The pod may have gone between reading and writing.
                let is_gone = store.read_again(&current).await?.is_none();
                return if is_gone { Ok(Pods::Released) } else { Err(error) };
            }
            Ok(()) => return Ok(Pods::Released),
        }
    }
    let message = "the pod changes all the time: the runtime should try again";
    Err(Error::new(ErrorCode::TryAgainLater, message))
}

/// Is this container the one that holds the pod's addresses, so far as is known?
fn is_holder(call: &Call<'_>, pod: &Pod) -> bool {
    holding(pod).is_some_and(|holding| {
        holding.container_id == call.attachment.container_id.as_str() && !holding.pod_ips.is_empty()
    })
}

/// Opens the container's namespace, if there still is one.
fn open(call: &Call<'_>) -> Result<Option<Ends>, Error> {
    match call.netns.map(Ends::open).transpose() {
        Err(error) if error.code == ErrorCode::InvalidNetns => {
            tracing::debug!(%error, "no namespace to clean up");
            Ok(None)
        }
        opened => opened,
    }
}

/// Has the kernel forget the container's connections, before anybody else gets its addresses:
/// they would lead to packets that policy for the next owner has never seen.
///
/// Only when the link was there until now, so that the addresses are nobody else's yet.
/// What fails is done by calico-node, when it hears that the pod is gone.
fn forget_connections(call: &Call<'_>) {
    let ips = call.config.prev_result.iter().flat_map(|result| &result.ips);
    // Those of pods in VRFs are in other zones of connection tracking.
    let places: BTreeSet<(u16, IpAddr)> = ips.map(|ip| (0, ip.address.addr())).collect();
    if places.is_empty() {
        return;
    }
    let forgotten = Conntrack::open().and_then(|mut conntrack| conntrack.forget(&places));
    if let Err(error) = forgotten {
        tracing::warn!(%error, "connections of the container's addresses may still be known");
    }
}

/// Deletes the container's interface, if there is still a namespace to have one; returns
/// whether it was there.
async fn delete_link(call: &Call<'_>, ends: Result<Option<Ends>, Error>) -> Result<bool, Error> {
    let Some(ends) = ends? else { return Ok(false) };
    let (runtime, if_name) = (Handle::current(), call.attachment.if_name.clone());
    // The kernel takes a link down within the system call, which lasts many milliseconds;
    // on a thread of its own it holds up nothing else.
    let deleting =
        tokio::task::spawn_blocking(move || runtime.block_on(ends.delete_in_container(&if_name)));
    deleting.await.unwrap_or_else(|error| {
        let message = "the link could not be deleted: the runtime should try again";
        Err(Error::new(ErrorCode::Kernel, message).with_details(error.to_string()))
    })
}

async fn release_addresses(call: &Call<'_>, store: Option<&Store<'_>>) -> Result<(), Error> {
    let Some(name) = call.ipam_type() else { return Ok(()) };
    let config = delegate_config_to_release(call.config.raw().expose());
    let told = delegate::tell(name, &call.delegate("DEL"), &config, store).await;
    if let Some(store) = store {
        store.count();
    }
    told
}
