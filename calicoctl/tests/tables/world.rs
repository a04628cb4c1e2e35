//! A cluster in a file, and files that say what is printed about it.

use std::path::PathBuf;
use std::time::Duration;

use ipam::slots::Clock;
use ledger::{Lists, Scene};
use model::block::Block;
use model::time::WallTime;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the commands read.
pub(crate) struct World {
    pub(crate) scene: Scene,
    pub(crate) blocks: Vec<Block>,
}

impl World {
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(path("cluster.yaml")).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let lists = Lists {
            pools: all(&objects, "IPPool"),
            blocks: all(&objects, "IPAMBlock"),
            affinities: all(&objects, "BlockAffinity"),
            handles: all(&objects, "IPAMHandle"),
            reservations: all(&objects, "IPReservation"),
            nodes: all(&objects, "Node"),
            pods: all(&objects, "Pod"),
            services: all(&objects, "Service"),
            config: None,
        };
        let scene = Scene::of(&lists, None, clock().now);
        assert_eq!(scene.unreadable, Vec::<String>::new());
        let mut blocks: Vec<Block> = scene.blocks().cloned().collect();
        blocks.sort_by_key(|block| block.cidr);
        Self { scene, blocks }
    }
}

fn all<T: DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<T> {
    let found = objects.iter().filter(|object| object["kind"] == kind);
    found.map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}

/// The time at which the cluster is looked at: 2026-11-23 00:00 UTC.
pub(crate) fn clock() -> Clock {
    Clock { now: WallTime(1_795_392_000_000_000_000), cooldown: Duration::ZERO }
}

/// Compares with a file, or writes it if `UPDATE_GOLDEN` is set.
pub(crate) fn compare(name: &str, actual: &str) {
    let (path, actual) = (path(name), format!("{actual}\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "UPDATE_GOLDEN=1 rewrites {}", path.display());
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/calicoctl").join(name)
}
