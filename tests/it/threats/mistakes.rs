//! Mistakes seen in other gateways.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::requests::*;
use crate::world::{Act, NOW_S, Upstream, World, configuration, read_reply, request, sign};

const BODY: &[u8] = b"{\"order\":\"PO-1\"}";

fn genuine(body: &[u8]) -> Lines {
    parts_source(SECRET, &NOW_S.to_string(), body)
}

#[tokio::test]
async fn the_bytes_received_are_verified_and_not_the_json_written_anew() {
    let world = World::start(&source("ps", "partssource", "")).await;
    // Each is other bytes once it was parsed and written again.
    let bodies: Vec<&[u8]> = vec![
        br#"{ "b": 1.0, "a": 1e2 }"#,
        br#"{"b":1,"a":2,"b":3}"#,
        br#"{"s":"\u00e9\/\u003c"}"#,
        b"{\"n\":12345678901234567890123}\r\n",
        b"\xef\xbb\xbf{}",
        b"not json at all \xff\x00",
        b"",
    ];
    for body in &bodies {
        hold(&world, &[accepted("as it is", "ps", genuine(body), body)]).await;
    }
    let received = world.upstream.wait_for(bodies.len()).await;
    for body in &bodies {
        assert!(received.iter().any(|one| one.body[..] == **body), "{:?}", String::from_utf8_lossy(body));
    }
    // And the signature of one writing does not cover another.
    let compact = br#"{"b":1.0,"a":1e2}"#;
    hold(&world, &[refused("written anew", "ps", genuine(bodies[0]), compact, "signature_mismatch")]).await;
}

#[tokio::test]
async fn events_without_the_id_do_not_become_one() {
    let world = World::start(&source("stripe", "stripe", "")).await;
    let bodies = [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"id":null,"n":3}"#, r#"{"id":"","n":4}"#, r#"{"ID":"x","n":5}"#, ""];
    let cases = bodies.map(|body| accepted(body, "stripe", stripe(body.as_bytes()), body.as_bytes()));
    hold(&world, &cases).await;
    world.settled().await;
    assert_eq!(world.upstream.received().len(), bodies.len());
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_not_cut() {
    let world = World::start(&source("ps", "partssource", "body_bytes_max = \"1KiB\"")).await;
    for (length, status, code) in [(1024_usize, 200, "accepted"), (1025, 413, "too_large"), (5000, 413, "too_large")] {
        let body = vec![b'a'; length];
        // The signature covers the whole body, and the one of the cut body is no better.
        for signed in [&body[..], &body[..length.min(1024)]] {
            let before = codes(&world).await;
            let reply = send_chunked(&world, &genuine(signed), &body).await;
            let expected = if length == 1024 && before.contains_key("accepted") { "duplicate" } else { code };
            assert_eq!(reply.status, status, "{length}: {}", reply.text());
            let after = codes(&world).await;
            assert_eq!(after[expected], before.get(expected).copied().unwrap_or(0) + 1, "{length}");
        }
    }
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1);
}

