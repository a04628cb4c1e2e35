//! What an assignment depends on, read before it is asked for.
//!
//! Whoever has something else to read meanwhile saves a round trip. Nothing is refused for what was
//! read here, and nothing written that rests on it alone: see [`crate::surroundings`].

use ipam::{Assigned, View};
use model::id::NodeName;

use crate::surroundings::Surroundings;
use crate::{Age, Driver, Error, Order, assign};

/// What was read, and the driver that has read it.
#[derive(Debug)]
pub struct Ahead {
    driver: Driver,
    node: NodeName,
    namespace: Option<String>,
    found: (Surroundings, View),
}

impl Ahead {
    /// Reads it, for orders outside of VRFs; there is none if something is in the way, which the
    /// assignment will meet itself.
    pub async fn read(
        mut driver: Driver,
        node: &NodeName,
        namespace: Option<&str>,
    ) -> Option<Self> {
        let read = Surroundings::read(&mut driver, node, namespace, Age::Recent);
        let found = Box::pin(read).await.ok()?;
        let (node, namespace) = (node.clone(), namespace.map(str::to_owned));
        Some(Self { driver, node, namespace, found })
    }

    /// Was this read for such an order?
    #[must_use]
    pub fn is_for(&self, order: &Order) -> bool {
        order.vrf.is_none() && (&self.node, &self.namespace) == (&order.node, &order.namespace)
    }

    /// Does what [`crate::assign()`] does, for whoever knows that the cluster is ready.
    ///
    /// # Errors
    ///
    /// As [`crate::assign()`].
    pub async fn assign(mut self, order: &Order) -> Result<Vec<Assigned>, Error> {
        assign::assign_amid(&mut self.driver, order, self.found).await
    }
}
