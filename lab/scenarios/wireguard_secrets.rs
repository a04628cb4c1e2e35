//! Private keys of WireGuard are in the kernel's devices, and nothing of them is anywhere else.
//!
//! Looked for is in every file of the run, every object of the API and every metric, while
//! calico-node says all that it can say: the keys that devices have, and those that they had. That
//! the search finds what is there is shown by a canary, a key that is planted in each kind of place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use lab::Error;
use lab::canary::{self, Found, Search};
use lab::cluster::{Cluster, eventually};
use lab::node::Node;
use lab::rest::Request;
use serde_json::{Value, json};

/// What has calico-node tell everything.
pub(super) const LOUD: &[(&str, &str)] = &[("FELIX_LOGSEVERITYSCREEN", "Trace")];
/// The devices of a node.
const DEVICES: [&str; 2] = ["wireguard.cali", "wg-v6.cali"];
/// Where calico-node shows its metrics.
const METRICS: u16 = 9091;
/// A metric that is always there: whoever reads none has looked at nothing.
const KNOWN_METRIC: &str = "felix_";
/// How long calico-node may take to complain about an object.
const WITHIN: Duration = Duration::from_secs(60);
/// The canary's name.
const CANARY: &str = "canary";

/// The keys of a run, and where to look for them.
pub(super) struct Secrets {
    keys: BTreeMap<(String, String), Vec<u8>>,
    search: Search,
    count: usize,
}

impl Secrets {
    /// Has the plugins of a cluster that is not started yet tell everything, too.
    pub(super) fn of(cluster: &Cluster) -> Result<Self, Error> {
        let script = "sed -i 's/\"log_level\": \"info\"/\"log_level\": \"trace\"/' $1; \
                      grep --quiet '\"log_level\": \"trace\"' $1";
        for node in &cluster.nodes {
            node.run(&["sh", "-ec", script, "sh", "/etc/cni/net.d/10-calico.conflist"])?;
        }
        Ok(Self { keys: BTreeMap::new(), search: Search::default(), count: 0 })
    }

