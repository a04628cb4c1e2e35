//! What pools and namespaces say of VRFs, and what of it has no effect.

use std::collections::BTreeMap;

use datastore::{Client, Filter};
use k8s_openapi::api::core::v1::Namespace;
use model::pool::IpPool;
use model::vrf::{VrfName, vrfs};

use super::check::ProblemReport;
use super::read::readable;
use crate::Error;

/// Reads pools and namespaces, and returns what is wrong with what they say of VRFs.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn read(client: &Client) -> Result<Vec<ProblemReport>, Error> {
    let all = Filter::default();
    let (pools, namespaces) =
        futures::try_join!(client.list::<api::IpPool>(&all), client.list::<Namespace>(&all))?;
    // The check tells of pools that cannot be read.
    let pools: Vec<IpPool> = pools.iter().filter_map(|pool| pool.try_into().ok()).collect();
    let asked = readable(&namespaces, |namespace| {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        api::kubernetes::namespace_vrf(namespace).map(|vrf| (name, vrf))
    });
    let asked = asked.into_iter().filter_map(|(name, vrf)| Some((name, vrf?))).collect();
    Ok(problems(&pools, &asked))
}

/// Returns what of the pools has no effect, and which namespaces ask for a VRF that no pool gives.
#[must_use]
pub fn problems(pools: &[IpPool], asked: &BTreeMap<String, VrfName>) -> Vec<ProblemReport> {
    let found = vrfs(pools);
    let of_pools = found.problems.iter().map(|(pool, why)| {
        let vrf = pools.iter().find(|one| one.name == *pool).and_then(|one| one.vrf.as_ref());
        report(vrf.map(|vrf| &vrf.name), format!("IPPool {pool}"), why.clone())
    });
    let of_namespaces = asked.iter().filter_map(|(namespace, vrf)| {
        let usable = |pool: &IpPool| {
            let is_its = pool.vrf.as_ref().is_some_and(|said| said.name == *vrf);
            is_its && !pool.is_disabled
        };
        if found.by_name.contains_key(vrf) && pools.iter().any(usable) {
            return None;
        }
        let why = format!(
            "no IPPool gives addresses of VRF {vrf}, so no pod of the namespace can start; make \
             one, or remove the annotation"
        );
        Some(report(Some(vrf), format!("Namespace {namespace}"), why))
    });
    of_pools.chain(of_namespaces).collect()
}

fn report(vrf: Option<&VrfName>, about: String, why: String) -> ProblemReport {
    ProblemReport {
        vrf: vrf.map(ToString::to_string),
        problem: "vrf".to_owned(),
        about,
        evidence: vec![why],
        since: None,
        confidence: "certain".to_owned(),
        leak: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::vrf::PoolVrf;

    #[test]
    fn what_has_no_effect_is_told() {
        let pool = |name: &str, vrf: &str, id: &str| {
            let (vrf, id) = (vrf.parse().unwrap(), id.parse().unwrap());
            let plain = IpPool::plain(name, "10.0.0.0/16".parse().unwrap());
            IpPool { vrf: Some(PoolVrf { name: vrf, id, imports: [].into() }), ..plain }
        };
        let off = IpPool { is_disabled: true, ..pool("d", "green", "5003") };
        let pools = [pool("a", "red", "5001"), pool("b", "red", "5002"), off];
        let asked = [("one", "red"), ("two", "blue"), ("three", "green")];
        let asked = asked.map(|(name, vrf)| (name.to_owned(), vrf.parse().unwrap()));
        let told = problems(&pools, &asked.into());
        let told: Vec<_> = told.iter().map(|one| (one.vrf.as_deref(), &*one.about)).collect();
        assert_eq!(
            told,
            [
                (Some("red"), "IPPool b"),
                (Some("green"), "Namespace three"),
                (Some("blue"), "Namespace two")
            ]
        );
    }
}
