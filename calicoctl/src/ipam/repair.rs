//! Repairs what the check finds: plan, question, writes, and the way back.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use datastore::Client;
use ipam::audit::{self, Finding, Limits, Plan};
use ipam::slots::Clock;
use ledger::{Scene, described};
use model::net::Cidr;
use model::vrf::VrfName;
use serde::Serialize;

use super::apply::{self, Outcome};
use super::check::{self, CheckReport, Earlier, ProblemReport};
use super::moment;
use super::undo::{self, Action, UndoFile};
use crate::Error;
use crate::arguments::Repair;
use crate::output::{Format, Report, print, render};
use crate::run::Verdict;

/// What would be written, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// The writes, in order.
    pub writes: Vec<WriteReport>,
    /// What no write repairs.
    pub left: Vec<ProblemReport>,
}

/// One write.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct WriteReport {
    /// What it does.
    pub write: String,
    /// The problems that it repairs; none for one that another needs.
    pub repairs: Vec<String>,
}

/// Describes a plan.
#[must_use]
pub fn describe(plan: &Plan, findings: &[Finding]) -> PlanReport {
    let named = |index: &usize| findings.get(*index).map(|one| one.problem.to_string());
    let writes = plan.writes.iter().map(|write| {
        let indexes: BTreeSet<usize> = write.findings.iter().copied().collect();
        let repairs = indexes.iter().filter_map(named).collect();
        WriteReport { write: apply::summary(write), repairs }
    });
    let left = plan.left.iter().filter_map(|index| findings.get(*index));
    PlanReport { writes: writes.collect(), left: left.map(check::problem).collect() }
}

impl Report for PlanReport {
    fn text(&self) -> String {
        let mut lines = vec![format!("The plan has {} writes.", self.writes.len())];
        for (number, write) in (1_u32..).zip(&self.writes) {
            lines.push(format!("{number:3}. {}", write.write));
            lines.extend(write.repairs.iter().map(|problem| format!("       repairs {problem}")));
        }
        if !self.left.is_empty() {
            lines.push("Left for you to judge:".to_owned());
        }
        for one in &self.left {
            lines.push(format!("   - {}: {} ({})", one.problem, one.about, one.confidence));
            lines.extend(one.evidence.iter().map(|text| format!("       {text}")));
        }
        lines.join("\n")
    }
}

/// Repairs, or takes a repair back.
///
/// # Errors
///
/// [`Error::Refused`] with the reason, [`Error::File`], and what the datastore fails with.
pub async fn run(
    client: &Client,
    vrf: Option<&VrfName>,
    arguments: &Repair,
) -> Result<Verdict, Error> {
    if let Some(path) = &arguments.undo {
        return Box::pin(take_back(client, path)).await;
    }
    let limits = if arguments.force {
        Limits { percent: 100, floor: usize::MAX }
    } else {
        Limits::default()
    };
    let scene = Box::pin(Scene::read(client, vrf.cloned())).await?;
    if arguments.dry_run {
        let findings = check::findings(&scene);
        let plan = plan(&scene, &findings, &limits)?;
        print(&render(&describe(&plan, &findings), arguments.format)?)?;
        return Ok(Verdict::Fine);
    }
    let (scene, earlier) = Box::pin(confirm(client, arguments, scene)).await?;
    let (plan, _) = ripe_plan(&scene, &earlier, &limits, arguments.format)?;
    if plan.writes.is_empty() {
        return Ok(Verdict::Fine);
    }
    if !arguments.yes && !ask(plan.writes.len())? {
        return Err(Error::Refused("nothing was written".to_owned()));
    }
    // Whoever was asked may have thought for long.
    let scene = Box::pin(Scene::read(client, vrf.cloned())).await?;
    let findings = check::findings(&scene);
    let ripe: Vec<Finding> = findings.into_iter().filter(|one| earlier.confirms(one)).collect();
    let plan = self::plan(&scene, &ripe, &limits)?;
    let path = arguments.undo_file.clone().unwrap_or_else(|| default_path(&scene));
    Box::pin(carry_out(client, &scene, &plan, &path)).await
}

/// Plans the repair of what is confirmed, and prints it.
fn ripe_plan(
    scene: &Scene,
    earlier: &Earlier,
    limits: &Limits,
    format: Format,
) -> Result<(Plan, Vec<Finding>), Error> {
    let findings = check::findings(scene);
    let (ripe, others): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|one| earlier.confirms(one));
    let plan = plan(scene, &ripe, limits)?;
    let mut report = describe(&plan, &ripe);
    report.left.extend(others.iter().map(check::problem));
    print(&render(&report, format)?)?;
    Ok((plan, ripe))
}

/// Plans; not while there are objects that cannot be read.
///
/// # Errors
///
/// [`Error::Refused`].
pub fn plan(scene: &Scene, findings: &[Finding], limits: &Limits) -> Result<Plan, Error> {
    if !scene.unreadable.is_empty() {
        return Err(Error::Refused(format!(
            "there are objects that cannot be read, so what seems lost may be theirs; correct \
             them first:\n{}",
            scene.unreadable.join("\n")
        )));
    }
    audit::plan(&scene.snapshot, findings, limits).map_err(|error| {
        Error::Refused(format!("{error}; or use --force after a look at --dry-run"))
    })
}

