//! Equal signed bytes mean equal parts: no text moves from a body into a nonce, an id or a timestamp.

use base64ct::{Base64, Encoding as _};

use super::requests::*;
use crate::world::{NOW_S, World};

#[tokio::test]
async fn a_body_cannot_be_re_split_into_the_nonce_of_mobility_work() {
    let world = World::start(&source("mw", "mobility-work", "")).await;
    let now = NOW_S.to_string();
    let genuine = mobility_work(&now, "n1", b"{\"amount\":1.5}");
    let split = mobility_work(&now, "n1.{\"amount\":1", b"5}");
    let signature =
        |lines: &Lines| String::from_utf8(lines[0].1.clone()).expect("text").rsplit('=').next().map(str::to_owned);
    assert_eq!(signature(&genuine), signature(&split), "the same MAC covers both");
    hold_refused(&world, &[refused("re-split", "mw", split, b"5}", "field_malformed")]).await;
    hold(&world, &[accepted("genuine", "mw", genuine, b"{\"amount\":1.5}")]).await;
}

/// Every way to cut the signed bytes in three: only the honest one passes.
#[tokio::test]
async fn of_all_splits_of_one_signed_text_one_is_accepted() {
    let world = World::start(&source("mw", "mobility-work", "")).await;
    let signed = format!("{NOW_S}.n1.17.1700000001.{{\"a.b\":1.5,\"c\":\"n2.{NOW_S}.x\"}}");
    let signature = hex_mac(SECRET, &[signed.as_bytes()]);
    let dots: Vec<_> = signed.match_indices('.').map(|(at, _)| at).collect();
    let mut passed = Vec::new();
    for (i, first) in dots.iter().enumerate() {
        for second in &dots[i + 1..] {
            let (timestamp, nonce, body) = (&signed[..*first], &signed[first + 1..*second], &signed[second + 1..]);
            let header = format!("t={timestamp},nonce={nonce},signature={signature}");
            let reply =
                send_lines(&world, "/hooks/mw", &[("x-mw-signature", header.into_bytes())], body.as_bytes()).await;
            match reply.status {
                200 => passed.push((timestamp.to_owned(), nonce.to_owned())),
                status => assert_eq!((status, reply.text().as_str()), (401, UNAUTHORIZED), "{timestamp} {nonce}"),
            }
        }
    }
    assert_eq!(passed, [(NOW_S.to_string(), "n1".to_owned())]);
    assert!(codes(&world).await["field_malformed"] > 2);
}

#[tokio::test]
async fn text_inside_a_body_is_never_a_fresh_timestamp() {
    let world = World::start(
        &[source("std", "standard-webhooks", ""), source("slack", "slack", ""), source("stripe", "stripe", "")]
            .concat(),
    )
    .await;
    let now = NOW_S.to_string();
    let std = |id: &str, at: &str, body: &[u8]| -> Lines {
        let mac = mac(SECRET, &[id.as_bytes(), b".", at.as_bytes(), b".", body].concat());
        vec![
            ("webhook-id", id.into()),
            ("webhook-timestamp", at.into()),
            ("webhook-signature", format!("v1,{}", Base64::encode_string(&mac)).into()),
        ]
    };
    let slack = |at: &str, body: &[u8]| -> Lines {
        let mac = hex_mac(SECRET, &[b"v0:", at.as_bytes(), b":", body]);
        vec![("x-slack-request-timestamp", at.into()), ("x-slack-signature", format!("v0={mac}").into())]
    };
    // What was signed long ago carries today's time in its body.
    let old = format!("{now}.{{}}").into_bytes();
    let old_slack = format!("{now}:{{}}").into_bytes();
    hold_refused(
        &world,
        &[
            refused("as it was sent", "std", std("msg_1", "1600000000", &old), &old, "stale"),
            refused("re-split", "std", std("msg_1.1600000000", &now, b"{}"), b"{}", "field_malformed"),
            refused("slack, as it was sent", "slack", slack("1600000000", &old_slack), &old_slack, "stale"),
            refused(
                "slack, re-split",
                "slack",
                slack(&format!("1600000000:{now}"), b"{}"),
                b"{}",
                "timestamp_malformed",
            ),
            refused(
                "stripe, re-split",
                "stripe",
                stripe_with(&format!("t=1600000000.{now},v1={}", stripe_mac(&format!("1600000000.{now}"), b"{}"))),
                b"{}",
                "timestamp_malformed",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_nonce_or_an_id_has_a_strict_grammar() {
    let world = World::start(&source("mw", "mobility-work", "")).await;
    let now = NOW_S.to_string();
    let mut cases = Vec::new();
    for nonce in ["", ".", "a.b", "a b", "a\"b", "a{b", "a;b", "é", "a\tb", &"n".repeat(256)] {
        cases.push(refused(nonce, "mw", mobility_work(&now, nonce, b"{}"), b"{}", "field_malformed"));
    }
    hold_refused(&world, &cases).await;
    let fine = ["n", "A-Z_a:z=0+9/x", &"n".repeat(255)];
    let cases: Vec<_> = (0_u8..)
        .zip(fine)
        .map(|(i, nonce)| accepted(nonce, "mw", mobility_work(&now, nonce, &[b'0' + i]), &[b'0' + i]))
        .collect();
    hold(&world, &cases).await;
}

#[test]
fn a_scheme_that_could_be_read_in_two_ways_does_not_start() {
    for content in ["{nonce}{body}", "{nonce}x{body}", "{timestamp}.{nonce}{body}", "{body}{nonce}"] {
        let own = format!(
            "[providers.acme]\n[providers.acme.signature]\nheaders = [\"x-acme\"]\nencoding = \"hex\"\n\
             algorithm = \"hmac-sha256\"\ncontent = \"{content}\"\ntimestamp = {{ header = \"x-acme-time\", unit = \"s\" }}\n\
             nonce = {{ header = \"x-acme-nonce\" }}\ntolerance = {{ past = \"5m\", future = \"5m\" }}\n{}",
            source("acme", "acme", "")
        );
        let found = problems(&own);
        assert!(found.contains("nothing keeps {nonce} apart"), "{content}: {found}");
    }
}
