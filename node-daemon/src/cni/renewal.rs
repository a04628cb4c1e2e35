//! When the plugin's credentials are renewed: decided from what is known, doing nothing.
//!
//! A token's life is measured from when it was made, by both clocks, and never by what time it
//! is: a clock that is stepped makes a renewal early at worst, and none is missed while the
//! machine sleeps. What the server refuses is renewed at once, whatever its age. Another authority
//! is no reason for another token: it is written beside the one that there is, for which nobody has
//! to be asked.

use std::time::Duration;

use model::time::{Timestamp, WallTime};

/// How long a token is asked to be valid; what the server grants may be less.
pub(crate) const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How often it is asked whether the token is still taken.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The shortest time between two renewals that nobody asked for.
const SHORTEST: Duration = Duration::from_secs(5);

/// What both clocks show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The clock that never goes back, but stops while the machine sleeps.
    pub(crate) steady: Timestamp,
    /// The clock that people set.
    pub(crate) wall: WallTime,
}

/// A token that was made and written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// When.
    pub(crate) at: Now,
    /// How old it may become.
    pub(crate) period: Duration,
}

/// What is known of the credentials.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// The token that we made, if we did.
    pub(crate) made: Option<Made>,
    /// Whether the file still is what we wrote.
    pub(crate) is_in_place: bool,
    /// When the server was last asked whether it takes the token.
    pub(crate) checked: Option<Timestamp>,
    /// Whether it does not.
    pub(crate) is_refused: bool,
    /// Whether we are given another authority than the one that was written.
    pub(crate) has_other_authority: bool,
    /// Not before this time is something tried again that failed.
    pub(crate) waits_until: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Nothing.
    Rest,
    /// Get a new token and write it.
    Renew(Reason),
    /// Write the token again, beside the authority that we are given now.
    Trust,
    /// Write again what somebody has changed or deleted.
    Restore,
    /// Ask the server whether it still takes the token.
    Check,
}

/// Why a token is renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// This daemon has just started: nobody knows how old what is there is.
    Start,
    /// A part of its life has passed.
    Age,
    /// The server refuses it: its signing key was changed, or the account was made anew.
    Refused,
}

impl Reason {
    /// Returns the reason in words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Start => "calico-node started",
            Self::Age => "a quarter of its life has passed",
            Self::Refused => "the API server refuses it",
        }
    }
}

/// Decides what to do now.
pub(crate) fn decide(state: &State, now: Now) -> Step {
    if state.waits_until.is_some_and(|until| now.steady < until) {
        return Step::Rest;
    }
    let Some(made) = state.made else { return Step::Renew(Reason::Start) };
    if state.is_refused {
        return Step::Renew(Reason::Refused);
    }
    if age(made.at, now) >= made.period {
        return Step::Renew(Reason::Age);
    }
    if state.has_other_authority {
        return Step::Trust;
    }
    if !state.is_in_place {
        return Step::Restore;
    }
    let is_due = state.checked.is_none_or(|at| at.until(now.steady) >= CHECK_EVERY);
    if is_due { Step::Check } else { Step::Rest }
}

/// Returns how old a token may become: a quarter of its life, up to twice that by `jitter`, which
/// is from zero to one. `base` replaces the quarter where it is given, up to a third.
pub(crate) fn period(lifetime: Duration, base: Option<Duration>, jitter: f64) -> Duration {
    let part = |parts: u32| lifetime.checked_div(parts).unwrap_or(lifetime);
    let base = base.unwrap_or(part(4)).min(part(3));
    base.mul_f64(jitter.clamp(0.0, 1.0) + 1.0).max(SHORTEST)
}

