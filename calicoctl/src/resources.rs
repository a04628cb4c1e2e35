//! `calicoctl get`, `create`, `apply`, `replace`, `delete`, `patch`, `label`, `validate` and
//! `convert`: the objects that people write, of `projectcalico.org/v3`.

mod input;
mod synthetic;
mod table;

use api::v3::{Resource, resource_of};
use datastore::{Client, Error as StoreError, Place};
use model::net::Cidr;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::arguments::{Delete, Get, Global, Label, Patch, PatchType, Write, WriteMode};
use crate::output::{Format, print, render_value};
use crate::run::{connect, connect_to_write};
use table::Width;

/// Shows objects.
///
/// # Errors
///
/// [`Error::Refused`] for a kind, a name or a format that there is not, and what the datastore
/// fails with.
pub async fn get(global: &Global, arguments: &Get) -> Result<(), Error> {
    let client = connect(global)?;
    let (kind, objects) = Box::pin(found(&client, arguments)).await?;
    let is_named = arguments.names.len() == 1;
    let objects =
        if arguments.export { objects.into_iter().map(exported).collect() } else { objects };
    let has_namespaces = arguments.all_namespaces && is_namespaced(&kind);
    print(&shown(&kind, &objects, &arguments.output, (is_named, has_namespaces))?)
}

async fn found(client: &Client, arguments: &Get) -> Result<(String, Vec<Value>), Error> {
    let word = arguments.kind.as_str();
    let namespace = (!arguments.all_namespaces).then_some(arguments.namespace.as_str());
    if let Some(kind) = synthetic::kind(word) {
        let mut objects = synthetic::list(client, kind, namespace).await?;
        choose(kind, &mut objects, &arguments.names)?;
        return Ok((kind.to_owned(), objects));
    }
    let resource = Resource::find(word).ok_or_else(|| unknown(word))?;
    let place = place(resource);
    let stored = if arguments.names.is_empty() {
        let namespace = namespace.filter(|_| resource.is_namespaced);
        client.list_any(&place, namespace).await?
    } else {
        let mut stored = Vec::new();
        for name in &arguments.names {
            let key = key(resource, name, &arguments.namespace);
            stored.push(client.get_any(&place, &key).await?);
        }
        stored
    };
    // Items of a list do not say what they are.
    let mut objects: Vec<Value> = stored.iter().map(|one| resource.to_written(one)).collect();
    objects.sort_by_cached_key(|object| {
        (text(object, "/metadata/namespace"), text(object, "/metadata/name"))
    });
    Ok((resource.kind.to_owned(), objects))
}

/// Keeps the objects with these names; all if there are none.
fn choose(kind: &str, objects: &mut Vec<Value>, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    objects.retain(|object| names.contains(&text(object, "/metadata/name")));
    let missing = names
        .iter()
        .find(|name| !objects.iter().any(|object| text(object, "/metadata/name") == **name));
    match missing {
        Some(name) => Err(Error::Refused(format!("{kind} {name} does not exist"))),
        None => Ok(()),
    }
}

