//! Pods: what is read from them and written to them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::common::node::Namespace;
use crate::{World, configure, succeeded};

fn annotation(pod: &Pod, name: &str) -> Option<String> {
    let name = format!("cni.projectcalico.org/{name}");
    pod.metadata.annotations.as_ref().and_then(|all| all.get(&name).cloned())
}

fn last_trace(world: &World) -> Value {
    let trace = std::fs::read_to_string(world.trace_file()).unwrap();
    serde_json::from_str(trace.lines().last().unwrap()).unwrap()
}

pub(crate) async fn writes_who_holds_the_addresses(world: &World) {
    world.make_pod("web-0", json!({"mine": "stays"})).await;
    let before = world.node.state();
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.7/26", "fd00:65::7/122"]);
    let add = world.call_for_pod("ADD", "web-0", "a1", Some(&container));
    let result = succeeded(add.run());
    // ClusterInformation, Pod, Namespace and the annotations: four round trips.
    let trace = last_trace(world);
    assert_eq!((&trace["command"], &trace["requests"]), (&json!("ADD"), &json!(4)), "{trace}");
    let pod = world.pod("web-0").await;
    assert_eq!(annotation(&pod, "podIP").as_deref(), Some("10.65.0.7/32"));
    assert_eq!(annotation(&pod, "podIPs").as_deref(), Some("10.65.0.7/32,fd00:65::7/128"));
    assert_eq!(annotation(&pod, "containerID").as_deref(), Some("a1"));
    assert_eq!(pod.metadata.annotations.unwrap()["mine"], "stays");
    let host_name = result["interfaces"][0]["name"].as_str().unwrap();
    let expected = api::names::host_veth_name("default", "web-0", "cali").unwrap();
    assert_eq!(host_name, expected.as_str());
    assert_eq!(succeeded(add.run()), result, "an ADD of the same container again");
    assert_eq!(world.fake.calls(), ["ADD"]);
    let del = world.call_for_pod("DEL", "web-0", "a1", Some(&container));
    succeeded(del.run());
    assert_eq!(last_trace(world)["requests"], json!(3));
    let pod = world.pod("web-0").await;
    assert_eq!(annotation(&pod, "podIP").as_deref(), Some(""));
    assert_eq!(annotation(&pod, "podIPs").as_deref(), Some(""));
    succeeded(del.run());
    assert_eq!(world.node.state(), before);
    assert_eq!(world.fake.calls(), ["DEL", "DEL"]);
}

pub(crate) async fn follows_annotations(world: &World) {
    let wishes = json!({
        "cni.projectcalico.org/hwAddr": "02:00:00:00:00:42",
        "cni.projectcalico.org/ipv4pools": "[\"blue\"]",
        "cni.projectcalico.org/ipAddrsNoIpam": "[\"10.99.0.9\"]",
    });
    world.make_pod("wish", wishes).await;
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.8/26"]);
    let mut add = world.call_for_pod("ADD", "wish", "b1", Some(&container));
    let refused = add.run();
    assert!(refused.stderr.contains("ipAddrsNoIpam` is ignored"), "{refused:?}");
    let result = succeeded(refused);
    assert_eq!(result["interfaces"][1]["mac"], json!("02:00:00:00:00:42"));
    assert_eq!(world.fake.stdin("ADD")["ipam"]["ipv4_pools"], json!(["blue"]));
    succeeded(world.call_for_pod("DEL", "wish", "b1", Some(&container)).run());
    world.fake.calls();
    configure(&mut add, |config| config["feature_control"] = json!({"ip_addrs_no_ipam": true}));
    let result = succeeded(add.run());
    assert_eq!(result["ips"][0]["address"], json!("10.99.0.9/32"));
    assert!(world.fake.calls().is_empty());
    succeeded(world.call_for_pod("DEL", "wish", "b1", Some(&container)).run());
    world.fake.calls();
    world.make_pod("wrong", json!({"cni.projectcalico.org/hwAddr": "x"})).await;
    let answer = world.call_for_pod("ADD", "wrong", "b2", Some(&container)).run();
    assert_eq!(answer.code(), 7, "{answer:?}");
}

