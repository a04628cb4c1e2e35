//! Tokens of service accounts, by the `TokenRequest` API (authentication.k8s.io/v1).

use std::fmt;
use std::time::Duration;

use http::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Target};

/// A token that the server has made; its `Debug` form does not show it.
#[derive(Clone)]
pub struct Token {
    /// What is sent in the `Authorization` header.
    pub secret: SecretString,
    /// How long it is valid from the moment it was made; may be less than what was asked for.
    pub lifetime: Duration,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks for a token of a service account that is valid for `lifetime`.
    ///
    /// # Errors
    ///
    /// As [`Client::create`]; [`Error::NotFound`] if there is no such account.
    pub async fn create_token(
        &self,
        namespace: &str,
        account: &str,
        lifetime: Duration,
    ) -> Result<Token, Error> {
        let target = Target {
            verb: "create",
            kind: "TokenRequest",
            object: format!("{namespace}/{account}"),
            server: self.server(),
        };
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/{}/token",
            crate::any::segment(namespace),
            crate::any::segment(account)
        );
        let wanted = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": lifetime.as_secs()},
        });
        let made = self.send(&target, (Method::POST, &path), Some(&wanted)).await?;
        let secret = made.pointer("/status/token").and_then(Value::as_str);
        let secret = secret.filter(|secret| !secret.is_empty()).ok_or_else(|| Error::Invalid {
            target: Box::new(target),
            // The answer is not quoted: it may hold the token at another place.
            problem: "the answer holds no status.token".to_owned(),
        })?;
        let granted = made.pointer("/spec/expirationSeconds").and_then(Value::as_u64);
        let lifetime = granted.map_or(lifetime, Duration::from_secs);
        Ok(Token { secret: SecretString::from(secret), lifetime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let secret = SecretString::from("canary");
        let shown = format!("{:?}", Token { secret, lifetime: Duration::from_secs(60) });
        assert_eq!(shown, "Token { lifetime: 60s, .. }");
    }
}
