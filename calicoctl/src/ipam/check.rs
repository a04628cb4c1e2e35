//! What is wrong with the allocations, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};

use ipam::audit::{self, Allocation, Confidence, Finding, Problem};
use ledger::Scene;
use model::time::WallTime;
use model::vrf::VrfName;
use serde::{Deserialize, Serialize};

use super::moment;
use crate::output::{self, Report};

/// What a check has found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// The form of the report: 1.
    pub version: u32,
    /// When it was made (RFC 3339).
    pub time: String,
    /// How many objects were looked at, by kind.
    pub checked: BTreeMap<String, usize>,
    /// What is wrong.
    pub problems: Vec<ProblemReport>,
    /// The objects that cannot be read; what is said about others may be wrong because of them.
    pub unreadable: Vec<String>,
    /// Every address that is taken.
    pub allocations: Vec<AllocationReport>,
    /// Whether people want to see them all.
    #[serde(skip)]
    pub shows_all: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// The VRF that it is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Its name: `leak`, `orphan handle`.
    pub problem: String,
    /// What it is about.
    pub about: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// Since when, as far as is known (RFC 3339).
    pub since: Option<String>,
    /// How sure it is: `certain`, `likely` or `possible`.
    pub confidence: String,
    /// The address, for a leak.
    pub leak: Option<AllocationReport>,
}

/// An address that is taken.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllocationReport {
    /// The VRF that it is of, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The address.
    pub ip: std::net::IpAddr,
    /// The block.
    pub block: String,
    /// The holder's handle.
    pub handle: Option<String>,
    /// Who has it, for people.
    pub holder: String,
    /// The block's sequence number when it was taken, which tells it from a later one.
    pub sequence_number: Option<u64>,
}

impl AllocationReport {
    /// Describes an allocation.
    #[must_use]
    pub fn of(held: &Allocation) -> Self {
        Self {
            vrf: None,
            ip: held.addr,
            block: held.block.to_string(),
            handle: held.handle.as_ref().map(ToString::to_string),
            holder: held.holder(),
            sequence_number: held.sequence_number,
        }
    }
}

/// Makes the report of a check.
#[must_use]
pub fn report(scene: &Scene, findings: &[Finding], shows_all: bool) -> CheckReport {
    let snapshot = &scene.snapshot;
    let vrf = scene.vrf.as_ref().map(ToString::to_string);
    let allocations = allocations(scene);
    let allocations = allocations.iter().map(AllocationReport::of);
    let allocations: Vec<AllocationReport> =
        allocations.map(|held| AllocationReport { vrf: vrf.clone(), ..held }).collect();
    let checked = [
        ("pools", snapshot.pools.len()),
        ("blocks", snapshot.blocks.len()),
        ("claims", snapshot.affinities.len()),
        ("handles", snapshot.handles.len()),
        ("addresses", allocations.len()),
        ("nodes", snapshot.nodes.len()),
        ("pods", snapshot.pods.len()),
        ("tunnels", snapshot.tunnels.len()),
        ("services", snapshot.services.len()),
    ];
    CheckReport {
        version: 1,
        time: moment::text(snapshot.now),
        checked: checked.map(|(name, count)| (name.to_owned(), count)).into(),
        problems: problems(scene, findings),
        unreadable: scene.unreadable.clone(),
        allocations,
        shows_all,
    }
}

/// Returns every address that blocks gave away, in order.
#[must_use]
pub fn allocations(scene: &Scene) -> Vec<Allocation> {
    let mut all: Vec<Allocation> =
        scene.blocks().flat_map(audit::allocations).map(|(held, _)| held).collect();
    all.sort();
    all
}

/// Describes the findings of a scene, with its VRF.
#[must_use]
pub fn problems(scene: &Scene, findings: &[Finding]) -> Vec<ProblemReport> {
    let vrf = scene.vrf.as_ref().map(ToString::to_string);
    let described = findings.iter().map(problem).map(|one| {
        let leak = one.leak.map(|held| AllocationReport { vrf: vrf.clone(), ..held });
        ProblemReport { vrf: vrf.clone(), leak, ..one }
    });
    described.collect()
}

/// Describes a finding.
#[must_use]
pub fn problem(finding: &Finding) -> ProblemReport {
    let name = finding.problem.name();
    let text = finding.problem.to_string();
    let about = text.strip_prefix(name).and_then(|text| text.strip_prefix(": ")).unwrap_or(&text);
    let confidence = match finding.confidence {
        Confidence::Possible => "possible",
        Confidence::Likely => "likely",
        Confidence::Certain => "certain",
    };
    ProblemReport {
        vrf: None,
        problem: name.to_owned(),
        about: about.to_owned(),
        evidence: finding.evidence.clone(),
        since: finding.since.map(moment::text),
        confidence: confidence.to_owned(),
        leak: if let Problem::Leak(held) = &finding.problem {
            Some(AllocationReport::of(held))
        } else {
            None
        },
    }
}

