//! Lists, and the things that only occur in lists.

use model::net::Cidr;
use serde_json::Value;

use super::Setting;

/// A list: commas in text, an array in JSON. `none` is the empty list.
impl<T: Setting> Setting for Vec<T> {
    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() || text.eq_ignore_ascii_case("none") {
            return Some(Self::new());
        }
        text.split(',').map(|part| T::from_text(part.trim())).collect()
    }

    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Array(items) => items.iter().map(T::from_json).collect(),
            Value::String(text) => Self::from_text(text),
            Value::Number(_) => T::from_json(value).map(|item| vec![item]),
            Value::Null | Value::Bool(_) | Value::Object(_) => None,
        }
    }

    fn allowed() -> String {
        format!("a list with commas, each {}", T::allowed())
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        self.iter().map(Setting::show).collect::<Vec<_>>().join(",")
    }
}

/// A protocol and a port, perhaps of one network only: `tcp:22`, `udp:10.0.0.0/8:53`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProtocolPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The peers; `None` is all.
    pub net: Option<Cidr>,
    /// The port.
    pub port: u16,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl ProtocolPort {
    /// Returns a TCP port of all networks.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self { protocol: Protocol::Tcp, net: None, port }
    }

    /// Returns a UDP port of all networks.
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self { protocol: Protocol::Udp, net: None, port }
    }
}

impl Protocol {
    fn from_text(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

impl Setting for ProtocolPort {
    fn from_text(text: &str) -> Option<Self> {
        let Some((protocol, rest)) = text.split_once(':') else {
            return Some(Self::tcp(text.parse().ok()?));
        };
        let (net, port) = match rest.rsplit_once(':') {
            Some((net, port)) => {
                let net = net.trim_start_matches('[').trim_end_matches(']');
                (Some(net.parse().ok()?), port)
            }
            None => (None, rest),
        };
        Some(Self { protocol: Protocol::from_text(protocol)?, net, port: port.parse().ok()? })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let Some(object) = value.as_object() else {
            return Self::from_text(value.as_str()?);
        };
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let net = match text("net").filter(|net| !net.is_empty()) {
            Some(net) => Some(net.parse().ok()?),
            None => None,
        };
        let port = object.get("port").and_then(Value::as_u64)?;
        let protocol = Protocol::from_text(text("protocol").unwrap_or("tcp"))?;
        Some(Self { protocol, net, port: u16::try_from(port).ok()? })
    }

    fn allowed() -> String {
        "`tcp:22` or `udp:10.0.0.0/8:53`".to_owned()
    }

    fn show(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match self.net {
            None => format!("{protocol}:{}", self.port),
            Some(net) => format!("{protocol}:[{net}]:{}", self.port),
        }
    }
}

/// Ports from one to another, both included: `30000:32767`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Setting for PortRange {
    fn from_text(text: &str) -> Option<Self> {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(Self { first, last })
    }

    fn allowed() -> String {
        "a port or a range of ports such as 30000:32767".to_owned()
    }

    fn show(&self) -> String {
        format!("{}:{}", self.first, self.last)
    }
}

/// Numbers of routing tables from one to another, both included: `1-250`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NumberRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl NumberRange {
    /// Makes a range; `None` if it is empty or holds 0, which is no table.
    fn new(first: u32, last: u32) -> Option<Self> {
        (0 < first && first <= last).then_some(Self { first, last })
    }
}

impl Setting for NumberRange {
    fn from_text(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(first.parse().ok()?, last.parse().ok()?)
    }

    fn from_json(value: &Value) -> Option<Self> {
        let Some(object) = value.as_object() else {
            return Self::from_text(value.as_str()?);
        };
        let number = |name: &str| {
            object.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
        };
        Self::new(number("min")?, number("max")?)
    }

    fn allowed() -> String {
        "a range of table numbers above 0 such as 1-250".to_owned()
    }

    fn show(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }
}
