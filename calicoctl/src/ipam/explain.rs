//! Who owns an address, since when, and by which objects.

use std::net::IpAddr;

use ipam::audit::{Finding, Problem};
use ipam::slots;
use ledger::Scene;
use model::block::{Attributes, Block, Owner};
use model::net::Cidr;
use model::time::WallTime;
use serde::Serialize;

use super::{check, moment, show};
use crate::output::Report;

/// All that is known of an address.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The address.
    pub ip: IpAddr,
    /// In one sentence.
    pub summary: String,
    /// Since when (RFC 3339), as far as is known.
    pub since: Option<String>,
    /// The time of the explanation (RFC 3339).
    pub time: String,
    /// The objects that say so, and what they say.
    pub objects: Vec<Fact>,
    /// What is wrong about it.
    pub problems: Vec<check::ProblemReport>,
}

/// What one object says.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Fact {
    /// The object: `IPAMBlock 10.0.0.0/26`.
    pub object: String,
    /// What it says about the address.
    pub says: String,
}

/// Explains an address.
#[must_use]
pub fn explain(ip: IpAddr, scene: &Scene, findings: &[Finding]) -> Explanation {
    let mut blocks: Vec<&Block> = scene.blocks().filter(|block| block.cidr.contains(ip)).collect();
    blocks.sort_by_key(|block| block.cidr);
    let holders = blocks.iter().filter_map(|block| Some((*block, show::attributes_of(block, ip)?)));
    let holders: Vec<(&Block, &Attributes)> = holders.collect();
    let held = holders.iter().find(|(_, holder)| holder.released_at.is_none());
    let about = |problem: &Problem| concerns(problem, ip, &blocks);
    let problems: Vec<_> = findings.iter().filter(|one| about(&one.problem)).collect();
    let objects = [
        of_pools(ip, scene),
        blocks.iter().map(|block| of_block(block, ip)).collect(),
        of_claims(scene, &blocks),
        holders.iter().filter_map(|(_, holder)| of_handle(scene, holder)).collect(),
        of_users(ip, scene),
    ];
    let leak = problems.iter().find(|one| matches!(one.problem, Problem::Leak(_)));
    Explanation {
        ip,
        summary: match (leak, held) {
            (Some(leak), Some((_, holder))) => format!(
                "{ip} is leaked: it was given to {}, but {}.",
                who(holder),
                leak.evidence.join(", ")
            ),
            _ => summary(ip, &holders, scene),
        },
        since: held.and_then(|(_, holder)| since(holder)).map(moment::text),
        time: moment::text(scene.snapshot.now),
        objects: objects.concat(),
        problems: problems.into_iter().map(check::problem).collect(),
    }
}

fn summary(ip: IpAddr, holders: &[(&Block, &Attributes)], scene: &Scene) -> String {
    let covering = scene.snapshot.pools.iter().filter(|pool| pool.cidr.contains(ip));
    let is_reserved = scene.reserved.iter().any(|range| range.contains(ip));
    match holders {
        [(_, holder)] => match holder.released_at {
            None => format!("{ip} is in use by {}.", who(holder)),
            Some(at) => format!("{ip} was given back at {} and rests.", moment::text(at)),
        },
        [] if is_reserved => format!("{ip} is free, but reserved: it is never assigned unasked."),
        [] if covering.count() > 0 => format!("{ip} is free."),
        [] => format!("{ip} is in no pool, so no address of ours."),
        many => {
            let names: Vec<String> = many.iter().map(|(_, holder)| who(holder)).collect();
            format!("{ip} is in use by several: {}.", names.join(", "))
        }
    }
}

fn who(holder: &Attributes) -> String {
    let kind = show::kind_of(holder);
    let name = show::holder_name(holder);
    let node = holder.owner.get("node").filter(|node| **node != name);
    let node = node.map(|node| format!(" on node {node}")).unwrap_or_default();
    format!("{kind} {name}{node}")
}

fn since(holder: &Attributes) -> Option<WallTime> {
    holder.owner.get("timestamp").and_then(|text| moment::of_go(text))
}

fn of_pools(ip: IpAddr, scene: &Scene) -> Vec<Fact> {
    let pools = scene.snapshot.pools.iter().filter(|pool| pool.cidr.contains(ip));
    let mut facts: Vec<Fact> = pools
        .map(|pool| {
            let disabled = if pool.is_disabled { ", disabled" } else { "" };
            let says = format!("covers it: {}, blocks /{}{disabled}", pool.cidr, pool.block_len);
            Fact { object: format!("IPPool {}", pool.name), says }
        })
        .collect();
    let ranges = scene.reserved.iter().filter(|range| range.contains(ip));
    facts.extend(ranges.map(|range: &Cidr| Fact {
        object: "IPReservation".to_owned(),
        says: format!("reserves {range}"),
    }));
    facts
}

