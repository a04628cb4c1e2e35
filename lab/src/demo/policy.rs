//! Policy, shown: a tiered set of policies step by step, who reaches whom after each, and why.

use std::time::Instant;

use super::{Afterwards, keep_hints, print};
use crate::Error;
use crate::cluster::Cluster;
use crate::control_plane::{Identity, Kind, root};
use crate::policy::case::Case;
use crate::policy::cell::Passing;
use crate::policy::{judge, world};
use crate::sandbox::Inside;

/// What is explained at the end: a packet that is dropped, and by whom.
const QUESTION: [&str; 3] = ["green/web", "blue/db", "tcp/80"];

/// Runs the demonstration.
///
/// # Errors
///
/// The step that failed, or the cells in which packets are not as a step says.
pub fn run(inside: &mut Inside, kind: Kind, afterwards: Afterwards) -> Result<(), Error> {
    let started = Instant::now();
    let cluster = world::up(&inside.dir, kind)?;
    let path = root().join("lab/scenarios/policy/demo.yaml");
    let steps = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    // The lines of a step hold on in those that follow, until others say otherwise.
    let (mut so_far, mut policies) = (Vec::new(), 0_usize);
    for step in Case::read_all(&world::with_addrs(&steps, &cluster))? {
        print(&format!("\n[{:6.2} s] {}", started.elapsed().as_secs_f32(), step.name));
        for object in step.objects()? {
            print(&format!("  + {}", described(&object)));
            cluster.api.create_any(&object)?;
        }
        policies = policies.saturating_add(step.policies()?);
        so_far.extend(step.expect.iter().cloned());
        let expected = Case { expect: so_far.clone(), ..step }.expected()?;
        judge::wait_policies(&cluster, policies)?;
        judge::require_packets(&cluster, &expected)?;
        print(&matrix(&expected));
    }
    let [from, to, traffic] = QUESTION;
    print(&format!("calico-node why {from} {to} {traffic}\n{}", why(&cluster)?));
    print(&format!(
        "after each step all {} cells are as it says, by packets; {:.1} s after the start",
        world::cells().len(),
        started.elapsed().as_secs_f32()
    ));
    if afterwards == Afterwards::Keep {
        print(&keep_hints(inside, &cluster)?);
        inside.keep()?;
    }
    Ok(())
}

/// Names an object in a few words.
fn described(object: &serde_json::Value) -> String {
    let word = |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str);
    let namespace = word("/metadata/namespace").map(|name| format!("{name}/")).unwrap_or_default();
    let name = word("/metadata/name").unwrap_or_default();
    format!("{} {namespace}{name}", word("/kind").unwrap_or_default())
}

/// Draws a row per pod: `#` where all ways lead to the target, `+` where some do, `.` where none.
fn matrix(passing: &Passing) -> String {
    let cells = world::cells();
    let mut names: Vec<&str> = cells.iter().map(|cell| cell.from.as_str()).collect();
    names.dedup();
    let sign = |from: &str, to: &str| {
        let mut ways = cells.iter().filter(|cell| cell.from == from && cell.to == to);
        let passes = ways.clone().filter(|cell| passing.contains(*cell)).count();
        match passes {
            _ if from == to => ' ',
            0 => '.',
            _ if ways.all(|cell| passing.contains(cell)) => '#',
            _ => '+',
        }
    };
    let head = names.iter().map(|name| format!("{name:>11}")).collect::<Vec<_>>().concat();
    let row = |from: &&str| {
        let signs = names.iter().map(|to| format!("{:>11}", sign(from, to)));
        format!("\n{from:<11}{}", signs.collect::<Vec<_>>().concat())
    };
    let rows = names.iter().map(row).collect::<Vec<_>>().concat();
    format!("{:11}{head}{rows}", "from / to")
}

/// Asks a node's own program what becomes of a packet.
fn why(cluster: &Cluster) -> Result<String, Error> {
    let node = cluster.node("node-1")?;
    let kubeconfig = cluster.control_plane.kubeconfig(Identity::Node);
    let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
    let program = cluster.program("calico-node");
    let [from, to, traffic] = QUESTION;
    node.run(&[
        "env",
        &kubeconfig,
        "NODENAME=node-1",
        "DATASTORE_TYPE=kubernetes",
        &program,
        "why",
        from,
        to,
        traffic,
    ])
}
