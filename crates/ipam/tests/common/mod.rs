//! What the tests of this crate share.

pub(crate) mod store;

use ipam::{Op, Outcome, Record};
use model::pool::IpPool;

/// Makes a pool that is for everybody.
pub(crate) fn pool(name: &str, cidr: &str, block_len: u8) -> IpPool {
    IpPool { block_len, ..IpPool::plain(name, cidr.parse().unwrap()) }
}

/// Tells a request in one line.
pub(crate) fn brief(op: &Op) -> String {
    match op {
        Op::Read(key) => format!("read {}", brief_key(key)),
        Op::Delete(key) => format!("delete {}", brief_key(key)),
        Op::Create(record) => format!("create {}", brief_record(record)),
        Op::Update(record) => format!("update {}", brief_record(record)),
        Op::ListBlocks => "list blocks".to_owned(),
        Op::ListAffinities => "list affinities".to_owned(),
    }
}

fn brief_key(key: &ipam::Key) -> String {
    match key {
        ipam::Key::Block(cidr) => format!("block {cidr}"),
        ipam::Key::Affinity(owner, cidr) => format!("affinity {owner} {cidr}"),
        ipam::Key::Handle(id) => format!("handle {id}"),
    }
}

/// Tells an object in one line; of a block, which addresses are taken.
pub(crate) fn brief_record(record: &Record) -> String {
    let key = brief_key(&record.key());
    match record {
        Record::Block(block) => {
            let taken = block.allocations.iter().map(|slot| if slot.is_some() { '#' } else { '.' });
            format!("{key} {}", taken.collect::<String>())
        }
        Record::Affinity(claim) => format!("{key} {:?}", claim.state),
        Record::Handle(handle) => {
            let counts = handle.blocks.iter().map(|(cidr, count)| format!(" {cidr}:{count}"));
            format!("{key}{}", counts.collect::<String>())
        }
    }
}

/// Tells an answer in one line.
pub(crate) fn brief_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(record) => brief_record(record),
        Outcome::Blocks(blocks) => format!("{} blocks", blocks.len()),
        Outcome::Affinities(claims) => format!("{} affinities", claims.len()),
        Outcome::Absent
        | Outcome::Written
        | Outcome::Conflict
        | Outcome::AlreadyExists
        | Outcome::Lost => format!("{outcome:?}"),
    }
}
