//! The socket on which calls of the CNI plugin have their work at the datastore done.
//!
//! It is done with the plugin's own token, and for those only who would use the same: the file that
//! calico-node keeps it in is theirs, and as calico-node left it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datastore::{Client, Inline, Options, Source};
use futures::FutureExt as _;
use ledger::Ahead;
use model::id::NodeName;
use secrecy::{ExposeSecret as _, SecretString};
use telemetry::metrics::{Counters, Registry};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream, Interest, Ready,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::{Asker, Server, Told};
use crate::wire::{Answer, FileId, GREETING, MAX_LINE, Question};

/// How many may talk at a time; a kubelet runs 110 pods. Others are not greeted, and go on alone.
const MAX_CLIENTS: usize = 256;
/// How long to wait when nobody can be let in.
const PAUSE: Duration = Duration::from_millis(100);
/// How long somebody may say nothing between two questions: as long as a kubelet waits for a call.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The plugin's credentials: where they are, and what is written there once there are any.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The kubeconfig.
    pub path: PathBuf,
    /// What is written there.
    pub text: watch::Receiver<Option<SecretString>>,
    /// Says whether a file is there, with this text, and for nobody else to read.
    pub is_in_place: fn(&Path, &SecretString) -> bool,
}

/// What all conversations share.
struct Shared {
    node: NodeName,
    path: PathBuf,
    is_in_place: fn(&Path, &SecretString) -> bool,
    server: Server,
    counters: Counters,
}

/// What is done as the plugin, for as long as its token is the same.
#[derive(Clone)]
struct Identity {
    text: SecretString,
    client: Client,
}

/// Answers plugins of this node for as long as there is somebody who keeps the credentials.
///
/// What is done is counted in `registry`.
pub async fn run(
    listener: UnixListener,
    node: NodeName,
    credentials: Credentials,
    registry: &Registry,
) {
    let Credentials { path, mut text, is_in_place } = credentials;
    let counters = registry.counters(
        "calico_cni_service_requests",
        "Requests of the CNI plugin that calico-node was asked to carry out, by what came of it.",
    );
    let server = Server::default();
    let shared = Arc::new(Shared { node, path, is_in_place, server, counters });
    let mut identity = identity_of(&mut text);
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => {
                match (accepted, &identity) {
                    (Ok((stream, _)), Some(identity)) => {
                        clients.spawn(converse(stream, Arc::clone(&shared), identity.clone()));
                    }
                    (Ok(_), None) => {}
                    // Such as too many open files, which would be so again at once.
                    (Err(error), _) => {
                        tracing::debug!(%error, "a plugin is not served");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Some(_) = clients.join_next() => {}
            changed = text.changed() => {
                if changed.is_err() {
                    return;
                }
                identity = identity_of(&mut text);
            }
        }
    }
}

/// Opens a connection with the credentials that there are now.
fn identity_of(text: &mut watch::Receiver<Option<SecretString>>) -> Option<Identity> {
    let text = text.borrow_and_update().clone()?;
    let source = Source::Inline(Inline::new(text.expose_secret()));
    let user_agent = concat!("calico-cni/", env!("CARGO_PKG_VERSION"), " (calico-node)").to_owned();
    match Client::connect(&Options { source, user_agent, ..Options::default() }) {
        Ok(client) => Some(Identity { text, client: client.with_joint_reads() }),
        Err(error) => {
            tracing::warn!(%error, "plugins talk to the API server themselves");
            None
        }
    }
}

/// Answers until the plugin goes.
async fn converse(stream: UnixStream, shared: Arc<Shared>, identity: Identity) {
    let mut stream = BufStream::new(stream);
    if write(&mut stream, GREETING).await.is_err() {
        return;
    }
    let mut ahead = None;
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut stream).take(MAX_LINE);
        let read = tokio::time::timeout(TIMEOUT, limited.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(_))) || !line.ends_with(b"\n") {
            return;
        }
        let Ok(question) = serde_json::from_slice::<Question>(&line) else { return };
        let told = shared.answer(&identity, question, (stream.get_ref(), &mut ahead)).await;
        let telling = tokio::time::timeout(TIMEOUT, tell(&mut stream, &told.answer)).await;
        let is_told = matches!(telling, Ok(Ok(())));
        shared.server.settle(&identity.client, told, is_told).await;
        if !is_told {
            return;
        }
    }
}

/// Has the other side hung up, or ended its questions?
fn has_gone(stream: &UnixStream) -> bool {
    let ready = stream.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.map_or(true, Ready::is_read_closed))
}

impl Shared {
    async fn answer(
        &self,
        identity: &Identity,
        question: Question,
        (stream, ahead): (&UnixStream, &mut Option<Ahead>),
    ) -> Told<'_> {
        let request = question.request.name();
        let told = if let Some(reason) = self.refusal(identity, &question) {
            Told::failed(reason)
        } else if has_gone(stream) {
            Told::failed("the plugin has hung up")
        } else {
            let has_gone = || has_gone(stream);
            let asker = Asker { client: &identity.client, node: &self.node, has_gone: &has_gone };
            self.server.answer(asker, question.request, ahead).await
        };
        let outcome = match &told.answer {
            Answer::Failed(reason) => {
                tracing::debug!(request, reason, "the CNI plugin is to do it itself");
                "failed"
            }
            Answer::Facts(_) | Answer::Assigned(_) | Answer::Done => "done",
        };
        let labels = vec![("request", request.to_owned()), ("outcome", outcome.to_owned())];
        self.counters.get_or_create(&labels).inc();
        told
    }

    /// Returns why nothing is done for this plugin.
    fn refusal(&self, identity: &Identity, question: &Question) -> Option<&'static str> {
        if question.node != self.node.as_str() {
            return Some("it takes this node for another one");
        }
        if FileId::of(&self.path).ok() != Some(question.credentials) {
            return Some("its credentials are not those that calico-node keeps");
        }
        let is_in_place = (self.is_in_place)(&self.path, &identity.text);
        (!is_in_place).then_some("its credentials are not as calico-node wrote them")
    }
}

async fn tell(stream: &mut BufStream<UnixStream>, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(std::io::Error::other)?;
    line.push(b'\n');
    write(stream, &line).await
}

async fn write(stream: &mut BufStream<UnixStream>, line: &[u8]) -> std::io::Result<()> {
    stream.write_all(line).await?;
    stream.flush().await
}
