//! A working route table and tunnels in memory, for tests without privileges.
//!
//! The table behaves as the kernel does where callers can tell: routes need their link,
//! gateways must be within reach, a link takes its routes with it, and one
//! destination has one route of each metric. `tests/route_table.rs` holds it to that.

mod tunnels;

pub use tunnels::Tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::desired::{Route, RouteKey, RouteProtocol, RouteTarget};
use model::net::{Cidr, Family, IfName, InterfaceAddr};
use nix::errno::Errno;

use crate::netlink::{Error, Refusal};
use crate::route_table::{Change, RouteTable};

/// A route table in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    state: Arc<Mutex<State>>,
    protocols: BTreeSet<RouteProtocol>,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<IfName, BTreeSet<Cidr>>,
    routes: BTreeMap<RouteKey, Route>,
    refused: BTreeMap<Cidr, Errno>,
    applied: Vec<Change>,
}

impl Routes {
    /// Makes an empty table seen through a filter; no protocols means everybody's.
    #[must_use]
    pub fn new(protocols: impl IntoIterator<Item = RouteProtocol>) -> Self {
        Self { state: Arc::default(), protocols: protocols.into_iter().collect() }
    }

    /// Returns the same table seen through another filter.
    #[must_use]
    pub fn seen_by(&self, protocols: impl IntoIterator<Item = RouteProtocol>) -> Self {
        Self { state: self.state.clone(), protocols: protocols.into_iter().collect() }
    }

    /// Makes a link that is up, with these addresses.
    pub fn add_link(&self, name: IfName, addrs: &[InterfaceAddr]) {
        self.state().links.insert(name, addrs.iter().map(InterfaceAddr::network).collect());
    }

    /// Deletes a link and the routes that need it.
    pub fn delete_link(&self, name: &IfName) {
        let mut state = self.state();
        state.links.remove(name);
        let State { links, routes, .. } = &mut *state;
        routes.retain(|_, route| match &route.target {
            RouteTarget::Link(if_name) | RouteTarget::Tunnel(if_name, _) => if_name != name,
            RouteTarget::Blackhole => true,
            RouteTarget::Via(gateways) => gateways.iter().all(|addr| is_reachable(links, *addr)),
        });
    }

    /// Makes every write to `dst` fail with `errno` from now on.
    pub fn refuse(&self, dst: Cidr, errno: Errno) {
        self.state().refused.insert(dst, errno);
    }

    /// Lets writes to `dst` succeed again.
    pub fn allow(&self, dst: &Cidr) {
        self.state().refused.remove(dst);
    }

    /// Takes the list of changes that were asked for since the last call.
    #[must_use]
    pub fn take_applied(&self) -> Vec<Change> {
        std::mem::take(&mut self.state().applied)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere is no reason to hide what is in the table.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RouteTable for Routes {
    async fn list(&self) -> Result<BTreeMap<RouteKey, Route>, Error> {
        let is_seen =
            |route: &Route| self.protocols.is_empty() || self.protocols.contains(&route.protocol);
        let state = self.state();
        let seen = state.routes.iter().filter(|(_, route)| is_seen(route));
        Ok(seen.map(|(key, route)| (*key, route.clone())).collect())
    }

    async fn apply(&self, changes: &[Change]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut state = self.state();
        state.applied.extend_from_slice(changes);
        Ok(changes.iter().map(|change| state.apply(change)).collect())
    }
}

impl State {
    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        let refused = self.refused.get(&change.key().dst).copied();
        match change {
            Change::Upsert(key, route) => {
                self.check(route, *key)?;
                refuse(refused, "write", change)?;
                self.routes.insert(*key, route.clone());
            }
            Change::Delete(key, route) => {
                refuse(refused, "delete", change)?;
                let is_it = |found: &Route| {
                    let is_same_link = !matches!(route.target, RouteTarget::Link(_))
                        || !matches!(found.target, RouteTarget::Link(_))
                        || found.target == route.target;
                    found.protocol == route.protocol && is_same_link
                };
                if self.routes.get(key).is_some_and(is_it) {
                    self.routes.remove(key);
                }
            }
        }
        Ok(())
    }

    /// Refuses what the kernel would.
    fn check(&self, route: &Route, key: RouteKey) -> Result<(), Error> {
        let dst = key.dst;
        match &route.target {
            RouteTarget::Blackhole => Ok(()),
            RouteTarget::Link(if_name) | RouteTarget::Tunnel(if_name, _)
                if self.links.contains_key(if_name) =>
            {
                Ok(())
            }
            RouteTarget::Link(if_name) | RouteTarget::Tunnel(if_name, _) => {
                Err(Error::NoSuchLink { if_name: if_name.clone() })
            }
            RouteTarget::Via(gateways) => {
                let unwritable = |problem| Err(Error::Unwritable { dst: dst.to_string(), problem });
                if gateways.is_empty() {
                    return unwritable("it names no gateway");
                }
                if dst.family() == Family::V6 && gateways.iter().any(IpAddr::is_ipv4) {
                    return unwritable("a gateway must be of the destination's family");
                }
                let errno = match dst.family() {
                    Family::V4 => Errno::ENETUNREACH,
                    Family::V6 => Errno::EHOSTUNREACH,
                };
                let is_lost = !gateways.iter().all(|addr| is_reachable(&self.links, *addr));
                let change = Change::Upsert(key, route.clone());
                refuse(is_lost.then_some(errno), "write", &change)
            }
        }
    }
}

fn refuse(errno: Option<Errno>, action: &'static str, change: &Change) -> Result<(), Error> {
    match errno {
        None => Ok(()),
        Some(errno) => {
            Err(Refusal { action, object: format!("route {change}"), errno, detail: None }.into())
        }
    }
}

fn is_reachable(links: &BTreeMap<IfName, BTreeSet<Cidr>>, addr: IpAddr) -> bool {
    links.values().flatten().any(|network| network.contains(addr))
}