/// In chunks of 100 bytes.
async fn send_chunked(world: &World, headers: &Lines, body: &[u8]) -> crate::world::Reply {
    let mut bytes = b"POST /hooks/ps HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n".to_vec();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    for chunk in body.chunks(100) {
        bytes.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    crate::world::raw(world.gateway.public, &bytes).await
}

#[tokio::test]
async fn a_declared_body_over_the_limit_is_refused_before_it_is_sent() {
    let world = World::start(&source("ps", "partssource", "body_bytes_max = \"1KiB\"")).await;
    let mut stream = TcpStream::connect(world.gateway.public).await.expect("it listens");
    let mut head = "POST /hooks/ps HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n".to_owned();
    for (name, value) in genuine(BODY) {
        head += &[name, ": ", std::str::from_utf8(&value).expect("text"), "\r\n"].concat();
    }
    stream.write_all((head + "\r\n").as_bytes()).await.expect("sent");
    let reply = crate::world::within("an answer without a body", read_reply(&mut stream)).await;
    assert_eq!(reply.status, 413);
    no_trace(&world).await;
}

#[tokio::test]
async fn an_unknown_event_type_is_stored_and_forwarded() {
    let world = World::start(&[source("ps", "partssource", ""), source("hub", "github", "")].concat()).await;
    let bodies: [&[u8]; 5] = [
        br#"{"event_type":"never.seen.before"}"#,
        br#"{"event_type":17}"#,
        br#"{"event_type":{"a":1}}"#,
        br#"{"event_type":"two\nlines"}"#,
        b"{}",
    ];
    let cases = bodies.map(|body| accepted("unknown", "ps", genuine(body), body));
    let replies = hold(&world, &cases).await;
    let ping = [github(b"zen"), vec![("x-github-event", b"ping-of-tomorrow".into())]].concat();
    hold(&world, &[accepted("a test event", "hub", ping, b"zen")]).await;
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 6);
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    assert_eq!(shown["event"]["event_type"], "never.seen.before");
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[3].ack().1)).await;
    assert_eq!(shown["event"]["event_type"], serde_json::Value::Null, "no label of two lines");
}

#[tokio::test]
async fn a_wrong_signature_never_gets_a_success() {
    for mode in ["queue", "respond", "proxy"] {
        for ack_status in ["", "ack_status = 202"] {
            let world = World::start(&source("ps", "partssource", &format!("mode = \"{mode}\"\n{ack_status}"))).await;
            let forged = parts_source("another-secret-than-it-is", &NOW_S.to_string(), BODY);
            hold_refused(&world, &[refused(mode, "ps", forged, BODY, "signature_mismatch")]).await;
        }
    }
    let lenient = source("ps", "partssource", "on_mismatch = \"retry\"");
    let world = World::start(&lenient).await;
    let forged = parts_source("another-secret-than-it-is", &NOW_S.to_string(), BODY);
    let case = Case { status: 503, ..refused("retry", "ps", forged, BODY, "signature_mismatch") };
    let replies = hold_refused(&world, &[case]).await;
    assert!(replies[0].headers.contains_key("retry-after"));
}

#[tokio::test]
async fn the_provider_hears_of_a_failure_behind_a_proxy() {
    let world = World::start(&source("hub", "github", "mode = \"proxy\"")).await;
    world.upstream.script([Act::Answer(500, "broken"), Act::Answer(429, ""), Act::Cut]);
    let with = |status, code| Case { status, ..refused("failing", "hub", github(BODY), BODY, code) };
    let cases = [with(500, "upstream_answered"), with(429, "upstream_answered"), with(502, "upstream_cut")];
    let replies = hold(&world, &cases).await;
    assert_eq!(replies[0].text(), "broken");
    // Nobody knows whether the upstream took the third: the next attempt says so.
    hold(&world, &[with(200, "answered")]).await;
    assert_eq!(world.upstream.received()[3].header("hookward-uncertain"), Some("true"));
}

#[tokio::test]
async fn an_address_of_ipv6_in_an_allow_list_is_that_address() {
    for (allow, status) in [("::1", 200), ("::2", 403), ("::/127", 200), ("::2/127", 403), ("127.0.0.1", 403)] {
        let (upstream, data) = (Upstream::start().await, tempfile::TempDir::new().expect("a directory"));
        let sources = source("hub", "github", &format!("allow = [\"{allow}\"]"));
        let text = configuration(&sources, "", &upstream.url(), data.path());
        let text = text.replacen("[server]\nlisten = \"127.0.0.1:0\"", "[server]\nlisten = \"[::1]:0\"", 1);
        let world = World::start_as(&text, NOW_S, upstream, data).await;
        let reply = send_lines(&world, "/hooks/hub", &github(BODY), BODY).await;
        assert_eq!(reply.status, status, "{allow}: {}", reply.text());
    }
    for (allow, status) in [("127.0.0.1", 200), ("127.0.0.2", 403), ("127.0.0.0/8", 200), ("::1", 403), ("::/0", 403)] {
        let world = World::start(&source("hub", "github", &format!("allow = [\"{allow}\"]"))).await;
        assert_eq!(send_lines(&world, "/hooks/hub", &github(BODY), BODY).await.status, status, "{allow}");
    }
}

