//! Scenarios: a cluster, what happens to it, and what must be true afterwards.
//!
//! Each runs in a lab of its own; one file each in `lab/scenarios/`.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lab::Error;
use lab::control_plane::Kind;
use lab::{patience, rbac};

#[path = "../scenarios/addresses.rs"]
mod addresses;
#[path = "../scenarios/authority.rs"]
mod authority;
#[path = "../scenarios/bgp.rs"]
mod bgp;
#[path = "../scenarios/bgp_faults.rs"]
mod bgp_faults;
#[path = "../scenarios/bgp_troubles.rs"]
mod bgp_troubles;
#[path = "../scenarios/checksums.rs"]
mod checksums;
#[path = "../scenarios/churn.rs"]
mod churn;
#[path = "../scenarios/connections.rs"]
mod connections;
#[path = "../scenarios/docker.rs"]
mod docker;
#[path = "../scenarios/faults.rs"]
mod faults;
#[path = "../scenarios/holes.rs"]
mod holes;
#[path = "../scenarios/ipam.rs"]
mod ipam;
#[path = "../scenarios/kubelets.rs"]
mod kubelets;
#[path = "../scenarios/manifest.rs"]
mod manifest;
#[path = "../scenarios/node_faults.rs"]
mod node_faults;
#[path = "../scenarios/objects.rs"]
mod objects;
#[path = "../scenarios/peers.rs"]
mod peers;
#[path = "../scenarios/permissions.rs"]
mod permissions;
#[path = "../scenarios/permissions_of_node.rs"]
mod permissions_of_node;
#[path = "../scenarios/planted.rs"]
mod planted;
#[path = "../scenarios/policy.rs"]
mod policy;
#[path = "../scenarios/policy_dhcp.rs"]
mod policy_dhcp;
#[path = "../scenarios/policy_faults.rs"]
mod policy_faults;
#[path = "../scenarios/policy_hosts.rs"]
mod policy_hosts;
#[path = "../scenarios/policy_spoofing.rs"]
mod policy_spoofing;
#[path = "../scenarios/policy_status.rs"]
mod policy_status;
#[path = "../scenarios/policy_strangers.rs"]
mod policy_strangers;
#[path = "../scenarios/priorities.rs"]
mod priorities;
#[path = "../scenarios/reachable.rs"]
mod reachable;
#[path = "../scenarios/renamed_node.rs"]
mod renamed_node;
#[path = "../scenarios/takeover.rs"]
mod takeover;
#[path = "../scenarios/tenants.rs"]
mod tenants;
#[path = "../scenarios/tunnel_services.rs"]
mod tunnel_services;
#[path = "../scenarios/tunnel_strangers.rs"]
mod tunnel_strangers;
#[path = "../scenarios/tunnels.rs"]
mod tunnels;
#[path = "../scenarios/unnumbered.rs"]
mod unnumbered;
#[path = "../scenarios/wireguard.rs"]
mod wireguard;
#[path = "../scenarios/wireguard_secrets.rs"]
mod wireguard_secrets;

/// What the roles grant, and where each permission is used.
const PERMISSIONS: &str = include_str!("../../testdata/lab/permissions.txt");
/// How long one scenario may take, on a busy machine.
const WITHIN: Duration = Duration::from_secs(600);
/// The variable that says another number of seconds, for those that are told to do more.
const WITHIN_VARIABLE: &str = "SCENARIO_SECONDS";
/// The variable that names a directory where all that scenarios say stays; otherwise it is told of
/// those that fail.
const LOGS_VARIABLE: &str = "SCENARIO_LOGS";
/// How many times slower the second kernel's machine is taken for: nothing helps it to run.
const SLOWNESS: u32 = 3;

/// What is run in a lab's directory.
type Run = fn(&Path, Kind) -> Result<(), Error>;

/// What proves something about us and the kernel: the real API server adds nothing.
const EMBEDDED: &[Kind] = &[Kind::Embedded];
/// What is about the real API server: its kubelets, its etcd, what it does when it is restarted.
const KUBERNETES: &[Kind] = &[Kind::Kubernetes];
/// What proves something about us and Kubernetes.
const BOTH: &[Kind] = &Kind::ALL;

