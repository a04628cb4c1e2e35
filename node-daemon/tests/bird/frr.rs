//! FRR's bgpd in the namespace of the peers, at 192.0.2.3 and `fd00::3`.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};

use serde_json::Value;

use super::lab::{Lab, Rules, poll, run};

const ADDRS: [&str; 2] = ["192.0.2.3", "fd00::3"];

/// A running bgpd.
pub(crate) struct Frr {
    process: Child,
    dir: PathBuf,
}

impl Frr {
    pub(crate) fn start(lab: &Lab, rules: &Rules) -> Self {
        let dir = lab.path("frr");
        let _ = std::fs::create_dir(&dir);
        // bgpd gives up its rights and then makes its sockets here.
        for path in [dir.as_path(), dir.parent().unwrap()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let config = dir.join("bgpd.conf");
        std::fs::write(&config, configuration(rules)).unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let process = Program::new("ip")
            .args(["netns", "exec", lab.peers(), "/usr/lib/frr/bgpd", "-n", "-f"])
            .arg(&config)
            .args(["-z", &path("zserv"), "--vty_socket", dir.to_str().unwrap()])
            .args(["-i", &path("bgpd.pid"), "-l", ADDRS[0], "-l", ADDRS[1]])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start bgpd: needs root, iproute2 and `apt-get install frr`");
        let frr = Self { process, dir };
        poll("bgpd answers (is frr installed?)", || {
            let socket = frr.dir.join("bgpd.vty");
            if socket.exists() { Ok(()) } else { Err(format!("no {}", socket.display())) }
        });
        frr
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
        let _ = self.process.kill();
        let _ = self.process.wait();
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
