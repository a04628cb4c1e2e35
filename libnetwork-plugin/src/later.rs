//! What is given back after Docker has its answer: Docker need not wait for the datastore.
//!
//! One after the other, in the order in which Docker asked, so that an endpoint's object goes
//! before its address: policy must not take the next owner for this one. What is lost with a
//! crash, or fails, is found and given back by `sync`, as all that nobody owns is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::WorkloadEndpoint;
use tokio::sync::{mpsc, watch};

use crate::driver::Driver;
use crate::error::Error;

/// Something that is no longer needed.
#[derive(Debug)]
pub(crate) enum Job {
    /// An endpoint's object, and the addresses that go after it.
    Object(Box<WorkloadEndpoint>, Vec<IpAddr>),
    /// An address, and the handle that holds it, if it is known.
    Address(IpAddr, Option<String>),
}

/// Where jobs wait.
#[derive(Debug)]
pub(crate) struct Later {
    jobs: mpsc::UnboundedSender<Job>,
    waiting: watch::Sender<usize>,
}

/// The other end, for [`run`].
pub(crate) type Jobs = mpsc::UnboundedReceiver<Job>;

impl Later {
    /// Makes an empty queue.
    pub(crate) fn new() -> (Self, Jobs) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        (Self { jobs, waiting: watch::Sender::new(0) }, receiver)
    }

    /// Has a job done when those before it are.
    pub(crate) fn push(&self, job: Job) {
        self.waiting.send_modify(|count| *count = count.saturating_add(1));
        if self.jobs.send(job).is_err() {
            tracing::debug!("nobody gives anything back any more: the program ends");
        }
    }

    /// Waits until nothing waits.
    pub(crate) async fn idle(&self) {
        drop(self.waiting.subscribe().wait_for(|count| *count == 0).await);
    }

    fn done(&self) {
        self.waiting.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Does the jobs until the program ends.
pub(crate) async fn run(driver: Arc<Driver>, mut jobs: Jobs) {
    // Addresses whose endpoint's object is still there.
    let mut kept = BTreeSet::new();
    while let Some(job) = jobs.recv().await {
        if let Err(error) = Box::pin(carry_out(&driver, job, &mut kept)).await {
            tracing::warn!(
                error = error.line(),
                "cannot give back what is not needed; will be tried again"
            );
            driver.look_soon();
        }
        driver.later.done();
    }
}

async fn carry_out(driver: &Driver, job: Job, kept: &mut BTreeSet<IpAddr>) -> Result<(), Error> {
    match job {
        Job::Object(object, addrs) => {
            let deleted = crate::sync::delete(&driver.client, *object).await;
            if deleted.is_err() {
                kept.extend(addrs);
            }
            deleted
        }
        Job::Address(addr, _) if kept.remove(&addr) => Ok(()),
        Job::Address(addr, handle) => {
            driver.addresses.release(addr, handle.as_deref()).await?;
            if let Some(handle) = handle {
                driver.promises().end(&handle, model::net::Family::of(addr));
            }
            Ok(())
        }
    }
}
