//! `hookward demo`.

use std::process::ExitCode;

/// Gateway, echo upstream and signed traffic in one process, with a table of what happened.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
