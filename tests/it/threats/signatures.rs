//! Signatures: what is not exactly one of the provider's is refused, with one answer for all.

use std::collections::BTreeSet;

use base64ct::{Base64, Base64Unpadded, Base64Url, Encoding as _};
use hookward::verify::encode_hex;

use super::requests::*;
use crate::world::{NOW_S, World};

const BODY: &[u8] = b"{\"order\":\"PO-1\"}";

fn good() -> String {
    hex_mac(SECRET, &[NOW_S.to_string().as_bytes(), b".", BODY])
}

async fn parts_source_world() -> World {
    World::start(&source("ps", "partssource", "")).await
}

/// A refusal for every reason there is, at several kinds of sources, with the code of each.
fn every_refusal() -> (String, Vec<Case>) {
    let sources = [
        source("ps", "partssource", ""),
        source("mw", "mobility-work", ""),
        source("stripe", "stripe", ""),
        source("std", "standard-webhooks", ""),
        source("gains", "gains", ""),
        source("token", "sourcehub", "path = \"/hooks/token/{token}\""),
        source("basic", "sourcehub", "guard = \"basic\"\nsecrets = [{ value = \"user:some-password\" }]"),
        source(
            "later",
            "github",
            &format!("secrets = [{{ value = \"{SECRET}\", not_before = 2099-01-01T00:00:00Z }}]"),
        ),
    ]
    .concat();
    let now = NOW_S.to_string();
    let zeros = format!("sha256={}", "0".repeat(64));
    let twice = [parts_source(SECRET, &now, BODY), vec![("x-ps-signature", zeros.clone().into())]].concat();
    let nine = format!("t={now}{}", format!(",v1={}", "0".repeat(64)).repeat(9));
    let std = |id: &str| -> Lines {
        let signature =
            Base64::encode_string(&mac(SECRET, &[id.as_bytes(), b".", now.as_bytes(), b".", BODY].concat()));
        vec![
            ("webhook-id", id.into()),
            ("webhook-timestamp", now.clone().into()),
            ("webhook-signature", format!("v1,{signature}").into()),
        ]
    };
    let mut cases = vec![
        refused("no header", "ps", vec![], BODY, "signature_missing"),
        refused("no digest", "ps", parts_source_with("sha256="), BODY, "signature_malformed"),
        refused("two lines", "ps", twice, BODY, "header_repeated"),
        refused("nine", "stripe", stripe_with(&nine), BODY, "too_many_signatures"),
        refused("no time", "ps", vec![("x-ps-signature", zeros.clone().into())], BODY, "timestamp_missing"),
        refused("no number", "ps", parts_source(SECRET, "now", BODY), BODY, "timestamp_malformed"),
        refused(
            "no nonce",
            "mw",
            vec![("x-mw-signature", format!("t={now},signature={}", good()).into())],
            BODY,
            "field_missing",
        ),
        refused("a dot", "std", std("a.b"), BODY, "field_malformed"),
        refused("forged", "ps", parts_source_with(zeros.clone()), BODY, "signature_mismatch"),
        refused("stale", "ps", parts_source(SECRET, "1600000000", BODY), BODY, "stale"),
        refused("stale and forged", "ps", parts_source("another-secret-than-it-is", "1600000000", BODY), BODY, "stale"),
        refused("not yet", "later", github(BODY), BODY, "no_live_secret"),
        refused("no value", "gains", vec![], BODY, "credential_missing"),
        refused(
            "another value",
            "gains",
            vec![("authorization", "Bearer nonsense".into())],
            BODY,
            "credential_mismatch",
        ),
        refused("another token", "token/nonsense", vec![], BODY, "credential_mismatch"),
        refused("no basic", "basic", vec![("authorization", "Bearer x".into())], BODY, "credential_missing"),
        refused("another basic", "basic", vec![("authorization", "Basic YTpi".into())], BODY, "credential_mismatch"),
        refused("no body", "ps", parts_source_with(zeros.clone()), b"", "signature_mismatch"),
    ];
    // Refused before or after its body is read: the same.
    let long = vec![b'x'; 60_000];
    cases.push(refused("60 KB", "ps", parts_source_with(zeros), &long, "signature_mismatch"));
    cases.push(refused("60 KB unread", "ps", vec![], &long, "signature_missing"));
    (sources, cases)
}

