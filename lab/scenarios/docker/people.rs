//! What people use beside `docker` itself: docker-compose, calicoctl, systemd's units.

use std::collections::BTreeMap;

use lab::Error;
use lab::cluster::{Cluster, eventually};
use lab::control_plane::{Identity, root};
use lab::docker::{self, ECHO_PORT, Hosts, docker};
use lab::reachability::Matrix;

use super::{WITHIN, require_echo, require_line, require_unreached};

/// What docker-compose calls the project.
const PROJECT: &str = "lab";

/// docker-compose makes a network and scales a service on it; policy finds services by their
/// labels, a published port answers, and in the end nothing is left.
pub(super) fn compose(hosts: &mut Hosts) -> Result<(), Error> {
    let file = root().join("lab/scenarios/docker/compose.yaml");
    let file = file.to_string_lossy().into_owned();
    let compose = ["docker-compose", "--project-name", PROJECT, "--file", &file];
    let node = hosts.cluster.node("node-1")?;
    node.run(&[&compose[..], &["up", "--detach", "--scale", "web=2"]].concat())?;
    let filter = format!("label=com.docker.compose.project={PROJECT}");
    let names = docker(node, &["ps", "--filter", &filter, "--format", "{{.Names}}"])?;
    let started = names.lines().map(|name| docker::enter(node, name));
    let started = started.collect::<Result<Vec<_>, Error>>()?;
    if started.len() != 3 {
        return Err(Error::wrong(format!("docker-compose has started {names}")));
    }
    let others = std::mem::replace(&mut hosts.cluster.pods, started);
    Matrix::probe(&hosts.cluster, WITHIN)?.require_full()?;
    chosen_port(hosts)?;
    // Only the database is for services that are none.
    let guard = super::policy("compose", 10, "role == 'db'", &["role == 'admin'"]);
    let guard = hosts.cluster.api.create::<api::GlobalNetworkPolicy>(guard)?;
    eventually("policy by labels of services", WITHIN, || {
        require_unreached(hosts, |from, to| {
            to.pod.name.contains("db") && from.pod.name != to.pod.name
        })
    })?;
    eprintln!("docker-compose has made a network; policy finds its services");
    hosts.require_as_docker_has_it(WITHIN)?;
    shown(&hosts.cluster)?;
    hosts.cluster.api.delete(&guard)?;
    let node = hosts.cluster.node("node-1")?;
    for pod in &hosts.cluster.pods {
        node.silence(&pod.pod.name)?;
    }
    node.run(&[&compose[..], &["down", "--timeout", "0"]].concat())?;
    hosts.cluster.pods = others;
    hosts.require_as_docker_has_it(WITHIN)
}

/// The port of the host that was chosen is told in the endpoint's object, and answers.
pub(super) fn chosen_port(hosts: &Hosts) -> Result<(), Error> {
    let node = hosts.cluster.node("node-1")?;
    let host = node.addr()?;
    eventually("a chosen port to answer", WITHIN, || {
        let endpoints = hosts.cluster.api.list::<api::WorkloadEndpoint>()?;
        let ports = endpoints.iter().flat_map(|endpoint| endpoint.spec.ports.iter().flatten());
        let mut chosen = ports.filter_map(|port| port.host_port.filter(|port| *port > 30_000));
        let chosen = chosen.next().ok_or_else(|| Error::wrong("no endpoint says a host's port"))?;
        let script = format!("printf hello | timeout 2 /bin/busybox nc {host} {chosen}");
        require_echo("a chosen port", &node.run(&["sh", "-c", &script])?)
    })
}

/// calicoctl shows containers and their profiles as those who used Calico's plugin know them.
fn shown(cluster: &Cluster) -> Result<(), Error> {
    let kubeconfig = cluster.control_plane.kubeconfig(Identity::Admin);
    let calicoctl = |arguments: &str| {
        let kubeconfig = kubeconfig.display();
        let program = cluster.program("calicoctl");
        let script = format!("KUBECONFIG={kubeconfig} {program} {arguments} 2>&1");
        cluster.node("node-1")?.run(&["sh", "-c", &script])
    };
    let said = calicoctl("get workloadendpoints --namespace libnetwork --output wide")?;
    for pod in &cluster.pods {
        let addr = format!("{}/32", pod.addr()?);
        require_line(&said, &addr)?;
    }
    require_line(&calicoctl("get profiles")?, "net-lab-shop")?;
    require_line(&calicoctl("node status")?, "Calico process is running")
}

