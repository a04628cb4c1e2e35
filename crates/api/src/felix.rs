//! `FelixConfiguration`: settings of all nodes or of one; `config` knows what they mean.
//!
//! Here is only which JSON type each field has. Fields of other names are kept
//! and handed on like the rest.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::wire::Schema;
use crate::{Invalid, Object};

/// Settings of all nodes (`default`) or of one (`node.<name>`).
pub type FelixConfiguration = Object<FelixConfigurationSpec>;

/// The spec of a [`FelixConfiguration`]: every field by its name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct FelixConfigurationSpec {
    /// The fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

crate::object::kind! {
    FelixConfigurationSpec: "FelixConfiguration" "felixconfigurations" cluster
}

impl FelixConfiguration {
    /// Returns the fields that are set.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.spec.fields.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Checks that each known field has the JSON type that it should have.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for the first that has another.
    pub fn check(&self) -> Result<(), Invalid> {
        for (name, value) in self.fields() {
            let Some((form, _)) = TABLE.iter().find(|(_, names)| names.contains(&name)) else {
                continue;
            };
            if !form.allows(value) {
                let field = format!("spec.{name}");
                return Err(self.invalid(&field, value, form.expected()));
            }
        }
        Ok(())
    }
}

/// The JSON type of a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Boolean,
    Integer,
    Text,
    Duration,
    IntegerOrText,
    Texts,
    IntegersOrTexts,
    Ports,
    Ranges,
    Timeouts,
}

impl Form {
    fn allows(self, value: &Value) -> bool {
        let each = |allows: fn(&Value) -> bool| {
            value.as_array().is_some_and(|values| values.iter().all(allows))
        };
        match self {
            Self::Boolean => value.is_boolean(),
            Self::Integer => value.is_i64(),
            Self::Text => value.is_string(),
            Self::Duration => value.as_str().is_some_and(|text| crate::time::span(text).is_some()),
            Self::IntegerOrText => value.is_i64() || value.is_string(),
            Self::Texts => each(Value::is_string),
            Self::IntegersOrTexts => each(|value| value.is_i64() || value.is_string()),
            Self::Ports | Self::Ranges | Self::Timeouts => each(Value::is_object),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Boolean => "not a boolean: use true or false, without quotes",
            Self::Integer => "not an integer: use one, without quotes",
            Self::Text => "not text: put it in quotes",
            Self::Duration => "not a duration: use a form such as 90s or 1m30s",
            Self::IntegerOrText => "neither an integer nor text: use one of them",
            Self::Texts => "not a list of texts: use a form such as [\"a\", \"b\"]",
            Self::IntegersOrTexts => "not a list of ports: use a form such as [80, \"90:99\"]",
            Self::Ports => "not a list of ports: use a form such as [{protocol: tcp, port: 22}]",
            Self::Ranges => "not a list of ranges: use a form such as [{min: 1, max: 250}]",
            Self::Timeouts => "not a list: use a form such as [{name: NAME, timeout: 90s}]",
        }
    }

    fn schema(self) -> Value {
        let integer = || json!({"type": "integer", "format": "int64"});
        let text = || json!({"type": "string"});
        let either = || json!({"x-kubernetes-int-or-string": true});
        let list = |items: Value| json!({"type": "array", "items": items});
        let object = |properties: Value| {
            let mut schema =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("properties".to_owned(), properties);
            }
            schema
        };
        match self {
            Self::Boolean => json!({"type": "boolean"}),
            Self::Integer => integer(),
            Self::Text | Self::Duration => text(),
            Self::IntegerOrText => either(),
            Self::Texts => list(text()),
            Self::IntegersOrTexts => list(either()),
            Self::Ports => list(object(json!({
                "net": text(), "port": integer(), "protocol": text(),
            }))),
            Self::Ranges => list(object(json!({"max": integer(), "min": integer()}))),
            Self::Timeouts => list(object(json!({"name": text(), "timeout": text()}))),
        }
    }
}

/// The known fields by the type that they have.
const TABLE: [(Form, &[&str]); 10] = [
    (Form::Boolean, &BOOLEANS),
    (Form::Integer, &INTEGERS),
    (Form::Text, &TEXTS),
    (Form::Duration, &DURATIONS),
    (Form::IntegerOrText, &["natPortRange"]),
    (Form::Texts, &["externalNodesList", "bpfDSROptoutCIDRs", "serviceLoopPreventionCIDRs"]),
    (Form::IntegersOrTexts, &["kubeNodePortRanges"]),
    (Form::Ports, &["failsafeInboundHostPorts", "failsafeOutboundHostPorts"]),
    (Form::Ranges, &["routeTableRanges"]),
    (Form::Timeouts, &["healthTimeoutOverrides"]),
];

