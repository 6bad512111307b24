//! What all bounds sum up to, computed from the configuration alone. The start refuses more than `memory_max`.
//!
//! Each part is the most that its bounds allow, whatever clients do, so most of it is never used. Not counted are what
//! the kernel holds for sockets, bodies that an operator fetches over the admin API at that moment, and what a thread
//! decodes of a form, a token or a list of JSON while it verifies that one body: at most as many as there are cores.
//!
//! A connection holds hyper's buffer and, with TLS, that of rustls. What it has besides while its kind of header is read
//! (PROXY protocol, HTTP/2 frames), or after its answer (reading on, so that a proxy in front sees it), is less than the
//! buffer, which is not there yet or not any more. HTTP/2 has more: bytes of bodies that arrived and nobody reads yet,
//! and many requests at a time. Both are bounded by the requests in flight and not by the connections, because what is
//! refused at once goes at once, and with it what came of its body; and of the requests in flight only those that have
//! not verified still have something to read, half of them at most. The windows are small all the same:
//! [`HTTP2_STREAM_WINDOW_BYTES`], [`HTTP2_CONNECTION_WINDOW_BYTES`].
//!
//! What nobody chose gives way: the concurrency of upstreams to large bodies, and the number of connections to everything
//! else, down to 1024.

use super::model::{Config, Engine, Limits, Listener, Mode, Replay, Source, Store, Upstream};
use crate::document::format_size;

/// What a client of HTTP/2 may send of one body before somebody reads it, in bytes: at a round trip of 50 ms a body of a
/// mebibyte takes a second.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// What it may send of all bodies of a connection, in bytes: two windows, so that one body that waits holds up no other.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 128 << 10;

/// hyper's read buffer for a connection of HTTP/1. HTTP/2 needs less: a frame, a head in several frames, the tables of its
/// compression, answers that go out.
const CONNECTION_BYTES: u64 = 64 << 10;
/// A record that arrives, one that is read, answers that go out, keys. A handshake may be larger, but comes before
/// everything else.
const TLS_BYTES: u64 = 56 << 10;
/// The tasks of a request, the copy of its head that is stored and sent on, and its head as it was read. Of HTTP/1 that is
/// the read buffer, for its headers keep all of it, so that the connection reads on into another; of HTTP/2 up to 500
/// headers in 16 KiB, of which each takes a hundred bytes more than its text.
const REQUEST_BYTES: u64 = 96 << 10;
/// An upstream's answer, kept while its flight lasts.
const ANSWER_BYTES: u64 = 64 << 10;
/// Bodies that a lane leases in one call: `store::LEASE_BYTES_MAX`, which stands in a higher layer; a test compares them.
const LEASE_BYTES: u64 = 8 << 20;
/// Bodies that deliveries to one upstream hold at most, unless its `concurrency` is chosen.
pub(super) const IN_DELIVERY_BYTES: u64 = 64 << 20;
/// Sealed copies of bodies that the embedded store makes at a time: `store::SEALED_BYTES_MAX`, as above.
const SEALED_BYTES: u64 = 32 << 20;
/// Key, event id, digest and the links of the LRU.
const ENTRY_BYTES: u64 = 200;
/// The program, SQLite's caches (32 MiB for writing, 4 MiB for each of three readers), the admin listener, and what is
/// too small to count.
const BASE_BYTES: u64 = 64 << 20;
/// Refusals of a source that are kept.
const EXPLAINED_BYTES: u64 = 1 << 20;
/// Finding out why, for one webhook at a time.
const EXPLAINING_BYTES: u64 = 16 << 20;

/// Unless it is chosen, the number of connections is not lowered below this, and by this much at a time.
const CONNECTIONS_LEAST: usize = 1024;
const CONNECTIONS_STEP: usize = 256;

/// What the limits allow, part by part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Each part at its most.
    pub parts: Vec<Part>,
    /// The limit.
    pub max: u64,
}

/// One part of the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// What it is for.
    pub name: &'static str,
    /// How it is computed.
    pub how: &'static str,
    /// Its most, in bytes.
    pub bytes: u64,
}

/// What the sum is made of.
#[derive(Clone)]
pub(super) struct Counted<'c> {
    pub(super) listeners: &'c [Listener],
    pub(super) limits: &'c Limits,
    pub(super) store: &'c Store,
    pub(super) replay: &'c Replay,
    pub(super) sources: Vec<&'c Source>,
    pub(super) upstreams: Vec<&'c Upstream>,
}

impl Memory {
    /// The sum of a configuration.
    pub fn of(config: &Config) -> Self {
        Self::sum(&Counted {
            listeners: &config.server.listeners,
            limits: &config.server.limits,
            store: &config.store,
            replay: &config.replay,
            sources: config.sources.values().map(|source| &**source).collect(),
            upstreams: config.upstreams.values().map(|upstream| &**upstream).collect(),
        })
    }

    /// As many connections as fit, up to those that are allowed now: in steps, and never too few to be of use.
    pub(super) fn connections(of: &Counted<'_>) -> usize {
        let fits = |connections_max: &usize| {
            let limits = Limits { connections_max: *connections_max, ..of.limits.clone() };
            let sum = Self::sum(&Counted { limits: &limits, ..of.clone() });
            sum.total() <= sum.max
        };
        let mut steps = (CONNECTIONS_LEAST..=of.limits.connections_max).rev().step_by(CONNECTIONS_STEP);
        steps.find(fits).unwrap_or(CONNECTIONS_LEAST.min(of.limits.connections_max))
    }