/// All scenarios, by name, and which control planes they are for.
const ALL: &[(&str, Run, &[Kind])] = &[
    ("thirty-pods-reach-each-other", reachable::thirty_pods, BOTH),
    ("dual-stack-pods-reach-each-other", reachable::dual_stack, EMBEDDED),
    ("objects-keep-unknown-fields", objects::round_trip, BOTH),
    ("routes-equal-the-model", churn::routes_as_modelled, EMBEDDED),
    ("killed-daemon-loses-no-packet", faults::daemon_killed, EMBEDDED),
    ("bird-holds-exactly-the-blocks", peers::bird_holds_the_blocks, EMBEDDED),
    ("del-leaves-nothing", churn::nothing_is_left, BOTH),
    ("pods-talk-without-api-server", faults::api_server_stopped, BOTH),
    ("older-definitions-hold-nobody-up", faults::older_definitions, BOTH),
    ("planted-faults-are-named", node_faults::are_named, BOTH),
    ("permissions-are-needed", permissions::are_needed, KUBERNETES),
    ("permissions-of-calico-node-are-needed", permissions_of_node::are_needed, KUBERNETES),
    ("authority-changes-under-pods", authority::changes_under_pods, KUBERNETES),
    ("calico-is-replaced-and-comes-back", takeover::of_calico, EMBEDDED),
    ("uninstall-leaves-the-node-as-found", takeover::uninstalled, EMBEDDED),
    ("lost-addresses-are-released", ipam::lost_addresses, BOTH),
    ("live-addresses-are-kept", ipam::live_addresses, BOTH),
    ("churn-leaves-no-address", ipam::churn, BOTH),
    ("exhaustion-is-told-and-ends", addresses::exhaustion, KUBERNETES),
    ("changed-block-size-overlaps-nothing", addresses::block_size, KUBERNETES),
    ("freed-addresses-lead-nowhere", addresses::freed_lead_nowhere, KUBERNETES),
    ("watch-holes-are-filled", holes::are_filled, KUBERNETES),
    ("pulled-cable-heals", faults::cable_pulled, EMBEDDED),
    ("parted-nodes-find-together", faults::partition, EMBEDDED),
    ("mesh-becomes-reflectors", bgp::mesh_to_reflectors, EMBEDDED),
    ("mesh-gets-a-password", bgp::mesh_password, EMBEDDED),
    ("r14-r15-restarts-are-not-noticed", bgp_faults::restarts, EMBEDDED),
    ("services-are-reached-through-the-rack", peers::rack, EMBEDDED),
    ("bgp-troubles-are-told", bgp_troubles::are_told, BOTH),
    ("workloads-peer-with-their-node", peers::workload, EMBEDDED),
    ("route-metrics-change-live", priorities::change_live, EMBEDDED),
    ("unnumbered-peers-are-routers", unnumbered::through_frr, EMBEDDED),
    ("routed-fabric-with-a-router", peers::routed_fabric, EMBEDDED),
    ("vxlan-changes-modes-under-packets", tunnels::vxlan_modes, EMBEDDED),
    ("vxlan-needs-no-bgp", tunnels::vxlan_without_bgp, EMBEDDED),
    ("services-are-reached-through-vxlan", tunnel_services::vxlan, EMBEDDED),
    ("spoiled-checksums-are-worked-round", checksums::are_spoiled, EMBEDDED),
    ("kubernetes-policy-by-packets", policy::kubernetes_matrix, BOTH),
    ("calico-policy-by-packets", policy::calico_matrix, BOTH),
    ("cluster-policy-by-packets", policy::cluster_matrix, BOTH),
    ("policy-status-is-told", policy_status::is_told, BOTH),
    ("drops-are-attributed", policy_status::drops_are_attributed, EMBEDDED),
    ("random-policy-by-packets", policy::random, EMBEDDED),
    ("random-changes-by-packets", policy::random_changes, EMBEDDED),
    ("denied-flows-stay-denied", policy_faults::stays_denied, EMBEDDED),
    ("flushed-ruleset-is-repaired", policy_faults::flush_is_repaired, EMBEDDED),
    ("strangers-keep-what-is-theirs", policy_strangers::keep, EMBEDDED),
    ("other-versions-tables-are-taken-over", policy_strangers::taken_over, EMBEDDED),
    ("spoofed-packets-are-dropped", policy_spoofing::spoofed, EMBEDDED),
    ("closed-hosts-stay-in-touch", policy_hosts::closed_hosts, EMBEDDED),
    ("hosts-have-early-policy", policy_hosts::early_policy, EMBEDDED),
    ("pods-leave-by-their-nodes-address", policy_hosts::translated_outside, EMBEDDED),
    ("denied-connections-end", connections::denied_end, EMBEDDED),
    ("freed-addresses-have-no-connections", connections::freed_are_forgotten, EMBEDDED),
    ("first-packets-are-under-policy", policy_faults::first_packets, EMBEDDED),
    ("a-clusters-life", kubelets::a_clusters_life, KUBERNETES),
    ("containers-reach-each-other", docker::reach, EMBEDDED),
    ("containers-outlive-every-program", docker::kills, EMBEDDED),
    ("containers-leave-no-address", docker::churn, EMBEDDED),
    ("networks-of-docker", docker::networks, EMBEDDED),
    ("docker-without-a-datastore", docker::datastore_down, EMBEDDED),
];

