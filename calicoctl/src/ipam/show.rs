//! What is known of one address, and which addresses are borrowed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::slots;
use model::block::{Attributes, Block, Owner};
use model::pool::IpPool;
use serde::Serialize;

use crate::output::{self, Report};

/// What is known of one address.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Whether somebody has it.
    pub state: State,
    /// The pool that covers it.
    pub pool: Option<String>,
    /// The block that it is of.
    pub block: Option<String>,
    /// The id of its holder's handle.
    pub handle: Option<String>,
    /// What its holder said about himself.
    pub attributes: BTreeMap<String, String>,
}

/// Whether somebody has an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum State {
    /// Somebody has it.
    InUse,
    /// It was given back and rests.
    Resting,
    /// Nobody has it.
    Free,
}

/// Looks an address up.
#[must_use]
pub fn address(ip: IpAddr, blocks: &[Block], pools: &[IpPool]) -> Address {
    let pool = pools.iter().filter(|pool| pool.cidr.contains(ip));
    let pool = pool.max_by_key(|pool| pool.cidr.prefix_len());
    let block = blocks.iter().find(|block| block.cidr.contains(ip));
    let attributes = block.and_then(|block| attributes_of(block, ip));
    let state = match attributes {
        None => State::Free,
        Some(attributes) if attributes.released_at.is_some() => State::Resting,
        Some(_) => State::InUse,
    };
    Address {
        ip,
        state,
        pool: pool.map(|pool| pool.name.clone()),
        block: block.map(|block| block.cidr.to_string()),
        handle: attributes.and_then(|one| one.handle.as_ref()).map(ToString::to_string),
        attributes: attributes.map(|one| one.owner.clone()).unwrap_or_default(),
    }
}

/// Returns who holds `ip`, or held it until now.
pub(crate) fn attributes_of(block: &Block, ip: IpAddr) -> Option<&Attributes> {
    let ordinal = usize::try_from(block.cidr.ordinal_of(ip)?).ok()?;
    block.attributes.get((*block.allocations.get(ordinal)?)?)
}

impl Report for Address {
    fn text(&self) -> String {
        let ip = self.ip;
        let state = match self.state {
            State::InUse => "is in use",
            State::Resting => "is not in use, and rests until it may be assigned again",
            State::Free => "is not currently assigned",
        };
        let mut lines = vec![format!("IP {ip} {state}")];
        if self.state == State::InUse {
            lines.push("Attributes:".to_owned());
            let handle = self.handle.iter().map(|id| ("handle_id".to_owned(), id.clone()));
            for (key, value) in handle.chain(self.attributes.clone()) {
                lines.push(format!("  {key}: {value}"));
            }
        }
        lines.push(match (&self.pool, &self.block) {
            (Some(pool), Some(block)) => format!("It is of block {block} of pool {pool}."),
            (Some(pool), None) => format!("It is of pool {pool}, and of no block yet."),
            (None, Some(block)) => format!("It is of block {block}, which no pool covers."),
            (None, None) => "No pool covers it.".to_owned(),
        });
        lines.join("\n")
    }
}

/// The addresses that nodes have from blocks of others.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Borrowed {
    /// One entry per address, in order.
    pub borrowed: Vec<Loan>,
}

/// An address that a node has from a block of another.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loan {
    /// The address.
    pub ip: IpAddr,
    /// The node that has it.
    pub borrowing_node: String,
    /// The block.
    pub block: String,
    /// Whose block it is; empty for nobody's.
    pub block_owner: String,
    /// What the address is for: `pod`, or the kind of tunnel.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who has it.
    pub allocated_to: String,
}

/// Finds the addresses that nodes have from blocks of others.
#[must_use]
pub fn borrowed(blocks: &[Block]) -> Borrowed {
    let mut borrowed: Vec<Loan> = blocks.iter().flat_map(loans).collect();
    borrowed.sort_by_key(|loan| loan.ip);
    Borrowed { borrowed }
}

fn loans(block: &Block) -> impl Iterator<Item = Loan> {
    let ordinals = 0..u32::try_from(block.allocations.len()).unwrap_or(u32::MAX);
    let owner = match &block.affinity {
        Some(Owner::Host(node)) => node.to_string(),
        Some(owner @ Owner::Virtual(_)) => owner.to_string(),
        None => String::new(),
    };
    ordinals.filter_map(move |ordinal| {
        let holder = slots::holder(block, ordinal)?;
        let node = holder.owner.get("node").filter(|node| **node != owner)?;
        Some(Loan {
            ip: slots::address(block, ordinal)?,
            borrowing_node: node.clone(),
            block: block.cidr.to_string(),
            block_owner: owner.clone(),
            kind: kind_of(holder),
            allocated_to: holder_name(holder),
        })
    })
}

/// Returns what an address is for.
pub(crate) fn kind_of(holder: &Attributes) -> String {
    let is_pod = holder.owner.contains_key("pod");
    let default = if is_pod { "pod" } else { "other" };
    holder.owner.get("type").cloned().unwrap_or_else(|| default.to_owned())
}

/// Names who has an address.
pub(crate) fn holder_name(holder: &Attributes) -> String {
    let get = |key: &str| holder.owner.get(key).cloned();
    match (get("namespace"), get("pod").or_else(|| get("service"))) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name,
        (_, None) => match (get("type"), get("node"), &holder.handle) {
            (Some(_), Some(node), _) => node,
            (_, _, Some(handle)) => handle.to_string(),
            (_, _, None) => "-".to_owned(),
        },
    }
}

impl Report for Borrowed {
    fn text(&self) -> String {
        let row = |loan: &Loan| {
            let Loan { ip, borrowing_node, block, block_owner, kind, allocated_to } = loan.clone();
            vec![ip.to_string(), borrowing_node, block, block_owner, kind, allocated_to]
        };
        let heads = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
        output::grid(&heads, self.borrowed.iter().map(row))
    }
}
