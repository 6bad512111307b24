//! Opens what a power cut left, and holds it against what had been promised.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    time::Duration,
};

use hookward::{
    event::{EventId, State},
    store::{
        Direction, EventStore, Filter,
        sqlite::{Options, SqliteStore},
    },
    time::Clock,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::{
    disk::{self, Cut, Survival},
    record::{DISK_BYTES_MAX, Recording},
    trace::Step,
};
use crate::world::parse;

/// What a state has.
pub(super) struct Found {
    pub(super) delivered: HashSet<String>,
}

/// What is wrong with a state.
pub(super) enum Trouble {
    /// An acknowledged event is not there.
    Lost(String),
    /// Anything else.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(id) => write!(f, "{id} was acknowledged and is lost"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

fn broken(why: impl fmt::Display) -> Trouble {
    Trouble::Broken(why.to_string())
}

/// Builds the state and looks at all of it.
pub(super) async fn inspect(recording: &Recording, cut: Cut, survival: &Survival) -> Result<Found, Trouble> {
    // In memory where that is possible: these files need not outlive anything, and are synced all the same.
    let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a directory");
    disk::lay_out(&disk::after(&recording.steps, cut, survival), directory.path());
    let store = open(directory.path())?;
    let found = look(&*store, recording, &recording.steps[..cut.steps]).await;
    store.close().await;
    let verdict = integrity(&SqliteStore::database_path(directory.path())).map_err(broken)?;
    if verdict != "ok" {
        return Err(Trouble::Broken(verdict));
    }
    found
}

fn open(directory: &Path) -> Result<std::sync::Arc<SqliteStore>, Trouble> {
    let text = format!(
        "[store]\npath = \"{}\"\ndurability = \"os\"\ndisk_bytes_max = \"{DISK_BYTES_MAX}\"\n\
         [sources.a]\nprovider = \"partssource\"\nsecrets = [{{ value = \"a-secret-of-some-length\" }}]\n\
         upstream = \"http://127.0.0.1:9/\"\n",
        directory.display()
    );
    let config = parse(&text, directory);
    SqliteStore::open(&Options::of(&config.store, Clock::system())).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        broken(format!("{error}: {}", source.unwrap_or_default()))
    })
}

async fn look(store: &dyn EventStore, recording: &Recording, steps: &[Step]) -> Result<Found, Trouble> {
    let mut forwarded = HashSet::new();
    let mut acknowledged = HashSet::new();
    for step in steps {
        match step {
            Step::Forwarded { id } => drop(forwarded.insert(id.as_str())),
            Step::Acknowledged { id } => drop(acknowledged.insert(id.as_str())),
            _ => {}
        }
    }

    let mut states: HashMap<String, (EventId, State)> = HashMap::new();
    let mut filter = Filter::default();
    loop {
        let page = store.list(filter.clone(), Direction::OldestFirst, 1000).await.map_err(broken)?;
        for listed in page.events {
            let [delivery] = &listed.deliveries[..] else {
                return Err(broken(format!("{} has {} deliveries", listed.head.id, listed.deliveries.len())));
            };
            states.insert(listed.head.id.to_string(), (listed.head.id, delivery.state));
        }
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    if let Some(lost) = acknowledged.iter().find(|id| !states.contains_key(**id)) {
        return Err(Trouble::Lost((*lost).to_owned()));
    }
    let mut delivered = HashSet::new();
    for (id, (event, state)) in &states {
        // What was stored and never acknowledged was sent again, and then acknowledged as a duplicate.
        let body = recording.sent.get(id).ok_or_else(|| broken(format!("{id} is no event of ours")))?;
        if store.show(*event).await.map_err(broken)?.event.body[..] != body[..] {
            return Err(broken(format!("{id} has another body")));
        }
        match state {
            State::Delivered if forwarded.contains(&**id) => drop(delivered.insert(id.clone())),
            State::Delivered => return Err(broken(format!("{id} counts as delivered, and nobody got it"))),
            State::Due => {}
            other => return Err(broken(format!("{id} is {}", other.name()))),
        }
    }
    counts_agree(store, &states).await?;

    // What is not delivered is on its way, with its body.
    let on_its_way = states.len() - delivered.len();
    let mut leased = HashSet::new();
    loop {
        let part = store.lease("up", 100, Duration::from_mins(1)).await.map_err(broken)?;
        if part.is_empty() {
            break;
        }
        for one in part {
            let id = one.event.head.id.to_string();
            if delivered.contains(&id) || one.event.body[..] != recording.sent[&id][..] || !leased.insert(id.clone()) {
                return Err(broken(format!("{id} was leased as what it is not")));
            }
        }
    }
    if leased.len() < on_its_way && store.next_due("up").await.map_err(broken)?.is_none() {
        return Err(broken(format!("{} of {on_its_way} are due, and nothing is due later", leased.len())));
    }
    for id in acknowledged {
        let keys = store.forget(states[id].0).await.map_err(broken)?;
        if keys != 2 {
            return Err(broken(format!("{id} has {keys} keys, not a replay key and an event key")));
        }
    }
    Ok(Found { delivered })
}

/// What the store counts is what it has.
async fn counts_agree(store: &dyn EventStore, states: &HashMap<String, (EventId, State)>) -> Result<(), Trouble> {
    let stats = store.stats().await.map_err(broken)?;
    let counted = |wanted| -> u64 {
        stats.deliveries.iter().filter(|((_, state), _)| *state == wanted).map(|(_, count)| *count).sum()
    };
    let own = |wanted| states.values().filter(|(_, state)| *state == wanted).count() as u64;
    for state in [State::Due, State::Delivered, State::Leased] {
        if counted(state) != own(state) {
            return Err(broken(format!("{} are {}, and {} are counted", own(state), state.name(), counted(state))));
        }
    }
    if stats.events != states.len() as u64 {
        return Err(broken(format!("{} events, and {} are counted", states.len(), stats.events)));
    }
    Ok(())
}

/// What SQLite finds wrong with the file, or `ok`.
fn integrity(database: &Path) -> rusqlite::Result<String> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))
}
