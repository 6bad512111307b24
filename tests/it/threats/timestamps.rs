//! Timestamps: one writing, one unit, exact bounds.

use super::requests::*;
use crate::world::{NOW_S, Reply, World, sign};

const BODY: &[u8] = b"{\"n\":1}";

fn mobility_work_or_stripe(provider: &str, timestamp: &str) -> Lines {
    match provider {
        "mobility-work" => mobility_work(timestamp, "n1", BODY),
        _ => stripe_with(&format!("t={timestamp},v1={}", stripe_mac(timestamp, BODY))),
    }
}

#[tokio::test]
async fn a_timestamp_is_digits_only() {
    let world = World::start(
        &[source("ps", "partssource", ""), source("stripe", "stripe", ""), source("mw", "mobility-work", "")].concat(),
    )
    .await;
    let mut cases = Vec::new();
    // Each is signed as it is written: only the grammar refuses it.
    for text in [
        "+1700000000",
        "-1700000000",
        "01700000000",
        "00",
        "1700000000.0",
        "1700000000.",
        "1.7e9",
        "0x6553f100",
        "1_700_000_000",
        "1700 000000",
        "1700000000Z",
        "2023-11-14T22:13:20Z",
        "١٧٠٠٠٠٠٠٠٠",
        "NaN",
        "",
    ] {
        cases.push(refused(text, "ps", parts_source(SECRET, text, BODY), BODY, "timestamp_malformed"));
        for (name, provider) in [("stripe", "stripe"), ("mw", "mobility-work")] {
            cases.push(refused(text, name, mobility_work_or_stripe(provider, text), BODY, "timestamp_malformed"));
        }
    }
    cases.push(refused(
        "a space in front",
        "stripe",
        mobility_work_or_stripe("stripe", " 1700000000"),
        BODY,
        "timestamp_malformed",
    ));
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn a_missing_timestamp_is_refused() {
    let world = World::start(&[source("ps", "partssource", ""), source("stripe", "stripe", "")].concat()).await;
    let bare = hex_mac(SECRET, &[BODY]);
    let dotted = hex_mac(SECRET, &[b".", BODY]);
    hold_refused(
        &world,
        &[
            refused(
                "the body alone is signed",
                "ps",
                vec![("x-ps-signature", format!("sha256={bare}").into())],
                BODY,
                "timestamp_missing",
            ),
            refused(
                "an empty one is signed",
                "ps",
                vec![("x-ps-signature", format!("sha256={dotted}").into())],
                BODY,
                "timestamp_missing",
            ),
            refused("stripe", "stripe", stripe_with(&format!("v1={dotted}")), BODY, "timestamp_missing"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_unit_is_never_guessed() {
    let own = "[providers.acme]\n[providers.acme.signature]\nheaders = [\"x-acme\"]\nencoding = \"hex\"\n\
               algorithm = \"hmac-sha256\"\ncontent = \"{timestamp}.{body}\"\n\
               timestamp = { header = \"x-acme-time\", unit = \"ms\" }\ntolerance = { past = \"5m\", future = \"5m\" }\n";
    let world = World::start(&format!("{own}{}{}", source("acme", "acme", ""), source("ps", "partssource", ""))).await;
    let acme = |text: &str| -> Lines {
        vec![("x-acme-time", text.into()), ("x-acme", hex_mac(SECRET, &[text.as_bytes(), b".", BODY]).into())]
    };
    let now = NOW_S.to_string();
    let ms = format!("{now}000");
    hold_refused(
        &world,
        &[
            refused("ms where s are signed", "ps", parts_source(SECRET, &ms, BODY), BODY, "stale"),
            refused("s where ms are signed", "acme", acme(&now), BODY, "stale"),
            refused("µs where ms are signed", "acme", acme(&format!("{ms}000")), BODY, "stale"),
        ],
    )
    .await;
    hold(
        &world,
        &[accepted("s", "ps", parts_source(SECRET, &now, BODY), BODY), accepted("ms", "acme", acme(&ms), BODY)],
    )
    .await;
}

#[tokio::test]
async fn no_number_overflows() {
    let own = "[providers.acme]\n[providers.acme.signature]\nheaders = [\"x-acme\"]\nencoding = \"hex\"\n\
               algorithm = \"hmac-sha256\"\ncontent = \"{timestamp}.{body}\"\n\
               timestamp = { header = \"x-acme-time\", unit = \"ms\" }\ntolerance = { past = \"5m\", future = \"5m\" }\n";
    let world = World::start(&format!("{own}{}{}", source("acme", "acme", ""), source("ps", "partssource", ""))).await;
    let acme = |text: &str| -> Lines {
        vec![("x-acme-time", text.into()), ("x-acme", hex_mac(SECRET, &[text.as_bytes(), b".", BODY]).into())]
    };
    let mut cases = Vec::new();
    for text in [
        "0",
        "1",
        "2147483647",
        "2147483648",
        "4294967296",
        "9223372036",
        "9223372037",
        "9223372036854775807",
        "9223372036854775808",
        "9999999999999999999",
    ] {
        cases.push(refused(text, "ps", parts_source(SECRET, text, BODY), BODY, "stale"));
        cases.push(refused(text, "acme", acme(text), BODY, "stale"));
    }
    for text in ["18446744073709551616", "99999999999999999999", &"9".repeat(4000)] {
        cases.push(refused(text, "ps", parts_source(SECRET, text, BODY), BODY, "timestamp_malformed"));
        cases.push(refused(text, "acme", acme(text), BODY, "timestamp_malformed"));
    }
    hold_refused(&world, &cases).await;
}

/// Sends a webhook signed `offset_s` from now, in the middle of one and the same second of the gateway's clock.
async fn send_within_a_second(world: &World, provider: &str, path: &str, body: &[u8], offset_s: i64) -> Reply {
    loop {
        let now_s = world.clock.wall().unix_s();
        let headers = sign(provider, SECRET, body, now_s + offset_s);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = world.post(path, &headers, body).await;
        if world.clock.wall().unix_s() == now_s {
            return reply;
        }
    }
}

#[tokio::test]
async fn both_bounds_are_exact() {
    let providers = [
        ("ps", "partssource", 300, 300),
        ("stripe", "stripe", 300, 300),
        ("mw", "mobility-work", 3600, 300),
        ("slack", "slack", 300, 300),
    ];
    let sources = providers.map(|(name, provider, ..)| source(name, provider, "event_key = \"none\"")).concat();
    let own = source("narrow", "partssource", "event_key = \"none\"\ntolerance = { past = \"7s\", future = \"0s\" }");
    let world = World::start(&(sources + &own)).await;
    let all = providers.into_iter().chain([("narrow", "partssource", 7, 0)]);
    for (name, provider, past, future) in all {
        for (offset_s, status) in [(-past, 200), (-past - 1, 401), (future, 200), (future + 1, 401)] {
            // Another body each, so that none is a copy.
            let body = format!("{{\"n\":{offset_s}}}").into_bytes();
            let reply = send_within_a_second(&world, provider, &format!("/hooks/{name}"), &body, offset_s).await;
            assert_eq!(reply.status, status, "{name} at {offset_s}: {}", reply.text());
        }
    }
    let counted = codes(&world).await;
    assert!(counted["stale"] >= 10, "{counted:?}");
    assert_eq!(
        counted.keys().filter(|code| !["accepted", "duplicate", "stale"].contains(&code.as_str())).count(),
        0,
        "{counted:?}"
    );
}

#[tokio::test]
async fn two_timestamps_are_refused() {
    let world = World::start(
        &[source("ps", "partssource", ""), source("stripe", "stripe", ""), source("mw", "mobility-work", "")].concat(),
    )
    .await;
    let now = NOW_S.to_string();
    let mac = stripe_mac(&now, BODY);
    let nonce = hex_mac(SECRET, &[now.as_bytes(), b".n1.", BODY]);
    let mut cases = Vec::new();
    for other in ["1600000000", &now] {
        for pair in [[&*now, other], [other, &*now]] {
            let [a, b] = pair;
            let lines: Lines = vec![
                ("x-ps-signature", format!("sha256={mac}").into()),
                ("x-ps-timestamp", a.into()),
                ("x-ps-timestamp", b.into()),
            ];
            cases.push(refused("two lines", "ps", lines, BODY, "header_repeated"));
            let joined: Lines = vec![
                ("x-ps-signature", format!("sha256={mac}").into()),
                ("x-ps-timestamp", format!("{a}, {b}").into()),
            ];
            cases.push(refused("one line", "ps", joined, BODY, "timestamp_malformed"));
            cases.push(refused(
                "stripe",
                "stripe",
                stripe_with(&format!("t={a},t={b},v1={mac}")),
                BODY,
                "timestamp_malformed",
            ));
            let field = format!("t={a},nonce=n1,signature={nonce},t={b}");
            cases.push(refused(
                "mobility work",
                "mw",
                vec![("x-mw-signature", field.into())],
                BODY,
                "timestamp_malformed",
            ));
        }
    }
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn what_is_stale_is_held_only_if_it_is_authentic() {
    let world = World::start(&source("p2b", "price2b", "")).await;
    let stale = NOW_S - 100_000;
    let lines = |secret: &str| -> Lines {
        let mac = hex_mac(secret, &[stale.to_string().as_bytes(), b".", BODY]);
        vec![("x-price2b-signature", format!("sha256={mac}").into()), ("x-price2b-timestamp", stale.to_string().into())]
    };
    hold_refused(&world, &[refused("forged", "p2b", lines("another-secret-than-it-is"), BODY, "signature_mismatch")])
        .await;
    let replies = hold(&world, &[accepted("authentic", "p2b", lines(SECRET), BODY)]).await;
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    let delivery = &shown["event"]["deliveries"][0];
    assert_eq!((delivery["state"].as_str(), delivery["reason"].as_str()), (Some("held"), Some("stale")));
    assert!(world.upstream.received().is_empty());
}

/// Digits at the edge of a time could be those of its neighbour in what is signed, so that an operator who looks at what
/// is held would see a time that nobody meant.
#[tokio::test]
async fn what_is_stale_by_a_time_of_another_length_is_not_held() {
    let world = World::start(&[source("p2b", "price2b", ""), source("linear", "linear", "")].concat()).await;
    let in_head = |at: &str| -> Lines {
        let mac = hex_mac(SECRET, &[at.as_bytes(), b".", BODY]);
        vec![("x-price2b-signature", format!("sha256={mac}").into()), ("x-price2b-timestamp", at.into())]
    };
    let body = |at: &str| format!("{{\"webhookTimestamp\":{at}}}").into_bytes();
    let in_body = |at: &str| -> Lines { vec![("linear-signature", hex_mac(SECRET, &[&body(at)]).into())] };
    let (short_s, short_ms) = ("170000000", "170000000000");
    let cases = [
        refused("in the head", "p2b", in_head(short_s), BODY, "stale"),
        refused("in the body", "linear", in_body(short_ms), &body(short_ms), "stale"),
    ];
    hold_refused(&world, &cases).await;
    let (long_s, long_ms) = ("1600000000", "1600000000000");
    let cases = [
        accepted("in the head", "p2b", in_head(long_s), BODY),
        accepted("in the body", "linear", in_body(long_ms), &body(long_ms)),
    ];
    hold(&world, &cases).await;
    assert!(world.upstream.received().is_empty(), "both are held");
}
