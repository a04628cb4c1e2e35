//! `manifests/calico.yaml`, put together from its parts: one file to apply, no part twice.
//!
//! `manifests/parts` has what is written by hand, `manifests/crds` the custom resource
//! definitions, `manifests/cni` what container runtimes are told.

use std::path::Path;

use crate::command::Failure;

/// What the file says of itself.
const HEADER: &str = "\
# Calico in Rust: pod network and policy for Kubernetes, in one file.
#
#   kubectl apply -f calico.yaml
#
# Objects have the names that Calico's manifest gives them, so that this replaces that.
# Written by `cargo xtask manifests` from the parts in this directory: change those.
";
/// The parts before and after the definitions: nothing is made before it is defined.
const FIRST: &[&str] = &["parts/config.yaml", "parts/rbac.yaml"];
const LAST: &[&str] = &["parts/node.yaml", "parts/kube-controllers.yaml"];
/// Where the result is.
const TARGET: &str = "manifests/base/calico.yaml";

/// Writes the manifest.
pub(crate) fn write(root: &Path) -> Result<(), Failure> {
    let path = root.join(TARGET);
    std::fs::write(&path, manifest(root)?).map_err(|source| Failure::File { path, source })
}

/// Returns what is wrong with the manifest that is there.
pub(crate) fn check(root: &Path) -> Vec<String> {
    let is_current =
        read(root, TARGET).is_ok_and(|found| manifest(root).is_ok_and(|it| it == found));
    let stale = || format!("{TARGET}: is not what its parts say; run `cargo xtask manifests`");
    if is_current { Vec::new() } else { vec![stale()] }
}

fn manifest(root: &Path) -> Result<String, Failure> {
    let mut parts = Vec::new();
    for name in FIRST {
        parts.push(read(root, &format!("manifests/{name}"))?);
    }
    parts.extend(definitions(root)?);
    for name in LAST {
        parts.push(read(root, &format!("manifests/{name}"))?);
    }
    let conflist = read(root, "manifests/cni/10-calico.conflist")?;
    let conflist: Vec<String> = conflist.lines().map(|line| format!("    {line}")).collect();
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    let text = parts.join("\n---\n").replace("__CONFLIST__", &conflist.join("\n"));
    Ok(format!("{HEADER}---\n{text}\n"))
}

/// Returns the custom resource definitions in the order of their names.
fn definitions(root: &Path) -> Result<Vec<String>, Failure> {
    let dir = root.join("manifests/crds");
    let failed = |source| Failure::File { path: dir.clone(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| Failure::File { path: path.clone(), source })?;
        Ok(text.trim_start_matches("---\n").to_owned())
    };
    paths.iter().map(read).collect()
}

fn read(root: &Path, name: &str) -> Result<String, Failure> {
    let path = root.join(name);
    std::fs::read_to_string(&path).map_err(|source| Failure::File { path, source })
}
