//! From a change in the API to the change in the kernel.

use std::time::{Duration, Instant};

use kernel::nftables::{Monitor, Nftables};
use lab::Error;
use lab::rest::{Request, Rest};

use crate::statistics::percentile;

/// How long a change may take before something is wrong.
const WITHIN: Duration = Duration::from_secs(20);
/// Nothing has happened for so long: what comes next is the next change's.
const QUIET: Duration = Duration::from_millis(30);

/// How long changes took, from before the request was sent: half, nine of ten, 99 of 100.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency(pub(crate) [Duration; 3]);

/// Makes `count` changes, each after the one before is in the kernel.
///
/// # Errors
///
/// [`Error`] if a change does not come into the kernel.
pub(super) async fn measure(
    api: &Rest,
    count: usize,
    change: impl Fn(usize) -> Request,
) -> Result<Latency, Error> {
    let ours = Nftables::open().map_err(Error::wrong)?;
    let mut monitor = Monitor::open(&ours).map_err(Error::wrong)?;
    let mut took = Vec::with_capacity(count);
    for number in 0..count {
        while tokio::time::timeout(QUIET, monitor.next()).await.is_ok() {}
        let request = change(number);
        let started = Instant::now();
        let asked = async { api.send(request).await?.success() };
        let seen = async {
            let seen = tokio::time::timeout(WITHIN, monitor.next()).await;
            seen.map_err(|_| Error::wrong(format!("change {number} does not reach the kernel")))?
                .map_err(Error::wrong)?;
            Ok(started.elapsed())
        };
        let (_, elapsed) = tokio::try_join!(asked, seen)?;
        took.push(elapsed);
    }
    took.sort_unstable();
    Ok(Latency([50, 90, 99].map(|percent| percentile(&took, percent))))
}

/// Waits until the kernel's tables have not changed for `time`.
pub(super) async fn quiet(time: Duration) {
    let monitor = Nftables::open().and_then(|ours| Ok((Monitor::open(&ours)?, ours)));
    let Ok((mut monitor, _ours)) = monitor else { return };
    while tokio::time::timeout(time, monitor.next()).await.is_ok() {}
}
