//! ADD: attach a container to the network.
//!
//! ```text
//! wait until the configuration's readiness gates are open
//! read: ClusterInformation, Pod, Namespace [, Node]   ║ what calico-ipam depends on, if it is
//!                                                     ║ this program   ║ an earlier ADD's pair
//! delegate: addresses                                 ║ make the veth pair
//! plan
//! write: annotations of the pod                       ║ parameters, addresses, routes
//! wait until calico-node has the pod's policy in the kernel, if the configuration says so
//! ```
//!
//! Whatever fails, or a signal in the middle, leaves nothing behind.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::result::Interface;
use cni::{Error, ErrorCode, Success};
use cni_service::Facts;
use cni_service::facts::Subject;
use k8s_openapi::api::core::v1::Pod;
use ledger::Ahead;
use model::vrf::VrfName;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::call::Call;
use crate::cleanup::{Cleanup, Undo};
use crate::delegate::{self, Help};
use crate::gates;
use crate::plan::{self, Plan};
use crate::ready::{self, Waited};
use crate::site::Site;
use crate::store::{Holding, Store, holding, require_ready, vrf_of};
use crate::vrf::VrfDevice;
use crate::wire::{self, Ends, Found, Pair};
use crate::wishes::{Wishes, needs_pod_cidrs};

/// Attaches the container.
///
/// # Errors
///
/// [`Error`] with everything undone.
pub(crate) async fn run(call: &Call<'_>) -> Result<Success, Error> {
    let cleanup = Cleanup::default();
    let outcome = match Add::begin(call).await {
        Ok(add) => {
            let outcome = tokio::select! {
                biased;
                error = interrupted() => Err(error),
                outcome = add.attach(&cleanup) => outcome,
            };
            if outcome.is_err() {
                call.trace.end_phase("failed");
                add.undo(cleanup).await;
                call.trace.end_phase("undo");
                return outcome;
            }
            outcome
        }
        Err(error) => Err(error),
    };
    cleanup.commit();
    outcome
}

/// An ADD in the making.
struct Add<'a> {
    call: &'a Call<'a>,
    site: Site,
    store: Store<'a>,
    ends: Ends,
    /// What the delegate depends on, as soon as it is known and as long as nobody has used it.
    ahead: std::cell::Cell<Option<Ahead>>,
    /// What the delegate is told, as soon as it is known.
    delegate_config: std::cell::OnceCell<Value>,
    /// The pod, as soon as it is known.
    pod: std::cell::OnceCell<Pod>,
}

