//! Our device under test: the speaker in calico-node's own shell, without a cluster.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use lab::Error;
use model::desired::{Advertisements, BgpSession, Reflection};
use model::net::Asn;
use tokio::sync::mpsc;

use super::device::Setup;
use super::shell::{self, Command};

/// Writes a setup as [`run`] reads it: our address and AS, whether we reflect, then a peer a line.
pub(super) fn write(setup: &Setup) -> String {
    let mut text = format!("{} {} {}\n", setup.place.addr, setup.asn, setup.is_reflector);
    for (addr, asn) in &setup.peers {
        let _ = writeln!(text, "{addr} {asn}");
    }
    text
}

/// Speaks BGP until it is killed.
///
/// # Errors
///
/// [`Error`] if the file cannot be read.
pub(crate) fn run(file: &Path) -> Result<ExitCode, Error> {
    let text = std::fs::read_to_string(file).map_err(Error::file(file))?;
    let (addr, sessions) =
        parse(&text).ok_or_else(|| Error::wrong(format!("{} is no setup", file.display())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::wrong)?.block_on(speak(addr, sessions));
    Ok(ExitCode::SUCCESS)
}

async fn speak(addr: Ipv4Addr, sessions: Vec<BgpSession>) {
    let config = shell::Config { identifier: addr, is_restarting: false, seed: 1 };
    let listen = [SocketAddr::new(addr.into(), 179)].into();
    let (commands, receiver) = mpsc::channel(4);
    let mut handle = shell::spawn(config, receiver);
    let exportable = ["0.0.0.0/0".parse(), "::/0".parse()].into_iter().flatten().collect();
    let advertisements = Advertisements { exportable, ..Advertisements::default() };
    for command in
        [Command::Listen(listen), Command::Configure(sessions), Command::Advertise(advertisements)]
    {
        // It cannot end before it is told to.
        let _ = commands.send(command).await;
    }
    while handle.events.recv().await.is_some() {}
}

fn parse(text: &str) -> Option<(Ipv4Addr, Vec<BgpSession>)> {
    let mut lines = text.lines();
    let [addr, asn, is_reflector] = words(lines.next()?)?;
    let addr: Ipv4Addr = addr.parse().ok()?;
    let (asn, is_reflector): (Asn, bool) = (asn.parse().ok()?, is_reflector.parse().ok()?);
    let session = |line: &str| {
        let [peer, peer_asn] = words(line)?;
        let peer: IpAddr = peer.parse().ok()?;
        let mut session =
            BgpSession::new(format!("peer {peer}"), peer, asn, peer_asn.parse().ok()?);
        session.local_addr = Some(addr.into());
        session.reflection =
            is_reflector.then(|| Reflection { cluster_id: addr.to_bits(), is_client: true });
        Some(session)
    };
    Some((addr, lines.map(session).collect::<Option<_>>()?))
}

fn words<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split(' ').collect::<Vec<_>>().try_into().ok()
}
