//! Reads that many want at the same time, sent once.
//!
//! Whoever asks while the same read is under way gets the answer of the next one, which all who
//! have come meanwhile share. So no answer is older than its question, and however many ask, the
//! server answers one after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, Target};
use crate::request::{self, Built, Effect};
use crate::transport::Shared;

/// What was read, for all who have asked.
type Answer = Result<Arc<[u8]>, Error>;

/// The reads under way, by path and query, with those who wait for the next of each.
#[derive(Debug, Default)]
pub(crate) struct JointReads {
    waiting: Mutex<BTreeMap<String, Vec<oneshot::Sender<Answer>>>>,
}

impl JointReads {
    /// Returns an answer to `request` that is not older than this call.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        transport: &Shared,
        target: &Target,
        request: Built,
    ) -> Answer {
        let Ok(built) = &request else {
            return request::answer(transport, target, request, Effect::Read).await.map(Arc::from);
        };
        let key = built.uri().to_string();
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.lock();
            let is_first = !waiting.contains_key(&key);
            waiting.entry(key.clone()).or_default().push(sender);
            is_first
        };
        if is_first {
            // A task of its own: it serves others too, whatever becomes of who has started it.
            let (joint, transport, target) = (Arc::clone(self), transport.clone(), target.clone());
            let built = built.clone();
            tokio::spawn(async move {
                while let Some(askers) = joint.next(&key) {
                    let request = Ok(built.clone());
                    let read = request::answer(&transport, &target, request, Effect::Read).await;
                    let read = read.map(Arc::<[u8]>::from);
                    for asker in askers {
                        // Whoever has given up misses nothing.
                        let _ = asker.send(read.clone());
                    }
                }
            });
        }
        answer.await.unwrap_or_else(|_| {
            let problem = "the program is ending".to_owned();
            Err(Error::LostResponse { target: Box::new(target.clone()), problem })
        })
    }

    /// Returns who has asked until now; the read is over when there is nobody.
    fn next(&self, key: &str) -> Option<Vec<oneshot::Sender<Answer>>> {
        let mut waiting = self.lock();
        let askers = waiting.get_mut(key).map(std::mem::take).unwrap_or_default();
        if askers.is_empty() {
            waiting.remove(key);
            return None;
        }
        Some(askers)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
