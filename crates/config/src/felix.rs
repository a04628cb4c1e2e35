//! What Calico calls Felix configuration: `FELIX_…`, `felix.cfg` and `FelixConfiguration`.

mod dataplane;
mod encapsulation;
mod observe;
mod policy;
mod routes;

pub use dataplane::{Bpf, Dataplane};
pub use encapsulation::{Encapsulation, Wireguard};
pub use observe::{FlowLogs, Health, Logging, Metrics, Reporting};
pub use policy::{Failsafe, Nat, Policy};
pub use routes::{Interfaces, Routes};

use crate::source::{Problem, Sources};
use crate::table::{Group, Parameter};

/// Declares [`FelixConfig`] once, with everything that walks over its groups.
macro_rules! felix_config {
    ($($(#[doc = $doc:literal])+ $field:ident: $group:ty,)+) => {
        /// All settings of Felix, by group.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct FelixConfig {
            $($(#[doc = $doc])+ pub $field: $group,)+
        }

        impl FelixConfig {
            /// Reads all settings and reports those that could not be taken as they are.
            #[must_use]
            pub fn resolve(sources: &Sources) -> (Self, Vec<Problem>) {
                let mut problems = Vec::new();
                let config = Self { $($field: Group::read(sources, &mut problems),)+ };
                let groups = Self::groups();
                let parameters: Vec<Parameter> =
                    groups.into_iter().flat_map(|(_, parameters)| parameters).collect();
                problems.extend(sources.unknown(&parameters));
                (config, problems)
            }

            /// Returns the table, group by group, with the groups' headings.
            #[must_use]
            pub fn groups() -> Vec<(&'static str, Vec<Parameter>)> {
                vec![$((<$group as Group>::TITLE, <$group as Group>::parameters()),)+]
            }
        }
    };
}

felix_config! {
    /// Logs.
    logging: Logging,
    /// The health endpoint.
    health: Health,
    /// The metrics endpoint.
    metrics: Metrics,
    /// Reports about the daemon itself.
    reporting: Reporting,
    /// Interfaces of workloads and of the host.
    interfaces: Interfaces,
    /// Routes.
    routes: Routes,
    /// Tunnels.
    encapsulation: Encapsulation,
    /// Encryption between nodes.
    wireguard: Wireguard,
    /// Policy.
    policy: Policy,
    /// Ports of the host that policy never closes.
    failsafe: Failsafe,
    /// Address translation.
    nat: Nat,
    /// The packet filter.
    dataplane: Dataplane,
    /// The eBPF dataplane.
    bpf: Bpf,
    /// Flow logs.
    flow_logs: FlowLogs,
}
