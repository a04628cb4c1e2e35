//! The cluster's API as the lab uses it: as administrator, from any code.

mod manifests;

use std::fmt;
use std::path::Path;
use std::sync::mpsc;

use datastore::{Client, Filter, Object, Options};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::Error;
use crate::rest::{Request, Rest};

/// A client of the API server; usable from many threads at once, asynchronous ones too.
pub struct Api {
    background: Background,
    client: Client,
    rest: Rest,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("server", &self.client.server()).finish_non_exhaustive()
    }
}

impl Api {
    /// Makes a client of a kubeconfig; the first request opens the connection.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kubeconfig cannot be read.
    pub fn connect(kubeconfig: &Path) -> Result<Self, Error> {
        let background = Background::start()?;
        let (options, rest) = (Options::kubeconfig(kubeconfig), Rest::connect(kubeconfig)?);
        let client = background.wait(async move { Client::connect(&options) })??;
        Ok(Self { background, client, rest })
    }

    /// Creates an object from its JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it is no `T`, else what the server says.
    pub fn create<T: Object>(&self, object: Value) -> Result<T, Error> {
        let object: T = serde_json::from_value(object).map_err(Error::wrong)?;
        self.ask(async move |client| client.create(&object).await)
    }

    /// Returns a cluster-scoped object, if it is there.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn get<T: Object>(&self, name: &str) -> Result<Option<T>, Error> {
        let name = name.to_owned();
        self.ask(async move |client| client.get(&name).await)
    }

    /// Returns an object in a namespace, if it is there.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn get_in<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>, Error> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.ask(async move |client| client.get_in(&namespace, &name).await)
    }

    /// Returns all objects of a kind.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn list<T: Object>(&self) -> Result<Vec<T>, Error> {
        self.ask(async move |client| client.list(&Filter::default()).await)
    }

    /// Writes back an object that was read.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn update<T: Object>(&self, object: &T) -> Result<T, Error> {
        let object = object.clone();
        self.ask(async move |client| client.update(&object).await)
    }

    /// Deletes an object that was read.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn delete<T: Object>(&self, object: &T) -> Result<(), Error> {
        let object = object.clone();
        self.ask(async move |client| client.delete(&object).await)
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
        let (namespace, name) = (namespace.map(str::to_owned), name.to_owned());
        let patch = patch.clone();
        self.ask(async move |client| client.patch_status(namespace.as_deref(), &name, &patch).await)
    }

    /// Makes a token for a service account.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn create_token(&self, namespace: &str, account: &str) -> Result<String, Error> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let made = self.send(Request::json(http::Method::POST, path, &request))?.success()?;
        let token = made.pointer("/status/token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| Error::wrong(format!("no token for {account}")))
    }

    /// Sends a request that has no type of its own.
    ///
    /// # Errors
    ///
    /// As [`Rest::send`].
    pub fn send(&self, request: Request) -> Result<crate::rest::Answer, Error> {
        let rest = self.rest.clone();
        self.background.wait(async move { rest.send(request).await })?
    }

    fn ask<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, datastore::Error>> + Send + 'static,
    {
        Ok(self.background.wait(ask(self.client.clone()))??)
    }
}

/// A thread that does what is asynchronous, for callers that are not, or must not be blocked by
/// a runtime inside theirs. It ends with this.
struct Background {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl Background {
    fn start() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::program("tokio", error))?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || drop(runtime.block_on(ended)));
        Ok(Self { handle, _alive: alive })
    }

    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, outcome) = mpsc::channel();
        self.handle.spawn(async move { drop(done.send(work.await)) });
        outcome.recv().map_err(|error| Error::program("tokio", error))
    }
}
