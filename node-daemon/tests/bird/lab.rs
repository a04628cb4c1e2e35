//! Two namespaces, BIRD in one and our speaker in the other.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgp::{PeerStatus, State};
use kernel::Netns;
use model::desired::{Advertisements, BgpSession, Origination};
use model::net::{Asn, Cidr};
use model::peer::Community;
use node_daemon::bgp::{Command, Config, Event, Snapshot, spawn};
use tokio::sync::{mpsc, watch};

/// The most that anything in these tests takes: BIRD's own pauses are 5 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often BIRD is asked again.
const POLL: Duration = Duration::from_millis(50);

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Program::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}; install it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{error}");
    text
}

/// Two namespaces with a veth pair between them; both end with the value.
pub(crate) struct Lab {
    ours: String,
    bird: String,
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let pid = std::process::id();
        let (ours, bird) = (format!("bgp-{name}-o-{pid}"), format!("bgp-{name}-b-{pid}"));
        let lab = Self { ours, bird, dir: tempfile::tempdir().unwrap() };
        Netns::create(&lab.ours).unwrap();
        Netns::create(&lab.bird).unwrap();
        let ip = |arguments: &str| {
            run("ip", &arguments.split_whitespace().collect::<Vec<_>>());
        };
        let (ours, bird) = (&lab.ours, &lab.bird);
        ip(&format!("link add eth0 netns {ours} type veth peer name eth0 netns {bird}"));
        for netns in [ours, bird] {
            ip(&format!("-n {netns} link set lo up"));
            ip(&format!("-n {netns} link set eth0 up"));
        }
        // One address for each peer: BIRD, FRR, GoBGP.
        for (netns, last) in [(ours, 1), (bird, 2), (bird, 3), (bird, 4)] {
            ip(&format!("-n {netns} addr add 192.0.2.{last}/24 dev eth0"));
            ip(&format!("-n {netns} addr add fd00::{last}/64 dev eth0 nodad"));
        }
        lab
    }

    /// The namespace that all peers are in.
    pub(crate) fn peers(&self) -> &str {
        &self.bird
    }

    /// Asks ip(8) in the namespace of the peers.
    pub(crate) fn ip_of_peers(&self, question: &str) -> String {
        let all = ["-n", &self.bird].into_iter().chain(question.split_whitespace());
        run("ip", &all.collect::<Vec<_>>())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.ours, &self.bird] {
            let _ = Netns::remove(name);
        }
    }
}

/// How a peer speaks with us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Its AS.
    pub(crate) asn: u32,
    /// What both sign with.
    pub(crate) password: Option<&'static str>,
    /// Whether our packets must not have passed a router.
    pub(crate) is_near: bool,
    /// Whether IPv4 routes go over the IPv6 session.
    pub(crate) carries_v4_over_v6: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { asn: 64_512, password: None, is_near: false, carries_v4_over_v6: false }
    }
}

/// A running BIRD.
pub(crate) struct Bird {
    process: Child,
    socket: PathBuf,
    withdrawals: Cell<Option<[usize; 2]>>,
}

impl Bird {
    pub(crate) fn start(lab: &Lab, arguments: &[&str], asn: u32) -> Self {
        Self::start_with(lab, arguments, &configuration(asn))
    }

    /// Starts a BIRD that watches the paths to us.
    pub(crate) fn start_with_bfd(lab: &Lab) -> Self {
        let text =
            configuration(64_512).replace("graceful restart;", "graceful restart; direct; bfd on;");
        let bfd = "protocol bfd { interface \"eth0\" { interval 100 ms; multiplier 3; }; }\n";
        Self::start_with(lab, &["-f"], &(text + bfd))
    }

    fn start_with(lab: &Lab, arguments: &[&str], text: &str) -> Self {
        let (config, socket) = (lab.path("bird.conf"), lab.path("bird.ctl"));
        std::fs::write(&config, text).unwrap();
        let _ = std::fs::remove_file(&socket);
        let process = Program::new("ip")
            .args(["netns", "exec", &lab.bird, "bird"])
            .args(arguments)
            .args(["-c", config.to_str().unwrap(), "-s", socket.to_str().unwrap()])
            .args(["-P", lab.path("bird.pid").to_str().unwrap()])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stderr(Stdio::null())
            .spawn()
            .expect("start BIRD: needs root, iproute2 and `apt-get install bird2`");
        let bird = Self { process, socket, withdrawals: Cell::new(None) };
        bird.wait_for_socket();
        bird
    }

    fn wait_for_socket(&self) {
        poll("BIRD answers (is bird2 installed?)", || {
            if self.socket.exists() { Ok(()) } else { Err(format!("no {}", self.socket.display())) }
        });
    }

