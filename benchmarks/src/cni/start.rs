//! How long a plugin takes from its start to the first byte that it sends.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lab::Error;
use serde_json::json;

use super::plugin::Plugin;
use super::world::{Pod, World};

/// How long to wait for the first byte.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `calico` `rounds` times against a listening socket in place of the API server.
///
/// Each is ended as soon as its first byte is there: it has changed nothing by then.
///
/// # Errors
///
/// [`Error`] if the plugin does not start or connect.
pub(crate) async fn first_byte(
    world: &World,
    bin: &Path,
    rounds: usize,
) -> Result<Vec<Duration>, Error> {
    let failed = |error| Error::program("listening socket", error);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let server = format!("https://{}", listener.local_addr().map_err(failed)?);
    let kubeconfig = world.directory().join("nowhere.kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{"name": "nowhere", "cluster": {
            "server": server,
            "certificate-authority": world.directory().join("control-plane/ca.crt"),
        }}],
        "users": [{"name": "nobody", "user": {"token": "nothing"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).map_err(Error::file(&kubeconfig))?;
    let plugin = Plugin::new(bin, &kubeconfig, "info");
    let pods = world.pods("start", 1).await?;
    let [pod] = pods.as_slice() else { return Err(Error::wrong("a pod was expected")) };
    (0..rounds).map(|_| once(&plugin, pod, &listener)).collect()
}

fn once(plugin: &Plugin, pod: &Pod, listener: &TcpListener) -> Result<Duration, Error> {
    let started = Instant::now();
    let mut child = plugin.start("ADD", pod)?;
    let first = wait_for_byte(listener, started);
    // It may have ended by itself, if it failed.
    let _ = child.kill();
    let output = child.wait_with_output().map_err(|error| Error::program("calico", error))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    first.map_err(|error| Error::program("calico", format!("{error}; it says {stdout}")))
}

/// Returns when the first byte came, counted from `started`.
fn wait_for_byte(listener: &TcpListener, started: Instant) -> std::io::Result<Duration> {
    let (come, comes) = mpsc::channel();
    let receive = || {
        let mut connection = listener.accept()?.0;
        connection.set_read_timeout(Some(LIMIT))?;
        connection.read_exact(&mut [0])?;
        Ok(started.elapsed())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| come.send(receive()));
        comes.recv_timeout(LIMIT).unwrap_or_else(|_| {
            // Whoever still waits for a connection gets one, and then no byte.
            drop(TcpStream::connect(listener.local_addr()?)?);
            Err(std::io::Error::other("no connection within 10 s"))
        })
    })
}
