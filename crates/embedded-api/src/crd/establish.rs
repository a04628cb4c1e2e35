//! The status of a definition: the names that it may have, and its conditions.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Spec, text, texts};
use crate::{Object, quote};

type Fields = Map<String, Value>;

/// Sets the accepted names and the conditions of a definition.
///
/// `others` are all other definitions; `now` is a timestamp of meta/v1. Kubernetes' controllers do
/// this soon after a definition is written; here it is a part of the write.
pub fn establish(definition: &mut Object, others: &[&Object], now: &str) {
    let spec = Spec::of(definition);
    let (wanted, group) = (spec.names.clone(), text(spec.fields, "group"));
    let taken = Taken::by(others, group);
    let mut status = match definition.body.get("status") {
        Some(Value::Object(status)) => status.clone(),
        _ => Map::new(),
    };
    let accepted = match status.get("acceptedNames") {
        Some(Value::Object(names)) => names.clone(),
        _ => Map::new(),
    };
    let (names, conflict) = accept(&wanted, &accepted, &taken);
    status.insert("acceptedNames".to_owned(), Value::Object(names));
    let old = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let (state, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    let acceptance = condition("NamesAccepted", [state, reason, message], &old, now);
    let is_old = |kind: &str| {
        old.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let words = if is_old("Established") || conflict.is_none() {
        ["True", "InitialNamesAccepted", "the initial names have been accepted"]
    } else {
        ["False", "NotAccepted", "not all names are accepted"]
    };
    let established = condition("Established", words, &old, now);
    let own = ["NamesAccepted", "Established"];
    let foreign = old
        .into_iter()
        .filter(|condition| condition["type"].as_str().is_none_or(|kind| !own.contains(&kind)));
    let conditions: Vec<Value> = [acceptance, established].into_iter().chain(foreign).collect();
    status.insert("conditions".to_owned(), Value::Array(conditions));
    definition.body.insert("status".to_owned(), Value::Object(status));
}

/// The names that other definitions of the group have.
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn by(others: &[&Object], group: &str) -> Self {
        let mut taken = Self { resources: BTreeSet::new(), kinds: BTreeSet::new() };
        for other in others {
            let spec = Spec::of(other);
            let names = other.body.get("status").and_then(|status| status.get("acceptedNames"));
            let Some(Value::Object(names)) = names.filter(|_| text(spec.fields, "group") == group)
            else {
                continue;
            };
            let all = ["plural", "singular"].map(|name| text(names, name).to_owned());
            taken.resources.extend(all.into_iter().chain(texts(names, "shortNames")));
            taken.kinds.extend(["kind", "listKind"].map(|name| text(names, name).to_owned()));
        }
        taken
    }
}

type Conflict = (&'static str, String);

/// Returns the names that the definition has from now on, and the last conflict.
fn accept(wanted: &Fields, accepted: &Fields, taken: &Taken) -> (Fields, Option<Conflict>) {
    let mut names = accepted.clone();
    let mut conflict = None;
    let in_use = |name: &str| format!("{} is already in use", quote(name));
    let simple = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (name, reason, taken) in simple {
        let requested = text(wanted, name);
        if requested != text(accepted, name) && taken.contains(requested) {
            conflict = Some((reason, in_use(requested)));
        } else {
            names.insert(name.to_owned(), json!(requested));
        }
    }
    let (requested, own) = (texts(wanted, "shortNames"), texts(accepted, "shortNames"));
    let is_taken = |name: &&String| !own.contains(name) && taken.resources.contains(*name);
    let problems: Vec<_> = requested.iter().filter(is_taken).map(|name| in_use(name)).collect();
    match problems.as_slice() {
        [] => set_list(&mut names, "shortNames", &requested),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        several => conflict = Some(("ShortNamesConflict", format!("[{}]", several.join(", ")))),
    }
    set_list(&mut names, "categories", &texts(wanted, "categories"));
    (names, conflict)
}

fn set_list(names: &mut Fields, name: &str, list: &[String]) {
    if list.is_empty() {
        names.remove(name);
    } else {
        names.insert(name.to_owned(), json!(list));
    }
}

/// Makes a condition; its time is that of its last change of status.
fn condition(kind: &str, words: [&str; 3], old: &[Value], now: &str) -> Value {
    let [status, reason, message] = words;
    let same = old.iter().find(|old| old["type"] == kind && old["status"] == status);
    let since = same.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(now);
    json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    })
}
