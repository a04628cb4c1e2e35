//! The part of a cluster that does not look right, read without holding the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;

use datastore::{Client, Filter};
use futures::{StreamExt as _, stream};
use ipam::Key;
use ipam::audit::Snapshot;
use ipam::audit::screen::{Blocks, Suspects};
use ipam::slots::Clock;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use model::block::{Affinity, Block, Handle, IpamConfig, Owner};
use model::id::HandleId;
use model::net::Cidr;
use model::pool::IpPool;
use model::vrf::VrfName;

use crate::objects::within;
use crate::scene::{Complaints, is_foreign, note_node, pod_use, service_use};
use crate::{Error, Lists, Scene, Stored, now};

/// How many requests may be under way.
const REQUESTS: usize = 16;
/// How many suspicious blocks are looked at, at most; the rest is for the next time.
const MAX_BLOCKS: usize = 2_000;

impl Scene {
    /// Reads everything of a VRF, or of none, page by page, and then anew what is not certainly in
    /// order.
    ///
    /// `each` sees every block, with all pools.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub async fn screened(
        client: &Client,
        vrf: Option<&VrfName>,
        each: &mut (dyn FnMut(&Block, &[IpPool]) + Send),
    ) -> Result<Self, Error> {
        let mut complaints = Complaints::default();
        let mut frame = Box::pin(frame(client, vrf, &mut complaints)).await?;
        let suspects =
            Box::pin(first_look(client, vrf, (&mut frame, &mut complaints), each)).await?;
        let mut scene = Box::pin(second_look(client, vrf, &suspects)).await?;
        scene.unreadable.extend(complaints.into_texts());
        scene.snapshot.nodes = frame.nodes;
        scene.snapshot.tunnels = frame.tunnels;
        scene.snapshot.services = frame.services;
        scene.snapshot.elsewhere = suspects.beside(&scene.snapshot);
        Ok(scene)
    }
}

/// Returns the VRFs that pools, blocks, claims and handles name, behind those who are in none.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn vrfs(client: &Client) -> Result<BTreeSet<Option<VrfName>>, Error> {
    let labels = Some(api::annotations::VRF_NAME.to_owned());
    let labelled = Filter { labels, ..Filter::default() };
    let mut lists = Lists { pools: client.list(&Filter::default()).await?, ..Lists::default() };
    // Nothing but the labels is needed, of few objects.
    let (blocks, affinities, handles) =
        futures::try_join!(client.list(&labelled), client.list(&labelled), client.list(&labelled))?;
    lists = Lists { blocks, affinities, handles, ..lists };
    Ok(lists.vrfs())
}

/// Reads what is small enough to be held.
async fn frame(
    client: &Client,
    vrf: Option<&VrfName>,
    complaints: &mut Complaints,
) -> Result<Snapshot, Error> {
    let all = Filter::default();
    let (pools, config) = futures::try_join!(
        client.list::<api::IpPool>(&all),
        client.get::<api::IpamConfig>("default"),
    )?;
    let config = config.as_ref().and_then(|one| complaints.take(IpamConfig::try_from(one)));
    let mut pools = complaints.take_all(&pools, |one| IpPool::try_from(one));
    pools.retain(|pool| pool.vrf.as_ref().map(|vrf| &vrf.name) == vrf);
    Ok(Snapshot { now: now(), pools, config: config.unwrap_or_default(), ..Snapshot::default() })
}

/// Lets everything come by, addresses before those who use them.
async fn first_look(
    client: &Client,
    vrf: Option<&VrfName>,
    (snapshot, complaints): (&mut Snapshot, &mut Complaints),
    each: &mut (dyn FnMut(&Block, &[IpPool]) + Send),
) -> Result<Suspects, Error> {
    let all = Filter::default();
    let own = within(&all, vrf);
    let clock = Clock { now: snapshot.now, cooldown: snapshot.config.cooldown };
    let pools = snapshot.pools.clone();
    let mut blocks = Blocks::new(pools.clone(), clock, RandomState::new());
    let mut take = |object: api::IpamBlock| {
        let block = complaints.take(Block::try_from(&object)).filter(|block| !block.is_deleted);
        if let Some(block) = block {
            each(&block, &pools);
            blocks.block(&block);
        }
    };
    client.each(&own, &mut take).await?;
    let mut claims: Vec<Affinity> = Vec::new();
    let mut take = |object: api::BlockAffinity| {
        let claim = complaints.take(Affinity::try_from(&object));
        claims.extend(claim.filter(|claim| !claim.is_deleted));
    };
    client.each(&own, &mut take).await?;
    let mut handles = blocks.done();
    let mut take = |object: api::IpamHandle| {
        let handle = complaints.take(Handle::try_from(&object));
        if let Some(handle) = handle.filter(|handle| !handle.is_deleted) {
            handles.handle(&handle);
        }
    };
    client.each(&own, &mut take).await?;
    let mut users = handles.done();
    client.each(&all, &mut |node: Node| note_node(&node, snapshot, complaints)).await?;
    let mut take = |service: Service| snapshot.services.extend(service_use(&service, complaints));
    client.each(&all, &mut take).await?;
    if vrf.is_some() {
        // Tunnels and Services are everybody's.
        snapshot.tunnels.clear();
        snapshot.services.clear();
    }
    for tunnel in &snapshot.tunnels {
        users.tunnel(tunnel);
    }
    for service in &snapshot.services {
        users.service(service);
    }
    let mut take = |object: Pod| {
        let (pod, problems) = pod_use(&object);
        complaints.extend(problems);
        if is_foreign(&object, vrf) { users.foreign_pod(&pod) } else { users.pod(&pod) }
    };
    client.each(&all, &mut take).await?;
    Ok(users.done(claims.iter(), &snapshot.nodes))
}