    pub(super) fn sum(of: &Counted<'_>) -> Self {
        let Counted { listeners, limits, store, replay, sources, upstreams } = of;
        let part = |name, how, bytes| Part { name, how, bytes };
        let (has_tls, has_http2) = (listeners.iter().any(|at| at.tls.is_some()), listeners.iter().any(speaks_http2));
        let largest = sources.iter().map(|source| source.body_bytes_max).max().unwrap_or(limits.body_bytes_max);
        let mut parts = vec![part("bodies", "body_memory_max", limits.body_memory_max)];
        if !store.encryption.is_empty() {
            parts.push(part("sealed bodies", "32 MiB, or the largest one", SEALED_BYTES.max(largest)));
        }
        parts.push(if has_tls {
            let bytes = times(limits.connections_max, CONNECTION_BYTES + TLS_BYTES);
            part("connections", "connections_max × (64 KiB + 56 KiB of TLS)", bytes)
        } else {
            part("connections", "connections_max × 64 KiB", times(limits.connections_max, CONNECTION_BYTES))
        });
        parts.push(part("requests", "in_flight_max × 96 KiB", times(limits.in_flight_max, REQUEST_BYTES)));
        if has_http2 {
            let reading = limits.connections_max.min(limits.in_flight_max.div_ceil(2));
            let bytes = times(reading, u64::from(HTTP2_CONNECTION_WINDOW_BYTES));
            parts.push(part("windows", "in_flight_max / 2 × 128 KiB, of HTTP/2", bytes));
        }
        let how = "per upstream: concurrency × (largest body of its sources + 64 KiB) + 8 MiB leased ahead";
        parts.push(part("deliveries", how, deliveries(limits, upstreams, sources)));
        parts.push(part("writing", "the largest body: one at a time is written", largest));
        parts.push(part("known keys", "replay.capacity × 200 B", times(replay.capacity, ENTRY_BYTES)));
        parts.push(part("program", "and the store's caches", BASE_BYTES));
        if sources.iter().any(|source| source.mode != Mode::Queue) {
            // With TLS, one that goes out is there twice.
            let (copies, how) = if has_tls {
                (2, "in_flight_max × 128 KiB, of modes respond and proxy with TLS")
            } else {
                (1, "in_flight_max × 64 KiB, of modes respond and proxy")
            };
            parts.push(part("answers", how, times(limits.in_flight_max, ANSWER_BYTES * copies)));
        }
        let explained = sources.iter().filter(|source| source.explain).count();
        if explained > 0 {
            let bytes = times(explained, EXPLAINED_BYTES).saturating_add(EXPLAINING_BYTES);
            parts.push(part("explain", "16 MiB, and 1 MiB for each source with explain = true", bytes));
        }
        if store.engine == Engine::Memory {
            parts.push(part("store", "disk_bytes_max, of engine = \"memory\"", store.disk_bytes_max));
        }
        Self { parts, max: limits.memory_max }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// One line with every part, for the log.
    pub fn line(&self) -> String {
        let parts: Vec<_> = self.parts.iter().map(|part| format!("{} {}", part.name, mebibytes(part.bytes))).collect();
        parts.join(", ")
    }

    /// That it is too much, and what can be done: a message and a help.
    pub(super) fn complaint(&self) -> Option<(String, String)> {
        if self.total() <= self.max {
            return None;
        }
        let (sum, max) = (mebibytes(self.total()), format_size(self.max));
        let part = |part: &Part| format!("{} {} ({})", mebibytes(part.bytes), part.name, part.how);
        let parts: Vec<_> = self.parts.iter().map(part).collect();
        Some((
            format!("the limits sum up to {sum}, more than memory_max = {max}"),
            format!("raise memory_max or lower one of: {}", parts.join("; ")),
        ))
    }
}

/// With TLS a client may choose it.
fn speaks_http2(listener: &Listener) -> bool {
    listener.tls.is_some() || listener.h2c
}

/// What deliveries hold at most.
fn deliveries(limits: &Limits, upstreams: &[&Upstream], sources: &[&Source]) -> u64 {
    let of = |upstream: &&Upstream| {
        let largest = largest_body(upstream, sources.iter().copied(), limits);
        times(upstream.concurrency, largest.saturating_add(ANSWER_BYTES)).saturating_add(LEASE_BYTES)
    };
    upstreams.iter().map(of).fold(0, u64::saturating_add)
}

/// The largest body of the sources that may send there. An upstream that no source uses may still get what an operator
/// redelivers to it.
pub(super) fn largest_body<'c>(upstream: &Upstream, sources: impl Iterator<Item = &'c Source>, limits: &Limits) -> u64 {
    let users = sources.filter(|source| source.targets().contains(&upstream.name));
    users.map(|source| source.body_bytes_max).max().unwrap_or(limits.body_bytes_max)
}

fn times(count: usize, bytes: u64) -> u64 {
    bytes.saturating_mul(count as u64)
}

/// Rounded up, for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}
