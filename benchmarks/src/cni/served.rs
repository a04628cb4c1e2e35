//! calico-node's service for calls of the plugin, in a process of its own.
//!
//! The whole calico-node would look after routes and policy of the pods meanwhile; this is the part
//! that takes part in ADD and DEL, as calico-node runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cni_service::SOCKET;
use cni_service::listen::{self, Credentials};
use lab::Error;
use lab::control_plane::Identity;
use secrecy::{ExposeSecret as _, SecretString};
use telemetry::metrics::Registry;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::world::{NODE, World};
use crate::cpu;

/// The service, until it is dropped.
pub(crate) struct Served(Child);

impl Served {
    /// Starts it, with the plugin's kubeconfig.
    ///
    /// # Errors
    ///
    /// [`Error`] if it does not begin to listen.
    pub(crate) fn start(world: &World) -> Result<Self, Error> {
        let own = std::env::current_exe().map_err(Error::file(Path::new("/proc/self/exe")))?;
        let mut command = Command::new(own);
        command.arg("serve").arg(world.kubeconfig(Identity::CniPlugin)).stdin(Stdio::null());
        let served = Self(command.spawn().map_err(|error| Error::program("serve", error))?);
        for _ in 0..500 {
            if Path::new(SOCKET).exists() {
                return Ok(served);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Error::wrong(format!("nobody listens at {SOCKET}")))
    }

    /// Returns the processor time that it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu::of_process(self.0.id())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It goes with the benchmark at the latest.
        let _ = self.0.kill().and_then(|()| self.0.wait());
        let _ = std::fs::remove_file(SOCKET);
    }
}

/// Is the service, with the credentials in `kubeconfig`.
///
/// # Errors
///
/// [`Error`] if it cannot start.
pub(crate) fn run(kubeconfig: PathBuf) -> Result<(), Error> {
    let text = std::fs::read_to_string(&kubeconfig).map_err(Error::file(&kubeconfig))?;
    let text = watch::Sender::new(Some(SecretString::from(text)));
    let is_in_place = |path: &Path, text: &SecretString| {
        std::fs::read_to_string(path).is_ok_and(|found| found == text.expose_secret())
    };
    let credentials = Credentials { path: kubeconfig, text: text.subscribe(), is_in_place };
    let node = NODE.parse().map_err(Error::wrong)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::wrong)?.block_on(async {
        let listener = UnixListener::bind(SOCKET).map_err(Error::file(Path::new(SOCKET)))?;
        listen::run(listener, node, credentials, &Registry::new()).await;
        Ok(())
    })
}
