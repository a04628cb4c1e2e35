//! Rules: which table a packet is looked up in (ip-rule(8)).

use std::fmt;

use model::desired::RouteProtocol;
use model::net::Family;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Netlink};

/// A rule that sends packets to a table by their mark, for all sources and destinations.
///
/// Rules that look at something else are none of these, and are neither listed nor touched.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rule {
    /// Which packets' family.
    pub family: Family,
    /// Rules are gone through from the lowest number up.
    pub priority: u32,
    /// The table that is looked up.
    pub table: u32,
    /// Which packets; `None` is all.
    pub mark: Option<MarkMatch>,
    /// Whose rule it is; zero was not said.
    pub protocol: RouteProtocol,
}

/// Packets by the bits of their mark.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MarkMatch {
    /// The bits' values.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
    /// Is the rule for all packets but these?
    pub is_inverted: bool,
}

impl Netlink {
    /// Lists the rules of a family that are [`Rule`]s.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn rules(&self, family: Family) -> Result<Vec<Rule>, Error> {
        let mut question = RuleMessage::default();
        question.header.family = number(family);
        let found = self.dump("rules", RouteNetlinkMessage::GetRule(question)).await?;
        Ok(found.iter().filter_map(of_message).collect())
    }

    /// Adds a rule; it may be there already.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), Error> {
        let request = (RouteNetlinkMessage::NewRule(message(rule)), NLM_F_CREATE | NLM_F_EXCL);
        match self.request(request, "add", || format!("rule {rule}")).await {
            Err(error) if error.is_exists() => Ok(()),
            done => done.map(drop),
        }
    }

    /// Deletes a rule; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<bool, Error> {
        let request = (RouteNetlinkMessage::DelRule(message(rule)), 0);
        match self.request(request, "delete", || format!("rule {rule}")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = number(rule.family);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or_default();
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(rule.protocol.0.into()),
    ];
    if let Some(mark) = rule.mark {
        message.attributes.push(RuleAttribute::FwMark(mark.value));
        message.attributes.push(RuleAttribute::FwMask(mark.mask));
        message.header.flags.set(RuleFlags::Invert, mark.is_inverted);
    }
    message
}

fn of_message(message: &RouteNetlinkMessage) -> Option<Rule> {
    match message {
        RouteNetlinkMessage::NewRule(message) => of_rule_message(message),
        _ => None,
    }
}

/// Reads the kernel's description of a rule; `None` if it is no [`Rule`].
pub(crate) fn of_rule_message(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let is_plain = header.action == RuleAction::ToTable
        && (header.dst_len, header.src_len, header.tos) == (0, 0, 0);
    let mut table = u32::from(header.table);
    let (mut value, mut bits, mut priority, mut protocol) = (0, None, 0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(found) => table = *found,
            RuleAttribute::Priority(found) => priority = *found,
            RuleAttribute::FwMark(found) => value = *found,
            RuleAttribute::FwMask(found) => bits = Some(*found),
            RuleAttribute::Protocol(found) => protocol = (*found).into(),
            // What the kernel says of every rule.
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX)
            | RuleAttribute::Realm(_)
            | RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    let is_inverted = header.flags.contains(RuleFlags::Invert);
    let mark = bits.map(|mask| MarkMatch { value, mask, is_inverted });
    let protocol = RouteProtocol(protocol);
    (is_plain && (mark.is_some() || !is_inverted)).then_some(Rule {
        family,
        priority,
        table,
        mark,
        protocol,
    })
}

const fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        if let Some(MarkMatch { value, mask, is_inverted }) = self.mark {
            write!(
                f,
                "{} from all fwmark {value:#x}/{mask:#x}",
                if is_inverted { " not" } else { "" }
            )?;
        }
        write!(f, " lookup {} proto {}", self.table, self.protocol.0)
    }
}
