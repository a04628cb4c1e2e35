//! Kubernetes Events about BGP: sessions that end and come back, objects that cannot be followed.
//!
//! BGPPeer has no status in Calico's definition, and so `kubectl describe` shows Events there;
//! those about the mesh are the Node's. What belongs together is told together: one Event for an
//! object and a reason, counted up, and a node writes no more than [`MOST`] of them in its turn.

mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bgp::{PeerStatus, State};
use calc::Problem;
use model::net::zone;
use model::time::Timestamp;

use crate::schedule::Schedule;

pub(crate) use writer::Writer;

/// How many Events a node writes in one turn; others wait for the next one.
const MOST: usize = 8;
/// How many sessions an Event names.
const NAMED: usize = 8;
/// The longest text of an Event, in characters; the API server takes 1024 bytes.
const MAX_TEXT: usize = 1000;

/// What an Event is about: the kind of an object, and its name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Subject {
    /// The node that speaks.
    Node,
    /// A `BGPPeer`.
    Peer(String),
    /// A `BGPFilter`.
    Filter(String),
    /// A `BGPConfiguration`.
    Configuration(String),
}

/// Why an Event is written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Reason {
    /// Sessions have ended.
    SessionLost,
    /// Sessions have come up.
    SessionEstablished,
    /// The object cannot be followed.
    Refused,
    /// The object is followed again.
    Accepted,
}

impl Reason {
    /// Returns the word that people and tools look for.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::SessionLost => "BGPSessionLost",
            Self::SessionEstablished => "BGPSessionEstablished",
            Self::Refused => "BGPObjectRefused",
            Self::Accepted => "BGPObjectAccepted",
        }
    }

    /// Returns the type of the Event.
    pub(crate) const fn severity(self) -> &'static str {
        match self {
            Self::SessionLost | Self::Refused => "Warning",
            Self::SessionEstablished | Self::Accepted => "Normal",
        }
    }
}

/// Something that is to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Notice {
    pub(crate) subject: Subject,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// A session as it was last seen.
#[derive(Debug)]
struct Seen {
    is_up: bool,
    establishments: u64,
}

/// Notes what is new, and says it when it is the node's turn.
#[derive(Debug)]
pub(crate) struct News {
    schedule: Schedule,
    seen: BTreeMap<String, Seen>,
    refused: BTreeMap<Subject, BTreeSet<String>>,
    /// What is to be said, by object and reason: never more than there are of these.
    untold: BTreeMap<(Subject, Reason), Vec<String>>,
    /// The order in which it has come up.
    order: VecDeque<(Subject, Reason)>,
}

impl News {
    /// Starts with nothing known.
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            seen: BTreeMap::new(),
            refused: BTreeMap::new(),
            untold: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Takes note of how sessions are, in a cluster of so many nodes.
    ///
    /// A session that is no longer wanted is not lost, and one that never was up is not told of.
    pub(crate) fn note_sessions(&mut self, peers: &[PeerStatus], now: Timestamp, nodes: usize) {
        let names: BTreeSet<&String> = peers.iter().map(|peer| &peer.name).collect();
        self.seen.retain(|name, _| names.contains(name));
        for peer in peers {
            let is_up = peer.state == State::Established;
            let seen = self
                .seen
                .entry(peer.name.clone())
                .or_insert(Seen { is_up: false, establishments: 0 });
            let times = peer.establishments.saturating_sub(seen.establishments);
            let was_up = seen.is_up;
            *seen = Seen { is_up, establishments: peer.establishments };
            let subject = peer.object.clone().map_or(Subject::Node, Subject::Peer);
            let who = format!("{} (AS {})", zone::to_text(peer.peer_addr), peer.peer_asn.0);
            // Up in both looks, and up anew between them: it has been lost as well.
            let is_lost = if was_up { !is_up || times > 0 } else { !is_up && times > 0 };
            if is_lost {
                let why = peer.last_error.as_deref().unwrap_or("no reason is known");
                self.add((subject.clone(), Reason::SessionLost), format!("{who}: {why}"));
            }
            if is_up && times > 0 {
                self.add((subject, Reason::SessionEstablished), who);
            }
        }
        self.arm(now, nodes);
    }

