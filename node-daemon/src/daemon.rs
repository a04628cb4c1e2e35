//! The daemon, put together: start-up, then routes, BGP, health and metrics until the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::kernel::netlink::{RouteFilter, Target};
use calc::Problem;
use cni_service::listen::Credentials;
use config::value::{Backend, LogSeverity, Switch};
use config::{FelixConfig, Sources, StartupConfig};
use datastore::{Client, Options, Source};
use model::desired::RouteTarget;
use model::net::Family;
use model::time::Timestamp;
use telemetry::health::Aggregator;
use telemetry::logging;
use telemetry::metrics::Registry;
use telemetry::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cni::install::environment;
use crate::felix::engine::Engine;
use crate::felix::event::{Demand, Event};
use crate::felix::policy;
use crate::felix::run::{Felix, Status, open_kernel};
use crate::felix::settings::{self, Settings, workload_prefixes};
use crate::felix::table::{self, Ownership};
use crate::felix::tunnel_addrs::TunnelAddrs;
use crate::felix::watch::{Listeners, Scope, all};
use crate::felix::wireguard::{self, run::Rotation};
use crate::felix::{checksums, demand, vrf};
use crate::handover::{self, InForce};
use crate::startup::{self, Availability, StartedNode};
use crate::why::Question;
use crate::{
    admin, as_found, bgp, bird_socket, cni, health, limits, metrics, news, node_status, sync_file,
};

