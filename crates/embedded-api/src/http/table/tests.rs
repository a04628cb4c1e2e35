//! The rows that kube-apiserver 1.34 made of the objects in `testdata/embedded-api/tables`.

use super::*;
use crate::resource::Registry;

const TABLES: &str = include_str!("../../../../../testdata/embedded-api/tables/tables.json");
/// About when the tables were written: ages are compared in words of a minute only.
const NOW: &str = "2026-11-23T17:00:08Z";
/// Columns that depend on the second.
const AGES: [&str; 1] = ["Age"];

#[test]
fn rows_are_those_of_a_real_server() {
    let tables: BTreeMap<String, Vec<Value>> = serde_json::from_str(TABLES).unwrap();
    let registry = Registry::new([]);
    let mut compared = 0;
    for resource in registry.iter() {
        let table = Table::of(resource);
        let names = table.definitions.as_array().unwrap().iter();
        let names: Vec<&str> = names.map(|column| column["name"].as_str().unwrap()).collect();
        assert!(!names.is_empty(), "{}", table.resource);
        for expected in tables.get(&table.resource).into_iter().flatten() {
            let row = table.row(&expected["object"], Include::None, NOW.parse().unwrap());
            let cells = |row: &Value| row["cells"].as_array().unwrap().clone();
            let (actual, expected) = (cells(&row), cells(expected));
            assert_eq!(actual.len(), names.len(), "{}", table.resource);
            for ((name, actual), expected) in names.iter().zip(&actual).zip(&expected) {
                if !AGES.contains(name) {
                    assert_eq!(actual, expected, "{} {name}", table.resource);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn rows_carry_as_much_of_the_object_as_asked() {
    let registry = Registry::new([]);
    let table = Table::of(registry.get("", "v1", "configmaps").unwrap());
    let object = json!({"metadata": {"name": "c"}, "data": {"secret": "x"}});
    let shown = |include| table.row(&object, include, NOW.parse().unwrap())["object"].clone();
    assert_eq!(shown(Include::None), Value::Null);
    assert_eq!(shown(Include::Object), object);
    let metadata = shown(Include::Metadata);
    assert_eq!(metadata["kind"], "PartialObjectMetadata");
    assert!(!metadata.to_string().contains("secret"));
}

#[test]
fn pods_that_are_done_say_so() {
    let registry = Registry::new([]);
    let table = Table::of(registry.get("", "v1", "pods").unwrap());
    let row = |phase: &str| {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase}});
        table.row(&pod, Include::None, NOW.parse().unwrap())
    };
    assert_eq!(row("Succeeded")["conditions"][0]["type"], "Completed");
    assert!(row("Running").get("conditions").is_none());
}
