//! What a container runtime does with CNI: the list of plugins called as libcni calls them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kernel::netns::Netns;
use serde_json::{Map, Value, json};

use super::attempt;
use super::echo::{self, Server};
use super::{CONFIG_DIR, PLUGIN_DIR, lock, sctp};
use crate::Error;
use crate::protocol::{Attached, Attempt, Pod, Reached, Trial};

/// The interface in the pod.
const IF_NAME: &str = "eth0";
/// Where results are kept for CHECK and DEL.
const CACHE_DIR: &str = "/var/lib/cni/results";

/// The pods of this node.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    /// Echo servers, by container id; they live as long as the pod.
    servers: Mutex<BTreeMap<String, Vec<Server>>>,
    /// Those of SCTP.
    sctp_servers: Mutex<BTreeMap<String, sctp::Server>>,
}

/// The network configuration list.
#[derive(Debug)]
struct ConfigList {
    version: String,
    name: String,
    plugins: Vec<Map<String, Value>>,
}

impl Runtime {
    /// Makes a pod's namespace, attaches it and lets it answer to probes.
    pub(super) fn add(&self, pod: &Pod) -> Result<Attached, Error> {
        let netns = self.netns(&pod.container).or_else(|_| self.prepare(&pod.container))?;
        let list = ConfigList::read()?;
        let started = Instant::now();
        let mut result = Value::Null;
        for plugin in &list.plugins {
            match list.call(plugin, "ADD", pod, &result) {
                Ok(next) => result = next,
                Err(error) => {
                    // libcni leaves this to the runtime, and runtimes do it.
                    drop(list.del(pod, &Value::Null));
                    drop(Netns::remove(&pod.container));
                    return Err(error);
                }
            }
        }
        let took_us = micros(started.elapsed());
        cache(pod, &result)?;
        let server = Server::start(&netns, echo::PORT)?;
        lock(&self.servers).insert(pod.container.clone(), vec![server]);
        Ok(Attached { addrs: addrs(&result), result, took_us })
    }

    /// Makes a pod's namespace.
    #[expect(clippy::unused_self, reason = "whose pods is said at the call")]
    pub(super) fn prepare(&self, container: &str) -> Result<Netns, Error> {
        let netns = Netns::create(container)?;
        netns.run(|| crate::process::ip(&["link", "set", "lo", "up"]))??;
        Ok(netns)
    }

    /// Detaches a pod and removes its namespace; returns how long the plugins took, in µs.
    pub(super) fn del(&self, pod: &Pod) -> Result<u64, Error> {
        let list = ConfigList::read()?;
        let result = cached(pod);
        let started = Instant::now();
        list.del(pod, &result)?;
        let took = micros(started.elapsed());
        self.silence(&pod.container);
        // A second DEL finds neither, as the specification allows.
        drop(std::fs::remove_file(cache_path(pod)));
        Netns::remove(&pod.container)?;
        Ok(took)
    }

    /// Asks the plugins if all is as ADD left it.
    pub(super) fn check(&self, pod: &Pod) -> Result<(), Error> {
        // The namespace must be there for anything to be as it was.
        self.netns(&pod.container)?;
        let list = ConfigList::read()?;
        let result = cached(pod);
        for plugin in &list.plugins {
            list.call(plugin, "CHECK", pod, &result)?;
        }
        Ok(())
    }

    /// Tries to reach `targets` from every pod at once.
    pub(super) fn probe(
        &self,
        targets: &[IpAddr],
        within: Duration,
    ) -> Result<Vec<Reached>, Error> {
        let containers: Vec<String> = lock(&self.servers).keys().cloned().collect();
        std::thread::scope(|scope| {
            let probes: Vec<_> = containers
                .into_iter()
                .map(|container| {
                    scope.spawn(move || {
                        let netns = Netns::named(&container)?;
                        let echo::Answers { ping, tcp, udp } =
                            netns.run(|| echo::probe(targets, within))??;
                        Ok(Reached { container, ping, tcp, udp })
                    })
                })
                .collect();
            let join = |probe: std::thread::ScopedJoinHandle<'_, _>| {
                probe.join().unwrap_or_else(|_| Err(Error::wrong("a probe panicked")))
            };
            probes.into_iter().map(join).collect()
        })
    }

    /// Lets a pod answer on more ports.
    pub(super) fn serve(&self, container: &str, ports: &[u16]) -> Result<(), Error> {
        let netns = Netns::named(container)?;
        let started = ports.iter().map(|port| Server::start(&netns, *port));
        let started = started.collect::<Result<Vec<_>, _>>()?;
        lock(&self.servers).entry(container.to_owned()).or_default().extend(started);
        let sctp = sctp::Server::start(&netns, ports)?;
        lock(&self.sctp_servers).insert(container.to_owned(), sctp);
        Ok(())
    }

    /// Has a pod answer no more.
    pub(super) fn silence(&self, container: &str) {
        lock(&self.servers).remove(container);
        lock(&self.sctp_servers).remove(container);
    }

    /// Makes the attempts of several pods at once, and returns what came through for each.
    #[expect(clippy::unused_self, reason = "whose pods is said at the call")]
    pub(super) fn attempt(
        &self,
        trials: &[Trial],
        within: Duration,
    ) -> Result<Vec<Vec<Attempt>>, Error> {
        std::thread::scope(|scope| {
            let attempt = |trial: &Trial| {
                let netns = Netns::named(&trial.container)?;
                let passed = netns.run(|| attempt::attempt(trial, within))?;
                passed.map_err(|error| Error::program("attempt", error))
            };
            let running: Vec<_> =
                trials.iter().map(|trial| scope.spawn(move || attempt(trial))).collect();
            let join = |probe: std::thread::ScopedJoinHandle<'_, _>| {
                probe.join().unwrap_or_else(|_| Err(Error::wrong("an attempt panicked")))
            };
            running.into_iter().map(join).collect()
        })
    }

    /// Opens a pod's namespace.
    #[expect(clippy::unused_self, reason = "whose pods is said at the call")]
    pub(super) fn netns(&self, container: &str) -> Result<Netns, Error> {
        Ok(Netns::named(container)?)
    }
}

