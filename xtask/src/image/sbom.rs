//! What the image's programs are made of, in `CycloneDX` 1.5 (ECMA-424).
//!
//! It holds neither a time nor a number of its own, so that it is the same for the same sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde_json::{Value, json};

use crate::command::Failure;

/// Returns the bill of materials of our packages with these names.
pub(super) fn read(root: &Path, packages: &[&str]) -> Result<String, Failure> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options([
            "--locked".to_owned(),
            "--filter-platform=x86_64-unknown-linux-musl".to_owned(),
        ])
        .exec()
        .map_err(|error| Failure::Machine(format!("cargo metadata: {error}")))?;
    let modules = root.join("lab/cni-plugins/go.mod");
    let modules = std::fs::read_to_string(&modules)
        .map_err(|source| Failure::File { path: modules, source })?;
    Ok(bill(&metadata, packages, &modules))
}

fn bill(metadata: &Metadata, packages: &[&str], modules: &str) -> String {
    let roots = metadata.workspace_packages();
    let roots = roots.iter().filter(|package| packages.contains(&package.name.as_str()));
    let edges = edges(metadata);
    let used = reached(roots.map(|package| &package.id), &edges);
    let mut components: Vec<Value> =
        metadata.packages.iter().filter(|it| used.contains(&it.id)).map(component).collect();
    components.extend(go_modules(modules));
    components.sort_by_key(|it| it["bom-ref"].as_str().unwrap_or_default().to_owned());
    let named: BTreeMap<&PackageId, String> =
        metadata.packages.iter().map(|package| (&package.id, purl(package))).collect();
    let name = |id: &PackageId| named.get(id).cloned().unwrap_or_default();
    let dependencies: BTreeMap<String, BTreeSet<String>> = used
        .iter()
        .map(|id| (name(id), edges.get(id).into_iter().flatten().map(|it| name(it)).collect()))
        .collect();
    let dependencies: Vec<Value> = dependencies
        .into_iter()
        .map(|(name, uses)| json!({"ref": name, "dependsOn": uses}))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "calico", "version": version}},
        "components": components,
        "dependencies": dependencies,
    });
    format!("{bill:#}\n")
}

/// What is linked into what: neither what builds nor what tests.
fn edges(metadata: &Metadata) -> BTreeMap<&PackageId, Vec<&PackageId>> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let linked = |kinds: &[cargo_metadata::DepKindInfo]| {
        kinds.iter().any(|info| info.kind == DependencyKind::Normal)
    };
    nodes
        .map(|node| {
            let uses = node.deps.iter().filter(|it| linked(&it.dep_kinds)).map(|it| &it.pkg);
            (&node.id, uses.collect())
        })
        .collect()
}

fn reached<'a>(
    roots: impl Iterator<Item = &'a PackageId>,
    edges: &BTreeMap<&'a PackageId, Vec<&'a PackageId>>,
) -> BTreeSet<&'a PackageId> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&PackageId> = roots.collect();
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(edges.get(id).into_iter().flatten());
        }
    }
    reached
}

/// Returns the package's URL, which is its name here too (ECMA-427).
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package) -> Value {
    let purl = purl(package);
    let licence = package.license.clone().unwrap_or_else(|| "NOASSERTION".to_owned());
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name.as_str(),
        "version": package.version.to_string(),
        "purl": purl,
        // Some packages still write a slash for OR.
        "licenses": [{"expression": licence.replace('/', " OR ")}],
    })
}

/// Returns the modules of the reference plugins.
fn go_modules(text: &str) -> Vec<Value> {
    let required = text.lines().filter_map(|line| {
        let line = line.trim().strip_suffix("// indirect")?.trim();
        line.split_once(" v")
    });
    let module = |(name, version): (&str, &str)| {
        let purl = format!("pkg:golang/{name}@v{version}");
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    };
    required.map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_what_is_linked_and_nothing_else() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = read(&root, &["node-daemon", "cni-plugin"]).unwrap();
        let bill: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(bill["bomFormat"], "CycloneDX");
        let components = bill["components"].as_array().unwrap();
        let has = |name: &str| components.iter().any(|it| it["name"] == name);
        for name in ["kernel", "tokio", "rustls", "github.com/containernetworking/plugins"] {
            assert!(has(name), "{name} is linked");
        }
        // Tests alone, building alone, and a program that is not asked for.
        for name in ["proptest", "cc", "rusqlite", "lab"] {
            assert!(!has(name), "{name} is not linked");
        }
        let refs: BTreeSet<&str> =
            components.iter().map(|it| it["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), components.len(), "each once");
        for dependency in bill["dependencies"].as_array().unwrap() {
            for used in dependency["dependsOn"].as_array().unwrap() {
                assert!(refs.contains(used.as_str().unwrap()), "{used} is listed");
            }
        }
    }
}
