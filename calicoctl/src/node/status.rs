//! `calicoctl node status`: the BGP sessions of this node, as calico-node's socket tells them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use jiff::{SignedDuration, Zoned};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::output::{Format, Report, grid, print, render};
use crate::run::Verdict;

/// Where calico-node answers.
const SOCKET: &str = "/var/run/calico/calico-node.sock";
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that it may say.
const MAX_ANSWER: u64 = 64 << 20;

/// What calico-node says.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    peers: Vec<Peer>,
}

/// What it says of a peer.
#[derive(Clone, Debug, Deserialize)]
struct Peer {
    name: String,
    address: String,
    state: String,
    seconds: u64,
    #[serde(default)]
    last_error: Option<String>,
}

/// The sessions of this node.
#[derive(Clone, Debug, Serialize)]
struct Sessions {
    peers: Vec<Session>,
}

/// One session, in the words of Calico's table.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    peer_address: String,
    peer_type: &'static str,
    state: &'static str,
    since: String,
    info: String,
}

/// Asks calico-node and prints what it says.
pub(super) fn run(output: Format) -> Result<Verdict, Error> {
    let answer = ask().map_err(|error| {
        Error::Refused(format!(
            "Calico process is not running, or speaks no BGP: {SOCKET}: {error}; run it as root \
             on a node, and see that calico-node runs there"
        ))
    })?;
    let sessions = Sessions::of(&answer, &Zoned::now());
    print(&render(&sessions, output)?)?;
    Ok(Verdict::Fine)
}

fn ask() -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"status")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

impl Sessions {
    fn of(answer: &Answer, now: &Zoned) -> Self {
        Self { peers: answer.peers.iter().map(|peer| Session::of(peer, now)).collect() }
    }

    fn table(&self, is_wanted: impl Fn(&IpAddr) -> bool) -> Option<String> {
        let is_wanted =
            |peer: &&Session| peer.peer_address.parse().is_ok_and(|addr| is_wanted(&addr));
        let row = |peer: &Session| {
            let Session { peer_address, peer_type, state, since, info } = peer.clone();
            vec![peer_address, peer_type.to_owned(), state.to_owned(), since, info]
        };
        let rows: Vec<_> = self.peers.iter().filter(is_wanted).map(row).collect();
        let heads = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"];
        (!rows.is_empty()).then(|| grid(&heads, rows))
    }
}

impl Session {
    fn of(peer: &Peer, now: &Zoned) -> Self {
        let is_up = peer.state == "Established";
        let info = match &peer.last_error {
            Some(error) if !is_up => format!("{} {error}", peer.state),
            _ => peer.state.clone(),
        };
        Self {
            peer_address: peer.address.clone(),
            peer_type: peer_type(&peer.name),
            state: if is_up { "up" } else { "start" },
            since: since(now, peer.seconds),
            info,
        }
    }
}

/// Returns the time of the day, or the day if it was another one.
fn since(now: &Zoned, seconds: u64) -> String {
    let age = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    let Ok(then) = now.checked_sub(age) else { return String::new() };
    let form = if then.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d" };
    then.strftime(form).to_string()
}

/// Returns what Calico's table calls a kind of session, by how its name starts.
fn peer_type(name: &str) -> &'static str {
    match name.split('_').next() {
        Some("Mesh") => "node-to-node mesh",
        Some("Node") => "node specific",
        Some("Global") => "global",
        Some("Local") => "local workload",
        _ => "",
    }
}

impl Report for Sessions {
    fn text(&self) -> String {
        let table = |is_wanted: fn(&IpAddr) -> bool, family| {
            let none = || format!("No {family} peers found.");
            self.table(is_wanted).unwrap_or_else(none)
        };
        format!(
            "Calico process is running.\n\nIPv4 BGP status\n{}\n\nIPv6 BGP status\n{}\n",
            table(IpAddr::is_ipv4, "IPv4"),
            table(IpAddr::is_ipv6, "IPv6")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_calicos() {
        let answer = r#"{"has_converged":true,"destinations":1,"peers":[
            {"name":"Mesh_172_17_8_102","address":"172.17.8.102","asn":64512,"state":"Established",
             "seconds":4,"received":1,"advertised":1,"last_error":"Hold timer expired"},
            {"name":"Node_10_0_0_1","address":"10.0.0.1","asn":64513,"state":"Active",
             "seconds":90000,"received":0,"advertised":0,"last_error":"connection refused"}]}"#;
        let answer: Answer = serde_json::from_str(answer).unwrap();
        let now: Zoned = "2026-06-24T23:30:08[UTC]".parse().unwrap();
        assert_eq!(
            Sessions::of(&answer, &now).text(),
            "Calico process is running.\n\nIPv4 BGP status\n\
             +--------------+-------------------+-------+------------+---------------------------+\n\
             | PEER ADDRESS |     PEER TYPE     | STATE |    SINCE   |            INFO           |\n\
             +--------------+-------------------+-------+------------+---------------------------+\n\
             | 172.17.8.102 | node-to-node mesh | up    | 23:30:04   | Established               |\n\
             | 10.0.0.1     | node specific     | start | 2026-06-23 | Active connection refused |\n\
             +--------------+-------------------+-------+------------+---------------------------+\n\n\
             IPv6 BGP status\nNo IPv6 peers found.\n"
        );
    }
}
