//! Finds out whether what carries VXLAN spoils checksums that are left to it, and says so.
//!
//! Each far end is asked when it is new and now and then after that, a few at a time
//! ([`kernel::checksums`]). One that tells of corruption is enough for a device: its packets get
//! their checksums from the kernel then, which costs processor time and nothing else. Whether the
//! fabric has become well cannot be seen while that is so; administrators say it, or a reboot asks
//! anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ::kernel::Netlink;
use ::kernel::checksums::{Outcome, Tunnel, Way, ask, tunnels};
use ::kernel::monitor::{self, Monitor, Topic};
use ::kernel::netlink::Error;
use model::desired::{Checksums, TunnelDevice};
use model::net::IfName;
use telemetry::metrics::{Counters, Gauges, Registry};
use tokio::sync::{mpsc, oneshot};

use super::event::Event;

/// How often is looked for far ends to ask, where there is a tunnel.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long what a far end said is good.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// How long silence is good.
const ASK_SILENT_AGAIN: Duration = Duration::from_secs(60);
/// How many are asked at a time.
const MOST: usize = 8;

/// When which far end is to be asked again.
#[derive(Debug, Default)]
struct Schedule(BTreeMap<Way, Instant>);

impl Schedule {
    /// Returns whom to ask now, out of those that there are: those that never were asked first.
    fn due(&mut self, present: &BTreeSet<Way>, now: Instant) -> Vec<Way> {
        self.0.retain(|way, _| present.contains(way));
        let next = |way: &Way| self.0.get(way).copied();
        let is_due = |way: &&Way| next(way).is_none_or(|next| next <= now);
        let mut due: Vec<&Way> = present.iter().filter(is_due).collect();
        due.sort_by_key(|way| next(way));
        due.into_iter().take(MOST).cloned().collect()
    }

    /// Takes note of what came of asking.
    fn asked(&mut self, way: Way, outcome: Outcome, now: Instant) {
        let pause = match outcome {
            Outcome::Intact | Outcome::Corrupted => ASK_AGAIN,
            Outcome::Silent => ASK_SILENT_AGAIN,
        };
        self.0.insert(way, now.checked_add(pause).unwrap_or(now));
    }
}

/// What the loop is made of.
#[derive(Debug)]
pub(crate) struct Start {
    /// The kernel.
    pub(crate) netlink: Netlink,
    /// Where to say what was found.
    pub(crate) events: mpsc::Sender<Event>,
    /// Where numbers are told.
    pub(crate) registry: Registry,
}

