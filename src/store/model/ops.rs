//! What may happen, drawn at random.

use proptest::{option::weighted, prelude::*};

/// Events are named by how many came after them, leases by how many were handed out since.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Append(Append),
    Lookup { signed: u32, event: u32, body: u32 },
    Record { signed: u32, event: u32, body: u32, fsync: bool },
    Lease { upstream: usize, max: usize },
    Settle { lease: usize, outcome: u8, uncertain: bool },
    GiveBack { lease: usize },
    Release { event: usize },
    Redeliver { event: usize, upstream: Option<usize> },
    Forget { event: usize },
    Purge { event: usize },
    Act { act: usize, upstream: Option<usize>, events: Vec<usize>, operation: u8 },
    SaveOperation { operation: u8, state: usize },
    Pause { upstream: usize, is_paused: bool },
    List { asked: Asked, oldest_first: bool, limit: usize },
    Count { asked: Asked },
    Reconcile { configured: [bool; 3] },
    Sweep { retention_min: u64 },
    Advance { minutes: u64 },
    Reopen,
    Crash,
}

#[derive(Clone, Debug)]
pub(super) struct Append {
    pub(super) signed: u32,
    pub(super) event: u32,
    pub(super) body: u32,
    pub(super) timed: bool,
    pub(super) begin: u8,
    pub(super) on_conflict: usize,
    pub(super) again: bool,
    pub(super) source: usize,
    pub(super) order_key: Option<&'static str>,
    pub(super) keep_body: bool,
    pub(super) route: usize,
}

/// A filter.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) source: Option<usize>,
    pub(super) upstream: Option<usize>,
    pub(super) state: Option<usize>,
    pub(super) unrouted: bool,
    pub(super) event_type: bool,
    pub(super) since: Option<u64>,
    pub(super) until: Option<u64>,
    pub(super) attempt_id: Option<u32>,
    pub(super) id: Option<usize>,
    pub(super) key: Option<(bool, u32)>,
    pub(super) json: Option<(&'static str, &'static str)>,
    pub(super) before: Option<usize>,
    pub(super) after: Option<usize>,
}

/// Few logical events, so that copies and conflicts happen, and enough that queues become long.
const EVENTS: u32 = 8;

fn append() -> impl Strategy<Value = Op> {
    let keys = (0..4u32, 0..EVENTS, 0..3u32, any::<bool>());
    let order_key = prop_oneof![1 => Just(None), 3 => Just(Some("k")), 1 => Just(Some("l"))];
    let source = prop_oneof![3 => Just(0), 2 => Just(1), 1 => Just(2usize)];
    let route = prop_oneof![6 => Just(0), 3 => Just(1), 1 => Just(2), 1 => Just(3usize)];
    let rest = (0..6u8, 0..3usize, any::<bool>(), source, order_key, any::<bool>(), route);
    (keys, rest).prop_map(|((signed, event, body, timed), rest)| {
        let (begin, on_conflict, again, source, order_key, keep_body, route) = rest;
        // The replay key is a digest of what is signed, the body included.
        let signed = signed * EVENTS * 3 + event * 3 + body;
        Op::Append(Append {
            signed,
            event,
            body,
            timed,
            begin,
            on_conflict,
            again,
            source,
            order_key,
            keep_body,
            route,
        })
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let json = prop_oneof![Just(("/n", "0")), Just(("/n", "1")), Just(("/m", "true")), Just(("/n", "true"))];
    let of_head = (
        weighted(0.2, 0..3usize),
        weighted(0.2, 0..3usize),
        weighted(0.3, 0..6usize),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
        weighted(0.1, 0..300u64),
        weighted(0.1, 0..300u64),
    );
    let of_rest = (
        weighted(0.1, 0..40u32),
        weighted(0.1, 0..20usize),
        weighted(0.1, (any::<bool>(), 0..12u32)),
        weighted(0.2, json),
        weighted(0.2, 0..20usize),
        weighted(0.2, 0..20usize),
    );
    (of_head, of_rest).prop_map(|(of_head, of_rest)| {
        let (source, upstream, state, unrouted, event_type, since, until) = of_head;
        let (attempt_id, id, key, json, before, after) = of_rest;
        Asked { source, upstream, state, unrouted, event_type, since, until, attempt_id, id, key, json, before, after }
    })
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let keys = || (0..96u32, 0..EVENTS, 0..3u32);
    let (event, lease, upstream) = (|| 0..8usize, || 0..6usize, || 0..3usize);
    let to = move || proptest::option::of(upstream());
    let happens = prop_oneof![
        10 => append(),
        1 => keys().prop_map(|(signed, event, body)| Op::Lookup { signed, event, body }),
        1 => (keys(), any::<bool>())
            .prop_map(|((signed, event, body), fsync)| Op::Record { signed, event, body, fsync }),
        6 => (prop_oneof![4 => Just(0), 1 => upstream()], 1..5usize)
            .prop_map(|(upstream, max)| Op::Lease { upstream, max }),
        6 => (lease(), 0..4u8, any::<bool>())
            .prop_map(|(lease, outcome, uncertain)| Op::Settle { lease, outcome, uncertain }),
        1 => lease().prop_map(|lease| Op::GiveBack { lease }),
        1 => any::<[bool; 3]>().prop_map(|configured| Op::Reconcile { configured }),
        1 => Just(Op::Reconcile { configured: [true; 3] }),
        1 => (0..600u64).prop_map(|retention_min| Op::Sweep { retention_min }),
        2 => (1..90u64).prop_map(|minutes| Op::Advance { minutes }),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ];
    let operator = prop_oneof![
        1 => event().prop_map(|event| Op::Release { event }),
        2 => (event(), to()).prop_map(|(event, upstream)| Op::Redeliver { event, upstream }),
        1 => event().prop_map(|event| Op::Forget { event }),
        1 => event().prop_map(|event| Op::Purge { event }),
        2 => (0..5usize, to(), proptest::collection::vec(event(), 0..5), 1..4u8)
            .prop_map(|(act, upstream, events, operation)| Op::Act { act, upstream, events, operation }),
        1 => (1..4u8, 0..4usize).prop_map(|(operation, state)| Op::SaveOperation { operation, state }),
        1 => (upstream(), any::<bool>()).prop_map(|(upstream, is_paused)| Op::Pause { upstream, is_paused }),
        3 => (asked(), any::<bool>(), 1..5usize)
            .prop_map(|(asked, oldest_first, limit)| Op::List { asked, oldest_first, limit }),
        2 => asked().prop_map(|asked| Op::Count { asked }),
    ];
    prop_oneof![3 => happens, 1 => operator]
}