fn of_block(block: &Block, ip: IpAddr) -> Fact {
    let object = format!("IPAMBlock {}", block.cidr);
    let owner = block.affinity.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let ordinal = block.cidr.ordinal_of(ip).and_then(|ordinal| u32::try_from(ordinal).ok());
    let holder = ordinal.and_then(|ordinal| slots::holder(block, ordinal));
    let state = match (ordinal, holder) {
        (Some(ordinal), Some(holder)) => {
            let handle = holder.handle.as_ref().map_or("no handle".to_owned(), ToString::to_string);
            let number = block.allocated_at.get(&ordinal);
            let number = number.map(|at| format!(" at write {at}")).unwrap_or_default();
            format!("gave ordinal {ordinal} to {handle}{number}")
        }
        (Some(ordinal), None) => format!("has ordinal {ordinal} free"),
        (None, _) => "does not contain it".to_owned(),
    };
    Fact { object, says: format!("is of {owner}; {state}") }
}

fn of_claims(scene: &Scene, blocks: &[&Block]) -> Vec<Fact> {
    let is_of = |cidr: &Cidr| blocks.iter().any(|block| block.cidr == *cidr);
    let claims = scene.snapshot.affinities.iter().map(|claim| &claim.value);
    let facts = claims.filter(|claim| is_of(&claim.cidr)).map(|claim| {
        let whose = match &claim.owner {
            Owner::Host(node) => format!("node {node}"),
            Owner::Virtual(name) => format!("virtual {name}"),
        };
        Fact {
            object: format!("BlockAffinity of {whose}"),
            says: format!("claims block {}: {:?}", claim.cidr, claim.state).to_lowercase(),
        }
    });
    facts.collect()
}

fn of_handle(scene: &Scene, holder: &Attributes) -> Option<Fact> {
    let id = holder.handle.as_ref()?;
    let found = scene.snapshot.handles.iter().find(|handle| handle.value.id == *id);
    let says = match found {
        Some(handle) => {
            let counts = handle.value.blocks.iter();
            let counts: Vec<String> =
                counts.map(|(cidr, count)| format!("{count} in {cidr}")).collect();
            format!("counts {}", counts.join(", "))
        }
        None => "does not exist".to_owned(),
    };
    Some(Fact { object: format!("IPAMHandle {id}"), says })
}

fn of_users(ip: IpAddr, scene: &Scene) -> Vec<Fact> {
    let snapshot = &scene.snapshot;
    let pods = snapshot.pods.iter().filter(|pod| pod.addrs.contains(&ip)).map(|pod| {
        let node = pod.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        let says = if pod.is_terminated { "has ended, with it" } else { "uses it" };
        Fact { object: format!("Pod {}", pod.pod), says: format!("{says}{node}") }
    });
    let tunnels = snapshot.tunnels.iter().filter(|tunnel| tunnel.addr == ip).map(|tunnel| Fact {
        object: format!("Node {}", tunnel.node),
        says: "uses it for a tunnel".to_owned(),
    });
    let services = snapshot.services.iter().filter(|one| one.addrs.contains(&ip));
    let services = services.map(|one| Fact {
        object: format!("Service {}", one.service),
        says: "is reached by it".to_owned(),
    });
    pods.chain(tunnels).chain(services).collect()
}

/// Is the problem about the address, or about the blocks that it is of?
fn concerns(problem: &Problem, ip: IpAddr, blocks: &[&Block]) -> bool {
    let is_of = |cidr: &Cidr| blocks.iter().any(|block| block.cidr == *cidr);
    let is_holder = |id: &model::id::HandleId| {
        let holders = blocks.iter().filter_map(|block| show::attributes_of(block, ip));
        holders.into_iter().any(|holder| slots::is_handle(holder, id))
    };
    match problem {
        Problem::Duplicate(addr) | Problem::Unallocated(addr) => *addr == ip,
        Problem::Leak(held) | Problem::WrongHolder(held) | Problem::UnreachableBorrow(held) => {
            held.addr == ip
        }
        Problem::MissingHandle(id) | Problem::OrphanHandle(id) | Problem::HandleMismatch(id) => {
            is_holder(id)
        }
        Problem::Overlap(one, other) => is_of(one) || is_of(other),
        Problem::DamagedBlock(cidr)
        | Problem::StaleAffinity(_, cidr)
        | Problem::MissingAffinity(_, cidr)
        | Problem::EmptyBlock(cidr)
        | Problem::OutsidePool(cidr) => is_of(cidr),
    }
}

impl Report for Explanation {
    fn text(&self) -> String {
        let mut lines = vec![self.summary.clone()];
        if let Some(since) = &self.since {
            let times = (moment::of_text(since), moment::of_text(&self.time));
            let age = match times {
                (Some(since), Some(now)) => moment::span(moment::age(since, now)),
                _ => String::new(),
            };
            lines.push(format!("Since {since} ({age})."));
        }
        lines.extend(self.objects.iter().map(|fact| format!("  {} {}", fact.object, fact.says)));
        for one in &self.problems {
            lines.push(format!("Problem: {}: {} ({})", one.problem, one.about, one.confidence));
            lines.extend(one.evidence.iter().map(|text| format!("  {text}")));
        }
        lines.join("\n")
    }
}
