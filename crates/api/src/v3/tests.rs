//! There and back.

use super::*;

fn stored(written: &Value) -> Value {
    resource_of(written).unwrap().to_stored(written).unwrap()
}

fn written(stored: &Value) -> Value {
    resource_of(stored).unwrap().to_written(stored)
}

#[test]
fn uids_are_mirrored_and_come_back() {
    let (one, other) =
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "d6e51d08-b9b5-118b-802d-0003f22b0c13");
    assert_eq!(mirrored(one), other);
    assert_eq!(mirrored(other), one);
    assert_eq!(mirrored("no uid"), "no uid");
}

#[test]
fn labels_of_people_are_kept_in_the_annotation() {
    let set = json!({
        "apiVersion": VERSION, "kind": "GlobalNetworkSet",
        "metadata": {
            "name": "web",
            "labels": {"role": "web", "projectcalico.org/x": "y"},
            "annotations": {"note": "mine"},
        },
        "spec": {"nets": ["192.0.2.0/24"]},
    });
    let stored = stored(&set);
    assert_eq!(stored["apiVersion"], API_VERSION);
    assert_eq!(stored["metadata"]["labels"], json!({"projectcalico.org/x": "y"}));
    let annotation = stored["metadata"]["annotations"][METADATA].as_str().unwrap();
    let annotation: Value = serde_json::from_str(annotation).unwrap();
    assert_eq!(annotation["labels"]["role"], "web");
    assert_eq!(annotation.get("name"), None);
    let read = GlobalNetworkSet::from_json(&stored).unwrap();
    let read = model::network_set::NetworkSet::try_from(&read).unwrap();
    assert_eq!(read.labels.get("role").map(String::as_str), Some("web"), "policy would miss it");
    assert_eq!(written(&stored), set);
}

#[test]
fn policies_keep_their_names_and_old_ones_lose_their_prefix() {
    let policy = json!({
        "apiVersion": VERSION, "kind": "NetworkPolicy",
        "metadata": {"name": "default.web", "namespace": "shop"},
        "spec": {"selector": "app == 'web'", "egress": [{"action": "Allow"}]},
    });
    let kept = stored(&policy);
    assert_eq!(kept["metadata"]["name"], "default.web");
    assert_eq!(kept["metadata"]["labels"]["projectcalico.org/tier"], "default");
    assert_eq!(kept["spec"]["types"], json!(["Egress"]));
    assert_eq!(written(&kept)["metadata"]["name"], "default.web");
    let old = json!({
        "apiVersion": API_VERSION, "kind": "NetworkPolicy",
        "metadata": {"name": "default.web", "namespace": "shop", "annotations": {METADATA: "{}"}},
        "spec": {"tier": "default"},
    });
    assert_eq!(written(&old)["metadata"]["name"], "web");
}

#[test]
fn what_is_not_written_is_written_down() {
    let pool = json!({
        "apiVersion": VERSION, "kind": "IPPool", "metadata": {"name": "six"},
        "spec": {"cidr": "fd00:10::/64"},
    });
    let spec = &stored(&pool)["spec"];
    assert_eq!(spec["blockSize"], 122);
    assert_eq!(spec["nodeSelector"], "all()");
    assert_eq!(spec["allowedUses"], json!(["Workload", "Tunnel"]));
}

#[test]
fn wrong_objects_are_refused_with_field_and_remedy() {
    let pool = json!({
        "apiVersion": VERSION, "kind": "IPPool", "metadata": {"name": "x"},
        "spec": {"cidr": "10.0.0.0/16", "blockSize": 33},
    });
    let error = resource_of(&pool).unwrap().to_stored(&pool).unwrap_err().to_string();
    assert!(error.starts_with("IPPool x: spec.blockSize"), "{error}");
    let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    let error = resource_of(&other).unwrap_err().to_string();
    assert!(error.contains("use projectcalico.org/v3"), "{error}");
}

#[test]
fn every_kind_of_the_fixtures_survives_the_way_back_and_there() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/api/objects");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        let Ok(resource) = resource_of(&object) else { continue };
        let shown = resource.to_written(&object);
        let again = resource.to_stored(&shown).unwrap();
        assert_eq!(
            resource.to_written(&again)["spec"],
            again["spec"],
            "{}",
            entry.path().display()
        );
        assert_eq!(again["metadata"]["name"], object["metadata"]["name"]);
        tried += 1;
    }
    assert_eq!(tried, RESOURCES.len());
}

#[test]
fn kinds_are_found_by_all_their_names() {
    for (word, kind) in [
        ("IPPool", "IPPool"),
        ("ippools", "IPPool"),
        ("pool", "IPPool"),
        ("gnp", "GlobalNetworkPolicy"),
        ("networkpolicies", "NetworkPolicy"),
        ("felixconfig", "FelixConfiguration"),
        ("ipamconfig", "IPAMConfiguration"),
        ("hostEndpoints", "HostEndpoint"),
    ] {
        assert_eq!(Resource::find(word).map(|one| one.kind), Some(kind), "{word}");
    }
    assert!(Resource::find("pods").is_none());
}
