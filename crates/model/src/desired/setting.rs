//! Kernel parameters that a workload's interface needs.

use std::collections::BTreeSet;

use crate::net::{Family, IfName};

/// A kernel parameter and the value that it should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The path below /proc/sys.
    pub name: String,
    /// The value.
    pub value: &'static str,
    /// What to do if it cannot be set.
    pub need: Need,
}

/// How badly a [`Setting`] is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// The workload's traffic depends on it.
    Must,
    /// It hardens or tunes; a kernel without it will do.
    Should,
}

impl Setting {
    /// Makes one that traffic depends on.
    #[must_use]
    pub const fn must(name: String, value: &'static str) -> Self {
        Self { name, value, need: Need::Must }
    }

    /// Makes one that a kernel may lack.
    #[must_use]
    pub const fn should(name: String, value: &'static str) -> Self {
        Self { name, value, need: Need::Should }
    }

    /// Returns those of the host's side of a workload's pair of interfaces; `families` are those of
    /// the workload's addresses.
    #[must_use]
    pub fn of_host_side(if_name: &IfName, families: &BTreeSet<Family>) -> Vec<Self> {
        let v4 = |name: &str| format!("net/ipv4/conf/{if_name}/{name}");
        let v6 = |name: &str| format!("net/ipv6/conf/{if_name}/{name}");
        // A container must not be able to change the host's own IPv6 routes (CVE-2020-13597).
        let mut settings =
            vec![Self::should(v6("accept_ra"), "0"), Self::should(v6("accept_redirects"), "0")];
        if families.contains(&Family::V4) {
            settings.push(Self::must(v4("route_localnet"), "1"));
            settings.push(Self::should(format!("net/ipv4/neigh/{if_name}/proxy_delay"), "0"));
            settings.push(Self::must(v4("proxy_arp"), "1"));
            settings.push(Self::must(v4("forwarding"), "1"));
        }
        if families.contains(&Family::V6) {
            settings.push(Self::must(v6("accept_dad"), "0"));
            settings.push(Self::must(v6("disable_ipv6"), "0"));
            settings.push(Self::must(v6("proxy_ndp"), "1"));
            settings.push(Self::must(v6("forwarding"), "1"));
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_families_in_use_are_set_up() {
        let set = |families: &[Family]| -> Vec<String> {
            let families = families.iter().copied().collect();
            let settings = Setting::of_host_side(&"cali1".parse().unwrap(), &families);
            settings.iter().map(|each| format!("{}={}", each.name, each.value)).collect()
        };
        assert_eq!(
            set(&[Family::V4]),
            [
                "net/ipv6/conf/cali1/accept_ra=0",
                "net/ipv6/conf/cali1/accept_redirects=0",
                "net/ipv4/conf/cali1/route_localnet=1",
                "net/ipv4/neigh/cali1/proxy_delay=0",
                "net/ipv4/conf/cali1/proxy_arp=1",
                "net/ipv4/conf/cali1/forwarding=1",
            ]
        );
        assert!(set(&[Family::V6]).contains(&"net/ipv6/conf/cali1/proxy_ndp=1".to_owned()));
    }
}
