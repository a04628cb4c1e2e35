//! Every kind of object, with unknown fields, survives the real API server and our own types.

use std::path::Path;

use lab::Error;
use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Kind, Settings, root};
use serde_json::{Value, json};

/// A label that our programs know nothing of.
const LABEL: &str = "lab.example/unknown";
/// A field of the specification that our programs know nothing of.
const FIELD: &str = "fieldOfALaterRelease";

/// Creates each object of `testdata/api/objects`, reads it into our types, writes it back and
/// compares what the server holds.
pub(crate) fn round_trip(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let settings = Settings::loopback(control_plane, &dir.join("control-plane"));
    let control_plane = ControlPlane::start(settings)?;
    control_plane.install()?;
    let api = control_plane.api()?;
    let fixtures = root().join("testdata/api/objects");
    let mut paths: Vec<_> = std::fs::read_dir(&fixtures)
        .map_err(Error::file(&fixtures))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let (mut tried, mut wrong) = (0_usize, Vec::new());
    for path in &paths {
        tried = tried.saturating_add(1);
        if let Err(error) = object(&control_plane, &api, path) {
            wrong.push(format!("{}: {error}", path.display()));
        }
    }
    eprintln!("{tried} kinds tried");
    if wrong.is_empty() && tried >= 22 {
        return Ok(());
    }
    Err(Error::wrong(format!("{tried} kinds tried; wrong:\n{}", wrong.join("\n"))))
}

fn object(control_plane: &ControlPlane, api: &Api, path: &Path) -> Result<(), Error> {
    let kubectl = |arguments: &[&str]| control_plane.kubectl(arguments);
    let path = path.to_string_lossy();
    let text = kubectl(&["create", "--dry-run=client", "--output=json", "--filename", &path])?;
    let mut fixture: Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let text = |object: &Value, pointer: &str| {
        object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (kind, name) = (text(&fixture, "/kind"), text(&fixture, "/metadata/name"));
    let namespace = fixture.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace = namespace.map(str::to_owned);
    if let Some(spec) = fixture.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(FIELD.to_owned(), json!({"kept": [1, "two", null]}));
    }
    if let Some(metadata) = fixture.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("labels".to_owned(), json!({ LABEL: "kept" }));
    }
    let given = fixture.get("spec").cloned().unwrap_or_default();
    create(api, &kind, fixture)?;
    let namespace_of = namespace.clone().unwrap_or_else(|| "default".to_owned());
    let resource = format!("{}.crd.projectcalico.org", kind.to_lowercase());
    let get = ["get", &resource, &name, "--namespace", &namespace_of, "--output=json"];
    let before: Value = serde_json::from_str(&kubectl(&get)?).map_err(Error::wrong)?;
    rewrite(api, &kind, namespace.as_deref(), &name)?;
    let after: Value = serde_json::from_str(&kubectl(&get)?).map_err(Error::wrong)?;
    let spec = |object: &Value| object.get("spec").cloned().unwrap_or_default();
    let is_kept = spec(&after).get(FIELD).is_some_and(Value::is_object);
    let label = after.pointer("/metadata/labels").and_then(|labels| labels.get(LABEL));
    let is_as_given = given == spec(&before);
    if is_as_given && spec(&before) == spec(&after) && is_kept && label.is_some() {
        return Ok(());
    }
    Err(Error::wrong(format!("{kind} {name} was {before} and became {after}")))
}

/// Does something with the type of an object's kind.
macro_rules! by_kind {
    ($kind:expr, $call:ident $arguments:tt, [$($name:literal => $type:ident),* $(,)?]) => {
        match $kind {
            $($name => by_kind!(@call $call, $type, $arguments),)*
            other => Err(Error::wrong(format!("no type for {other}"))),
        }
    };
    (@call $call:ident, $type:ident, ($($argument:expr),*)) => {
        $call::<api::$type>($($argument),*)
    };
}

/// All kinds of the group, with our types.
macro_rules! of_kind {
    ($kind:expr, $call:ident $arguments:tt) => {
        by_kind!($kind, $call $arguments, [
            "BGPConfiguration" => BgpConfiguration,
            "BGPFilter" => BgpFilter,
            "BGPPeer" => BgpPeer,
            "BlockAffinity" => BlockAffinity,
            "CalicoNodeStatus" => CalicoNodeStatus,
            "ClusterInformation" => ClusterInformation,
            "FelixConfiguration" => FelixConfiguration,
            "GlobalNetworkPolicy" => GlobalNetworkPolicy,
            "GlobalNetworkSet" => GlobalNetworkSet,
            "HostEndpoint" => HostEndpoint,
            "IPAMBlock" => IpamBlock,
            "IPAMConfig" => IpamConfig,
            "IPAMHandle" => IpamHandle,
            "IPPool" => IpPool,
            "IPReservation" => IpReservation,
            "KubeControllersConfiguration" => KubeControllersConfiguration,
            "NetworkPolicy" => CalicoNetworkPolicy,
            "NetworkSet" => NetworkSet,
            "StagedGlobalNetworkPolicy" => StagedGlobalNetworkPolicy,
            "StagedKubernetesNetworkPolicy" => StagedKubernetesNetworkPolicy,
            "StagedNetworkPolicy" => StagedNetworkPolicy,
            "Tier" => Tier,
        ])
    };
}

fn create(api: &Api, kind: &str, object: Value) -> Result<(), Error> {
    of_kind!(kind, create_as(api, object))
}

fn rewrite(api: &Api, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), Error> {
    of_kind!(kind, rewrite_as(api, namespace, name))
}

fn create_as<T: datastore::Object>(api: &Api, object: Value) -> Result<(), Error> {
    api.create::<T>(object).map(drop)
}

fn rewrite_as<T: datastore::Object>(
    api: &Api,
    namespace: Option<&str>,
    name: &str,
) -> Result<(), Error> {
    let object: Option<T> = match namespace {
        Some(namespace) => api.get_in(namespace, name)?,
        None => api.get(name)?,
    };
    let mut object = object.ok_or_else(|| Error::wrong(format!("{name} is gone")))?;
    // A change of the metadata, lest the server find nothing to write.
    let annotations = object.metadata_mut().annotations.get_or_insert_default();
    annotations.insert("lab.example/written".to_owned(), "again".to_owned());
    api.update(&object).map(drop)
}
