//! Looks at the node: reads files, asks the kernel, the CNI plugin and other nodes, changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::daemon_status::{self, DaemonStatus};
use cni::conflist::ConfigList;
use cni::{Error, NetworkConfig};
use kernel::process::Program;
use serde_json::{Map, Value, json};

use super::paths;
use super::rules::{Facts, File, Lock};
use super::token::Validity;
use super::tunnels;

/// How long the plugin may take: longer than it gives the API server.
const PATIENCE: Duration = Duration::from_secs(100);
/// The most that it may say.
const MAX_OUTPUT: u64 = 1 << 20;
/// Where the plugin reads the MTU of pods.
const MTU_FILE: &str = "/var/lib/calico/mtu";
/// What the kernel must do for pods to reach anything.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// Looks at everything.
pub(super) async fn gather(config_dir: &Path, plugin_dir: &Path) -> Facts {
    let lists = lists(config_dir);
    let mut facts = Facts {
        config_dir: config_dir.display().to_string(),
        plugin_dir: plugin_dir.display().to_string(),
        forwarding: forwarding(),
        closed: takeover::look().await.closed,
        now: jiff::Timestamp::now().as_second(),
        ..Facts::default()
    };
    match paths::look().await {
        Ok(ways) => facts.ways = ways,
        Err(problem) => facts.ways_problem = Some(problem),
    }
    match tunnels::look().await {
        Ok(tunnels) => facts.tunnels = tunnels,
        Err(problem) => facts.tunnels_problem = Some(problem),
    }
    let first = lists.iter().find_map(|(name, text)| {
        let list = ConfigList::parse(text.as_ref().ok()?.as_bytes()).ok()?;
        let calico = list.plugins.iter().find(|plugin| plugin.plugin_type == "calico")?.clone();
        Some((name.clone(), list, calico))
    });
    if let Some((name, list, calico)) = first {
        let stdin = list.execution_config(&calico, &Map::new(), None);
        let config = NetworkConfig::parse(stdin.to_string().as_bytes());
        let ipam = config.as_ref().ok().and_then(|config| config.ipam.as_ref());
        let wanted = list.plugins.iter().map(|plugin| plugin.plugin_type.clone());
        let wanted = wanted.chain(ipam.map(|ipam| ipam.plugin_type.clone()));
        facts.missing_programs =
            wanted.filter(|name| !is_program(&plugin_dir.join(name))).collect();
        if let Ok(config) = &config {
            look_around(config, &mut facts);
        }
        let is_there = !facts.missing_programs.iter().any(|name| name == "calico");
        if is_there {
            facts.status = Some(status(plugin_dir, stdin).await);
        }
        facts.chosen = Some(name);
    }
    facts.lists = lists;
    facts
}

/// Looks at what the configuration of the plugin names.
fn look_around(config: &NetworkConfig, facts: &mut Facts) {
    if let Some(path) = &config.kubernetes.kubeconfig {
        facts.kubeconfig = Some(file(path));
        facts.token = fs::read_to_string(path).ok().as_deref().and_then(Validity::of_kubeconfig);
    }
    facts.mtu = (config.mtu.is_none()).then(|| file(Path::new(MTU_FILE)));
    facts.lock = lock(&config.ipam_lock_file);
    let status = config.endpoint_status_dir.parent().map(|dir| dir.join(daemon_status::FILE));
    let status = status.and_then(|path| fs::read_to_string(path).ok());
    let status = status.and_then(|text| serde_json::from_str::<DaemonStatus>(&text).ok());
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    facts.daemon = status.zip(daemon_status::uptime(&uptime));
}

/// Returns the files in which a runtime looks for networks, in its order, with what they hold.
fn lists(dir: &Path) -> Vec<(String, Result<String, String>)> {
    let is_list = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conflist" | "conf" | "json"))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_list).collect();
    paths.sort();
    let read = |path: &PathBuf| fs::read_to_string(path).map_err(|error| error.to_string());
    paths.iter().map(|path| (path.display().to_string(), read(path))).collect()
}

fn file(path: &Path) -> File {
    let looked = fs::metadata(path).and_then(|data| fs::read(path).map(|_| data));
    File {
        path: path.display().to_string(),
        mode: looked.as_ref().ok().map(|data| data.permissions().mode() & 0o7777),
        problem: looked.err().map(|error| error.to_string()),
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Returns who holds the lock of address management, if somebody does at this moment.
fn lock(path: &Path) -> Option<Lock> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = holder(&locks, inode)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let age = daemon_status::uptime(&uptime).zip(started(&stat));
    Some(Lock {
        path: path.display().to_string(),
        pid,
        program: name.trim().to_owned(),
        seconds: age.map_or(0, |(now, then)| now.saturating_sub(then)),
    })
}

/// Finds who holds a lock on a file in the lines of `/proc/locks`; those who wait have an arrow.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    let inode = inode.to_string();
    locks
        .lines()
        .find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let kind = words.next()?;
            let (pid, place) = (words.nth(2)?, words.next()?);
            (kind == "FLOCK" && place.rsplit(':').next() == Some(inode.as_str()))
                .then(|| pid.parse())
        })?
        .ok()
}

/// Returns when a process started, in seconds since the machine did, from its `/proc/PID/stat`.
fn started(stat: &str) -> Option<u64> {
    // The program's name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: u64 = rest.split(' ').nth(19)?.parse().ok()?;
    // The kernel's USER_HZ is 100 on every architecture that we build for.
    ticks.checked_div(100)
}

fn forwarding() -> BTreeMap<String, String> {
    let read = |name: &str| Some((name.to_owned(), kernel::sysctl::read(name).ok()?));
    FORWARDING.into_iter().filter_map(read).collect()
}

/// Asks the plugin as a runtime would.
async fn status(plugin_dir: &Path, mut config: Value) -> Result<(), Error> {
    if let Some(object) = config.as_object_mut() {
        // Older versions have no STATUS; the plugin is the same.
        object.insert("cniVersion".to_owned(), json!("1.1.0"));
        object.remove("log_file_path");
    }
    let set = |(name, value): (&str, &Path)| (OsString::from(name), value.as_os_str().to_owned());
    let environment = [("CNI_COMMAND", Path::new("STATUS")), ("CNI_PATH", plugin_dir)];
    let (path, environment) = (plugin_dir.join("calico"), environment.map(set).into());
    let stdin = config.to_string();
    let program = Program {
        path: &path,
        arguments: &[],
        environment: &environment,
        stdin: stdin.as_bytes(),
        output_limit: MAX_OUTPUT,
        timeout: PATIENCE,
    };
    let failed = |why: String| Error::new(cni::ErrorCode::Delegate, why);
    let output = program.run().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::from_json(&output.stdout)
        .unwrap_or_else(|| failed("the plugin failed and said nothing".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 77 00:1a:4242 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 812 00:1a:4242 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 900 00:1a:4242 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 5 00:1a:42 0 EOF\n";
        assert_eq!(holder(locks, 4242), Some(812));
        assert_eq!(holder(locks, 42), Some(5));
        assert_eq!(holder(locks, 1), None);
    }

    #[test]
    fn names_of_programs_may_hold_anything() {
        let stat = "812 (a) b (c) S 1 812 812 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 35000 0";
        assert_eq!(started(stat), Some(350));
        assert_eq!(started(""), None);
    }
}
