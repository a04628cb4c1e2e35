//! How fast a pod may receive and send, by its annotations.
//!
//! Calico's own (`qos.projectcalico.org/…`) go before those of Kubernetes.

use std::collections::BTreeMap;

/// The rates that may be asked for, in bits per second, as in Calico.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
/// The bursts that may be asked for, in bits.
const BURSTS: std::ops::RangeInclusive<u64> = 1_000..=34_359_738_360;

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
            "annotation `{name}` is `{text}`: use a quantity such as 10M, from {first} to {last}"
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
}
