//! What the tables have to agree in. Each statement finds what does not: row, event, upstream, what is wrong.

/// By the table that is at fault.
pub(super) const STATEMENTS: [(&str, &str); 19] = [
    ("clock", "SELECT '', NULL, NULL, 'it has no row' WHERE NOT EXISTS (SELECT 1 FROM clock)"),
    ("events", "SELECT seq, id, NULL, 'its id is not of 16 bytes' FROM events WHERE length(id) <> 16"),
    (
        "events",
        "SELECT seq, id, NULL, 'its body is missing' FROM events AS e
         WHERE body_seal IS NOT NULL AND NOT EXISTS (SELECT 1 FROM bodies AS b WHERE b.seq = e.seq)",
    ),
    // A body goes only after the last delivery, and only if it is not to be kept.
    (
        "events",
        "SELECT seq, id, NULL, 'its body was removed although it was to be kept' FROM events AS e WHERE body_seal IS NULL
         AND (keep_body = 1 OR EXISTS (SELECT 1 FROM deliveries AS d WHERE d.event = e.id AND d.state <> 'delivered'))",
    ),
    // An encrypted one has a nonce of 24 bytes in front and a tag of 16 behind.
    (
        "events",
        "SELECT e.seq, e.id, NULL, 'its body has ' || length(b.body) || ' bytes and should have ' || e.body_bytes
         FROM events AS e JOIN bodies AS b ON b.seq = e.seq
         WHERE length(b.body) <> e.body_bytes + iif(e.body_key IS NULL, 0, 40)",
    ),
    // Deliveries go with their event only.
    (
        "events",
        "SELECT seq, id, NULL, iif(unrouted = 1, 'it has a delivery and is marked as unrouted',
         'it has no delivery and is not marked as unrouted') FROM events AS e
         WHERE (unrouted = 1) = EXISTS (SELECT 1 FROM deliveries AS d WHERE d.event = e.id)",
    ),
    // Retention removes what is finished.
    (
        "events",
        "SELECT seq, id, NULL, iif(finished_at IS NULL, 'it is not finished although nothing is left to deliver',
         'it is finished although something is left to deliver') FROM events AS e
         WHERE (finished_at IS NULL) <> EXISTS
         (SELECT 1 FROM deliveries AS d WHERE d.event = e.id AND d.state <> 'delivered')",
    ),
    (
        "deliveries",
        "SELECT id, event, upstream, 'its event is missing' FROM deliveries AS d
         WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.id = d.event)",
    ),
    (
        "deliveries",
        "SELECT d.id, d.event, d.upstream, 'it does not have the source and the size of its event'
         FROM deliveries AS d JOIN events AS e ON e.id = d.event
         WHERE d.source <> e.source OR d.bytes <> e.body_bytes + length(e.headers) + 4096",
    ),
    (
        "deliveries",
        "SELECT id, event, upstream, 'its state is none: ' || state FROM deliveries
         WHERE state NOT IN ('due', 'leased', 'delivered', 'held', 'parked', 'dead')",
    ),
    (
        "deliveries",
        "SELECT id, event, upstream, 'it waits for its turn and has no order key' FROM deliveries
         WHERE state = 'due' AND due_at = 9223372036854775807 AND order_key IS NULL",
    ),
    (
        "deliveries",
        "SELECT min(id), NULL, upstream, 'of the order key ' || order_key || ' ' || sum(active)
         || ' have their turn, and it should be one' FROM
         (SELECT id, upstream, source, order_key, state = 'leased' OR due_at < 9223372036854775807 AS active
          FROM deliveries WHERE order_key IS NOT NULL AND state IN ('due', 'leased'))
         GROUP BY upstream, source, order_key HAVING sum(active) <> 1",
    ),
    // The latest 50 are kept.
    (
        "deliveries",
        "SELECT d.id, d.event, d.upstream, 'it says ' || d.attempts || ' attempts, and has '
         || count(a.number) || ' up to number ' || coalesce(max(a.number), 0)
         FROM deliveries AS d LEFT JOIN attempts AS a ON a.delivery = d.id GROUP BY d.id
         HAVING count(a.number) <> min(d.attempts, 50) OR coalesce(max(a.number), 0) <> d.attempts",
    ),
    (
        "attempts",
        "SELECT delivery || ' ' || number, NULL, NULL, 'its delivery is missing' FROM attempts AS a
         WHERE NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.id = a.delivery)",
    ),
    // Its event may be gone, or never have been stored (`proxy`).
    (
        "keys",
        "SELECT seq, event, NULL, 'it is not a key of an event' FROM keys
         WHERE length(event) <> 16 OR length(key) <> 32 OR length(body) <> 32",
    ),
    ("answers", "SELECT hex(event), event, NULL, 'it is not of an event' FROM answers WHERE length(event) <> 16"),
    (
        "operations",
        "SELECT id, NULL, NULL, 'its state is none: ' || state FROM operations
         WHERE state NOT IN ('running', 'stopped', 'finished', 'failed')",
    ),
    (
        "counts",
        "SELECT coalesce(c.upstream, d.upstream) || ' ' || coalesce(c.state, d.state), NULL, coalesce(c.upstream, d.upstream),
         'it says ' || coalesce(c.n, 0) || ' deliveries with ' || coalesce(c.bytes, 0) || ' bytes, and there are '
         || coalesce(d.n, 0) || ' with ' || coalesce(d.bytes, 0)
         FROM counts AS c FULL JOIN
         (SELECT upstream, state, count(*) AS n, sum(bytes) AS bytes FROM deliveries GROUP BY upstream, state) AS d
         ON c.upstream = d.upstream AND c.state = d.state
         WHERE coalesce(c.n, 0) <> coalesce(d.n, 0) OR coalesce(c.bytes, 0) <> coalesce(d.bytes, 0)",
    ),
    (
        "totals",
        "SELECT r.what, NULL, NULL, 'it says ' || coalesce(t.n, 'nothing') || ', and there are ' || r.n FROM
         (SELECT 'events' AS what, count(*) AS n FROM events UNION ALL SELECT 'keys', count(*) FROM keys
          UNION ALL SELECT 'unrouted', count(*) FROM events WHERE unrouted = 1) AS r
         LEFT JOIN totals AS t ON t.what = r.what WHERE t.n IS NOT r.n",
    ),
];
