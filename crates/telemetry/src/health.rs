//! Whether the parts of a program live and are ready, by their own reports.
//!
//! A part that stops reporting is taken for stuck: it counts as dead when its time limit has
//! passed, so that a deadlock restarts the program.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a part says about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// It does its work.
    Ready,
    /// It lives but cannot do its work yet, or for now; the text says why.
    NotReady(String),
    /// It cannot recover by itself: the program should be restarted; the text says why.
    Dead(String),
}

/// Which probe a part has a say in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    /// `/liveness`: no means that the program is restarted.
    Liveness,
    /// `/readiness`: no means that the node takes no new pods or traffic.
    Readiness,
}

/// The answer to a probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether every part agrees.
    pub is_good: bool,
    /// One line per part: its name, its state and why.
    pub details: String,
}

/// The reports of all parts of a program; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Aggregator(Arc<Mutex<BTreeMap<String, Part>>>);

/// The mouth of one part.
#[derive(Clone, Debug)]
pub struct Reporter {
    name: String,
    aggregator: Aggregator,
}

#[derive(Clone, Debug)]
struct Part {
    health: Health,
    time: Instant,
    limit: Option<Duration>,
}

impl Aggregator {
    /// Returns an aggregator without parts; it gives a good verdict.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the part `name`, which is not ready until it says so.
    ///
    /// With a `limit` it has to report at least that often, or it counts as dead; without one its
    /// last report stands.
    #[must_use]
    pub fn register(&self, name: &str, limit: Option<Duration>) -> Reporter {
        let health = Health::NotReady("it has not reported yet".to_owned());
        self.parts().insert(name.to_owned(), Part { health, time: Instant::now(), limit });
        Reporter { name: name.to_owned(), aggregator: self.clone() }
    }

    /// Answers `probe` as of `now`.
    #[must_use]
    pub fn verdict(&self, probe: Probe, now: Instant) -> Verdict {
        let mut verdict = Verdict { is_good: true, details: String::new() };
        for (name, part) in self.parts().iter() {
            let health = part.at(now);
            let agrees = match health {
                Health::Ready => true,
                Health::NotReady(_) => probe == Probe::Liveness,
                Health::Dead(_) => false,
            };
            verdict.is_good = verdict.is_good && agrees;
            // Writing to a string does not fail.
            let _ = writeln!(verdict.details, "{name}: {health}");
        }
        verdict
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Tells how the part is now.
    pub fn report(&self, health: Health) {
        if let Some(part) = self.aggregator.parts().get_mut(&self.name) {
            part.health = health;
            part.time = Instant::now();
        }
    }

    /// Takes the part out, because it ended in good order.
    pub fn retire(self) {
        self.aggregator.parts().remove(&self.name);
    }
}

impl Part {
    fn at(&self, now: Instant) -> Health {
        let silence = now.saturating_duration_since(self.time);
        match self.limit {
            Some(limit) if silence > limit => Health::Dead(format!(
                "stuck: no report for {} s, limit {} s",
                silence.as_secs(),
                limit.as_secs()
            )),
            _ => self.health.clone(),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => formatter.write_str("ready"),
            Self::NotReady(why) => write!(formatter, "live, not ready: {why}"),
            Self::Dead(why) => write!(formatter, "not live: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(aggregator: &Aggregator, later: Duration) -> (bool, bool) {
        let now = Instant::now() + later;
        let good = |probe| aggregator.verdict(probe, now).is_good;
        (good(Probe::Liveness), good(Probe::Readiness))
    }

    #[test]
    fn a_part_is_live_but_not_ready_before_its_first_report() {
        let aggregator = Aggregator::new();
        assert_eq!(answers(&aggregator, Duration::ZERO), (true, true), "no parts");
        let _felix = aggregator.register("felix", None);
        assert_eq!(answers(&aggregator, Duration::ZERO), (true, false));
    }

    #[test]
    fn one_part_decides_for_all() {
        let aggregator = Aggregator::new();
        let felix = aggregator.register("felix", None);
        let bgp = aggregator.register("bgp", None);
        felix.report(Health::Ready);
        bgp.report(Health::Ready);
        assert_eq!(answers(&aggregator, Duration::ZERO), (true, true));
        bgp.report(Health::NotReady("1 of 2 peers is established".to_owned()));
        assert_eq!(answers(&aggregator, Duration::ZERO), (true, false));
        bgp.report(Health::Dead("port 179 is taken".to_owned()));
        assert_eq!(answers(&aggregator, Duration::ZERO), (false, false));
        bgp.retire();
        assert_eq!(answers(&aggregator, Duration::ZERO), (true, true));
    }

    #[test]
    fn a_silent_part_is_dead_after_its_limit_and_lives_again_when_it_speaks() {
        let aggregator = Aggregator::new();
        let felix = aggregator.register("felix", Some(Duration::from_secs(90)));
        felix.report(Health::Ready);
        assert_eq!(answers(&aggregator, Duration::from_secs(89)), (true, true));
        let later = Duration::from_secs(95);
        assert_eq!(answers(&aggregator, later), (false, false));
        let verdict = aggregator.verdict(Probe::Liveness, Instant::now() + later);
        assert_eq!(verdict.details, "felix: not live: stuck: no report for 95 s, limit 90 s\n");
        felix.report(Health::Ready);
        assert_eq!(answers(&aggregator, Duration::ZERO), (true, true));
    }

    #[test]
    fn the_details_say_who_and_why() {
        let aggregator = Aggregator::new();
        aggregator.register("felix", None).report(Health::Ready);
        let _bgp = aggregator.register("bgp", None);
        let verdict = aggregator.verdict(Probe::Readiness, Instant::now());
        assert_eq!(
            verdict.details,
            "bgp: live, not ready: it has not reported yet\nfelix: ready\n"
        );
    }
}
