//! The IPAM plugin as the caller sees it: a command in, JSON out.

use std::fs;
use std::path::Path;

use cni::config::Ipam;
use cni::environment::Attachment;
use cni::result::Ip;
use cni::{Environment, ErrorCode, NetworkConfig, Request, Success, nodename};
use datastore::{Client, Options};
use ipam::{PoolReference, Selectors};
use ledger::{Driver, HostLock, Wanted, surroundings};
use model::id::NodeName;
use model::net::{Family, InterfaceAddr};
use model::vrf::{InvalidVrfName, VrfName};
use serde_json::Value;
use tracing::debug;

use crate::add::{AddRequest, add};
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
    match &environment.request {
        Request::Version => Ok(Some(cni::version::version_info(config.version))),
        Request::Add(attachment, _) => {
            let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
            let request = add_request(config, attachment, node)?;
            let mut driver = connect(config)?;
            let marker = Path::new(upgrade::MARKER);
            upgrade::upgrade_once(driver.client(), &request.node, marker).await?;
            let added = Box::pin(add(&mut driver, &request)).await;
            let addrs = added.map_err(|error| in_vrf(error.into(), request.vrf.as_ref()))?;
            tell_requests(&driver);
            Ok(Some(result(&addrs).to_json(config.version)))
        }
        Request::Del(attachment, _) => {
            let mut driver = connect(config)?;
            delete::delete(&mut driver, &holder(config, attachment)).await?;
            Memory::of(config).forget();
            tell_requests(&driver);
            Ok(None)
        }
        Request::Check(attachment, _) => {
            let previous = config.prev_result.as_ref().ok_or_else(|| {
                let text = "CHECK needs `prevResult` in the network configuration: add it";
                cni::Error::new(ErrorCode::InvalidConfig, text)
            })?;
            let addrs: Vec<InterfaceAddr> = previous.ips.iter().map(|ip| ip.address).collect();
            let mut driver = connect(config)?;
            check::check(&mut driver, &holder(config, attachment), &addrs).await?;
            Ok(None)
        }
        Request::Status => {
            let checked = Box::pin(check_status(config)).await;
            checked.map_err(|error| error.unavailable(None))?;
            Ok(None)
        }
        Request::Gc => {
            let valid = config.valid_attachments.as_deref().ok_or_else(|| {
                let text = "GC needs `cni.dev/valid-attachments` in the network configuration: \
                            add it, or set disableGC in the configuration list";
                cni::Error::new(ErrorCode::InvalidConfig, text)
            })?;
            let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
            let mut driver = connect(config)?;
            upgrade::upgrade_once(driver.client(), &node, Path::new(upgrade::MARKER)).await?;
            let request = GcRequest { network: &config.name, node: &node, valid };
            gc::collect(&mut driver, &request).await?;
            Memory::of(config).forget();
            Ok(None)
        }
    }
}

async fn check_status(config: &NetworkConfig) -> Result<(), cni::Error> {
    let mut driver = connect(config)?;
    surroundings::check_ready(driver.client()).await.map_err(Error::from)?;
    let Some(ipam) = &config.ipam else { return Ok(()) };
    let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
    let families: Vec<Family> = families(ipam).map(|(family, _)| family).collect();
    Ok(status::check(&mut driver, &node, &families, &Memory::of(config)).await?)
}

fn connect(config: &NetworkConfig) -> Result<Driver, Error> {
    let options = Options { source: (&config.kubernetes).into(), ..Options::default() };
    let client = Client::connect(&options)?;
    Ok(Driver::new(client, HostLock::at(config.ipam_lock_file.clone())))
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

fn tell_requests(driver: &Driver) {
    let client = driver.client();
    debug!(requests = client.requests(), connections = client.connections(), "datastore");
}
