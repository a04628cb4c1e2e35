//! What our rules have counted.

use model::net::Family;
use model::ruleset::TABLE;

use super::attr::Reader;
use super::message::{self, FAMILY_HEADER_LEN, family_number};
use super::names::{self, message as kind};
use super::transport::{Listing, Transport};
use super::{Error, RuleCount};

/// `NFTA_COUNTER_BYTES` and `NFTA_COUNTER_PACKETS`.
const BYTES: u16 = 1;
const PACKETS: u16 = 2;

/// How often the rules are read until nothing changes meanwhile.
const ATTEMPTS: u32 = 20;

/// Reads what our rules have counted; a table that is not there has none.
pub(super) fn read(transport: &mut Transport) -> Result<Vec<RuleCount>, Error> {
    let mut counts = Vec::new();
    for family in Family::ALL {
        counts.extend(of_family(transport, family)?);
    }
    Ok(counts)
}

fn of_family(transport: &mut Transport, family: Family) -> Result<Vec<RuleCount>, Error> {
    for _ in 0..ATTEMPTS {
        let listing = transport.list("rules", (kind::GET_RULE, family_number(family)), |body| {
            body.text(names::rule::TABLE, TABLE);
        });
        match listing {
            Ok(Listing::Complete(found)) => {
                return Ok(found.iter().filter_map(|body| count(family, body)).collect());
            }
            Ok(Listing::Interrupted) => {}
            Err(Error::Unreadable { errno: nix::errno::Errno::ENOENT, .. }) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::KeepsChanging { attempts: ATTEMPTS })
}

/// Reads one rule; `None` if it is not ours, or counts nothing.
pub(super) fn count(family: Family, body: &[u8]) -> Option<RuleCount> {
    let rule = Reader(body.get(FAMILY_HEADER_LEN..)?);
    let note = rule.find(names::rule::USERDATA).and_then(message::read_note)?;
    let expressions = rule.within(names::rule::EXPRESSIONS);
    let counter = expressions
        .all()
        .map(|(_, one)| Reader(one))
        .find(|expression| expression.text(names::EXPRESSION_NAME).as_deref() == Some("counter"))?;
    let data = counter.within(names::EXPRESSION_DATA);
    let number = |which| data.find(which)?.try_into().ok().map(u64::from_be_bytes);
    Some(RuleCount {
        family,
        chain: rule.text(names::rule::CHAIN)?,
        note,
        packets: number(PACKETS)?,
        bytes: number(BYTES)?,
    })
}

#[cfg(test)]
mod tests {
    use model::ruleset::{Rule, Statement, Verdict};
    use proptest::prelude::*;

    use super::super::attr::Writer;
    use super::*;

    /// Writes a rule as the kernel does, with what it has counted.
    fn dumped(note: &str, counted: (u64, u64)) -> Vec<u8> {
        let rule = Rule::new(vec![], vec![Statement::from(Verdict::Drop)]).noted(note);
        let mut body = Writer::default();
        body.raw(&[2, 0, 0, 0]);
        body.text(names::rule::TABLE, TABLE);
        body.text(names::rule::CHAIN, "cali-pi-gnp/a");
        body.nest(names::rule::EXPRESSIONS, |list| {
            for name in ["meta", "counter"] {
                list.nest(names::LIST_ELEMENT, |one| {
                    one.text(names::EXPRESSION_NAME, name);
                    one.nest(names::EXPRESSION_DATA, |data| {
                        data.bytes(BYTES, &counted.1.to_be_bytes());
                        data.bytes(PACKETS, &counted.0.to_be_bytes());
                    });
                });
            }
        });
        body.bytes(names::rule::USERDATA, &message::comment_of(&rule, Family::V4));
        body.into_bytes()
    }

    #[test]
    fn counters_are_read_with_the_rules_notes() {
        let found = count(Family::V4, &dumped("policy gnp/a rule 0: why; not", (7, 420))).unwrap();
        assert_eq!((found.packets, found.bytes), (7, 420));
        assert_eq!(found.note, "policy gnp/a rule 0: why; not");
        assert_eq!(found.chain, "cali-pi-gnp/a");
        assert_eq!(count(Family::V4, &dumped("", (1, 1))).unwrap().note, "");
    }

    proptest! {
        #[test]
        fn reading_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(count(Family::V4, &bytes));
            let mut cut = dumped("x", (1, 2));
            cut.truncate(bytes.len());
            prop_assert!(count(Family::V6, &cut).is_none_or(|found| found.packets == 1));
        }
    }
}
