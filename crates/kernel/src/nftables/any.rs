//! The kernel's answers as a fuzzer makes them up.

use model::net::Family;

use super::attr::Reader;
use super::message::FAMILY_HEADER_LEN;
use super::{counters, element, message, names};

/// Reads `bytes` as answers of every kind, and returns how much of them makes sense.
pub(super) fn read(bytes: &[u8]) -> usize {
    let messages: Vec<message::Received<'_>> = message::split(bytes).flatten().collect();
    messages.iter().map(understood).fold(0, usize::saturating_add)
}

/// Returns what one message may be: an error, a chain, a rule, elements of a set of each kind.
fn understood(received: &message::Received<'_>) -> usize {
    let attributes = Reader(received.body.get(FAMILY_HEADER_LEN..).unwrap_or_default());
    let id = attributes.find(names::rule::USERDATA).and_then(message::read_id);
    let list = attributes.within(names::element::ELEMENTS);
    let elements: Vec<Vec<u8>> = list.all().map(|(_, element)| element.to_vec()).collect();
    let mut sense = [
        received.words().is_some(),
        received.code().is_some_and(|code| code != 0),
        message::read_base(attributes).is_ok(),
        id.is_some(),
    ]
    .to_vec();
    for family in Family::ALL {
        sense.push(counters::count(family, received.body).is_some());
        for kind in element::KINDS {
            // That it ends is what counts: most kinds are not what was meant.
            drop(element::read(kind, family, &elements));
        }
    }
    sense.into_iter().filter(|makes_sense| *makes_sense).count()
}
