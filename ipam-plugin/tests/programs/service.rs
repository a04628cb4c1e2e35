//! calico-node's side of an ADD and a DEL: many at a time, beside others, and for whom.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cni_service::facts::Subject;
use cni_service::listen::{self, Credentials};
use cni_service::wire::GREETING;
use cni_service::{FileId, Question, Request, Service};
use datastore::{Client, Options};
use futures::future::{join, join_all};
use ipam::Selectors;
use lab::control_plane::{Identity, Kind};
use lab::proxy::{Fate, Passing, Proxy};
use ledger::{Desk, Driver, HostLock, Order, Wanted};
use model::id::HandleId;
use model::net::Family;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use telemetry::metrics::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{Datastore, holders};

/// A pool with four blocks of 64 addresses, a pod, and the node.
const CLUSTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: all}
spec: {cidr: 10.66.0.0/24, blockSize: 26, nodeSelector: all()}
---
apiVersion: v1
kind: Node
metadata: {name: node-0}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: default}
spec: {nodeName: node-0, containers: [{name: c, image: none}]}
";

struct World {
    datastore: Datastore,
    kubeconfig: PathBuf,
    socket: PathBuf,
    text: watch::Sender<Option<SecretString>>,
    registry: Registry,
}

impl World {
    /// Starts an API server, and a service with a kubeconfig of its own.
    async fn start(directory: &Path, kind: Kind) -> Self {
        let path = directory.to_owned();
        let starting = move || Datastore::start(kind, &path, CLUSTER);
        let datastore = tokio::task::spawn_blocking(starting).await.unwrap();
        let given = datastore.plane.kubeconfig(Identity::CniPlugin);
        let text = SecretString::from(std::fs::read_to_string(given).unwrap());
        let kubeconfig = directory.join("calico-kubeconfig");
        std::fs::write(&kubeconfig, text.expose_secret()).unwrap();
        let socket = directory.join("cni.sock");
        let world = Self {
            datastore,
            kubeconfig,
            socket,
            text: watch::Sender::new(Some(text)),
            registry: Registry::new(),
        };
        world.listen();
        world
    }

    fn listen(&self) {
        let is_in_place = |path: &Path, text: &SecretString| {
            let found = std::fs::read_to_string(path);
            found.is_ok_and(|found| found == text.expose_secret())
        };
        let (path, text) = (self.kubeconfig.clone(), self.text.subscribe());
        let credentials = Credentials { path, text, is_in_place };
        let listener = UnixListener::bind(&self.socket).unwrap();
        let registry = self.registry.clone();
        tokio::spawn(async move {
            let node = "node-0".parse().unwrap();
            listen::run(listener, node, credentials, &registry).await;
        });
    }

    async fn service(&self) -> Service {
        let node = "node-0".parse().unwrap();
        Service::open(&self.socket, &self.kubeconfig, &node).await.unwrap()
    }

    fn client(&self) -> Client {
        let kubeconfig = self.datastore.plane.kubeconfig(Identity::CniPlugin);
        Client::connect(&Options::kubeconfig(&kubeconfig)).unwrap()
    }

    /// Opens a way to the server on which things get lost, and writes a kubeconfig for it.
    async fn proxy(&self, kubeconfig: &Path) -> Proxy {
        let given = self.datastore.plane.kubeconfig(Identity::CniPlugin);
        let path = kubeconfig.to_owned();
        let opening = move || {
            let proxy = Proxy::open(&given, "127.0.0.1:0".parse().unwrap()).unwrap();
            proxy.write_kubeconfig(&path).unwrap();
            proxy
        };
        tokio::task::spawn_blocking(opening).await.unwrap()
    }

    /// Returns the handles that hold addresses, and how many blocks there are.
    fn held(&self) -> (BTreeSet<String>, usize) {
        tokio::task::block_in_place(|| {
            let blocks = self.datastore.blocks();
            let held = blocks.iter().flat_map(|block| holders(block).into_values());
            (held.map(|(handle, _)| handle).collect(), blocks.len())
        })
    }

    fn counted(&self, request: &str, outcome: &str) -> bool {
        let labels = format!("{{request=\"{request}\",outcome=\"{outcome}\"}}");
        self.registry.encode().contains(&labels)
    }
}

