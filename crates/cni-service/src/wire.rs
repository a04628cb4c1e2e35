//! Questions and answers: one line of JSON each, in turns, after a greeting of calico-node's.
//!
//! Who does not understand a line ends the conversation; versions may differ, since nobody depends
//! on an answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ipam::{Assigned, PoolReference, Selectors};
use ledger::{Order, Wanted};
use model::id::HandleId;
use model::net::{Cidr, Family};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::{Facts, Subject};

/// The longest line, in bytes; objects of the API have up to 1.5 MiB.
pub const MAX_LINE: u64 = 4 << 20;

/// What calico-node says first, so that the plugin sees that it is alive.
pub const GREETING: &[u8] = b"calico-node\n";

/// What a plugin wants.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Question {
    /// The node that the plugin takes this one for.
    pub node: String,
    /// The plugin's credentials.
    pub credentials: FileId,
    /// What to do.
    pub request: Request,
}

/// A file, whatever path leads to it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileId {
    /// The device that it is on.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

impl FileId {
    /// Returns the identity of the file at `path`.
    ///
    /// # Errors
    ///
    /// As [`std::fs::metadata`].
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }
}

/// What to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Read what is known of a container. Answer: [`Answer::Facts`].
    Read(Subject),
    /// Assign all addresses that a container wants, or none. Answer: [`Answer::Assigned`].
    Assign(OrderText),
    /// Give back all that is held by these handles. Answer: [`Answer::Done`].
    Release(Vec<String>),
    /// Merge a patch into the status of a pod. Answer: [`Answer::Done`].
    Annotate {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// A strategic merge patch.
        patch: Value,
    },
}

impl Request {
    /// Returns what is wanted, in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Assign(_) => "assign",
            Self::Release(_) => "release",
            Self::Annotate { .. } => "annotate",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was read.
    Facts(Box<Facts>),
    /// The addresses, in the order of the wishes.
    Assigned(Vec<AssignedText>),
    /// It is done.
    Done,
    /// It is not done, or not as a whole: whoever asked should do it.
    Failed(String),
}

/// An [`Order`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct OrderText {
    node: String,
    namespace: Option<String>,
    vrf: Option<String>,
    handle: String,
    owner: BTreeMap<String, String>,
    wanted: Vec<WantedText>,
    honours_selectors: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum WantedText {
    /// Any of IPv4, from these pools if there are any.
    AnyV4(Vec<String>),
    /// Any of IPv6.
    AnyV6(Vec<String>),
    This(IpAddr),
}

/// An [`Assigned`] address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AssignedText {
    addr: IpAddr,
    block: String,
}

/// A line that says something impossible.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} `{value}` cannot be read")]
pub struct Invalid {
    what: &'static str,
    value: String,
}

impl From<&Order> for OrderText {
    fn from(order: &Order) -> Self {
        let names = |pools: &[PoolReference]| pools.iter().map(ToString::to_string).collect();
        let wanted = |wanted: &Wanted| match wanted {
            Wanted::Any(Family::V4, pools) => WantedText::AnyV4(names(pools)),
            Wanted::Any(Family::V6, pools) => WantedText::AnyV6(names(pools)),
            Wanted::This(addr) => WantedText::This(*addr),
        };
        Self {
            node: order.node.to_string(),
            namespace: order.namespace.clone(),
            vrf: order.vrf.as_ref().map(ToString::to_string),
            handle: order.handle.0.clone(),
            owner: order.owner.clone(),
            wanted: order.wanted.iter().map(wanted).collect(),
            honours_selectors: order.selectors == Selectors::Honoured,
        }
    }
}

impl TryFrom<OrderText> for Order {
    type Error = Invalid;

    fn try_from(text: OrderText) -> Result<Self, Invalid> {
        let pools = |names: Vec<String>| {
            names.iter().map(|name| PoolReference::parse(name)).collect::<Vec<_>>()
        };
        let wanted = |wanted| match wanted {
            WantedText::AnyV4(names) => Wanted::Any(Family::V4, pools(names)),
            WantedText::AnyV6(names) => Wanted::Any(Family::V6, pools(names)),
            WantedText::This(addr) => Wanted::This(addr),
        };
        Ok(Self {
            node: parse("node", &text.node)?,
            namespace: text.namespace,
            vrf: text.vrf.as_deref().map(|vrf| parse("VRF", vrf)).transpose()?,
            handle: HandleId(text.handle),
            owner: text.owner,
            wanted: text.wanted.into_iter().map(wanted).collect(),
            selectors: if text.honours_selectors {
                Selectors::Honoured
            } else {
                Selectors::OfRequestedIgnored
            },
        })
    }
}

impl From<&Assigned> for AssignedText {
    fn from(assigned: &Assigned) -> Self {
        Self { addr: assigned.addr, block: assigned.block.to_string() }
    }
}

impl TryFrom<&AssignedText> for Assigned {
    type Error = Invalid;

    fn try_from(text: &AssignedText) -> Result<Self, Invalid> {
        let block: Cidr = parse("block", &text.block)?;
        if !block.contains(text.addr) {
            return Err(Invalid { what: "address", value: text.addr.to_string() });
        }
        Ok(Self { addr: text.addr, block })
    }
}

fn parse<T: std::str::FromStr>(what: &'static str, value: &str) -> Result<T, Invalid> {
    value.parse().map_err(|_| Invalid { what, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            node: "node-1".parse().unwrap(),
            namespace: Some("shop".to_owned()),
            vrf: Some("red".parse().unwrap()),
            handle: HandleId("k8s-pod-network.3F".to_owned()),
            owner: BTreeMap::from([("pod".to_owned(), "cart-1".to_owned())]),
            wanted: vec![
                Wanted::Any(
                    Family::V4,
                    vec![PoolReference::parse("blue"), PoolReference::parse("10.0.0.0/16")],
                ),
                Wanted::Any(Family::V6, Vec::new()),
                Wanted::This("10.0.0.7".parse().unwrap()),
            ],
            selectors: Selectors::Honoured,
        }
    }

    #[test]
    fn an_order_arrives_as_it_was_sent() {
        for order in [
            order(),
            Order { namespace: None, vrf: None, wanted: Vec::new(), ..order() },
            Order { selectors: Selectors::OfRequestedIgnored, ..order() },
        ] {
            let line = serde_json::to_string(&Request::Assign((&order).into())).unwrap();
            assert!(!line.contains('\n'), "{line}");
            let Request::Assign(text) = serde_json::from_str(&line).unwrap() else {
                panic!("{line}");
            };
            assert_eq!(Order::try_from(text), Ok(order));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut text = OrderText::from(&order());
        text.node = "no node".to_owned();
        assert_eq!(Order::try_from(text).unwrap_err().to_string(), "node `no node` cannot be read");
        let outside =
            AssignedText { addr: "10.0.1.1".parse().unwrap(), block: "10.0.0.0/26".to_owned() };
        assert_eq!(
            Assigned::try_from(&outside).unwrap_err().to_string(),
            "address `10.0.1.1` cannot be read"
        );
    }
}
