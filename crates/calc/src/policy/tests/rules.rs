//! Random rules and selectors.

use model::net::Family;
use model::policy::{Action, EntityMatch, HttpMatch, IcmpMatch, PortMatch, Protocol, Rule};
use selector::Selector;

use super::cluster::{PORT_NAMES, namespaced, net};
use super::random::Random;

const SELECTORS: [&str; 16] = [
    "all()",
    "app == 'x'",
    "app == 'y'",
    "app in {'x', 'y'}",
    "app != 'x'",
    "has(role)",
    "!has(role)",
    "role starts with 'x'",
    "app == 'x' && role == 'y'",
    "app == 'x' || role == 'y'",
    "pcns.team == 'x'",
    "pcns.zone != 'y'",
    "has(pcsa.team)",
    "projectcalico.org/namespace == 'a'",
    "projectcalico.org/orchestrator == 'k8s' && app == 'x'",
    "global()",
];

pub(in crate::policy) fn selector(random: &mut Random) -> Selector {
    random.pick(&SELECTORS).parse().unwrap()
}

pub(super) fn port_protocol(random: &mut Random) -> Protocol {
    random.pick(&[Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP])
}

fn port(random: &mut Random) -> PortMatch {
    match random.below(3) {
        0 => PortMatch::Named(random.pick(&PORT_NAMES).to_owned()),
        1 => PortMatch::Range(80, 80),
        _ => PortMatch::Range(random.pick(&[0, 53, 80]), random.pick(&[80, 81, 65_535])),
    }
}

fn entity(random: &mut Random, has_ports: bool) -> EntityMatch {
    if random.one_in(3) {
        return EntityMatch::default();
    }
    let service = random.maybe(8, |random| namespaced("a", random.pick(&["web", "db"])));
    let has_ports = has_ports || random.one_in(12);
    EntityMatch {
        nets: random.maybe(4, |random| random.few(2, net)),
        not_nets: random.maybe(5, |random| random.few(2, net)).unwrap_or_default(),
        selector: random.maybe(2, selector),
        not_selector: random.maybe(6, selector),
        service,
        ports: if has_ports { random.maybe(2, |random| random.few(2, port)) } else { None },
        not_ports: if has_ports && random.one_in(4) { random.few(2, port) } else { Vec::new() },
    }
}

pub(super) fn rule(random: &mut Random) -> Rule {
    let action = random.pick(&[
        Action::Allow,
        Action::Allow,
        Action::Allow,
        Action::Deny,
        Action::Deny,
        Action::Log,
        Action::Pass,
    ]);
    let icmp = |random: &mut Random| {
        let (kind, code) = random.pick(&[(8, None), (8, Some(0)), (0, Some(1))]);
        IcmpMatch { kind, code }
    };
    let base = Rule::of(action);
    let base = match random.below(5) {
        0 | 1 => Rule { protocol: Some(port_protocol(random)), ..base },
        2 => Rule {
            protocol: random.pick(&[Some(Protocol::ICMP), Some(Protocol::ICMP_V6)]),
            icmp: random.maybe(2, icmp),
            not_icmp: random.maybe(3, icmp),
            ..base
        },
        3 => Rule { not_protocol: random.maybe(2, port_protocol), ..base },
        _ => base,
    };
    let has_ports = base.protocol.is_some_and(Protocol::has_ports);
    Rule {
        family: random.maybe(6, |random| random.pick(&Family::ALL)),
        source: entity(random, has_ports),
        destination: entity(random, has_ports),
        http: random.maybe(40, |_| HttpMatch::default()),
        ..base
    }
}
