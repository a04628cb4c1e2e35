//! GoBGP in the namespace of the peers, at 192.0.2.4 and `fd00::4`.

use std::fmt::Write as _;
use std::process::{Child, Command as Program, Stdio};

use serde_json::Value;

use super::lab::{Lab, Rules, poll, run};

/// A running gobgpd.
pub(crate) struct GoBgp {
    process: Child,
    netns: String,
}

impl GoBgp {
    pub(crate) fn start(lab: &Lab, rules: &Rules) -> Self {
        let config = lab.path("gobgp.toml");
        std::fs::write(&config, configuration(rules)).unwrap();
        let process = Program::new("ip")
            .args(["netns", "exec", lab.peers(), "gobgpd", "--pprof-disable", "-f"])
            .arg(&config)
            .args(["--api-hosts", "127.0.0.1:50051"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start gobgpd: needs root, iproute2 and `apt-get install gobgpd`");
        let gobgp = Self { process, netns: lab.peers().to_owned() };
        poll("gobgpd answers (is it installed?)", || {
            let answer = gobgp.try_ask(&["global"]);
            if answer.is_null() { Err("nothing".to_owned()) } else { Ok(()) }
        });
        let add = ["global", "rib", "add"];
        let marks = ["community", "64512:400", "large-community", "64512:4:4"];
        gobgp.command(&[&add[..], &["10.244.4.0/26", "nexthop", "192.0.2.4"], &marks].concat());
        let v6 = ["fd00:244:4::/122", "nexthop", "fd00::4", "-a", "ipv6"];
        gobgp.command(&[&add[..], &v6].concat());
        gobgp
    }

    fn command(&self, words: &[&str]) -> String {
        let client = ["netns", "exec", &self.netns, "gobgp", "-u", "127.0.0.1"];
        run("ip", &[&client[..], words].concat())
    }

    fn try_ask(&self, words: &[&str]) -> Value {
        let output = Program::new("ip")
            .args(["netns", "exec", &self.netns, "gobgp", "-u", "127.0.0.1", "-j"])
            .args(words)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Asks until the answer, as JSON text, has all of `texts`.
    pub(crate) fn wait_for(&self, words: &[&str], texts: &[&str]) {
        poll(&format!("GoBGP's {words:?} says {texts:?}"), || {
            let answer = self.try_ask(words).to_string();
            if texts.iter().all(|text| answer.contains(text)) { Ok(()) } else { Err(answer) }
        });
    }
}

impl Drop for GoBgp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(rules: &Rules) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"192.0.2.4\"\n\
         local-address-list = [\"192.0.2.4\", \"fd00::4\"]\n",
        rules.asn
    );
    for (family, ours, theirs) in
        [("ipv4", "192.0.2.1", "192.0.2.4"), ("ipv6", "fd00::1", "fd00::4")]
    {
        let password = rules.password.unwrap_or_default();
        let is_near = rules.is_near;
        write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{ours}\"\npeer-as = 64512\n\
             auth-password = \"{password}\"\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
             [neighbors.transport.config]\nlocal-address = \"{theirs}\"\n\
             [neighbors.ttl-security.config]\nenabled = {is_near}\nttl-min = 255\n\
             [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
             afi-safi-name = \"{family}-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n\
             [neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n"
        )
        .unwrap();
    }
    text
}