    pub(crate) fn command(&self, command: &str) -> String {
        let socket = self.socket.to_str().unwrap();
        let mut arguments = vec!["-s", socket];
        arguments.extend(command.split_whitespace());
        run("birdcl", &arguments)
    }

    pub(crate) fn wait_for(&self, command: &str, texts: &[&str]) {
        let what = format!("BIRD's `{command}` says {texts:?}");
        poll(&what, || {
            let answer = self.command(command);
            if texts.iter().all(|text| answer.contains(text)) { Ok(()) } else { Err(answer) }
        });
    }

    pub(crate) fn wait_until_gone(&self, command: &str, text: &str) {
        poll(&format!("`{text}` is gone"), || {
            let answer = self.command(command);
            if answer.contains(text) { Err(answer) } else { Ok(()) }
        });
    }

    /// Counts the routes that BIRD has removed from its tables so far.
    fn count_withdrawals(&self) -> [usize; 2] {
        ["ours4", "ours6"].map(|protocol| {
            let answer = self.command(&format!("show protocols all {protocol}"));
            // "Import withdraws: received rejected filtered ignored accepted"
            let line = answer.lines().find(|line| line.contains("Import withdraws:")).unwrap();
            line.split_whitespace().last().unwrap().parse().unwrap()
        })
    }

    pub(crate) fn record_withdrawals(&self) {
        self.withdrawals.set(Some(self.count_withdrawals()));
    }

    pub(crate) fn assert_nothing_was_withdrawn(&self) {
        assert_eq!(Some(self.count_withdrawals()), self.withdrawals.get());
    }

    /// Stops BIRD's process, or lets it go on: its end of TCP stays meanwhile.
    pub(crate) fn signal(&self, name: &str) {
        run("kill", &["-s", name, &self.process.id().to_string()]);
    }

    /// Ends BIRD with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(asn: u32) -> String {
    let peer = |name: &str, family: &str, ours: &str, bird: &str| {
        format!(
            "protocol bgp {name} {{
                local {bird} as {asn};
                neighbor {ours} as 64512;
                strict bind yes; graceful restart; connect delay time 1; connect retry time 2;
                error wait time 1, 2;
                {family} {{ import all; export where source = RTS_STATIC; }};
            }}\n"
        )
    };
    format!(
        "router id 192.0.2.2;
         protocol device {{}} protocol direct {{ ipv4; ipv6; }}
         protocol static s4 {{ ipv4;
            route 10.244.2.0/26 blackhole; route 10.244.2.64/26 blackhole; }}
         protocol static s6 {{ ipv6; route fd00:244:2::/122 blackhole; }}
         {}{}",
        peer("ours4", "ipv4", "192.0.2.1", "192.0.2.2"),
        peer("ours6", "ipv6", "fd00::1", "fd00::2"),
    )
}

/// Asks until `attempt` is content; an `Err` says what there was instead.
pub(crate) fn poll(what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
    let until = Instant::now() + PATIENCE;
    while let Err(found) = attempt() {
        assert!(Instant::now() < until, "waited in vain until {what}; there is: {found}");
        std::thread::park_timeout(POLL);
    }
}

/// What our speaker has told so far.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) routes: BTreeMap<Cidr, BTreeSet<IpAddr>>,
    pub(crate) sessions: BTreeMap<IpAddr, (State, Option<String>)>,
    pub(crate) has_converged: bool,
    withdrawn: Vec<Cidr>,
}

type Shared = Arc<(Mutex<View>, Condvar)>;

/// Our speaker, running in its namespace.
pub(crate) struct Ours {
    commands: Option<mpsc::Sender<Command>>,
    status: watch::Receiver<Snapshot>,
    view: Shared,
    thread: Option<JoinHandle<()>>,
}

impl Ours {
    pub(crate) fn start(lab: &Lab, is_restarting: bool) -> Self {
        Self::start_with(lab, is_restarting, |_| {})
    }

    pub(crate) fn start_with(
        lab: &Lab,
        is_restarting: bool,
        change: impl Fn(&mut BgpSession),
    ) -> Self {
        let mut sessions = [session("192.0.2.1", "192.0.2.2"), session("fd00::1", "fd00::2")];
        sessions.iter_mut().for_each(change);
        Self::start_as(lab, is_restarting, sessions.into())
    }

