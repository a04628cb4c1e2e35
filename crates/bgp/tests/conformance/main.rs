//! Conversations with one peer, replayed from `testdata/bgp`, each named after its section.
//!
//! A file is a transcript: what happens (`<`), how much time passes (`@`), and what
//! the speaker does (`>`). `UPDATE_GOLDEN=1` writes what it does now.

#![allow(clippy::arithmetic_side_effects)]

#[cfg(test)]
mod script;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test rewrites its own golden files when told to")]
fn the_speaker_behaves_as_recorded() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/bgp"));
    let is_update = std::env::var("UPDATE_GOLDEN").is_ok();
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() >= 75, "only {} transcripts in {}", paths.len(), folder.display());
    for path in paths {
        let recorded = std::fs::read_to_string(&path).unwrap();
        let replayed = script::replay(&recorded);
        if is_update {
            std::fs::write(&path, replayed).unwrap();
        } else {
            assert_eq!(replayed, recorded, "{}", path.display());
        }
    }
}
