//! Transactions as one batch of messages, and what the kernel answers.

use model::net::Family;
use model::ruleset::{
    Base, BaseKind, Element, ElementKind, Hook, Rule, RuleId, Step, TABLE, Transaction,
};

use super::attr::{Reader, Writer};
use super::element::form;
use super::{element, expression, names};

pub(super) const HEADER_LEN: usize = 16;
/// `struct nfgenmsg`.
pub(crate) const FAMILY_HEADER_LEN: usize = 4;

/// `NLM_F_…`.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const EXCLUSIVE: u16 = 0x200;

/// Returns the kernel's number of a family (`NFPROTO_…`).
pub(crate) const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Messages, one behind the other, to be sent at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Writer,
    /// The step of each message, by its sequence number less one.
    steps: Vec<Option<usize>>,
    /// The step that asks for an acknowledgement.
    last: Option<usize>,
}

impl Batch {
    /// Writes `transaction`; `first` is the sequence number of its first message.
    pub(super) fn of(transaction: &Transaction) -> Self {
        // Kernels before 6.10 do not acknowledge the message that ends a batch.
        let last = transaction.steps.len().checked_sub(1);
        let mut batch = Self { last, ..Self::default() };
        batch.frame(names::BATCH_BEGIN, 0, |begin| {
            if let Some(generation) = transaction.generation {
                begin.number(names::BATCH_GENERATION, generation);
            }
        });
        for (place, (family, step)) in transaction.steps.iter().enumerate() {
            batch.step(place, *family, step);
        }
        batch.frame(names::BATCH_END, ACK, |_| ());
        batch
    }

    pub(super) fn into_bytes(self) -> (Vec<u8>, Vec<Option<usize>>) {
        (self.bytes.into_bytes(), self.steps)
    }

    /// Writes one of the messages around those of the subsystem.
    fn frame(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) {
        self.steps.push(None);
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let resource = names::SUBSYSTEM.to_be_bytes();
        write_message(&mut self.bytes, (kind, flags | REQUEST, sequence), (0, resource), fill);
    }

    fn step(&mut self, place: usize, family: Family, step: &Step) {
        use names::{chain, rule, set, table};
        let mut message = |kind, flags, fill: &dyn Fn(&mut Writer)| {
            self.message((place, family), (kind, flags), fill);
        };
        match step {
            Step::CreateTable => message(names::message::NEW_TABLE, CREATE, &|body| {
                body.text(table::NAME, TABLE);
                body.number(table::FLAGS, 0);
            }),
            Step::DeleteTable => message(names::message::DEL_TABLE, 0, &|body| {
                body.text(table::NAME, TABLE);
            }),
            Step::CreateSet(name, kind) => {
                // Rules name sets by name; the number is only asked for.
                let id = u32::try_from(place).unwrap_or_default();
                message(names::message::NEW_SET, CREATE | EXCLUSIVE, &|body| {
                    write_set(body, (name, id), form(*kind, family));
                    write_order(body, *kind);
                });
            }
            Step::DeleteSet(name) => message(names::message::DEL_SET, 0, &|body| {
                body.text(set::TABLE, TABLE);
                body.text(set::NAME, name);
            }),
            Step::CreateChain(name, base) => {
                message(names::message::NEW_CHAIN, CREATE | EXCLUSIVE, &|body| {
                    body.text(chain::TABLE, TABLE);
                    body.text(chain::NAME, name);
                    if let Some(base) = base {
                        write_base(body, *base);
                    }
                });
            }
            Step::DeleteChain(name) => message(names::message::DEL_CHAIN, 0, &|body| {
                body.text(chain::TABLE, TABLE);
                body.text(chain::NAME, name);
            }),
            Step::FlushChain(name) => message(names::message::DEL_RULE, 0, &|body| {
                body.text(rule::TABLE, TABLE);
                body.text(rule::CHAIN, name);
            }),
            Step::Append(name, one) => {
                message(names::message::NEW_RULE, CREATE | APPEND, &|body| {
                    write_rule(body, name, one, family);
                });
            }
            Step::Add(name, elements) => {
                let flags = CREATE | EXCLUSIVE;
                self.elements(
                    (place, family),
                    (names::message::NEW_ELEMENTS, flags),
                    name,
                    elements,
                );
            }
            Step::Remove(name, elements) => {
                self.elements((place, family), (names::message::DEL_ELEMENTS, 0), name, elements);
            }
        }
    }

