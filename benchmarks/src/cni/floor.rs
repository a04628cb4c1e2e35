//! The floor: the least that any plugin must do, by one process for one pod.
//!
//! The same veth pair, parameters, addresses and routes as `calico` makes, and
//! the same number of writes to the API server over one connection, one after
//! the other: a handle, a block, the pod's status. No reads, no decisions, no
//! IPAM plugin of its own. It is a process, because a plugin is one too.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use api::{IpamBlock, IpamHandle};
use datastore::{Client, Options};
use k8s_openapi::api::core::v1::Pod;
use kernel::netlink::{NextHop, RouteEntry, Target, VethSpec};
use kernel::{Netlink, Netns, sysctl};
use lab::Error;
use model::desired::{RouteProtocol, Setting};
use model::net::{Cidr, Family, IfName, InterfaceAddr, MacAddr, Mtu};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The gateway of all pods.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Which half of a pod's life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Half {
    /// Attach it.
    Add,
    /// Detach it.
    Del,
}

/// All that the process is told, so that it need not read anything.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Task {
    /// What to do.
    pub(crate) half: Half,
    /// The pod's namespace.
    pub(crate) netns: PathBuf,
    /// The host's side.
    pub(crate) host_name: String,
    /// The pod's address.
    pub(crate) addr: Ipv4Addr,
    /// Who to be.
    pub(crate) kubeconfig: PathBuf,
    /// The pod in the namespace `default`.
    pub(crate) pod: String,
    /// The handle to create or to delete.
    pub(crate) handle: IpamHandle,
    /// The block to write; nobody else writes it.
    pub(crate) block: IpamBlock,
}

/// Carries out the task on standard input.
///
/// # Errors
///
/// [`Error`] of the first step that fails.
pub(crate) fn run() -> Result<(), Error> {
    let mut text = Vec::new();
    let stdin = Path::new("/dev/stdin");
    std::io::stdin().read_to_end(&mut text).map_err(Error::file(stdin))?;
    let task: Task = serde_json::from_slice(&text).map_err(Error::wrong)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::wrong)?.block_on(carry_out(&task))
}

async fn carry_out(task: &Task) -> Result<(), Error> {
    let client = Client::connect(&Options::kubeconfig(&task.kubeconfig))?;
    let netns = Netns::open(&task.netns)?;
    match task.half {
        Half::Add => {
            attach(task, &netns).await?;
            client.create(&task.handle).await?;
            client.update(&task.block).await?;
            patch(&client, task, &task.addr.to_string()).await
        }
        Half::Del => {
            Netlink::open_in(&netns)?.delete_link(&name("eth0")?).await?;
            patch(&client, task, "").await?;
            client.update(&task.block).await?;
            Ok(client.delete(&task.handle).await?)
        }
    }
}

async fn patch(client: &Client, task: &Task, addr: &str) -> Result<(), Error> {
    let annotations = json!({
        (api::annotations::POD_IP): addr,
        (api::annotations::POD_IPS): addr,
        (api::annotations::CONTAINER_ID): task.pod,
    });
    let patch = json!({"metadata": {"annotations": annotations}});
    client.patch_status::<Pod>(Some("default"), &task.pod, &patch).await?;
    Ok(())
}

async fn attach(task: &Task, netns: &Netns) -> Result<(), Error> {
    let (host, container) = (Netlink::open()?, Netlink::open_in(netns)?);
    let (host_name, if_name) = (name(&task.host_name)?, name("eth0")?);
    let spec = VethSpec {
        host_name: &host_name,
        host_mac: MacAddr::WORKLOAD_HOST_SIDE,
        peer_name: &if_name,
        peer_mac: None,
        peer_netns: netns,
        mtu: Some(Mtu(1450)),
        master: None,
    };
    host.add_veth(&spec).await?;
    let host_link = host.require_link(&host_name).await?.index;
    let link = container.require_link(&if_name).await?.index;
    let families = [Family::V4].into();
    sysctl::set_all(&Setting::of_host_side(&host_name, &families)).map_err(Error::wrong)?;
    netns.run(|| sysctl::write("net/ipv4/ip_forward", "0"))?.map_err(Error::wrong)?;
    container.set_link_up(link).await?;
    let alone = InterfaceAddr::new(task.addr.into(), 32).map_err(Error::wrong)?;
    container.add_addr(link, alone).await?;
    let everything = Cidr::containing(Ipv4Addr::UNSPECIFIED.into(), 0).map_err(Error::wrong)?;
    let gateway = IpAddr::V4(GATEWAY);
    let via = Target::Via(vec![NextHop::on(link, gateway)]);
    for (dst, target) in [(Cidr::host(gateway), Target::Link(link)), (everything, via)] {
        container.upsert_route(&RouteEntry::new(dst, target, RouteProtocol::BOOT)).await?;
    }
    let own = Cidr::host(task.addr.into());
    let route = RouteEntry::new(own, Target::Link(host_link), RouteProtocol::BOOT);
    Ok(host.add_route(&route).await?)
}

fn name(text: &str) -> Result<IfName, Error> {
    text.parse().map_err(Error::wrong)
}
