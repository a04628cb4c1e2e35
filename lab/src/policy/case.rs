//! A case: objects to apply, and which cells then come through.
//!
//! ```yaml
//! - name: only web reaches db
//!   apply:
//!     - {knp: red/db, spec: {podSelector: {matchLabels: {app: db}}, ingress: [...]}}
//!   expect:
//!     - "- * > red/db"
//!     - "+ red/web > red/db tcp:80"
//! ```
//!
//! Everything passes until a line says otherwise; the last line that speaks of a cell decides.
//! A line is `+` or `-`, who asks, `>`, who is asked, and then, if not all: ways and families.
//! Names are separated by commas, and `*` stands for any part of one.

use model::net::Family;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cell::{Cell, Passing};
use super::world;
use crate::Error;
use crate::protocol::Transport;

/// Objects, and what they should lead to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The objects, by [`object`]'s short form.
    pub apply: Vec<Map<String, Value>>,
    /// Lines about cells.
    #[serde(default)]
    pub expect: Vec<String>,
}

/// The word for a kind in a case, its API version, its name, and whether nodes count it
/// among the policies of the cluster.
const KINDS: [(&str, &str, &str, bool); 12] = [
    ("cnp", "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", true),
    ("knp", "networking.k8s.io/v1", "NetworkPolicy", true),
    ("np", "crd.projectcalico.org/v1", "NetworkPolicy", true),
    ("gnp", "crd.projectcalico.org/v1", "GlobalNetworkPolicy", true),
    ("snp", "crd.projectcalico.org/v1", "StagedNetworkPolicy", true),
    ("sgnp", "crd.projectcalico.org/v1", "StagedGlobalNetworkPolicy", true),
    ("sknp", "crd.projectcalico.org/v1", "StagedKubernetesNetworkPolicy", true),
    ("tier", "crd.projectcalico.org/v1", "Tier", false),
    ("set", "crd.projectcalico.org/v1", "NetworkSet", false),
    ("gset", "crd.projectcalico.org/v1", "GlobalNetworkSet", false),
    ("svc", "v1", "Service", false),
    ("slice", "discovery.k8s.io/v1", "EndpointSlice", false),
];

impl Case {
    /// Reads the cases of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with the place that cannot be read.
    pub fn read_all(text: &str) -> Result<Vec<Self>, Error> {
        serde_saphyr::from_str(text).map_err(Error::wrong)
    }

    /// Returns the objects in full.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with the first that is of no kind.
    pub fn objects(&self) -> Result<Vec<Value>, Error> {
        self.apply.iter().map(|short| object(short).map(|(object, _)| object)).collect()
    }

    /// Returns how many policies nodes should know.
    ///
    /// # Errors
    ///
    /// As for [`Case::objects`].
    pub fn policies(&self) -> Result<usize, Error> {
        let counted =
            self.apply.iter().map(|short| object(short).map(|(_, is_counted)| is_counted));
        Ok(counted.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|counts| *counts).count())
    }

    /// Returns the cells that the case says come through.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with a line that cannot be read, or that speaks of nothing.
    pub fn expected(&self) -> Result<Passing, Error> {
        let cells = world::cells();
        let mut passing: Passing = cells.iter().cloned().collect();
        for text in &self.expect {
            let line = Line::parse(text)
                .ok_or_else(|| Error::wrong(format!("{}: cannot read `{text}`", self.name)))?;
            let chosen: Vec<&Cell> = cells.iter().filter(|cell| line.covers(cell)).collect();
            if chosen.is_empty() {
                return Err(Error::wrong(format!("{}: no cell is `{text}`", self.name)));
            }
            for cell in chosen {
                if line.passes {
                    passing.insert(cell.clone());
                } else {
                    passing.remove(cell);
                }
            }
        }
        Ok(passing)
    }
}

