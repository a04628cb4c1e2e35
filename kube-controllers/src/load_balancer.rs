//! Addresses for Services of type `LoadBalancer`.
//!
//! ```text
//!  watch Services, pools ─► plan::decide ─► release, assign (ledger::Driver) ─► Service's status
//! ```
//!
//! State is in the datastore alone: an address is held by a handle that is made of the Service's
//! name and uid, in blocks of the virtual owner `load-balancer`. After a crash between assignment
//! and status the next look finds the address held and publishes it.

mod books;
mod notes;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use api::{Invalid, kubernetes, names};
use datastore::{Change, Client, Error as StoreError, Filter, Mirror, ObjectKey};
use futures::StreamExt as _;
use ipam::Failure;
use k8s_openapi::api::core::v1::Service;
use model::cluster::LoadBalancerController;
use model::id::{HandleId, NamespacedName};
use model::service::BalancerRequest;
use serde_json::json;
use telemetry::health::{Health, Reporter};
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use self::books::Books;
use self::notes::Notes;
use self::plan::{Decision, Holding, Missing};
use crate::metrics::Metrics;

/// How long events are collected before they are looked at.
const COLLECT: Duration = Duration::from_millis(50);
/// When everything is looked at again, whatever happened.
const PERIOD: Duration = Duration::from_secs(300);
/// When it is tried again for Services that got nothing.
const AGAIN: Duration = Duration::from_secs(20);
/// When it is tried again after the datastore failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Why a look was not finished.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The datastore.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A list that cannot be true: every cluster has Services.
    #[error("the API server lists no Service at all, so no address of one is released")]
    NoServices,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

/// The Services of type `LoadBalancer`, or why they cannot be read.
type Services = BTreeMap<ObjectKey, Result<BalancerRequest, Invalid>>;

/// Gives addresses to Services for as long as `term` says that we should; for ever.
pub(crate) async fn run(
    client: Client,
    mut term: watch::Receiver<Option<LoadBalancerController>>,
    (reporter, metrics): (Reporter, Metrics),
) {
    while term.has_changed().is_ok() {
        let rules = *term.borrow_and_update();
        reporter.report(Health::Ready);
        let Some(rules) = rules else {
            // An error is the end, which the loop sees.
            drop(term.changed().await);
            continue;
        };
        let balancer = Balancer {
            client: client.clone(),
            rules,
            services: Services::new(),
            notes: Notes::default(),
            has_freed: false,
        };
        Box::pin(balancer.serve(&mut term, (&reporter, &metrics))).await;
    }
}

/// One term of office.
struct Balancer {
    client: Client,
    rules: LoadBalancerController,
    services: Services,
    notes: Notes,
    /// Was an address given back by the look under way?
    has_freed: bool,
}

