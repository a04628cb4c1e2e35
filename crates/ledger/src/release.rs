//! Gives back whatever handles hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipam::{Key, Machine, Op, Release, Released};
use model::block::IpamConfig;
use model::id::HandleId;
use tracing::{info, warn};

use crate::{Driver, Error, surroundings};

/// Releases all addresses of `handles`, and returns them; there being none is a success.
///
/// # Errors
///
/// [`Error::NotReady`], and what the datastore fails with.
pub async fn release(driver: &mut Driver, handles: &[HandleId]) -> Result<BTreeSet<IpAddr>, Error> {
    let reads = handles.iter().cloned().map(|id| Op::Read(Key::Handle(id))).collect();
    let client = driver.client().clone();
    let requests = futures::future::join3(
        surroundings::check_ready(&client),
        surroundings::read_config(&client),
        driver.act(reads),
    );
    let (readiness, config, answers) = Box::pin(requests).await;
    readiness?;
    let config = config.unwrap_or_else(|error| {
        warn!(%error, "releasing as if IPAMConfig `default` did not exist");
        IpamConfig::default()
    });
    let mut machines: Vec<Release> =
        handles.iter().map(|id| Release::new(id.clone(), &config, crate::now())).collect();
    for (op, outcome) in answers? {
        let at = handles.iter().position(|id| op == Op::Read(Key::Handle(id.clone())));
        if let Some(machine) = at.and_then(|at| machines.get_mut(at)) {
            machine.feed(op, outcome);
        }
    }
    let mut released = BTreeSet::new();
    for (handle, mut machine) in handles.iter().zip(machines) {
        let Released { addrs } = driver.run(&mut machine).await?;
        info!(%handle, ?addrs, "released");
        released.extend(addrs);
    }
    Ok(released)
}
