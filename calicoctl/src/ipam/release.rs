//! Gives single addresses back, and leaks that reports of the check agree on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use datastore::Client;
use ipam::audit::{Allocation, Change, Finding, Limits, Plan, Problem, Revisioned, Write};
use ipam::slots::{self, Clock};
use ipam::{Key, Record};
use ledger::Scene;
use model::block::Handle;
use model::vrf::VrfName;

use super::apply::{self, Outcome};
use super::check::{self, CheckReport, Earlier};
use super::repair;
use crate::Error;
use crate::arguments::Release;

/// Releases what is asked for; returns what to say about it.
///
/// # Errors
///
/// [`Error::Refused`] for what is free, or in use, or not done; and what the datastore fails with.
pub async fn run(
    client: &Client,
    vrf: Option<&VrfName>,
    arguments: &Release,
) -> Result<Vec<String>, Error> {
    let scene = Box::pin(Scene::read(client, vrf.cloned())).await?;
    let findings = check::findings(&scene);
    let (plan, done) = if let Some(ip) = arguments.ip {
        let plan = release_of(ip, &scene, &findings, arguments.force)?;
        (plan, format!("Successfully released IP address {ip}"))
    } else {
        let plan = leaks(&scene, findings, arguments)?;
        let count: usize = plan.writes.iter().map(|write| write.releases.len()).sum();
        (plan, format!("Released {count} IPs successfully"))
    };
    let snapshot = &scene.snapshot;
    let clock = Clock { now: snapshot.now, cooldown: snapshot.config.cooldown };
    let outcomes = Box::pin(apply::apply(client, &plan, &scene, clock)).await;
    let writes = plan.writes.iter().zip(&outcomes);
    let mut bad = writes
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Done(_)))
        .map(|(write, outcome)| format!("{}: {}", repair::said(outcome), apply::summary(write)))
        .peekable();
    if bad.peek().is_some() {
        let bad: Vec<String> = bad.collect();
        return Err(Error::Refused(format!(
            "not all was released; try again:\n{}",
            bad.join("\n")
        )));
    }
    Ok(vec![done])
}

/// Plans the release of what all reports call a leak, and what still is one.
fn leaks(scene: &Scene, findings: Vec<Finding>, arguments: &Release) -> Result<Plan, Error> {
    let mut leaks: Vec<Finding> = findings;
    leaks.retain(|one| matches!(one.problem, Problem::Leak(_)));
    for path in &arguments.from_report {
        let report: CheckReport = super::from_json_file(path)?;
        let earlier = Earlier::of(&report.problems, scene.vrf.as_ref());
        leaks.retain(|one| earlier.confirms(one));
    }
    let limits = if arguments.force {
        Limits { percent: 100, floor: usize::MAX }
    } else {
        Limits::default()
    };
    repair::plan(scene, &leaks, &limits)
}

/// Plans the release of one address.
///
/// Differs from Calico: an address that is in use is released only by force.
///
/// # Errors
///
/// [`Error::Refused`].
pub fn release_of(
    ip: IpAddr,
    scene: &Scene,
    findings: &[Finding],
    is_forced: bool,
) -> Result<Plan, Error> {
    let held: Vec<Allocation> =
        check::allocations(scene).into_iter().filter(|held| held.addr == ip).collect();
    let Some(first) = held.first() else {
        let vrf = scene.vrf.as_ref().map(|vrf| format!(" in VRF {vrf}")).unwrap_or_default();
        return Err(Error::Refused(format!(
            "IP address {ip} is not assigned{vrf}: `calicoctl ipam explain {ip}` says what is known \
             of it; of a VRF's address say --vrf"
        )));
    };
    let is_leak =
        |held: &Allocation| findings.iter().any(|one| one.problem == Problem::Leak(held.clone()));
    if !is_forced && !held.iter().all(is_leak) {
        return Err(Error::Refused(format!(
            "IP address {ip} is in use by {}, or nobody can tell that it is not: delete that, or \
             use --force",
            first.holder()
        )));
    }
    let mut plan = Plan::default();
    for held in &held {
        let block = block_write(held, scene);
        plan.writes.extend(block);
        plan.writes.extend(handle_write(held, scene));
    }
    Ok(plan)
}

fn block_write(held: &Allocation, scene: &Scene) -> Option<Write> {
    let snapshot = &scene.snapshot;
    let base = snapshot.blocks.iter().find(|block| block.value.cidr == held.block)?;
    let clock = Clock { now: snapshot.now, cooldown: snapshot.config.cooldown };
    let released = slots::release(&base.value, &[held.ordinal], clock);
    Some(Write {
        base: Some(Revisioned {
            value: Record::Block(base.value.clone()),
            revision: base.revision.clone(),
            created: base.created,
        }),
        change: Change::Put(Record::Block(released)),
        after: BTreeSet::new(),
        releases: vec![held.clone()],
        findings: Vec::new(),
    })
}

/// Lowers the handle's count, or deletes the handle that holds nothing any more.
fn handle_write(held: &Allocation, scene: &Scene) -> Option<Write> {
    let id = held.handle.as_ref()?;
    let handles = &scene.snapshot.handles;
    let base = handles.iter().find(|handle| handle.value.id.object_name() == id.object_name())?;
    let mut blocks = base.value.blocks.clone();
    let count = blocks.get_mut(&held.block)?;
    *count = count.saturating_sub(1);
    blocks.retain(|_, count| *count > 0);
    let change = if blocks.is_empty() {
        Change::Delete(Key::Handle(base.value.id.clone()))
    } else {
        Change::Put(Record::Handle(Handle { blocks, ..base.value.clone() }))
    };
    Some(Write {
        base: Some(Revisioned {
            value: Record::Handle(base.value.clone()),
            revision: base.revision.clone(),
            created: base.created,
        }),
        change,
        after: BTreeSet::from([Key::Block(held.block)]),
        releases: Vec::new(),
        findings: Vec::new(),
    })
}