impl Balancer {
    /// Serves until the term ends; a look is not left in the middle.
    async fn serve(
        mut self,
        term: &mut watch::Receiver<Option<LoadBalancerController>>,
        (reporter, metrics): (&Reporter, &Metrics),
    ) {
        let all = Filter::default();
        let mut services = Box::pin(self.client.watch::<Service>(&all));
        let mut pools = Box::pin(self.client.watch::<api::IpPool>(&all));
        let mut mirror = Mirror::default();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                _ = term.changed() => return,
                Some(event) = services.next() => {
                    let changes = mirror.apply(event);
                    for change in changes {
                        if self.note(change) {
                            due = due.min(after(COLLECT));
                        }
                    }
                }
                Some(_) = pools.next() => due = due.min(after(COLLECT)),
                () = time::sleep_until(due), if mirror.is_synced() => {
                    due = after(self.work(reporter, metrics).await);
                }
            }
        }
    }

    /// Takes note of a change; returns whether it matters.
    fn note(&mut self, change: Change<Service>) -> bool {
        match change {
            Change::Upsert(key, object) => {
                let is_balanced = object.spec.as_ref().and_then(|spec| spec.type_.as_deref())
                    == Some("LoadBalancer");
                if !is_balanced {
                    return self.services.remove(&key).is_some();
                }
                let request = kubernetes::balancer_request(&object);
                let is_same = self.services.get(&key) == Some(&request);
                self.services.insert(key, request);
                !is_same
            }
            Change::Delete(key) => self.services.remove(&key).is_some(),
            // Whatever it holds stays its own: a last look before a release asks the server.
            Change::Unreadable(..) => false,
            Change::Synced => true,
        }
    }

    /// Looks at everything once; returns when to do it again.
    async fn work(&mut self, reporter: &Reporter, metrics: &Metrics) -> Duration {
        match Box::pin(self.look()).await {
            Ok(waiting) => {
                metrics.tell_waiting_services(waiting);
                reporter.report(Health::Ready);
                match (waiting, std::mem::take(&mut self.has_freed)) {
                    (0, _) => PERIOD,
                    // What was given back may be what somebody waits for.
                    (_, true) => COLLECT,
                    (_, false) => AGAIN,
                }
            }
            Err(error) => {
                warn!(%error, "Services may wait for addresses");
                reporter.report(Health::NotReady(error.to_string()));
                AFTER_FAILURE
            }
        }
    }

    /// Gives and takes what is due; returns how many Services did not get what they want.
    async fn look(&mut self) -> Result<usize, Error> {
        let books = Box::pin(Books::read(&self.client)).await?;
        let mut held = Box::pin(books.held()).await?;
        let mut waiting = 0_usize;
        let services: Vec<_> = self.services.values().cloned().collect();
        let mut lost = Vec::new();
        for service in services {
            let request = match service {
                Ok(request) => request,
                Err(error) => {
                    // Its name is known, but not what it wants: it keeps what it has.
                    waiting = waiting.saturating_add(1);
                    self.notes.complain_of(&error);
                    continue;
                }
            };
            let holdings = held.remove(&handle_of(&request).object_name()).unwrap_or_default();
            if !plan::is_ours(&request, self.rules.assigns_to_all, &books.pools) {
                lost.extend(holdings);
                continue;
            }
            let decision = plan::decide(&request, &holdings, &books.pools);
            if !Box::pin(self.serve_one(&books, &request, decision)).await? {
                waiting = waiting.saturating_add(1);
            }
        }
        lost.extend(held.into_values().flatten());
        if !lost.is_empty() {
            Box::pin(self.release_lost(&books, lost)).await?;
            self.has_freed = true;
        }
        self.notes.forget_others(self.services.values().flatten());
        Ok(waiting)
    }

    /// Does what was decided for one Service; returns whether it has all that it wants.
    async fn serve_one(
        &mut self,
        books: &Books,
        request: &BalancerRequest,
        decision: Decision,
    ) -> Result<bool, Error> {
        for holding in &decision.given_back {
            books.release(holding).await?;
            self.has_freed = true;
            info!(service = %request.id, addr = %holding.addr, "released: it wants another");
        }
        let mut addrs = decision.kept;
        let mut problem = None;
        for missing in &decision.missing {
            match self.assign(books, request, missing).await? {
                Ok(addr) => addrs.push(addr),
                Err(failure) => problem = problem.or(Some(failure)),
            }
        }
        let addrs = plan::published(request, &addrs);
        if addrs != request.published && !(addrs.is_empty() && decision.given_back.is_empty()) {
            self.publish(request, &addrs).await?;
        }
        let Some(problem) = problem else {
            self.notes.content(request);
            return Ok(true);
        };
        self.notes.complain(&self.client, request, &problem.to_string()).await;
        Ok(false)
    }

    async fn assign(
        &self,
        books: &Books,
        request: &BalancerRequest,
        missing: &Missing,
    ) -> Result<Result<IpAddr, Failure>, Error> {
        let handle = handle_of(request);
        if let Some(former) = missing.former.filter(|_| missing.addr.is_none()) {
            let again = Missing { addr: Some(former), ..missing.clone() };
            if let Ok(addr) = books.assign(request, &handle, &again).await? {
                info!(service = %request.id, %addr, "assigned: its status names it");
                return Ok(Ok(addr));
            }
        }
        let assigned = books.assign(request, &handle, missing).await?;
        if let Ok(addr) = &assigned {
            info!(service = %request.id, %addr, "assigned");
        }
        Ok(assigned)
    }

    /// Writes the addresses into the Service's status, if it is still the same Service.
    async fn publish(&self, request: &BalancerRequest, addrs: &[IpAddr]) -> Result<(), Error> {
        let ingress: Vec<_> = addrs.iter().map(|addr| json!({"ip": addr})).collect();
        let patch = json!({
            "metadata": {"uid": request.uid},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let NamespacedName { namespace, name } = &request.id;
        let patched = self.client.patch_status::<Service>(Some(namespace), name, &patch).await;
        match patched {
            Ok(_) => info!(service = %request.id, ?addrs, "published"),
            // Its events come, or came: the next look decides.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) if error.is_contention() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Releases what no Service of ours holds, after a last look at all Services.
    async fn release_lost(&self, books: &Books, lost: Vec<Holding>) -> Result<(), Error> {
        let services: Vec<Service> = self.client.list(&Filter::default()).await?;
        if services.is_empty() {
            return Err(Error::NoServices);
        }
        let mut alive = BTreeSet::new();
        let mut former = BTreeMap::new();
        for object in &services {
            let handle = handle_of_object(object).object_name();
            match kubernetes::balancer_request(object) {
                Ok(request) => {
                    if plan::is_ours(&request, self.rules.assigns_to_all, &books.pools) {
                        alive.insert(handle);
                    } else if request.is_balanced {
                        former.insert(handle, request);
                    }
                }
                Err(_) => drop(alive.insert(handle)),
            }
        }
        let handles: BTreeMap<String, HandleId> =
            lost.into_iter().map(|lost| (lost.handle.object_name(), lost.handle)).collect();
        for (name, handle) in handles.into_iter().filter(|(name, _)| !alive.contains(name)) {
            let released = books.release_all(&handle).await?;
            info!(addrs = ?released, handle = name, "released: no Service of ours has it");
            if let Some(request) = former.get(&name) {
                let left = request.published.iter().filter(|addr| !released.contains(addr));
                self.publish(request, &left.copied().collect::<Vec<_>>()).await?;
            }
        }
        Ok(())
    }
}

fn handle_of(request: &BalancerRequest) -> HandleId {
    let NamespacedName { namespace, name } = &request.id;
    HandleId(names::load_balancer_handle(name, namespace, &request.uid))
}

fn handle_of_object(object: &Service) -> HandleId {
    let metadata = &object.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (name, namespace) = (text(&metadata.name), text(&metadata.namespace));
    HandleId(names::load_balancer_handle(&name, &namespace, &text(&metadata.uid)))
}

/// Returns the time after a pause.
fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}
