//! What the controllers do: the environment over `KubeControllersConfiguration`.

use std::collections::BTreeMap;

use api::{
    AutoHostEndpointSpec, ControllersSpec, KubeControllersConfiguration,
    KubeControllersConfigurationSpec, LoadBalancerControllerSpec, MigrationControllerSpec,
    NodeControllerSpec,
};
use ipam::audit::Limits;
use serde_json::{Value, json};

use crate::finalizers::Guards;

/// The variables that change the configuration, as Calico names them.
const VARIABLES: [&str; 7] = [
    "AUTO_HOST_ENDPOINTS",
    "DATASTORE_TYPE",
    "ENABLED_CONTROLLERS",
    "HEALTH_ENABLED",
    "LOG_LEVEL",
    "RECONCILER_PERIOD",
    "SYNC_NODE_LABELS",
];

/// The environment.
pub(crate) type Environment = BTreeMap<String, String>;

/// Returns the configuration that a cluster gets which has none.
#[must_use]
pub(crate) fn default_configuration() -> KubeControllersConfiguration {
    let spec = KubeControllersConfigurationSpec {
        log_severity_screen: Some("Info".to_owned()),
        health_checks: Some("Enabled".to_owned()),
        prometheus_metrics_port: Some(9094),
        controllers: Some(ControllersSpec {
            node: Some(NodeControllerSpec {
                reconciler_period: Some("5m0s".to_owned()),
                sync_labels: Some("Enabled".to_owned()),
                host_endpoint: Some(AutoHostEndpointSpec {
                    auto_create: Some("Disabled".to_owned()),
                    ..AutoHostEndpointSpec::default()
                }),
                leak_grace_period: Some("15m0s".to_owned()),
                ..NodeControllerSpec::default()
            }),
            load_balancer: Some(LoadBalancerControllerSpec {
                assign_ips: Some("AllServices".to_owned()),
                ..LoadBalancerControllerSpec::default()
            }),
            migration: Some(MigrationControllerSpec {
                policy_name_migrator: Some("Enabled".to_owned()),
                ..MigrationControllerSpec::default()
            }),
            ..ControllersSpec::default()
        }),
        ..KubeControllersConfigurationSpec::default()
    };
    KubeControllersConfiguration::named("default", spec)
}

/// Returns the configuration with the environment's changes.
///
/// A variable that cannot be understood is written into its field as it is, so that it is
/// refused there, with the field's name.
#[must_use]
pub(crate) fn effective(
    configuration: &KubeControllersConfiguration,
    environment: &Environment,
) -> KubeControllersConfiguration {
    let mut effective = configuration.clone();
    let spec = &mut effective.spec;
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
    if let Some(level) = variable("LOG_LEVEL") {
        spec.log_severity_screen = Some(capitalised(&level));
    }
    if let Some(health) = variable("HEALTH_ENABLED") {
        spec.health_checks = Some(switch(&health));
    }
    let controllers = spec.controllers.get_or_insert_default();
    if let Some(enabled) = variable("ENABLED_CONTROLLERS") {
        let is_enabled = |name: &str| enabled.split(',').any(|one| one.trim() == name);
        let node = controllers.node.take().unwrap_or_default();
        let balancer = controllers.load_balancer.take().unwrap_or_default();
        controllers.node = is_enabled("node").then_some(node);
        controllers.load_balancer = is_enabled("loadbalancer").then_some(balancer);
    }
    if let Some(node) = &mut controllers.node {
        if let Some(period) = variable("RECONCILER_PERIOD") {
            node.reconciler_period = Some(period);
        }
        if let Some(sync) = variable("SYNC_NODE_LABELS") {
            node.sync_labels = Some(switch(&sync));
        }
        if let Some(auto) = variable("AUTO_HOST_ENDPOINTS") {
            node.host_endpoint.get_or_insert_default().auto_create = Some(switch(&auto));
        }
    }
    effective
}

/// Returns the status that says what we run with.
#[must_use]
pub(crate) fn status(effective: &KubeControllersConfiguration, environment: &Environment) -> Value {
    let variables: BTreeMap<&str, &String> =
        VARIABLES.into_iter().filter_map(|name| Some((name, environment.get(name)?))).collect();
    json!({"status": {"environmentVars": variables, "runningConfig": effective.spec}})
}

