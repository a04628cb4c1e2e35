//! The objects inside a network configuration.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::net::MacAddr;
use serde_json::{Map, Value, json};

use super::{Fields, InvalidConfig, plugin_type_of};
use crate::secret::Secret;

type Object = Map<String, Value>;

/// Where Calico looks for the server if a configuration has credentials only.
const DEFAULT_API_ROOT: &str = "https://10.100.0.1:443";

/// `ipam`: which plugin gives out addresses, and which.
#[derive(Clone, Debug)]
pub struct Ipam {
    /// `type`: the plugin.
    pub plugin_type: String,
    /// `assign_ipv4`: an IPv4 address is wanted; true unless said otherwise.
    pub assigns_ipv4: bool,
    /// `assign_ipv6`: an IPv6 address is wanted; false unless said otherwise.
    pub assigns_ipv6: bool,
    /// `ipv4_pools`: names or CIDRs of the pools to take from; empty means all that fit.
    pub ipv4_pools: Vec<String>,
    /// `ipv6_pools`.
    pub ipv6_pools: Vec<String>,
    /// `honor_pool_selectors`: also pools and addresses that are asked for must select the
    /// node and the namespace. False unless said otherwise, as in Calico, which has no such key.
    pub honors_selectors: bool,
    /// `vrf`, as the plugin `calico` says it for a pod's namespace: whose pools count.
    pub vrf: Option<String>,
    /// `subnet`, for `host-local`: a CIDR, `usePodCidr` or `usePodCidrIPv6`.
    pub subnet: Option<String>,
    /// `routes[].dst`: what the container should reach instead of everything.
    pub routes: Vec<String>,
}

impl Ipam {
    /// Reads `ipam`; an empty object, or one without a type, is `None`.
    pub(super) fn read(object: &Object) -> Result<Option<Self>, InvalidConfig> {
        let fields = Fields::new("ipam", object);
        if fields.text("type")?.is_none() {
            return Ok(None);
        }
        let dst = |route| {
            let fields = Fields::new("ipam.routes[]", route);
            let dst = fields.text("dst")?.ok_or_else(|| InvalidConfig::Missing(fields.name("dst")));
            dst.map(str::to_owned)
        };
        Ok(Some(Self {
            plugin_type: plugin_type_of(&fields)?,
            assigns_ipv4: fields.truth("assign_ipv4")?.unwrap_or(true),
            assigns_ipv6: fields.truth("assign_ipv6")?.unwrap_or(false),
            ipv4_pools: fields.texts("ipv4_pools")?,
            ipv6_pools: fields.texts("ipv6_pools")?,
            honors_selectors: fields.truth("honor_pool_selectors")?.unwrap_or(false),
            vrf: fields.text("vrf")?.map(str::to_owned),
            subnet: fields.text("subnet")?.map(str::to_owned),
            routes: fields.objects("routes")?.into_iter().map(dst).collect::<Result<_, _>>()?,
        }))
    }
}

/// `kubernetes`: how to reach the API server.
#[derive(Clone, Debug, Default)]
pub struct Kubernetes {
    /// `kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `k8s_api_root`: the server's URL, if there is no kubeconfig.
    pub api_root: Option<String>,
    /// `node_name`.
    pub node_name: Option<String>,
    /// `policy.k8s_auth_token`: a bearer token, if there is no kubeconfig.
    pub token: Option<Secret<String>>,
    /// `policy.k8s_certificate_authority`: a file.
    pub authority: Option<String>,
    /// `policy.k8s_client_certificate` and `policy.k8s_client_key`: files.
    pub certificate: Option<(String, String)>,
}

impl Kubernetes {
    pub(super) fn read(
        object: Option<&Object>,
        policy: Option<&Fields<'_>>,
    ) -> Result<Self, InvalidConfig> {
        let empty = Object::new();
        let fields = Fields::new("kubernetes", object.unwrap_or(&empty));
        let of_policy = |key| policy.map_or(Ok(None), |policy| policy.text(key));
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self {
            kubeconfig: fields.text("kubeconfig")?.map(PathBuf::from),
            api_root: owned(fields.text("k8s_api_root")?.or(of_policy("k8s_api_root")?)),
            node_name: owned(fields.text("node_name")?),
            token: owned(of_policy("k8s_auth_token")?).map(Secret::new),
            authority: owned(of_policy("k8s_certificate_authority")?),
            certificate: owned(of_policy("k8s_client_certificate")?)
                .zip(owned(of_policy("k8s_client_key")?)),
        })
    }

    /// Does the configuration itself say where the server is or who we are there?
    #[must_use]
    pub const fn is_written_out(&self) -> bool {
        self.api_root.is_some() || self.token.is_some()
    }

    /// Returns what the configuration itself says, as a kubeconfig.
    #[must_use]
    pub fn to_kubeconfig(&self) -> Secret<String> {
        let (certificate, key) = self.certificate.clone().unzip();
        let token = self.token.as_ref().map(Secret::expose);
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "calico",
            "clusters": [{"name": "calico", "cluster": {
                "server": self.api_root.as_deref().unwrap_or(DEFAULT_API_ROOT),
                "certificate-authority": self.authority,
            }}],
            "users": [{"name": "calico", "user": {
                "token": token, "client-certificate": certificate, "client-key": key,
            }}],
            "contexts": [{"name": "calico", "context": {"cluster": "calico", "user": "calico"}}],
        });
        Secret::new(text.to_string())
    }
}

