//! Tenants whose ranges are the same: nobody sees, gets or gives back what is another's.

use std::collections::{BTreeMap, BTreeSet};

use datastore::{Client, Options};
use ipam::Selectors;
use ipam_plugin::add::{AddRequest, add};
use ipam_plugin::delete::delete;
use ipam_plugin::holder::Holder;
use lab::control_plane::{Identity, Kind};
use ledger::{Driver, HostLock, Wanted};
use model::net::Family;
use model::vrf::VrfName;
use serde_json::{Value, json};

use super::{Datastore, addr, call, holders};

/// Three pools with the same four addresses, two of them of VRFs, and one node.
const CLUSTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: everybodys}
spec: {cidr: 10.66.0.0/30, blockSize: 30, nodeSelector: all()}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: reds
  annotations: {vrf.projectcalico.org/name: red, vrf.projectcalico.org/id: '5001'}
spec: {cidr: 10.66.0.0/30, blockSize: 30, nodeSelector: all()}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: blues
  annotations: {vrf.projectcalico.org/name: blue, vrf.projectcalico.org/id: '5002'}
spec: {cidr: 10.66.0.0/30, blockSize: 30, nodeSelector: all()}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: that-contradicts
  annotations: {vrf.projectcalico.org/name: red, vrf.projectcalico.org/id: '5009'}
spec: {cidr: 10.67.0.0/30, blockSize: 30, nodeSelector: all()}
---
apiVersion: v1
kind: Node
metadata: {name: node-0}
";

/// What a VRF's name is, or none.
type Scope = Option<&'static str>;

struct World(Datastore);

impl World {
    fn start(directory: &std::path::Path) -> Self {
        Self(Datastore::start(Kind::Embedded, directory, CLUSTER))
    }

    fn call(
        &self,
        command: &str,
        container: &str,
        vrf: Scope,
        more: &Value,
    ) -> Result<Value, Value> {
        let mut config = self.0.config("node-0", more);
        config["ipam"]["vrf"] = json!(vrf);
        call(command, container, &config)
    }

    fn adds(&self, container: &str, vrf: Scope, more: &Value) -> String {
        addr(&self.call("ADD", container, vrf, more).unwrap())
    }

    fn refuses(&self, container: &str, vrf: Scope, more: &Value) -> (u64, String) {
        let error = self.call("ADD", container, vrf, more).unwrap_err();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }

    /// Returns who holds which address, by the VRF that blocks say.
    fn held(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut held: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for object in self.0.api.list::<api::IpamBlock>().unwrap() {
            let vrf = api::vrf_of(&object).unwrap();
            let suffix = vrf.as_ref().map(|vrf| format!(".{vrf}.vrf")).unwrap_or_default();
            assert_eq!(object.name(), format!("10-66-0-0-30{suffix}"));
            let block = (&object).try_into().unwrap();
            let vrf = vrf.map_or("none".to_owned(), |vrf| vrf.to_string());
            let holders = holders(&block).into_iter().map(|(addr, (handle, _))| (addr, handle));
            held.entry(vrf).or_default().extend(holders);
        }
        held.retain(|_, holders| !holders.is_empty());
        held
    }
}

