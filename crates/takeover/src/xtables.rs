//! Reads what `iptables-save` prints, and decides what of it goes: pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How the names of Calico's chains start.
const CHAIN: &str = "cali-";
/// How the comments of Calico's rules start, of which each has one.
const COMMENT: &str = "--comment \"cali:";

/// How to remove what is Calico's from the tables of one family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Removal {
    /// What `iptables-restore --noflush` is told; empty if there is nothing to remove.
    pub script: String,
    /// How many chains go.
    pub chains: usize,
    /// How many rules of other chains go.
    pub rules: usize,
    /// Rules of others that lead to Calico's chains, which for their sake stay.
    pub foreign: Vec<String>,
}

/// Decides what goes of what `iptables-save` printed.
#[must_use]
pub fn removal(save: &str) -> Removal {
    let mut removal = Removal::default();
    for table in save.split("\n*").filter(|table| !table.trim().is_empty()) {
        of_table(table.trim_start_matches('*'), &mut removal);
    }
    removal
}

/// Says whether tables drop packets of pods that no rule of Calico's accepts: the policy of FORWARD
/// is DROP, as Docker and some firewalls leave it, and nobody else's rule accepts all of them.
///
/// Felix accepts them there itself; tables of nftables cannot take back what others drop.
#[must_use]
pub fn drops_forwarded(save: &str) -> bool {
    let filter = save.split("\n*").map(|table| table.trim_start_matches('*'));
    let Some(filter) = filter.into_iter().find(|table| table_name(table) == Some("filter")) else {
        return false;
    };
    let is_dropped = filter.lines().any(|line| line.starts_with(":FORWARD DROP"));
    let rules = || filter.lines().filter_map(rule).filter(|rule| !rule.is_calicos);
    let accepts = |what: &str| {
        rules().any(|rule| rule.text.strip_prefix("FORWARD").is_some_and(|rest| rest == what))
    };
    let accepts_pods = accepts(" -i cali+ -j ACCEPT") && accepts(" -o cali+ -j ACCEPT");
    is_dropped && !accepts(" -j ACCEPT") && !accepts_pods
}

/// Returns a table's name, which its first line that is no remark has.
fn table_name(table: &str) -> Option<&str> {
    table.lines().find(|line| !line.starts_with('#')).map(|line| line.trim_start_matches('*'))
}

/// Decides about one table; the first line that is no remark is its name.
fn of_table(table: &str, removal: &mut Removal) {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let Some(name) = lines.next().map(|name| name.trim_start_matches('*')) else { return };
    let (mut chains, mut rules, mut foreign) = (Vec::new(), Vec::new(), BTreeSet::new());
    for line in lines {
        if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            if chain.starts_with(CHAIN) {
                chains.push(chain);
            }
        } else if let Some(rule) = rule(line)
            && !rule.chain.starts_with(CHAIN)
        {
            match (rule.is_calicos, rule.target) {
                (true, _) => rules.push(rule.text),
                (false, Some(target)) if target.starts_with(CHAIN) => {
                    foreign.insert(target);
                    removal.foreign.push(format!("{name}: {line}"));
                }
                (false, _) => {}
            }
        }
    }
    // What is led to by others' rules stays, and what it leads to: all chains of the table.
    if !foreign.is_empty() {
        chains.clear();
    }
    if chains.is_empty() && rules.is_empty() {
        return;
    }
    removal.chains = removal.chains.saturating_add(chains.len());
    removal.rules = removal.rules.saturating_add(rules.len());
    let script = &mut removal.script;
    // Writing to a text never fails.
    let _ = writeln!(script, "*{name}");
    for rule in rules {
        let _ = writeln!(script, "-D {rule}");
    }
    // All chains are emptied before any goes, as they lead to each other.
    for option in ["-F", "-X"] {
        for chain in &chains {
            let _ = writeln!(script, "{option} {chain}");
        }
    }
    let _ = writeln!(script, "COMMIT");
}

