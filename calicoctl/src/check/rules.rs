//! What follows from what was seen: pure.

use std::collections::BTreeMap;

use api::daemon_status::DaemonStatus;
use cni::conflist::ConfigList;
use cni::{Error, ErrorCode};
use model::desired::Checksums;

use super::paths::Way;
use super::token::Validity;
use super::tunnels::Tunnel;
use super::{Finding, Severity};
use crate::adopt::FORWARD_REMEDY;

/// How long before its end, in seconds, a token should have been renewed: calico-node does so
/// before half of its life is over.
const RENEWED_BEFORE: i64 = 600;
/// How much clocks may differ before it counts as wrong, in seconds.
const SKEW: i64 = 60;
/// How long, in seconds, a process may hold the lock of address management.
const LOCK_PATIENCE: u64 = 10;

/// What was seen of a node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Where the runtime looks for networks.
    pub config_dir: String,
    /// Where it looks for plugins.
    pub plugin_dir: String,
    /// The files there, in the runtime's order, and what they hold or why they cannot be read.
    pub lists: Vec<(String, Result<String, String>)>,
    /// The first of them that is ours and can be read.
    pub chosen: Option<String>,
    /// Plugins that it names and that are not there, or no programs.
    pub missing_programs: Vec<String>,
    /// The kubeconfig that it names.
    pub kubeconfig: Option<File>,
    /// When the kubeconfig's token is good.
    pub token: Option<Validity>,
    /// The MTU file, if the configuration leaves the MTU to it.
    pub mtu: Option<File>,
    /// Who holds the lock of address management.
    pub lock: Option<Lock>,
    /// What calico-node says of itself, and the time by the same clock.
    pub daemon: Option<(DaemonStatus, u64)>,
    /// What the plugin says to STATUS, if it could be asked.
    pub status: Option<Result<(), Error>>,
    /// Kernel parameters, as in /proc/sys.
    pub forwarding: BTreeMap<String, String>,
    /// The ways to other nodes.
    pub ways: Vec<Way>,
    /// Why nothing is known of them.
    pub ways_problem: Option<String>,
    /// The VXLAN devices.
    pub tunnels: Vec<Tunnel>,
    /// Why nothing is known of them.
    pub tunnels_problem: Option<String>,
    /// Programs for iptables whose FORWARD drops what no rule accepts.
    pub closed: Vec<&'static str>,
    /// Seconds since 1970.
    pub now: i64,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Its path.
    pub path: String,
    /// Its permissions, if it can be looked at.
    pub mode: Option<u32>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// Who holds a lock.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The file.
    pub path: String,
    /// The process.
    pub pid: u32,
    /// Its program.
    pub program: String,
    /// How long it runs, in seconds: it holds the lock no longer.
    pub seconds: u64,
}

