//! Others who change the same kernel: rivals, and another version of ourselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{NewPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::policy::cell::Passing;
use lab::policy::{judge, world};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::policy_faults::{Knockers, closed, pod, words};

/// How long a new version may take to make the tables its own.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);
/// How often a node gets another version.
const UPGRADES: usize = 5;
/// How often policy changes while rivals are at work.
const CHANGES: usize = 6;

/// What somebody else has set up on a node.
const SET_UP: &str = "
ip rule add from 198.51.100.7 table 300 priority 3000
ip route add 203.0.113.0/24 dev lo table 300
ip route add blackhole 198.51.100.0/24 proto static
ip link add theirs0 type dummy && ip address add 198.18.0.1/32 dev theirs0 && ip link set theirs0 up
iptables -N STRANGER && iptables -A STRANGER -s 203.0.113.9 -j DROP && iptables -A FORWARD -j STRANGER
iptables -t nat -A POSTROUTING -s 203.0.113.9 -j MASQUERADE
ip6tables -N STRANGER && ip6tables -A FORWARD -j STRANGER
iptables-save > /run/rival.rules
";
/// What shows whether it is still there, in every detail.
const SHOW: &str = "
ip rule; ip -6 rule; ip route show table 300; ip route show proto static; ip -details link show theirs0
ip address show dev theirs0; iptables -S; iptables -t nat -S; ip6tables -S
nft --handle list table inet theirs
";
/// Programs that change the same kernel all the time, and one that never lets go of a lock.
const RIVALS: [(&str, &str); 3] = [
    ("rival-restore", "while iptables-restore -w < /run/rival.rules; do :; done"),
    (
        "rival-nft",
        "while nft 'add table inet rival; delete table inet rival; table inet rival { chain f { \
         type filter hook forward priority 1; ct state invalid accept; }; }'; do :; done",
    ),
    ("rival-lock", "exec flock /run/xtables.lock sleep 600"),
];
/// What another version might have left: chains and sets that this one does not know, a rule more
/// in a chain of ours, and a chain that has lost its rules.
const OTHER_VERSION: &str = "
add chain {} calico cali-of-old
add rule {} calico cali-of-old meta mark 1 accept
add set {} calico cali-set-of-old { type ipv4_addr; }
add element {} calico cali-set-of-old { 192.0.2.1 }
insert rule {} calico filter-FORWARD counter comment \"of old\"
flush chain {} calico cali-to-wl-dispatch
";

/// While others change the kernel as fast as they can, every policy comes into force, pods come
/// and go, and calico-node dies; afterwards all that is theirs is as it was.
pub(crate) fn keep(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let (mut cluster, case) = closed(dir, control_plane)?;
    let shut = case.expected()?;
    let open: Passing = world::cells().into_iter().collect();
    let node = cluster.node("node-1")?;
    sh(node, &format!("set -e{SET_UP}"))?;
    let before = sh(node, SHOW)?;
    for (name, script) in RIVALS {
        node.start_program(name, &["sh", "-c", script], &BTreeMap::new())?;
    }
    for turn in 0..CHANGES {
        let is_open = turn.is_multiple_of(2);
        let rules = if is_open { json!([{"action": "Allow"}]) } else { json!([]) };
        cluster.api.patch_any(&policy(), &json!({"spec": {"ingress": rules}}))?;
        judge::require_packets(&cluster, if is_open { &open } else { &shut })?;
    }
    cluster.add_pod(&NewPod::plain("red", "guest", "node-1"))?;
    cluster.remove_pods(|pod| pod.pod.name == "guest")?;
    let node = cluster.node("node-1")?;
    cluster.end_daemon(node, Signal::SIGKILL)?;
    cluster.start_daemon(node)?;
    cluster.wait_ready()?;
    judge::require_packets(&cluster, &shut)?;
    for (name, _) in RIVALS {
        if node.program_pid(name)?.is_none() {
            return Err(Error::wrong(format!("{name} could not go on")));
        }
        node.end_program(name, Signal::SIGKILL)?;
    }
    cluster.end_daemon(node, Signal::SIGTERM)?;
    let after = sh(node, SHOW)?;
    if before == after {
        return Ok(());
    }
    Err(Error::wrong(format!("others' things changed; before:\n{before}\nafter:\n{after}")))
}

/// Tables of another version become this one's, and nothing that is denied passes meanwhile.
pub(crate) fn taken_over(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let (cluster, case) = closed(dir, control_plane)?;
    let node = cluster.node(&pod(&cluster, "red/db")?.node)?;
    let before = words(&node.run(&["nft", "--stateless", "list", "ruleset"])?);
    let knockers = Knockers::start(&cluster, &[("red/web", "red/db"), ("red/job", "red/db")])?;
    for turn in 0..UPGRADES {
        let is_crash = turn.is_multiple_of(2);
        cluster.end_daemon(node, if is_crash { Signal::SIGKILL } else { Signal::SIGTERM })?;
        for table in ["ip", "ip6"] {
            node.run(&["nft", &OTHER_VERSION.replace("{}", table)])?;
        }
        cluster.start_daemon(node)?;
        cluster.wait_ready()?;
        eventually("the tables to be of this version", TAKEN_OVER_WITHIN, || {
            let now = words(&node.run(&["nft", "--stateless", "list", "ruleset"])?);
            if now == before { Ok(()) } else { Err(Error::wrong(now.join(" "))) }
        })?;
    }
    judge::require_packets(&cluster, &case.expected()?)?;
    knockers.require_closed()
}

/// The policy that closes pods.
fn policy() -> Value {
    json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "closed"},
    })
}

fn sh(node: &Node, script: &str) -> Result<String, Error> {
    node.run(&["sh", "-c", script])
}
