//! The daemon's BGP beside BIRD 2, FRR and GoBGP, over a veth pair between two network namespaces.
//!
//! Needs root, iproute2 and Debian's `bird2`, `frr` and `gobgpd`; fails without them.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

#[cfg(test)]
mod frr;
#[cfg(test)]
mod gobgp;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod lab;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use bgp::State;
    use model::desired::{BfdSettings, BgpSession};
    use model::net::Asn;

    use super::lab::{Bird, Lab, Ours};

    const BIRD_V4: &str = "10.244.2.0/26 10.244.2.64/26 via 192.0.2.2";
    const BIRD_V6: &str = "fd00:244:2::/122 via fd00::2";

    #[test]
    fn sessions_of_both_families_carry_routes_both_ways() {
        let lab = Lab::new("both");
        let bird = Bird::start(&lab, &["-f"], 64_512);
        let ours = Ours::start(&lab, false);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        ours.wait_until("converged", |view| view.has_converged);
        bird.wait_for("show route protocol ours4", &["10.244.1.0/26", "unicast [ours4"]);
        bird.wait_for("show route protocol ours6", &["fd00:244:1::/122", "unicast [ours6"]);
        bird.wait_for(
            "show route protocol ours4 all",
            &["BGP.local_pref: 2147482623", "BGP.next_hop: 192.0.2.1", "BGP.origin: IGP"],
        );
    }

    #[test]
    fn a_passive_session_waits_for_bird_to_call() {
        let lab = Lab::new("passive");
        let passive = |session: &mut BgpSession| session.is_passive = true;
        let ours = Ours::start_with(&lab, false, passive);
        let _bird = Bird::start(&lab, &["-f"], 64_512);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
    }

    #[test]
    fn an_external_peer_sees_our_as_and_our_address() {
        let lab = Lab::new("ebgp");
        let bird = Bird::start(&lab, &["-f"], 65_001);
        let external = |session: &mut BgpSession| session.peer_asn = Asn(65_001);
        let ours = Ours::start_with(&lab, false, external);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        bird.wait_for(
            "show route protocol ours4 all",
            &["BGP.as_path: 64512", "BGP.next_hop: 192.0.2.1"],
        );
    }

    #[test]
    fn routes_of_a_killed_bird_stay_until_it_is_back() {
        let lab = Lab::new("killed");
        let bird = Bird::start(&lab, &["-f"], 64_512);
        let ours = Ours::start(&lab, false);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        bird.kill();
        ours.wait_until("stale", |_| ours.peers().iter().all(|peer| peer.is_stale));
        let _bird = Bird::start(&lab, &["-f", "-R"], 64_512);
        ours.wait_until("told anew", |_| {
            let is_whole = |peer: &bgp::PeerStatus| peer.has_end_of_rib && !peer.is_stale;
            ours.peers().iter().all(is_whole)
        });
        ours.assert_nothing_was_withdrawn();
    }

    #[test]
    fn bird_keeps_our_routes_while_we_restart() {
        let lab = Lab::new("restart");
        let bird = Bird::start(&lab, &["-f"], 64_512);
        let ours = Ours::start(&lab, false);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        bird.wait_for("show route protocol ours4", &["10.244.1.0/26"]);
        bird.wait_for("show route protocol ours6", &["fd00:244:1::/122"]);
        bird.record_withdrawals();
        ours.stop();
        bird.wait_for("show protocols all ours4", &["Neighbor graceful restart active"]);
        let ours = Ours::start(&lab, true);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        ours.wait_until("converged", |view| view.has_converged);
        bird.wait_for("show protocols all ours4", &["Established", "Routes:         1 imported"]);
        bird.assert_nothing_was_withdrawn();
    }

    #[test]
    fn a_new_block_is_announced_and_an_old_one_withdrawn() {
        let lab = Lab::new("blocks");
        let bird = Bird::start(&lab, &["-f"], 64_512);
        let ours = Ours::start(&lab, false);
        bird.wait_for("show route protocol ours4", &["10.244.1.0/26"]);
        ours.originate(&["10.244.9.0/26"]);
        bird.wait_for("show route protocol ours4", &["10.244.9.0/26"]);
        bird.wait_until_gone("show route protocol ours4", "10.244.1.0/26");
    }

    #[test]
    fn bird_with_the_wrong_as_is_refused() {
        let lab = Lab::new("as");
        let _bird = Bird::start(&lab, &["-f"], 65_099);
        let ours = Ours::start(&lab, false);
        ours.wait_until("refused", |view| {
            let address: IpAddr = "192.0.2.2".parse().unwrap();
            let (state, error) =
                view.sessions.get(&address).cloned().unwrap_or((State::Active, None));
            state == State::Idle && error.is_some_and(|error| error.contains("bad peer AS (2/2)"))
        });
        assert!(ours.routes().is_empty());
    }

    /// Without BFD a silent peer is noticed after the Hold Time, which is 240 s.
    #[test]
    fn a_path_that_bfd_sees_break_ends_the_session() {
        let lab = Lab::new("bfd");
        let bird = Bird::start_with_bfd(&lab);
        let watched = |session: &mut BgpSession| {
            let interval = Duration::from_millis(200);
            session.bfd = Some(BfdSettings { interval, multiplier: 5 });
        };
        let ours = Ours::start_with(&lab, false, watched);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        bird.wait_for("show bfd sessions", &["192.0.2.1", "fd00::1", "Up"]);
        bird.wait_until_gone("show bfd sessions", "Down");
        ours.wait_until("both paths are up", |_| {
            let paths = ours.paths();
            paths.len() == 2 && paths.values().all(|state| *state == bfd::State::Up)
        });
        bird.signal("STOP");
        ours.wait_until("both sessions end", |view| {
            view.sessions.values().filter(|(state, _)| *state != State::Established).count() == 2
        });
        let errors: Vec<_> =
            ours.peers().iter().filter_map(|peer| peer.last_error.clone()).collect();
        assert!(errors.iter().any(|error| error.contains("BFD")), "{errors:?}");
        bird.signal("CONT");
        ours.wait_until("both sessions are back", |_| {
            ours.peers().iter().all(|peer| peer.state == State::Established)
        });
        bird.wait_for("show bfd sessions", &["Up"]);
        // Without a word from us BIRD knows at once as well.
        ours.stop();
        bird.wait_for("show bfd sessions", &["Down"]);
    }

    #[test]
    fn bird_can_ask_for_everything_again() {
        let lab = Lab::new("refresh");
        let bird = Bird::start(&lab, &["-f"], 64_512);
        let ours = Ours::start(&lab, false);
        ours.wait_for_routes(&[BIRD_V4, BIRD_V6]);
        bird.wait_for("show route protocol ours4", &["10.244.1.0/26"]);
        bird.command("reload in ours4");
        bird.wait_for("show protocols all ours4", &["Import updates:              2"]);
        bird.wait_for("show route protocol ours4", &["10.244.1.0/26"]);
        assert_eq!(ours.peers()[0].state, State::Established);
    }
}
