//! The program, put together: configuration, election, and a look now and then.

use std::path::PathBuf;
use std::time::Duration;

use api::KubeControllersConfiguration;
use datastore::{Client, Error as StoreError, Filter, Object, Options, Source, WatchEvent};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use model::cluster::ControllersConfiguration;
use model::time::Timestamp;
use telemetry::health::{Aggregator, Health, Reporter};
use telemetry::logging::{self, Level};
use telemetry::metrics::Registry;
use telemetry::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant};
use tracing::{error, info, warn};

use crate::election;
use crate::finalizers;
use crate::host_endpoints;
use crate::load_balancer;
use crate::look::{self, Rules, Watchlists};
use crate::metrics::Metrics;
use crate::policy_names;
use crate::settings::{self, Environment};

/// Where probes are answered.
const HEALTH_PORT: u16 = 9440;
/// The longest pause between two looks, and the shortest.
const LONGEST_PERIOD: Duration = Duration::from_secs(450);
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a look may take before the program counts as stuck, the pause included.
const SILENCE: Duration = Duration::from_secs(1800);

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Logging.
    #[error(transparent)]
    Logging(#[from] logging::Error),
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] StoreError),
    /// Objects of address management.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The configuration.
    #[error(transparent)]
    Invalid(#[from] api::Invalid),
    /// The health or metrics endpoint.
    #[error(transparent)]
    Server(#[from] telemetry::server::Error),
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Returns the environment, as far as it is text.
pub(crate) fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Returns where probes are answered.
pub(crate) fn health_port(environment: &Environment) -> u16 {
    let port = environment.get("HEALTH_PORT").and_then(|port| port.parse().ok());
    port.unwrap_or(HEALTH_PORT)
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// [`Error`] with the cause and, where it is known, the remedy.
pub(crate) async fn run() -> Result<(), Error> {
    let environment = environment();
    let level = environment.get("LOG_LEVEL").and_then(|level| level.parse::<Level>().ok());
    logging::init(&logging::Options {
        screen: level.unwrap_or(Level::Info),
        ..logging::Options::default()
    })?;
    let source = environment.get("KUBECONFIG").filter(|path| !path.is_empty());
    let source = source.map_or(Source::Infer, |path| Source::Kubeconfig(PathBuf::from(path)));
    let user_agent = concat!("calico-kube-controllers/", env!("CARGO_PKG_VERSION")).to_owned();
    let client = Client::connect(&Options { source, user_agent, ..Options::default() })?;
    let aggregator = Aggregator::new();
    let registry = Registry::new();
    let mut controllers = Controllers {
        metrics: Metrics::new(&registry),
        reporter: aggregator.register("addresses", Some(SILENCE)),
        balancer_reporter: aggregator.register("services", None),
        watchlists: Watchlists::default(),
        has_migrated: false,
        start: Instant::now(),
        client,
        environment,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let port = health_port(&controllers.environment);
    let has_health = controllers.environment.get("HEALTH_ENABLED").is_none_or(|on| on != "false");
    let _health = if has_health { Some(Server::health("", port, aggregator).await?) } else { None };
    tokio::select! {
        never = controllers.run(&registry) => never,
        _ = terminate.recv() => {
            info!("SIGTERM: ending");
            Ok(())
        }
        _ = interrupt.recv() => Ok(()),
    }
}

/// What the program holds.
struct Controllers {
    client: Client,
    environment: Environment,
    metrics: Metrics,
    reporter: Reporter,
    balancer_reporter: Reporter,
    watchlists: Watchlists,
    has_migrated: bool,
    start: Instant,
}

impl Controllers {
    async fn run(&mut self, registry: &Registry) -> Result<(), Error> {
        let mut config = self.configuration().await;
        let _metrics = match config.metrics_port {
            Some(port) => Some(Server::metrics("", port, registry.clone()).await?),
            None => None,
        };
        let (leader_sender, mut leader) = watch::channel(false);
        let me = identity(&self.environment);
        tokio::spawn(election::take_part(self.client.clone(), me, leader_sender));
        let mut news = news(&self.client);
        let (term, balancer_term) = watch::channel(None);
        let voices = (self.balancer_reporter.clone(), self.metrics.clone());
        tokio::spawn(load_balancer::run(self.client.clone(), balancer_term, voices));
        loop {
            let is_leader = *leader.borrow_and_update();
            let rules = config.load_balancer.filter(|_| is_leader);
            term.send_if_modified(|old| std::mem::replace(old, rules) != rules);
            let pause = if is_leader {
                Box::pin(self.work(&config)).await
            } else {
                // Suspicions of an earlier term were not watched in between.
                self.watchlists.clear();
                self.reporter.report(Health::Ready);
                LONGEST_PERIOD
            };
            tokio::select! {
                () = time::sleep(pause) => {}
                _ = leader.changed() => {}
                _ = news.recv() => while news.try_recv().is_ok() {},
            }
            config = self.configuration().await;
        }
    }

    /// Does everything once; returns when to do it again.
    async fn work(&mut self, config: &ControllersConfiguration) -> Duration {
        if let Err(error) = Box::pin(self.tend_objects(config)).await {
            return self.stopped(error.to_string(), LONGEST_PERIOD);
        }
        let Some(node) = &config.node else {
            self.reporter.report(Health::Ready);
            return LONGEST_PERIOD;
        };
        let rules =
            Rules { grace: node.leak_grace_period, limits: settings::limits(&self.environment) };
        let now = Timestamp::from_origin(self.start.elapsed());
        let looked = look::look(&self.client, &mut self.watchlists, &self.metrics, (rules, now));
        let looked = Box::pin(looked).await;
        let is_refused = matches!(looked, Err(look::Error::Refused(_)));
        self.metrics.tell_refusal(usize::from(is_refused));
        let wanted = node.host_endpoints.as_ref();
        let endpoints = host_endpoints::reconcile(&self.client, wanted).await;
        let problem = match (looked, endpoints) {
            (Err(error), _) => Some(error.to_string()),
            (_, Err(error)) => Some(error.to_string()),
            (Ok(()), Ok(())) => None,
        };
        let period = node.leak_grace_period.map_or(LONGEST_PERIOD, |grace| grace.mul_f64(0.5));
        let period = period.min(node.reconciler_period.unwrap_or(LONGEST_PERIOD));
        let period = period.clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
        let Some(problem) = problem else {
            self.reporter.report(Health::Ready);
            return period;
        };
        self.stopped(problem, period)
    }

    /// Looks after finalizers and, once, after the names of policies.
    async fn tend_objects(&mut self, config: &ControllersConfiguration) -> Result<(), Error> {
        Box::pin(finalizers::reconcile(&self.client, settings::guards(&self.environment))).await?;
        if config.migrates_policy_names && !self.has_migrated {
            Box::pin(policy_names::migrate(&self.client)).await?;
            self.has_migrated = true;
        }
        Ok(())
    }

    /// Says why a look was not finished; returns when to try again.
    fn stopped(&self, problem: String, period: Duration) -> Duration {
        error!(problem, "stopped");
        self.reporter.report(Health::NotReady(problem));
        period.min(AFTER_FAILURE)
    }

    /// Reads the configuration, makes it if there is none, and says what we run with; until
    /// that can be done, tries again.
    async fn configuration(&self) -> ControllersConfiguration {
        loop {
            match self.read_configuration().await {
                Ok(config) => return config,
                Err(error) => {
                    warn!(%error, "cannot use the KubeControllersConfiguration default");
                    self.reporter.report(Health::NotReady(error.to_string()));
                    time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    async fn read_configuration(&self) -> Result<ControllersConfiguration, Error> {
        let found = self.client.get::<KubeControllersConfiguration>("default").await?;
        let object = match found {
            Some(object) => object,
            None => self.client.create(&settings::default_configuration()).await?,
        };
        let effective = settings::effective(&object, &self.environment);
        let status = settings::status(&effective, &self.environment);
        if object.unknown.get("status") != status.get("status") {
            let patch =
                self.client.patch_status::<KubeControllersConfiguration>(None, "default", &status);
            patch.await?;
        }
        Ok(ControllersConfiguration::try_from(&effective)?)
    }
}

/// Returns the namespace of the Lease and our name in it.
fn identity(environment: &Environment) -> (String, String) {
    let variable = |name: &str| environment.get(name).filter(|text| !text.is_empty()).cloned();
    let namespace = variable("POD_NAMESPACE").unwrap_or_else(|| "kube-system".to_owned());
    let host = variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_default();
    (namespace, format!("{host}_{}", std::process::id()))
}

/// Returns a channel that speaks when it is worth to look before it is time: the configuration
/// changed, a node is gone, or a pool or a tier is new or deleted.
fn news(client: &Client) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    let mut generation = None;
    let is_changed = move |event: WatchEvent<KubeControllersConfiguration>| {
        let WatchEvent::Apply(object) = event else { return false };
        // The status, which we write ourselves, does not count.
        let new = object.metadata.generation;
        std::mem::replace(&mut generation, new) != new
    };
    tell(client, &sender, is_changed);
    tell(client, &sender, |event: WatchEvent<Node>| matches!(event, WatchEvent::Delete(_)));
    tell(client, &sender, |event: WatchEvent<api::IpPool>| matches!(event, WatchEvent::Apply(_)));
    tell(client, &sender, |event: WatchEvent<api::Tier>| matches!(event, WatchEvent::Apply(_)));
    receiver
}

/// Watches the objects of a kind, and tells of the events that are news.
fn tell<T: Object>(
    client: &Client,
    sender: &mpsc::Sender<()>,
    mut is_news: impl FnMut(WatchEvent<T>) -> bool + Send + 'static,
) {
    let (client, sender) = (client.clone(), sender.clone());
    tokio::spawn(async move {
        let mut events = Box::pin(client.watch::<T>(&Filter::default()));
        while let Some(event) = events.next().await {
            // A full channel has said it already.
            if is_news(event) && sender.try_send(()).is_err() && sender.is_closed() {
                return;
            }
        }
    });
}
