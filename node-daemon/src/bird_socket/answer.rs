//! What BIRD 1.6 says, word by word: a code, `-` before more lines of it, a space before the last.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::{PeerStatus, State};
use jiff::{SignedDuration, Timestamp};
use model::net::{Cidr, Family, zone};

use crate::bgp::Snapshot;

/// The version of BIRD whose words these are.
const VERSION: &str = "BIRD v0.3.3+birdv1.6.8";

/// What a client is told first.
pub(super) fn greeting() -> String {
    format!("0001 {VERSION} ready.\n")
}

/// What a client is told that asks for something else.
pub(super) fn error() -> String {
    "9001 syntax error\n".to_owned()
}

pub(super) fn status(snapshot: &Snapshot, identifier: Ipv4Addr, now: Timestamp) -> String {
    let started = ago(now, snapshot.age());
    let time = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let recovery = if snapshot.status.has_converged {
        ""
    } else {
        "0024-Graceful restart recovery in progress\n"
    };
    format!(
        "1000-{VERSION}\n1011-Router ID is {identifier}\n Current server time is {}\n \
         Last reboot on {}\n Last reconfiguration on {}\n{recovery}\
         0013 Daemon is up and running\n",
        time(now),
        time(started),
        time(started),
    )
}

pub(super) fn protocols(snapshot: &Snapshot, family: Family, now: Timestamp) -> String {
    let mut text = "2002-name     proto    table    state  since       info\n".to_owned();
    for (index, peer) in of_family(snapshot, family).enumerate() {
        let code = if index == 0 { "1002-" } else { " " };
        text.push_str(code);
        text.push_str(&row(snapshot, peer, now));
    }
    text.push_str("0000 \n");
    text
}

pub(super) fn details(
    snapshot: &Snapshot,
    family: Family,
    name: Option<&str>,
    now: Timestamp,
) -> String {
    let is_asked = |peer: &&PeerStatus| name.is_none_or(|name| peer.name == name);
    let mut text = "2002-name     proto    table    state  since       info\n".to_owned();
    let mut is_known = name.is_none();
    for peer in of_family(snapshot, family).filter(is_asked) {
        is_known = true;
        let details = [
            ("BGP state", format!("{:?}", peer.state)),
            ("  Neighbor address", zone::to_text(peer.peer_addr)),
            ("  Neighbor AS", peer.peer_asn.to_string()),
            ("Last error", peer.last_error.clone().unwrap_or_default()),
        ];
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "1002-{}1006-  Routes:         {} imported, {} exported",
            row(snapshot, peer, now),
            peer.received,
            peer.advertised
        );
        for (name, value) in details.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(text, "   {name}: {value}");
        }
        text.push_str(" \n");
    }
    if !is_known {
        return "8003 No protocols match\n".to_owned();
    }
    text.push_str("0000 \n");
    text
}

/// The interface is the kernel's to find, so there is none that could be named.
pub(super) fn routes(
    snapshot: &Snapshot,
    family: Family,
    routes: &[(Cidr, BTreeSet<IpAddr>)],
) -> String {
    let peer_at = |addr: &IpAddr| {
        let found = snapshot.status.peers.iter().find(|peer| peer.peer_addr == *addr);
        found.map_or_else(|| "bgp".to_owned(), |peer| peer.name.clone())
    };
    let gateways = |via: &(Cidr, BTreeSet<IpAddr>)| {
        let cidr = via.0;
        let lines = via.1.iter().map(move |gateway| (cidr, *gateway));
        lines.collect::<Vec<_>>()
    };
    let of_family = routes.iter().filter(|(cidr, _)| cidr.family() == family);
    let mut text = String::new();
    for (index, (cidr, gateway)) in of_family.flat_map(gateways).enumerate() {
        let code = if index == 0 { "1007-" } else { " " };
        let (source, gateway) = (peer_at(&gateway), zone::to_text(gateway));
        let _ = writeln!(
            text,
            "{code}{:<18} via {gateway} on * [{source}] * (100) [i]",
            cidr.to_string()
        );
    }
    text.push_str("0000 \n");
    text
}

fn of_family(snapshot: &Snapshot, family: Family) -> impl Iterator<Item = &PeerStatus> {
    snapshot.status.peers.iter().filter(move |peer| Family::of(peer.peer_addr) == family)
}

fn row(snapshot: &Snapshot, peer: &PeerStatus, now: Timestamp) -> String {
    let state = match peer.state {
        State::Established => "up",
        State::Idle | State::Connect | State::Active | State::OpenSent | State::OpenConfirm => {
            "start"
        }
    };
    let time = snapshot.time_in_state(peer);
    let since = ago(now, time);
    // As BIRD does: the time of day while it is the same one or nearly, then the date.
    let form = if time < Duration::from_secs(20 * 3600) { "%H:%M:%S" } else { "%Y-%m-%d" };
    let error = peer.last_error.as_deref().filter(|_| peer.state != State::Established);
    let error = error.map(|error| format!(" {error}")).unwrap_or_default();
    format!(
        "{:<8} BGP      master   {state:<6} {:<11} {:<13}{error}\n",
        peer.name,
        since.strftime(form).to_string(),
        format!("{:?}", peer.state),
    )
}

