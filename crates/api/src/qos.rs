//! How fast a pod may receive and send, how many packets and connections it may have, and how its
//! packets are marked, by its annotations.
//!
//! Calico's own (`qos.projectcalico.org/…`) go before those of Kubernetes.

use std::collections::BTreeMap;

use model::endpoint::{Control, Controls, Dscp, PacketRate};

/// The rates that may be asked for, in bits per second, as in Calico.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
/// The bursts that may be asked for, in bits.
const BURSTS: std::ops::RangeInclusive<u64> = 1_000..=34_359_738_360;

/// The packets that may be asked for, in a second and at once, and the connections at a time.
const PACKETS: std::ops::RangeInclusive<u64> = 1..=1_000_000_000;
const CONNECTIONS: std::ops::RangeInclusive<u64> = 1..=u32::MAX as u64;
/// How many packets may come at once where nothing is said of it, as in Calico and nftables.
const PACKET_BURST: u32 = 5;

/// How fast a pod may receive and send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bandwidth {
    /// What comes to the pod.
    pub ingress: Option<Rate>,
    /// What comes from it.
    pub egress: Option<Rate>,
}

/// A rate in bits per second, and how many bits may go at once; zero is for the kernel's side to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Bits per second.
    pub rate: u64,
    /// Bits.
    pub burst: u64,
}

/// Reads what a pod's annotations say, and what is wrong with them: that counts as absent.
#[must_use]
pub fn bandwidth(annotations: &BTreeMap<String, String>) -> (Bandwidth, Vec<String>) {
    let mut faults = Vec::new();
    let mut direction = |name: &str| {
        let own = format!("qos.projectcalico.org/{name}Bandwidth");
        let of_kubernetes = format!("kubernetes.io/{name}-bandwidth");
        let mut read = |name: &str, range| match number(annotations, name, range) {
            Ok(number) => number,
            Err(fault) => {
                faults.push(fault);
                None
            }
        };
        let rate = read(&own, RATES).or_else(|| read(&of_kubernetes, RATES))?;
        let burst = read(&format!("qos.projectcalico.org/{name}Burst"), BURSTS);
        Some(Rate { rate, burst: burst.unwrap_or_default() })
    };
    let (ingress, egress) = (direction("ingress"), direction("egress"));
    (Bandwidth { ingress, egress }, faults)
}

/// Reads what a pod's annotations say of packets and connections, and what is wrong with them:
/// that counts as absent.
#[must_use]
pub fn controls(annotations: &BTreeMap<String, String>) -> (Controls, Vec<String>) {
    let mut faults = Vec::new();
    let mut direction = |name: &str| {
        let mut read = |what: &str, range| {
            let read = number(annotations, &format!("qos.projectcalico.org/{name}{what}"), range);
            let number = read.unwrap_or_else(|fault| {
                faults.push(fault);
                None
            });
            number.and_then(|number| u32::try_from(number).ok())
        };
        let (rate, burst) = (read("PacketRate", PACKETS), read("PacketBurst", PACKETS));
        let connections = read("MaxConnections", CONNECTIONS);
        let packets =
            rate.map(|per_second| PacketRate { per_second, burst: burst.unwrap_or(PACKET_BURST) });
        Control { packets, connections }
    };
    let (ingress, egress) = (direction("ingress"), direction("egress"));
    let text = annotations.get(DSCP);
    let dscp = text.and_then(|text| dscp(text.trim()));
    if let (Some(text), None) = (text, dscp) {
        faults.push(format!(
            "annotation `{DSCP}` is `{text}`: use a number from 0 to 63, or a name such as EF, AF11 \
             or CS1"
        ));
    }
    (Controls { ingress, egress, dscp }, faults)
}

/// How packets are marked that leave the cluster.
const DSCP: &str = "qos.projectcalico.org/dscp";

/// Reads a codepoint, as a number or by its name (RFC 2474, 2597, 3246, 5865 and 8622).
fn dscp(text: &str) -> Option<Dscp> {
    if let Ok(number) = text.parse() {
        return Dscp::new(number);
    }
    let name = text.to_ascii_uppercase();
    let digit = |text: &str, range: std::ops::RangeInclusive<u8>| {
        text.parse().ok().filter(|number| range.contains(number))
    };
    let number = match name.as_str() {
        "DF" => 0,
        "LE" => 1,
        "VA" | "VOICE-ADMIT" => 44,
        "EF" => 46,
        _ => match name.split_at_checked(2)? {
            ("CS", class) => digit(class, 0..=7)?.checked_mul(8)?,
            ("AF", both) => {
                let (class, drop) = both.split_at_checked(1)?;
                let (class, drop) = (digit(class, 1..=4)?, digit(drop, 1..=3)?);
                class.checked_mul(8)?.checked_add(drop.checked_mul(2)?)?
            }
            _ => return None,
        },
    };
    Dscp::new(number)
}

