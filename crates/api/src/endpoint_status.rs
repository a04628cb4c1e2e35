//! The files that say that an endpoint's policy is in the kernel: Calico's `endpoint-status` directory.
//!
//! calico-node writes one for each of its node's workloads, and removes it when the
//! workload is gone; the CNI plugin may wait for it. Older versions of Calico leave
//! it empty, and then its name says all.

use std::net::IpAddr;

use model::id::NamespacedName;
use model::net::{Cidr, MacAddr};
use serde::{Deserialize, Serialize};

/// The directory's name, below `endpointStatusPathPrefix`.
pub const DIRECTORY: &str = "endpoint-status";

const START: &str = "k8s ";
const END: &str = " eth0";

/// What such a file says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// The host's side of the workload's interface.
    #[serde(default)]
    pub iface_name: String,
    /// The Ethernet address inside the workload; empty if it is not known.
    #[serde(default)]
    pub mac: String,
    /// The IPv4 addresses with their prefix lengths.
    #[serde(default, rename = "ipv4Nets")]
    pub ipv4_nets: Vec<String>,
    /// The IPv6 addresses with their prefix lengths.
    #[serde(default, rename = "ipv6Nets")]
    pub ipv6_nets: Vec<String>,
}

impl EndpointStatus {
    /// Says what is known of a workload.
    #[must_use]
    pub fn new(iface_name: &str, mac: Option<MacAddr>, addrs: &[IpAddr]) -> Self {
        let nets = |is_wanted: fn(&IpAddr) -> bool| {
            let wanted = addrs.iter().filter(|addr| is_wanted(addr));
            wanted.map(|addr| Cidr::host(*addr).to_string()).collect()
        };
        Self {
            iface_name: iface_name.to_owned(),
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            ipv4_nets: nets(IpAddr::is_ipv4),
            ipv6_nets: nets(IpAddr::is_ipv6),
        }
    }

    /// Returns the text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Returns the name of a pod's file: orchestrator, workload and endpoint, each with
/// what separates them escaped.
#[must_use]
pub fn file_name(pod: &NamespacedName) -> String {
    format!("{START}{}%2F{}{END}", pod.namespace, pod.name)
}

/// Is it the name of some pod's file?
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let middle = name.strip_prefix(START).and_then(|rest| rest.strip_suffix(END));
    middle.is_some_and(|middle| !middle.contains(' ') && middle.contains("%2F"))
}

/// Is the file with this text about a workload with these addresses, or about whoever has its name?
///
/// One that a former pod of the same name has left names other addresses.
#[must_use]
pub fn is_about(text: &str, addrs: &[IpAddr]) -> bool {
    let Ok(status) = serde_json::from_str::<EndpointStatus>(text) else {
        return text.trim().is_empty();
    };
    let nets = [status.ipv4_nets, status.ipv6_nets].concat();
    addrs.iter().all(|addr| nets.contains(&Cidr::host(*addr).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_calico_calls_them() {
        let pod = NamespacedName { namespace: "default".to_owned(), name: "testpod1".to_owned() };
        assert_eq!(file_name(&pod), "k8s default%2Ftestpod1 eth0");
        assert!(is_file_name(&file_name(&pod)));
        for other in ["", "k8s eth0", "k8s a b eth0", ".k8s default%2Fa eth0.7.tmp", "notes"] {
            assert!(!is_file_name(other), "{other}");
        }
    }

    #[test]
    fn a_former_pods_file_is_about_somebody_else() {
        let addrs: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let text = EndpointStatus::new("cali1", None, &addrs).to_text();
        assert_eq!(
            text,
            r#"{"ifaceName":"cali1","mac":"","ipv4Nets":["10.0.0.1/32"],"ipv6Nets":["fd00::1/128"]}"#
        );
        assert!(is_about(&text, &addrs));
        assert!(!is_about(&text, &["10.0.0.2".parse().unwrap()]));
        assert!(is_about("", &addrs), "an older Calico's file");
        assert!(!is_about("{", &addrs));
    }
}
