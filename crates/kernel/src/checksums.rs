//! Whether what carries a tunnel's packets fills in their checksums, or spoils them (RFC 768, RFC 792).
//!
//! As a rule a packet is sent with half of its checksum, and the interface to the fabric does the
//! rest. Some interfaces, and what lies below them, do not know how to inside of a tunnel, and what
//! they send is thrown away at the far end: pings are answered, since they have no such
//! checksum, and everything else hangs.
//!
//! So a datagram goes to a port that is closed, once with its checksum left to others and once with
//! one that the kernel has filled in (a datagram that is sent in parts, by `MSG_MORE`). The far
//! end says that the port is closed, if the checksum is right; if it is not, the far end is silent.
//! Nothing of ours has to run there, and nothing is said but that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use model::desired::{Checksums, TunnelDevice};
use model::net::IfName;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netlink::{Error, Netlink};

/// A port at which nobody listens: traceroute's first.
const PORT: u16 = 33_434;
/// How long an answer may take.
const WITHIN: Duration = Duration::from_millis(300);
/// How often spoiling must be seen.
const ROUNDS: usize = 5;
/// How long to wait after silence: kernels answer a stranger six times in a row, and then once a
/// second, whoever of that node asks. So a far end that had no answers left has two or more then.
const PAUSE: Duration = Duration::from_millis(2500);
/// What is sent, less than one packet.
const PAYLOAD: &[u8] = b"are the checksums of what I send well?";

/// A far end of a tunnel.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Way {
    /// The device of the tunnel.
    pub device: IfName,
    /// The far end's address in it.
    pub to: IpAddr,
}

/// A tunnel's device that is up, and can leave checksums to others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tunnel {
    /// The device.
    pub device: IfName,
    /// Who fills in checksums.
    pub checksums: Checksums,
    /// The far ends at which those that are left to others could be spoiled; if none are left, none.
    pub ways: Vec<Way>,
}

/// Returns the VXLAN devices that are ours and up.
///
/// # Errors
///
/// [`Error`] if the kernel does not tell.
pub async fn tunnels(netlink: &Netlink) -> Result<Vec<Tunnel>, Error> {
    let mut found = Vec::new();
    for device in TunnelDevice::names() {
        let link = netlink.link(&device).await?;
        let Some(link) = link.filter(|link| link.vxlan.is_some() && link.is_up) else { continue };
        let checksums = netlink.checksums(&device).await?;
        let mut ways = Vec::new();
        if checksums == Checksums::Offloaded {
            let far = netlink.neighbours_of(link.index).await?.into_iter();
            let far = far.filter(|far| far.is_permanent && !far.addr.is_multicast());
            ways.extend(far.map(|far| Way { device: device.clone(), to: far.addr }));
        }
        found.push(Tunnel { device, checksums, ways });
    }
    Ok(found)
}

/// What becomes of checksums that are left to what carries the packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// They arrive well.
    Intact,
    /// They do not, while those that the kernel has filled in do, each time.
    Corrupted,
    /// Not enough was answered to tell.
    Silent,
}

/// Asks each, all at a time, from the network namespace of this thread, which waits: four seconds if
/// one is silent, and longer if others ask the same ones meanwhile.
#[must_use]
pub fn ask(ways: &[Way]) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = ways.iter().map(|way| scope.spawn(|| ask_one(way))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap_or(Outcome::Silent)).collect()
    })
}

fn ask_one(way: &Way) -> Outcome {
    let is_answered = |checksum| is_answered(way, checksum).unwrap_or_default();
    let mut was_silent = false;
    judge(std::iter::repeat_with(|| {
        if was_silent {
            std::thread::sleep(PAUSE);
        }
        let left = is_answered(Checksum::Left);
        let filled = left || is_answered(Checksum::Filled);
        was_silent = !filled;
        (left, filled)
    }))
}

/// Judges by what was answered in each round: with checksums left to others, and with those filled
/// in. More is asked only while that tells something. One round of silence tells nothing, since the far
/// end may just have no answer left.
fn judge(rounds: impl Iterator<Item = (bool, bool)>) -> Outcome {
    let (mut spoiled, mut was_silent) = (0_usize, false);
    for round in rounds {
        match round {
            (true, _) => return Outcome::Intact,
            (false, false) if was_silent => return Outcome::Silent,
            (false, false) => was_silent = true,
            (false, true) => {
                (spoiled, was_silent) = (spoiled.saturating_add(1), false);
                if spoiled == ROUNDS {
                    return Outcome::Corrupted;
                }
            }
        }
    }
    Outcome::Silent
}

/// Who fills in the checksum of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Checksum {
    Left,
    Filled,
}

fn is_answered(way: &Way, checksum: Checksum) -> io::Result<bool> {
    let domain = if way.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(way.device.as_str().as_bytes()))?;
    socket.connect(&SocketAddr::new(way.to, PORT).into())?;
    match checksum {
        Checksum::Left => drop(socket.send(PAYLOAD)?),
        Checksum::Filled => {
            socket.send_with_flags(PAYLOAD, libc::MSG_MORE)?;
            socket.send(&[])?;
        }
    }
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(WITHIN).unwrap_or(PollTimeout::ZERO);
    poll(&mut polled, timeout)?;
    let error = socket.take_error()?;
    Ok(error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoiling_is_told_if_it_was_seen_each_time_that_anything_was_answered() {
        let (well, bad, mute) = ((true, true), (false, true), (false, false));
        for (rounds, expected) in [
            (vec![well], Outcome::Intact),
            (vec![bad, bad, well], Outcome::Intact),
            (vec![mute, well], Outcome::Intact),
            (vec![mute, mute], Outcome::Silent),
            (vec![bad, bad, bad, bad, mute, mute], Outcome::Silent),
            (vec![bad, mute, bad, mute, well], Outcome::Intact),
            (vec![bad; ROUNDS], Outcome::Corrupted),
            (vec![mute, bad, mute, bad, bad, mute, bad, bad], Outcome::Corrupted),
        ] {
            assert_eq!(judge(rounds.clone().into_iter()), expected, "{rounds:?}");
        }
    }
}
