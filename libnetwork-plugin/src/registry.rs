//! What this life of the plugin knows: endpoints in the datastore, and who was promised addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::WorkloadEndpoint;
use model::id::{HandleId, NodeName};
use model::net::Family;

use crate::error::Error;

/// How handles of Docker's endpoints begin.
pub(crate) const HANDLES: &str = "libnetwork.";
/// Longer names of nodes are hashed, so that names of handles fit.
const LONGEST_NODE: usize = 200;

/// Endpoints that the datastore has, and what is to become of them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// The objects of this node's endpoints as they were last read or written, by Docker's ids.
    known: BTreeMap<String, WorkloadEndpoint>,
    /// Endpoints that Docker has deleted: what is heard of them later is old.
    deleted: BTreeSet<String>,
    /// Since when something is there that Docker does not know.
    unknown_since: BTreeMap<String, Instant>,
}

/// What is to be done about one endpoint's object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Create it.
    Create(Box<WorkloadEndpoint>),
    /// Replace it.
    Update(Box<WorkloadEndpoint>),
    /// Delete it.
    Delete(Box<WorkloadEndpoint>),
}

impl Registry {
    /// Takes note of all objects that the datastore has.
    pub(crate) fn load(&mut self, objects: Vec<WorkloadEndpoint>) {
        let id = |object: &WorkloadEndpoint| object.spec.endpoint.clone();
        self.known = objects.into_iter().filter_map(|it| Some((id(&it)?, it))).collect();
    }

    /// Takes note of an endpoint that Docker makes.
    pub(crate) fn begin(&mut self, id: &str) {
        self.deleted.remove(id);
        self.unknown_since.remove(id);
    }

    /// Takes note that Docker has deleted an endpoint; returns its object.
    pub(crate) fn delete(&mut self, id: &str) -> Option<WorkloadEndpoint> {
        self.deleted.insert(id.to_owned());
        self.unknown_since.remove(id);
        self.known.remove(id)
    }

    /// Takes note of what was written; returns it if Docker has deleted the endpoint meanwhile.
    pub(crate) fn written(&mut self, object: WorkloadEndpoint) -> Option<WorkloadEndpoint> {
        let id = object.spec.endpoint.clone().unwrap_or_default();
        if self.deleted.contains(&id) {
            return Some(object);
        }
        self.known.insert(id, object);
        None
    }

    /// Takes note that an object is gone, or not what it was believed to be.
    pub(crate) fn forget(&mut self, id: &str) {
        self.known.remove(id);
    }

    /// Returns what brings the datastore to `wanted`, all endpoints that Docker has.
    pub(crate) fn plan(
        &mut self,
        wanted: BTreeMap<String, WorkloadEndpoint>,
        (now, grace): (Instant, Duration),
    ) -> Vec<Step> {
        // Docker has none of the others any more, and uses no id twice.
        self.deleted.retain(|id| wanted.contains_key(id));
        let known: Vec<String> = self.known.keys().cloned().collect();
        let gone = self.overdue(known.iter(), |id| wanted.contains_key(id), (now, grace));
        let mut steps = Vec::new();
        for (id, object) in wanted {
            if self.deleted.contains(&id) {
                continue;
            }
            match self.known.get(&id) {
                None => steps.push(Step::Create(Box::new(object))),
                Some(found) => {
                    steps.extend(replaced(found, object).map(|it| Step::Update(Box::new(it))));
                }
            }
        }
        let gone = gone.iter().filter_map(|id| self.known.get(id));
        steps.extend(gone.map(|object| Step::Delete(Box::new(object.clone()))));
        steps
    }

    /// Returns those that nobody has owned for longer than the grace.
    pub(crate) fn overdue<'a>(
        &mut self,
        present: impl Iterator<Item = &'a String>,
        is_owned: impl Fn(&str) -> bool,
        (now, grace): (Instant, Duration),
    ) -> Vec<String> {
        let mut overdue = Vec::new();
        for id in present {
            if is_owned(id) {
                self.unknown_since.remove(id);
                continue;
            }
            let since = *self.unknown_since.entry(id.clone()).or_insert(now);
            if now.saturating_duration_since(since) >= grace {
                overdue.push(id.clone());
            }
        }
        overdue
    }
}

/// Returns the object to write where `found` is to become `wanted`, if it is not that already.
///
/// What others have added to the object stays.
fn replaced(found: &WorkloadEndpoint, wanted: WorkloadEndpoint) -> Option<WorkloadEndpoint> {
    let mut object = found.clone();
    object.metadata.labels = wanted.metadata.labels;
    let unknown = std::mem::take(&mut object.spec.unknown);
    object.spec = wanted.spec;
    object.spec.unknown = unknown;
    (object != *found).then_some(object)
}

/// Who was promised addresses, by handle and family.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    given: BTreeSet<(String, Family)>,
}

impl Promises {
    /// Makes the promises that an earlier life has given.
    pub(crate) fn of(given: impl IntoIterator<Item = (String, Family)>) -> Self {
        Self { given: given.into_iter().collect() }
    }

