//! Which of several processes works: the holder of a Lease (`coordination.k8s.io/v1`).

use std::time::Duration;

use datastore::{Client, Error as StoreError};
use jiff::Timestamp as Time;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use model::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{info, warn};

/// The Lease's name.
const NAME: &str = "calico-kube-controllers";
/// How long a holder may be silent.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder speaks, and the others listen.
const PERIOD: Duration = Duration::from_secs(3);

/// What was last seen of the Lease, and when it last changed, by our own clock: those of two
/// machines need not agree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Seen {
    holder: String,
    revision: String,
    changed: Timestamp,
}

impl Seen {
    /// Takes note of the Lease as it is `now`.
    fn note(self, holder: &str, revision: &str, now: Timestamp) -> Self {
        let changed = if self.revision == revision { self.changed } else { now };
        Self { holder: holder.to_owned(), revision: revision.to_owned(), changed }
    }

    /// May `me` take or keep the Lease? It may if it holds it, if nobody does, or if the holder
    /// has been silent for too long.
    fn is_free_for(&self, me: &str, now: Timestamp) -> bool {
        self.holder.is_empty() || self.holder == me || self.changed.until(now) >= DURATION
    }
}

/// Takes part in the election for ever, and tells whether we are the holder.
pub(crate) async fn take_part(
    client: Client,
    (namespace, me): (String, String),
    leader: watch::Sender<bool>,
) {
    let start = Instant::now();
    let mut seen = Seen::default();
    let mut renewed = Timestamp::ZERO;
    let mut ticks = time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let now = || Timestamp::from_origin(start.elapsed());
        match attempt(&client, (&namespace, &me), &mut seen, now()).await {
            Ok(is_ours) => {
                renewed = now();
                tell(&leader, is_ours);
            }
            // A server without Leases has no second process either.
            Err(StoreError::UnknownKind { .. }) => tell(&leader, true),
            Err(error) => {
                warn!(%error, "cannot renew the lease");
                if renewed.until(now()) >= DURATION {
                    tell(&leader, false);
                }
            }
        }
    }
}

fn tell(leader: &watch::Sender<bool>, is_ours: bool) {
    let is_new = leader.send_if_modified(|was| std::mem::replace(was, is_ours) != is_ours);
    if is_new {
        info!(is_leader = is_ours, "the election has a result");
    }
}

/// Looks at the Lease and takes or renews it, if we may.
async fn attempt(
    client: &Client,
    (namespace, me): (&str, &str),
    seen: &mut Seen,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(mut lease) = client.get_in::<Lease>(namespace, NAME).await? else {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        };
        let lease = Lease { metadata, spec: Some(held(None, me)) };
        return settled(client.create(&lease).await);
    };
    let spec = lease.spec.take().unwrap_or_default();
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let revision = lease.metadata.resource_version.clone().unwrap_or_default();
    *seen = std::mem::take(seen).note(&holder, &revision, now);
    if !seen.is_free_for(me, now) {
        return Ok(false);
    }
    lease.spec = Some(held(Some(spec), me));
    settled(client.update(&lease).await)
}

/// Somebody else was faster: then he holds it.
fn settled(result: Result<Lease, StoreError>) -> Result<bool, StoreError> {
    match result {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the Lease's content with us as its holder.
fn held(before: Option<LeaseSpec>, me: &str) -> LeaseSpec {
    let before = before.unwrap_or_default();
    let is_ours = before.holder_identity.as_deref() == Some(me);
    let now = Some(MicroTime(Time::now()));
    let transitions = before.lease_transitions.unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: if is_ours { before.acquire_time } else { now.clone() },
        renew_time: now,
        lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn a_silent_holder_loses_the_lease_after_its_duration() {
        let seen = Seen::default().note("other", "1", at(0));
        let seen = seen.note("other", "1", at(14));
        assert!(!seen.is_free_for("me", at(14)));
        assert!(seen.is_free_for("me", at(15)));
    }

    #[test]
    fn a_holder_that_speaks_keeps_it() {
        let seen = Seen::default().note("other", "1", at(0)).note("other", "2", at(10));
        assert!(!seen.is_free_for("me", at(24)));
    }

    #[test]
    fn nobodys_and_our_own_are_free() {
        assert!(Seen::default().note("", "1", at(0)).is_free_for("me", at(0)));
        assert!(Seen::default().note("me", "1", at(0)).is_free_for("me", at(0)));
    }
}
