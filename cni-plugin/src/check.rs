//! CHECK: does the result of an ADD still hold?

use std::net::IpAddr;

use cni::result::{Interface, Ip, Success};
use cni::{Error, ErrorCode};
use kernel::netlink::Link;
use model::net::Cidr;

use crate::call::Call;
use crate::delegate;
use crate::plan::Plan;
use crate::wire::{Ends, Found};
use crate::wishes::delegate_config_to_release;

/// Compares the kernel with `prevResult` and asks the IPAM plugin to do the same.
///
/// # Errors
///
/// [`ErrorCode::CheckFailed`] with every difference.
pub(crate) async fn run(call: &Call<'_>) -> Result<(), Error> {
    if !call.config.version.has_check() {
        let message = format!("CHECK needs cniVersion 0.4.0 or newer, not {}", call.config.version);
        return Err(Error::new(ErrorCode::IncompatibleVersion, message));
    }
    let previous = call.config.prev_result.as_ref().ok_or_else(|| {
        let message =
            "network configuration has no `prevResult`: CHECK needs the result of the ADD";
        Error::new(ErrorCode::InvalidConfig, message)
    })?;
    let netns = call.netns.ok_or_else(|| {
        Error::new(ErrorCode::InvalidEnvironment, "CHECK needs CNI_NETNS: the runtime must set it")
    })?;
    let ends = Ends::open(netns)?;
    let if_name = &call.attachment.if_name;
    let found = ends.find(&call.host_name, if_name).await.map_err(|error| failed(&error))?;
    let Found::Pair(pair) = found else {
        let message = format!("veth {} with peer {if_name} is gone", call.host_name);
        return Err(failed(&Error::new(ErrorCode::CheckFailed, message)));
    };
    let expected = Expected::of(previous, call);
    // Who is taken out of a VRF, or put into another, loses the routes: so the one that it is in
    // says where they have to be.
    let vrf = ends.vrf_above(&call.host_name).await.map_err(|error| failed(&error))?;
    let vrf = vrf.as_ref().map(|(_, device)| device);
    let plan = Plan::new(call.config, &call.host_name, if_name, expected.addrs, vrf)?;
    let mut differences = ends.differences(&plan, &pair).await?;
    differences.extend(differing(expected.container, &pair.container));
    differences.extend(differing(expected.host, &pair.host));
    differences.extend(ends.lost_routes(&expected.routes).await?);
    call.trace.end_phase("compare");
    if !differences.is_empty() {
        return Err(failed(&Error::new(ErrorCode::CheckFailed, differences.join("; "))));
    }
    let Some(name) = call.ipam_type() else { return Ok(()) };
    let config = delegate_config_to_release(call.config.raw().expose());
    delegate::tell(name, &call.delegate("CHECK"), &config, None).await
}

/// What the ADD said of this interface, as far as it is in the previous result.
struct Expected<'a> {
    addrs: Vec<IpAddr>,
    routes: Vec<Cidr>,
    container: Option<&'a Interface>,
    host: Option<&'a Interface>,
}

impl<'a> Expected<'a> {
    fn of(previous: &'a Success, call: &Call<'_>) -> Self {
        let is_ours = |interface: &Interface| {
            !interface.sandbox.is_empty() && interface.name == call.attachment.if_name.as_str()
        };
        let is_host = |interface: &&Interface| {
            interface.sandbox.is_empty() && interface.name == call.host_name.as_str()
        };
        let index = previous.interfaces.iter().position(is_ours);
        let is_its = |ip: &&Ip| ip.interface.is_none() || ip.interface == index;
        Self {
            addrs: previous.ips.iter().filter(is_its).map(|ip| ip.address.addr()).collect(),
            routes: previous.routes.iter().map(|route| route.dst).collect(),
            container: index.and_then(|index| previous.interfaces.get(index)),
            host: previous.interfaces.iter().find(is_host),
        }
    }
}

/// Says how a link differs from what the result says of it; older versions do not tell the MTU.
fn differing(expected: Option<&Interface>, link: &Link) -> Vec<String> {
    let Some(expected) = expected else { return Vec::new() };
    let mut differences = Vec::new();
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !expected.mac.is_empty() && !expected.mac.eq_ignore_ascii_case(&mac) {
        differences.push(format!("{} has MAC address {mac} and not {}", link.name, expected.mac));
    }
    if let Some(mtu) = expected.mtu.filter(|mtu| *mtu != link.mtu.0) {
        differences.push(format!("{} has MTU {} and not {mtu}", link.name, link.mtu.0));
    }
    differences
}

fn failed(error: &Error) -> Error {
    let message = "the container's network is no longer what ADD made: recreate the container";
    Error::new(ErrorCode::CheckFailed, message).with_details(error.to_string())
}
