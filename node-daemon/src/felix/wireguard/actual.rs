//! Reading the kernel's side of a WireGuard device, and changing it.

use ::kernel::netlink::{self, AddrScope, Netlink, RouteFilter};
use ::kernel::wireguard::{self, Device, PrivateKey, Settings, Wireguard};
use model::desired::RouteProtocol;
use model::net::Family;

use super::Place;
use super::plan::{Actual, Step, is_ours};

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Links, addresses, routes or rules.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Keys or peers.
    #[error(transparent)]
    Wireguard(#[from] wireguard::Error),
    /// A link of somebody else is in the way.
    #[error(
        "link {0} is there but no WireGuard device: delete it, or set another name with \
         wireguardInterfaceName in FelixConfiguration"
    )]
    Taken(String),
    /// No random numbers.
    #[error("no random numbers for a key: {0}")]
    Random(#[from] getrandom::Error),
}

/// The sockets to the kernel; that of WireGuard is opened when it is first needed, since
/// that loads the module.
#[derive(Debug)]
pub(super) struct Kernel {
    netlink: Netlink,
    wireguard: Option<Wireguard>,
}

impl Kernel {
    pub(super) const fn new(netlink: Netlink) -> Self {
        Self { netlink, wireguard: None }
    }

    fn wireguard(&mut self) -> Result<&mut Wireguard, Error> {
        let open = match self.wireguard.take() {
            Some(open) => open,
            None => Wireguard::open()?,
        };
        Ok(self.wireguard.insert(open))
    }

    /// Reads what there is of ours.
    pub(super) async fn read(&mut self, place: &Place, family: Family) -> Result<Actual, Error> {
        let mut actual = Actual::default();
        let rules = self.netlink.rules(family).await?;
        actual.rules = rules.into_iter().filter(|rule| is_ours(place, rule)).collect();
        if let Some(link) = self.netlink.link(&place.name).await? {
            if link.kind.as_deref() != Some("wireguard") {
                return Err(Error::Taken(place.name.to_string()));
            }
            let addrs = self.netlink.addrs_of(link.index).await?.into_iter();
            let of_family = addrs.filter(|found| Family::of(found.addr.addr()) == family);
            let global = of_family.filter(|found| found.scope == AddrScope::Global);
            actual.addrs = global.map(|found| found.addr).collect();
            actual.device = self.device(place)?;
            actual.link = Some(link);
        }
        let filter = RouteFilter {
            table: place.table,
            families: [family].into(),
            protocols: [RouteProtocol::CALICO].into(),
        };
        let routes = self.netlink.routes(&filter).await?.into_iter();
        // A kernel without strict checking lists other tables, too.
        let of_table = routes.filter(|route| route.table == place.table);
        actual.routes = of_table.map(|route| (route.dst, route)).collect();
        Ok(actual)
    }

    fn device(&mut self, place: &Place) -> Result<Device, Error> {
        match self.wireguard()?.device(&place.name) {
            Err(error) if error.is_missing() => Ok(Device::default()),
            read => Ok(read?),
        }
    }

    /// Makes one change.
    pub(super) async fn apply(&mut self, place: &Place, step: &Step) -> Result<(), Error> {
        let set = |settings| (place.name.clone(), settings);
        let (name, settings) = match step {
            Step::AddLink(mtu) => return Ok(self.netlink.add_wireguard(&place.name, *mtu).await?),
            Step::SetMtu(link, mtu) => return Ok(self.netlink.set_link_mtu(*link, *mtu).await?),
            Step::AddAddr(link, addr) => return Ok(self.netlink.add_addr(*link, *addr).await?),
            Step::DeleteAddr(link, addr) => {
                return Ok(self.netlink.delete_addr(*link, *addr).await.map(drop)?);
            }
            Step::SetUp(link) => return Ok(self.netlink.set_link_up(*link).await?),
            Step::AddRule(rule) => return Ok(self.netlink.add_rule(rule).await?),
            Step::DeleteRule(rule) => return Ok(self.netlink.delete_rule(rule).await.map(drop)?),
            Step::DeleteLink => {
                return Ok(self.netlink.delete_link(&place.name).await.map(drop)?);
            }
            Step::Routes(changes) => {
                let done = self.netlink.apply_routes(changes).await?;
                return done.into_iter().try_for_each(|done| Ok(done?));
            }
            Step::Peers(changes) => {
                return Ok(self.wireguard()?.change_peers(&place.name, changes)?);
            }
            Step::Look => return Ok(()),
            Step::MakeKey => {
                let private_key = Some(new_key()?);
                set(Settings { private_key, ..Settings::default() })
            }
            Step::SetMark(mark) => set(Settings { mark: Some(*mark), ..Settings::default() }),
            Step::SetPort(port) => {
                set(Settings { listen_port: Some(*port), ..Settings::default() })
            }
        };
        Ok(self.wireguard()?.set(&name, &settings)?)
    }
}

/// Makes a key that nobody has seen.
fn new_key() -> Result<PrivateKey, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(PrivateKey::of_random(bytes))
}
