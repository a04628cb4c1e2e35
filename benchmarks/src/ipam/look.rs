//! Garbage collection's look at a very large cluster: time, memory, requests.
//!
//! The cluster is made up while it is read: a server of its own process answers the lists page by
//! page, since no API server on this machine would hold so much. The look runs in a process of its
//! own too, so that its memory is its alone.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use datastore::{Client, Options};
use http::Response;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipam::audit;
use lab::Error;
use ledger::Scene;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use crate::step;

/// How large the cluster is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) blocks_per_node: usize,
    pub(crate) addresses_per_block: usize,
}

/// What a look took.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Look {
    /// Addresses that pods hold.
    pub(crate) allocations: usize,
    /// In seconds.
    pub(crate) took_s: f64,
    /// The most memory that the process had, in MiB.
    pub(crate) peak_mib: u64,
    /// Requests to the API server.
    pub(crate) requests: u64,
    /// What was found wrong: one address in each thousandth block is lost.
    pub(crate) findings: usize,
}

/// Each block with a number that this divides has an address whose pod is gone.
const LOST_EVERY: usize = 1_000;
const BLOCK_SIZE: usize = 64;

impl Size {
    const fn blocks(self) -> usize {
        self.nodes.saturating_mul(self.blocks_per_node)
    }

    const fn allocations(self) -> usize {
        self.blocks().saturating_mul(self.addresses_per_block)
    }
}

/// Looks at a cluster of that size from a process of its own.
pub(crate) fn measure(directory: &Path, size: Size) -> Result<Look, Error> {
    let Size { nodes, blocks_per_node, addresses_per_block } = size;
    step(&format!(
        "a look at {nodes} nodes x {blocks_per_node} blocks x {addresses_per_block} addresses"
    ));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(Error::wrong)?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).map_err(Error::wrong)?;
    let addr = listener.local_addr().map_err(Error::wrong)?;
    runtime.spawn(serve(listener, size));
    let kubeconfig = directory.join("look.kubeconfig");
    std::fs::write(&kubeconfig, kubeconfig_text(addr)).map_err(Error::file(&kubeconfig))?;
    let program = std::env::current_exe().map_err(Error::file(directory))?;
    let child =
        Command::new(program).arg("look").arg(&kubeconfig).stderr(Stdio::inherit()).output();
    let output = child.map_err(|error| Error::program("look", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).map_err(|error| Error::wrong(format!("{error} in: {text}")))
}

/// Looks once, as calico-kube-controllers does, and prints what that took.
#[expect(clippy::print_stdout, reason = "whoever started this process reads it")]
pub(crate) fn run(kubeconfig: &Path) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let look = runtime.map_err(Error::wrong)?.block_on(async {
        let client = Client::connect(&Options::kubeconfig(kubeconfig)).map_err(Error::wrong)?;
        let started = Instant::now();
        let scene =
            Box::pin(Scene::screened(&client, None, &mut |_, _| {})).await.map_err(Error::wrong)?;
        let findings = audit::check(&scene.snapshot);
        let elsewhere = scene.snapshot.elsewhere.allocations;
        let here =
            scene.blocks().flat_map(|block| &block.allocations).filter(|slot| slot.is_some());
        Ok::<_, Error>(Look {
            allocations: elsewhere.saturating_add(here.count()),
            took_s: started.elapsed().as_secs_f64(),
            peak_mib: crate::memory::peak_kib(std::process::id())?
                .checked_div(1024)
                .unwrap_or_default(),
            requests: client.requests(),
            findings: findings.len(),
        })
    })?;
    println!("{}", serde_json::to_string(&look).map_err(Error::wrong)?);
    Ok(ExitCode::SUCCESS)
}

fn kubeconfig_text(addr: SocketAddr) -> String {
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "look",
        "clusters": [{"name": "look", "cluster": {"server": format!("http://{addr}")}}],
        "users": [{"name": "look", "user": {}}],
        "contexts": [{"name": "look", "context": {"cluster": "look", "user": "look"}}],
    });
    text.to_string()
}

async fn serve(listener: TcpListener, size: Size) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let service = service_fn(move |request| async move { answer(&request, size) });
            // A client that leaves is no failure of the measurement.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(request: &http::Request<Incoming>, size: Size) -> http::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().trim_end_matches('/');
    let query = request.uri().query().unwrap_or_default();
    let of_query = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let (from, limit) =
        (of_query("continue").unwrap_or(0), of_query("limit").unwrap_or(usize::MAX));
    let last = path.rsplit('/').next().unwrap_or_default();
    let (status, body) = match List::of(last, size) {
        Some(found) => (200, found.page(from, limit)),
        None => match single(path, size) {
            Some(object) => (200, object),
            None => (404, absent(last)),
        },
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(body)))
}