impl ConfigList {
    /// Reads the first list in the directory, in the order of names, as runtimes do.
    fn read() -> Result<Self, Error> {
        let dir = Path::new(CONFIG_DIR);
        let entries = std::fs::read_dir(dir).map_err(Error::file(dir))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conflist"));
        paths.sort();
        let path = paths.first().ok_or_else(|| Error::wrong("no network configuration list"))?;
        let text = std::fs::read(path).map_err(Error::file(path))?;
        let list: Map<String, Value> = serde_json::from_slice(&text).map_err(Error::wrong)?;
        let text = |key| list.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let plugins = list.get("plugins").and_then(Value::as_array).into_iter().flatten();
        let plugins = plugins.filter_map(|plugin| plugin.as_object().cloned()).collect();
        Ok(Self { version: text("cniVersion"), name: text("name"), plugins })
    }

    /// Calls the plugins in reverse; goes on after a failure and returns the first.
    fn del(&self, pod: &Pod, result: &Value) -> Result<(), Error> {
        let calls = self.plugins.iter().rev();
        let outcomes: Vec<_> =
            calls.map(|plugin| self.call(plugin, "DEL", pod, result).map(drop)).collect();
        outcomes.into_iter().collect()
    }

    /// Calls one plugin: environment, configuration with the list's keys, previous result.
    fn call(
        &self,
        plugin: &Map<String, Value>,
        command: &'static str,
        pod: &Pod,
        previous: &Value,
    ) -> Result<Value, Error> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let stdin = self.execution_config(plugin, previous);
        let program = Path::new(PLUGIN_DIR).join(kind);
        let mut call = Command::new(&program);
        call.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.container)
            .env("CNI_NETNS", netns_path(pod))
            .env("CNI_IFNAME", IF_NAME)
            .env("CNI_PATH", PLUGIN_DIR)
            .env("CNI_ARGS", arguments(pod))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = call.spawn().map_err(Error::file(&program))?;
        if let Some(mut pipe) = child.stdin.take() {
            // A plugin need not read its configuration before it answers.
            drop(pipe.write_all(stdin.to_string().as_bytes()));
        }
        let output = child.wait_with_output().map_err(Error::file(&program))?;
        let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            return Ok(said);
        }
        let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
        let code = said.get("code").and_then(Value::as_u64).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(Error::Cni {
            plugin: kind.to_owned(),
            command: command.to_owned(),
            code: u32::try_from(code).unwrap_or_default(),
            message: format!("{} {} {}", text("msg"), text("details"), stderr.trim()),
        })
    }

    fn execution_config(&self, plugin: &Map<String, Value>, previous: &Value) -> Value {
        let mut config = plugin.clone();
        let capabilities = config.remove("capabilities");
        config.insert("name".to_owned(), json!(self.name));
        config.insert("cniVersion".to_owned(), json!(self.version));
        let is_wanted = |name| {
            let wanted = capabilities.as_ref().and_then(|all| all.get(name));
            wanted.and_then(Value::as_bool).unwrap_or_default()
        };
        if is_wanted("portMappings") {
            config.insert("runtimeConfig".to_owned(), json!({"portMappings": []}));
        }
        if !previous.is_null() {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(config)
    }
}

fn arguments(pod: &Pod) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};\
         K8S_POD_UID={}",
        pod.namespace, pod.name, pod.container, pod.uid
    )
}

fn netns_path(pod: &Pod) -> String {
    format!("/run/netns/{}", pod.container)
}

fn cache_path(pod: &Pod) -> PathBuf {
    Path::new(CACHE_DIR).join(format!("{}-{IF_NAME}", pod.container))
}

fn cache(pod: &Pod, result: &Value) -> Result<(), Error> {
    crate::sandbox::make_dirs(Path::new(CACHE_DIR))?;
    let path = cache_path(pod);
    std::fs::write(&path, result.to_string()).map_err(Error::file(&path))
}

fn cached(pod: &Pod) -> Value {
    let text = std::fs::read(cache_path(pod)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

/// Returns the addresses in a result.
fn addrs(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok()).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
