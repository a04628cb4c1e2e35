//! What has broken other BGP speakers: one case for each CVE, with what the standards say instead.
//!
//! All of these came from a peer. That no bytes panic or allocate without bound is the fuzzers'
//! affair; here each known case has its name.

#![allow(clippy::arithmetic_side_effects)]

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use bgp::wire::{
        self, AsnWidth, Attributes, Context, Disposition, Form, Nlri, Notification, Open, Reason,
        TooLong, Update,
    };
    use model::net::Cidr;

    /// ORIGIN igp, AS_PATH 64512, NEXT_HOP 192.0.2.1.
    const GOOD: &str = "40010100 400206 0201 0000fc00 400304 c0000201";
    /// 10.244.1.64/26.
    const NLRI: &str = "1a 0af40140";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        let byte =
            |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn update(attributes: &[u8], nlri: &str, context: Context) -> Result<Update, Notification> {
        let len = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        Update::decode(&[&[0, 0], &len[..], attributes, &hex(nlri)].concat(), context)
    }

    /// Says in short what an UPDATE from a peer that writes four octets does.
    fn outcome(attributes: &str, nlri: &str) -> String {
        let context = Context { width: AsnWidth::Four, ..Context::default() };
        let update = match update(&hex(attributes), nlri, context) {
            Ok(update) => update,
            Err(notification) => return format!("reset {}", notification.reason),
        };
        let taken: usize = update.announced.iter().map(|each| each.prefixes.len()).sum();
        let mut text = format!("{taken} announced, {} withdrawn", update.withdrawn.len());
        if update.end_of_rib.is_some() {
            text.push_str(", end of RIB");
        }
        for each in &update.malformed {
            let what = match each.disposition {
                Disposition::Discard => "discards",
                Disposition::TreatAsWithdraw => "withdraws",
            };
            write!(text, ", {} {what}", each.code).unwrap();
        }
        text
    }

    /// CVE, attributes, prefixes, what becomes of them.
    const UPDATES: &[(&str, &str, &str, &str)] = &[
        // Unknown to us, so it is passed on as it is and its inside is nobody's affair here.
        (
            "CVE-2023-38802: TUNNEL_ENCAP cut",
            "GOOD c01704 0001 ffff",
            NLRI,
            "1 announced, 0 withdrawn",
        ),
        (
            "CVE-2024-44070: TUNNEL_ENCAP of one byte",
            "GOOD c01701 00",
            NLRI,
            "1 announced, 0 withdrawn",
        ),
        (
            "CVE-2023-46752: MP_REACH_NLRI whose next hop overruns",
            "40010100 400206 0201 0000fc00 800e07 0002 01 20 20010db8",
            "",
            "reset optional attribute error (3/9)",
        ),
        (
            "CVE-2023-46753: no mandatory attribute at all",
            "c0ff04 01020304",
            NLRI,
            "0 announced, 1 withdrawn, 1 withdraws, 2 withdraws, 3 withdraws",
        ),
        (
            "CVE-2023-47234: MP_UNREACH_NLRI without the mandatory attributes",
            "800f03 000201",
            NLRI,
            "0 announced, 1 withdrawn, 1 withdraws, 2 withdraws, 3 withdraws",
        ),
        (
            "CVE-2023-47235: an end of RIB with a malformed attribute is none",
            "40010200 00 800f03 000201",
            "",
            "reset malformed attribute list (3/1)",
        ),
        (
            "CVE-2026-37457: FlowSpec, which was never agreed on",
            "GOOD 800e09 0001 85 00 00 0301 08 0a",
            NLRI,
            "1 announced, 0 withdrawn",
        ),
        (
            "CVE-2026-112112: FlowSpec for IPv6",
            "GOOD 800e0a 0002 85 00 00 0401 08 08 20",
            NLRI,
            "1 announced, 0 withdrawn",
        ),
        (
            "CVE-2026-30405: NEXT_HOP of three bytes",
            "40010100 400206 0201 0000fc00 400303 c00002",
            NLRI,
            "0 announced, 1 withdrawn, 3 withdraws",
        ),
        ("CVE-2026-7734: Prefix-SID cut", "GOOD c02803 05 00ff", NLRI, "1 announced, 0 withdrawn"),
        (
            "CVE-2026-7735: AIGP of no length",
            "GOOD 801a03 01 0000",
            NLRI,
            "1 announced, 0 withdrawn",
        ),
        (
            "GO-2026-5954: a confederation's segment from outside",
            "40010100 400206 0301 0000fc00 400304 c0000201",
            NLRI,
            "0 announced, 1 withdrawn, 2 withdraws",
        ),
    ];

    #[test]
    fn updates_that_have_broken_others() {
        let outcomes = UPDATES.iter().map(|(name, attributes, nlri, expected)| {
            let outcome = outcome(&attributes.replace("GOOD", GOOD), nlri);
            (*name, outcome, (*expected).to_owned())
        });
        let wrong: Vec<_> = outcomes.filter(|(_, outcome, expected)| outcome != expected).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn open(parameters: &str) -> Vec<u8> {
        [hex("04 fc00 00f0 c0000202"), hex(parameters)].concat()
    }

    /// CVE-2022-40302, CVE-2022-40318, CVE-2022-43681: lengths of the extended form (RFC 9072).
    #[test]
    fn opens_whose_lengths_lie_are_refused() {
        for parameters in [
            // The extended length overruns; there is none; one byte of it is there.
            "ff ff ffff 02 0002 0200",
            "ff ff",
            "ff ff 00",
            // The length of a parameter overruns, or is cut.
            "ff ff 0005 02 00ff 0200",
            "ff ff 0002 02 00",
            // The length of a capability overruns its parameter.
            "ff ff 0007 02 0004 01ff 0001",
        ] {
            let refused = Open::decode(&open(parameters));
            assert_eq!(refused.map_err(|each| each.reason.code), Err(2), "{parameters}");
        }
        let whole = open("ff ff 0009 02 0006 0104 0001 0001");
        assert!(Open::decode(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(Open::decode(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    /// CVE-2019-16159: a shutdown text whose length is greater than what follows, or than 128.
    /// CVE-2025-59688: any NOTIFICATION can be read and shown.
    #[test]
    fn notifications_of_any_length_are_shown() {
        for code in 0..=u8::MAX {
            for subcode in 0..=12 {
                for len in [0, 1, 127, 128, 129, 254, 255] {
                    let body = [vec![code, subcode, len], vec![b'x'; 130]].concat();
                    for end in [0, 1, 2, 3, 100, body.len()] {
                        let notification = Notification::decode(&body[..end.min(body.len())]);
                        assert!(notification.to_string().len() < 512);
                    }
                }
            }
        }
        let overrun = Notification::decode(&[6, 2, 200, b'x']);
        assert_eq!((overrun.reason, overrun.text()), (Reason::ADMINISTRATIVE_SHUTDOWN, None));
    }

    /// CVE-2026-41643: AS4_PATH before AS_PATH, from a peer that writes two octets.
    #[test]
    fn as4_path_may_come_first() {
        let attributes = hex("40010100 c01106 0201 00010001 400204 0201 5ba0 400304 c0000201");
        let context = Context { width: AsnWidth::Two, ..Context::default() };
        let update = update(&attributes, NLRI, context).unwrap();
        let path = &update.attributes.as_path;
        assert_eq!(path.0[0].asns[0].0, 65_537);
        assert_eq!(update.announced.len(), 1);
    }

    /// CVE-2018-12066, CVE-2026-49943: paths of thousands of ASes, which a long message can carry.
    #[test]
    fn long_as_paths_are_taken_and_never_written_into_a_short_message() {
        let segment = [hex("02 ff"), hex("0000fc00").repeat(255)].concat();
        let path = segment.repeat(16);
        let len = u16::try_from(path.len()).unwrap().to_be_bytes();
        let attributes =
            [hex("40010100 5002"), len.to_vec(), path, hex("400304 c0000201")].concat();
        let context = Context { width: AsnWidth::Four, ..Context::default() };
        let update = update(&attributes, NLRI, context).unwrap();
        let asns: usize = update.attributes.as_path.0.iter().map(|each| each.asns.len()).sum();
        assert_eq!(asns, 16 * 255);
        let prefix: Cidr = "10.244.1.64/26".parse().unwrap();
        let write = |max_len| {
            let form = Form { max_len, ..Form::default() };
            let attributes: &Attributes = &update.attributes;
            let mut out = Vec::new();
            let next_hop = "192.0.2.1".parse().unwrap();
            let nlri = [Nlri::from(prefix)];
            wire::encode_announcement(attributes, next_hop, &nlri, form, &mut out)
                .map(|()| out.len())
        };
        assert!(matches!(write(wire::MAX_LEN), Err(TooLong { .. })));
        assert!(write(wire::MAX_EXTENDED_LEN).is_ok_and(|len| len > 16_000));
    }
}