/// Says that there is no such object, as an API server does.
fn absent(name: &str) -> String {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{name} not found"), "details": {"name": name, "kind": "object"},
    });
    status.to_string()
}

/// A list that is made up page by page.
struct List {
    kind: &'static str,
    count: usize,
    item: Box<dyn Fn(usize) -> Option<String>>,
}

impl List {
    fn of(plural: &str, size: Size) -> Option<Self> {
        let all = |kind, count, item: Box<dyn Fn(usize) -> Option<String>>| {
            Some(Self { kind, count, item })
        };
        match plural {
            "ipamblocks" => {
                all("IPAMBlock", size.blocks(), Box::new(move |at| Some(block(at, size))))
            }
            "blockaffinities" => {
                all("BlockAffinity", size.blocks(), Box::new(move |at| Some(affinity(at, size))))
            }
            "ipamhandles" => {
                all("IPAMHandle", size.allocations(), Box::new(move |at| Some(handle(at, size))))
            }
            "pods" => all("Pod", size.allocations(), Box::new(move |at| pod(at, size))),
            "nodes" => all(
                "Node",
                size.nodes,
                Box::new(|at| Some(format!("{{\"metadata\":{{\"name\":\"node-{at}\"}}}}"))),
            ),
            "ippools" => all("IPPool", 1, Box::new(|_| Some(pool()))),
            "services" => all("Service", 0, Box::new(|_| None)),
            "ipreservations" => all("IPReservation", 0, Box::new(|_| None)),
            _ => None,
        }
    }

    fn page(&self, from: usize, limit: usize) -> String {
        let to = from.saturating_add(limit).min(self.count);
        let items: Vec<String> = (from..to).filter_map(|at| (self.item)(at)).collect();
        let next = if to < self.count { to.to_string() } else { String::new() };
        format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"1\",\
             \"continue\":\"{next}\"}},\"items\":[{}]}}",
            self.kind,
            items.join(",")
        )
    }
}

/// Answers for what is read by its name; what is lost is not there.
fn single(path: &str, size: Size) -> Option<String> {
    let mut parts = path.rsplit('/');
    let (name, plural) = (parts.next()?, parts.next()?);
    let number = |text: &str| text.rsplit('-').next()?.parse::<usize>().ok();
    match plural {
        "ipamblocks" => Some(block(number_of_block(name)?, size)),
        "blockaffinities" => {
            let cidr = name.strip_prefix("node-")?.split_once('-')?.1;
            Some(affinity(number_of_block(cidr)?, size))
        }
        "ipamhandles" => Some(handle(number(name)?, size)),
        "pods" => pod(number(name)?, size),
        _ => None,
    }
}

/// Returns the number of the block with an object's name, as in `10-0-1-64-26`.
fn number_of_block(name: &str) -> Option<usize> {
    let parts: Vec<u32> = name.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [a, b, c, d, _] = parts.as_slice() else { return None };
    let addr = u32::from(std::net::Ipv4Addr::new(
        u8::try_from(*a).ok()?,
        u8::try_from(*b).ok()?,
        u8::try_from(*c).ok()?,
        u8::try_from(*d).ok()?,
    ));
    usize::try_from(addr.checked_sub(FIRST)?).ok()?.checked_div(BLOCK_SIZE)
}

/// 10.0.0.0.
const FIRST: u32 = 0x0a00_0000;

fn address(block: usize, ordinal: usize) -> std::net::Ipv4Addr {
    let offset = block.saturating_mul(BLOCK_SIZE).saturating_add(ordinal);
    std::net::Ipv4Addr::from(FIRST.saturating_add(u32::try_from(offset).unwrap_or(u32::MAX)))
}

fn node_of(block: usize, size: Size) -> usize {
    block.checked_div(size.blocks_per_node).unwrap_or_default()
}

fn pool() -> String {
    "{\"metadata\":{\"name\":\"pool\"},\"spec\":{\"cidr\":\"10.0.0.0/8\",\"nodeSelector\":\"all()\"}}"
        .to_owned()
}

