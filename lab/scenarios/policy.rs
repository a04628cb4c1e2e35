//! Policy, judged by packets in the kernel, through the API server.

use std::path::Path;
use std::time::Instant;

use lab::Error;
use lab::control_plane::{Kind, root};
use lab::policy::case::Case;
use lab::policy::random::{Happening, History};
use lab::policy::{inputs, judge, random, world};
use serde_json::{Value, json};

/// Cases of the `NetworkPolicy` of Kubernetes.
pub(crate) fn kubernetes_matrix(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    matrix(dir, control_plane, "kubernetes")
}

/// Cases of Calico's policies, tiers and network sets.
pub(crate) fn calico_matrix(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    matrix(dir, control_plane, "calico")
}

/// Cases of the `ClusterNetworkPolicy` of Kubernetes.
pub(crate) fn cluster_matrix(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    matrix(dir, control_plane, "cluster")
}

/// How many random sets of policies are tried; `POLICY_SETS` says another number.
const RANDOM_SETS: u64 = 100;

/// Sets of policies that nobody thought of: evaluator and packets must agree.
///
/// The seeds are 1 and up; `POLICY_SEED` chooses a single one.
pub(crate) fn random(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("POLICY_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("POLICY_SETS").unwrap_or(RANDOM_SETS),
    };
    let cluster = world::up(dir, control_plane)?;
    let without = inputs::of_cluster(&cluster)?;
    let mut wrong = Vec::new();
    for seed in seeds {
        let case = random::case(seed, &cluster)?;
        if let Err(error) = judge::judge(&cluster, &without, &case, None) {
            let objects = serde_json::to_string_pretty(&case.apply).map_err(Error::wrong)?;
            eprintln!("WRONG {error}\n{objects}");
            wrong.push(error.to_string());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::wrong(wrong.join("\n"))) }
}

/// Whatever happens, one thing after the other: evaluator and packets must agree each time.
///
/// Here nothing is taken away in between, so that what nodes change step by step is judged.
pub(crate) fn random_changes(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cluster = world::up(dir, control_plane)?;
    let tier = Case::read_all("[{name: tier, apply: [{tier: early, spec: {order: 10}}]}]")?;
    for object in tier.iter().map(Case::objects).collect::<Result<Vec<_>, _>>()?.concat() {
        cluster.api.create_any(&object)?;
    }
    let mut history = History::new(number("POLICY_SEED").unwrap_or(1));
    let mut made: Vec<Value> = Vec::new();
    for step in 1..=number("POLICY_SETS").unwrap_or(RANDOM_SETS) {
        let happening = history.next(made.len(), &cluster)?;
        match &happening {
            Happening::Made(object) => {
                let apply = vec![(**object).clone()];
                let case = Case { name: String::new(), apply, expect: Vec::new() };
                for object in case.objects()? {
                    made.push(cluster.api.create_any(&object)?);
                }
            }
            Happening::Removed(place) => cluster.api.delete_any(&made.remove(*place))?,
            Happening::Relabelled { object, labels } => {
                let patch = json!({"metadata": {"labels": labels}});
                cluster.api.patch_any(object, &patch)?;
            }
        }
        let agreed = judge::judge_as_is(&cluster, &made).map_err(|error| {
            let made = serde_json::to_string_pretty(&made).unwrap_or_default();
            Error::wrong(format!("step {step}, {happening:?}: {error}\n{made}"))
        })?;
        eprintln!("agreed: step {step}: {agreed} cells come through");
    }
    Ok(())
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
        let verdict = case
            .expected()
            .and_then(|written| judge::judge(&cluster, &without, case, Some(&written)));
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
