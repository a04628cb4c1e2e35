//! What joins the nodes: one bridge, or a router with a subnet per node or per rack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Error;
use crate::cluster::Fabric;
use crate::node::Node;
use crate::process::ip;

/// The bridge's name, in the lab's own namespace.
pub const BRIDGE: &str = "fabric";
/// Where the API server is reached from all nodes.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The bridge's IPv6 address.
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Makes the lab's own end of the fabric.
pub(crate) fn make(fabric: Fabric) -> Result<(), Error> {
    ip(&["link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    let len = match fabric {
        Fabric::Bridge => 24,
        Fabric::Routed | Fabric::Racks => 32,
    };
    ip(&["address", "add", &format!("{SERVER}/{len}"), "dev", BRIDGE])?;
    if fabric == Fabric::Bridge {
        ip(&["address", "add", &format!("{SERVER_V6}/64"), "dev", BRIDGE, "nodad"])?;
    } else {
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let path = std::path::Path::new("/proc/sys").join(name);
            std::fs::write(&path, "1").map_err(Error::file(&path))?;
        }
    }
    Ok(())
}

/// Plugs a node in, gives it addresses and a way to everywhere; `number` counts from one.
pub(crate) fn connect(fabric: Fabric, node: &mut Node, number: u8) -> Result<(), Error> {
    if fabric == Fabric::Racks {
        return connect_to_rack(node, number);
    }
    let (port, pid) = (port(&node.name), node.pid().to_string());
    let peer = ["peer", "name", "eth0", "netns", &pid];
    ip(&[&["link", "add", &port, "type", "veth"], &peer[..]].concat())?;
    let v4 = match fabric {
        Fabric::Bridge => {
            ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
            Ipv4Addr::new(192, 0, 2, number.saturating_add(10))
        }
        Fabric::Routed | Fabric::Racks => {
            // One of the subnets of 198.18.0.0/15, for benchmarks of network devices (RFC 2544).
            let router = Ipv4Addr::new(198, 18, number, 1);
            ip(&["address", "add", &format!("{router}/24"), "dev", &port])?;
            ip(&["link", "set", &port, "up"])?;
            Ipv4Addr::new(198, 18, number, 10)
        }
    };
    node.run(&["ip", "address", "add", &format!("{v4}/24"), "dev", "eth0"])?;
    node.addrs = vec![v4.into()];
    if fabric == Fabric::Bridge {
        // 2001:db8::11 and on, as 192.0.2.11 and on.
        let v6 = u128::from(SERVER_V6).saturating_add(0xf).saturating_add(number.into());
        let v6 = Ipv6Addr::from(v6);
        node.run(&["ip", "address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"])?;
        node.addrs.push(v6.into());
    }
    node.run(&["ip", "link", "set", "eth0", "up"])?;
    let gateway = match fabric {
        Fabric::Bridge => SERVER,
        Fabric::Routed | Fabric::Racks => Ipv4Addr::new(198, 18, number, 1),
    };
    node.run(&["ip", "route", "add", "default", "via", &gateway.to_string()])?;
    Ok(())
}

/// Pulls a node's cable out: it may have gone with the node.
pub(crate) fn disconnect(node: &str) {
    drop(ip(&["link", "delete", &port(node)]));
}

/// How many nodes may find each other by themselves.
///
/// Linux keeps the neighbours of all network namespaces in one table, which takes 1024 entries
/// (`net.ipv4.neigh.default.gc_thresh3`) that are not permanent; when it is full, packets to
/// neighbours that it lacks are lost. Real nodes have a kernel each.
const STRANGERS: usize = 25;

/// Tells nodes of large clusters their neighbours' link addresses.
pub(crate) fn introduce(nodes: &[Node]) -> Result<(), Error> {
    if nodes.len() <= STRANGERS {
        return Ok(());
    }
    let mut known = Vec::new();
    for node in nodes {
        let text = node.run(&["ip", "-json", "link", "show", "eth0"])?;
        let links: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
        let link = links.pointer("/0/address").and_then(serde_json::Value::as_str);
        let link = link.ok_or_else(|| Error::wrong("a node without link address"))?.to_owned();
        known.push((node, link));
    }
    for node in nodes {
        let others = known.iter().filter(|(other, _)| other.name != node.name);
        let lines = others.flat_map(|(other, link)| {
            let line = move |addr: &IpAddr| {
                format!("neigh replace {addr} lladdr {link} dev eth0 nud permanent\n")
            };
            other.addrs.iter().map(line)
        });
        let script = "printf %s \"$1\" | ip -batch -";
        node.run(&["sh", "-c", script, "sh", &lines.collect::<String>()])?;
    }
    Ok(())
}

/// Plugs a node into the switch of its rack, two nodes to each; a router joins the racks.
fn connect_to_rack(node: &mut Node, number: u8) -> Result<(), Error> {
    let rack = number.saturating_add(1) / 2;
    let (switch, router) = (format!("rack-{rack}"), format!("198.18.{rack}.1"));
    let router_v6 = format!("2001:db8:{rack}::1");
    // The first of a rack brings its switch.
    if !number.is_multiple_of(2) {
        ip(&["link", "add", &switch, "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["address", "add", &format!("{router}/24"), "dev", &switch])?;
        ip(&["address", "add", &format!("{router_v6}/64"), "dev", &switch, "nodad"])?;
        ip(&["link", "set", &switch, "up"])?;
    }
    let (port, pid) = (port(&node.name), node.pid().to_string());
    let peer = ["peer", "name", "eth0", "netns", &pid];
    ip(&[&["link", "add", &port, "type", "veth"], &peer[..]].concat())?;
    ip(&["link", "set", &port, "master", &switch, "up"])?;
    let host = number.saturating_add(10);
    let v4 = Ipv4Addr::new(198, 18, rack, host);
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, rack.into(), 0, 0, 0, 0, host.into());
    node.addrs = vec![v4.into(), v6.into()];
    node.run(&["ip", "address", "add", &format!("{v4}/24"), "dev", "eth0"])?;
    node.run(&["ip", "address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"])?;
    node.run(&["ip", "link", "set", "eth0", "up"])?;
    node.run(&["ip", "route", "add", "default", "via", &router])?;
    node.run(&["ip", "-6", "route", "add", "default", "via", &router_v6]).map(drop)
}

/// Returns the name of the fabric's end of a node's cable.
pub(crate) fn port(node: &str) -> String {
    format!("port-{}", node.rsplit('-').next().unwrap_or(node))
}
