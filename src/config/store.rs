//! `[store]` and `[replay]`.

use std::{path::PathBuf, time::Duration};

use super::{
    encryption,
    load::Reader,
    model::{Durability, Engine, OnFull, Replay, Store},
    read,
};
use crate::document::{Place, Section};

/// What a memory store may hold unless told otherwise: it counts against `memory_max`.
const MEMORY_STORE_BYTES_MAX: u64 = 64 << 20;

impl Default for Store {
    fn default() -> Self {
        Self {
            engine: Engine::Sqlite,
            path: PathBuf::from("hookward-data"),
            durability: Durability::Fsync,
            retention: Duration::from_hours(7 * 24),
            disk_bytes_max: 10 << 30,
            disk_share_max: 0.5,
            encryption: Vec::new(),
        }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self { capacity: 1_000_000, on_full: OnFull::Refuse }
    }
}

/// How long keys live, for sources to derive theirs.
#[derive(Clone, Debug)]
pub(super) struct Horizons {
    pub(super) event: Duration,
    pub(super) event_place: Option<Place>,
    pub(super) untimed: Duration,
    pub(super) untimed_place: Option<Place>,
}

/// `[store]`, and whether `accept_loss` is set.
pub(super) fn read_store(reader: &Reader<'_>, section: Option<Section<'_>>) -> (Store, bool) {
    let standard = Store::default();
    let Some(mut section) = section else {
        let path = standard.path.clone();
        return (Store { path: reader.resolve_main(&path), ..standard }, false);
    };
    let engine = read_engine(&mut section).unwrap_or(standard.engine);
    let path = match section.read::<PathBuf>("path") {
        Some(at) if at.as_os_str().is_empty() => {
            reader.problems.error(&at.place, "`store.path` is empty", "name a directory, such as \"hookward-data\"");
            at.value
        }
        Some(at) => reader.resolve(&at.place, &at.value),
        None => reader.resolve_main(&standard.path),
    };
    let durabilities = [("fsync", Durability::Fsync), ("os", Durability::Os)];
    let disk_bytes_max = if engine == Engine::Memory { MEMORY_STORE_BYTES_MAX } else { standard.disk_bytes_max };
    let durability = section.choice("durability", &durabilities);
    if let Some(at) = durability.as_ref().filter(|at| at.value == Durability::Os && engine == Engine::Sqlite) {
        reader.problems.warn(
            &at.place,
            "durability = \"os\" survives a crash of the process, not a power cut or a crash of the machine: what was \
             acknowledged in the seconds before it is lost, and no provider sends it again",
            "use \"fsync\", unless these events may be lost",
        );
    }
    let encryption_place = section.peek_place("encryption");
    let encryption = encryption::read(reader, &mut section);
    if let Some(place) = encryption_place.filter(|_| engine == Engine::Memory) {
        let help = "take it out, or use engine = \"sqlite\"";
        reader.problems.error(&place, "`store.encryption` is set, and engine \"memory\" writes nothing to disk", help);
    }
    let store = Store {
        engine,
        path,
        durability: durability.map_or(standard.durability, |at| at.value),
        retention: section.read_or("retention", standard.retention),
        disk_bytes_max: read::size(&mut section, "disk_bytes_max", disk_bytes_max),
        disk_share_max: read_share(&mut section, standard.disk_share_max),
        encryption,
    };
    let accept_loss = section.read_or("accept_loss", false);
    section.later("url", "use engine = \"sqlite\" with `path`");
    section.finish();
    (store, accept_loss)
}

fn read_share(section: &mut Section<'_>, standard: f64) -> f64 {
    let Some(at) = section.read::<f64>("disk_share_max") else { return standard };
    if !(at.value > 0.0 && at.value <= 1.0) {
        let help =
            "0.5: half of `disk_bytes_max` for what one upstream has not taken; 1 lets one fill the disk for all";
        section.problems().error(&at.place, "`store.disk_share_max` must be above 0 and at most 1", help);
    }
    at.value
}

fn read_engine(section: &mut Section<'_>) -> Option<Engine> {
    let value = section.value("engine")?;
    if value.as_text() == Some("postgres") {
        value.error(
            "`store.engine` = \"postgres\" is not in this version of Hookward",
            "use \"sqlite\": it needs no server and survives a power cut",
        );
        return None;
    }
    value.choose(&[("sqlite", Engine::Sqlite), ("memory", Engine::Memory)])
}

/// `[replay]`.
pub(super) fn read_replay(section: Option<Section<'_>>) -> (Replay, Horizons) {
    let mut replay = Replay::default();
    let mut horizons = Horizons {
        event: Duration::from_hours(72),
        event_place: None,
        untimed: Duration::from_hours(7 * 24),
        untimed_place: None,
    };
    if let Some(mut section) = section {
        replay.capacity = read::count(&mut section, "capacity", 1_000_000, 1 << 30);
        horizons.event_place = section.peek_place("event_horizon");
        horizons.event = read::duration(&mut section, "event_horizon", horizons.event);
        horizons.untimed_place = section.peek_place("untimed_horizon");
        horizons.untimed = read::duration(&mut section, "untimed_horizon", horizons.untimed);
        let choices = [("refuse", OnFull::Refuse), ("evict", OnFull::Evict)];
        replay.on_full = section.choice("on_full", &choices).map_or(replay.on_full, |at| at.value);
        section.finish();
    }
    (replay, horizons)
}
