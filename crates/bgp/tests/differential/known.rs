//! What the other codecs are known to see otherwise, each with the reason why we are right.

use crate::seen::Seen;

/// Who refuses with what text, and why we do not.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "netgauze",
        "unicast network",
        "a destination that is not unicast is for the import to ignore, not a broken message \
         (RFC 4271 §6.3)",
    ),
    (
        "netgauze",
        "Invalid partial flag",
        "only the optional and the transitive bit may conflict (RFC 7606 §3 c)",
    ),
];

/// Is it known that `name` sees something else where we see `ours`?
///
/// bgpkit, made for archives that do not say what a session agreed on, takes a list that
/// begins with a zero byte for one with numbered paths; here it is a default route.
pub(crate) fn is_seen_otherwise(name: &str, ours: &Seen) -> bool {
    let all = ours.withdrawn.iter().chain(&ours.announced);
    name == "bgpkit" && all.into_iter().any(|each| each.contains("/0#"))
}

/// Is it known that `name` refuses with `error` what we take?
pub(crate) fn is_refused(name: &str, error: &str) -> bool {
    REFUSED.iter().any(|(who, text, _why)| *who == name && error.contains(text))
}

/// Which attributes of a message all three should know: the others look into families and
/// attributes that we pass over or pass on unread, and refuse what they find there.
pub(crate) fn has_only_what_we_know(message: &[u8]) -> bool {
    let known = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 32, 35];
    attributes(message).iter().all(|(code, value)| match *code {
        14 | 15 => matches!(value.first_chunk(), Some([0, 1 | 2, 1])),
        code => known.contains(&code) || (200..=240).contains(&code),
    })
}

/// Returns code and value of each attribute of an UPDATE that we have taken.
fn attributes(message: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    let len = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let behind = &message[21 + len(&message[19..])..];
    let mut rest = &behind[2..2 + len(behind)];
    while let [flags, code, tail @ ..] = rest {
        let (header, length) =
            if flags & 0x10 == 0 { (1, usize::from(tail[0])) } else { (2, len(tail)) };
        found.push((*code, &tail[header..header + length]));
        rest = &tail[header + length..];
    }
    found
}
