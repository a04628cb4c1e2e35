//! How a verdict was found, told to people.

use std::fmt;

use model::policy::{Action, Policy, PolicyId, Profile};

use crate::policy::packet::Decision;

/// What becomes of a packet, and how that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// What becomes of it.
    pub decision: Decision,
    /// The policies and profiles that were looked at, in order, up to the one that decides.
    pub steps: Vec<PolicyTrace>,
}

/// A policy or a profile that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyTrace {
    /// The tier, and the policy; `None` for a profile.
    pub policy: Option<(String, PolicyId)>,
    /// The profile's name; `None` for a policy.
    pub profile: Option<String>,
    /// The selector by which the policy applies.
    pub selector: Option<String>,
    /// The rules that were looked at, up to the one that decides.
    pub rules: Vec<RuleTrace>,
}

/// A rule that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleTrace {
    /// Its index in the object's list.
    pub index: usize,
    /// What it does.
    pub action: Action,
    /// Why it denies instead of what it says.
    pub obstacle: Option<String>,
    /// The first mark that the packet does not have; `None` if it has all.
    pub mismatch: Option<String>,
}

impl PolicyTrace {
    pub(super) fn of_policy(policy: &Policy, rules: Vec<RuleTrace>) -> Self {
        Self {
            policy: Some((policy.tier.clone(), policy.id.clone())),
            profile: None,
            selector: Some(policy.selector.to_string()),
            rules,
        }
    }

    pub(super) fn of_profile(profile: &Profile, rules: Vec<RuleTrace>) -> Self {
        Self { policy: None, profile: Some(profile.name.clone()), selector: None, rules }
    }
}

impl fmt::Display for Verdict {
    /// Writes what was looked at, a line each, and what becomes of the packet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            step.fmt(f)?;
        }
        writeln!(f, "{}", self.decision)
    }
}

impl fmt::Display for PolicyTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((tier, id)) = &self.policy {
            writeln!(f, "tier {tier}: {id} applies by {}", self.selector.as_deref().unwrap_or(""))?;
        }
        if let Some(profile) = &self.profile {
            writeln!(f, "profile {profile}")?;
        }
        for rule in &self.rules {
            write!(f, "  rule {} {:?}: ", rule.index, rule.action)?;
            match &rule.mismatch {
                Some(mismatch) => writeln!(f, "no, {mismatch}")?,
                None => writeln!(f, "matches")?,
            }
            if let Some(obstacle) = &rule.obstacle {
                writeln!(f, "    {obstacle}")?;
            }
        }
        Ok(())
    }
}