pub(super) fn is_kubernetes(policy: Option<&Fields<'_>>) -> Result<bool, InvalidConfig> {
    let kind = policy.map(|policy| policy.text("type")).transpose()?.flatten();
    Ok(kind == Some("k8s"))
}

/// What the runtime says besides, by the capabilities that the configuration declares
/// (CNI conventions, "Dynamic Plugin specific fields").
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RuntimeConfig {
    /// `args.cni.ips`, or else `runtimeConfig.ips`: addresses that the container should get.
    pub addrs: Vec<IpAddr>,
    /// `runtimeConfig.mac`: the Ethernet address that the container should get.
    pub mac: Option<MacAddr>,
    /// `runtimeConfig.ipRanges` says something; it is for IPAM plugins that know ranges.
    pub has_ranges: bool,
    /// `runtimeConfig.portMappings` says something; it is for a `portmap` later in the chain.
    pub has_port_mappings: bool,
    /// `runtimeConfig.bandwidth`.
    pub bandwidth: Bandwidth,
}

/// How fast a container may receive and send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bandwidth {
    /// What comes to the container.
    pub ingress: Option<Rate>,
    /// What comes from it.
    pub egress: Option<Rate>,
}

/// A rate, and how much may go at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// In bits per second.
    pub rate: u64,
    /// In bits.
    pub burst: u64,
}

impl RuntimeConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, InvalidConfig> {
        let addrs = requested_addrs(fields)?;
        let Some(object) = fields.object("runtimeConfig")? else {
            return Ok(Self { addrs, ..Self::default() });
        };
        let fields = Fields::new("runtimeConfig", object);
        let mac = fields.text("mac")?.map(|text| {
            unicast_mac(text)
                .ok_or_else(|| fields.wrong("mac", "use an address such as 02:00:00:00:00:01"))
        });
        let is_full =
            |key| fields.value(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        Ok(Self {
            addrs,
            mac: mac.transpose()?,
            has_ranges: is_full("ipRanges"),
            has_port_mappings: is_full("portMappings"),
            bandwidth: Bandwidth::read(fields.object("bandwidth")?)?,
        })
    }
}

impl Bandwidth {
    fn read(object: Option<&Object>) -> Result<Self, InvalidConfig> {
        let empty = Object::new();
        let fields = Fields::new("runtimeConfig.bandwidth", object.unwrap_or(&empty));
        let number = |key| match fields.value(key) {
            None => Ok(0),
            Some(value) => value
                .as_u64()
                .ok_or_else(|| fields.wrong(key, "use a whole number of bits, not negative")),
        };
        let rate = |rate, burst| -> Result<Option<Rate>, InvalidConfig> {
            let rate = Rate { rate: number(rate)?, burst: number(burst)? };
            // Runtimes write zeros for what nobody asks for.
            Ok(Some(rate).filter(|rate| rate.rate > 0))
        };
        Ok(Self {
            ingress: rate("ingressRate", "ingressBurst")?,
            egress: rate("egressRate", "egressBurst")?,
        })
    }
}

/// Reads an Ethernet address that an interface may have: the kernel gives no link a group
/// address (IEEE 802: lowest bit of the first byte).
#[must_use]
pub fn unicast_mac(text: &str) -> Option<MacAddr> {
    let mac: MacAddr = text.to_lowercase().replace('-', ":").parse().ok()?;
    (mac.0[0] & 1 == 0 && mac.0 != [0; 6]).then_some(mac)
}

/// `nodename…`: what this node is called; the first that says it counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nodename {
    /// `nodename`.
    pub configured: Option<String>,
    /// `nodename_file`, which the node daemon writes when it is ready.
    pub file: PathBuf,
    /// `hostname`, the older key.
    pub hostname: Option<String>,
    /// `nodename_file_optional`: do without the file.
    pub is_file_optional: bool,
}

impl Nodename {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, InvalidConfig> {
        let name = |key| match fields.text(key)? {
            Some(name) if !model::id::is_dns_subdomain(name) => {
                Err(fields.wrong(key, "use the name of a Kubernetes node"))
            }
            name => Ok(name.map(str::to_owned)),
        };
        Ok(Self {
            configured: name("nodename")?,
            hostname: name("hostname")?,
            file: fields.text("nodename_file")?.unwrap_or("/var/lib/calico/nodename").into(),
            is_file_optional: fields.truth("nodename_file_optional")?.unwrap_or(false),
        })
    }
}

