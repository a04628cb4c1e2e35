//! One rule of a policy as rules of a chain.
//!
//! All marks of a rule of nftables must hold. Where one of several would do
//! (an address in a set's addresses or in its networks, a port by number or by
//! name), there is a rule for each.

use model::desired::policy::{CompiledEntity, CompiledRule, Ports, SetId};
use model::net::{Cidr, Family};
use model::policy::{Action, Protocol};
use model::ruleset::{Element, ElementKind, Is, Match, Rule, Side, Statement, Verdict};
use model::vrf::Zone;

use crate::cover::disjoint;
use crate::fragment::Part;
use crate::name;
use crate::renderer::Context;
use crate::settings::Denial;

/// The protocols that have ports.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// Adds the chain `name` with `rules`, and the sets that only they name. `note` says whose they are.
pub(crate) fn add_chain(
    part: &mut Part<'_>,
    context: &Context<'_>,
    (name, note): (String, &str),
    (rules, zone): (&[CompiledRule], Zone),
) {
    let mut chain = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let note = match &rule.never {
            Some(reason) => format!("{note} rule {index}: {reason}"),
            None => format!("{note} rule {index}"),
        };
        let statements = statements(context, rule.action);
        let mut alternatives = Alternatives { part, context, zone, found: vec![Vec::new()] };
        alternatives.rule(rule);
        for matches in alternatives.found {
            chain.push(Rule::new(matches, statements.clone()).noted(note.clone()));
        }
    }
    part.chain(name, chain);
}

fn statements(context: &Context<'_>, action: Action) -> Vec<Statement> {
    let marks = context.settings.marks;
    match action {
        Action::Allow => vec![Statement::SetMark(marks.accept()), Verdict::Return.into()],
        Action::Pass => vec![Statement::SetMark(marks.pass()), Verdict::Return.into()],
        Action::Deny => match context.settings.denial {
            Denial::Drop => vec![Verdict::Drop.into()],
            // Not everybody who leads packets here may refuse them: paths know.
            Denial::Reject => vec![Statement::SetMark(marks.denied()), Verdict::Return.into()],
        },
        Action::Log => vec![Statement::Log(format!("{}: ", context.settings.log_prefix))],
    }
}

/// Lists of marks; a packet that has all of one list is meant. No list is no packet.
struct Alternatives<'a, 'b, 'c> {
    part: &'a mut Part<'b>,
    context: &'a Context<'c>,
    /// Whom sets mean.
    zone: Zone,
    found: Vec<Vec<Match>>,
}

