//! All that the audit looks at, read from the datastore, with the objects to write back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use api::{Invalid, annotations, kubernetes, names};
use datastore::{Client, Filter, Object};
use ipam::Key;
use ipam::audit::{self, PodUse, Revisioned, ServiceUse, Snapshot, TunnelUse};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::block::{Affinity, Block, Handle, IpamConfig};
use model::id::{HandleId, NamespacedName, NodeName};
use model::net::Cidr;
use model::pool::IpPool;
use model::service::ServiceKind;
use model::time::WallTime;
use model::vrf::VrfName;

use crate::objects::is_of;
use crate::{Error, Stored};

/// The objects that matter, as the server has them.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// All pools.
    pub pools: Vec<api::IpPool>,
    /// All blocks.
    pub blocks: Vec<api::IpamBlock>,
    /// All claims.
    pub affinities: Vec<api::BlockAffinity>,
    /// All handles.
    pub handles: Vec<api::IpamHandle>,
    /// All reservations.
    pub reservations: Vec<api::IpReservation>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All pods.
    pub pods: Vec<Pod>,
    /// All services.
    pub services: Vec<Service>,
    /// The configuration, if there is one.
    pub config: Option<api::IpamConfig>,
}

/// What was read, as values.
#[derive(Debug)]
pub struct Scene {
    /// The VRF that all of it is about; `None` is those who are in none.
    pub vrf: Option<VrfName>,
    /// What the audit looks at.
    pub snapshot: Snapshot,
    /// The objects behind what may be written.
    pub objects: BTreeMap<Key, Stored>,
    /// What is never assigned.
    pub reserved: Vec<Cidr>,
    /// The objects that cannot be read, with the reason; while there are any, nothing is repaired.
    pub unreadable: Vec<String>,
}

/// Returns the time.
#[must_use]
pub fn now() -> WallTime {
    WallTime(jiff::Timestamp::now().as_nanosecond())
}

impl Lists {
    /// Reads everything; in the order in which it comes into being, so that whoever has an address
    /// is seen at least as late as the address.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let all = Filter::default();
        let (blocks, affinities, handles) =
            futures::try_join!(client.list(&all), client.list(&all), client.list(&all))?;
        let (pools, reservations, config) =
            futures::try_join!(client.list(&all), client.list(&all), client.get("default"))?;
        let (nodes, pods, services) =
            futures::try_join!(client.list(&all), client.list(&all), client.list(&all))?;
        let kubernetes = Self { nodes, pods, services, ..Self::default() };
        Ok(Self { pools, blocks, affinities, handles, reservations, config, ..kubernetes })
    }

    /// Returns the VRFs that pools, blocks, claims and handles name, behind those who are in none.
    #[must_use]
    pub fn vrfs(&self) -> BTreeSet<Option<VrfName>> {
        let pools = self.pools.iter().filter_map(|pool| IpPool::try_from(pool).ok()?.vrf);
        let pools = pools.map(|vrf| Some(vrf.name));
        let blocks = self.blocks.iter().filter_map(|one| api::vrf_of(one).ok());
        let claims = self.affinities.iter().filter_map(|one| api::vrf_of(one).ok());
        let handles = self.handles.iter().filter_map(|one| api::vrf_of(one).ok());
        pools.chain(blocks).chain(claims).chain(handles).chain([None]).collect()
    }

    /// Returns all lists with nothing of other VRFs in them, and what cannot be told apart.
    fn of_vrf(&self, vrf: Option<&VrfName>) -> (Self, Complaints) {
        let mut complaints = Complaints::default();
        complaints.take_all(&self.blocks, api::vrf_of);
        complaints.take_all(&self.affinities, api::vrf_of);
        complaints.take_all(&self.handles, api::vrf_of);
        let mut part = self.clone();
        part.pools.retain(|pool| match IpPool::try_from(pool) {
            Ok(pool) => pool.vrf.map(|vrf| vrf.name).as_ref() == vrf,
            // Whose it is nobody knows, so that everybody is told.
            Err(_) => true,
        });
        part.blocks.retain(|one| is_of(one, vrf));
        part.affinities.retain(|one| is_of(one, vrf));
        part.handles.retain(|one| is_of(one, vrf));
        if vrf.is_some() {
            part.services.clear();
        }
        (part, complaints)
    }
}

