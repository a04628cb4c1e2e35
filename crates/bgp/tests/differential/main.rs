//! The codec against two others that share no code with it: what one reads, all read alike.
//!
//! Messages are made by our encoder and read by all three; then bytes are changed, and what
//! we still take as a good UPDATE the others must take, and as the same one. What they are
//! known to see otherwise is listed in [`known`], with the reason why we are right.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "what the others know beside what we know is of no interest here"
)]

#[cfg(test)]
mod generate;
#[cfg(test)]
mod known;
#[cfg(test)]
mod seen;

#[cfg(test)]
mod tests {
    use bgp::wire::{
        self, AsnWidth, Context, Families, Form, Frame, HEADER_LEN, MAX_EXTENDED_LEN, Nlri, Update,
    };
    use proptest::prelude::*;

    use crate::generate::{Announcement, Damage, announcement, damage};
    use crate::known;
    use crate::seen::{Seen, by_bgpkit, by_netgauze, by_us};

    const BOTH: Families = Families::ALL;

    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    fn context(add_path: Families) -> Context {
        // Inside an AS, so that nothing is dropped that the others show.
        Context {
            width: AsnWidth::Four,
            is_internal: true,
            add_path,
            foreign_next_hops: BOTH,
            is_on_link: false,
        }
    }

    /// Returns the messages in `stream`, headers included.
    fn messages(stream: &[u8]) -> Vec<Vec<u8>> {
        let (mut messages, mut rest) = (Vec::new(), stream);
        while let Some((frame, after)) = wire::split_frame(rest, MAX_EXTENDED_LEN).unwrap() {
            messages.push(rest[..frame.body.len() + HEADER_LEN].to_vec());
            rest = after;
        }
        messages
    }

    fn decode(message: &[u8], add_path: Families) -> Option<Update> {
        let (Frame { body, .. }, _) = wire::split_frame(message, MAX_EXTENDED_LEN).ok()??;
        Update::decode(body, context(add_path)).ok()
    }

    fn encode(announcement: &Announcement, add_path: Families) -> Vec<Vec<u8>> {
        let form = Form { add_path, ..Form::default() };
        let (mut out, prefixes) = (Vec::new(), announcement.prefixes(add_path));
        let next_hop = announcement.next_hop;
        wire::encode_announcement(&announcement.attributes, next_hop, &prefixes, form, &mut out)
            .unwrap();
        wire::encode_withdrawal(&prefixes, form, &mut out);
        messages(&out)
    }

    /// Checks that the others read `message` as we do.
    fn compare(message: &[u8], add_path: Families) -> Result<(), TestCaseError> {
        let Some(update) = decode(message, add_path) else { return Ok(()) };
        if !update.malformed.is_empty() || !known::has_only_what_we_know(message) {
            return Ok(());
        }
        let ours: Seen = by_us(&update);
        let has_path_ids = !add_path.is_empty();
        for (name, theirs) in [
            ("netgauze", by_netgauze(message, has_path_ids)),
            ("bgpkit", by_bgpkit(message, has_path_ids)),
        ] {
            match theirs {
                Ok(theirs) if theirs == ours => {}
                _ if known::is_seen_otherwise(name, &ours) => {}
                Err(error) if known::is_refused(name, &error) => {}
                theirs => {
                    let text = format!("{name} reads {theirs:#?}\nwe read {ours:#?}");
                    return Err(TestCaseError::fail(format!("{text}\nof {message:02x?}")));
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(400))]

        #[test]
        fn what_we_write_all_read_alike(announcement in announcement(), has_ids: bool) {
            let add_path = if has_ids { BOTH } else { Families::NONE };
            for message in encode(&announcement, add_path) {
                prop_assert!(decode(&message, add_path).is_some());
                compare(&message, add_path)?;
            }
        }
    }

    proptest! {
        #![proptest_config(cases(4000))]

        #[test]
        fn what_we_take_of_damaged_messages_all_read_alike(
            announcement in announcement(),
            damages in proptest::collection::vec(damage(), 1..4),
        ) {
            for mut message in encode(&announcement, Families::NONE) {
                for Damage { at, value } in &damages {
                    let room = message.len() - HEADER_LEN;
                    let at = HEADER_LEN + at.index(room);
                    message[at] = *value;
                }
                compare(&message, Families::NONE)?;
            }
        }
    }

    #[test]
    fn the_comparison_sees_a_difference() {
        let nlri = |text: &str| Nlri::from(text.parse::<model::net::Cidr>().unwrap());
        let form = Form::default();
        let mut out = Vec::new();
        wire::encode_withdrawal(&[nlri("10.0.0.0/8")], form, &mut out);
        let update = decode(&out, Families::NONE).unwrap();
        wire::encode_withdrawal(&[nlri("10.0.0.0/9")], form, &mut out);
        let other = messages(&out).pop().unwrap();
        assert_ne!(by_netgauze(&other, false).unwrap(), by_us(&update));
        assert_ne!(by_bgpkit(&other, false).unwrap(), by_us(&update));
    }
}
