//! Injector, device, monitor: how long until all routes have come through, and have gone again.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use lab::Error;

use super::Until;
use super::bird::{self, Control};
use super::device::{Device, Setup};
use super::network::{DEVICE, INJECTOR, MONITOR, Place};
use crate::{cpu, memory};

/// The kind of the device's sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Session {
    /// Each of the three is in an AS of its own.
    External,
    /// All are in one AS, and the device reflects.
    Reflected,
}

/// The attributes of the routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Words {
    /// All have the same.
    Same,
    /// Each has a community of its own.
    Unique,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) device: Device,
    pub(super) session: Session,
    pub(super) words: Words,
    pub(super) routes: u32,
    /// From the injection until the monitor has all; `None` if it took too long.
    pub(super) all: Option<Duration>,
    /// From the end of the injection until the monitor has none.
    pub(super) withdrawn: Option<Duration>,
    /// Resident memory of the device before and with the routes, in KiB.
    pub(super) resident_kib: [u64; 2],
    /// The device's processor time until all were there.
    pub(super) cpu: Duration,
}

/// How long either way may take.
const WITHIN: Duration = Duration::from_secs(120);

/// Measures one device in one way.
pub(super) fn measure(
    device: Device,
    session: Session,
    words: Words,
    routes: u32,
    until: Until,
) -> Result<Row, Error> {
    let directory = tempfile::Builder::new().prefix("calico-benchmarks-").tempdir();
    let directory = directory.map_err(Error::file(&std::env::temp_dir()))?;
    let file = directory.path().join("routes");
    bird::write_routes(&file, routes, words == Words::Unique)?;
    let asns = match session {
        Session::External => [65_001, 65_002, 65_003],
        Session::Reflected => [65_002; 3],
    };
    let setup = |place: Place, asn, peers: Vec<(Place, u32)>| Setup {
        place,
        asn,
        peers: peers.into_iter().map(|(peer, asn)| (peer.addr, asn)).collect(),
        is_reflector: false,
        installs: false,
        routes: None,
    };
    let [of_injector, of_device, of_monitor] = asns;
    let middle = vec![(INJECTOR, of_injector), (MONITOR, of_monitor)];
    let middle =
        Setup { is_reflector: session == Session::Reflected, ..setup(DEVICE, of_device, middle) };
    let injector =
        Setup { routes: Some(file), ..setup(INJECTOR, of_injector, vec![(DEVICE, of_device)]) };
    let monitor = setup(MONITOR, of_monitor, vec![(DEVICE, of_device)]);
    let path = directory.path();
    let under_test = device.start(&middle, path)?;
    let _injector = Device::Bird.start(&injector, path)?;
    let _monitor = Device::Bird.start(&monitor, path)?;
    let [injector, monitor] =
        [INJECTOR, MONITOR].map(|place| Control(path.join(format!("{}.ctl", place.netns))));
    for control in [&injector, &monitor] {
        bird::wait("a control socket", Duration::from_secs(60), || {
            Ok((control.ask("show status").is_ok(), String::new()))
        })?;
        control.wait_established()?;
    }
    under_test.require_running()?;
    let pid = under_test.pid();
    let (idle, before) = (memory::resident_kib(pid)?, cpu::of_process(pid));
    let since = Instant::now();
    injector.ask("enable injected")?;
    let all = monitor.wait_routes(routes, until.within(WITHIN)).ok().map(|_| since.elapsed());
    let loaded = memory::resident_kib(pid)?;
    let cpu = cpu::of_process(pid).saturating_sub(before);
    let since = Instant::now();
    injector.ask("disable injected")?;
    let withdrawn = monitor.wait_routes(0, until.within(WITHIN)).ok().map(|_| since.elapsed());
    under_test.require_running()?;
    let resident_kib = [idle, loaded];
    Ok(Row { device, session, words, routes, all, withdrawn, resident_kib, cpu })
}
