//! Runs the IPAM plugin.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cni::delegate::{Call, Outcome, find};
use cni::{Error, ErrorCode, Success, Version};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long an IPAM plugin may take: longer than the 90 s that calico-ipam allows
/// itself, shorter than the two minutes after which a kubelet gives up.
const TIMEOUT: Duration = Duration::from_secs(100);

/// The most that a plugin may print.
const MAX_OUTPUT: u64 = 1 << 20;

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
) -> Result<Success, Error> {
    run(name, call, config).await?.into_success(name, version)
}

/// Runs a command that prints nothing.
///
/// # Errors
///
/// As for [`add`].
pub(crate) async fn tell(name: &str, call: &Call<'_>, config: &Value) -> Result<(), Error> {
    run(name, call, config).await?.into_empty(name)
}

async fn run(name: &str, call: &Call<'_>, config: &Value) -> Result<Outcome, Error> {
    let program = find(name, call.path, is_program)?;
    let stdin = config.to_string();
    tracing::debug!(program = %program.display(), command = call.command, "running the IPAM plugin");
    let talk = talk(&program, call, stdin.as_bytes());
    match tokio::time::timeout(TIMEOUT, talk).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => {
            let message = format!("plugin `{name}` at {} cannot be run", program.display());
            Err(Error::new(ErrorCode::Delegate, message).with_details(error.to_string()))
        }
        Err(_) => {
            let secs = TIMEOUT.as_secs();
            let message = format!("plugin `{name}` did not answer within {secs} s: see its log");
            Err(Error::new(ErrorCode::TryAgainLater, message))
        }
    }
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
