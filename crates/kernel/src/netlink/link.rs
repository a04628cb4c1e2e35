//! Links: what interfaces there are, and veth pairs (veth(4)).

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use model::desired::Vxlan;
use model::net::{IfIndex, IfName, MacAddr, Mtu};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoVeth, InfoVrf, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkMessage, State,
};
use rtnetlink::{
    LinkIpIp, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVrf, LinkVxlan, LinkWireguard,
};

use super::{Error, Netlink};
use crate::netns::Netns;

/// An interface, as the kernel describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its number, unique within its namespace and never used again there.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// The largest packet that it carries.
    pub mtu: Mtu,
    /// Was it set up by an administrator?
    pub is_up: bool,
    /// Does it carry packets (its other end is up, its cable is in)?
    pub is_running: bool,
    /// Is it the loopback interface?
    pub is_loopback: bool,
    /// What it is made of: `veth`, `bridge`, `vxlan`; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The number of its other end or of the link below, perhaps in another namespace.
    pub peer: Option<IfIndex>,
    /// What a VXLAN device is made of.
    pub vxlan: Option<VxlanLink>,
    /// The link that it is under: a bridge, or a VRF's device.
    pub master: Option<IfIndex>,
    /// The routing table of a VRF's device.
    pub vrf_table: Option<u32>,
    /// What people or programs have noted about it.
    pub alias: Option<String>,
}

/// A VXLAN device (RFC 7348), as the kernel describes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VxlanLink {
    /// The network's identifier.
    pub vni: u32,
    /// The UDP port that peers send to.
    pub port: u16,
    /// The address that packets are sent from; `None` leaves it to the kernel.
    pub local: Option<IpAddr>,
    /// Does it learn from packets where Ethernet addresses are?
    pub learns: bool,
}

/// A pair of veth links to be made: one end here, its peer in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// The name of the end in this socket's namespace.
    pub host_name: &'a IfName,
    /// Its Ethernet address.
    pub host_mac: MacAddr,
    /// The name of the other end.
    pub peer_name: &'a IfName,
    /// Its Ethernet address; `None` lets the kernel choose.
    pub peer_mac: Option<MacAddr>,
    /// The namespace that the other end is made in.
    pub peer_netns: &'a Netns,
    /// The MTU of both ends; `None` is the kernel's default, 1500 bytes.
    pub mtu: Option<Mtu>,
    /// The link that this end is put under: a VRF's device.
    pub master: Option<IfIndex>,
}