/// A rule.
struct Rule<'a> {
    /// The chain that it is in.
    chain: &'a str,
    /// The chain, and all that follows.
    text: &'a str,
    /// Does it carry Calico's comment?
    is_calicos: bool,
    /// The chain or action that it leads to.
    target: Option<&'a str>,
}

/// Reads a line; counters before it (`[0:0] -A …`) are passed over.
fn rule(line: &str) -> Option<Rule<'_>> {
    let line = match line.split_once("] ") {
        Some((counters, rest)) if counters.starts_with('[') => rest,
        _ => line,
    };
    let text = line.strip_prefix("-A ")?;
    let chain = text.split(' ').next()?;
    let mut words = text.split(' ');
    let target = words.find(|word| matches!(*word, "-j" | "-g")).and_then(|_| words.next());
    Some(Rule { chain, text, is_calicos: text.contains(COMMENT), target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_calicos_goes_and_nothing_else() {
        let save = include_str!("../../../testdata/takeover/calico.save");
        let expected = include_str!("../../../testdata/takeover/calico.restore");
        let removal = removal(save);
        assert_eq!(removal.script, expected);
        assert_eq!((removal.chains, removal.rules), (12, 8));
        assert!(removal.foreign.is_empty());
    }

    #[test]
    fn tables_of_others_are_left_alone() {
        let save = "# Generated\n*filter\n:INPUT ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n\
                    -A INPUT -s 10.0.0.1/32 -m comment --comment \"not cali:x\" -j ACCEPT\n\
                    -A INPUT -j KUBE-FORWARD\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n";
        assert_eq!(removal(save), Removal::default());
        assert_eq!(removal(""), Removal::default());
    }

    #[test]
    fn chains_that_others_lead_to_stay() {
        let save = "*filter\n:FORWARD ACCEPT [0:0]\n:cali-FORWARD - [0:0]\n\
                    -A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
                    -A FORWARD -i mine0 -j cali-FORWARD\nCOMMIT\n";
        let removal = removal(save);
        assert_eq!((removal.chains, removal.rules), (0, 1));
        assert_eq!(removal.foreign, ["filter: -A FORWARD -i mine0 -j cali-FORWARD"]);
        assert!(!removal.script.contains("-X"), "{}", removal.script);
    }

    #[test]
    fn a_closed_forward_is_seen() {
        let save = |policy: &str, rules: &str| {
            format!("# x\n*filter\n:INPUT DROP [0:0]\n:FORWARD {policy} [0:0]\n{rules}COMMIT\n")
        };
        let calicos = "-A FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark \
                       0x10000/0x10000 -j ACCEPT\n";
        let pods = "-A FORWARD -i cali+ -j ACCEPT\n[1:2] -A FORWARD -o cali+ -j ACCEPT\n";
        for (policy, rules, expected) in [
            ("ACCEPT", "", false),
            ("DROP", "", true),
            ("DROP", calicos, true),
            ("DROP", "-A FORWARD -i docker0 -j ACCEPT\n", true),
            ("DROP", "-A FORWARD -i cali+ -j ACCEPT\n", true),
            ("DROP", pods, false),
            ("DROP", "-A FORWARD -j ACCEPT\n", false),
        ] {
            assert_eq!(drops_forwarded(&save(policy, rules)), expected, "{policy} {rules}");
        }
        assert!(!drops_forwarded("*nat\n:FORWARD DROP [0:0]\nCOMMIT\n"));
        assert!(drops_forwarded(&format!("*raw\nCOMMIT{}", save("DROP", "").replace("# x", ""))));
    }

    #[test]
    fn counters_are_passed_over() {
        let save = "*raw\n:PREROUTING ACCEPT [0:0]\n:cali-PREROUTING - [0:0]\n\
                    [5:300] -A PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING\n\
                    COMMIT\n";
        let script = "*raw\n-D PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING\n\
                      -F cali-PREROUTING\n-X cali-PREROUTING\nCOMMIT\n";
        assert_eq!(removal(save).script, script);
    }
}
