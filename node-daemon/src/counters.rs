//! What the rules of this node's kernel have counted, by policy: `calico-node policy counters`.

use std::collections::BTreeMap;
use std::fmt;

use calc::policy::{Cause, Decision, Way};
use kernel::Nftables;
use kernel::nftables::{Error, RuleCount};
use render::Origin;

/// Packets and bytes since a rule was written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// What the rules of this node's kernel have counted, of both families together.
#[derive(Debug, Default)]
pub(crate) struct Counters(BTreeMap<Origin, Count>);

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// The kernel's; without the right to change nftables nothing can be read.
    pub(crate) fn read() -> Result<Self, Error> {
        Ok(Self::of(&Nftables::open()?.counters()?))
    }

    fn of(rules: &[RuleCount]) -> Self {
        let mut counters: BTreeMap<Origin, Count> = BTreeMap::new();
        for rule in rules {
            let Some(origin) = Origin::of(&rule.chain, &rule.note) else { continue };
            let count = counters.entry(origin).or_default();
            count.packets = count.packets.saturating_add(rule.packets);
            count.bytes = count.bytes.saturating_add(rule.bytes);
        }
        Self(counters)
    }

    /// Returns what the rule has counted that decided so, in words.
    pub(crate) fn of_decision(&self, decision: &Decision, way: Way) -> Option<String> {
        let is_ingress = way.is_ingress();
        let origin = match decision {
            Decision::Allowed(Cause::Policy(id, rule))
            | Decision::Denied(Cause::Policy(id, rule)) => {
                Origin::Policy { id: id.clone(), is_ingress, rule: *rule }
            }
            Decision::Allowed(Cause::Profile(name, rule))
            | Decision::Denied(Cause::Profile(name, rule)) => {
                Origin::Profile { name: name.clone(), is_ingress, rule: *rule }
            }
            Decision::Allowed(Cause::TierDefault(tier))
            | Decision::Denied(Cause::TierDefault(tier)) => Origin::Other {
                note: format!("tier {tier}: no rule matches"),
                is_ingress: Some(is_ingress),
            },
            Decision::Allowed(Cause::NoProfile)
            | Decision::Denied(Cause::NoProfile)
            | Decision::Undecided => return None,
        };
        let Count { packets, bytes } = self.0.get(&origin)?;
        Some(format!(
            "this node's kernel has seen {packets} packets, {bytes} bytes of {origin}, of any endpoint"
        ))
    }
}

impl fmt::Display for Counters {
    /// Writes a table, a line for each rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12} {:>16}  RULE", "PACKETS", "BYTES")?;
        for (origin, Count { packets, bytes }) in &self.0 {
            write!(f, "\n{packets:>12} {bytes:>16}  {origin}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::net::Family;

    use super::*;

    fn rule(chain: &str, note: &str, family: Family, packets: u64) -> RuleCount {
        let (chain, note) = (chain.to_owned(), note.to_owned());
        RuleCount { family, chain, note, packets, bytes: packets * 100 }
    }

    #[test]
    fn rules_of_one_origin_are_added_up() {
        let counters = Counters::of(&[
            rule("cali-pi-gnp/a", "policy gnp/a rule 1", Family::V4, 2),
            rule("cali-pi-gnp/a", "policy gnp/a rule 1", Family::V6, 3),
            rule("cali-po-gnp/a", "policy gnp/a rule 1", Family::V4, 7),
            rule("cali-tw-0", "tier default: no rule matches", Family::V4, 4),
            rule("filter-INPUT", "", Family::V4, 9),
        ]);
        let lines: Vec<String> = counters.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines.iter().any(|line| line.ends_with("500  policy gnp/a ingress[1]")),
            "{lines:?}"
        );
        let denied = Decision::Denied(Cause::Policy("gnp/a".parse().unwrap(), 1));
        let said = counters.of_decision(&denied, Way::Egress).unwrap();
        assert!(said.contains("7 packets, 700 bytes of policy gnp/a egress[1]"), "{said}");
        let denied = Decision::Denied(Cause::TierDefault("default".to_owned()));
        assert!(counters.of_decision(&denied, Way::Ingress).unwrap().contains("4 packets"));
        assert_eq!(counters.of_decision(&denied, Way::Egress), None);
    }
}