/// Returns an object in full, and whether it counts among the policies of the cluster.
///
/// `{knp: red/db, spec: …}` is a kind with a name; what else there is, but `labels`, is taken over.
fn object(short: &Map<String, Value>) -> Result<(Value, bool), Error> {
    let known = KINDS.iter().find_map(|kind| Some((kind, short.get(kind.0)?.as_str()?)));
    let ((word, version, kind, is_counted), name) =
        known.ok_or_else(|| Error::wrong(format!("no kind that is known: {short:?}")))?;
    let mut metadata = match name.split_once('/') {
        Some((namespace, name)) => json!({"namespace": namespace, "name": name}),
        None => json!({"name": name}),
    };
    if let (Some(labels), Some(metadata)) = (short.get("labels"), metadata.as_object_mut()) {
        metadata.insert("labels".to_owned(), labels.clone());
    }
    let mut object = short.clone();
    object.retain(|key, _| key != word && key != "labels");
    object.insert("apiVersion".to_owned(), json!(version));
    object.insert("kind".to_owned(), json!(kind));
    object.insert("metadata".to_owned(), metadata);
    Ok((Value::Object(object), *is_counted))
}

/// What a line of an expectation says.
struct Line<'a> {
    passes: bool,
    from: Vec<&'a str>,
    to: Vec<&'a str>,
    ways: Vec<(Transport, Option<u16>)>,
    families: Vec<Family>,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let passes = match words.next()? {
            "+" => true,
            "-" => false,
            _ => return None,
        };
        let from = words.next()?.split(',').collect();
        if words.next()? != ">" {
            return None;
        }
        let to = words.next()?.split(',').collect();
        let mut line = Self { passes, from, to, ways: Vec::new(), families: Vec::new() };
        for word in words {
            match word {
                "v4" => line.families.push(Family::V4),
                "v6" => line.families.push(Family::V6),
                way => line.ways.push(way_of(way)?),
            }
        }
        Some(line)
    }

    fn covers(&self, cell: &Cell) -> bool {
        let is_way = |(transport, port): &(Transport, Option<u16>)| {
            *transport == cell.transport && port.is_none_or(|port| port == cell.port)
        };
        self.from.iter().any(|pattern| matches(pattern, &cell.from))
            && self.to.iter().any(|pattern| matches(pattern, &cell.to))
            && (self.ways.is_empty() || self.ways.iter().any(is_way))
            && (self.families.is_empty() || self.families.contains(&cell.family))
    }
}

fn way_of(word: &str) -> Option<(Transport, Option<u16>)> {
    let (name, port) = match word.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (word, None),
    };
    let transport = match name {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        "icmp" => Transport::Icmp,
        _ => return None,
    };
    Some((transport, port))
}

/// Does a pattern with at most one `*` in it match?
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| rest.ends_with(tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(expect: &[&str]) -> Case {
        let expect = expect.iter().map(|&line| line.to_owned()).collect();
        Case { name: "a case".to_owned(), apply: Vec::new(), expect }
    }

    #[test]
    fn the_last_line_about_a_cell_decides() {
        let passing = case(&["- * > red/*", "+ blue/web > red/db tcp:80 v4"]).expected().unwrap();
        let into_red: Vec<String> = passing
            .iter()
            .filter(|cell| cell.to.starts_with("red/"))
            .map(Cell::to_string)
            .collect();
        assert_eq!(into_red, ["blue/web > red/db tcp:80 v4"]);
        assert_eq!(case(&[]).expected().unwrap().len(), 8 * 7 * 2 * 7);
    }

    #[test]
    fn a_line_about_nothing_is_a_mistake() {
        for line in
            ["- * > pink/*", "* > red/*", "- * red/*", "- * > red/* tcp:x", "- * > red/* tcp:81"]
        {
            assert!(case(&[line]).expected().is_err(), "{line}");
        }
    }

    #[test]
    fn short_objects_are_completed() {
        let cases = Case::read_all(
            "- {name: a, apply: [{knp: red/p, spec: {podSelector: {}}}, {gset: s, labels: {a: b}, spec: {}}]}",
        );
        let cases = cases.unwrap();
        let objects = cases[0].objects().unwrap();
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "red", "name": "p"}, "spec": {"podSelector": {}},
        });
        assert_eq!(objects[0], policy);
        assert_eq!(objects[1]["metadata"], json!({"name": "s", "labels": {"a": "b"}}));
        assert_eq!(cases[0].policies().unwrap(), 1);
    }
}
