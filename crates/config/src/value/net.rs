//! Addresses, interfaces, and where a node's own address comes from.

use std::net::{IpAddr, Ipv4Addr};

use model::id::NodeName;
use model::net::{Asn, Cidr, IfName, InterfaceAddr};
use selector::Selector;

use super::{Pattern, Setting};

/// Declares that a type is read by `FromStr` and shown by `Display`.
macro_rules! by_from_str {
    ($($type:ty: $allowed:literal;)+) => {$(
        impl Setting for $type {
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn allowed() -> String {
                $allowed.to_owned()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

by_from_str! {
    IpAddr: "an IP address";
    Ipv4Addr: "an IPv4 address";
    Cidr: "a network such as 10.244.0.0/16";
    Asn: "an AS number from 1 to 4294967295, or the dotted form 1.10";
    NodeName: "the name of a Kubernetes node: lower-case letters, digits, `-` and `.`";
    Selector: "a selector such as has(rack) or all()";
}

/// What the names of some interfaces start with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IfPrefix(String);

impl IfPrefix {
    /// Returns `cali`, with which the names of workloads' interfaces start.
    #[must_use]
    pub fn cali() -> Self {
        Self("cali".to_owned())
    }

    /// Returns the prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for IfPrefix {
    /// Leaves room for the eleven characters that follow in an interface's name.
    fn from_text(text: &str) -> Option<Self> {
        let name: IfName = text.parse().ok()?;
        (text.len() <= 4).then(|| Self(name.to_string()))
    }

    fn allowed() -> String {
        "1 to 4 characters without `/`, `:` or spaces".to_owned()
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where the node's address of one family comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressSource {
    /// It is detected anew at every start and watched.
    Autodetect,
    /// There is none.
    None,
    /// It is this one, with the length of its subnet's prefix if that is known.
    Given(IpAddr, Option<u8>),
}

impl Setting for AddressSource {
    fn from_text(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "autodetect" => return Some(Self::Autodetect),
            "none" => return Some(Self::None),
            _ => {}
        }
        if let Ok(addr) = text.parse() {
            return Some(Self::Given(addr, None));
        }
        let addr: InterfaceAddr = text.parse().ok()?;
        Some(Self::Given(addr.addr(), Some(addr.prefix_len())))
    }

    fn allowed() -> String {
        "`autodetect`, `none`, or an address such as 10.0.0.1/24".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::Autodetect => "autodetect".to_owned(),
            Self::None => "none".to_owned(),
            Self::Given(addr, None) => addr.to_string(),
            Self::Given(addr, Some(len)) => format!("{addr}/{len}"),
        }
    }
}

/// How the node's address is detected.
#[derive(Clone, Debug, PartialEq)]
pub enum AddressMethod {
    /// The first address of the first interface that is not left out by default.
    FirstFound,
    /// The address from which packets to this address, or to a host of this name, leave.
    CanReach(String),
    /// The first address of an interface that one of these matches, the first one first.
    Interface(Vec<Pattern>),
    /// As first-found, without interfaces that one of these matches.
    SkipInterface(Vec<Pattern>),
    /// The first address in one of these networks.
    Cidr(Vec<Cidr>),
    /// The address of type `InternalIP` in the status of the Kubernetes Node.
    KubernetesInternalIp,
}

impl Setting for AddressMethod {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "first-found" => return Some(Self::FirstFound),
            "kubernetes-internal-ip" => return Some(Self::KubernetesInternalIp),
            _ => {}
        }
        let (method, argument) = text.split_once('=')?;
        let patterns = || argument.split(',').map(|part| Pattern::new(part.trim()));
        if argument.trim().is_empty() {
            return None;
        }
        match method {
            "can-reach" => Some(Self::CanReach(argument.trim().to_owned())),
            "interface" => Some(Self::Interface(patterns().collect::<Option<_>>()?)),
            "skip-interface" => Some(Self::SkipInterface(patterns().collect::<Option<_>>()?)),
            "cidr" => {
                // As in Calico the networks may be written with host bits.
                let network =
                    |part: &str| part.trim().parse().map(|addr: InterfaceAddr| addr.network());
                Some(Self::Cidr(argument.split(',').map(network).collect::<Result<_, _>>().ok()?))
            }
            _ => None,
        }
    }

    fn allowed() -> String {
        "`first-found`, `can-reach=ADDRESS or HOST`, `interface=REGEX,…`, `skip-interface=REGEX,…`, \
         `cidr=CIDR,…` or `kubernetes-internal-ip`"
            .to_owned()
    }

    fn show(&self) -> String {
        let patterns = |patterns: &[Pattern]| {
            patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::FirstFound => "first-found".to_owned(),
            Self::CanReach(target) => format!("can-reach={target}"),
            Self::Interface(names) => format!("interface={}", patterns(names)),
            Self::SkipInterface(names) => format!("skip-interface={}", patterns(names)),
            Self::Cidr(nets) => format!("cidr={}", nets.show()),
            Self::KubernetesInternalIp => "kubernetes-internal-ip".to_owned(),
        }
    }
}

/// Where the range of a default pool comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PoolSource {
    /// No pool of this family is made.
    None,
    /// It is this one.
    Given(Cidr),
}

impl Setting for PoolSource {
    fn from_text(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("none") {
            return Some(Self::None);
        }
        text.parse().ok().map(Self::Given)
    }

    fn allowed() -> String {
        "a network without host bits such as 10.244.0.0/16, or `none`".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Given(cidr) => cidr.to_string(),
        }
    }
}

/// Where the node's BGP Identifier comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouterId {
    /// The node's IPv4 address.
    NodeAddr,
    /// A hash of the node's name, for nodes without an IPv4 address.
    Hash,
    /// It is this one.
    Given(Ipv4Addr),
}

impl Setting for RouterId {
    fn from_text(text: &str) -> Option<Self> {
        if text == "hash" {
            return Some(Self::Hash);
        }
        text.parse().ok().filter(|id: &Ipv4Addr| !id.is_unspecified()).map(Self::Given)
    }

    fn allowed() -> String {
        "`hash`, or four numbers such as 10.0.0.1 other than 0.0.0.0".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::NodeAddr => "the node's IPv4 address".to_owned(),
            Self::Hash => "hash".to_owned(),
            Self::Given(id) => id.to_string(),
        }
    }
}
