//! The network configuration that a plugin gets on standard input (CNI spec §1).
//!
//! [`NetworkConfig::parse`] reads what we use into typed fields and keeps the
//! whole object besides, because a delegate must get all of it.

mod fields;
mod sections;

pub(crate) use fields::Fields;
pub use sections::{
    Bandwidth, ContainerSettings, FeatureControl, Ipam, Kubernetes, LogLevel, Logging, Nodename,
    Rate, RuntimeConfig, ValidAttachment, unicast_mac,
};

use std::path::PathBuf;
use std::time::Duration;

use model::net::Mtu;
use serde_json::{Map, Value};

use crate::environment::is_cni_name;
use crate::error::{Error, ErrorCode};
use crate::result::{InvalidResult, Success};
use crate::secret::Secret;
use crate::version::{UnsupportedVersion, Version};

/// The most bytes that a configuration may have.
pub const MAX_LEN: usize = 1 << 20;

/// A network configuration.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// `cniVersion`.
    pub version: Version,
    /// `name`: the network.
    pub name: String,
    /// `type`: the plugin that it is for.
    pub plugin_type: String,
    /// `ipam`, if addresses are to be given out.
    pub ipam: Option<Ipam>,
    /// `policy.type` is `k8s`: the workloads are pods.
    pub has_kubernetes_policy: bool,
    /// `kubernetes`, with `policy.k8s_…` where it is silent.
    pub kubernetes: Kubernetes,
    /// `mtu`; `None` leaves it to the node's MTU file.
    pub mtu: Option<Mtu>,
    /// `require_mtu_file`: fail if neither `mtu` nor the MTU file says an MTU.
    pub is_mtu_file_required: bool,
    /// `nodename…`: what this node is called.
    pub nodename: Nodename,
    /// `log_…`.
    pub logging: Logging,
    /// `feature_control`.
    pub feature_control: FeatureControl,
    /// `container_settings`.
    pub container_settings: ContainerSettings,
    /// `include_default_routes`: listed routes come besides the default ones.
    pub includes_default_routes: bool,
    /// `readiness_gates`: URLs that must answer before an ADD starts.
    pub readiness_gates: Vec<String>,
    /// `policy_setup_timeout_seconds`: how long ADD waits for policy; `None` not at all.
    pub policy_setup_timeout: Option<Duration>,
    /// `endpoint_status_dir`: where the node daemon says which policy is in place.
    pub endpoint_status_dir: PathBuf,
    /// `ipam_lock_file`.
    pub ipam_lock_file: PathBuf,
    /// `runtimeConfig`, and `args.cni`.
    pub runtime: RuntimeConfig,
    /// `cni.dev/valid-attachments`: what GC must leave alone. Absent is not empty.
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    /// `prevResult`, if there is one.
    pub prev_result: Option<Success>,
    raw: Secret<Map<String, Value>>,
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidConfig {
    /// It is longer than [`MAX_LEN`].
    #[error(
        "network configuration is longer than {MAX_LEN} bytes: the caller must send one configuration on standard input"
    )]
    TooLong,
    /// It is no JSON object.
    #[error(
        "network configuration is no JSON object ({0}): the caller must send one on standard input"
    )]
    Syntax(String),
    /// Its version is not ours.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// A key that it needs is absent.
    #[error("network configuration has no `{0}`: add it")]
    Missing(String),
    /// A value is wrong.
    #[error("network configuration has `{path}` = {value}: {remedy}")]
    Value {
        /// The key, with those that lead to it.
        path: String,
        /// The value.
        value: String,
        /// What it should be.
        remedy: String,
    },
    /// A value asks for something that we do not do.
    #[error("network configuration has `{path}` = {value}, which is not supported: {remedy}")]
    Unsupported {
        /// The key.
        path: String,
        /// The value.
        value: String,
        /// What to do.
        remedy: String,
    },
    /// The previous result cannot be read.
    #[error("network configuration has a wrong `prevResult`")]
    PrevResult(#[from] InvalidResult),
}

