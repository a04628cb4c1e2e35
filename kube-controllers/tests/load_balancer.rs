//! Services get addresses from pools, keep them over crashes, and give them back.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, Service};
use lab::api_access::Api;
use lab::control_plane::Kind;
use serde_json::{Value, json};

use common::{World, require};

#[test]
fn services_get_addresses_on_the_embedded_datastore() {
    services_get_addresses(Kind::Embedded);
}

#[test]
fn services_get_addresses_on_kubernetes() {
    services_get_addresses(Kind::Kubernetes);
}

fn services_get_addresses(kind: Kind) {
    let mut world =
        World::start(kind, "loadbalancer", &json!({"loadBalancer": {"assignIPs": "AllServices"}}));
    pool(&world.api, "public", "192.0.2.0/29", "Automatic");
    pool(&world.api, "special", "192.0.2.128/30", "Manual");
    service(&world.api, "plain", &json!({}), &json!({}));
    service(&world.api, "asks", &json!({"loadBalancerIPs": "[\"192.0.2.5\"]"}), &json!({}));
    service(&world.api, "pooled", &json!({"ipv4pools": "[\"special\"]"}), &json!({}));
    service(&world.api, "others", &json!({}), &json!({"loadBalancerClass": "example.com/metal"}));
    service(&world.api, "inside", &json!({}), &json!({"type": "ClusterIP"}));
    let first = world.eventually("each Service has what it asks for", |api| {
        let found = published(api);
        require(
            found.keys().map(String::as_str).collect::<Vec<_>>(),
            vec!["asks", "plain", "pooled"],
        )?;
        require(&*found["asks"], "192.0.2.5")?;
        require(found["pooled"].starts_with("192.0.2.1"), true)?;
        Ok(found)
    });
    assert_eq!(held(&world.api), first);
    require_as_calico_writes_it(&world.api, &first);

    // What is asked for may change; what is assigned survives a crash and lost statuses.
    annotate(&world.api, "asks", "[\"192.0.2.6\"]");
    let moved = world.eventually("the address moves", |api| {
        let found = published(api);
        require(found["asks"].as_str(), "192.0.2.6")?;
        require(&found["plain"], &first["plain"])?;
        require(&held(api), &found)?;
        Ok(found)
    });
    world.kill();
    unpublish(&world.api, "plain");
    world.api.delete(&get(&world.api, "pooled")).unwrap();
    world.run("loadbalancer");
    world.eventually("after a crash all is as it was", |api| {
        let found = published(api);
        require(found.get("plain"), moved.get("plain"))?;
        require(&held(api), &found)
    });
    assert!(!held(&world.api).contains_key("pooled"));

    a_service_waits_and_is_told_why(&world);
    only_those_that_ask(&world);
}

/// The pool is full, or the address taken: an event says so, and a release helps.
fn a_service_waits_and_is_told_why(world: &World) {
    service(&world.api, "greedy", &json!({"loadBalancerIPs": "[\"192.0.2.6\"]"}), &json!({}));
    for number in 0..8 {
        service(&world.api, &format!("more-{number}"), &json!({}), &json!({}));
    }
    world.eventually("the pool is used up", |api| require(published(api).len(), 8));
    let told = world.eventually("an event tells of the taken address", |api| {
        let events = api.list::<Event>().unwrap().into_iter();
        let mut of_greedy =
            events.filter(|one| one.involved_object.name.as_deref() == Some("greedy"));
        of_greedy.next().and_then(|one| one.message).ok_or_else(|| "no event".to_owned())
    });
    assert!(told.starts_with("address 192.0.2.6 is already held by handle lb-"), "{told}");
    let waiting = world.eventually("an event tells of the full pool", |api| {
        let events = api.list::<Event>().unwrap().into_iter();
        let is_told = |one: &Event| {
            one.message.as_ref().is_some_and(|text| text.contains("public 192.0.2.0/29: 0 of 8"))
        };
        let mut told = events.filter(is_told).filter_map(|one| one.involved_object.name);
        told.next().ok_or_else(|| "no event".to_owned())
    });
    assert!(waiting.starts_with("more-"), "{waiting}");
    world.api.delete(&get(&world.api, "asks")).unwrap();
    world.eventually("the address goes to who waits for it", |api| {
        let found = published(api);
        require(found.get("asks"), None)?;
        require(found.len(), 8)?;
        require(&held(api), &found)
    });
}

