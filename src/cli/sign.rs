//! `hookward sign`.

use std::process::ExitCode;

/// A correctly signed request as any provider: as curl or as JSON.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