fn number(
    annotations: &BTreeMap<String, String>,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    let Some(text) = annotations.get(name) else { return Ok(None) };
    let number = quantity(text.trim()).filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        format!(
            "annotation `{name}` is `{text}`: use a quantity such as {}, from {first} to {last}",
            if *first < 1000 { "100" } else { "10M" }
        )
    })
}

/// Reads a quantity of Kubernetes, such as `10M`, `1.5Gi` or `2e6`, as a whole number.
fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        exponent => {
            let exponent: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_u128.checked_pow(exponent)?
        }
    };
    let places = u32::try_from(fraction.len()).ok()?;
    let value: u128 = format!("{whole}{fraction}").parse().ok()?;
    let value = value.checked_mul(factor)?.checked_div(10_u128.checked_pow(places)?)?;
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Bandwidth, Vec<String>) {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        bandwidth(&pairs.collect())
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, number) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("10M", Some(10_000_000)),
            ("1.5k", Some(1500)),
            ("1Gi", Some(1 << 30)),
            ("2e6", Some(2_000_000)),
            (".5M", Some(500_000)),
            ("", None),
            (".", None),
            ("M", None),
            ("-1", None),
            ("1 M", None),
            ("10Mbit", None),
            ("1e99", None),
            ("99999999999P", None),
        ] {
            assert_eq!(quantity(text), number, "{text}");
        }
    }

    #[test]
    fn calicos_annotations_go_before_those_of_kubernetes() {
        let (both, faults) = read(&[
            ("qos.projectcalico.org/ingressBandwidth", "10M"),
            ("qos.projectcalico.org/ingressBurst", "1M"),
            ("kubernetes.io/ingress-bandwidth", "99M"),
            ("kubernetes.io/egress-bandwidth", "5M"),
        ]);
        assert_eq!(both.ingress, Some(Rate { rate: 10_000_000, burst: 1_000_000 }));
        assert_eq!(both.egress, Some(Rate { rate: 5_000_000, burst: 0 }));
        assert!(faults.is_empty());
        assert_eq!(read(&[]), (Bandwidth::default(), Vec::new()));
    }

    #[test]
    fn what_is_wrong_limits_nothing_and_is_told() {
        let (none, faults) = read(&[("qos.projectcalico.org/egressBandwidth", "10")]);
        assert_eq!(none, Bandwidth::default());
        assert_eq!(
            faults,
            ["annotation `qos.projectcalico.org/egressBandwidth` is `10`: use a quantity such as \
              10M, from 1000 to 1000000000000000"]
        );
    }

    fn controls_of(pairs: &[(&str, &str)]) -> (Controls, Vec<String>) {
        let name = |name: &str| format!("qos.projectcalico.org/{name}");
        let pairs = pairs.iter().map(|(of, value)| (name(of), (*value).to_owned()));
        controls(&pairs.collect())
    }

    #[test]
    fn packets_and_connections_are_limited_each_way() {
        let (found, faults) = controls_of(&[
            ("ingressPacketRate", "1k"),
            ("ingressPacketBurst", "20"),
            ("egressPacketRate", "100"),
            ("egressMaxConnections", "7"),
            ("dscp", "AF31"),
        ]);
        let packets = |per_second, burst| Some(PacketRate { per_second, burst });
        let ingress = Control { packets: packets(1000, 20), connections: None };
        let egress = Control { packets: packets(100, 5), connections: Some(7) };
        assert_eq!(found, Controls { ingress, egress, dscp: Dscp::new(26) });
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(controls_of(&[]), (Controls::default(), Vec::new()));
        // A burst of no rate limits nothing.
        assert_eq!(controls_of(&[("egressPacketBurst", "9")]).0, Controls::default());
    }

    #[test]
    fn wrong_limits_count_as_absent_and_are_told() {
        for (name, value) in [
            ("ingressPacketRate", "0"),
            ("egressPacketRate", "fast"),
            ("egressPacketRate", "2G"),
            ("ingressPacketBurst", "-1"),
            ("ingressMaxConnections", "0"),
            ("egressMaxConnections", "5G"),
            ("dscp", "64"),
            ("dscp", "AF51"),
            ("dscp", "AF1"),
            ("dscp", "CS8"),
            ("dscp", ""),
            ("dscp", "É"),
        ] {
            let (found, faults) = controls_of(&[(name, value)]);
            assert_eq!(found, Controls::default(), "{name} {value}");
            let [fault] = faults.as_slice() else { panic!("{name} {value}: {faults:?}") };
            assert!(fault.contains(&format!("{name}` is `{value}`: use ")), "{fault}");
        }
    }

    #[test]
    fn codepoints_have_names() {
        for (text, number) in [
            ("0", 0),
            ("63", 63),
            ("EF", 46),
            ("ef", 46),
            ("DF", 0),
            ("CS0", 0),
            ("CS7", 56),
            ("AF11", 10),
            ("AF43", 38),
            ("LE", 1),
            ("VA", 44),
        ] {
            assert_eq!(dscp(text), Dscp::new(number), "{text}");
        }
    }
}
