//! The IPAM plugin as the caller sees it: a command in, JSON out.

use std::fs;
use std::path::Path;

use cni::config::Ipam;
use cni::environment::Attachment;
use cni::result::Ip;
use cni::{Environment, ErrorCode, NetworkConfig, Request, Success, nodename};
use cni_service::Service;
use datastore::{Client, Options};
use ipam::{PoolReference, Selectors};
use ledger::{Ahead, Driver, HostLock, Wanted, surroundings};
use model::id::NodeName;
use model::net::{Family, InterfaceAddr};
use model::vrf::{InvalidVrfName, VrfName};
use serde_json::Value;
use tracing::debug;

use crate::add::{AddRequest, add, add_by, add_upon};
use crate::gc::GcRequest;
use crate::holder::Holder;
use crate::status::Memory;
use crate::{Error, check, delete, gc, status, upgrade};

/// Carries out the command in `environment` and returns what to print, if anything.
///
/// # Errors
///
/// The error to print, with its code.
pub async fn run(
    environment: &Environment,
    config: &NetworkConfig,
) -> Result<Option<Value>, cni::Error> {
    if environment.request == Request::Version {
        return Ok(Some(cni::version::version_info(config.version)));
    }
    let clients = std::cell::OnceCell::new();
    let connect = || {
        let client = connect(config)?;
        Ok(clients.get_or_init(|| client).clone())
    };
    let service = match environment.request {
        Request::Add(..) | Request::Del(..) => service(config).await,
        Request::Check(..) | Request::Status | Request::Gc | Request::Version => None,
    };
    let help = Help { service: service.as_ref(), ahead: None };
    let carried_out = carry_out(&environment.request, config, connect, help);
    let success = Box::pin(carried_out).await?;
    if let Some(client) = clients.get() {
        debug!(requests = client.requests(), connections = client.connections(), "datastore");
    }
    Ok(success.map(|success| success.to_json(config.version)))
}

/// What makes a command cheaper; it can do without.
#[derive(Debug, Default)]
pub struct Help<'a> {
    /// calico-node, which may do it.
    pub service: Option<&'a Service>,
    /// What an ADD depends on, if it was read.
    pub ahead: Option<Ahead>,
}

/// Carries out a command over the connection that `connect` returns, if it cannot do without;
/// returns the result of an ADD.
///
/// # Errors
///
/// The error to print, with its code.
pub async fn carry_out(
    request: &Request,
    config: &NetworkConfig,
    connect: impl FnOnce() -> Result<Client, Error>,
    Help { service, ahead }: Help<'_>,
) -> Result<Option<Success>, cni::Error> {
    let connect = || connect().map(|client| driver(client, config));
    match request {
        Request::Version => Ok(None),
        Request::Add(attachment, _) => {
            let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
            let request = add_request(config, attachment, node)?;
            let added = Box::pin(assign(&request, connect, (service, ahead))).await;
            let addrs = added.map_err(|error| in_vrf(error.into(), request.vrf.as_ref()))?;
            Ok(Some(result(&addrs)))
        }
        Request::Del(attachment, _) => {
            let holder = holder(config, attachment);
            let deleted = match service {
                Some(service) => delete::delete_by(service, &holder).await,
                None => None,
            };
            if deleted.is_none() {
                delete::delete(&mut connect()?, &holder).await?;
            }
            Memory::of(config).forget();
            Ok(None)
        }
        Request::Check(attachment, _) => {
            let previous = config.prev_result.as_ref().ok_or_else(|| {
                let text = "CHECK needs `prevResult` in the network configuration: add it";
                cni::Error::new(ErrorCode::InvalidConfig, text)
            })?;
            let addrs: Vec<InterfaceAddr> = previous.ips.iter().map(|ip| ip.address).collect();
            let mut driver = connect()?;
            check::check(&mut driver, &holder(config, attachment), &addrs).await?;
            Ok(None)
        }
        Request::Status => {
            let checked = async { Box::pin(check_status(config, &mut connect()?)).await };
            checked.await.map_err(|error: cni::Error| error.unavailable(None))?;
            Ok(None)
        }
        Request::Gc => {
            let valid = config.valid_attachments.as_deref().ok_or_else(|| {
                let text = "GC needs `cni.dev/valid-attachments` in the network configuration: \
                            add it, or set disableGC in the configuration list";
                cni::Error::new(ErrorCode::InvalidConfig, text)
            })?;
            let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
            let mut driver = connect()?;
            upgrade::upgrade_once(driver.client(), &node, Path::new(upgrade::MARKER)).await?;
            let request = GcRequest { network: &config.name, node: &node, valid };
            gc::collect(&mut driver, &request).await?;
            Memory::of(config).forget();
            Ok(None)
        }
    }
}

