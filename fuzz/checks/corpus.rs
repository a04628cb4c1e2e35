//! The files that a fuzzer began with and what it has found, in their order.

use std::path::{Path, PathBuf};

/// Reads the corpus of a fuzz target; fewer than `fewest` files mean that some were lost.
pub fn files(target: &str, fewest: usize) -> Vec<(PathBuf, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = here.ancestors().map(|dir| dir.join("fuzz/corpus").join(target));
    let dir = dir.into_iter().find(|dir| dir.is_dir()).unwrap();
    let mut paths: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= fewest, "{} has lost its files", dir.display());
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Checks every file of a corpus; the last words before a failure name the file.
pub fn replay(target: &str, fewest: usize, check: impl Fn(&[u8])) {
    for (path, bytes) in files(target, fewest) {
        eprintln!("{}", path.display());
        check(&bytes);
    }
}