/// Those that need what many kernels lack: `cargo xtask` boots one for them.
///
/// Code runs ten to thirty times slower there: few nodes, few pods, the embedded datastore.
const SECOND: &[(&str, Run, &[Kind])] = &[
    ("ipip-changes-modes-under-packets", tunnels::ipip_modes, EMBEDDED),
    ("wireguard-lets-nothing-out-in-clear", wireguard::strict, EMBEDDED),
    ("tenants-may-share-a-range", tenants::share_a_range, EMBEDDED),
    ("the-manifest-works-as-it-is", manifest::as_it_is, KUBERNETES),
];

/// Those that take too long to be run unless somebody asks for them by name.
const ASKED_FOR: &[&str] = &["the-manifest-works-as-it-is"];

/// Which kernel scenarios are for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Any that runs containers.
    #[default]
    First,
    /// One with the modules of IPIP, WireGuard and VRF.
    Second,
}

impl Kernel {
    const fn scenarios(self) -> &'static [(&'static str, Run, &'static [Kind])] {
        match self {
            Self::First => ALL,
            Self::Second => SECOND,
        }
    }
}

/// Returns the names of all scenarios for a kernel.
pub(crate) fn names(kernel: Kernel) -> Vec<&'static str> {
    kernel.scenarios().iter().map(|(name, ..)| *name).collect()
}

/// Runs one scenario in this lab.
pub(crate) fn run_one(dir: &Path, name: &str, control_plane: Kind) -> Result<(), Error> {
    let found = ALL.iter().chain(SECOND).find(|(known, ..)| *known == name);
    let (_, run, _) = found.ok_or_else(|| unknown(name))?;
    run(dir, control_plane)?;
    if control_plane == Kind::Kubernetes { require_used(dir, name) } else { Ok(()) }
}

/// Looks whether a scenario has used the permissions that are said to be used there
/// (`testdata/lab/permissions.txt`), as the API server has seen it.
fn require_used(dir: &Path, scenario: &str) -> Result<(), Error> {
    let is_for = |reason: Option<&str>| reason.and_then(rbac::scenario) == Some(scenario);
    let golden = rbac::golden(PERMISSIONS).filter(|(_, reason)| is_for(*reason));
    let expected: Vec<&str> = golden.map(|(name, _)| name).collect();
    if expected.is_empty() {
        return Ok(());
    }
    let done = rbac::done_in(&dir.join("control-plane"))?;
    let used: Vec<String> = done.permitted.iter().map(ToString::to_string).collect();
    let is_used = |name: &&&str| used.iter().any(|used| used == **name);
    let never: Vec<_> = expected.iter().filter(|name| !is_used(name)).collect();
    if never.is_empty() { Ok(()) } else { Err(Error::wrong(format!("not used: {never:#?}"))) }
}