pub(crate) async fn leaves_newer_containers_alone(world: &World) {
    world.make_pod("web-1", json!({})).await;
    let (old, new) = (Namespace::new("c1"), Namespace::new("c2"));
    world.fake.gives(&["10.65.0.9/26"]);
    succeeded(world.call_for_pod("ADD", "web-1", "old", Some(&old)).run());
    world.fake.gives(&["10.65.0.10/26"]);
    succeeded(world.call_for_pod("ADD", "web-1", "new", Some(&new)).run());
    let before = world.node.state();
    for netns in [Some(&old), None] {
        succeeded(world.call_for_pod("DEL", "web-1", "old", netns).run());
        assert_eq!(world.node.state(), before);
        let pod = world.pod("web-1").await;
        assert_eq!(annotation(&pod, "podIP").as_deref(), Some("10.65.0.10/32"));
    }
    succeeded(world.call_for_pod("DEL", "web-1", "new", Some(&new)).run());
    assert_eq!(world.fake.calls(), ["ADD", "ADD", "DEL", "DEL", "DEL"]);
}

pub(crate) async fn deletes_when_the_pod_is_gone(world: &World) {
    let before = world.node.state();
    world.make_pod("web-2", json!({})).await;
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.11/26"]);
    succeeded(world.call_for_pod("ADD", "web-2", "d1", Some(&container)).run());
    world.delete_pod("web-2").await;
    succeeded(world.call_for_pod("DEL", "web-2", "d1", None).run());
    assert_eq!(world.node.state(), before);
    assert_eq!(world.fake.calls(), ["ADD", "DEL"]);
    let answer = world.call_for_pod("ADD", "web-2", "d1", Some(&container)).run();
    assert_eq!(answer.code(), 120, "a pod that is not there: {answer:?}");
}

/// Both names lead to one file: addresses come from the same process, over the same connection.
pub(crate) async fn gives_addresses_itself(world: &World) {
    world.make_pool().await;
    let plugins = world.directory.path().join("both");
    std::fs::create_dir(&plugins).unwrap();
    let (other, program) = (plugins.join("calico-ipam"), env!("CARGO_BIN_EXE_calico"));
    std::os::unix::fs::symlink(program, &other).unwrap();
    let own = |command: &'static str, pod: &str, container: &Namespace| {
        let mut call = world.call_for_pod(command, pod, pod, Some(container));
        call.path = plugins.display().to_string();
        configure(&mut call, |config| {
            config["ipam"] = json!({"type": "calico-ipam"});
            config["ipam_lock_file"] = json!(plugins.join("lock"));
        });
        call
    };
    // ClusterInformation, Pod and Namespace; configuration, reservations, pools, Node and claims;
    // the handle and the block, twice; the annotations. Another process asks again what it needs.
    let mut containers = Vec::new();
    for (pod, requests) in [("first", None), ("second", Some(12)), ("third", Some(4))] {
        world.make_pod(pod, json!({})).await;
        if pod == "third" {
            std::fs::remove_file(&other).unwrap();
            std::fs::copy(program, &other).unwrap();
        }
        let before = world.node.state();
        let container = Namespace::new(pod);
        let result = succeeded(own("ADD", pod, &container).run());
        if let Some(requests) = requests {
            assert_eq!(last_trace(world)["requests"], json!(requests), "{pod}");
        }
        let addr = result["ips"][0]["address"].as_str().unwrap();
        assert!(addr.starts_with("10.66.0."), "{addr}");
        assert_eq!(annotation(&world.pod(pod).await, "podIPs").as_deref(), Some(addr));
        let handle = format!("net.{pod}");
        let held = async || world.client.get::<api::IpamHandle>(&handle).await.unwrap().is_some();
        assert!(held().await, "{pod}");
        // The first stays for a while: a block that is empty is read about once more.
        if pod != "first" {
            succeeded(own("DEL", pod, &container).run());
            assert!(!held().await, "{pod}");
            assert_eq!(world.node.state(), before);
        }
        containers.push(container);
    }
    succeeded(own("DEL", "first", &containers[0]).run());
    // Whoever is not there is missed, although the program could do without it.
    std::fs::remove_file(&other).unwrap();
    let container = Namespace::new("fourth");
    let answer = own("ADD", "third", &container).run();
    assert_eq!(answer.code(), 102, "{answer:?}");
}
