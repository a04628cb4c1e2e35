//! Brings the datastore and this host to what Docker has: after each event, and now and then.
//!
//! Docker is asked what there is; what it tells of single events only says when to ask. So a
//! crash of any of us is like any other moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use api::{LIBNETWORK, Profile, WorkloadEndpoint};
use datastore::{Client, Filter, Object};
use model::net::{Cidr, Family};
use model::pool::IpPool;

use crate::docker::{Container, Network};
use crate::driver::Driver;
use crate::endpoint::{self, Known};
use crate::error::Error;
use crate::registry::Step;
use crate::shared::{self, Change};
use crate::state::Endpoint;
use crate::{ports, profile};

/// How long to wait before Docker is asked again for its events.
const RETRY: Duration = Duration::from_millis(500);
/// The longest pause between two looks while something is wrong.
const LONGEST_RETRY: Duration = Duration::from_secs(8);
/// How long a network may be in the making.
const MAKING: Duration = Duration::from_secs(60);

/// Looks after everything until the program ends.
pub(crate) async fn run(driver: Arc<Driver>) {
    let listener = Arc::clone(&driver);
    let listening = tokio::spawn(async move { listen(&listener).await });
    let mut whole_at = Instant::now();
    let mut gone = Gone::default();
    let mut trouble = Trouble::default();
    while !listening.is_finished() {
        let is_whole = whole_at <= Instant::now();
        let done = Box::pin(look(&driver, is_whole, &mut gone)).await;
        if is_whole && done.is_ok() {
            whole_at = Instant::now().checked_add(driver.settings.period).unwrap_or(whole_at);
        }
        let again = trouble.next(done);
        let until_whole = whole_at.saturating_duration_since(Instant::now());
        tokio::select! {
            () = driver.wake.notified() => {}
            () = tokio::time::sleep(again.unwrap_or(until_whole)) => {}
        }
    }
}

/// What has gone wrong: it is told once, and tried again less and less often.
#[derive(Debug, Default)]
struct Trouble {
    last: String,
    pause: Duration,
}

impl Trouble {
    /// Takes note of how a look went; returns after what time to look again, if it went wrong.
    fn next(&mut self, done: Result<(), Error>) -> Option<Duration> {
        let Err(error) = done else {
            if !self.last.is_empty() {
                tracing::info!("all is as Docker has it again");
            }
            *self = Self::default();
            return None;
        };
        let line = error.line();
        if line != self.last {
            tracing::warn!(error = line, "not all is as Docker has it; will be tried again");
        }
        self.last = line;
        self.pause = self.pause.saturating_mul(2).clamp(RETRY, LONGEST_RETRY);
        Some(self.pause)
    }
}

