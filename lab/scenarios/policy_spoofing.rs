//! Pods that pretend: packets from addresses that are not theirs, and tunnels, in all wrappings.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use kernel::netns::Netns;
use lab::Error;
use lab::cluster::{Cluster, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::frames::{self, Frame, IP_IN_IP};
use lab::policy::world;
use lab::rest::Request;
use model::net::{Family, MacAddr};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::connections::{SETTINGS, attach};
use super::policy_faults::pod;
use super::policy_status::ask;

/// How long nodes may take to follow a setting.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a datagram may be under way on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where datagrams are heard, and VXLAN.
const PORT: u16 = 4_000;
const VXLAN: u16 = 4_789;
/// The pod's Ethernet address, which an annotation fixes, and another one.
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x31]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x32]);
/// What the pod may send from if administrators let pods do that.
const ALLOWED: &str = r#"["192.0.2.0/24", "2001:db8:31::/64"]"#;

/// What is said inside of IP in IP.
const INNER: &str = "inner";
/// What a rule of the guard says that drops packets.
const NOT_OWN: &str = "the source address is not the workload's";

/// Whoever lies about its address is not heard, and counted; whoever does not is, in the same
/// wrapping. Settings allow what they say, and no more.
pub(crate) fn spoofed(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let liar = attach(
        &cluster,
        ("liar", "node-2"),
        &json!({"app": "liar"}),
        &json!({
            api::annotations::HW_ADDR: OWN_MAC.to_string(),
            api::annotations::ALLOWED_SOURCE_PREFIXES: ALLOWED,
        }),
    )?;
    let stage = Stage::set(&cluster, liar)?;
    for family in Family::ALL {
        stage.require_guarded(family)?;
        stage.require_no_tunnels(family)?;
        stage.require(&[("allowed", stage.from("allowed", family)?)], &[], NOT_OWN)?;
    }
    stage.require_routers_are_not_believed()?;
    set(
        &cluster,
        &json!({
            "workloadSourceSpoofing": "Any",
            "allowVXLANPacketsFromWorkloads": true,
            "allowIPIPPacketsFromWorkloads": true,
        }),
    )?;
    for family in Family::ALL {
        eventually("settings to be followed", WITHIN, || {
            let all = [
                ("allowed", stage.from("allowed", family)?),
                ("VXLAN", stage.vxlan(family)?),
                (INNER, stage.tunnel(family)?),
            ];
            stage.require(&all, &["allowed", "VXLAN", INNER], "")
        })?;
        stage.require_guarded(family)?;
    }
    Ok(())
}

fn set(cluster: &Cluster, spec: &serde_json::Value) -> Result<(), Error> {
    cluster.api.send(Request::merge(SETTINGS, &json!({"spec": spec})))?.success().map(drop)
}

/// A pod that sends, and one that listens, on one node.
struct Stage<'a> {
    cluster: &'a Cluster,
    liar: RunningPod,
    victim: RunningPod,
    netns: Netns,
    /// The host's side of the sender's veth.
    host: MacAddr,
    ears: Vec<UdpSocket>,
    /// Whatever comes as IP in IP is heard here, of each family.
    tunnels: Vec<UdpSocket>,
}

/// Frames that are one trick, and what they say.
type Trick<'a> = (&'a str, Vec<Frame>);

impl<'a> Stage<'a> {
    fn set(cluster: &'a Cluster, liar: RunningPod) -> Result<Self, Error> {
        let victim = pod(cluster, "red/db")?;
        let listening = inside(cluster, &victim)?;
        let ears = [PORT, VXLAN].into_iter().map(|port| {
            let socket = listening.run(|| UdpSocket::bind(("::", port)))?;
            let socket = socket.map_err(|error| Error::program("listener", error))?;
            let patient = socket.set_read_timeout(Some(PATIENCE));
            patient.map(|()| socket).map_err(|error| Error::program("listener", error))
        });
        let ears = ears.collect::<Result<Vec<_>, Error>>()?;
        let tunnels = [Domain::IPV4, Domain::IPV6].into_iter().map(|domain| {
            let protocol = Protocol::from(i32::from(IP_IN_IP));
            let socket = listening.run(|| Socket::new(domain, Type::RAW, Some(protocol)))?;
            socket.map(UdpSocket::from).map_err(|error| Error::program("listener", error))
        });
        let tunnels = tunnels.collect::<Result<Vec<_>, Error>>()?;
        let netns = inside(cluster, &liar)?;
        Ok(Self { cluster, liar, victim, netns, host: MacAddr::WORKLOAD_HOST_SIDE, ears, tunnels })
    }