impl Scene {
    /// Reads everything of a VRF, or of none, from the datastore.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub async fn read(client: &Client, vrf: Option<VrfName>) -> Result<Self, Error> {
        Ok(Self::of(&Box::pin(Lists::read(client)).await?, vrf, now()))
    }

    /// Reads everything from the datastore; returns those who are in no VRF, and then each VRF.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub async fn read_all(client: &Client) -> Result<Vec<Self>, Error> {
        let (lists, now) = (Box::pin(Lists::read(client)).await?, now());
        Ok(lists.vrfs().into_iter().map(|vrf| Self::of(&lists, vrf, now)).collect())
    }

    /// Makes values of the objects of a VRF, or of none.
    #[must_use]
    pub fn of(lists: &Lists, vrf: Option<VrfName>, now: WallTime) -> Self {
        let (lists, mut complaints) = lists.of_vrf(vrf.as_ref());
        let mut objects = BTreeMap::new();
        let config =
            lists.config.as_ref().and_then(|one| complaints.take(IpamConfig::try_from(one)));
        let mut pools = complaints.take_all(&lists.pools, |one| IpPool::try_from(one));
        pools.sort_by(|one, other| (one.cidr, &one.name).cmp(&(other.cidr, &other.name)));
        let reserved =
            complaints.take_all(&lists.reservations, api::IpReservation::ranges).concat();
        let mut snapshot = Snapshot { now, pools, ..Snapshot::default() };
        snapshot.config = config.unwrap_or_default();
        for object in lists.blocks {
            let value: Option<Block> = complaints.take(Block::try_from(&object));
            let Some(value) = value else { continue };
            snapshot.blocks.push(revisioned(value.clone(), &object.metadata));
            objects.insert(Key::Block(value.cidr), Stored::Block(Box::new(object)));
        }
        for object in lists.affinities {
            let value: Option<Affinity> = complaints.take(Affinity::try_from(&object));
            let Some(value) = value else { continue };
            snapshot.affinities.push(revisioned(value.clone(), &object.metadata));
            let key = Key::Affinity(value.owner, value.cidr);
            objects.insert(key, Stored::Affinity(Box::new(object)));
        }
        for object in lists.handles {
            let value: Option<Handle> = complaints.take(Handle::try_from(&object));
            let Some(value) = value else { continue };
            snapshot.handles.push(revisioned(value.clone(), &object.metadata));
            objects.insert(Key::Handle(value.id), Stored::Handle(Box::new(object)));
        }
        snapshot.blocks.retain(|block| !block.value.is_deleted);
        snapshot.affinities.retain(|affinity| !affinity.value.is_deleted);
        snapshot.handles.retain(|handle| !handle.value.is_deleted);
        note_pods(&lists.pods, vrf.as_ref(), &mut snapshot, &mut complaints);
        for node in &lists.nodes {
            note_node(node, &mut snapshot, &mut complaints);
        }
        if vrf.is_some() {
            // Tunnels are everybody's.
            snapshot.tunnels.clear();
        }
        snapshot.services =
            lists.services.iter().filter_map(|one| service_use(one, &mut complaints)).collect();
        Self { vrf, snapshot, objects, reserved, unreadable: complaints.0 }
    }

    /// Returns the blocks.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.snapshot.blocks.iter().map(|block| &block.value)
    }
}

/// What cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Vec<String>);

impl Complaints {
    pub(crate) fn into_texts(self) -> Vec<String> {
        self.0
    }

    pub(crate) fn extend(&mut self, texts: Vec<String>) {
        self.0.extend(texts);
    }

    pub(crate) fn take<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|error| self.0.push(error.to_string())).ok()
    }

    pub(crate) fn take_all<O: Object, T>(
        &mut self,
        objects: &[O],
        read: impl Fn(&O) -> Result<T, Invalid>,
    ) -> Vec<T> {
        objects.iter().filter_map(|object| self.take(read(object))).collect()
    }

    fn add(&mut self, object: &str, problem: impl Display) {
        self.0.push(format!("{object}: {problem}"));
    }
}

fn revisioned<T>(value: T, metadata: &ObjectMeta) -> Revisioned<T> {
    let created = metadata.creation_timestamp.as_ref();
    Revisioned {
        value,
        revision: metadata.resource_version.clone().unwrap_or_default(),
        created: created.map(|time| WallTime(time.0.as_nanosecond())),
    }
}

