//! How long a control plane takes from its start until it answers that it is ready.

use std::time::{Duration, Instant};

use lab::Error;
use lab::control_plane::{ControlPlane, Kind};

/// How long starts took, each until a client that polls every 5 ms was told `ok` over TLS.
#[derive(Debug)]
pub(crate) struct Starts {
    /// In an empty directory, keys and certificates included.
    pub(crate) first: Vec<Duration>,
    /// The API server again after `kill -9`; Kubernetes' etcd stays up meanwhile.
    pub(crate) again: Vec<Duration>,
}

/// Starts control planes of a kind `times` times; Kubernetes three times at most.
pub(super) fn measure(kind: Kind, times: usize) -> Result<Starts, Error> {
    let times = if kind == Kind::Kubernetes { times.min(3) } else { times };
    let mut starts = Starts { first: Vec::new(), again: Vec::new() };
    for _ in 0..times {
        let directory = super::directory()?;
        let settings = super::settings(kind, directory.path());
        let started = Instant::now();
        let mut control_plane = ControlPlane::start(settings)?;
        starts.first.push(started.elapsed());
        control_plane.stop_api_server();
        let started = Instant::now();
        control_plane.start_api_server()?;
        starts.again.push(started.elapsed());
    }
    Ok(starts)
}
