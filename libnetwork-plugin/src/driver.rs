//! The two drivers: what is done for each request of Docker.
//!
//! Every method may be asked again: Docker repeats a request whose answer it did not get.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use datastore::Client;
use kernel::Netlink;
use model::id::HandleId;
use model::net::{Cidr, Family, InterfaceAddr, Mtu};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::addresses::Addresses;
use crate::docker::{Docker, Network};
use crate::endpoint::{check_id, pair_names};
use crate::error::Error;
use crate::later::{Job, Jobs, Later};
use crate::pool::{Decision, PoolId, decide, everything};
use crate::registry::{Promises, Registry};
use crate::settings::Settings;
use crate::state::{Endpoint, NetworkFacts, State};
use crate::wire::{
    ADDRESS_TYPE, CreateEndpoint, CreateNetwork, DeleteNetwork, GATEWAY, MAC, OfAddress,
    OfEndpoint, PORT_MAP, PortBinding, ReleasePool, RequestPool,
};
use crate::{link, place, ports};

/// Where Docker puts the options that people give a network.
const GENERIC: &str = "com.docker.network.generic";
/// The only one of them that we know.
const DRIVER_MTU: &str = "com.docker.network.driver.mtu";
/// How Docker says that a network has no way out.
const INTERNAL: &str = "com.docker.network.internal";