/// Without a request, addresses are taken back when the configuration says so.
fn only_those_that_ask(world: &World) {
    let mut configuration =
        world.api.get::<api::KubeControllersConfiguration>("default").unwrap().unwrap();
    let controllers = configuration.spec.controllers.as_mut().unwrap();
    controllers.load_balancer.as_mut().unwrap().assign_ips =
        Some("RequestedServicesOnly".to_owned());
    world.api.update(&configuration).unwrap();
    world.eventually("only those that ask keep addresses", |api| {
        let found = published(api);
        require(found.keys().map(String::as_str).collect::<Vec<_>>(), vec!["greedy"])?;
        require(&held(api), &found)
    });
    world.api.delete(&get(&world.api, "greedy")).unwrap();
    world.eventually("nothing is held", |api| {
        require(held(api), BTreeMap::new())?;
        let handles = api.list::<api::IpamHandle>().unwrap();
        require(
            handles
                .into_iter()
                .map(|one| one.spec.handle_id + &format!("{:?}", one.spec.block))
                .collect::<Vec<_>>(),
            vec![],
        )
    });
}

/// The objects are those that Calico's own controller writes and reads (calico-formats §1.6-1.8).
fn require_as_calico_writes_it(api: &Api, addrs: &BTreeMap<String, String>) {
    let plain = get(api, "plain");
    let uid = plain.metadata.uid.unwrap();
    let name = api::names::load_balancer_handle("plain", "shop", &uid);
    let handle = api.get::<api::IpamHandle>(&name).unwrap().unwrap();
    assert_eq!(handle.spec.block.values().sum::<i64>(), 1);
    for claim in api.list::<api::BlockAffinity>().unwrap() {
        assert_eq!(claim.spec.node, "load-balancer");
        assert_eq!(claim.spec.kind.as_deref(), Some("virtual"));
        let labels = claim.metadata.labels.unwrap();
        assert_eq!(labels["projectcalico.org/affinity-type"], "virtual");
    }
    let blocks = api.list::<api::IpamBlock>().unwrap();
    assert!(
        blocks.iter().all(|block| block.spec.affinity.as_deref() == Some("virtual:load-balancer"))
    );
    let facts: Vec<Value> = blocks
        .iter()
        .flat_map(|block| json!(block.spec.attributes).as_array().unwrap().clone())
        .collect();
    let of_plain = facts.iter().find(|one| one["handle_id"] == name.as_str()).unwrap();
    assert_eq!(of_plain["secondary"]["service"], "plain");
    assert_eq!(of_plain["secondary"]["namespace"], "shop");
    assert_eq!(of_plain["secondary"]["type"], "LoadBalancer");
    assert_eq!(addrs.len(), facts.len());
}

fn pool(api: &Api, name: &str, cidr: &str, mode: &str) {
    api.create::<api::IpPool>(json!({"metadata": {"name": name}, "spec": {
        "cidr": cidr, "blockSize": 30, "nodeSelector": "all()",
        "allowedUses": ["LoadBalancer"], "assignmentMode": mode,
    }}))
    .unwrap();
}

fn service(api: &Api, name: &str, annotations: &Value, more: &Value) {
    let annotations: BTreeMap<String, Value> = annotations
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (format!("projectcalico.org/{key}"), value.clone()))
        .collect();
    let mut spec = json!({
        "type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80, "protocol": "TCP"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.create::<Service>(json!({
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations}, "spec": spec,
    }))
    .unwrap();
}

fn get(api: &Api, name: &str) -> Service {
    api.get_in::<Service>("shop", name).unwrap().unwrap()
}

fn annotate(api: &Api, name: &str, addrs: &str) {
    let mut object = get(api, name);
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert("projectcalico.org/loadBalancerIPs".to_owned(), addrs.to_owned());
    api.update(&object).unwrap();
}

fn unpublish(api: &Api, name: &str) {
    let patch = json!({"status": {"loadBalancer": {"ingress": []}}});
    api.patch_status::<Service>(Some("shop"), name, &patch).unwrap();
}

/// Returns the address that each Service's status names.
fn published(api: &Api) -> BTreeMap<String, String> {
    let services = api.list::<Service>().unwrap().into_iter();
    let named = services.filter_map(|service| {
        let ingress = service.status?.load_balancer?.ingress?;
        let addrs: Vec<String> = ingress.into_iter().filter_map(|one| one.ip).collect();
        (!addrs.is_empty()).then(|| (service.metadata.name.unwrap_or_default(), addrs.join(" ")))
    });
    named.collect()
}

/// Returns the addresses that are taken, by the Service that is noted with each.
fn held(api: &Api) -> BTreeMap<String, String> {
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in api.list::<api::IpamBlock>().unwrap() {
        let block = model::block::Block::try_from(&object).unwrap();
        for ordinal in 0..u32::try_from(block.allocations.len()).unwrap() {
            let Some(holder) = ipam::slots::holder(&block, ordinal) else { continue };
            let addr = ipam::slots::address(&block, ordinal).unwrap().to_string();
            held.entry(holder.owner["service"].clone()).or_default().push(addr);
        }
    }
    held.into_iter().map(|(service, addrs)| (service, addrs.join(" "))).collect()
}
