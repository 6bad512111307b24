//! `hookward upstreams`.

use std::process::ExitCode;

use super::{
    admin::{Connect, Gateway, segment},
    print::{print, print_json},
};
use crate::{admin::api::PausedUpstream, telemetry::log::escaped};

/// Pause deliveries to an upstream of a running gateway, and let them go on.
///
/// Webhooks are accepted and stored all the same. A pause outlives a restart, and burns no attempt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward upstreams pause orders         before it is taken down
  hookward upstreams resume orders
  hookward status                         shows what is paused, since when and by whom")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Deliver nothing more; attempts that run are finished.
    #[command(after_help = "Example:
  hookward upstreams pause orders")]
    Pause(Named),
    /// Go on with what waits.
    #[command(after_help = "Example:
  hookward upstreams resume orders")]
    Resume(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Its name in the configuration.
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (what, named) = match &args.command {
        Command::Pause(named) => ("pause", named),
        Command::Resume(named) => ("resume", named),
    };
    let path = format!("/api/v1/upstreams/{}/{what}", segment(&named.name));
    let upstream: PausedUpstream = Gateway::new(&named.connect)?.post(&path, None).await?;
    if named.json {
        print_json(&upstream)?;
    } else {
        print(&render(&upstream))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(upstream: &PausedUpstream) -> String {
    let name = escaped(&upstream.name);
    match &upstream.paused {
        Some(pause) => format!("{name} is paused since {} by {}\n", escaped(&pause.since), escaped(&pause.by)),
        None => format!("{name} is not paused\n"),
    }
}
