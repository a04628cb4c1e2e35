//! The environment as it must be, and the node's name in it.

use config::startup::NodeSettings;
use config::{Sources, StartupConfig};
use model::id::NodeName;

use super::StartupError;

/// Where the kernel keeps the machine's name.
const HOSTNAME: &str = "kernel/hostname";

/// Reads the environment of the start.
///
/// # Errors
///
/// [`StartupError::Environment`] with everything that is wrong in it.
pub fn configure(sources: &Sources) -> Result<StartupConfig, StartupError> {
    let (config, problems) = StartupConfig::resolve(sources);
    let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let kind = &config.datastore.kind;
    if kind != "kubernetes" {
        problems.push(format!("DATASTORE_TYPE={kind} is not supported: use kubernetes"));
    }
    if problems.is_empty() { Ok(config) } else { Err(StartupError::Environment { problems }) }
}

/// Returns the node's name: `NODENAME`, else `HOSTNAME`, else the machine's own.
///
/// # Errors
///
/// [`StartupError::Name`] if the machine's name is no name of a Kubernetes object.
pub fn node_name(settings: &NodeSettings) -> Result<NodeName, StartupError> {
    choose(settings, || kernel::sysctl::read(HOSTNAME).map_err(|error| error.to_string()))
}

fn choose(
    settings: &NodeSettings,
    machine: impl FnOnce() -> Result<String, String>,
) -> Result<NodeName, StartupError> {
    if let Some(name) = &settings.name {
        return Ok(name.clone());
    }
    let name = match &settings.hostname {
        Some(name) => name.clone(),
        None => machine().map_err(|problem| StartupError::Name { problem })?,
    };
    let parsed = name.trim().to_lowercase().parse();
    parsed
        .map_err(|error: model::id::InvalidName| StartupError::Name { problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(pairs: &[(&str, &str)]) -> Sources {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Sources::from_environment(pairs)
    }

    #[test]
    fn the_strongest_name_wins_and_only_it_may_not_be_upper_case() {
        for (pairs, machine, expected) in [
            (&[("NODENAME", "a"), ("HOSTNAME", "b")][..], "c", Some("a")),
            (&[("HOSTNAME", "B.example")], "c", Some("b.example")),
            (&[], " Machine-1\n", Some("machine-1")),
            (&[], "my_machine", None),
        ] {
            let settings = configure(&sources(pairs)).unwrap().node;
            let name = choose(&settings, || Ok(machine.to_owned())).ok();
            assert_eq!(name.as_ref().map(NodeName::as_str), expected);
        }
    }

    #[test]
    fn a_machine_without_a_name_needs_nodename() {
        let settings = NodeSettings::default();
        let error = choose(&settings, || Err("no such file".to_owned())).unwrap_err().to_string();
        assert!(error.contains("(no such file); set NODENAME"), "{error}");
    }

    #[test]
    fn everything_wrong_in_the_environment_is_told_at_once() {
        let sources = sources(&[("IP", "x"), ("AS", "0"), ("DATASTORE_TYPE", "etcdv3")]);
        let error = configure(&sources).unwrap_err().to_string();
        for part in
            ["variable IP: `x`", "variable AS: `0`", "DATASTORE_TYPE=etcdv3 is not supported"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
