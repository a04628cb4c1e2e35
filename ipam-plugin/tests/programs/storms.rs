//! A node loses many containers and gets some, all at once, while the API server is slow: each
//! command ends after few repetitions, and what is alive has its address (R13).
//!
//! `IPAM_STORM=200,50,2000` is that of the report: containers that end, that start, and how many
//! milliseconds each request takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lab::control_plane::{Identity, Kind};
use lab::proxy::{Fate, Proxy};
use serde_json::{Value, json};

use super::{Datastore, addr, call, holders};

const OBJECTS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.244.0.0/20, nodeSelector: all()}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
";

/// How often a runtime has to repeat one command, at most.
const REPETITIONS: usize = 5;

#[test]
fn a_storm_ends_and_leaves_what_is_alive() {
    let [ending, starting, late] = extent();
    let directory = tempfile::tempdir().unwrap();
    let store = Datastore::start(Kind::Kubernetes, directory.path(), OBJECTS);
    let kubeconfig = store.plane.kubeconfig(Identity::CniPlugin);
    let proxy = Proxy::open(&kubeconfig, "127.0.0.1:0".parse().unwrap()).unwrap();
    let way = directory.path().join("proxy.kubeconfig");
    proxy.write_kubeconfig(&way).unwrap();
    let config = store.config("node-1", &json!({"kubernetes": {"kubeconfig": way}}));
    let old: Vec<String> = (0..ending).map(|number| format!("old-{number}")).collect();
    let new: Vec<String> = (0..starting).map(|number| format!("new-{number}")).collect();
    for container in &old {
        call("ADD", container, &config).unwrap();
    }
    proxy.judge(move |_| Fate::IsLate(Duration::from_millis(late as u64)));
    let started: BTreeMap<String, String> = std::thread::scope(|scope| {
        let ends: Vec<_> =
            old.iter().map(|container| scope.spawn(|| insist("DEL", container, &config))).collect();
        let starts = new.iter().map(|container| scope.spawn(|| start(container, &config)));
        let starts: Vec<_> = starts.collect();
        for end in ends {
            end.join().unwrap();
        }
        let started = starts.into_iter().map(|start| start.join().unwrap());
        new.iter().cloned().zip(started).collect()
    });
    proxy.judge(|_| Fate::Passes);
    let handles = |containers: &BTreeMap<String, String>| -> BTreeSet<(String, String)> {
        containers.iter().map(|(name, addr)| (format!("net.{name}"), addr.clone())).collect()
    };
    let taken: BTreeSet<(String, String)> = store
        .blocks()
        .iter()
        .flat_map(|block| holders(block).into_iter().map(|(addr, (handle, _))| (handle, addr)))
        .collect();
    assert_eq!(taken, handles(&started));
    // A runtime that is not sure asks once more, also for what never was.
    for container in old.iter().take(3).map(String::as_str).chain(["never"]) {
        call("DEL", container, &config).unwrap();
    }
    assert_eq!(store.api.list::<api::IpamHandle>().unwrap().len(), starting);
}

/// Starts a container as a runtime does, and returns its address: what fails is taken back first.
fn start(container: &str, config: &Value) -> String {
    for _ in 0..REPETITIONS {
        match call("ADD", container, config) {
            Ok(answer) => return addr(&answer),
            Err(error) => require_words(&error),
        }
        insist("DEL", container, config);
    }
    panic!("{container} does not start");
}

fn insist(command: &str, container: &str, config: &Value) {
    for _ in 0..REPETITIONS {
        match call(command, container, config) {
            Ok(_) => return,
            Err(error) => require_words(&error),
        }
    }
    panic!("{command} of {container} fails again and again");
}

/// A command that gives up says why.
fn require_words(error: &Value) {
    assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
}

/// Returns how many containers end, how many start, and for how long each request waits, in ms.
fn extent() -> [usize; 3] {
    let asked = std::env::var("IPAM_STORM").unwrap_or_default();
    let asked: Vec<usize> = asked.split(',').filter_map(|word| word.parse().ok()).collect();
    asked.try_into().unwrap_or([24, 6, 50])
}