/// Runs for as long as the daemon does.
///
/// # Errors
///
/// [`Error`] if the kernel cannot be talked to at all.
pub(crate) async fn run(start: Start) -> Result<(), Error> {
    let Start { netlink, events, registry } = start;
    let numbers = Numbers::new(&registry);
    let (mut schedule, mut told) = (Schedule::default(), BTreeSet::new());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Whoever cannot be asked now is asked again: that is not to say that there is no tunnel.
        let Ok(found) = tunnels(&netlink).await else { continue };
        numbers.devices(&found);
        if found.is_empty() {
            until_there_is_one(&netlink).await?;
            continue;
        }
        let ways = found.into_iter().flat_map(|tunnel| tunnel.ways).collect();
        let corrupting = ask_all(&mut schedule, &ways, &numbers).await;
        for (device, who) in corrupting {
            if !told.insert(device.clone()) {
                continue;
            }
            tracing::warn!(
                %device, found = %who,
                "checksums of packets in this tunnel are spoiled on the way, so the kernel fills them \
                 in from now on, unless featureDetectOverride says that ChecksumOffloadBroken=false: \
                 look for a later driver, firmware or kernel"
            );
            if events.send(Event::Corrupting(device)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Waits until there is a tunnel, by what the kernel tells: where there is none, as in most
/// clusters, nothing is looked at.
async fn until_there_is_one(netlink: &Netlink) -> Result<(), Error> {
    // First this, or one that comes meanwhile is missed.
    let mut monitor = Monitor::open(&[Topic::Links])?;
    let names = TunnelDevice::names();
    while tunnels(netlink).await.is_ok_and(|found| found.is_empty()) {
        let is_about_one = |event: &monitor::Event| match event {
            monitor::Event::Link(link) => names.contains(&link.name),
            monitor::Event::Resync => true,
            monitor::Event::LinkGone { .. }
            | monitor::Event::Addr(_)
            | monitor::Event::AddrGone(_)
            | monitor::Event::Route(_)
            | monitor::Event::RouteGone(_)
            | monitor::Event::Rules => false,
        };
        while !monitor.next_batch().await?.iter().any(is_about_one) {}
    }
    Ok(())
}

/// Asks, and returns the devices whose packets are spoiled, with who has told so.
async fn ask_all(
    schedule: &mut Schedule,
    present: &BTreeSet<Way>,
    numbers: &Numbers,
) -> BTreeMap<IfName, String> {
    let due = schedule.due(present, Instant::now());
    if due.is_empty() {
        return BTreeMap::new();
    }
    let outcomes = wait_for_answers(due.clone()).await;
    let mut corrupting = BTreeMap::new();
    for (way, outcome) in due.into_iter().zip(outcomes) {
        tracing::debug!(device = %way.device, to = %way.to, ?outcome, "checksums");
        numbers.asked(&way.device, outcome);
        if outcome == Outcome::Corrupted {
            corrupting.insert(way.device.clone(), format!("far end {}", way.to));
        }
        schedule.asked(way, outcome, Instant::now());
    }
    corrupting
}

/// Asks in a thread of its own: one of the runtime's would hold up the daemon's end.
async fn wait_for_answers(ways: Vec<Way>) -> Vec<Outcome> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("checksums".to_owned());
    let started = thread.spawn(move || drop(sender.send(ask(&ways))));
    if let Err(error) = started {
        tracing::warn!(%error, "far ends of tunnels are not asked about checksums now");
    }
    receiver.await.unwrap_or_default()
}

/// What is told of it in numbers.
struct Numbers {
    offload: Gauges,
    asked: Counters,
}

impl Numbers {
    fn new(registry: &Registry) -> Self {
        Self {
            offload: registry.gauges(
                "calico_vxlan_checksum_offload",
                "Whether checksums are left to what carries the packets (1) or the kernel fills them in (0)",
            ),
            asked: registry.counters(
                "calico_vxlan_checksum_probes",
                "Far ends that were asked whether checksums arrive, by what came of it",
            ),
        }
    }

    fn devices(&self, found: &[Tunnel]) {
        self.offload.clear();
        for tunnel in found {
            let labels = vec![("device", tunnel.device.to_string())];
            let is_left = tunnel.checksums == Checksums::Offloaded;
            self.offload.get_or_create(&labels).set(i64::from(is_left));
        }
    }

    fn asked(&self, device: &IfName, outcome: Outcome) {
        let result = match outcome {
            Outcome::Intact => "intact",
            Outcome::Corrupted => "corrupted",
            Outcome::Silent => "silent",
        };
        let labels = vec![("device", device.to_string()), ("result", result.to_owned())];
        self.asked.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn way(number: u8) -> Way {
        Way { device: "vxlan.calico".parse().unwrap(), to: IpAddr::from([10, 0, 0, number]) }
    }

    #[test]
    fn new_far_ends_are_asked_at_once_and_old_ones_in_turns() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let mut due = |present: &[u8], seconds, outcome| {
            let present = present.iter().copied().map(way).collect();
            let now = start + Duration::from_secs(seconds);
            let due = schedule.due(&present, now);
            for way in &due {
                schedule.asked(way.clone(), outcome, now);
            }
            due
        };
        let ways = |numbers: &[u8]| numbers.iter().copied().map(way).collect::<Vec<_>>();
        let all: Vec<u8> = (0..12).collect();
        assert_eq!(due(&all, 0, Outcome::Intact), ways(&[0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(due(&all, 5, Outcome::Silent), ways(&[8, 9, 10, 11]));
        assert_eq!(due(&all, 64, Outcome::Intact), []);
        assert_eq!(due(&all, 65, Outcome::Intact), ways(&[8, 9, 10, 11]));
        let more: Vec<u8> = (2..13).collect();
        assert_eq!(due(&more, 600, Outcome::Intact), ways(&[12, 2, 3, 4, 5, 6, 7]));
        // Who comes back is new.
        assert_eq!(due(&[0], 601, Outcome::Intact), ways(&[0]));
    }
}