/// Runs scenarios, each in a new lab, `at_once` of them at any time; returns the exit code.
///
/// Each runs on the control planes that it is for, or on the one that is asked for.
pub(crate) fn run_all(
    kernel: Kernel,
    wanted: &[String],
    asked: Option<Kind>,
    at_once: NonZeroUsize,
) -> Result<u8, Error> {
    if let Some(name) = wanted.iter().find(|name| !names(kernel).contains(&name.as_str())) {
        return Err(unknown(name));
    }
    let left = Mutex::new(chosen(kernel, wanted, asked).into_iter());
    let (passed, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((name, kind)) = next() {
            let started = Instant::now();
            let outcome = run_apart(kernel, name, kind);
            let (seconds, on) = (started.elapsed().as_secs_f32(), kind.name());
            match outcome {
                Ok(()) => {
                    passed.fetch_add(1, Ordering::Relaxed);
                    crate::say(&format!("pass  {name} on {on} ({seconds:.1} s)"));
                }
                Err(error) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    crate::say(&format!("FAIL  {name} on {on} ({seconds:.1} s)\n{error}"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once.get() {
            scope.spawn(work);
        }
    });
    let (passed, failed) = (passed.into_inner(), failed.into_inner());
    crate::say(&format!("{passed} passed, {failed} failed"));
    Ok(u8::from(failed > 0))
}

/// Returns what to run, and on what.
fn chosen(kernel: Kernel, wanted: &[String], asked: Option<Kind>) -> Vec<(&'static str, Kind)> {
    let is_wanted = |name: &str| {
        let by_default = wanted.is_empty() && !ASKED_FOR.contains(&name);
        by_default || wanted.iter().any(|wanted| wanted == name)
    };
    let on = |kinds: &'static [Kind]| asked.map_or_else(|| kinds.to_vec(), |kind| vec![kind]);
    let scenarios = kernel.scenarios().iter();
    scenarios
        .filter(|(name, ..)| is_wanted(name))
        .flat_map(|(name, _, kinds)| on(kinds).into_iter().map(|kind| (*name, kind)))
        .collect()
}

/// Runs a scenario in a process of its own, with what it says in the error.
fn run_apart(kernel: Kernel, name: &str, kind: Kind) -> Result<(), Error> {
    let log = format!("lab-scenario-{}-{name}-{}.log", std::process::id(), kind.name());
    let kept = std::env::var_os(LOGS_VARIABLE).map(PathBuf::from);
    let path = kept.clone().unwrap_or_else(std::env::temp_dir).join(log);
    let log = File::create(&path).map_err(Error::file(&path))?;
    let log_too = log.try_clone().map_err(Error::file(&path))?;
    let program = std::env::current_exe().map_err(Error::file(&path))?;
    let mut command = Command::new(program);
    let mut within = WITHIN;
    if kernel == Kernel::Second {
        command.env(patience::VARIABLE, SLOWNESS.to_string());
        within = within.saturating_mul(SLOWNESS);
    }
    if let Ok(text) = std::env::var(WITHIN_VARIABLE) {
        let seconds = text.parse().map_err(|_| {
            Error::wrong(format!("{WITHIN_VARIABLE}: `{text}` is no number of seconds"))
        })?;
        within = Duration::from_secs(seconds);
    }
    command
        .args(["scenario", name, "--datastore", kind.name()])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too);
    let mut child = command.spawn().map_err(|error| Error::program(name, error))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| Error::program(name, error))? {
            break status.to_string();
        }
        if started.elapsed() > within {
            // The lab ends with this process: the kernel sees to it.
            drop(child.kill());
            drop(child.wait());
            break format!("took more than {} s", within.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    if kept.is_none() {
        drop(std::fs::remove_file(&path));
    }
    if status == "exit status: 0" {
        return Ok(());
    }
    Err(Error::program(name, format!("{status}\n{said}")))
}

fn unknown(name: &str) -> Error {
    let of = |kernel| names(kernel).join(", ");
    Error::wrong(format!(
        "there is no scenario `{name}`: there are {}, and with `--kernel second` {}",
        of(Kernel::First),
        of(Kernel::Second)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_used_in_scenarios_that_see_the_real_server() {
        for (permission, reason) in rbac::golden(PERMISSIONS) {
            let Some(name) = reason.and_then(rbac::scenario) else { continue };
            let found = ALL.iter().find(|(known, ..)| *known == name);
            let is_seen = found.is_some_and(|(_, _, kinds)| kinds.contains(&Kind::Kubernetes));
            assert!(is_seen, "{permission}: {name}");
        }
    }

    #[test]
    fn long_ones_run_where_they_are_asked_for() {
        for name in ASKED_FOR {
            let names = [(*name).to_owned()];
            let found = [Kernel::First, Kernel::Second].map(|kernel| chosen(kernel, &names, None));
            assert_eq!(found.iter().map(Vec::len).sum::<usize>(), 1, "{name}");
        }
    }

    #[test]
    fn what_is_asked_for_goes_before_what_a_scenario_is_for() {
        let names = ["del-leaves-nothing".to_owned(), "pulled-cable-heals".to_owned()];
        let by_default = [
            ("del-leaves-nothing", Kind::Embedded),
            ("del-leaves-nothing", Kind::Kubernetes),
            ("pulled-cable-heals", Kind::Embedded),
        ];
        assert_eq!(chosen(Kernel::First, &names, None), by_default);
        let asked =
            [("del-leaves-nothing", Kind::Kubernetes), ("pulled-cable-heals", Kind::Kubernetes)];
        assert_eq!(chosen(Kernel::First, &names, Some(Kind::Kubernetes)), asked);
        for kernel in [Kernel::First, Kernel::Second] {
            let all = chosen(kernel, &[], Some(Kind::Embedded));
            let names = kernel.scenarios().iter().map(|(name, ..)| name);
            let by_default = names.filter(|name| !ASKED_FOR.contains(name));
            assert_eq!(all.len(), by_default.count());
        }
    }
}
