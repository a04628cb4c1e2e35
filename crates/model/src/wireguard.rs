//! Keys of WireGuard devices: Curve25519 points, written in base64 (RFC 7748, RFC 4648 §4).

use std::fmt;
use std::str::FromStr;

/// The public key of a WireGuard device: what peers know it by.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey(pub [u8; 32]);

/// A text that is no public key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no WireGuard public key: 32 bytes in base64, 44 characters")]
pub struct InvalidPublicKey(pub String);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    fn from_str(text: &str) -> Result<Self, InvalidPublicKey> {
        let invalid = || InvalidPublicKey(text.to_owned());
        let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43);
        let (mut bits, mut held) = (0_u32, 0_u32);
        let mut bytes = Vec::with_capacity(32);
        for digit in digits.ok_or_else(invalid)?.bytes() {
            let value = ALPHABET.iter().position(|known| *known == digit).ok_or_else(invalid)?;
            bits = bits << 6 | u32::try_from(value).unwrap_or_default();
            held = held.wrapping_add(6);
            if held >= 8 {
                held = held.wrapping_sub(8);
                bytes.push((bits >> held & 0xff) as u8);
            }
        }
        // What is left over must be zero, so that each key has one text only.
        let is_canonical = bits.trailing_zeros() >= 2;
        let bytes = <[u8; 32]>::try_from(bytes).ok().filter(|_| is_canonical);
        bytes.map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for three in self.0.chunks(3) {
            let at = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for place in 0..=three.len() {
                let shift = 18_usize.saturating_sub(place.saturating_mul(6));
                let value = usize::try_from(bits >> shift & 0x3f).unwrap_or_default();
                let digit = ALPHABET.get(value).copied().unwrap_or(b'A');
                write!(f, "{}", char::from(digit))?;
            }
        }
        f.write_str("=")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_wg_writes_them() {
        // RFC 7748 §6.1, Bob's public key; the text is that of `base64`.
        let bytes = [
            0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4,
            0x35, 0x37, 0x3f, 0x83, 0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14,
            0x6f, 0x88, 0x2b, 0x4f,
        ];
        let text = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
        assert_eq!(PublicKey(bytes).to_string(), text);
        assert_eq!(text.parse(), Ok(PublicKey(bytes)));
        for byte in [0, 1, 0x7f, 0xff] {
            let key = PublicKey([byte; 32]);
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let text = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
        let odd_end = text.replace("08=", "09=");
        let wrong = ["", "=", &text[1..], &text[..43], &text.replace('p', "-"), &odd_end];
        for text in wrong {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
    }
}
