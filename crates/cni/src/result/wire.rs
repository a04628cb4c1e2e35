//! Results as JSON.

use std::net::IpAddr;

use model::net::{Family, InterfaceAddr};
use serde_json::{Map, Value, json};

use super::{Dns, Interface, InvalidResult, Ip, Route, Success};
use crate::version::Version;

type Object = Map<String, Value>;

/// Writes a result in the form of `version`.
pub(super) fn write(result: &Success, version: Version) -> Object {
    let mut object = Object::new();
    object.insert("cniVersion".into(), json!(version.as_str()));
    if version < Version::V0_3_0 {
        for (family, key) in [(Family::V4, "ip4"), (Family::V6, "ip6")] {
            if let Some(ip) = result.ips_of(family).next() {
                object.insert(key.into(), old_ip(result, ip, family));
            }
        }
    } else {
        let interfaces = result.interfaces.iter().map(|each| interface(each, version));
        let ips = result.ips.iter().map(|each| ip(each, version));
        let routes = result.routes.iter().map(|each| route(each, version));
        put_list(&mut object, "interfaces", interfaces.collect());
        put_list(&mut object, "ips", ips.collect());
        put_list(&mut object, "routes", routes.collect());
    }
    object.insert("dns".into(), dns(&result.dns));
    object
}

/// Before 0.3.0 there is one address of each family, and its routes are with it.
fn old_ip(result: &Success, ip: &Ip, family: Family) -> Value {
    let mut object = Object::new();
    object.insert("ip".into(), json!(ip.address.to_string()));
    put(&mut object, "gateway", ip.gateway.map(|gateway| gateway.to_string()));
    let routes = result.routes.iter().filter(|route| route.dst.family() == family);
    let routes = routes.map(|each| route(each, Version::V0_2_0));
    put_list(&mut object, "routes", routes.collect());
    Value::Object(object)
}

fn interface(interface: &Interface, version: Version) -> Value {
    let mut object = Object::new();
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    object.insert("name".into(), json!(interface.name));
    put(&mut object, "mac", text(&interface.mac));
    put(&mut object, "sandbox", text(&interface.sandbox));
    if version >= Version::V1_1_0 {
        put(&mut object, "mtu", interface.mtu);
        put(&mut object, "socketPath", text(&interface.socket_path));
        put(&mut object, "pciID", text(&interface.pci_id));
    }
    Value::Object(object)
}

fn ip(ip: &Ip, version: Version) -> Value {
    let mut object = Object::new();
    if version < Version::V1_0_0 {
        let family = Family::of(ip.address.addr()).number();
        object.insert("version".into(), json!(family.to_string()));
    }
    put(&mut object, "interface", ip.interface);
    object.insert("address".into(), json!(ip.address.to_string()));
    put(&mut object, "gateway", ip.gateway.map(|gateway| gateway.to_string()));
    Value::Object(object)
}

fn route(route: &Route, version: Version) -> Value {
    let mut object = Object::new();
    object.insert("dst".into(), json!(route.dst.to_string()));
    put(&mut object, "gw", route.gateway.map(|gateway| gateway.to_string()));
    if version >= Version::V1_1_0 {
        put(&mut object, "mtu", route.mtu);
        put(&mut object, "advmss", route.advmss);
        put(&mut object, "priority", route.priority);
        put(&mut object, "table", route.table);
        put(&mut object, "scope", route.scope);
    }
    Value::Object(object)
}

fn dns(dns: &Dns) -> Value {
    let mut object = Object::new();
    let list = |list: &[String]| list.iter().map(|text| json!(text)).collect();
    put_list(&mut object, "nameservers", list(&dns.nameservers));
    put(&mut object, "domain", Some(dns.domain.as_str()).filter(|domain| !domain.is_empty()));
    put_list(&mut object, "search", list(&dns.search));
    put_list(&mut object, "options", list(&dns.options));
    Value::Object(object)
}

fn put(object: &mut Object, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

fn put_list(object: &mut Object, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(key.to_owned(), Value::Array(list));
    }
}

