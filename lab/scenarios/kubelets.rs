//! Pods of real kubelets, installed as the README says: one cluster, and what people do with it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::cluster::eventually;
use lab::control_plane::Kind;
use lab::kubernetes::{self, Kubernetes, POD_SUBNET, Plan};
use lab::machine::{Machine, ProxyMode};
use lab::rbac;
use serde_json::json;

use super::planted::{self, Fault};

/// What the pods of this scenario are: servers on two machines, and somebody who asks.
const WORKLOADS: &str = include_str!("kubelets.yaml");
/// A pod that comes when something is wrong.
const LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: LATE, namespace: lab}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  containers: [{name: late, image: "localhost/busybox:lab", command: [sleep, "2147483647"]}]
"#;
/// A peer that nobody reaches, with a password, and who may read it.
const PEER: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: bgp, namespace: kube-system}
stringData: {password: canary-of-a-password}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: calico-bgp-passwords, namespace: kube-system}
rules:
  - {apiGroups: [""], resources: [secrets], resourceNames: [bgp], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: calico-bgp-passwords, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: calico-bgp-passwords}
subjects: [{kind: ServiceAccount, name: calico-node, namespace: kube-system}]
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: nobody}
spec: {peerIP: 192.0.2.99, asNumber: 64999, password: {secretKeyRef: {name: bgp, key: password}}}
"#;
/// What must be in no file, log or event: the password, and private keys of TLS, in PEM
/// (RFC 7468) and as kubeconfigs have them, in base64.
const CANARIES: [&str; 5] = [
    "canary-of-a-password",
    "PRIVATE KEY-----",
    "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS",
    "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS",
    "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVkt",
];

/// What the roles grant, and what of it is not used here for a reason.
const PERMISSIONS: &str = include_str!("../../testdata/lab/permissions.txt");
/// How long anything may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

/// How long until a pod that cannot start says so.
const TOLD_WITHIN: Duration = Duration::from_secs(40);
/// What calico-node says of its own token when the API server refuses it.
const OWN_TOKEN_REFUSED: &str = "the kubelet renews the token";
/// The plugin's credentials on a machine.
const CREDENTIALS: &str = "/etc/cni/net.d/calico-kubeconfig";
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything in the order of a cluster's life.
pub(crate) fn a_clusters_life(dir: &Path, _: Kind) -> Result<(), Error> {
    let plan = Plan { machines: 2, proxy: ProxyMode::Iptables };
    let cluster = Kubernetes::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.apply(&kubernetes::installation())?;
    cluster.wait_ready()?;
    eprintln!("every node is ready");
    // All that they can say, for what must not be said; install-cni has the plugins told too.
    for program in ["daemonset/calico-node", "deployment/calico-kube-controllers"] {
        let loud = ["LOG_LEVEL=trace", "FELIX_LOGSEVERITYSCREEN=Trace"];
        let set = ["set", "env", "--namespace", "kube-system", program];
        cluster.control_plane.kubectl(&[&set[..], &loud].concat())?;
    }
    let mut life = Life { cluster };
    let outcome = life.run();
    outcome.map_err(|error| Error::wrong(format!("{error}\n{}", life.cluster.describe())))
}

