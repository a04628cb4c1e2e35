//! The rules of the house that a machine can check.
//!
//! * Layers: who may depend on whom (ARCHITECTURE.md), read from `cargo metadata`.
//! * Every Rust file starts with `//!` and one sentence.
//! * Files stay short enough to read; tests in files of their own do not count.
//! * Every folder of test data says where its files come from.
//! * The manifest that is applied is what its parts say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::command::Failure;

/// The layer of each of our crates; a crate may use crates of the layers named in [`may_use`].
const LAYERS: &[(&str, Layer)] = &[
    ("model", Layer::Vocabulary),
    ("selector", Layer::Vocabulary),
    ("api", Layer::Wire),
    ("cni", Layer::Wire),
    ("config", Layer::Wire),
    ("bfd", Layer::Decision),
    ("bgp", Layer::Decision),
    ("calc", Layer::Decision),
    ("ipam", Layer::Decision),
    ("reconcile", Layer::Decision),
    ("render", Layer::Decision),
    ("datastore", Layer::Door),
    ("embedded-api", Layer::Door),
    ("kernel", Layer::Door),
    ("telemetry", Layer::Door),
    ("ledger", Layer::Driver),
    ("cni-service", Layer::Service),
    ("takeover", Layer::Driver),
    ("calicoctl", Layer::Program),
    ("cni-plugin", Layer::Program),
    ("datastore-daemon", Layer::Program),
    ("ipam-plugin", Layer::Program),
    ("kube-controllers", Layer::Program),
    ("libnetwork-plugin", Layer::Program),
    ("node-daemon", Layer::Program),
    ("container-image", Layer::Beside),
    ("lab", Layer::Beside),
    ("benchmarks", Layer::Measuring),
    ("xtask", Layer::Beside),
];

/// Third-party crates that only some of ours may use.
const GUARDED: &[(&str, &[&str])] = &[
    ("nix", &["embedded-api", "kernel", "lab"]),
    ("rtnetlink", &["kernel"]),
    ("netns-rs", &["kernel"]),
    ("kube", &["datastore"]),
];

/// What decisions may use beside the vocabulary: they do no IO and read no clock.
const PURE: &[&str] = &["bytes", "hashbrown", "ipnetwork", "sha2", "thiserror"];

/// How many lines a file may have, its unit tests included.
const MAX_LINES: usize = 800;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Layer {
    Vocabulary,
    Wire,
    Decision,
    Door,
    Driver,
    Service,
    Program,
    Beside,
    Measuring,
}

/// Returns the layers whose crates a crate of `layer` may use.
const fn may_use(layer: Layer) -> &'static [Layer] {
    match layer {
        Layer::Vocabulary | Layer::Wire | Layer::Decision => &[Layer::Vocabulary],
        Layer::Door => &[Layer::Vocabulary, Layer::Wire],
        Layer::Driver => &[Layer::Vocabulary, Layer::Wire, Layer::Decision, Layer::Door],
        Layer::Service => {
            &[Layer::Vocabulary, Layer::Wire, Layer::Decision, Layer::Door, Layer::Driver]
        }
        Layer::Program => &[
            Layer::Vocabulary,
            Layer::Wire,
            Layer::Decision,
            Layer::Door,
            Layer::Driver,
            Layer::Service,
        ],
        Layer::Beside => &[
            Layer::Vocabulary,
            Layer::Wire,
            Layer::Decision,
            Layer::Door,
            Layer::Driver,
            Layer::Beside,
        ],
        // What is measured may also be a part of a program.
        Layer::Measuring => &[
            Layer::Vocabulary,
            Layer::Wire,
            Layer::Decision,
            Layer::Door,
            Layer::Driver,
            Layer::Service,
            Layer::Program,
            Layer::Beside,
        ],
    }
}

/// The only program that uses another's library: it is installed under both names.
const TWO_NAMES: (&str, &str) = ("cni-plugin", "ipam-plugin");

/// Checks every rule.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let mut broken = layers(&metadata(root)?);
    for path in files(root)? {
        broken.extend(source_file(root, &path)?);
    }
    broken.extend(provenance(root)?);
    broken.extend(crate::manifests::check(root)?);
    if broken.is_empty() { Ok(()) } else { Err(Failure::Untidy(broken)) }
}

