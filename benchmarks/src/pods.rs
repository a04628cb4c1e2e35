//! The benchmark `pods`: what a pod waits for on a real kubelet, and how much of it is ours.
//!
//! A lab with a whole Kubernetes and one machine, installed as people install it. The plugin
//! there is called through a few lines of shell, which write down when each call began and ended.

mod outage;
mod seen;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use comfy_table::Table;
use lab::Error;
use lab::cluster::eventually;
use lab::kubernetes::{self, Kubernetes, Plan};
use lab::machine::{Machine, ProxyMode};
use lab::rest::Request;
use lab::sandbox::{self, Inside};
use serde_json::json;

use self::outage::Outage;
use self::seen::Seen;
use crate::statistics::{Summary, millis, percentile, ratio};
use crate::{load_average, step};

/// How long an ADD may take, half and nearly all of the time: what has been aimed at.
const AIM: [Duration; 2] = [Duration::from_millis(60), Duration::from_millis(300)];
/// How long all pods may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(600);
/// The pods that are measured, before anybody says how many.
const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: bench}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: bench}
spec:
  replicas: 0
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 0
      automountServiceAccountToken: false
      containers:
        - {name: main, image: "localhost/busybox:lab", command: [sleep, "2147483647"]}
"#;
/// Where the calls are written down.
const CALLS: &str = "/var/log/calico-calls";
/// Puts a clock around the plugin: `ADD 12.000001 12.034567 0 …;K8S_POD_NAME=web-1;…`.
const CLOCK: &str = r#"
set -e
mkdir -p /opt/cni/bin/measured
mv /opt/cni/bin/calico /opt/cni/bin/measured/calico
cat > /opt/cni/bin/calico.new <<'EOF'
#!/bin/bash
started=$EPOCHREALTIME
/opt/cni/bin/measured/calico
code=$?
echo "$CNI_COMMAND $started $EPOCHREALTIME $code $CNI_ARGS" >> /var/log/calico-calls
exit $code
EOF
chmod 0755 /opt/cni/bin/calico.new
mv /opt/cni/bin/calico.new /opt/cni/bin/calico
"#;

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    programs: crate::ProgramArguments,
    /// How long the API server is away, in seconds; 600 if nothing is said, or 10 with `--quick`.
    #[arg(long)]
    outage: Option<u64>,
    /// How many pods; 100 if nothing is said, or 10 with `--quick`.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=200))]
    pods: Option<u64>,
}

/// Attaches and detaches without kubelet, then makes a lab and measures in it.
///
/// # Errors
///
/// [`Error`] if the lab cannot be made.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let is_quick = arguments.programs.quick;
    let default = |quick: u64, full: u64| if is_quick { quick } else { full };
    let pods = arguments.pods.unwrap_or(default(10, 100));
    let outage = arguments.outage.unwrap_or(default(10, 600));
    step("the plugin without kubelet: alone, 10 and 50 at once");
    let own = std::env::current_exe().map_err(Error::file(Path::new("/proc/self/exe")))?;
    let mut cni = Command::new(own);
    cni.arg("cni").arg("--bin-dir").arg(&arguments.programs.bin_dir);
    cni.args(is_quick.then_some("--quick"));
    let status = cni.status().map_err(|error| Error::program("benchmarks", error))?;
    if !status.success() {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
    }
    // Nothing can be started here any more when a lab has ended.
    sandbox::run(&["pods".to_owned(), pods.to_string(), outage.to_string()]).map(ExitCode::from)
}

