//! Policies that Calico before 3.32 wrote get the names that people gave them.
//!
//! Those releases kept policies of the tier `default` under `default.NAME`. A policy is renamed by
//! making the new object before the old one is deleted: for a moment both are in force, which
//! permits and denies the same.

use datastore::{Client, Error as StoreError, Filter};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{info, warn};

/// What old names begin with.
const PREFIX: &str = "default.";

/// Renames what has an old name.
///
/// # Errors
///
/// What the datastore fails with; what was renamed stays so, and the rest is for the next time.
pub(crate) async fn migrate(client: &Client) -> Result<(), StoreError> {
    kind::<api::CalicoNetworkPolicySpec>(client, |spec| spec.tier.as_deref()).await?;
    kind::<api::GlobalNetworkPolicySpec>(client, |spec| spec.tier.as_deref()).await?;
    kind::<api::StagedNetworkPolicySpec>(client, |spec| spec.tier.as_deref()).await?;
    kind::<api::StagedGlobalNetworkPolicySpec>(client, |spec| spec.tier.as_deref()).await
}

async fn kind<S>(client: &Client, tier: impl Fn(&S) -> Option<&str>) -> Result<(), StoreError>
where
    S: api::Kind
        + Clone
        + Default
        + PartialEq
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    api::Object<S>: datastore::Object,
{
    let policies: Vec<api::Object<S>> = client.list(&Filter::default()).await?;
    for old in policies {
        let Some(renamed) = renamed(&old, tier(&old.spec)) else { continue };
        let made = match client.create(&renamed).await {
            Err(StoreError::AlreadyExists { .. }) => existing(client, &renamed).await?,
            made => Some(made?),
        };
        let Some(made) = made.filter(|made| made.spec == old.spec) else {
            warn!(
                kind = S::KIND,
                old = old.name(),
                new = renamed.name(),
                "not renamed: a different policy has the new name; delete one of them"
            );
            continue;
        };
        match client.delete(&old).await {
            Ok(()) => {
                info!(kind = S::KIND, old = old.name(), new = made.name(), "renamed a policy");
            }
            // Whoever changed it sees it renamed the next time.
            Err(error) if error.is_contention() => warn!(%error, "not renamed yet"),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn existing<S>(
    client: &Client,
    wanted: &api::Object<S>,
) -> Result<Option<api::Object<S>>, StoreError>
where
    api::Object<S>: datastore::Object,
    S: api::Kind,
{
    match wanted.metadata.namespace.as_deref() {
        Some(namespace) => client.get_in(namespace, wanted.name()).await,
        None => client.get(wanted.name()).await,
    }
}

/// Returns the policy under its new name; `None` if it has that already.
///
/// Only what Calico wrote is renamed, which its annotation tells: a manifest that somebody applies
/// to these objects directly would bring the old name back. Since 3.32 the annotation has the name.
fn renamed<S: api::Kind + Clone>(
    old: &api::Object<S>,
    tier: Option<&str>,
) -> Option<api::Object<S>> {
    let name = old.name().strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
    if tier.is_some_and(|tier| !tier.is_empty() && tier != "default") {
        return None;
    }
    let annotations = old.metadata.annotations.as_ref()?;
    let text = annotations.get(api::annotations::METADATA)?;
    let mut written: serde_json::Map<String, Value> = serde_json::from_str(text).ok()?;
    if written.get("name").and_then(Value::as_str).is_some_and(|told| !told.is_empty()) {
        return None;
    }
    written.insert("name".to_owned(), name.into());
    let mut annotations = annotations.clone();
    annotations.insert(api::annotations::METADATA.to_owned(), Value::Object(written).to_string());
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: old.metadata.namespace.clone(),
        labels: old.metadata.labels.clone(),
        annotations: Some(annotations),
        finalizers: old.metadata.finalizers.clone(),
        owner_references: old.metadata.owner_references.clone(),
        ..ObjectMeta::default()
    };
    Some(api::Object { metadata, spec: old.spec.clone(), unknown: old.unknown.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn policy(name: &str, annotation: Option<&str>) -> api::GlobalNetworkPolicy {
        let mut policy =
            api::GlobalNetworkPolicy::named(name, api::GlobalNetworkPolicySpec::default());
        let annotation =
            annotation.map(|text| (api::annotations::METADATA.to_owned(), text.to_owned()));
        policy.metadata.annotations = annotation.map(|one| BTreeMap::from([one]));
        policy.metadata.resource_version = Some("7".to_owned());
        policy
    }

    #[test]
    fn what_old_releases_wrote_is_renamed() {
        let old = policy("default.allow-dns", Some(r#"{"creationTimestamp":null}"#));
        let new = renamed(&old, Some("default")).unwrap();
        assert_eq!(new.name(), "allow-dns");
        assert_eq!(new.metadata.resource_version, None);
        let annotation = &new.metadata.annotations.unwrap()[api::annotations::METADATA];
        assert_eq!(annotation, r#"{"creationTimestamp":null,"name":"allow-dns"}"#);
    }

    #[test]
    fn the_names_of_new_releases_and_of_other_tiers_and_of_people_stay() {
        let named = policy("default.x", Some(r#"{"name":"default.x"}"#));
        let old = policy("default.x", Some("{}"));
        let plain = policy("x", Some("{}"));
        assert_eq!(renamed(&named, None), None);
        assert_eq!(renamed(&old, Some("security")), None);
        assert_eq!(renamed(&plain, None), None);
        assert_eq!(renamed(&policy("default.x", None), None), None);
        assert_eq!(renamed(&policy("default.", Some("{}")), None), None);
        assert!(renamed(&old, None).is_some());
    }
}
