//! CHECK: are the addresses of the earlier result still the container's?

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipam::{Key, Op, Outcome, Record, slots};
use ledger::{Driver, read_handle, surroundings};
use model::block::Handle;
use model::net::InterfaceAddr;

use crate::Error;
use crate::holder::Holder;

/// Compares `addrs` with what `holder` holds.
///
/// # Errors
///
/// [`Error::Differs`] if one of them is not held any more, or one that is held
/// is not among them.
pub async fn check(
    driver: &mut Driver,
    holder: &Holder,
    addrs: &[InterfaceAddr],
) -> Result<(), Error> {
    let client = driver.client().clone();
    let id = holder.handle();
    let requests =
        futures::future::join(surroundings::check_ready(&client), read_handle(&client, &id));
    let (ready, object) = Box::pin(requests).await;
    ready?;
    let object = object?;
    // The handle says itself which VRF it is of.
    driver.enter_vrf(object.as_ref().map(api::vrf_of).transpose()?.flatten());
    let handle = object.as_ref().map(Handle::try_from).transpose()?;
    let held = match handle.filter(|handle| !handle.is_deleted) {
        Some(handle) => held_by(driver, &handle).await?,
        None => BTreeSet::new(),
    };
    compare(holder, addrs, &held)
}

async fn held_by(driver: &mut Driver, handle: &Handle) -> Result<BTreeSet<IpAddr>, Error> {
    let reads = handle.blocks.keys().map(|cidr| Op::Read(Key::Block(*cidr))).collect();
    let mut held = BTreeSet::new();
    for (_, outcome) in driver.act(reads).await? {
        if let Outcome::Found(Record::Block(block)) = outcome {
            let ordinals = slots::held_by(&block, &handle.id).into_iter();
            held.extend(ordinals.filter_map(|ordinal| slots::address(&block, ordinal)));
        }
    }
    Ok(held)
}

fn compare(holder: &Holder, addrs: &[InterfaceAddr], held: &BTreeSet<IpAddr>) -> Result<(), Error> {
    let handle = holder.handle();
    let told: BTreeSet<IpAddr> = addrs.iter().map(InterfaceAddr::addr).collect();
    if let Some(lost) = told.difference(held).next() {
        return Err(Error::Differs(format!("address {lost} is not held by handle {handle}")));
    }
    if let Some(extra) = held.difference(&told).next() {
        return Err(Error::Differs(format!(
            "handle {handle} holds address {extra}, which is not in prevResult"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_must_agree() {
        let holder = Holder { network: "net".to_owned(), container_id: "c1".to_owned(), pod: None };
        let found = |told: &[&str], held: &[&str]| {
            let told: Vec<InterfaceAddr> = told.iter().map(|addr| addr.parse().unwrap()).collect();
            let held = held.iter().map(|addr| addr.parse().unwrap()).collect();
            compare(&holder, &told, &held).map_err(|error| error.to_string())
        };
        assert!(found(&["10.0.0.1/32", "fd00::1/128"], &["10.0.0.1", "fd00::1"]).is_ok());
        let lost = found(&["10.0.0.1/26"], &[]).unwrap_err();
        assert!(lost.starts_with("address 10.0.0.1 is not held by handle net.c1;"), "{lost}");
        let extra = found(&["10.0.0.1/26"], &["10.0.0.1", "10.0.0.2"]).unwrap_err();
        assert!(extra.starts_with("handle net.c1 holds address 10.0.0.2, which"), "{extra}");
    }
}