#[test]
fn an_unknown_kind_of_proof_does_not_start() {
    let signature = "headers = [\"x-acme\"]\nencoding = \"hex\"\nalgorithm = \"hmac-sha256\"\ncontent = \"{body}\"\n";
    let own =
        |text: &str| format!("[providers.acme]\n[providers.acme.signature]\n{text}{}", source("acme", "acme", ""));
    for (from, to) in [
        ("hmac-sha256", "none"),
        ("hmac-sha256", "HMAC-SHA256"),
        ("hmac-sha256", "sha256"),
        ("hmac-sha256", "ed25519"),
        ("hmac-sha256", "hmac-md5"),
        ("hmac-sha256", ""),
        ("\"hex\"", "\"rot13\""),
        ("{body}", "{everything}"),
        ("headers = [\"x-acme\"]", "headers = []"),
        ("headers = [\"x-acme\"]", ""),
        ("content = \"{body}\"", ""),
        ("content", "grammar = \"jwt\"\ncontent"),
        ("content", "type = \"none\"\ncontent"),
        ("content = \"{body}\"", "content = \"constant\""),
    ] {
        let changed = signature.replacen(from, to, 1);
        assert_ne!(changed, signature);
        let found = problems(&own(&changed));
        assert!(found.contains("error"), "{from} -> {to}: {found}");
    }
    for more in ["verifier = \"none\"", "credential = \"nothing\"", "[providers.acme.verify]\ntype = \"none\""] {
        let text = format!("[providers.acme]\n{more}\n{}", source("acme", "acme", ""));
        assert!(problems(&text).contains("error"), "{more}");
    }
    let nothing = format!("[providers.acme]\n{}", source("acme", "acme", ""));
    assert!(problems(&nothing).contains("error"), "secrets that are compared with nothing");
    let found = problems(&source("ps", "partsource", ""));
    assert!(found.contains("did you mean"), "{found}");
}

#[tokio::test]
async fn an_algorithm_left_out_is_still_one() {
    let own = "[providers.acme]\n[providers.acme.signature]\nheaders = [\"x-acme\"]\ncontent = \"{body}\"\n";
    let world = World::start(&format!("{own}{}", source("acme", "acme", ""))).await;
    let with = |text: String| -> Lines { vec![("x-acme", text.into())] };
    hold_refused(
        &world,
        &[
            refused("nothing", "acme", vec![], BODY, "signature_missing"),
            refused("a digest without a key", "acme", with(digest(BODY)), BODY, "signature_mismatch"),
        ],
    )
    .await;
    hold(&world, &[accepted("an hmac", "acme", with(hex_mac(SECRET, &[BODY])), BODY)]).await;
}

#[tokio::test]
async fn content_type_and_the_providers_headers_are_kept() {
    let world = World::start(&source("hub", "github", "")).await;
    let lines = [
        github(BODY),
        vec![
            ("content-type", b"application/vnd.github+json; charset=\"UTF-8\"".into()),
            ("x-github-event", b"push".into()),
            ("x-github-delivery", b"72d3162e".into()),
            ("user-agent", b"GitHub-Hookshot/1".into()),
            ("x-twice", b"one".into()),
            ("x-twice", b"two".into()),
            ("accept", b"*/*".into()),
        ],
    ]
    .concat();
    hold(&world, &[accepted("kept", "hub", lines.clone(), BODY)]).await;
    let received = world.upstream.wait_for(1).await.remove(0);
    for (name, value) in &lines {
        let all: Vec<_> = received.headers.get_all(*name).iter().map(|v| v.as_bytes().to_vec()).collect();
        assert!(all.contains(value), "{name}: {all:?}");
    }
    assert_eq!(
        received.headers.get_all("x-twice").iter().map(http::HeaderValue::as_bytes).collect::<Vec<_>>(),
        [b"one", b"two"]
    );
    assert_eq!(received.headers.get_all("content-type").iter().count(), 1);
    assert!(!received.headers.contains_key("content-encoding"));
    // None is made up where none came.
    hold(&world, &[accepted("none", "hub", github(b"plain"), b"plain")]).await;
    assert!(!world.upstream.wait_for(2).await[1].headers.contains_key("content-type"));
}