impl<'a> Add<'a> {
    async fn begin(call: &'a Call<'a>) -> Result<Self, Error> {
        let site = Site::read(call.config)?;
        let netns = call.netns.ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidEnvironment,
                "ADD needs CNI_NETNS: the runtime must set it",
            )
        })?;
        let ends = Ends::open(netns)?;
        let store = Store::served(call.config, call.trace).await?;
        call.trace.end_phase("prepare");
        let (ahead, delegate_config, pod) = Default::default();
        Ok(Self { call, site, store, ends, ahead, delegate_config, pod })
    }

    async fn attach(&self, cleanup: &Cleanup) -> Result<Success, Error> {
        let (call, if_name) = (self.call, &self.call.attachment.if_name);
        gates::wait(&call.config.readiness_gates).await?;
        let node = needs_pod_cidrs(call.config.raw().expose()).then_some(&self.site.node);
        let namespace = call.pod().map(|pod| pod.name.namespace.as_str());
        let read = self.store.read(Subject {
            pod: call.pod_name(),
            namespace: namespace.map(str::to_owned),
            node: node.map(ToString::to_string),
            gets_addrs: call.ipam_type().is_some_and(|name| delegate::is_own(name, call.path)),
        });
        let find = async { Ok(self.ends.find(&call.host_name, if_name).await) };
        // Whatever is wrong there, the reading above says it better: it must not wait for this.
        let (facts, found, ()) = tokio::try_join!(read, find, self.read_ahead())?;
        call.trace.end_phase("read");
        require_ready(&facts)?;
        let wishes = self.wishes(&facts)?;
        let config = wishes.delegate_config(
            call.config.raw().expose(),
            &self.site.node,
            &pod_cidrs(&facts),
        )?;
        let config = self.delegate_config.get_or_init(|| config);
        if let Some(pod) = facts.pod {
            let _ = self.pod.set(pod);
        }
        let vrf = match &wishes.vrf {
            Some(vrf) => Some(self.ends.vrf(vrf, namespace.unwrap_or_default()).await?),
            None => None,
        };
        let vrf = vrf.as_ref();
        match found? {
            Found::Nothing => {}
            Found::StaleHostSide => {
                wire::delete_on_host(&call.host_name).await?;
            }
            Found::Pair(pair) => {
                if let Some(success) = self.reuse(&pair, (wishes.vrf.as_ref(), vrf)).await? {
                    return Ok(success);
                }
                self.undo_unfinished(config).await?;
            }
        }
        let (addrs, pair) = tokio::join!(
            self.addresses(&wishes, config, cleanup),
            self.make_pair(&wishes, vrf, cleanup)
        );
        call.trace.end_phase("addresses_and_pair");
        let ((addrs, given), pair) = (addrs?, pair?);
        let plan = Plan::new(call.config, &call.host_name, if_name, addrs, vrf)?;
        let wire = async {
            // Lets the request go out before the kernel gets to work.
            tokio::task::yield_now().await;
            self.ends.apply(&plan, &pair).await?;
            self.ends.limit(&pair, call.config.runtime.bandwidth).await
        };
        let (written, wired) = tokio::join!(self.write(&plan, wishes.vrf.as_ref(), cleanup), wire);
        call.trace.end_phase("wire_and_write");
        wired.and(written)?;
        self.wait_for_policy(&plan).await;
        Ok(self.success(&plan, &pair, given))
    }

    /// Reads what the delegate depends on, if this program is the delegate too, and calico-node
    /// does not do its work.
    async fn read_ahead(&self) -> Result<(), Error> {
        if self.store.service().is_some() {
            return Ok(());
        }
        let (call, client) = (self.call.delegate("ADD"), self.store.client()?);
        let name = self.call.ipam_type();
        let read = delegate::read_ahead(name, &call, self.call.config, client);
        self.ahead.set(Box::pin(read).await);
        Ok(())
    }

    /// Waits for the pod's policy as long as the configuration says; as in Calico, what is not
    /// there by then holds nobody up.
    async fn wait_for_policy(&self, plan: &Plan) {
        let config = self.call.config;
        let (Some(timeout), Some(pod)) = (config.policy_setup_timeout, self.call.pod()) else {
            return;
        };
        let waited = ready::wait(&config.endpoint_status_dir, &pod.name, &plan.addrs, timeout);
        match waited.await {
            Ok(Waited::Ready) => {}
            Ok(Waited::TimedOut) => tracing::warn!(
                pod = %pod.name,
                "policy is not in the kernel after {} s; the pod starts, and its packets are \
                 dropped until calico-node knows it: see that calico-node runs on this node",
                timeout.as_secs()
            ),
            Err(error) => tracing::warn!(%error, "not waiting for policy"),
        }
        self.call.trace.end_phase("policy");
    }

    fn wishes(&self, facts: &Facts) -> Result<Wishes, Error> {
        if let (Some(pod), None) = (self.call.pod(), &facts.pod) {
            let message = format!(
                "pod {} is not in the datastore (yet): the runtime should try again",
                pod.name
            );
            return Err(Error::new(ErrorCode::UnknownPod, message));
        }
        let pod = facts.pod.as_ref().and_then(|pod| pod.metadata.annotations.clone());
        let namespace = facts.namespace.as_ref();
        let namespace = namespace.and_then(|found| found.metadata.annotations.clone());
        let wishes = Wishes::read(
            &pod.unwrap_or_default(),
            &namespace.unwrap_or_default(),
            self.call.config.feature_control,
        )?;
        for ignored in &wishes.ignored {
            tracing::warn!("{ignored}");
        }
        Ok(wishes)
    }

    /// Returns the result of an earlier ADD of this container, if it still holds in full.
    async fn reuse(
        &self,
        pair: &Pair,
        (name, vrf): (Option<&VrfName>, Option<&VrfDevice>),
    ) -> Result<Option<Success>, Error> {
        let Some(holding) = self.pod.get().and_then(holding) else { return Ok(None) };
        if holding.container_id != self.call.attachment.container_id.as_str()
            || self.pod.get().and_then(vrf_of).as_ref() != name
        {
            return Ok(None);
        }
        let addr = |text: &str| text.split('/').next().and_then(|addr| addr.parse().ok());
        let addrs: Option<Vec<IpAddr>> = holding.pod_ips.split(',').map(addr).collect();
        let Some(addrs) = addrs else { return Ok(None) };
        let (host_name, if_name) = (&self.call.host_name, &self.call.attachment.if_name);
        let plan = Plan::new(self.call.config, host_name, if_name, addrs, vrf)?;
        let mut differences = self.ends.differences(&plan, pair).await?;
        differences.extend(self.ends.compare_vrf(name, host_name).await?);
        if !differences.is_empty() {
            tracing::info!(?differences, "an earlier ADD of this container did not finish");
            return Ok(None);
        }
        self.wait_for_policy(&plan).await;
        Ok(Some(self.success(&plan, pair, Success::default())))
    }

    /// Undoes an earlier ADD of this container that did not finish.
    async fn undo_unfinished(&self, config: &Value) -> Result<(), Error> {
        self.ends.delete_in_container(&self.call.attachment.if_name).await?;
        match self.call.ipam_type() {
            Some(name) => self.tell_to_release(name, config).await,
            None => Ok(()),
        }
    }

    async fn tell_to_release(&self, name: &str, config: &Value) -> Result<(), Error> {
        delegate::tell(name, &self.call.delegate("DEL"), config, Some(&self.store)).await
    }

    /// Gets addresses from the delegate, or from the pod's annotation without it.
    async fn addresses(
        &self,
        wishes: &Wishes,
        config: &Value,
        cleanup: &Cleanup,
    ) -> Result<(Vec<IpAddr>, Success), Error> {
        if !wishes.addrs_without_ipam.is_empty() {
            return Ok((wishes.addrs_without_ipam.clone(), Success::default()));
        }
        let name = self.call.ipam_type().ok_or_else(|| {
            let message = "network configuration has no `ipam.type`: name the plugin that gives out addresses";
            Error::new(ErrorCode::InvalidConfig, message)
        })?;
        cleanup.begin(Undo::Addresses);
        let call = self.call.delegate("ADD");
        let help = Help { store: Some(&self.store), ahead: self.ahead.take() };
        let given = delegate::add(name, &call, config, self.call.config.version, help).await?;
        self.store.count();
        Ok((plan::addrs_of(&given), given))
    }

    async fn make_pair(
        &self,
        wishes: &Wishes,
        vrf: Option<&VrfDevice>,
        cleanup: &Cleanup,
    ) -> Result<Pair, Error> {
        cleanup.begin(Undo::Pair);
        let (host_name, if_name) = (&self.call.host_name, &self.call.attachment.if_name);
        // What the pod says of itself goes before what the runtime says of all.
        let mac = wishes.mac.or(self.call.config.runtime.mac);
        let mtu = VrfDevice::mtu_of(vrf, self.site.mtu);
        self.ends.make_pair(host_name, if_name, mac, (mtu, vrf)).await
    }

    async fn write(
        &self,
        plan: &Plan,
        vrf: Option<&VrfName>,
        cleanup: &Cleanup,
    ) -> Result<(), Error> {
        let Some(pod) = self.pod.get() else { return Ok(()) };
        cleanup.begin(Undo::Annotations);
        let addrs: Vec<_> = plan.interface_addrs().iter().map(ToString::to_string).collect();
        let container_id = self.call.attachment.container_id.to_string();
        let holding = Holding { pod_ips: addrs.join(","), container_id };
        self.store.write(pod, &holding, vrf).await
    }

    fn success(&self, plan: &Plan, pair: &Pair, given: Success) -> Success {
        let mac = |mac: Option<model::net::MacAddr>| mac.map(|mac| mac.to_string());
        let sandbox = self.call.netns.map(|netns| netns.path().to_string_lossy().into_owned());
        let host = Interface {
            name: plan.host_name.to_string(),
            mac: mac(pair.host.mac).unwrap_or_default(),
            mtu: Some(pair.host.mtu.0),
            ..Interface::default()
        };
        let container = Interface {
            name: plan.if_name.to_string(),
            mac: mac(pair.container.mac).unwrap_or_default(),
            mtu: Some(pair.container.mtu.0),
            sandbox: sandbox.unwrap_or_default(),
            ..Interface::default()
        };
        Success { interfaces: vec![host, container], ips: plan.ips(1), ..given }
    }

    /// Undoes what was begun; what cannot be undone is logged, since the error
    /// that led here is the one to report.
    async fn undo(&self, cleanup: Cleanup) {
        for step in cleanup.into_steps() {
            let undone = match step {
                Undo::Annotations => self.undo_annotations().await,
                Undo::Pair => self.undo_pair().await,
                Undo::Addresses => self.undo_addresses().await,
            };
            if let Err(error) = undone {
                tracing::error!(?step, %error, "cannot undo; a DEL of this container will");
            }
        }
    }

    /// Deletes the container's side, which was not there before: the host's side may
    /// be another container's, if its name was taken.
    async fn undo_pair(&self) -> Result<(), Error> {
        self.ends.delete_in_container(&self.call.attachment.if_name).await?;
        wire::delete_limit(&self.call.host_name).await
    }

    async fn undo_annotations(&self) -> Result<(), Error> {
        let Some(pod) = self.pod.get() else { return Ok(()) };
        let Some(pod) = self.store.read_again(pod).await? else { return Ok(()) };
        let container_id = self.call.attachment.container_id.as_str();
        if holding(&pod).is_some_and(|holding| holding.container_id == container_id) {
            self.store.clear(&pod).await?;
        }
        Ok(())
    }

    async fn undo_addresses(&self) -> Result<(), Error> {
        match (self.call.ipam_type(), self.delegate_config.get()) {
            (Some(name), Some(config)) => self.tell_to_release(name, config).await,
            _ => Ok(()),
        }
    }
}

fn pod_cidrs(facts: &Facts) -> Vec<String> {
    let spec = facts.node.as_ref().and_then(|node| node.spec.as_ref());
    let Some(spec) = spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let all: BTreeSet<_> = all.cloned().collect();
    all.into_iter().collect()
}

/// Waits for a signal that asks us to end.
async fn interrupted() -> Error {
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).ok());
    let [terminate, interrupt, hangup] = &mut signals;
    tokio::select! {
        () = received(terminate.as_mut()) => {}
        () = received(interrupt.as_mut()) => {}
        () = received(hangup.as_mut()) => {}
    }
    Error::new(
        ErrorCode::Interrupted,
        "a signal ended the call: everything was undone, so repeat it",
    )
}

async fn received(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
