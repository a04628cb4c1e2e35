//! What calls of the plugin come to while the API server is away, and after.
//!
//! The kubelet is ended before, since it starts no pod without the API server: the lab calls the
//! plugins as a container runtime would.

use std::fmt;
use std::time::{Duration, Instant};

use lab::Error;
use lab::cluster::eventually;
use lab::kubernetes::Kubernetes;
use lab::protocol::Pod;
use serde_json::{Value, json};

use super::machine;
use crate::statistics::{Summary, millis};

/// How many pods are attached before.
const ATTACHED: usize = 10;
/// How many rounds of calls there are in an outage.
const ROUNDS: u32 = 20;
/// How long after it calls may fail.
const WITHIN: Duration = Duration::from_secs(120);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outage {
    lasted: Duration,
    /// How long calls took until they said that the API server is away.
    refused: Vec<Duration>,
    /// Those that said something else, or that they had succeeded.
    strange: Vec<String>,
    /// How long CHECKs of attached pods took that found nothing wrong.
    checked: Vec<Duration>,
    /// How long CHECKs took that failed.
    unchecked: Vec<Duration>,
    /// From the API server's return to the first successful ADD.
    first_add: Duration,
    /// How long DELs of what was attached before took, after it.
    detached: Vec<Duration>,
    /// Addresses that are still taken when all is detached.
    left: usize,
}

/// Takes the API server away for so long.
///
/// # Errors
///
/// [`Error`] if something fails that should not.
pub(super) fn measure(cluster: &mut Kubernetes, outage: Duration) -> Result<Outage, Error> {
    machine(cluster)?.stop_kubelet()?;
    let pods = (0..=ATTACHED).map(|number| make(cluster, number)).collect::<Result<Vec<_>, _>>()?;
    let (late, attached) = pods.split_last().ok_or_else(|| Error::wrong("no pods"))?;
    for pod in attached {
        machine(cluster)?.node.add(pod)?;
    }
    cluster.control_plane.stop_api_server();
    let mut found = Outage::default();
    let since = Instant::now();
    for round in 0..ROUNDS {
        call(cluster, &mut found, late, attached)?;
        let due = outage.saturating_mul(round.saturating_add(1)).checked_div(ROUNDS);
        std::thread::sleep(due.unwrap_or_default().saturating_sub(since.elapsed()));
    }
    found.lasted = since.elapsed();
    cluster.control_plane.start_api_server()?;
    let since = Instant::now();
    eventually("a pod to be attached again", WITHIN, || machine(cluster)?.node.add(late))?;
    found.first_add = since.elapsed();
    for pod in &pods {
        let took = machine(cluster)?.node.del(pod)?;
        found.detached.push(Duration::from_micros(took));
    }
    let line = ["get", "ipamhandles.crd.projectcalico.org", "-o", "name"];
    let handles = cluster.control_plane.kubectl(&line)?;
    found.left = handles.lines().filter(|name| name.contains("k8s-pod-network.bench")).count();
    Ok(found)
}

/// An ADD, which must fail, and a CHECK.
fn call(
    cluster: &Kubernetes,
    found: &mut Outage,
    late: &Pod,
    attached: &[Pod],
) -> Result<(), Error> {
    let node = &machine(cluster)?.node;
    let since = Instant::now();
    match node.add(late) {
        Err(error) if error.to_string().contains("code 112") => found.refused.push(since.elapsed()),
        Err(error) => found.strange.push(error.to_string()),
        Ok(_) => found.strange.push("ADD succeeded".to_owned()),
    }
    if let Some(pod) = attached.first() {
        let since = Instant::now();
        let outcome = node.check(pod);
        let took = since.elapsed();
        if outcome.is_ok() { found.checked.push(took) } else { found.unchecked.push(took) }
    }
    Ok(())
}

/// Makes a pod of this machine, which nobody starts: its kubelet has ended.
fn make(cluster: &Kubernetes, number: usize) -> Result<Pod, Error> {
    let name = format!("bench-{number}");
    let node = &machine(cluster)?.node.name;
    let pod = json!({
        "metadata": {"name": name, "namespace": "bench", "labels": {"app": "outage"}},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none"}],
        },
    });
    let made = cluster.api.create::<k8s_openapi::api::core::v1::Pod>(pod)?;
    Ok(Pod {
        namespace: "bench".to_owned(),
        name,
        uid: made.metadata.uid.unwrap_or_default(),
        container: format!("bench{number:0>59}"),
    })
}

impl Outage {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "lasted_s": self.lasted.as_secs(),
            "refused": Summary::of(&self.refused),
            "strange": self.strange,
            "checked": Summary::of(&self.checked),
            "unchecked": Summary::of(&self.unchecked),
            "first_add_ms": millis(self.first_add),
            "detached": Summary::of(&self.detached),
            "left": self.left,
        })
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [refused, checked, detached] =
            [&self.refused, &self.checked, &self.detached].map(|all| Summary::of(all));
        write!(
            f,
            "API server away for {} s: {} of {ROUNDS} ADDs said so, after {:.0} ms (p50) and {:.0} ms \
             (p99); {} of {ROUNDS} CHECKs passed; the first ADD succeeded {:.1} s after its return; {} \
             DELs took {:.1} ms (p50); {} addresses were left",
            self.lasted.as_secs(),
            refused.count,
            refused.p50_ms,
            refused.p99_ms,
            checked.count,
            self.first_add.as_secs_f64(),
            detached.count,
            detached.p50_ms,
            self.left
        )?;
        match self.strange.first() {
            Some(strange) => write!(f, "; an ADD said `{strange}`"),
            None => Ok(()),
        }
    }
}
