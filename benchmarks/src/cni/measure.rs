//! The loads: pods attached and then detached, by the plugin and by the floor.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use api::{IpamBlock, IpamBlockSpec, IpamHandle, IpamHandleSpec};
use datastore::Filter;
use lab::Error;
use lab::control_plane::Identity;
use serde_json::json;

use super::floor::{Half, Task};
use super::plugin::Plugin;
use super::served::Served;
use super::trace::{self, Calls};
use super::world::{Pod, World, object};
use crate::load::{self, Outcome};

/// How many pods, and how many of them at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What to call it.
    pub(crate) name: &'static str,
    /// How many at any time.
    pub(crate) at_once: usize,
    /// How many in all.
    pub(crate) count: usize,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Attaching.
    pub(crate) add: Outcome,
    /// Detaching.
    pub(crate) del: Outcome,
    /// Round trips for attaching one more pod, while all these are attached.
    pub(crate) requests_for_one_more: Option<u64>,
    /// The plugin's own account of both.
    pub(crate) trace: BTreeMap<String, Calls>,
}

/// Attaches and detaches a few pods without a clock and returns the round trips of each half
/// for the last: the first ones find no block yet.
///
/// # Errors
///
/// [`Error::Wrong`] if a call fails, since then there is nothing to measure.
pub(crate) async fn count_requests(world: &World, bin: &Path) -> Result<[Option<u64>; 2], Error> {
    let pods = world.pods("first", 5).await?;
    let file = world.directory().join("first.trace");
    let kubeconfig = world.kubeconfig(Identity::CniPlugin);
    let plugin = Plugin::new(bin, &kubeconfig, "debug").traced(&file);
    for command in ["ADD", "DEL"] {
        for pod in &pods {
            plugin.call(command, pod).map_err(Error::wrong)?;
        }
    }
    let trace = read_trace(&file)?;
    Ok(["ADD", "DEL"].map(|command| trace.get(command).map(|calls| calls.requests_least)))
}

/// Puts `load` on the plugin, whose calls have `service` do what they want of the datastore.
///
/// # Errors
///
/// [`Error`] if it cannot be prepared; failing calls are part of what is measured.
pub(crate) async fn plugin(
    world: &World,
    bin: &Path,
    load: Load,
    service: Option<&Served>,
) -> Result<Measured, Error> {
    let suffix = if service.is_some() { "-s" } else { "" };
    let name = format!("{}{suffix}", load.name);
    let pods = world.pods(&name, load.count).await?;
    let file = world.directory().join(format!("{name}.trace"));
    let kubeconfig = world.kubeconfig(Identity::CniPlugin);
    let plugin = Plugin::new(bin, &kubeconfig, "info").traced(&file);
    let call = |command| {
        let before = service.map(Served::cpu);
        let work = |pod: &Pod| plugin.call(command, pod).map(drop);
        let mut outcome = load::run(&pods, load.at_once, work);
        if let (Some(service), Some(before)) = (service, before) {
            let used = service.cpu().saturating_sub(before).as_millis();
            let count = u128::try_from(load.count.max(1)).unwrap_or(u128::MAX);
            let each = used.checked_div(count).unwrap_or_default();
            let [programs, _] = &mut outcome.cpu_ms;
            *programs = programs.saturating_add(u64::try_from(each).unwrap_or(u64::MAX));
        }
        outcome
    };
    let add = call("ADD");
    let requests_for_one_more = one_more(world, bin, &name).await?;
    Ok(Measured { add, requests_for_one_more, del: call("DEL"), trace: read_trace(&file)? })
}

/// Attaches and detaches one more pod, and returns the round trips for attaching.
async fn one_more(world: &World, bin: &Path, name: &str) -> Result<Option<u64>, Error> {
    let name = format!("one-more-{name}");
    let (pods, file) = (world.pods(&name, 1).await?, world.directory().join(name));
    let plugin = Plugin::new(bin, &world.kubeconfig(Identity::CniPlugin), "debug").traced(&file);
    let [pod] = pods.as_slice() else { return Err(Error::wrong("a pod was expected")) };
    for command in ["ADD", "DEL"] {
        plugin.call(command, pod).map_err(Error::wrong)?;
    }
    Ok(read_trace(&file)?.get("ADD").map(|calls| calls.requests_least))
}

