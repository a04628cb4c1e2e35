//! What is looked at for an endpoint's packets: tiers, then profiles.

use model::desired::policy::{Direction, TierPath};
use model::ruleset::{Is, Match, Rule, Statement, Verdict};
use model::tier::TierAction;

use crate::name::{self, Toward};
use crate::settings::Marks;

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

/// Returns the rules of a path. What is allowed returns with the accept mark;
/// packets come without marks.
pub(crate) fn rules(
    direction: &Direction,
    toward: Toward,
    ending: Ending,
    marks: Marks,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, tier) in direction.tiers.iter().enumerate() {
        if index > 0 {
            rules.push(Rule::new(vec![], vec![Statement::SetMark(marks.no_pass())]));
        }
        rules.extend(of_tier(tier, toward, ending, marks));
    }
    if ending == Ending::Closed {
        rules.extend(of_profiles(&direction.profiles, toward, marks));
    }
    rules
}

fn of_tier(tier: &TierPath, toward: Toward, ending: Ending, marks: Marks) -> Vec<Rule> {
    let undecided = Match::Marked(Is::In, marks.none());
    let mut rules: Vec<Rule> = Vec::new();
    for id in &tier.policies {
        // Before the first there is nothing to look at.
        let matches = if rules.is_empty() { vec![] } else { vec![undecided.clone()] };
        rules.push(Rule::new(matches, vec![Verdict::Jump(name::policy(id, toward)).into()]));
    }
    rules.push(return_if_accepted(marks));
    if ending != Ending::Undecided && tier.default_action == TierAction::Deny {
        let undecided = Match::Marked(Is::In, marks.no_pass());
        let drop = Rule::new(vec![undecided], vec![Verdict::Drop.into()]);
        rules.push(drop.noted(format!("tier {}: no rule matches", tier.tier)));
    }
    rules
}

fn of_profiles(profiles: &[String], toward: Toward, marks: Marks) -> Vec<Rule> {
    let mut rules = Vec::new();
    for profile in profiles {
        let chain = name::profile(profile, toward);
        rules.push(Rule::new(vec![], vec![Verdict::Jump(chain).into()]));
        rules.push(return_if_accepted(marks));
    }
    let drop = Rule::new(vec![], vec![Verdict::Drop.into()]);
    rules.push(drop.noted("no policy and no profile allows it"));
    rules
}

fn return_if_accepted(marks: Marks) -> Rule {
    Rule::new(vec![Match::Marked(Is::In, marks.accept())], vec![Verdict::Return.into()])
}
