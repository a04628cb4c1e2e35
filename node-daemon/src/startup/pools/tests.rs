//! Facts about default pools.

use config::Sources;
use model::net::Mtu;

use super::*;
use crate::startup::host::Interface;

fn startup(variables: &str) -> StartupConfig {
    let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (config, problems) = StartupConfig::resolve(&Sources::from_environment(pairs));
    assert_eq!(problems, []);
    config
}

fn host(routes: &str) -> Host {
    let eth0 = Interface {
        name: "eth0".parse().unwrap(),
        mtu: Mtu(1500),
        is_up: true,
        addrs: vec!["10.0.0.1/24".parse().unwrap()],
    };
    let foreign_routes = routes.split_whitespace().map(|route| route.parse().unwrap()).collect();
    Host { interfaces: vec![eth0], foreign_routes }
}

/// What is planned for a node with both families, as text.
fn planned(variables: &str, routes: &str, kubeadm: &str, existing: &str) -> Vec<String> {
    let pool = |cidr: &str| {
        let spec = IpPoolSpec { cidr: cidr.to_owned(), ..IpPoolSpec::default() };
        IpPool::named("mine", spec)
    };
    let plan = plan(&Situation {
        startup: &startup(variables),
        felix: &FelixConfig::default(),
        existing: &existing.split_whitespace().map(pool).collect::<Vec<_>>(),
        kubeadm: &kubeadm.split_whitespace().map(|cidr| cidr.parse().unwrap()).collect::<Vec<_>>(),
        host: &host(routes),
        has_ipv6: true,
        random: [1, 2, 3, 4, 5],
    });
    let show = |pool: &IpPool| {
        let spec = &pool.spec;
        let mode = |mode: &Option<String>| mode.clone().unwrap_or_default();
        format!("{} ipip={} vxlan={}", spec.cidr, mode(&spec.ipip_mode), mode(&spec.vxlan_mode))
    };
    plan.unwrap().creates.iter().map(show).collect()
}

#[test]
fn settings_and_the_cluster_make_the_pools() {
    let v6 = "fd01:203:405::/48 ipip=Never vxlan=Never";
    for (variables, routes, kubeadm, existing, expected) in [
        ("", "", "", "", vec!["192.168.0.0/16 ipip=Always vxlan=Never", v6]),
        ("", "192.168.7.0/24", "", "", vec!["172.16.0.0/16 ipip=Always vxlan=Never", v6]),
        (
            "",
            "192.168.0.0/16 172.16.0.0/12",
            "",
            "",
            vec!["10.1.0.0/16 ipip=Always vxlan=Never", v6],
        ),
        (
            "",
            "",
            "10.244.0.0/16 fd00:10::/56",
            "",
            vec!["10.244.0.0/16 ipip=Always vxlan=Never", "fd00:10::/56 ipip=Never vxlan=Never"],
        ),
        (
            "CALICO_IPV4POOL_CIDR=10.9.0.0/16 CALICO_IPV4POOL_IPIP=Never CALICO_IPV6POOL_CIDR=none",
            "",
            "10.244.0.0/16",
            "",
            vec!["10.9.0.0/16 ipip=Never vxlan=Never"],
        ),
        (
            "CALICO_IPV4POOL_VXLAN=CrossSubnet CALICO_IPV6POOL_VXLAN=Always",
            "",
            "",
            "",
            vec![
                "192.168.0.0/16 ipip=Never vxlan=CrossSubnet",
                "fd01:203:405::/48 ipip=Never vxlan=Always",
            ],
        ),
        ("CALICO_IPV4POOL_CIDR=none", "", "", "", vec![v6]),
        ("", "", "", "10.0.0.0/8", vec![v6]),
        ("", "", "", "10.0.0.0/8 fd00::/8", vec![]),
        ("NO_DEFAULT_POOLS=true", "", "10.244.0.0/16", "", vec![]),
    ] {
        assert_eq!(planned(variables, routes, kubeadm, existing), expected, "{variables}");
    }
}

fn situated(startup: &StartupConfig, has_ipv6: bool) -> Result<PoolPlan, Invalid> {
    plan(&Situation {
        startup,
        felix: &FelixConfig::default(),
        existing: &[],
        kubeadm: &[],
        host: &Host::default(),
        has_ipv6,
        random: [0; 5],
    })
}

#[test]
fn nodes_without_ipv6_make_no_ipv6_pool_unless_its_range_is_named() {
    assert_eq!(situated(&startup(""), false).unwrap().creates.len(), 1);
    let named = startup("CALICO_IPV6POOL_CIDR=fd00::/48");
    assert_eq!(situated(&named, false).unwrap().creates.len(), 2);
}

#[test]
fn a_default_pool_is_written_whole() {
    let settings = startup(
        "CALICO_IPV4POOL_CIDR=10.9.0.0/16 CALICO_IPV4POOL_BLOCK_SIZE=28 CALICO_IPV4POOL_NAT_OUTGOING=false \
         CALICO_IPV4POOL_NODE_SELECTOR=has(rack) CALICO_IPV4POOL_DISABLE_BGP_EXPORT=true",
    );
    let plan = situated(&settings, false).unwrap();
    let expected = serde_json::json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
        "spec": {
            "cidr": "10.9.0.0/16", "blockSize": 28, "ipipMode": "Always", "vxlanMode": "Never",
            "natOutgoing": false, "nodeSelector": "has(rack)", "disableBGPExport": true,
            "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic",
        },
    });
    assert_eq!(serde_json::to_value(&plan.creates[0]).unwrap(), expected);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn pools_that_cannot_be_are_refused() {
    for (variables, expected) in [
        ("CALICO_IPV4POOL_IPIP=Always CALICO_IPV4POOL_VXLAN=Always", "exclude each other"),
        ("CALICO_IPV4POOL_CIDR=10.0.0.0/28", "a block would be larger than the pool"),
        ("CALICO_IPV4POOL_CIDR=169.254.0.0/16", "link-local"),
        ("CALICO_IPV4POOL_CIDR=fd00::/48", "is no IPv4 range; use CALICO_IPV6POOL_CIDR"),
        ("CALICO_IPV6POOL_CIDR=10.0.0.0/8", "is no IPv6 range; use CALICO_IPV4POOL_CIDR"),
    ] {
        let refusal = situated(&startup(variables), false).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{variables}: {refusal}");
    }
}
