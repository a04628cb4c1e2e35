//! Malformed messages, each named after the section that says what to do with it.

use super::*;

/// ORIGIN igp, AS_PATH 64512, NEXT_HOP 192.0.2.1.
const GOOD: &str = "40010100 400206 0201 0000fc00 400304 c0000201";
/// 10.244.1.64/26.
const NLRI: &str = "1a 0af40140";
const TAKEN: &str = "+10.244.1.64/26 via 192.0.2.1";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Describes what an UPDATE with these attributes and prefixes does.
fn outcome(attributes: &str, nlri: &str, context: Context) -> String {
    let attributes = hex(attributes);
    let len = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    let body = [&[0, 0], &len[..], &attributes, &hex(nlri)].concat();
    describe(&Update::decode(&body, context))
}

fn shown(nlri: &Nlri) -> String {
    match nlri.path_id {
        0 => nlri.prefix.to_string(),
        id => format!("{}#{id}", nlri.prefix),
    }
}

fn describe(decoded: &Result<Update, Notification>) -> String {
    let update = match decoded {
        Ok(update) => update,
        Err(Notification { reason, .. }) => {
            return format!("reset {}/{}", reason.code, reason.subcode);
        }
    };
    let withdrawn = update.withdrawn.iter().map(|nlri| format!("-{}", shown(nlri)));
    let announced = update.announced.iter().flat_map(|each| {
        each.prefixes.iter().map(|nlri| format!("+{} via {}", shown(nlri), each.next_hop))
    });
    let malformed = update.malformed.iter().map(|each| match each.disposition {
        Disposition::Discard => format!("discard {}: {}", each.code, each.what),
        Disposition::TreatAsWithdraw => format!("withdraw {}: {}", each.code, each.what),
    });
    withdrawn.chain(announced).chain(malformed).collect::<Vec<_>>().join(", ")
}

/// Section, attributes after the good ones, what happens.
const AFTER_GOOD: &[(&str, &str, &str)] = &[
    ("nothing wrong", "", TAKEN),
    ("RFC 7606 §3 c, flags of MED", "400404 00000001", "-10.244.1.64/26, withdraw 4: wrong flags"),
    (
        "RFC 7606 §3 g, repeated",
        "400304 c0000209",
        "+10.244.1.64/26 via 192.0.2.1, discard 3: repeated",
    ),
    (
        "RFC 7606 §3 g, repeated MP_REACH_NLRI",
        "800e09 0001 01 04 c0000201 00 800e09 0001 01 04 c0000201 00",
        "reset 3/1",
    ),
    (
        "RFC 7606 §4, length overruns",
        "80040a 00000001",
        "-10.244.1.64/26, withdraw 0: attribute overruns the list",
    ),
    ("RFC 7606 §4, header cut", "80", "-10.244.1.64/26, withdraw 0: attribute overruns the list"),
    ("RFC 7606 §7.4, MED", "800403 000001", "-10.244.1.64/26, withdraw 4: wrong length"),
    ("RFC 7606 §7.5, LOCAL_PREF", "400503 000001", "-10.244.1.64/26, withdraw 5: wrong length"),
    (
        "RFC 7606 §7.6, ATOMIC_AGGREGATE",
        "400601 00",
        "+10.244.1.64/26 via 192.0.2.1, discard 6: wrong length",
    ),
    (
        "RFC 7606 §7.7, AGGREGATOR",
        "c00706 fc00 c0000201",
        "+10.244.1.64/26 via 192.0.2.1, discard 7: malformed",
    ),
    ("RFC 7606 §7.8, COMMUNITIES", "c00803 000001", "-10.244.1.64/26, withdraw 8: wrong length"),
    ("RFC 7606 §7.8, no COMMUNITIES", "c00800", "-10.244.1.64/26, withdraw 8: wrong length"),
    (
        "RFC 7606 §7.9, ORIGINATOR_ID",
        "800905 c000020100",
        "-10.244.1.64/26, withdraw 9: wrong length",
    ),
    ("RFC 7606 §7.10, CLUSTER_LIST", "800a03 000001", "-10.244.1.64/26, withdraw 10: wrong length"),
    (
        "RFC 7606 §7.14, EXTENDED COMMUNITIES",
        "c01007 00000000000000",
        "-10.244.1.64/26, withdraw 16: wrong length",
    ),
    (
        "RFC 8092 §5, LARGE_COMMUNITY",
        "c02008 0000000000000000",
        "-10.244.1.64/26, withdraw 32: wrong length",
    ),
    (
        "RFC 6793 §6, AS4_PATH from a new peer",
        "c01106 0201 00000001",
        "+10.244.1.64/26 via 192.0.2.1, discard 17: from a peer that speaks four octets",
    ),
    ("RFC 9234 §5, ONLY_TO_CUSTOMER", "c02304 0000fc00", TAKEN),
    (
        "RFC 9234 §5, ONLY_TO_CUSTOMER of 3 bytes",
        "c02303 00fc00",
        "-10.244.1.64/26, withdraw 35: wrong length",
    ),
    (
        "RFC 7607 §2, AGGREGATOR with AS 0",
        "c00708 00000000 c0000201",
        "+10.244.1.64/26 via 192.0.2.1, discard 7: malformed",
    ),
    ("RFC 4271 §6.3, unknown well-known", "406300", "reset 3/2"),
    ("RFC 4271 §5, unknown optional not transitive", "806301 00", TAKEN),
    ("RFC 7606 §7.11, next hop of 5 bytes", "800e0a 0001 01 05 c000020100 00", "reset 3/9"),
    (
        "RFC 7606 §5.3, prefix of MP_REACH_NLRI too long",
        "800e1a 0002 01 10 fd000000000000000000000000000001 00 ff 00 00 00 00",
        "reset 3/9",
    ),
    ("RFC 7606 §7.12, MP_UNREACH_NLRI cut", "800f02 0001", "reset 3/9"),
    ("RFC 7606 §7.12, prefix of MP_UNREACH_NLRI cut", "800f05 0002 01 40 fd", "reset 3/9"),
    ("RFC 4760 §7, a family that we do not carry", "800e09 4004 47 04 c0000201 00", TAKEN),
];

