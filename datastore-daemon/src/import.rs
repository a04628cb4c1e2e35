//! `calico-datastore import`: makes the objects of a file in any Kubernetes API.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datastore::{Client, Options, Place};
use serde_json::Value;
use tracing::{info, warn};

use crate::error::Error;

/// How long the server may take until it knows the kind that a new definition defines.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How many objects go by between two lines of progress.
const PROGRESS: usize = 500;

/// What becomes of objects that exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Existing {
    /// They stay as they are.
    Kept,
    /// They are replaced.
    Overwritten,
}

impl Existing {
    /// Reads the flag.
    pub(crate) const fn overwritten(flag: bool) -> Self {
        if flag { Self::Overwritten } else { Self::Kept }
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Outcome {
    Created,
    Replaced,
    Kept,
}

/// Makes every object of a file.
pub(crate) async fn run(file: &Path, kubeconfig: PathBuf, existing: Existing) -> Result<(), Error> {
    let mut objects = read(file)?;
    objects.sort_by_key(rank);
    let total = objects.len();
    let client = Client::connect(&Options::kubeconfig(kubeconfig))?;
    let mut importer = Importer { client, existing, places: HashMap::new() };
    let (mut counts, mut refused) = (HashMap::<Outcome, usize>::new(), 0_usize);
    for (done, object) in objects.iter().enumerate() {
        if done.checked_rem(PROGRESS) == Some(0) && done > 0 {
            info!(done, total, "importing");
        }
        match importer.import(object).await {
            Ok(outcome) => {
                let count = counts.entry(outcome).or_default();
                *count = count.saturating_add(1);
            }
            Err(error) if ends(&error) => return Err(error.into()),
            Err(error) => {
                refused = refused.saturating_add(1);
                warn!("{error}");
            }
        }
    }
    let count = |outcome| counts.get(&outcome).copied().unwrap_or_default();
    let (created, replaced) = (count(Outcome::Created), count(Outcome::Replaced));
    info!(created, replaced, kept = count(Outcome::Kept), refused, "imported");
    if refused > 0 { Err(Error::Incomplete { refused, total }) } else { Ok(()) }
}

/// After these, the next object would fare no better.
fn ends(error: &datastore::Error) -> bool {
    matches!(error, datastore::Error::Unauthorized { .. }) || error.is_retryable()
}

struct Importer {
    client: Client,
    existing: Existing,
    places: HashMap<(String, String), Place>,
}

impl Importer {
    async fn import(&mut self, object: &Value) -> Result<Outcome, datastore::Error> {
        let place = self.place(object).await?;
        let mut new = object.clone();
        let outcome = match self.client.create_any(&place, &new).await {
            Ok(_) => Outcome::Created,
            Err(datastore::Error::AlreadyExists { .. }) if self.existing == Existing::Kept => {
                return Ok(Outcome::Kept);
            }
            Err(datastore::Error::AlreadyExists { .. }) => {
                let old = self.client.get_any(&place, &new).await?;
                let version = old.pointer("/metadata/resourceVersion").cloned();
                let metadata = new.get_mut("metadata").and_then(Value::as_object_mut);
                if let (Some(metadata), Some(version)) = (metadata, version) {
                    metadata.insert("resourceVersion".to_owned(), version);
                }
                self.client.update_any(&place, &new).await?;
                Outcome::Replaced
            }
            Err(error) => return Err(error),
        };
        if place.has_status && object.get("status").is_some() {
            self.client.status_any(&place, object).await?;
        }
        Ok(outcome)
    }

    /// Finds the kind of an object; one that was just defined may take the server a moment.
    async fn place(&mut self, object: &Value) -> Result<Place, datastore::Error> {
        let text =
            |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = (text("apiVersion"), text("kind"));
        if let Some(place) = self.places.get(&key) {
            return Ok(place.clone());
        }
        let begun = Instant::now();
        loop {
            if let Some(place) = self.client.find_kind(&key.0, &key.1).await? {
                self.places.insert(key, place.clone());
                return Ok(place);
            }
            if begun.elapsed() > PATIENCE {
                let target = datastore::Target {
                    verb: "create",
                    kind: "object",
                    object: format!("{} of {}", key.1, key.0),
                    server: self.client.server(),
                };
                return Err(datastore::Error::UnknownKind { target: Box::new(target) });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

/// Definitions first, then namespaces, then accounts, then the order of the file.
fn rank(object: &Value) -> u8 {
    match object.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        "ServiceAccount" => 2,
        _ => 3,
    }
}

fn read(path: &Path) -> Result<Vec<Value>, Error> {
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
    } else {
        text = std::fs::read_to_string(path).map_err(failed)?;
    }
    parse(&text).map_err(|problem| Error::Unreadable { path: path.to_owned(), problem })
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut objects = Vec::new();
    for mut document in documents.into_iter().filter(|document| !document.is_null()) {
        if document.get("kind").and_then(Value::as_str) != Some("List") {
            objects.push(document);
            continue;
        }
        match document.get_mut("items").and_then(Value::as_array_mut) {
            Some(items) => objects.append(items),
            None => return Err("a List has no items".to_owned()),
        }
    }
    let lacks = |object: &&Value| {
        let has = |path: &str| object.pointer(path).is_some_and(Value::is_string);
        !(has("/kind") && has("/apiVersion") && has("/metadata/name"))
    };
    match objects.iter().position(|object| lacks(&object)) {
        Some(at) => {
            Err(format!("object {} has no apiVersion, kind or metadata.name", at.saturating_add(1)))
        }
        None => Ok(objects),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_documents_and_lists() {
        let text = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        let mut objects = parse(text).unwrap();
        objects.reverse();
        objects.sort_by_key(rank);
        let kinds: Vec<_> = objects.iter().map(|it| it["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Namespace", "Pod"]);
    }

    #[test]
    fn says_which_object_is_none() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n";
        assert_eq!(parse(text).unwrap_err(), "object 2 has no apiVersion, kind or metadata.name");
        assert!(parse("a: [").is_err());
    }
}
