//! DEL: gives back whatever a container holds.

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
    let handles: Vec<HandleId> =
        [Some(holder.handle()), holder.legacy_handle()].into_iter().flatten().collect();
    Ok(ledger::release(driver, &handles).await.map(drop)?)
}
