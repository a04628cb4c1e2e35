//! The loop that keeps VRFs as they should be.

use std::collections::BTreeMap;
use std::time::Instant;

use ::kernel::Netlink;
use ::kernel::monitor::Topic;
use model::time::Timestamp;
use tokio::sync::watch;

use super::Wanted;
use super::actual::Kernel;
use super::plan::{Actual, Grace, Step, leftovers, steps};
use crate::felix::looks::{Looks, Outcome};

/// How often one look may lead to changes: a VRF that is made is looked at several times.
const ROUNDS: usize = 8;

/// What the loop is made of.
#[derive(Debug)]
pub(crate) struct Start {
    /// What should be; as long as it is `None` nobody knows, and nothing is done.
    pub(crate) wanted: watch::Receiver<Option<Wanted>>,
    /// How the names of workloads' links start.
    pub(crate) interface_prefix: String,
}

#[derive(Debug)]
struct Loop {
    kernel: Kernel,
    origin: Instant,
    grace: Grace,
    /// What was last found to be in the way, by what it is in the way of.
    told: BTreeMap<String, String>,
}

/// Runs for as long as the daemon does.
///
/// # Errors
///
/// [`::kernel::netlink::Error`] if the kernel cannot be talked to at all.
pub(crate) async fn run(start: Start) -> Result<(), ::kernel::netlink::Error> {
    let Start { wanted, interface_prefix } = start;
    let mut looks = Looks::open(wanted, &[Topic::Links, Topic::Routes])?;
    let mut this = Loop {
        kernel: Kernel::new(Netlink::open()?, interface_prefix),
        origin: Instant::now(),
        grace: Grace::default(),
        told: BTreeMap::new(),
    };
    while let Some(wanted) = looks.next().await? {
        let outcome = this.look(&wanted).await;
        looks.looked(outcome);
    }
    Ok(())
}

impl Loop {
    /// Makes all as it should be.
    async fn look(&mut self, wanted: &Wanted) -> Outcome {
        for _ in 0..ROUNDS {
            let actual = match self.kernel.read(wanted).await {
                Ok(actual) => actual,
                Err(error) => {
                    tracing::warn!(%error, "cannot list VRFs");
                    return Outcome::Failed;
                }
            };
            let mut faults = BTreeMap::new();
            let is_changed = self.round(wanted, &actual, &mut faults).await;
            let is_well = faults.is_empty();
            for (what, fault) in &faults {
                if self.told.get(what) != Some(fault) {
                    tracing::warn!(%what, error = %fault, "not as it should be, will be retried");
                }
            }
            self.told = faults;
            match (is_well, is_changed) {
                (false, _) => return Outcome::Failed,
                (true, true) => {}
                (true, false) if wanted.is_empty() => return Outcome::Idle,
                (true, false) => return self.settled(),
            }
        }
        Outcome::Failed
    }

    /// All is as it should be, until the first route of a pod that nobody knows may go.
    fn settled(&self) -> Outcome {
        let deadline = self.grace.next_deadline();
        let deadline = deadline.and_then(|at| self.origin.checked_add(at.since_origin()));
        // One that has passed already was tried just now.
        let deadline = deadline.filter(|at| *at > Instant::now());
        deadline.map_or(Outcome::Done, Outcome::Until)
    }

    /// Changes what is to be changed of all, each by itself; returns whether that was anything.
    async fn round(
        &mut self,
        wanted: &Wanted,
        actual: &Actual,
        faults: &mut BTreeMap<String, String>,
    ) -> bool {
        let now = Timestamp::from_origin(self.origin.elapsed());
        let mut plans = vec![("VRFs".to_owned(), leftovers(wanted, actual))];
        for (name, device) in &wanted.devices.by_name {
            let what = format!("VRF {name}");
            match steps((name, device), actual, (&mut self.grace, now)) {
                Ok(steps) => plans.push((what, steps)),
                Err(fault) => {
                    faults.insert(what, fault.to_string());
                }
            }
        }
        let mut is_changed = false;
        for (what, steps) in plans {
            is_changed |= !steps.is_empty();
            if let Err(error) = self.carry_out(&steps).await {
                faults.insert(what, error);
            }
        }
        is_changed
    }

    async fn carry_out(&self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            match step {
                Step::AddVrf(device, table) => tracing::info!(%device, table, "VRF set up"),
                Step::Tunnel(device, spec) => tracing::info!(%device, %spec, "tunnel set up"),
                Step::Delete(device) => tracing::info!(%device, "device of a VRF removed"),
                Step::Mark(..)
                | Step::SetUp(..)
                | Step::Guard(..)
                | Step::Unguard(..)
                | Step::Enslave(..)
                | Step::Entries(_)
                | Step::Routes(..)
                | Step::Look => tracing::debug!(?step, "VRF"),
            }
            self.kernel.apply(step).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