    /// Starts a speaker with these sessions.
    pub(crate) fn start_as(lab: &Lab, is_restarting: bool, sessions: Vec<BgpSession>) -> Self {
        let (commands, receiver) = mpsc::channel(4);
        let (status_sender, status_receiver) = std::sync::mpsc::channel();
        let view = Shared::default();
        let thread = {
            let (name, view) = (lab.ours.clone(), Arc::clone(&view));
            std::thread::spawn(move || {
                let netns = Netns::named(&name).unwrap();
                netns.run(|| live(is_restarting, receiver, &status_sender, &view)).unwrap();
            })
        };
        let status = status_receiver.recv().unwrap();
        let ours = Self { commands: Some(commands), status, view, thread: Some(thread) };
        let has_nameless = sessions.iter().any(|session| session.interface.is_some());
        let listen = if has_nameless { "[::]:179" } else { "[fd00::1]:179" };
        let listen = ["192.0.2.1:179", listen].map(|addr| addr.parse().unwrap());
        ours.send(Command::Listen(listen.into()));
        ours.configure(sessions);
        ours.originate(&["10.244.1.0/26", "fd00:244:1::/122"]);
        ours
    }

    pub(crate) fn configure(&self, sessions: Vec<BgpSession>) {
        self.send(Command::Configure(sessions));
    }

    fn send(&self, command: Command) {
        self.commands.as_ref().unwrap().blocking_send(command).unwrap();
    }

    pub(crate) fn originate(&self, blocks: &[&str]) {
        let originated = blocks.iter().map(|text| (cidr(text), Origination::default())).collect();
        let exportable = ["10.244.0.0/16", "fd00:244::/32"].map(cidr).into();
        // FRR's block is marked when it is passed on.
        let mark = Community::Standard(64_512, 900);
        let marks = [(cidr("10.244.3.0/24"), [mark].into())].into();
        let advertisements =
            Advertisements { originated, exportable, marks, ..Advertisements::default() };
        self.send(Command::Advertise(advertisements));
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        self.status.borrow().status.peers.clone()
    }

    pub(crate) fn paths(&self) -> BTreeMap<IpAddr, bfd::State> {
        self.status.borrow().paths.clone()
    }

    pub(crate) fn routes(&self) -> BTreeMap<Cidr, BTreeSet<IpAddr>> {
        self.view.0.lock().unwrap().routes.clone()
    }

    pub(crate) fn wait_until(&self, what: &str, is_done: impl Fn(&View) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut view = self.view.0.lock().unwrap();
        while !is_done(&view) {
            assert!(Instant::now() < until, "waited in vain until {what}: {view:?}");
            view = self.view.1.wait_timeout(view, POLL).unwrap().0;
        }
    }

    /// Waits for exactly these routes, each given as `PREFIX... via GATEWAY`.
    pub(crate) fn wait_for_routes(&self, routes: &[&str]) {
        let mut expected = BTreeMap::new();
        for text in routes {
            let (prefixes, gateway) = text.split_once(" via ").unwrap();
            for prefix in prefixes.split(' ') {
                expected.insert(cidr(prefix), BTreeSet::from([gateway.parse().unwrap()]));
            }
        }
        self.wait_until(&format!("there are {routes:?}"), |view| view.routes == expected);
    }

    pub(crate) fn assert_nothing_was_withdrawn(&self) {
        assert_eq!(self.view.0.lock().unwrap().withdrawn, []);
    }

    /// Ends the speaker, which tells nobody.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn session(ours: &str, bird: &str) -> BgpSession {
    BgpSession {
        local_addr: Some(ours.parse().unwrap()),
        ..BgpSession::new(
            format!("Global_{}", bird.replace(['.', ':'], "_")),
            bird.parse().unwrap(),
            Asn(64_512),
            Asn(64_512),
        )
    }
}

/// Runs the speaker on this thread until its commands' sender is gone.
fn live(
    is_restarting: bool,
    commands: mpsc::Receiver<Command>,
    status: &std::sync::mpsc::Sender<watch::Receiver<Snapshot>>,
    view: &Shared,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config { identifier: "192.0.2.1".parse().unwrap(), is_restarting, seed: 1 };
        let mut handle = spawn(config, commands);
        status.send(handle.status.clone()).unwrap();
        while let Some(event) = handle.events.recv().await {
            record(&mut view.0.lock().unwrap(), event);
            view.1.notify_all();
        }
        handle.task.await.unwrap();
    });
}

fn record(view: &mut View, event: Event) {
    match event {
        Event::RoutesChanged(routes) => {
            for (cidr, gateways) in routes {
                if gateways.addrs.is_empty() {
                    view.routes.remove(&cidr);
                    view.withdrawn.push(cidr);
                } else {
                    view.routes.insert(cidr, gateways.addrs.clone());
                }
            }
        }
        Event::SessionChanged { peer_addr, state, last_error, .. } => {
            view.sessions.insert(peer_addr, (state, last_error));
        }
        Event::Converged => view.has_converged = true,
    }
}
