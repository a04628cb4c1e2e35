//! CHECK: does the result of an ADD still hold?

use cni::result::Success;
use cni::{Error, ErrorCode};

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
    let (addrs, mac) = expected(previous, call);
    let plan = Plan::new(call.config, &call.host_name, if_name, addrs)?;
    let mut differences = ends.differences(&plan, &pair).await?;
    if mac.is_some_and(|mac| pair.container.mac.map(|mac| mac.to_string()) != Some(mac)) {
        differences.push(format!("{if_name} has another MAC address"));
    }
    call.trace.end_phase("compare");
    if !differences.is_empty() {
        return Err(failed(&Error::new(ErrorCode::CheckFailed, differences.join("; "))));
    }
    let Some(name) = call.ipam_type() else { return Ok(()) };
    let config = delegate_config_to_release(call.config.raw().expose());
    delegate::tell(name, &call.delegate("CHECK"), &config).await
}

/// Returns the addresses and the Ethernet address that the ADD gave to this interface.
fn expected(previous: &Success, call: &Call<'_>) -> (Vec<std::net::IpAddr>, Option<String>) {
    let is_ours = |interface: &cni::result::Interface| {
        !interface.sandbox.is_empty() && interface.name == call.attachment.if_name.as_str()
    };
    let index = previous.interfaces.iter().position(is_ours);
    let ips = previous.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == index);
    let mac = index.and_then(|index| previous.interfaces.get(index)).map(|found| found.mac.clone());
    (ips.map(|ip| ip.address.addr()).collect(), mac.filter(|mac| !mac.is_empty()))
}

fn failed(error: &Error) -> Error {
    let message = "the container's network is no longer what ADD made: recreate the container";
    Error::new(ErrorCode::CheckFailed, message).with_details(error.to_string())
}