/// Hears of what happens in Docker, for ever; after each silence all is looked at.
async fn listen(driver: &Driver) {
    loop {
        match driver.docker.events().await {
            Ok(mut events) => {
                if let Err(error) = ports::pass_dockers_filter().await {
                    tracing::warn!(error = error.line(), "Docker may drop what containers send");
                }
                driver.look_soon();
                while events.next().await.is_ok() {
                    driver.look_soon();
                }
            }
            Err(error) => tracing::debug!(error = error.line(), "Docker is silent"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What looks remember.
#[derive(Debug, Default)]
struct Gone {
    /// Since when something is there that nobody owns, besides objects of endpoints.
    unowned: crate::registry::Registry,
    /// The networks that pools and profiles were last brought to.
    shared: Option<Uses>,
}

/// What networks use: profiles by the networks' names, and pools by their ranges.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Uses {
    names: BTreeSet<String>,
    subnets: BTreeSet<Cidr>,
}

impl Uses {
    /// Those of networks, and of what is in the making.
    fn of(networks: &[Network], driver: &Driver) -> Self {
        let subnets = networks.iter().filter_map(|network| network.ipam.as_ref());
        let subnets = subnets.flat_map(|ipam| ipam.config.iter().flatten());
        let mut subnets: BTreeSet<Cidr> =
            subnets.filter_map(|config| config.subnet.parse().ok()).collect();
        let mut asked = driver.asked_pools.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, since| since.elapsed() < MAKING);
        subnets.extend(asked.keys());
        Self { names: networks.iter().map(|network| network.name.clone()).collect(), subnets }
    }
}

async fn look(driver: &Driver, is_whole: bool, gone: &mut Gone) -> Result<(), Error> {
    if is_whole {
        let objects = own_endpoints(driver).await?;
        driver.registry.lock().await.load(objects);
    }
    // Networks first: who is attached by then is one of the containers.
    let networks = driver.docker.networks().await?;
    let containers = driver.docker.containers().await?;
    driver.note_networks(&networks)?;
    let kept = driver.state.endpoints()?;
    let wanted = wanted(driver, &networks, &containers, &kept);
    let attached: BTreeSet<String> = wanted.keys().cloned().collect();
    let moment = (Instant::now(), driver.settings.grace);
    // What is shared changes with networks, and not with each container.
    let uses = Uses::of(&networks, driver);
    let is_settled = !is_whole && gone.shared.as_ref() == Some(&uses);
    if driver.settings.creates_profiles && !is_settled {
        make_profiles(driver, &uses.names).await?;
    }
    let steps = driver.registry.lock().await.plan(wanted, moment);
    let mut failure = None;
    for step in steps {
        // One that is refused must not keep the others waiting.
        if let Err(error) = carry_out(driver, step).await {
            failure = Some(error);
        }
    }
    clear_endpoints(driver, &attached, gone, moment).await?;
    let has_network = |id: &str| networks.iter().any(|network| network.id == id);
    for id in gone.unowned.overdue(driver.state.networks()?.iter(), has_network, moment) {
        driver.state.delete_network(&id)?;
    }
    if !is_settled {
        gone.shared = None;
        share(driver, &uses).await?;
        gone.shared = Some(uses);
    }
    if is_whole {
        clear_addresses(driver, &networks, gone, moment).await?;
        let _alone = driver.publishing.lock().await;
        ports::pass_dockers_filter().await?;
        ports::publish(&driver.state.endpoints()?).await?;
    }
    failure.map_or(Ok(()), Err)
}

/// Returns the objects of this node's endpoints.
async fn own_endpoints(driver: &Driver) -> Result<Vec<WorkloadEndpoint>, Error> {
    let hash = api::names::hostname_hash(driver.settings.node.as_str());
    let filter = Filter {
        namespace: Some(LIBNETWORK.to_owned()),
        labels: Some(format!("{}={hash}", api::names::HOSTNAME_HASH_LABEL)),
        ..Filter::default()
    };
    Ok(driver.client.list(&filter).await?)
}

/// Returns the objects that there should be, by the ids of their endpoints.
fn wanted(
    driver: &Driver,
    networks: &[Network],
    containers: &[Container],
    kept: &BTreeMap<String, Endpoint>,
) -> BTreeMap<String, WorkloadEndpoint> {
    let labels: BTreeMap<&str, BTreeMap<String, String>> = containers
        .iter()
        .map(|container| (container.id.as_str(), container.labels.clone().unwrap_or_default()))
        .collect();
    let mut wanted = BTreeMap::new();
    for network in networks {
        for (container, attachment) in network.containers.iter().flatten() {
            // Without its labels nobody knows its policy, and so it has no object yet.
            let Some(labels) = labels.get(container.as_str()) else { continue };
            let ports = kept.get(&attachment.endpoint).map_or(&[][..], |kept| &kept.ports);
            let known = Known { network: &network.name, container, labels, attachment, ports };
            match endpoint::object(&driver.settings, &known) {
                Ok(object) => drop(wanted.insert(attachment.endpoint.clone(), object)),
                Err(error) => tracing::warn!(container, error = error.line(), "left out"),
            }
        }
    }
    wanted
}

async fn carry_out(driver: &Driver, step: Step) -> Result<(), Error> {
    let client = &driver.client;
    let (id, written) = match step {
        Step::Create(object) => (object.spec.endpoint.clone(), create(client, &object).await),
        Step::Update(object) => {
            (object.spec.endpoint.clone(), client.update(&*object).await.map(Some))
        }
        Step::Delete(object) => {
            tracing::info!(endpoint = object.name(), "Docker has it no more: deleted");
            (object.spec.endpoint.clone(), client.delete(&*object).await.map(|()| None))
        }
    };
    let id = id.unwrap_or_default();
    match written {
        Ok(Some(object)) => {
            let deleted = driver.registry.lock().await.written(object);
            if let Some(object) = deleted {
                delete(client, object).await?;
            }
        }
        Ok(None) | Err(datastore::Error::NotFound { .. }) => {
            driver.registry.lock().await.forget(&id);
        }
        Err(error) => {
            // What is there is read again before the next try.
            let name = endpoint::object_name(&driver.settings.node, &id);
            let found = client.get_in(LIBNETWORK, &name).await?;
            if let Some(found) = found {
                drop(driver.registry.lock().await.written(found));
            } else {
                driver.registry.lock().await.forget(&id);
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// Creates an object, or takes the one that is there.
async fn create(
    client: &Client,
    object: &WorkloadEndpoint,
) -> Result<Option<WorkloadEndpoint>, datastore::Error> {
    match client.create(object).await {
        Ok(created) => Ok(Some(created)),
        Err(datastore::Error::AlreadyExists { .. }) => {
            client.get_in(LIBNETWORK, object.name()).await
        }
        Err(error) => Err(error),
    }
}

/// Deletes an object, whatever it has become.
///
/// # Errors
///
/// What the datastore fails with.
pub(crate) async fn delete(client: &Client, object: WorkloadEndpoint) -> Result<(), Error> {
    let mut object = object;
    loop {
        match client.delete(&object).await {
            Ok(()) | Err(datastore::Error::NotFound { .. }) => return Ok(()),
            Err(datastore::Error::Conflict { .. }) => {
                match client.get_in(LIBNETWORK, object.name()).await? {
                    Some(found) => object = found,
                    None => return Ok(()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes interfaces, files and ports of endpoints that Docker has no more.
async fn clear_endpoints(
    driver: &Driver,
    attached: &BTreeSet<String>,
    gone: &mut Gone,
    moment: (Instant, Duration),
) -> Result<(), Error> {
    let kept = driver.state.endpoints()?;
    let overdue = gone.unowned.overdue(kept.keys(), |id| attached.contains(id), moment);
    for id in overdue {
        tracing::info!(endpoint = id, "Docker has it no more: its interface goes");
        driver.unpublish(&id).await?;
        if let Ok(names) = endpoint::pair_names(&id) {
            driver.netlink.delete_link(&names.host).await?;
        }
        driver.state.delete_endpoint(&id)?;
    }
    Ok(())
}

/// Gives back the addresses that no container of this host has.
async fn clear_addresses(
    driver: &Driver,
    networks: &[Network],
    gone: &mut Gone,
    moment: (Instant, Duration),
) -> Result<(), Error> {
    let used = used(networks);
    let held = driver.addresses.held().await?;
    let mut by_handle: BTreeMap<&String, bool> = BTreeMap::new();
    for (addr, handle) in &held {
        *by_handle.entry(handle).or_default() |= used.contains(addr);
    }
    let is_owned = |handle: &str| by_handle.get(&handle.to_owned()).copied().unwrap_or_default();
    let handles = by_handle.keys().copied();
    for handle in gone.unowned.overdue(handles, is_owned, moment) {
        let addrs = driver.addresses.release_all(&handle).await?;
        tracing::info!(handle, ?addrs, "no container has it: given back");
        for addr in addrs {
            driver.end_promise(addr, &handle)?;
        }
    }
    Ok(())
}

/// Returns the addresses that Docker has given to containers, or keeps for others.
fn used(networks: &[Network]) -> BTreeSet<IpAddr> {
    let bare = |text: &str| text.split('/').next().unwrap_or_default().parse().ok();
    let attached = networks.iter().flat_map(|network| network.containers.iter().flatten());
    let attached = attached.flat_map(|(_, at)| [bare(&at.ipv4), bare(&at.ipv6)]);
    let kept = networks.iter().filter_map(|network| network.ipam.as_ref());
    let kept = kept.flat_map(|ipam| ipam.config.iter().flatten());
    let kept = kept.flat_map(|config| config.auxiliary_addresses.iter().flatten());
    attached.chain(kept.map(|(_, text)| bare(text))).flatten().collect()
}

/// Makes the profiles of networks that lack theirs.
async fn make_profiles(driver: &Driver, names: &BTreeSet<String>) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let found = driver.client.list::<Profile>(&Filter::default()).await?;
    let found: BTreeSet<&str> = found.iter().map(Profile::name).collect();
    for name in names {
        let mut profile = profile::new(name);
        if found.contains(profile.name()) {
            continue;
        }
        shared::note_use(&mut profile.metadata, &driver.settings.node, true);
        match driver.client.create(&profile).await {
            Ok(_) => tracing::info!(network = name, "made a profile"),
            // Another host has the same network.
            Err(datastore::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Notes which pools and profiles this host uses, and removes those that nobody does.
async fn share(driver: &Driver, uses: &Uses) -> Result<(), Error> {
    let (client, node) = (&driver.client, &driver.settings.node);
    let profiles: BTreeMap<String, Profile> = uses
        .names
        .iter()
        .map(|name| profile::new(name))
        .map(|it| (it.name().to_owned(), it))
        .collect();
    let mine = Filter { labels: Some(shared::selector()), ..Filter::default() };
    for mut found in client.list::<Profile>(&mine).await? {
        let is_used = profiles.contains_key(found.name());
        let change = shared::note_use(&mut found.metadata, node, is_used);
        // What people have changed is theirs.
        let is_kept = change == Change::Delete && !profile::is_as_made(&found);
        settle(client, &found, if is_kept { Change::Write } else { change }).await?;
    }
    for mut found in client.list::<api::IpPool>(&mine).await? {
        let Ok(pool) = IpPool::try_from(&found) else { continue };
        // One that was made after `uses` were looked at is asked for by now.
        let is_used = uses.subnets.contains(&pool.cidr) || is_asked_for(driver, pool.cidr);
        let change = shared::note_use(&mut found.metadata, node, is_used);
        if change == Change::Delete {
            driver.later.idle().await;
            if is_taken_from(client, pool.cidr).await? {
                continue;
            }
        }
        settle(client, &found, change).await?;
    }
    Ok(())
}

/// Has a network in the making asked for a pool of that range?
fn is_asked_for(driver: &Driver, cidr: Cidr) -> bool {
    let asked = driver.asked_pools.lock().unwrap_or_else(PoisonError::into_inner);
    asked.get(&cidr).is_some_and(|since| since.elapsed() < MAKING)
}

async fn settle<T: Object>(client: &Client, object: &T, change: Change) -> Result<(), Error> {
    let done = match change {
        Change::None => return Ok(()),
        Change::Write => client.update(object).await.map(drop),
        Change::Delete => client.delete(object).await,
    };
    match done {
        // Another host was first; the next look sees what it did.
        Ok(()) | Err(datastore::Error::NotFound { .. } | datastore::Error::Conflict { .. }) => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Does anybody hold an address of the range?
async fn is_taken_from(client: &Client, range: Cidr) -> Result<bool, Error> {
    let blocks = client.list::<api::IpamBlock>(&Filter::default()).await?;
    let blocks = blocks.iter().filter(|block| matches!(api::vrf_of(block), Ok(None)));
    let blocks = blocks.filter_map(|block| model::block::Block::try_from(block).ok());
    let mut inside = blocks.filter(|block| range.covers(&block.cidr));
    Ok(inside.any(|block| block.allocations.iter().any(Option::is_some)))
}

impl Driver {
    /// Takes note that an address was given back behind Docker's back.
    fn end_promise(&self, addr: IpAddr, handle: &str) -> Result<(), Error> {
        self.promises().end(handle, Family::of(addr));
        self.state.delete_address(addr)
    }
}