/// Felix's own settings file.
const FELIX_FILE: &str = "/etc/calico/felix.cfg";
/// Where the CNI plugin reads the MTU of pods.
const MTU_FILE: &str = "/var/lib/calico/mtu";
/// Events of the datastore that may wait.
const STORE_QUEUE: usize = 1024;
/// What stands for "never" where a setting is zero.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why the daemon cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Settings or start-up.
    #[error(transparent)]
    Startup(#[from] startup::StartupError),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] logging::Error),
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// The kernel.
    #[error("no netlink socket: {0}; calico-node needs CAP_NET_ADMIN")]
    Kernel(#[from] ::kernel::netlink::Error),
    /// Threads.
    #[error("cannot start the thread that programs policy: {0}")]
    Thread(std::io::Error),
    /// The health or metrics endpoint.
    #[error(transparent)]
    Server(#[from] telemetry::server::Error),
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// A part that should run for ever has ended; its log says why.
    #[error("{0} has ended, so the daemon must be restarted")]
    Ended(&'static str),
}

/// Runs until SIGTERM or SIGINT; routes and peers are left as they are.
///
/// # Errors
///
/// [`DaemonError`] with the cause and, where it is known, the remedy.
pub async fn run() -> Result<(), DaemonError> {
    let sources = sources();
    let startup = startup::configure(&sources)?;
    start_logging(&sources, &startup)?;
    let client = connect(&startup)?;
    // Before the start, which may wait: pods of before must be let go meanwhile.
    let (mut parts, kept) = Parts::keeping_cni(&client, &startup);
    let (netlink, monitor) = open_kernel()?;
    let started = Box::pin(start(&client, &netlink, &startup, &sources)).await?;
    enable_forwarding(&started.felix);
    let _servers = parts.serve(&started.felix).await?;
    let kept = kept.filter(|_| startup.node.serves_cni);
    cni::serve::spawn(&started.name, kept, &parts.registry);
    let ownership = ownership(&started.felix);
    let speaker = match startup.node.backend {
        Backend::Bird => Some(start_bgp(&netlink, &started, &ownership).await?),
        Backend::Vxlan | Backend::None => None,
    };
    let (store_sender, store) = mpsc::channel(STORE_QUEUE);
    let (demand_sender, demand) = watch::channel(Demand::default());
    let (status_sender, status) = watch::channel(Status::default());
    let (policy_status_sender, policy_status) = watch::channel(policy::run::Status::default());
    let (problem_sender, problems) = watch::channel(Vec::new());
    let doors = (&client, &netlink);
    parts.follow(doors, &started, (&status, &policy_status), speaker.as_ref());
    let (wireguard, rotations) = parts.encrypt(&client, &started);
    let vrfs = parts.separate(&ownership);
    parts.tell(&client, &started, (&status, &problems, rotations), speaker.as_ref());
    let (bgp_commands, bgp_events, bgp_task) = taken_apart(speaker);
    let (policy_sender, policy_events) = mpsc::channel(STORE_QUEUE);
    let (reports, told) = watch::channel(None);
    parts.report(&client, &started, told);
    let policy_task = start_policy(&started, policy_events, (policy_status_sender, reports))?;
    let (tunnel_needs, needs) = watch::channel(None);
    parts.tasks.spawn(TunnelAddrs::new(&client, &started).run(needs));
    parts.ask_about_checksums(&netlink, &store_sender);
    let felix = Felix {
        engine: engine(&started, bgp_commands.is_some()),
        netlink,
        monitor,
        store,
        bgp_commands,
        bgp_events,
        demand: demand_sender,
        tunnel_needs,
        wireguard,
        vrfs,
        mtu_file: PathBuf::from(MTU_FILE),
        problems: problem_sender,
        status: status_sender,
        ownership: ownership.clone(),
    };
    let scope = Scope { node: started.name.clone(), interface_prefix: ownership.interface_prefix };
    let settings = Settings::new(sources, &started.name, started.felix.clone());
    let listeners = Listeners { routes: store_sender, policy: policy_sender };
    let node = started.name.clone();
    parts.tasks.spawn(demand::run(client.clone(), node, listeners.clone(), demand));
    let _watches = all(&client, &scope, settings, &listeners);
    tracing::info!(node = %started.name, "started");
    until_the_end(felix, policy_task, bgp_task).await
}

/// Makes the node ready to serve.
async fn start(
    client: &Client,
    netlink: &::kernel::Netlink,
    startup: &StartupConfig,
    sources: &Sources,
) -> Result<StartedNode, DaemonError> {
    let mtu_file = PathBuf::from(MTU_FILE);
    let inputs = startup::Inputs { client, netlink, startup, sources, mtu_file };
    let started = Box::pin(startup::run(&inputs)).await?;
    for problem in &started.problems {
        tracing::warn!(%problem, "setting not followed");
    }
    Ok(started)
}

fn ownership(felix: &FelixConfig) -> Ownership {
    Ownership {
        interface_prefix: interface_prefix(felix),
        device_route_protocol: settings::device_protocol(felix),
        mtu_pattern: felix.interfaces.mtu_pattern.clone(),
    }
}

/// Makes the engine, with the settings of the start; without BGP nothing is to be waited for.
fn engine(started: &StartedNode, has_bgp: bool) -> Engine {
    let interval = jittered(started.felix.routes.refresh_interval);
    let mut engine = Engine::new(started.name.clone(), interval);
    let settings = Event::Settings(Box::new(settings::routes(&started.felix)));
    let converged = (!has_bgp).then_some(Event::BgpConverged);
    for event in [settings].into_iter().chain(converged) {
        engine.handle(event, Timestamp::ZERO);
    }
    engine
}

/// Waits for a signal, or for a part that ends although it should not.
async fn until_the_end(
    felix: Felix,
    policy: tokio::task::JoinHandle<()>,
    bgp: Option<tokio::task::JoinHandle<()>>,
) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let bgp_end = async {
        match bgp {
            Some(task) => drop(task.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = felix.run() => Err(DaemonError::Ended("the loop that programs routes")),
        _ = policy => Err(DaemonError::Ended("the loop that programs policy")),
        () = bgp_end => Err(DaemonError::Ended("the BGP speaker")),
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: ending; routes stay, peers keep ours");
            Ok(())
        }
        _ = interrupt.recv() => Ok(()),
    }
}

/// Tells Kubernetes that this node's network is about to stop, as the manifest's preStop hook does.
///
/// # Errors
///
/// [`DaemonError`] if Kubernetes cannot be told.
pub async fn announce_shutdown() -> Result<(), DaemonError> {
    let startup = startup::configure(&sources())?;
    let name = startup::node_name(&startup.node)?;
    let name = startup.node.kubernetes_node.clone().unwrap_or(name);
    let client = connect(&startup)?;
    startup::announce(&client, name.as_str(), Availability::Down).await?;
    Ok(())
}

/// Explains what becomes of a connection.
///
/// # Errors
///
/// What is wrong with the settings, the datastore or the question.
pub(crate) async fn explain(question: &Question) -> Result<String, String> {
    let connect = || -> Result<_, DaemonError> {
        let startup = startup::configure(&sources())?;
        Ok((startup::node_name(&startup.node)?, connect(&startup)?))
    };
    let (node, client) = connect().map_err(|error| error.to_string())?;
    crate::why::answer(&client, node, question).await
}

/// Returns where the health endpoint is, as far as the environment says.
#[must_use]
pub fn health_endpoint() -> (String, u16) {
    let (felix, _) = FelixConfig::resolve(&sources());
    let port = u16::try_from(felix.health.port.get()).unwrap_or(u16::MAX);
    (felix.health.host, port)
}

fn sources() -> Sources {
    let path = std::env::var("FELIX_CONFIGFILE").unwrap_or_else(|_| FELIX_FILE.to_owned());
    let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources::from_environment(variables).with_file(&text)
}

/// Starts logging with the level of the environment: the datastore is not there yet.
fn start_logging(sources: &Sources, startup: &StartupConfig) -> Result<(), DaemonError> {
    let (felix, _) = FelixConfig::resolve(sources);
    let default = FelixConfig::default().logging.severity_screen;
    let of_felix = felix.logging.severity_screen;
    let severity = if of_felix == default { startup.node.log_severity } else { of_felix };
    let screen = match severity {
        LogSeverity::None => logging::Level::None,
        LogSeverity::Trace => logging::Level::Trace,
        LogSeverity::Debug => logging::Level::Debug,
        LogSeverity::Info => logging::Level::Info,
        LogSeverity::Warning => logging::Level::Warning,
        LogSeverity::Error => logging::Level::Error,
        LogSeverity::Fatal => logging::Level::Fatal,
    };
    logging::init(&logging::Options { screen, ..logging::Options::default() })?;
    Ok(())
}

fn connect(startup: &StartupConfig) -> Result<Client, DaemonError> {
    let file = startup.datastore.kubeconfig.as_ref().map(PathBuf::from);
    let source = file.map_or(Source::Infer, Source::Kubeconfig);
    let user_agent = concat!("calico-node/", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(Client::connect(&Options { source, user_agent, ..Options::default() })?)
}

/// Has the kernel forward packets between pods and other nodes, unless settings forbid it.
///
/// Where that is not allowed it may have been done by somebody else, so it is not fatal.
fn enable_forwarding(felix: &FelixConfig) {
    if felix.interfaces.ip_forwarding != Switch::Enabled {
        return;
    }
    let v6 = felix.interfaces.ipv6_support.then_some("net/ipv6/conf/all/forwarding");
    for name in std::iter::once("net/ipv4/ip_forward").chain(v6) {
        if let Err(error) = as_found::set(Path::new(as_found::FILE), name, "1") {
            tracing::error!(%error, "this node does not forward packets of pods; set {name} to 1");
        }
    }
}

/// Returns how the interfaces start that the CNI plugin makes.
fn interface_prefix(felix: &FelixConfig) -> String {
    workload_prefixes(felix).swap_remove(0)
}

/// Returns how often the kernel is read: some nodes a little earlier than others.
fn jittered(interval: Duration) -> Duration {
    if interval.is_zero() {
        return NEVER;
    }
    let tenths = getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX));
    interval.mul_f64(tenths.mul_add(-0.1, 1.0))
}

fn start_policy(
    started: &StartedNode,
    events: mpsc::Receiver<policy::event::Event>,
    (status, reports): (watch::Sender<policy::run::Status>, watch::Sender<policy::report::Told>),
) -> Result<tokio::task::JoinHandle<()>, DaemonError> {
    let felix = &started.felix;
    let start = policy::run::Start {
        node: started.name.clone(),
        settings: policy::settings::of(felix, workload_prefixes(felix)),
        refresh_interval: jittered(felix.dataplane.nftables_refresh),
        status_prefix: felix.reporting.endpoint_status_path.clone(),
        events,
        status,
        reports,
    };
    policy::run::spawn(start).map_err(DaemonError::Thread)
}

/// A speaker, and the way to command it.
type RunningSpeaker = (mpsc::Sender<bgp::Command>, bgp::Handle);

/// The way to command a speaker, what it tells, and its end.
type SpeakerParts = (
    Option<mpsc::Sender<bgp::Command>>,
    Option<mpsc::Receiver<bgp::Event>>,
    Option<tokio::task::JoinHandle<()>>,
);

fn taken_apart(speaker: Option<RunningSpeaker>) -> SpeakerParts {
    match speaker {
        Some((commands, handle)) => (Some(commands), Some(handle.events), Some(handle.task)),
        None => (None, None, None),
    }
}

async fn start_bgp(
    netlink: &::kernel::Netlink,
    started: &StartedNode,
    ownership: &Ownership,
) -> Result<RunningSpeaker, DaemonError> {
    let left = table::list(netlink, ownership).await?;
    let is_restarting = left
        .routes
        .values()
        .any(|route| matches!(route.target, RouteTarget::Via(_) | RouteTarget::Tunnel(..)));
    // What Calico's BIRD has left forwards as ours would: to its peers it is the same restart.
    let birds = RouteFilter::of_protocols([takeover::routes::BIRD]);
    let birds = netlink.routes(&birds).await?;
    let is_of_bird = birds.iter().any(|route| matches!(route.target, Target::Via(_)));
    let (commands, receiver) = mpsc::channel(16);
    let config = bgp::Config {
        identifier: started.router_id,
        is_restarting: is_restarting || is_of_bird,
        seed: getrandom::u64().unwrap_or_default(),
    };
    Ok((commands, bgp::spawn(config, receiver)))
}

/// The tasks that only tell how things are.
#[derive(Debug, Default)]
struct Parts {
    aggregator: Aggregator,
    registry: Registry,
    tasks: JoinSet<()>,
}

impl Parts {
    /// Starts what keeps the CNI plugin's credentials fresh, if that is ours to do.
    ///
    /// Returns where they are and what tells of new ones.
    fn keeping_cni(client: &Client, startup: &StartupConfig) -> (Self, Option<Credentials>) {
        let mut this = Self::default();
        let keeper = startup.node.manage_cni.then(|| cni::keep::of_daemon(client, &environment()));
        let kept = keeper.flatten().map(|keeper| {
            let kept = keeper.kept();
            this.tasks.spawn(keeper.run());
            kept
        });
        (this, kept)
    }

    /// Starts the endpoints that are enabled.
    async fn serve(&self, felix: &FelixConfig) -> Result<Vec<Server>, DaemonError> {
        let mut servers = Vec::new();
        let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        if felix.health.is_enabled {
            let (host, port) = (&felix.health.host, port(felix.health.port.get()));
            servers.push(Server::health(host, port, self.aggregator.clone()).await?);
        }
        if felix.metrics.is_enabled {
            let (host, port) = (&felix.metrics.host, port(felix.metrics.port.get()));
            servers.push(Server::metrics(host, port, self.registry.clone()).await?);
        }
        Ok(servers)
    }

    /// Starts what keeps WireGuard as it should be.
    ///
    /// Returns where to say what should be, and where to ask for new keys.
    fn encrypt(
        &mut self,
        client: &Client,
        started: &StartedNode,
    ) -> (watch::Sender<Option<wireguard::Wanted>>, mpsc::Sender<Rotation>) {
        let (sender, wanted) = watch::channel(None);
        let (rotation_sender, rotations) = mpsc::channel(1);
        let node = started.kubernetes_name.to_string();
        let wants_numbers = started.felix.metrics.wireguard;
        let registry = wants_numbers.then(|| self.registry.clone());
        let client = client.clone();
        let start = wireguard::run::Start { wanted, rotations, client, node, registry };
        self.tasks.spawn(async move {
            if let Err(error) = wireguard::run::run(start).await {
                tracing::error!(%error, "WireGuard stays as it is until calico-node is restarted");
            }
        });
        (sender, rotation_sender)
    }

    /// Starts what keeps VRFs as they should be; returns where to say what should be.
    fn separate(&mut self, ownership: &Ownership) -> watch::Sender<Option<vrf::Wanted>> {
        let (sender, wanted) = watch::channel(None);
        let start =
            vrf::run::Start { wanted, interface_prefix: ownership.interface_prefix.clone() };
        self.tasks.spawn(async move {
            if let Err(error) = vrf::run::run(start).await {
                tracing::error!(%error, "VRFs stay as they are until calico-node is restarted");
            }
        });
        sender
    }

    /// Starts what finds out whether packets arrive through tunnels as they were sent.
    fn ask_about_checksums(&mut self, netlink: &::kernel::Netlink, events: &mpsc::Sender<Event>) {
        let (netlink, events, registry) = (netlink.clone(), events.clone(), self.registry.clone());
        let start = checksums::Start { netlink, events, registry };
        self.tasks.spawn(async move {
            if let Err(error) = checksums::run(start).await {
                tracing::error!(%error, "far ends of tunnels are no longer asked about checksums");
            }
        });
    }

    /// Starts what writes which policies are in force here.
    fn report(
        &mut self,
        client: &Client,
        started: &StartedNode,
        reports: watch::Receiver<policy::report::Told>,
    ) {
        let (client, owner) = (client.clone(), started.kubernetes_name.clone());
        self.tasks.spawn(policy::report::Writer { client, owner, reports }.run());
    }

    /// Starts what follows the status of routes and BGP, and what needs no more than the doors.
    fn follow(
        &mut self,
        (client, netlink): (&Client, &::kernel::Netlink),
        started: &StartedNode,
        (status, policy): (&watch::Receiver<Status>, &watch::Receiver<policy::run::Status>),
        speaker: Option<&RunningSpeaker>,
    ) {
        let (aggregator, registry) = (&self.aggregator, &self.registry);
        self.tasks.spawn(health::of_felix(aggregator.clone(), status.clone()));
        self.tasks.spawn(metrics::of_felix(registry.clone(), status.clone()));
        self.tasks.spawn(health::of_policy(aggregator.clone(), policy.clone()));
        let prefix = started.felix.reporting.endpoint_status_path.clone();
        self.tasks.spawn(sync_file::run(prefix, status.clone(), policy.clone()));
        self.tasks.spawn(metrics::of_policy(registry.clone(), policy.clone()));
        let name = started.kubernetes_name.clone();
        self.tasks.spawn(health::announce_up(client.clone(), name, status.clone()));
        let in_force = InForce {
            routes: status.clone(),
            policy: policy.clone(),
            bgp: speaker.map(|(_, handle)| handle.status.clone()),
        };
        self.tasks.spawn(handover::run(client.clone(), netlink.clone(), in_force));
        let (node, prefix) = (started.name.clone(), interface_prefix(&started.felix));
        self.tasks.spawn(limits::run(client.clone(), netlink.clone(), node, prefix));
        if let Some((_, handle)) = speaker {
            let status = &handle.status;
            self.tasks.spawn(health::of_bgp(aggregator.clone(), status.clone()));
            self.tasks.spawn(metrics::of_bgp(registry.clone(), status.clone()));
            self.tasks.spawn(bird_socket::serve(handle.view.clone()));
        }
    }

    /// Starts what answers people who ask, and tells them unasked what is wrong.
    fn tell(
        &mut self,
        client: &Client,
        started: &StartedNode,
        (status, problems, rotations): (
            &watch::Receiver<Status>,
            &watch::Receiver<Vec<Problem>>,
            mpsc::Sender<Rotation>,
        ),
        speaker: Option<&RunningSpeaker>,
    ) {
        let view = speaker.map(|(_, handle)| &handle.view);
        let has = |family: &Family| started.node.addr(*family).is_some();
        let families = Family::ALL.into_iter().filter(has).collect();
        let node = started.name.clone();
        self.tasks.spawn(node_status::answer(client.clone(), node, view.cloned(), families));
        self.tasks.spawn(metrics::of_problems(self.registry.clone(), problems.clone()));
        let writer = news::Writer {
            client: client.clone(),
            node: started.name.clone(),
            kubernetes_node: started.kubernetes_name.clone(),
            bgp: view.map(|view| view.status.clone()),
            problems: problems.clone(),
            felix: status.clone(),
        };
        self.tasks.spawn(writer.run());
        let (view, problems) = (view.cloned(), problems.clone());
        self.tasks.spawn(admin::serve(admin::Answers { view, problems, rotations }));
    }
}