/// Measures inside of the lab, and prints the figures.
///
/// # Errors
///
/// [`Error`] if something cannot be measured.
pub(crate) fn measure(dir: &Path, pods: u64, outage: Duration) -> Result<ExitCode, Error> {
    let inside = Inside::enter(dir)?;
    let before = load_average();
    step(&format!("starting Kubernetes with one machine; load average {before}"));
    let plan = Plan { machines: 1, proxy: ProxyMode::Iptables };
    let mut cluster = Kubernetes::up(&inside.dir, plan, &mut |_| {})?;
    cluster.apply(&kubernetes::installation())?;
    cluster.wait_ready()?;
    for program in ["daemonset/calico-node", "deployment/calico-kube-controllers"] {
        let line = ["rollout", "status", "--timeout=300s", "--namespace", "kube-system", program];
        cluster.control_plane.kubectl(&line)?;
    }
    on(&cluster, CLOCK)?;
    cluster.api.apply(PODS)?;
    let mut phases = Vec::new();
    for pace in [Pace::OneBySecond, Pace::AtOnce] {
        step(&format!("{pods} pods on it, {}", pace.name()));
        phases.push(phase(&cluster, pods, pace)?);
    }
    step(&format!("the API server away for {} s", outage.as_secs()));
    let outage = outage::measure(&mut cluster, outage)?;
    report(&Findings { phases, outage, load_average: [before, load_average()] });
    Ok(ExitCode::SUCCESS)
}

/// How fast pods come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    /// As a cluster's pods come and go.
    OneBySecond,
    /// As when a node takes over another's.
    AtOnce,
}

impl Pace {
    const fn name(self) -> &'static str {
        match self {
            Self::OneBySecond => "one a second",
            Self::AtOnce => "all at once",
        }
    }
}

/// Has the Deployment make its pods, and end them, and returns what was seen.
fn phase(cluster: &Kubernetes, pods: u64, pace: Pace) -> Result<Phase, Error> {
    on(cluster, &format!("rm -f {CALLS}"))?;
    let seen = roll(cluster, pods, pace)?;
    step("their end");
    scale(cluster, 0)?;
    let calls = eventually("every pod to be detached", WITHIN, || {
        let calls = calls(cluster)?;
        let ended = calls.iter().filter(|call| call.command == "DEL" && call.is_ok).count();
        let all = usize::try_from(pods).unwrap_or(usize::MAX);
        if ended >= all { Ok(calls) } else { Err(Error::wrong(format!("{ended} of {all}"))) }
    })?;
    Ok(Phase { pace, seen, calls })
}

/// Has the Deployment make its pods, and returns when each was seen to be what.
fn roll(cluster: &Kubernetes, pods: u64, pace: Pace) -> Result<BTreeMap<String, Seen>, Error> {
    let kubeconfig = cluster.control_plane.kubeconfig(lab::control_plane::Identity::Admin);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| seen::until_ready(&kubeconfig, pods, WITHIN));
        let first = if pace == Pace::AtOnce { pods } else { 1 };
        for replicas in first..=pods {
            scale(cluster, replicas)?;
            if replicas < pods {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        watcher.join().unwrap_or_else(|_| Err(Error::wrong("the watcher has died")))
    })
}

fn scale(cluster: &Kubernetes, pods: u64) -> Result<(), Error> {
    let path = "/apis/apps/v1/namespaces/bench/deployments/many";
    let change = json!({"spec": {"replicas": pods}});
    cluster.api.send(Request::merge(path, &change))?.success().map(drop)
}

/// Returns the machine.
fn machine(cluster: &Kubernetes) -> Result<&Machine, Error> {
    cluster.machines.first().ok_or_else(|| Error::wrong("there is no machine"))
}

fn on(cluster: &Kubernetes, script: &str) -> Result<String, Error> {
    machine(cluster)?.node.run(&["bash", "-c", script])
}

/// A call of the plugin.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    command: String,
    /// When it began and ended, since 1970.
    began: Duration,
    ended: Duration,
    is_ok: bool,
    /// The pod's name.
    pod: String,
}

fn calls(cluster: &Kubernetes) -> Result<Vec<Call>, Error> {
    let text = on(cluster, &format!("touch {CALLS}; cat {CALLS}"))?;
    Ok(text.lines().filter_map(read_call).collect())
}

