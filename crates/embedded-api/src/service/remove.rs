//! Delete, deletecollection, and what goes with a namespace or a definition.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::read::List;
use super::{Answer, Service, Target, context};
use crate::builtin::KINDS;
use crate::resource::Resource;
use crate::status::Status;
use crate::store::{Entry, Key, Scope, Transaction};
use crate::verb::delete::{self, Deletion};
use crate::verb::{Context, DeleteOptions, ListOptions, rules, watch};
use crate::{Object, store};

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Namespaces that always are.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Service {
    /// Deletes an object.
    ///
    /// # Errors
    ///
    /// 404 if there is none, 409 if a precondition fails, 403 if it must stay.
    pub async fn delete(&self, target: Target, options: DeleteOptions) -> Result<Answer, Status> {
        if rules::is_namespace(&target.resource) && IMMORTAL.contains(&target.name.as_str()) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden(target.names(), &target.name, why));
        }
        let resource = Arc::clone(&target.resource);
        let is_dry_run = options.is_dry_run;
        let context = context()?;
        let decide = move |tx: &mut Transaction<'_>| {
            let entry = tx.get(&target.key())?.ok_or_else(|| target.not_found())?;
            let json = delete_one(tx, &target.resource, &entry, &options, &context)?;
            Ok(Answer::ok(json))
        };
        let answer = self.store.write(decide).await?;
        self.refresh_after(&resource, is_dry_run).await?;
        Ok(answer)
    }

    /// Deletes what a list shows, all in one step, and returns it.
    ///
    /// # Errors
    ///
    /// As [`Service::list`] and [`Service::delete`]; then nothing was deleted.
    pub async fn delete_collection(
        &self,
        target: Target,
        list: ListOptions,
        options: DeleteOptions,
    ) -> Result<List, Status> {
        let found = self.list(&target, &list).await?;
        let resource = Arc::clone(&target.resource);
        let is_dry_run = options.is_dry_run;
        let items = found.items.clone();
        let context = context()?;
        let decide = move |tx: &mut Transaction<'_>| {
            for json in &items {
                let object = store::decode(json)?;
                let mut key = target.key_of(object.name().unwrap_or_default());
                key.namespace = object.namespace().unwrap_or_default().into();
                // What went since then is gone, as it should be.
                if let Some(entry) = tx.get(&key)? {
                    delete_one(tx, &target.resource, &entry, &options, &context)?;
                }
            }
            Ok(())
        };
        self.store.write(decide).await?;
        self.refresh_after(&resource, is_dry_run).await?;
        Ok(found)
    }
}

/// Deletes one object and returns what the client is told.
fn delete_one(
    tx: &mut Transaction<'_>,
    resource: &Resource,
    entry: &Entry,
    options: &DeleteOptions,
    context: &Context,
) -> Result<Arc<[u8]>, Status> {
    let old = entry.object()?;
    match delete::delete(resource, &old, options, context)? {
        Deletion::Unchanged => super::read::shown(resource, entry.json.clone()),
        Deletion::Gone(object) => {
            let uid = old.uid().unwrap_or_default().to_owned();
            let last = if options.is_dry_run {
                watch::to_json(&object)?
            } else {
                remove(tx, &entry.key, object)?.json
            };
            if rules::returns_deleted(resource) {
                return super::read::shown(resource, last);
            }
            success(resource, &entry.key.name, &uid)
        }
        Deletion::Marked(object) => {
            if options.is_dry_run {
                return watch::to_json(&object);
            }
            let marked = tx.put(entry.key.clone(), object)?;
            if rules::is_namespace(resource) {
                empty_namespace(tx, &marked.key.name, context)?;
            } else if rules::is_definition(resource) {
                empty_definition(tx, &marked, context)?;
            }
            super::read::shown(resource, marked.json)
        }
    }
}

