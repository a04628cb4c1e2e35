//! Tokens of service accounts: JSON Web Tokens signed with ES256 (RFC 7519, RFC 7518 §3.4).

use std::path::Path;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use super::files;
use super::secret::Digest;
use crate::service::{Grant, Signer};
use crate::status::Status;

/// The key that signs, in PKCS #8, in base64.
const KEY: &str = "service-account.key";
/// Who issues, and for whom unless the request says otherwise; what a cluster's own server is called.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why there is no issuer of tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of its key.
    #[error(transparent)]
    File(#[from] files::Error),
    /// What is in the file is no key.
    #[error(
        "service-account.key is no key: remove it to have a new one made (service accounts then need new tokens)"
    )]
    Key,
    /// The kernel has no random numbers.
    #[error("no random numbers for a key: {0}")]
    Random(ring::error::Unspecified),
}

/// Why a token is not taken; the client learns no more than 401.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not three parts, no JSON, or another algorithm.
    #[error("it is no JSON Web Token with ES256")]
    Malformed,
    /// Signed by another server, or changed.
    #[error("its signature is wrong")]
    Signature,
    /// Not yet or no longer valid.
    #[error("it is not valid now")]
    Expired,
    /// For somebody else, or from somebody else.
    #[error("it is for another audience or from another issuer")]
    Audience,
}

/// What a token says: RFC 7519 §4.1, and Kubernetes' own claim.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Claims {
    /// For whom.
    pub(crate) aud: Vec<String>,
    /// Until when, in seconds since 1970.
    pub(crate) exp: u64,
    /// When issued.
    pub(crate) iat: u64,
    /// By whom.
    pub(crate) iss: String,
    /// Which token.
    pub(crate) jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub(crate) bound: Bound,
    /// Since when.
    pub(crate) nbf: u64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub(crate) sub: String,
}

/// The objects whose deletion ends a token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Bound {
    /// The namespace of all of them.
    pub(crate) namespace: String,
    /// The service account.
    pub(crate) serviceaccount: Reference,
    /// The pod, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    /// The secret, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    /// The node, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
}

/// One of those objects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Reference {
    /// Its name.
    pub(crate) name: String,
    /// Its uid: a successor of the same name is another object.
    pub(crate) uid: String,
}

/// Issues and checks tokens.
pub(crate) struct Issuer {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

#[derive(Deserialize, Serialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl Issuer {
    /// Reads the key in `directory`, or makes one there.
    ///
    /// # Errors
    ///
    /// [`Error`] if it is unreadable; it is never replaced silently.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(KEY);
        let random = SystemRandom::new();
        let text = if let Some(text) = files::read_private(&path)? {
            text
        } else {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            let text = BASE64.encode(pkcs8.map_err(Error::Random)?.as_ref());
            files::write_private(&path, text.as_bytes())?;
            text
        };
        let pkcs8 = BASE64.decode(text.trim().as_bytes()).map_err(|_| Error::Key)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
            .map_err(|_| Error::Key)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        let key_id = BASE64URL_NOPAD.encode(digest.as_ref());
        Ok(Self { key, key_id, random })
    }

    /// Signs a token that is valid from `now` for `lifetime`.
    ///
    /// # Errors
    ///
    /// If the kernel has no random numbers.
    pub(crate) fn issue(&self, request: Request, now: SystemTime) -> Result<String, Error> {
        let iat = seconds(now);
        let Request { audiences, lifetime, bound } = request;
        let claims = Claims {
            aud: audiences,
            exp: iat.saturating_add(lifetime.as_secs()),
            iat,
            iss: ISSUER.to_owned(),
            jti: random_id(&self.random)?,
            nbf: iat,
            sub: format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name),
            bound,
        };
        let header = Header { alg: "ES256".to_owned(), kid: self.key_id.clone() };
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(Error::Random)?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref())))
    }

    /// Checks signature, issuer, audience and times of a token.
    ///
    /// Whether what it is bound to still exists is for the caller to see.
    ///
    /// # Errors
    ///
    /// [`Refusal`], for the log.
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let header: Header = decode(header)?;
        if header.alg != "ES256" {
            return Err(Refusal::Malformed);
        }
        let signature =
            BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| Refusal::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Refusal::Signature)?;
        let claims: Claims = decode(claims)?;
        claims.check(now)?;
        Ok(claims)
    }
}

impl Signer for Issuer {
    fn default_audiences(&self) -> Vec<String> {
        vec![ISSUER.to_owned()]
    }

    fn sign(&self, grant: &Grant) -> Result<String, Status> {
        let Grant { namespace, name, uid, audiences, issued, expires, bound } = grant;
        let reference = |wanted: &str| {
            let (_, name, uid) = bound.as_ref().filter(|(kind, ..)| kind == wanted)?;
            Some(Reference { name: name.clone(), uid: uid.clone() })
        };
        let lifetime = expires.as_second().saturating_sub(issued.as_second());
        let request = Request {
            audiences: audiences.clone(),
            lifetime: Duration::from_secs(lifetime.unsigned_abs()),
            bound: Bound {
                namespace: namespace.clone(),
                serviceaccount: Reference { name: name.clone(), uid: uid.clone() },
                pod: reference("Pod"),
                secret: reference("Secret"),
                node: reference("Node"),
            },
        };
        self.issue(request, (*issued).into()).map_err(Status::internal)
    }
}

/// What a token is asked for.
pub(crate) struct Request {
    /// For whom; this server takes only tokens for [`ISSUER`].
    pub(crate) audiences: Vec<String>,
    /// How long.
    pub(crate) lifetime: Duration,
    /// For which service account.
    pub(crate) bound: Bound,
}

