//! What a power cut may leave behind, from the writes of the real program.
//!
//! kill -9 alone tries no sync: what was written stays in the page cache. So the system calls of a gateway at work
//! are recorded, and its files are built again as a disk could hold them after a cut: what was synced, and of the
//! rest any part. Each such state is opened, and what had been acknowledged by then has to be in it.

mod disk;
mod inspect;
mod record;
mod trace;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::counts::reduced;
use disk::{Cut, Survival};
use inspect::inspect;
use record::{Recording, record};

/// The moments just before a sync has ended: what was written since the one before it is at stake.
fn cuts(recording: &Recording) -> Vec<Cut> {
    let cuts = disk::cuts(&recording.steps);
    assert!(cuts.len() > 60, "{} syncs are too few to try anything", cuts.len());
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_power_cut_at_any_moment() {
    let recording = record("fsync").await;
    let cuts = cuts(&recording);
    assert!(recording.data_syncs > 60, "it syncs by fdatasync: {} of {}", recording.data_syncs, cuts.len());
    assert!(recording.checkpoints() > 3, "the log was moved into the database file");

    let mut delivered = Vec::new();
    for (number, cut) in cuts.iter().enumerate() {
        let found = inspect(&recording, *cut, &Survival::Synced).await;
        let found = found.unwrap_or_else(|why| panic!("only what was synced, at sync {number}: {why}"));
        // What was recorded as delivered stays so: else the upstream gets it again as if for the first time.
        for id in &delivered {
            assert!(found.delivered.contains(id), "at sync {number}: {id} had been delivered");
        }
        delivered = found.delivered.into_iter().collect();
    }
    assert_eq!(delivered.len(), recording.sent.len(), "in the end all are delivered");

    let rounds = reduced("power cuts", 200, 5_000);
    for round in 0..rounds {
        let cut = StdRng::seed_from_u64(round.into()).random_range(0..cuts.len());
        let survival = Survival::Random(u64::from(round));
        if let Err(why) = inspect(&recording, cuts[cut], &survival).await {
            panic!("at sync {cut}, with the part of the rest that seed {round} keeps: {why}");
        }
    }
    println!("{} syncs and {rounds} random cuts", cuts.len());
}

/// That the trial above can fail: the same gateway, told to leave syncing to the operating system. And it is what
/// `durability = "os"` says of itself: a power cut takes the last events, but never breaks the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_power_cut_loses_what_was_acknowledged_but_breaks_nothing() {
    let recording = record("os").await;
    let cuts = disk::cuts(&recording.steps);
    let mut lost = 0;
    for round in 0..60 {
        let cut = StdRng::seed_from_u64(round).random_range(0..cuts.len());
        match inspect(&recording, cuts[cut], &Survival::Random(round)).await {
            Ok(_) => {}
            Err(inspect::Trouble::Lost(_)) => lost += 1,
            Err(why) => panic!("at sync {cut}, with the part of the rest that seed {round} keeps: {why}"),
        }
    }
    assert!(lost > 0, "nothing was lost although nothing was synced");
    println!("{lost} of 60 cuts lost something");
}
