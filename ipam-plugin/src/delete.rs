//! DEL: gives back whatever a container holds.

use cni_service::Service;
use ledger::Driver;
use model::id::HandleId;

use crate::Error;
use crate::holder::Holder;

/// Releases all addresses of `holder`; there being none is a success.
///
/// # Errors
///
/// See [`Error`]; the runtime repeats a failed DEL.
pub async fn delete(driver: &mut Driver, holder: &Holder) -> Result<(), Error> {
    Ok(ledger::release(driver, &handles(holder)).await.map(drop)?)
}

/// Has calico-node do what [`delete()`] does; `None` if it does not.
pub async fn delete_by(service: &Service, holder: &Holder) -> Option<()> {
    service.release(&handles(holder)).await
}

fn handles(holder: &Holder) -> Vec<HandleId> {
    [Some(holder.handle()), holder.legacy_handle()].into_iter().flatten().collect()
}
