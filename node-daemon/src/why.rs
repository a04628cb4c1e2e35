//! `calico-node why POD POD tcp/443`: what becomes of a connection, and by which rule.
//!
//! It asks the datastore, not the daemon, so that it tells what should be; the
//! judge is the one that the tests hold the kernel's packets against. Beside it
//! stands what this node's kernel has counted of the rule that decides.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use api::kubernetes::ClusterNetworkPolicy;
use calc::policy::why::{Crossing, Probe, barrier, connection};
use calc::policy::{Change, Endpoint, Inputs};
use datastore::{Client, Error, Filter, Object, ObjectKey};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::id::{NamespacedName, NodeName};
use model::policy::{PolicyKind, Protocol};

use crate::counters::Counters;
use crate::felix::border::{self, Heard};
use crate::felix::policy::event::Event;
use crate::felix::watch::Scope;

/// What somebody wants to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Question {
    /// Who sends.
    pub(crate) from: Party,
    /// Who receives.
    pub(crate) to: Party,
    /// What is sent.
    pub(crate) traffic: Traffic,
}

/// One end of a connection: `pod`, `namespace/pod` or `hostendpoint:name`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Party(Endpoint);

/// What is sent: `tcp/443`, `udp/53`, `sctp/9`, `icmp`, or a protocol's number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Traffic(Probe);

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("hostendpoint:") {
            return Ok(Self(Endpoint::Host(name.to_owned())));
        }
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err("use POD, NAMESPACE/POD or hostendpoint:NAME".to_owned());
        }
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Self(Endpoint::Workload(NamespacedName { namespace, name })))
    }
}

impl FromStr for Traffic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, port) = match text.split_once('/') {
            Some((protocol, port)) => (protocol, Some(port)),
            None => (text, None),
        };
        let protocol: Protocol = protocol.parse().map_err(|error| format!("{error}"))?;
        let port = match port {
            Some(port) if protocol.has_ports() => {
                port.parse().map_err(|_| format!("`{port}` is no port: use 1 to 65535"))?
            }
            None if protocol.has_ports() => {
                return Err(format!("{protocol} has ports: use {text}/443, for example"));
            }
            Some(_) => return Err(format!("{protocol} has no ports: leave it out")),
            None => 0,
        };
        Ok(Self(Probe { protocol, port }))
    }
}

/// Returns the answer in words.
///
/// # Errors
///
/// What the datastore says, or that an end is unknown.
pub(crate) async fn answer(
    client: &Client,
    node: NodeName,
    question: &Question,
) -> Result<String, String> {
    let inputs = inputs(client, node).await.map_err(|error| error.to_string())?;
    let Question { from: Party(from), to: Party(to), traffic: Traffic(probe) } = question;
    for end in [from, to] {
        if !is_known(&inputs, end) {
            return Err(format!(
                "{end} is unknown: it does not exist, has no address, or uses its host's network"
            ));
        }
    }
    let crossings = connection(&inputs, from, to, *probe);
    if crossings.is_empty() {
        return Err(format!("{from} and {to} have no address of the same family"));
    }
    // Who asks elsewhere, or without rights, learns what should be all the same.
    let counters = Counters::read().unwrap_or_default();
    let words = in_words(&crossings, &counters);
    Ok(match barrier(&inputs, from, to) {
        Some(barrier) => format!("{barrier}\n\n{words}"),
        None => words,
    })
}

fn in_words(crossings: &[Crossing], counters: &Counters) -> String {
    let mut text = String::new();
    for crossing in crossings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{crossing}");
        if let Some(said) = counters.of_decision(&crossing.verdict.decision, crossing.way) {
            let _ = writeln!(text, "  {said}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn is_known(inputs: &Inputs, end: &Endpoint) -> bool {
    match end {
        Endpoint::Workload(pod) => inputs.workloads.contains_key(pod),
        Endpoint::Host(name) => inputs.hosts.contains_key(name),
    }
}

/// Reads everything that decides about packets; both ends are judged, whichever `node` asks.
async fn inputs(client: &Client, node: NodeName) -> Result<Inputs, Error> {
    let scope = Scope { node: node.clone(), interface_prefix: "cali".to_owned() };
    let mut all = Reader { client, inputs: Inputs::new(node) };
    all.read(|key, object| border::endpoint(key, object, &scope)).await?;
    all.read(border::policies::<api::CalicoNetworkPolicy>(PolicyKind::Network)).await?;
    all.read(border::policies::<api::GlobalNetworkPolicy>(PolicyKind::Global)).await?;
    all.read(border::policies::<NetworkPolicy>(PolicyKind::Kubernetes)).await?;
    let cluster_policies = border::policies::<ClusterNetworkPolicy>(PolicyKind::KubernetesCluster);
    all.read_if_known(cluster_policies).await?;
    all.read_if_known(border::workload_endpoint).await?;
    all.read_if_known(border::profile).await?;
    all.read(border::namespace).await?;
    all.read(border::service_account).await?;
    all.read(border::pool).await?;
    all.read(border::tier).await?;
    all.read(border::network_set::<api::NetworkSet>).await?;
    all.read(border::network_set::<api::GlobalNetworkSet>).await?;
    all.read(border::host_endpoint).await?;
    all.read(border::endpoint_slice).await?;
    Ok(all.inputs)
}

struct Reader<'a> {
    client: &'a Client,
    inputs: Inputs,
}

impl Reader<'_> {
    /// Reads a kind that a cluster may be without.
    async fn read_if_known<T: Object>(
        &mut self,
        read: impl Fn(&ObjectKey, Option<&T>) -> Heard,
    ) -> Result<(), Error> {
        match self.read(read).await {
            Ok(()) | Err(Error::UnknownKind { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn read<T: Object>(
        &mut self,
        read: impl Fn(&ObjectKey, Option<&T>) -> Heard,
    ) -> Result<(), Error> {
        for object in self.client.list::<T>(&Filter::default()).await? {
            let heard = read(&ObjectKey::of(object.metadata()), Some(&object));
            match heard.policy {
                Some(Event::Change(change)) => self.inputs.apply(change),
                Some(Event::Pool(name, pool)) => {
                    let pool = pool.map(|pool| Arc::new(*pool));
                    self.inputs.apply(Change::Pool(name, pool));
                }
                Some(Event::Policy(id, known)) => {
                    let policy = known.map(|known| known.policy);
                    self.inputs.apply(Change::Policy(id, policy));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_pods_or_host_endpoints() {
        let pod = |namespace: &str, name: &str| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Ok(Party(Endpoint::Workload(NamespacedName { namespace, name })))
        };
        assert_eq!("web".parse(), pod("default", "web"));
        assert_eq!("shop/web".parse(), pod("shop", "web"));
        assert_eq!("hostendpoint:eth".parse(), Ok(Party(Endpoint::Host("eth".to_owned()))));
        for wrong in ["", "/web", "shop/", "a/b/c"] {
            assert!(wrong.parse::<Party>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn traffic_has_a_port_where_its_protocol_has() {
        let of = |protocol, port| Ok(Traffic(Probe { protocol, port }));
        assert_eq!("tcp/443".parse(), of(Protocol::TCP, 443));
        assert_eq!("icmp".parse(), of(Protocol::ICMP, 0));
        assert_eq!("47".parse(), of(Protocol(47), 0));
        for wrong in ["tcp", "tcp/x", "tcp/65536", "icmp/8", "http/80", ""] {
            assert!(wrong.parse::<Traffic>().is_err(), "{wrong}");
        }
    }
}
