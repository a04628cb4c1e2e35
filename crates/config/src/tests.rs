//! Facts about settings: defaults, precedence, refusals, and the manual.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use serde_json::{Map, Value, json};

use super::*;
use crate::value::{
    AddressMethod, AddressSource, EncapsulationMode, LogSeverity, Number, PoolSource, PortRange,
    ProtocolPort, Setting, Switch,
};

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sources::from_environment(owned)
}

fn fields(object: Value) -> Map<String, Value> {
    serde_json::from_value(object).unwrap()
}

fn messages(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_is_the_default_without_a_problem() {
    let (config, problems) = FelixConfig::resolve(&Sources::default());
    assert_eq!((config, problems), (FelixConfig::default(), Vec::new()));
    let (config, problems) = StartupConfig::resolve(&Sources::default());
    assert_eq!((config, problems), (StartupConfig::default(), Vec::new()));
}

#[test]
fn the_stronger_source_wins() {
    let all = || {
        environment(&[("FELIX_HEALTHPORT", "1")])
            .with_file("[global]\n# a comment\nHealthPort = 2\nHealthHost = file\n")
            .with_node(fields(json!({"healthPort": 3, "healthHost": "n", "vxlanPort": 3})))
            .with_cluster(fields(json!({"healthPort": 4, "vxlanPort": 4, "vxlanVNI": 4})))
    };
    let (config, problems) = FelixConfig::resolve(&all());
    assert_eq!(messages(&problems), Vec::<String>::new());
    assert_eq!(config.health.port, Number::clamped(1));
    assert_eq!(config.health.host, "file");
    assert_eq!(config.encapsulation.vxlan_port, Number::clamped(3));
    assert_eq!(config.encapsulation.vxlan_vni, Number::clamped(4));
}

#[test]
fn the_refused_value_of_the_stronger_source_leaves_the_default() {
    let sources =
        environment(&[("FELIX_HEALTHPORT", "0")]).with_cluster(fields(json!({"healthPort": 4})));
    let (config, problems) = FelixConfig::resolve(&sources);
    assert_eq!(config.health.port, Number::clamped(9099));
    assert_eq!(problems.len(), 1);
}

#[test]
fn empty_variables_and_null_fields_are_not_set() {
    let sources = environment(&[("FELIX_HEALTHPORT", "")])
        .with_node(fields(json!({"healthPort": null})))
        .with_cluster(fields(json!({"healthPort": 4})));
    let (config, problems) = FelixConfig::resolve(&sources);
    assert_eq!((config.health.port, problems.len()), (Number::clamped(4), 0));
}

#[test]
fn objects_of_a_cluster_are_read() {
    let object = json!({
        "bpfEnabled": false, "floatingIPs": "Enabled", "logSeverityScreen": "Warning",
        "reportingInterval": "0s", "routeRefreshInterval": "1m30s", "ipipMTU": 1440,
        "failsafeInboundHostPorts": [{"protocol": "TCP", "port": 22}, {"port": 80, "net": "10.0.0.0/8"}],
        "routeTableRanges": [{"min": 5, "max": 10}], "kubeNodePortRanges": [30, "40:50"],
        "interfacePrefix": "cali,tap", "iptablesMarkMask": 255,
    });
    let (config, problems) = FelixConfig::resolve(&Sources::default().with_cluster(fields(object)));
    assert_eq!(messages(&problems), Vec::<String>::new());
    assert_eq!(config.logging.severity_screen, LogSeverity::Warning);
    assert_eq!(config.reporting.interval, Duration::ZERO);
    assert_eq!(config.routes.refresh_interval, Duration::from_secs(90));
    assert_eq!(config.encapsulation.ipip_mtu, Number::clamped(1440));
    assert_eq!(config.interfaces.floating_ips, Switch::Enabled);
    let net = Some("10.0.0.0/8".parse().unwrap());
    let expected = [ProtocolPort::tcp(22), ProtocolPort { net, ..ProtocolPort::tcp(80) }];
    assert_eq!(config.failsafe.inbound, expected);
    let range = |first, last| PortRange { first, last };
    assert_eq!(config.policy.node_ports, [range(30, 30), range(40, 50)]);
    assert_eq!(config.interfaces.prefix.len(), 2);
}

#[test]
fn the_manifests_environment_is_read() {
    let sources = environment(&[
        ("FELIX_IPINIPMTU", "0"),
        ("FELIX_VXLANMTU", "0"),
        ("FELIX_WIREGUARDMTU", "0"),
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
        ("FELIX_IPV6SUPPORT", "false"),
        ("FELIX_HEALTHENABLED", "true"),
        ("DATASTORE_TYPE", "kubernetes"),
        ("WAIT_FOR_DATASTORE", "true"),
        ("NODENAME", "node-1"),
        ("CALICO_NETWORKING_BACKEND", "bird"),
        ("CLUSTER_TYPE", "k8s,bgp"),
        ("IP", "autodetect"),
        ("CALICO_IPV4POOL_IPIP", "Always"),
        ("CALICO_IPV4POOL_VXLAN", "Never"),
        ("CALICO_IPV6POOL_VXLAN", "Never"),
        ("CALICO_DISABLE_FILE_LOGGING", "true"),
    ]);
    let (felix, problems) = FelixConfig::resolve(&sources);
    assert_eq!(messages(&problems), Vec::<String>::new());
    assert!(felix.health.is_enabled && !felix.interfaces.ipv6_support);
    let (startup, problems) = StartupConfig::resolve(&sources);
    assert_eq!(messages(&problems), Vec::<String>::new());
    assert_eq!(startup.node.ipv4, Some(AddressSource::Autodetect));
    assert_eq!(startup.node.cluster_type, ["k8s", "bgp"]);
    assert_eq!(startup.ipv4_pool.ipip, Some(EncapsulationMode::Always));
    assert!(startup.datastore.is_waited_for);
}

#[test]
fn ways_to_find_an_address_are_read_and_shown() {
    for text in [
        "first-found",
        "can-reach=8.8.8.8",
        "can-reach=www.example.org",
        "interface=eth.*,^ens",
        "skip-interface=docker.*",
        "cidr=10.0.0.0/8,fd00::/8",
        "kubernetes-internal-ip",
    ] {
        assert_eq!(AddressMethod::from_text(text).unwrap().show(), text);
    }
    let with_host_bits = AddressMethod::from_text("cidr=10.1.2.3/8").unwrap();
    assert_eq!(with_host_bits.show(), "cidr=10.0.0.0/8");
    let source = |text: &str| AddressSource::from_text(text);
    assert_eq!(source("10.0.0.1"), Some(AddressSource::Given([10, 0, 0, 1].into(), None)));
    assert_eq!(source("10.0.0.1/24"), Some(AddressSource::Given([10, 0, 0, 1].into(), Some(24))));
    assert_eq!(source("none"), Some(AddressSource::None));
    assert_eq!(PoolSource::from_text("none"), Some(PoolSource::None));
}

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, millis) in [
        ("90", 90_000),
        ("0", 0),
        ("1.5", 1500),
        ("90s", 90_000),
        ("1h1m1.5s", 3_661_500),
        ("500ms", 500),
    ] {
        assert_eq!(Duration::from_text(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for wrong in
        ["", "s", "-1", "-1s", "1x", "1.2.3", "1e999", "99999999999999999999h", "NaN", "1s2"]
    {
        assert_eq!(Duration::from_text(wrong), None, "{wrong}");
    }
}

/// What is said of one wrong value: `NAME=value` is a variable, `name: json` a field.
fn said(input: &str) -> String {
    let sources = match input.split_once('=') {
        Some((name, value)) if !name.contains(':') => environment(&[(name, value)]),
        _ => {
            let (name, value) = input.split_once(": ").unwrap();
            let value = serde_json::from_str(value).unwrap();
            Sources::default().with_cluster([(name.to_owned(), value)])
        }
    };
    let mut problems = FelixConfig::resolve(&sources).1;
    problems.extend(StartupConfig::resolve(&sources).1);
    messages(&problems).join("\n")
}

#[test]
fn wrong_values_are_refused_with_place_and_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/config/refused.txt");
    let expected = fs::read_to_string(&path).unwrap();
    let inputs: Vec<&str> = expected.split("\n\n").filter_map(|case| case.lines().next()).collect();
    assert!(inputs.len() >= 20, "{} cases", inputs.len());
    let case = |input: &&str| format!("{input}\n{}\n\n", said(input));
    golden(&path, &inputs.iter().map(case).collect::<String>());
}

#[test]
fn the_manual_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    golden(&path, &manual::render());
}

#[test]
fn names_are_unique() {
    let groups = FelixConfig::groups().into_iter().chain(StartupConfig::groups());
    let names = groups.flat_map(|(_, parameters)| parameters);
    let mut names: Vec<String> = names.flat_map(|p| p.names.variables()).collect();
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), before);
}

fn golden(path: &Path, actual: &str) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, actual).unwrap();
    } else {
        let expected = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(actual, expected, "{} (UPDATE_GOLDEN=1 rewrites it)", path.display());
    }
}

proptest::proptest! {
    #[test]
    fn random_values_never_panic(text in "\\PC{0,30}") {
        let groups = FelixConfig::groups().into_iter().chain(StartupConfig::groups());
        let parameters = groups.flat_map(|(_, parameters)| parameters);
        let pairs: Vec<(String, String)> = parameters
            .flat_map(|parameter| parameter.names.variables())
            .map(|name| (name, text.clone()))
            .collect();
        let sources = Sources::from_environment(pairs);
        let _ = (FelixConfig::resolve(&sources), StartupConfig::resolve(&sources));
    }
}