    /// Takes note of what cannot be followed now.
    pub(crate) fn note_problems(&mut self, problems: &[Problem], now: Timestamp, nodes: usize) {
        let mut refused: BTreeMap<Subject, BTreeSet<String>> = BTreeMap::new();
        for problem in problems {
            if let Some(subject) = subject_of(&problem.object) {
                refused.entry(subject).or_default().insert(problem.message.clone());
            }
        }
        let before = std::mem::replace(&mut self.refused, refused.clone());
        for (subject, faults) in &refused {
            if before.get(subject) != Some(faults) {
                // Only what is true now is to be told.
                self.untold.remove(&(subject.clone(), Reason::Accepted));
                self.untold.remove(&(subject.clone(), Reason::Refused));
                for fault in faults {
                    self.add((subject.clone(), Reason::Refused), fault.clone());
                }
            }
        }
        for subject in before.into_keys().filter(|subject| !refused.contains_key(subject)) {
            self.untold.remove(&(subject.clone(), Reason::Refused));
            self.add((subject, Reason::Accepted), "nothing is wrong with it any more".to_owned());
        }
        self.arm(now, nodes);
    }

    /// Returns when there is something to say.
    pub(crate) const fn due(&self) -> Option<Timestamp> {
        self.schedule.due()
    }

    /// Returns what is to be said now, which is then said.
    pub(crate) fn take(&mut self, now: Timestamp, nodes: usize) -> Vec<Notice> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.schedule.said(now);
        let mut notices = Vec::new();
        while notices.len() < MOST {
            let Some((subject, reason)) = self.order.pop_front() else { break };
            if let Some(details) = self.untold.remove(&(subject.clone(), reason)) {
                notices.push(Notice { message: text(reason, &details), subject, reason });
            }
        }
        self.arm(now, nodes);
        notices
    }

    fn add(&mut self, key: (Subject, Reason), detail: String) {
        let is_session = matches!(key.1, Reason::SessionLost | Reason::SessionEstablished);
        let details = self.untold.entry(key.clone()).or_default();
        if details.is_empty() {
            self.order.push_back(key);
        }
        // A peer that flaps is named once, with its last words.
        let who = |text: &str| text.split_once(": ").map_or(text, |(who, _)| who).to_owned();
        details.retain(|known| !is_session || who(known) != who(&detail));
        details.push(detail);
    }

    fn arm(&mut self, now: Timestamp, nodes: usize) {
        if !self.untold.is_empty() {
            self.schedule.note(now, nodes);
        }
    }
}

/// Returns what `BGPPeer tor` names, if it is one of ours to speak of.
fn subject_of(object: &str) -> Option<Subject> {
    let (kind, name) = object.split_once(' ')?;
    let name = name.to_owned();
    match kind {
        "BGPPeer" => Some(Subject::Peer(name)),
        "BGPFilter" => Some(Subject::Filter(name)),
        "BGPConfiguration" => Some(Subject::Configuration(name)),
        _ => None,
    }
}