impl Netlink {
    /// Lists all links, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(skip_statistics());
        let found = self.dump("links", RouteNetlinkMessage::GetLink(message)).await?;
        let mut links = found.iter().filter_map(of_message).collect::<Result<Vec<_>, _>>()?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Returns the link called `name`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn link(&self, name: &IfName) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_name(name.as_str())
            .append_extra_attribute(skip_statistics())
            .build();
        self.get_link(message, || format!("link {name}")).await
    }

    /// Returns the link with that number, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn link_by_index(&self, index: IfIndex) -> Result<Option<Link>, Error> {
        let message =
            LinkUnspec::new_with_index(index.0).append_extra_attribute(skip_statistics()).build();
        self.get_link(message, || format!("link number {}", index.0)).await
    }

    /// Returns the link called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLink`] if there is none; else as for [`Netlink::link`].
    pub async fn require_link(&self, name: &IfName) -> Result<Link, Error> {
        self.link(name).await?.ok_or_else(|| Error::NoSuchLink { if_name: name.clone() })
    }

    /// Makes a veth pair in one request and sets this end up.
    ///
    /// The peer stays down: the kernel refuses (ENOTCONN) to set it up before its
    /// other end is there. Use [`Netlink::set_link_up`] in its namespace. So nothing can be
    /// received here before this end is under its master.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if either name is taken; [`Error`] if the kernel refuses.
    pub async fn add_veth(&self, veth: &VethSpec<'_>) -> Result<(), Error> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer_name.to_string())
            .setns_by_fd(veth.peer_netns.as_raw_fd());
        let mut host = LinkVeth::new(veth.host_name.as_str(), veth.peer_name.as_str())
            .address(veth.host_mac.0.to_vec())
            .up();
        if let Some(mac) = veth.peer_mac {
            peer = peer.address(mac.0.to_vec());
        }
        if let Some(Mtu(mtu)) = veth.mtu {
            peer = peer.mtu(mtu);
            host = host.mtu(mtu);
        }
        if let Some(IfIndex(master)) = veth.master {
            host = host.controller(master);
        }
        let host = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        let request = (RouteNetlinkMessage::NewLink(host), NLM_F_CREATE | NLM_F_EXCL);
        let object =
            || format!("veth {} peer {} in {}", veth.host_name, veth.peer_name, veth.peer_netns);
        self.request(request, "add", object).await.map(drop)
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn set_link_up(&self, index: IfIndex) -> Result<(), Error> {
        self.set_link(LinkUnspec::new_with_index(index.0).up().build(), "set up").await
    }

    /// Sets a link down.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn set_link_down(&self, index: IfIndex) -> Result<(), Error> {
        self.set_link(LinkUnspec::new_with_index(index.0).down().build(), "set down").await
    }

    /// Changes a link's Ethernet address.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn set_link_mac(&self, index: IfIndex, mac: MacAddr) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index.0).address(mac.0.to_vec()).build();
        self.set_link(message, "set the MAC address of").await
    }

    /// Changes the largest packet that a link carries.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn set_link_mtu(&self, index: IfIndex, mtu: Mtu) -> Result<(), Error> {
        self.set_link(LinkUnspec::new_with_index(index.0).mtu(mtu.0).build(), "set the MTU of")
            .await
    }

    /// Makes a WireGuard device without keys, peers or addresses; it is down.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if the name is taken; [`Error`] if the kernel refuses, as it does
    /// (EOPNOTSUPP) without the module `wireguard`.
    pub async fn add_wireguard(&self, name: &IfName, mtu: Mtu) -> Result<(), Error> {
        let message = LinkWireguard::new(name.as_str()).mtu(mtu.0).build();
        let request = (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        self.request(request, "add", || format!("WireGuard device {name}")).await.map(drop)
    }

    /// Gives a link another name; it may have to be down for that.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link, the name is taken or the kernel refuses.
    pub async fn rename_link(&self, index: IfIndex, name: &IfName) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index.0).name(name.to_string()).build();
        self.set_link(message, "rename").await
    }

    /// Deletes the link called `name` (and its peer); returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn delete_link(&self, name: &IfName) -> Result<bool, Error> {
        let message = LinkUnspec::new_with_name(name.as_str()).build();
        let request = (RouteNetlinkMessage::DelLink(message), 0);
        match self.request(request, "delete", || format!("link {name}")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get_link(
        &self,
        message: LinkMessage,
        object: impl FnOnce() -> String + Send,
    ) -> Result<Option<Link>, Error> {
        let request = (RouteNetlinkMessage::GetLink(message), 0);
        match self.request(request, "read", object).await {
            Ok(answer) => answer.as_ref().and_then(of_message).transpose(),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a VXLAN device that learns nothing, and sets it up.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if the name is taken; [`Error`] if the kernel refuses, as it does
    /// where another device has the same identifier and port.
    pub async fn add_vxlan(&self, name: &IfName, vxlan: &Vxlan, mtu: Mtu) -> Result<(), Error> {
        let mut link = LinkVxlan::new(name.as_str(), vxlan.vni)
            .port(vxlan.port)
            .append_info_data(InfoVxlan::Learning(false))
            .address(vxlan.mac.0.to_vec())
            .mtu(mtu.0)
            .up();
        link = match vxlan.local {
            IpAddr::V4(addr) => link.local(addr),
            IpAddr::V6(addr) => link.local6(addr),
        };
        let request = (RouteNetlinkMessage::NewLink(link.build()), NLM_F_CREATE | NLM_F_EXCL);
        let object = || format!("vxlan {name} id {} local {}", vxlan.vni, vxlan.local);
        self.request(request, "add", object).await.map(drop)
    }

    /// Changes where a VXLAN device sends from, and has it learn nothing.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses: some cannot do it, and the device must be made anew.
    pub async fn change_vxlan(&self, name: &IfName, local: IpAddr) -> Result<(), Error> {
        let link = LinkMessageBuilder::<LinkVxlan>::new(name.as_str())
            .append_info_data(InfoVxlan::Learning(false));
        let link = match local {
            IpAddr::V4(addr) => link.local(addr),
            IpAddr::V6(addr) => link.local6(addr),
        };
        let request = (RouteNetlinkMessage::NewLink(link.build()), 0);
        self.request(request, "change", || format!("vxlan {name} local {local}")).await.map(drop)
    }

    /// Has the kernel load its module for IP in IP, which brings a device `tunl0` of its own.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such module.
    pub async fn load_ipip(&self, name: &IfName) -> Result<(), Error> {
        let link = LinkIpIp::new(name.as_str()).build();
        let request = (RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
        match self.request(request, "add", || format!("ipip {name}")).await {
            // The module's own device has the name already.
            Err(error) if !error.is_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a VRF's device, which is down.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if the name is taken; [`Error`] if the kernel refuses, as it does
    /// (EOPNOTSUPP) without the module `vrf`.
    pub async fn add_vrf(&self, name: &IfName, table: u32) -> Result<(), Error> {
        let message = LinkVrf::new(name.as_str(), table).build();
        let request = (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        self.request(request, "add", || format!("VRF {name} table {table}")).await.map(drop)
    }

    /// Puts a link under another, or under none. A link that is put under a VRF's device, or taken
    /// from it, is set down and up again by the kernel, and loses its routes.
    ///
    /// # Errors
    ///
    /// [`Error`] if one of the links is not there or the kernel refuses.
    pub async fn set_master(&self, index: IfIndex, master: Option<IfIndex>) -> Result<(), Error> {
        let master = master.map_or(0, |master| master.0);
        let message = LinkUnspec::new_with_index(index.0).controller(master).build();
        self.set_link(message, "set the master of").await
    }

    /// Notes something about a link, which people see in `ip link`.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn set_link_alias(&self, index: IfIndex, alias: &str) -> Result<(), Error> {
        let alias = LinkAttribute::IfAlias(alias.to_owned());
        let message = LinkUnspec::new_with_index(index.0).append_extra_attribute(alias).build();
        self.set_link(message, "set the alias of").await
    }

    async fn set_link(&self, message: LinkMessage, action: &'static str) -> Result<(), Error> {
        let index = message.header.index;
        let request = (RouteNetlinkMessage::SetLink(message), 0);
        self.request(request, action, || format!("link number {index}")).await.map(drop)
    }
}

/// Spares the kernel and us a kilobyte of counters per link.
fn skip_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

fn of_message(message: &RouteNetlinkMessage) -> Option<Result<Link, Error>> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(of_link_message(link)),
        _ => None,
    }
}

/// Reads the kernel's description of a link.
pub(crate) fn of_link_message(message: &LinkMessage) -> Result<Link, Error> {
    let flags = message.header.flags;
    let mut link = Link {
        index: IfIndex(message.header.index),
        name: name_of(message)?,
        mac: None,
        mtu: Mtu(0),
        is_up: flags.contains(LinkFlags::Up),
        is_running: flags.contains(LinkFlags::LowerUp),
        is_loopback: flags.contains(LinkFlags::Loopback),
        kind: None,
        peer: None,
        vxlan: None,
        master: None,
        vrf_table: None,
        alias: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = Mtu(*mtu),
            LinkAttribute::Link(index) if *index != 0 => link.peer = Some(IfIndex(*index)),
            LinkAttribute::Controller(index) if *index != 0 => {
                link.master = Some(IfIndex(*index));
            }
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::OperState(state) => link.is_running &= *state != State::Down,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(kind);
                link.vxlan = infos.iter().find_map(vxlan);
                link.vrf_table = infos.iter().find_map(vrf_table);
            }
            _ => {}
        }
    }
    Ok(link)
}

fn name_of(message: &LinkMessage) -> Result<IfName, Error> {
    let malformed = |problem| Error::Malformed { table: "links", problem };
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    let name =
        name.ok_or_else(|| malformed(format!("link {} has no name", message.header.index)))?;
    name.parse().map_err(|_| malformed(format!("link name `{name}`")))
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn vrf_table(info: &LinkInfo) -> Option<u32> {
    let LinkInfo::Data(InfoData::Vrf(infos)) = info else { return None };
    infos.iter().find_map(|info| match info {
        InfoVrf::TableId(table) => Some(*table),
        _ => None,
    })
}

fn vxlan(info: &LinkInfo) -> Option<VxlanLink> {
    let LinkInfo::Data(InfoData::Vxlan(infos)) = info else { return None };
    let mut found = VxlanLink { vni: 0, port: 0, local: None, learns: false };
    for info in infos {
        match info {
            InfoVxlan::Id(vni) => found.vni = *vni,
            InfoVxlan::Port(port) => found.port = *port,
            InfoVxlan::Local(addr) => found.local = Some((*addr).into()),
            InfoVxlan::Local6(addr) => found.local = Some((*addr).into()),
            InfoVxlan::Learning(learns) => found.learns = *learns,
            _ => {}
        }
    }
    found.local = found.local.filter(|addr| !addr.is_unspecified());
    Some(found)
}
