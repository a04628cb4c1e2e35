//! A cluster in a file, and files that say what is printed about it.

use std::path::PathBuf;
use std::time::Duration;

use ipam::slots::Clock;
use model::block::Block;
use model::net::Cidr;
use model::pool::IpPool;
use model::time::WallTime;
use serde_json::Value;

/// What the commands read.
pub(crate) struct World {
    pub(crate) pools: Vec<IpPool>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) reserved: Vec<Cidr>,
}

impl World {
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(path("cluster.yaml")).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let of = |kind: &str| -> Vec<Value> {
            objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
        };
        let mut pools: Vec<IpPool> = of("IPPool")
            .iter()
            .map(|json| IpPool::try_from(&api::IpPool::from_json(json).unwrap()).unwrap())
            .collect();
        pools.sort_by_key(|pool| pool.cidr);
        let mut blocks: Vec<Block> = of("IPAMBlock")
            .iter()
            .map(|json| Block::try_from(&api::IpamBlock::from_json(json).unwrap()).unwrap())
            .collect();
        blocks.sort_by_key(|block| block.cidr);
        let reserved = of("IPReservation")
            .iter()
            .flat_map(|json| api::IpReservation::from_json(json).unwrap().ranges().unwrap())
            .collect();
        Self { pools, blocks, reserved }
    }
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
