//! Two watches that watch each other over a path that loses, delays and breaks.

use proptest::prelude::*;

use super::*;

const FAST: BfdSettings = BfdSettings { interval: Duration::from_millis(300), multiplier: 3 };
const SLOWER: BfdSettings = BfdSettings { interval: Duration::from_millis(900), multiplier: 3 };

fn addr(end: usize) -> IpAddr {
    [[192, 0, 2, 1], [192, 0, 2, 2]][end].into()
}

/// Two ends, and the path between them.
struct Pair {
    ends: [Watch; 2],
    now: Timestamp,
    is_open: bool,
    ttl: u8,
    /// What each end said, apart from packets, with the time in milliseconds.
    said: Vec<(u128, usize, String)>,
    sent: Vec<(Timestamp, usize, Packet)>,
}

impl Pair {
    fn new(settings: [BfdSettings; 2]) -> Self {
        let mut pair = Self {
            ends: [Watch::new(1), Watch::new(2)],
            now: Timestamp::ZERO,
            is_open: true,
            ttl: 255,
            said: Vec::new(),
            sent: Vec::new(),
        };
        for (end, settings) in settings.into_iter().enumerate() {
            pair.configure(end, Some(settings));
        }
        pair
    }

    fn configure(&mut self, end: usize, settings: Option<BfdSettings>) {
        let neighbours = settings.map(|settings| (addr(1 - end), settings)).into_iter().collect();
        self.handle(end, Input::Configure(neighbours));
    }

    fn handle(&mut self, end: usize, input: Input) {
        for output in self.ends[end].handle(input, self.now) {
            match output {
                Output::Send { bytes, .. } => {
                    self.sent.push((self.now, end, Packet::decode(&bytes).unwrap()));
                    if self.is_open {
                        let (from, ttl, bytes) = (addr(end), self.ttl, bytes.to_vec());
                        self.handle(1 - end, Input::Received { from, ttl, bytes });
                    }
                }
                Output::Changed { state, diagnostic, .. } => {
                    self.say(end, format!("{state:?} ({diagnostic})"));
                }
                Output::PathDown { is_independent, .. } => {
                    self.say(end, format!("path down, independent: {is_independent}"));
                }
            }
        }
    }

    fn say(&mut self, end: usize, text: String) {
        self.said.push((self.now.since_origin().as_millis(), end, text));
    }

    fn run_for(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        loop {
            let due = |end: usize| self.ends[end].next_deadline().map(|at| (at, end));
            let Some((at, end)) = [due(0), due(1)].into_iter().flatten().min() else { break };
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            self.handle(end, Input::DeadlineReached);
        }
        self.now = until;
    }

    fn states(&self) -> [Option<State>; 2] {
        [0, 1].map(|end| self.ends[end].status().next().map(|status| status.state))
    }

    fn take_said(&mut self) -> Vec<String> {
        self.said.drain(..).map(|(_, end, text)| format!("{end}: {text}")).collect()
    }

    /// Returns the gaps between the packets of one end, in milliseconds.
    fn gaps(&self, end: usize) -> Vec<u128> {
        let times: Vec<Timestamp> =
            self.sent.iter().filter(|each| each.1 == end).map(|each| each.0).collect();
        times.windows(2).map(|pair| pair[0].until(pair[1]).as_millis()).collect()
    }
}

fn up() -> Pair {
    let mut pair = Pair::new([FAST, FAST]);
    pair.run_for(5000);
    assert_eq!(pair.states(), [Some(State::Up); 2]);
    pair.said.clear();
    pair.sent.clear();
    pair
}

#[test]
fn both_ends_come_up_by_way_of_init() {
    let mut pair = Pair::new([FAST, FAST]);
    pair.run_for(3000);
    let said = pair.take_said();
    assert_eq!(pair.states(), [Some(State::Up); 2]);
    assert!(said.contains(&"1: Init (no diagnostic)".to_owned()), "{said:?}");
    assert_eq!(said.iter().filter(|each| each.contains("Up")).count(), 2, "{said:?}");
}

