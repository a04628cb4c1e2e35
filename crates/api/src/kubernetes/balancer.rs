//! Service of type `LoadBalancer`: which addresses it asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use model::net::Family;
use model::service::BalancerRequest;

use super::service::{balancer_addrs, families};
use super::{annotation, faulty, id};
use crate::Invalid;
use crate::annotations::{BALANCER_ADDRS, BALANCER_IPV4_POOLS, BALANCER_IPV6_POOLS};
use crate::invalid::{Fault, addr};

/// Reads what a Service asks of a load balancer's address management.
///
/// An address is asked for by annotation or, if there is none, by `spec.loadBalancerIP`.
/// Differs from Calico: that field counts, since who sets it wants no other address.
///
/// # Errors
///
/// [`Invalid`] for an annotation or an address that cannot be read, or that contradicts the
/// Service's families.
pub fn balancer_request(object: &Service) -> Result<BalancerRequest, Invalid> {
    read(object).map_err(|fault| faulty("Service", &object.metadata, fault))
}

fn read(object: &Service) -> Result<BalancerRequest, Fault> {
    let spec = object.spec.clone().unwrap_or_default();
    let families = families(&spec)?;
    let mut pools = BTreeMap::new();
    for (family, name) in [(Family::V4, BALANCER_IPV4_POOLS), (Family::V6, BALANCER_IPV6_POOLS)] {
        if let Some(names) = list(object, name)? {
            pools.insert(family, names);
        }
    }
    let addrs = if let Some(texts) = list(object, BALANCER_ADDRS)? {
        addrs(&annotated(BALANCER_ADDRS), &texts, &families)?
    } else {
        let text = spec.load_balancer_ip.filter(|text| !text.is_empty());
        addrs("spec.loadBalancerIP", text.as_slice(), &families)?
    };
    Ok(BalancerRequest {
        id: id(&object.metadata),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        is_balanced: spec.type_.as_deref() == Some("LoadBalancer"),
        class: spec.load_balancer_class,
        families,
        addrs,
        pools,
        published: balancer_addrs(object)?,
    })
}

fn annotated(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// Reads an annotation that is a list of texts in JSON; `None` if it is absent.
fn list(object: &Service, name: &str) -> Result<Option<Vec<String>>, Fault> {
    let Some(text) = annotation(&object.metadata, name) else { return Ok(None) };
    let problem = "is no list of texts in JSON: use a form such as [\"one\"]";
    let list: Vec<String> =
        serde_json::from_str(text).map_err(|_| Fault::new(annotated(name), text, problem))?;
    Ok((!list.is_empty()).then_some(list))
}

fn addrs(field: &str, texts: &[String], families: &[Family]) -> Result<Vec<IpAddr>, Fault> {
    let mut addrs: Vec<IpAddr> = Vec::new();
    for text in texts {
        let one = addr(field, text)?;
        let family = Family::of(one);
        if !families.contains(&family) {
            let problem = format!("is of {family}, which is not in spec.ipFamilies: remove it");
            return Err(Fault::new(field, text, problem));
        }
        if addrs.iter().any(|other| Family::of(*other) == family) {
            let problem = format!("is a second address of {family}: ask for one of each family");
            return Err(Fault::new(field, text, problem));
        }
        addrs.push(one);
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(
        annotations: &serde_json::Value,
        spec: &serde_json::Value,
    ) -> Result<BalancerRequest, String> {
        let object: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "annotations": annotations},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "lb"}]}},
        }))
        .unwrap();
        balancer_request(&object).map_err(|error| error.to_string())
    }

    #[test]
    fn pools_and_addresses_are_asked_for_by_annotation() {
        let annotations = json!({
            "projectcalico.org/ipv4pools": "[\"public\", \"192.0.2.0/24\"]",
            "projectcalico.org/loadBalancerIPs": "[\"fd00::7\", \"192.0.2.9\"]",
        });
        let spec = json!({
            "type": "LoadBalancer", "ipFamilies": ["IPv6", "IPv4"],
            "loadBalancerClass": "calico", "loadBalancerIP": "192.0.2.1",
        });
        let request = asked(&annotations, &spec).unwrap();
        assert!(request.is_balanced && request.is_particular());
        assert_eq!(request.class.as_deref(), Some("calico"));
        assert_eq!(request.families, [Family::V6, Family::V4]);
        let pools = vec!["public".to_owned(), "192.0.2.0/24".to_owned()];
        assert_eq!(request.pools, BTreeMap::from([(Family::V4, pools)]));
        let addrs: Vec<String> = request.addrs.iter().map(ToString::to_string).collect();
        assert_eq!(addrs, ["fd00::7", "192.0.2.9"]);
        assert_eq!(request.published, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn without_families_they_follow_from_the_addresses_in_the_cluster() {
        let spec = json!({"type": "LoadBalancer", "clusterIPs": ["fd00:1::1", "10.96.0.1"]});
        assert_eq!(asked(&json!({}), &spec).unwrap().families, [Family::V6, Family::V4]);
        let spec = json!({"type": "LoadBalancer", "clusterIP": "None"});
        assert_eq!(asked(&json!({}), &spec).unwrap().families, [Family::V4]);
    }

    #[test]
    fn the_field_counts_where_there_is_no_annotation() {
        let spec = json!({"type": "LoadBalancer", "loadBalancerIP": "192.0.2.1"});
        let request = asked(&json!({}), &spec).unwrap();
        assert_eq!(request.addrs, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_annotation() {
        let spec = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"]});
        for (name, value, problem) in [
            ("ipv4pools", "public", "is no list of texts in JSON"),
            ("loadBalancerIPs", "[\"fd00::7\"]", "is of IPv6"),
            ("loadBalancerIPs", "[\"192.0.2.1\", \"192.0.2.2\"]", "is a second address"),
            ("loadBalancerIPs", "[\"192.0.2.1/32\"]", "is no address"),
        ] {
            let name = format!("projectcalico.org/{name}");
            let annotations = json!({name.clone(): value});
            let error = asked(&annotations, &spec).unwrap_err();
            assert!(error.starts_with("Service shop/web: "), "{error}");
            assert!(error.contains(&name) && error.contains(problem), "{error}");
        }
    }
}
