//! What Docker asks of drivers, and what it is answered: the remote protocols of libnetwork.
//!
//! Docker writes `null` for what is empty, and leaves out what it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Options that Docker, and whoever made a network or container, hands to a driver.
pub(crate) type Options = Map<String, Value>;

/// Where labels, options and answers of Docker name the gateway.
pub(crate) const GATEWAY: &str = "com.docker.network.gateway";
/// Where a request for an address says what it is for.
pub(crate) const ADDRESS_TYPE: &str = "RequestAddressType";
/// Where a request for an address says which Ethernet address the container has.
pub(crate) const MAC: &str = "com.docker.network.endpoint.macaddress";
/// Where Docker says which ports it is to publish.
pub(crate) const PORT_MAP: &str = "com.docker.network.portmap";

/// `NetworkDriver.CreateNetwork`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID", default)]
    pub(crate) network: String,
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub(crate) options: Options,
    #[serde(rename = "IPv4Data", default, deserialize_with = "nullable")]
    pub(crate) ipv4: Vec<IpamData>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "nullable")]
    pub(crate) ipv6: Vec<IpamData>,
}

/// One range of a network.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct IpamData {
    #[serde(rename = "Pool", default, deserialize_with = "nullable")]
    pub(crate) pool: String,
    #[serde(rename = "Gateway", default, deserialize_with = "nullable")]
    pub(crate) gateway: String,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CreateEndpoint {
    #[serde(rename = "NetworkID", default)]
    pub(crate) network: String,
    #[serde(rename = "EndpointID", default)]
    pub(crate) endpoint: String,
    #[serde(rename = "Interface", default, deserialize_with = "nullable")]
    pub(crate) interface: Interface,
}

/// An endpoint's interface; what is empty is the driver's to choose.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Interface {
    #[serde(rename = "Address", default, deserialize_with = "nullable")]
    pub(crate) address: String,
    #[serde(rename = "AddressIPv6", default, deserialize_with = "nullable")]
    pub(crate) address_v6: String,
    #[serde(rename = "MacAddress", default, deserialize_with = "nullable")]
    pub(crate) mac: String,
}

/// `NetworkDriver.DeleteNetwork`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct DeleteNetwork {
    #[serde(rename = "NetworkID", default)]
    pub(crate) network: String,
}

/// All that names one endpoint: `Join`, `Leave`, `DeleteEndpoint`, `EndpointOperInfo`, and the two
/// about what is reached from outside.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct OfEndpoint {
    #[serde(rename = "NetworkID", default)]
    pub(crate) network: String,
    #[serde(rename = "EndpointID", default)]
    pub(crate) endpoint: String,
    /// Of `Join` alone: the container's network namespace.
    #[serde(rename = "SandboxKey", default, deserialize_with = "nullable")]
    pub(crate) sandbox: String,
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub(crate) options: Options,
}

/// A port that is to be published.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PortBinding {
    /// 6, 17 or 132.
    #[serde(rename = "Proto", default)]
    pub(crate) protocol: u8,
    /// The container's.
    #[serde(rename = "Port", default)]
    pub(crate) port: u16,
    #[serde(rename = "HostIP", default, deserialize_with = "nullable")]
    pub(crate) host_ip: String,
    /// 0 is any.
    #[serde(rename = "HostPort", default)]
    pub(crate) host_port: u16,
    /// The last of a range.
    #[serde(rename = "HostPortEnd", default)]
    pub(crate) host_port_end: u16,
}

/// `IpamDriver.RequestPool`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RequestPool {
    #[serde(rename = "Pool", default, deserialize_with = "nullable")]
    pub(crate) pool: String,
    #[serde(rename = "SubPool", default, deserialize_with = "nullable")]
    pub(crate) sub_pool: String,
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(rename = "V6", default)]
    pub(crate) is_v6: bool,
}

/// `IpamDriver.ReleasePool`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ReleasePool {
    #[serde(rename = "PoolID", default)]
    pub(crate) pool: String,
}

/// `IpamDriver.RequestAddress` and `IpamDriver.ReleaseAddress`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct OfAddress {
    #[serde(rename = "PoolID", default)]
    pub(crate) pool: String,
    #[serde(rename = "Address", default, deserialize_with = "nullable")]
    pub(crate) address: String,
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub(crate) options: BTreeMap<String, String>,
}

/// Go writes `null` for empty maps, lists and pointers.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_docker_leaves_out_or_writes_as_null_is_empty() {
        let request: CreateNetwork =
            serde_json::from_value(json!({"NetworkID": "n", "Options": null, "IPv6Data": null}))
                .unwrap();
        assert!(request.options.is_empty() && request.ipv4.is_empty() && request.ipv6.is_empty());
        let request: CreateEndpoint =
            serde_json::from_value(json!({"EndpointID": "e", "Interface": null})).unwrap();
        assert_eq!(request.interface.address, "");
    }
}
