//! `hookward serve`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{CONFIGURATION, FAILED};
use crate::{
    admin::api::ReloadRequest,
    config::LoadOptions,
    gateway::{Gateway, Origin},
    telemetry,
    time::Clock,
};

/// Run the gateway.
///
/// Starts if the configuration is right, and says everything that is wrong with it if not (exit code 78). SIGTERM
/// or Ctrl-C drains: not ready at once, listeners closed after server.drain_delay, the rest ended at
/// server.drain_timeout. A second signal exits at once. SIGHUP loads the configuration anew, as `hookward reload` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  hookward serve -c config.example.toml

Environment: HOOKWARD_LOG overrides the level of the log, such as debug or hookward::delivery=debug.")]
pub(super) struct Args {
    /// The configuration; config.example.toml explains every key.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some((config, files)) = super::load_with_files(&args.config) else {
        return Ok(ExitCode::from(CONFIGURATION));
    };
    telemetry::log::init(config.log.format, &config.log.level)?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?;
    let origin = Origin { path: args.config, options: LoadOptions::default(), files };
    let gateway = Gateway::start_from(config, Some(origin), Clock::system()).await?;
    let live = gateway.live().clone();
    // It ends with the process. What comes of each reload is in the log.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let _ = live.reload(ReloadRequest::default()).await;
        }
    });
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = gateway.broken() => {
            tracing::error!(%error, "ending, so that a restart reads the disk again");
            tokio::select! {
                _ = gateway.drain() => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            return Ok(ExitCode::from(FAILED));
        }
    }
    tokio::select! {
        whole = gateway.drain() => Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }),
        _ = terminate.recv() => Ok(ExitCode::from(FAILED)),
        _ = interrupt.recv() => Ok(ExitCode::from(FAILED)),
    }
}
