//! BIRD, FRR and GoBGP at once, each asked for its own view of what we tell.

use std::time::Duration;

use bgp::State;
use model::desired::{AddPath, BfdSettings, BgpSession, Password, Reflection};
use model::net::{Asn, Family, zone};
use serde_json::json;

use super::frr::Frr;
use super::gobgp::GoBgp;
use super::lab::{Bird, Lab, Ours, Rules, poll};

const ADDRS: [[&str; 2]; 3] =
    [["192.0.2.2", "fd00::2"], ["192.0.2.3", "fd00::3"], ["192.0.2.4", "fd00::4"]];

/// Our session with each of `peers`, by their last number, changed by `change`.
fn sessions(peers: &[usize], change: impl Fn(&mut BgpSession)) -> Vec<BgpSession> {
    let addrs = peers.iter().flat_map(|number| ADDRS[number - 2]);
    let session = |peer: &str| {
        let ours = if peer.contains(':') { "fd00::1" } else { "192.0.2.1" };
        let mut session = BgpSession {
            local_addr: ours.parse().ok(),
            ..BgpSession::new(peer.to_owned(), peer.parse().unwrap(), Asn(64_512), Asn(64_512))
        };
        change(&mut session);
        session
    };
    addrs.map(session).collect()
}

#[test]
fn a_reflector_of_ours_serves_all_three() {
    let lab = Lab::new("reflect");
    let rules = Rules::default();
    let bird = Bird::start(&lab, &["-f"], 64_512);
    let (frr, gobgp) = (Frr::start(&lab, &rules), GoBgp::start(&lab, &rules));
    let reflection = Some(Reflection { cluster_id: 0xf400_0001, is_client: true });
    let ours =
        Ours::start_as(&lab, false, sessions(&[2, 3, 4], |each| each.reflection = reflection));
    ours.wait_for_routes(&[
        "10.244.2.0/26 10.244.2.64/26 via 192.0.2.2",
        "fd00:244:2::/122 via fd00::2",
        "10.244.3.0/26 via 192.0.2.3",
        "fd00:244:3::/122 via fd00::3",
        "10.244.4.0/26 via 192.0.2.4",
        "fd00:244:4::/122 via fd00::4",
    ]);
    // Each holds our block and the others', with the originator's next hop and marks.
    bird.wait_for(
        "show route protocol ours4 all",
        &[
            "10.244.1.0/26",
            "10.244.3.0/26",
            "10.244.4.0/26",
            "BGP.next_hop: 192.0.2.3",
            "BGP.originator_id: 192.0.2.3",
            "BGP.cluster_list: 244.0.0.1",
            "BGP.community: (64512,300) (64512,900)",
            "BGP.large_community: (64512, 4, 4)",
        ],
    );
    bird.wait_for("show route protocol ours6", &["fd00:244:1::/122", "fd00:244:4::/122"]);
    frr.wait_for(
        "show bgp ipv4 unicast 10.244.1.0/26 json",
        "/paths/0/locPrf",
        &json!(2_147_482_623),
    );
    let path = "show bgp ipv4 unicast 10.244.4.0/26 json";
    frr.wait_for(path, "/paths/0/originatorId", &json!("192.0.2.4"));
    frr.wait_for(path, "/paths/0/nexthops/0/ip", &json!("192.0.2.4"));
    frr.wait_for(path, "/paths/0/community/string", &json!("64512:400"));
    frr.wait_for(path, "/paths/0/largeCommunity/string", &json!("64512:4:4"));
    gobgp.wait_for(
        &["global", "rib"],
        &["10.244.1.0/26", "10.244.2.0/26", "10.244.3.0/26", "192.0.2.3", "244.0.0.1"],
    );
    gobgp.wait_for(&["global", "rib", "-a", "ipv6"], &["fd00:244:1::/122", "fd00:244:3::/122"]);
}

#[test]
fn signed_sessions_with_near_peers_come_up() {
    let lab = Lab::new("signed");
    let rules = Rules { password: Some("secret"), is_near: true, ..Rules::default() };
    let (frr, gobgp) = (Frr::start(&lab, &rules), GoBgp::start(&lab, &rules));
    let signed = |session: &mut BgpSession| {
        session.password = Password::new(b"secret");
        session.ttl_security = Some(1);
    };
    let ours = Ours::start_as(&lab, false, sessions(&[3, 4], signed));
    ours.wait_for_routes(&[
        "10.244.3.0/26 via 192.0.2.3",
        "fd00:244:3::/122 via fd00::3",
        "10.244.4.0/26 via 192.0.2.4",
        "fd00:244:4::/122 via fd00::4",
    ]);
    frr.wait_for("show bgp neighbors 192.0.2.1 json", "/192.0.2.1/bgpState", &json!("Established"));
    gobgp.wait_for(&["global", "rib"], &["10.244.1.0/26"]);
    // Another password is no way in.
    let other = |session: &mut BgpSession| session.password = Password::new(b"other");
    ours.configure(sessions(&[3, 4], other));
    ours.wait_until("all are lost", |_| {
        ours.peers().iter().all(|peer| peer.state != State::Established)
    });
}

