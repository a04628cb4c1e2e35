//! Control groups of a lab: they outlive its processes, so they are removed by name.

use std::path::{Path, PathBuf};

/// Where the hierarchies are mounted (cgroups(7)).
const HIERARCHIES: &str = "/sys/fs/cgroup";

/// Returns the name of the groups of the lab with a directory, as kubelet wants it: absolute.
pub(crate) fn of(dir: &Path) -> String {
    format!("/{}", dir.file_name().unwrap_or_default().to_string_lossy())
}

/// Makes a group in every hierarchy: kubelet wants its root to be there.
pub(crate) fn make(name: &str) {
    let name = name.trim_start_matches('/');
    for hierarchy in hierarchies() {
        // Where it cannot be made, kubelet says so.
        drop(std::fs::create_dir_all(hierarchy.join(name)));
        delegate(&hierarchy, Path::new(name));
    }
}

/// Has a group and those above it pass on their controllers, which version 2 wants to be told and
/// kubelet wants to find.
fn delegate(hierarchy: &Path, name: &Path) {
    let above: Vec<&Path> = name.ancestors().collect();
    for group in above.into_iter().rev().map(|name| hierarchy.join(name)) {
        let found = std::fs::read_to_string(group.join("cgroup.controllers"));
        for controller in found.unwrap_or_default().split_whitespace() {
            // Each on its own: one that cannot be passed on must not keep the others.
            drop(std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")));
        }
    }
}

/// Removes a group and those in it from every hierarchy, as far as nobody is left in them; returns
/// whether all are gone.
pub(crate) fn remove(name: &str) -> bool {
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        return true;
    }
    let groups = hierarchies().into_iter().map(|hierarchy| hierarchy.join(name));
    let mut is_gone = true;
    for group in groups {
        remove_tree(&group);
        is_gone &= !group.exists();
    }
    is_gone
}

/// Returns the hierarchies: one per controller (version 1), or the one of all (version 2).
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(HIERARCHIES);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(HIERARCHIES).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The files of a group cannot be deleted, and go with its directory.
fn remove_tree(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // What is still in use stays, and the next lab tries again.
    drop(std::fs::remove_dir(group));
}
