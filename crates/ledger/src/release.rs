//! Gives back whatever handles hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datastore::Client;
use ipam::{Key, Machine, Op, Outcome, Record, Release, Released};
use model::block::{Handle, IpamConfig};
use model::id::HandleId;
use model::vrf::VrfName;
use tracing::{info, warn};

use crate::{Driver, Error, Stored, surroundings};

/// Releases all addresses of `handles`, and returns them; there being none is a success.
///
/// A handle says itself which VRF it is of, whatever is known, or not known any more, of the
/// container.
///
/// # Errors
///
/// [`Error::NotReady`], and what the datastore fails with.
pub async fn release(driver: &mut Driver, handles: &[HandleId]) -> Result<BTreeSet<IpAddr>, Error> {
    let client = driver.client().clone();
    let requests = futures::future::join3(
        surroundings::check_ready(&client),
        surroundings::read_config(&client),
        futures::future::try_join_all(handles.iter().map(|id| read(&client, id))),
    );
    let (readiness, config, found) = Box::pin(requests).await;
    readiness?;
    let config = config.unwrap_or_else(|error| {
        warn!(%error, "releasing as if IPAMConfig `default` did not exist");
        IpamConfig::default()
    });
    let mut by_vrf: BTreeMap<Option<VrfName>, Vec<(&HandleId, Option<api::IpamHandle>)>> =
        BTreeMap::new();
    for (id, object) in handles.iter().zip(found?) {
        let vrf = object.as_ref().map(api::vrf_of).transpose()?.flatten();
        by_vrf.entry(vrf).or_default().push((id, object));
    }
    let mut released = BTreeSet::new();
    for (vrf, handles) in by_vrf {
        driver.enter_vrf(vrf);
        for (handle, object) in handles {
            let key = Key::Handle(handle.clone());
            let outcome = match object {
                None => driver.learn((Outcome::Absent, vec![(key.clone(), None)])),
                Some(object) => {
                    let outcome = Outcome::Found(Record::Handle(Handle::try_from(&object)?));
                    let stored = Stored::Handle(Box::new(object));
                    driver.learn((outcome, vec![(key.clone(), Some(stored))]))
                }
            };
            let mut machine = Release::new(handle.clone(), &config, crate::now());
            machine.feed(Op::Read(key), outcome);
            let Released { addrs } = driver.run(&mut machine).await?;
            info!(%handle, ?addrs, vrf = driver.vrf().map(VrfName::as_str), "released");
            released.extend(addrs);
        }
    }
    Ok(released)
}

/// Reads a handle, of whatever VRF.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn read(client: &Client, id: &HandleId) -> Result<Option<api::IpamHandle>, Error> {
    Ok(client.get(&id.object_name()).await?)
}
