//! The sockets `bird.ctl` and `bird6.ctl`, so that tools that ask BIRD go on working.
//!
//! They answer `show status`, `show protocols`, `show protocols all NAME` and
//! `show route` with BIRD 1.6's codes and columns, each socket for its family.

mod answer;

#[cfg(test)]
pub(crate) use answer::tests;

use std::path::Path;
use std::time::Duration;

use model::net::Family;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::bgp::View;

/// Where the sockets are.
const DIR: &str = "/var/run/calico";
/// How long somebody may be silent, or not take an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How many may ask at a time.
const MAX_CLIENTS: usize = 16;
/// The longest command.
const MAX_COMMAND: u64 = 1024;

/// Answers on both sockets for as long as the daemon runs.
///
/// Without them the daemon works as well; that is only logged.
pub(crate) async fn serve(view: View) {
    let sockets = [("bird.ctl", Family::V4), ("bird6.ctl", Family::V6)];
    let [v4, v6] = sockets.map(|(name, family)| serve_one(name, family, view.clone()));
    tokio::join!(v4, v6);
}

async fn serve_one(name: &str, family: Family, view: View) {
    let path = Path::new(DIR).join(name);
    let listener: UnixListener = match crate::admin::listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "tools that ask BIRD get no answer");
            return;
        }
    };
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => {
                if let Ok((stream, _)) = accepted {
                    clients.spawn(converse(stream, family, view.clone()));
                }
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Greets, and answers until the client goes or says nothing for long.
async fn converse(stream: UnixStream, family: Family, view: View) {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading);
    let mut text = answer::greeting();
    loop {
        let written = tokio::time::timeout(TIMEOUT, writing.write_all(text.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        let mut command = String::new();
        let mut limited = (&mut lines).take(MAX_COMMAND);
        let read = tokio::time::timeout(TIMEOUT, limited.read_line(&mut command)).await;
        match read {
            Ok(Ok(len)) if len > 0 && command.ends_with('\n') => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
        text = respond(command.trim(), family, &view).await;
    }
}

async fn respond(command: &str, family: Family, view: &View) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let now = jiff::Timestamp::now();
    let snapshot = view.status.borrow().clone();
    match words.as_slice() {
        ["show", "status"] => answer::status(&snapshot, view.identifier, now),
        ["show", "protocols"] => answer::protocols(&snapshot, family, now),
        ["show", "protocols", "all"] => answer::details(&snapshot, family, None, now),
        ["show", "protocols", "all", name] => answer::details(&snapshot, family, Some(name), now),
        ["show", "route", ..] => answer::routes(&snapshot, family, &view.routes().await),
        _ => answer::error(),
    }
}
