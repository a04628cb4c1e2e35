//! A node: a network namespace with an uplink, in which everything runs, and its containers.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::Netns;

/// How many namespaces were made.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A network namespace that goes when it is dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) netns: Netns,
}

impl Namespace {
    pub(crate) fn new(purpose: &str) -> Self {
        // Tests of one process run side by side.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("cni-test-{}-{number}-{purpose}", std::process::id());
        let _ = Netns::remove(&name);
        Self { netns: Netns::create(&name).unwrap(), name }
    }

    /// Makes a namespace with an uplink and default routes, as a node has them.
    pub(crate) fn node() -> Self {
        let node = Self::new("node");
        for line in [
            "link set lo up",
            "link add uplink type veth peer name fabric",
            "link set fabric up",
            "link set uplink up",
            "addr add 192.0.2.1/24 dev uplink",
            "addr add 2001:db8::1/64 dev uplink nodad",
            "route add default via 192.0.2.254",
            "route add default via 2001:db8::ffff",
        ] {
            node.ip(line);
        }
        node
    }

    /// Runs ip(8) in the namespace and returns what it prints.
    pub(crate) fn ip(&self, line: &str) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn path(&self) -> String {
        self.netns.path().display().to_string()
    }

    /// Returns everything that a call could leave: links, addresses and routes.
    pub(crate) fn state(&self) -> String {
        let links = self.ip("-brief link show");
        // A link's state and flags change by themselves.
        let names = links.lines().filter_map(|line| line.split_whitespace().next());
        let names: Vec<_> = names.collect();
        let routes =
            ["-4 route show table all", "-6 route show table main"].map(|line| self.ip(line));
        format!("{}\n{}", names.join("\n"), routes.join("\n"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Netns::remove(&self.name);
    }
}
