//! One byte of a store changes, anywhere, as a disk or memory may have it. Whatever comes of it, nobody gets something
//! else than was stored, and what is lost or changed is told: by the store when it opens or is asked, or by
//! `hookward store verify`.

use std::{fs, path::Path};

use hookward::{
    event::EventId,
    store::{
        EventStore as _,
        sqlite::{SqliteStore, tools},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use super::sample::{Seen, database, directory, fill, options, rows, see};
use crate::counts::reduced;

const EVENTS: u8 = 60;

/// Where and how.
#[derive(Debug)]
struct Flip {
    at: usize,
    with: u8,
}

impl Flip {
    /// One bit, or a whole byte.
    fn any(random: &mut StdRng, bytes: usize) -> Self {
        let with = if random.random() { 1 << random.random_range(0..8) } else { random.random_range(1..=255) };
        Self { at: random.random_range(0..bytes), with }
    }

    fn of(&self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        bytes[self.at] ^= self.with;
        bytes
    }
}

/// Whether `verify` says that something is wrong.
fn is_reported(directory: &Path) -> bool {
    tools::verify(directory, &mut |_, _| {}).map_or(true, |report| !report.is_whole())
}

fn ids(seen: &Seen) -> Vec<EventId> {
    seen.listed.keys().copied().collect()
}

/// Nothing is in `seen` that is not exactly so in `whole`. Whether anything is missing.
fn compare(seen: &Seen, whole: &Seen, flip: &Flip) -> bool {
    for (what, found) in &seen.leased {
        assert!(Some(found) == whole.leased.get(what), "{flip:?}: a worker gets something else: {found:?}");
    }
    for (id, found) in &seen.shown {
        assert!(Some(found) == whole.shown.get(id), "{flip:?}: an operator is shown something else: {found:?}");
    }
    for (id, found) in &seen.listed {
        assert!(Some(found) == whole.listed.get(id), "{flip:?}: a list has something else: {found:?}");
    }
    assert!(seen.keys.is_subset(&whole.keys), "{flip:?}: another key is known");
    let panicked = seen.errors.iter().find(|error| error.contains("panicked"));
    assert!(panicked.is_none(), "{flip:?}: {panicked:?}");
    let count = |seen: &Seen| [seen.leased.len(), seen.shown.len(), seen.listed.len(), seen.keys.len()];
    count(seen) != count(whole)
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_of_the_database_reaches_nobody_and_is_told() {
    let made = directory();
    let store = SqliteStore::open(&options(made.path())).expect("opened");
    fill(&store, EVENTS).await;
    store.close().await;
    let file = fs::read(database(made.path())).expect("read");
    let whole_rows = rows(&database(made.path())).expect("read");
    let whole = see_copy(&file, &[]).await.expect("opened").0;
    let all = ids(&whole);
    assert_eq!(all.len(), usize::from(EVENTS));
    let whole = see_copy(&file, &all).await.expect("opened").0;
    assert!(whole.errors.is_empty() && whole.leased.len() > 40, "{:?}", whole.errors);

    let mut random = StdRng::seed_from_u64(0x0068_6f6f_6b77_6172);
    let (mut changed, mut refused) = (0, 0);
    for _ in 0..reduced("flips", 300, 10_000) {
        let flip = Flip::any(&mut random, file.len());
        let copy = directory();
        fs::write(database(copy.path()), flip.of(&file)).expect("written");
        let has_changed = rows(&database(copy.path())).map_or(true, |rows| rows != whole_rows);
        let reported = is_reported(copy.path());
        changed += u32::from(has_changed);
        match see(copy.path(), &all).await {
            Err(error) => {
                refused += 1;
                let told = format!("{:#}", anyhow::Error::from(error));
                assert!(told.contains(';') || told.contains("run "), "{flip:?}: no advice in: {told}");
            }
            Ok(seen) => {
                assert!(!has_changed || reported, "{flip:?}: rows are not what was stored, and nothing tells");
                let missing = compare(&seen, &whole, &flip);
                let told = reported || seen.damaged > 0 || !seen.errors.is_empty();
                assert!(!missing || told, "{flip:?}: something is missing, and nothing tells");
            }
        }
    }
    println!("{changed} flips changed a row, {refused} kept the store from opening");
    assert!(changed > 0);
}

async fn see_copy(file: &[u8], ids: &[EventId]) -> Result<(Seen, TempDir), hookward::store::sqlite::OpenError> {
    let copy = directory();
    fs::write(database(copy.path()), file).expect("written");
    Ok((see(copy.path(), ids).await?, copy))
}