    fn message(
        &mut self,
        (place, family): (usize, Family),
        (kind, flags): (u16, u16),
        fill: &dyn Fn(&mut Writer),
    ) {
        self.steps.push(Some(place));
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let ack = if self.last == Some(place) { ACK } else { 0 };
        let header = (subsystem(kind), flags | ack | REQUEST, sequence);
        write_message(&mut self.bytes, header, (family_number(family), [0; 2]), fill);
    }

    /// Writes elements, split where an attribute would get too long.
    fn elements(&mut self, at: (usize, Family), kind: (u16, u16), set: &str, all: &[Element]) {
        let mut rest = all.iter().peekable();
        while rest.peek().is_some() {
            let mut list = Writer::default();
            while list.len() < names::ELEMENTS_BYTES
                && let Some(element) = rest.next()
            {
                element::write(&mut list, element);
            }
            let list = list.into_bytes();
            self.message(at, kind, &|body| {
                body.text(names::element::TABLE, TABLE);
                body.text(names::element::SET, set);
                body.nest(names::element::ELEMENTS, |inner| inner.raw(&list));
            });
        }
    }
}

/// Returns the type of a message of `nf_tables`.
pub(super) const fn subsystem(kind: u16) -> u16 {
    names::SUBSYSTEM << 8 | kind
}