#[tokio::test]
async fn form_and_gzip_bodies_are_unchanged() {
    let world = World::start(&source("hub", "github", "")).await;
    // `{}` as gzip writes it, twice over: it is bytes, whatever it says it is.
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let bodies: [(&str, Option<&str>, &[u8]); 5] = [
        ("application/x-www-form-urlencoded", None, b"payload=%7B%22a%22%3A+1%7D&b=%2&c==&c"),
        ("application/json", Some("gzip"), gzip),
        ("application/json", Some("br, gzip"), b"neither of both"),
        ("multipart/form-data; boundary=x", None, b"--x\r\n\r\n1\n--x--\r\n"),
        ("text/plain; charset=latin1", None, b"\xe9\x00\r\n\n\r"),
    ];
    for (content_type, encoding, body) in &bodies {
        let mut lines = github(body);
        lines.push(("content-type", content_type.as_bytes().into()));
        lines.extend(encoding.map(|encoding| ("content-encoding", encoding.as_bytes().to_vec())));
        hold(&world, &[accepted(content_type, "hub", lines, body)]).await;
    }
    let received = world.upstream.wait_for(bodies.len()).await;
    for (content_type, encoding, body) in bodies {
        let one = received.iter().find(|one| one.body[..] == *body).expect(content_type);
        assert_eq!((one.header("content-type"), one.header("content-encoding")), (Some(content_type), encoding));
        assert_eq!(one.header("content-length"), Some(&*body.len().to_string()));
    }
}

#[tokio::test]
async fn the_right_most_untrusted_entry_of_x_forwarded_for_is_the_client() {
    let source = source("hub", "github", "allow = [\"203.0.113.9\"]");
    let trusted = |text: String| {
        text.replacen("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n", 1)
    };
    let world = World::start_edited(&source, trusted).await;
    let line = |value: &str| -> Lines { vec![("x-forwarded-for", value.into())] };
    let mut cases = Vec::new();
    for value in
        ["203.0.113.9, 198.51.100.1", "203.0.113.9, 198.51.100.1, 10.0.0.1", "10.0.0.1", "unknown", "203.0.113.9, x"]
    {
        let lines = [github(BODY), line(value)].concat();
        cases.push(Case { status: 403, ..refused(value, "hub", lines, BODY, "address_not_allowed") });
    }
    hold_refused(&world, &cases).await;
    for value in ["203.0.113.9", "198.51.100.1, 203.0.113.9", "198.51.100.1, 203.0.113.9, 10.0.0.1"] {
        let body = value.as_bytes();
        hold(&world, &[accepted(value, "hub", [github(body), line(value)].concat(), body)]).await;
    }
}

#[tokio::test]
async fn the_first_entry_of_x_forwarded_for_is_not_trusted() {
    let world = World::start(&source("hub", "github", "allow = [\"203.0.113.9\"]")).await;
    let mut cases = Vec::new();
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-for", "203.0.113.9, 127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1, 203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
        ("true-client-ip", "203.0.113.9"),
        ("cf-connecting-ip", "203.0.113.9"),
        ("x-client-ip", "203.0.113.9"),
    ] {
        let lines = [github(BODY), vec![(name, value.into())]].concat();
        cases.push(Case { status: 403, ..refused(value, "hub", lines, BODY, "address_not_allowed") });
    }
    hold_refused(&world, &cases).await;
}

