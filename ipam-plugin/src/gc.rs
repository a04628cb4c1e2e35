//! GC: gives back what containers hold that the runtime no longer knows.
//!
//! Looked at are the blocks that this node claims, no others: reading the blocks of a
//! whole cluster on every node would cost more than it frees. An address borrowed from
//! another node's block goes with its handle if that holds one here as well;
//! what is left is calico-kube-controllers' to find.

use std::collections::BTreeSet;

use cni::config::ValidAttachment;
use ipam::{Op, Outcome, Record, Release, Released};
use ledger::{Driver, surroundings};
use model::block::{Attributes, Block, IpamConfig};
use model::id::{HandleId, NodeName};
use model::net::Cidr;
use tracing::{info, warn};

use crate::Error;

/// What GC is about.
#[derive(Clone, Copy, Debug)]
pub struct GcRequest<'a> {
    /// The network's name; other networks' addresses are left alone.
    pub network: &'a str,
    /// This node; addresses of containers on others are left alone.
    pub node: &'a NodeName,
    /// The attachments that the runtime knows.
    pub valid: &'a [ValidAttachment],
}

/// Releases what containers on this node hold that are in no valid attachment.
///
/// The runtime must not run ADD or DEL meanwhile (CNI spec 1.1 §2 "GC").
///
/// # Errors
///
/// See [`Error`]; the first failure counts, the other handles were tried.
pub async fn collect(driver: &mut Driver, request: &GcRequest<'_>) -> Result<(), Error> {
    let client = driver.client().clone();
    surroundings::check_ready(&client).await?;
    let config = surroundings::read_config(&client).await?;
    let mut result = Ok(());
    for (vrf, claims) in ledger::claims_by_vrf(&client, request.node).await? {
        driver.enter_vrf(vrf);
        let (blocks, _) = driver.note_claims(claims);
        result = result.and(collect_in(driver, request, &config, blocks).await);
    }
    Ok(result?)
}

/// Does so in these blocks of the driver's VRF.
async fn collect_in(
    driver: &mut Driver,
    request: &GcRequest<'_>,
    config: &IpamConfig,
    blocks: Vec<Cidr>,
) -> Result<(), ledger::Error> {
    let reads = blocks.into_iter().map(|cidr| Op::Read(ipam::Key::Block(cidr))).collect();
    let mut stale = BTreeSet::new();
    for (_, outcome) in driver.act(reads).await? {
        if let Outcome::Found(Record::Block(block)) = outcome {
            stale.extend(stale_in(&block, request));
        }
    }
    let mut result = Ok(());
    for handle in stale {
        let mut machine = Release::new(handle.clone(), config, ledger::now());
        match driver.run(&mut machine).await {
            Ok(Released { addrs }) => info!(%handle, ?addrs, "released: its container is gone"),
            Err(error) => {
                warn!(%handle, %error, "cannot release a container that is gone");
                result = result.and(Err(error));
            }
        }
    }
    result
}

/// Returns the handles in `block` of this network's containers on this node that are not valid.
fn stale_in(block: &Block, request: &GcRequest<'_>) -> BTreeSet<HandleId> {
    let stale = |holder: &&Attributes| {
        holder.released_at.is_none()
            && holder.owner.get("node").is_some_and(|node| node == request.node.as_str())
            && holder.handle.as_ref().is_some_and(|handle| is_stale(handle, request))
    };
    block.attributes.iter().filter(stale).filter_map(|holder| holder.handle.clone()).collect()
}

/// Is it the handle of a container of this network which the runtime does not know?
///
/// Handles of virtual machines have the same beginning but outlive containers.
fn is_stale(handle: &HandleId, request: &GcRequest<'_>) -> bool {
    let container = handle.0.strip_prefix(request.network).and_then(|rest| rest.strip_prefix('.'));
    container.is_some_and(|container| {
        // Handles of old blocks have text behind a `\r`; object names are in lower case.
        let container = container.split('\r').next().unwrap_or_default();
        let is_it = |one: &ValidAttachment| one.container_id.eq_ignore_ascii_case(container);
        !container.starts_with("vmi.") && !request.valid.iter().any(is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipam::slots::{self, Clock};
    use model::block::Owner;
    use model::time::WallTime;
    use std::time::Duration;

    #[test]
    fn only_containers_of_this_network_and_node_are_collected() {
        let node: NodeName = "a".parse().unwrap();
        let clock = Clock { now: WallTime(0), cooldown: Duration::ZERO };
        let cidr = "10.0.0.0/28".parse().unwrap();
        let mut block = slots::fresh(cidr, Owner::Host(node.clone()), clock.now).unwrap();
        for (ordinal, (handle, node)) in (0_u32..).zip([
            ("net.gone", Some("a")),
            ("net.Gone2\rpadding", Some("a")),
            ("net.KNOWN", Some("a")),
            ("net.elsewhere", Some("b")),
            ("net.nobody-knows-where", None),
            ("net.vmi.shop.cart", Some("a")),
            ("net2.other", Some("a")),
            ("vxlan-tunnel-addr-a", Some("a")),
            ("windows-reserved-ipam-handle", Some("a")),
        ]) {
            let owner = node.map(|node| ("node".to_owned(), node.to_owned()));
            let holder = Attributes {
                handle: Some(HandleId(handle.to_owned())),
                owner: owner.into_iter().collect(),
                ..Attributes::default()
            };
            block = slots::allocate(&block, ordinal, &holder, clock).unwrap();
        }
        let known = ValidAttachment { container_id: "known".into(), if_name: "eth0".into() };
        let request = GcRequest { network: "net", node: &node, valid: &[known] };
        let stale = stale_in(&block, &request);
        let stale: Vec<&str> = stale.iter().map(|handle| handle.0.as_str()).collect();
        assert_eq!(stale, ["net.Gone2\rpadding", "net.gone"]);
    }
}