/// Appends a message: `kind, flags, sequence`, and `family, resource`.
pub(crate) fn write_message(
    to: &mut Writer,
    (kind, flags, sequence): (u16, u16, u32),
    (family, resource): (u8, [u8; 2]),
    fill: impl FnOnce(&mut Writer),
) {
    let start = to.len();
    to.raw(&[0; 4]);
    to.raw(&[kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    to.raw(&sequence.to_ne_bytes());
    to.raw(&[0; 4]);
    let [high, low] = resource;
    to.raw(&[family, 0, high, low]);
    fill(to);
    let len = to.len().saturating_sub(start);
    to.overwrite(start, u32::try_from(len).unwrap_or(u32::MAX));
}

fn write_set(body: &mut Writer, (name, id): (&str, u32), form: element::Form) {
    use names::set;
    body.text(set::TABLE, TABLE);
    body.text(set::NAME, name);
    body.number(set::FLAGS, form.flags);
    body.number(set::KEY_TYPE, form.key_type);
    body.number(set::KEY_LEN, form.key_len);
    if let Some(data_type) = form.data_type {
        body.number(set::DATA_TYPE, data_type);
    }
    if let Some(data_len) = form.data_len {
        body.number(set::DATA_LEN, data_len);
    }
    body.number(set::ID, id);
}

/// Tells nft(8) that keys are in the machine's own order (`NFTNL_UDATA_SET_KEYBYTEORDER`):
/// without it, it lists empty names.
fn write_order(body: &mut Writer, kind: ElementKind) {
    if kind == ElementKind::Dispatch {
        body.bytes(names::set::USERDATA, &[0, 4, 1, 0, 0, 0]);
    }
}

fn write_base(body: &mut Writer, base: Base) {
    use names::chain;
    body.nest(chain::HOOK, |hook| {
        hook.number(chain::HOOK_NUMBER, hook_number(base.hook));
        hook.bytes(chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
    });
    body.bytes(chain::POLICY, &names::ACCEPT.to_be_bytes());
    body.text(chain::TYPE, kind_name(base.kind));
}

const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

const fn kind_name(kind: BaseKind) -> &'static str {
    match kind {
        BaseKind::Filter => "filter",
        BaseKind::Nat => "nat",
    }
}

/// Reads where packets enter a chain; `Err` if we never make such chains.
pub(super) fn read_base(chain: Reader<'_>) -> Result<Option<Base>, ()> {
    let hook = chain.within(names::chain::HOOK);
    let Some(number) = hook.number(names::chain::HOOK_NUMBER) else { return Ok(None) };
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let kinds = [BaseKind::Filter, BaseKind::Nat];
    let priority = hook.number(names::chain::HOOK_PRIORITY).ok_or(())?.cast_signed();
    let name = chain.text(names::chain::TYPE).ok_or(())?;
    let policy = chain.number(names::chain::POLICY).map(u32::cast_signed);
    let base = Base {
        kind: kinds.into_iter().find(|kind| kind_name(*kind) == name).ok_or(())?,
        hook: hooks.into_iter().find(|hook| hook_number(*hook) == number).ok_or(())?,
        priority,
    };
    if policy == Some(names::ACCEPT) { Ok(Some(base)) } else { Err(()) }
}

fn write_rule(body: &mut Writer, chain: &str, rule: &Rule, family: Family) {
    body.text(names::rule::TABLE, TABLE);
    body.text(names::rule::CHAIN, chain);
    let expressions = expression::write_rule(rule, family).into_bytes();
    body.nest(names::rule::EXPRESSIONS, |list| list.raw(&expressions));
    body.bytes(names::rule::USERDATA, &comment(RuleId::of(rule, family), &rule.note));
}

/// What marks our rules, as it marks Calico's.
const PREFIX: &str = "cali:";

/// Returns the rule's identity and note as a comment that nft(8) lists.
fn comment(id: RuleId, note: &str) -> Vec<u8> {
    // Kind, length and the zero at the end take three bytes.
    let room = names::rule::USERDATA_MAX.saturating_sub(3);
    let mut text = format!("{PREFIX}{id}; {}", note.replace('"', "'"));
    if note.is_empty() {
        text = format!("{PREFIX}{id}");
    }
    while text.len() > room {
        text.pop();
    }
    let len = u8::try_from(text.len().saturating_add(1)).unwrap_or(u8::MAX);
    [&[names::rule::COMMENT, len][..], text.as_bytes(), &[0]].concat()
}

/// Returns the user data of a rule.
#[cfg(test)]
pub(super) fn comment_of(rule: &Rule, family: Family) -> Vec<u8> {
    comment(RuleId::of(rule, family), &rule.note)
}

/// Reads the identity of a rule from its user data.
pub(super) fn read_id(userdata: &[u8]) -> Option<RuleId> {
    RuleId::parse(read_comment(userdata)?.split(';').next()?)
}

/// Reads the note of one of our rules from its user data, empty if it has none.
pub(super) fn read_note(userdata: &[u8]) -> Option<String> {
    let text = read_comment(userdata)?;
    Some(text.split_once("; ").map(|(_, note)| note.to_owned()).unwrap_or_default())
}

fn read_comment(userdata: &[u8]) -> Option<&str> {
    let [names::rule::COMMENT, len, rest @ ..] = userdata else { return None };
    let text = std::str::from_utf8(rest.get(..usize::from(*len))?).ok()?;
    text.trim_end_matches('\0').strip_prefix(PREFIX)
}

/// One message of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The socket that asked for this, or made the change that this tells of.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Received<'a> {
    /// `NLMSG_ERROR` and `NLMSG_DONE`.
    pub(crate) const ERROR: u16 = 2;
    pub(crate) const DONE: u16 = 3;

    /// Returns the family that a message of `nf_tables` is about, and its attributes.
    pub(crate) fn parts(&self) -> Option<(u8, Reader<'a>)> {
        let family = *self.body.first()?;
        Some((family, Reader(self.body.get(FAMILY_HEADER_LEN..)?)))
    }

    /// Returns the number of an error or of the end of a dump; zero is success.
    pub(crate) fn code(&self) -> Option<i32> {
        self.body.first_chunk().copied().map(i32::from_ne_bytes)
    }

    /// Returns the kernel's own words about an error (`NLMSGERR_ATTR_MSG`).
    pub(crate) fn words(&self) -> Option<String> {
        const HAS_WORDS: u16 = 0x200;
        let attributes = self.body.get(4_usize.saturating_add(HEADER_LEN)..)?;
        (self.flags & HAS_WORDS != 0).then(|| Reader(attributes).text(1))?
    }
}

/// Splits what one system call returned into messages; `None` in place of one that makes no sense.
pub(crate) fn split(bytes: &[u8]) -> impl Iterator<Item = Option<Received<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < HEADER_LEN {
            return None;
        }
        let received = split_first(rest);
        rest = match &received {
            Some((_, len)) => rest.get(len.next_multiple_of(4)..).unwrap_or_default(),
            None => &[],
        };
        Some(received.map(|(message, _)| message))
    })
}

