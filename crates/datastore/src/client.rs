//! The client: reads, compare-and-swap writes and watches, by type.

use std::fmt::Debug;
use std::sync::Arc;

use futures::Stream;
use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::ObjectList;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{self, Options};
use crate::error::{Error, Target};
use crate::item::{self, Item, ObjectKey};
use crate::joint::JointReads;
use crate::request::{self, Built, Effect};
use crate::transport::{Shared, Transport};
use crate::watch::{self, WatchEvent};

/// Objects in one page of a list.
const PAGE_SIZE: u32 = 500;

/// A kind that the server keeps: any type of `k8s_openapi` or of our `api` crate.
pub trait Object:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + DeserializeOwned
    + Serialize
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Object for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Serialize
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Which objects of a kind to list or watch; all of them by default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// Only those of this namespace.
    pub namespace: Option<String>,
    /// Only those that this label selector matches, as in `app=web,tier!=db`.
    pub labels: Option<String>,
    /// Only those that this field selector matches, as in `spec.nodeName=node-1`.
    pub fields: Option<String>,
}

/// A connection to the API server; clones share it.
#[derive(Clone)]
pub struct Client {
    transport: Shared,
    /// Where equal reads meet, if they do.
    joint: Option<Arc<JointReads>>,
}

impl Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("server", &self.transport.url())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the configuration that `options` names; the first request opens the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the file, the problem and the remedy.
    pub fn connect(options: &Options) -> Result<Self, Error> {
        let server = config::load(options)?;
        Ok(Self { transport: Shared::new(Transport::new(server, options)), joint: None })
    }

    /// Has reads that this client and its clones want at the same time be sent once.
    ///
    /// An answer is never older than its question: whoever asks while the same read is under way
    /// gets the next one's. Must be used within a tokio runtime.
    #[must_use]
    pub fn with_joint_reads(self) -> Self {
        Self { joint: Some(Arc::default()), ..self }
    }

    /// Returns the server's URL.
    #[must_use]
    pub fn server(&self) -> String {
        self.transport.url()
    }

    /// Returns how many requests were sent so far, watches and repeated ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.transport.requests()
    }

    /// Returns how many HTTP/2 connections were opened so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.transport.connections()
    }

    /// Returns the cluster-wide object `name`, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// See [`Error`]; never [`Error::NotFound`] or [`Error::LostResponse`].
    pub async fn get<T: Object>(&self, name: &str) -> Result<Option<T>, Error> {
        self.get_key(&ObjectKey { namespace: None, name: name.to_owned() }, &GetParams::default())
            .await
    }

    /// Returns the cluster-wide object `name` as the server's memory has it.
    ///
    /// Cheaper than [`Client::get`]; the answer may miss the newest writes, so do not base a
    /// write on it.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get_recent<T: Object>(&self, name: &str) -> Result<Option<T>, Error> {
        let key = ObjectKey { namespace: None, name: name.to_owned() };
        self.get_key(&key, &GetParams::any()).await
    }

    /// Returns the object `name` of `namespace`, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get_in<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>, Error> {
        let key = ObjectKey { namespace: Some(namespace.to_owned()), name: name.to_owned() };
        self.get_key(&key, &GetParams::default()).await
    }

    /// Returns all objects that `filter` selects, reading them page by page.
    ///
    /// An object that cannot be read is left out and logged.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn list<T: Object>(&self, filter: &Filter) -> Result<Vec<T>, Error> {
        let params = ListParams { limit: Some(PAGE_SIZE), ..ListParams::default() };
        self.list_as(filter, params).await
    }

    /// Returns all objects that `filter` selects as the server's memory has them.
    ///
    /// The answer may miss the newest writes. In return the server does not ask etcd, and under
    /// load does not wait, up to 100 ms, for its memory to catch up with what others write.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn list_recent<T: Object>(&self, filter: &Filter) -> Result<Vec<T>, Error> {
        self.list_as(filter, ListParams::default().match_any()).await
    }

    async fn list_as<T: Object>(
        &self,
        filter: &Filter,
        params: ListParams,
    ) -> Result<Vec<T>, Error> {
        let target = self.target::<T>("list", filter.namespace.as_deref().unwrap_or_default());
        let path = path::<T>(&target, filter.namespace.as_deref())?;
        let mut params = ListParams {
            label_selector: filter.labels.clone(),
            field_selector: filter.fields.clone(),
            ..params
        };
        let mut objects = Vec::new();
        loop {
            let request = kube::core::Request::new(&path).list(&params);
            let page = match self.read::<ObjectList<Item<T>>>(&target, request).await {
                // The rest of the pages is gone from the server's memory: ask for all at once.
                Err(Error::Expired { .. }) if params.continue_token.is_some() => {
                    objects.clear();
                    params = ListParams { limit: None, continue_token: None, ..params };
                    continue;
                }
                page => page?,
            };
            objects.extend(page.items.into_iter().filter_map(|item| readable(&target, item)));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Reads all objects that `filter` selects, page by page, and hands each to `take`; never more
    /// than a page is held.
    ///
    /// # Errors
    ///
    /// As [`Client::get`], and [`Error::Expired`] if the server forgot the list before its end.
    pub async fn each<T: Object>(
        &self,
        filter: &Filter,
        take: &mut (dyn FnMut(T) + Send),
    ) -> Result<(), Error> {
        let target = self.target::<T>("list", filter.namespace.as_deref().unwrap_or_default());
        let path = path::<T>(&target, filter.namespace.as_deref())?;
        let mut params = ListParams {
            limit: Some(PAGE_SIZE),
            label_selector: filter.labels.clone(),
            field_selector: filter.fields.clone(),
            ..ListParams::default()
        };
        loop {
            let request = kube::core::Request::new(&path).list(&params);
            let page = self.read::<ObjectList<Item<T>>>(&target, request).await?;
            page.items.into_iter().filter_map(|item| readable(&target, item)).for_each(&mut *take);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(());
            }
        }
    }

    /// Creates `object` and returns what the server made of it.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] if the name is taken; [`Error::LostResponse`] if it is unknown
    /// whether the object was created.
    pub async fn create<T: Object>(&self, object: &T) -> Result<T, Error> {
        let key = ObjectKey::of(object.metadata());
        let target = self.target::<T>("create", &key.to_string());
        let path = path::<T>(&target, key.namespace.as_deref())?;
        let request =
            kube::core::Request::new(path).create(&PostParams::default(), body(&target, object)?);
        self.write(&target, request).await
    }

    /// Replaces the object if it is still the version that `object` was read as.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`] without a resource version, [`Error::Conflict`] if somebody else was
    /// first, [`Error::LostResponse`] if it is unknown whether the object was replaced.
    pub async fn update<T: Object>(&self, object: &T) -> Result<T, Error> {
        let key = ObjectKey::of(object.metadata());
        let target = self.target::<T>("update", &key.to_string());
        version(&target, object.metadata())?;
        let path = path::<T>(&target, key.namespace.as_deref())?;
        let request = kube::core::Request::new(path).replace(
            segment(&target, &key.name)?,
            &PostParams::default(),
            body(&target, object)?,
        );
        self.write(&target, request).await
    }

    /// Deletes the object if it is still the version that `object` was read as.
    ///
    /// # Errors
    ///
    /// As [`Client::update`]; [`Error::NotFound`] if it is gone already.
    pub async fn delete<T: Object>(&self, object: &T) -> Result<(), Error> {
        let metadata = object.metadata();
        let key = ObjectKey::of(metadata);
        let target = self.target::<T>("delete", &key.to_string());
        let preconditions = Preconditions {
            resource_version: Some(version(&target, metadata)?),
            uid: metadata.uid.clone(),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        let path = path::<T>(&target, key.namespace.as_deref())?;
        let request = kube::core::Request::new(path).delete(segment(&target, &key.name)?, &params);
        request::answer(&self.transport, &target, request, Effect::Write).await.map(|_| ())
    }

    /// Merges `patch` into the object through its status subresource.
    ///
    /// Built-in kinds get a strategic merge patch; custom ones, for which the server has none, a
    /// JSON merge patch (RFC 7386). Put `metadata.resourceVersion` or `metadata.uid` into the
    /// patch to make it conditional.
    ///
    /// # Errors
    ///
    /// As [`Client::update`]; [`Error::NotFound`] if there is no such object.
    pub async fn patch_status<T: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<T, Error> {
        let key = ObjectKey { namespace: namespace.map(str::to_owned), name: name.to_owned() };
        let target = self.target::<T>("patch the status of", &key.to_string());
        let patch = if T::GROUP.ends_with("projectcalico.org") {
            Patch::Merge(patch)
        } else {
            Patch::Strategic(patch)
        };
        let request = kube::core::Request::new(path::<T>(&target, namespace)?).patch_subresource(
            "status",
            segment(&target, name)?,
            &PatchParams::default(),
            &patch,
        );
        self.write(&target, request).await
    }

    /// Watches the objects that `filter` selects, for ever.
    ///
    /// It begins with a list ([`WatchEvent::Init`] to [`WatchEvent::InitDone`]) and lists again
    /// when the server no longer has the changes in between. It never ends and never gives up:
    /// [`WatchEvent::Failed`] says what is wrong, and after a wait with jitter it tries again.
    /// [`crate::Mirror`] turns the events into changes of a copy. Must be polled within a tokio
    /// runtime.
    pub fn watch<T: Object>(
        &self,
        filter: &Filter,
    ) -> impl Stream<Item = WatchEvent<T>> + Send + use<T> {
        watch::watch(self.clone(), filter.clone())
    }

    /// Returns the server's version.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn server_version(&self) -> Result<Info, Error> {
        let target = Target {
            verb: "get",
            kind: "version",
            object: String::new(),
            server: self.transport.url(),
        };
        let request = Request::get("/version")
            .body(Vec::new())
            .map_err(kube::core::request::Error::BuildRequest);
        self.read(&target, request).await
    }

    /// Returns who is asked for what, for an error.
    pub(crate) fn target<T: Object>(&self, verb: &'static str, object: &str) -> Target {
        Target { verb, kind: T::KIND, object: object.to_owned(), server: self.transport.url() }
    }

    pub(crate) fn transport(&self) -> Shared {
        self.transport.clone()
    }

    async fn get_key<T: Object>(
        &self,
        key: &ObjectKey,
        params: &GetParams,
    ) -> Result<Option<T>, Error> {
        let target = self.target::<T>("get", &key.to_string());
        let request = kube::core::Request::new(path::<T>(&target, key.namespace.as_deref())?)
            .get(segment(&target, &key.name)?, params);
        match self.read::<Item<T>>(&target, request).await {
            Ok(item) => match item.contents {
                Ok(object) => Ok(Some(object)),
                Err(problem) => Err(Error::Invalid { target: Box::new(target), problem }),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read<A: DeserializeOwned>(&self, target: &Target, request: Built) -> Result<A, Error> {
        let parse = |bytes: &[u8]| {
            serde_json::from_slice(bytes).map_err(|error| Error::Invalid {
                target: Box::new(target.clone()),
                problem: error.to_string(),
            })
        };
        match &self.joint {
            Some(joint) => parse(&joint.answer(&self.transport, target, request).await?),
            None => parse(&request::answer(&self.transport, target, request, Effect::Read).await?),
        }
    }

    async fn write<T: Object>(&self, target: &Target, request: Built) -> Result<T, Error> {
        let bytes = request::answer(&self.transport, target, request, Effect::Write).await?;
        // The write is done, so this must not look like one that the server refused.
        let unread = |problem: String| Error::LostResponse {
            target: Box::new(target.clone()),
            problem: format!("the answer cannot be read: {problem}"),
        };
        let value = serde_json::from_slice(&bytes).map_err(|error| unread(error.to_string()))?;
        item::read(value).map_err(unread)
    }
}

/// Returns the path of the kind `T` in `namespace`; a namespace cannot lead out of its segment.
fn path<T: Object>(target: &Target, namespace: Option<&str>) -> Result<String, Error> {
    segment(target, namespace.unwrap_or("default"))?;
    Ok(<Item<T> as kube::Resource>::url_path(&(), namespace))
}

/// Returns `name` if it can stand in a path as it is (RFC 3986 §3.3).
fn segment<'name>(target: &Target, name: &'name str) -> Result<&'name str, Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    if name.bytes().all(is_plain) && !matches!(name, "" | "." | "..") {
        return Ok(name);
    }
    Err(Error::Unwritable {
        target: Box::new(target.clone()),
        problem: format!("{name:?} is not a name; use letters, digits, dots and dashes"),
    })
}

fn body<T: Object>(target: &Target, object: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(object).map_err(|error| Error::Unwritable {
        target: Box::new(target.clone()),
        problem: format!("it has no JSON form ({error}); correct the object"),
    })
}

/// Returns the version that the object was read as, without which no write is safe.
fn version(target: &Target, metadata: &ObjectMeta) -> Result<String, Error> {
    metadata.resource_version.clone().filter(|version| !version.is_empty()).ok_or_else(|| {
        Error::Unwritable {
            target: Box::new(target.clone()),
            problem: "it has no resourceVersion; read it from the server first".to_owned(),
        }
    })
}

fn readable<T: Object>(target: &Target, item: Item<T>) -> Option<T> {
    let key = item.key();
    item.contents
        .map_err(|problem| tracing::warn!(kind = target.kind, %key, problem, "ignoring an object that is not valid"))
        .ok()
}
