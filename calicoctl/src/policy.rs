//! `calicoctl policy`: where policies are in force, from what nodes report (ADR 6).

use std::collections::BTreeSet;

use api::kubernetes::ClusterNetworkPolicy;
use api::{PolicyObject, Reading, policy_report};
use calc::policy::status::{ObjectStatus, Published, aggregate, rejected};
use datastore::{Client, Filter, Object};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::id::NodeName;
use model::policy::{NodeReport, PolicyId};
use serde::Serialize;

use crate::Error;
use crate::arguments::{Global, Policy};
use crate::output::{Report, grid, print, render};
use crate::run::{Verdict, connect};

/// Does one of the commands.
///
/// # Errors
///
/// What the datastore fails with, and [`Error::Refused`] for a policy that does not exist.
pub async fn run(global: &Global, task: Policy) -> Result<Verdict, Error> {
    let Policy::Status { policy, output } = task;
    let client = connect(global)?;
    let objects = Box::pin(objects(&client)).await?;
    let nodes = client.list::<Node>(&Filter::default()).await?;
    let nodes = nodes.into_iter().filter_map(|node| node.metadata.name?.parse().ok()).collect();
    let reports = reports(&client).await?;
    let statuses = Statuses::new(&objects, &nodes, &reports, policy.as_ref())?;
    print(&render(&statuses, output)?)?;
    Ok(if statuses.policies.iter().all(Status::is_fine) {
        Verdict::Fine
    } else {
        Verdict::Problems
    })
}

/// Where policies are in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Statuses {
    /// How many nodes the cluster has.
    pub nodes: usize,
    /// The policies, by name.
    pub policies: Vec<Status>,
}

/// Where one policy is in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Which one, as in `np/NAMESPACE/NAME`.
    pub policy: String,
    /// The generation that counts (`metadata.generation`).
    pub generation: i64,
    /// Nodes whose kernels enforce this generation; others have no endpoint that it selects.
    pub programmed: usize,
    /// Nodes whose kernels enforce another one.
    pub behind: usize,
    /// Nodes that have not said yet whether it applies there.
    pub pending: usize,
    /// What of it cannot be followed, and denies.
    pub rejected: Vec<String>,
    /// What nodes say that are behind or pending.
    pub failures: Vec<String>,
}

impl Statuses {
    /// Adds up what nodes report of all policies, or of the `wanted` one.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if there is no such policy.
    pub fn new(
        objects: &[Published],
        nodes: &BTreeSet<NodeName>,
        reports: &[NodeReport],
        wanted: Option<&PolicyId>,
    ) -> Result<Self, Error> {
        let mut all = aggregate(objects, nodes, reports);
        all.retain(|status| wanted.is_none_or(|wanted| *wanted == status.id));
        if let (Some(wanted), true) = (wanted, all.is_empty()) {
            return Err(Error::Refused(format!(
                "there is no policy {wanted}: `calicoctl policy status` lists all"
            )));
        }
        all.sort_by_cached_key(|status| status.id.to_string());
        Ok(Self { nodes: nodes.len(), policies: all.into_iter().map(Status::of).collect() })
    }
}

impl Status {
    fn of(status: ObjectStatus) -> Self {
        let failure = |(node, what): (NodeName, String)| format!("node {node}: {what}");
        Self {
            policy: status.id.to_string(),
            generation: status.generation,
            programmed: status.programmed,
            behind: status.behind,
            pending: status.pending,
            rejected: status.rejected,
            failures: status.failures.into_iter().map(failure).collect(),
        }
    }

    /// Is it in force wherever it applies, as it is written?
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.behind == 0 && self.pending == 0 && self.rejected.is_empty()
    }
}

impl Report for Statuses {
    fn text(&self) -> String {
        let heads = ["POLICY", "GENERATION", "PROGRAMMED", "BEHIND", "PENDING", "REJECTED"];
        let rows = self.policies.iter().map(|status| {
            let numbers = [status.programmed, status.behind, status.pending, status.rejected.len()];
            let numbers = numbers.iter().map(ToString::to_string);
            let start = [status.policy.clone(), status.generation.to_string()];
            start.into_iter().chain(numbers).collect()
        });
        let mut text = grid(&heads, rows);
        for status in &self.policies {
            for what in status.rejected.iter().chain(&status.failures) {
                text.extend(["\n", &status.policy, ": ", what]);
            }
        }
        text
    }
}

