//! Questions that sets answer: whom does a selector match, who answers for a Service?

use std::fmt::Write as _;
use std::net::IpAddr;

use model::desired::policy::{SetId, SetKind, SetMember};
use model::id::NamespacedName;
use model::net::Cidr;
use model::policy::Protocol;
use model::service::EndpointSlice;
use selector::Selector;
use sha2::Digest as _;

/// What a set's members answer.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Question {
    /// Networks of the endpoints and network sets that this matches.
    Selected(Selector),
    /// Where the endpoints that this matches have a port of that name.
    NamedPort { selector: Selector, name: String, protocol: Protocol, reach: Reach },
    /// Networks of a Service's endpoints.
    ServiceAddrs(NamespacedName),
    /// Addresses and ports of a Service's endpoints.
    ServicePorts(NamespacedName),
}

/// Whose named ports are looked at.
///
/// The receiver of what comes to an endpoint, and the sender of what it sends,
/// is on its own node: there is no need to know of a port on all others, and to
/// hear of each of their pods.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reach {
    Node,
    Cluster,
}

impl Question {
    /// Returns the identity of the set that answers.
    pub(super) fn id(&self) -> SetId {
        let (kind, text) = match self {
            Self::Selected(selector) => (SetKind::Selected, selector.to_string()),
            Self::NamedPort { selector, name, protocol, reach } => {
                let mut text = format!("{reach:?},{},{name},", protocol.0);
                // Writing to a String cannot fail.
                let _ = write!(text, "{selector}");
                (SetKind::NamedPort, text)
            }
            Self::ServiceAddrs(service) => (SetKind::ServiceAddrs, service.to_string()),
            Self::ServicePorts(service) => (SetKind::ServicePorts, service.to_string()),
        };
        let hash = sha2::Sha256::digest(text);
        let mut digest = [0; 16];
        for (byte, hashed) in digest.iter_mut().zip(hash) {
            *byte = hashed;
        }
        SetId::new(kind, digest)
    }

    /// Returns the selector that it is about, if it is about one.
    pub(super) const fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Selected(selector) | Self::NamedPort { selector, .. } => Some(selector),
            Self::ServiceAddrs(_) | Self::ServicePorts(_) => None,
        }
    }

    /// Returns the Service that it is about, if it is about one.
    pub(super) const fn service(&self) -> Option<&NamespacedName> {
        match self {
            Self::Selected(_) | Self::NamedPort { .. } => None,
            Self::ServiceAddrs(service) | Self::ServicePorts(service) => Some(service),
        }
    }
}

/// Returns the name of the Service that a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<NamespacedName> {
    let namespace = slice.id.namespace.clone();
    slice.service.clone().map(|name| NamespacedName { namespace, name })
}

/// Returns what a slice of the Service adds to the set that answers `question`, of the addresses
/// that `is_meant`.
///
/// Endpoints that are not ready count: what they still send or get is theirs.
pub(super) fn members_of_slice(
    question: &Question,
    slice: &EndpointSlice,
    is_meant: impl Fn(IpAddr) -> bool,
) -> Vec<SetMember> {
    let addrs = || {
        let addrs = slice.endpoints.iter().flat_map(|endpoint| endpoint.addrs.iter().copied());
        addrs.filter(|addr| is_meant(*addr))
    };
    match question {
        Question::Selected(_) | Question::NamedPort { .. } => Vec::new(),
        Question::ServiceAddrs(_) => addrs().map(Cidr::host).map(SetMember::Net).collect(),
        Question::ServicePorts(_) => {
            // A slice may leave a port open ("any"); no set can say that, so that
            // nothing is allowed by it.
            let ports = slice.ports.iter().filter_map(|port| Some((port.protocol, port.port?)));
            ports
                .flat_map(|(protocol, port)| {
                    addrs().map(move |addr| SetMember::Port(addr, protocol, port))
                })
                .collect()
        }
    }
}
