//! What the datastore knows of the pod, and what we write back.

use std::cell::OnceCell;

use cni::{Error, ErrorCode, NetworkConfig};
use cni_service::facts::{self, Subject};
use cni_service::{Facts, Service};
use datastore::{Client, Options};
use ipam_plugin::plugin;
use k8s_openapi::api::core::v1::Pod;
use model::vrf::VrfName;
use serde_json::json;

use crate::trace::Trace;

/// The datastore: calico-node does what is wanted of it, if it does, or else a connection of our
/// own that is opened once per call.
pub(crate) struct Store<'a> {
    options: Options,
    client: OnceCell<Client>,
    service: Option<Service>,
    trace: &'a Trace,
}

/// The annotations that say who holds a pod's addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Holding {
    /// `podIPs`: addresses with the length of their prefixes, commas between them; empty once given back.
    pub(crate) pod_ips: String,
    /// `containerID`.
    pub(crate) container_id: String,
}

/// Returns the VRF that a pod was last said to be in, if that is a VRF's name.
pub(crate) fn vrf_of(pod: &Pod) -> Option<VrfName> {
    api::kubernetes::vrf(pod).ok().flatten()
}

impl<'a> Store<'a> {
    /// Reads the configuration of the connection; the first request opens it.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kubeconfig`].
    pub(crate) fn connect(config: &NetworkConfig, trace: &'a Trace) -> Result<Self, Error> {
        let store = Self::new(config, None, trace);
        store.client()?;
        Ok(store)
    }

    /// As [`Store::connect`], but has calico-node do what it does.
    ///
    /// # Errors
    ///
    /// As [`Store::connect`], if there is no calico-node to ask.
    pub(crate) async fn served(config: &NetworkConfig, trace: &'a Trace) -> Result<Self, Error> {
        let Some(service) = plugin::service(config).await else {
            return Self::connect(config, trace);
        };
        Ok(Self::new(config, Some(service), trace))
    }

    fn new(config: &NetworkConfig, service: Option<Service>, trace: &'a Trace) -> Self {
        let source = (&config.kubernetes).into();
        let options = Options { source, user_agent: user_agent(), ..Options::default() };
        Self { options, client: OnceCell::new(), service, trace }
    }

