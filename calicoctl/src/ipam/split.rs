//! Splitting a pool into equal parts.
//!
//! The parts are made before the whole is deleted, so that at no time an address that is in use
//! is outside of every pool. Since a part and the whole overlap meanwhile, and since a claim that
//! is under way might belong to neither, the datastore must be locked, as Calico asks for. If the
//! command is interrupted, it can be repeated.

use api::{ClusterInformation, IpPool};
use datastore::{Client, Filter};
use model::net::Cidr;
use model::vrf::VrfName;

use crate::Error;
use crate::arguments::Split;

/// Returns the parts of a pool, in order: its settings with other names and ranges.
///
/// # Errors
///
/// [`Error::InvalidObject`] for a pool that makes no sense, [`Error::Refused`] for a number that
/// is no power of two, or is more than the pool has blocks.
pub fn parts(pool: &IpPool, number: u32) -> Result<Vec<IpPool>, Error> {
    let value = model::pool::IpPool::try_from(pool)?;
    if number < 2 || !number.is_power_of_two() {
        return Err(Error::Refused(format!(
            "{number} is no number of equal parts: use a power of two, such as 2, 4 or 8"
        )));
    }
    let bits = u8::try_from(number.trailing_zeros()).unwrap_or(u8::MAX);
    let len = value.cidr.prefix_len().saturating_add(bits);
    if len > value.block_len {
        return Err(Error::Refused(format!(
            "a part of {} would be smaller than its blocks, /{}: use at most {} parts",
            value.cidr,
            value.block_len,
            1_u64
                .checked_shl(value.block_len.saturating_sub(value.cidr.prefix_len()).into())
                .unwrap_or(u64::MAX)
        )));
    }
    let too_many = || Error::Refused(format!("{} has no {number} parts", value.cidr));
    let size = value.cidr.size().checked_div(number.into()).ok_or_else(too_many)?;
    let part = |index: u32| {
        let first = value.cidr.nth(size.checked_mul(index.into())?)?;
        let cidr = Cidr::containing(first, len).ok()?;
        let mut part = IpPool::named(format!("split-{}-{index}", pool.name()), pool.spec.clone());
        part.spec.cidr = cidr.to_string();
        part.metadata.labels.clone_from(&pool.metadata.labels);
        part.metadata.annotations.clone_from(&pool.metadata.annotations);
        Some(part)
    };
    (0..number).map(|index| part(index).ok_or_else(too_many)).collect()
}

/// Splits the pool that is meant; returns what to say about it.
///
/// # Errors
///
/// [`Error::Refused`] if the datastore is not locked, if there is no such pool, or if a pool has
/// the name of a part; and what the datastore fails with.
pub async fn run(
    client: &Client,
    vrf: Option<&VrfName>,
    arguments: &Split,
) -> Result<String, Error> {
    require_lock(client).await?;
    let pools = client.list::<IpPool>(&Filter::default()).await?;
    let cidr = arguments.cidr.map(|cidr| cidr.to_string());
    let is_meant = |pool: &&IpPool| {
        let is_of = || {
            let value = model::pool::IpPool::try_from(*pool).ok();
            value.and_then(|pool| pool.vrf).map(|vrf| vrf.name).as_ref() == vrf
        };
        // Ranges may be those of several VRFs, names are not.
        arguments.name.as_deref() == Some(pool.name())
            || is_of() && cidr.as_ref().is_some_and(|cidr| pool.spec.cidr == *cidr)
    };
    let whole = pools.iter().find(is_meant).ok_or_else(|| {
        let wanted = arguments.name.clone().or(cidr.clone()).unwrap_or_default();
        Error::Refused(format!("there is no pool {wanted}: `calicoctl ipam show` lists them"))
    })?;
    let parts = parts(whole, arguments.number)?;
    for part in &parts {
        match pools.iter().find(|pool| pool.name() == part.name()) {
            None => drop(client.create(part).await?),
            // It was made when this was tried before.
            Some(pool) if pool.spec == part.spec => {}
            Some(pool) => {
                return Err(Error::Refused(format!(
                    "pool {} exists, with the range {}: delete it, or rename the pool to split",
                    pool.name(),
                    pool.spec.cidr
                )));
            }
        }
    }
    client.delete(whole).await?;
    let names: Vec<String> =
        parts.iter().map(|part| format!("{} ({})", part.name(), part.spec.cidr)).collect();
    Ok(format!("Successfully split pool {} into {}", whole.name(), names.join(", ")))
}

async fn require_lock(client: &Client) -> Result<(), Error> {
    let information = client.get::<ClusterInformation>("default").await?;
    if information.is_some_and(|one| one.spec.datastore_ready == Some(false)) {
        return Ok(());
    }
    Err(Error::Refused(
        "the datastore is not locked, and pods could get addresses meanwhile: run `calicoctl \
         datastore migrate lock` first, and `calicoctl datastore migrate unlock` when this is done"
            .to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::IpPoolSpec;

    fn pool(cidr: &str, block_size: i64) -> IpPool {
        let spec = IpPoolSpec {
            cidr: cidr.to_owned(),
            block_size: Some(block_size),
            nat_outgoing: Some(true),
            ..IpPoolSpec::default()
        };
        IpPool::named("pods", spec)
    }

    #[test]
    fn parts_cover_the_whole_and_keep_its_settings() {
        let parts = parts(&pool("10.0.0.0/24", 26), 4).unwrap();
        let ranges: Vec<(&str, &str)> =
            parts.iter().map(|part| (part.name(), part.spec.cidr.as_str())).collect();
        assert_eq!(
            ranges,
            [
                ("split-pods-0", "10.0.0.0/26"),
                ("split-pods-1", "10.0.0.64/26"),
                ("split-pods-2", "10.0.0.128/26"),
                ("split-pods-3", "10.0.0.192/26"),
            ]
        );
        assert!(parts.iter().all(|part| part.spec.nat_outgoing == Some(true)));
        let last = super::parts(&pool("fd00::/112", 122), 2).unwrap().pop().unwrap();
        assert_eq!(last.spec.cidr, "fd00::8000/113");
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        for (number, expected) in [
            (0, "use a power of two"),
            (1, "use a power of two"),
            (3, "use a power of two"),
            (8, "use at most 4 parts"),
        ] {
            let error = parts(&pool("10.0.0.0/24", 26), number).unwrap_err().to_string();
            assert!(error.contains(expected), "{number}: {error}");
        }
    }
}
