//! The language of the transcripts.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use bgp::rib::Gateways;
use bgp::wire::{
    self, AsPath, Attributes, Capability, Families, Form, GracefulRestart, Nlri, Notification,
    Open, Reason,
};
use bgp::wire::{AsnWidth, Context, Kind, RefreshKind, RouteRefresh, Segment, SegmentKind, Update};
use bgp::{BgpIdentifier, ConnectionId, HoldTime, Input, Output, PathFate, Speaker, SpeakerConfig};
use model::desired::{Advertisements, BgpSession, Origination, Password, Role};
use model::net::{Asn, Cidr, Family};
use model::time::Timestamp;

/// Plays the inputs of a transcript and returns it with what the speaker does now.
pub(crate) fn replay(recorded: &str) -> String {
    let is_restarting = recorded.contains("# restarting");
    let identifier = BgpIdentifier(0xc000_0201);
    let mut play = Play {
        speaker: Speaker::new(SpeakerConfig {
            identifier,
            is_restarting,
            seed: 0,
            send_limit: SpeakerConfig::SEND_LIMIT,
        }),
        now: Timestamp::ZERO,
        connection: ConnectionId::Incoming(0),
        incoming: 0,
        width: AsnWidth::Four,
        family: Family::V4,
        told: Families::NONE,
        tells: Families::NONE,
        text: String::new(),
    };
    for line in recorded.lines().filter(|line| !line.starts_with('>')) {
        play.text.push_str(line);
        play.text.push('\n');
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["<", what @ ..] => play.input(what),
            ["@", time] => play.advance(time.parse().unwrap()),
            _ => {}
        }
    }
    play.text
}

struct Play {
    speaker: Speaker,
    now: Timestamp,
    connection: ConnectionId,
    incoming: u64,
    width: AsnWidth,
    /// What the session is over.
    family: Family,
    /// For which families we tell the peer several paths.
    told: Families,
    /// For which families the peer tells us several paths.
    tells: Families,
    text: String,
}

/// Returns the value of `key=value`.
fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words
        .iter()
        .find_map(|word| word.split_once('=').filter(|(name, _)| *name == key))
        .map(|(_, value)| value)
}

fn number(words: &[&str], key: &str, default: u32) -> u32 {
    value(words, key).map_or(default, |text| text.parse().unwrap())
}

impl Play {
    fn input(&mut self, words: &[&str]) {
        let words = match words {
            [name, rest @ ..] if name.starts_with("in-") || name.starts_with("out-") => {
                let (side, count) = name.split_once('-').unwrap();
                let count = count.parse().unwrap();
                let is_incoming = side == "in";
                self.connection = if is_incoming {
                    ConnectionId::Incoming(count)
                } else {
                    ConnectionId::Outgoing(count)
                };
                rest
            }
            all => all,
        };
        if words[0] == "configure" && words.contains(&"v6") {
            self.family = Family::V6;
        }
        let (peer_addr, local_addr) = addresses(self.family);
        let connection = self.connection;
        let input = match words[0] {
            "configure" if words.contains(&"nothing") => Input::Configure(Vec::new()),
            "configure" => Input::Configure(vec![session(&words[1..])]),
            "advertise" => Input::Advertise(advertisements(&words[1..])),
            "connected" => Input::Connected { connection, local_addr },
            "closed" => Input::Closed { connection, why: words[1..].join(" ") },
            "stop" => Input::Stop,
            "path-down" => {
                let is_broken = words.contains(&"broken");
                let fate = if is_broken { PathFate::Broken } else { PathFate::MaybeRestart };
                Input::PathDown { peer_addr, fate }
            }
            "accepted" => {
                self.connection = ConnectionId::Incoming(self.incoming);
                self.incoming += 1;
                let from = value(words, "from").map_or(peer_addr, |text| text.parse().unwrap());
                Input::Accepted { connection: self.connection, peer_addr: from, local_addr }
            }
            _ => Input::Received { connection, bytes: self.message(words) },
        };
        self.handle(input);
    }

