//! `hookward status`.

use std::process::ExitCode;

/// How a running gateway is doing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