/// A step of a cluster's life, and what it shows.
type Step = (&'static str, fn(&Life) -> Result<(), Error>);

/// What is done to a cluster that nothing was done to yet.
struct Life {
    cluster: Kubernetes,
}

/// What needs no change of the machines themselves.
const STEPS: &[Step] = &[
    ("calico-node and calico-kube-controllers roll out", Life::own_workloads_roll),
    ("the pool is what kubeadm was told", Life::pool_of_kubeadm),
    ("a Deployment rolls out, with probes", Life::deployment_rolls),
    ("every pod is reached from every machine", Life::pods_are_reached),
    ("a Service is reached from pods and by node port", Life::services),
    ("a host port is reached", Life::host_port),
    ("a new version rolls out", Life::new_version),
    ("policy holds", Life::policy),
    ("logs, exec and port-forward work", Life::kubectl),
    ("calico-node does for the plugin what it wants of the datastore", Life::plugins_are_served),
    ("credentials come back by themselves", Life::credentials),
    ("a password of BGP is used", Life::password),
    ("without the daemon pods' events name what is wrong, until it is back", Life::absence),
    ("every variant is accepted", Life::variants),
];

impl Life {
    fn run(&mut self) -> Result<(), Error> {
        for (name, step) in STEPS {
            step(self).map_err(|error| Error::wrong(format!("{name}: {error}")))?;
            eprintln!("{name}");
        }
        self.new_signing_key()?;
        eprintln!(
            "with another signing key pods and calico-node say that their tokens are refused"
        );
        // A kubelet that starts anew gets new tokens for its pods; else it does so within an hour.
        self.restarts()?;
        eprintln!("pods survive their kubelet and their container runtime");
        self.nftables()?;
        eprintln!("Services are reached with kube-proxy in nftables mode");
        self.reboot()?;
        eprintln!("pods come back after a reboot");
        // A refused token is noticed within a minute, which has passed meanwhile.
        self.credentials_are_good(CREDENTIALS)?;
        self.late_is_ready("late-with-old-key")?;
        eprintln!("tokens of the old signing key are replaced, and pods start again");
        self.no_address_is_lost()?;
        eprintln!("as many addresses are taken as there are pods");
        self.nobody_was_taken_for_dead()?;
        eprintln!("no daemon was taken for dead");
        self.no_secret_is_told()?;
        eprintln!("no secret is told");
        self.permissions()?;
        eprintln!("every permission is used, and none is missing");
        // At last, since until here nobody was refused anything.
        self.faults_are_told(Fault::is_of_permissions)?;
        eprintln!("without a permission pods do not start, and say why");
        Ok(())
    }

    /// The kustomizations are what the API server takes; nothing of them is made.
    fn variants(&self) -> Result<(), Error> {
        for name in ["base", "unencapsulated", "vxlan", "policy-only"] {
            let path = kubernetes::manifest(name);
            self.kubectl_says(&format!("apply --dry-run=server -k {}", path.display()))?;
        }
        let whole = kubernetes::manifest("calico.yaml");
        self.kubectl_says(&format!("apply --dry-run=server -f {}", whole.display())).map(drop)
    }

    /// A password is read and given to the kernel, and whatever is said of its peer stays.
    fn password(&self) -> Result<(), Error> {
        self.cluster.api.apply(PEER)?;
        eventually("calico-node to speak of the peer", WITHIN, || {
            let log = self.kubectl_says("logs daemonset/calico-node --namespace kube-system")?;
            let is_known = log.contains("192.0.2.99");
            if is_known { Ok(()) } else { Err(Error::wrong("nothing of it in its log")) }
        })?;
        self.kubectl_says("delete bgppeers.crd.projectcalico.org nobody").map(drop)
    }

    /// Plants one fault after the other, each for a pod of its own: what pods' events say has the
    /// code and the words.
    fn faults_are_told(&self, is_meant: fn(&Fault) -> bool) -> Result<(), Error> {
        let node = &self.first()?.node;
        planted::keep_files(node)?;
        let mut wrong = Vec::new();
        for (number, fault) in planted::FAULTS.iter().enumerate() {
            let Some((code, words)) = fault.in_events().filter(|_| is_meant(fault)) else {
                continue;
            };
            let name = format!("late-{number}");
            fault.plant.act(node, &self.cluster.api)?;
            let told = self.late_says(&name, code, words);
            let pod = format!("delete pod {name} --namespace lab --wait=false");
            let deleted = self.kubectl_says(&pod);
            fault.mend.act(node, &self.cluster.api)?;
            deleted?;
            if let Err(error) = told {
                wrong.push(format!("{}: {error}", fault.what));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::wrong(wrong.join("\n"))) }
    }

    /// Makes a pod on the first machine, whose events must have words, and the code as the
    /// plugin's last words if it is one of ours.
    fn late_says(&self, name: &str, code: u32, words: &[&str]) -> Result<(), Error> {
        self.cluster.api.apply(&LATE.replace("LATE", name))?;
        let code = if code == 0 { String::new() } else { format!("; code {code}") };
        eventually(&format!("{name} to say {words:?}{code}"), TOLD_WITHIN, || {
            let events = self.cluster.api.list::<core::Event>()?;
            let said: Vec<String> = events
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(name))
                .filter(|event| event.reason.as_deref() == Some("FailedCreatePodSandBox"))
                .filter_map(|event| event.message)
                .collect();
            let is_said = |said: &String| {
                said.ends_with(&code) && words.iter().all(|word| said.contains(word))
            };
            if said.iter().any(is_said) { Ok(()) } else { Err(Error::wrong(format!("{said:#?}"))) }
        })
    }

    fn late_is_ready(&self, name: &str) -> Result<(), Error> {
        let line = format!("wait --namespace lab --for condition=Ready --timeout=120s pod/{name}");
        self.kubectl_says(&line).map(drop)
    }

    /// While the daemon is away, the token that it left is good for nothing any more: pods say so,
    /// and start when it is back. Those that run talk meanwhile.
    fn absence(&self) -> Result<(), Error> {
        let select = |value: &serde_json::Value| {
            let template = json!({"spec": {"nodeSelector": {"away": value}}});
            let patch = json!({"spec": {"template": template}}).to_string();
            let daemon = ["patch", "daemonset", "calico-node", "--namespace", "kube-system"];
            self.cluster.control_plane.kubectl(&[&daemon[..], &["--patch", &patch]].concat())
        };
        select(&json!("yes"))?;
        eventually("calico-node to be away", WITHIN, || {
            let pods = "get pods --namespace kube-system --selector k8s-app=calico-node -o name";
            let pods = self.kubectl_says(pods)?;
            if pods.trim().is_empty() { Ok(()) } else { Err(Error::wrong(pods)) }
        })?;
        self.faults_are_told(|fault| !fault.is_of_permissions())?;
        let spoil = format!("sed -i -E 's/(token: *\").*/\\1expired\"/' {CREDENTIALS}");
        self.script_on_first(&spoil)?;
        let told = self
            .late_says(
                "late-without-daemon",
                109,
                &["does not accept our credentials", "renews the token"],
            )
            .and_then(|()| self.pods_are_reached());
        select(&serde_json::Value::Null)?;
        told?;
        self.own_workloads_roll()?;
        self.credentials_are_good(CREDENTIALS)?;
        self.late_is_ready("late-without-daemon")
    }

    /// Logs of every program, events, and what is written on the machines: none of them holds a
    /// token or the password of BGP, though calico-node says all that it can say.
    fn no_secret_is_told(&self) -> Result<(), Error> {
        let mut told = Vec::new();
        let events = self.kubectl_says("get events --all-namespaces --output json")?;
        if holds_secret(events.as_bytes()) {
            told.push("events".to_owned());
        }
        for machine in &self.cluster.machines {
            for place in ["var-log", "run/calico", "var-lib/calico", "etc-cni", "opt"] {
                search(&machine.node.dir.join(place), &mut told)?;
            }
        }
        told.retain(|path| !path.ends_with("/calico-kubeconfig"));
        if told.is_empty() { Ok(()) } else { Err(Error::wrong(format!("secrets are in {told:?}"))) }
    }

    /// A daemon that has nothing to do lives: kubelet has asked each many times by now.
    fn nobody_was_taken_for_dead(&self) -> Result<(), Error> {
        let said = self.kubectl_says("get events --namespace kube-system --output json")?;
        let dead: Vec<&str> =
            said.lines().filter(|line| line.contains("Liveness probe failed")).collect();
        if dead.is_empty() { Ok(()) } else { Err(Error::wrong(format!("{dead:#?}"))) }
    }

    /// What the roles grant is what was asked for, as the API server has seen it.
    fn permissions(&self) -> Result<(), Error> {
        let done = self.cluster.done()?;
        let names = |set: &BTreeSet<rbac::Permission>| -> BTreeSet<String> {
            set.iter().map(ToString::to_string).collect()
        };
        let used = names(&done.permitted);
        let golden: Vec<_> = rbac::golden(PERMISSIONS).collect();
        let never: Vec<&str> = golden
            .iter()
            .filter(|(name, reason)| reason.is_none() && !used.contains(*name))
            .map(|(name, _)| *name)
            .collect();
        if never.is_empty() && done.refused.is_empty() {
            return Ok(());
        }
        let refused = names(&done.refused);
        Err(Error::wrong(format!("granted and not used: {never:#?}\nrefused: {refused:#?}")))
    }

    fn kubectl_says(&self, line: &str) -> Result<String, Error> {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.cluster.control_plane.kubectl(&words)
    }

    fn pool_of_kubeadm(&self) -> Result<(), Error> {
        let cidrs = self
            .kubectl_says("get ippools.crd.projectcalico.org -o jsonpath={.items[*].spec.cidr}")?;
        if cidrs == POD_SUBNET {
            Ok(())
        } else {
            Err(Error::wrong(format!("the pools are {cidrs}")))
        }
    }

    fn own_workloads_roll(&self) -> Result<(), Error> {
        for it in ["daemonset/calico-node", "deployment/calico-kube-controllers"] {
            self.rolled("kube-system", it)?;
        }
        Ok(())
    }

    fn rolled(&self, namespace: &str, what: &str) -> Result<(), Error> {
        let line = format!("rollout status --timeout=120s --namespace {namespace} {what}");
        self.kubectl_says(&line).map(drop)
    }

    fn deployment_rolls(&self) -> Result<(), Error> {
        self.cluster.api.apply(WORKLOADS)?;
        self.rolled("lab", "deployment/web")?;
        self.kubectl_says("wait --namespace lab --for condition=Ready --timeout=120s pod --all")
            .map(drop)
    }

    fn pods_are_reached(&self) -> Result<(), Error> {
        for (addr, name) in self.servers()? {
            for client in CLIENTS {
                let said = self.ask(client, &format!("{addr}:8080"))?;
                if said != name {
                    return Err(Error::wrong(format!("{client} asked {name} and heard {said}")));
                }
            }
        }
        Ok(())
    }

    /// Returns the addresses and names of the servers.
    fn servers(&self) -> Result<Vec<(String, String)>, Error> {
        let pods = self.cluster.api.list::<core::Pod>()?;
        let is_server = |pod: &&core::Pod| {
            pod.metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.get("app").is_some_and(|app| app == "web"))
                && pod.metadata.deletion_timestamp.is_none()
        };
        let named = |pod: &core::Pod| {
            let addr = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            Some((addr?, pod.metadata.name.clone()?))
        };
        let servers: Vec<_> = pods.iter().filter(is_server).filter_map(named).collect();
        if servers.len() >= 2 {
            Ok(servers)
        } else {
            Err(Error::wrong(format!("servers: {servers:?}")))
        }
    }

    /// Asks a server for its name from a pod.
    fn ask(&self, client: &str, server: &str) -> Result<String, Error> {
        let (addr, port) = server.rsplit_once(':').unwrap_or((server, "80"));
        let script = format!("printf 'GET /name HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {addr} {port}");
        let exec = ["exec", "--namespace", "lab", client, "--", "sh", "-c", &script];
        page(&self.cluster.control_plane.kubectl(&exec)?)
    }

    /// Asks until there is an answer: rules of Services come a moment after the Services.
    fn heard(&self, client: &str, server: &str) -> Result<String, Error> {
        eventually(&format!("{client} to hear {server}"), WITHIN, || self.ask(client, server))
    }

    fn services(&self) -> Result<(), Error> {
        let addr =
            self.kubectl_says("get service web --namespace lab -o jsonpath={.spec.clusterIP}")?;
        for client in CLIENTS {
            self.heard(client, &format!("{addr}:80"))?;
        }
        for machine in &self.cluster.machines {
            from_outside(&format!("{}:30080", machine.addr()?))?;
        }
        Ok(())
    }

    fn host_port(&self) -> Result<(), Error> {
        let [_, second] = self.cluster.machines.as_slice() else {
            return Err(Error::wrong("two machines are needed"));
        };
        let server = format!("{}:8888", second.addr()?);
        from_outside(&server)?;
        self.heard("client-1", &server).map(drop)
    }

    fn new_version(&self) -> Result<(), Error> {
        self.kubectl_says("set env --namespace lab deployment/web VERSION=2")?;
        self.rolled("lab", "deployment/web")?;
        self.pods_are_reached()
    }

    fn policy(&self) -> Result<(), Error> {
        let policy = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: lab}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {number: "1"}}}]}]
