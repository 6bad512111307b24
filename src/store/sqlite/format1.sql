-- The format of hookward.db, version 1. Times named _at are elapsed milliseconds of the store (see elapsed.rs);
-- received_ns and began_ns are wall clock. States are the stable names of event::State.

-- What elapsed time is counted on from at the next opening.
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    elapsed_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL
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
    body_bytes INTEGER NOT NULL,
    copies INTEGER NOT NULL DEFAULT 0,
    finished_at INTEGER              -- set while every delivery is delivered: retention counts from it
) STRICT;
CREATE INDEX events_of_source ON events (source, id);
CREATE INDEX events_by_attempt_id ON events (attempt_id, id) WHERE attempt_id IS NOT NULL;
CREATE INDEX events_finished ON events (finished_at) WHERE finished_at IS NOT NULL;

-- Apart from the events, because an update of a row rewrites it, and a body is written once.
CREATE TABLE bodies (
    seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    event BLOB NOT NULL,
    upstream TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,         -- of a leased one: when its lease lapses
    armed_at INTEGER NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    cause TEXT NOT NULL,
    UNIQUE (event, upstream)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (upstream, due_at) WHERE state IN ('due', 'leased');
CREATE INDEX deliveries_oldest ON deliveries (upstream, armed_at) WHERE state = 'due';
CREATE INDEX deliveries_stuck ON deliveries (state, event) WHERE state IN ('held', 'parked', 'dead');

CREATE TABLE attempts (
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    began_ns INTEGER NOT NULL,
    took_ns INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    cause TEXT NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

-- With a rowid, so that the random digests are in one index only and the other two stay narrow and in order.
CREATE TABLE keys (
    seq INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    body BLOB NOT NULL,
    event BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (key, body)
) STRICT;
CREATE INDEX keys_of_event ON keys (event);
CREATE INDEX keys_expiring ON keys (expires_at);

CREATE TABLE answers (
    event BLOB PRIMARY KEY,
    status INTEGER NOT NULL,
    content_type TEXT,
    body BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX answers_expiring ON answers (expires_at);

CREATE TABLE items (
    upstream TEXT NOT NULL,
    key BLOB NOT NULL,
    content BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (upstream, key)
) STRICT;
CREATE INDEX items_expiring ON items (expires_at);

-- Numbers for status and metrics, which would otherwise count whole tables at every scrape. A trigger takes over the
-- OR clause of the statement that fired it (see parts.rs), but keeps an ON CONFLICT of its own.
CREATE TABLE totals (
    what TEXT PRIMARY KEY,
    n INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO totals VALUES ('events', 0), ('keys', 0);
CREATE TABLE counts (
    upstream TEXT NOT NULL,
    state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (upstream, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER event_added AFTER INSERT ON events BEGIN
    UPDATE totals SET n = n + 1 WHERE what = 'events';
END;
CREATE TRIGGER event_removed AFTER DELETE ON events BEGIN
    UPDATE totals SET n = n - 1 WHERE what = 'events';
END;
CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN
    UPDATE totals SET n = n + 1 WHERE what = 'keys';
END;
CREATE TRIGGER key_removed AFTER DELETE ON keys BEGIN
    UPDATE totals SET n = n - 1 WHERE what = 'keys';
END;
CREATE TRIGGER delivery_added AFTER INSERT ON deliveries BEGIN
    INSERT INTO counts VALUES (new.upstream, new.state, 0) ON CONFLICT DO NOTHING;
    UPDATE counts SET n = n + 1 WHERE upstream = new.upstream AND state = new.state;
END;
CREATE TRIGGER delivery_moved AFTER UPDATE OF state ON deliveries WHEN old.state <> new.state BEGIN
    UPDATE counts SET n = n - 1 WHERE upstream = old.upstream AND state = old.state;
    INSERT INTO counts VALUES (new.upstream, new.state, 0) ON CONFLICT DO NOTHING;
    UPDATE counts SET n = n + 1 WHERE upstream = new.upstream AND state = new.state;
END;
CREATE TRIGGER delivery_removed AFTER DELETE ON deliveries BEGIN
    UPDATE counts SET n = n - 1 WHERE upstream = old.upstream AND state = old.state;
END;
