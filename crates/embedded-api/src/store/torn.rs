//! Logs that a power cut tore: the store opens as it was after some write, never in between.

use std::fs;
use std::path::Path;

use super::tests::{Place, all, put};
use super::*;

const WRITES: u64 = 20;

/// Returns the file and its log, after some writes that only the log has.
async fn written(place: &Place) -> (Vec<u8>, Vec<u8>) {
    let store = place.open();
    for number in 0..WRITES {
        put(&store, &format!("a/{number:02}"), number).await;
    }
    (fs::read(place.path()).unwrap(), fs::read(log(&place.path())).unwrap())
}

fn log(path: &Path) -> std::path::PathBuf {
    path.with_extension("db-wal")
}

/// Opens a store that consists of these bytes, and returns how many writes it has.
async fn opened(file: &[u8], torn: &[u8]) -> u64 {
    let place = Place::new();
    fs::write(place.path(), file).unwrap();
    fs::write(log(&place.path()), torn).unwrap();
    let store = place.open();
    let page = store.read(|s| s.page(&all(), None, None, None)).await.unwrap();
    let revisions: Vec<Revision> = page.entries.iter().map(|entry| entry.revision).collect();
    assert_eq!(revisions, (2..=store.revision()).collect::<Vec<_>>());
    assert_eq!(check(&place.path()).unwrap(), store.revision());
    put(&store, "a/next", 1).await;
    store.revision() - 2
}

#[tokio::test]
async fn a_log_that_ends_early_is_a_shorter_history() {
    let (file, log) = written(&Place::new()).await;
    assert_eq!(opened(&file, &log).await, WRITES);
    let mut last = 0;
    for end in (0..log.len()).step_by(6007) {
        let writes = opened(&file, &log[..end]).await;
        assert!(writes >= last, "{writes} after {last}");
        last = writes;
    }
    assert!(last > WRITES / 2, "{last}");
}

#[tokio::test]
async fn a_log_with_a_wrong_bit_ends_before_it() {
    let (file, log) = written(&Place::new()).await;
    for at in (40..log.len()).step_by(9001) {
        let mut wrong = log.clone();
        wrong[at] ^= 1;
        let writes = opened(&file, &wrong).await;
        assert!(writes < WRITES || at + 8192 > log.len(), "{writes} with a wrong bit at {at}");
    }
}