    /// Returns who may do what is wanted of the datastore.
    pub(crate) const fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Returns our own connection.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kubeconfig`].
    pub(crate) fn client(&self) -> Result<&Client, Error> {
        self.connected().map_err(|error| Error::from(&error))
    }

    /// Returns our own connection.
    ///
    /// # Errors
    ///
    /// [`datastore::Error::Config`].
    pub(crate) fn connected(&self) -> Result<&Client, datastore::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::connect(&self.options)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Notes how many round trips there were so far.
    pub(crate) fn count(&self) {
        let asked = self.service.as_ref().map_or(0, Service::answers);
        self.trace.set_requests(self.client.get().map_or(0, Client::requests), asked);
    }

    /// Reads `ClusterInformation` and what is named, all at once.
    ///
    /// # Errors
    ///
    /// [`Error`] with the code of its cause.
    pub(crate) async fn read(&self, subject: Subject) -> Result<Facts, Error> {
        if let Some(service) = &self.service
            && let Some(facts) = service.read(subject.clone()).await
        {
            self.count();
            return Ok(facts);
        }
        let read = Box::pin(facts::read(self.client()?, &subject)).await;
        self.count();
        read.map_err(|error| Error::from(&error))
    }

    /// Writes who holds the addresses of `pod` into its annotations, and the VRF that it is in.
    ///
    /// # Errors
    ///
    /// As for [`Store::read`].
    pub(crate) async fn write(
        &self,
        pod: &Pod,
        holding: &Holding,
        vrf: Option<&VrfName>,
    ) -> Result<(), Error> {
        let first = holding.pod_ips.split(',').next().unwrap_or_default();
        let mut patch = json!({
            "metadata": {
                "uid": pod.metadata.uid,
                "annotations": {
                    (api::annotations::POD_IP): first,
                    (api::annotations::POD_IPS): holding.pod_ips,
                    (api::annotations::CONTAINER_ID): holding.container_id,
                },
            },
        });
        let name = api::annotations::VRF_NAME;
        let said = pod.metadata.annotations.as_ref().and_then(|all| all.get(name));
        if said.map(String::as_str) != vrf.map(VrfName::as_str)
            && let Some(annotations) = patch.pointer_mut("/metadata/annotations")
        {
            // Null takes an annotation away (RFC 7396) that somebody else, or an earlier ADD, wrote.
            annotations[name] = json!(vrf.map(VrfName::as_str));
        }
        self.patch(pod, &patch).await
    }

    /// Writes that nobody holds addresses of `pod` any more, if it is still the one
    /// that was read and the container is still its holder.
    ///
    /// # Errors
    ///
    /// As for [`Store::read`].
    pub(crate) async fn clear(&self, pod: &Pod) -> Result<(), Error> {
        let patch = json!({
            "metadata": {
                "uid": pod.metadata.uid,
                "resourceVersion": pod.metadata.resource_version,
                "annotations": {
                    (api::annotations::POD_IP): "",
                    (api::annotations::POD_IPS): "",
                },
            },
        });
        self.patch(pod, &patch).await
    }

    async fn patch(&self, pod: &Pod, patch: &serde_json::Value) -> Result<(), Error> {
        let name = name_of(pod);
        if let Some(service) = &self.service
            && service.annotate(name, patch).await.is_some()
        {
            self.count();
            return Ok(());
        }
        let patched = facts::annotate(self.client()?, name, patch).await;
        self.count();
        patched.map_err(|error| Error::from(&error))
    }

    /// Reads the pod again, after somebody else has changed it.
    ///
    /// # Errors
    ///
    /// As for [`Store::read`].
    pub(crate) async fn read_again(&self, pod: &Pod) -> Result<Option<Pod>, Error> {
        let (namespace, name) = name_of(pod);
        let pod = Some((namespace.to_owned(), name.to_owned()));
        Ok(self.read(Subject { pod, ..Subject::default() }).await?.pod)
    }
}

/// Says whether containers may be attached.
///
/// # Errors
///
/// [`ErrorCode::NotSetUp`] or [`ErrorCode::Locked`] with who must act.
pub(crate) fn require_ready(facts: &Facts) -> Result<(), Error> {
    let (code, message) = match &facts.cluster {
        None => (
            ErrorCode::NotSetUp,
            "Calico is currently not ready to process requests: there is no \
             ClusterInformation `default`; calico-node makes it when it starts, so check \
             that it runs",
        ),
        Some(cluster) if cluster.spec.datastore_ready != Some(true) => (
            ErrorCode::Locked,
            "Calico is currently not ready to process requests: datastoreReady of \
             ClusterInformation `default` is not true; whoever locked the datastore must \
             run `calicoctl datastore migrate unlock`",
        ),
        Some(_) => return Ok(()),
    };
    Err(Error::new(code, message))
}

/// Is the datastore locked, so that nothing may be written?
pub(crate) fn is_locked(facts: &Facts) -> bool {
    facts.cluster.as_ref().is_some_and(|cluster| cluster.spec.datastore_ready == Some(false))
}

/// Returns who holds the pod's addresses, if anybody was ever written down.
pub(crate) fn holding(pod: &Pod) -> Option<Holding> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let text = |name: &str| annotations.get(name).cloned();
    let pod_ips = text(api::annotations::POD_IPS).or_else(|| text(api::annotations::POD_IP));
    let container_id = text(api::annotations::CONTAINER_ID)?;
    Some(Holding { pod_ips: pod_ips.unwrap_or_default(), container_id })
}

fn name_of(pod: &Pod) -> (&str, &str) {
    (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    )
}

fn user_agent() -> String {
    concat!("calico-cni/", env!("CARGO_PKG_VERSION")).to_owned()
}
