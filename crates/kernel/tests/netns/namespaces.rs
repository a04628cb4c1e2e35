//! Facts about namespaces.

use std::path::Path;

use kernel::{Netns, netns, sysctl};

use crate::sandbox::Sandbox;

#[tokio::test]
async fn runs_inside_and_leaves_the_caller_where_it_was() {
    let sandbox = Sandbox::new().await;
    let here = Netns::current().unwrap().id().unwrap();
    let there = sandbox.netns.run(|| Netns::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(there, sandbox.netns.id().unwrap());
    assert_ne!(there, here);
    assert_eq!(Netns::current().unwrap().id().unwrap(), here);
}

#[tokio::test]
async fn a_panic_inside_leaves_the_caller_where_it_was() {
    let sandbox = Sandbox::new().await;
    let here = Netns::current().unwrap().id().unwrap();
    let run = || sandbox.netns.run(|| std::panic::resume_unwind(Box::new("as intended")));
    let panicked: Result<Result<(), _>, _> =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(panicked.is_err());
    assert_eq!(Netns::current().unwrap().id().unwrap(), here);
}

#[tokio::test]
async fn sysctls_belong_to_the_namespace() {
    let sandbox = Sandbox::new().await;
    let name = "net/ipv4/conf/lo/arp_announce";
    let before = sysctl::read(name).unwrap();
    sandbox.sysctl(name, "2");
    assert_eq!(sandbox.netns.run(|| sysctl::read(name)).unwrap().unwrap(), "2");
    assert_eq!(sysctl::read(name).unwrap(), before);
}

#[tokio::test]
async fn a_name_is_given_once_and_removed_once() {
    let name = format!("kernel-test-{}-once", std::process::id());
    Netns::create(&name).unwrap();
    let again = Netns::create(&name);
    let removed = (Netns::remove(&name).unwrap(), Netns::remove(&name).unwrap());
    assert!(matches!(again, Err(netns::Error::Exists { .. })), "{again:?}");
    assert_eq!(removed, (true, false));
}

#[test]
fn refuses_what_is_no_namespace() {
    let open = |path: &str| Netns::open(Path::new(path)).unwrap_err();
    assert!(open("/var/run/netns/kernel-test-none").is_missing());
    assert!(matches!(open("/etc/passwd"), netns::Error::NotNetns { .. }));
    assert!(matches!(open("/proc/self/ns/mnt"), netns::Error::NotNetns { .. }));
    for wrong in ["", "..", "a/b", ".hidden", "a b"] {
        assert!(matches!(Netns::named(wrong), Err(netns::Error::InvalidName { .. })), "{wrong}");
    }
}
