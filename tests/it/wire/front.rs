//! A gateway whose answers show what its upstream saw: it stores nothing, asks the upstream at once, and relays.

use std::path::PathBuf;

use hookward::{
    gateway::Gateway,
    time::{Clock, Wall},
};
use tempfile::TempDir;

use super::{case::SECRET, recorder::Recorder};
use crate::world::{NOW_S, parse};

/// The gateway, on TCP and on a Unix socket, and its upstream.
pub(super) struct Front {
    pub(super) gateway: Gateway,
    pub(super) socket: PathBuf,
    pub(super) upstream: Recorder,
    _directory: TempDir,
}

impl Front {
    pub(super) async fn start() -> Self {
        let upstream = Recorder::start().await;
        let url = format!("http://{}/in", upstream.address);
        Self::start_before(upstream, &url).await
    }

    /// With something in between: `url` leads to the upstream.
    pub(super) async fn start_before(upstream: Recorder, url: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("front.sock");
        let text = configuration(&socket.display().to_string(), url);
        let config = parse(&text, directory.path());
        let clock = Clock::starting_at(Wall::from_unix_s(NOW_S));
        let gateway = Gateway::start(config, clock).await.expect("the gateway starts");
        Self { gateway, socket, upstream, _directory: directory }
    }
}

fn configuration(socket: &str, upstream: &str) -> String {
    // Equal bytes are no copies here: each case is sent hundreds of times.
    let source = "mode = \"proxy\"\nupstream = \"up\"\nevent_key = \"none\"\ndeadline = \"30s\"\n";
    let open = format!("provider = \"sourcehub\"\naccept_unverified = true\n{source}");
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"unix:{socket}\"]\ndrain_delay = \"0s\"\ndrain_timeout = \"10s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\nengine = \"memory\"\naccept_loss = true\n\
         [upstreams.up]\nurl = \"{upstream}\"\n\
         [sources.open]\n{open}\
         [sources.small]\n{open}body_bytes_max = \"10B\"\n\
         [sources.signed]\nprovider = \"github\"\nsecrets = [{{ value = \"{SECRET}\" }}]\n{source}"
    )
}