    /// Returns the bytes that the peer sends.
    fn message(&mut self, words: &[&str]) -> Vec<u8> {
        match words[0] {
            "open" => {
                let open = open(words);
                let is_wide = open.four_octet_asn().is_some();
                self.width = if is_wide { AsnWidth::Four } else { AsnWidth::Two };
                let mode = number(words, "paths", 0);
                let agreed = |bit: u32| match mode & bit {
                    0 => Families::NONE,
                    _ => Families::ALL,
                };
                (self.told, self.tells) = (agreed(1), agreed(2));
                open.encode()
            }
            "keepalive" => wire::encode_keepalive(),
            "update" => update(&words[1..], self.tells),
            "end-of-rib" => {
                let family = if words.contains(&"v6") { Family::V6 } else { Family::V4 };
                wire::encode_end_of_rib(family)
            }
            "notification" => {
                let (code, subcode) = words[1].split_once('/').unwrap();
                let (code, subcode) = (code.parse().unwrap(), subcode.parse().unwrap());
                let mut notification = Notification::new(Reason { code, subcode });
                if let Some(text) = value(words, "text") {
                    notification.data.push(u8::try_from(text.len()).unwrap());
                    notification.data.extend_from_slice(text.as_bytes());
                }
                let is_hard = words.contains(&"hard");
                if is_hard { notification.into_hard_reset() } else { notification }.encode()
            }
            "refresh" => {
                let kind = match words[1] {
                    "request" => RefreshKind::Request,
                    "begin" => RefreshKind::Begin,
                    "end" => RefreshKind::End,
                    other => panic!("refresh {other}"),
                };
                RouteRefresh { family: Family::V4.into(), kind }.encode()
            }
            "bytes" => {
                let digits: Vec<char> = words[1..].concat().chars().collect();
                let byte = |pair: &[char]| {
                    u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()
                };
                digits.chunks(2).map(byte).collect()
            }
            other => panic!("no input `{other}`"),
        }
    }

    fn advance(&mut self, secs: f64) {
        let end = self.now + Duration::from_secs_f64(secs);
        while let Some(due) = self.speaker.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.handle(Input::DeadlineReached);
        }
        self.now = end;
    }

    fn handle(&mut self, input: Input) {
        for output in self.speaker.handle(input, self.now) {
            if let Output::Connect { connection, .. } = output {
                self.connection = connection;
            }
            let at = self.now.since_origin().as_secs_f64();
            for line in self.describe(&output) {
                writeln!(self.text, "> {at:.1} {line}").unwrap();
            }
            if let Output::Send { connection, bytes } = output {
                self.speaker.handle(Input::Sent { connection, len: bytes.len() }, self.now);
            }
        }
    }

    fn describe(&self, output: &Output) -> Vec<String> {
        match output {
            Output::Connect { connection, to, from } => {
                let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
                vec![format!("{connection} connect to {to}{from}")]
            }
            Output::Send { connection, bytes } => self
                .messages(bytes)
                .into_iter()
                .map(|text| format!("{connection} {text}"))
                .collect(),
            Output::Close { connection } => vec![format!("{connection} close")],
            Output::RoutesChanged(routes) => routes.iter().map(route_line).collect(),
            Output::SessionChanged { state, last_error, .. } => {
                let error = last_error.as_ref().map(|error| format!(" ({error})"));
                vec![format!("{state:?}{}", error.unwrap_or_default())]
            }
            Output::Converged => vec!["converged".to_owned()],
            Output::Report(problem) => vec![format!("report {problem}")],
        }
    }

    fn messages(&self, mut bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some((frame, rest)) = wire::split_frame(bytes, wire::MAX_EXTENDED_LEN).unwrap() {
            bytes = rest;
            texts.push(match frame.kind {
                Kind::Keepalive => "KEEPALIVE".to_owned(),
                Kind::Notification => format!("NOTIFICATION {}", Notification::decode(frame.body)),
                Kind::Open => open_line(&Open::decode(frame.body).unwrap()),
                Kind::Update => {
                    let context = Context {
                        width: self.width,
                        is_internal: true,
                        add_path: self.told,
                        foreign_next_hops: Families::ALL,
                        is_on_link: false,
                    };
                    update_line(&Update::decode(frame.body, context).unwrap())
                }
                Kind::RouteRefresh => {
                    format!("ROUTE-REFRESH {:?}", RouteRefresh::decode(frame.body).unwrap().kind)
                }
            });
        }
        texts
    }
}

fn addresses(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => ("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap()),
        Family::V6 => ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap()),
    }
}

