//! What two servers cannot have in common is replaced by a name for it: times, UIDs, revisions, addresses.

use std::collections::HashMap;

use regex::{Captures, Regex};
use serde_json::{Map, Value};

/// The names that one server's values got so far.
#[derive(Debug)]
pub(crate) struct Names {
    revisions: HashMap<String, String>,
    uids: HashMap<String, String>,
    generated: HashMap<String, String>,
    prefixes: Vec<Regex>,
    uid: Regex,
    age: Regex,
    time: Regex,
    message: Regex,
    /// Yesterday, today and, for what expires in an hour, tomorrow.
    days: [String; 3],
}

impl Names {
    /// Starts without any name.
    pub(crate) fn new() -> Self {
        let regex = |text: &str| Regex::new(text).unwrap();
        let now = jiff::Timestamp::now();
        let day = |hours: i64| {
            let time = now + jiff::SignedDuration::from_hours(hours);
            time.strftime("%Y-%m-%d").to_string()
        };
        Self {
            revisions: HashMap::new(),
            uids: HashMap::new(),
            generated: HashMap::new(),
            prefixes: Vec::new(),
            age: regex("^([0-9]+m)?[0-9]+s$"),
            uid: regex("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
            time: regex(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T[0-9:]{8}(\.[0-9]+)?Z"),
            message: regex(concat!(
                r"(resource version: |current: |resourceVersion: |resource version \(|",
                r"ResourceVersion in record \(|ResourceVersion in precondition: |ResourceVersion in object meta: )([0-9]+)( \([0-9]+\))?"
            )),
            days: [day(-24), day(0), day(24)],
        }
    }

    /// Takes note of a prefix that the server makes names from.
    pub(crate) fn expect_generated(&mut self, prefix: &str) {
        let alphabet = "[bcdfghjklmnpqrstvwxz2456789]{5}";
        self.prefixes.push(Regex::new(&format!("{}{alphabet}", regex::escape(prefix))).unwrap());
    }

    /// Replaces everywhere in a step's answer.
    pub(crate) fn replace(&mut self, step: &str, value: &mut Value) {
        sort(value);
        self.walk(step, &mut String::new(), value);
    }

    fn walk(&mut self, step: &str, path: &mut String, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("managedFields");
                let is_list = map.contains_key("items") || map.contains_key("columnDefinitions");
                let is_bookmark = map.get("type").is_some_and(|kind| kind == "BOOKMARK");
                for (pointer, is_there) in [("metadata", is_list), ("object", is_bookmark)] {
                    if let Some(Value::Object(target)) = map.get_mut(pointer).filter(|_| is_there) {
                        hide_revision(target);
                    }
                }
                for (key, child) in map.iter_mut() {
                    let length = path.len();
                    path.push('/');
                    path.push_str(key);
                    self.field(step, path, key, child);
                    path.truncate(length);
                }
            }
            Value::Array(items) => {
                for (index, child) in items.iter_mut().enumerate() {
                    let length = path.len();
                    path.push('/');
                    path.push_str(&index.to_string());
                    self.walk(step, path, child);
                    path.truncate(length);
                }
            }
            Value::String(text) => *text = self.text(step, path, text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn field(&mut self, step: &str, path: &mut String, key: &str, value: &mut Value) {
        match (key, &*value) {
            ("resourceVersion", Value::String(text)) if is_number(text) => {
                let label = || format!("<revision: {step}#{path}>");
                let label = self.revisions.entry(text.clone()).or_insert_with(label);
                *value = Value::String(label.clone());
            }
            ("continue", Value::String(text)) if !text.is_empty() => *value = "<continue>".into(),
            ("token", Value::String(text)) if text.len() > 100 => *value = "<token>".into(),
            ("serverAddress", _) => *value = "<address>".into(),
            ("nodePort" | "healthCheckNodePort", Value::Number(_)) => *value = "<node port>".into(),
            ("clusterIP", Value::String(text)) if text.starts_with("10.96.") => {
                *value = "<cluster address>".into();
            }
            ("clusterIPs", Value::Array(_)) => {
                let text = value.to_string().replace("\"10.96.", "\"<cluster> ");
                *value = Value::String(
                    text.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect(),
                );
            }
            _ => self.walk(step, path, value),
        }
    }

    fn text(&mut self, step: &str, path: &str, text: &str) -> String {
        let uids = &mut self.uids;
        let text = self.uid.replace_all(text, |found: &Captures<'_>| {
            let label = || format!("<uid: {step}#{path}>");
            uids.entry(found[0].to_owned()).or_insert_with(label).clone()
        });
        let text = self.time.replace_all(&text, |found: &Captures<'_>| {
            let is_now = self.days.iter().any(|day| *day == found[1]);
            let digits = found.get(2).map_or(0, |digits| digits.len() - 1);
            if is_now { format!("<time with {digits} digits>") } else { found[0].to_owned() }
        });
        let text = self.message.replace_all(&text, |found: &Captures<'_>| {
            let name = self.revisions.get(&found[2]).map_or("<revision>", |label| label);
            let other = found.get(3).map_or("", |_| " (<revision>)");
            format!("{}{name}{other}", &found[1])
        });
        let mut text = text.into_owned();
        for prefix in &self.prefixes {
            let generated = &mut self.generated;
            let replaced = prefix.replace_all(&text, |found: &Captures<'_>| {
                let label = || format!("<generated: {step}#{path}>");
                generated.entry(found[0].to_owned()).or_insert_with(label).clone()
            });
            text = replaced.into_owned();
        }
        if path.contains("/cells/") { self.age.replace(&text, "<age>").into_owned() } else { text }
    }
}

/// A list's revision may be newer on one server than on the other: others write too.
fn hide_revision(map: &mut Map<String, Value>) {
    if let Some(Value::Object(inner)) = map.get_mut("metadata") {
        inner.entry("resourceVersion").and_modify(|value| *value = "<current revision>".into());
    }
    map.entry("resourceVersion").and_modify(|value| *value = "<current revision>".into());
}

/// Kubernetes has no order of its own where it walks maps: of causes, and of kinds in discovery.
fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, child) in map.iter_mut() {
                sort(child);
                match (key.as_str(), child) {
                    ("causes" | "groups" | "resources" | "subresources", Value::Array(items)) => {
                        items.sort_by_cached_key(name_of);
                    }
                    ("message", Value::String(text)) => *text = sort_message(text),
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn name_of(item: &Value) -> String {
    let name = ["name", "resource", "subresource"].iter().find_map(|key| item.get(key));
    name.map_or_else(|| item.to_string(), Value::to_string)
}

/// Sorts the parts of `… is invalid: [A, B]`.
fn sort_message(text: &str) -> String {
    let Some((before, list)) = text.split_once("is invalid: [") else { return text.to_owned() };
    let mut parts: Vec<&str> = list.trim_end_matches(']').split(", ").collect();
    parts.sort_unstable();
    format!("{before}is invalid: [{}]", parts.join(", "))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text != "0" && text.bytes().all(|byte| byte.is_ascii_digit())
}
