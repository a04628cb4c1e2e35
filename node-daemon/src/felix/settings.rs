//! Settings that change while the daemon runs: the two `FelixConfiguration`s of this node.

use std::collections::BTreeMap;

use api::FelixConfiguration;
use config::value::Switch;
use config::{FelixConfig, Sources};
use datastore::ObjectKey;
use model::desired::RouteProtocol;
use model::id::NodeName;
use model::peer::RoutePriority;
use serde_json::Value;

use super::border::Heard;
use super::event::{Event, RouteSettings};
use super::policy::{self, event::Event as PolicyEvent};
use super::wireguard;
use crate::startup;

/// The settings as they are now, from the environment and the datastore.
#[derive(Debug)]
pub(crate) struct Settings {
    sources: Sources,
    own_name: String,
    cluster: BTreeMap<String, Value>,
    node: BTreeMap<String, Value>,
    current: FelixConfig,
}

impl Settings {
    /// Starts with what was in force when the daemon started.
    pub(crate) fn new(sources: Sources, node: &NodeName, current: FelixConfig) -> Self {
        let own_name = format!("node.{node}");
        let (cluster, node) = (BTreeMap::new(), BTreeMap::new());
        Self { sources, own_name, cluster, node, current }
    }

    /// Takes note of an object, and returns what that changes for routes and policy.
    ///
    /// For what is only read at the start it says that a restart is needed.
    pub(crate) fn take(&mut self, key: &ObjectKey, object: Option<&FelixConfiguration>) -> Heard {
        let fields = object.into_iter().flat_map(FelixConfiguration::fields);
        let fields = fields.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        match key.name.as_str() {
            "default" => self.cluster = fields,
            name if name == self.own_name => self.node = fields,
            _ => return Heard::default(),
        }
        if let Some(Err(invalid)) = object.map(FelixConfiguration::check) {
            tracing::warn!(%invalid, "setting not followed");
        }
        let sources = self.sources.clone().with_cluster(self.cluster.clone());
        let (new, problems) = FelixConfig::resolve(&sources.with_node(self.node.clone()));
        for problem in problems {
            tracing::warn!(%problem, "setting not followed");
        }
        if needs_restart(&self.current, &new) {
            tracing::warn!(object = %key.name, "FelixConfiguration changed: restart calico-node on this node to apply it");
        }
        self.current = new;
        let policy = policy::settings::of(&self.current, workload_prefixes(&self.current));
        Heard {
            routes: Some(Event::Settings(Box::new(routes(&self.current)))),
            policy: Some(PolicyEvent::Settings(Box::new(policy))),
        }
    }
}

/// Does `new` differ from `old` in a setting that is used but only read at the start?
fn needs_restart(old: &FelixConfig, new: &FelixConfig) -> bool {
    old.health != new.health
        || old.metrics != new.metrics
        || old.logging.severity_screen != new.logging.severity_screen
        || old.interfaces.prefix != new.interfaces.prefix
        || old.interfaces.ipv6_support != new.interfaces.ipv6_support
        || old.interfaces.mtu_pattern != new.interfaces.mtu_pattern
        || old.routes.refresh_interval != new.routes.refresh_interval
        || old.reporting.endpoint_status_path != new.reporting.endpoint_status_path
        || old.dataplane.nftables_refresh != new.dataplane.nftables_refresh
}

/// Returns how the names of workload interfaces start; never empty.
pub(crate) fn workload_prefixes(settings: &FelixConfig) -> Vec<String> {
    let prefixes = settings.interfaces.prefix.iter();
    let prefixes: Vec<String> = prefixes.map(|prefix| prefix.as_str().to_owned()).collect();
    if prefixes.is_empty() { vec!["cali".to_owned()] } else { prefixes }
}

/// Returns the settings of routes and tunnels.
pub(crate) fn routes(settings: &FelixConfig) -> RouteSettings {
    RouteSettings {
        device_route_protocol: device_protocol(settings),
        priority: priority(settings),
        table_ranges: settings
            .routes
            .table_ranges
            .iter()
            .map(|range| range.first..=range.last)
            .collect(),
        has_floating: settings.interfaces.floating_ips == Switch::Enabled,
        tunnels: startup::mtu::tunnels(settings),
        wireguard: wireguard::settings::of(settings),
        wireguard_places: wireguard::settings::places(settings),
    }
}

/// Returns the protocol number of local workloads' routes.
pub(crate) fn device_protocol(settings: &FelixConfig) -> RouteProtocol {
    let number = u8::try_from(settings.routes.device_protocol.get());
    number.map_or(RouteProtocol::BOOT, RouteProtocol)
}

fn priority(settings: &FelixConfig) -> RoutePriority {
    RoutePriority {
        v4: settings.routes.ipv4_normal_priority.get(),
        v6: settings.routes.ipv6_normal_priority.get(),
    }
}