/// Returns the longer of what both clocks say has passed.
fn age(then: Now, now: Now) -> Duration {
    let nanos = now.wall.0.saturating_sub(then.wall.0).max(0);
    let wall = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    wall.max(then.steady.until(now.steady))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(steady: u64, wall: i128) -> Now {
        let steady = Timestamp::from_origin(Duration::from_secs(steady));
        Now { steady, wall: WallTime(wall * 1_000_000_000) }
    }

    fn good() -> State {
        let made = Made { at: at(0, 1_000_000), period: Duration::from_secs(6 * HOUR) };
        let checked = Some(Timestamp::from_origin(Duration::ZERO));
        State { made: Some(made), is_in_place: true, checked, ..State::default() }
    }

    #[test]
    fn a_start_renews_whatever_is_there() {
        let state = State { is_in_place: true, ..State::default() };
        assert_eq!(decide(&state, at(0, 0)), Step::Renew(Reason::Start));
    }

    #[test]
    fn a_fresh_token_rests_and_is_checked_each_minute() {
        assert_eq!(decide(&good(), at(59, 1_000_059)), Step::Rest);
        assert_eq!(decide(&good(), at(60, 1_000_060)), Step::Check);
    }

    #[test]
    fn age_counts_by_either_clock() {
        let now = at(6 * HOUR, 1_000_000);
        assert_eq!(decide(&good(), now), Step::Renew(Reason::Age), "clock stepped back");
        let now = at(10, 1_000_000 + 25 * 3600);
        assert_eq!(decide(&good(), now), Step::Renew(Reason::Age), "slept, or stepped ahead");
        assert_eq!(decide(&good(), at(10, 0)), Step::Rest, "stepped back: nothing to do");
    }

    #[test]
    fn a_refusal_goes_before_everything_but_patience() {
        let state = State { is_refused: true, is_in_place: false, ..good() };
        assert_eq!(decide(&state, at(1, 1_000_001)), Step::Renew(Reason::Refused));
        let until = Some(Timestamp::from_origin(Duration::from_secs(3)));
        let state = State { waits_until: until, ..state };
        assert_eq!(decide(&state, at(1, 1_000_001)), Step::Rest);
        assert_eq!(decide(&state, at(3, 1_000_003)), Step::Renew(Reason::Refused));
    }

    #[test]
    fn what_somebody_changed_is_restored() {
        let state = State { is_in_place: false, ..good() };
        assert_eq!(decide(&state, at(1, 1_000_001)), Step::Restore);
    }

    #[test]
    fn another_authority_is_written_whatever_is_there() {
        let other = State { has_other_authority: true, ..good() };
        for (state, expected) in [
            (other, Step::Trust),
            // What is restored would be the old authority.
            (State { is_in_place: false, ..other }, Step::Trust),
            // A new token comes with the new authority.
            (State { is_refused: true, ..other }, Step::Renew(Reason::Refused)),
            (State { made: None, ..other }, Step::Renew(Reason::Start)),
        ] {
            assert_eq!(decide(&state, at(1, 1_000_001)), expected, "{state:?}");
        }
        assert_eq!(
            decide(&other, at(60, 1_000_060)),
            Step::Trust,
            "before it is asked with the old"
        );
        assert_eq!(decide(&other, at(6 * HOUR, 1_000_000)), Step::Renew(Reason::Age));
        let until = Some(Timestamp::from_origin(Duration::from_secs(3)));
        let state = State { waits_until: until, ..other };
        assert_eq!(decide(&state, at(1, 1_000_001)), Step::Rest, "it failed a moment ago");
        assert_eq!(decide(&state, at(3, 1_000_003)), Step::Trust);
    }

    #[test]
    fn a_token_is_renewed_long_before_it_expires() {
        for lifetime in [20, 600, 3600, 24 * HOUR] {
            let lifetime = Duration::from_secs(lifetime);
            for jitter in [0.0, 0.5, 1.0, f64::INFINITY] {
                let period = period(lifetime, None, jitter);
                assert!(period >= lifetime / 4 && period <= lifetime / 2, "{lifetime:?} {jitter}");
            }
        }
        let day = Duration::from_secs(24 * HOUR);
        let asked = period(day, Some(Duration::from_secs(60)), 0.0);
        assert_eq!(asked, Duration::from_secs(60));
        assert!(period(day, Some(day), 1.0) < day, "a base beyond its life is cut");
    }
}
