//! Runs the IPAM plugin: another program, or this one where calico-ipam is only its other name.
//!
//! What is installed is one program with two names (`install-cni`). If the plugin that the
//! configuration names is the very file that runs here, it is carried out here, with the same
//! configuration and variables: that saves a process, a connection to the API server and what the
//! server makes of it. Whoever puts another program there gets that.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cni::delegate::{Call, Outcome, find};
use cni::{Environment, Error, ErrorCode, NetworkConfig, Success, Version};
use datastore::Client;
use ipam_plugin::{ahead, plugin};
use ledger::Ahead;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::store::Store;

/// What the IPAM plugin is called that this program is too.
const OWN_NAME: &str = "calico-ipam";

/// How long an IPAM plugin may take: longer than the 90 s that calico-ipam allows
/// itself, shorter than the two minutes after which a kubelet gives up.
const TIMEOUT: Duration = Duration::from_secs(100);

/// The most that a plugin may print.
const MAX_OUTPUT: u64 = 1 << 20;

/// What calico-ipam need not do again if it runs here.
#[derive(Default)]
pub(crate) struct Help<'a> {
    /// The datastore, and who may do what is wanted of it.
    pub(crate) store: Option<&'a Store<'a>>,
    /// What its ADD depends on, if it was read.
    pub(crate) ahead: Option<Ahead>,
}

/// Runs an ADD and returns the addresses.
///
/// # Errors
///
/// The plugin's own error, or one that says why it could not be run.
pub(crate) async fn add(
    name: &str,
    call: &Call<'_>,
    config: &Value,
    version: Version,
    help: Help<'_>,
) -> Result<Success, Error> {
    let program = find(name, call.path, is_program)?;
    if is_here(name, &program) {
        return Ok(here(name, call, config, help).await?.unwrap_or_default());
    }
    run(name, &program, call, config).await?.into_success(name, version)
}

/// Runs a command that prints nothing.
///
/// # Errors
///
/// As for [`add`].
pub(crate) async fn tell(
    name: &str,
    call: &Call<'_>,
    config: &Value,
    store: Option<&Store<'_>>,
) -> Result<(), Error> {
    let program = find(name, call.path, is_program)?;
    if is_here(name, &program) {
        return here(name, call, config, Help { store, ahead: None }).await.map(drop);
    }
    run(name, &program, call, config).await?.into_empty(name)
}

/// Would the plugin of this name be carried out here?
pub(crate) fn is_own(name: &str, path: &[PathBuf]) -> bool {
    find(name, path, is_program).is_ok_and(|program| is_here(name, &program))
}

/// Is the program the very file that runs here?
fn is_here(name: &str, program: &Path) -> bool {
    let id = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let own = id(Path::new("/proc/self/exe"));
    name == OWN_NAME && own.is_some() && own == id(program)
}

/// Carries a call of calico-ipam out here, as if it were a process of its own.
async fn here(
    name: &str,
    call: &Call<'_>,
    config: &Value,
    help: Help<'_>,
) -> Result<Option<Success>, Error> {
    tracing::debug!(command = call.command, "carrying calico-ipam out");
    let Help { store, ahead } = help;
    let variables = call.environment();
    let lookup = |name: &str| {
        let found = variables.iter().find(|(known, value)| *known == name && !value.is_empty());
        found.map(|(_, value)| value.into())
    };
    let Environment { request, .. } = Environment::read(lookup)?;
    let config = NetworkConfig::parse(config.to_string().as_bytes())?;
    let connect = || match store {
        Some(store) => Ok(store.connected()?.clone()),
        None => plugin::connect(&config),
    };
    let help = plugin::Help { service: store.and_then(Store::service), ahead };
    let carried_out = Box::pin(plugin::carry_out(&request, &config, connect, help));
    tokio::time::timeout(TIMEOUT, carried_out).await.unwrap_or_else(|_| Err(too_slow(name)))
}

/// Reads what an ADD of the attachment depends on, if calico-ipam would run here.
pub(crate) async fn read_ahead(
    name: Option<&str>,
    call: &Call<'_>,
    config: &NetworkConfig,
    client: &Client,
) -> Option<Ahead> {
    let attachment = call.attachment?;
    if !is_own(name?, call.path) {
        return None;
    }
    ahead::read(client, config, attachment).await
}

async fn run(
    name: &str,
    program: &Path,
    call: &Call<'_>,
    config: &Value,
) -> Result<Outcome, Error> {
    let stdin = config.to_string();
    tracing::debug!(program = %program.display(), command = call.command, "running the IPAM plugin");
    let talk = talk(program, call, stdin.as_bytes());
    match tokio::time::timeout(TIMEOUT, talk).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => {
            let message = format!("plugin `{name}` at {} cannot be run", program.display());
            Err(Error::new(ErrorCode::Delegate, message).with_details(error.to_string()))
        }
        Err(_) => Err(too_slow(name)),
    }
}

fn too_slow(name: &str) -> Error {
    let secs = TIMEOUT.as_secs();
    let message = format!("plugin `{name}` did not answer within {secs} s: see its log");
    Error::new(ErrorCode::TryAgainLater, message)
}

async fn talk(program: &Path, call: &Call<'_>, stdin: &[u8]) -> std::io::Result<Outcome> {
    let mut child = Command::new(program)
        .envs(call.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    let write = async {
        if let Some(mut input) = input {
            // A plugin that answers without reading everything closes the pipe.
            let _ = input.write_all(stdin).await;
        }
    };
    let read = async {
        let mut stdout = Vec::new();
        if let Some(output) = output {
            output.take(MAX_OUTPUT).read_to_end(&mut stdout).await?;
        }
        Ok::<_, std::io::Error>(stdout)
    };
    let ((), stdout) = tokio::join!(write, read);
    let stdout = stdout?;
    let status = child.wait().await?.code();
    Ok(Outcome { status, stdout })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