/// Has calico-node assign if it does, or else does so upon what was read ahead, if that was for
/// such a request, or upon what it reads.
async fn assign(
    request: &AddRequest,
    connect: impl FnOnce() -> Result<Driver, Error>,
    (service, ahead): (Option<&Service>, Option<Ahead>),
) -> Result<Vec<InterfaceAddr>, Error> {
    // calico-node does not look after affinities of old releases.
    if let Some(service) = service.filter(|_| Path::new(upgrade::MARKER).exists())
        && let Some(added) = add_by(service, request).await?
    {
        return Ok(added);
    }
    if let Some(ahead) = ahead.filter(|ahead| ahead.is_for(&request.order())) {
        return add_upon(ahead, request).await;
    }
    let mut driver = connect()?;
    upgrade::upgrade_once(driver.client(), &request.node, Path::new(upgrade::MARKER)).await?;
    add(&mut driver, request).await
}

async fn check_status(config: &NetworkConfig, driver: &mut Driver) -> Result<(), cni::Error> {
    surroundings::check_ready(driver.client()).await.map_err(Error::from)?;
    let Some(ipam) = &config.ipam else { return Ok(()) };
    let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
    let families: Vec<Family> = families(ipam).map(|(family, _)| family).collect();
    Ok(status::check(driver, &node, &families, &Memory::of(config)).await?)
}

/// Opens the conversation with the calico-node of this host, if it serves plugins with this
/// configuration.
pub async fn service(config: &NetworkConfig) -> Option<Service> {
    let kubeconfig = config.kubernetes.kubeconfig.as_deref()?;
    let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file)).ok()?;
    Service::open(Path::new(cni_service::SOCKET), kubeconfig, &node).await
}

/// Opens a connection as the configuration says; the first request makes it.
///
/// # Errors
///
/// [`Error`] with what is wrong with it.
pub fn connect(config: &NetworkConfig) -> Result<Client, Error> {
    let options = Options { source: (&config.kubernetes).into(), ..Options::default() };
    Ok(Client::connect(&options)?)
}

/// Returns a driver under the host's lock.
pub(crate) fn driver(client: Client, config: &NetworkConfig) -> Driver {
    Driver::new(client, HostLock::at(config.ipam_lock_file.clone()))
}

fn holder(config: &NetworkConfig, attachment: &Attachment) -> Holder {
    Holder {
        network: config.name.clone(),
        container_id: attachment.container_id.as_str().to_owned(),
        pod: attachment.args.pod.as_ref().map(|pod| pod.name.clone()),
    }
}

fn add_request(
    config: &NetworkConfig,
    attachment: &Attachment,
    node: NodeName,
) -> Result<AddRequest, Error> {
    let Some(ipam) = &config.ipam else {
        let text = "network configuration has no `ipam`: add {\"type\": \"calico-ipam\"}";
        return Err(Error::InvalidRequest(text.to_owned()));
    };
    if config.runtime.has_ranges {
        return Err(Error::Unsupported);
    }
    // The configuration's addresses go before CNI_ARGS (CNI conventions, "args in network config").
    let args = &attachment.args.addrs;
    let given = if config.runtime.addrs.is_empty() { args } else { &config.runtime.addrs };
    let wanted: Vec<Wanted> = if given.is_empty() {
        any_of(ipam)
    } else {
        given.iter().copied().map(Wanted::This).collect()
    };
    if wanted.is_empty() {
        let text = "network configuration wants no address: set `ipam.assign_ipv4` or \
                    `ipam.assign_ipv6` to \"true\"";
        return Err(Error::InvalidRequest(text.to_owned()));
    }
    let selectors =
        if ipam.honors_selectors { Selectors::Honoured } else { Selectors::OfRequestedIgnored };
    let vrf = ipam.vrf.as_deref().map(str::parse).transpose();
    let vrf = vrf.map_err(|error: InvalidVrfName| Error::InvalidRequest(error.to_string()))?;
    Ok(AddRequest { node, holder: holder(config, attachment), vrf, wanted, selectors })
}

/// Says in which VRF there was an error.
fn in_vrf(error: cni::Error, vrf: Option<&VrfName>) -> cni::Error {
    match vrf {
        Some(vrf) => cni::Error { message: format!("in VRF {vrf}: {}", error.message), ..error },
        None => error,
    }
}

fn any_of(ipam: &Ipam) -> Vec<Wanted> {
    let references =
        |pools: &[String]| pools.iter().map(|pool| PoolReference::parse(pool)).collect();
    families(ipam).map(|(family, pools)| Wanted::Any(family, references(pools))).collect()
}

/// Returns the families of which an address is wanted, with the pools that are named.
fn families(ipam: &Ipam) -> impl Iterator<Item = (Family, &[String])> {
    let families = [
        (ipam.assigns_ipv4, Family::V4, ipam.ipv4_pools.as_slice()),
        (ipam.assigns_ipv6, Family::V6, ipam.ipv6_pools.as_slice()),
    ];
    families
        .into_iter()
        .filter(|(is_wanted, ..)| *is_wanted)
        .map(|(_, family, pools)| (family, pools))
}

/// Returns the result: addresses only, as CNI asks of a delegate.
fn result(addrs: &[InterfaceAddr]) -> Success {
    let ip = |address: &InterfaceAddr| Ip { address: *address, gateway: None, interface: None };
    Success { ips: addrs.iter().map(ip).collect(), ..Success::default() }
}
