//! The same small run every time: a few webhooks one after another, each delivered before the next.

use crate::{
    crash::{
        child::Child,
        load::{Load, Webhook},
        site::Site,
        verdict::Verdict,
    },
    world::Reply,
};

/// So that the log is moved into the database file every few commits.
pub(super) const SMALL: &str = "disk_bytes_max = \"4MiB\"";
/// No fault of a test is for the breaker.
pub(super) const BREAKER: &str = "breaker = { failures = 10000 }";

/// Twelve requests: empty, binary and long bodies, to one upstream and to two; the fifth and the ninth are copies.
pub(super) fn webhooks() -> Vec<Webhook> {
    let webhook = |n: u8| {
        let source = if n.is_multiple_of(3) { "pair" } else { "queue" };
        let length = [0, 700, 40_000][usize::from(n % 4).min(2)];
        // Every byte there is, and another body for each n.
        let body: Vec<u8> = (0..=u8::MAX).cycle().map(|byte| byte ^ n).take(length).collect();
        Webhook::new(source, &body)
    };
    [0, 1, 2, 3, 1, 5, 6, 7, 3, 9, 10, 11].map(webhook).into()
}

/// Sends one, signed anew.
pub(super) async fn send(load: &Load, child: &Child, webhook: &Webhook) -> Option<Reply> {
    load.send(child.public, webhook, &webhook.signed()).await
}

/// Sends them one after another, each after the one before is delivered, until the gateway is gone.
pub(super) async fn send_until_it_is_gone(load: &Load, child: &Child) {
    for webhook in webhooks() {
        let Some(reply) = send(load, child, &webhook).await else { return };
        assert_eq!(reply.status, 200, "{}", reply.text());
        if !child.settled().await {
            return;
        }
    }
}

/// What has to be true after a fault: on the same data a gateway starts as if nothing had been, takes all of it again,
/// knows what it had acknowledged, and delivers everything.
pub(super) async fn assert_recovers(load: &Load, site: &Site, sent: &[Webhook]) {
    let before = load.acknowledged();
    let child = Child::start(site).await;
    for webhook in sent {
        let reply = send(load, &child, webhook).await.expect("the gateway is there");
        assert_eq!(reply.status, 200, "{}", reply.text());
        if before.contains_key(&webhook.name()) {
            assert_eq!(reply.ack().0, "duplicate", "it was acknowledged before");
        }
    }
    assert!(child.settled().await);
    let verdict = Verdict::of(load, site, child.admin).await;
    verdict.assert_clean();
    child.terminate().await;
}

/// Which of about `last` syncs to try: all of them, and on to a run that is over before; or if that is more than
/// `most`, so many, evenly spaced, both ends among them.
pub(super) fn points(last: usize, most: u32) -> Vec<usize> {
    let most = most as usize;
    if last <= most {
        return (1..last + 100).collect();
    }
    (0..most).map(|n| 1 + n * (last - 1) / (most - 1)).collect()
}

/// Strikes at each of these syncs of about `last`; `strike` tells whether it came to that. Returns how often it did:
/// all but the last few, which not every run has.
pub(super) async fn strike_at_each(last: usize, most: u32, strike: impl AsyncFn(usize) -> bool) -> usize {
    let mut strikes = 0;
    for n in points(last, most) {
        if strike(n).await {
            strikes += 1;
        } else if n >= last {
            break;
        }
    }
    assert!(strikes + 3 >= last.min(most as usize), "{strikes} strikes at {last} syncs");
    strikes
}