impl Claims {
    /// Checks what may change after the signature was made.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Refusal> {
        let now = seconds(now);
        if self.iss != ISSUER || !self.aud.iter().any(|audience| audience == ISSUER) {
            return Err(Refusal::Audience);
        }
        if now < self.nbf || self.exp <= now {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}

/// Signatures that were found right: checking one costs more than the rest of a request.
pub(crate) struct Verified {
    known: std::sync::Mutex<std::collections::HashMap<Digest, Claims>>,
}

impl Verified {
    /// More than that many live service accounts make us check signatures again.
    const CAPACITY: usize = 512;

    pub(crate) fn new() -> Self {
        Self { known: std::sync::Mutex::default() }
    }

    /// As [`Issuer::verify`], from memory if the same token was seen before.
    pub(crate) fn verify(
        &self,
        issuer: &Issuer,
        token: &str,
        now: SystemTime,
    ) -> Result<Claims, Refusal> {
        let digest = Digest::of(token);
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(claims) = known.get(&digest) {
            return claims.check(now).map(|()| claims.clone());
        }
        drop(known);
        let claims = issuer.verify(token, now)?;
        known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() >= Self::CAPACITY {
            known.clear();
        }
        known.insert(digest, claims.clone());
        Ok(claims)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn encode(part: &impl Serialize) -> String {
    BASE64URL_NOPAD.encode(serde_json::json!(part).to_string().as_bytes())
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Refusal> {
    let json = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Refusal::Malformed)
}

/// Returns a version 4 UUID (RFC 9562 §5.4).
fn random_id(random: &SystemRandom) -> Result<String, Error> {
    let bytes: [u8; 16] = ring::rand::generate(random).map_err(Error::Random)?.expose();
    let number = u128::from_be_bytes(bytes) & !(0xf000_u128 << 64) & !(0xc000_u128 << 48)
        | (0x4000_u128 << 64)
        | (0x8000_u128 << 48);
    let hex = format!("{number:032x}");
    let cuts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts = cuts.map(|(from, to)| hex.get(from..to).unwrap_or_default());
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn at(offset: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW.checked_add_signed_for_test(offset)
    }

    trait Offset {
        fn checked_add_signed_for_test(self, offset: i64) -> Duration;
    }

    impl Offset for Duration {
        fn checked_add_signed_for_test(self, offset: i64) -> Duration {
            Duration::from_secs(self.as_secs().checked_add_signed(offset).unwrap())
        }
    }

    fn request(audience: &str) -> Request {
        Request {
            audiences: vec![audience.to_owned()],
            lifetime: Duration::from_secs(3600),
            bound: Bound {
                namespace: "kube-system".to_owned(),
                serviceaccount: Reference { name: "calico-node".to_owned(), uid: "u1".to_owned() },
                pod: None,
                secret: None,
                node: None,
            },
        }
    }

    fn issuer() -> (tempfile::TempDir, Issuer) {
        let directory = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(directory.path()).unwrap();
        (directory, issuer)
    }

    #[test]
    fn takes_its_own_tokens_also_after_a_restart() {
        let (directory, issuer) = issuer();
        let token = issuer.issue(request(ISSUER), at(0)).unwrap();
        let again = Issuer::open(directory.path()).unwrap();
        let claims = again.verify(&token, at(10)).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:kube-system:calico-node");
        assert_eq!(claims.bound.serviceaccount.uid, "u1");
    }

    #[test]
    fn refuses_what_is_not_valid_now() {
        let (_directory, issuer) = issuer();
        let token = issuer.issue(request(ISSUER), at(0)).unwrap();
        assert_eq!(issuer.verify(&token, at(-1)), Err(Refusal::Expired));
        assert!(issuer.verify(&token, at(3599)).is_ok());
        assert_eq!(issuer.verify(&token, at(3600)), Err(Refusal::Expired));
    }

    #[test]
    fn memory_does_not_prolong_a_token() {
        let (_directory, issuer) = issuer();
        let verified = Verified::new();
        let token = issuer.issue(request(ISSUER), at(0)).unwrap();
        assert!(verified.verify(&issuer, &token, at(1)).is_ok());
        assert_eq!(verified.verify(&issuer, &token, at(3600)), Err(Refusal::Expired));
    }

    #[test]
    fn refuses_other_audiences() {
        let (_directory, issuer) = issuer();
        let token = issuer.issue(request("vault"), at(0)).unwrap();
        assert_eq!(issuer.verify(&token, at(1)), Err(Refusal::Audience));
    }

    #[test]
    fn refuses_other_issuers_keys() {
        let ((_one, one), (_other, other)) = (issuer(), issuer());
        let token = one.issue(request(ISSUER), at(0)).unwrap();
        assert_eq!(other.verify(&token, at(1)), Err(Refusal::Signature));
    }

    #[test]
    fn refuses_every_change_of_one_character() {
        let (_directory, issuer) = issuer();
        let token = issuer.issue(request(ISSUER), at(0)).unwrap();
        for at_char in (0..token.len()).step_by(7) {
            let mut bytes = token.clone().into_bytes();
            bytes[at_char] = if bytes[at_char] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(issuer.verify(&changed, at(1)).is_err(), "{at_char}");
        }
    }

    #[test]
    fn refuses_tokens_without_a_signature() {
        let (_directory, issuer) = issuer();
        let token = issuer.issue(request(ISSUER), at(0)).unwrap();
        let claims = token.split('.').nth(1).unwrap();
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
        for token in [format!("{header}.{claims}."), format!("{header}.{claims}"), String::new()] {
            assert_eq!(issuer.verify(&token, at(1)), Err(Refusal::Malformed), "{token}");
        }
    }

    #[test]
    fn ids_are_version_4() {
        let id = random_id(&SystemRandom::new()).unwrap();
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