/// Checks everything.
#[must_use]
pub fn findings(scene: &Scene) -> Vec<Finding> {
    audit::check(&scene.snapshot)
}

impl Report for CheckReport {
    fn text(&self) -> String {
        let count = |name: &str| {
            let count = self.checked.get(name).copied().unwrap_or_default();
            format!("{count} {name}")
        };
        let ipam = ["pools", "blocks", "claims", "handles", "addresses"].map(count).join(", ");
        let users = ["nodes", "pods", "tunnels", "services"].map(count).join(", ");
        let mut parts = vec![format!("Checked {ipam}\nagainst {users}.")];
        if self.shows_all {
            parts.push(self.all_addresses());
        }
        if !self.problems.is_empty() {
            parts.push(self.all_problems());
        }
        parts.extend(self.unreadable.iter().map(|text| format!("Cannot be read: {text}")));
        let found = self.problems.len().saturating_add(self.unreadable.len());
        parts.push(format!("Check complete; found {found} problems."));
        parts.join("\n\n")
    }
}

impl CheckReport {
    /// Takes in what was found in another VRF.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (name, count) in other.checked {
            let sum = self.checked.entry(name.clone()).or_default();
            // Each look sees the same nodes, tunnels and Services, and the pods that matter to it.
            let is_shared = ["nodes", "pods", "tunnels", "services"].contains(&name.as_str());
            *sum = if is_shared { count.max(*sum) } else { sum.saturating_add(count) };
        }
        self.problems.extend(other.problems);
        let news = other.unreadable.into_iter().filter(|text| !self.unreadable.contains(text));
        let news: Vec<String> = news.collect();
        self.unreadable.extend(news);
        self.allocations.extend(other.allocations);
        self
    }

    fn all_addresses(&self) -> String {
        let is_leaked = |held: &AllocationReport| {
            self.problems.iter().any(|problem| problem.leak.as_ref() == Some(held))
        };
        let rows = self.allocations.iter().map(|held| {
            let state = if is_leaked(held) { "leaked" } else { "in use" };
            let ip = in_vrf(held.vrf.as_deref(), &held.ip.to_string());
            vec![ip, held.block.clone(), held.holder.clone(), state.to_owned()]
        });
        output::grid(&["IP", "BLOCK", "ALLOCATED-TO", "STATE"], rows)
    }

    fn all_problems(&self) -> String {
        let now = moment::of_text(&self.time).unwrap_or_default();
        let rows = self.problems.iter().map(|one| {
            vec![
                one.problem.clone(),
                in_vrf(one.vrf.as_deref(), &one.about),
                age(one.since.as_deref(), now),
                one.confidence.clone(),
                one.evidence.join("\n"),
            ]
        });
        output::grid(&["PROBLEM", "ABOUT", "AGE", "CONFIDENCE", "EVIDENCE"], rows)
    }
}

fn in_vrf(vrf: Option<&str>, text: &str) -> String {
    vrf.map_or_else(|| text.to_owned(), |vrf| format!("VRF {vrf}: {text}"))
}

fn age(since: Option<&str>, now: WallTime) -> String {
    let since = since.and_then(moment::of_text);
    since.map_or_else(|| "unknown".to_owned(), |since| moment::span(moment::age(since, now)))
}

/// What makes a problem the same in two checks; what was seen may differ.
type Identity = (String, String, Option<AllocationReport>);

/// The problems of an earlier check.
#[derive(Clone, Debug, Default)]
pub struct Earlier(BTreeSet<Identity>);

impl Earlier {
    /// Takes the problems of a report that are in a VRF, or in none.
    #[must_use]
    pub fn of(problems: &[ProblemReport], vrf: Option<&VrfName>) -> Self {
        let vrf = vrf.map(VrfName::as_str);
        let own = problems.iter().filter(|one| one.vrf.as_deref() == vrf);
        Self(own.map(identity).collect())
    }

    /// May the finding be repaired: is it certain, or likely and was there before?
    ///
    /// Between two checks everything ends that was under way in the first.
    #[must_use]
    pub fn confirms(&self, finding: &Finding) -> bool {
        match finding.confidence {
            Confidence::Certain => true,
            Confidence::Likely => self.0.contains(&identity(&problem(finding))),
            Confidence::Possible => false,
        }
    }
}

fn identity(one: &ProblemReport) -> Identity {
    let leak = one.leak.clone().map(|held| AllocationReport { vrf: None, ..held });
    (one.problem.clone(), one.about.clone(), leak)
}
