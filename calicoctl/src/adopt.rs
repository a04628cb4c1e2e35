//! `calicoctl adopt --check`: what becomes of a node on which Calico works, when this one takes over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use api::daemon_status::{self, DaemonStatus};
use datastore::{Client, Filter};
use kernel::Netlink;
use kernel::netlink::{RouteEntry, RouteFilter};
use model::desired::RouteProtocol;
use model::pool::IpPool;
use serde::Serialize;
use takeover::Found;
use takeover::routes::BIRD;

use crate::Error;
use crate::arguments::{Adopt, Global};
use crate::output::{Report, print, render};
use crate::run::{Verdict, connect};

/// What calico-node says of itself.
const STATUS: &str = "/var/run/calico/node-status.json";
/// How the names of workloads' interfaces start.
const WORKLOAD: &str = "cali";
/// Processes of Calico, by what the kernel calls them.
const PROCESSES: [&str; 5] = ["calico-felix", "bird", "bird6", "confd", "calico-node"];
/// Links of Calico that carry packets between nodes.
const TUNNELS: [&str; 5] =
    ["tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"];

/// What to do about a chain FORWARD that drops what no rule accepts.
pub(crate) const FORWARD_REMEDY: &str = "set it to ACCEPT (-P FORWARD ACCEPT), or have whoever sets \
     it accept what comes and goes by `cali+` (-A FORWARD -i cali+ -j ACCEPT, -A FORWARD -o cali+ -j \
     ACCEPT)";

/// Looks at this node and says what would become of it.
///
/// # Errors
///
/// [`Error`] of the datastore or the kernel.
pub async fn run(global: &Global, arguments: &Adopt) -> Result<Verdict, Error> {
    let client = connect(global)?;
    let mut seen = Box::pin(gather(&client)).await?;
    if arguments.remove {
        require_in_sync(Path::new(STATUS))?;
        takeover::remove(&seen.found).await.map_err(|all| Error::Refused(all.join("; ")))?;
        seen.found = takeover::look().await;
    }
    let prospect = Prospect::of(&seen);
    print(&render(&prospect, arguments.output)?)?;
    Ok(if prospect.obstacles.is_empty() { Verdict::Fine } else { Verdict::Problems })
}

/// Fails unless calico-node enforces on this node what Calico's rules have enforced.
fn require_in_sync(file: &Path) -> Result<(), Error> {
    let status = fs::read_to_string(file).unwrap_or_default();
    let status: DaemonStatus = serde_json::from_str(&status).unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let now = daemon_status::uptime(&uptime).unwrap_or_default();
    if status.in_sync && status.at <= now && status.trouble(now).is_none() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "calico-node is not in sync on this node ({}), and Calico's rules are all that enforces \
         policy: start it, and see `calicoctl check`",
        file.display()
    )))
}

/// What was seen of a node.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What is in iptables and ipsets.
    pub found: Found,
    /// Routes of BIRD into pools, and routes of Felix.
    pub routes: Vec<RouteEntry>,
    /// How many workloads are attached.
    pub workloads: usize,
    /// Tunnels that are up.
    pub tunnels: Vec<String>,
    /// Tables of Felix's nftables mode.
    pub tables: Vec<String>,
    /// Processes of Calico that run, with their numbers.
    pub processes: BTreeMap<u32, String>,
    /// What the cluster is set to that is not done here.
    pub settings: Vec<String>,
}

/// What would become of it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Prospect {
    /// What would be lost, or keeps this one from working: to be done before.
    pub obstacles: Vec<String>,
    /// What stays, and is used from then on.
    pub kept: Vec<String>,
    /// What goes once this one is in sync.
    pub removed: Vec<String>,
}