/// Reads the suspects anew, each by its name, with all that belongs to them.
async fn second_look(
    client: &Client,
    vrf: Option<&VrfName>,
    suspects: &Suspects,
) -> Result<Scene, Error> {
    let all = Filter::default();
    let (pools, reservations, config) =
        futures::try_join!(client.list(&all), client.list(&all), client.get("default"))?;
    let mut gathered = Gathered::default();
    let blocks = suspects.blocks.keys().take(MAX_BLOCKS).copied().map(Key::Block);
    let handles = suspects.handles.iter().take(MAX_BLOCKS);
    let handles = handles.map(|id| Key::Handle(HandleId(id.object_name())));
    let mut wanted: BTreeSet<Key> = blocks.chain(handles).collect();
    while !wanted.is_empty() {
        let found = read(client, vrf, &wanted).await?;
        gathered.seen.extend(std::mem::take(&mut wanted));
        for stored in found {
            wanted.extend(
                gathered.take(stored).into_iter().filter(|key| !gathered.seen.contains(key)),
            );
        }
    }
    let owners = gathered.claims().chain(suspects.claims.iter().take(MAX_BLOCKS).cloned());
    let claims: BTreeSet<Key> = owners.map(|(owner, cidr)| Key::Affinity(owner, cidr)).collect();
    let affinities =
        read(client, vrf, &claims).await?.into_iter().filter_map(|stored| match stored {
            Stored::Affinity(object) => Some(*object),
            Stored::Block(_) | Stored::Handle(_) => None,
        });
    let lists = Lists {
        pools,
        reservations,
        config,
        affinities: affinities.collect(),
        pods: gathered.pods(client).await?,
        blocks: gathered.blocks,
        handles: gathered.handles,
        ..Lists::default()
    };
    let mut scene = Scene::of(&lists, vrf.cloned(), now());
    let read: BTreeSet<String> = scene.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect();
    let strays = suspects.pods.iter().filter(|pod| !read.contains(&pod.uid));
    scene.snapshot.pods.extend(strays.cloned());
    Ok(scene)
}

/// What has been read anew.
#[derive(Default)]
struct Gathered {
    seen: BTreeSet<Key>,
    blocks: Vec<api::IpamBlock>,
    handles: Vec<api::IpamHandle>,
    holders: BTreeSet<(String, String)>,
    owners: BTreeMap<Cidr, Owner>,
}

impl Gathered {
    /// Takes an object; returns what is to be read because of it.
    fn take(&mut self, stored: Stored) -> Vec<Key> {
        match stored {
            Stored::Block(object) => {
                let block = Block::try_from(&*object).ok();
                self.blocks.push(*object);
                block.map(|block| self.note(&block)).unwrap_or_default()
            }
            Stored::Handle(object) => {
                let handle = Handle::try_from(&*object).ok();
                self.handles.push(*object);
                let blocks = handle.map(|handle| handle.blocks).unwrap_or_default();
                blocks.into_keys().map(Key::Block).collect()
            }
            Stored::Affinity(_) => Vec::new(),
        }
    }

    /// Notes whom the block names; returns their handles.
    fn note(&mut self, block: &Block) -> Vec<Key> {
        let owner = block.affinity.clone();
        self.owners.extend(owner.map(|owner| (block.cidr, owner)));
        let mut handles: BTreeSet<HandleId> = BTreeSet::new();
        for holder in &block.attributes {
            let fact = |key: &str| holder.owner.get(key).cloned();
            self.holders.extend(fact("namespace").zip(fact("pod")));
            let id = holder.handle.as_ref().and_then(|id| id.0.split('\r').next());
            handles.extend(id.map(|id| HandleId(id.to_lowercase())));
        }
        handles.into_iter().map(Key::Handle).collect()
    }

    fn claims(&self) -> impl Iterator<Item = (Owner, Cidr)> {
        self.owners.iter().map(|(cidr, owner)| (owner.clone(), *cidr))
    }

    async fn pods(&self, client: &Client) -> Result<Vec<Pod>, Error> {
        let holders = self.holders.iter().cloned();
        let reads = holders
            .map(|(namespace, name)| async move { client.get_in::<Pod>(&namespace, &name).await });
        let read = stream::iter(reads).buffer_unordered(REQUESTS).collect::<Vec<_>>().await;
        let pods: Result<Vec<Option<Pod>>, _> = read.into_iter().collect();
        Ok(pods?.into_iter().flatten().collect())
    }
}

async fn read(
    client: &Client,
    vrf: Option<&VrfName>,
    keys: &BTreeSet<Key>,
) -> Result<Vec<Stored>, Error> {
    let reads = keys.iter().map(|key| async move {
        match Stored::get(client, vrf, key).await {
            // A handle that has become another VRF's meanwhile.
            Err(Error::OtherVrf { .. }) => Ok(None),
            found => found,
        }
    });
    let read = stream::iter(reads).buffer_unordered(REQUESTS).collect::<Vec<_>>().await;
    let found: Result<Vec<Option<Stored>>, Error> = read.into_iter().collect();
    Ok(found?.into_iter().flatten().collect())
}
