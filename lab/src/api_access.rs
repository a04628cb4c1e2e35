//! The cluster's API as the lab uses it: as administrator, from code that is not asynchronous.

use std::fmt;
use std::path::Path;

use datastore::{Client, Filter, Object, Options};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::Error;

/// A client of the API server; usable from many threads at once.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("server", &self.client.server()).finish_non_exhaustive()
    }
}

impl Api {
    /// Makes a client of a kubeconfig.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kubeconfig cannot be read.
    pub fn connect(kubeconfig: &Path) -> Result<Self, Error> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Error::program("tokio", error))?;
        let connect = async { Client::connect(&Options::kubeconfig(kubeconfig)) };
        let client = runtime.block_on(connect)?;
        Ok(Self { runtime, client })
    }

    /// Creates an object from its JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it is no `T`, else what the server says.
    pub fn create<T: Object>(&self, object: Value) -> Result<T, Error> {
        let object: T = serde_json::from_value(object).map_err(Error::wrong)?;
        Ok(self.runtime.block_on(self.client.create(&object))?)
    }

    /// Returns a cluster-scoped object, if it is there.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn get<T: Object>(&self, name: &str) -> Result<Option<T>, Error> {
        Ok(self.runtime.block_on(self.client.get(name))?)
    }

    /// Returns an object in a namespace, if it is there.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn get_in<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>, Error> {
        Ok(self.runtime.block_on(self.client.get_in(namespace, name))?)
    }

    /// Returns all objects of a kind.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn list<T: Object>(&self) -> Result<Vec<T>, Error> {
        Ok(self.runtime.block_on(self.client.list(&Filter::default()))?)
    }

    /// Writes back an object that was read.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn update<T: Object>(&self, object: &T) -> Result<T, Error> {
        Ok(self.runtime.block_on(self.client.update(object))?)
    }

    /// Deletes an object that was read.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn delete<T: Object>(&self, object: &T) -> Result<(), Error> {
        Ok(self.runtime.block_on(self.client.delete(object))?)
    }

    /// Merges a patch into the status of an object.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn patch_status<T: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<T, Error> {
        Ok(self.runtime.block_on(self.client.patch_status(namespace, name, patch))?)
    }
}
