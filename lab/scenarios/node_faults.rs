//! What goes wrong with nodes: each fault has its code in what pods get, and its name in
//! `calicoctl check`, with the object and the remedy.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, eventually};
use lab::control_plane::{Identity, Kind};
use lab::protocol::Pod;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::churn::require_no_address;
use super::planted::{Deed, FAULTS, Fault, sh};

/// How long a fault may take to have its effect, and to lose it: servers keep roles and kinds
/// in memory for a while.
const WITHIN: Duration = Duration::from_secs(40);
/// A process that is as old as the scenario and takes the lock of address management at last.
const HOLDER: &str =
    "until [ -e /run/take-lock ]; do sleep 0.1; done; exec flock /run/calico/ipam.lock sleep 600";

/// Plants one fault after the other, and sees what pods and `calicoctl check` say.
pub(crate) fn are_named(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 1, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    let node = cluster.node("node-1")?;
    let ours = cluster.control_plane.kubeconfig(Identity::CniPlugin);
    let script = format!(
        "cp {0} $KUBECONFIG; sed -i 's|{0}|/etc/cni/net.d/calico-kubeconfig|' $CONF; \
         chmod 0600 /etc/cni/net.d/*; keep",
        ours.display()
    );
    sh(node, &script)?;
    node.start_program("holder", &["sh", "-c", HOLDER], &BTreeMap::new())?;
    let pod = cluster.create_pod(&NewPod::plain(NAMESPACE, "victim", "node-1"))?;
    well(&cluster, &pod)?;
    for fault in FAULTS {
        eprintln!("{}", fault.what);
        act(&mut cluster, &fault.plant)?;
        eventually(fault.what, WITHIN, || is_told(&cluster, &pod, fault))?;
        eventually(fault.what, WITHIN, || is_found(&cluster, fault.id, fault.told))?;
        act(&mut cluster, &fault.mend)?;
        eventually(&format!("mended: {}", fault.what), WITHIN, || well(&cluster, &pod))?;
    }
    // Whatever an ADD stumbled over, it has kept no address.
    require_no_address(&cluster)?;
    let node = cluster.node("node-1")?;
    sh(node, "touch /run/take-lock")?;
    eventually("the lock is held", WITHIN, || is_found(&cluster, "lock-held", None))?;
    node.end_program("holder", Signal::SIGKILL)
}

fn act(cluster: &mut Cluster, deed: &Deed) -> Result<(), Error> {
    match deed {
        Deed::StopApiServer => {
            cluster.control_plane.stop_api_server();
            Ok(())
        }
        Deed::StartApiServer => cluster.control_plane.start_api_server(),
        Deed::Shell(_) | Deed::Api(_) => deed.act(cluster.node("node-1")?, &cluster.api),
    }
}

/// A pod starts and ends, and the check finds nothing.
fn well(cluster: &Cluster, pod: &Pod) -> Result<(), Error> {
    let node = cluster.node("node-1")?;
    node.add(pod)?;
    node.del(pod)?;
    let found = check(cluster)?;
    let findings = found.get("findings").and_then(Value::as_array).map_or(0, Vec::len);
    if findings == 0 { Ok(()) } else { Err(Error::wrong(format!("without a fault: {found}"))) }
}

/// A pod gets the fault's code and words; or starts, if it should.
fn is_told(cluster: &Cluster, pod: &Pod, fault: &Fault) -> Result<(), Error> {
    let node = cluster.node("node-1")?;
    let outcome = node.add(pod);
    if outcome.is_ok() {
        node.del(pod)?;
    }
    let said = outcome.err().map(|error| error.to_string());
    let is_right = match (fault.told, &said) {
        (None, None) => true,
        (Some((code, words)), Some(said)) => {
            let has_code = code == 0 || said.contains(&format!("calico ADD: code {code}: "));
            has_code && words.iter().all(|word| said.contains(word))
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(Error::wrong(format!("ADD: {said:?}"))) }
}

/// The check names the fault, with the same code that pods get.
fn is_found(
    cluster: &Cluster,
    id: &str,
    told: Option<(u32, &'static [&'static str])>,
) -> Result<(), Error> {
    let found = check(cluster)?;
    let findings = found.get("findings").and_then(Value::as_array).into_iter().flatten();
    let finding = findings.into_iter().find(|finding| finding["id"] == id);
    let finding = finding.ok_or_else(|| Error::wrong(format!("no {id}: {found}")))?;
    let code = told.map(|(code, _)| code).filter(|code| *code != 0);
    let has_code = code.is_none_or(|code| finding["code"] == code);
    let has_text = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
    if has_code && has_text("object") && has_text("message") {
        return Ok(());
    }
    Err(Error::wrong(format!("{id} is not as it should be: {finding}")))
}

fn check(cluster: &Cluster) -> Result<Value, Error> {
    // Exit code 3 says that there are findings.
    let script = format!("{} check -o json || [ $? = 3 ]", cluster.program("calicoctl"));
    let text = sh(cluster.node("node-1")?, &script)?;
    serde_json::from_str(&text).map_err(Error::wrong)
}
