//! `calicoctl node diags`: what somebody who helps wants to see of this node, in one archive.
//!
//! Nothing secret is in it: of the CNI configuration the values of secrets are left out, and the
//! kubeconfig is not taken.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::archive::Archive;
use crate::run::Verdict;

/// What is asked, and what the answer's file is called.
const COMMANDS: [(&str, &str); 24] = [
    ("date", "date"),
    ("hostname", "hostname"),
    ("uname", "uname -a"),
    ("uptime", "cat /proc/uptime /proc/loadavg"),
    ("ps", "ps auxww"),
    ("ip-link", "ip -details link show"),
    ("ip-addr", "ip address show"),
    ("ip-route", "ip -4 route show table all"),
    ("ip-6-route", "ip -6 route show table all"),
    ("ip-rule", "ip -4 rule show"),
    ("ip-6-rule", "ip -6 rule show"),
    ("ip-neigh", "ip neighbour show"),
    ("tc-qdisc", "tc qdisc show"),
    ("sockets", "ss -tunap"),
    ("nft", "nft --handle list ruleset"),
    ("iptables", "iptables-save -c"),
    ("ip6tables", "ip6tables-save -c"),
    ("ipset", "ipset list"),
    ("conntrack", "conntrack -S"),
    ("sysctl", "sysctl -a --pattern ^net"),
    ("dmesg", "dmesg"),
    ("bgp-status", "calico-node bgp status"),
    ("bgp-routes", "calico-node bgp routes"),
    ("check", "calicoctl check"),
];
/// Where logs are taken from, unless `--log-dir` says so.
const CNI_LOGS: &str = "cni";
/// Files that are taken as they are.
const FILES: [&str; 4] = [
    "/var/lib/calico/nodename",
    "/var/lib/calico/mtu",
    "/var/run/calico/node-status.json",
    "/etc/os-release",
];
/// Where the CNI configuration is.
const CNI_DIR: &str = "/etc/cni/net.d";
/// The most that is taken of one log, in bytes: its end.
const MAX_LOG: usize = 16 << 20;

/// Collects everything and says where it is.
pub(super) fn run(log_dir: &Path) -> Result<Verdict, Error> {
    let archive = Archive::begin("calico-diags")?;
    for (file, command) in COMMANDS {
        archive.ask(file, &command.split(' ').collect::<Vec<_>>())?;
    }
    for file in FILES {
        if let (Ok(text), Some(name)) = (fs::read(file), Path::new(file).file_name()) {
            archive.add(name, &text)?;
        }
    }
    configuration(&archive)?;
    logs(log_dir, &archive)?;
    archive.end()?;
    Ok(Verdict::Fine)
}

fn configuration(archive: &Archive) -> Result<(), Error> {
    for entry in fs::read_dir(CNI_DIR).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_list = path.extension().is_some_and(|extension| extension == "conflist");
        let text = fs::read_to_string(&path).ok().filter(|_| is_list);
        if let (Some(text), Some(name)) = (text, path.file_name()) {
            archive.add(name, without_secrets(&text).as_bytes())?;
        }
    }
    Ok(())
}

/// Returns a configuration with the values of its secrets left out.
fn without_secrets(text: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else {
        return "it is no JSON\n".to_owned();
    };
    hide(&mut value);
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn hide(value: &mut Value) {
    let is_secret = |key: &str| {
        ["token", "password", "secret", "key"].iter().any(|word| key.to_lowercase().contains(word))
    };
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                if is_secret(key) {
                    *value = Value::String("***".to_owned());
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn logs(log_dir: &Path, archive: &Archive) -> Result<(), Error> {
    let dirs = [log_dir.to_owned(), log_dir.join(CNI_LOGS)];
    for entry in dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if let (true, Ok(text)) = (is_file, fs::read(entry.path())) {
            let end = text.get(text.len().saturating_sub(MAX_LOG)..).unwrap_or_default();
            archive.add(Path::new("logs").join(entry.file_name()), end)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_at_home() {
        let text =
            r#"{"plugins":[{"policy":{"k8s_auth_token":"canary"},"etcd_key":"canary","mtu":1}]}"#;
        let shown = without_secrets(text);
        assert!(!shown.contains("canary") && shown.contains("\"mtu\": 1"), "{shown}");
        assert_eq!(without_secrets("canary"), "it is no JSON\n");
    }
}