    /// Returns the handle for an address of the endpoint with this Ethernet address.
    ///
    /// Docker's repetition of a request finds the address that the first one took. But two
    /// containers that were given the same Ethernet address are two holders.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if the system has no random numbers.
    pub(crate) fn handle(
        &mut self,
        node: &NodeName,
        mac: &str,
        family: Family,
    ) -> Result<HandleId, Error> {
        let handle = match plain(node, mac) {
            Some(plain) if !self.given.contains(&(plain.clone(), family)) => plain,
            Some(_) | None => {
                let random = getrandom::u64().map_err(|error| Error::wrong(error.to_string()))?;
                named(node, &format!("{random:016x}"))
            }
        };
        self.given.insert((handle.clone(), family));
        Ok(HandleId(handle))
    }

    /// Has the endpoint with this Ethernet address, or another one with the same, an address?
    pub(crate) fn has_any(&self, node: &NodeName, mac: &str) -> bool {
        let plain = plain(node, mac);
        plain.is_some_and(|plain| {
            Family::ALL.into_iter().any(|family| self.given.contains(&(plain.clone(), family)))
        })
    }

    /// Takes note that the address was given back, or could not be had.
    pub(crate) fn end(&mut self, handle: &str, family: Family) {
        self.given.remove(&(handle.to_owned(), family));
    }
}

/// Returns the handle that follows from an Ethernet address, if there is one.
fn plain(node: &NodeName, mac: &str) -> Option<String> {
    let mac: String = mac.chars().filter(char::is_ascii_hexdigit).collect();
    (!mac.is_empty()).then(|| named(node, &mac.to_lowercase()))
}

fn named(node: &NodeName, who: &str) -> String {
    if node.as_str().len() > LONGEST_NODE {
        let hash = api::names::hostname_hash(node.as_str()).to_lowercase();
        return format!("{HANDLES}{who}.{hash}");
    }
    format!("{HANDLES}{who}.{node}")
}

#[cfg(test)]
mod tests {
    use api::WorkloadEndpointSpec;

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn object(id: &str, profile: &str) -> WorkloadEndpoint {
        let spec = WorkloadEndpointSpec {
            endpoint: Some(id.to_owned()),
            profiles: Some(vec![profile.to_owned()]),
            ..WorkloadEndpointSpec::default()
        };
        WorkloadEndpoint::named(id, spec)
    }

    fn wanted(ids: &[&str]) -> BTreeMap<String, WorkloadEndpoint> {
        ids.iter().map(|id| ((*id).to_owned(), object(id, "web"))).collect()
    }

    #[test]
    fn what_docker_has_is_created_once_and_put_right() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let steps = registry.plan(wanted(&["a"]), (now, GRACE));
        assert_eq!(steps, [Step::Create(Box::new(object("a", "web")))]);
        registry.written(object("a", "web"));
        assert!(registry.plan(wanted(&["a"]), (now, GRACE)).is_empty());
        let mut changed = object("a", "other");
        changed.metadata.resource_version = Some("7".to_owned());
        registry.load(vec![changed]);
        let steps = registry.plan(wanted(&["a"]), (now, GRACE));
        let [Step::Update(updated)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(updated.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(updated.spec.profiles, Some(vec!["web".to_owned()]));
    }

    #[test]
    fn what_docker_does_not_know_goes_after_the_grace() {
        let mut registry = Registry::default();
        let now = Instant::now();
        registry.load(vec![object("a", "web")]);
        assert!(registry.plan(wanted(&[]), (now, GRACE)).is_empty());
        assert!(registry.plan(wanted(&["a"]), (now + GRACE, GRACE)).is_empty(), "it came back");
        let later = now + GRACE * 2;
        assert!(registry.plan(wanted(&[]), (later, GRACE)).is_empty());
        let steps = registry.plan(wanted(&[]), (later + GRACE, GRACE));
        assert_eq!(steps, [Step::Delete(Box::new(object("a", "web")))]);
    }

    #[test]
    fn old_news_do_not_bring_back_what_docker_has_deleted() {
        let mut registry = Registry::default();
        let now = Instant::now();
        registry.delete("a");
        assert!(registry.plan(wanted(&["a"]), (now, GRACE)).is_empty());
        assert!(registry.written(object("a", "web")).is_some(), "written meanwhile: delete it");
        assert!(registry.plan(wanted(&[]), (now, GRACE)).is_empty());
        registry.begin("a");
        assert_eq!(registry.plan(wanted(&["a"]), (now, GRACE)).len(), 1);
    }

    #[test]
    fn a_repeated_request_has_the_same_handle_and_another_container_has_not() {
        let node: NodeName = "node-1".parse().unwrap();
        let mac = "02:42:0A:00:00:01";
        let mut promises = Promises::default();
        let first = promises.handle(&node, mac, Family::V4).unwrap();
        assert_eq!(first.0, "libnetwork.02420a000001.node-1");
        assert_eq!(promises.handle(&node, mac, Family::V6).unwrap(), first, "one endpoint");
        // Killed before it could answer: nothing was promised.
        let mut reborn = Promises::default();
        assert_eq!(reborn.handle(&node, mac, Family::V4).unwrap(), first);
        let other = promises.handle(&node, mac, Family::V4).unwrap();
        assert_ne!(other, first);
        promises.end(&first.0, Family::V4);
        assert_eq!(promises.handle(&node, mac, Family::V4).unwrap(), first);
        let [one, two] = [0, 1].map(|_| promises.handle(&node, "", Family::V4).unwrap());
        assert_ne!(one, two);
    }
}