#[tokio::test]
async fn copies_are_looked_for_after_verification_only() {
    let world = World::start(&source("stripe", "stripe", "")).await;
    let body = b"{\"id\":\"evt_1\"}";
    let forged = || stripe_with(&format!("t={NOW_S},v1={}", "0".repeat(64)));
    hold_refused(&world, &[refused("a forgery first", "stripe", forged(), body, "signature_mismatch")]).await;
    hold(
        &world,
        &[
            accepted("the forgery has taken no key", "stripe", stripe(body), body),
            refused("a forged copy is not called one", "stripe", forged(), body, "signature_mismatch"),
            refused("nor one without a signature", "stripe", vec![], body, "signature_missing"),
            refused(
                "nor one with another body",
                "stripe",
                stripe(body),
                b"{\"id\":\"evt_1\",\"n\":2}",
                "signature_mismatch",
            ),
        ],
    )
    .await;
    world.settled().await;
    let events = world.admin("GET", "/api/v1/events").await;
    assert_eq!((events["events"][0]["copies"].as_u64(), world.upstream.received().len()), (Some(0), 1));
}

/// Another program holds the file of the store: appends fail for a while.
#[tokio::test]
async fn a_failing_store_leaves_no_event_under_way_for_ever() {
    let world = World::start(&source("ps", "partssource", "deadline = \"2s\"")).await;
    hold(&world, &[accepted("before", "ps", genuine(b"0"), b"0")]).await;
    world.settled().await;
    let file = std::fs::read_dir(world.data.path().join("store"))
        .expect("the store's directory")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")))
        .expect("the store's file");
    let other = rusqlite::Connection::open(file).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("it is not being written");
    let reply = send_lines(&world, "/hooks/ps", &genuine(BODY), BODY).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.headers.contains_key("retry-after"));
    other.execute_batch("ROLLBACK").expect("it ends");
    drop(other);
    // The provider's retry is taken, or it is a copy of what became durable late; never lost, never twice.
    until("the retry to be taken", || async {
        send_lines(&world, "/hooks/ps", &genuine(BODY), BODY).await.status == 200
    })
    .await;
    world.settled().await;
    let received = world.upstream.received();
    assert_eq!(received.iter().filter(|one| one.body[..] == *BODY).count(), 1);
    let status = world.admin("GET", "/api/v1/status").await;
    let lane = &status["upstreams"][0];
    assert_eq!(
        (lane["due"].as_u64(), lane["leased"].as_u64(), lane["delivered"].as_u64()),
        (Some(0), Some(0), Some(2))
    );
}

/// An attempt that nobody settled: the process ended in the middle of it.
#[tokio::test]
async fn an_attempt_cut_by_a_restart_is_made_again() {
    let config = source("ps", "partssource", "");
    // Shorter than the upstream's timeout, so that the drain ends first.
    let world =
        World::start_edited(&config, |text| text.replace("drain_timeout = \"10s\"", "drain_timeout = \"1s\"")).await;
    world.upstream.script([Act::Hang(200)]);
    let replies = hold(&world, &[accepted("hangs", "ps", genuine(BODY), BODY)]).await;
    world.upstream.wait_for(1).await;
    let World { gateway, upstream, data, .. } = world;
    assert!(!gateway.drain().await, "the attempt outlives the drain");
    let world = World::start_with(&config, "", upstream, data).await;
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].body[..], *BODY);
    world.settled().await;
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    let delivery = &shown["event"]["deliveries"][0];
    assert_eq!(delivery["state"], "delivered", "{shown}");
    assert_eq!(received[1].header("hookward-event-id"), Some(&*replies[0].ack().1));
}

#[tokio::test]
async fn a_path_is_matched_byte_for_byte() {
    let world = World::start(&source("ps", "partssource", "")).await;
    let headers = sign("partssource", SECRET, BODY, NOW_S);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for path in [
        "/Hooks/ps",
        "/hooks/ps/",
        "//hooks/ps",
        "/hooks//ps",
        "/hooks/./ps",
        "/hooks/x/../ps",
        "/hooks%2fps",
        "/hooks/p%73",
        "/hooks/ps;x=1",
    ] {
        let reply = request(world.gateway.public, "POST", path, &headers, BODY).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    no_trace(&world).await;
}
