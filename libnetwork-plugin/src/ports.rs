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

/// Reads the ports that Docker wants published.
///
/// # Errors
///
/// [`Error::Wrong`] for what cannot be published, with what to write instead.
pub(crate) fn read(bindings: &[PortBinding]) -> Result<Vec<Published>, Error> {
    let mut ports = Vec::new();
    for binding in bindings {
        let protocol = match binding.protocol {
            6 => "tcp",
            17 => "udp",
            132 => "sctp",
            other => return Err(Error::wrong(format!("protocol {other} has no ports"))),
        };
        let port = binding.port;
        if binding.host_port == 0 {
            let text = format!(
                "port {port}/{protocol} has no port of the host, and Docker cannot be told one that \
                 a plugin chooses: name it, as in --publish 8080:{port}"
            );
            return Err(Error::wrong(text));
        }
        if binding.host_port_end > binding.host_port {
            let text = format!(
                "port {port}/{protocol} has a range of the host's ports to choose from, which \
                 driver calico does not do: name one"
            );
            return Err(Error::wrong(text));
        }
        let host_ip: Option<IpAddr> = match binding.host_ip.as_str() {
            "" => None,
            text => {
                let wrong = |_| Error::wrong(format!("`{text}` is no address to publish at"));
                Some(text.parse().map_err(wrong)?).filter(|addr: &IpAddr| !addr.is_unspecified())
            }
        };
        let host_port = binding.host_port;
        ports.push(Published { protocol: protocol.to_owned(), host_ip, host_port, port });
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

/// Fails if another endpoint publishes one of these ports.
///
/// # Errors
///
/// [`Error::Wrong`] with the port.
pub(crate) fn check_free(
    id: &str,
    ports: &[Published],
    endpoints: &BTreeMap<String, Endpoint>,
) -> Result<(), Error> {
    let others = endpoints.iter().filter(|(other, _)| *other != id);
    let taken: Vec<&Published> = others.flat_map(|(_, endpoint)| &endpoint.ports).collect();
    let clashes = |one: &Published, other: &Published| {
        let is_same_place = one.host_ip.is_none() || other.host_ip.is_none();
        one.protocol == other.protocol
            && one.host_port == other.host_port
            && (is_same_place || one.host_ip == other.host_ip)
    };
    match ports.iter().find(|port| taken.iter().any(|other| clashes(port, other))) {
        None => Ok(()),
        Some(Published { host_port, protocol, .. }) => Err(Error::wrong(format!(
            "port {host_port}/{protocol} of the host is published for another container"
        ))),
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
        let ports = read(&[binding(6, "", 8080), binding(17, "192.0.2.1", 53)]).unwrap();
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

    #[test]
    fn what_cannot_be_published_is_said() {
        let range = PortBinding { host_port_end: 8090, ..binding(6, "", 8080) };
        for (wrong, expected) in [
            (binding(6, "", 0), "--publish 8080:80"),
            (binding(1, "", 80), "has no ports"),
            (binding(6, "x", 80), "is no address"),
            (range, "name one"),
        ] {
            let error = read(&[wrong]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // Docker repeats what is published at all addresses of both families.
        let both = [binding(6, "0.0.0.0", 80), binding(6, "::", 80)];
        assert_eq!(read(&both).unwrap().len(), 1);
    }

    #[test]
    fn a_port_leads_to_one_container() {
        let ports = |host: &str| read(&[binding(6, host, 80)]).unwrap();
        let endpoints = BTreeMap::from([("0a".to_owned(), endpoint(ports("192.0.2.1")))]);
        assert!(check_free("0a", &ports("192.0.2.1"), &endpoints).is_ok(), "asked again");
        assert!(check_free("0b", &ports("192.0.2.2"), &endpoints).is_ok());
        for host in ["192.0.2.1", ""] {
            let error = check_free("0b", &ports(host), &endpoints).unwrap_err().to_string();
            assert!(error.contains("port 80/tcp of the host"), "{error}");
        }
    }
}
