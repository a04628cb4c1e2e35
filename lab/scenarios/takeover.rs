//! Nodes that change hands: from Calico to us and back, and to nobody.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::reachability::Matrix;
use lab::routes;
use nix::sys::signal::Signal;

use super::faults::{OUTAGE, flows, require_lossless};

/// How long things may take to be as they should be.
const WITHIN: Duration = Duration::from_secs(60);
/// How often a node changes hands.
const TURNS: usize = 2;

/// What Calico's Felix leaves in iptables, for both ways to the kernel; `$1` is the program.
/// Pods' traffic is accepted by it, as it would be by policy, and everything else is dropped.
const FELIX: &str = r#"
set -e
ipset -exist create cali40masq-ipam-pools hash:net; ipset -exist add cali40masq-ipam-pools 10.244.0.0/16
ipset -exist create cali40s:5y5I3VdRZfDU01O--xXAPx2 hash:net; ipset -exist create cali4t7 hash:ip
ipset -exist create strangers hash:ip
for t in iptables-nft iptables-legacy; do
  for chain in FORWARD INPUT OUTPUT from-wl-dispatch to-wl-dispatch; do $t -N cali-$chain; done
  $t -I INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
  $t -I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
  $t -I OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT
  $t -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x10000/0x10000 -j ACCEPT
  $t -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
  $t -A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
  $t -A cali-FORWARD -o cali+ -m comment --comment "cali:jdEuaPBe14V2hutn" -j cali-to-wl-dispatch
  for way in from to; do
    $t -A cali-$way-wl-dispatch -m comment --comment "cali:PtCBWmcqTxrYF7DQ" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $t -A cali-$way-wl-dispatch -m comment --comment "cali:NAtCMkQtTTSJj0jf" -m set --match-set cali40masq-ipam-pools src -j ACCEPT
    $t -A cali-$way-wl-dispatch -m comment --comment "cali:bzVk1IYzDSyjpVMr" -m set --match-set cali40s:5y5I3VdRZfDU01O--xXAPx2 dst -j DROP
  done
  $t -t nat -N cali-POSTROUTING; $t -t nat -N cali-nat-outgoing
  $t -t nat -I POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
  $t -t nat -A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-nat-outgoing
  $t -t raw -N cali-PREROUTING
  $t -t raw -I PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
done
"#;
/// What is somebody else's in the same tables.
const STRANGER: &str = "
iptables-nft -N STRANGER && iptables-nft -A STRANGER -s 203.0.113.9 -j DROP && iptables-nft -A FORWARD -j STRANGER
iptables-legacy -t nat -A POSTROUTING -s 203.0.113.9 -j MASQUERADE
ip route add 198.51.100.0/24 dev lo proto bird
";
/// What shows whether it is still there.
const SHOW_STRANGER: &str = "iptables-nft -S STRANGER; iptables-nft -S FORWARD | grep STRANGER; \
     iptables-legacy -t nat -S POSTROUTING | grep 203.0.113.9; ip route show 198.51.100.0/24; \
     ipset list -name | grep strangers";