fn session(words: &[&str]) -> BgpSession {
    let family = if words.contains(&"v6") { Family::V6 } else { Family::V4 };
    let (peer_addr, local_addr) = addresses(family);
    BgpSession {
        local_addr: Some(local_addr),
        is_passive: words.contains(&"passive"),
        keepalive: value(words, "keepalive").map(|secs| Duration::from_secs(secs.parse().unwrap())),
        families: match value(words, "families") {
            Some("both") => Family::ALL.into(),
            Some("v4") => [Family::V4].into(),
            _ => [family].into(),
        },
        allowed_own_asns: u8::try_from(number(words, "own", 0)).unwrap(),
        max_prefixes: value(words, "max").map(|text| text.parse().unwrap()),
        role: value(words, "role").map(role),
        allows_extended_messages: words.contains(&"extended"),
        requires_policy: words.contains(&"policy"),
        password: value(words, "password").and_then(|text| Password::new(text.as_bytes())),
        ttl_security: value(words, "hops").map(|text| text.parse().unwrap()),
        ..BgpSession::new(
            "peer".to_owned(),
            peer_addr,
            Asn(64_512),
            Asn(number(words, "as", 64_512)),
        )
    }
}

fn role(text: &str) -> Role {
    match text {
        "provider" => Role::Provider,
        "customer" => Role::Customer,
        "peer" => Role::Peer,
        other => panic!("role {other}"),
    }
}

fn advertisements(words: &[&str]) -> Advertisements {
    let originated =
        words.iter().map(|text| (text.parse().unwrap(), Origination::default())).collect();
    Advertisements { originated, ..Advertisements::default() }
}

/// `F` is for both families, `F=v4` for one.
fn is_kept(words: &[&str], family: Family) -> bool {
    let one = format!("F=v{}", family.number());
    words.contains(&"F") || words.contains(&one.as_str())
}

fn open(words: &[&str]) -> Open {
    let asn = number(words, "as", 64_512);
    let mut capabilities = Vec::new();
    match value(words, "family").unwrap_or("v4") {
        "v4" => capabilities.push(Capability::Multiprotocol(Family::V4.into())),
        "v6" => capabilities.push(Capability::Multiprotocol(Family::V6.into())),
        "both" => {
            capabilities.extend(Family::ALL.map(|each| Capability::Multiprotocol(each.into())));
        }
        _ => {}
    }
    if !words.contains(&"old") {
        capabilities.push(Capability::FourOctetAsn(Asn(asn)));
        capabilities.push(Capability::EnhancedRouteRefresh);
    }
    if let Some(secs) = value(words, "restart") {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            is_restarting: words.contains(&"R"),
            is_notification_graceful: words.contains(&"N"),
            restart_secs: secs.parse().unwrap(),
            families: Family::ALL.map(|each| (each.into(), is_kept(words, each))).to_vec(),
        }));
    }
    if let Some(mode) = value(words, "paths") {
        let families = Family::ALL.map(|each| (each.into(), mode.parse().unwrap())).to_vec();
        capabilities.push(Capability::AddPath(families));
    }
    let roles = words.iter().filter_map(|word| word.strip_prefix("role="));
    capabilities.extend(roles.map(|role| Capability::Role(role.parse().unwrap())));
    if words.contains(&"ipv6-next-hops") {
        capabilities.push(Capability::ExtendedNextHop(vec![(Family::V4.into(), 2)]));
    }
    if words.contains(&"extended") {
        capabilities.push(Capability::ExtendedMessage);
    }
    if words.contains(&"refresh") {
        capabilities.push(Capability::RouteRefresh);
    }
    let hold = u16::try_from(number(words, "hold", 240)).unwrap();
    let identifier: std::net::Ipv4Addr = value(words, "id").unwrap_or("192.0.2.2").parse().unwrap();
    Open {
        short_asn: u16::try_from(asn).unwrap_or(23_456),
        hold_time: HoldTime::from_secs(hold).unwrap(),
        identifier: identifier.into(),
        capabilities,
    }
}

fn nlri(text: &str) -> Nlri {
    let (prefix, path_id) = text.split_once('#').unwrap_or((text, "0"));
    Nlri { prefix: prefix.parse().unwrap(), path_id: path_id.parse().unwrap() }
}

