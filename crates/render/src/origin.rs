//! Whose a rule in the kernel is, from its chain and its comment.

use std::fmt;
use std::str::FromStr as _;

use model::policy::PolicyId;

use crate::name::Toward;

/// Whose a rule in the kernel is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A policy's, by the rule's place among those of its direction.
    Policy {
        /// The policy.
        id: PolicyId,
        /// Is it for packets to endpoints?
        is_ingress: bool,
        /// The rule's place, from 0.
        rule: usize,
    },
    /// A profile's, by the rule's place among those of its direction.
    Profile {
        /// The profile.
        name: String,
        /// Is it for packets to endpoints?
        is_ingress: bool,
        /// The rule's place, from 0.
        rule: usize,
    },
    /// Of a path's, or of those that are always there: what it is for.
    Other {
        /// What it is for: `tier default: no rule matches`.
        note: String,
        /// Is it for packets to workloads; `None` where that does not matter.
        is_ingress: Option<bool>,
    },
}

impl Origin {
    /// Reads it; `None` for rules without a note, or with one that was cut.
    #[must_use]
    pub fn of(chain: &str, note: &str) -> Option<Self> {
        if let Some(rest) = note.strip_prefix("policy ") {
            let (id, rule) = whose(rest)?;
            let is_ingress = toward(chain, "cali-p")?;
            return Some(Self::Policy { id: PolicyId::from_str(id).ok()?, is_ingress, rule });
        }
        if let Some(rest) = note.strip_prefix("profile ") {
            let (name, rule) = whose(rest)?;
            let is_ingress = toward(chain, "cali-pr")?;
            return Some(Self::Profile { name: name.to_owned(), is_ingress, rule });
        }
        let ways = [("cali-tw-", true), ("cali-fw-", false)];
        let is_ingress = ways.iter().find(|(prefix, _)| chain.starts_with(prefix));
        let is_ingress = is_ingress.map(|(_, is_ingress)| *is_ingress);
        (!note.is_empty()).then(|| Self::Other { note: note.to_owned(), is_ingress })
    }
}

/// Reads `NAME rule PLACE`, perhaps with a reason behind it.
fn whose(text: &str) -> Option<(&str, usize)> {
    let (name, rest) = text.split_once(" rule ")?;
    let place = rest.split_once(':').map_or(rest, |(place, _)| place);
    Some((name, place.parse().ok()?))
}

/// Reads the letter that tells chains for packets to endpoints from the others.
fn toward(chain: &str, prefix: &str) -> Option<bool> {
    let rest = chain.strip_prefix(prefix)?;
    let found = Toward::BOTH.into_iter().find(|toward| {
        rest.strip_prefix(toward.letter()).is_some_and(|rest| rest.starts_with('-'))
    })?;
    Some(found == Toward::Ingress)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |is_ingress: bool| if is_ingress { "ingress" } else { "egress" };
        match self {
            Self::Policy { id, is_ingress, rule } => {
                write!(f, "policy {id} {}[{rule}]", way(*is_ingress))
            }
            Self::Profile { name, is_ingress, rule } => {
                write!(f, "profile {name} {}[{rule}]", way(*is_ingress))
            }
            Self::Other { note, is_ingress: None } => f.write_str(note),
            Self::Other { note, is_ingress: Some(is_ingress) } => {
                write!(f, "{note}, {}", way(*is_ingress))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::desired::policy::Direction;
    use model::policy::PolicyKind;
    use model::vrf::Zone;

    use super::*;
    use crate::name;

    #[test]
    fn rules_are_told_by_their_chain_and_note() {
        let id =
            PolicyId { kind: PolicyKind::Network, namespace: Some("a".into()), name: "b".into() };
        for (toward, expected) in [
            (Toward::Ingress, "policy np/a/b ingress[3]"),
            (Toward::Egress, "policy np/a/b egress[3]"),
        ] {
            let notes = ["policy np/a/b rule 3", "policy np/a/b rule 3: it cannot be read"];
            for (note, zone) in notes.into_iter().zip([Zone::Default, Zone::Vrfs(5001)]) {
                let found = Origin::of(&name::policy(&id, toward, zone), note).unwrap();
                assert_eq!(found.to_string(), expected);
            }
        }
        let chain = name::profile("kns.a", Toward::Egress, Zone::Default);
        let found = Origin::of(&chain, "profile kns.a rule 0").unwrap();
        assert_eq!(found.to_string(), "profile kns.a egress[0]");
        let chain = name::path("cali-tw-", &Direction::default());
        let found = Origin::of(&chain, "tier t: no rule matches").unwrap();
        assert_eq!(found.to_string(), "tier t: no rule matches, ingress");
        let found = Origin::of("filter-FORWARD", "no policy has seen it").unwrap();
        assert_eq!(found.to_string(), "no policy has seen it");
    }

    #[test]
    fn what_was_cut_is_nobodys() {
        for (chain, note) in [
            ("cali-pi-np/a/b", "policy np/a/b ru"),
            ("cali-pi-np/a/b", "policy np/a/b rule "),
            ("cali-pi-np/a/b", "policy nonsense rule 1"),
            ("filter-FORWARD", "policy np/a/b rule 1"),
            ("cali-pri-kns.a", "policy np/a/b rule 1"),
            ("filter-FORWARD", ""),
        ] {
            assert_eq!(Origin::of(chain, note), None, "{chain} {note}");
        }
    }
}