#[test]
fn a_silent_path_is_down_after_the_detection_time() {
    let mut pair = up();
    pair.is_open = false;
    pair.run_for(600);
    assert_eq!(pair.take_said(), Vec::<String>::new());
    pair.run_for(300);
    let said = pair.take_said();
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said.contains(&"0: Down (control detection time expired)".to_owned()), "{said:?}");
    assert!(said.contains(&"1: path down, independent: false".to_owned()), "{said:?}");
    pair.is_open = true;
    pair.run_for(3000);
    assert_eq!(pair.states(), [Some(State::Up); 2]);
}

#[test]
fn the_other_end_learns_that_the_path_is_down_one_way() {
    let mut pair = up();
    let mut down = Packet { state: State::Down, ..pair.packet_of(1) };
    down.is_independent = true;
    let bytes = down.encode().to_vec();
    pair.is_open = false;
    pair.handle(0, Input::Received { from: addr(1), ttl: 255, bytes });
    assert_eq!(
        pair.take_said(),
        ["0: Down (neighbour signalled session down)", "0: path down, independent: true",]
    );
}

impl Pair {
    /// Returns what `end` would say now.
    fn packet_of(&mut self, end: usize) -> Packet {
        self.run_for(400);
        self.sent.iter().rev().find(|each| each.1 == end).unwrap().2
    }
}

#[test]
fn an_end_held_down_by_people_breaks_nothing() {
    let mut pair = up();
    pair.configure(1, None);
    pair.run_for(100);
    let said = pair.take_said();
    assert_eq!(
        said,
        ["1: AdminDown (administratively down)", "0: Down (neighbour signalled session down)",]
    );
    pair.run_for(5000);
    assert_eq!(pair.states(), [Some(State::Down), None]);
    pair.configure(1, Some(FAST));
    pair.run_for(3000);
    assert_eq!(pair.states(), [Some(State::Up); 2]);
}

#[test]
fn an_end_that_restarts_without_a_word_is_noticed_and_comes_back() {
    let mut pair = up();
    pair.ends[1] = Watch::new(77);
    pair.configure(1, Some(FAST));
    pair.run_for(5000);
    assert_eq!(pair.states(), [Some(State::Up); 2]);
    assert!(pair.take_said().contains(&"0: path down, independent: false".to_owned()));
}

#[test]
fn a_session_that_is_not_up_sends_once_a_second() {
    let mut pair = Pair::new([FAST, FAST]);
    pair.is_open = false;
    pair.run_for(20_000);
    assert!(pair.gaps(0).iter().all(|gap| (750..=1000).contains(gap)), "{:?}", pair.gaps(0));
}

#[test]
fn packets_are_jittered_as_rfc_5880_6_8_7_says() {
    let mut pair = up();
    pair.run_for(60_000);
    assert!(pair.gaps(0).iter().all(|gap| (224..=300).contains(gap)), "{:?}", pair.gaps(0));
    let single = BfdSettings { multiplier: 1, ..FAST };
    let mut pair = Pair::new([single, single]);
    pair.run_for(5000);
    pair.sent.clear();
    pair.run_for(60_000);
    assert!(pair.gaps(0).iter().all(|gap| (224..=270).contains(gap)), "{:?}", pair.gaps(0));
    assert_eq!(pair.states(), [Some(State::Up); 2]);
}

#[test]
fn the_slower_end_sets_the_pace() {
    let mut pair = Pair::new([FAST, SLOWER]);
    pair.run_for(8000);
    pair.sent.clear();
    pair.run_for(30_000);
    assert!(pair.gaps(0).iter().all(|gap| (674..=900).contains(gap)), "{:?}", pair.gaps(0));
    let times: Vec<Duration> =
        pair.ends.iter().map(|end| end.status().next().unwrap().detection_time).collect();
    assert_eq!(times, [Duration::from_millis(2700); 2]);
}

#[test]
fn other_settings_are_polled_for_and_nothing_goes_down() {
    let mut pair = up();
    pair.configure(0, Some(SLOWER));
    pair.run_for(100);
    let polls: Vec<usize> =
        pair.sent.iter().filter(|each| each.2.is_poll).map(|each| each.1).collect();
    let finals: Vec<usize> =
        pair.sent.iter().filter(|each| each.2.is_final).map(|each| each.1).collect();
    assert_eq!((polls, finals), (vec![0], vec![1]));
    pair.run_for(10_000);
    pair.configure(0, Some(FAST));
    pair.run_for(10_000);
    assert_eq!(pair.take_said(), Vec::<String>::new());
}

