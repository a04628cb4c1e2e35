//! `calicoctl ipam`: what each command reads, and which pure function answers it.

pub mod configure;
pub mod read;
pub mod show;
pub mod usage;

use crate::arguments::{Configure, ConfigureTask, Global, Ipam, Show};
use crate::output::{print, render};
use crate::run::{Verdict, connect, connect_to_write};
use crate::{Error, ipam};

/// Does one of the commands.
///
/// # Errors
///
/// See [`Error`].
pub async fn run(global: &Global, task: Ipam) -> Result<Verdict, Error> {
    match task {
        Ipam::Show(arguments) => Box::pin(show(global, &arguments)).await?,
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
        let clock = ::ipam::slots::Clock { now: read::now(), cooldown: config.cooldown };
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