fn order(container: &str) -> Order {
    Order {
        node: "node-0".parse().unwrap(),
        namespace: None,
        vrf: None,
        handle: HandleId(container.to_owned()),
        owner: [("node".to_owned(), "node-0".to_owned())].into(),
        wanted: vec![Wanted::Any(Family::V4, Vec::new())],
        selectors: Selectors::OfRequestedIgnored,
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

async fn assigned(client: &Client, desk: &Desk, container: &str) -> IpAddr {
    let mut driver = Driver::at_desk(client.clone(), desk.clone());
    Box::pin(ledger::assign(&mut driver, &order(container))).await.unwrap()[0].addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_are_read_and_written_together() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    let (client, desk) = (world.client().with_joint_reads(), Desk::default());
    let containers = names("c", 100);
    let before = client.requests();
    let all = containers.iter().map(|container| assigned(&client, &desk, container));
    let addrs: BTreeSet<IpAddr> = join_all(all).await.into_iter().collect();
    assert_eq!(addrs.len(), 100, "no address is given twice");
    let requests = client.requests() - before;
    // A hundred handles; what is left is shared, the more the slower the server is. One by one it
    // would be 1,100.
    assert!(requests < 400, "{requests} requests for a hundred addresses");
    let (held, blocks) = world.held();
    assert_eq!((held.len(), blocks), (100, 2), "no more blocks than are needed");
    let before = client.requests();
    let release = |container: &String| {
        let mut driver = Driver::at_desk(client.clone(), desk.clone());
        let handle = HandleId(container.clone());
        async move { ledger::release(&mut driver, &[handle]).await.unwrap() }
    };
    let released = join_all(containers.iter().map(release)).await;
    assert_eq!(released.into_iter().flatten().collect::<BTreeSet<_>>(), addrs);
    // Each handle is read and deleted; one by one it would be 600.
    let requests = client.requests() - before;
    assert!(requests < 400, "{requests} requests for giving a hundred addresses back");
    assert_eq!(world.held().0, BTreeSet::new());
    let handles = tokio::task::block_in_place(|| world.datastore.api.list::<api::IpamHandle>());
    assert_eq!(handles.unwrap().len(), 0, "handles are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_meanwhile_is_not_lost() {
    for kind in [Kind::Embedded, Kind::Kubernetes] {
        let directory = tempfile::tempdir().unwrap();
        let world = World::start(directory.path(), kind).await;
        let (client, desk) = (world.client().with_joint_reads(), Desk::default());
        let (together, alone) = (names("t", 60), names("a", 30));
        let at_desk = together.iter().map(|container| assigned(&client, &desk, container));
        let other = world.client();
        let one_by_one = async {
            let mut addrs = Vec::new();
            for container in &alone {
                let mut driver = Driver::new(other.clone(), HostLock::none());
                let got = Box::pin(ledger::assign(&mut driver, &order(container))).await.unwrap();
                addrs.push(got[0].addr);
                if addrs.len() % 3 == 0 {
                    let handle = HandleId(container.clone());
                    let mut driver = Driver::new(other.clone(), HostLock::none());
                    ledger::release(&mut driver, &[handle]).await.unwrap();
                }
            }
        };
        let (addrs, ()) = join(join_all(at_desk), one_by_one).await;
        let addrs: BTreeSet<IpAddr> = addrs.into_iter().collect();
        assert_eq!(addrs.len(), 60);
        let (held, _) = world.held();
        let kept = alone.iter().enumerate().filter(|(number, _)| number % 3 != 2);
        let expected = together.iter().chain(kept.map(|(_, name)| name)).cloned().collect();
        assert_eq!(held, expected, "{kind:?}");
    }
}

/// Every second write of a block is lost, or its answer is: what was carried together fails together,
/// and whoever repeats it finds what was done.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_lost_to_all_and_costs_no_address() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    let lossy = directory.path().join("lossy.kubeconfig");
    let proxy = world.proxy(&lossy).await;
    let mut writes = 0;
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    proxy.judge(move |Passing { method, path }| {
        if *method != http::Method::PUT || !path.contains("/ipamblocks/") {
            return Fate::Passes;
        }
        writes += 1;
        if writes % 2 != 0 {
            // So that many come together.
            return Fate::IsLate(Duration::from_millis(20));
        }
        counted.fetch_add(1, Ordering::Relaxed);
        if writes % 4 == 0 { Fate::LosesAnswer } else { Fate::IsLost }
    });
    let client = Client::connect(&Options::kubeconfig(&lossy)).unwrap().with_joint_reads();
    let desk = Desk::default();
    let containers = names("c", 60);
    let insist = |container: &String| {
        let (client, desk, order) = (client.clone(), desk.clone(), order(container));
        async move {
            for _ in 0..50 {
                let mut driver = Driver::at_desk(client.clone(), desk.clone());
                if let Ok(got) = Box::pin(ledger::assign(&mut driver, &order)).await {
                    return got[0].addr;
                }
            }
            panic!("{} gets no address", order.handle);
        }
    };
    let addrs = join_all(containers.iter().map(insist)).await;
    assert_eq!(addrs.into_iter().collect::<BTreeSet<IpAddr>>().len(), 60);
    assert_eq!(world.held().0, containers.iter().cloned().collect());
    let give_back = |container: &String| {
        let (client, desk) = (client.clone(), desk.clone());
        let handle = [HandleId(container.clone())];
        async move {
            for _ in 0..50 {
                let mut driver = Driver::at_desk(client.clone(), desk.clone());
                if ledger::release(&mut driver, &handle).await.is_ok() {
                    return;
                }
            }
            panic!("{} is not given back", handle[0]);
        }
    };
    join_all(containers.iter().map(give_back)).await;
    assert_eq!(world.held().0, BTreeSet::new());
    let handles = tokio::task::block_in_place(|| world.datastore.api.list::<api::IpamHandle>());
    assert_eq!(handles.unwrap().len(), 0, "handles are left");
    let lost = lost.load(Ordering::Relaxed);
    assert!(lost >= 2, "{lost} writes were lost: too few to prove anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_has_its_work_done() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    let service = world.service().await;
    let pod = Some(("default".to_owned(), "cart-1".to_owned()));
    let subject =
        Subject { pod, namespace: None, node: Some("node-0".to_owned()), gets_addrs: true };
    let facts = service.read(subject.clone()).await.unwrap();
    assert_eq!(facts.cluster.unwrap().spec.datastore_ready, Some(true));
    assert_eq!(facts.node.unwrap().metadata.name.as_deref(), Some("node-0"));
    let pod = facts.pod.unwrap();
    assert_eq!(pod.metadata.name.as_deref(), Some("cart-1"));
    let got = service.assign(&order("c")).await.unwrap().unwrap();
    assert_eq!(service.assign(&order("c")).await.unwrap().unwrap(), got, "a repeated ADD");
    let annotations = json!({"cni.projectcalico.org/podIP": "10.66.0.0/32"});
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "annotations": annotations}});
    service.annotate(("default", "cart-1"), &patch).await.unwrap();
    let pod = service.read(subject).await.unwrap().pod.unwrap();
    assert_eq!(pod.metadata.annotations.unwrap()["cni.projectcalico.org/podIP"], "10.66.0.0/32");
    let other = json!({"metadata": {"annotations": {"a": "b"}}});
    assert_eq!(service.annotate(("default", "cart-1"), &other).await, None, "not a plugin's");
    service.release(&[HandleId("c".to_owned())]).await.unwrap();
    assert_eq!(world.held().0, BTreeSet::new());
    assert!(world.counted("assign", "done") && world.counted("release", "done"));
    // What cannot be done is the plugin's to do, and to tell of; the conversation goes on.
    let mut impossible = order("d");
    impossible.wanted = vec![Wanted::This("10.99.0.1".parse().unwrap())];
    assert_eq!(service.assign(&impossible).await, Ok(None));
    assert!(world.counted("assign", "failed"));
    assert!(service.read(Subject::default()).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_for_other_nodes_and_files() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    let other = "node-1".parse().unwrap();
    let service = Service::open(&world.socket, &world.kubeconfig, &other).await.unwrap();
    assert!(service.read(Subject::default()).await.is_none(), "another node");
    let copy = directory.path().join("copy");
    std::fs::copy(&world.kubeconfig, &copy).unwrap();
    let node = "node-0".parse().unwrap();
    let service = Service::open(&world.socket, &copy, &node).await.unwrap();
    assert!(service.read(Subject::default()).await.is_none(), "another file");
    let service = world.service().await;
    assert!(service.read(Subject::default()).await.is_some());
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    std::fs::write(&world.kubeconfig, "token: wrong").unwrap();
    assert!(service.read(Subject::default()).await.is_none(), "a file that was changed");
    std::fs::write(&world.kubeconfig, text).unwrap();
    assert!(service.read(Subject::default()).await.is_some());
    std::fs::remove_file(&world.kubeconfig).unwrap();
    assert!(service.read(Subject::default()).await.is_none(), "no file");
    assert!(Service::open(&world.socket, &world.kubeconfig, &node).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_credentials_are_used_from_the_next_call_on() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    let old = world.service().await;
    assert!(old.read(Subject::default()).await.is_some());
    // The same credentials in other words: only what is written now counts.
    let text = format!("{}\n# renewed\n", std::fs::read_to_string(&world.kubeconfig).unwrap());
    std::fs::write(&world.kubeconfig, &text).unwrap();
    world.text.send_replace(Some(SecretString::from(text)));
    assert!(old.read(Subject::default()).await.is_none(), "the conversation is of before");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while world.service().await.read(Subject::default()).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "new credentials are not used");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.text.send_replace(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    let credentials = FileId::of(&world.kubeconfig).unwrap();
    let request = Request::Assign((&order("killed")).into());
    let question = Question { node: "node-0".to_owned(), credentials, request };
    let line = serde_json::to_string(&question).unwrap() + "\n";
    for millis in 0..20 {
        asked_and_gone(&world, &line, millis).await;
        // A DEL that comes at once waits for the ADD that it is to undo.
        world.service().await.release(&[HandleId("killed".to_owned())]).await.unwrap();
        assert_eq!(world.held().0, BTreeSet::new(), "after {millis} ms");
    }
    assert!(world.counted("assign", "done"), "nobody was killed late enough");
    for millis in 0..20 {
        asked_and_gone(&world, &line, millis).await;
        // A runtime that repeats the ADD without a DEL is told an address that stays its own.
        let got = world.service().await.assign(&order("killed")).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let held = world.held().0;
        assert_eq!(held, BTreeSet::from(["killed".to_owned()]), "{got:?} after {millis} ms");
        world.service().await.release(&[HandleId("killed".to_owned())]).await.unwrap();
    }
}

/// Asks something, and is killed so many milliseconds later.
async fn asked_and_gone(world: &World, line: &str, millis: u64) {
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    stream.write_all(line.as_bytes()).await.unwrap();
    // Not to wait for something: the time until the fault.
    tokio::time::sleep(Duration::from_millis(millis)).await;
    drop(stream);
}

#[tokio::test]
async fn who_does_not_greet_is_not_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, kubeconfig) = (directory.path().join("s"), directory.path().join("k"));
    std::fs::write(&kubeconfig, "").unwrap();
    let node = "node-0".parse().unwrap();
    assert!(Service::open(&socket, &kubeconfig, &node).await.is_none(), "nobody listens");
    let listener = UnixListener::bind(&socket).unwrap();
    let before = std::time::Instant::now();
    assert!(Service::open(&socket, &kubeconfig, &node).await.is_none(), "it hangs");
    assert!(before.elapsed() < Duration::from_secs(30));
    let greeting = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The one that was given up, and the one that is still to come.
        let _ = stream.write_all(b"BIRD 2.0 ready.\n").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"BIRD 2.0 ready.\n").await.unwrap();
    };
    let (opened, ()) = join(Service::open(&socket, &kubeconfig, &node), greeting).await;
    assert!(opened.is_none(), "it is somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_a_conversation_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path(), Kind::Embedded).await;
    std::fs::set_permissions(&world.socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    let long = vec![b'x'; 5 << 20];
    for nonsense in ["\n", "{}\n", "[1]\n", "{\"node\":\"node-0\"}\n", "\u{0}\n", "no newline"] {
        nothing_said(&world, nonsense.as_bytes()).await;
    }
    nothing_said(&world, &long).await;
    assert!(world.service().await.read(Subject::default()).await.is_some());
}

/// Says something and hears nothing but a greeting and the end.
async fn nothing_said(world: &World, said: &[u8]) {
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    // The other side may hang up before it has read everything.
    let _ = stream.write_all(said).await;
    let _ = stream.shutdown().await;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    assert_eq!(heard, GREETING, "{:?}", String::from_utf8_lossy(&said[..said.len().min(40)]));
}