/// The other way round BIRD shows: a restarting bgpd without zebra says End-of-RIB before it has
/// told its routes, and so they go.
#[test]
fn frr_keeps_our_routes_while_we_restart() {
    let lab = Lab::new("frrgr");
    let rules = Rules::default();
    let frr = Frr::start(&lab, &rules);
    let routes = ["10.244.3.0/26 via 192.0.2.3", "fd00:244:3::/122 via fd00::3"];
    let ours = Ours::start_as(&lab, false, sessions(&[3], |_| {}));
    ours.wait_for_routes(&routes);
    let path = "show bgp ipv4 unicast 10.244.1.0/26 json";
    frr.wait_for(path, "/paths/0/valid", &json!(true));
    ours.stop();
    frr.wait_for(path, "/paths/0/stale", &json!(true));
    let ours = Ours::start_as(&lab, true, sessions(&[3], |_| {}));
    ours.wait_for_routes(&routes);
    ours.wait_until("converged", |view| view.has_converged);
    frr.wait_for("show bgp neighbors 192.0.2.1 json", "/192.0.2.1/bgpState", &json!("Established"));
    ours.assert_nothing_was_withdrawn();
}

#[test]
fn frr_sends_ipv4_over_ipv6_and_several_paths() {
    let lab = Lab::new("enh");
    let frr = Frr::start(&lab, &Rules { carries_v4_over_v6: true, ..Rules::default() });
    let mut both = sessions(&[3], |session| {
        session.families = Family::ALL.into();
        session.add_path = AddPath::default();
    });
    both.retain(|session| session.peer_addr.is_ipv6());
    let ours = Ours::start_as(&lab, false, both);
    ours.wait_until("10.244.3.0/26 is known", |view| {
        view.routes.keys().any(|cidr| cidr.to_string() == "10.244.3.0/26")
    });
    let path = "show bgp ipv4 unicast 10.244.1.0/26 json";
    frr.wait_for(path, "/paths/0/nexthops/0/ip", &json!("fd00::1"));
    let neighbor = "show bgp neighbors fd00::1 json";
    let add_path = "/fd00::1/neighborCapabilities/addPath/ipv4Unicast/txAdvertisedAndReceived";
    frr.wait_for(neighbor, add_path, &json!(true));
}

/// As `neighbor eth0 interface remote-as external` does it: neither side names an address.
#[test]
fn frr_and_we_find_each_other_on_an_interface() {
    let lab = Lab::new("unnumbered");
    let nobody = std::net::Ipv6Addr::UNSPECIFIED.into();
    let session = BgpSession {
        interface: "eth0".parse().ok(),
        families: Family::ALL.into(),
        bfd: Some(BfdSettings { interval: Duration::from_millis(300), multiplier: 5 }),
        ..BgpSession::new("Global_eth0".to_owned(), nobody, Asn(64_512), Asn(65_003))
    };
    let ours = Ours::start_as(&lab, false, vec![session]);
    let frr = Frr::start_unnumbered(&lab, 65_003);
    let wanted = ["10.244.3.0/26", "fd00:244:3::/122"];
    ours.wait_until("FRR's blocks of both families are known by a link", |view| {
        wanted.iter().all(|block| {
            let hops = view.routes.get(&block.parse().unwrap());
            hops.is_some_and(|hops| hops.iter().all(|hop| zone::of(*hop).is_some()))
        })
    });
    for (family, block) in [("ipv4", "10.244.1.0/26"), ("ipv6", "fd00:244:1::/122")] {
        let path = format!("show bgp {family} unicast {block} json");
        frr.wait_for(&path, "/paths/0/valid", &json!(true));
        frr.wait_for(&path, "/paths/0/peer/interface", &json!("eth0"));
    }
    ours.wait_until("both watch the path", |_| {
        let paths = ours.paths();
        paths.len() == 1
            && paths
                .iter()
                .all(|(addr, state)| zone::of(*addr).is_some() && *state == bfd::State::Up)
    });
    frr.wait_for("show bfd peers json", "/0/status", &json!("up"));
    // FRR's zebra has put our block into its kernel, by way of our link-local address.
    poll("the kernel routes our block to eth0", || {
        let text = lab.ip_of_peers("route show 10.244.1.0/26");
        if text.contains("dev eth0") { Ok(()) } else { Err(text) }
    });
}
