//! Facts about restarts, repairs and other people, with packets under way.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel::nftables::{Event, Monitor};
use model::net::Family;
use model::ruleset::{Snapshot, Step};
use render::{Renderer, Settings, plan};

use crate::cluster::{Cluster, Machine, Seen, ask, serve_tcp, serve_udp, tcp, udp, udp_socket};
use crate::policies::{ingress, open, rule, with};
use model::policy::{Action, Protocol};

/// Asks by UDP without a break, each time as a new connection, and counts the answers.
struct Traffic {
    is_over: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    thread: thread::JoinHandle<u32>,
}

impl Traffic {
    fn start(from: &Machine, to: (std::net::IpAddr, u16)) -> Self {
        let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (netns, from) = (kernel::Netns::open(from.netns().path()).unwrap(), from.v4());
        let thread = thread::spawn({
            let (is_over, asked) = (is_over.clone(), asked.clone());
            move || {
                let mut answered = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let socket = udp_socket(&netns, from, to);
                    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                    asked.fetch_add(1, Ordering::Relaxed);
                    answered += u32::from(ask(&socket) == Seen::Answer);
                }
                answered
            }
        });
        Self { is_over, asked, thread }
    }

    /// Ends, and returns how many were asked and how many answered.
    fn end(self) -> (u32, u32) {
        self.is_over.store(true, Ordering::Relaxed);
        let answered = self.thread.join().unwrap();
        (self.asked.load(Ordering::Relaxed), answered)
    }
}

const REBUILDS: u32 = 100;

/// A pod that answers UDP at 53 to everybody, and at 54 to nobody.
async fn guarded() -> (Cluster, model::desired::policy::PolicyState) {
    let cluster = Cluster::new(2).await;
    let to = &cluster.pods[1];
    for port in [53, 54] {
        serve_udp(to.netns(), to.v4(), port);
    }
    let mut allow = rule(Action::Allow, Some(Protocol::UDP));
    let ranges = vec![(53, 53)];
    allow.destination.ports = Some(model::desired::policy::Ports { ranges, named: Vec::new() });
    let state = with(cluster.state(&[&open(), &ingress(&["p"])]), "p", vec![allow]);
    (cluster, state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_changes_nothing_and_no_packet_notices() {
    let (cluster, state) = guarded().await;
    let mut enforced = cluster.enforce(state.clone(), Settings::default());
    let generation = enforced.nftables.generation().unwrap();
    let (from, to) = (&cluster.pods[0], cluster.pods[1].v4());
    let traffic = Traffic::start(from, (to, 53));
    for _ in 0..20 {
        let mut again = cluster.enforce(state.clone(), Settings::default());
        let found = again.nftables.snapshot().unwrap();
        assert!(plan(again.renderer.tables(), &found).is_empty());
        assert_eq!(found.generation, generation);
    }
    let (asked, answered) = traffic.end();
    assert!(asked > 20, "{asked}");
    assert_eq!(asked, answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_table_that_is_made_anew_lets_nothing_through() {
    let (cluster, state) = guarded().await;
    let mut enforced = cluster.enforce(state, Settings::default());
    let (from, to) = (&cluster.pods[0], cluster.pods[1].v4());
    let allowed = Traffic::start(from, (to, 53));
    let denied = Traffic::start(from, (to, 54));
    for _ in 0..REBUILDS {
        let mut found = enforced.nftables.snapshot().unwrap();
        for table in found.tables.values_mut() {
            table.is_strange = true;
        }
        let transaction = plan(enforced.renderer.tables(), &found);
        assert!(transaction.steps.contains(&(Family::V4, Step::DeleteTable)));
        enforced.nftables.apply(&transaction).unwrap();
    }
    let ((asked, answered), (_, leaked)) = (allowed.end(), denied.end());
    assert_eq!(leaked, 0);
    // A packet that looks into the old dispatch map at the moment of the change finds its
    // elements inactive, and is dropped as if its interface were unknown.
    assert!(asked - answered <= REBUILDS, "{asked} {answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_flushed_by_somebody_else_are_repaired() {
    let (cluster, state) = guarded().await;
    let mut enforced = cluster.enforce(state, Settings::default());
    let mut monitor = Monitor::open_in(&cluster.host.netns, &enforced.nftables).unwrap();
    let (from, to) = (&cluster.pods[0], cluster.pods[1].v4());
    let mut command = Command::new("nft");
    command.args(["flush", "ruleset"]);
    let flushed = Instant::now();
    assert!(cluster.host.netns.run(|| command.status()).unwrap().unwrap().success());
    let event = tokio::time::timeout(Duration::from_secs(20), monitor.next()).await.unwrap();
    assert_eq!(event.unwrap(), Event::Changed { by: "nft".to_owned() });
    let found = enforced.nftables.snapshot().unwrap();
    assert!(found.tables.is_empty());
    enforced.nftables.apply(&plan(enforced.renderer.tables(), &found)).unwrap();
    assert!(flushed.elapsed() < Duration::from_secs(1), "{:?}", flushed.elapsed());
    assert_eq!(udp(from, (to, 54)), Seen::Nothing);
    assert_eq!(udp(from, (to, 53)), Seen::Answer);
    let repaired = enforced.nftables.snapshot().unwrap();
    assert_eq!(repaired, Snapshot::of(enforced.renderer.tables(), repaired.generation));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_settings_reach_the_kernel() {
    let (cluster, state) = guarded().await;
    serve_tcp(&cluster.host.netns, 80);
    let mut enforced = cluster.enforce(state.clone(), Settings::default());
    let node = "192.0.2.1".parse().unwrap();
    assert_eq!(tcp(cluster.pods[0].netns(), (node, 80)), Seen::Nothing);
    let workload_to_host = render::HostAction::Accept;
    let transaction =
        enforced.renderer.configure(Settings { workload_to_host, ..Settings::default() });
    enforced.nftables.apply(&transaction).unwrap();
    assert_eq!(tcp(cluster.pods[0].netns(), (node, 80)), Seen::Answer);
    let without_v6 = Settings { families: [Family::V4].into(), ..Settings::default() };
    let fewer = Renderer::new(state, without_v6);
    let found = enforced.nftables.snapshot().unwrap();
    enforced.nftables.apply(&plan(fewer.tables(), &found)).unwrap();
    let left = enforced.nftables.snapshot().unwrap().tables;
    assert_eq!(left.keys().collect::<Vec<_>>(), [&Family::V4]);
}