#[test]
fn packets_from_further_away_are_refused_and_counted() {
    let mut pair = up();
    pair.ttl = 254;
    pair.run_for(2000);
    assert_eq!(pair.states(), [Some(State::Down); 2]);
    let status = pair.ends[0].status().next().unwrap();
    assert_eq!(status.refused.1, Some(Refused::Distance(254)));
    assert!(status.refused.0 > 1);
}

#[test]
fn packets_for_another_session_are_refused() {
    let mut pair = up();
    let packet = pair.packet_of(1);
    pair.said.clear();
    for (yours, state) in [(99, State::Down), (0, State::Up), (0, State::Init)] {
        let packet = Packet { your_discriminator: yours, state, ..packet };
        let bytes = packet.encode().to_vec();
        pair.handle(0, Input::Received { from: addr(1), ttl: 255, bytes });
        let status = pair.ends[0].status().next().unwrap();
        assert_eq!(status.refused.1, Some(Refused::UnknownSession(yours)));
    }
    assert_eq!(pair.take_said(), Vec::<String>::new());
}

#[test]
fn a_neighbour_in_demand_mode_is_left_in_peace() {
    let mut pair = up();
    let packet = Packet { is_demand: true, state: State::Up, ..pair.packet_of(1) };
    let bytes = packet.encode().to_vec();
    pair.is_open = false;
    pair.handle(0, Input::Received { from: addr(1), ttl: 255, bytes });
    pair.sent.clear();
    pair.run_for(700);
    let count = pair.sent.iter().filter(|each| each.1 == 0).count();
    assert_eq!(count, 0);
}

#[test]
fn a_stranger_is_not_answered() {
    let mut watch = Watch::new(1);
    let bytes = vec![0; LEN];
    let input = Input::Received { from: addr(0), ttl: 255, bytes };
    assert_eq!(watch.handle(input, Timestamp::ZERO), []);
    assert_eq!(watch.next_deadline(), None);
}

proptest! {
    #[test]
    fn whatever_happens_both_ends_agree_once_the_path_is_whole(
        steps in proptest::collection::vec((0_u8..6, 1_u64..4000), 1..30),
        intervals in (10_u64..2000, 10_u64..2000),
        multipliers in (1_u8..6, 1_u8..6),
    ) {
        let settings = |interval, multiplier| {
            BfdSettings { interval: Duration::from_millis(interval), multiplier }
        };
        let both =
            [settings(intervals.0, multipliers.0), settings(intervals.1, multipliers.1)];
        let mut pair = Pair::new(both);
        for (step, millis) in steps {
            match step {
                0 => pair.is_open = !pair.is_open,
                1 => pair.configure(0, Some(settings(millis, 3))),
                2 => pair.configure(1, None),
                3 => pair.configure(1, Some(both[1])),
                4 => pair.ends[0] = Watch::new(millis),
                _ => pair.ttl = if pair.ttl == 255 { 1 } else { 255 },
            }
            pair.run_for(millis);
        }
        (pair.is_open, pair.ttl) = (true, 255);
        pair.configure(0, Some(both[0]));
        pair.configure(1, Some(both[1]));
        pair.run_for(60_000);
        prop_assert_eq!(pair.states(), [Some(State::Up); 2]);
        // Of two ends neither goes down twice without having been up between.
        pair.said.clear();
        pair.run_for(60_000);
        prop_assert_eq!(&pair.said, &vec![]);
    }

    #[test]
    fn any_packet_is_borne(
        bytes in proptest::collection::vec(any::<u8>(), 0..30),
        flags: u8,
        ttl in prop_oneof![Just(255_u8), any::<u8>()],
    ) {
        let mut pair = up();
        let mut bytes = bytes;
        for (at, value) in [(0, 0x20), (1, flags & !0x05), (2, 3), (3, 24)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        pair.handle(0, Input::Received { from: addr(1), ttl, bytes });
        pair.run_for(60_000);
        prop_assert_eq!(pair.states(), [Some(State::Up); 2]);
    }
}
