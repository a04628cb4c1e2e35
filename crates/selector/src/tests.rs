//! Facts about selectors: canonical text, answers, refusals, and no panic ever.

use proptest::prelude::*;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn canonical(text: &str) -> String {
    text.parse::<Selector>().unwrap_or_else(|error| panic!("{error}")).to_string()
}

/// The rows of a table under testdata: two columns, parted by ` => `.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" => "))
}

#[test]
fn texts_have_one_canonical_form() {
    let mut count = 0;
    for (text, expected) in rows(include_str!("../../../testdata/selector/canonical.txt")) {
        assert_eq!(canonical(text), expected, "{text}");
        assert_eq!(canonical(expected), expected);
        count += 1;
    }
    assert!(count >= 25, "{count} rows");
}

#[test]
fn refusals_name_the_place_and_the_remedy() {
    let mut count = 0;
    for (text, expected) in rows(include_str!("../../../testdata/selector/refused.txt")) {
        let error = text.parse::<Selector>().unwrap_err().to_string();
        assert_eq!(error, format!("selector `{text}`, {expected}"));
        count += 1;
    }
    assert!(count >= 25, "{count} rows");
}

#[test]
fn answers_follow_the_labels() {
    for (text, given, expected) in [
        ("", "", true),
        ("all()", "a=1", true),
        ("!all()", "a=1", false),
        ("global()", "a=1", true),
        ("global()", "projectcalico.org/namespace=x", false),
        ("has(a)", "a=", true),
        ("has(a)", "b=1", false),
        ("a == '1'", "a=1", true),
        ("a == ''", "", false),
        ("a != '1'", "a=2", true),
        ("a != '1'", "", true),
        ("a != '1'", "a=1", false),
        ("a in {'1', '2'}", "a=2", true),
        ("a in {'1', '2'}", "", false),
        ("a in {}", "a=", false),
        ("a not in {'1'}", "", true),
        ("a not in {'1'}", "a=1", false),
        ("a contains 'b'", "a=abc", true),
        ("a starts with 'ab'", "a=abc", true),
        ("a starts with 'b'", "a=abc", false),
        ("a ends with 'bc'", "a=abc", true),
        ("a contains ''", "", false),
        ("has(a) && has(b) || has(c)", "c=", true),
        ("has(a) && (has(b) || has(c))", "c=", false),
        ("!has(a) && has(b)", "b=", true),
    ] {
        let selector: Selector = text.parse().unwrap();
        assert_eq!(selector.matches(&labels(given)), expected, "{text} of {given}");
    }
}

#[test]
fn prefixes_every_label_and_nothing_else() {
    let selector: Selector = "has(a) && !(b == 'b' || c in {'c'}) && all()".parse().unwrap();
    let expected = r#"(has(pcns.a) && !(pcns.b == "b" || pcns.c in {"c"}) && all())"#;
    assert_eq!(selector.prefixed("pcns.").to_string(), expected);
}

#[test]
fn and_keeps_both_sides_as_they_are() {
    let both = Selector::all().and("a == 'b' && has(c)".parse().unwrap());
    assert_eq!(both.to_string(), r#"(all() && (a == "b" && has(c)))"#);
}

#[test]
fn ten_thousand_exclamation_marks_cancel_out() {
    assert_eq!(canonical(&format!("{}has(a)", "!".repeat(10_000))), "has(a)");
    assert_eq!(canonical(&format!("{}has(a)", "!".repeat(10_001))), "!has(a)");
}

#[test]
fn ten_thousand_parentheses_are_refused() {
    for unit in ["(", "!(", "(has(a) && ", "(has(a) || has(b) && "] {
        let error = unit.repeat(10_000).parse::<Selector>().unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep, "{unit}");
    }
}

#[test]
fn nesting_is_accepted_up_to_the_limit_of_the_canonical_text() {
    let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(canonical(&nested(MAX_DEPTH)), "has(a)");
    assert!(nested(MAX_DEPTH + 1).parse::<Selector>().is_err());
    let alternating = |depth: usize| {
        format!("{}has(c){}", "(has(a) || has(b) && ".repeat(depth), ")".repeat(depth))
    };
    let text = canonical(&alternating(MAX_DEPTH / 2));
    assert_eq!(canonical(&text), text);
    assert!(alternating(MAX_DEPTH / 2 + 1).parse::<Selector>().is_err());
}

#[test]
fn lengths_are_limited() {
    assert!(format!("has({})", "a".repeat(MAX_LABEL_LEN)).parse::<Selector>().is_ok());
    let error = format!("has({})", "a".repeat(MAX_LABEL_LEN + 1)).parse::<Selector>().unwrap_err();
    assert!(error.to_string().ends_with("label name has 513 characters: use at most 512"));
    let error = " ".repeat(MAX_LEN + 1).parse::<Selector>().unwrap_err();
    assert_eq!(error.problem, Problem::TooLong(MAX_LEN + 1));
}