fn metadata(root: &Path) -> Result<Metadata, Failure> {
    let mut command = MetadataCommand::new();
    command.current_dir(root).no_deps();
    command.exec().map_err(|error| Failure::Machine(format!("cargo metadata: {error}")))
}

fn layers(metadata: &Metadata) -> Vec<String> {
    let ours: BTreeMap<&str, Layer> = LAYERS.iter().copied().collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        match ours.get(name) {
            Some(layer) => broken.extend(dependencies(package, *layer, &ours)),
            None => broken.push(format!("{name}: has no layer; give it one in xtask/src/tidy.rs")),
        }
    }
    broken
}

/// Returns what `package` uses but may not. What only its tests use is free.
fn dependencies(package: &Package, layer: Layer, ours: &BTreeMap<&str, Layer>) -> Vec<String> {
    let name = package.name.as_str();
    let used: BTreeSet<&str> = package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
        .collect();
    used.into_iter()
        .filter_map(|used| match ours.get(used) {
            Some(other) if may_use(layer).contains(other) || (name, used) == TWO_NAMES => None,
            Some(other) => Some(format!("{name} ({layer:?}) must not use {used} ({other:?})")),
            None => third_party(name, layer, used),
        })
        .collect()
}

fn third_party(name: &str, layer: Layer, used: &str) -> Option<String> {
    let is_pure = matches!(layer, Layer::Vocabulary | Layer::Decision);
    if is_pure && !PURE.contains(&used) {
        return Some(format!("{name} ({layer:?}) must not use {used}: it does no IO"));
    }
    let (_, owners) = GUARDED.iter().find(|(guarded, _)| *guarded == used)?;
    let message = || format!("{name} must not use {used}: only {} may", owners.join(", "));
    (!owners.contains(&name)).then(message)
}

/// Returns our Rust files.
fn files(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let tops = [
        "benchmarks",
        "calicoctl",
        "cni-plugin",
        "crates",
        "datastore-daemon",
        "ipam-plugin",
        "lab",
        "node-daemon",
        "xtask",
    ];
    for top in tops {
        walk(&root.join(top), &mut found)?;
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.sort();
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn source_file(root: &Path, path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Failure::File { path: path.to_owned(), source })?;
    let name = path.strip_prefix(root).unwrap_or(path).display();
    let mut broken = Vec::new();
    if !text.starts_with("//! ") {
        broken.push(format!("{name}:1: must start with `//!` and a sentence"));
    }
    let lines = text.lines().count();
    let is_tests = path.components().any(|part| part.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| stem == "tests");
    if lines > MAX_LINES && !is_tests {
        broken.push(format!("{name}: {lines} lines; split what is over {MAX_LINES}"));
    }
    Ok(broken)
}

/// Returns the folders of test data without a README.md.
fn provenance(root: &Path) -> Result<Vec<String>, Failure> {
    let dir = root.join("testdata");
    let failed = |source| Failure::File { path: dir.clone(), source };
    let mut broken = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && !path.join("README.md").exists() {
            let name = path.strip_prefix(root).unwrap_or(&path).display();
            broken.push(format!("{name}: needs a README.md that says where its files come from"));
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_the_rules_of_the_house() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        if let Err(broken) = run(&root) {
            panic!("{broken}");
        }
    }

    #[test]
    fn decisions_may_not_do_io() {
        assert_eq!(
            third_party("bgp", Layer::Decision, "tokio").as_deref(),
            Some("bgp (Decision) must not use tokio: it does no IO")
        );
        assert_eq!(third_party("bgp", Layer::Decision, "thiserror"), None);
    }

    #[test]
    fn only_the_kernel_crate_speaks_netlink() {
        assert_eq!(
            third_party("cni-plugin", Layer::Program, "rtnetlink").as_deref(),
            Some("cni-plugin must not use rtnetlink: only kernel may")
        );
    }

    #[test]
    fn programs_do_not_use_each_other() {
        assert!(!may_use(Layer::Program).contains(&Layer::Program));
    }
}