/// Reads a result in the form of `version`.
pub(super) fn read(object: &Object, version: Version) -> Result<Success, InvalidResult> {
    let root = Node { path: String::new(), object };
    let mut result = Success { dns: read_dns(&root)?, ..Success::default() };
    if version < Version::V0_3_0 {
        for key in ["ip4", "ip6"] {
            let Some(node) = root.object(key)? else { continue };
            let address = node.addr("ip")?;
            let gateway = node.gateway("gateway")?;
            result.ips.push(Ip { address, gateway, interface: None });
            result.routes.append(&mut node.list("routes", read_route)?);
        }
        return Ok(result);
    }
    result.interfaces = root.list("interfaces", read_interface)?;
    result.ips = root.list("ips", read_ip)?;
    result.routes = root.list("routes", read_route)?;
    let count = result.interfaces.len();
    let dangling = result.ips.iter().filter_map(|ip| ip.interface).find(|index| *index >= count);
    match dangling {
        // IPAM plugins list no interfaces, so whatever index they give is meaningless.
        Some(index) if count > 0 => Err(InvalidResult::Value {
            path: "ips[].interface".to_owned(),
            value: index.to_string(),
            expected: "the index of a listed interface",
        }),
        _ => Ok(result),
    }
}

fn read_interface(node: &Node<'_>) -> Result<Interface, InvalidResult> {
    Ok(Interface {
        name: node.text("name")?,
        mac: node.text("mac")?,
        mtu: node.number("mtu")?,
        sandbox: node.text("sandbox")?,
        socket_path: node.text("socketPath")?,
        pci_id: node.text("pciID")?,
    })
}

fn read_ip(node: &Node<'_>) -> Result<Ip, InvalidResult> {
    // Some plugins write -1 for "none".
    let is_unset = node.object.get("interface").and_then(Value::as_i64) == Some(-1);
    let interface = if is_unset { None } else { node.number("interface")? };
    Ok(Ip {
        address: node.addr("address")?,
        gateway: node.gateway("gateway")?,
        interface: interface.and_then(|index| usize::try_from(index).ok()),
    })
}

fn read_route(node: &Node<'_>) -> Result<Route, InvalidResult> {
    let dst: InterfaceAddr = node.addr("dst")?;
    Ok(Route {
        gateway: node.gateway("gw")?,
        mtu: node.number("mtu")?,
        advmss: node.number("advmss")?,
        priority: node.number("priority")?,
        table: node.number("table")?,
        scope: node.number("scope")?,
        ..Route::to(dst.network())
    })
}

fn read_dns(root: &Node<'_>) -> Result<Dns, InvalidResult> {
    let Some(node) = root.object("dns")? else { return Ok(Dns::default()) };
    Ok(Dns {
        nameservers: node.texts("nameservers")?,
        domain: node.text("domain")?,
        search: node.texts("search")?,
        options: node.texts("options")?,
    })
}

/// An object of the result, and the path that leads to it.
struct Node<'a> {
    path: String,
    object: &'a Object,
}

impl<'a> Node<'a> {
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong(&self, key: &str, expected: &'static str) -> InvalidResult {
        let value = self.value(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
        InvalidResult::Value { path: self.path_of(key), value, expected }
    }

    fn text(&self, key: &str) -> Result<String, InvalidResult> {
        let Some(value) = self.value(key) else { return Ok(String::new()) };
        value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, "a text"))
    }

    fn number(&self, key: &str) -> Result<Option<u32>, InvalidResult> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn gateway(&self, key: &str) -> Result<Option<IpAddr>, InvalidResult> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.wrong(key, "an address"))
    }

    fn addr(&self, key: &str) -> Result<InterfaceAddr, InvalidResult> {
        self.text(key)?.parse().map_err(|_| self.wrong(key, "ADDRESS/LENGTH"))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, InvalidResult> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let text = |item: &Value| item.as_str().map(str::to_owned);
        let list = value.as_array().and_then(|list| list.iter().map(text).collect());
        list.ok_or_else(|| self.wrong(key, "a list of texts"))
    }

    fn object(&self, key: &str) -> Result<Option<Self>, InvalidResult> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.wrong(key, "an object"))?;
        Ok(Some(Self { path: self.path_of(key), object }))
    }

    fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Node<'_>) -> Result<T, InvalidResult>,
    ) -> Result<Vec<T>, InvalidResult> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.wrong(key, "a list of objects"))?;
        let items = list.iter().enumerate().map(|(index, item)| {
            let object = item.as_object().ok_or_else(|| self.wrong(key, "a list of objects"))?;
            read(&Node { path: format!("{}[{index}]", self.path_of(key)), object })
        });
        items.collect()
    }
}