#[tokio::test]
async fn every_failure_of_authenticity_gets_the_same_401() {
    let (sources, cases) = every_refusal();
    let world = World::start(&sources).await;
    let replies = hold_refused(&world, &cases).await;
    let own = |line: &&str| !["x-request-id:", "date:"].iter().any(|name| line.to_ascii_lowercase().starts_with(name));
    let answer = |head: &str| head.split("\r\n").filter(own).collect::<Vec<_>>().join("\r\n");
    let first = answer(&replies[0].head);
    assert!(first.contains("application/problem+json"), "{first}");
    for (reply, case) in replies.iter().zip(&cases) {
        assert_eq!(answer(&reply.head), first, "{}", case.name);
        assert_eq!(reply.body, replies[0].body, "{}", case.name);
        assert!(reply.headers.contains_key("x-request-id"), "{}", case.name);
    }
    // The table is whole: every reason that there is stands in it.
    let codes: BTreeSet<_> = cases.iter().map(|case| case.code).collect();
    let all = [
        "credential_mismatch",
        "credential_missing",
        "field_malformed",
        "field_missing",
        "header_repeated",
        "no_live_secret",
        "signature_malformed",
        "signature_mismatch",
        "signature_missing",
        "stale",
        "timestamp_malformed",
        "timestamp_missing",
        "too_many_signatures",
    ];
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let world = parts_source_world().await;
    let now = NOW_S.to_string();
    let upper = SECRET.to_uppercase();
    let cases =
        ["another-secret-than-it-is", &SECRET[1..], &format!("{SECRET}\n"), &format!("{SECRET}\0x"), &upper, ""]
            .map(|secret| refused(secret, "ps", parts_source(secret, &now, BODY), BODY, "signature_mismatch"));
    hold_refused(&world, &cases).await;
    hold(&world, &[accepted("ours", "ps", parts_source(SECRET, &now, BODY), BODY)]).await;
}

