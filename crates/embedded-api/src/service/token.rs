//! Tokens for service accounts: `TokenRequest` of authentication.k8s.io/v1.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Answer, Service, Target};
use crate::builtin::decode::drop_empty;
use crate::cause::Cause;
use crate::status::Status;
use crate::store::Key;
use crate::verb::{WriteOptions, stamp};

const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const USUAL: i64 = 3600;
const NAMES: (&str, &str) = ("TokenRequest", "authentication.k8s.io");

/// What a token says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The namespace of the service account.
    pub namespace: String,
    /// The name of the service account.
    pub name: String,
    /// The UID of the service account.
    pub uid: String,
    /// Who the token is for; empty is this server.
    pub audiences: Vec<String>,
    /// From when on it holds.
    pub issued: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
    /// Kind, name and UID of the object that it lives as long as.
    pub bound: Option<(String, String, String)>,
}

/// Signs tokens.
pub trait Signer: Send + Sync {
    /// Returns the audiences of a token that names none.
    fn default_audiences(&self) -> Vec<String>;

    /// Writes and signs a token.
    ///
    /// # Errors
    ///
    /// 500 if it cannot be signed.
    fn sign(&self, grant: &Grant) -> Result<String, Status>;
}

impl Service {
    /// Gives out a token for a service account.
    ///
    /// # Errors
    ///
    /// 404 if there is no such account, 422 with what is wrong.
    pub async fn token_request(
        &self,
        target: Target,
        options: WriteOptions,
        body: Value,
        signer: &dyn Signer,
    ) -> Result<Answer, Status> {
        let spec = body.get("spec").cloned().unwrap_or_default();
        let seconds = lifetime(&spec)?;
        let mut audiences: Vec<String> = spec
            .get("audiences")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences = signer.default_audiences();
        }
        let bound = spec.get("boundObjectRef").filter(|bound| !bound.is_null()).cloned();
        let (account, bound_to) = self.bound(&target, bound.clone()).await?;
        let issued = Timestamp::now();
        let expires = issued.checked_add(SignedDuration::from_secs(seconds));
        let expires = expires.map_err(Status::internal)?;
        let grant = Grant {
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            uid: account.clone(),
            audiences,
            issued,
            expires,
            bound: bound_to,
        };
        let token = if options.is_dry_run { String::new() } else { signer.sign(&grant)? };
        let json = answer(&grant, seconds, bound, &token)?;
        Ok(Answer { code: 201, json, warnings: Vec::new() })
    }

    /// Reads the UID of the account and what the token is bound to.
    async fn bound(
        &self,
        target: &Target,
        reference: Option<Value>,
    ) -> Result<(String, Option<(String, String, String)>), Status> {
        let target = target.clone();
        self.store
            .read(move |snapshot| {
                let entry = snapshot.get(&target.key())?.ok_or_else(|| target.not_found())?;
                let uid = entry.object()?.uid().unwrap_or_default().to_owned();
                let Some(reference) = reference else { return Ok((uid, None)) };
                let text = |field: &str| {
                    reference.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
                };
                let (kind, name, wanted) = (text("kind"), text("name"), text("uid"));
                let (plural, namespace) = place(&kind, &target.namespace)?;
                let key = Key {
                    resource: plural.into(),
                    namespace: namespace.into(),
                    name: name.as_str().into(),
                };
                let entry = snapshot.get(&key)?;
                let entry = entry.ok_or_else(|| Status::not_found((plural, ""), &name))?;
                let found = entry.object()?.uid().unwrap_or_default().to_owned();
                if !wanted.is_empty() && wanted != found {
                    let why = format!(
                        "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
                    );
                    return Err(Status::conflict((plural, ""), &name, &why));
                }
                Ok((uid, Some((kind, name, found))))
            })
            .await
    }
}

/// Returns where objects are that a token can be bound to.
fn place<'a>(kind: &str, namespace: &'a str) -> Result<(&'static str, &'a str), Status> {
    match kind {
        "Pod" => Ok(("pods", namespace)),
        "Secret" => Ok(("secrets", namespace)),
        "Node" => Ok(("nodes", "")),
        other => Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount to object type with kind {other:?}; use Pod, Secret or Node"
        ))),
    }
}

fn lifetime(spec: &Value) -> Result<i64, Status> {
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(USUAL);
    let detail = if seconds < SHORTEST {
        "may not specify a duration less than 10 minutes"
    } else if seconds > LONGEST {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(seconds);
    };
    let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), detail);
    Err(Status::invalid(NAMES, "", &[cause]))
}

fn answer(
    grant: &Grant,
    seconds: i64,
    bound: Option<Value>,
    token: &str,
) -> Result<std::sync::Arc<[u8]>, Status> {
    let mut bound = bound.unwrap_or_default();
    if let Some(map) = bound.as_object_mut() {
        drop_empty(map);
    }
    let value = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": grant.name,
            "namespace": grant.namespace,
            "uid": grant.uid,
            "creationTimestamp": stamp(grant.issued),
        },
        "spec": {
            "audiences": grant.audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": bound,
        },
        "status": {"token": token, "expirationTimestamp": stamp(grant.expires)},
    });
    serde_json::to_vec(&value).map(Into::into).map_err(Status::internal)
}
