//! A kernel in memory that takes transactions as strictly as the real one.

use std::collections::BTreeMap;

use model::net::Family;
use model::ruleset::{
    Chain, Element, Ruleset, Set, Snapshot, Statement, Step, TableSnapshot, Tables, Transaction,
    Verdict,
};

/// Tables, as the kernel would hold them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel(pub(super) Tables);

impl Kernel {
    /// Carries a transaction out; panics where the kernel would refuse it.
    pub(super) fn apply(&mut self, transaction: &Transaction) {
        for (family, step) in &transaction.steps {
            self.step(*family, step);
        }
        for (family, table) in &self.0 {
            check(*family, table);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let table =
            |(family, table): (&Family, &Ruleset)| (*family, TableSnapshot::of(table, *family));
        Snapshot { generation: 7, tables: self.0.iter().map(table).collect() }
    }

    fn step(&mut self, family: Family, step: &Step) {
        let text = step.text(family);
        if *step == Step::CreateTable {
            self.0.entry(family).or_default();
            return;
        }
        if *step == Step::DeleteTable {
            self.0.remove(&family).expect(&text);
            return;
        }
        let Ruleset { chains, sets } = self.0.get_mut(&family).expect(&text);
        match step {
            Step::CreateTable | Step::DeleteTable => unreachable!(),
            Step::CreateSet(name, kind) => insert(sets, name, Set::empty(*kind)),
            Step::DeleteSet(name) => drop(sets.remove(name).expect(&text)),
            Step::CreateChain(name, base) => {
                insert(chains, name, Chain { base: *base, rules: vec![] });
            }
            Step::DeleteChain(name) => {
                let chain = chains.remove(name).expect(&text);
                assert!(chain.rules.is_empty(), "{text}: it has rules");
            }
            Step::FlushChain(name) => chains.get_mut(name).expect(&text).rules.clear(),
            Step::Append(name, rule) => {
                chains.get_mut(name).expect(&text).rules.push(rule.clone());
            }
            Step::Add(name, elements) => {
                let set = sets.get_mut(name).expect(&text);
                for element in elements {
                    assert_eq!(element.kind(), set.kind, "{text}");
                    assert!(!set.elements.iter().any(|one| key(one) == key(element)), "{text}");
                    set.elements.insert(element.clone());
                }
            }
            Step::Remove(name, elements) => {
                let set = sets.get_mut(name).expect(&text);
                for element in elements {
                    assert!(set.elements.remove(element), "{text}: {element} is not there");
                }
            }
        }
    }
}

fn insert<V>(map: &mut BTreeMap<String, V>, name: &str, value: V) {
    assert!(map.insert(name.to_owned(), value).is_none(), "{name} is there already");
}

/// Returns what may be in a set only once.
fn key(element: &Element) -> String {
    if let Element::Dispatch(name, _) = element { name.to_string() } else { element.to_string() }
}

/// Whatever is led to is there, and networks do not overlap.
fn check(family: Family, table: &Ruleset) {
    for (name, chain) in &table.chains {
        for rule in &chain.rules {
            let text = rule.text(family);
            for word in text.split(' ').filter_map(|word| word.strip_prefix('@')) {
                assert!(table.sets.contains_key(word), "{name}: {text}");
            }
            for statement in &rule.statements {
                if let Statement::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) = statement {
                    assert!(table.chains.contains_key(to), "{name}: {text}");
                }
            }
        }
    }
    for (name, set) in &table.sets {
        let mut last = None;
        for element in &set.elements {
            if let Element::Dispatch(_, chain) = element {
                assert!(table.chains.contains_key(chain), "{name}: {element}");
            }
            if let Element::Net(net) = element {
                assert!(!last.is_some_and(|last: model::net::Cidr| last.overlaps(net)));
                last = Some(*net);
            }
        }
    }
}
