//! The two servers, each in a directory of its own.

use lab::control_plane::{ControlPlane, Identity, Kind, Settings};

use crate::client::Access;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// The server and its tools.
    pub(crate) plane: ControlPlane,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server with our CRDs and roles.
    pub(crate) fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { is_durable: false, ..Settings::loopback(kind, dir.path()) };
        let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap_or_else(|error| panic!("{error}"));
        Self { plane, _dir: dir }
    }

    /// Returns where it is and the administrator's token.
    pub(crate) fn access(&self) -> Access {
        Access::read(&self.plane.kubeconfig(Identity::Admin))
    }

    /// Stops it as a crash would and starts it again.
    pub(crate) fn restart(&mut self) {
        self.plane.stop_api_server();
        self.plane.start_api_server().unwrap_or_else(|error| panic!("{error}"));
    }
}
