//! `hookward events`.

use std::process::ExitCode;

/// List, show, redeliver, release and forget events of a running gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
