//! Get and list.

use std::sync::Arc;

use serde_json::json;

use super::{Answer, Service, Target, items};
use crate::resource::{Body, Resource};
use crate::status::Status;
use crate::store::{Entry, Snapshot};
use crate::verb::list::{self, Filter, Start, Token};
use crate::verb::{ListOptions, decode, watch};

/// How many objects are read at once when only some of them match.
const STRIDE: usize = 500;

/// A list, or a page of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct List {
    /// `apiVersion` of the list.
    pub api_version: String,
    /// `kind` of the list.
    pub kind: String,
    /// The revision of the whole list.
    pub resource_version: String,
    /// Where the next page begins, if there is one; empty at the end of a list of custom resources.
    pub continue_token: Option<String>,
    /// How many objects are on the next pages, where that is known.
    pub remaining: Option<u64>,
    /// The objects; those of built-in kinds without `apiVersion` and `kind`, as Kubernetes lists them.
    pub items: Vec<Arc<[u8]>>,
}

impl List {
    /// Writes the list as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": self.resource_version});
        if let Some(map) = metadata.as_object_mut() {
            if let Some(token) = &self.continue_token {
                map.insert("continue".to_owned(), json!(token));
            }
            if let Some(remaining) = self.remaining {
                map.insert("remainingItemCount".to_owned(), json!(remaining));
            }
        }
        let (kind, version) = (json!(self.kind), json!(self.api_version));
        let head =
            format!(r#"{{"kind":{kind},"apiVersion":{version},"metadata":{metadata},"items":["#);
        let mut json = head.into_bytes();
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            json.extend_from_slice(item);
        }
        json.extend_from_slice(b"]}");
        json
    }
}

impl Service {
    /// Reads one object, which must not be older than a revision.
    ///
    /// # Errors
    ///
    /// 404 if there is none, 504 for a revision that does not exist yet.
    pub async fn get(&self, target: &Target, version: Option<&str>) -> Result<Answer, Status> {
        let revision = list::plain_revision(version)?;
        let target = target.clone();
        let answer = self.store.read(move |snapshot| {
            not_newer(snapshot, revision)?;
            let entry = snapshot.get(&target.key())?.ok_or_else(|| target.not_found())?;
            Ok(Answer::ok(shown(&target.resource, entry.json)?))
        });
        answer.await
    }

    /// Reads the objects of a kind, of one namespace or of all.
    ///
    /// # Errors
    ///
    /// 400 for selectors, tokens or revisions that are none, 410 if the revision
    /// was compacted, 504 for one that does not exist yet.
    pub async fn list(&self, target: &Target, options: &ListOptions) -> Result<List, Status> {
        let filter = Filter::parse(&target.resource, options)?;
        let start = list::start(options, &target.namespace)?;
        let (target, limit) = (target.clone(), options.limit);
        self.store.read(move |snapshot| page(snapshot, &target, (start, limit), &filter)).await
    }
}

/// Refuses a revision of the future.
fn not_newer(snapshot: &Snapshot<'_>, revision: u64) -> Result<(), Status> {
    let current = snapshot.revision();
    if revision > current {
        return Err(Status::too_large_revision(revision, current));
    }
    Ok(())
}

/// Makes the stored JSON that of a version.
pub(super) fn shown(resource: &Resource, json: Arc<[u8]>) -> Result<Arc<[u8]>, Status> {
    if decode::is_shown_as_stored(resource) {
        return Ok(json);
    }
    let mut object = crate::store::decode(&json)?;
    decode::show(resource, &mut object);
    watch::to_json(&object)
}

fn page(
    snapshot: &Snapshot<'_>,
    target: &Target,
    (start, limit): (Start, Option<usize>),
    filter: &Filter,
) -> Result<List, Status> {
    let mut after: Option<(String, String)> = None;
    let mut at = None;
    match start {
        Start::Latest => {}
        Start::NotOlderThan(revision) => not_newer(snapshot, revision)?,
        Start::At(revision) => {
            not_newer(snapshot, revision)?;
            at = Some(revision);
        }
        Start::After(token) => {
            if token.revision < snapshot.compacted() {
                return Err(list::too_old());
            }
            at = Some(token.revision);
            after = Some((token.namespace, token.name));
        }
    }
    let revision = at.unwrap_or_else(|| snapshot.revision());
    let mut entries = Vec::new();
    let stride = if filter.is_empty() { limit } else { limit.map(|limit| limit.max(STRIDE)) };
    let (last, remaining) = loop {
        let from = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let found = snapshot.page(&target.scope(filter), Some(revision), from, stride)?;
        let cut = take(&mut entries, &found.entries, limit, filter)?;
        let end = found
            .entries
            .last()
            .map(|entry| (entry.key.namespace.to_string(), entry.key.name.to_string()));
        if cut {
            break (true, found.remaining.filter(|_| filter.is_empty()));
        }
        if found.remaining.is_none() {
            break (false, None);
        }
        if limit.is_some_and(|limit| entries.len() >= limit) {
            break (true, found.remaining.filter(|_| filter.is_empty()));
        }
        after = end;
    };
    let token = entries.last().filter(|_| last).map(|entry: &Entry| {
        let namespace = entry.key.namespace.to_string();
        let token = Token { revision, namespace, name: entry.key.name.to_string() };
        token.encode(!target.namespace.is_empty())
    });
    let items = entries.into_iter().map(|entry| {
        let json = shown(&target.resource, entry.json)?;
        Ok(match target.resource.body {
            Body::Builtin(_) => items::without_kind(&json).into(),
            Body::Custom { .. } => json,
        })
    });
    // The lists of custom resources always have the field.
    let is_custom = matches!(target.resource.body, Body::Custom { .. });
    Ok(List {
        api_version: target.resource.api_version(),
        kind: target.resource.list_kind.to_string(),
        resource_version: revision.to_string(),
        continue_token: token.or_else(|| is_custom.then(String::new)),
        remaining,
        items: items.collect::<Result<_, _>>()?,
    })
}

/// Takes what matches until the limit; returns whether something was left.
fn take(
    into: &mut Vec<Entry>,
    found: &[Entry],
    limit: Option<usize>,
    filter: &Filter,
) -> Result<bool, Status> {
    for entry in found {
        if limit.is_some_and(|limit| into.len() >= limit) {
            return Ok(true);
        }
        if filter.matches_json(&entry.json)? {
            into.push(entry.clone());
        }
    }
    Ok(false)
}