/// systemd finds nothing wrong with the units, and what they start is what labs run: see
/// `lab::docker::unit`.
pub(super) fn units(cluster: &Cluster) -> Result<(), Error> {
    let node = cluster.node("node-1")?;
    let mut missing = BTreeMap::new();
    for name in ["calico-datastore", "calico-node", "calico-docker"] {
        let unit = docker::unit(name)?;
        if !unit.program.ends_with(name) {
            missing.insert(name, unit.program);
        }
    }
    if !missing.is_empty() {
        return Err(Error::wrong(format!("units start something else: {missing:?}")));
    }
    let units = root().join("manifests/systemd");
    // The programs are not installed here: systemd is to look at everything else.
    let script = format!(
        "mkdir -p /run/units && cd /run/units && for unit in {}/*.service; do \
         sed 's#^ExecStart=/usr/local/bin/[a-z-]*#ExecStart=/bin/true#' $unit > ${{unit##*/}}; done && \
         systemd-analyze verify --man=no /run/units/*.service 2>&1",
        units.display()
    );
    let said = node.run(&["sh", "-c", &script])?;
    if said.trim().is_empty() { Ok(()) } else { Err(Error::wrong(said)) }
}

/// Everything that a container or network could leave: objects, interfaces, routes, rules, files.
pub(super) fn footprint(hosts: &Hosts) -> Result<Vec<String>, Error> {
    let api = &hosts.cluster.api;
    let mut found = Vec::new();
    found.extend(api.list::<api::IpPool>()?.iter().map(|it| format!("pool {}", it.name())));
    found.extend(api.list::<api::Profile>()?.iter().map(|it| format!("profile {}", it.name())));
    let endpoints = api.list::<api::WorkloadEndpoint>()?;
    found.extend(endpoints.iter().map(|it| format!("endpoint {}", it.name())));
    found.extend(api.list::<api::IpamHandle>()?.iter().map(|it| format!("handle {}", it.name())));
    for block in api.list::<api::IpamBlock>()? {
        let taken = block.spec.allocations.iter().filter(|slot| slot.is_some()).count();
        if taken > 0 {
            found.push(format!("block {} with {taken} addresses", block.name()));
        }
    }
    let node = hosts.cluster.node("node-1")?;
    let script = "ip -brief link | cut -d' ' -f1; ip -4 route; ip -6 route; \
                  for program in iptables ip6tables; do for table in nat filter; do \
                  $program -w -t $table -S; done; done; \
                  find /run/calico/libnetwork /var/lib/calico/libnetwork -type f; /usr/bin/docker network ls --quiet";
    found.extend(node.run(&["sh", "-c", script])?.lines().map(str::to_owned));
    found.sort();
    Ok(found)
}

/// Fails unless all is as it was.
pub(super) fn require_same(hosts: &Hosts, before: &[String]) -> Result<(), Error> {
    eventually("nothing to be left behind", WITHIN, || {
        let after = footprint(hosts)?;
        let differs = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        let (more, less) = (differs(&after, before), differs(before, &after));
        if more.is_empty() && less.is_empty() {
            return Ok(());
        }
        Err(Error::wrong(format!("new: {more:?}; gone: {less:?}")))
    })
}

/// A published port is for whoever listens already.
pub(super) fn in_use(hosts: &Hosts) -> Result<(), Error> {
    let node = hosts.cluster.node("node-1")?;
    let listen = ["/bin/busybox", "nc", "-l", "-p", "8099"];
    node.start_program("listener", &listen, &BTreeMap::new())?;
    eventually("somebody to listen", WITHIN, || {
        node.run(&["sh", "-c", "ss -Hltn sport = :8099 | grep -q ."]).map(drop)
    })?;
    let run = ["run", "--name", "never", "--network", "dual", "--publish"];
    let port = format!("8099:{ECHO_PORT}");
    let all = [&run[..], &[&port, "lab", "/bin/sleep", "1"]].concat();
    require_line(&docker::refused(node, &all)?, "port 8099/tcp of the host is in use")?;
    docker(node, &["rm", "--force", "never"])?;
    node.end_program("listener", nix::sys::signal::Signal::SIGKILL)
}
