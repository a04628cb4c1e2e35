//! From the command line to the exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use api::ClusterInformation;
use clap::{CommandFactory as _, Parser as _};
use datastore::{Client, Source};
use telemetry::logging;

use crate::arguments::{Arguments, Command, Datastore, Global, WriteMode};
use crate::{
    Error, adopt, check, cluster, config, ipam, migrate, node, output, policy, resources, version,
};

/// How a command ended that did what it was asked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing to object to.
    Fine,
    /// The check or the status found problems.
    Problems,
}

/// Does what `arguments` ask for; the program's name comes first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // The message cannot be printed: then nobody reads it.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match start(arguments) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Problems) => ExitCode::from(3),
        Err(error) => {
            eprintln!("calicoctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<Verdict, Error> {
    let screen = arguments.global.log_level;
    logging::init(&logging::Options { screen, ..logging::Options::default() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::Runtime)?.block_on(run(arguments))
}

async fn run(Arguments { global, command }: Arguments) -> Result<Verdict, Error> {
    match command {
        Command::Completion { shell } => completion(shell)?,
        Command::Version { client: true } => output::print(&version::client())?,
        Command::Version { client: false } => {
            output::print(&version::client())?;
            let information = connect(&global)?.get::<ClusterInformation>("default").await?;
            output::print(&version::cluster(information.as_ref()))?;
        }
        Command::Datastore { task: Datastore::Migrate { task } } => {
            let client = connect_to_write(&global).await?;
            output::print(migrate::run(&client, task).await?)?;
        }
        Command::Get(what) => Box::pin(resources::get(&global, &what)).await?,
        Command::Create(what) => {
            Box::pin(resources::write(&global, &what, WriteMode::Create)).await?;
        }
        Command::Apply(what) => {
            Box::pin(resources::write(&global, &what, WriteMode::Apply)).await?;
        }
        Command::Replace(what) => {
            Box::pin(resources::write(&global, &what, WriteMode::Replace)).await?;
        }
        Command::Delete(what) => Box::pin(resources::delete(&global, &what)).await?,
        Command::Patch(what) => Box::pin(resources::patch(&global, &what)).await?,
        Command::Label(what) => Box::pin(resources::label(&global, &what)).await?,
        Command::Validate(what) => resources::validate(&what)?,
        Command::Convert { file, output } => resources::convert(&file, output)?,
        Command::Adopt(task) => return Box::pin(adopt::run(&global, &task)).await,
        Command::Node { task } => return node::run(&task),
        Command::Cluster { task } => return cluster::run(&global, &task),
        Command::Check(task) => return Box::pin(check::run(&task)).await,
        Command::Ipam { vrf, task } => return Box::pin(ipam::run(&global, vrf, task)).await,
        Command::Policy { task } => return Box::pin(policy::run(&global, task)).await,
    }
    Ok(Verdict::Fine)
}

/// Opens the datastore of the configuration.
///
/// # Errors
///
/// [`Error::Config`], [`Error::File`], [`Error::Unreadable`] and those of the kubeconfig.
pub(crate) fn connect(global: &Global) -> Result<Client, Error> {
    connect_by(global, None)
}

/// Opens the datastore of the configuration, or of `source` instead.
///
/// # Errors
///
/// As [`connect`].
pub(crate) fn connect_by(global: &Global, source: Option<Source>) -> Result<Client, Error> {
    let file = config::read(global.config.as_deref())?;
    let file = file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let env = |name: &str| std::env::var(name).ok();
    let mut options = config::options(file, &env, global.context.as_deref())?;
    if let Some(source) = source {
        options.source = source;
    }
    Ok(Client::connect(&options)?)
}

/// Opens the datastore for changes: it must be of the release that this program knows.
///
/// # Errors
///
/// As [`connect`], and [`Error::VersionMismatch`].
pub(crate) async fn connect_to_write(global: &Global) -> Result<Client, Error> {
    let client = connect(global)?;
    if !global.allow_version_mismatch {
        version::require_match(&client).await?;
    }
    Ok(client)
}

fn completion(shell: clap_complete::Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "calicoctl", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())
}