fn ago(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::ZERO);
    now.checked_sub(time).unwrap_or(now)
}

#[cfg(test)]
pub(crate) mod tests {
    use bgp::{MessageCounts, RouteCounts};
    use model::net::Asn;
    use model::time;

    use super::*;

    pub(crate) fn snapshot() -> Snapshot {
        let peer = |name: &str, addr: &str, state, last_error: Option<&str>| PeerStatus {
            name: name.to_owned(),
            object: (!name.starts_with("Mesh")).then(|| "tor".to_owned()),
            peer_addr: addr.parse().unwrap(),
            peer_asn: Asn(64_512),
            state,
            since: time::Timestamp::ZERO,
            establishments: 1,
            sent: MessageCounts { keepalive: 4, ..MessageCounts::default() },
            heard: MessageCounts { update: 2, ..MessageCounts::default() },
            routes: RouteCounts { announced: 5, rejected: 2, withdrawn: 0 },
            received: 3,
            advertised: 1,
            is_stale: false,
            has_end_of_rib: true,
            last_error: last_error.map(str::to_owned),
            last_error_at: None,
        };
        Snapshot::at_start(bgp::Status {
            peers: vec![
                peer("Mesh_10_0_0_2", "10.0.0.2", State::Established, None),
                peer("Mesh_fd00__2", "fd00::2", State::Established, None),
                peer("Global_10_0_0_9", "10.0.0.9", State::Active, Some("refused")),
            ],
            destinations: 3,
            has_converged: false,
        })
    }

    fn now() -> Timestamp {
        "2026-11-23T20:00:00Z".parse().unwrap()
    }

    /// What Calico's tools look at: the code and the columns.
    fn columns(line: &str) -> Vec<&str> {
        line.split_whitespace().take(7).collect()
    }

    #[test]
    fn protocols_have_birds_codes_and_columns() {
        let text = protocols(&snapshot(), Family::V4, now());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(columns(lines[0]), ["2002-name", "proto", "table", "state", "since", "info"]);
        let [_, first, second, end] = lines[..] else { panic!("{text}") };
        assert!(first.starts_with("1002-Mesh_10_0_0_2 BGP      master   up "), "{first}");
        assert_eq!(columns(first)[5], "Established");
        assert!(second.starts_with(" Global_10_0_0_9 BGP "), "{second}");
        assert_eq!(columns(second)[5..], ["Active", "refused"]);
        assert_eq!(end, "0000 ");
        assert!(protocols(&snapshot(), Family::V6, now()).contains("1002-Mesh_fd00__2"));
    }

    #[test]
    fn one_protocol_tells_its_neighbour() {
        let text = details(&snapshot(), Family::V4, Some("Mesh_10_0_0_2"), now());
        for part in ["BGP state: Established", "Neighbor address: 10.0.0.2", "Neighbor AS: 64512"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            details(&snapshot(), Family::V4, Some("Mesh"), now()),
            "8003 No protocols match\n"
        );
    }

    #[test]
    fn the_status_says_whether_routes_are_still_exchanged() {
        let mut snapshot = snapshot();
        let identifier = "10.0.0.1".parse().unwrap();
        let text = status(&snapshot, identifier, now());
        assert!(text.starts_with("1000-BIRD "), "{text}");
        assert!(text.contains("\n1011-Router ID is 10.0.0.1\n"), "{text}");
        assert!(text.contains("\n0024-Graceful restart recovery in progress\n"), "{text}");
        assert!(text.ends_with("\n0013 Daemon is up and running\n"), "{text}");
        snapshot.status.has_converged = true;
        assert!(!status(&snapshot, identifier, now()).contains("0024-"));
    }

    #[test]
    fn routes_name_the_peer_that_they_lead_to() {
        let gateways = ["10.0.0.2".parse().unwrap(), "10.0.0.7".parse().unwrap()];
        let known = [("10.244.1.0/26".parse().unwrap(), BTreeSet::from(gateways))];
        assert_eq!(
            routes(&snapshot(), Family::V4, &known),
            "1007-10.244.1.0/26      via 10.0.0.2 on * [Mesh_10_0_0_2] * (100) [i]\n \
             10.244.1.0/26      via 10.0.0.7 on * [bgp] * (100) [i]\n0000 \n"
        );
        assert_eq!(routes(&snapshot(), Family::V6, &known), "0000 \n");
    }
}
