//! Environments that are read, and those that are refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::golden;

/// Reads `NAME=value` lines, without their `CNI_`.
fn read(lines: &str) -> Result<Environment, InvalidEnvironment> {
    let variables: BTreeMap<String, OsString> = lines
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (format!("CNI_{name}"), value.into()))
        .collect();
    Environment::read(|name| variables.get(name).cloned())
}

const ADD: &str = "COMMAND=ADD CONTAINERID=c1 NETNS=/run/netns/a IFNAME=eth0";

#[test]
fn add_needs_container_namespace_and_interface() {
    let environment = read(&format!("{ADD} PATH=/opt/cni/bin:/usr/lib/cni")).unwrap();
    assert_eq!(environment.path, [Path::new("/opt/cni/bin"), Path::new("/usr/lib/cni")]);
    let Request::Add(attachment, netns) = environment.request else { panic!("not an ADD") };
    assert_eq!(attachment.container_id.as_str(), "c1");
    assert_eq!(attachment.if_name.as_str(), "eth0");
    assert_eq!(netns.path(), Path::new("/run/netns/a"));
    assert_eq!(attachment.args.pod, None);
}

#[test]
fn del_does_without_a_namespace() {
    let request = read("COMMAND=DEL CONTAINERID=c1 IFNAME=eth0").unwrap().request;
    assert!(matches!(request, Request::Del(_, None)));
}

#[test]
fn the_others_need_little() {
    assert_eq!(read("COMMAND=VERSION").unwrap().request, Request::Version);
    assert_eq!(read("COMMAND=STATUS").unwrap().request, Request::Status);
    assert_eq!(read("COMMAND=GC PATH=/opt/cni/bin").unwrap().request, Request::Gc);
}

#[test]
fn the_pod_comes_from_the_arguments() {
    let args = "ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0.x;\
                K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1;IP=10.0.0.5/32,fd00::5";
    let Request::Add(attachment, _) = read(&format!("{ADD} {args}")).unwrap().request else {
        panic!("not an ADD")
    };
    let pod = attachment.args.pod.clone().unwrap();
    assert_eq!(pod.name.to_string(), "ns/web-0.x");
    assert_eq!(pod.uid.as_deref(), Some("u-1"));
    assert_eq!(format!("ARGS={}", attachment.args), args);
    assert_eq!(attachment.args.get("K8S_POD_INFRA_CONTAINER_ID"), Some("c1"));
    let addrs: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
    assert_eq!(attachment.args.addrs, addrs);
}

#[test]
fn wrong_variables_are_named() {
    golden::check("environment/wrong.txt", |lines| read(lines).unwrap_err().to_string());
    assert!(read("").is_err());
    let long = format!("{ADD} ARGS=K8S_POD_NAMESPACE={};K8S_POD_NAME=a", "n".repeat(64));
    assert!(read(&long).is_err());
}

#[test]
fn text_must_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let error = Environment::read(|_| Some(OsString::from_vec(vec![0xff]))).unwrap_err();
    assert_eq!(error, InvalidEnvironment::NotText("CNI_COMMAND"));
}
