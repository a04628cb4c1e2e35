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
pub mod vrfs;

use std::path::Path;

use datastore::Source;
use model::vrf::VrfName;

use crate::arguments::{Check, Configure, ConfigureTask, Forecast, Global, Ipam, Show};
use crate::output::{Format, print, render};
use crate::run::{Verdict, connect, connect_by, connect_to_write};
use crate::{Error, ipam};

/// Does one of the commands.
///
/// # Errors
///
/// See [`Error`].
pub async fn run(global: &Global, vrf: Option<VrfName>, task: Ipam) -> Result<Verdict, Error> {
    let vrf = vrf.as_ref();
    match task {
        Ipam::Show(arguments) => Box::pin(show(global, vrf, &arguments)).await?,
        Ipam::Check(arguments) => return Box::pin(examine(global, vrf, &arguments)).await,
        Ipam::Repair(arguments) => {
            let client = Box::pin(connect_to_write(global)).await?;
            return Box::pin(repair::run(&client, vrf, &arguments)).await;
        }
        Ipam::Release(arguments) => {
            let client = Box::pin(connect_to_write(global)).await?;
            for line in Box::pin(release::run(&client, vrf, &arguments)).await? {
                print(&line)?;
            }
        }
        Ipam::Explain { addr, output } => {
            let scene = Box::pin(ledger::Scene::read(&connect(global)?, vrf.cloned())).await?;
            let findings = check::findings(&scene);
            print(&render(&explain::explain(addr, &scene, &findings), output)?)?;
        }
        Ipam::Forecast(arguments) => Box::pin(foresee(global, vrf, &arguments)).await?,
        Ipam::Split(arguments) => {
            let client = Box::pin(connect_to_write(global)).await?;
            print(&Box::pin(split::run(&client, vrf, &arguments)).await?)?;
        }
        Ipam::Configure(arguments) => Box::pin(configure(global, &arguments)).await?,
    }
    Ok(Verdict::Fine)
}

async fn show(global: &Global, vrf: Option<&VrfName>, arguments: &Show) -> Result<(), Error> {
    let client = connect(global)?;
    let text = if arguments.show_configuration {
        render(&ipam::configure::read(&client).await?, arguments.output)
    } else if arguments.show_borrowed {
        let blocks = read::blocks(&client, vrf).await?;
        render(&show::borrowed(&blocks), arguments.output)
    } else if let Some(addr) = arguments.ip {
        let (blocks, pools) =
            futures::try_join!(read::blocks(&client, vrf), read::pools(&client, vrf))?;
        render(&show::address(addr, &blocks, &pools), arguments.output)
    } else {
        let (reserved, config) =
            futures::try_join!(read::reserved(&client), read::config(&client))?;
        let clock = ::ipam::slots::Clock { now: ledger::now(), cooldown: config.cooldown };
        let detail =
            if arguments.show_blocks { usage::Detail::Blocks } else { usage::Detail::Pools };
        let all = match vrf {
            Some(vrf) => [Some(vrf.clone())].into(),
            None => Box::pin(ledger::vrfs(&client)).await?,
        };
        let mut usage = usage::Usage { rows: Vec::new() };
        for vrf in &all {
            let (blocks, pools) = futures::try_join!(
                read::blocks(&client, vrf.as_ref()),
                read::pools(&client, vrf.as_ref())
            )?;
            let part = usage::usage(&pools, &blocks, &reserved, (clock, detail));
            usage.extend(vrf.as_ref(), part);
        }
        render(&usage, arguments.output)
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

async fn examine(
    global: &Global,
    vrf: Option<&VrfName>,
    arguments: &Check,
) -> Result<Verdict, Error> {
    let source = arguments.kubeconfig.clone().map(Source::Kubeconfig);
    let client = connect_by(global, source)?;
    let mut scenes = Box::pin(ledger::Scene::read_all(&client)).await?;
    scenes.retain(|scene| vrf.is_none() || scene.vrf.as_ref() == vrf);
    let reports = scenes
        .iter()
        .map(|scene| check::report(scene, &check::findings(scene), arguments.show_all_ips));
    let mut report = reports.reduce(check::CheckReport::and).ok_or_else(|| {
        let name = vrf.map_or_else(String::new, ToString::to_string);
        Error::Refused(format!("no pool and no block is of VRF {name}: correct the name"))
    })?;
    let mut of_vrfs = Box::pin(vrfs::read(&client)).await?;
    of_vrfs.retain(|one| vrf.is_none() || one.vrf.as_deref() == vrf.map(VrfName::as_str));
    report.problems.extend(of_vrfs);
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

async fn foresee(
    global: &Global,
    vrf: Option<&VrfName>,
    arguments: &Forecast,
) -> Result<(), Error> {
    let earlier: Option<forecast::Forecast> =
        arguments.since.as_deref().map(from_json_file).transpose()?;
    let client = connect(global)?;
    let (blocks, pools, reserved, config) = futures::try_join!(
        read::blocks(&client, vrf),
        read::pools(&client, vrf),
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