fn id(metadata: &ObjectMeta) -> NamespacedName {
    NamespacedName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// Notes the pods; those of another VRF only where a block of this one gave them an address, as
/// when somebody has changed their annotation since.
fn note_pods(
    pods: &[Pod],
    vrf: Option<&VrfName>,
    snapshot: &mut Snapshot,
    complaints: &mut Complaints,
) {
    let mut foreign = Vec::new();
    for pod in pods {
        let is_foreign = is_foreign(pod, vrf);
        let (pod, problems) = pod_use(pod);
        complaints.0.extend(problems);
        if is_foreign { foreign.push(pod) } else { snapshot.pods.push(pod) }
    }
    if foreign.is_empty() {
        return;
    }
    let mut held: BTreeSet<(NamespacedName, IpAddr)> = BTreeSet::new();
    for (one, _) in snapshot.blocks.iter().flat_map(|block| audit::allocations(&block.value)) {
        let fact = |key: &str| one.owner.get(key).cloned();
        if let (Some(namespace), Some(name)) = (fact("namespace"), fact("pod")) {
            held.insert((NamespacedName { namespace, name }, one.addr));
        }
    }
    for mut pod in foreign {
        pod.addrs.retain(|addr| held.contains(&(pod.pod.clone(), *addr)));
        if !pod.addrs.is_empty() {
            snapshot.pods.push(pod);
        } else if !pod.is_terminated {
            snapshot.elsewhere.occupied.extend(pod.node);
        }
    }
}

/// Is a pod in another VRF? One without any address may be about to get one in each.
pub(crate) fn is_foreign(pod: &Pod, vrf: Option<&VrfName>) -> bool {
    match kubernetes::vrf(pod) {
        Ok(None) => vrf.is_some() && kubernetes::pod_addrs(pod).is_ok_and(|it| !it.is_empty()),
        Ok(found) => found.as_ref() != vrf,
        Err(_) => false,
    }
}

/// Reads a pod; one whose addresses cannot be read still exists.
pub(crate) fn pod_use(pod: &Pod) -> (PodUse, Vec<String>) {
    let mut complaints = Complaints::default();
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    let is_of_host = spec.and_then(|spec| spec.host_network).unwrap_or_default();
    let addrs = if is_of_host { Vec::new() } else { addrs_of(pod, &mut complaints) };
    let pod = PodUse {
        pod: id(&pod.metadata),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        node: node.and_then(|node| node.parse().ok()),
        addrs,
        is_terminated: kubernetes::has_ended(pod),
    };
    (pod, complaints.0)
}

/// Returns what the status says, and what the CNI plugin wrote, which is there earlier.
fn addrs_of(pod: &Pod, complaints: &mut Complaints) -> Vec<IpAddr> {
    let mut addrs = complaints.take(kubernetes::pod_addrs(pod)).unwrap_or_default();
    let annotated = Pod { status: None, ..pod.clone() };
    addrs.extend(complaints.take(kubernetes::pod_addrs(&annotated)).unwrap_or_default());
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// Notes that a node exists, and the addresses of its tunnels.
pub(crate) fn note_node(object: &Node, snapshot: &mut Snapshot, complaints: &mut Complaints) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let parsed: NodeName = match name.parse() {
        Ok(parsed) => parsed,
        Err(error) => return complaints.add(&format!("Node {name}"), error),
    };
    snapshot.nodes.insert(parsed.clone());
    let keys = [
        annotations::NODE_IPIP,
        annotations::NODE_VXLAN_V4,
        annotations::NODE_VXLAN_V6,
        annotations::NODE_WIREGUARD_V4,
        annotations::NODE_WIREGUARD_V6,
    ];
    for key in keys {
        let annotations = object.metadata.annotations.as_ref();
        let Some(text) = annotations.and_then(|all| all.get(key)).filter(|text| !text.is_empty())
        else {
            continue;
        };
        match text.parse() {
            Ok(addr) => snapshot.tunnels.push(TunnelUse { node: parsed.clone(), addr }),
            Err(_) => complaints.add(
                &format!("Node {name}"),
                format!("annotation {key} `{text}` is no address: correct it"),
            ),
        }
    }
}

/// Reads a Service of type `LoadBalancer`; one whose addresses cannot be read still exists.
pub(crate) fn service_use(object: &Service, complaints: &mut Complaints) -> Option<ServiceUse> {
    let kind = object.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    if kind != Some("LoadBalancer") {
        return None;
    }
    let read = complaints.take(kubernetes::service(object));
    let read = read.filter(|read| read.kind == ServiceKind::LoadBalancer);
    let service = id(&object.metadata);
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    Some(ServiceUse {
        handle: HandleId(names::load_balancer_handle(&service.name, &service.namespace, uid)),
        addrs: read.map(|read| read.load_balancer_addrs).unwrap_or_default(),
        service,
    })
}
