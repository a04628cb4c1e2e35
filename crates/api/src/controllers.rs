//! `KubeControllersConfiguration`: what the controllers do.

use std::collections::BTreeMap;
use std::time::Duration;

use model::cluster::{
    ControllersConfiguration as Model, HostEndpointTemplate, HostEndpoints, LoadBalancerController,
    NodeController,
};
use selector::Selector;

use crate::bgp::severity;
use crate::invalid::{Fault, parse, parse_some, within, word};
use crate::object::kind;
use crate::time::duration;
use crate::wire::wire;
use crate::{Invalid, Object};

/// What the controllers do.
pub type KubeControllersConfiguration = Object<KubeControllersConfigurationSpec>;

wire! {
    /// The spec of a [`KubeControllersConfiguration`]; absent fields have Calico's defaults.
    pub struct KubeControllersConfigurationSpec {
        /// From which severity on they log: `Info`.
        log_severity_screen: Option<String> = "logSeverityScreen",
        /// Whether they answer questions for their health: `Enabled` or `Disabled`.
        health_checks: Option<String> = "healthChecks",
        /// How often etcd is compacted, where it is used directly.
        etcd_v3_compaction_period: Option<String> = "etcdV3CompactionPeriod",
        /// The port of their metrics; 0 serves none.
        prometheus_metrics_port: Option<i64> = "prometheusMetricsPort",
        /// The port of their profiles.
        debug_profile_port: Option<i64> = "debugProfilePort",
        /// The controllers; those that are absent are off.
        controllers: Option<ControllersSpec> = "controllers",
    }

    /// The controllers; those that are absent are off.
    pub struct ControllersSpec {
        /// Looks after nodes and their addresses.
        node: Option<NodeControllerSpec> = "node",
        /// Copies policies of Kubernetes to etcd.
        policy: Option<ReconcilerSpec> = "policy",
        /// Copies pods to etcd.
        workload_endpoint: Option<ReconcilerSpec> = "workloadEndpoint",
        /// Copies service accounts to etcd.
        service_account: Option<ReconcilerSpec> = "serviceAccount",
        /// Copies namespaces to etcd.
        namespace: Option<ReconcilerSpec> = "namespace",
        /// Gives addresses to Services.
        load_balancer: Option<LoadBalancerControllerSpec> = "loadBalancer",
        /// Renames policies of old versions.
        migration: Option<MigrationControllerSpec> = "migration",
    }

    /// A controller that only copies.
    pub struct ReconcilerSpec {
        /// How often it looks at everything again: `5m`.
        reconciler_period: Option<String> = "reconcilerPeriod",
    }

    /// The node controller.
    pub struct NodeControllerSpec {
        /// How often it looks at everything again: `5m`.
        reconciler_period: Option<String> = "reconcilerPeriod",
        /// Whether it copies labels: `Enabled` or `Disabled`.
        sync_labels: Option<String> = "syncLabels",
        /// Host endpoints that it makes.
        host_endpoint: Option<AutoHostEndpointSpec> = "hostEndpoint",
        /// How long an address may look lost: `15m`; `0s` never releases.
        leak_grace_period: Option<String> = "leakGracePeriod",
    }

    /// Host endpoints that a controller makes.
    pub struct AutoHostEndpointSpec {
        /// Whether it does: `Enabled` or `Disabled`.
        auto_create: Option<String> = "autoCreate",
        /// Whether it makes the one for all interfaces: `Enabled` or `Disabled`.
        create_default_host_endpoint: Option<String> = "createDefaultHostEndpoint",
        /// Further ones.
        templates: Option<Vec<HostEndpointTemplateSpec>> = "templates",
    }

    /// Host endpoints of one sort.
    pub struct HostEndpointTemplateSpec {
        /// A part of their names.
        generate_name: Option<String> = "generateName",
        /// Networks that the addresses of their interfaces lie in.
        interface_cidrs: Option<Vec<String>> = "interfaceCIDRs",
        /// An expression that the names of their interfaces match.
        interface_pattern: Option<String> = "interfacePattern",
        /// The nodes that have them.
        node_selector: Option<String> = "nodeSelector",
        /// Their labels.
        labels: Option<BTreeMap<String, String>> = "labels",
        /// Their annotations.
        annotations: Option<BTreeMap<String, String>> = "annotations",
    }

    /// The load balancer controller.
    pub struct LoadBalancerControllerSpec {
        /// To whom it gives addresses: `AllServices` or `RequestedServicesOnly`.
        assign_ips: Option<String> = "assignIPs",
    }

    /// The migration controller.
    pub struct MigrationControllerSpec {
        /// Whether it renames policies: `Enabled` or `Disabled`.
        policy_name_migrator: Option<String> = "policyNameMigrator",
    }

    /// What the controllers say of themselves.
    pub struct KubeControllersStatus {
        /// The environment that changes the configuration.
        environment_vars: Option<BTreeMap<String, String>> = "environmentVars",
        /// The configuration that they run with.
        running_config: Option<KubeControllersConfigurationSpec> = "runningConfig",
    }
}

kind! {
    KubeControllersConfigurationSpec:
    "KubeControllersConfiguration" "kubecontrollersconfigurations" cluster ["kcc", "kccs"]
    status KubeControllersStatus
}

const SWITCH: [(&str, bool); 2] = [("Enabled", true), ("Disabled", false)];
const DEFAULT_METRICS_PORT: u16 = 9094;
const DEFAULT_PERIOD: Duration = Duration::from_secs(300);
const DEFAULT_GRACE: Duration = Duration::from_secs(900);

