//! A store that was restored from a backup: what was signed before that may have been accepted, and is not known.

use hookward::{
    event::{Begin, Hold},
    time::Wall,
};

use super::{recording::Recorded, source};
use crate::world::NOW_S;

/// The store was restored a minute ago.
async fn restored(provider: &str, keys: &str) -> Recorded {
    let source = source(&format!("provider = \"{provider}\"\nupstream = \"up\"\n{keys}"));
    Recorded::start(&source, Some(Wall::from_unix_s(NOW_S - 60))).await
}

#[tokio::test]
async fn what_was_signed_before_the_restore_is_asked_to_come_again_and_its_retry_is_accepted() {
    for keys in ["", "on_stale = \"retry\""] {
        let recorded = restored("partssource", keys).await;
        for signed in [-200, -61, -60] {
            let (status, retry_after, body) = recorded.send("partssource", b"{}", signed, &[]).await;
            assert_eq!((status, retry_after.as_deref()), (503, Some("5")), "{signed}: {body}");
        }
        assert!(recorded.store.appended().is_empty(), "nothing of it is remembered");
        let counted = |code: &str| {
            recorded.metric(&format!("hookward_webhooks_total{{source=\"orders\",code=\"{code}\"}}")).unwrap_or(0)
        };
        assert_eq!((counted("signed_before_restore"), counted("accepted")), (3, 0));

        let (status, _, body) = recorded.send("partssource", b"{}", -59, &[]).await;
        assert!(status == 200 && body.contains("\"accepted\""), "the retry, signed anew: {body}");
        assert_eq!(recorded.store.appended().len(), 1);
    }
}

#[tokio::test]
async fn what_is_older_than_its_tolerance_is_stale_as_ever() {
    assert_eq!(restored("partssource", "").await.send("partssource", b"{}", -3600, &[]).await.0, 401);
    assert_eq!(
        restored("partssource", "on_stale = \"hold\"").await.send("partssource", b"{}", -3600, &[]).await.0,
        200
    );
}

#[tokio::test]
async fn where_stale_events_are_held_so_are_those_from_before_the_restore() {
    let recorded = restored("price2b", "").await;
    let (status, _, body) = recorded.send("price2b", b"{\"id\":\"evt_1\"}", -61, &[]).await;
    assert!(status == 200 && body.contains("\"accepted\""), "{body}");
    assert_eq!(recorded.store.appended()[0].begin, Begin::Held(Hold::Stale));
    recorded.send("price2b", b"{\"id\":\"evt_2\"}", -59, &[]).await;
    assert_eq!(recorded.store.appended()[0].begin, Begin::Due);
}

#[tokio::test]
async fn without_a_signed_time_or_a_restore_nothing_is_refused() {
    let recorded = restored("github", "").await;
    assert_eq!(recorded.send("github", b"{}", -61, &[]).await.0, 200, "nothing can be told");
    let recorded = Recorded::start(&source("provider = \"partssource\"\nupstream = \"up\""), None).await;
    assert_eq!(recorded.send("partssource", b"{}", -61, &[]).await.0, 200);
}