/// Waits until what looks wrong can no longer be an operation that is under way.
async fn confirm(
    client: &Client,
    arguments: &Repair,
    scene: Scene,
) -> Result<(Scene, Earlier), Error> {
    let grace = Duration::from_secs(arguments.grace);
    if let Some(path) = &arguments.from_report {
        let report: CheckReport = super::from_json_file(path)?;
        let time = moment::of_text(&report.time).unwrap_or(scene.snapshot.now);
        let age = moment::age(time, scene.snapshot.now);
        if age < grace {
            return Err(Error::Refused(format!(
                "{}: the check was made {} ago, and operations may be under way for {}: wait, or \
                 lower --grace",
                path.display(),
                moment::span(age),
                moment::span(grace)
            )));
        }
        let earlier = Earlier::of(&report.problems, scene.vrf.as_ref());
        return Ok((scene, earlier));
    }
    let problems: Vec<ProblemReport> = check::findings(&scene).iter().map(check::problem).collect();
    let earlier = Earlier::of(&problems, None);
    if !problems.iter().any(|one| one.confidence == "likely") || grace.is_zero() {
        return Ok((scene, earlier));
    }
    let wait = moment::span(grace);
    eprintln!("calicoctl: waiting {wait} to see whether this is an operation under way (--grace)");
    tokio::time::sleep(grace).await;
    Ok((Box::pin(Scene::read(client, scene.vrf)).await?, earlier))
}

fn ask(writes: usize) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        let text = "nobody can be asked: use --yes to repair, or --dry-run to look at the plan";
        return Err(Error::Refused(text.to_owned()));
    }
    eprint!("Carry out these {writes} writes? [y/N] ");
    drop(io::stderr().flush());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Error::Runtime)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn default_path(scene: &Scene) -> PathBuf {
    let time = moment::text(scene.snapshot.now).replace([':', '-'], "");
    PathBuf::from(format!("calicoctl-undo-{time}.json"))
}

async fn carry_out(
    client: &Client,
    scene: &Scene,
    plan: &Plan,
    path: &Path,
) -> Result<Verdict, Error> {
    let mut file = UndoFile::of(plan, scene, client.server())?;
    file.create(path)?;
    let snapshot = &scene.snapshot;
    let clock = Clock { now: snapshot.now, cooldown: snapshot.config.cooldown };
    let outcomes = apply::apply(client, plan, scene, clock).await;
    file.note(&outcomes);
    file.replace(path)?;
    for (write, outcome) in plan.writes.iter().zip(&outcomes) {
        print(&format!("{}: {}", said(outcome), apply::summary(write)))?;
    }
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Done(_))).count();
    print(&format!(
        "{done} of {} writes done. To take them back: calicoctl ipam repair --undo {}",
        outcomes.len(),
        path.display()
    ))?;
    verdict(outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_))))
}

/// Says how a write went.
#[must_use]
pub fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(_) => "done".to_owned(),
        Outcome::Changed => "left alone, it has changed meanwhile".to_owned(),
        Outcome::Skipped => "left alone, what it needs was not done".to_owned(),
        Outcome::Failed(error) => format!("failed ({error})"),
    }
}

fn verdict(has_failed: bool) -> Result<Verdict, Error> {
    if has_failed {
        let text = "some writes failed, see above: run `calicoctl ipam check` and repair again";
        return Err(Error::Refused(text.to_owned()));
    }
    Ok(Verdict::Fine)
}

/// Takes a repair back, the last write first.
async fn take_back(client: &Client, path: &Path) -> Result<Verdict, Error> {
    let file = UndoFile::read(path)?;
    if file.server != client.server() {
        let problem = format!(
            "it is of the cluster at {}, and this is {}: use that kubeconfig",
            file.server,
            client.server()
        );
        return Err(Error::Unreadable { path: path.to_owned(), problem });
    }
    let mut has_failed = false;
    for step in file.steps.iter().rev() {
        let object = step.before.as_ref().or(step.created.as_ref());
        let Some(object) = object.map(undo::from_json).transpose()? else { continue };
        let key = object.record()?.key();
        let scene = Box::pin(Scene::read(client, object.vrf()?)).await?;
        let blocks: Vec<Cidr> = scene.blocks().map(|block| block.cidr).collect();
        let clock = Clock { now: scene.snapshot.now, cooldown: scene.snapshot.config.cooldown };
        let action = undo::decide(step, scene.objects.get(&key), &blocks, clock)?;
        let done = act(client, &action).await;
        has_failed |= done.is_err();
        let done = done.unwrap_or_else(|error| format!("failed ({error})"));
        print(&format!("{}: {done}", described(&key)))?;
    }
    verdict(has_failed)
}

async fn act(client: &Client, action: &Action) -> Result<String, datastore::Error> {
    let done = match action {
        Action::Nothing => "was not changed",
        Action::Leave(reason) => return Ok(format!("left alone, {reason}")),
        Action::Create(object) => {
            object.create(client).await?;
            "made again"
        }
        Action::Update(object) => {
            object.update(client).await?;
            "is as before"
        }
        Action::Delete(object) => {
            object.delete(client).await?;
            "deleted again"
        }
    };
    Ok(done.to_owned())
}
