//! Published ports, and the way through Docker's own filter: by iptables, as Docker does it.
//!
//! Docker's own bridge publishes ports in its driver, so a driver beside it must do so, too. And
//! Docker lets nothing be forwarded that it does not know, but for what `DOCKER-USER` accepts:
//! there, packets of our containers pass, since Calico's policy decides about them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;

use model::net::Family;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::error::Error;
use crate::state::{Endpoint, Published};
use crate::wire::PortBinding;

/// The chain in which destinations are translated.
const DNAT: &str = "CALICO-DOCKER";
/// The chain in which sources are translated: of a container that calls its own published port,
/// and of the host's loopback addresses.
const SNAT: &str = "CALICO-DOCKER-SNAT";

/// The kernel's range for ports that nobody asks for by number, from which Docker chooses, too.
const RANGE: &str = "net/ipv4/ip_local_port_range";
/// What that is by default (ip-sysctl).
const DEFAULT_RANGE: (u16, u16) = (32_768, 60_999);

/// A port that Docker wants published.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Asked {
    protocol: &'static str,
    host_ip: Option<IpAddr>,
    port: u16,
    /// The first and the last port of the host that will do.
    host_ports: (u16, u16),
}

/// Reads the ports that Docker wants published; `range` is that from which to choose where no port
/// of the host is named.
///
/// # Errors
///
/// [`Error::Wrong`] for what cannot be published, with what to write instead.
pub(crate) fn read(bindings: &[PortBinding], range: (u16, u16)) -> Result<Vec<Asked>, Error> {
    let mut ports = Vec::new();
    for binding in bindings {
        let protocol = match binding.protocol {
            6 => "tcp",
            17 => "udp",
            132 => "sctp",
            other => return Err(Error::wrong(format!("protocol {other} has no ports"))),
        };
        let host_ip: Option<IpAddr> = match binding.host_ip.as_str() {
            "" => None,
            text => {
                let wrong = |_| Error::wrong(format!("`{text}` is no address to publish at"));
                Some(text.parse().map_err(wrong)?).filter(|addr: &IpAddr| !addr.is_unspecified())
            }
        };
        let host_ports = match (binding.host_port, binding.host_port_end) {
            (0, _) => range,
            (first, last) => (first, last.max(first)),
        };
        ports.push(Asked { protocol, host_ip, port: binding.port, host_ports });
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

/// Returns the range from which ports are chosen.
pub(crate) fn range() -> (u16, u16) {
    let text = kernel::sysctl::read(RANGE).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => DEFAULT_RANGE,
    }
}

/// Chooses a port of the host for each that is asked for: the first that no other endpoint has,
/// and that `is_free` says nobody on this host listens on.
///
/// # Errors
///
/// [`Error::Wrong`] with the port that cannot be had.
pub(crate) fn choose(
    id: &str,
    asked: &[Asked],
    endpoints: &BTreeMap<String, Endpoint>,
    is_free: impl Fn(&Published) -> bool,
) -> Result<Vec<Published>, Error> {
    let own = endpoints.get(id).map(|endpoint| endpoint.ports.as_slice()).unwrap_or_default();
    let others = endpoints.iter().filter(|(other, _)| *other != id);
    let taken: Vec<&Published> = others.flat_map(|(_, endpoint)| &endpoint.ports).collect();
    let mut chosen: Vec<Published> = Vec::new();
    for one in asked {
        let (first, last) = one.host_ports;
        let at = |host_port| Published {
            protocol: one.protocol.to_owned(),
            host_ip: one.host_ip,
            host_port,
            port: one.port,
        };
        // Docker asks again: what it was promised stays.
        let kept = own
            .iter()
            .find(|it| (first..=last).contains(&it.host_port) && **it == at(it.host_port));
        let is_choice = |port: &Published| {
            !taken.iter().copied().chain(&chosen).any(|other| clash(port, other)) && is_free(port)
        };
        let port = match kept {
            Some(kept) => kept.clone(),
            None => {
                (first..=last).map(at).find(is_choice).ok_or_else(|| unavailable(one, &taken))?
            }
        };
        chosen.push(port);
    }
    Ok(chosen)
}

fn clash(one: &Published, other: &Published) -> bool {
    let is_same_place = one.host_ip.is_none() || other.host_ip.is_none();
    one.protocol == other.protocol
        && one.host_port == other.host_port
        && (is_same_place || one.host_ip == other.host_ip)
}

fn unavailable(asked: &Asked, taken: &[&Published]) -> Error {
    let Asked { protocol, host_ports: (first, last), .. } = asked;
    if first != last {
        return Error::wrong(format!(
            "no port of {first} to {last}/{protocol} of the host is free: give others, or end who \
             has them"
        ));
    }
    let is_published =
        taken.iter().any(|other| other.host_port == *first && other.protocol == *protocol);
    let whom = if is_published { "published for another container" } else { "in use on the host" };
    Error::wrong(format!("port {first}/{protocol} of the host is {whom}: use another one"))
}

/// Does nobody on this host listen there?
pub(crate) fn is_unused(port: &Published) -> bool {
    let any: IpAddr = std::net::Ipv4Addr::UNSPECIFIED.into();
    let at = (port.host_ip.unwrap_or(any), port.host_port);
    match port.protocol.as_str() {
        "tcp" => std::net::TcpListener::bind(at).is_ok(),
        "udp" => std::net::UdpSocket::bind(at).is_ok(),
        _ => true,
    }
}

/// Returns the rules of a family, chain by chain, as iptables-save writes them.
fn rules(endpoints: &BTreeMap<String, Endpoint>, family: Family) -> Vec<String> {
    let (mut to, mut from) = (Vec::new(), Vec::new());
    for (id, endpoint) in endpoints {
        let addr = endpoint.addrs.iter().find(|addr| Family::of(**addr) == family);
        let Some(addr) = addr else { continue };
        for Published { protocol, host_ip, host_port, port } in &endpoint.ports {
            if host_ip.is_some_and(|host| Family::of(host) != family) {
                continue;
            }
            let bits = family.bits();
            let at = host_ip.map_or_else(String::new, |host| format!("-d {host}/{bits} "));
            let target = match addr {
                IpAddr::V4(addr) => format!("{addr}:{port}"),
                IpAddr::V6(addr) => format!("[{addr}]:{port}"),
            };
            to.push(format!(
                "-A {DNAT} {at}-p {protocol} -m {protocol} --dport {host_port} \
                 -m comment --comment calico-{id} -j DNAT --to-destination {target}"
            ));
            from.push(format!(
                "-A {SNAT} -s {addr}/{bits} -d {addr}/{bits} -p {protocol} -m {protocol} \
                 --dport {port} -j MASQUERADE"
            ));
        }
    }
    if family == Family::V4 && !to.is_empty() {
        from.push(format!("-A {SNAT} -s 127.0.0.0/8 -o cali+ -j MASQUERADE"));
    }
    to.into_iter().chain(from).collect()
}

/// Has the kernel publish exactly the ports of these endpoints.
///
/// # Errors
///
/// [`Error::Program`] with what iptables says.
pub(crate) async fn publish(endpoints: &BTreeMap<String, Endpoint>) -> Result<(), Error> {
    for family in Family::ALL {
        let wanted = rules(endpoints, family);
        let found = listed(family).await;
        if found.is_none() && wanted.is_empty() || found.as_ref() == Some(&wanted) {
            continue;
        }
        let rules = wanted.join("\n");
        // One commit: no packet sees a part of it.
        let text = format!("*nat\n:{DNAT} - [0:0]\n:{SNAT} - [0:0]\n{rules}\nCOMMIT\n");
        let restore = ["--noflush", "--wait"];
        run(program(family, Tool::Restore), &restore, &text).await?;
        let local = ["-m", "addrtype", "--dst-type", "LOCAL", "-j", DNAT];
        ensure(family, "nat", &["PREROUTING"], &local).await?;
        ensure(family, "nat", &["OUTPUT"], &local).await?;
        ensure(family, "nat", &["POSTROUTING"], &["-j", SNAT]).await?;
    }
    Ok(())
}

/// Returns our rules as they are, or `None` if there are no chains for them.
async fn listed(family: Family) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for chain in [DNAT, SNAT] {
        let list = ["--wait", "-t", "nat", "-S", chain];
        let text = run(program(family, Tool::Plain), &list, "").await.ok()?;
        let rules = text.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned);
        found.extend(rules);
    }
    Some(found)
}

