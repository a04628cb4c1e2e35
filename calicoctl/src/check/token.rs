//! When a service account's token is good (RFC 7519 §4.1), read without believing its signature.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// When a token is good, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Validity {
    /// Since when.
    #[serde(rename = "iat", default)]
    pub issued: i64,
    /// Until when; `None` for ever.
    #[serde(rename = "exp", default)]
    pub expires: Option<i64>,
}

impl Validity {
    /// Reads that of the token in a kubeconfig, if it has one that tells.
    #[must_use]
    pub fn of_kubeconfig(text: &str) -> Option<Self> {
        let config: Value = serde_saphyr::from_str(text).ok()?;
        let users = config.get("users")?.as_array()?;
        let token = users.iter().find_map(|user| user.get("user")?.get("token")?.as_str())?;
        let payload = token.split('.').nth(1)?;
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfigs_token_tells_when_it_ends() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"iat":100,"exp":86500,"sub":"x"}"#);
        let config =
            format!("kind: Config\nusers:\n- name: a\n  user:\n    token: e30.{payload}.sig\n");
        let validity = Validity { issued: 100, expires: Some(86_500) };
        assert_eq!(Validity::of_kubeconfig(&config), Some(validity));
        for other in ["", "users: []", "users: [{user: {token: secret}}]", "users: [{user: {}}]"] {
            assert_eq!(Validity::of_kubeconfig(other), None, "{other}");
        }
    }
}
