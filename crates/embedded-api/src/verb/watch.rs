//! Watches: what a change of an object is to one who sees only some of them.

use std::sync::Arc;

use serde_json::json;

use super::list::Filter;
use crate::Object;
use crate::resource::Resource;
use crate::status::Status;
use crate::store::{self, Event, EventKind};

/// The kind of an event of a watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The object appears.
    Added,
    /// It changed.
    Modified,
    /// It disappears.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
    /// The watch ends with this status.
    Error,
}

impl Kind {
    /// Returns the word as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// What a watcher sees: the kind of the event and the object.
type Seen = (Kind, Json);
/// An object as JSON.
type Json = Arc<[u8]>;

/// Returns what one who sees only matching objects hears of an event, and the object to show.
///
/// # Errors
///
/// 500 if the file was damaged.
pub(crate) fn seen(filter: &Filter, event: &Event) -> Result<Option<Seen>, Status> {
    let json = &event.entry.json;
    let before = match &event.previous {
        Some(previous) => filter.matches_json(previous)?,
        None => false,
    };
    let after = event.kind != EventKind::Deleted && filter.matches_json(json)?;
    Ok(match (before, after) {
        (false, false) => None,
        (false, true) => Some((Kind::Added, json.clone())),
        (true, true) => Some((Kind::Modified, json.clone())),
        (true, false) if event.kind == EventKind::Deleted => Some((Kind::Deleted, json.clone())),
        // It is still there, but out of sight: as it was last seen, at the revision of the change.
        (true, false) => {
            let previous = event.previous.as_deref().unwrap_or_default();
            let mut object = store::decode(previous)?;
            object.set_meta("resourceVersion", event.revision.to_string());
            Some((Kind::Deleted, to_json(&object)?))
        }
    })
}

/// Encodes an object.
///
/// # Errors
///
/// 500; JSON can always be written.
pub(crate) fn to_json(object: &Object) -> Result<Json, Status> {
    serde_json::to_vec(object).map(Into::into).map_err(Status::internal)
}

/// Returns the object of a bookmark; one ends the objects that were there at the beginning.
pub(crate) fn bookmark(resource: &Resource, revision: u64, ends_initial: bool) -> Object {
    let mut object = Object::default();
    object.body.insert("apiVersion".to_owned(), json!(resource.api_version()));
    object.body.insert("kind".to_owned(), json!(&*resource.kind));
    object.set_meta("resourceVersion", revision.to_string());
    if ends_initial {
        object.set_meta("annotations", json!({"k8s.io/initial-events-end": "true"}));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registry;
    use crate::store::{Entry, Key};
    use crate::verb::ListOptions;

    fn json(app: &str, revision: u64) -> Arc<[u8]> {
        let object = json!({"metadata": {
            "name": "a",
            "labels": {"app": app},
            "resourceVersion": revision.to_string(),
        }});
        object.to_string().into_bytes().into()
    }

    fn event(kind: EventKind, before: Option<&str>, after: &str) -> Event {
        let key = Key { resource: "pods".into(), namespace: "default".into(), name: "a".into() };
        let entry = Entry { key, revision: 9, json: json(after, 9) };
        Event { revision: 9, kind, entry, previous: before.map(|app| json(app, 8)) }
    }

    #[test]
    fn tells_of_objects_that_come_into_sight_and_leave_it() {
        let registry = Registry::new([]);
        let resource = registry.get("", "v1", "pods").unwrap();
        let options = ListOptions { label_selector: "app=x".to_owned(), ..ListOptions::default() };
        let filter = Filter::parse(resource, &options).unwrap();
        let cases = [
            (event(EventKind::Created, None, "x"), Some((Kind::Added, json("x", 9)))),
            (event(EventKind::Created, None, "y"), None),
            (event(EventKind::Updated, Some("y"), "x"), Some((Kind::Added, json("x", 9)))),
            (event(EventKind::Updated, Some("x"), "x"), Some((Kind::Modified, json("x", 9)))),
            (event(EventKind::Updated, Some("x"), "y"), Some((Kind::Deleted, json("x", 9)))),
            (event(EventKind::Updated, Some("y"), "y"), None),
            (event(EventKind::Deleted, Some("x"), "x"), Some((Kind::Deleted, json("x", 9)))),
            (event(EventKind::Deleted, Some("y"), "y"), None),
        ];
        for (event, expected) in cases {
            let found = seen(&filter, &event).unwrap();
            let found = found.map(|(kind, json)| (kind, store::decode(&json).unwrap()));
            let expected = expected.map(|(kind, json)| (kind, store::decode(&json).unwrap()));
            assert_eq!(found, expected, "{event:?}");
        }
    }
}
