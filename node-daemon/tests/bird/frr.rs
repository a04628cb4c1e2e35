//! FRR's bgpd in the namespace of the peers, at 192.0.2.3 and `fd00::3`.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};

use serde_json::Value;

use super::lab::{Lab, Rules, poll, run};

const ADDRS: [&str; 2] = ["192.0.2.3", "fd00::3"];

/// A running bgpd, and zebra and bfdd where it needs them.
pub(crate) struct Frr {
    processes: Vec<Child>,
    dir: PathBuf,
}

impl Frr {
    pub(crate) fn start(lab: &Lab, rules: &Rules) -> Self {
        Self::start_with(lab, &configuration(rules), false)
    }

    /// Starts one whose only neighbour is whoever is on eth0, in any AS but its own, and the path to
    /// it watched.
    pub(crate) fn start_unnumbered(lab: &Lab, asn: u32) -> Self {
        let text = format!(
            "frr defaults traditional\nrouter bgp {asn}\n bgp router-id 192.0.2.3\n \
             no bgp ebgp-requires-policy\n no bgp network import-check\n \
             neighbor eth0 interface remote-as external\n neighbor eth0 timers connect 1\n \
             neighbor eth0 bfd\n \
             address-family ipv4 unicast\n  network 10.244.3.0/26\n exit-address-family\n \
             address-family ipv6 unicast\n  network fd00:244:3::/122\n  neighbor eth0 activate\n \
             exit-address-family\n"
        );
        Self::start_with(lab, &text, true)
    }

    fn start_with(lab: &Lab, text: &str, has_zebra: bool) -> Self {
        let dir = lab.path("frr");
        let _ = std::fs::create_dir(&dir);
        // bgpd gives up its rights and then makes its sockets here.
        for path in [dir.as_path(), dir.parent().unwrap()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let config = dir.join("bgpd.conf");
        std::fs::write(&config, text).unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let start = |daemon: &str, more: &[&str]| {
            Program::new("ip")
                .args(["netns", "exec", lab.peers(), &format!("/usr/lib/frr/{daemon}")])
                .args(["-z", &path("zserv"), "--vty_socket", dir.to_str().unwrap()])
                .args(["-i", &path(&format!("{daemon}.pid"))])
                .args(more)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start FRR: needs root, iproute2 and `apt-get install frr`")
        };
        let mut frr = Self { processes: Vec::new(), dir: dir.clone() };
        if has_zebra {
            frr.processes.push(start("zebra", &[]));
            frr.wait_for_socket("zserv");
            frr.processes.push(start("bfdd", &["--bfdctl", &path("bfdd.sock")]));
            frr.wait_for_socket("bfdd.vty");
        }
        let listen = ["-n", "-f", config.to_str().unwrap(), "-l", ADDRS[0], "-l", ADDRS[1]];
        // Link-local calls come to no address that is known before.
        let options = if has_zebra { &listen[1..3] } else { &listen[..] };
        frr.processes.push(start("bgpd", options));
        frr.wait_for_socket("bgpd.vty");
        frr
    }

    fn wait_for_socket(&self, name: &str) {
        poll("FRR answers (is frr installed?)", || {
            let socket = self.dir.join(name);
            if socket.exists() { Ok(()) } else { Err(format!("no {}", socket.display())) }
        });
    }

    pub(crate) fn ask(&self, command: &str) -> Value {
        let text = run("vtysh", &["--vty_socket", self.dir.to_str().unwrap(), "-c", command]);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Asks until the answer's value at `pointer` is as expected.
    pub(crate) fn wait_for(&self, command: &str, pointer: &str, expected: &Value) {
        poll(&format!("FRR's `{command}` has {expected} at {pointer}"), || {
            let answer = self.ask(command);
            if answer.pointer(pointer) == Some(expected) {
                return Ok(());
            }
            Err(answer.to_string())
        });
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn configuration(rules: &Rules) -> String {
    let asn = rules.asn;
    let mut text = format!(
        "frr defaults traditional\nrouter bgp {asn}\n bgp router-id 192.0.2.3\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n bgp graceful-restart\n"
    );
    for ours in ["192.0.2.1", "fd00::1"] {
        let mut neighbor = |line: &str| writeln!(text, " neighbor {ours} {line}").unwrap();
        neighbor("remote-as 64512");
        neighbor("timers connect 1");
        neighbor("capability extended-nexthop");
        if let Some(password) = rules.password {
            neighbor(&format!("password {password}"));
        }
        if rules.is_near {
            neighbor("ttl-security hops 1");
        }
    }
    let over_v6 = if rules.carries_v4_over_v6 { "fd00::1" } else { "192.0.2.1" };
    for (family, network, ours) in
        [("ipv4", "10.244.3.0/26", over_v6), ("ipv6", "fd00:244:3::/122", "fd00::1")]
    {
        write!(
            text,
            " address-family {family} unicast\n  network {network}\n  neighbor {ours} activate\n  \
             neighbor {ours} soft-reconfiguration inbound\n  \
             neighbor {ours} addpath-tx-all-paths\n  neighbor {ours} route-map OUT out\n \
             exit-address-family\n"
        )
        .unwrap();
    }
    text.push_str(
        "route-map OUT permit 10\n set community 64512:300 additive\n \
         set large-community 64512:3:3 additive\n",
    );
    text
}
