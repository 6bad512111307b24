//! Every metric, declared in one place. Durations are seconds, sizes bytes.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BySource {
    source: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BySourceCode {
    source: Arc<str>,
    code: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BySourceSecret {
    source: Arc<str>,
    secret: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BySourceHandshake {
    source: Arc<str>,
    handshake: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByUpstream {
    upstream: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByUpstreamResult {
    upstream: Arc<str>,
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByUpstreamState {
    upstream: Arc<str>,
    state: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByUpstreamTo {
    upstream: Arc<str>,
    to: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByName {
    name: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// Handles to all metrics, and their registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    webhooks: Family<BySourceCode, Counter>,
    webhook_seconds: Family<BySource, Histogram>,
    verified: Family<BySourceSecret, Counter>,
    unenforced: Family<BySourceCode, Counter>,
    refusals_in_a_row: Family<BySource, Gauge>,
    disables_after: Family<BySource, Gauge>,
    handshakes: Family<BySourceHandshake, Counter>,
    key_fallbacks: Family<BySource, Counter>,
    order_keys_missing: Family<BySource, Counter>,
    remote_keys: Family<BySource, Gauge>,
    remote_keys_failures: Family<BySource, Counter>,
    attempts: Family<ByUpstreamResult, Counter>,
    attempt_seconds: Family<ByUpstream, Histogram>,
    breaker_open: Family<ByUpstream, Gauge>,
    breaker_transitions: Family<ByUpstreamTo, Counter>,
    upstream_paused: Family<ByUpstream, Gauge>,
    connections: Gauge,
    connections_refused: Counter,
    connections_ended: Family<ByReason, Counter>,
    in_flight: Gauge,
    guard_keys: Gauge,
    body_memory: Gauge,
    deliveries: Family<ByUpstreamState, Gauge>,
    oldest_due_seconds: Family<ByUpstream, Gauge<f64, AtomicU64>>,
    store_bytes: Gauge,
    store_events: Gauge,
    store_keys: Gauge,
    ready: Gauge,
    certificate_expires: Family<ByName, Gauge>,
    certificate_changes: Family<ByResult, Counter>,
    certificate_orders: Family<ByResult, Counter>,
    reloads: Family<ByOutcome, Counter>,
    config_loaded_at: Gauge,
    /// One exposition at a time: what is counted anew for each must not show half done.
    exposing: Mutex<()>,
}

const RELOAD_OUTCOMES: [&str; 5] = ["applied", "unchanged", "refused", "invalid", "failed"];

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hookward");
        let webhooks = Family::default();
        registry.register("webhooks", "Webhooks by source and code", webhooks.clone());
        let webhook_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register_with_unit("webhook", "From arrival to answer", Unit::Seconds, webhook_seconds.clone());
        let verified = Family::default();
        registry.register("verified", "Verified webhooks by the secret that explained them", verified.clone());
        let unenforced = Family::default();
        registry.register(
            "unenforced",
            "Webhooks that did not verify and were let through (enforce = false), by why",
            unenforced.clone(),
        );
        let refusals_in_a_row = Family::default();
        registry.register(
            "source_refusals_in_a_row",
            "Answers that were no 2xx, one after another, as the provider of the source counts them",
            refusals_in_a_row.clone(),
        );
        let disables_after = Family::default();
        registry.register(
            "source_disables_after",
            "At how many of those the provider disables the subscription; absent where that is not known",
            disables_after.clone(),
        );
        let handshakes = Family::default();
        registry.register(
            "handshakes",
            "Registration handshakes that were answered, by their place in the provider's list",
            handshakes.clone(),
        );
        let key_fallbacks = Family::default();
        registry.register(
            "event_key_fallbacks",
            "Events whose configured key could not be read, so that the body's digest was taken",
            key_fallbacks.clone(),
        );
        let remote_keys = Family::default();
        registry.register("remote_keys", "Public keys that were fetched and are in use", remote_keys.clone());
        let remote_keys_failures = Family::default();
        registry.register(
            "remote_keys_failures",
            "Times that the public keys of a provider could not be fetched",
            remote_keys_failures.clone(),
        );
        let order_keys_missing = Family::default();
        registry.register(
            "order_key_missing",
            "Events without a value at the source's order_by, which keep no order",
            order_keys_missing.clone(),
        );
        let attempts = Family::default();
        registry.register("attempts", "Delivery attempts by upstream and result", attempts.clone());
        let attempt_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register_with_unit("attempt", "From connect to answer", Unit::Seconds, attempt_seconds.clone());
        let breaker_open = Family::default();
        registry.register("breaker", "0 closed, 1 half-open, 2 open", breaker_open.clone());
        let breaker_transitions = Family::default();
        registry.register(
            "breaker_transitions",
            "Changes of a breaker's state, by the state that it changed to",
            breaker_transitions.clone(),
        );
        let upstream_paused = Family::default();
        registry.register("upstream_paused", "1 if an operator paused it", upstream_paused.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections to the public listener", connections.clone());
        let connections_refused = Counter::default();
        registry.register("connections_refused", "Connections refused because of a limit", connections_refused.clone());
        let connections_ended = Family::default();
        registry.register("connections_ended", "Connections that ended, by reason", connections_ended.clone());
        let in_flight = Gauge::default();
        registry.register("in_flight", "Requests being served and flights that outlive them", in_flight.clone());
        let guard_keys = Gauge::default();
        registry.register("guard_keys", "Keys in the memory of the guard", guard_keys.clone());
        let body_memory = Gauge::default();
        registry.register_with_unit("body_memory", "Bodies in flight", Unit::Bytes, body_memory.clone());
        let deliveries = Family::default();
        registry.register("deliveries", "Deliveries by upstream and state", deliveries.clone());
        let oldest_due_seconds = Family::default();
        registry.register_with_unit(
            "oldest_due",
            "Age of the oldest due delivery of an upstream; absent if none is due",
            Unit::Seconds,
            oldest_due_seconds.clone(),
        );
        let store_bytes = Gauge::default();
        registry.register_with_unit("store", "Size of the store", Unit::Bytes, store_bytes.clone());
        let store_events = Gauge::default();
        registry.register("store_events", "Events stored", store_events.clone());
        let store_keys = Gauge::default();
        registry.register("store_keys", "Keys known", store_keys.clone());
        let ready = Gauge::default();
        registry.register("ready", "1 if /readyz answers 200", ready.clone());
        let certificate_expires = Family::default();
        registry.register_with_unit(
            "certificate_expires",
            "When a certificate that is served ends, in Unix time",
            Unit::Seconds,
            certificate_expires.clone(),
        );
        let certificate_changes = Family::default();
        registry.register(
            "certificate_changes",
            "Changed files of certificates that were taken, or refused",
            certificate_changes.clone(),
        );
        let certificate_orders = Family::default();
        registry.register(
            "certificate_orders",
            "Certificates that were asked for: issued, or failed",
            certificate_orders.clone(),
        );
        let reloads: Family<ByOutcome, Counter> = Family::default();
        // From the start, so that an alert never lacks its series.
        for outcome in RELOAD_OUTCOMES {
            drop(reloads.get_or_create(&ByOutcome { outcome }));
        }
        registry.register(
            "reloads",
            "Times that the configuration was loaded anew, by what came of it",
            reloads.clone(),
        );
        let config_loaded_at = Gauge::default();
        registry.register_with_unit(
            "config_loaded_at",
            "When the configuration in force was loaded, since 1970",
            Unit::Seconds,
            config_loaded_at.clone(),
        );
        registry.register("build", "What runs", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry,
            webhooks,
            webhook_seconds,
            verified,
            unenforced,
            refusals_in_a_row,
            disables_after,
            handshakes,
            key_fallbacks,
            order_keys_missing,
            remote_keys,
            remote_keys_failures,
            attempts,
            attempt_seconds,
            breaker_open,
            breaker_transitions,
            upstream_paused,
            connections,
            connections_refused,
            connections_ended,
            in_flight,
            guard_keys,
            body_memory,
            deliveries,
            oldest_due_seconds,
            store_bytes,
            store_events,
            store_keys,
            ready,
            certificate_expires,
            certificate_changes,
            certificate_orders,
            reloads,
            config_loaded_at,
            exposing: Mutex::default(),
        }
    }
}

impl Metrics {
    /// One webhook ended. `source` is a configured name, or `-` where none was found.
    pub fn webhook(&self, source: &Arc<str>, code: &'static str, took: Duration) {
        self.webhooks.get_or_create(&BySourceCode { source: source.clone(), code }).inc();
        self.webhook_seconds.get_or_create(&BySource { source: source.clone() }).observe(took.as_secs_f64());
    }
    /// A webhook verified with this secret.
    pub fn verified(&self, source: &Arc<str>, secret: &Arc<str>) {
        self.verified.get_or_create(&BySourceSecret { source: source.clone(), secret: secret.clone() }).inc();
    }
    /// A webhook did not verify for this reason, and was let through.
    pub fn unenforced(&self, source: &Arc<str>, code: &'static str) {
        self.unenforced.get_or_create(&BySourceCode { source: source.clone(), code }).inc();
    }
    /// So many answers of a source in a row were no 2xx.
    pub fn refusals_in_a_row(&self, source: &Arc<str>, count: u32) {
        self.refusals_in_a_row.get_or_create(&BySource { source: source.clone() }).set(i64::from(count));
    }
    /// At so many of them its provider disables the subscription.
    pub fn disables_after(&self, source: &Arc<str>, count: u32) {
        self.disables_after.get_or_create(&BySource { source: source.clone() }).set(i64::from(count));
    }
    /// A registration handshake was answered: which of the provider's, from 0.
    pub fn handshake(&self, source: &Arc<str>, handshake: usize) {
        self.handshakes.get_or_create(&BySourceHandshake { source: source.clone(), handshake: handshake as u64 }).inc();
    }
    /// An event key fell back to the body's digest.
    pub fn key_fell_back(&self, source: &Arc<str>) {
        self.key_fallbacks.get_or_create(&BySource { source: source.clone() }).inc();
    }
    /// So many public keys were fetched and are in use.
    pub fn remote_keys(&self, source: &Arc<str>, count: usize) {
        self.remote_keys
            .get_or_create(&BySource { source: source.clone() })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    /// The public keys of a provider could not be fetched.
    pub fn remote_keys_failed(&self, source: &Arc<str>) {
        self.remote_keys_failures.get_or_create(&BySource { source: source.clone() }).inc();
    }
    /// An event has no value at its source's `order_by`.
    pub fn order_key_missing(&self, source: &Arc<str>) {
        self.order_keys_missing.get_or_create(&BySource { source: source.clone() }).inc();
    }
    /// One attempt ended. `result` is one of a closed set: `delivered`, `status`, `timeout`, `unreachable`, …
    pub fn attempt(&self, upstream: &Arc<str>, result: &'static str, took: Duration) {
        self.attempts.get_or_create(&ByUpstreamResult { upstream: upstream.clone(), result }).inc();
        self.attempt_seconds.get_or_create(&ByUpstream { upstream: upstream.clone() }).observe(took.as_secs_f64());
    }
    /// The state of a breaker: 0 closed, 1 half-open, 2 open.
    pub fn breaker(&self, upstream: &Arc<str>, state: u8) {
        self.breaker_open.get_or_create(&ByUpstream { upstream: upstream.clone() }).set(i64::from(state));
    }
    /// A breaker changed to the state of this name.
    pub fn breaker_changed(&self, upstream: &Arc<str>, to: &'static str) {
        self.breaker_transitions.get_or_create(&ByUpstreamTo { upstream: upstream.clone(), to }).inc();
    }
    /// Whether an operator paused an upstream.
    pub fn upstream_paused(&self, upstream: &Arc<str>, paused: bool) {
        self.upstream_paused.get_or_create(&ByUpstream { upstream: upstream.clone() }).set(i64::from(paused));
    }
    /// An upstream is not configured any more: what is measured at it alone is gone. Its counters stay.
    pub fn upstream_gone(&self, upstream: &Arc<str>) {
        let label = ByUpstream { upstream: upstream.clone() };
        self.breaker_open.remove(&label);
        self.upstream_paused.remove(&label);
    }
    /// Open connections to the public listener.
    pub fn connections(&self, now: usize) {
        self.connections.set(to_i64(now as u64));
    }
    /// A connection was closed because of a limit.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }
    /// A connection ended. `reason` is one of a closed set.
    pub fn connection_ended(&self, reason: &'static str) {
        self.connections_ended.get_or_create(&ByReason { reason }).inc();
    }
    /// Keys that the guard holds.
    pub fn guard_keys(&self, keys: usize) {
        self.guard_keys.set(to_i64(keys as u64));
    }
    /// Requests in flight and bytes of bodies they hold.
    pub fn in_flight(&self, requests: usize, body_bytes: u64) {
        self.in_flight.set(to_i64(requests as u64));
        self.body_memory.set(to_i64(body_bytes));
    }
    /// Deliveries of one upstream in one state.
    pub fn deliveries(&self, upstream: &Arc<str>, state: &'static str, count: u64) {
        self.deliveries.get_or_create(&ByUpstreamState { upstream: upstream.clone(), state }).set(to_i64(count));
    }
    /// The age of the oldest due delivery of one upstream.
    pub fn oldest_due(&self, upstream: &Arc<str>, age: Duration) {
        self.oldest_due_seconds.get_or_create(&ByUpstream { upstream: upstream.clone() }).set(age.as_secs_f64());
    }
    /// The size of the store.
    pub fn store(&self, bytes: u64, events: u64, keys: u64) {
        self.store_bytes.set(to_i64(bytes));
        self.store_events.set(to_i64(events));
        self.store_keys.set(to_i64(keys));
    }
    /// Whether `/readyz` answers 200.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }
    /// These certificates are served: the name of each, and its end in Unix seconds. Of two with one name the one that
    /// ends first counts.
    pub fn certificates<'a>(&self, all: impl Iterator<Item = (&'a str, i64)>) {
        let _one_at_a_time = self.exposing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ends = std::collections::BTreeMap::new();
        for (name, end) in all {
            ends.entry(name).and_modify(|known: &mut i64| *known = end.min(*known)).or_insert(end);
        }
        self.certificate_expires.clear();
        for (name, end) in ends {
            self.certificate_expires.get_or_create(&ByName { name: name.to_owned() }).set(end);
        }
    }
    /// A changed certificate was `taken` or `refused`.
    pub fn certificate_changed(&self, result: &'static str) {
        self.certificate_changes.get_or_create(&ByResult { result }).inc();
    }
    /// A certificate that was asked for was `issued`, or that `failed`.
    pub fn certificate_ordered(&self, result: &'static str) {
        self.certificate_orders.get_or_create(&ByResult { result }).inc();
    }
    /// The configuration was loaded anew. `outcome` is one of a closed set: `applied`, `unchanged`, `refused`, `invalid`,
    /// `failed`.
    pub fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&ByOutcome { outcome }).inc();
    }
    /// When the configuration in force was loaded, in seconds since 1970.
    pub fn config_loaded_at(&self, unix_s: i64) {
        self.config_loaded_at.set(unix_s);
    }
    /// As [`Metrics::expose`], after the deliveries were counted anew: `count` calls [`Metrics::deliveries`] and
    /// [`Metrics::oldest_due`] for all there are, and what it does not mention is gone.
    pub fn expose_counted(&self, count: impl FnOnce(&Self)) -> String {
        let _one_at_a_time = self.exposing.lock().unwrap_or_else(PoisonError::into_inner);
        self.deliveries.clear();
        self.oldest_due_seconds.clear();
        count(self);
        self.expose()
    }
    /// All metrics as text in the OpenMetrics format.
    pub fn expose(&self) -> String {
        let mut out = String::new();
        if encode(&mut out, &self.registry).is_err() {
            let _ = writeln!(out, "# failed to encode");
        }
        out
    }
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