/// Lets packets of our containers through Docker's filter, where it has one.
///
/// # Errors
///
/// [`Error::Program`] with what iptables says.
pub(crate) async fn pass_dockers_filter() -> Result<(), Error> {
    for family in Family::ALL {
        let list = ["--wait", "-t", "filter", "-S", "DOCKER-USER"];
        if run(program(family, Tool::Plain), &list, "").await.is_err() {
            // Docker filters nothing of this family, or does not run yet.
            continue;
        }
        for way in ["-i", "-o"] {
            ensure(family, "filter", &["DOCKER-USER", "1"], &[way, "cali+", "-j", "ACCEPT"])
                .await?;
        }
    }
    Ok(())
}

/// Puts a rule into a chain that lacks it: before the rule of a number, or at the end.
async fn ensure(family: Family, table: &str, place: &[&str], rule: &[&str]) -> Result<(), Error> {
    let chain = place.first().copied().unwrap_or_default();
    let base = ["--wait", "-t", table];
    let check = [&base[..], &["-C", chain], rule].concat();
    if run(program(family, Tool::Plain), &check, "").await.is_ok() {
        return Ok(());
    }
    let verb = if place.len() > 1 { "-I" } else { "-A" };
    let add = [&base[..], &[verb], place, rule].concat();
    run(program(family, Tool::Plain), &add, "").await.map(drop)
}