/// Has BIRD own the routes between nodes, with the kernel's metric, which goes before ours; each
/// is there before ours goes, so that no packet is lost.
const BIRD: &str = "
ip route show proto 80 | while read -r route; do
  ip route replace $(echo \"$route\" | sed 's/ metric [0-9]*//') proto bird
  ip route del $route proto 80 2>/dev/null
done
ip route add blackhole 10.244.200.0/26 proto bird
";
/// Felix's own tables of nftables go when it works by iptables.
const NO_TABLES: &str = "nft delete table ip calico; nft delete table ip6 calico 2>/dev/null; true";
/// Whatever is left of Calico.
const SHOW_CALICO: &str = "{ iptables-nft-save; iptables-legacy-save; ip6tables-nft-save; } 2>/dev/null | grep cali; \
     ipset list -name | grep cali; ip route show proto bird | grep 10.244; true";

/// A node goes from Calico to us and back, twice, under traffic: nothing is lost, and what the
/// other has left goes.
pub(crate) fn of_calico(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let node = cluster.node("node-1")?;
    sh(node, STRANGER)?;
    let flows = flows(&cluster, "node-1", "node-2")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    for _ in 0..TURNS {
        cluster.end_daemon(node, Signal::SIGKILL)?;
        sh(node, FELIX)?;
        let strangers = sh(node, SHOW_STRANGER)?;
        sh(node, BIRD)?;
        sh(node, NO_TABLES)?;
        std::thread::sleep(OUTAGE);
        let told = adopt(&cluster, node)?;
        for word in ["iptables-nft-restore", "iptables-legacy-restore", "3 sets", "route", "BIRD"] {
            require(told.contains(word), || {
                format!("`adopt --check` does not say {word}: {told}")
            })?;
        }
        cluster.start_daemon(node)?;
        cluster.wait_ready()?;
        eventually("what Calico has left to go", WITHIN, || {
            let left = sh(node, SHOW_CALICO)?;
            require(left.trim().is_empty(), || left)
        })?;
        let after = sh(node, SHOW_STRANGER)?;
        require(strangers == after, || format!("others' things:\n{strangers}\nare now:\n{after}"))?;
        eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    }
    std::thread::sleep(OUTAGE);
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        require_lossless(from, to, &ledger)?;
    }
    let told = adopt(&cluster, node)?;
    require(told.contains("nothing of Calico that would go"), || told)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Everything that tells one state of a node from another: links, addresses, routes, rules,
/// neighbours that stay, tables, kernel parameters and files. What changes by itself is left out.
const DUMP: &str = r"
ip -o link show | sed -E 's/ qlen [0-9]+//'; ip -o addr show | sed -E 's/(valid_lft|preferred_lft) [^ ]+//g'
for f in -4 -6; do ip $f rule; ip $f route show table all | grep -v '^multicast\|^ff00' | sort; done
ip neigh show nud permanent; tc qdisc show | sort
nft list ruleset; iptables-legacy-save 2>/dev/null | grep -v '^#'; ipset list -name
find /proc/sys/net/ipv4 /proc/sys/net/ipv6 -type f -readable ! -path '*/neigh/*' ! -name '*probe*' \
  ! -name 'stable_secret' ! -name 'flush' ! -name 'tcp_mem' ! -name 'udp_mem' ! -name '*fastopen_key*' \
  -exec grep -H . {} + 2>/dev/null | sort
find /var/lib/calico /run/calico /etc/cni /opt/cni /run/netns -mindepth 1 2>/dev/null | sort
";

/// After calico-node has run, pods have come and gone and it is uninstalled, the node is as it was.
pub(crate) fn uninstalled(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 1, families: Families::Dual, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    eventually("addresses without doubt", WITHIN, || {
        let doubt = sh(cluster.node("node-1")?, "ip -6 addr show tentative")?;
        require(doubt.trim().is_empty(), || doubt)
    })?;
    let before = sh(cluster.node("node-1")?, DUMP)?;
    cluster.start_daemon(cluster.node("node-1")?)?;
    cluster.wait_ready()?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let uninstall = [cluster.program("calico-node"), "uninstall".to_owned()];
    let uninstall: Vec<&str> = uninstall.iter().map(String::as_str).collect();
    let node = cluster.node("node-1")?;
    refused(node, &uninstall, "calico-node runs on this node")?;
    cluster.end_daemon(node, Signal::SIGTERM)?;
    refused(node, &uninstall, "4 pods are attached")?;
    cluster.remove_pods(|_| true)?;
    let node = cluster.node("node-1")?;
    let told = node.run(&[&uninstall[..], &["--check"]].concat())?;
    for word in ["would remove nftables table ip calico", "would remove route", "ip_forward"] {
        require(told.contains(word), || {
            format!("`uninstall --check` does not say {word}: {told}")
        })?;
    }
    eprintln!("{}", node.run(&uninstall)?);
    let after = sh(node, DUMP)?;
    require(before == after, || difference(&before, &after))
}

fn refused(node: &Node, command: &[&str], word: &str) -> Result<(), Error> {
    let said = node.run(command).err().map(|error| error.to_string()).unwrap_or_default();
    require(said.contains(word), || format!("{command:?} was not refused: {said}"))
}

fn adopt(cluster: &Cluster, node: &Node) -> Result<String, Error> {
    let env = format!(
        "KUBECONFIG={}",
        cluster.control_plane.kubeconfig(lab::control_plane::Identity::Admin).display()
    );
    let script = format!("{env} {} adopt --check || [ $? = 3 ]", cluster.program("calicoctl"));
    sh(node, &script)
}

fn sh(node: &Node, script: &str) -> Result<String, Error> {
    node.run(&["sh", "-c", script])
}

fn require(is_so: bool, what: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(what())) }
}

/// Says which lines came and went.
fn difference(before: &str, after: &str) -> String {
    let only_in = |one: &str, other: &str, sign: &str| {
        let other: BTreeSet<&str> = other.lines().collect();
        let only: Vec<_> = one.lines().filter(|line| !other.contains(line)).collect();
        only.iter().map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only_in(before, after, "-"), only_in(after, before, "+")].concat().join("\n")
}
