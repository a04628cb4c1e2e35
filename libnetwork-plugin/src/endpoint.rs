//! Endpoints: what they are called, and the object that each has.

use std::collections::BTreeMap;

use api::{LIBNETWORK, WorkloadEndpoint, WorkloadEndpointSpec, WorkloadPortSpec};
use model::id::NodeName;
use model::net::IfName;

use crate::docker::Attachment;
use crate::error::Error;
use crate::profile;
use crate::settings::Settings;
use crate::state::Published;

/// How many characters of an endpoint's id are in the name of its interface.
const DIGITS: usize = 11;
/// Where a container's labels for policies are.
const LABEL: &str = "org.projectcalico.label.";

/// The names of a pair of interfaces: the host's, and the one that Docker moves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PairNames {
    /// The host's side.
    pub(crate) host: IfName,
    /// The container's side, until Docker calls it otherwise.
    pub(crate) container: IfName,
}

/// Returns the names of an endpoint's interfaces, as Calico's plugin forms them.
///
/// # Errors
///
/// [`Error::Wrong`] if the id is none of Docker's.
pub(crate) fn pair_names(endpoint: &str) -> Result<PairNames, Error> {
    check_id(endpoint)?;
    let named = |prefix: &str| {
        let digits = endpoint.get(..DIGITS).unwrap_or(endpoint);
        let name = format!("{prefix}{digits}").parse();
        name.map_err(|error: model::net::InvalidIfName| Error::wrong(error.to_string()))
    };
    Ok(PairNames { host: named("cali")?, container: named("temp")? })
}

/// Ids become parts of the names of interfaces, objects and files.
///
/// # Errors
///
/// [`Error::Wrong`] if it is none of Docker's.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let is_hex = id.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if is_hex && (DIGITS..=64).contains(&id.len()) {
        return Ok(());
    }
    Err(Error::wrong(format!("`{id}` is no id of an endpoint or network of Docker")))
}

/// Returns the name of an endpoint's object.
pub(crate) fn object_name(node: &NodeName, endpoint: &str) -> String {
    let node = node.as_str().replace('-', "--");
    format!("{node}-{LIBNETWORK}-{LIBNETWORK}-{endpoint}")
}

/// What is known of an endpoint from Docker.
#[derive(Clone, Debug)]
pub(crate) struct Known<'a> {
    /// The name of its network.
    pub(crate) network: &'a str,
    /// The container.
    pub(crate) container: &'a str,
    /// The container's labels.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// How it is attached.
    pub(crate) attachment: &'a Attachment,
    /// Its ports that the host publishes.
    pub(crate) ports: &'a [Published],
}

/// Returns a published port; all of an endpoint have one name, by which profiles let them in.
fn port(published: &Published) -> WorkloadPortSpec {
    WorkloadPortSpec {
        name: Some(profile::PUBLISHED.to_owned()),
        protocol: published.protocol.to_uppercase().into(),
        port: i64::from(published.port),
        host_port: Some(i64::from(published.host_port)),
        host_ip: published.host_ip.map(|addr| addr.to_string()),
        ..WorkloadPortSpec::default()
    }
}

/// Returns the object that an endpoint should have.
///
/// Labels that cannot be those of an object are told, and the endpoint has no profile then: who
/// knows what policy should have found it by them.
///
/// # Errors
///
/// [`Error::Wrong`] for what Docker says and cannot be followed.
pub(crate) fn object(settings: &Settings, known: &Known<'_>) -> Result<WorkloadEndpoint, Error> {
    let Known { attachment, .. } = known;
    let names = pair_names(&attachment.endpoint)?;
    let mut labels = BTreeMap::new();
    let mut is_labelled = true;
    if settings.labels_endpoints {
        for (name, value) in known.labels {
            let Some(name) = name.strip_prefix(LABEL) else { continue };
            if is_label(name, value) {
                labels.insert(name.to_owned(), value.clone());
            } else {
                is_labelled = false;
                tracing::error!(
                    container = known.container,
                    "label {LABEL}{name}={value} is none of Kubernetes: use at most 63 letters, \
                     digits, `-`, `_` and `.`; the container has no network until then"
                );
            }
        }
    }
    labels.insert(
        api::names::HOSTNAME_HASH_LABEL.to_owned(),
        api::names::hostname_hash(settings.node.as_str()),
    );
    let profiles = if settings.creates_profiles && is_labelled {
        vec![profile::name(known.network)]
    } else {
        Vec::new()
    };
    let bare = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    let nets = [(&attachment.ipv4, 32), (&attachment.ipv6, 128)];
    let nets = nets.into_iter().filter(|(text, _)| !text.is_empty());
    let spec = WorkloadEndpointSpec {
        orchestrator: Some(LIBNETWORK.to_owned()),
        workload: Some(LIBNETWORK.to_owned()),
        node: Some(settings.node.to_string()),
        container_id: Some(known.container.to_owned()),
        endpoint: Some(attachment.endpoint.clone()),
        ip_networks: Some(nets.map(|(text, len)| format!("{}/{len}", bare(text))).collect()),
        profiles: Some(profiles),
        interface_name: Some(names.host.to_string()),
        mac: Some(attachment.mac.clone()).filter(|mac| !mac.is_empty()),
        ports: (!known.ports.is_empty()).then(|| known.ports.iter().map(port).collect()),
        ..WorkloadEndpointSpec::default()
    };
    let name = object_name(&settings.node, &attachment.endpoint);
    let mut object = WorkloadEndpoint::named(name, spec);
    object.metadata.namespace = Some(LIBNETWORK.to_owned());
    object.metadata.labels = Some(labels);
    Ok(object)
}

