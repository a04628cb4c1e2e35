//! How much longer everything takes on a slow machine.
//!
//! Every bound on waiting is for a busy machine of the usual kind. A machine in a virtual
//! machine without hardware's help is ten to thirty times slower; whoever starts the lab
//! there says so once, and each bound grows with it. No test waits for the bound itself.

use std::time::Duration;

/// The variable that says how many times slower this machine is; absent or unreadable is one.
pub const VARIABLE: &str = "CALICO_LAB_SLOWNESS";

/// Returns `bound` as it is on this machine.
#[must_use]
pub fn on_this_machine(bound: Duration) -> Duration {
    let slowness = std::env::var(VARIABLE).ok();
    let slowness = slowness.and_then(|text| text.parse::<u32>().ok()).unwrap_or(1);
    bound.saturating_mul(slowness.max(1))
}