const BOOLEANS: [&str; 25] = [
    "allowIPIPPacketsFromWorkloads",
    "allowVXLANPacketsFromWorkloads",
    "bpfDisableUnprivileged",
    "bpfEnabled",
    "bpfKubeProxyIptablesCleanupEnabled",
    "disableConntrackInvalidCheck",
    "endpointReportingEnabled",
    "genericXDPEnabled",
    "healthEnabled",
    "ipipEnabled",
    "ipv6Support",
    "logDebugFilenameRegexEnabled",
    "prometheusGoMetricsEnabled",
    "prometheusMetricsEnabled",
    "prometheusProcessMetricsEnabled",
    "prometheusWireGuardMetricsEnabled",
    "removeExternalRoutes",
    "sidecarAccelerationEnabled",
    "usageReportingEnabled",
    "vxlanEnabled",
    "wireguardEnabled",
    "wireguardEnabledV6",
    "wireguardHostEncryptionEnabled",
    "wireguardStrictMode",
    "xdpEnabled",
];

const INTEGERS: [&str; 28] = [
    "bpfMapSizeConntrack",
    "bpfMapSizeIPSets",
    "bpfMapSizeNATAffinity",
    "bpfMapSizeNATBackend",
    "bpfMapSizeNATFrontend",
    "bpfMapSizeRoute",
    "dataplaneDriverTimeout",
    "deviceRouteProtocol",
    "healthPort",
    "ipipMTU",
    "iptablesMarkMask",
    "ipv4ElevatedRoutePriority",
    "ipv4NormalRoutePriority",
    "ipv6ElevatedRoutePriority",
    "ipv6NormalRoutePriority",
    "maxIpsetSize",
    "metadataPort",
    "nftablesMarkMask",
    "prometheusMetricsPort",
    "vxlanMTU",
    "vxlanMTUV6",
    "vxlanPort",
    "vxlanVNI",
    "wireguardListeningPort",
    "wireguardListeningPortV6",
    "wireguardMTU",
    "wireguardMTUV6",
    "wireguardRoutingRulePriority",
];

const TEXTS: [&str; 47] = [
    "awsSrcDstCheck",
    "bpfConnectTimeLoadBalancing",
    "bpfDataIfacePattern",
    "bpfEnforceRPF",
    "bpfExternalServiceMode",
    "bpfLogLevel",
    "chainInsertMode",
    "defaultEndpointToHostAction",
    "deniedConnectionAction",
    "deviceRouteSourceAddress",
    "deviceRouteSourceAddressIPv6",
    "endpointStatusPathPrefix",
    "featureDetectOverride",
    "floatingIPs",
    "flowLogsGoldmaneServer",
    "flowLogsLocalReporter",
    "flowLogsPolicyEvaluationMode",
    "healthHost",
    "interfaceExclude",
    "interfacePrefix",
    "ipForwarding",
    "iptablesBackend",
    "iptablesFilterAllowAction",
    "iptablesFilterDenyAction",
    "iptablesMangleAllowAction",
    "iptablesNATOutgoingInterfaceFilter",
    "localSubnetL2Reachability",
    "logFilePath",
    "logPrefix",
    "logSeverityFile",
    "logSeverityScreen",
    "logSeveritySys",
    "metadataAddr",
    "mtuIfacePattern",
    "natOutgoingAddress",
    "natOutgoingExclusions",
    "nftablesFilterAllowAction",
    "nftablesFilterDenyAction",
    "nftablesMangleAllowAction",
    "nftablesMode",
    "nodeSelector",
    "policySyncPathPrefix",
    "programClusterRoutes",
    "prometheusMetricsHost",
    "routeSource",
    "serviceLoopPrevention",
    "workloadSourceSpoofing",
];

const DURATIONS: [&str; 13] = [
    "flowLogsFlushInterval",
    "interfaceRefreshInterval",
    "ipsetsRefreshInterval",
    "iptablesRefreshInterval",
    "netlinkTimeout",
    "nftablesRefreshInterval",
    "reportingInterval",
    "reportingTTL",
    "routeRefreshInterval",
    "usageReportingInitialDelay",
    "usageReportingInterval",
    "wireguardKeepAlive",
    "xdpRefreshInterval",
];

impl Schema for FelixConfigurationSpec {
    fn schema() -> Value {
        let known = TABLE
            .iter()
            .flat_map(|(form, names)| names.iter().map(|name| ((*name).to_owned(), form.schema())));
        let properties: Map<String, Value> = known.collect();
        let mut schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("properties".to_owned(), properties.into());
        }
        schema
    }
}
