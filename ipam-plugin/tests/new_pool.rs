//! A server whose memory lags behind what was written a moment ago.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[path = "../../crates/datastore/tests/common/mod.rs"]
mod common;

use common::{Asked, Reply, Server};
use ipam::{PoolReference, Selectors};
use ipam_plugin::add::{AddRequest, add};
use ipam_plugin::holder::Holder;
use ledger::{Driver, HostLock, Wanted};
use model::block::{Affinity, AffinityState, Owner};
use model::net::Family;
use model::time::WallTime;
use serde_json::{Value, json};

const LISTED: [&str; 3] = ["blockaffinities", "ippools", "ipreservations"];
const GROUP: &str = "/apis/crd.projectcalico.org/v1";

/// What was written before the request; memory has none of it.
fn objects() -> [(String, Value); 6] {
    let cidr = "10.0.0.0/26".parse().unwrap();
    let owner = Owner::Host("a".parse().unwrap());
    let block = ipam::slots::fresh(cidr, owner.clone(), WallTime(0)).unwrap();
    let state = AffinityState::Confirmed;
    let claim = Affinity { owner, cidr, state, is_deleted: false };
    let named = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name},
            "spec": spec,
        })
    };
    let ready = named("ClusterInformation", "default", json!({"datastoreReady": true}));
    let pool = json!({"cidr": "10.0.0.0/24", "blockSize": 26, "nodeSelector": "all()"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
    let affinity = serde_json::to_value(api::BlockAffinity::from_model(&claim)).unwrap();
    let block = serde_json::to_value(api::IpamBlock::from_model(&block)).unwrap();
    [
        (format!("{GROUP}/clusterinformations/default"), ready),
        (format!("{GROUP}/ippools"), named("IPPool", "new", pool)),
        ("/api/v1/nodes/a".to_owned(), node),
        (format!("{GROUP}/blockaffinities/a-10-0-0-0-26"), affinity.clone()),
        (format!("{GROUP}/blockaffinities"), affinity),
        (format!("{GROUP}/ipamblocks/10-0-0-0-26"), block),
    ]
    .map(|(path, object)| (path, stored(object)))
}

fn stored(mut object: Value) -> Value {
    object["metadata"]["resourceVersion"] = json!("1");
    object["metadata"]["uid"] = json!("u");
    object
}

fn answer(asked: &Asked) -> Reply {
    let (path, _) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    if asked.method != "GET" {
        return Reply::Answer(200, "", stored(serde_json::from_str(&asked.body).unwrap()));
    }
    let is_old = asked.parameter("resourceVersion") == Some("0");
    let found = objects().into_iter().find(|(at, _)| !is_old && at == path);
    let is_list = path.rsplit('/').next().is_some_and(|kind| LISTED.contains(&kind));
    match found {
        Some((_, one)) if !is_list => Reply::Answer(200, "", one),
        found if is_list => {
            let items: Vec<Value> = found.into_iter().map(|(_, one)| one).collect();
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
            Reply::Answer(200, "", list)
        }
        _ => {
            let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound",
                "message": "not found", "code": 404, "details": {"name": "x"}});
            Reply::Answer(404, "", status)
        }
    }
}

async fn added(pools: &[&str]) -> (Result<String, String>, usize) {
    let server = Server::start(|_, asked| answer(asked)).await;
    let mut driver = Driver::new(server.client(), HostLock::none());
    let references = pools.iter().map(|pool| PoolReference::parse(pool)).collect();
    let request = AddRequest {
        node: "a".parse().unwrap(),
        holder: Holder { network: "n".to_owned(), container_id: "c".to_owned(), pod: None },
        vrf: None,
        wanted: vec![Wanted::Any(Family::V4, references)],
        selectors: Selectors::OfRequestedIgnored,
    };
    let end = Box::pin(add(&mut driver, &request)).await;
    let end = end.map(|addrs| addrs[0].to_string()).map_err(|error| error.to_string());
    let lists = server.asked().iter().filter(|one| one.target.contains("/ippools")).count();
    (end, lists)
}

#[tokio::test]
async fn what_was_written_a_moment_ago_is_not_refused() {
    for pools in [&[][..], &["new"], &["10.0.0.0/24"]] {
        let (end, lists) = added(pools).await;
        assert_eq!(end.unwrap(), "10.0.0.0/26");
        assert_eq!(lists, 2);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_refused_after_one_more_look() {
    let (end, lists) = added(&["other"]).await;
    let failure = end.unwrap_err();
    assert!(failure.starts_with("requested pool `other` does not exist"), "{failure}");
    assert!(failure.contains("new"), "the pool that was seen at last is not told: {failure}");
    assert_eq!(lists, 2);
}
