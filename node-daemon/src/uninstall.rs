//! `calico-node uninstall`: leaves a node's kernel and files as they were found.
//!
//! Only what is ours goes (ARCHITECTURE.md, invariant 4), and nothing while it is in use: not
//! while calico-node runs, and not while pods are attached, unless that is asked for.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::Path;

use kernel::netlink::{Link, RouteFilter};
use kernel::nftables::Nftables;
use kernel::{Netlink, files, sysctl};
use model::desired::RouteProtocol;
use model::net::Family;
use model::ruleset::{Step, Transaction};

use crate::felix::vrf;
use crate::{admin, as_found};

/// How the names of workloads' interfaces start.
const WORKLOAD: &str = "cali";
/// Links that calico-node makes, and the start of those that limit workloads.
const LINKS: [&str; 4] = ["vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"];
const LIMITS: &str = "bw-";
/// The kernel's own link for IP in IP, which cannot be deleted.
const TUNNEL: &str = "tunl0";
/// Files, and directories with all that is in them.
const FILES: [&str; 3] = ["/var/lib/calico/nodename", "/var/lib/calico/mtu", as_found::FILE];
const DIRECTORIES: [&str; 1] = ["/var/run/calico"];
/// Directories that go if nothing is left in them.
const PARENTS: [&str; 1] = ["/var/lib/calico"];

/// What is there to be removed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Plan {
    tables: BTreeSet<Family>,
    links: Vec<Link>,
    tunnel: Option<Link>,
    parameters: as_found::Parameters,
}

/// Removes everything and returns what was done; with `check` it only says what would be.
///
/// # Errors
///
/// What is in the way, with the remedy; nothing was done then.
pub(crate) async fn run(check: bool, with_pods: bool) -> Result<String, String> {
    if UnixStream::connect(admin::SOCKET).is_ok() {
        return Err(
            "calico-node runs on this node: end it first, as by deleting its DaemonSet or \
                    keeping it off this node"
                .to_owned(),
        );
    }
    let netlink = Netlink::open().map_err(text)?;
    let links = netlink.links().await.map_err(text)?;
    let pods = links.iter().filter(|link| link.name.as_str().starts_with(WORKLOAD)).count();
    if pods > 0 && !with_pods {
        return Err(format!(
            "{pods} pods are attached on this node and would lose their network: drain the node \
             first, or say --with-pods"
        ));
    }
    let mut nftables = Nftables::open().map_err(text)?;
    let plan = plan(links, nftables.snapshot().map_err(text)?.tables.into_keys().collect());
    let filter = RouteFilter::of_protocols([RouteProtocol::CALICO]);
    let tables = plan.links.iter().filter_map(|link| link.vrf_table);
    let mut routes = Vec::new();
    for table in [filter.table].into_iter().chain(tables) {
        let found = netlink.routes(&RouteFilter { table, ..filter.clone() }).await;
        // A kernel without strict checking lists other tables, too.
        routes.extend(found.map_err(text)?.into_iter().filter(|route| route.table == table));
    }
    let mut done = plan.words();
    done.extend(routes.iter().map(|route| format!("route {route}")));
    if !check {
        for route in &routes {
            netlink.delete_route(route).await.map_err(text)?;
        }
        carry_out(&plan, &netlink, &mut nftables).await?;
        remove_files()?;
    }
    let how = if check { "would remove" } else { "removed" };
    let line = |what: &String| format!("{how} {what}\n");
    Ok(done.iter().map(line).collect::<String>().trim_end().to_owned())
}

fn plan(links: Vec<Link>, tables: BTreeSet<Family>) -> Plan {
    let is_ours = |link: &Link| {
        let name = link.name.as_str();
        let is_plain =
            LINKS.contains(&name) || name.starts_with(WORKLOAD) || name.starts_with(LIMITS);
        is_plain || vrf::is_ours(link) || vrf::is_tunnel(&link.name, link)
    };
    let tunnel = links.iter().find(|link| link.name.as_str() == TUNNEL && link.is_up).cloned();
    // Pods go before what they are under: none is let out of its VRF.
    let links: (Vec<Link>, Vec<Link>) =
        links.into_iter().filter(is_ours).partition(|link| link.vrf_table.is_none());
    let links = [links.0, links.1].concat();
    Plan { tables, links, tunnel, parameters: as_found::read(Path::new(as_found::FILE)) }
}

