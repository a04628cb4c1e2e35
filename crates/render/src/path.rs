//! What is looked at for an endpoint's packets: tiers, then profiles.

use model::desired::policy::{Direction, TierPath};
use model::ruleset::{Is, Match, Reject, Rule, Statement, Verdict};
use model::tier::TierAction;
use model::vrf::Zone;

use crate::name::{self, Toward};
use crate::settings::{Denial, Marks, Settings};

/// What becomes of packets that no policy decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// A tier's default action, then profiles, then they are dropped.
    Closed,
    /// A tier's default action; what is left goes on.
    Open,
    /// They go on: what comes later decides. Tiers have no default action.
    Undecided,
}

/// How packets of a path end that it denies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Denials {
    /// What rules of policies do: those that tell senders only leave a mark.
    pub(crate) of_rules: Denial,
    /// What this path does.
    pub(crate) here: Denial,
}

impl Denials {
    /// Where the kernel can refuse packets.
    pub(crate) const fn of(settings: &Settings) -> Self {
        Self { of_rules: settings.denial, here: settings.denial }
    }

    fn rule(self, matches: Vec<Match>, note: impl Into<String>) -> Rule {
        let statement = match self.here {
            Denial::Drop => Verdict::Drop.into(),
            Denial::Reject => Statement::Reject(Reject::Unreachable),
        };
        Rule::new(matches, vec![statement]).noted(note)
    }

    /// Returns the rule for packets that a rule has denied, if it has only said so.
    fn of_marked(self, marks: Marks) -> Option<Rule> {
        let is_denied = vec![Match::Marked(Is::In, marks.denied())];
        let rule = || self.rule(is_denied, "a rule denies it");
        (self.of_rules == Denial::Reject).then(rule)
    }
}

/// Returns the rules of a path. What is allowed returns with the accept mark;
/// packets come without marks.
pub(crate) fn rules(
    direction: &Direction,
    toward: Toward,
    ending: Ending,
    (marks, denials): (Marks, Denials),
) -> Vec<Rule> {
    if direction.zone == Zone::Nowhere {
        return vec![denials.rule(vec![], "in a VRF that no pool has")];
    }
    let mut rules = Vec::new();
    for (index, tier) in direction.tiers.iter().enumerate() {
        if index > 0 {
            rules.push(Rule::new(vec![], vec![Statement::SetMark(marks.no_pass())]));
        }
        rules.extend(of_tier((tier, direction.zone), toward, ending, (marks, denials)));
    }
    if ending == Ending::Closed {
        rules.extend(of_profiles(direction, toward, (marks, denials)));
    }
    rules
}

fn of_tier(
    (tier, zone): (&TierPath, Zone),
    toward: Toward,
    ending: Ending,
    (marks, denials): (Marks, Denials),
) -> Vec<Rule> {
    let undecided = Match::Marked(Is::In, marks.none());
    let mut rules: Vec<Rule> = Vec::new();
    for id in &tier.policies {
        // Before the first there is nothing to look at.
        let matches = if rules.is_empty() { vec![] } else { vec![undecided.clone()] };
        rules.push(Rule::new(matches, vec![Verdict::Jump(name::policy(id, toward, zone)).into()]));
    }
    rules.push(return_if_accepted(marks));
    rules.extend(denials.of_marked(marks));
    if ending != Ending::Undecided && tier.default_action == TierAction::Deny {
        let undecided = Match::Marked(Is::In, marks.no_pass());
        rules.push(denials.rule(vec![undecided], format!("tier {}: no rule matches", tier.tier)));
    }
    rules
}

fn of_profiles(
    direction: &Direction,
    toward: Toward,
    (marks, denials): (Marks, Denials),
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for profile in &direction.profiles {
        let chain = name::profile(profile, toward, direction.zone);
        rules.push(Rule::new(vec![], vec![Verdict::Jump(chain).into()]));
        rules.push(return_if_accepted(marks));
        rules.extend(denials.of_marked(marks));
    }
    rules.push(denials.rule(vec![], "no policy and no profile allows it"));
    rules
}

fn return_if_accepted(marks: Marks) -> Rule {
    Rule::new(vec![Match::Marked(Is::In, marks.accept())], vec![Verdict::Return.into()])
}
