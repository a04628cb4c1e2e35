//! calico-node's side: carries requests out.

use datastore::Client;
use ipam::{Assigned, View};
use ledger::surroundings::Surroundings;
use ledger::{Age, Desk, Driver, Order};
use model::id::{HandleId, NodeName};
use tracing::{info, warn};

use crate::facts::{self, Subject};
use crate::handles::Handles;
use crate::wire::{Answer, AssignedText, OrderText, Request};

/// Carries requests out, those of many plugins together.
#[derive(Debug, Default)]
pub struct Server {
    desk: Desk,
    handles: Handles,
}

/// What an assignment depends on, read before it is asked for.
///
/// Nothing is refused for what was read here, and nothing written that rests on it alone: see
/// [`ledger::surroundings`].
#[derive(Debug)]
pub struct Ahead {
    driver: Driver,
    namespace: Option<String>,
    found: (Surroundings, View),
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
}

impl Server {
    /// Carries a request of a plugin on `node` out; `client` should join reads
    /// ([`Client::with_joint_reads`]). What one request reads for the next is kept in `ahead`.
    pub async fn answer(
        &self,
        (client, node): (&Client, &NodeName),
        request: Request,
        ahead: &mut Option<Ahead>,
    ) -> Answer {
        let answer = match request {
            Request::Read(subject) => {
                let read_ahead = self.read_ahead((client, node), &subject);
                let read = futures::join!(facts::read(client, &subject), Box::pin(read_ahead));
                *ahead = read.1;
                read.0.map(|facts| Answer::Facts(Box::new(facts))).map_err(Failure::from)
            }
            Request::Assign(order) => Box::pin(self.assign(client, order, ahead.take())).await,
            Request::Release(handles) => Box::pin(self.release(client, handles)).await,
            Request::Annotate { namespace, name, patch } => {
                let annotated = facts::annotate(client, (&namespace, &name), &patch).await;
                annotated.map(|()| Answer::Done).map_err(Failure::from)
            }
        };
        answer.unwrap_or_else(|failure| Answer::Failed(failure.to_string()))
    }

    /// Gives back what was assigned to somebody who does not take the answer any more.
    pub async fn take_back(&self, client: &Client, handle: &str) {
        match Box::pin(self.release(client, vec![handle.to_owned()])).await {
            Ok(_) => info!(handle, "took addresses back: the plugin did not wait for them"),
            Err(error) => warn!(handle, %error, "cannot take addresses back; DEL will"),
        }
    }

    /// Reads what addresses outside of VRFs depend on, if some are to be assigned; there is nothing
    /// if something is in the way, which the assignment will meet itself.
    async fn read_ahead(
        &self,
        (client, node): (&Client, &NodeName),
        subject: &Subject,
    ) -> Option<Ahead> {
        if !subject.gets_addrs {
            return None;
        }
        let mut driver = Driver::at_desk(client.clone(), self.desk.clone());
        let namespace = subject.namespace.clone();
        let read = Surroundings::read(&mut driver, node, namespace.as_deref(), Age::Recent);
        let found = Box::pin(read).await.ok()?;
        Some(Ahead { driver, namespace, found })
    }

    async fn assign(
        &self,
        client: &Client,
        text: OrderText,
        ahead: Option<Ahead>,
    ) -> Result<Answer, Failure> {
        let order = Order::try_from(text)?;
        let _alone = self.handles.hold([order.handle.0.clone()]).await;
        let rests_on = |ahead: &Ahead| order.vrf.is_none() && ahead.namespace == order.namespace;
        let assigned: Vec<Assigned> = if let Some(ahead) = ahead.filter(rests_on) {
            let Ahead { mut driver, found, .. } = ahead;
            Box::pin(ledger::assign_amid(&mut driver, &order, found)).await?
        } else {
            let mut driver = Driver::at_desk(client.clone(), self.desk.clone());
            Box::pin(ledger::assign(&mut driver, &order)).await?
        };
        Ok(Answer::Assigned(assigned.iter().map(AssignedText::from).collect()))
    }

    async fn release(&self, client: &Client, handles: Vec<String>) -> Result<Answer, Failure> {
        let _alone = self.handles.hold(handles.iter().cloned()).await;
        let handles: Vec<HandleId> = handles.into_iter().map(HandleId).collect();
        let mut driver = Driver::at_desk(client.clone(), self.desk.clone());
        ledger::release(&mut driver, &handles).await?;
        Ok(Answer::Done)
    }
}