impl Plan {
    fn words(&self) -> Vec<String> {
        let table = |family: &Family| match family {
            Family::V4 => "nftables table ip calico".to_owned(),
            Family::V6 => "nftables table ip6 calico".to_owned(),
        };
        let tables = self.tables.iter().map(table);
        let links = self.links.iter().map(|link| format!("link {}", link.name));
        let tunnel = self.tunnel.iter().map(|link| format!("the addresses of link {}", link.name));
        let value = |(name, value): (&String, &String)| {
            format!("our value of kernel parameter {name}, which was {value}")
        };
        let parameters = self.parameters.iter().map(value);
        tables.chain(links).chain(tunnel).chain(parameters).collect()
    }
}

async fn carry_out(plan: &Plan, netlink: &Netlink, nftables: &mut Nftables) -> Result<(), String> {
    for link in &plan.links {
        netlink.delete_link(&link.name).await.map_err(text)?;
    }
    if let Some(tunnel) = &plan.tunnel {
        for found in netlink.addrs_of(tunnel.index).await.map_err(text)? {
            netlink.delete_addr(tunnel.index, found.addr).await.map_err(text)?;
        }
        netlink.set_link_down(tunnel.index).await.map_err(text)?;
    }
    // Last of the network: until here nothing passes that policy denies.
    if !plan.tables.is_empty() {
        let steps = plan.tables.iter().map(|family| (*family, Step::DeleteTable)).collect();
        nftables.apply(&Transaction { generation: None, steps }).map_err(text)?;
    }
    for (name, value) in &plan.parameters {
        sysctl::write(name, value).map_err(text)?;
    }
    Ok(())
}

fn remove_files() -> Result<(), String> {
    for file in FILES {
        files::delete(Path::new(file)).map_err(text)?;
    }
    for directory in DIRECTORIES {
        match std::fs::remove_dir_all(directory) {
            // Of a mount only the contents go.
            Err(error)
                if Path::new(directory).read_dir().is_ok_and(|mut left| left.next().is_some()) =>
            {
                return Err(format!("cannot remove {directory}: {error}"));
            }
            _ => {}
        }
    }
    for directory in PARENTS {
        // It may hold what others keep there.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "it stands at the end of a call")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use model::net::{IfIndex, Mtu};

    use super::*;

    #[test]
    fn only_our_links_go() {
        let link = |name: &str| Link {
            index: IfIndex(1),
            name: name.parse().unwrap(),
            mac: None,
            mtu: Mtu(1500),
            is_up: true,
            is_running: true,
            is_loopback: false,
            kind: None,
            peer: None,
            vxlan: None,
            master: None,
            vrf_table: None,
            alias: None,
        };
        let vrf = |table, alias: Option<&str>| Link {
            vrf_table: Some(table),
            alias: alias.map(str::to_owned),
            ..link(&format!("vrf-{table}"))
        };
        let vrfs = [vrf(5001, Some("calico")), vrf(5002, None), vrf(5003, Some("mine"))];
        let all = ["eth0", "cali123", "bw-i123", "vxlan.calico", "tunl0", "vxlan.other", "docker0"];
        let all = vrfs.into_iter().chain(all.map(link)).collect();
        let plan = plan(all, [Family::V4].into());
        let names: Vec<_> = plan.links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["cali123", "bw-i123", "vxlan.calico", "vrf-5001"]);
        assert_eq!(plan.tunnel.as_ref().unwrap().name.as_str(), "tunl0");
        assert_eq!(plan.words()[0], "nftables table ip calico");
    }
}