/// Section, all attributes, prefixes, what happens.
const WHOLE: &[(&str, &str, &str, &str)] = &[
    (
        "RFC 7606 §7.1, ORIGIN of 3",
        "40010103 400206 0201 0000fc00 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 1: wrong length or value",
    ),
    (
        "RFC 7606 §7.1, ORIGIN of 2 bytes",
        "4001020000 400206 0201 0000fc00 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 1: wrong length or value",
    ),
    (
        "RFC 7606 §7.2, segment type",
        "40010100 400206 0901 0000fc00 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: malformed segments",
    ),
    (
        "RFC 7606 §7.2, segment overruns",
        "40010100 400206 0202 0000fc00 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: malformed segments",
    ),
    (
        "RFC 7606 §7.2, empty segment",
        "40010100 400202 0200 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: malformed segments",
    ),
    (
        "RFC 7606 §7.2, one byte left over",
        "40010100 400207 0201 0000fc00 02 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: malformed segments",
    ),
    (
        "RFC 7607 §2, AS_PATH with AS 0",
        "40010100 400206 0201 00000000 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: malformed segments",
    ),
    (
        "RFC 5065 §5, AS_PATH with the segment of a confederation",
        "40010100 400206 0301 0000fc00 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: malformed segments",
    ),
    (
        "RFC 7606 §7.3, NEXT_HOP of 3 bytes",
        "40010100 400206 0201 0000fc00 400303 c00002",
        NLRI,
        "-10.244.1.64/26, withdraw 3: wrong length",
    ),
    (
        "RFC 7606 §3 d, no ORIGIN",
        "400206 0201 0000fc00 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 1: missing",
    ),
    (
        "RFC 7606 §3 d, no AS_PATH",
        "40010100 400304 c0000201",
        NLRI,
        "-10.244.1.64/26, withdraw 2: missing",
    ),
    (
        "RFC 7606 §3 d, no NEXT_HOP",
        "40010100 400206 0201 0000fc00",
        NLRI,
        "-10.244.1.64/26, withdraw 3: missing",
    ),
    ("RFC 7606 §5.2, nothing to withdraw", "40010103", "", "reset 3/1"),
    (
        "RFC 7606 §5.2, only routes that go anyway",
        "40010103 800f0c 0002 01 40 fd00024400010000",
        "",
        "reset 3/1",
    ),
    (
        "RFC 7606 §5.2, nothing but MP_UNREACH_NLRI",
        "c00f0c 0002 01 40 fd00024400010000",
        "",
        "-fd00:244:1::/64, withdraw 15: wrong flags",
    ),
    ("RFC 4271 §6.3, prefix of 33 bits", GOOD, "21 0af4014000", "reset 3/10"),
    ("RFC 4271 §6.3, prefix cut", GOOD, "1a 0af4", "reset 3/10"),
    ("RFC 4271 §4.3, bits behind the prefix", GOOD, "1a 0af4017f", TAKEN),
    (
        "RFC 2545 §3, global and link-local next hop",
        "40010100 400206 0201 0000fc00 800e2e 0002 01 20 fd000000000000000000000000000001
         fe800000000000000000000000000001 00 40 fd00024400010000",
        "",
        "+fd00:244:1::/64 via fd00::1",
    ),
];