"#;
        self.cluster.api.apply(policy)?;
        let server = |addr: &str| format!("{addr}:8080");
        for (addr, name) in self.servers()? {
            eventually(&format!("client-2 to be kept from {name}"), WITHIN, || {
                match self.ask("client-2", &server(&addr)) {
                    Ok(said) => Err(Error::wrong(format!("it heard {said}"))),
                    Err(_) => Ok(()),
                }
            })?;
            self.heard("client-1", &server(&addr))?;
        }
        self.kubectl_says("delete networkpolicy web --namespace lab")?;
        for (addr, _) in self.servers()? {
            self.heard("client-2", &server(&addr))?;
        }
        Ok(())
    }

    fn kubectl(&self) -> Result<(), Error> {
        let logs = self.kubectl_says("logs --namespace lab client-1")?;
        if logs.trim() != "client 1 is here" {
            return Err(Error::wrong(format!("the log of client-1 is `{logs}`")));
        }
        let mut forward = self.cluster.control_plane.kubectl_command();
        forward.args(["port-forward", "--namespace", "lab", "deployment/web", "18080:8080"]);
        let mut forward = Child::spawn(forward)?;
        let answer = eventually("an answer through port-forward", WITHIN, || {
            from_outside_once("127.0.0.1:18080")
        });
        forward.end();
        answer.map(drop)
    }

    /// Calls of the plugin succeed without a request of their own to the API server.
    fn plugins_are_served(&self) -> Result<(), Error> {
        let log = self.on_first("cat /var/log/calico/cni/cni.log")?;
        let served = |command: &str| {
            let command = format!("\"command\":\"{command}\"");
            let words = [&command, "\"requests\":0,", "\"answers\":3,", "\"code\":0,"];
            log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
        };
        // The pod, its addresses and its annotations.
        let calls = (served("ADD"), served("DEL"));
        if calls.0 > 0 && calls.1 > 0 {
            return Ok(());
        }
        Err(Error::wrong(format!("{} ADDs and {} DELs were served:\n{log}", calls.0, calls.1)))
    }

    /// The file is deleted, spoiled and opened to everybody.
    fn credentials(&self) -> Result<(), Error> {
        for spoil in ["rm", "truncate --size 20", "chmod 644"] {
            self.on_first(&format!("{spoil} {CREDENTIALS}"))?;
            self.credentials_are_good(CREDENTIALS)?;
        }
        Ok(())
    }

    /// The API server has a new signing key: neither the plugin's token is taken any more nor
    /// calico-node's own, and both say so.
    fn new_signing_key(&mut self) -> Result<(), Error> {
        self.cluster.control_plane.change_token_keys()?;
        self.late_says("late-with-old-key", 109, &["does not accept our credentials"])?;
        let log = "logs daemonset/calico-node --namespace kube-system --since=5m";
        eventually("calico-node to say that its own token is refused", WITHIN, || {
            let said = self.kubectl_says(log)?;
            let is_said = said.contains(OWN_TOKEN_REFUSED);
            if is_said { Ok(()) } else { Err(Error::wrong("nothing of it in its log")) }
        })
    }

    fn credentials_are_good(&self, path: &str) -> Result<(), Error> {
        eventually("the plugin's credentials to be good", WITHIN, || {
            let mode = self.on_first(&format!("stat --format %a {path}"))?;
            if mode.trim() != "600" {
                return Err(Error::wrong(format!("its mode is {mode}")));
            }
            let binary = lab::control_plane::binary()?;
            let ask = format!("{} kubectl --kubeconfig {path} get ippools", binary.display());
            self.on_first(&ask).map(drop)
        })
    }

    fn on_first(&self, line: &str) -> Result<String, Error> {
        self.run_on_first(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn script_on_first(&self, script: &str) -> Result<String, Error> {
        self.run_on_first(&["sh", "-c", script])
    }

    fn run_on_first(&self, command: &[&str]) -> Result<String, Error> {
        self.first()?.node.run(command)
    }

    fn first(&self) -> Result<&Machine, Error> {
        self.cluster.machines.first().ok_or_else(|| Error::wrong("no machine"))
    }

    /// Whoever restarts, the pods that ran are the same as before, and were never started again.
    fn restarts(&self) -> Result<(), Error> {
        let before = self.pods_as_they_are()?;
        for machine in &self.cluster.machines {
            machine.restart_kubelet()?;
            machine.restart_runtime()?;
        }
        self.cluster.wait_ready()?;
        eventually("every pod to be reached again", WITHIN, || self.pods_are_reached())?;
        let after = self.pods_as_they_are()?;
        if before == after {
            Ok(())
        } else {
            Err(Error::wrong(format!("{before}\nbecame\n{after}")))
        }
    }

    fn pods_as_they_are(&self) -> Result<String, Error> {
        self.kubectl_says("get pods --namespace lab --selector app --no-headers --output custom-columns=NAME:.metadata.name,UID:.metadata.uid,IP:.status.podIP,RESTARTS:.status.containerStatuses[*].restartCount")
    }

    fn nftables(&mut self) -> Result<(), Error> {
        for machine in &mut self.cluster.machines {
            machine.change_proxy(ProxyMode::Nftables)?;
        }
        self.services()
    }

    fn reboot(&mut self) -> Result<(), Error> {
        let machine = self.cluster.machines.last_mut().ok_or_else(|| Error::wrong("no machine"))?;
        machine.reboot()?;
        eventually("every pod to be reached after the reboot", WITHIN, || {
            self.cluster.wait_ready()?;
            self.kubectl_says("wait --namespace lab --for condition=Ready --timeout=5s pod --all")?;
            self.pods_are_reached()
        })?;
        self.services()?;
        self.host_port()
    }

    /// As many addresses are taken as there are pods that have one: nothing leaks.
    fn no_address_is_lost(&self) -> Result<(), Error> {
        eventually("as many addresses as pods", WITHIN, || {
            let pods = self.cluster.api.list::<core::Pod>()?;
            let on_network = |pod: &&core::Pod| {
                pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true))
            };
            let pods = pods.iter().filter(on_network).count();
            let handles = self.kubectl_says("get ipamhandles -o name")?;
            let taken = handles.lines().filter(|name| name.contains("k8s-pod-network")).count();
            if pods == taken {
                Ok(())
            } else {
                Err(Error::wrong(format!("{pods} pods, {handles}")))
            }
        })
    }
}

