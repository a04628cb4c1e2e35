//! The plugin's side: asks, if there is somebody to ask.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipam::Assigned;
use ledger::Order;
use model::id::{HandleId, NodeName};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tracing::debug;

use crate::facts::{Facts, Subject};
use crate::wire::{Answer, FileId, GREETING, MAX_LINE, Question, Request};

/// How long to wait for an address, or for one to be given back: longer than the ledger gives itself
/// from when the request came, and shorter than the two minutes of a kubelet.
const WITHIN: Duration = Duration::from_secs(95);
/// How long to wait for what may be done by both sides at the same time.
const SOON: Duration = Duration::from_secs(20);

/// How long to wait for the greeting: a calico-node that hangs must not hold pods up.
const GREETED_WITHIN: Duration = Duration::from_secs(5);

/// calico-node is busy with an assignment, and may be done with it at any time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "calico-node has not assigned an address within {} s: look at its log, and at the load of the \
     API server and etcd",
    WITHIN.as_secs()
)]
pub struct Busy;

/// How a question went.
enum Asked {
    Answered(Answer),
    /// Nobody is busy with it: whoever asked does the work.
    Left,
    /// Somebody is.
    Busy,
}

/// A conversation with calico-node.
///
/// Every question may stay without an answer, and then whoever asked does the work, but for an
/// assignment that calico-node is [`Busy`] with.
#[derive(Debug)]
pub struct Service {
    socket: PathBuf,
    /// `None` once it has failed, or a question was given up.
    stream: Mutex<Option<BufStream<UnixStream>>>,
    credentials: FileId,
    node: NodeName,
    answers: AtomicU64,
}

impl Service {
    /// Opens the conversation, if somebody listens at `socket`; `kubeconfig` is what the plugin
    /// would use otherwise.
    pub async fn open(socket: &Path, kubeconfig: &Path, node: &NodeName) -> Option<Self> {
        let credentials = FileId::of(kubeconfig).ok()?;
        let stream = Mutex::new(Some(greeted(socket).await?));
        let (socket, node, answers) = (socket.to_owned(), node.clone(), AtomicU64::new(0));
        Some(Self { socket, stream, credentials, node, answers })
    }

    /// Returns how many questions were answered with success.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Reads what is known of a container.
    pub async fn read(&self, subject: Subject) -> Option<Facts> {
        match self.ask(Request::Read(subject)).await? {
            Answer::Facts(facts) => Some(*facts),
            Answer::Assigned(_) | Answer::Done | Answer::Failed(_) => None,
        }
    }

    /// Assigns all that `order` wants.
    ///
    /// Without an answer it may have been done: whoever does it again, with the same handle, gets
    /// the same addresses.
    ///
    /// # Errors
    ///
    /// [`Busy`]: it must not be done again now. calico-node gives back what it cannot tell, and would
    /// take the same addresses from whoever had got them meanwhile.
    pub async fn assign(&self, order: &Order) -> Result<Option<Vec<Assigned>>, Busy> {
        let texts = match self.talk(Request::Assign(order.into())).await {
            Asked::Answered(Answer::Assigned(texts)) => texts,
            Asked::Answered(_) | Asked::Left => return Ok(None),
            Asked::Busy => return Err(Busy),
        };
        let assigned: Result<Vec<Assigned>, _> = texts.iter().map(Assigned::try_from).collect();
        Ok(assigned.ok().filter(|assigned| assigned.len() == order.wanted.len()))
    }

    /// Gives back all that is held by `handles`.
    ///
    /// It asks anew where a question was given up: calico-node may be busy with an assignment to one
    /// of them, and only calico-node knows when that is over.
    pub async fn release(&self, handles: &[HandleId]) -> Option<()> {
        let mut stream = self.stream.lock().await;
        if stream.is_none() {
            *stream = greeted(&self.socket).await;
        }
        drop(stream);
        let handles = handles.iter().map(|handle| handle.0.clone()).collect();
        self.is_done(Request::Release(handles)).await
    }

    /// Merges a patch into the status of a pod.
    pub async fn annotate(&self, (namespace, name): (&str, &str), patch: &Value) -> Option<()> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.is_done(Request::Annotate { namespace, name, patch: patch.clone() }).await
    }

    async fn is_done(&self, request: Request) -> Option<()> {
        match self.ask(request).await? {
            Answer::Done => Some(()),
            Answer::Facts(_) | Answer::Assigned(_) | Answer::Failed(_) => None,
        }
    }

    async fn ask(&self, request: Request) -> Option<Answer> {
        match self.talk(request).await {
            Asked::Answered(answer) => Some(answer),
            Asked::Left | Asked::Busy => None,
        }
    }

    async fn talk(&self, request: Request) -> Asked {
        let within = match &request {
            Request::Assign(_) | Request::Release(_) => WITHIN,
            Request::Read(_) | Request::Annotate { .. } => SOON,
        };
        let (node, credentials) = (self.node.to_string(), self.credentials);
        let question = Question { node, credentials, request };
        let Ok(mut line) = serde_json::to_vec(&question) else { return Asked::Left };
        line.push(b'\n');
        let mut place = self.stream.lock().await;
        // Taken out: a question that was given up leaves nothing that looks like an answer.
        let Some(mut stream) = place.take() else { return Asked::Left };
        let talked = tokio::time::timeout(within, talk(&mut stream, &line)).await;
        match talked {
            Ok(Ok(answer)) => {
                *place = Some(stream);
                if let Answer::Failed(reason) = &answer {
                    debug!(reason, "calico-node has not done it");
                } else {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                }
                Asked::Answered(answer)
            }
            Ok(Err(error)) => {
                debug!(%error, "calico-node does not answer");
                Asked::Left
            }
            Err(_) => {
                debug!("calico-node does not answer in time");
                Asked::Busy
            }
        }
    }
}

/// Connects, and waits for the greeting.
async fn greeted(socket: &Path) -> Option<BufStream<UnixStream>> {
    let mut stream = BufStream::new(UnixStream::connect(socket).await.ok()?);
    let mut greeting = [0; GREETING.len()];
    let greeted = tokio::time::timeout(GREETED_WITHIN, stream.read_exact(&mut greeting));
    if !matches!(greeted.await, Ok(Ok(_))) || greeting != GREETING {
        debug!("calico-node does not greet");
        return None;
    }
    Some(stream)
}

async fn talk(stream: &mut BufStream<UnixStream>, line: &[u8]) -> std::io::Result<Answer> {
    stream.write_all(line).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut answer).await?;
    serde_json::from_slice(&answer).map_err(std::io::Error::other)
}
