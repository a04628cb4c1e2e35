//! `calicoctl ipam`: what each command reads, and which pure function answers it.

pub mod apply;
pub mod check;
pub mod configure;
pub mod explain;
pub mod forecast;
pub mod moment;
pub mod read;
pub mod release;
pub mod repair;
pub mod show;
pub mod split;
pub mod undo;
pub mod usage;

use std::path::Path;

use datastore::Source;

use crate::arguments::{Check, Configure, ConfigureTask, Forecast, Global, Ipam, Show};
use crate::output::{Format, print, render};
use crate::run::{Verdict, connect, connect_by, connect_to_write};
use crate::{Error, ipam};

/// Does one of the commands.
///
/// # Errors
///
/// See [`Error`].
pub async fn run(global: &Global, task: Ipam) -> Result<Verdict, Error> {
    match task {
        Ipam::Show(arguments) => Box::pin(show(global, &arguments)).await?,
        Ipam::Check(arguments) => return Box::pin(examine(global, &arguments)).await,
        Ipam::Repair(arguments) => {
            let client = Box::pin(connect_to_write(global)).await?;
            return Box::pin(repair::run(&client, &arguments)).await;
        }
        Ipam::Release(arguments) => {
            let client = Box::pin(connect_to_write(global)).await?;
            for line in Box::pin(release::run(&client, &arguments)).await? {
                print(&line)?;
            }
        }
        Ipam::Explain { addr, output } => {
            let scene = Box::pin(ledger::Scene::read(&connect(global)?)).await?;
            let findings = check::findings(&scene);
            print(&render(&explain::explain(addr, &scene, &findings), output)?)?;
        }
        Ipam::Forecast(arguments) => Box::pin(foresee(global, &arguments)).await?,
        Ipam::Split(arguments) => {
            let client = Box::pin(connect_to_write(global)).await?;
            print(&Box::pin(split::run(&client, &arguments)).await?)?;
        }
        Ipam::Configure(arguments) => Box::pin(configure(global, &arguments)).await?,
    }
    Ok(Verdict::Fine)
}

async fn show(global: &Global, arguments: &Show) -> Result<(), Error> {
    let client = connect(global)?;
    let text = if arguments.show_configuration {
        render(&ipam::configure::read(&client).await?, arguments.output)
    } else if arguments.show_borrowed {
        let blocks = read::blocks(&client).await?;
        render(&show::borrowed(&blocks), arguments.output)
    } else if let Some(addr) = arguments.ip {
        let (blocks, pools) = futures::try_join!(read::blocks(&client), read::pools(&client))?;
        render(&show::address(addr, &blocks, &pools), arguments.output)
    } else {
        let (blocks, pools, reserved, config) = futures::try_join!(
            read::blocks(&client),
            read::pools(&client),
            read::reserved(&client),
            read::config(&client),
        )?;
        let clock = ::ipam::slots::Clock { now: ledger::now(), cooldown: config.cooldown };
        let detail =
            if arguments.show_blocks { usage::Detail::Blocks } else { usage::Detail::Pools };
        render(&usage::usage(&pools, &blocks, &reserved, (clock, detail)), arguments.output)
    };
    print(&text?)
}

async fn configure(global: &Global, arguments: &Configure) -> Result<(), Error> {
    if let Some(ConfigureTask::Show { output }) = &arguments.task {
        let client = connect(global)?;
        return print(&render(&ipam::configure::read(&client).await?, *output)?);
    }
    let client = connect_to_write(global).await?;
    for line in ipam::configure::change(&client, arguments).await? {
        print(&line)?;
    }
    Ok(())
}

async fn examine(global: &Global, arguments: &Check) -> Result<Verdict, Error> {
    let source = arguments.kubeconfig.clone().map(Source::Kubeconfig);
    let scene = Box::pin(ledger::Scene::read(&connect_by(global, source)?)).await?;
    let findings = check::findings(&scene);
    let report = check::report(&scene, &findings, arguments.show_all_ips);
    if let Some(path) = &arguments.output {
        let text = render(&report, Format::Json)?;
        std::fs::write(path, text).map_err(|source| Error::File {
            action: "write",
            path: path.clone(),
            source,
        })?;
    }
    print(&render(&report, arguments.format)?)?;
    let is_fine = report.problems.is_empty() && report.unreadable.is_empty();
    Ok(if is_fine { Verdict::Fine } else { Verdict::Problems })
}

async fn foresee(global: &Global, arguments: &Forecast) -> Result<(), Error> {
    let earlier: Option<forecast::Forecast> =
        arguments.since.as_deref().map(from_json_file).transpose()?;
    let client = connect(global)?;
    let (blocks, pools, reserved, config) = futures::try_join!(
        read::blocks(&client),
        read::pools(&client),
        read::reserved(&client),
        read::config(&client),
    )?;
    let sight = forecast::Sight {
        pools: &pools,
        blocks: &blocks,
        reserved: &reserved,
        config: &config,
        now: ledger::now(),
    };
    print(&render(&forecast::forecast(sight, earlier.as_ref()), arguments.output)?)
}

/// Reads what this program has printed as JSON.
fn from_json_file<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| Error::Unreadable {
        path: path.to_owned(),
        problem: format!("{error}: name a file that this command has written as JSON"),
    })
}