/// Who asks: one on each machine.
const CLIENTS: [&str; 2] = ["client-1", "client-2"];

/// A child process that does not outlive its step.
struct Child(std::process::Child);

impl Child {
    fn spawn(mut command: std::process::Command) -> Result<Self, Error> {
        let null = std::process::Stdio::null;
        let child = command.stdout(null()).stderr(null()).spawn();
        child.map(Self).map_err(|error| Error::program("kubectl", error))
    }

    fn end(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks a server for its name from outside of the cluster until there is an answer.
fn from_outside(server: &str) -> Result<String, Error> {
    eventually(&format!("{server} to answer from outside"), WITHIN, || from_outside_once(server))
}

fn from_outside_once(server: &str) -> Result<String, Error> {
    let failed = |error| Error::program(server, error);
    let addr: SocketAddr = server.parse().map_err(Error::wrong)?;
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(b"GET /name HTTP/1.0\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    page(&answer)
}

/// Returns what is on the page of a good answer (RFC 1945).
fn page(answer: &str) -> Result<String, Error> {
    let page = answer.split_once("\r\n\r\n").filter(|(head, _)| head.contains(" 200 "));
    let page = page.map(|(_, page)| page.trim().to_owned());
    page.ok_or_else(|| Error::wrong(format!("the answer is `{answer}`")))
}

/// Adds the files below a directory that hold a secret.
fn search(dir: &Path, told: &mut Vec<String>) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(Error::file(dir))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(Error::file(dir))?);
        if kind.is_dir() {
            search(&path, told)?;
        } else if kind.is_file() && holds_secret(&std::fs::read(&path).map_err(Error::file(&path))?)
        {
            told.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Whether there is a token, or anything else that is secret here.
fn holds_secret(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    holds_token(&text) || CANARIES.iter().any(|canary| text.contains(canary))
}

/// Whether there is a JSON Web Token: a header `{"alg":` in base64, then a dot and more of it
/// (RFC 7519 §3).
fn holds_token(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let mut headers = text.split("eyJhbGciOi").skip(1);
    headers.any(|rest| rest.trim_start_matches(is_part).starts_with('.'))
}