impl Prospect {
    /// Says what becomes of what was seen.
    #[must_use]
    pub fn of(seen: &Seen) -> Self {
        let mut prospect = Self::default();
        prospect.obstacles.extend(seen.settings.iter().cloned());
        prospect.obstacles.extend(seen.found.unknown.iter().map(|unknown| {
            format!("{unknown}: what Calico has there cannot be seen, nor removed")
        }));
        prospect.obstacles.extend(seen.found.closed.iter().map(|program| {
            format!(
                "chain FORWARD of {program} has the policy DROP, and Calico's rules, which go, are \
                 all that lets pods' packets pass: {FORWARD_REMEDY}"
            )
        }));
        for (pid, name) in &seen.processes {
            prospect.kept.push(format!("process {pid} ({name}) runs: end it with its DaemonSet"));
        }
        if seen.workloads > 0 {
            let count = seen.workloads;
            prospect.kept.push(format!("{count} workloads keep interfaces, addresses and routes"));
        }
        prospect.kept.extend(seen.tunnels.iter().map(|name| format!("tunnel {name}")));
        for table in &seen.tables {
            prospect.kept.push(format!("nftables {table} is changed to ours in one transaction"));
        }
        let of = |protocol| seen.routes.iter().filter(move |route| route.protocol == protocol);
        let felix = of(RouteProtocol::CALICO).count();
        if felix > 0 {
            prospect.kept.push(format!("{felix} routes of Felix (protocol 80)"));
        }
        for (tool, removal) in &seen.found.removals {
            let (chains, rules) = (removal.chains, removal.rules);
            if !removal.script.is_empty() {
                prospect.removed.push(format!(
                    "{chains} chains and {rules} rules that lead to them, by {}",
                    tool.restore
                ));
            }
            prospect.obstacles.extend(removal.foreign.iter().map(|rule| {
                format!("a rule that is not Calico's leads to its chains: remove {rule:?}")
            }));
        }
        if !seen.found.sets.is_empty() {
            prospect.removed.push(format!("{} sets, by ipset destroy", seen.found.sets.len()));
        }
        let bird = of(BIRD).count();
        if bird > 0 {
            prospect.removed.push(format!(
                "{bird} routes of BIRD (protocol 12), each when ours to the same place is there"
            ));
        }
        prospect
    }
}

impl Report for Prospect {
    fn text(&self) -> String {
        let parts = [
            ("To be done before:", &self.obstacles),
            ("Stays, and is used:", &self.kept),
            ("Goes when calico-node is in sync:", &self.removed),
        ];
        let part = |(head, lines): &(&str, &Vec<String>)| {
            let lines = lines.iter().map(|line| format!("\n    {line}"));
            format!("{head}{}", lines.collect::<String>())
        };
        let mut said: Vec<String> =
            parts.iter().filter(|(_, lines)| !lines.is_empty()).map(part).collect();
        if self.removed.is_empty() {
            said.push("There is nothing of Calico that would go.".to_owned());
        }
        said.join("\n")
    }
}

async fn gather(client: &Client) -> Result<Seen, Error> {
    let refused = |error: &dyn ToString| {
        Error::Refused(format!("{}; run it as root on the node itself", error.to_string()))
    };
    let netlink = Netlink::open().map_err(|error| refused(&error))?;
    let pools = client.list::<api::IpPool>(&Filter::default()).await?;
    let felix = client.list::<api::FelixConfiguration>(&Filter::default()).await?;
    let pools: Vec<IpPool> = pools.iter().filter_map(|pool| pool.try_into().ok()).collect();
    let filter = RouteFilter::of_protocols([BIRD, RouteProtocol::CALICO]);
    let mut routes = netlink.routes(&filter).await.map_err(|error| refused(&error))?;
    let is_of_pods = |route: &RouteEntry| pools.iter().any(|pool| pool.cidr.covers(&route.dst));
    routes.retain(|route| route.protocol == RouteProtocol::CALICO || is_of_pods(route));
    let links = netlink.links().await.map_err(|error| refused(&error))?;
    let is_workload = |name: &str| name.starts_with(WORKLOAD);
    let names = || links.iter().filter(|link| link.is_up).map(|link| link.name.as_str());
    let tables = kernel::nftables::Nftables::open()
        .and_then(|mut nftables| nftables.snapshot())
        .map_err(|error| refused(&error))?;
    let table = |family: &model::net::Family| match family {
        model::net::Family::V4 => "table ip calico".to_owned(),
        model::net::Family::V6 => "table ip6 calico".to_owned(),
    };
    Ok(Seen {
        found: takeover::look().await,
        routes,
        workloads: names().filter(|name| is_workload(name)).count(),
        tunnels: names().filter(|name| TUNNELS.contains(name)).map(str::to_owned).collect(),
        tables: tables.tables.keys().map(table).collect(),
        processes: processes(Path::new("/proc")),
        settings: settings(&felix),
    })
}