/// Returns how much a look may release: `IPAM_GC_MAX_PERCENT` of all, `IPAM_GC_FLOOR` in any case.
#[must_use]
pub(crate) fn limits(environment: &Environment) -> Limits {
    let number = |name: &str| environment.get(name).and_then(|text| text.parse::<u32>().ok());
    let standard = Limits::default();
    let floor = number("IPAM_GC_FLOOR").and_then(|floor| usize::try_from(floor).ok());
    Limits {
        percent: number("IPAM_GC_MAX_PERCENT").unwrap_or(standard.percent),
        floor: floor.unwrap_or(standard.floor),
    }
}

/// Returns which objects are guarded by finalizers: those that `ENABLED_CONTROLLERS` names with
/// `ippool` and `tier`.
#[must_use]
pub(crate) fn guards(environment: &Environment) -> Guards {
    let enabled = environment.get("ENABLED_CONTROLLERS").map(String::as_str).unwrap_or_default();
    let is_enabled = |name: &str| enabled.split(',').any(|one| one.trim() == name);
    Guards { pools: is_enabled("ippool"), tiers: is_enabled("tier") }
}

/// Turns the truth values of Calico's environment into the words of its objects.
fn switch(text: &str) -> String {
    match text.to_lowercase().as_str() {
        "true" | "enabled" | "1" => "Enabled".to_owned(),
        "false" | "disabled" | "0" => "Disabled".to_owned(),
        _ => text.to_owned(),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::cluster::ControllersConfiguration;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<ControllersConfiguration, api::Invalid> {
        (&effective(&default_configuration(), &environment(pairs))).try_into()
    }

    #[test]
    fn the_default_is_calicos() {
        let node = read(&[]).unwrap().node.unwrap();
        assert_eq!(node.leak_grace_period, Some(Duration::from_secs(900)));
        assert_eq!(node.reconciler_period, Some(Duration::from_secs(300)));
        assert_eq!(node.host_endpoints, None);
    }

    #[test]
    fn the_environment_wins() {
        let read = read(&[
            ("ENABLED_CONTROLLERS", "node"),
            ("RECONCILER_PERIOD", "1m"),
            ("AUTO_HOST_ENDPOINTS", "enabled"),
            ("HEALTH_ENABLED", "false"),
            ("LOG_LEVEL", "debug"),
        ])
        .unwrap();
        let node = read.node.unwrap();
        assert_eq!(node.reconciler_period, Some(Duration::from_secs(60)));
        assert_eq!(node.host_endpoints.map(|hosts| hosts.has_default), Some(true));
        assert_eq!(read.load_balancer, None);
        assert!(read.migrates_policy_names);
        assert!(!read.has_health_checks);
    }

    #[test]
    fn finalizers_are_asked_for_by_name() {
        let of = |list: &str| guards(&environment(&[("ENABLED_CONTROLLERS", list)]));
        assert_eq!(of("node,loadbalancer"), Guards::default());
        assert_eq!(of("node, ippool"), Guards { pools: true, tiers: false });
        assert_eq!(of("ippool,tier"), Guards { pools: true, tiers: true });
        assert_eq!(guards(&Environment::new()), Guards::default());
    }

    #[test]
    fn a_wrong_variable_is_refused_with_its_field() {
        let error = read(&[("RECONCILER_PERIOD", "soon")]).unwrap_err().to_string();
        assert!(error.contains("reconcilerPeriod"), "{error}");
    }

    #[test]
    fn the_status_names_the_variables_that_are_set() {
        let environment = environment(&[("LOG_LEVEL", "debug"), ("HOME", "/")]);
        let status = status(&effective(&default_configuration(), &environment), &environment);
        assert_eq!(status.pointer("/status/environmentVars"), Some(&json!({"LOG_LEVEL": "debug"})));
        let level = status.pointer("/status/runningConfig/logSeverityScreen");
        assert_eq!(level, Some(&json!("Debug")));
    }
}
