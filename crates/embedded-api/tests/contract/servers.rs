//! The two servers, each in a directory of its own.

use lab::control_plane::{ControlPlane, Identity, Settings};

use crate::client::Access;
use crate::suite::Side;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    side: Side,
    plane: ControlPlane,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server with our CRDs and roles.
    pub(crate) fn start(side: Side) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { is_durable: false, ..Settings::loopback(dir.path()) };
        let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap_or_else(|error| panic!("{error}"));
        Self { side, plane, _dir: dir }
    }

    /// Returns which one it is.
    pub(crate) const fn side(&self) -> Side {
        self.side
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