/// What both drivers work with.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) docker: Docker,
    pub(crate) client: Client,
    pub(crate) netlink: Netlink,
    pub(crate) state: State,
    pub(crate) addresses: Addresses,
    pub(crate) later: Later,
    pub(crate) registry: tokio::sync::Mutex<Registry>,
    promises: Mutex<Promises>,
    /// Held while published ports change.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    /// Pools that networks in the making have asked for, and when.
    pub(crate) asked_pools: Mutex<BTreeMap<Cidr, Instant>>,
    pub(crate) wake: Notify,
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        client: Client,
        netlink: Netlink,
        state: State,
    ) -> Result<(Self, Jobs), Error> {
        let (later, jobs) = Later::new();
        let promises = state.addresses()?.into_iter();
        let promises = promises.map(|(addr, handle)| (handle, Family::of(addr)));
        let this = Self {
            docker: Docker::new(settings.docker_socket.clone()),
            addresses: Addresses::new(&settings, client.clone()),
            settings,
            client,
            netlink,
            state,
            later,
            registry: tokio::sync::Mutex::default(),
            promises: Mutex::new(Promises::of(promises)),
            publishing: tokio::sync::Mutex::default(),
            asked_pools: Mutex::default(),
            wake: Notify::new(),
        };
        Ok((this, jobs))
    }

    pub(crate) fn promises(&self) -> std::sync::MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the datastore compared with Docker.
    pub(crate) fn look_soon(&self) {
        self.wake.notify_one();
    }

    /// Nothing is made for a network, but a note of what its endpoints are to be like.
    pub(crate) fn create_network(&self, request: &CreateNetwork) -> Result<Value, Error> {
        check_id(&request.network)?;
        check_options(&request.options)?;
        let ranges = request.ipv4.iter().chain(&request.ipv6);
        let none = [everything(Family::V4), everything(Family::V6)];
        if ranges.into_iter().any(|range| !none.contains(&range.gateway.as_str())) {
            return Err(Error::wrong(
                "driver calico needs its own address management: add --ipam-driver calico-ipam",
            ));
        }
        let generic = request.options.get(GENERIC);
        let mtu = generic.and_then(|options| options.get(DRIVER_MTU)?.as_str());
        let subnets = request.ipv4.iter().map(|range| range.pool.as_str());
        self.state.put_network(&request.network, &facts(mtu, subnets))?;
        Ok(json!({}))
    }

    pub(crate) fn delete_network(&self, request: &DeleteNetwork) -> Result<Value, Error> {
        check_id(&request.network)?;
        self.state.delete_network(&request.network)?;
        self.look_soon();
        Ok(json!({}))
    }

    pub(crate) async fn create_endpoint(&self, request: CreateEndpoint) -> Result<Value, Error> {
        pair_names(&request.endpoint)?;
        let texts = [&request.interface.address, &request.interface.address_v6];
        let addrs = texts.into_iter().filter(|text| !text.is_empty()).map(|text| {
            let addr: Result<InterfaceAddr, _> = text.parse();
            addr.map(|addr| addr.addr()).map_err(|error| Error::wrong(error.to_string()))
        });
        let addrs: Vec<IpAddr> = addrs.collect::<Result<_, _>>()?;
        if addrs.is_empty() {
            return Err(Error::wrong("an endpoint needs an address of IPAM driver calico-ipam"));
        }
        let endpoint = Endpoint {
            network: request.network,
            addrs,
            mac: request.interface.mac,
            ports: Vec::new(),
            place: None,
        };
        self.registry.lock().await.begin(&request.endpoint);
        self.state.put_endpoint(&request.endpoint, &endpoint)?;
        // All that Docker leaves to us is what it has given already.
        Ok(json!({"Interface": {}}))
    }

    pub(crate) async fn delete_endpoint(&self, request: OfEndpoint) -> Result<Value, Error> {
        let names = pair_names(&request.endpoint)?;
        self.unpublish(&request.endpoint).await?;
        self.netlink.delete_link(&names.host).await?;
        let kept = self.state.endpoint(&request.endpoint);
        self.state.delete_endpoint(&request.endpoint)?;
        let object = self.registry.lock().await.delete(&request.endpoint);
        if let Some(object) = object {
            let addrs = kept.map(|endpoint| endpoint.addrs).unwrap_or_default();
            self.later.push(Job::Object(Box::new(object), addrs));
        }
        Ok(json!({}))
    }

    pub(crate) async fn join(&self, request: OfEndpoint) -> Result<Value, Error> {
        let names = pair_names(&request.endpoint)?;
        let endpoint = self.state.endpoint(&request.endpoint);
        let endpoint = endpoint.ok_or_else(|| {
            Error::wrong(format!(
                "endpoint {} is unknown: start the container again",
                request.endpoint
            ))
        })?;
        let mac = match endpoint.mac.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error: model::net::InvalidMac| Error::wrong(error.to_string()))?,
            ),
        };
        check_id(&request.network)?;
        let network = self.network(&request.network).await;
        let place = place::choose(
            &request.endpoint,
            &request.sandbox,
            network.subnets_v4.iter().cloned(),
            &self.state.endpoints()?,
        )?;
        let mtu = self.mtu(&network);
        link::make(&self.netlink, &names, (&endpoint.addrs, mac, mtu)).await?;
        let container = names.container.to_string();
        let prefix = &self.settings.container_prefix;
        let answer = place::answer(&container, prefix, &endpoint.addrs, &place);
        self.state.put_endpoint(&request.endpoint, &Endpoint { place: Some(place), ..endpoint })?;
        Ok(answer)
    }

    pub(crate) async fn leave(&self, request: OfEndpoint) -> Result<Value, Error> {
        let names = pair_names(&request.endpoint)?;
        self.netlink.delete_link(&names.host).await?;
        self.unpublish(&request.endpoint).await?;
        if let Some(endpoint) = self.state.endpoint(&request.endpoint) {
            self.state.put_endpoint(&request.endpoint, &Endpoint { place: None, ..endpoint })?;
        }
        Ok(json!({}))
    }

    pub(crate) async fn program_external_connectivity(
        &self,
        request: OfEndpoint,
    ) -> Result<Value, Error> {
        check_id(&request.endpoint)?;
        let bindings = request.options.get(PORT_MAP).cloned().unwrap_or_default();
        let bindings: Option<Vec<PortBinding>> =
            serde_json::from_value(bindings).map_err(|error| Error::wrong(error.to_string()))?;
        let asked = ports::read(&bindings.unwrap_or_default(), ports::range())?;
        if asked.is_empty() {
            return Ok(json!({}));
        }
        let _alone = self.publishing.lock().await;
        let mut endpoints = self.state.endpoints()?;
        let published = ports::choose(&request.endpoint, &asked, &endpoints, ports::is_unused)?;
        let endpoint = endpoints.get_mut(&request.endpoint);
        let endpoint = endpoint.ok_or_else(|| Error::wrong("this endpoint is unknown"))?;
        tracing::info!(endpoint = request.endpoint, ports = ?published, "published");
        endpoint.ports = published;
        self.state.put_endpoint(&request.endpoint, endpoint)?;
        ports::publish(&endpoints).await?;
        self.look_soon();
        Ok(json!({}))
    }

    pub(crate) async fn revoke_external_connectivity(
        &self,
        request: OfEndpoint,
    ) -> Result<Value, Error> {
        check_id(&request.endpoint)?;
        self.unpublish(&request.endpoint).await?;
        Ok(json!({}))
    }

    pub(crate) async fn unpublish(&self, id: &str) -> Result<(), Error> {
        let has_ports = self.state.endpoint(id).is_some_and(|found| !found.ports.is_empty());
        if !has_ports {
            return Ok(());
        }
        let _alone = self.publishing.lock().await;
        let mut endpoints = self.state.endpoints()?;
        if let Some(endpoint) = endpoints.get_mut(id) {
            endpoint.ports.clear();
            self.state.put_endpoint(id, endpoint)?;
        }
        self.look_soon();
        ports::publish(&endpoints).await
    }

    pub(crate) async fn request_pool(&self, request: RequestPool) -> Result<Value, Error> {
        self.addresses.check_ready().await?;
        let pools = self.addresses.pools().await?;
        let decision = decide(&pools, &request)?;
        let id = match decision {
            Decision::Any(family) => PoolId::Any(family),
            Decision::Existing(_) | Decision::Make(_) => PoolId::parse(&request.pool)?,
        };
        if let PoolId::Range(cidr) = id {
            let mut asked = self.asked_pools.lock().unwrap_or_else(PoisonError::into_inner);
            asked.insert(cidr, Instant::now());
        }
        if let Decision::Make(mut pool) = decision {
            crate::shared::note_use(&mut pool.metadata, &self.settings.node, true);
            match self.client.create(&*pool).await {
                // Another host makes the same network.
                Ok(_) | Err(datastore::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let gateway = everything(id.family());
        Ok(json!({"PoolID": id.text(), "Pool": id.range(), "Data": {GATEWAY: gateway}}))
    }

    pub(crate) fn release_pool(&self, request: &ReleasePool) -> Value {
        if let Ok(PoolId::Range(cidr)) = PoolId::parse(&request.pool) {
            self.asked_pools.lock().unwrap_or_else(PoisonError::into_inner).remove(&cidr);
        }
        self.look_soon();
        json!({})
    }

    pub(crate) async fn request_address(&self, request: OfAddress) -> Result<Value, Error> {
        let pool = PoolId::parse(&request.pool)?;
        if request.options.get(ADDRESS_TYPE).is_some_and(|kind| kind == GATEWAY) {
            return Err(Error::wrong(format!(
                "a gateway cannot be chosen: that of every container is {}; leave --gateway out",
                link::GATEWAY_V4
            )));
        }
        let wanted: Option<IpAddr> = match request.address.as_str() {
            "" => None,
            text => {
                let wrong = |_| Error::wrong(format!("`{text}` is no address"));
                Some(text.parse().map_err(wrong)?)
            }
        };
        if let (Some(addr), PoolId::Range(range)) = (wanted, pool)
            && !range.contains(addr)
        {
            return Err(Error::Outside { addr, range });
        }
        let mac = request.options.get(MAC).map(String::as_str).unwrap_or_default();
        let family = pool.family();
        let node = &self.settings.node;
        if self.promises().has_any(node, mac) {
            // What a restarted container held goes with its handle, which it is to have again.
            self.later.idle().await;
        }
        let handle = self.promises().handle(node, mac, family)?;
        let assigned = Box::pin(self.assign(pool, wanted, &handle)).await;
        let addr = assigned.inspect_err(|_| self.promises().end(&handle.0, family))?;
        self.state.put_address(addr, &handle.0)?;
        Ok(json!({"Address": Cidr::host(addr).to_string(), "Data": {}}))
    }

    /// Takes an address; what is about to be given back is waited for where it matters.
    async fn assign(
        &self,
        pool: PoolId,
        wanted: Option<IpAddr>,
        handle: &HandleId,
    ) -> Result<IpAddr, Error> {
        if wanted.is_some() {
            self.later.idle().await;
        }
        let assigned = Box::pin(self.addresses.assign(pool, wanted, handle)).await;
        if !matches!(&assigned, Err(Error::Ledger(ledger::Error::Refused(_)))) {
            return assigned;
        }
        self.later.idle().await;
        Box::pin(self.addresses.assign(pool, wanted, handle)).await
    }

    pub(crate) fn release_address(&self, request: &OfAddress) -> Result<Value, Error> {
        let text = request.address.split('/').next().unwrap_or_default();
        let addr: IpAddr =
            text.parse().map_err(|_| Error::wrong(format!("`{text}` is no address")))?;
        let handle = self.state.handle(addr);
        // Before the address is free, since the next owner has a file of the same name.
        self.state.delete_address(addr)?;
        self.later.push(Job::Address(addr, handle));
        Ok(json!({}))
    }

    /// Returns the MTU of a network's interfaces: its own, ours, or what calico-node says.
    fn mtu(&self, network: &NetworkFacts) -> Option<Mtu> {
        let said = || {
            let text = kernel::files::read(&self.settings.mtu_file, 64).ok()?;
            text.trim().parse().ok().map(Mtu)
        };
        network.mtu.map(Mtu).or(self.settings.mtu).or_else(said)
    }

    /// Returns what is known of a network; Docker is asked for one that another version of ours
    /// has made, which is as any other if Docker does not answer.
    async fn network(&self, id: &str) -> NetworkFacts {
        if let Some(network) = self.state.network(id) {
            return network;
        }
        let found = self.docker.network(id).await;
        let found = found.inspect_err(|error| {
            tracing::warn!(network = id, error = error.line(), "taken for one without options");
        });
        found.ok().flatten().map(|network| facts_of(&network)).unwrap_or_default()
    }

    /// Takes note of the networks that there are.
    pub(crate) fn note_networks(&self, networks: &[Network]) -> Result<(), Error> {
        for network in networks.iter().filter(|network| check_id(&network.id).is_ok()) {
            self.state.put_network(&network.id, &facts_of(network))?;
        }
        Ok(())
    }
}

fn facts_of(network: &Network) -> NetworkFacts {
    let mtu = network.options.as_ref().and_then(|options| options.get(DRIVER_MTU));
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    facts(mtu.map(String::as_str), configs.map(|config| config.subnet.as_str()))
}

/// Returns what endpoints of a network depend on.
fn facts<'a>(mtu: Option<&str>, subnets: impl Iterator<Item = &'a str>) -> NetworkFacts {
    let ranges = subnets.filter_map(|subnet| subnet.parse::<Cidr>().ok());
    // That of a network without one is all there is.
    let ranges = ranges.filter(|range| range.family() == Family::V4 && range.prefix_len() > 0);
    NetworkFacts {
        mtu: mtu.and_then(|text| text.parse().ok()),
        subnets_v4: ranges.map(|range| range.to_string()).collect(),
    }
}

/// Options that we do not know would not do what somebody believes that they do.
fn check_options(options: &Map<String, Value>) -> Result<(), Error> {
    if options.get(INTERNAL).and_then(Value::as_bool).unwrap_or_default() {
        return Err(Error::wrong(
            "--internal is not supported by driver calico: deny what leaves by a policy",
        ));
    }
    let generic = options.get(GENERIC).and_then(Value::as_object);
    for (name, value) in generic.into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if name != DRIVER_MTU {
            return Err(Error::wrong(format!(
                "--opt {name} is unknown to driver calico: use {DRIVER_MTU}, or leave it out"
            )));
        }
        if !text.parse::<u32>().is_ok_and(|mtu| (68..=65_535).contains(&mtu)) {
            return Err(Error::wrong(format!("--opt {DRIVER_MTU}={text}: use 68 to 65535")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn options_that_are_unknown_are_refused() {
        let mtu = json!({GENERIC: {DRIVER_MTU: "1400"}, "com.docker.network.enable_ipv6": true});
        assert!(check_options(&options(&mtu)).is_ok());
        for (wrong, expected) in [
            (json!({GENERIC: {"color": "red"}}), "--opt color is unknown"),
            (json!({GENERIC: {DRIVER_MTU: "12"}}), "use 68 to 65535"),
            (json!({INTERNAL: true}), "--internal is not supported"),
        ] {
            let error = check_options(&options(&wrong)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
