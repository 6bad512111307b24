//! One byte of a write-ahead log changes before the store is opened again. What opens is what some commit left, the
//! log up to there, and never anything else.

use std::{fs, path::Path};

use hookward::store::{
    EventStore as _, Outcome,
    sqlite::{SqliteStore, tools},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use super::sample::{Seen, UPSTREAMS, database, directory, event, fill, options, rows, see, settled};
use crate::counts::reduced;

/// The store as one commit left it.
struct Commit {
    rows: Vec<String>,
    files: [Vec<u8>; 2],
    seen: Seen,
}

fn files(directory: &Path) -> [Vec<u8>; 2] {
    [database(directory), log(directory)].map(|path| fs::read(path).expect("read"))
}

fn log(directory: &Path) -> std::path::PathBuf {
    database(directory).with_extension("db-wal")
}

fn placed(files: [&[u8]; 2]) -> TempDir {
    let directory = directory();
    fs::write(database(directory.path()), files[0]).expect("written");
    fs::write(log(directory.path()), files[1]).expect("written");
    directory
}

/// Every state that a store goes through with one commit after another, none of them in the database file yet.
async fn commits() -> Vec<Commit> {
    let directory = directory();
    let store = SqliteStore::open(&options(directory.path())).expect("opened");
    fill(&store, 9).await;
    store.close().await;
    let before = [fs::read(database(directory.path())).expect("read"), Vec::new()];
    let mut commits = vec![(rows(&database(directory.path())).expect("read"), before)];
    let mut note = |directory: &Path| {
        let rows = rows(&database(directory)).expect("read");
        if commits.last().is_some_and(|(last, _)| *last != rows) {
            commits.push((rows, files(directory)));
        }
    };
    let store = SqliteStore::open(&options(directory.path())).expect("opened");
    note(directory.path());
    for n in 9..16 {
        store.append(event(n)).await.expect("stored");
        note(directory.path());
    }
    for upstream in UPSTREAMS {
        let leased = store.lease(upstream, 3, std::time::Duration::from_mins(1)).await.expect("leased");
        note(directory.path());
        for (leased, outcome) in leased
            .into_iter()
            .zip([Outcome::Delivered { items: Vec::new() }, Outcome::Dead { reason: "status 410".to_owned() }])
        {
            store.settle(leased.lease, settled(outcome)).await.expect("settled");
            note(directory.path());
        }
    }
    let mut all = Vec::new();
    for (rows, files) in commits {
        let copy = placed([&files[0], &files[1]]);
        let seen = see(copy.path(), &[]).await.expect("opened");
        all.push(Commit { rows, files, seen });
    }
    store.close().await;
    all
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_of_the_log_takes_back_commits_and_changes_none() {
    let commits = commits().await;
    let last = commits.last().expect("there are some");
    assert!(commits.len() > 10, "{} commits", commits.len());
    assert!(commits.iter().all(|commit| commit.files[0] == commits[0].files[0]), "all of it is in the log only");

    let mut random = StdRng::seed_from_u64(0x6c6f_6766_6c69_7073);
    let mut taken_back = 0;
    for _ in 0..reduced("log flips", 100, 3_000) {
        let (at, bit) = (random.random_range(0..last.files[1].len()), 1 << random.random_range(0..8));
        let mut bytes = last.files[1].clone();
        bytes[at] ^= bit;
        let copy = placed([&last.files[0], &bytes]);
        let rows = rows(&database(copy.path())).expect("it can be read");
        let commit = commits.iter().position(|commit| commit.rows == rows);
        let Some(commit) = commit else { panic!("bit {bit} at {at}: what opens is what no commit left") };
        let report = tools::verify(copy.path(), &mut |_, _| {}).expect("it can be read");
        assert!(report.is_whole(), "bit {bit} at {at}: {report:#?}");
        let is_last = commit + 1 == commits.len();
        taken_back += u32::from(!is_last);
        assert!(is_last || report.unreadable_log_pages > 0, "bit {bit} at {at}: nothing tells of the lost commits");
        let seen = see(copy.path(), &[]).await.expect("opened");
        let expected = &commits[commit].seen;
        assert_eq!((&seen.leased, &seen.listed), (&expected.leased, &expected.listed), "bit {bit} at {at}");
        assert!(seen.errors.is_empty(), "bit {bit} at {at}: {:?}", seen.errors);
    }
    println!("{taken_back} flips took commits back");
    assert!(taken_back > 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_read_whole_is_not_said_to_have_an_unreadable_end() {
    for commit in commits().await.iter().skip(1) {
        let copy = placed([&commit.files[0], &commit.files[1]]);
        let report = tools::verify(copy.path(), &mut |_, _| {}).expect("it can be read");
        assert_eq!((report.is_whole(), report.unreadable_log_pages), (true, 0), "{report:#?}");
    }
}