/// Puts `load` on the floor.
///
/// # Errors
///
/// [`Error`] if it cannot be prepared.
pub(crate) async fn floor(world: &World, load: Load) -> Result<Measured, Error> {
    let pods = world.pods(&format!("floor-{}", load.name), load.count).await?;
    let own = std::env::current_exe().map_err(Error::file(Path::new("/proc/self/exe")))?;
    let adds = tasks(world, &pods).await?;
    let run = |tasks: &[Task]| load::run(tasks, load.at_once, |task| carry_out(&own, task));
    let add = run(&adds);
    let dels = later(world, adds).await?;
    let del = run(&dels);
    forget(world, &dels).await?;
    Ok(Measured { add, requests_for_one_more: None, del, trace: BTreeMap::new() })
}

fn carry_out(own: &PathBuf, task: &Task) -> Result<(), String> {
    let stdin = serde_json::to_vec(task).map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    let child = load::start(command.arg("floor"), &stdin).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Makes the blocks and says what is to be done with them.
async fn tasks(world: &World, pods: &[Pod]) -> Result<Vec<Task>, Error> {
    let client = world.client()?;
    let mut tasks = Vec::new();
    for (pod, addr) in pods.iter().zip(u32::from(Ipv4Addr::new(198, 18, 0, 1))..) {
        let mut spec: IpamHandleSpec = object(json!({}))?;
        spec.handle_id = format!("k8s-pod-network.{}", pod.container_id);
        spec.block = BTreeMap::from([("198.18.0.0/26".to_owned(), 1)]);
        let block = client.create(&IpamBlock::named(&pod.name, half_full_block()?)).await?;
        tasks.push(Task {
            half: Half::Add,
            netns: pod.netns.clone(),
            host_name: format!("cali{addr:08x}"),
            addr: Ipv4Addr::from(addr),
            kubeconfig: world.kubeconfig(Identity::CniPlugin),
            pod: pod.name.clone(),
            handle: IpamHandle::named(&pod.name, spec),
            block,
        });
    }
    Ok(tasks)
}

/// Returns the tasks' second halves, with the objects as the first halves left them.
async fn later(world: &World, tasks: Vec<Task>) -> Result<Vec<Task>, Error> {
    let client = world.client()?;
    let blocks = client.list::<IpamBlock>(&Filter::default()).await?;
    let handles = client.list::<IpamHandle>(&Filter::default()).await?;
    let blocks: BTreeMap<_, _> =
        blocks.into_iter().map(|block| (block.name().to_owned(), block)).collect();
    let handles: BTreeMap<_, _> =
        handles.into_iter().map(|handle| (handle.name().to_owned(), handle)).collect();
    let second = |task: Task| {
        let block = blocks.get(&task.pod)?.clone();
        let handle = handles.get(&task.pod)?.clone();
        Some(Task { half: Half::Del, block, handle, ..task })
    };
    Ok(tasks.into_iter().filter_map(second).collect())
}

/// Deletes the blocks, which the plugins are not to see.
async fn forget(world: &World, tasks: &[Task]) -> Result<(), Error> {
    let client = world.client()?;
    for task in tasks {
        if let Some(block) = client.get::<IpamBlock>(&task.pod).await? {
            client.delete(&block).await?;
        }
    }
    Ok(())
}

/// Returns a block as it is in the middle of its life, which is how large the writes are.
fn half_full_block() -> Result<IpamBlockSpec, Error> {
    let attribute = |ordinal: i64| {
        json!({
            "handle_id": format!("k8s-pod-network.{ordinal:0>64x}"),
            "secondary": {"namespace": "default", "node": "bench-node",
                          "pod": format!("bench-{ordinal}"), "timestamp": "2026-01-01T00:00:00Z"},
        })
    };
    let allocations = (0..64_i64).map(|ordinal| (ordinal < 32).then_some(ordinal));
    object(json!({
        "cidr": "198.18.0.0/26",
        "affinity": "host:bench-node",
        "allocations": allocations.collect::<Vec<_>>(),
        "unallocated": (32..64_i64).collect::<Vec<_>>(),
        "attributes": (0..32).map(attribute).collect::<Vec<_>>(),
        "sequenceNumber": 32,
        "strictAffinity": false,
    }))
}

fn read_trace(path: &Path) -> Result<BTreeMap<String, Calls>, Error> {
    Ok(trace::summarise(&std::fs::read_to_string(path).map_err(Error::file(path))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floors_block_is_half_full() {
        let spec = half_full_block().unwrap();
        assert_eq!((spec.allocations.len(), spec.attributes.len()), (64, 32));
        assert_eq!(spec.unallocated.len(), 32);
    }
}
