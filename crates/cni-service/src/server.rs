//! calico-node's side: carries requests out.

use datastore::Client;
use ledger::{Ahead, Desk, Driver, Order};
use model::id::{HandleId, NodeName};
use tracing::{info, warn};

use crate::facts::{self, Subject};
use crate::handles::{Handles, Held};
use crate::wire::{Answer, AssignedText, Request};

/// Carries requests out, those of many plugins together.
#[derive(Debug, Default)]
pub struct Server {
    desk: Desk,
    handles: Handles,
}

/// Somebody who asks.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The connection to the API server, which should join reads ([`Client::with_joint_reads`]).
    pub client: &'a Client,
    /// This node.
    pub node: &'a NodeName,
    /// Has the plugin hung up? For who is not there any more nothing is begun.
    pub has_gone: &'a (dyn Fn() -> bool + Sync),
}

/// What came of a request, until it is told.
pub struct Told<'a> {
    /// What to tell.
    pub answer: Answer,
    held: Option<(Held<'a>, HandleId)>,
}

/// What cannot be done; whoever asked tries it and tells what is wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Invalid(#[from] crate::wire::Invalid),
    #[error("the plugin has hung up")]
    Gone,
    #[error("the plugin takes this node for {0}")]
    OtherNode(NodeName),
    #[error("that is no patch of what the plugin writes")]
    OddPatch,
}

impl Told<'_> {
    /// Nothing was done, for this reason.
    pub(crate) fn failed(reason: &str) -> Self {
        Self { answer: Answer::Failed(reason.to_owned()), held: None }
    }
}

impl Server {
    /// Carries a request out. What one request reads for the next is kept in `ahead`.
    ///
    /// What is returned must be given to [`Server::settle`] when it was told, or could not be.
    pub async fn answer(
        &self,
        asker: Asker<'_>,
        request: Request,
        ahead: &mut Option<Ahead>,
    ) -> Told<'_> {
        let (answer, held) = match request {
            Request::Read(subject) => (self.read(asker, subject, ahead).await, None),
            Request::Assign(order) => match Order::try_from(order) {
                Ok(order) => {
                    let held = self.handles.hold([order.handle.0.clone()]).await;
                    let assigned = Box::pin(self.assign(asker, &order, ahead.take())).await;
                    // Where nothing was begun, what the handle has is of an earlier call.
                    let is_begun = !matches!(assigned, Err(Failure::Gone | Failure::OtherNode(_)));
                    (assigned, is_begun.then_some((held, order.handle)))
                }
                Err(invalid) => (Err(invalid.into()), None),
            },
            Request::Release(handles) => {
                let _alone = self.handles.hold(handles.iter().cloned()).await;
                let handles: Vec<HandleId> = handles.into_iter().map(HandleId).collect();
                (Box::pin(self.release(asker.client, &handles)).await, None)
            }
            Request::Annotate { namespace, name, patch } => {
                let _alone = self.handles.hold([key_of(&namespace, &name)]).await;
                (annotate(asker, (&namespace, &name), &patch).await, None)
            }
        };
        let answer = answer.unwrap_or_else(|failure| Answer::Failed(failure.to_string()));
        Told { answer, held }
    }

    /// Ends a request: what was assigned and could not be told is given back, before anybody else is
    /// busy with that handle.
    pub async fn settle(&self, client: &Client, told: Told<'_>, is_told: bool) {
        let Some((held, handle)) = told.held.filter(|_| !is_told) else { return };
        match Box::pin(self.release(client, std::slice::from_ref(&handle))).await {
            Ok(_) => info!(%handle, "took addresses back: the plugin did not wait for them"),
            Err(error) => {
                warn!(%handle, %error, "cannot take addresses back; garbage collection will");
            }
        }
        drop(held);
    }

    async fn read(
        &self,
        asker: Asker<'_>,
        subject: Subject,
        ahead: &mut Option<Ahead>,
    ) -> Result<Answer, Failure> {
        // A DEL looks for what an ADD before it is still writing.
        let _alone = match &subject.pod {
            Some((namespace, name)) if !subject.gets_addrs => {
                Some(self.handles.hold([key_of(namespace, name)]).await)
            }
            Some(_) | None => None,
        };
        let read = facts::read(asker.client, &subject);
        let (facts, found) = futures::join!(read, Box::pin(self.read_ahead(asker, &subject)));
        *ahead = found;
        Ok(Answer::Facts(Box::new(facts?)))
    }

    /// Reads what addresses outside of VRFs depend on, if some are to be assigned; there is nothing
    /// if something is in the way, which the assignment will meet itself.
    async fn read_ahead(&self, asker: Asker<'_>, subject: &Subject) -> Option<Ahead> {
        if !subject.gets_addrs {
            return None;
        }
        Ahead::read(self.driver(asker.client), asker.node, subject.namespace.as_deref()).await
    }

    async fn assign(
        &self,
        asker: Asker<'_>,
        order: &Order,
        ahead: Option<Ahead>,
    ) -> Result<Answer, Failure> {
        if order.node != *asker.node {
            return Err(Failure::OtherNode(order.node.clone()));
        }
        if (asker.has_gone)() {
            return Err(Failure::Gone);
        }
        let assigned = match ahead.filter(|ahead| ahead.is_for(order)) {
            Some(ahead) => Box::pin(ahead.assign(order)).await?,
            None => Box::pin(ledger::assign(&mut self.driver(asker.client), order)).await?,
        };
        Ok(Answer::Assigned(assigned.iter().map(AssignedText::from).collect()))
    }

    async fn release(&self, client: &Client, handles: &[HandleId]) -> Result<Answer, Failure> {
        ledger::release(&mut self.driver(client), handles).await?;
        Ok(Answer::Done)
    }

    fn driver(&self, client: &Client) -> Driver {
        Driver::at_desk(client.clone(), self.desk.clone())
    }
}

async fn annotate(
    asker: Asker<'_>,
    pod: (&str, &str),
    patch: &serde_json::Value,
) -> Result<Answer, Failure> {
    if !facts::is_ours(patch) {
        return Err(Failure::OddPatch);
    }
    // A DEL of the same container may have been done meanwhile.
    if (asker.has_gone)() {
        return Err(Failure::Gone);
    }
    facts::annotate(asker.client, pod, patch).await?;
    Ok(Answer::Done)
}

/// Returns what a pod is held by, beside handles, which have no slash.
fn key_of(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
