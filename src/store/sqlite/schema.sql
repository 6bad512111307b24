-- The format of hookward.db, version 2. Times named _at are elapsed milliseconds of the store (see elapsed.rs);
-- those named _ns are wall clock, in nanoseconds. States are the stable names of event::State. The last column of
-- every table is the seal over all its other columns (see seal.rs): a row whose seal is broken is never used.

-- What elapsed time is counted on from at the next opening, and when this store came out of a backup.
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    elapsed_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    restored_ns INTEGER,
    seal INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    received_ns INTEGER NOT NULL,
    method TEXT NOT NULL,
    query TEXT,
    client_address TEXT NOT NULL,
    client_proto TEXT NOT NULL,
    client_host TEXT NOT NULL,
    headers BLOB NOT NULL,
    event_type TEXT,
    attempt_id TEXT,
    verified TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    duplicate_of BLOB,
    conflict_of BLOB,
    body_bytes INTEGER NOT NULL,     -- as received
    body_seal INTEGER,               -- of the bytes in bodies; NULL once they are removed
    body_key TEXT,                   -- the id of the key that they are encrypted with, if they are
    keep_body INTEGER NOT NULL,      -- 0: removed once every delivery is delivered
    unrouted INTEGER NOT NULL,       -- 1: no route wanted it
    copies INTEGER NOT NULL,
    finished_at INTEGER,             -- set while every delivery is delivered: retention counts from it
    seal INTEGER NOT NULL
) STRICT;
CREATE INDEX events_of_source ON events (source, id);
CREATE INDEX events_by_type ON events (event_type, id) WHERE event_type IS NOT NULL;
CREATE INDEX events_by_attempt_id ON events (attempt_id, id) WHERE attempt_id IS NOT NULL;
CREATE INDEX events_unrouted ON events (id) WHERE unrouted = 1;
CREATE INDEX events_finished ON events (finished_at) WHERE finished_at IS NOT NULL;

-- Apart from the events, because an update of a row rewrites it, and a body is written once. Its seal is in events.
CREATE TABLE bodies (
    seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    event BLOB NOT NULL,
    upstream TEXT NOT NULL,
    source TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL,          -- attempts since it was armed
    due_at INTEGER NOT NULL,         -- of a leased one: when its lease lapses; the largest integer: not before its turn
    armed_at INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    cause TEXT NOT NULL,
    redelivery INTEGER NOT NULL,     -- 1: an operator had it delivered again
    uncertain INTEGER NOT NULL,      -- 1: the upstream may have it
    order_key TEXT,
    bytes INTEGER NOT NULL,          -- of the event, for the upstream's share of the disk
    seal INTEGER NOT NULL,
    UNIQUE (event, upstream)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (upstream, source, due_at) WHERE state IN ('due', 'leased');
CREATE INDEX deliveries_oldest ON deliveries (upstream, armed_at) WHERE state = 'due';
CREATE INDEX deliveries_stuck ON deliveries (state, event) WHERE state IN ('held', 'parked', 'dead');
CREATE INDEX deliveries_in_order ON deliveries (upstream, source, order_key, id)
    WHERE order_key IS NOT NULL AND state IN ('due', 'leased');

CREATE TABLE attempts (
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    began_ns INTEGER NOT NULL,
    took_ns INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    cause TEXT NOT NULL,
    seal INTEGER NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

-- With a rowid, so that the random digests are in one index only and the other two stay narrow and in order.
CREATE TABLE keys (
    seq INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    body BLOB NOT NULL,
    event BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    seal INTEGER NOT NULL,
    UNIQUE (key, body)
) STRICT;
CREATE INDEX keys_of_event ON keys (event);
CREATE INDEX keys_expiring ON keys (expires_at);

CREATE TABLE answers (
    event BLOB PRIMARY KEY,
    status INTEGER NOT NULL,
    content_type TEXT,
    body BLOB NOT NULL,
    body_key TEXT,                   -- the id of the key that the body is encrypted with, if it is
    expires_at INTEGER NOT NULL,
    seal INTEGER NOT NULL
) STRICT;
CREATE INDEX answers_expiring ON answers (expires_at);

CREATE TABLE items (
    upstream TEXT NOT NULL,
    key BLOB NOT NULL,
    content BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    seal INTEGER NOT NULL,
    PRIMARY KEY (upstream, key)
) STRICT;
CREATE INDEX items_expiring ON items (expires_at);

-- Upstreams that an operator paused.
CREATE TABLE pauses (
    upstream TEXT PRIMARY KEY,
    since_ns INTEGER NOT NULL,
    by_whom TEXT NOT NULL,
    seal INTEGER NOT NULL
) STRICT;

-- What an operator does to many events, as far as it got.
CREATE TABLE operations (
    id BLOB PRIMARY KEY,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    cursor BLOB,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    seal INTEGER NOT NULL
) STRICT;

-- Numbers for status, metrics and shares, which would otherwise count whole tables. The writer keeps them in memory
-- and writes those that changed with each commit.
CREATE TABLE totals (
    what TEXT PRIMARY KEY,           -- events, keys, unrouted
    n INTEGER NOT NULL,
    seal INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE counts (
    upstream TEXT NOT NULL,
    state TEXT NOT NULL,
    n INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    seal INTEGER NOT NULL,
    PRIMARY KEY (upstream, state)
) STRICT, WITHOUT ROWID;