/// Reads a line of the clock's.
fn read_call(line: &str) -> Option<Call> {
    let mut words = line.split(' ');
    let command = words.next()?.to_owned();
    let mut time = || {
        let seconds: f64 = words.next()?.replace(',', ".").parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    let (began, ended) = (time()?, time()?);
    let is_ok = words.next()? == "0";
    let arguments = words.next().unwrap_or_default();
    let pod = arguments.split(';').find_map(|pair| pair.strip_prefix("K8S_POD_NAME="));
    Some(Call { command, began, ended, is_ok, pod: pod.unwrap_or_default().to_owned() })
}

/// What was measured.
struct Findings {
    phases: Vec<Phase>,
    outage: Outage,
    load_average: [String; 2],
}

/// What was seen of pods that came at one pace.
struct Phase {
    pace: Pace,
    seen: BTreeMap<String, Seen>,
    calls: Vec<Call>,
}

impl Phase {
    /// Returns how long each successful call of a command took.
    fn took(&self, command: &str) -> Vec<Duration> {
        let calls = self.calls.iter().filter(|call| call.command == command && call.is_ok);
        calls.filter_map(|call| call.ended.checked_sub(call.began)).collect()
    }

    /// Returns from when a pod was seen to have a node until its network was ready.
    fn waited(&self) -> Vec<Duration> {
        let of = |call: &Call| call.ended.checked_sub(self.seen.get(&call.pod)?.scheduled);
        let adds = self.calls.iter().filter(|call| call.command == "ADD" && call.is_ok);
        adds.filter_map(of).collect()
    }

    /// Returns from the same until the API server called a pod ready.
    fn until_ready(&self) -> Vec<Duration> {
        self.seen.values().filter_map(|seen| seen.ready?.checked_sub(seen.scheduled)).collect()
    }

    fn failed(&self) -> usize {
        self.calls.iter().filter(|call| !call.is_ok).count()
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
fn report(findings: &Findings) {
    println!("load average {}", findings.load_average.join(" to "));
    let phases: BTreeMap<_, _> =
        findings.phases.iter().map(|phase| (phase.pace.name(), print_phase(phase))).collect();
    let [p50, p99] = AIM.map(|aim| aim.as_millis());
    println!("the aim for ADD is {p50} ms, and {p99} ms for 99 of 100\n{}", findings.outage);
    let outage = findings.outage.to_json();
    println!("{}", json!({"benchmark": "pods", "paces": phases, "outage": outage}));
}

/// Prints what was seen at one pace, and returns it for programs.
#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
fn print_phase(phase: &Phase) -> serde_json::Value {
    let rows = [
        ("scheduled to network ready", phase.waited()),
        ("of that the plugin's ADD, with addresses and policy", phase.took("ADD")),
        ("scheduled to ready", phase.until_ready()),
        ("the plugin's DEL", phase.took("DEL")),
    ];
    let mut table = Table::new();
    let title = format!("PODS OF A KUBELET, {}", phase.pace.name().to_uppercase());
    table.set_header([title.as_str(), "COUNT", "P50 MS", "P99 MS", "MAX MS"]);
    for (name, durations) in &rows {
        let Summary { count, p50_ms, p99_ms, max_ms } = Summary::of(durations);
        let ms = [p50_ms, p99_ms, max_ms].map(|ms| format!("{ms:.1}"));
        let [p50, p99, max] = ms;
        table.add_row([(*name).to_owned(), count.to_string(), p50, p99, max]);
    }
    let [waited, adds, ..] = &rows;
    let half = |durations: &[Duration]| {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        millis(percentile(&sorted, 50))
    };
    let share = ratio(half(&adds.1), half(&waited.1));
    let failed = phase.failed();
    println!("{table}\nour share of the wait is {:.1} %; {failed} calls failed", share * 100.0);
    let rows: BTreeMap<_, _> =
        rows.iter().map(|(name, durations)| (name, Summary::of(durations))).collect();
    json!({"rows": rows, "share": share, "failed": failed})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_the_shell_writes_them() {
        let line = "ADD 12.000001 12.5 0 IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=web-1";
        let call = read_call(line).unwrap();
        assert_eq!((call.command.as_str(), call.pod.as_str(), call.is_ok), ("ADD", "web-1", true));
        let took = call.ended.checked_sub(call.began).unwrap();
        assert_eq!(took.as_micros(), 499_999);
        assert!(!read_call("STATUS 1.0 2.0 1 ").unwrap().is_ok);
        for wrong in ["", "ADD", "ADD 1.0", "ADD x 1.0 0", "ADD 1.0 2.0"] {
            assert_eq!(read_call(wrong), None, "{wrong}");
        }
    }
}