/// Which of the programs.
#[derive(Clone, Copy)]
enum Tool {
    Plain,
    Restore,
}

const fn program(family: Family, tool: Tool) -> &'static str {
    match (family, tool) {
        (Family::V4, Tool::Plain) => "iptables",
        (Family::V4, Tool::Restore) => "iptables-restore",
        (Family::V6, Tool::Plain) => "ip6tables",
        (Family::V6, Tool::Restore) => "ip6tables-restore",
    }
}

async fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |problem: String| Error::Program { program, problem };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("{error}: Docker needs it as well; install iptables")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing has ended already.
        drop(stdin.write_all(input.as_bytes()).await);
    }
    let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(format!("{}: {said}", arguments.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(protocol: u8, host_ip: &str, host_port: u16) -> PortBinding {
        PortBinding { protocol, port: 80, host_ip: host_ip.into(), host_port, host_port_end: 0 }
    }

    fn endpoint(ports: Vec<Published>) -> Endpoint {
        let addrs = ["10.0.0.5", "fd00::5"].map(|text| text.parse().unwrap()).into();
        Endpoint { addrs, ports, ..Endpoint::default() }
    }

    #[test]
    fn ports_are_translated_to_the_container_and_its_own_calls_come_back() {
        let wanted = [binding(6, "", 8080), binding(17, "192.0.2.1", 53)];
        let ports = chosen("0f", &wanted, &BTreeMap::new()).unwrap();
        let endpoints = BTreeMap::from([("0f".to_owned(), endpoint(ports))]);
        assert_eq!(
            rules(&endpoints, Family::V4),
            [
                "-A CALICO-DOCKER -p tcp -m tcp --dport 8080 -m comment --comment calico-0f \
                 -j DNAT --to-destination 10.0.0.5:80",
                "-A CALICO-DOCKER -d 192.0.2.1/32 -p udp -m udp --dport 53 -m comment --comment \
                 calico-0f -j DNAT --to-destination 10.0.0.5:80",
                "-A CALICO-DOCKER-SNAT -s 10.0.0.5/32 -d 10.0.0.5/32 -p tcp -m tcp --dport 80 \
                 -j MASQUERADE",
                "-A CALICO-DOCKER-SNAT -s 10.0.0.5/32 -d 10.0.0.5/32 -p udp -m udp --dport 80 \
                 -j MASQUERADE",
                "-A CALICO-DOCKER-SNAT -s 127.0.0.0/8 -o cali+ -j MASQUERADE",
            ]
        );
        let v6 = rules(&endpoints, Family::V6);
        assert_eq!(v6.len(), 2, "an IPv4 address of the host leads to no IPv6: {v6:?}");
        assert!(v6[0].ends_with("--to-destination [fd00::5]:80"));
        assert!(rules(&BTreeMap::new(), Family::V4).is_empty());
    }

    fn chosen(
        id: &str,
        bindings: &[PortBinding],
        endpoints: &BTreeMap<String, Endpoint>,
    ) -> Result<Vec<Published>, Error> {
        choose(id, &read(bindings, DEFAULT_RANGE)?, endpoints, |port| port.host_port != 32_768)
    }

    #[test]
    fn what_cannot_be_published_is_said() {
        for (wrong, expected) in [
            (binding(1, "", 80), "has no ports"),
            (binding(6, "x", 80), "is no address"),
            (binding(6, "", 32_768), "in use on the host"),
        ] {
            let error = chosen("0a", &[wrong], &BTreeMap::new()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // Docker repeats what is published at all addresses of both families.
        let both = [binding(6, "0.0.0.0", 80), binding(6, "::", 80)];
        assert_eq!(chosen("0a", &both, &BTreeMap::new()).unwrap().len(), 1);
    }

    #[test]
    fn a_port_that_is_not_named_is_chosen_and_kept() {
        let any = [binding(6, "", 0), binding(17, "", 0)];
        let mut endpoints = BTreeMap::new();
        for (id, expected) in [("0a", 32_769), ("0b", 32_770)] {
            let ports = chosen(id, &any, &endpoints).unwrap();
            let numbers: Vec<u16> = ports.iter().map(|port| port.host_port).collect();
            assert_eq!(numbers, [expected; 2], "{id}");
            endpoints.insert(id.to_owned(), endpoint(ports));
        }
        assert_eq!(chosen("0b", &any, &endpoints).unwrap(), endpoints["0b"].ports, "asked again");
        let range = [PortBinding { host_port_end: 32_770, ..binding(6, "", 32_768) }];
        let error = chosen("0c", &range, &endpoints).unwrap_err().to_string();
        assert!(error.contains("no port of 32768 to 32770/tcp"), "{error}");
        let range = [PortBinding { host_port_end: 32_771, ..binding(6, "", 32_768) }];
        assert_eq!(chosen("0c", &range, &endpoints).unwrap()[0].host_port, 32_771);
    }

    #[test]
    fn a_port_leads_to_one_container() {
        let ports = |id: &str, host: &str, endpoints: &BTreeMap<String, Endpoint>| {
            chosen(id, &[binding(6, host, 80)], endpoints)
        };
        let first = ports("0a", "192.0.2.1", &BTreeMap::new()).unwrap();
        let endpoints = BTreeMap::from([("0a".to_owned(), endpoint(first))]);
        assert!(ports("0a", "192.0.2.1", &endpoints).is_ok(), "asked again");
        assert!(ports("0b", "192.0.2.2", &endpoints).is_ok());
        for host in ["192.0.2.1", ""] {
            let error = ports("0b", host, &endpoints).unwrap_err().to_string();
            assert!(error.contains("port 80/tcp of the host is published"), "{error}");
        }
    }
}
