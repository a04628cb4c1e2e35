//! Network sets: addresses outside the cluster that policies find by labels.

use crate::Labels;
use crate::net::Cidr;

/// Labelled networks (`NetworkSet` and `GlobalNetworkSet`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetworkSet {
    /// The namespace; `None` for a global one.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// Its labels, with the namespace's name among them.
    pub labels: Labels,
    /// The networks.
    pub nets: Vec<Cidr>,
}
