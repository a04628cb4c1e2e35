//! Calls that fail at each step.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::node::Namespace;
use crate::common::{Call, finish};
use crate::{World, configure, succeeded};

pub(crate) async fn waits_until_the_datastore_is_open(world: &World) {
    let container = Namespace::new("c1");
    let before = world.node.state();
    world.fake.gives(&["10.65.0.5/26"]);
    let add = world.call("ADD", "c1", Some(&container));
    let mut status = world.call("STATUS", "c1", None);
    configure(&mut status, |config| config["cniVersion"] = json!("1.1.0"));
    let answer = add.run();
    assert_eq!(answer.code(), 113);
    assert!(answer.message().contains("there is no ClusterInformation"), "{answer:?}");
    assert_eq!(status.run().code(), 50);
    world.open_datastore().await;
    succeeded(status.run());
    world.fake.fails("STATUS");
    assert_eq!(status.run().code(), 50);
    world.fake.works("STATUS");
    let run = world.directory.path().join("run");
    std::fs::create_dir_all(&run).unwrap();
    let behind = r#"{"at": 1, "inSync": false, "since": 1, "reason": "waiting for Pools"}"#;
    std::fs::write(run.join("node-status.json"), behind).unwrap();
    let answer = status.run();
    assert_eq!(answer.code(), 51, "calico-node is away: {answer:?}");
    assert!(answer.message().contains("calico-node on this node was last heard of"), "{answer:?}");
    std::fs::remove_file(run.join("node-status.json")).unwrap();
    assert_eq!(world.fake.calls(), ["STATUS", "STATUS", "STATUS"]);
    let mut test = Command::new(env!("CARGO_BIN_EXE_calico"));
    test.arg("-t").env("KUBECONFIG", world.kubeconfig());
    assert!(test.status().unwrap().success());
    world.set_ready(false).await;
    let answer = add.run();
    assert_eq!(answer.code(), 114);
    assert!(answer.message().contains("datastoreReady"), "{answer:?}");
    assert_eq!(world.call("DEL", "c1", Some(&container)).run().code(), 114);
    assert_eq!(test.output().unwrap().status.code(), Some(1));
    assert!(world.fake.calls().is_empty());
    assert_eq!(world.node.state(), before);
    world.set_ready(true).await;
}