/// Returns what FelixConfigurations say that is not done here.
fn settings(felix: &[api::FelixConfiguration]) -> Vec<String> {
    let uses_bpf = |object: &&api::FelixConfiguration| {
        serde_json::to_value(object)
            .is_ok_and(|value| value.pointer("/spec/bpfEnabled") == Some(&true.into()))
    };
    let name = |object: &api::FelixConfiguration| {
        let name = object.metadata.name.clone().unwrap_or_default();
        format!(
            "FelixConfiguration {name} sets bpfEnabled, which is not done here: set it to false, \
             and let kube-proxy run, before Calico is replaced"
        )
    };
    felix.iter().filter(uses_bpf).map(name).collect()
}

fn processes(proc: &Path) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let process = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        PROCESSES.contains(&name.trim()).then(|| (pid, name.trim().to_owned()))
    };
    entries.filter_map(process).collect()
}

#[cfg(test)]
mod tests {
    use kernel::netlink::Target;

    use super::*;

    #[test]
    fn nothing_goes_while_nobody_else_enforces() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node-status.json");
        assert!(require_in_sync(&file).is_err(), "no calico-node of this project");
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let at = daemon_status::uptime(&uptime).unwrap();
        for (in_sync, at, is_right) in
            [(true, at, true), (false, at, false), (true, u64::MAX, false)]
        {
            let status = DaemonStatus { at, in_sync, since: 0, reason: String::new() };
            fs::write(&file, status.to_text()).unwrap();
            assert_eq!(require_in_sync(&file).is_ok(), is_right, "{status:?}");
        }
    }

    #[test]
    fn what_stays_and_what_goes_is_told() {
        let route = |dst: &str, protocol| {
            RouteEntry::new(dst.parse().unwrap(), Target::Blackhole, protocol)
        };
        let seen = Seen {
            routes: vec![
                route("10.244.0.0/26", BIRD),
                route("10.244.1.0/26", RouteProtocol::CALICO),
            ],
            workloads: 3,
            tunnels: vec!["tunl0".to_owned()],
            found: Found { sets: vec!["cali40x".to_owned()], ..Found::default() },
            ..Seen::default()
        };
        assert_eq!(
            Prospect::of(&seen).text(),
            "Stays, and is used:\n    3 workloads keep interfaces, addresses and routes\n    \
             tunnel tunl0\n    1 routes of Felix (protocol 80)\n\
             Goes when calico-node is in sync:\n    1 sets, by ipset destroy\n    \
             1 routes of BIRD (protocol 12), each when ours to the same place is there"
        );
        let closed = Found { closed: vec!["iptables-nft"], ..Found::default() };
        let obstacles = Prospect::of(&Seen { found: closed, ..Seen::default() }).obstacles;
        let [obstacle] = obstacles.as_slice() else { panic!("{obstacles:?}") };
        assert!(obstacle.contains("FORWARD of iptables-nft has the policy DROP"), "{obstacle}");
        let nothing = Prospect::of(&Seen::default());
        assert_eq!(nothing.text(), "There is nothing of Calico that would go.");
    }
}