/// Reads the policies of all kinds that the server knows, staged ones too: nodes hear of them.
async fn objects(client: &Client) -> Result<Vec<Published>, Error> {
    let mut all = published::<api::GlobalNetworkPolicy>(client).await?;
    all.extend(published::<api::CalicoNetworkPolicy>(client).await?);
    all.extend(published::<NetworkPolicy>(client).await?);
    all.extend(published::<ClusterNetworkPolicy>(client).await?);
    all.extend(published::<api::StagedGlobalNetworkPolicy>(client).await?);
    all.extend(published::<api::StagedNetworkPolicy>(client).await?);
    all.extend(published::<api::StagedKubernetesNetworkPolicy>(client).await?);
    Ok(all)
}

async fn published<T: Object + PolicyObject>(client: &Client) -> Result<Vec<Published>, Error> {
    let objects = match client.list::<T>(&Filter::default()).await {
        Ok(objects) => objects,
        // Nobody can have made one.
        Err(datastore::Error::UnknownKind { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let publish = |object: &T| {
        let Reading { policy, faults } = object.reading();
        let faults = faults.iter().map(api::Invalid::detail);
        let rejected = faults.chain(rejected(&policy)).collect();
        Published { id: policy.id, generation: object.generation(), rejected }
    };
    Ok(objects.iter().map(publish).collect())
}

/// Reads what nodes report; a report that cannot be read is one that is not there.
async fn reports(client: &Client) -> Result<Vec<NodeReport>, Error> {
    let filter = Filter {
        namespace: Some(policy_report::NAMESPACE.to_owned()),
        labels: Some(policy_report::LABEL.to_owned()),
        fields: None,
    };
    let maps = client.list::<ConfigMap>(&filter).await?;
    Ok(crate::ipam::read::readable(&maps, policy_report::policy_report))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(id: &str, generation: i64, rejected: &[&str]) -> Published {
        let rejected = rejected.iter().map(|&text| text.to_owned()).collect();
        Published { id: id.parse().unwrap(), generation, rejected }
    }

    fn statuses(wanted: Option<&str>) -> Result<Statuses, Error> {
        let objects = [
            published("np/shop/web", 3, &["ingress[0] denies: http is not supported"]),
            published("gnp/default.all", 1, &[]),
        ];
        let nodes = ["one", "two"].map(|name| name.parse().unwrap()).into();
        let report = NodeReport {
            node: "one".parse().unwrap(),
            heard: objects.iter().map(|object| (&object.id, object.generation)).collect(),
            programmed: objects
                .iter()
                .map(|object| (object.id.clone(), object.generation))
                .collect(),
            failure: None,
        };
        let wanted = wanted.map(|text| text.parse().unwrap());
        Statuses::new(&objects, &nodes, &[report], wanted.as_ref())
    }

    #[test]
    fn the_table_says_where_policies_are_and_what_is_refused() {
        let expected = "\
+-----------------+------------+------------+--------+---------+----------+
|      POLICY     | GENERATION | PROGRAMMED | BEHIND | PENDING | REJECTED |
+-----------------+------------+------------+--------+---------+----------+
| gnp/default.all |          1 |          1 |      0 |       1 |        0 |
| np/shop/web     |          3 |          1 |      0 |       1 |        1 |
+-----------------+------------+------------+--------+---------+----------+
np/shop/web: ingress[0] denies: http is not supported";
        let statuses = statuses(None).unwrap();
        assert_eq!(statuses.text(), expected);
        assert!(!statuses.policies.iter().any(Status::is_fine));
    }

    #[test]
    fn a_policy_that_is_not_there_is_refused() {
        assert_eq!(statuses(Some("np/shop/web")).unwrap().policies.len(), 1);
        let refusal = statuses(Some("np/shop/db")).unwrap_err().to_string();
        assert!(refusal.contains("np/shop/db"), "{refusal}");
    }
}
