//! The index finds what trying all finds, and tries little.

use std::collections::BTreeMap;

use selector::Labelled as _;

use super::super::labels::Texts;
use super::super::tests::random::Random;
use super::super::tests::rules;
use super::*;

fn labels(texts: &mut Texts, list: &[(&str, &str)]) -> LabelSet {
    let map: BTreeMap<String, String> =
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    LabelSet { own: texts.pairs(map.iter()), inherited: Box::default() }
}

fn random_labels(random: &mut Random, texts: &mut Texts) -> LabelSet {
    let keys = ["app", "role", "pcns.team", "projectcalico.org/namespace"];
    let mut list = |random: &mut Random| {
        let list = random.few(3, |random| (random.pick(&keys), random.pick(&["x", "y", "a"])));
        labels(texts, &list).own
    };
    let own = list(random);
    let inherited = random.few(2, &mut list).into();
    LabelSet { own, inherited }
}

#[test]
fn the_index_finds_what_trying_all_finds() {
    for seed in 0..500 {
        let (mut random, mut texts) = (Random::new(seed), Texts::default());
        let mut index = Index::default();
        let mut things: BTreeMap<ItemKey, LabelSet> = BTreeMap::new();
        let mut selectors: BTreeMap<SelectorKey, Selector> = BTreeMap::new();
        for _ in 0..60 {
            let item = ItemKey(u32::try_from(random.below(6)).unwrap());
            match random.below(4) {
                0 => {
                    let selector = rules::selector(&mut random);
                    let key = index.add(&selector, |item| things.get(&item));
                    selectors.insert(key, selector);
                }
                1 if !selectors.is_empty() => {
                    let key = *selectors.keys().nth(random.below(selectors.len())).unwrap();
                    index.remove(key);
                    selectors.remove(&key);
                }
                _ => {
                    let new = (!random.one_in(4)).then(|| random_labels(&mut random, &mut texts));
                    index.update(item, things.get(&item), new.as_ref());
                    match new {
                        Some(new) => things.insert(item, new),
                        None => things.remove(&item),
                    };
                }
            }
            for (key, selector) in &selectors {
                let found = things.iter().filter(|(_, labels)| selector.matches(*labels));
                let found: Vec<ItemKey> = found.map(|(item, _)| *item).collect();
                assert_eq!(index.items_of(*key), found, "seed {seed}: {selector}");
            }
            for item in things.keys() {
                let keys = selectors.keys().filter(|key| index.items_of(**key).contains(item));
                assert_eq!(index.selectors_of(*item), keys.copied().collect::<Vec<_>>());
            }
        }
        for key in selectors.keys() {
            index.remove(*key);
        }
        for (item, old) in &things {
            index.update(*item, Some(old), None);
        }
        let Index { entries, keys, by_value, by_label, others, items, matches, .. } = index;
        assert!(entries.is_empty() && keys.is_empty() && by_value.is_empty());
        assert!(by_label.is_empty() && others.is_empty() && items.is_empty() && matches.is_empty());
    }
}

#[test]
fn a_change_is_tried_by_few_of_many_selectors() {
    let (mut texts, mut index) = (Texts::default(), Index::default());
    let system = [("orchestrator", "k8s"), ("namespace", "a")];
    for app in 0..1000 {
        let text = format!("orchestrator == 'k8s' && namespace == 'a' && app == 'x{app}'");
        index.add(&text.parse().unwrap(), |_| None);
    }
    let of = |texts: &mut Texts, app| labels(texts, &[system[0], system[1], ("app", app)]);
    let (old, new) = (of(&mut texts, "x1"), of(&mut texts, "x2"));
    assert_eq!(new.label("app"), Some("x2"));
    index.update(ItemKey(0), None, Some(&old));
    let before = index.tries();
    let difference = index.update(ItemKey(0), Some(&old), Some(&new));
    assert_eq!((difference.gained.len(), difference.lost.len()), (1, 1));
    assert!(index.tries() - before <= 4, "{} tries", index.tries() - before);
}

#[test]
fn a_new_selector_tries_few_of_many_things() {
    let (mut texts, mut index) = (Texts::default(), Index::default());
    let mut things = BTreeMap::new();
    for number in 0..1000 {
        let app = format!("x{number}");
        let set = labels(&mut texts, &[("orchestrator", "k8s"), ("app", &app)]);
        index.update(ItemKey(number), None, Some(&set));
        things.insert(ItemKey(number), set);
    }
    let selector = "orchestrator == 'k8s' && app in {'x7', 'x8'}".parse().unwrap();
    let key = index.add(&selector, |item| things.get(&item));
    assert_eq!(index.items_of(key), [ItemKey(7), ItemKey(8)]);
    assert_eq!(index.tries(), 2);
}