/// May an object have the label (Kubernetes, "Labels and Selectors")?
fn is_label(name: &str, value: &str) -> bool {
    let (prefix, name) =
        name.split_once('/').map_or((None, name), |(prefix, name)| (Some(prefix), name));
    let is_inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let is_word = |text: &str| {
        let bytes = text.as_bytes();
        let are_ends_fine = [bytes.first(), bytes.last()]
            .into_iter()
            .all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
        bytes.len() <= 63 && are_ends_fine && bytes.iter().copied().all(is_inner)
    };
    prefix.is_none_or(model::id::is_dns_subdomain)
        && is_word(name)
        && (value.is_empty() || is_word(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f6c8b6d1a2b3c4d5e6f0f6c8b6d1a2b3c4d5e6f0f6c8b6d1a2b3c4d5e6f0011";

    fn object_of(labels: &[(&str, &str)]) -> WorkloadEndpoint {
        let settings = Settings::read("node-1".parse().unwrap(), |_| None).unwrap();
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let attachment = Attachment {
            endpoint: ID.to_owned(),
            mac: "02:42:0a:00:00:05".to_owned(),
            ipv4: "10.0.0.5/16".to_owned(),
            ipv6: "fd00::5/64".to_owned(),
        };
        let ports =
            [Published { protocol: "tcp".to_owned(), host_ip: None, host_port: 8080, port: 80 }];
        let known = Known {
            network: "web",
            container: "c1",
            labels: &labels,
            attachment: &attachment,
            ports: &ports,
        };
        object(&settings, &known).unwrap()
    }

    #[test]
    fn an_endpoint_is_what_calicos_plugin_made_of_it() {
        let object = object_of(&[("org.projectcalico.label.role", "db"), ("other", "x")]);
        assert_eq!(object.name(), format!("node--1-libnetwork-libnetwork-{ID}"));
        assert_eq!(object.metadata.namespace.as_deref(), Some("libnetwork"));
        let endpoint = model::endpoint::WorkloadEndpoint::try_from(&object).unwrap();
        assert_eq!(endpoint.if_name.as_str(), "cali0f6c8b6d1a2");
        let addrs: Vec<String> = endpoint.addrs.iter().map(ToString::to_string).collect();
        assert_eq!(addrs, ["10.0.0.5", "fd00::5"]);
        assert_eq!(endpoint.profiles, ["web"]);
        let [port] = &endpoint.ports[..] else { panic!("{:?}", endpoint.ports) };
        assert_eq!((port.name.as_str(), port.protocol, port.port), ("published", 6, 80));
        assert_eq!(endpoint.labels.get("role").map(String::as_str), Some("db"));
        assert!(!endpoint.labels.contains_key("other"));
    }

    #[test]
    fn a_label_that_cannot_be_closes_the_endpoint() {
        for (name, value) in [("a b", "x"), ("a", "x y"), ("-a", "x"), ("A/b/c", "x")] {
            assert!(!is_label(name, value), "{name}={value}");
            let object = object_of(&[(&format!("org.projectcalico.label.{name}"), value)]);
            assert_eq!(object.spec.profiles, Some(Vec::new()), "{name}={value}");
        }
        for (name, value) in [("a", ""), ("example.com/A_b", "x.Y-1")] {
            assert!(is_label(name, value), "{name}={value}");
        }
    }

    #[test]
    fn ids_that_are_none_reach_no_file_and_no_interface() {
        for wrong in ["", "../../etc/passwd", "0F6c8b6d1a2b", "short", &"a".repeat(65)] {
            assert!(pair_names(wrong).is_err(), "{wrong}");
        }
    }
}
