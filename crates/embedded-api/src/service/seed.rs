//! What every cluster has from the start, and what kinds the stored definitions add.

use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use super::{Known, Service, Target};
use crate::resource::{Registry, Resource};
use crate::status::{Reason, Status};
use crate::store::{Entry, Scope};
use crate::verb::WriteOptions;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Service {
    /// Creates what is not there yet.
    pub(super) async fn seed(&self) -> Result<(), Status> {
        for name in NAMESPACES {
            let body = json!({"metadata": {"name": name}});
            self.ensure(("namespaces", ""), body).await?;
        }
        let kubernetes = json!({
            "metadata": {
                "name": "kubernetes",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": "10.96.0.1",
                "ports": [{"name": "https", "port": 443, "targetPort": 6443}],
            },
        });
        self.ensure(("services", "default"), kubernetes).await
    }

    async fn ensure(&self, (plural, namespace): (&str, &str), body: Value) -> Result<(), Status> {
        let registry = self.registry();
        let resource = registry.get("", "v1", plural);
        let resource = Arc::clone(resource.ok_or_else(|| Status::internal("a kind is missing"))?);
        let (namespace, name) = (namespace.to_owned(), String::new());
        let target = Target { resource, namespace, name, subresource: None };
        match self.create(target, WriteOptions::default(), body).await {
            Err(status) if status.reason != Reason::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    /// Learns the kinds from the stored definitions.
    ///
    /// # Errors
    ///
    /// 500 or 503 if the store fails.
    pub async fn refresh(&self) -> Result<(), Status> {
        let scope =
            Scope::All { resource: "customresourcedefinitions.apiextensions.k8s.io".into() };
        let read = self.store.read(move |snapshot| {
            let page = snapshot.page(&scope, None, None, None)?;
            Ok((page.revision, page.entries))
        });
        let (revision, definitions) = read.await?;
        let registry = Registry::new(self.learn(&definitions)?);
        let mut current = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        // Two refreshes may overtake each other: the later state stays.
        if revision >= current.0 {
            *current = (revision, Arc::new(registry));
        }
        Ok(())
    }

    /// Returns the kinds of definitions; one that is as it was is not parsed again, so that
    /// the cost of a new definition does not grow with the number of those that are there.
    fn learn(&self, definitions: &[Entry]) -> Result<Vec<Resource>, Status> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut learned = Known::new();
        for entry in definitions {
            let name = Arc::clone(&entry.key.name);
            let kinds = match known.remove(&name) {
                Some((revision, kinds)) if revision == entry.revision => kinds,
                _ => Resource::of_definition(&entry.object()?),
            };
            learned.insert(name, (entry.revision, kinds));
        }
        let kinds = learned.values().flat_map(|(_, kinds)| kinds.iter().cloned()).collect();
        *known = learned;
        Ok(kinds)
    }
}