/// Writes objects down in a format of Calico's.
///
/// # Errors
///
/// [`Error::Refused`] for a format that there is not.
fn shown(
    kind: &str,
    objects: &[Value],
    format: &str,
    (is_named, has_namespaces): (bool, bool),
) -> Result<String, Error> {
    let draw =
        |width: &Width| table::draw(kind, objects, width, has_namespaces).map_err(Error::Refused);
    let whole = || match (objects, is_named) {
        ([only], true) => only.clone(),
        (all, _) => json!({
            "apiVersion": api::v3::VERSION, "kind": format!("{kind}List"), "metadata": {}, "items": all,
        }),
    };
    match format {
        "ps" => draw(&Width::Short),
        "wide" => draw(&Width::Wide),
        "json" => render_value(&whole(), Format::Json),
        "yaml" => render_value(&whole(), Format::Yaml),
        "name" => {
            let line = |object: &Value| {
                format!("{}/{}", kind.to_lowercase(), text(object, "/metadata/name"))
            };
            Ok(objects.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        other => match other.strip_prefix("custom-columns=") {
            Some(heads) => {
                draw(&Width::Custom(heads.split(',').map(|head| head.trim().to_owned()).collect()))
            }
            None => Err(Error::Refused(format!(
                "output format `{other}` is not known: use ps, wide, yaml, json, name or \
                 custom-columns=HEAD,HEAD; for templates, give -o json to jq"
            ))),
        },
    }
}

/// Creates, replaces or does either to the objects of a file.
///
/// # Errors
///
/// [`Error::Refused`] with how many were written before, and what is wrong with the next.
pub async fn write(global: &Global, arguments: &Write, mode: WriteMode) -> Result<(), Error> {
    let objects = read(arguments)?;
    let client = connect_to_write(global).await?;
    let mut done: Vec<&'static str> = Vec::new();
    for object in &objects {
        let written = Box::pin(write_one(&client, object, arguments, mode)).await;
        match written {
            Ok(kind) => done.extend(kind),
            Err(error) if done.is_empty() => return Err(error),
            Err(error) => {
                return Err(Error::Refused(format!(
                    "partial success: {} the first {} out of {} resources; then: {error}",
                    mode.past(),
                    done.len(),
                    objects.len()
                )));
            }
        }
    }
    print(&success(mode.past(), &done))
}

fn success(verb: &str, kinds: &[&str]) -> String {
    match kinds {
        [] => "No resources specified".to_owned(),
        [first, rest @ ..] if rest.iter().all(|kind| kind == first) => {
            format!("Successfully {verb} {} '{first}' resource(s)", kinds.len())
        }
        all => format!("Successfully {verb} {} resource(s)", all.len()),
    }
}

async fn write_one(
    client: &Client,
    object: &Value,
    arguments: &Write,
    mode: WriteMode,
) -> Result<Option<&'static str>, Error> {
    let resource = resource_of(object)?;
    require_writable(resource)?;
    let written = written_form(resource, object, &arguments.namespace);
    let mut stored = resource.to_stored(&written)?;
    let place = place(resource);
    let old = match client.get_any(&place, &stored).await {
        Ok(old) => Some(old),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    match (old, mode) {
        (Some(_), WriteMode::Create) if arguments.skip_exists => Ok(None),
        (None, WriteMode::Create | WriteMode::Apply) => {
            require_apart(client, resource, &stored).await?;
            client.create_any(&place, &stored).await?;
            Ok(Some(resource.kind))
        }
        (Some(old), WriteMode::Apply | WriteMode::Replace) => {
            require_unchanged(resource, &old, &stored)?;
            take_over(&old, &mut stored);
            client.update_any(&place, &stored).await?;
            Ok(Some(resource.kind))
        }
        (Some(_), WriteMode::Create) => Err(Error::Refused(format!(
            "{} exists: use apply or replace",
            named(resource, &written)
        ))),
        (None, WriteMode::Replace) => Err(Error::Refused(format!(
            "{} does not exist: use create or apply",
            named(resource, &written)
        ))),
    }
}

/// Takes what is the server's, or another's, from the object that is replaced.
fn take_over(old: &Value, new: &mut Value) {
    let Some(metadata) = new.pointer_mut("/metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for key in ["uid", "finalizers", "ownerReferences"] {
        if let Some(value) = old.pointer(&format!("/metadata/{key}")) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    let version = old.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    metadata.entry("resourceVersion").or_insert(version);
}

/// Deletes objects by name, or those of a file.
///
/// # Errors
///
/// [`Error::Refused`] for what must not be deleted, and what the datastore fails with.
pub async fn delete(global: &Global, arguments: &Delete) -> Result<(), Error> {
    let mut keys = Vec::new();
    match (&arguments.filename, &arguments.kind) {
        (Some(file), None) => {
            for object in input::read(file, arguments.recursive, arguments.skip_empty)? {
                let resource = resource_of(&object)?;
                keys.push((resource, written_form(resource, &object, &arguments.namespace)));
            }
        }
        (None, Some(word)) if !arguments.names.is_empty() => {
            let resource = Resource::find(word).ok_or_else(|| unknown(word))?;
            let key = |name: &String| (resource, key(resource, name, &arguments.namespace));
            keys.extend(arguments.names.iter().map(key));
        }
        _ => {
            return Err(Error::Refused("say what to delete: KIND and NAME, or -f FILE".to_owned()));
        }
    }
    let client = connect_to_write(global).await?;
    let mut done = Vec::new();
    for (resource, object) in keys {
        require_writable(resource)?;
        let name = text(&object, "/metadata/name");
        let fixed = model::tier::Tier::fixed();
        if resource.kind == "Tier" && fixed.iter().any(|(tier, ..)| *tier == name) {
            return Err(Error::Refused(format!(
                "Tier {name} is one that every cluster has: it stays"
            )));
        }
        let object = json!({"kind": resource.kind, "metadata": {
            "name": name, "namespace": text(&object, "/metadata/namespace"),
        }});
        match client.delete_any(&place(resource), &object).await {
            Ok(()) => done.push(resource.kind),
            Err(StoreError::NotFound { .. }) if arguments.skip_not_exists => {}
            Err(error) => return Err(error.into()),
        }
    }
    print(&success("deleted", &done))
}

/// Changes parts of an object.
///
/// # Errors
///
/// [`Error::Refused`] for a patch that does not fit.
pub async fn patch(global: &Global, arguments: &Patch) -> Result<(), Error> {
    let resource = Resource::find(&arguments.kind).ok_or_else(|| unknown(&arguments.kind))?;
    let change: Value = serde_saphyr::from_str(&arguments.patch)
        .map_err(|error| Error::Refused(format!("the patch is neither YAML nor JSON: {error}")))?;
    edit(global, resource, (&arguments.name, &arguments.namespace), |object| {
        match arguments.kind_of_patch {
            // The kinds have no lists that a strategic merge would treat in a way of their own.
            PatchType::Strategic | PatchType::Merge => json_patch::merge(object, &change),
            PatchType::Json => {
                let operations: json_patch::Patch = serde_json::from_value(change.clone())
                    .map_err(|error| {
                        Error::Refused(format!(
                            "the patch is no list of operations (RFC 6902): {error}"
                        ))
                    })?;
                json_patch::patch(object, &operations)
                    .map_err(|error| Error::Refused(format!("the patch does not fit: {error}")))?;
            }
        }
        Ok(())
    })
    .await?;
    print(&success("patched", &[resource.kind]))
}

/// Sets or takes away a label.
///
/// # Errors
///
/// [`Error::Refused`] for a label that is there with another value, or is not there.
pub async fn label(global: &Global, arguments: &Label) -> Result<(), Error> {
    let resource = Resource::find(&arguments.kind).ok_or_else(|| unknown(&arguments.kind))?;
    let pair = arguments.label.split_once('=');
    edit(global, resource, (&arguments.name, &arguments.namespace), |object| {
        let metadata = object.pointer_mut("/metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else { return Ok(()) };
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        let Some(labels) = labels.as_object_mut() else { return Ok(()) };
        change_label(labels, &arguments.label, pair, (arguments.remove, arguments.overwrite))
            .map_err(Error::Refused)
    })
    .await?;
    let verb = if arguments.remove { "removed label from" } else { "set label on" };
    print(&format!("Successfully {verb} {} {}", resource.kind, arguments.name))
}

fn change_label(
    labels: &mut Map<String, Value>,
    text: &str,
    pair: Option<(&str, &str)>,
    (is_removed, overwrites): (bool, bool),
) -> Result<(), String> {
    match (pair, is_removed) {
        (None, false) => Err(format!("`{text}` is no KEY=VALUE: write one, or use --remove")),
        (Some((key, _)), true) => Err(format!("with --remove, write only the key: {key}")),
        (None, true) => match labels.remove(text) {
            Some(_) => Ok(()),
            None => Err(format!("there is no label {text}")),
        },
        (Some((key, value)), false) => {
            let old = labels.get(key).and_then(Value::as_str);
            if let Some(old) = old.filter(|old| *old != value && !overwrites) {
                return Err(format!("label {key} is {old}: use --overwrite"));
            }
            labels.insert(key.to_owned(), value.into());
            Ok(())
        }
    }
}

/// Reads an object, changes it, and writes it back if nobody else was first.
async fn edit(
    global: &Global,
    resource: &'static Resource,
    (name, namespace): (&str, &str),
    change: impl FnOnce(&mut Value) -> Result<(), Error>,
) -> Result<(), Error> {
    require_writable(resource)?;
    let client = connect_to_write(global).await?;
    let place = place(resource);
    let old = client.get_any(&place, &key(resource, name, namespace)).await?;
    let mut written = resource.to_written(&old);
    change(&mut written)?;
    let mut stored = resource.to_stored(&written)?;
    require_unchanged(resource, &old, &stored)?;
    take_over(&old, &mut stored);
    // Its name in the datastore may be one of an old release.
    if let (Some(metadata), Some(name)) = (
        stored.pointer_mut("/metadata").and_then(Value::as_object_mut),
        old.pointer("/metadata/name"),
    ) {
        metadata.insert("name".to_owned(), name.clone());
    }
    client.update_any(&place, &stored).await?;
    Ok(())
}

/// Says whether the objects of a file are valid; needs no cluster.
///
/// # Errors
///
/// [`Error::InvalidObject`] for the first that is not.
pub fn validate(arguments: &Write) -> Result<(), Error> {
    let mut kinds = Vec::new();
    for object in read(arguments)? {
        let resource = resource_of(&object)?;
        resource.to_stored(&written_form(resource, &object, &arguments.namespace))?;
        kinds.push(resource.kind);
    }
    print(&success("validated", &kinds))
}

/// Prints the objects of a file in the form of `projectcalico.org/v3`.
///
/// # Errors
///
/// [`Error::InvalidObject`] for the first that is not valid.
pub fn convert(arguments: &Write, format: Format) -> Result<(), Error> {
    let mut written = Vec::new();
    for object in read(arguments)? {
        let resource = resource_of(&object)?;
        let one = written_form(resource, &object, &arguments.namespace);
        written.push(resource.to_written(&resource.to_stored(&one)?));
    }
    let all = match written.as_slice() {
        [only] => only.clone(),
        all => json!({"apiVersion": "v1", "kind": "List", "items": all}),
    };
    print(&render_value(&all, format)?)
}

fn read(arguments: &Write) -> Result<Vec<Value>, Error> {
    input::read(&arguments.filename, arguments.recursive, arguments.skip_empty)
}

/// Returns an object of either form as people write it, with a namespace if it needs one.
fn written_form(resource: &Resource, object: &Value, namespace: &str) -> Value {
    let is_stored = object.get("apiVersion").is_some_and(|version| version == api::API_VERSION);
    let mut written = if is_stored { resource.to_written(object) } else { object.clone() };
    let metadata = written.pointer_mut("/metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        if resource.is_namespaced {
            metadata.entry("namespace").or_insert_with(|| namespace.into());
        } else {
            metadata.remove("namespace");
        }
    }
    written
}

fn require_writable(resource: &Resource) -> Result<(), Error> {
    if resource.is_writable {
        return Ok(());
    }
    let kind = resource.kind;
    Err(Error::Refused(format!("{kind} is written by Calico's programs only, not by people")))
}

/// Refuses what would leave blocks of the old form behind.
fn require_unchanged(resource: &Resource, old: &Value, new: &Value) -> Result<(), Error> {
    if resource.kind != "IPPool" {
        return Ok(());
    }
    for field in ["cidr", "blockSize"] {
        let at = |object: &Value| object.pointer(&format!("/spec/{field}")).cloned();
        if let Some(was) = at(old).filter(|was| Some(was) != at(new).as_ref()) {
            let name = text(old, "/metadata/name");
            return Err(Error::Refused(format!(
                "IPPool {name}: spec.{field} is {was} and cannot be changed: make another pool, \
                 disable this one, and delete it when its pods have moved"
            )));
        }
    }
    Ok(())
}

/// Refuses a new pool that shares addresses with another of the same VRF, or of none.
async fn require_apart(client: &Client, resource: &Resource, new: &Value) -> Result<(), Error> {
    if resource.kind != "IPPool" {
        return Ok(());
    }
    let range = |object: &Value| text(object, "/spec/cidr").parse::<Cidr>().ok();
    let vrf = |object: &Value| {
        let pool = api::IpPool::from_json(object).ok()?;
        model::pool::IpPool::try_from(&pool).ok()?.vrf.map(|vrf| vrf.name)
    };
    let Some(cidr) = range(new) else { return Ok(()) };
    for other in client.list_any(&place(resource), None).await? {
        // Tenants' ranges may overlap, but not one's own.
        if vrf(&other) != vrf(new) {
            continue;
        }
        if let Some(taken) = range(&other).filter(|other| other.overlaps(&cidr)) {
            return Err(Error::Refused(format!(
                "IPPool {}: spec.cidr {cidr} overlaps {taken} of IPPool {}: use another range",
                text(new, "/metadata/name"),
                text(&other, "/metadata/name")
            )));
        }
    }
    Ok(())
}

/// Returns an object without what only this cluster knows of it.
fn exported(mut object: Value) -> Value {
    let metadata = object.pointer_mut("/metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        for key in ["uid", "resourceVersion", "creationTimestamp", "generation", "namespace"] {
            metadata.remove(key);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}

fn place(resource: &Resource) -> Place {
    Place {
        root: format!("/apis/{}", api::API_VERSION),
        plural: resource.plural.to_owned(),
        namespaced: resource.is_namespaced,
        has_status: false,
    }
}

fn key(resource: &Resource, name: &str, namespace: &str) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(metadata) = metadata.as_object_mut().filter(|_| resource.is_namespaced) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    json!({"kind": resource.kind, "metadata": metadata})
}

fn named(resource: &Resource, object: &Value) -> String {
    let name = text(object, "/metadata/name");
    match object.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(namespace) => format!("{} {namespace}/{name}", resource.kind),
        None => format!("{} {name}", resource.kind),
    }
}

fn is_namespaced(kind: &str) -> bool {
    Resource::find(kind).is_some_and(|one| one.is_namespaced)
}

fn unknown(word: &str) -> Error {
    let kinds = api::v3::RESOURCES.iter().chain(&api::v3::OF_DOCKER);
    let kinds: Vec<&str> = kinds.map(|one| one.kind).collect();
    Error::Refused(format!(
        "resource type `{word}` is not known: use one of {}, Node",
        kinds.join(", ")
    ))
}

fn text(object: &Value, path: &str) -> String {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_not_overwritten_by_accident() {
        let mut labels = Map::new();
        let mut change =
            |text: &str, flags| change_label(&mut labels, text, text.split_once('='), flags);
        assert_eq!(change("role=web", (false, false)), Ok(()));
        assert_eq!(change("role=web", (false, false)), Ok(()));
        assert!(change("role=db", (false, false)).unwrap_err().contains("--overwrite"));
        assert_eq!(change("role=db", (false, true)), Ok(()));
        assert!(change("role=db", (true, false)).is_err());
        assert!(change("role", (false, false)).is_err());
        assert_eq!(change("role", (true, false)), Ok(()));
        assert!(change("role", (true, false)).is_err());
    }

    #[test]
    fn successes_are_told_as_calico_tells_them() {
        assert_eq!(success("applied", &["IPPool"]), "Successfully applied 1 'IPPool' resource(s)");
        assert_eq!(success("created", &["A", "A"]), "Successfully created 2 'A' resource(s)");
        assert_eq!(success("created", &["A", "B"]), "Successfully created 2 resource(s)");
    }

    #[test]
    fn formats_are_those_of_calico_and_names() {
        let object = json!({"apiVersion": "x", "kind": "Tier", "metadata": {"name": "a"}, "spec": {"order": 1}});
        let shown = |format: &str, is_named| {
            shown("Tier", std::slice::from_ref(&object), format, (is_named, false))
        };
        assert_eq!(shown("ps", false).unwrap(), "NAME   ORDER\na      1");
        assert_eq!(shown("name", false).unwrap(), "tier/a");
        assert!(shown("json", false).unwrap().contains("\"TierList\""));
        assert!(!shown("json", true).unwrap().contains("items"));
        assert!(shown("go-template={{.}}", true).unwrap_err().to_string().contains("jq"));
    }
}
