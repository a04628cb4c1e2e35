//! `CNI_ARGS`: what the runtime knows beyond the specification.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use model::id::{NamespacedName, is_dns_subdomain};

use super::InvalidEnvironment;

/// The pairs in `CNI_ARGS`, in their order.
///
/// Keys that we do not know are kept and ignored, as if `IgnoreUnknown` were
/// always set; Calico does the same.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Args {
    pairs: Vec<(String, String)>,
    /// The pod, if both `K8S_POD_NAMESPACE` and `K8S_POD_NAME` are given.
    pub pod: Option<PodRef>,
    /// `IP`: addresses that the container should get; commas between several.
    pub addrs: Vec<IpAddr>,
}

/// Which pod a container belongs to, as the kubelet's runtime says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`.
    pub name: NamespacedName,
    /// `K8S_POD_UID`, if it is given.
    pub uid: Option<String>,
}

impl Args {
    /// Returns the value of `key`; the last one counts.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let is_it = |pair: &&(String, String)| pair.0 == key;
        self.pairs.iter().rfind(is_it).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.pairs.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

impl FromStr for Args {
    type Err = InvalidEnvironment;

    fn from_str(text: &str) -> Result<Self, InvalidEnvironment> {
        let mut args = Self::default();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let split = pair.split_once('=').filter(|(key, _)| !key.is_empty());
            let (key, value) = split.ok_or_else(|| InvalidEnvironment::Args(pair.to_owned()))?;
            args.pairs.push((key.to_owned(), value.to_owned()));
        }
        args.pod = args.read_pod()?;
        args.addrs = args.read_addrs()?;
        Ok(args)
    }
}

impl Args {
    fn non_empty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    fn read_pod(&self) -> Result<Option<PodRef>, InvalidEnvironment> {
        let namespace = self.non_empty("K8S_POD_NAMESPACE");
        let (namespace, name) = match (namespace, self.non_empty("K8S_POD_NAME")) {
            (None, None) => return Ok(None),
            (Some(namespace), Some(name)) => (namespace, name),
            (Some(_), None) => {
                return Err(wrong(
                    "K8S_POD_NAME",
                    "",
                    "the runtime must set it with K8S_POD_NAMESPACE",
                ));
            }
            (None, Some(_)) => {
                return Err(wrong(
                    "K8S_POD_NAMESPACE",
                    "",
                    "the runtime must set it with K8S_POD_NAME",
                ));
            }
        };
        // These become parts of URLs and of the interface's name.
        if !is_dns_subdomain(namespace) || namespace.contains('.') || namespace.len() > 63 {
            return Err(wrong("K8S_POD_NAMESPACE", namespace, "use the name of a namespace"));
        }
        if !is_dns_subdomain(name) {
            return Err(wrong("K8S_POD_NAME", name, "use the name of a pod"));
        }
        let uid = self.non_empty("K8S_POD_UID").map(str::to_owned);
        let name = NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() };
        Ok(Some(PodRef { name, uid }))
    }

    fn read_addrs(&self) -> Result<Vec<IpAddr>, InvalidEnvironment> {
        let text = self.get("IP").unwrap_or_default();
        let addrs = text.split(',').map(str::trim).filter(|addr| !addr.is_empty());
        // Some runtimes write the length of the prefix too; the pool decides that.
        let addr = |text: &str| text.split_once('/').map_or(text, |(addr, _)| addr).parse();
        addrs
            .map(|text| addr(text).map_err(|_| wrong("IP", text, "use an IPv4 or IPv6 address")))
            .collect()
    }
}

fn wrong(key: &'static str, value: &str, remedy: &'static str) -> InvalidEnvironment {
    InvalidEnvironment::ArgValue { key, value: value.to_owned(), remedy }
}