    /// Reads the keys of all devices, which must be others than before.
    pub(super) fn learn(&mut self, cluster: &Cluster, when: &str) -> Result<(), Error> {
        for node in &cluster.nodes {
            for device in DEVICES {
                let text = node.run(&["wg", "show", device, "private-key"])?;
                let key = STANDARD.decode(text.trim()).map_err(Error::wrong)?;
                let name = format!("the {when} key of {device} on {}", node.name);
                self.search.add(&name, common(&key)?)?;
                let place = (node.name.clone(), device.to_owned());
                if self.keys.insert(place, key.clone()) == Some(key) {
                    return Err(Error::wrong(format!("{name} is that of before")));
                }
                self.count = self.count.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Looks for all of them, everywhere.
    pub(super) fn require_nowhere(&self, dir: &Path, cluster: &Cluster) -> Result<(), Error> {
        require_loud(cluster)?;
        require_that_search_finds(dir, cluster)?;
        let (said, found) = everywhere(&self.search, dir, cluster)?;
        eprintln!("{} private keys were looked for in {said}", self.count);
        if found.is_empty() { Ok(()) } else { Err(Error::wrong(format!("{found:#?}"))) }
    }
}

/// calico-node has said more than it usually does: else its log would prove little.
fn require_loud(cluster: &Cluster) -> Result<(), Error> {
    for node in &cluster.nodes {
        let log = node.dir.join("calico-node.log");
        let text = std::fs::read_to_string(&log).map_err(Error::file(&log))?;
        if !text.contains(" DEBUG ") {
            return Err(Error::wrong(format!("{} is not loud", log.display())));
        }
    }
    Ok(())
}

/// Returns what is the same of a key wherever it is: the kernel changes bits of the first byte and of
/// the last (RFC 7748 §5), so what calico-node has made is not what a device tells.
fn common(key: &[u8]) -> Result<&[u8], Error> {
    let common = key.get(1..31).filter(|_| key.len() == 32);
    common.ok_or_else(|| Error::wrong(format!("a key of {} bytes", key.len())))
}

/// Searches all files below the run's directory, all objects and all metrics; says how much that was.
fn everywhere(
    search: &Search,
    dir: &Path,
    cluster: &Cluster,
) -> Result<(String, BTreeSet<Found>), Error> {
    // Programs, which were there before any key.
    let (files, mut found) = search.files(dir, &[&dir.join("bin")])?;
    let (kinds, objects) = search.objects(&cluster.api)?;
    found.extend(objects);
    let mut numbers = 0_usize;
    for node in &cluster.nodes {
        let metrics = metrics(node)?;
        numbers = numbers.saturating_add(metrics.lines().count());
        found.extend(search.find(&format!("metrics of {}", node.name), metrics.as_bytes()));
    }
    // What the scenario itself says is written to a file that is not below its directory.
    let own = Path::new("/proc/self/fd/2");
    if std::fs::metadata(own).is_ok_and(|own| own.is_file()) {
        let own_words = std::fs::read(own).map_err(Error::file(own))?;
        found.extend(search.find("what the lab says", &own_words));
    }
    Ok((format!("{files} files, {kinds} kinds of objects and {numbers} lines of metrics"), found))
}

fn metrics(node: &Node) -> Result<String, Error> {
    let failed = |error| Error::program("metrics", error);
    let mut stream = TcpStream::connect((node.addr()?, METRICS)).map_err(failed)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: node\r\n\r\n").map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    if text.contains(KNOWN_METRIC) {
        return Ok(text);
    }
    Err(Error::wrong(format!("{} shows no {KNOWN_METRIC}: {text}", node.name)))
}

/// Plants another key in each kind of place, in other forms, and requires that it is found there.
fn require_that_search_finds(dir: &Path, cluster: &Cluster) -> Result<(), Error> {
    let node = cluster.nodes.first().ok_or_else(|| Error::wrong("no node"))?;
    let text = node.run(&["wg", "genkey"])?;
    let key = STANDARD.decode(text.trim()).map_err(Error::wrong)?;
    let mut search = Search::default();
    search.add(CANARY, common(&key)?)?;
    let (_, found) = everywhere(&search, dir, cluster)?;
    if !found.is_empty() {
        return Err(Error::wrong(format!("it is there before it was planted: {found:#?}")));
    }
    let files = plant_in_files(dir, cluster, &key)?;
    let objects = plant_in_objects(cluster, &key)?;
    let logs: Vec<String> =
        cluster.nodes.iter().map(|node| path(&node.dir.join("calico-node.log"))).collect();
    let expected: Vec<(String, &str)> =
        files.into_iter().chain(objects).chain(logs.into_iter().map(|log| (log, "hex"))).collect();
    eventually("the canary to be found", WITHIN, || {
        let (_, found) = everywhere(&search, dir, cluster)?;
        let has = |(place, form): &&(String, &str)| {
            found.iter().any(|found| found.place == *place && found.form == *form)
        };
        let missed: Vec<_> = expected.iter().filter(|place| !has(place)).collect();
        if missed.is_empty() {
            return Ok(());
        }
        Err(Error::wrong(format!("not found in {missed:#?}, but in {found:#?}")))
    })?;
    eprintln!("a canary is found in {} places", expected.len());
    Ok(())
}

/// Writes the canary into a file of each directory of a node and of the control plane; returns where
/// and in which form.
fn plant_in_files(
    dir: &Path,
    cluster: &Cluster,
    key: &[u8],
) -> Result<Vec<(String, &'static str)>, Error> {
    let hex = canary::hex(key);
    let text = STANDARD.encode(key);
    let forms: [(&str, Vec<u8>); 5] = [
        ("the bytes", key.to_vec()),
        ("base64", text.clone().into_bytes()),
        ("hex", hex.into_bytes()),
        ("a list of numbers", format!("{key:?}").into_bytes()),
        ("base64 of base64", STANDARD.encode(&text).into_bytes()),
    ];
    let mut dirs: Vec<PathBuf> = vec![dir.join("control-plane"), dir.to_owned()];
    for node in &cluster.nodes {
        dirs.extend(
            ["run/calico", "var-lib/calico", "var-log", "etc", "opt"]
                .map(|name| node.dir.join(name)),
        );
    }
    let mut places = Vec::new();
    for (number, (dir, (form, bytes))) in dirs.iter().zip(forms.iter().cycle()).enumerate() {
        let file = dir.join(format!("{CANARY}-{number}"));
        let noise = b"before ".get(..number % 8).unwrap_or_default();
        std::fs::write(&file, [noise, bytes].concat()).map_err(Error::file(&file))?;
        places.push((path(&file), *form));
    }
    Ok(places)
}

/// Writes it into objects: an annotation, a Secret, an event, and something that calico-node will
/// complain about in its log.
fn plant_in_objects(cluster: &Cluster, key: &[u8]) -> Result<Vec<(String, &'static str)>, Error> {
    let text = STANDARD.encode(key);
    let hex = canary::hex(key);
    let node = cluster.nodes.first().ok_or_else(|| Error::wrong("no node"))?;
    let annotation = json!({"metadata": {"annotations": {"example.org/canary": &text}}});
    let path = format!("/api/v1/nodes/{}", node.name);
    cluster.api.send(Request::merge(path, &annotation))?.success()?;
    let create = |collection: &str, object: &Value| {
        let request = Request::json(Method::POST, collection, object);
        cluster.api.send(request)?.success()
    };
    let named = json!({"name": CANARY});
    create(
        "/api/v1/namespaces/kube-system/secrets",
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": named,
            "data": {"key": STANDARD.encode(&text)},
        }),
    )?;
    create(
        "/api/v1/namespaces/kube-system/events",
        &json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": CANARY, "namespace": "kube-system"},
            "involvedObject": {"kind": "Node", "name": node.name, "namespace": "kube-system"},
            "reason": "Canary", "type": "Normal", "message": format!("{key:?}"),
        }),
    )?;
    create(
        "/apis/crd.projectcalico.org/v1/globalnetworksets",
        &json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkSet", "metadata": named,
            "spec": {"nets": [hex]},
        }),
    )?;
    Ok(vec![
        ("/api/v1/nodes".to_owned(), "base64"),
        ("/api/v1/secrets".to_owned(), "base64 of base64"),
        ("/api/v1/events".to_owned(), "a list of numbers"),
        ("/apis/crd.projectcalico.org/v1/globalnetworksets".to_owned(), "hex"),
    ])
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
