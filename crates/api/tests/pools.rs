//! What pools say of VRFs in annotations.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use api::{IpPool, IpPoolSpec};
use model::time::WallTime;
use model::vrf::VrfName;
use serde_json::json;

/// Reads annotations by the last part of their names; returns what the pool says, or the field that
/// is wrong.
fn read(annotations: &[(&str, &str)], uses: &[&str]) -> Result<String, String> {
    let uses = uses.iter().map(|it| (*it).to_owned()).collect();
    let spec = IpPoolSpec {
        cidr: "10.0.0.0/16".to_owned(),
        allowed_uses: Some(uses),
        ..IpPoolSpec::default()
    };
    let mut object = IpPool::named("p", spec);
    let pair = |(name, value): &(&str, &str)| {
        (format!("vrf.projectcalico.org/{name}"), (*value).to_owned())
    };
    object.metadata.annotations = Some(annotations.iter().map(pair).collect());
    let pool = model::pool::IpPool::try_from(&object).map_err(|error| error.to_string())?;
    let Some(vrf) = pool.vrf else { return Ok("none".to_owned()) };
    let partner = |name: &Option<VrfName>| name.as_ref().map_or("-".into(), ToString::to_string);
    let imports: Vec<String> = vrf.imports.iter().map(partner).collect();
    Ok(format!("{} {} [{}]", vrf.name, vrf.id, imports.join(" ")))
}

#[test]
fn vrfs_are_read() {
    let workloads = ["Workload"];
    for (annotations, said) in [
        (&[][..], "none"),
        (&[("name", "red"), ("id", "5001")], "red 5001 []"),
        (&[("name", "red"), ("id", "5001"), ("import", "blue, default,,red")], "red 5001 [- blue]"),
    ] {
        assert_eq!(read(annotations, &workloads).unwrap(), said);
    }
}

#[test]
fn what_is_wrong_about_a_vrf_is_named_with_its_annotation() {
    let workloads = ["Workload"];
    for (annotations, uses, field) in [
        (&[("name", "red")][..], workloads, "id"),
        (&[("name", "Red"), ("id", "5001")], workloads, "name"),
        (&[("name", "red"), ("id", "999")], workloads, "id"),
        (&[("name", "red"), ("id", "5001"), ("import", "a_b")], workloads, "import"),
        (&[("id", "5001")], workloads, "id"),
        (&[("import", "blue")], workloads, "import"),
        (&[("name", "red"), ("id", "5001")], ["LoadBalancer"], "name"),
    ] {
        let error = read(annotations, &uses).unwrap_err();
        let named = format!("IPPool p: metadata.annotations.vrf.projectcalico.org/{field}");
        assert!(error.starts_with(&named), "{error}");
    }
}

#[test]
fn pools_are_as_old_as_the_server_says() {
    for (created, seconds) in [(json!(null), 0), (json!("2026-11-29T16:28:32Z"), 1_795_969_712)] {
        let object = json!({
            "metadata": {"name": "p", "creationTimestamp": created},
            "spec": {"cidr": "10.0.0.0/16"},
        });
        let object: IpPool = serde_json::from_value(object).unwrap();
        let pool = model::pool::IpPool::try_from(&object).unwrap();
        assert_eq!(pool.created, WallTime(seconds * 1_000_000_000));
    }
}
