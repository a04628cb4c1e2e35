//! Writers: processes that ask for addresses until they are killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use datastore::{Client, Options};
use futures::{StreamExt as _, stream};
use ipam::Selectors;
use ipam_plugin::add::{AddRequest, add};
use ipam_plugin::delete::delete;
use ipam_plugin::holder::Holder;
use ledger::{Desk, Driver, HostLock, Wanted};
use model::net::Family;
use serde_json::{Value, json};

use crate::NODES;
use crate::ledger::{Event, Ledger, What};

const NETWORK: &str = "race";
/// How many containers one process asks for at a time where it has a desk.
const AT_DESK: usize = 8;
/// What a life is told, in the environment of its process.
const LIFE: &str = "CALICO_TEST_LIFE";

/// Numbers that look random; who is killed where is up to the machine anyway.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Returns the holder that is this container.
pub(crate) fn holder(container: &str) -> Holder {
    Holder { network: NETWORK.to_owned(), container_id: container.to_owned(), pod: None }
}

fn container(writer: usize, number: usize) -> String {
    format!("w{writer}c{number}")
}

/// What one process does: containers from one number on.
pub(crate) struct Life {
    kubeconfig: PathBuf,
    writer: usize,
    from: usize,
    to: usize,
}

impl Life {
    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var(LIFE).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse().unwrap();
        Some(Self {
            kubeconfig: words[0].into(),
            writer: number(1),
            from: number(2),
            to: number(3),
        })
    }

    fn start(&self) -> Child {
        let Self { kubeconfig, writer, from, to } = self;
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_life", "--nocapture"])
            .env(LIFE, format!("{} {writer} {from} {to}", kubeconfig.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Asks for an address for each container, and releases some again.
    pub(crate) fn live(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(&Options::kubeconfig(&self.kubeconfig)).unwrap();
            let desk = Desk::default();
            let (client, at_once, desk) = match self.writer % 3 {
                0 => (client.with_joint_reads(), AT_DESK, Some(&desk)),
                _ => (client, 1, None),
            };
            let numbers = stream::iter(self.from..self.to);
            numbers.for_each_concurrent(at_once, |number| self.one(&client, number, desk)).await;
        });
    }

    async fn one(&self, client: &Client, number: usize, desk: Option<&Desk>) {
        let container = container(self.writer, number);
        // Half of those without a desk do without a lock, too: it must not matter.
        let driver = || match (desk, self.writer % 2) {
            (Some(desk), _) => Driver::at_desk(client.clone(), desk.clone()),
            (None, 0) => Driver::new(client.clone(), HostLock::none()),
            (None, _) => {
                let lock = self.kubeconfig.with_file_name("ipam.lock");
                Driver::new(client.clone(), HostLock::at(lock))
            }
        };
        tell(&container, What::Asks);
        let request = AddRequest {
            node: format!("node-{}", self.writer % NODES).parse().unwrap(),
            holder: holder(&container),
            vrf: None,
            wanted: vec![Wanted::Any(Family::V4, Vec::new())],
            selectors: Selectors::OfRequestedIgnored,
        };
        let addrs = Box::pin(add(&mut driver(), &request)).await.unwrap();
        tell(&container, What::Has(addrs[0].addr().to_string()));
        if number.is_multiple_of(3) {
            tell(&container, What::Releases);
            delete(&mut driver(), &holder(&container)).await.unwrap();
        }
    }
}

fn tell(container: &str, what: What) {
    println!("{}", Event::now(container, what).to_line());
    std::io::stdout().flush().unwrap();
}

/// Runs life after life until `count` containers were asked for.
pub(crate) fn race_with_library(writer: usize, count: usize, kubeconfig: &Path, ledger: &Ledger) {
    let mut random = Random(writer as u64);
    let mut from = 0;
    while from < count {
        let life = Life { kubeconfig: kubeconfig.to_owned(), writer, from, to: count };
        let mut process = life.start();
        let told = BufReader::new(process.stdout.take().unwrap());
        let limit = random.below(24);
        let (mut asked, mut is_killed) = (0, false);
        for line in told.lines().map_while(Result::ok) {
            let Some(event) = Event::from_line(&line) else { continue };
            asked += u64::from(event.what == What::Asks);
            let is_over = asked > limit;
            ledger.note(event);
            if is_over {
                // Not to wait for something: the time until the fault.
                std::thread::sleep(Duration::from_micros(random.below(15_000)));
                process.kill().unwrap();
                ledger.note_kill();
                (asked, is_killed) = (0, true);
            }
        }
        let status = process.wait().unwrap();
        assert!(is_killed || status.success(), "writer {writer} failed by itself: {status}");
        let reached = ledger.containers_of(writer);
        // Half of the time the last container is asked for once more, as a runtime does.
        from = reached - usize::try_from(random.below(2)).unwrap() * usize::from(reached < count);
    }
}

/// Runs the program for each container, and kills some of them.
pub(crate) fn race_with_program(writer: usize, count: usize, kubeconfig: &Path, ledger: &Ledger) {
    let mut random = Random(writer as u64);
    for number in 0..count {
        let container = container(writer, number);
        let mut killed_after = (random.below(10) < 4).then(|| random.below(60_000));
        loop {
            ledger.note(Event::now(&container, What::Asks));
            if let Some(addr) =
                call("ADD", kubeconfig, &container, killed_after).as_ref().map(addr_in)
            {
                ledger.note(Event::now(&container, What::Has(addr)));
                break;
            }
            ledger.note_kill();
            if random.below(2) == 0 {
                break;
            }
            killed_after = None;
        }
        if random.below(10) < 3 {
            ledger.note(Event::now(&container, What::Releases));
            let killed_after = (random.below(3) == 0).then(|| random.below(40_000));
            if let Some(output) = call("DEL", kubeconfig, &container, killed_after) {
                assert!(output.status.success(), "DEL of {container} failed: {output:?}");
            }
        }
    }
}

fn addr_in(output: &Output) -> String {
    assert!(output.status.success(), "ADD failed: {output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    address.split('/').next().unwrap().to_owned()
}

/// Runs the program; `None` if it was killed, some microseconds after its start.
fn call(
    command: &str,
    kubeconfig: &Path,
    container: &str,
    killed_after: Option<u64>,
) -> Option<Output> {
    let config = json!({
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "type": "calico",
        "nodename": "node-0",
        "nodename_file_optional": true,
        "log_level": "error",
        "ipam_lock_file": kubeconfig.with_file_name("ipam.lock"),
        "datastore_type": "kubernetes",
        "kubernetes": { "kubeconfig": kubeconfig },
        "ipam": { "type": "calico-ipam" },
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_calico-ipam"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", "/run/netns/none")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    if let Some(killed_after) = killed_after {
        // Not to wait for something: the time until the fault.
        std::thread::sleep(Duration::from_micros(killed_after));
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    output.status.code().is_some().then_some(output)
}
