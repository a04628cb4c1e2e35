//! Deleted pools and tiers stay while they are in use, and policies lose their old names.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use lab::api_access::Api;
use lab::control_plane::Kind;
use lab::rest::Request;
use model::block::{Attributes, Owner};
use serde_json::json;

use common::{World, require};

const CONTROLLERS: &str = "ippool,tier";

#[test]
fn what_is_in_use_outlives_its_deletion_on_the_embedded_datastore() {
    what_is_in_use_outlives_its_deletion(Kind::Embedded);
}

#[test]
fn what_is_in_use_outlives_its_deletion_on_kubernetes() {
    what_is_in_use_outlives_its_deletion(Kind::Kubernetes);
}

fn what_is_in_use_outlives_its_deletion(kind: Kind) {
    let mut world = World::start(kind, CONTROLLERS, &json!({}));
    let api = &world.api;
    api.create::<api::Tier>(json!({"metadata": {"name": "security"}, "spec": {"order": 100}}))
        .unwrap();
    for (name, cidr) in [("used", "10.1.0.0/24"), ("idle", "10.2.0.0/24"), ("kept", "10.3.0.0/24")]
    {
        let pool =
            json!({"metadata": {"name": name}, "spec": {"cidr": cidr, "nodeSelector": "all()"}});
        api.create::<api::IpPool>(pool).unwrap();
    }
    api.create::<api::GlobalNetworkPolicy>(json!({
        "metadata": {"name": "security.first"}, "spec": {"tier": "security", "selector": "all()"},
    }))
    .unwrap();
    block(api, "10.1.0.0/26", true);
    block(api, "10.1.0.64/26", false);
    block(api, "10.2.0.0/26", false);
    world.eventually("pools and tiers are guarded", |api| {
        require(
            guarded(api),
            vec!["idle", "kept", "security", "used"].into_iter().map(str::to_owned).collect(),
        )
    });
    for name in ["used", "idle"] {
        api.delete(&api.get::<api::IpPool>(name).unwrap().unwrap()).unwrap();
    }
    api.delete(&api.get::<api::Tier>("security").unwrap().unwrap()).unwrap();
    world.eventually("what is idle goes", |api| {
        require(guarded(api), ["kept", "security", "used"].map(str::to_owned).into())?;
        require(blocks(api), vec!["10.1.0.0/26".to_owned()])
    });
    let used = api.get::<api::IpPool>("used").unwrap().unwrap();
    assert!(model::pool::IpPool::try_from(&used).unwrap().is_disabled, "it gives new addresses");
    api.delete(&api.get::<api::GlobalNetworkPolicy>("security.first").unwrap().unwrap()).unwrap();
    api.delete(&api.get::<api::IpamBlock>("10-1-0-0-26").unwrap().unwrap()).unwrap();
    // The next look is some minutes away; a new start looks at once.
    world.run(CONTROLLERS);
    world.eventually("what was in use goes", |api| {
        require(guarded(api), ["kept"].map(str::to_owned).into())?;
        require(api.list::<api::BlockAffinity>().unwrap().len(), 0)
    });
    // Switched off, it lets go of all.
    world.run("node");
    world.eventually("nothing is guarded", |api| require(guarded(api), vec![]));
    assert!(world.api.get::<api::IpPool>("kept").unwrap().is_some());
}

#[test]
fn policies_of_old_releases_are_renamed_on_the_embedded_datastore() {
    policies_of_old_releases_are_renamed(Kind::Embedded);
}

#[test]
fn policies_of_old_releases_are_renamed_on_kubernetes() {
    policies_of_old_releases_are_renamed(Kind::Kubernetes);
}

fn policies_of_old_releases_are_renamed(kind: Kind) {
    let mut world =
        World::start(kind, "node", &json!({"migration": {"policyNameMigrator": "Disabled"}}));
    let written = json!({"projectcalico.org/metadata": "{\"creationTimestamp\":null}"});
    let spec = json!({"tier": "default", "order": 7, "selector": "app == 'web'"});
    let policy = |name: &str| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "annotations": written, "labels": {"projectcalico.org/tier": "default"}},
            "spec": spec,
        })
    };
    let api = &world.api;
    for name in ["default.web", "default.half", "half"] {
        api.create::<api::CalicoNetworkPolicy>(policy(name)).unwrap();
    }
    let mut other = policy("taken");
    other["spec"]["order"] = json!(8);
    api.create::<api::CalicoNetworkPolicy>(policy("default.taken")).unwrap();
    api.create::<api::CalicoNetworkPolicy>(other).unwrap();
    let mut global = policy("default.all");
    global["metadata"].as_object_mut().unwrap().remove("namespace");
    api.create::<api::GlobalNetworkPolicy>(global).unwrap();
    // A patch, since the controllers write its status at any time.
    let path = "/apis/crd.projectcalico.org/v1/kubecontrollersconfigurations/default";
    let change = json!({"spec": {"controllers": {"migration": null}}});
    api.send(Request::merge(path, &change)).unwrap().success().unwrap();
    world.run("node");
    world.eventually("policies have their names", |api| {
        let mut names: Vec<String> = api
            .list::<api::CalicoNetworkPolicy>()
            .unwrap()
            .iter()
            .map(|one| one.name().to_owned())
            .collect();
        names.sort();
        require(names, ["default.taken", "half", "taken", "web"].map(str::to_owned).into())?;
        let globals = api.list::<api::GlobalNetworkPolicy>().unwrap();
        require(
            globals.iter().map(|one| one.name().to_owned()).collect::<Vec<_>>(),
            vec!["all".to_owned()],
        )
    });
    let web = world.api.get_in::<api::CalicoNetworkPolicy>("shop", "web").unwrap().unwrap();
    assert_eq!(web.spec.selector.as_deref(), Some("app == 'web'"));
    assert_eq!(web.metadata.labels.unwrap()["projectcalico.org/tier"], "default");
}

/// Makes a block of a node with its claim, with an address taken or none.
fn block(api: &Api, cidr: &str, is_used: bool) {
    let cidr = cidr.parse().unwrap();
    let owner = Owner::Host("node-1".parse().unwrap());
    let now = ledger::now();
    let clock = ipam::slots::Clock { now, cooldown: std::time::Duration::ZERO };
    let mut block = ipam::slots::fresh(cidr, owner.clone(), now).unwrap();
    if is_used {
        block = ipam::slots::allocate(&block, 0, &Attributes::default(), clock).unwrap();
    }
    api.create::<api::IpamBlock>(json!(api::IpamBlock::from_model(&block))).unwrap();
    let state = model::block::AffinityState::Confirmed;
    let claim = model::block::Affinity { owner, cidr, state, is_deleted: false };
    api.create::<api::BlockAffinity>(json!(api::BlockAffinity::from_model(&claim))).unwrap();
}

fn blocks(api: &Api) -> Vec<String> {
    api.list::<api::IpamBlock>().unwrap().into_iter().map(|block| block.spec.cidr).collect()
}

/// Returns the names of the pools and tiers that have a finalizer of ours.
fn guarded(api: &Api) -> Vec<String> {
    let pools = api.list::<api::IpPool>().unwrap().into_iter().map(|pool| pool.metadata);
    let tiers = api.list::<api::Tier>().unwrap().into_iter().map(|tier| tier.metadata);
    let is_ours = |finalizer: &String| finalizer.starts_with("projectcalico.org/");
    let guarded =
        pools.chain(tiers).filter(|metadata| metadata.finalizers.iter().flatten().any(is_ours));
    let mut names: Vec<String> = guarded.filter_map(|metadata| metadata.name).collect();
    names.sort();
    names
}
