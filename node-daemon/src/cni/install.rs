//! `install-cni`: everything in its order, so that what is half done harms nobody.
//!
//! First the plugins; then a token, and a question with it; then the credentials; and the
//! configuration last, because from then on the runtime calls the plugins and the node counts as
//! ready. Whatever fails leaves what was there before, which goes on working.

use std::path::PathBuf;
use std::time::Duration;

use datastore::{Client, Options, Source};
use kernel::files;
use telemetry::logging::{self, Level};
use tokio::time::Instant;
use tracing::{info, warn};

use super::access::{self, Credentials};
use super::settings::{Environment, Settings, Wrong};
use super::{binaries, keep, template};

/// How long the API server may take; after that kubelet tries again, with longer and longer waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_secs(2);
/// Longer than any configuration.
const LIMIT: u64 = 1 << 20;
/// Only root may read the configuration: it may hold a token.
const SECRET: u32 = 0o600;

/// Why the node is not furnished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The environment.
    #[error(transparent)]
    Setting(#[from] Wrong),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] logging::Error),
    /// A level that is unknown.
    #[error("LOG_LEVEL: {0}")]
    Level(#[from] logging::UnknownLevel),
    /// The plugins.
    #[error(transparent)]
    Binaries(#[from] binaries::Error),
    /// The directory of the configuration.
    #[error("{} is not mounted: mount the node's directory of CNI configurations there", .0.display())]
    NoDirectory(PathBuf),
    /// A file.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The configuration.
    #[error(transparent)]
    Template(#[from] template::Unusable),
    /// The API server does not answer as it should.
    #[error("the CNI configuration is not installed, and one of before stays as it is: {0}")]
    Access(#[from] access::Error),
}

impl From<datastore::Error> for Error {
    fn from(error: datastore::Error) -> Self {
        Self::Access(error.into())
    }
}

/// Furnishes the node; goes on to keep the credentials fresh if it should stay.
pub(crate) async fn run() -> Result<(), Error> {
    let environment = environment();
    let level = environment.get("LOG_LEVEL").map_or("info", String::as_str).parse::<Level>()?;
    logging::init(&logging::Options { screen: level, ..logging::Options::default() })?;
    let settings = Settings::read(&environment, &access::own_namespace())?;
    let written = binaries::install(
        &settings.source,
        &settings.plugin_dirs,
        &settings.skipped,
        settings.is_update,
    )?;
    info!(written, "CNI plugins are in place");
    if !settings.mounted_dir.is_dir() {
        return Err(Error::NoDirectory(settings.mounted_dir));
    }
    let client = connect()?;
    let credentials = patiently(&client, &settings).await?;
    configure(&settings, &credentials)?;
    if settings.stays {
        keep::Keeper::new(client, settings.access.clone(), settings.kubeconfig()).run().await;
    }
    Ok(())
}

/// Takes back what [`run`] installs.
pub(crate) fn remove() -> Result<(), Error> {
    let mut environment = environment();
    // Nobody is asked, so it does not matter where the API server is.
    environment.entry("KUBERNETES_SERVICE_HOST".to_owned()).or_insert_with(|| "none".to_owned());
    let settings = Settings::read(&environment, "kube-system")?;
    // The configuration first: from then on nobody calls the plugins.
    files::delete(&settings.configuration())?;
    files::delete(&settings.kubeconfig())?;
    binaries::remove(&settings.plugin_dirs)?;
    Ok(())
}

/// Returns the environment of this process, as far as it is text.
pub(crate) fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

fn connect() -> Result<Client, datastore::Error> {
    let user_agent = concat!("calico-install-cni/", env!("CARGO_PKG_VERSION")).to_owned();
    Client::connect(&Options { source: Source::Infer, user_agent, ..Options::default() })
}

/// Gets credentials that the API server takes; asks again for a while where that may help.
async fn patiently(client: &Client, settings: &Settings) -> Result<Credentials, Error> {
    let started = Instant::now();
    loop {
        let error = match attempt(client, settings).await {
            Ok(credentials) => return Ok(credentials),
            Err(error) => error,
        };
        if started.elapsed() > PATIENCE {
            return Err(error.into());
        }
        warn!(%error, "the API server cannot be used yet");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(client: &Client, settings: &Settings) -> Result<Credentials, access::Error> {
    let credentials = access::request(client, &settings.access).await?;
    access::probe(&credentials.text).await?;
    Ok(credentials)
}

/// Writes the credentials and then the configuration.
fn configure(settings: &Settings, credentials: &Credentials) -> Result<(), Error> {
    let given = match &settings.template_file {
        Some(path) => Some(files::read(path, LIMIT)?),
        None => settings.template.clone(),
    };
    let text = template::fill(settings, given.as_deref(), &credentials.token.secret)?;
    access::write(&settings.kubeconfig(), &credentials.text)?;
    if let Some(old) = &settings.old_name
        && files::delete(&settings.mounted_dir.join(old))?
    {
        info!(old, "the CNI configuration of before is gone");
    }
    files::write(&settings.configuration(), text.as_bytes(), SECRET)?;
    info!(path = %settings.configuration().display(), "the CNI configuration is in place");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::SecretString;

    use super::*;

    fn settings(directory: &std::path::Path, pairs: &[(&str, &str)]) -> Settings {
        let settings = super::super::settings::tests_settings(pairs).unwrap();
        Settings { mounted_dir: directory.to_owned(), ..settings }
    }

    fn credentials() -> Credentials {
        let secret = SecretString::from("canary");
        let lifetime = Duration::from_secs(60);
        Credentials {
            text: SecretString::from("token: canary"),
            token: datastore::Token { secret, lifetime },
            authority: None,
        }
    }

    #[test]
    fn the_configuration_and_the_credentials_are_roots_alone() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path(), &[]);
        configure(&settings, &credentials()).unwrap();
        for path in [settings.kubeconfig(), settings.configuration()] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn the_configuration_of_before_goes() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("10-old.conf"), "{}").unwrap();
        let settings = settings(directory.path(), &[("CNI_OLD_CONF_NAME", "10-old.conf")]);
        configure(&settings, &credentials()).unwrap();
        assert!(!directory.path().join("10-old.conf").exists());
    }

    #[test]
    fn what_was_there_stays_if_the_new_configuration_is_unusable() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path(), &[("CNI_NETWORK_CONFIG", "{")]);
        fs::write(settings.configuration(), "of before").unwrap();
        assert!(matches!(configure(&settings, &credentials()), Err(Error::Template(_))));
        assert_eq!(fs::read_to_string(settings.configuration()).unwrap(), "of before");
        assert!(!settings.kubeconfig().exists());
    }
}