/// `log_…`: what is logged and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Logging {
    /// `log_level`.
    pub level: LogLevel,
    /// `log_file_path`; `None` logs to standard error only.
    pub file: Option<PathBuf>,
    /// `log_file_max_size`, in megabytes.
    pub max_size: u32,
    /// `log_file_max_age`.
    pub max_age: Duration,
    /// `log_file_max_count`: how many old files are kept.
    pub max_count: u32,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And what was done.
    Info,
    /// And why.
    Debug,
}

impl Logging {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, InvalidConfig> {
        let level = match fields.text("log_level")?.unwrap_or("info").to_lowercase().as_str() {
            "error" | "fatal" | "panic" => LogLevel::Error,
            "warning" | "warn" => LogLevel::Warning,
            "info" => LogLevel::Info,
            "debug" | "trace" => LogLevel::Debug,
            _ => return Err(fields.wrong("log_level", "use debug, info, warning or error")),
        };
        let days = fields.number("log_file_max_age", 36_500)?.unwrap_or(30);
        Ok(Self {
            level,
            file: fields.text("log_file_path")?.map(PathBuf::from),
            max_size: fields.number("log_file_max_size", 1 << 20)?.unwrap_or(100),
            max_age: Duration::from_secs(u64::from(days).saturating_mul(86_400)),
            max_count: fields.number("log_file_max_count", 10_000)?.unwrap_or(10),
        })
    }
}

/// `feature_control`: what pods may ask for by annotation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FeatureControl {
    /// `ip_addrs_no_ipam`: any address at all.
    pub allows_addrs_without_ipam: bool,
    /// `floating_ips`.
    pub allows_floating_ips: bool,
}

impl FeatureControl {
    pub(super) fn read(object: Option<&Object>) -> Result<Self, InvalidConfig> {
        let empty = Object::new();
        let fields = Fields::new("feature_control", object.unwrap_or(&empty));
        Ok(Self {
            allows_addrs_without_ipam: fields.truth("ip_addrs_no_ipam")?.unwrap_or(false),
            allows_floating_ips: fields.truth("floating_ips")?.unwrap_or(false),
        })
    }
}

/// `container_settings`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ContainerSettings {
    /// `allow_ip_forwarding`: the container may forward packets.
    pub allows_forwarding: bool,
}

impl ContainerSettings {
    pub(super) fn read(object: Option<&Object>) -> Result<Self, InvalidConfig> {
        let empty = Object::new();
        let fields = Fields::new("container_settings", object.unwrap_or(&empty));
        Ok(Self { allows_forwarding: fields.truth("allow_ip_forwarding")?.unwrap_or(false) })
    }
}

/// An attachment that the runtime still knows (CNI spec 1.1 §2 "GC").
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValidAttachment {
    /// `containerID`.
    pub container_id: String,
    /// `ifname`.
    pub if_name: String,
}

/// Reads what GC must leave alone.
pub(super) fn valid_attachments(
    fields: &Fields<'_>,
) -> Result<Option<Vec<ValidAttachment>>, InvalidConfig> {
    const KEY: &str = "cni.dev/valid-attachments";
    if fields.value(KEY).is_none_or(Value::is_null) {
        return Ok(None);
    }
    let read = |object| {
        let fields = Fields::new("cni.dev/valid-attachments[]", object);
        let need = |key| {
            let text = fields.text(key)?.filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| InvalidConfig::Missing(fields.name(key)))
        };
        Ok(ValidAttachment { container_id: need("containerID")?, if_name: need("ifname")? })
    };
    fields.objects(KEY)?.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// Reads the addresses that were asked for; `args` wins over `runtimeConfig`
/// (CNI conventions).
fn requested_addrs(fields: &Fields<'_>) -> Result<Vec<IpAddr>, InvalidConfig> {
    let args = fields.object("args")?;
    let args = args.map(|args| Fields::new("args", args).object("cni")).transpose()?.flatten();
    let sources = [("args.cni", args), ("runtimeConfig", fields.object("runtimeConfig")?)];
    for (path, object) in sources {
        let Some(object) = object else { continue };
        let fields = Fields::new(path, object);
        let texts = fields.texts("ips")?;
        // The conventions allow a prefix length, which is the pool's business.
        let addr = |text: &String| text.split('/').next().unwrap_or_default().parse().ok();
        let addrs: Option<Vec<_>> = texts.iter().map(addr).collect();
        let addrs = addrs.ok_or_else(|| fields.wrong("ips", "use IPv4 or IPv6 addresses"))?;
        if !addrs.is_empty() {
            return Ok(addrs);
        }
    }
    Ok(Vec::new())
}