#[test]
fn a_container_gets_and_gives_back_addresses_of_its_vrf_alone() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path());
    let nothing = json!({});
    let this = json!({"args": {"cni": {"ips": ["10.66.0.1"]}}});
    for (container, vrf) in [("c", None), ("r", Some("red")), ("b", Some("blue"))] {
        assert_eq!(world.adds(container, vrf, &this), "10.66.0.1");
    }
    let (code, message) = world.refuses("c2", None, &this);
    assert!(code == 107 && message.contains("10.66.0.1"), "{code} {message}");
    for (container, vrf) in [("x", "green"), ("x", "Red")] {
        let (code, message) = world.refuses(container, Some(vrf), &nothing);
        assert!([7, 118].contains(&code) && message.contains(vrf), "{code} {message}");
    }
    for container in ["r2", "r3", "r4"] {
        world.adds(container, Some("red"), &nothing);
    }
    let (code, message) = world.refuses("r5", Some("red"), &nothing);
    assert!(code == 106 && message.starts_with("in VRF red: pool reds "), "{code} {message}");
    let named = json!({"ipam": {"type": "calico-ipam", "ipv4_pools": ["reds"]}});
    let (code, message) = world.refuses("c2", None, &named);
    assert!(code == 7 && message.contains("`reds`"), "another's pool by name: {code} {message}");
    world.call("STATUS", "", None, &nothing).unwrap();

    // A container that is in one VRF gets nothing in another, whatever its namespace says by now.
    let (code, message) = world.refuses("r", Some("blue"), &nothing);
    assert!(code == 11 && message.contains("of VRF red"), "{code} {message}");
    let result = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.66.0.1/32"}]});
    world.call("CHECK", "r", None, &json!({"prevResult": result})).unwrap();
    world.call("DEL", "r", None, &nothing).unwrap();
    let held = world.held();
    assert_eq!(held["red"].len(), 3);
    assert_eq!(held["blue"], BTreeMap::from([("10.66.0.1".to_owned(), "net.b".to_owned())]));
    assert_eq!(held["none"], BTreeMap::from([("10.66.0.1".to_owned(), "net.c".to_owned())]));

    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]});
    world.call("GC", "", None, &valid).unwrap();
    let left: Vec<String> = world.held().into_keys().collect();
    assert_eq!(left, ["blue"]);
    world.call("DEL", "b", Some("red"), &nothing).unwrap();
    assert!(world.held().is_empty());
    assert!(world.0.api.list::<api::IpamHandle>().unwrap().is_empty());
}

/// Numbers that are the same in each run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_leaves_each_vrf_what_it_would_be_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let world = tokio::task::spawn_blocking(move || World::start(&path)).await.unwrap();
    let kubeconfig = world.0.plane.kubeconfig(Identity::CniPlugin);
    let client = Client::connect(&Options::kubeconfig(&kubeconfig)).unwrap();
    let mut random = Random(9);
    let mut model: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for step in 0..60 {
        let vrf = [None, Some("red"), Some("blue")][random.below(3)];
        let vrf: Option<VrfName> = vrf.map(|name| name.parse().unwrap());
        let scope = vrf.as_ref().map_or("none".to_owned(), ToString::to_string);
        let container_id = format!("{scope}{}", random.below(5));
        let holder = Holder { network: "net".to_owned(), container_id, pod: None };
        let handle = holder.handle().0;
        let mut driver = Driver::new(client.clone(), HostLock::none());
        let held = model.entry(scope).or_default();
        let has = held.values().any(|other| *other == handle);
        if random.below(3) == 0 || has {
            delete(&mut driver, &holder).await.unwrap();
            held.retain(|_, other| *other != handle);
        } else {
            let wanted = match random.below(2) {
                0 => Wanted::Any(Family::V4, Vec::new()),
                _ => Wanted::This(format!("10.66.0.{}", random.below(4)).parse().unwrap()),
            };
            let is_possible = match &wanted {
                Wanted::Any(..) => held.len() < 4,
                Wanted::This(addr) => !held.contains_key(&addr.to_string()),
            };
            let request = AddRequest {
                node: "node-0".parse().unwrap(),
                holder,
                vrf,
                wanted: vec![wanted],
                selectors: Selectors::OfRequestedIgnored,
            };
            let added = Box::pin(add(&mut driver, &request)).await;
            assert_eq!(added.is_ok(), is_possible, "step {step}: {added:?}");
            held.extend(added.iter().flatten().map(|it| (it.addr().to_string(), handle.clone())));
        }
        let (seen, mut expected) = (tokio::task::block_in_place(|| world.held()), model.clone());
        expected.retain(|_, holders| !holders.is_empty());
        assert_eq!(seen, expected, "step {step}");
    }
    let busy: BTreeSet<&String> =
        model.iter().filter(|(_, it)| !it.is_empty()).map(|(it, _)| it).collect();
    assert!(busy.len() > 1, "nothing was proven: {model:?}");
}
