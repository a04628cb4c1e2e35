//! One at a time for each handle: a release must not overtake the assignment that it is to undo.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

/// The handles that somebody is busy with, or waits for.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    queues: Mutex<BTreeMap<String, Arc<Queue<()>>>>,
}

/// The handles that are somebody's turn.
pub(crate) struct Held<'a> {
    handles: &'a Handles,
    guards: Vec<(String, OwnedMutexGuard<()>)>,
}

impl Handles {
    /// Waits until nobody is busy with any of these handles.
    pub(crate) async fn hold(&self, ids: impl IntoIterator<Item = String>) -> Held<'_> {
        // In one order for all, or two could wait for each other.
        let ids: std::collections::BTreeSet<String> = ids.into_iter().collect();
        let mut held = Held { handles: self, guards: Vec::new() };
        for id in ids {
            let queue = Arc::clone(self.lock().entry(id.clone()).or_default());
            held.guards.push((id, queue.lock_owned().await));
        }
        held
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Queue<()>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for (id, guard) in self.guards.drain(..) {
            let mut queues = self.handles.lock();
            drop(guard);
            // Who waits has it too, and nobody can come to it while the map is ours.
            if queues.get(&id).is_some_and(|queue| Arc::strong_count(queue) == 1) {
                queues.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[tokio::test]
    async fn who_wants_the_same_handle_waits_and_nobody_else_does() {
        let handles = Handles::default();
        let held = handles.hold(ids(&["b", "a"])).await;
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        assert!(tokio::time::timeout(short, handles.hold(ids(&["a", "c"]))).await.is_err());
        assert!(tokio::time::timeout(long, handles.hold(ids(&["c"]))).await.is_ok());
        drop(held);
        assert!(tokio::time::timeout(long, handles.hold(ids(&["a", "b"]))).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_handles_that_nobody_holds() {
        let handles = Handles::default();
        let held = handles.hold(ids(&["a", "b"])).await;
        assert_eq!(handles.lock().len(), 2);
        drop(held);
        assert_eq!(handles.lock().len(), 0);
    }
}
