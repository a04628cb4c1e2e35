//! Names of things in the cluster.

use std::fmt;
use std::str::FromStr;

/// The name of a node, which is a DNS subdomain (Kubernetes, "Object Names and IDs").
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeName(String);

/// Text that is no name of a Kubernetes object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no object name: use at most 253 lower-case letters, digits, `-` and `.`, \
     starting and ending with a letter or digit"
)]
pub struct InvalidName(pub String);

impl NodeName {
    /// Returns the name in whose place Services claim blocks: no machine's, but Calico's word for
    /// their virtual owner.
    #[must_use]
    pub fn load_balancer() -> Self {
        Self("load-balancer".to_owned())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if is_dns_subdomain(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Is `text` a DNS subdomain (RFC 1123), as the names of most objects must be?
#[must_use]
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
            label.bytes().all(is_inner)
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// A name within a namespace, such as a pod's.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Who holds addresses: the id of an IPAM handle, such as
/// `k8s-pod-network.<container id>`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HandleId(pub String);

impl HandleId {
    /// Returns the name of the handle's object: the id in lower case.
    #[must_use]
    pub fn object_name(&self) -> String {
        self.0.to_lowercase()
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_dns_subdomains() {
        for right in ["a", "node-1", "ip-10-0-0-1.eu.internal", "1.2"] {
            assert!(right.parse::<NodeName>().is_ok(), "{right}");
        }
        let long = "a".repeat(254);
        for wrong in ["", "Node", "-a", "a-", "a..b", ".a", "a_b", "a/b", long.as_str()] {
            assert!(wrong.parse::<NodeName>().is_err(), "{wrong}");
        }
    }
}