/// A way to make an ADD fail, the code, and what the IPAM plugin is asked.
type Failure = (&'static str, fn(&World, &mut Call), u64, &'static [&'static str]);

const FAILURES: [Failure; 9] = [
    ("the IPAM plugin is absent", |_, call| call.path = "/nonexistent".into(), 102, &[]),
    (
        "the IPAM plugin fails without a word",
        |world, _| world.fake.prints(""),
        102,
        &["ADD", "DEL"],
    ),
    (
        "the IPAM plugin has its own error",
        |world, _| {
            world.fake.fails("ADD");
            world.fake.prints(r#"{"code": 106, "msg": "full"}"#);
        },
        106,
        &["ADD", "DEL"],
    ),
    ("the IPAM plugin gives nothing", |world, _| world.fake.gives(&[]), 102, &["ADD", "DEL"]),
    (
        "the IPAM plugin gives too much",
        |world, _| world.fake.gives(&["10.65.0.5/26", "10.65.0.6/26"]),
        102,
        &["ADD", "DEL"],
    ),
    (
        "another interface has the route",
        |world, _| {
            world.node.ip("route add 10.65.0.5/32 dev uplink");
        },
        103,
        &["ADD", "DEL"],
    ),
    (
        "the MTU is impossible",
        |_, call| configure(call, |config| config["mtu"] = json!(1)),
        103,
        &["ADD", "DEL"],
    ),
    (
        "a route is wrong",
        |_, call| configure(call, |config| config["ipam"]["routes"] = json!([{"dst": "x"}])),
        7,
        &["ADD", "DEL"],
    ),
    (
        "the server is unreachable",
        |world, call| {
            let path = world.directory.path().join("wrong-kubeconfig");
            let right = std::fs::read_to_string(world.kubeconfig());
            let wrong = right.unwrap().replace("https://127.0.0.1:", "https://127.0.0.1:1/");
            std::fs::write(&path, wrong).unwrap();
            configure(call, |config| config["kubernetes"]["kubeconfig"] = json!(path));
        },
        112,
        &[],
    ),
];

pub(crate) fn leave_nothing_behind(world: &World) {
    for (what, arrange, code, calls) in FAILURES {
        let container = Namespace::new("c1");
        world.fake.works("ADD");
        world.fake.gives(&["10.65.0.5/26"]);
        let mut call = world.call("ADD", "c1", Some(&container));
        arrange(world, &mut call);
        let before = (world.node.state(), container.state());
        let answer = call.run();
        assert_eq!(answer.code(), code, "{what}: {answer:?}");
        assert_eq!((world.node.state(), container.state()), before, "{what}");
        // The addresses and the pair are begun at the same time, so that a failure of
        // one may come before or after the other.
        assert_eq!(world.fake.calls(), calls, "{what}");
        if what == "another interface has the route" {
            world.node.ip("route del 10.65.0.5/32 dev uplink");
        }
    }
    world.fake.works("ADD");
    let container = Namespace::new("c1");
    container.ip("link add eth0 type veth peer name eth1");
    let answer = world.call("ADD", "c1", Some(&container)).run();
    assert_eq!(answer.code(), 103, "{answer:?}");
    assert!(container.ip("link show eth0").contains("eth0"), "a foreign interface stays");
    world.fake.calls();
}

pub(crate) async fn of_the_last_step_leave_nothing_behind(world: &World) {
    world.make_pod("unwritable", json!({})).await;
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.12/26"]);
    let mut call = world.call_for_pod("ADD", "unwritable", "e1", Some(&container));
    let reader: Value = json!(world.readers_kubeconfig());
    configure(&mut call, |config| config["kubernetes"]["kubeconfig"] = reader);
    let before = (world.node.state(), container.state());
    let answer = call.run();
    assert_eq!(answer.code(), 110, "{answer:?}");
    assert_eq!((world.node.state(), container.state()), before);
    assert_eq!(world.fake.calls(), ["ADD", "DEL"]);
    assert_eq!(world.pod("unwritable").await.metadata.annotations, None);
    // The pod is written to while the kernel is at work, whose failure undoes that too.
    world.node.ip("route add 10.65.0.12/32 dev uplink");
    let answer = world.call_for_pod("ADD", "unwritable", "e1", Some(&container)).run();
    world.node.ip("route del 10.65.0.12/32 dev uplink");
    assert_eq!(answer.code(), 103, "{answer:?}");
    assert_eq!((world.node.state(), container.state()), before);
    assert_eq!(world.fake.calls(), ["ADD", "DEL"]);
    let annotations = world.pod("unwritable").await.metadata.annotations.unwrap();
    assert_eq!(annotations[api::annotations::POD_IP], "");
    assert_eq!(annotations[api::annotations::POD_IPS], "");
}

pub(crate) fn signals_leave_nothing_behind(world: &World) {
    let container = Namespace::new("c1");
    let before = (world.node.state(), container.state());
    let fifo = world.fake.directory.join("ADD.wait");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = world.call("ADD", "c1", Some(&container)).start();
    // Opening waits until the IPAM plugin runs.
    let started = Command::new("timeout").args(["60", "cat"]).arg(&fifo).output().unwrap();
    assert_eq!(started.stdout, b"started\n", "the IPAM plugin was not started");
    // The shell's own kill: the program is in a package that not every machine has.
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let answer = finish(child);
    std::fs::remove_file(fifo).unwrap();
    assert_eq!(answer.code(), 105, "{answer:?}");
    assert_eq!((world.node.state(), container.state()), before);
    assert_eq!(world.fake.calls(), ["ADD", "DEL"]);
}

pub(crate) async fn of_a_delete_do_not_stop_it(world: &World) {
    world.make_pod("stubborn", json!({})).await;
    let before = world.node.state();
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.13/26"]);
    succeeded(world.call_for_pod("ADD", "stubborn", "f1", Some(&container)).run());
    let mut del = world.call_for_pod("DEL", "stubborn", "f1", Some(&container));
    let right = del.clone();
    let reader: Value = json!(world.readers_kubeconfig());
    configure(&mut del, |config| config["kubernetes"]["kubeconfig"] = reader);
    world.fake.fails("DEL");
    let answer = del.run();
    assert_eq!(answer.code(), 110, "the first error is reported: {answer:?}");
    assert_eq!(world.node.state(), before, "the link is gone all the same");
    assert_eq!(world.fake.calls(), ["ADD", "DEL"], "the addresses were asked for all the same");
    assert_eq!(right.run().code(), 102);
    world.fake.works("DEL");
    succeeded(right.run());
    world.fake.calls();
}