fn text(reason: Reason, details: &[String]) -> String {
    let count = details.len();
    let what = match (reason, count) {
        (Reason::SessionLost, 1) => "BGP session lost".to_owned(),
        (Reason::SessionLost, _) => format!("{count} BGP sessions lost"),
        (Reason::SessionEstablished, 1) => "BGP session established".to_owned(),
        (Reason::SessionEstablished, _) => format!("{count} BGP sessions established"),
        (Reason::Refused, _) => "not followed".to_owned(),
        (Reason::Accepted, _) => "followed again".to_owned(),
    };
    let named = details.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let others = count.saturating_sub(NAMED);
    let more = if others == 0 { String::new() } else { format!("; and {others} more") };
    let whole = format!("{what}: {named}{more}");
    if whole.chars().count() <= MAX_TEXT {
        return whole;
    }
    whole.chars().take(MAX_TEXT).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::net::Asn;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    fn news() -> News {
        News::new(Schedule::new(&"node-1".parse().unwrap()))
    }

    fn peer(number: u8, object: Option<&str>, state: State, establishments: u64) -> PeerStatus {
        PeerStatus {
            name: format!("peer-{number}"),
            object: object.map(str::to_owned),
            peer_addr: [192, 0, 2, number].into(),
            peer_asn: Asn(64_512),
            state,
            since: Timestamp::ZERO,
            establishments,
            sent: bgp::MessageCounts::default(),
            heard: bgp::MessageCounts::default(),
            routes: bgp::RouteCounts::default(),
            received: 0,
            advertised: 0,
            is_stale: false,
            has_end_of_rib: true,
            last_error: Some("hold timer expired".to_owned()),
            last_error_at: None,
        }
    }

    /// Returns what is said in the next turn after `now`.
    fn said(news: &mut News, now: u64) -> Vec<String> {
        let Some(due) = news.due() else { return Vec::new() };
        let notices = news.take(due.max(at(now)), 3);
        let words = |notice: &Notice| {
            format!("{:?} {} {}", notice.subject, notice.reason.word(), notice.message)
        };
        notices.iter().map(words).collect()
    }

    #[test]
    fn sessions_of_one_object_are_told_together() {
        let mut news = news();
        let up = |count| [1, 2].map(|number| peer(number, Some("tor"), State::Established, count));
        news.note_sessions(&up(1), at(0), 3);
        assert_eq!(
            said(&mut news, 0),
            ["Peer(\"tor\") BGPSessionEstablished 2 BGP sessions established: \
              192.0.2.1 (AS 64512); 192.0.2.2 (AS 64512)"]
        );
        news.note_sessions(&up(1), at(10), 3);
        assert_eq!(news.due(), None);
    }

    #[test]
    fn a_session_that_flaps_between_two_looks_is_told_of() {
        let mut news = news();
        news.note_sessions(&[peer(1, None, State::Established, 1)], at(0), 3);
        said(&mut news, 0);
        news.note_sessions(&[peer(1, None, State::Established, 2)], at(10), 3);
        assert_eq!(
            said(&mut news, 10),
            [
                "Node BGPSessionLost BGP session lost: 192.0.2.1 (AS 64512): hold timer expired",
                "Node BGPSessionEstablished BGP session established: 192.0.2.1 (AS 64512)",
            ]
        );
    }

    #[test]
    fn a_session_that_is_not_wanted_any_more_is_not_lost() {
        let mut news = news();
        news.note_sessions(&[peer(1, None, State::Established, 1)], at(0), 3);
        said(&mut news, 0);
        news.note_sessions(&[], at(10), 3);
        news.note_sessions(&[peer(1, None, State::Active, 0)], at(20), 3);
        assert_eq!(news.due(), None);
    }

    #[test]
    fn a_thousand_flaps_of_a_thousand_peers_are_a_few_events() {
        let mut news = news();
        let mut events = 0;
        for second in 0..1000 {
            let state = if second % 2 == 0 { State::Established } else { State::Active };
            let all: Vec<_> = (0..=255)
                .map(|number| {
                    let object = format!("peer-{number}");
                    peer(number, Some(&object), state, second / 2 + 1)
                })
                .collect();
            news.note_sessions(&all, at(second), 1000);
            events += news.take(at(second), 1000).len();
        }
        // 1000 nodes take turns of 50 s, in each of which a node writes 8.
        assert!((8..=21 * MOST).contains(&events), "{events}");
        assert!(news.untold.len() <= 512);
    }

    #[test]
    fn what_is_refused_is_told_once_and_so_is_its_end() {
        let mut news = news();
        let problem = |object: &str, message: &str| Problem {
            object: object.to_owned(),
            message: message.to_owned(),
        };
        let found =
            [problem("BGPPeer tor", "filter f is not there"), problem("pod a/b", "no route")];
        for second in [0, 1] {
            news.note_problems(&found, at(second), 3);
        }
        assert_eq!(
            said(&mut news, 1),
            ["Peer(\"tor\") BGPObjectRefused not followed: filter f is not there"]
        );
        news.note_problems(&[], at(20), 3);
        assert_eq!(
            said(&mut news, 20),
            ["Peer(\"tor\") BGPObjectAccepted followed again: nothing is wrong with it any more"]
        );
    }

    #[test]
    fn what_is_no_longer_true_is_not_told() {
        let mut news = news();
        let found = [Problem { object: "BGPFilter f".to_owned(), message: "wrong".to_owned() }];
        news.note_problems(&found, at(0), 3);
        news.note_problems(&[], at(1), 3);
        assert_eq!(
            said(&mut news, 1),
            ["Filter(\"f\") BGPObjectAccepted followed again: nothing is wrong with it any more"]
        );
    }

    #[test]
    fn no_event_is_longer_than_the_server_takes() {
        let details: Vec<String> =
            (0..100).map(|number| format!("{number}: {}", "é".repeat(200))).collect();
        let text = text(Reason::SessionLost, &details);
        assert!(text.chars().count() <= MAX_TEXT + 1);
        assert!(text.starts_with("100 BGP sessions lost: 0: é"));
    }
}