#[test]
fn wrong_attributes_do_what_the_standards_say() {
    for (section, attributes, expected) in AFTER_GOOD {
        let found = outcome(&format!("{GOOD} {attributes}"), NLRI, INTERNAL);
        assert_eq!(found, *expected, "{section}");
    }
    for (section, attributes, nlri, expected) in WHOLE {
        assert_eq!(outcome(attributes, nlri, INTERNAL), *expected, "{section}");
    }
}

#[test]
fn what_only_our_as_may_say_is_discarded_from_others() {
    let external = Context { is_internal: false, ..INTERNAL };
    let attributes = ["400504 00000064", "800904 c0000201", "800a04 00000001"];
    for (attribute, code) in attributes.iter().zip([5, 9, 10]) {
        let found = outcome(&format!("{GOOD} {attribute}"), NLRI, external);
        assert_eq!(found, format!("{TAKEN}, discard {code}: from an external peer"));
    }
}

#[test]
fn lengths_that_hide_the_prefixes_reset_the_session() {
    for (section, body) in [
        ("RFC 4271 §6.3, withdrawn routes overrun", "0005 00 0000"),
        ("RFC 4271 §6.3, attributes overrun", "0000 0009 40010100"),
        ("RFC 4271 §6.3, no attribute length", "0000 00"),
        ("RFC 4271 §6.3, nothing at all", ""),
    ] {
        assert_eq!(describe(&Update::decode(&hex(body), INTERNAL)), "reset 3/1", "{section}");
    }
}

#[test]
fn wrong_headers_are_answered_as_rfc_4271_6_1_says() {
    let marker = "ff".repeat(16);
    for (name, marker, rest, expected) in [
        ("marker", "00".repeat(16), "0013 04", "1/1 "),
        ("shorter than a header", marker.clone(), "0012 04", "1/2 0012"),
        ("longer than 4096", marker.clone(), "1001 02", "1/2 1001"),
        ("OPEN too short", marker.clone(), "001c 01", "1/2 001c"),
        ("UPDATE too short", marker.clone(), "0016 02", "1/2 0016"),
        ("NOTIFICATION too short", marker.clone(), "0014 03", "1/2 0014"),
        ("KEEPALIVE too long", marker.clone(), "0014 04", "1/2 0014"),
        ("type 0", marker.clone(), "0013 00", "1/3 00"),
        ("type 6", marker.clone(), "0013 06", "1/3 06"),
    ] {
        let Err(found) = split_frame(&hex(&format!("{marker}{rest}")), MAX_LEN) else {
            panic!("{name}")
        };
        let (expected, data) = expected.split_once(' ').unwrap();
        assert_eq!(found.data, hex(data), "{name}");
        let found = format!("{}/{}", found.reason.code, found.reason.subcode);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn wrong_opens_are_answered_as_rfc_4271_6_2_says() {
    for (name, body, expected) in [
        ("version 3", "03 fc00 00f0 c0000201 00", "2/1"),
        ("hold time of 1 s", "04 fc00 0001 c0000201 00", "2/6"),
        ("hold time of 2 s", "04 fc00 0002 c0000201 00", "2/6"),
        ("identifier zero", "04 fc00 00f0 00000000 00", "2/3"),
        ("no parameter length", "04 fc00 00f0 c0000201", "2/0"),
        ("parameters overrun", "04 fc00 00f0 c0000201 05 0202", "2/0"),
        ("bytes behind the parameters", "04 fc00 00f0 c0000201 00 00", "2/0"),
        ("authentication", "04 fc00 00f0 c0000201 03 010100", "2/4"),
        ("capability overruns", "04 fc00 00f0 c0000201 04 0202 0204", "2/0"),
        ("extended length overruns", "04 fc00 00f0 c0000201 ff ff 0005 02", "2/0"),
    ] {
        let Err(Notification { reason, .. }) = Open::decode(&hex(body)) else { panic!("{name}") };
        assert_eq!(format!("{}/{}", reason.code, reason.subcode), expected, "{name}");
    }
}

#[test]
fn a_capability_of_the_wrong_length_is_as_good_as_unknown() {
    let open = Open::decode(&hex("04 fc00 00f0 c0000201 05 0203 4101 00")).unwrap();
    assert_eq!(open.capabilities, [Capability::Unknown { code: 65, value: vec![0] }]);
}

#[test]
fn a_refresh_border_of_the_wrong_length_is_answered_with_7_1() {
    let Err(notification) = RouteRefresh::decode(&hex("0001 01 01 00")) else { panic!() };
    assert_eq!(notification.reason, Reason::BAD_REFRESH_LENGTH);
}
