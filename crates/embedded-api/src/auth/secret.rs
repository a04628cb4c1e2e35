//! The administrator's token: 256 random bits, of which the server remembers the digest only.

use data_encoding::BASE64URL_NOPAD;
use ring::digest;

/// A token as its holder has it; it appears in no log.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(***)")
    }
}

impl Token {
    /// Returns a new token.
    ///
    /// # Errors
    ///
    /// If the kernel has no random numbers.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads what a file holds; `None` if that is too short to be a secret.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() >= 16 && text.chars().all(|char| char.is_ascii_graphic()))
            .then(|| Self(text.to_owned()))
    }

    /// Returns the text for an `Authorization` header or a kubeconfig.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a token: what is compared tells nothing about what it should have been.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(token: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// Compares in a time that does not depend on where the difference is.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0_u8, |different, (a, b)| different | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_survive_their_file() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(Token::parse(&format!("{}\n", one.reveal())).unwrap().reveal(), one.reveal());
        assert!(Token::parse("").is_none() && Token::parse("too short").is_none());
    }

    #[test]
    fn shows_no_token_in_debug_output() {
        let token = Token::random().unwrap();
        assert!(!format!("{token:?}").contains(token.reveal()));
    }

    #[test]
    fn only_the_same_token_matches() {
        let digest = Digest::of("one-and-only-token");
        assert!(digest.matches(&Digest::of("one-and-only-token")));
        for other in ["", "one-and-only-toke", "one-and-only-token ", "One-and-only-token"] {
            assert!(!digest.matches(&Digest::of(other)), "{other}");
        }
    }
}