impl Alternatives<'_, '_, '_> {
    fn rule(&mut self, rule: &CompiledRule) {
        if rule.family.is_some_and(|family| family != self.part.family) {
            return self.found.clear();
        }
        self.protocol(rule);
        self.icmp(rule);
        for (side, entity) in [(Side::Source, &rule.source), (Side::Destination, &rule.destination)]
        {
            self.addresses(side, entity);
            self.ports(side, entity);
        }
    }

    /// The packet must have this mark too.
    fn and(&mut self, one: &Match) {
        self.and_one_of(&[vec![one.clone()]]);
    }

    /// The packet must also have all marks of one of these lists.
    fn and_one_of(&mut self, lists: &[Vec<Match>]) {
        let before = std::mem::take(&mut self.found);
        for known in before {
            for more in lists {
                self.found.push([known.as_slice(), more].concat());
            }
        }
    }

    fn protocol(&mut self, rule: &CompiledRule) {
        let is_by_port = has_ranges(&rule.source) || has_ranges(&rule.destination);
        let is_in = |protocol| Match::Protocol(Is::In, protocol);
        let is_not = |protocol| Match::Protocol(Is::NotIn, protocol);
        if let Some(protocol) = rule.protocol {
            self.and(&is_in(protocol));
        } else if is_by_port {
            // Bytes are ports only in these; what has none is none of the refused ones.
            let mut lists: Vec<Vec<Match>> = WITH_PORTS.map(|one| vec![is_in(one)]).to_vec();
            if rule.source.ports.is_none() && rule.destination.ports.is_none() {
                lists.push(WITH_PORTS.map(is_not).to_vec());
            }
            self.and_one_of(&lists);
        }
        if let Some(protocol) = rule.not_protocol {
            self.and(&is_not(protocol));
        }
    }

    fn icmp(&mut self, rule: &CompiledRule) {
        let ours = match self.part.family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMP_V6,
        };
        if let Some(icmp) = rule.icmp {
            match rule.protocol {
                None => self.and(&Match::Protocol(Is::In, ours)),
                Some(protocol) if protocol == ours => {}
                // The other family's messages are never seen here.
                Some(_) => self.found.clear(),
            }
            self.and(&Match::Icmp(Is::In, icmp));
        }
        if let Some(icmp) = rule.not_icmp {
            let is_other = Match::Icmp(Is::NotIn, icmp);
            match rule.protocol {
                None => self.and_one_of(&[
                    vec![Match::Protocol(Is::NotIn, ours)],
                    vec![Match::Protocol(Is::In, ours), is_other],
                ]),
                Some(protocol) if protocol == ours => self.and(&is_other),
                Some(_) => {}
            }
        }
    }

    fn addresses(&mut self, side: Side, entity: &CompiledEntity) {
        if let Some(nets) = &entity.nets {
            match self.nets(side, Is::In, nets) {
                Some(one) => self.and(&one),
                None => self.found.clear(),
            }
        }
        if let Some(one) = self.nets(side, Is::NotIn, &entity.not_nets) {
            self.and(&one);
        }
        for id in &entity.in_sets {
            let lookups = self.lookups(side, Is::In, *id).into_iter();
            self.and_one_of(&lookups.map(|one| vec![one]).collect::<Vec<_>>());
        }
        for id in &entity.not_in_sets {
            for one in self.lookups(side, Is::NotIn, *id) {
                self.and(&one);
            }
        }
        if let Some(id) = entity.service {
            self.and(&self.named(side, Is::In, id));
        }
    }

    /// Returns the mark of an address in networks; `None` if none is of the table's family.
    fn nets(&mut self, side: Side, is: Is, nets: &[Cidr]) -> Option<Match> {
        let family = self.part.family;
        let nets = disjoint(nets.iter().copied().filter(|net| net.family() == family));
        match nets.as_slice() {
            [] => None,
            [only] => Some(Match::Net(side, is, *only)),
            _ => {
                let set =
                    self.literal("nets", ElementKind::Net, nets.into_iter().map(Element::Net));
                Some(Match::InSet(side, is, set))
            }
        }
    }

    /// Returns the marks of an address in a set: in its addresses, or in its networks.
    fn lookups(&self, side: Side, is: Is, id: SetId) -> Vec<Match> {
        let family = self.part.family;
        let sharing = self.context.sharing;
        let id = id.in_zone(self.zone);
        let set = sharing.name(id, family);
        let mut lookups = vec![match sharing.number(id) {
            Some(number) => Match::Member(side, is, (number, set)),
            None => Match::InSet(side, is, set),
        }];
        if self.context.nets.contains(&(id, family)) {
            lookups.push(Match::InSet(side, is, name::nets(id, family)));
        }
        lookups
    }

    /// Returns the mark of an address, a protocol and a port in a set.
    fn named(&self, side: Side, is: Is, id: SetId) -> Match {
        Match::PortInSet(side, is, name::addrs(id.in_zone(self.zone), self.part.family))
    }

    fn ports(&mut self, side: Side, entity: &CompiledEntity) {
        if let Some(ports) = &entity.ports {
            let marks = self.port_marks(side, Is::In, ports).into_iter();
            self.and_one_of(&marks.map(|one| vec![one]).collect::<Vec<_>>());
        }
        for one in self.port_marks(side, Is::NotIn, &entity.not_ports) {
            self.and(&one);
        }
    }

    /// Returns the marks of a port: in the ranges, or in a set.
    fn port_marks(&mut self, side: Side, is: Is, ports: &Ports) -> Vec<Match> {
        let mut marks = Vec::new();
        match ports.ranges.as_slice() {
            [] => {}
            [only] => marks.push(Match::Ports(side, is, *only)),
            ranges => {
                let elements = ranges.iter().map(|(first, last)| Element::Ports(*first, *last));
                let set = self.literal("ports", ElementKind::Ports, elements);
                marks.push(Match::InPorts(side, is, set));
            }
        }
        marks.extend(ports.named.iter().map(|id| self.named(side, is, *id)));
        marks
    }

    /// Adds a set named by its elements, so that rules that say the same share it.
    fn literal(
        &mut self,
        what: &str,
        kind: ElementKind,
        elements: impl Iterator<Item = Element>,
    ) -> String {
        let elements: Vec<Element> = elements.collect();
        let text = elements.iter().map(Element::to_string).collect::<Vec<_>>().join(" ");
        let name = name::literal(what, &text);
        self.part.set(name.clone(), kind, elements);
        name
    }
}

/// Does it compare ports by number?
fn has_ranges(entity: &CompiledEntity) -> bool {
    !entity.not_ports.ranges.is_empty()
        || entity.ports.as_ref().is_some_and(|ports| !ports.ranges.is_empty())
}