impl TryFrom<&KubeControllersConfiguration> for Model {
    type Error = Invalid;

    fn try_from(object: &KubeControllersConfiguration) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let read = || {
            check(spec)?;
            let port = within("prometheusMetricsPort", spec.prometheus_metrics_port, 0..=u16::MAX)?;
            let port = port.unwrap_or(DEFAULT_METRICS_PORT);
            let controllers = spec.controllers.as_ref();
            let node = controllers.and_then(|controllers| controllers.node.as_ref());
            let balancer = controllers.and_then(|controllers| controllers.load_balancer.as_ref());
            let under =
                |name: &'static str| move |fault: Fault| fault.under(format!("controllers.{name}"));
            Ok(Self {
                has_health_checks: word(
                    "healthChecks",
                    spec.health_checks.as_deref(),
                    &SWITCH,
                    true,
                )?,
                metrics_port: (port != 0).then_some(port),
                node: node.map(node_controller).transpose().map_err(under("node"))?,
                load_balancer: balancer
                    .map(load_balancer)
                    .transpose()
                    .map_err(under("loadBalancer"))?,
                migrates_policy_names: migrates_policy_names(controllers)?,
            })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

/// Checks what the model has no place for.
fn check(spec: &KubeControllersConfigurationSpec) -> Result<(), Fault> {
    severity("logSeverityScreen", spec.log_severity_screen.as_deref())?;
    duration("etcdV3CompactionPeriod", spec.etcd_v3_compaction_period.as_deref())?;
    within("debugProfilePort", spec.debug_profile_port, 0..=u16::MAX)?;
    let Some(controllers) = &spec.controllers else { return Ok(()) };
    for (name, reconciler) in [
        ("policy", &controllers.policy),
        ("workloadEndpoint", &controllers.workload_endpoint),
        ("serviceAccount", &controllers.service_account),
        ("namespace", &controllers.namespace),
    ] {
        let period = reconciler.as_ref().and_then(|wire| wire.reconciler_period.as_deref());
        duration(&format!("controllers.{name}.reconcilerPeriod"), period)?;
    }
    Ok(())
}

fn migrates_policy_names(controllers: Option<&ControllersSpec>) -> Result<bool, Fault> {
    let migration = controllers.and_then(|controllers| controllers.migration.as_ref());
    let migrator = migration.and_then(|wire| wire.policy_name_migrator.as_deref());
    word("controllers.migration.policyNameMigrator", migrator, &SWITCH, true)
}

fn node_controller(wire: &NodeControllerSpec) -> Result<NodeController, Fault> {
    let hosts = wire.host_endpoint.as_ref().map(host_endpoints).transpose();
    let hosts = hosts.map_err(|fault| fault.under("hostEndpoint"))?;
    let set = |length: Duration| (!length.is_zero()).then_some(length);
    let period = duration("reconcilerPeriod", wire.reconciler_period.as_deref())?;
    let grace = duration("leakGracePeriod", wire.leak_grace_period.as_deref())?;
    Ok(NodeController {
        reconciler_period: set(period.unwrap_or(DEFAULT_PERIOD)),
        sync_labels: word("syncLabels", wire.sync_labels.as_deref(), &SWITCH, true)?,
        host_endpoints: hosts.flatten(),
        leak_grace_period: set(grace.unwrap_or(DEFAULT_GRACE)),
    })
}

fn host_endpoints(wire: &AutoHostEndpointSpec) -> Result<Option<HostEndpoints>, Fault> {
    let default = wire.create_default_host_endpoint.as_deref();
    let templates = wire.templates.iter().flatten().enumerate().map(|(index, one)| {
        template(one).map_err(|fault| fault.under(format!("templates[{index}]")))
    });
    let hosts = HostEndpoints {
        has_default: word("createDefaultHostEndpoint", default, &SWITCH, true)?,
        templates: templates.collect::<Result<_, _>>()?,
    };
    let is_on = word("autoCreate", wire.auto_create.as_deref(), &SWITCH, false)?;
    Ok(is_on.then_some(hosts))
}

fn template(wire: &HostEndpointTemplateSpec) -> Result<HostEndpointTemplate, Fault> {
    let name = wire.generate_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        let problem = "is missing: say how the names of these host endpoints are to end";
        return Err(Fault::new("generateName", "", problem));
    }
    let networks = wire.interface_cidrs.iter().flatten().enumerate();
    let networks = networks.map(|(index, text)| parse(&format!("interfaceCIDRs[{index}]"), text));
    let nodes: Option<Selector> = parse_some("nodeSelector", wire.node_selector.as_deref())?;
    Ok(HostEndpointTemplate {
        name: name.to_owned(),
        networks: networks.collect::<Result<_, _>>()?,
        pattern: wire.interface_pattern.clone().filter(|text| !text.is_empty()),
        nodes: nodes.unwrap_or_else(Selector::all),
        labels: wire.labels.clone().unwrap_or_default(),
        annotations: wire.annotations.clone().unwrap_or_default(),
    })
}

fn load_balancer(wire: &LoadBalancerControllerSpec) -> Result<LoadBalancerController, Fault> {
    let whom = [("AllServices", true), ("RequestedServicesOnly", false)];
    let assigns_to_all = word("assignIPs", wire.assign_ips.as_deref(), &whom, true)?;
    Ok(LoadBalancerController { assigns_to_all })
}