fn block(at: usize, size: Size) -> String {
    let node = node_of(at, size);
    let used = size.addresses_per_block;
    let mut attributes = String::new();
    for ordinal in 0..used {
        let pod = at.saturating_mul(used).saturating_add(ordinal);
        let comma = if ordinal == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            attributes,
            "{comma}{{\"handle_id\":\"k8s-pod-network.container-{pod}\",\"secondary\":\
             {{\"namespace\":\"shop\",\"pod\":\"pod-{pod}\",\"node\":\"node-{node}\",\
             \"timestamp\":\"2026-06-24 11:32:35.123456789 +0000 UTC\"}}}}"
        );
    }
    let list = |numbers: Vec<String>| numbers.join(",");
    let taken = (0..BLOCK_SIZE)
        .map(|ordinal| if ordinal < used { ordinal.to_string() } else { "null".to_owned() });
    let free = (used..BLOCK_SIZE).map(|ordinal| ordinal.to_string());
    let cidr = address(at, 0);
    format!(
        "{{\"metadata\":{{\"name\":\"{}-26\",\"resourceVersion\":\"1\"}},\"spec\":{{\"cidr\":\
         \"{cidr}/26\",\"affinity\":\"host:node-{node}\",\"strictAffinity\":false,\
         \"sequenceNumber\":1,\"allocations\":[{}],\"unallocated\":[{}],\"attributes\":[{attributes}]}}}}",
        cidr.to_string().replace('.', "-"),
        list(taken.collect()),
        list(free.collect()),
    )
}

fn affinity(at: usize, size: Size) -> String {
    let (node, cidr) = (node_of(at, size), address(at, 0));
    let name = cidr.to_string().replace('.', "-");
    format!(
        "{{\"metadata\":{{\"name\":\"node-{node}-{name}-26\",\"resourceVersion\":\"1\"}},\"spec\":\
         {{\"state\":\"confirmed\",\"node\":\"node-{node}\",\"type\":\"host\",\"cidr\":\"{cidr}/26\",\
         \"deleted\":\"false\"}}}}"
    )
}

fn handle(at: usize, size: Size) -> String {
    let block = at.checked_div(size.addresses_per_block).unwrap_or_default();
    format!(
        "{{\"metadata\":{{\"name\":\"k8s-pod-network.container-{at}\",\"resourceVersion\":\"1\"}},\
         \"spec\":{{\"handleID\":\"k8s-pod-network.container-{at}\",\"block\":{{\"{}/26\":1}},\
         \"deleted\":false}}}}",
        address(block, 0)
    )
}

/// Returns a pod as the server has it, but for what nobody reads; `None` for one that is lost.
fn pod(at: usize, size: Size) -> Option<String> {
    let used = size.addresses_per_block;
    let (block, ordinal) = (at.checked_div(used)?, at.checked_rem(used)?);
    if ordinal == 0 && block.checked_rem(LOST_EVERY)? == 0 {
        return None;
    }
    let (node, addr) = (node_of(block, size), address(block, ordinal));
    Some(format!(
        "{{\"metadata\":{{\"name\":\"pod-{at}\",\"namespace\":\"shop\",\"uid\":\"uid-{at}\",\
         \"labels\":{{\"app\":\"web\",\"pod-template-hash\":\"7d4b9\"}},\"annotations\":\
         {{\"cni.projectcalico.org/podIP\":\"{addr}/32\",\"cni.projectcalico.org/podIPs\":\
         \"{addr}/32\"}}}},\"spec\":{{\"nodeName\":\"node-{node}\",\"containers\":[{{\"name\":\"web\",\
         \"image\":\"registry.example/shop/web:1.2.3\"}}]}},\"status\":{{\"phase\":\"Running\",\
         \"podIP\":\"{addr}\",\"podIPs\":[{{\"ip\":\"{addr}\"}}]}}}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { nodes: 50, blocks_per_node: 20, addresses_per_block: 60 };

    #[test]
    fn what_is_made_up_is_consistent() {
        let object: api::IpamBlock = serde_json::from_str(&block(21, SIZE)).unwrap();
        let read = model::block::Block::try_from(&object).unwrap();
        assert_eq!(read.cidr.to_string(), "10.0.5.64/26");
        assert_eq!(number_of_block(object.name()), Some(21));
        assert_eq!(read.allocations.iter().flatten().count(), 60);
        let claim: api::BlockAffinity = serde_json::from_str(&affinity(21, SIZE)).unwrap();
        assert_eq!(claim.spec.node, "node-1");
        assert_eq!(
            single(&format!("/x/blockaffinities/{}", claim.name()), SIZE),
            Some(affinity(21, SIZE))
        );
        assert_eq!(pod(0, SIZE), None);
        assert!(pod(1, SIZE).unwrap().contains("10.0.0.1"));
        let list = List::of("ipamblocks", SIZE).unwrap();
        let page: serde_json::Value = serde_json::from_str(&list.page(998, 500)).unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 2);
        assert_eq!(page["metadata"]["continue"], "");
    }
}
