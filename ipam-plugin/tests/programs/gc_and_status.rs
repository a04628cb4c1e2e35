//! GC and STATUS of the real program, on a real datastore.

use lab::control_plane::Kind;
use serde_json::{Value, json};

use super::{Datastore, call};

/// One node, and a pool of one block with four addresses.
const CLUSTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.244.0.0/30, blockSize: 30, nodeSelector: all()}
---
apiVersion: v1
kind: Node
metadata: {name: node-0}
";

struct World(Datastore);

impl World {
    /// Runs the program and returns the code and the message of its error, zero for none.
    fn call(&self, command: &str, container: &str, more: &Value) -> (u64, String) {
        match call(command, container, &self.0.config("node-0", more)) {
            Ok(_) => (0, String::new()),
            Err(error) => {
                (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
            }
        }
    }

    fn succeeds(&self, command: &str, container: &str, more: &Value) {
        assert_eq!(
            self.call(command, container, more),
            (0, String::new()),
            "{command} {container}"
        );
    }

    /// Returns the names of the handles that there are.
    fn handles(&self) -> Vec<String> {
        let handles = self.0.api.list::<api::IpamHandle>().unwrap();
        handles.into_iter().map(|handle| handle.metadata.name.unwrap()).collect()
    }
}

#[test]
fn what_the_runtime_no_longer_knows_is_collected_and_exhaustion_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let world = World(Datastore::start(Kind::Embedded, directory.path(), CLUSTER));
    let nothing = json!({});
    world.succeeds("STATUS", "", &nothing);
    for container in ["c1", "c2", "c3", "c4"] {
        world.succeeds("ADD", container, &nothing);
    }
    let full = "pool small 10.244.0.0/30: 0 of 4 addresses free; all blocks are full: delete pods";
    let (code, message) = world.call("ADD", "c5", &nothing);
    assert!(code == 106 && message.starts_with(full), "{code} {message}");
    // The first answer is looked for, the second remembered.
    for _ in 0..2 {
        let (code, message) = world.call("STATUS", "", &nothing);
        assert!(code == 50 && message.starts_with(full), "{code} {message}");
    }
    world.succeeds("DEL", "c1", &nothing);
    world.succeeds("STATUS", "", &nothing);

    let (code, message) = world.call("GC", "", &nothing);
    assert!(code == 7 && message.contains("cni.dev/valid-attachments"), "{code} {message}");
    assert_eq!(world.handles(), ["net.c2", "net.c3", "net.c4"]);
    let other = json!({"name": "other", "cni.dev/valid-attachments": []});
    world.succeeds("GC", "", &other);
    assert_eq!(world.handles(), ["net.c2", "net.c3", "net.c4"]);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c3", "ifname": "eth0"}]});
    world.succeeds("GC", "", &valid);
    assert_eq!(world.handles(), ["net.c3"]);
    world.succeeds("GC", "", &json!({"cni.dev/valid-attachments": []}));
    assert!(world.handles().is_empty());
}
