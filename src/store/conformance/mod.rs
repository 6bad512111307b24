//! What every engine does. A case is a function over the contract; an engine's own tests run [`all`].
//!
//! Time is tokio's paused clock: cases move it, so they are exact about when something falls due or expires.

mod accepting;
mod bodies;
mod fairness;
mod flags;
mod lists;
mod operations;
mod order;
mod prelude;
mod schedule;
mod shares;
mod working;

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
pub(super) use prelude::{EPOCH_S, delivered, event, flush, keys, settled};

use super::{
    EventStore,
    memory::{self, MemoryStore},
    sqlite::{self, SqliteStore},
};
use crate::{
    config::model::{self, Durability, OnFull},
    time::Clock,
};

type Case = for<'a> fn(&'a dyn EventStore) -> BoxFuture<'a, ()>;
type Cases = &'static [(&'static str, Case)];

const ALL: &[Cases] = &[
    accepting::CASES,
    working::CASES,
    order::CASES,
    fairness::CASES,
    flags::CASES,
    bodies::CASES,
    lists::CASES,
    operations::CASES,
];

/// The engines that cases open themselves.
const ENGINES: [Engine; 2] = [Engine::Memory, Engine::Embedded];

/// Runs every case, each against a new store.
pub(super) async fn all(open: impl Fn() -> Arc<dyn EventStore>) {
    for (name, case) in ALL.iter().copied().flatten() {
        // Shown by the test runner if the case fails.
        println!("case: {name}");
        let store = open();
        case(&*store).await;
        store.close().await;
    }
}

/// An engine, for cases that need a store of a certain size, or several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Engine {
    Memory,
    Embedded,
}

impl Engine {
    /// A store of 64 MiB of which an upstream may take this share.
    pub(super) fn open(self, directory: &Path, disk_share_max: f64, clock: &Clock) -> Arc<dyn EventStore> {
        let bytes_max = 64 << 20;
        match self {
            Self::Memory => {
                let (keys_max, on_full, clock) = (10_000, OnFull::Refuse, clock.clone());
                MemoryStore::new(&memory::Options { keys_max, on_full, bytes_max, disk_share_max, clock })
            }
            Self::Embedded => {
                let store = model::Store {
                    engine: model::Engine::Sqlite,
                    path: directory.to_owned(),
                    durability: Durability::Os,
                    retention: Duration::from_hours(24),
                    disk_bytes_max: bytes_max,
                    disk_share_max,
                    encryption: Vec::new(),
                };
                SqliteStore::open(&sqlite::Options::of(&store, clock.clone())).unwrap()
            }
        }
    }
}
