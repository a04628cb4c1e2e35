//! What the datastore knows of the pod, and what we write back.

use api::ClusterInformation;
use cni::environment::PodRef;
use cni::{Error, ErrorCode, NetworkConfig};
use datastore::{Client, Options};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use model::id::NodeName;
use model::vrf::VrfName;
use serde_json::json;

use crate::trace::Trace;

/// The connection to the datastore, opened once per call.
pub(crate) struct Store<'a> {
    client: Client,
    trace: &'a Trace,
}

/// What one round of reading finds out.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The cluster's own object.
    pub(crate) cluster: Option<ClusterInformation>,
    /// The pod.
    pub(crate) pod: Option<Pod>,
    /// Its namespace.
    pub(crate) namespace: Option<Namespace>,
    /// This node, if it was asked for.
    pub(crate) node: Option<Node>,
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
        let source = (&config.kubernetes).into();
        let options = Options { source, user_agent: user_agent(), ..Options::default() };
        Ok(Self { client: Client::connect(&options).map_err(|error| Error::from(&error))?, trace })
    }

    /// Returns the connection itself.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Notes how many round trips there were so far.
    pub(crate) fn count(&self) {
        self.trace.set_requests(self.client.requests());
    }

    /// Reads `ClusterInformation` and what is named, all at once.
    ///
    /// # Errors
    ///
    /// [`Error`] with the code of its cause.
    pub(crate) async fn read(
        &self,
        pod: Option<&PodRef>,
        namespace: Option<&str>,
        node: Option<&NodeName>,
    ) -> Result<Facts, Error> {
        let client = &self.client;
        let cluster = client.get::<ClusterInformation>("default");
        let pod_read = async {
            match pod {
                Some(pod) => client.get_in::<Pod>(&pod.name.namespace, &pod.name.name).await,
                None => Ok(None),
            }
        };
        let namespace = async {
            match namespace {
                Some(namespace) => client.get::<Namespace>(namespace).await,
                None => Ok(None),
            }
        };
        let node = async {
            match node {
                Some(node) => client.get::<Node>(node.as_str()).await,
                None => Ok(None),
            }
        };
        // Boxed, because requests are large and callers hold several.
        let read = Box::pin(async { tokio::try_join!(cluster, pod_read, namespace, node) }).await;
        self.count();
        let (cluster, pod, namespace, node) = read.map_err(|error| Error::from(&error))?;
        Ok(Facts { cluster, pod, namespace, node })
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
        let (namespace, name) = name_of(pod);
        let patched = self.client.patch_status::<Pod>(Some(namespace), name, patch).await;
        self.count();
        patched.map(drop).map_err(|error| Error::from(&error))
    }

    /// Reads the pod again, after somebody else has changed it.
    ///
    /// # Errors
    ///
    /// As for [`Store::read`].
    pub(crate) async fn read_again(&self, pod: &Pod) -> Result<Option<Pod>, Error> {
        let (namespace, name) = name_of(pod);
        let read = self.client.get_in::<Pod>(namespace, name).await;
        self.count();
        read.map_err(|error| Error::from(&error))
    }
}

impl Facts {
    /// Says whether containers may be attached.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotSetUp`] or [`ErrorCode::Locked`] with who must act.
    pub(crate) fn require_ready(&self) -> Result<(), Error> {
        let (code, message) = match &self.cluster {
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
    pub(crate) fn is_locked(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.spec.datastore_ready == Some(false))
    }
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
