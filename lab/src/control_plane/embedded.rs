//! The embedded datastore: `calico-datastore` in a process of its own, so that it can be killed.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::{Identity, Settings, write_secret};
use crate::Error;
use crate::process::{Process, Program};
use crate::rest::Access;

/// The program.
const PROGRAM: &str = "calico-datastore";

/// The process, and what is needed to start it again.
#[derive(Debug)]
pub(super) struct Server {
    settings: Settings,
    program: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// Starts the server.
    pub(super) fn start(settings: Settings) -> Result<Self, Error> {
        let mut this = Self { settings, program: program()?, process: None };
        this.start_again()?;
        Ok(this)
    }

    /// Starts the server on what it has kept.
    pub(super) fn start_again(&mut self) -> Result<(), Error> {
        let Settings { dir, addr, port, .. } = &self.settings;
        let command = [
            self.program.clone().into_os_string(),
            "serve".into(),
            "--data-dir".into(),
            self.data_dir().into_os_string(),
            "--listen".into(),
            std::net::SocketAddr::new(*addr, *port).to_string().into(),
        ];
        self.process = Some(Program::new(PROGRAM, &dir.join("datastore.log"), command).start()?);
        Ok(())
    }

    /// Stops the server as a crash would.
    pub(super) fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(Signal::SIGKILL);
        }
    }

    /// Takes over what the server has written for its administrator; it does so when it starts.
    pub(super) fn adopt_administrator(&self) -> Result<(), Error> {
        let access = Access::read(&self.data_dir().join("admin.kubeconfig"))?;
        write_secret(&self.settings.dir, "ca.crt", &String::from_utf8_lossy(&access.ca))?;
        self.settings.write_kubeconfig(Identity::Admin.name(), &access.token)
    }

    /// Returns the process, if it runs or should.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.process.iter()
    }

    fn data_dir(&self) -> PathBuf {
        self.settings.dir.join("datastore")
    }
}

/// Returns the program: from where the environment says, or from beside this one; tests are one
/// directory below.
fn program() -> Result<PathBuf, Error> {
    let myself = std::env::current_exe().map_err(|error| Error::program(PROGRAM, error))?;
    let dir = std::env::var_os("CALICO_BIN_DIR").map(PathBuf::from);
    let dirs = match &dir {
        Some(dir) => vec![dir.as_path()],
        None => myself.ancestors().skip(1).take(2).collect::<Vec<&Path>>(),
    };
    let found = dirs.iter().map(|dir| dir.join(PROGRAM)).find(|path| path.exists());
    found.ok_or_else(|| Error::Missing(dirs.first().unwrap_or(&myself.as_path()).join(PROGRAM)))
}