impl InvalidConfig {
    /// Returns the code that the runtime gets.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLong | Self::Syntax(_) | Self::PrevResult(_) => ErrorCode::Decode,
            Self::Version(_) => ErrorCode::IncompatibleVersion,
            Self::Unsupported { .. } => ErrorCode::UnsupportedField,
            Self::Missing(_) | Self::Value { .. } => ErrorCode::InvalidConfig,
        }
    }
}

impl From<InvalidConfig> for Error {
    fn from(error: InvalidConfig) -> Self {
        let details = std::error::Error::source(&error).map(ToString::to_string);
        Self::new(error.code(), error.to_string()).with_details(details.unwrap_or_default())
    }
}

impl NetworkConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] at the first thing that is wrong.
    pub fn parse(stdin: &[u8]) -> Result<Self, InvalidConfig> {
        let raw = read_object(stdin)?;
        let fields = Fields::new("", &raw);
        let version = version_of(&fields)?;
        let previous = fields.object("prevResult")?;
        let policy = fields.object("policy")?;
        let policy = policy.map(|policy| Fields::new("policy", policy));
        let text = |key, default: &str| -> Result<PathBuf, InvalidConfig> {
            Ok(fields.text(key)?.unwrap_or(default).into())
        };
        refuse_unsupported(&fields)?;
        Ok(Self {
            version,
            name: name_of(&fields)?,
            plugin_type: plugin_type_of(&fields)?,
            ipam: fields.object("ipam")?.map(Ipam::read).transpose()?.flatten(),
            has_kubernetes_policy: sections::is_kubernetes(policy.as_ref())?,
            kubernetes: Kubernetes::read(fields.object("kubernetes")?, policy.as_ref())?,
            mtu: fields.number("mtu", 65_535)?.filter(|mtu| *mtu != 0).map(Mtu),
            is_mtu_file_required: fields.truth("require_mtu_file")?.unwrap_or(false),
            nodename: Nodename::read(&fields)?,
            logging: Logging::read(&fields)?,
            feature_control: FeatureControl::read(fields.object("feature_control")?)?,
            container_settings: ContainerSettings::read(fields.object("container_settings")?)?,
            includes_default_routes: fields.truth("include_default_routes")?.unwrap_or(false),
            readiness_gates: fields.texts("readiness_gates")?,
            policy_setup_timeout: fields
                .number("policy_setup_timeout_seconds", 3600)?
                .filter(|secs| *secs != 0)
                .map(|secs| Duration::from_secs(secs.into())),
            endpoint_status_dir: text("endpoint_status_dir", "/var/run/calico/endpoint-status")?,
            ipam_lock_file: text("ipam_lock_file", "/var/run/calico/ipam.lock")?,
            runtime: RuntimeConfig::read(&fields)?,
            valid_attachments: sections::valid_attachments(&fields)?,
            prev_result: previous.map(|value| Success::read(value, version)).transpose()?,
            raw: Secret::new(raw),
        })
    }

    /// Returns what is accepted, as Calico accepts it, and without effect here.
    #[must_use]
    pub fn ignored(&self) -> Vec<String> {
        let text = |key: &str| self.raw.expose().get(key).and_then(Value::as_str);
        let mut ignored = Vec::new();
        if let Some(mode) = text("mode").filter(|mode| !matches!(*mode, "" | "none")) {
            ignored
                .push(format!("`mode` = \"{mode}\" has no effect: pools say their encapsulation"));
        }
        if self.runtime.has_port_mappings {
            ignored.push(
                "`runtimeConfig.portMappings` has no effect here: declare the capability at a \
                 `portmap` plugin after this one"
                    .to_owned(),
            );
        }
        ignored
    }

    /// Returns the whole configuration, which may hold secrets.
    #[must_use]
    pub const fn raw(&self) -> &Secret<Map<String, Value>> {
        &self.raw
    }
}