fn split_first(bytes: &[u8]) -> Option<(Received<'_>, usize)> {
    let (header, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
    let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let received = Received {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        port: u32::from_ne_bytes([p0, p1, p2, p3]),
        body: bytes.get(HEADER_LEN..len)?,
    };
    Some((received, len))
}

#[cfg(test)]
mod tests {
    use model::ruleset::{Statement, Verdict};
    use proptest::prelude::*;

    use super::*;

    fn rule(note: &str) -> Rule {
        Rule::new(vec![], vec![Statement::from(Verdict::Drop)]).noted(note)
    }

    #[test]
    fn identities_are_read_from_comments_of_any_length() {
        for note in ["", "policy gnp/a rule 0", "say \"why\"", &"ä".repeat(300)] {
            let id = RuleId::of(&rule(note), Family::V4);
            let userdata = comment(id, note);
            assert!(userdata.len() <= names::rule::USERDATA_MAX);
            assert_eq!(read_id(&userdata), Some(id), "{note}");
        }
    }

    #[test]
    fn a_transaction_is_one_batch_of_messages() {
        let all: Vec<Element> = (0..6_000)
            .map(|port| {
                Element::AddrPort(
                    std::net::Ipv4Addr::LOCALHOST.into(),
                    model::policy::Protocol::TCP,
                    port,
                )
            })
            .collect();
        let steps = vec![
            (Family::V4, Step::CreateTable),
            (Family::V6, Step::Append("a".to_owned(), rule("b"))),
            (Family::V4, Step::Add("c".to_owned(), all)),
        ];
        let transaction = Transaction { generation: Some(9), steps };
        let (bytes, steps) = Batch::of(&transaction).into_bytes();
        let messages: Vec<Received<'_>> = split(&bytes).map(Option::unwrap).collect();
        assert_eq!(steps, [None, Some(0), Some(1), Some(2), Some(2), Some(2), None]);
        let sequences: Vec<u32> = messages.iter().map(|message| message.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7]);
        let families: Vec<u8> = messages.iter().map(|message| message.parts().unwrap().0).collect();
        assert_eq!(families, [0, 2, 10, 2, 2, 2, 0]);
        let (_, begin) = messages[0].parts().unwrap();
        assert_eq!(begin.number(names::BATCH_GENERATION), Some(9));
        assert_eq!(messages[6].kind, names::BATCH_END);
    }

    proptest! {
        #[test]
        fn reading_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for received in split(&bytes).flatten() {
                let _ = (received.code(), received.words());
                if let Some((_, attributes)) = received.parts() {
                    let _ = read_base(attributes);
                }
            }
            let _ = read_id(&bytes);
            for kind in element::KINDS {
                for family in Family::ALL {
                    let found: Vec<Vec<u8>> = bytes.chunks(40).map(<[u8]>::to_vec).collect();
                    let _ = element::read(kind, family, &found);
                }
            }
        }
    }
}
