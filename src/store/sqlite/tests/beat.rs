//! A writer that hangs does not beat; one that has nothing to do, or no room, does.

use std::sync::mpsc;

use futures_util::FutureExt as _;

use super::*;

#[tokio::test]
async fn a_writer_that_hangs_does_not_beat_until_it_gets_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.beat().await;
    let (begun, began) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let mut begun = Some(begun);
    let hanging = store.write(move |_| {
        begun.take().map(|begun| begun.send(()));
        let _ = may_go_on.recv();
        Ok(())
    });
    let mut hanging = std::pin::pin!(hanging);
    assert!(hanging.as_mut().now_or_never().is_none());
    began.await.unwrap();
    let mut beat = store.beat();
    // Far longer than an idle writer takes for it, and nothing that could come later is missed.
    for _ in 0..1000 {
        assert!((&mut beat).now_or_never().is_none(), "it beats while its writer hangs");
        tokio::task::yield_now().await;
    }
    drop(go_on);
    beat.await;
    hanging.await.unwrap();
}

#[tokio::test]
async fn a_full_store_beats_and_so_does_one_that_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options { disk_bytes_max: 8 << 20, ..options(directory.path()) }).unwrap();
    let mut n = 0;
    while store.append(big(n, 256 << 10)).await.is_ok() {
        n += 1;
    }
    assert!(matches!(store.health(), Err(StoreError::Full(_))), "{:?}", store.health());
    store.beat().await;
    store.close().await;
    store.beat().await;
}
