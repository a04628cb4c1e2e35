//! What could not be followed, for whoever wrote it.

use model::desired::policy::CompiledRule;

use super::engine::Policies;
use super::rulebook::Owner;
use crate::Problem;

impl Policies {
    /// Returns what could not be followed, of the whole cluster: rules that deny
    /// instead of what they say, tiers that are missing, pods without interface.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (id, tier) in self.placement.without_tier() {
            let message = format!("tier {tier} is missing, its policies come last: create it");
            problems.push(Problem { object: id.to_string(), message });
        }
        for (owner, rules) in self.rulebook.all() {
            let object = match owner {
                Owner::Policy(id) => id.to_string(),
                Owner::Profile(name) => format!("profile {name}"),
            };
            problems.extend(denying("ingress", &object, &rules.ingress));
            problems.extend(denying("egress", &object, &rules.egress));
        }
        for (if_name, pods) in &self.pods {
            for pod in pods.keys().skip(1) {
                let message = format!("another pod has its interface {if_name}: rename it");
                problems.push(Problem { object: format!("pod {pod}"), message });
            }
        }
        problems
    }
}

/// Returns the rules that deny instead of what they say.
fn denying(field: &str, object: &str, rules: &[CompiledRule]) -> impl Iterator<Item = Problem> {
    let reasons = rules.iter().enumerate();
    reasons.filter_map(|(index, rule)| Some((index, rule.never.as_ref()?))).map(
        move |(index, never)| Problem {
            object: object.to_owned(),
            message: format!("{field}[{index}] denies: {never}"),
        },
    )
}
