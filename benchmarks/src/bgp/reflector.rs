//! One reflector with many clients: how long until each has what all the others announce.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lab::Error;
use model::net::Cidr;
use tokio::task::JoinSet;

use super::Until;
use super::client::Client;
use super::device::{Device, Setup};
use super::network::{self, DEVICE};
use crate::{cpu, memory};

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) device: Device,
    pub(super) clients: u32,
    /// How many routes they announce, all together.
    pub(super) routes: u32,
    /// From the first announcement until all clients have all routes.
    pub(super) all: Duration,
    /// Resident memory of the reflector with all sessions, and with all routes, in KiB.
    pub(super) resident_kib: [u64; 2],
    /// The reflector's processor time.
    pub(super) cpu: Duration,
}

const ASN: u32 = 65_002;
/// How long everything may take.
const WITHIN: Duration = Duration::from_secs(120);

/// Measures one reflector.
pub(super) fn measure(
    device: Device,
    clients: u32,
    routes: u32,
    until: Until,
) -> Result<Row, Error> {
    let directory = tempfile::Builder::new().prefix("calico-benchmarks-").tempdir();
    let directory = directory.map_err(Error::file(&std::env::temp_dir()))?;
    network::add_clients(clients, directory.path())?;
    let setup = Setup {
        place: DEVICE,
        asn: ASN,
        peers: (0..clients).map(|number| (network::client(number), ASN)).collect(),
        is_reflector: true,
        installs: false,
        routes: None,
    };
    let reflector = device.start(&setup, directory.path())?;
    let pid = reflector.pid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work = async {
        let sessions = connect(clients).await?;
        let (idle, before) = (memory::resident_kib(pid)?, cpu::of_process(pid));
        let since = Instant::now();
        exchange(sessions, routes).await?;
        let all = since.elapsed();
        let resident_kib = [idle, memory::resident_kib(pid)?];
        let cpu = cpu::of_process(pid).saturating_sub(before);
        Ok(Row { device, clients, routes, all, resident_kib, cpu })
    };
    let within = until.within(WITHIN);
    let limited = async { tokio::time::timeout(within, work).await };
    let outcome = runtime.map_err(Error::wrong)?.block_on(limited);
    outcome.unwrap_or_else(|_| {
        let (what, seconds) = ("the reflector's clients".to_owned(), within.as_secs());
        Err(Error::Timeout {
            what,
            seconds,
            detail: lab::process::tail(&directory.path().join("device.log")),
        })
    })
}

async fn connect(count: u32) -> Result<Vec<Client>, Error> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        tasks.spawn(Client::connect(network::client(number), DEVICE.addr, ASN));
    }
    let mut sessions = Vec::new();
    while let Some(session) = tasks.join_next().await {
        sessions.push(session.map_err(Error::wrong)??);
    }
    Ok(sessions)
}

/// Lets each client announce its share and wait for those of all others.
async fn exchange(sessions: Vec<Client>, routes: u32) -> Result<(), Error> {
    let total = usize::try_from(routes).unwrap_or(usize::MAX);
    let prefixes: Vec<Cidr> = (0..routes).map(prefix).collect();
    let share = total.div_ceil(sessions.len().max(1));
    let mut shares = prefixes.chunks(share.max(1)).map(<[Cidr]>::to_vec);
    let mut tasks = JoinSet::new();
    for mut session in sessions {
        let own = shares.next().unwrap_or_default();
        let others = total.saturating_sub(own.len());
        tasks.spawn(async move {
            session.announce(&own).await?;
            session.count_to(others).await.map(|()| session)
        });
    }
    let mut done = Vec::new();
    while let Some(session) = tasks.join_next().await {
        // Sessions stay open to the end, so that none is withdrawn.
        done.push(session.map_err(Error::wrong)??);
    }
    Ok(())
}

fn prefix(number: u32) -> Cidr {
    Cidr::host(IpAddr::from(Ipv4Addr::from_bits((11 << 24) | number)))
}
