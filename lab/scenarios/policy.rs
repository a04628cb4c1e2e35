//! Policy, judged by packets in the kernel, through the API server.

use std::path::Path;
use std::time::Instant;

use lab::Error;
use lab::control_plane::{Kind, root};
use lab::policy::case::Case;
use lab::policy::{inputs, judge, world};

/// Cases of the `NetworkPolicy` of Kubernetes.
pub(crate) fn kubernetes_matrix(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    matrix(dir, control_plane, "kubernetes")
}

/// Cases of Calico's policies, tiers and network sets.
pub(crate) fn calico_matrix(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    matrix(dir, control_plane, "calico")
}

fn matrix(dir: &Path, control_plane: Kind, cases: &str) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let without = inputs::of_cluster(&cluster)?;
    let path = root().join(format!("lab/scenarios/policy/{cases}.yaml"));
    let cases = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    let cases = Case::read_all(&world::with_addrs(&cases, &cluster))?;
    let mut wrong = Vec::new();
    for case in &cases {
        let started = Instant::now();
        let verdict = judge::judge(&cluster, &without, case);
        let seconds = started.elapsed().as_secs_f32();
        eprintln!(
            "{} {} ({seconds:.1} s)",
            if verdict.is_ok() { "ok   " } else { "WRONG" },
            case.name
        );
        wrong.extend(verdict.err().map(|error| error.to_string()));
    }
    if wrong.is_empty() && !cases.is_empty() {
        return Ok(());
    }
    Err(Error::wrong(format!("{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"))))
}