#[tokio::test]
async fn another_body_is_refused() {
    let world = parts_source_world().await;
    let headers = || parts_source(SECRET, &NOW_S.to_string(), BODY);
    let bodies: [&[u8]; 6] = [
        b"{\"order\":\"PO-2\"}",
        b"{\"order\":\"PO-1\"} ",
        b"{\"order\":\"PO-1\"}\n",
        b"{\"order\": \"PO-1\"}",
        &BODY[..BODY.len() - 1],
        b"",
    ];
    let cases = bodies.map(|body| refused("other", "ps", headers(), body, "signature_mismatch"));
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn a_truncated_or_extended_mac_is_refused() {
    let world = parts_source_world().await;
    let good = good();
    let mut cases = Vec::new();
    for length in [0, 1, 2, 16, 31, 32, 62, 63] {
        cases.push((format!("cut to {length}"), good[..length].to_owned()));
    }
    for more in ["0", "00", "=", &good] {
        cases.push((format!("and {more}"), format!("{good}{more}")));
    }
    cases.push(("zeros in front".to_owned(), format!("00{good}")));
    let cases: Vec<_> = cases
        .into_iter()
        .map(|(name, text)| {
            refused(&name, "ps", parts_source_with(format!("sha256={text}")), BODY, "signature_malformed")
        })
        .collect();
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn the_first_and_the_last_byte_of_a_mac_count() {
    let world = parts_source_world().await;
    let now = NOW_S.to_string();
    let cases: Vec<_> = [0, 1, 15, 16, 30, 31]
        .map(|at| {
            let mut mac = mac(SECRET, &[now.as_bytes(), b".", BODY].concat());
            mac[at] ^= 1;
            let text = format!("sha256={}", encode_hex(&mac));
            refused(&format!("byte {at}"), "ps", parts_source_with(text), BODY, "signature_mismatch")
        })
        .into();
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn upper_case_hex_is_taken_only_where_the_preset_says_so() {
    let own = "[providers.acme]\nevent_key = \"body\"\n[providers.acme.signature]\nheaders = [\"x-acme\"]\n\
               encoding = \"hex-any-case\"\nalgorithm = \"hmac-sha256\"\ncontent = \"{body}\"\n";
    let world = World::start(&format!(
        "{own}{}{}{}",
        source("acme", "acme", ""),
        source("ps", "partssource", ""),
        source("hub", "github", "")
    ))
    .await;
    let upper = hex_mac(SECRET, &[BODY]).to_uppercase();
    hold_refused(
        &world,
        &[
            refused(
                "partssource",
                "ps",
                parts_source_with(format!("sha256={}", good().to_uppercase())),
                BODY,
                "signature_malformed",
            ),
            refused(
                "github",
                "hub",
                vec![("x-hub-signature-256", format!("sha256={upper}").into())],
                BODY,
                "signature_malformed",
            ),
            refused("the prefix", "ps", parts_source_with(format!("SHA256={}", good())), BODY, "signature_malformed"),
        ],
    )
    .await;
    hold(&world, &[accepted("acme", "acme", vec![("x-acme", upper.into())], BODY)]).await;
}

#[tokio::test]
async fn white_space_inside_a_signature_is_refused() {
    let world = parts_source_world().await;
    let good = good();
    let texts = [
        format!("sha256= {good}"),
        format!("sha256 ={good}"),
        format!("sha256={} {}", &good[..32], &good[32..]),
        format!("sha256={}\t{}", &good[..32], &good[32..]),
        format!("sha256={good} x"),
        format!("sha256={good},"),
        format!("\"sha256={good}\""),
    ];
    let cases: Vec<_> =
        texts.map(|text| refused(&text.clone(), "ps", parts_source_with(text), BODY, "signature_malformed")).into();
    hold_refused(&world, &cases).await;
    // White space around a value is no part of it: RFC 9110.
    let around = parts_source_with(format!(" \t sha256={good} \t "));
    hold(&world, &[accepted("around", "ps", around, BODY)]).await;
}

#[tokio::test]
async fn a_nul_never_gets_past_the_parser() {
    let world = parts_source_world().await;
    let good = good();
    let cases: Vec<_> = [format!("sha256={good}\0"), format!("sha256=\0{good}"), format!("\0sha256={good}")]
        .map(|text| Case { status: 400, ..refused("nul", "ps", parts_source_with(text), BODY, "-") })
        .into();
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn a_missing_or_empty_signature_is_refused() {
    let world = World::start(
        &[source("ps", "partssource", ""), source("stripe", "stripe", ""), source("mw", "mobility-work", "")].concat(),
    )
    .await;
    let now = NOW_S.to_string();
    hold_refused(
        &world,
        &[
            refused("nothing", "ps", vec![], BODY, "signature_missing"),
            refused("the time alone", "ps", vec![("x-ps-timestamp", now.clone().into())], BODY, "signature_missing"),
            refused("empty", "ps", parts_source_with(""), BODY, "signature_malformed"),
            refused("sha256= with nothing", "ps", parts_source_with("sha256="), BODY, "signature_malformed"),
            refused("sha256", "ps", parts_source_with("sha256"), BODY, "signature_malformed"),
            refused("no prefix", "ps", parts_source_with(good()), BODY, "signature_malformed"),
            refused("stripe: empty", "stripe", stripe_with(""), BODY, "signature_malformed"),
            refused(
                "stripe: v1= with nothing",
                "stripe",
                stripe_with(&format!("t={now},v1=")),
                BODY,
                "signature_malformed",
            ),
            refused("stripe: no v1", "stripe", stripe_with(&format!("t={now}")), BODY, "signature_malformed"),
            refused("mobility work: none, a secret is configured", "mw", vec![], BODY, "signature_missing"),
        ],
    )
    .await;
}

#[tokio::test]
async fn two_header_lines_are_refused_whichever_is_right() {
    let world = parts_source_world().await;
    let now = NOW_S.to_string();
    let right = || ("x-ps-signature", format!("sha256={}", good()).into_bytes());
    let wrong = || ("x-ps-signature", format!("sha256={}", "0".repeat(64)).into_bytes());
    let time = || ("x-ps-timestamp", now.clone().into_bytes());
    let cases = [
        refused("right first", "ps", vec![time(), right(), wrong()], BODY, "header_repeated"),
        refused("right last", "ps", vec![time(), wrong(), right()], BODY, "header_repeated"),
        refused("right twice", "ps", vec![time(), right(), right()], BODY, "header_repeated"),
        refused("another case", "ps", vec![time(), right(), ("X-PS-SIGNATURE", right().1)], BODY, "header_repeated"),
        refused("two times", "ps", vec![time(), right(), time()], BODY, "header_repeated"),
        refused(
            "two previous",
            "ps",
            vec![time(), right(), ("x-ps-signature-previous", right().1), ("x-ps-signature-previous", right().1)],
            BODY,
            "header_repeated",
        ),
    ];
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn one_valid_signature_of_several_is_enough_for_stripe() {
    let world = World::start(&source("stripe", "stripe", "event_key = \"body\"")).await;
    let now = NOW_S.to_string();
    let bad = "0".repeat(64);
    let mut cases = Vec::new();
    for (i, shape) in
        ["v1=G,v1=B", "v1=B,v1=G", "v1=B,v1=G,v1=B", "v1=,v1=G", "v1=zz,v1=G", "v0=B,v1=G,v2=B"].iter().enumerate()
    {
        let body = format!("{{\"n\":{i}}}").into_bytes();
        let items = shape.replace('G', &stripe_mac(&now, &body)).replace('B', &bad);
        cases.push(accepted(shape, "stripe", stripe_with(&format!("t={now},{items}")), &body));
    }
    hold(&world, &cases).await;
    let none = stripe_with(&format!("t={now},v1={bad},v1={bad}"));
    hold(&world, &[refused("none of two", "stripe", none, BODY, "signature_mismatch")]).await;
}

#[tokio::test]
async fn one_valid_signature_of_several_is_enough_for_standard_webhooks() {
    let world = World::start(&source("std", "standard-webhooks", "")).await;
    let now = NOW_S.to_string();
    let bad = Base64::encode_string(&[0; 32]);
    let mut cases = Vec::new();
    for (i, shape) in
        ["v1,GOOD v1,BAD", "v1,BAD v1,GOOD", "v1a,BAD v1,GOOD", "v1,GOOD v2,BAD", "v1, v1,GOOD", "v1,GOOD  v1,BAD"]
            .iter()
            .enumerate()
    {
        let id = format!("msg_{i}");
        let good = Base64::encode_string(&mac(SECRET, &[id.as_bytes(), b".", now.as_bytes(), b".", BODY].concat()));
        let text = shape.replace("BAD", &bad).replace("GOOD", &good);
        let headers: Lines = vec![
            ("webhook-id", id.into()),
            ("webhook-timestamp", now.clone().into()),
            ("webhook-signature", text.into()),
        ];
        cases.push(accepted(shape, "std", headers, BODY));
    }
    hold(&world, &cases).await;
}

#[tokio::test]
async fn either_of_two_signature_headers_is_enough_with_either_secret() {
    let (old, new) = ("the-older-secret-of-two", "the-newer-secret-of-two");
    let secrets = |values: &[&str]| {
        let list: Vec<_> = values.iter().map(|value| format!("{{ value = \"{value}\" }}")).collect();
        format!("secrets = [{}]", list.join(", "))
    };
    let world = World::start(
        &[
            source("old", "partssource", &secrets(&[old])),
            source("new", "partssource", &secrets(&[new])),
            source("both", "partssource", &secrets(&[new, old])),
        ]
        .concat(),
    )
    .await;
    let now = NOW_S.to_string();
    let mut cases = Vec::new();
    for (i, at) in ["old", "new", "both"].into_iter().enumerate() {
        for (j, (main, previous)) in [(new, old), (old, new)].into_iter().enumerate() {
            for (k, previous_first) in [false, true].into_iter().enumerate() {
                let body = format!("{{\"n\":{i}{j}{k}}}").into_bytes();
                let sign =
                    |secret: &str| format!("sha256={}", hex_mac(secret, &[now.as_bytes(), b".", &body])).into_bytes();
                let mut headers: Lines =
                    vec![("x-ps-signature", sign(main)), ("x-ps-signature-previous", sign(previous))];
                if previous_first {
                    headers.reverse();
                }
                headers.push(("x-ps-timestamp", now.clone().into()));
                cases.push(accepted(&format!("{at}, {main} in front, {previous_first}"), at, headers, &body));
            }
        }
    }
    hold(&world, &cases).await;
    let forged = |body: &[u8]| -> Lines {
        let [a, b] = ["no-secret-that-anybody-has", "nor-this-one-of-nobody"]
            .map(|secret| format!("sha256={}", hex_mac(secret, &[now.as_bytes(), b".", body])).into_bytes());
        vec![("x-ps-timestamp", now.clone().into()), ("x-ps-signature", a), ("x-ps-signature-previous", b)]
    };
    hold(&world, &[refused("neither", "both", forged(BODY), BODY, "signature_mismatch")]).await;
}

#[tokio::test]
async fn at_most_eight_signatures_are_tried() {
    let world = World::start(&source("stripe", "stripe", "")).await;
    let now = NOW_S.to_string();
    let bad = format!("v1={}", "0".repeat(64));
    let good = format!("v1={}", stripe_mac(&now, BODY));
    let list = |bad_before: usize, bad_behind: usize| {
        let mut items = vec![format!("t={now}")];
        items.extend(std::iter::repeat_n(bad.clone(), bad_before));
        items.push(good.clone());
        items.extend(std::iter::repeat_n(bad.clone(), bad_behind));
        stripe_with(&items.join(","))
    };
    hold_refused(
        &world,
        &[
            refused("the ninth is right", "stripe", list(8, 0), BODY, "too_many_signatures"),
            refused("the first of nine is right", "stripe", list(0, 8), BODY, "too_many_signatures"),
        ],
    )
    .await;
    hold(&world, &[accepted("the eighth is right", "stripe", list(7, 0), BODY)]).await;
}

#[test]
fn at_most_eight_secrets_are_taken() {
    let list: Vec<_> = (0..9).map(|i| format!("{{ value = \"a-secret-of-some-length-{i}\" }}")).collect();
    let found = problems(&source("ps", "partssource", &format!("secrets = [{}]", list.join(", "))));
    assert!(found.contains("at most 8 are tried"), "{found}");
}

#[tokio::test]
async fn the_message_never_names_the_algorithm() {
    let world = World::start(
        &[
            source("ps", "partssource", ""),
            source("hub", "github", ""),
            source("stripe", "stripe", ""),
            source("std", "standard-webhooks", ""),
            source("slack", "slack", ""),
        ]
        .concat(),
    )
    .await;
    let now = NOW_S.to_string();
    let content = [now.as_bytes(), b".", BODY].concat();
    let hex = good();
    let hub = hex_mac(SECRET, &[BODY]);
    let slack = hex_mac(SECRET, &[b"v0:", now.as_bytes(), b":", BODY]);
    let std_mac = Base64::encode_string(&mac(SECRET, &[b"msg_1.", now.as_bytes(), b".", BODY].concat()));
    let std = |text: String| -> Lines {
        vec![
            ("webhook-id", "msg_1".into()),
            ("webhook-timestamp", now.clone().into()),
            ("webhook-signature", text.into()),
        ]
    };
    let slack_with = |text: String| -> Lines {
        vec![("x-slack-request-timestamp", now.clone().into()), ("x-slack-signature", text.into())]
    };
    let malformed = "signature_malformed";
    hold_refused(
        &world,
        &[
            refused("sha1= before a sha256", "ps", parts_source_with(format!("sha1={hex}")), BODY, malformed),
            refused("sha1= with its length", "ps", parts_source_with(format!("sha1={}", &hex[..40])), BODY, malformed),
            refused("sha512=", "ps", parts_source_with(format!("sha512={hex}{hex}")), BODY, malformed),
            refused("none=", "ps", parts_source_with("none="), BODY, malformed),
            refused(
                "a bare digest",
                "ps",
                parts_source_with(format!("sha256={}", digest(&content))),
                BODY,
                "signature_mismatch",
            ),
            refused(
                "github: sha1= in its place",
                "hub",
                vec![("x-hub-signature-256", format!("sha1={hub}").into())],
                BODY,
                malformed,
            ),
            refused(
                "github: the old header",
                "hub",
                vec![("x-hub-signature", format!("sha256={hub}").into())],
                BODY,
                "signature_missing",
            ),
            refused("stripe: v0", "stripe", stripe_with(&format!("t={now},v0={hex}")), BODY, malformed),
            refused("stripe: V1", "stripe", stripe_with(&format!("t={now},V1={hex}")), BODY, malformed),
            refused("standard: v1a", "std", std(format!("v1a,{std_mac}")), BODY, malformed),
            refused("standard: v2", "std", std(format!("v2,{std_mac}")), BODY, malformed),
            refused("standard: v1=", "std", std(format!("v1={std_mac}")), BODY, malformed),
            refused("slack: v1=", "slack", slack_with(format!("v1={slack}")), BODY, malformed),
        ],
    )
    .await;
    hold(
        &world,
        &[
            accepted("standard: v1", "std", std(format!("v1,{std_mac}")), BODY),
            accepted("slack: v0", "slack", slack_with(format!("v0={slack}")), BODY),
        ],
    )
    .await;
}

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[tokio::test]
async fn base64_has_one_alphabet_and_one_writing() {
    let world = World::start(&source("shop", "shopify", "")).await;
    // A body whose signature has both characters in which the alphabets differ.
    let body = (0..100_000)
        .map(|i| format!("{{\"n\":{i}}}").into_bytes())
        .find(|body| ['+', '/'].iter().all(|c| Base64::encode_string(&mac(SECRET, body)).contains(*c)))
        .expect("one in a few");
    let bytes = mac(SECRET, &body);
    let good = Base64::encode_string(&bytes);
    // The last character before the padding carries two bits that mean nothing.
    let last = ALPHABET.iter().position(|c| *c == good.as_bytes()[42]).expect("a digit");
    assert_eq!(last % 4, 0);
    let surplus = |bits: usize| format!("{}{}=", &good[..42], char::from(ALPHABET[last + bits]));
    let texts = [
        Base64Url::encode_string(&bytes),
        Base64Unpadded::encode_string(&bytes),
        surplus(1),
        surplus(2),
        surplus(3),
        format!("{good}="),
        format!("={good}"),
        format!("{}=={}", &good[..20], &good[20..]),
        format!("{} {}", &good[..20], &good[20..]),
        format!("{good}{good}"),
        good[..43].to_owned(),
        good[..40].to_owned(),
        encode_hex(&bytes),
        good.to_lowercase(),
    ];
    let with = |text: String| -> Lines { vec![("x-shopify-hmac-sha256", text.into())] };
    let expected = |text: &str| if *text == good.to_lowercase() { "signature_mismatch" } else { "signature_malformed" };
    let cases: Vec<_> = texts
        .into_iter()
        .map(|text| {
            let lower = text == good.to_lowercase();
            let mut case = refused(&text, "shop", with(text.clone()), &body, expected(&text));
            // In lower case it may or may not be canonical; it is another signature in any case.
            if lower && ALPHABET.iter().position(|c| *c == text.as_bytes()[42]).is_some_and(|at| at % 4 != 0) {
                case.code = "signature_malformed";
            }
            case
        })
        .collect();
    hold_refused(&world, &cases).await;
    hold(&world, &[accepted("as it is written", "shop", with(good), &body)]).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_and_break_nothing() {
    let world = World::start(
        &[
            source("ps", "partssource", ""),
            source("mw", "mobility-work", ""),
            source("gains", "gains", ""),
            source("basic", "sourcehub", "guard = \"basic\"\nsecrets = [{ value = \"user:some-password\" }]"),
            source("token", "sourcehub", "path = \"/hooks/token/{token}\""),
        ]
        .concat(),
    )
    .await;
    let now = NOW_S.to_string();
    let with = |text: &str, byte: u8| [text.as_bytes(), &[byte]].concat();
    let mut cases = Vec::new();
    for byte in [0x80, 0xa0, 0xc3, 0xff] {
        cases.extend([
            refused(
                "signature",
                "ps",
                parts_source_with(with(&format!("sha256={}", &good()[..63]), byte)),
                BODY,
                "signature_malformed",
            ),
            refused(
                "prefix",
                "ps",
                parts_source_with([&[byte], good().as_bytes()].concat()),
                BODY,
                "signature_malformed",
            ),
            refused(
                "time",
                "ps",
                vec![("x-ps-signature", format!("sha256={}", good()).into()), ("x-ps-timestamp", with(&now, byte))],
                BODY,
                "timestamp_malformed",
            ),
            refused(
                "nonce",
                "mw",
                vec![(
                    "x-mw-signature",
                    [format!("t={now},signature={},nonce=n", good()).as_bytes(), &[byte]].concat(),
                )],
                BODY,
                "field_malformed",
            ),
            refused("value", "gains", vec![("authorization", with("Bearer ", byte))], BODY, "credential_mismatch"),
            refused("basic", "basic", vec![("authorization", with("Basic YTpi", byte))], BODY, "credential_missing"),
            refused("token", &format!("token/%{byte:02x}"), vec![], BODY, "credential_mismatch"),
        ]);
    }
    hold_refused(&world, &cases).await;
    // In a header that proves nothing they do no harm.
    let beside =
        [parts_source(SECRET, &now, BODY), vec![("x-note", vec![0xff, 0x80]), ("x-ps-delivery-id", vec![0xfe])]]
            .concat();
    hold(&world, &[accepted("beside", "ps", beside, BODY)]).await;
    let received = world.upstream.wait_for(1).await;
    assert_eq!(received[0].headers["x-note"].as_bytes(), [0xff, 0x80]);
}

#[tokio::test]
async fn sixteen_kilobytes_of_candidates_are_refused_unread() {
    let world = World::start(&[source("std", "standard-webhooks", ""), source("stripe", "stripe", "")].concat()).await;
    let now = NOW_S.to_string();
    let good = Base64::encode_string(&mac(SECRET, &[b"msg_1.", now.as_bytes(), b".", BODY].concat()));
    let std = |text: String| -> Lines {
        vec![
            ("webhook-id", "msg_1".into()),
            ("webhook-timestamp", now.clone().into()),
            ("webhook-signature", text.into()),
        ]
    };
    let many = format!("v1,{good} ").repeat(15_000 / 48);
    let tiny = format!("t={now}{}", ",v1=0".repeat(3_000));
    let long = |length: usize| format!("v1,{}", "A".repeat(length));
    hold_refused(
        &world,
        &[
            refused("standard", "std", std(many.clone()), BODY, "signature_malformed"),
            refused("stripe", "stripe", stripe_with(&tiny), BODY, "signature_malformed"),
            refused("one long one", "std", std(long(15_000)), BODY, "signature_malformed"),
            refused("just below the bound", "stripe", stripe_with(&tiny[..7_997]), BODY, "too_many_signatures"),
            Case { status: 431, ..refused("over the head's limit", "std", std(long(16 << 10)), BODY, "-") },
        ],
    )
    .await;
}
