//! What every cluster has from the start, and what kinds the stored definitions add.

use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use super::{Service, Target};
use crate::resource::{Registry, Resource};
use crate::status::{Reason, Status};
use crate::store::Scope;
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
            let objects = page.entries.iter().map(crate::store::Entry::object);
            Ok((page.revision, objects.collect::<Result<Vec<_>, _>>()?))
        });
        let (revision, definitions) = read.await?;
        let registry = Registry::new(definitions.iter().flat_map(Resource::of_definition));
        let mut current = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        // Two refreshes may overtake each other: the later state stays.
        if revision >= current.0 {
            *current = (revision, Arc::new(registry));
        }
        Ok(())
    }
}