fn success(resource: &Resource, name: &str, uid: &str) -> Result<Arc<[u8]>, Status> {
    let mut details = json!({"name": name, "kind": &*resource.plural, "uid": uid});
    if let Some(map) = details.as_object_mut()
        && !resource.group.is_empty()
    {
        map.insert("group".to_owned(), json!(&*resource.group));
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    serde_json::to_vec(&status).map(Into::into).map_err(Status::internal)
}

/// Removes an object for good, and what only waited for that.
pub(super) fn remove(tx: &mut Transaction<'_>, key: &Key, last: Object) -> Result<Entry, Status> {
    let entry = tx.delete(key, last)?;
    if !key.namespace.is_empty() {
        finish_namespace(tx, &key.namespace)?;
    }
    finish_definition(tx, &key.resource)?;
    Ok(entry)
}

/// Deletes objects, or marks those that finalizers hold.
fn delete_all(tx: &mut Transaction<'_>, scope: &Scope, context: &Context) -> Result<(), Status> {
    for entry in tx.list(scope)? {
        let mut object = entry.object()?;
        if object.finalizers().next().is_none() {
            tx.delete(&entry.key, object)?;
        } else if !object.is_terminating() {
            delete::mark(&mut object, 0, context);
            tx.put(entry.key, object)?;
        }
    }
    Ok(())
}

/// Deletes the objects of a definition that is being deleted.
fn empty_definition(
    tx: &mut Transaction<'_>,
    definition: &Entry,
    context: &Context,
) -> Result<(), Status> {
    let objects = Scope::All { resource: definition.key.name.clone() };
    let namespaces = tx.list(&objects)?.into_iter().map(|entry| entry.key.namespace);
    let namespaces: BTreeSet<Arc<str>> = namespaces.collect();
    delete_all(tx, &objects, context)?;
    for namespace in namespaces.iter().filter(|namespace| !namespace.is_empty()) {
        finish_namespace(tx, namespace)?;
    }
    finish_definition(tx, &definition.key.name)
}

/// Ends a definition that is being deleted and has no objects any more.
fn finish_definition(tx: &mut Transaction<'_>, name: &Arc<str>) -> Result<(), Status> {
    let key = Key { resource: DEFINITIONS.into(), namespace: "".into(), name: name.clone() };
    let Some(entry) = tx.get(&key)? else { return Ok(()) };
    let mut object = entry.object()?;
    let objects = Scope::All { resource: name.clone() };
    if !object.is_terminating() || !tx.list(&objects)?.is_empty() {
        return Ok(());
    }
    rules::finish_definition(&mut object);
    if object.finalizers().next().is_some() {
        tx.put(key, object)?;
    } else {
        tx.delete(&key, object)?;
    }
    Ok(())
}

/// Returns the resources whose objects may be in namespaces.
fn namespaced(tx: &Transaction<'_>) -> Result<Vec<Arc<str>>, Status> {
    let builtin = KINDS.iter().filter(|kind| kind.namespaced && kind.group != "events.k8s.io");
    let builtin = builtin.map(|kind| crate::resource::qualify(kind.plural, kind.group).into());
    let mut all: Vec<Arc<str>> = builtin.collect();
    for entry in tx.list(&Scope::All { resource: DEFINITIONS.into() })? {
        let scope = entry.object()?.body.get("spec").and_then(|spec| spec.get("scope")).cloned();
        if scope.as_ref().and_then(Value::as_str) == Some("Namespaced") {
            all.push(entry.key.name);
        }
    }
    Ok(all)
}

/// Deletes what is in a namespace, as its controller would; pods without waiting for a kubelet.
fn empty_namespace(
    tx: &mut Transaction<'_>,
    namespace: &Arc<str>,
    context: &Context,
) -> Result<(), Status> {
    for resource in namespaced(tx)? {
        let scope = Scope::Namespace { resource, namespace: namespace.clone() };
        delete_all(tx, &scope, context)?;
        finish_definition(tx, scope.resource())?;
    }
    finish_namespace(tx, namespace)
}

/// Ends a namespace that is being deleted and has nothing in it any more.
fn finish_namespace(tx: &mut Transaction<'_>, namespace: &Arc<str>) -> Result<(), Status> {
    let key = Key { resource: "namespaces".into(), namespace: "".into(), name: namespace.clone() };
    let Some(entry) = tx.get(&key)? else { return Ok(()) };
    let mut object = entry.object()?;
    if !object.is_terminating() {
        return Ok(());
    }
    for resource in namespaced(tx)? {
        let scope = Scope::Namespace { resource, namespace: namespace.clone() };
        if !tx.list(&scope)?.is_empty() {
            return Ok(());
        }
    }
    rules::finish_namespace(&mut object);
    if rules::is_held(&object) || object.finalizers().next().is_some() {
        tx.put(key, object)?;
    } else {
        tx.delete(&key, object)?;
    }
    Ok(())
}
