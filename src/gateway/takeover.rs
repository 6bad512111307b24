//! The beginning, as far as the process before this one is concerned: it may still have sockets and the store.
//!
//! Everything is bound before the store is opened, so that a second gateway on the same ports fails at once, without a
//! look at the store. Nothing is accepted before the store is open: what connects by then waits in the queue of its
//! socket. A store that another process has is waited for, for as long as that one may take to drain.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::{StartError, drain, notify};
use crate::{
    config::{
        Config,
        model::{Engine, ListenAt},
    },
    document::format_duration,
    http::{passed::Passed, socket::Socket},
    store::{
        self, EventStore,
        memory::MemoryStore,
        sqlite::{OpenError, SqliteStore},
    },
    time::Clock,
};

/// Between two looks whether the store is free. The lock tells nobody when it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Every socket in the order of the configuration, the admin listener, and the store.
pub(super) async fn take_over(
    config: &Config,
    clock: &Clock,
    passed: Passed,
) -> Result<(Vec<Socket>, TcpListener, Arc<dyn EventStore>), StartError> {
    let places: Vec<_> = config.server.listeners.iter().map(|listener| &listener.at).collect();
    let mut sockets = Vec::new();
    for (at, passed) in places.iter().zip(passed.hand_out(&places)?) {
        let opened = match passed {
            Some(passed) => Socket::of(passed),
            None => Socket::open(at).await,
        };
        sockets.push(opened.map_err(|error| failed("server.listen", (*at).clone(), error))?);
    }
    let admin = match bind_admin(config).await {
        // The process before this one has it until its end, which it shares with the store.
        Err(StartError::Listen { error, .. })
            if error.kind() == ErrorKind::AddrInUse && sockets.iter().all(Socket::is_passed) =>
        {
            None
        }
        other => Some(other?),
    };
    let store = open_store(config, clock).await?;
    let admin = match admin {
        Some(admin) => admin,
        None => bind_admin(config).await?,
    };
    Ok((sockets, admin, store))
}

async fn bind_admin(config: &Config) -> Result<TcpListener, StartError> {
    let address = config.admin.listen;
    TcpListener::bind(address).await.map_err(|error| failed("admin.listen", ListenAt::Tcp(address), error))
}

fn failed(name: &'static str, address: ListenAt, error: std::io::Error) -> StartError {
    StartError::Listen { name, address, error }
}

async fn open_store(config: &Config, clock: &Clock) -> Result<Arc<dyn EventStore>, OpenError> {
    match config.store.engine {
        Engine::Sqlite => {
            let options = store::sqlite::Options::of(&config.store, clock.clone());
            let opening = open_when_free(options, drain::longest(&config.server));
            Ok(notify::while_starting("opens the store", opening).await?)
        }
        Engine::Memory => {
            let (on_full, bytes_max) = (config.replay.on_full, config.store.disk_bytes_max);
            Ok(MemoryStore::new(&store::memory::Options {
                keys_max: config.replay.capacity,
                on_full,
                bytes_max,
                disk_share_max: config.store.disk_share_max,
                clock: clock.clone(),
            }))
        }
    }
}

/// Opens it; if another process has it, within this time.
async fn open_when_free(options: store::sqlite::Options, patience: Duration) -> Result<Arc<SqliteStore>, OpenError> {
    let until = Instant::now() + patience;
    let mut waits = false;
    loop {
        let options = options.clone();
        // Recovery reads the disk; it must not hold up a worker of the runtime.
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&options)).await;
        match opened.expect("opening does not panic") {
            Err(OpenError::InUse { path, owner }) if Instant::now() < until => {
                if !waits {
                    let (patience, path) = (format_duration(patience), path.display());
                    let text = format!("waits up to {patience} for the other hookward{owner}, which holds {path}");
                    notify::status(&text);
                    tracing::info!("{text}: it drains if it was told to end; if it is to stay, end this one");
                    waits = true;
                }
                sleep(LOOK_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::model::Durability, store::sqlite::Options, time::Wall};

    fn options(directory: &Path) -> Options {
        Options {
            directory: directory.to_owned(),
            durability: Durability::Os,
            disk_bytes_max: 1 << 30,
            disk_share_max: 1.0,
            encryption: Vec::new(),
            clock: Clock::starting_at(Wall::from_unix_s(0)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_another_keeps_is_waited_for_and_then_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let other = SqliteStore::open(&options(directory.path())).expect("it is new");
        let (before, patience) = (Instant::now(), Duration::from_secs(40));
        let opened = open_when_free(options(directory.path()), patience).await;
        assert!(matches!(opened, Err(OpenError::InUse { .. })), "{opened:?}");
        let waited = before.elapsed();
        assert!(waited >= patience && waited < patience + 2 * LOOK_AGAIN, "{waited:?}");
        other.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_another_gives_up_is_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let other = SqliteStore::open(&options(directory.path())).expect("it is new");
        let before = Instant::now();
        let closing = async {
            sleep(Duration::from_secs(3)).await;
            other.close().await;
        };
        // The other closes on a thread, for which paused time does not wait.
        let patience = Duration::from_hours(10);
        let (opened, ()) = tokio::join!(open_when_free(options(directory.path()), patience), closing);
        assert!(before.elapsed() >= Duration::from_secs(3));
        opened.expect("the other closed it").close().await;
    }
}