/// Returns an UPDATE: `+PREFIX` announces, `-PREFIX` withdraws, `#` numbers a path.
fn update(words: &[&str], add_path: Families) -> Vec<u8> {
    let with = |sign: char| -> Vec<Nlri> {
        words.iter().filter_map(|word| word.strip_prefix(sign)).map(nlri).collect()
    };
    let asns = value(words, "path").unwrap_or_default();
    let asns: Vec<Asn> = asns
        .split(',')
        .filter(|text| !text.is_empty())
        .map(|text| Asn(text.parse().unwrap()))
        .collect();
    let segment = (!asns.is_empty()).then_some(Segment { kind: SegmentKind::Sequence, asns });
    let attributes = Attributes {
        as_path: AsPath(segment.into_iter().collect()),
        local_pref: value(words, "lp").map(|text| text.parse().unwrap()),
        only_to_customer: value(words, "otc").map(|text| Asn(text.parse().unwrap())),
        communities: vec![7; usize::try_from(number(words, "communities", 0)).unwrap()],
        ..Attributes::default()
    };
    let next_hop = value(words, "via").unwrap_or("192.0.2.2").parse().unwrap();
    let max_len = if words.contains(&"long") { wire::MAX_EXTENDED_LEN } else { wire::MAX_LEN };
    let form = Form { add_path, max_len, ..Form::default() };
    let mut messages = Vec::new();
    wire::encode_withdrawal(&with('-'), form, &mut messages);
    wire::encode_announcement(&attributes, next_hop, &with('+'), form, &mut messages).unwrap();
    messages
}

fn route_line((cidr, gateways): &(Cidr, Gateways)) -> String {
    let gateways: Vec<String> = gateways.addrs.iter().map(ToString::to_string).collect();
    if gateways.is_empty() {
        format!("route -{cidr}")
    } else {
        format!("route +{cidr} via {}", gateways.join(" "))
    }
}

fn capability_words(open: &Open) -> String {
    let families = open.capabilities.iter().filter_map(|each| match each {
        Capability::Multiprotocol(family) if family.afi == 1 => Some(" v4".to_owned()),
        Capability::Multiprotocol(_) => Some(" v6".to_owned()),
        Capability::AddPath(modes) => Some(format!(" paths={}", modes[0].1)),
        Capability::Role(role) => Some(format!(" role={role}")),
        Capability::ExtendedNextHop(_) => Some(" ipv6-next-hops".to_owned()),
        Capability::ExtendedMessage => Some(" extended".to_owned()),
        Capability::RouteRefresh
        | Capability::EnhancedRouteRefresh
        | Capability::FourOctetAsn(_)
        | Capability::GracefulRestart(_)
        | Capability::Unknown { .. } => None,
    });
    families.collect()
}

fn open_line(open: &Open) -> String {
    let restart = open.graceful_restart().unwrap();
    let flag = |name: &str, is_set: bool| if is_set { format!(" {name}") } else { String::new() };
    format!(
        "OPEN as={} hold={} id={} restart={}{}{}{}{}",
        open.asn(),
        open.hold_time.secs(),
        open.identifier,
        restart.restart_secs,
        flag("R", restart.is_restarting),
        flag("F", restart.families.iter().any(|(_, is_kept)| *is_kept)),
        flag("N", restart.is_notification_graceful),
        capability_words(open),
    )
}

fn update_line(update: &Update) -> String {
    if update.end_of_rib.is_some() {
        return "UPDATE end of RIB".to_owned();
    }
    let named = |nlri: &Nlri| match nlri.path_id {
        0 => nlri.prefix.to_string(),
        id => format!("{}#{id}", nlri.prefix),
    };
    let withdrawn = update.withdrawn.iter().map(|nlri| format!(" -{}", named(nlri)));
    let announced = update.announced.iter().flat_map(|each| {
        each.prefixes.iter().map(|nlri| format!(" +{} via {}", named(nlri), each.next_hop))
    });
    let mut text = format!("UPDATE{}", withdrawn.chain(announced).collect::<String>());
    if !update.announced.is_empty() {
        let path = update.attributes.as_path.to_string();
        write!(text, " path={path}").unwrap();
        if let Some(local_pref) = update.attributes.local_pref {
            write!(text, " lp={local_pref}").unwrap();
        }
        if let Some(asn) = update.attributes.only_to_customer {
            write!(text, " otc={asn}").unwrap();
        }
    }
    text
}