#[test]
fn long_texts_are_shown_in_part() {
    let text = format!("{} ; {}", "has(a) && ".repeat(10), "x".repeat(100));
    let error = text.parse::<Selector>().unwrap_err().to_string();
    assert!(error.starts_with("selector `…") && error.len() < 300, "{error}");
}

/// What a selector means, the slow way, built beside its text.
type Oracle = Box<dyn Fn(&BTreeMap<String, String>) -> bool>;

/// Makes a text and its meaning from a list of choices, without the parser's tree.
fn text_and_oracle(choices: &mut impl Iterator<Item = u8>, depth: u8) -> (String, Oracle) {
    let label = |n: u8| ["a", "b", "c"][usize::from(n) % 3].to_owned();
    let value = |n: u8| ["x", "xy", "yx"][usize::from(n) % 3].to_owned();
    let mut next = || choices.next().unwrap_or(0);
    let (kind, name, text) =
        (next() % if depth == 0 { 7 } else { 10 }, label(next()), value(next()));
    let key = name.clone();
    let get = move |labels: &BTreeMap<String, String>| labels.get(&key).cloned();
    match kind {
        0 => (format!("has({name})"), Box::new(move |l| get(l).is_some())),
        1 => (format!("{name}=='{text}'"), Box::new(move |l| get(l) == Some(text.clone()))),
        2 => (format!("{name} != \"{text}\""), Box::new(move |l| get(l) != Some(text.clone()))),
        3 => (
            format!("{name} contains '{text}'"),
            Box::new(move |l| get(l).is_some_and(|v| v.contains(&text))),
        ),
        4 => (
            format!("{name} startswith '{text}'"),
            Box::new(move |l| get(l).is_some_and(|v| v.starts_with(&text))),
        ),
        5 => (
            format!("{name} in {{'x', '{text}'}}"),
            Box::new(move |l| get(l).is_some_and(|v| v == "x" || v == text)),
        ),
        6 => (
            format!("{name} not in {{'{text}'}}"),
            Box::new(move |l| get(l).is_none_or(|v| v != text)),
        ),
        7 => {
            let (text, inner) = text_and_oracle(choices, depth - 1);
            (format!("! ({text})"), Box::new(move |l| !inner(l)))
        }
        _ => {
            let (left, first) = text_and_oracle(choices, depth - 1);
            let (right, second) = text_and_oracle(choices, depth - 1);
            if kind == 8 {
                (format!("({left}) && ({right})"), Box::new(move |l| first(l) && second(l)))
            } else {
                (format!("({left}) || ({right})"), Box::new(move |l| first(l) || second(l)))
            }
        }
    }
}

proptest! {
    #[test]
    fn canonical_text_parses_to_itself(choices in proptest::collection::vec(any::<u8>(), 0..80)) {
        let (text, _) = text_and_oracle(&mut choices.into_iter(), 4);
        let selector: Selector = text.parse().unwrap();
        prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
    }

    #[test]
    fn answers_equal_the_naive_ones(
        choices in proptest::collection::vec(any::<u8>(), 0..80),
        labels in proptest::collection::btree_map("[abc]", "[xy]{0,2}", 0..4),
    ) {
        let (text, oracle) = text_and_oracle(&mut choices.into_iter(), 4);
        let selector: Selector = text.parse().unwrap();
        prop_assert_eq!(selector.matches(&labels), oracle(&labels), "{}", text);
    }

    #[test]
    fn what_matches_has_all_that_is_needed(
        choices in proptest::collection::vec(any::<u8>(), 0..80),
        labels in proptest::collection::btree_map("[abc]", "[xy]{0,2}", 0..4),
    ) {
        let (text, oracle) = text_and_oracle(&mut choices.into_iter(), 4);
        let selector: Selector = text.parse().unwrap();
        for need in selector.needs() {
            let is_met = match &need {
                Need::Value(label, values) => {
                    labels.get(*label).is_some_and(|value| values.contains(value.as_str()))
                }
                Need::Presence(label) => labels.contains_key(*label),
            };
            prop_assert!(is_met || !oracle(&labels), "{} needs {:?}", text, need);
        }
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,60}") {
        if let Err(error) = text.parse::<Selector>() {
            prop_assert!(error.to_string().contains(": "));
        }
    }

    #[test]
    fn random_tokens_never_panic_and_round_trip(tokens in proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "has(", "all()", "global()", "(", ")", "!", "&&", "||", "==", "!=", "in", "not",
            "notin", "{", "}", ",", "'x'", "\"y\"", "starts", "with", "contains", " ", "'",
        ]), 0..12,
    )) {
        if let Ok(selector) = tokens.join(" ").parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
        }
    }
}
