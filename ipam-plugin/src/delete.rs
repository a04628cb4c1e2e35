//! DEL: gives back whatever a container holds.

use ipam::{Key, Machine, Op, Release, Released};
use ledger::Driver;
use model::id::HandleId;
use tracing::{info, warn};

use crate::holder::Holder;
use crate::{Error, scene};

/// Releases all addresses of `holder`; there being none is a success.
///
/// # Errors
///
/// See [`Error`]; the runtime repeats a failed DEL.
pub async fn delete(driver: &mut Driver, holder: &Holder) -> Result<(), Error> {
    let handles: Vec<HandleId> =
        [Some(holder.handle()), holder.legacy_handle()].into_iter().flatten().collect();
    let reads = handles.iter().cloned().map(|id| Op::Read(Key::Handle(id))).collect();
    let client = driver.client().clone();
    let requests = futures::future::join3(
        scene::check_ready(&client),
        scene::read_config(&client),
        driver.act(reads),
    );
    let (readiness, config, answers) = Box::pin(requests).await;
    readiness?;
    let config = config.unwrap_or_else(|error| {
        warn!(%error, "releasing as if IPAMConfig `default` did not exist");
        model::block::IpamConfig::default()
    });
    let mut machines: Vec<Release> =
        handles.iter().map(|id| Release::new(id.clone(), &config, ledger::now())).collect();
    for (op, outcome) in answers? {
        let at = handles.iter().position(|id| op == Op::Read(Key::Handle(id.clone())));
        if let Some(machine) = at.and_then(|at| machines.get_mut(at)) {
            machine.feed(op, outcome);
        }
    }
    for (handle, mut machine) in handles.iter().zip(machines) {
        let Released { addrs } = driver.run(&mut machine).await?;
        info!(%handle, ?addrs, "released");
    }
    Ok(())
}