/// Returns the version to answer in, even if the rest of `stdin` is wrong.
#[must_use]
pub fn version_to_answer(stdin: &[u8]) -> Version {
    let raw = read_object(stdin).unwrap_or_default();
    match raw.get("cniVersion") {
        None if raw.is_empty() => Version::NEWEST,
        None => Version::UNSTATED,
        Some(_) => version_of(&Fields::new("", &raw)).unwrap_or(Version::NEWEST),
    }
}

/// Is `text` a file name that a plugin may have: no path, so that no other
/// directory than those of `CNI_PATH` is searched (CVE-2021-20206)?
#[must_use]
pub fn is_plugin_type(text: &str) -> bool {
    let is_odd = |c: char| c == '/' || c == '\\' || c.is_control() || c.is_whitespace();
    !text.is_empty() && !text.contains("..") && text != "." && !text.contains(is_odd)
}

pub(crate) fn read_object(text: &[u8]) -> Result<Map<String, Value>, InvalidConfig> {
    if text.len() > MAX_LEN {
        return Err(InvalidConfig::TooLong);
    }
    // The error's own text may quote a value, which may be a secret; its place may not.
    let syntax = |error: &serde_json::Error| match (error.is_data(), text.is_empty()) {
        (_, true) => InvalidConfig::Syntax("it is empty".to_owned()),
        (true, false) => InvalidConfig::Syntax("it is another kind of value".to_owned()),
        (false, false) => InvalidConfig::Syntax(format!(
            "syntax error at line {} column {}",
            error.line(),
            error.column()
        )),
    };
    serde_json::from_slice(text).map_err(|error| syntax(&error))
}

pub(crate) fn version_of(fields: &Fields<'_>) -> Result<Version, InvalidConfig> {
    let text = fields.text("cniVersion")?;
    Ok(text.map(str::parse).transpose()?.unwrap_or(Version::UNSTATED))
}

pub(crate) fn name_of(fields: &Fields<'_>) -> Result<String, InvalidConfig> {
    let name = fields.text("name")?.ok_or_else(|| InvalidConfig::Missing("name".to_owned()))?;
    if is_cni_name(name) {
        Ok(name.to_owned())
    } else {
        Err(fields.wrong("name", "use a letter or digit, then letters, digits, `_`, `.` or `-`"))
    }
}

pub(crate) fn plugin_type_of(fields: &Fields<'_>) -> Result<String, InvalidConfig> {
    let name = fields.text("type")?.ok_or_else(|| InvalidConfig::Missing(fields.name("type")))?;
    if is_plugin_type(name) {
        Ok(name.to_owned())
    } else {
        Err(fields.wrong("type", "use the name of a program in CNI_PATH, without any path"))
    }
}

/// Refuses what would otherwise be ignored in silence.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), InvalidConfig> {
    let refuse = |key: &str, value: &str, remedy: &str| InvalidConfig::Unsupported {
        path: key.to_owned(),
        value: format!("\"{value}\""),
        remedy: remedy.to_owned(),
    };
    match fields.text("datastore_type")? {
        None | Some("kubernetes") => {}
        Some(other) => return Err(refuse("datastore_type", other, "use \"kubernetes\"")),
    }
    match fields.text("device_type")? {
        None | Some("veth") => {}
        Some(other) => return Err(refuse("device_type", other, "use \"veth\"")),
    }
    match fields.text("calico_api_group")? {
        None | Some("crd.projectcalico.org/v1") => {}
        Some(other) => {
            return Err(refuse("calico_api_group", other, "use \"crd.projectcalico.org/v1\""));
        }
    }
    if let Some(options) = fields.object("dataplane_options")? {
        let kind = Fields::new("dataplane_options", options).text("type")?.unwrap_or_default();
        if !kind.is_empty() {
            return Err(refuse("dataplane_options.type", kind, "remove `dataplane_options`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