/// Returns what is wrong, the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    configuration(facts, &mut found);
    credentials(facts, &mut found);
    plugin(facts, &mut found);
    kernel(facts, &mut found);
    fabric(facts, &mut found);
    checksums(facts, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

fn fault(id: &'static str, object: impl Into<String>, message: impl Into<String>) -> Finding {
    let (object, message) = (object.into(), message.into());
    Finding { severity: Severity::Fault, id, code: None, object, message }
}

fn warning(id: &'static str, object: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..fault(id, object, message) }
}

/// What a runtime would make of the files.
fn configuration(facts: &Facts, found: &mut Vec<Finding>) {
    let mut ours = Vec::new();
    for (path, text) in &facts.lists {
        let read = text.as_ref().map_err(Clone::clone);
        let list = read
            .and_then(|text| ConfigList::parse(text.as_bytes()).map_err(|error| error.to_string()));
        match list {
            Err(problem) => found.push(fault(
                "conflist-wrong",
                path,
                format!("{problem}; correct the file, or remove it and restart calico-node"),
            )),
            Ok(list) if list.plugins.iter().any(|plugin| plugin.plugin_type == "calico") => {
                ours.push(path);
            }
            Ok(list) if ours.is_empty() => found.push(fault(
                "conflist-shadowed",
                path,
                format!(
                    "network {} comes before Calico's by its name, so runtimes use it for all \
                     pods: remove the file, or give it a name after Calico's",
                    list.name
                ),
            )),
            Ok(_) => {}
        }
    }
    match ours.as_slice() {
        [] => found.push(fault(
            "conflist-missing",
            &facts.config_dir,
            "there is no network configuration of Calico: check that the install-cni container \
             of calico-node ran on this node",
        )),
        [_] => {}
        [first, others @ ..] => found.extend(others.iter().map(|other| {
            let message = format!("{first} is used and this one is not: remove one of them");
            warning("conflist-several", *other, message)
        })),
    }
    found.extend(facts.missing_programs.iter().map(|name| Finding {
        code: Some(ErrorCode::Delegate.number()),
        ..fault(
            "plugin-missing",
            format!("{}/{name}", facts.plugin_dir),
            "there is no such program: check that the install-cni container of calico-node ran \
             on this node",
        )
    }));
}

fn credentials(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(file) = &facts.kubeconfig else { return };
    if let Some(mode) = file.mode.filter(|mode| mode & 0o077 != 0) {
        found.push(warning(
            "kubeconfig-open",
            &file.path,
            format!(
                "its permissions are {mode:04o}, so that others than root may read the token: \
                 chmod 0600 {}",
                file.path
            ),
        ));
    }
    let Some(token) = facts.token else { return };
    let ago = |then: i64| facts.now.saturating_sub(then);
    if ago(token.issued) < -SKEW {
        found.push(Finding {
            code: Some(ErrorCode::Credentials.number()),
            ..fault(
                "clock-behind",
                "this machine's clock",
                format!(
                    "the token in {} was issued {} s in the future: set the clock, as by chronyd",
                    file.path,
                    ago(token.issued).saturating_neg()
                ),
            )
        });
    }
    match token.expires.map(ago) {
        Some(age) if age >= 0 => found.push(Finding {
            code: Some(ErrorCode::Credentials.number()),
            ..fault(
                "token-expired",
                &file.path,
                format!(
                    "its token ended {age} s ago by this machine's clock: check that calico-node \
                     runs on this node, which renews it, and that the clocks agree"
                ),
            )
        }),
        Some(age) if age > -RENEWED_BEFORE => found.push(warning(
            "token-old",
            &file.path,
            format!(
                "its token ends in {} s and should have been renewed: check that calico-node \
                 runs on this node",
                age.saturating_neg()
            ),
        )),
        _ => {}
    }
}

/// What the plugin says of itself.
fn plugin(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(Err(error)) = &facts.status else { return };
    let cause = error.cause().unwrap_or(error.code);
    // Without a cause the only trouble is that of containers that are there already.
    if cause == ErrorCode::NotAvailableLimited {
        return;
    }
    let is_known = |finding: &Finding| finding.code == Some(cause.number());
    if found.iter().any(is_known) {
        return;
    }
    let known = CAUSES.iter().find(|(code, ..)| *code == cause);
    let unknown = ("plugin-refuses", About::Configuration);
    let (id, about) = known.map_or(unknown, |(_, id, about)| (*id, *about));
    found.push(Finding {
        code: Some(cause.number()),
        ..fault(id, about.name(facts), error.to_string())
    });
}

/// What a cause is called, and what it is about; the message says more.
const CAUSES: [(ErrorCode, &str, About); 19] = [
    (ErrorCode::Kubeconfig, "kubeconfig-unreadable", About::Kubeconfig),
    (ErrorCode::Credentials, "credentials-refused", About::Kubeconfig),
    (ErrorCode::Forbidden, "not-permitted", About::This("ClusterRole calico-cni-plugin")),
    (ErrorCode::UnknownKind, "definitions-missing", About::This("CustomResourceDefinitions")),
    (ErrorCode::Unreachable, "api-server-unreachable", About::This("API server")),
    (ErrorCode::Certificate, "certificate-time", About::This("API server")),
    (ErrorCode::Authority, "authority-unknown", About::Kubeconfig),
    (ErrorCode::NotSetUp, "cluster-not-set-up", About::This("ClusterInformation default")),
    (ErrorCode::Locked, "datastore-locked", About::This("ClusterInformation default")),
    (ErrorCode::NodeNotSetUp, "node-not-set-up", About::This("Node")),
    (ErrorCode::UnknownNode, "node-unknown", About::This("Node")),
    (ErrorCode::MtuFile, "mtu-file", About::Mtu),
    (ErrorCode::NoPool, "no-pool", About::This("IPPool")),
    (ErrorCode::NoFreeAddress, "pools-exhausted", About::This("IPPool")),
    (ErrorCode::NotThisNode, "node-limited", About::This("IPAMConfig default")),
    (ErrorCode::InvalidConfig, "conflist-wrong", About::Configuration),
    (ErrorCode::UnsupportedField, "conflist-wrong", About::Configuration),
    (ErrorCode::Decode, "conflist-wrong", About::Configuration),
    (ErrorCode::TryAgainLater, "busy", About::This("API server")),
];

/// What a cause is about.
#[derive(Clone, Copy, Debug)]
enum About {
    Kubeconfig,
    Mtu,
    Configuration,
    This(&'static str),
}

impl About {
    fn name(self, facts: &Facts) -> String {
        let path = |file: &Option<File>| file.as_ref().map(|file| file.path.clone());
        let name = match self {
            Self::Kubeconfig => path(&facts.kubeconfig),
            Self::Mtu => path(&facts.mtu),
            Self::Configuration => facts.chosen.clone(),
            Self::This(name) => Some(name.to_owned()),
        };
        name.unwrap_or_else(|| facts.config_dir.clone())
    }
}

/// What the kernel and calico-node do for containers that are there.
fn kernel(facts: &Facts, found: &mut Vec<Finding>) {
    if let Some(value) = facts.forwarding.get("net/ipv4/ip_forward").filter(|value| *value != "1") {
        found.push(fault(
            "forwarding-off",
            "net.ipv4.ip_forward",
            format!(
                "it is {value}, so that pods reach nothing beyond this node: sysctl -w \
                 net.ipv4.ip_forward=1, and see which program sets it (grep -r ip_forward \
                 /etc/sysctl.conf /etc/sysctl.d)"
            ),
        ));
    }
    found.extend(facts.closed.iter().map(|program| {
        fault(
            "forward-dropped",
            format!("chain FORWARD of {program}"),
            format!(
                "its policy is DROP, as Docker leaves it, so that pods reach nothing beyond this \
                 node: {FORWARD_REMEDY}"
            ),
        )
    }));
    if let Some(lock) = facts.lock.as_ref().filter(|lock| lock.seconds >= LOCK_PATIENCE) {
        found.push(fault(
            "lock-held",
            &lock.path,
            format!(
                "process {} ({}), which runs since {} s, holds the lock of address management, so \
                 that each pod waits a minute: see what it does, and end it",
                lock.pid, lock.program, lock.seconds
            ),
        ));
    }
    if let Some(mtu) = &facts.mtu
        && let Some(problem) = &mtu.problem
    {
        found.push(Finding {
            code: Some(ErrorCode::MtuFile.number()),
            ..warning(
                "mtu-file",
                &mtu.path,
                format!(
                    "it cannot be read ({problem}), so that pods get the kernel's 1500 bytes, or \
                     do not start if `require_mtu_file` is set: check that calico-node runs on \
                     this node and has mounted /var/lib/calico"
                ),
            )
        });
    }
    let trouble = facts.daemon.as_ref().and_then(|(status, now)| status.trouble(*now));
    if let Some(trouble) = trouble {
        found.push(Finding {
            code: Some(ErrorCode::NotAvailableLimited.number()),
            ..fault("calico-node-behind", "calico-node", trouble)
        });
    }
}

/// What the fabric does with packets between nodes.
fn fabric(facts: &Facts, found: &mut Vec<Finding>) {
    if let Some(problem) = &facts.ways_problem {
        let message = format!("it is not known whether they carry large packets: {problem}");
        found.push(warning("paths-unknown", "the paths to other nodes", message));
    }
    // One fault of the fabric is met on many ways: the worst of each device tells it.
    let mut worst: BTreeMap<&str, (&Way, u16, usize)> = BTreeMap::new();
    for way in &facts.ways {
        let Some(carried) = way.carried.filter(|carried| *carried < way.len) else { continue };
        let entry = worst.entry(&way.device).or_insert((way, carried, 0));
        if carried < entry.1 {
            (entry.0, entry.1) = (way, carried);
        }
        entry.2 = entry.2.saturating_add(1);
    }
    for (device, (way, carried, count)) in worst {
        let Way { node, len, .. } = way;
        let lost = len.saturating_sub(carried);
        let others = match count {
            0 | 1 => String::new(),
            count => format!(", the worst of {count}"),
        };
        let known = match carried {
            0 => "small ones do".to_owned(),
            carried => format!("those of {carried} bytes do"),
        };
        let remedy = match carried {
            0 => "give this node's interface to the fabric the MTU that the fabric has".to_owned(),
            _ => format!(
                "lower the MTU of this node's interface to the fabric by {lost}, which calico-node \
                 follows, and make the pods anew"
            ),
        };
        found.push(fault(
            "path-drops-large-packets",
            format!("the path to {node}{others}"),
            format!(
                "packets of {len} bytes, which {device} sends for pods, do not arrive and {known}, \
                 so that connections hang as soon as much is sent: have the fabric carry {len} \
                 bytes, or {remedy}"
            ),
        ));
    }
}

/// What becomes of checksums in tunnels.
fn checksums(facts: &Facts, found: &mut Vec<Finding>) {
    if let Some(problem) = &facts.tunnels_problem {
        let message = format!("it is not known whether checksums arrive well: {problem}");
        found.push(warning("tunnels-unknown", "tunnels to other nodes", message));
    }
    for Tunnel { device, checksums, corrupted } in &facts.tunnels {
        match (checksums, corrupted.as_slice()) {
            (Checksums::Filled, _) => found.push(warning(
                "tunnel-fills-in-checksums",
                device,
                "the kernel fills in checksums before it wraps packets, since the way to other nodes \
                 was found to spoil them, or as featureDetectOverride of FelixConfiguration or \
                 another program has it: connections are well and slower than they could be; with a \
                 sound driver set it to ChecksumOffloadBroken=false",
            )),
            (Checksums::Offloaded, []) => {}
            (Checksums::Offloaded, [first, others @ ..]) => found.push(fault(
                "tunnel-spoils-checksums",
                device,
                format!(
                    "checksums that are left to this node's interface arrive spoiled at {first}{}, so \
                     that pods are answered to pings and to nothing else: calico-node has the kernel \
                     fill them in within a minute, unless featureDetectOverride of FelixConfiguration \
                     says ChecksumOffloadBroken=false; look for a later driver or firmware",
                    match others.len() {
                        0 => String::new(),
                        more => format!(" and {more} others"),
                    }
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"{"name":"k8s-pod-network","plugins":[{"type":"calico"}]}"#;
    const BRIDGE: &str = r#"{"name":"mynet","plugins":[{"type":"bridge"}]}"#;

    fn lists(files: &[(&str, &str)]) -> Vec<(String, Result<String, String>)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), Ok((*text).to_owned()))).collect()
    }

    fn ids(facts: &Facts) -> Vec<&'static str> {
        findings(facts).into_iter().map(|finding| finding.id).collect()
    }

    fn fine() -> Facts {
        Facts { lists: lists(&[("10-calico.conflist", OURS)]), now: 1000, ..Facts::default() }
    }

    #[test]
    fn the_runtimes_choice_of_network_is_followed() {
        assert_eq!(ids(&fine()), Vec::<&str>::new());
        for (files, expected) in [
            (&[][..], &["conflist-missing"][..]),
            (&[("10-calico.conflist", "{")], &["conflist-wrong", "conflist-missing"]),
            (&[("05-x.conf", BRIDGE), ("10-calico.conflist", OURS)], &["conflist-shadowed"]),
            (&[("10-calico.conflist", OURS), ("99-x.conf", BRIDGE)], &[]),
            (&[("10-calico.conflist", OURS), ("20-calico.conflist", OURS)], &["conflist-several"]),
        ] {
            assert_eq!(ids(&Facts { lists: lists(files), ..fine() }), expected, "{files:?}");
        }
    }

    #[test]
    fn tokens_are_looked_at_by_the_clock() {
        let with = |issued, expires| {
            let file = File { path: "/k".to_owned(), mode: Some(0o600), problem: None };
            let token = Some(Validity { issued, expires: Some(expires) });
            ids(&Facts { kubeconfig: Some(file), token, ..fine() })
        };
        assert_eq!(with(500, 90_000), Vec::<&str>::new());
        assert_eq!(with(0, 1000), ["token-expired"]);
        assert_eq!(with(0, 1001), ["token-old"]);
        assert_eq!(with(1061, 90_000), ["clock-behind"]);
        let open = File { path: "/k".to_owned(), mode: Some(0o644), problem: None };
        assert_eq!(ids(&Facts { kubeconfig: Some(open), ..fine() }), ["kubeconfig-open"]);
    }

    #[test]
    fn a_fabric_that_drops_large_packets_is_told_once_for_each_device() {
        let way = |node: &str, carried| Way {
            node: node.parse().unwrap(),
            device: "vxlan.calico".to_owned(),
            len: 1500,
            carried,
        };
        let told = |ways: &[Way]| findings(&Facts { ways: ways.to_vec(), ..fine() });
        // Who answers nothing at all may not answer.
        assert!(told(&[way("192.0.2.1", Some(1500)), way("192.0.2.2", None)]).is_empty());
        let found = told(&[
            way("192.0.2.1", Some(1500)),
            way("192.0.2.2", Some(1450)),
            way("192.0.2.3", Some(1400)),
        ]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, "path-drops-large-packets");
        assert_eq!(found[0].object, "the path to 192.0.2.3, the worst of 2");
        assert!(found[0].message.contains("those of 1400 bytes do"), "{}", found[0].message);
        assert!(found[0].message.contains("fabric by 100"), "{}", found[0].message);
        let unknown = Facts { ways_problem: Some("not root".to_owned()), ..fine() };
        assert_eq!(ids(&unknown), ["paths-unknown"]);
    }

    #[test]
    fn spoiled_checksums_are_told_and_so_is_what_is_done_about_them() {
        let found = |checksums, corrupted: &[&str]| {
            let corrupted = corrupted.iter().map(|addr| (*addr).to_owned()).collect();
            let tunnel = Tunnel { device: "vxlan.calico".to_owned(), checksums, corrupted };
            findings(&Facts { tunnels: vec![tunnel], ..fine() })
        };
        assert!(found(Checksums::Offloaded, &[]).is_empty());
        let spoiled = found(Checksums::Offloaded, &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(
            (spoiled[0].id, spoiled[0].severity),
            ("tunnel-spoils-checksums", Severity::Fault)
        );
        assert!(spoiled[0].message.contains("at 10.0.0.1 and 1 others,"), "{}", spoiled[0].message);
        let filled = found(Checksums::Filled, &[]);
        assert_eq!(
            (filled[0].id, filled[0].severity),
            ("tunnel-fills-in-checksums", Severity::Warning)
        );
    }

    #[test]
    fn what_the_plugin_says_is_said_once() {
        let status = |code: ErrorCode| Some(Err(Error::new(code, "x").unavailable(None)));
        let facts = Facts { status: status(ErrorCode::UnknownNode), ..fine() };
        let found = findings(&facts);
        assert_eq!((found[0].id, found[0].code), ("node-unknown", Some(117)));
        let expired = Facts {
            kubeconfig: Some(File::default()),
            token: Some(Validity { issued: 0, expires: Some(5) }),
            status: status(ErrorCode::Credentials),
            ..fine()
        };
        assert_eq!(ids(&expired), ["token-expired"]);
    }

    #[test]
    fn what_the_kernel_and_calico_node_do_counts() {
        let lock = |seconds| {
            let (path, program) = ("/l".to_owned(), "sleep".to_owned());
            Some(Lock { path, pid: 7, program, seconds })
        };
        let status = DaemonStatus { at: 10, in_sync: true, since: 5, reason: String::new() };
        let facts = Facts {
            forwarding: [("net/ipv4/ip_forward".to_owned(), "0".to_owned())].into(),
            closed: vec!["iptables-nft"],
            lock: lock(10),
            daemon: Some((status, 10_000)),
            mtu: Some(File { problem: Some("No such file".to_owned()), ..File::default() }),
            missing_programs: vec!["calico-ipam".to_owned()],
            ..fine()
        };
        let expected = [
            "plugin-missing",
            "forwarding-off",
            "forward-dropped",
            "lock-held",
            "calico-node-behind",
            "mtu-file",
        ];
        assert_eq!(ids(&facts), expected);
        assert_eq!(ids(&Facts { lock: lock(9), ..fine() }), Vec::<&str>::new());
    }
}