    fn frame(&self, packet: Vec<u8>) -> Frame {
        Frame { from: OWN_MAC, to: self.host, tags: Vec::new(), has_snap: false, packet }
    }

    fn addr(&self, family: Family) -> Result<IpAddr, Error> {
        world::addr(&self.liar, family).ok_or_else(|| Error::wrong("a pod without address"))
    }

    fn target(&self, family: Family) -> Result<IpAddr, Error> {
        world::addr(&self.victim, family).ok_or_else(|| Error::wrong("a pod without address"))
    }

    /// Returns a datagram that says `what`, from the pod's address, or from another one.
    fn datagram(&self, what: &str, family: Family, from: Option<IpAddr>) -> Result<Frame, Error> {
        let from = from.map_or_else(|| self.addr(family), Ok)?;
        Ok(self.frame(frames::udp(from, self.target(family)?, PORT, what.as_bytes())))
    }

    /// Returns a trick: a datagram from where an annotation allows it.
    fn from(&self, what: &str, family: Family) -> Result<Vec<Frame>, Error> {
        let from = match family {
            Family::V4 => IpAddr::from([192, 0, 2, 7]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0x31, 0, 0, 0, 0, 7]),
        };
        Ok(vec![self.datagram(what, family, Some(from))?])
    }

    fn vxlan(&self, family: Family) -> Result<Vec<Frame>, Error> {
        let (from, to) = (self.addr(family)?, self.target(family)?);
        Ok(vec![self.frame(frames::udp(from, to, VXLAN, b"VXLAN"))])
    }

    fn tunnel(&self, family: Family) -> Result<Vec<Frame>, Error> {
        let (from, to) = (self.addr(family)?, self.target(family)?);
        let inner = frames::udp(to, to, PORT, INNER.as_bytes());
        Ok(vec![self.frame(frames::packet(from, to, IP_IN_IP, inner))])
    }

    /// What is honest arrives in every wrapping that the kernel unwraps, what is not in none.
    fn require_guarded(&self, family: Family) -> Result<(), Error> {
        let other = match family {
            Family::V4 => IpAddr::from([203, 0, 113, 9]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 9]),
        };
        let neighbour = world::addr(&pod(self.cluster, "blue/web")?, family);
        let own = |what: &str| self.datagram(what, family, None);
        let stolen = |what: &str| self.datagram(what, family, Some(other));
        let tagged = |tags: &[u16], frame: Frame| Frame { tags: tags.to_vec(), ..frame };
        let split = |frame: Frame| -> Vec<Frame> {
            frames::fragments(&frame.packet).map(|part| self.frame(part)).into()
        };
        let mut honest = vec![
            ("own", vec![own("own")?]),
            ("own, priority", vec![tagged(&[0], own("own, priority")?)]),
            ("own, priority twice", vec![tagged(&[0, 0], own("own, priority twice")?)]),
        ];
        let mut lies = vec![
            ("stolen", vec![stolen("stolen")?]),
            ("neighbour's", vec![self.datagram("neighbour's", family, neighbour)?]),
            ("stolen, priority", vec![tagged(&[0], stolen("stolen, priority")?)]),
            ("stolen, priority twice", vec![tagged(&[0, 0], stolen("stolen, priority twice")?)]),
            ("own, other MAC", vec![Frame { from: OTHER_MAC, ..own("own, other MAC")? }]),
            ("stolen, other MAC", vec![Frame { from: OTHER_MAC, ..stolen("stolen, other MAC")? }]),
        ];
        if family == Family::V4 {
            honest.push(("own, in parts", split(own("own, in parts")?)));
            lies.push(("stolen, in parts", split(stolen("stolen, in parts")?)));
        }
        let names: Vec<&str> = honest.iter().map(|(name, _)| *name).collect();
        self.require(&honest, &names, "")?;
        self.require(&lies, &[], NOT_OWN)?;
        // The kernel takes these for nobody's, whoever sends them.
        let nobodys = [
            ("stolen, VLAN", vec![tagged(&[5], stolen("stolen, VLAN")?)]),
            (
                "stolen, VLAN in priority",
                vec![tagged(&[0, 5], stolen("stolen, VLAN in priority")?)],
            ),
            ("stolen, SNAP", vec![Frame { has_snap: true, ..stolen("stolen, SNAP")? }]),
        ];
        self.require(&nobodys, &[], "")
    }

    fn require_no_tunnels(&self, family: Family) -> Result<(), Error> {
        self.require(&[("VXLAN", self.vxlan(family)?)], &[], "VXLAN from a workload")?;
        self.require(&[(INNER, self.tunnel(family)?)], &[], "IP in IP from a workload")
    }

    /// The node has no other way out than before, and its pods neither.
    fn require_routers_are_not_believed(&self) -> Result<(), Error> {
        let node = self.cluster.node(&self.liar.node)?;
        let show = || node.run(&["ip", "-6", "route", "show", "table", "all"]);
        let before = show()?;
        let from = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0x31]);
        let everybody = IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]);
        let packet = frames::router_advertisement(from, everybody);
        let to = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
        let tags = [vec![], vec![0]];
        let tricks =
            tags.map(|tags| ("RA", vec![Frame { to, tags, ..self.frame(packet.clone()) }]));
        self.require(&tricks, &[], "router advertisement")?;
        let after = show()?;
        if before == after {
            return Ok(());
        }
        Err(Error::wrong(format!("routes changed; before:\n{before}\nafter:\n{after}")))
    }

    /// Fails unless of these tricks only `expected` are heard, and each of the others has been
    /// counted by the rule that says `note`, if there is one.
    fn require(&self, tricks: &[Trick<'_>], expected: &[&str], note: &str) -> Result<(), Error> {
        let before = self.counted(note)?;
        for frame in tricks.iter().flat_map(|(_, frames)| frames) {
            frame.send(&self.netns)?;
        }
        let heard = self.heard()?;
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        if heard != expected {
            let names: Vec<&str> = tricks.iter().map(|(name, _)| *name).collect();
            return Err(Error::wrong(format!("of {names:?} these were heard: {heard:?}")));
        }
        let silent = tricks.len().saturating_sub(heard.len());
        let counted = self.counted(note)?.saturating_sub(before);
        eprintln!("heard {heard:?}, not heard {silent}, `{note}` counted {counted}");
        if note.is_empty() || usize::try_from(counted).unwrap_or_default() >= silent {
            return Ok(());
        }
        Err(Error::wrong(format!("`{note}` counted {counted} of {silent} packets")))
    }

    /// Returns what has been heard before an honest datagram that was sent last: one veth keeps
    /// the order of packets.
    fn heard(&self) -> Result<BTreeSet<String>, Error> {
        let mut heard = BTreeSet::new();
        let (from, to) = (self.addr(Family::V4)?, self.target(Family::V4)?);
        for ear in &self.ears {
            let port = ear.local_addr().map_err(|error| Error::program("listener", error))?.port();
            if port == VXLAN {
                heard.extend(drained(ear)?);
                continue;
            }
            self.frame(frames::udp(from, to, port, b"end")).send(&self.netns)?;
            loop {
                let mut buffer = [0; 256];
                let len = ear.recv(&mut buffer);
                let len = len.map_err(|error| Error::program("the last datagram", error))?;
                let said = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
                if said == "end" {
                    break;
                }
                heard.insert(said.into_owned());
            }
        }
        for tunnel in &self.tunnels {
            // Headers come with it, and what it says is its end.
            let said = drained(tunnel)?
                .into_iter()
                .map(|packet| if packet.ends_with(INNER) { INNER.to_owned() } else { packet });
            heard.extend(said);
        }
        Ok(heard)
    }

    /// Returns how many packets the rules have dropped that say `note`.
    fn counted(&self, note: &str) -> Result<u64, Error> {
        let counters = ask(self.cluster, &["policy", "counters"])?;
        let lines = counters.lines().filter(|line| line.trim_end().ends_with(note));
        Ok(lines.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).sum())
    }
}

/// Returns what waits at a socket.
fn drained(ear: &UdpSocket) -> Result<Vec<String>, Error> {
    let failed = |error| Error::program("listener", error);
    ear.set_nonblocking(true).map_err(failed)?;
    let mut heard = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(len) = ear.recv(&mut buffer) {
        heard.push(String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned());
    }
    Ok(heard)
}

/// Opens a pod's network.
pub(super) fn inside(cluster: &Cluster, pod: &RunningPod) -> Result<Netns, Error> {
    let pid = cluster.node(&pod.node)?.pid();
    Ok(Netns::open(Path::new(&format!("/proc/{pid}/root/run/netns/{}", pod.pod.container)))?)
}
