//! How addresses are assigned throughout the cluster: shown, and changed.

use api::{IpamConfig, IpamConfigSpec};
use datastore::Client;
use serde::Serialize;

use crate::Error;
use crate::arguments::Configure;
use crate::output::{self, Report};

/// The configuration, with the defaults of what is not set.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    strict_affinity: bool,
    auto_allocate_blocks: bool,
    /// Zero is the default.
    max_blocks_per_host: i64,
    #[serde(rename = "kubeVirtVMAddressPersistence")]
    kubevirt_persistence: String,
    ip_cooldown_seconds: i64,
}

impl Configuration {
    /// Returns what `spec` says.
    #[must_use]
    pub fn of(spec: &IpamConfigSpec) -> Self {
        let persistence = spec.kubevirt_persistence.clone().filter(|text| !text.is_empty());
        Self {
            strict_affinity: spec.strict_affinity.unwrap_or_default(),
            auto_allocate_blocks: spec.auto_allocate_blocks.unwrap_or(true),
            max_blocks_per_host: spec.max_blocks_per_host.unwrap_or_default(),
            kubevirt_persistence: persistence.unwrap_or_else(|| "Enabled".to_owned()),
            ip_cooldown_seconds: spec.cooldown_seconds.unwrap_or_default(),
        }
    }
}

impl Report for Configuration {
    fn text(&self) -> String {
        let rows = [
            ("StrictAffinity", self.strict_affinity.to_string()),
            ("AutoAllocateBlocks", self.auto_allocate_blocks.to_string()),
            ("MaxBlocksPerHost", self.max_blocks_per_host.to_string()),
            ("KubeVirtVMAddressPersistence", self.kubevirt_persistence.clone()),
            ("IPCooldownSeconds", self.ip_cooldown_seconds.to_string()),
        ];
        let rows = rows.map(|(property, value)| vec![property.to_owned(), value]);
        output::grid(&["PROPERTY", "VALUE"], rows)
    }
}

/// Reads the configuration.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn read(client: &Client) -> Result<Configuration, Error> {
    let object = client.get::<IpamConfig>("default").await?.unwrap_or_default();
    Ok(Configuration::of(&object.spec))
}

/// Puts what `arguments` ask for into `spec`; returns what to say about it.
#[must_use]
pub fn changed(mut spec: IpamConfigSpec, arguments: &Configure) -> (IpamConfigSpec, Vec<String>) {
    // The schema wants these two, and an object that we make has the defaults.
    spec.strict_affinity = Some(spec.strict_affinity.unwrap_or_default());
    spec.auto_allocate_blocks = Some(spec.auto_allocate_blocks.unwrap_or(true));
    let mut said = Vec::new();
    if let Some(value) = arguments.strictaffinity {
        spec.strict_affinity = Some(value);
        said.push(format!("Successfully set StrictAffinity to: {value}"));
    }
    if let Some(value) = arguments.max_blocks_per_host {
        spec.max_blocks_per_host = Some(value.into());
        said.push(format!("Successfully set MaxBlocksPerHost to: {value}"));
    }
    if let Some(value) = &arguments.kubevirt_ip_persistence {
        spec.kubevirt_persistence = Some(value.clone());
        said.push(format!("Successfully set KubeVirtVMAddressPersistence to: {value}"));
    }
    if let Some(value) = arguments.ip_cooldown_seconds {
        spec.cooldown_seconds = Some(value.into());
        said.push(format!("Successfully set IPCooldownSeconds to: {value}"));
    }
    (spec, said)
}

/// Refuses what the allocator, ours or Calico's, would not take.
fn check(object: &IpamConfig) -> Result<(), Error> {
    let config = model::block::IpamConfig::try_from(object)?;
    let is_limited = object.spec.max_blocks_per_host.unwrap_or_default() > 0;
    if is_limited && !config.is_strict_affinity {
        return Err(Error::Refused(
            "maxBlocksPerHost without strictAffinity limits nothing, since nodes then borrow: \
             set --strictaffinity=true too, or --max-blocks-per-host=0"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Changes the configuration; one that does not exist is made.
///
/// # Errors
///
/// [`Error::InvalidObject`] and [`Error::Refused`] if the result would make no sense, and what the
/// datastore fails with.
pub async fn change(client: &Client, arguments: &Configure) -> Result<Vec<String>, Error> {
    let current = client.get::<IpamConfig>("default").await?;
    let is_new = current.is_none();
    let mut object =
        current.unwrap_or_else(|| IpamConfig::named("default", IpamConfigSpec::default()));
    let (spec, said) = changed(std::mem::take(&mut object.spec), arguments);
    object.spec = spec;
    check(&object)?;
    if is_new {
        client.create(&object).await?;
    } else {
        client.update(&object).await?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command, Ipam};
    use clap::Parser as _;

    fn arguments(line: &str) -> Configure {
        let words = ["calicoctl", "ipam", "configure"].into_iter().chain(line.split(' '));
        let Command::Ipam { task: Ipam::Configure(arguments), .. } =
            Arguments::try_parse_from(words).unwrap().command
        else {
            panic!("{line}")
        };
        arguments
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        let old = IpamConfigSpec { max_blocks_per_host: Some(7), ..IpamConfigSpec::default() };
        let (new, said) = changed(old, &arguments("--strictaffinity=true"));
        assert_eq!(new.strict_affinity, Some(true));
        assert_eq!(new.auto_allocate_blocks, Some(true));
        assert_eq!(new.max_blocks_per_host, Some(7));
        assert_eq!(said, ["Successfully set StrictAffinity to: true"]);
    }

    #[test]
    fn a_limit_that_limits_nothing_is_refused() {
        let refused = |line: &str| {
            let (spec, _) = changed(IpamConfigSpec::default(), &arguments(line));
            check(&IpamConfig::named("default", spec)).err().map(|error| error.to_string())
        };
        assert_eq!(refused("--strictaffinity=true --max-blocks-per-host=4"), None);
        assert_eq!(refused("--max-blocks-per-host=0"), None);
        let error = refused("--max-blocks-per-host=4").unwrap();
        assert!(error.contains("set --strictaffinity=true too"), "{error}");
    }
}
