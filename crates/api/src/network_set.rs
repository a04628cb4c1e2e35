//! `NetworkSet` and `GlobalNetworkSet`: addresses that policies find by labels.

use model::net::Cidr;
use model::network_set::NetworkSet as Model;

use crate::invalid::Fault;
use crate::object::kind;
use crate::policy::net;
use crate::wire::wire;
use crate::{Invalid, Object};

/// Labelled networks of one namespace.
pub type NetworkSet = Object<NetworkSetSpec>;

/// Labelled networks of the whole cluster.
pub type GlobalNetworkSet = Object<GlobalNetworkSetSpec>;

wire! {
    /// The spec of a [`NetworkSet`].
    pub struct NetworkSetSpec {
        /// The networks; a bare address is one of its own.
        nets: Option<Vec<String>> = "nets",
    }

    /// The spec of a [`GlobalNetworkSet`].
    pub struct GlobalNetworkSetSpec {
        /// The networks; a bare address is one of its own.
        nets: Option<Vec<String>> = "nets",
    }
}

kind! { NetworkSetSpec: "NetworkSet" "networksets" namespaced ["netsets"] }
kind! { GlobalNetworkSetSpec: "GlobalNetworkSet" "globalnetworksets" cluster ["gns"] }

impl TryFrom<&NetworkSet> for Model {
    type Error = Invalid;

    fn try_from(object: &NetworkSet) -> Result<Self, Invalid> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let mut labels = object.labels();
        labels.insert("projectcalico.org/namespace".to_owned(), namespace.clone());
        Ok(Self {
            namespace: Some(namespace),
            name: object.name().to_owned(),
            labels,
            nets: nets(object.spec.nets.as_deref()).map_err(|fault| object.faulty(fault))?,
        })
    }
}

impl TryFrom<&GlobalNetworkSet> for Model {
    type Error = Invalid;

    fn try_from(object: &GlobalNetworkSet) -> Result<Self, Invalid> {
        let mut labels = object.labels();
        // A global set is in no namespace, whatever its author writes.
        labels.remove("projectcalico.org/namespace");
        Ok(Self {
            namespace: None,
            name: object.name().to_owned(),
            labels,
            nets: nets(object.spec.nets.as_deref()).map_err(|fault| object.faulty(fault))?,
        })
    }
}

fn nets(texts: Option<&[String]>) -> Result<Vec<Cidr>, Fault> {
    let texts = texts.unwrap_or_default().iter().enumerate();
    texts.map(|(index, text)| net(&format!("nets[{index}]"), text)).collect()
}
