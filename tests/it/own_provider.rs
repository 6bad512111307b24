//! A provider that does not ship, from the configuration alone: one that works, and many that are a mistake away.

use std::fmt::Write as _;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookward::config;
use sha2::Sha512;

use crate::world::{NOW_S, Reply, World, configuration, request};

const NEW: &str = "the-new-secret-of-acme";
const OLD: &str = "the-old-secret-of-acme";
const URL: &str = "https://hooks.example.com/hooks/acme";

/// All that a configuration says of Acme.
const ACME: &str = r#"
[providers.acme]
title = "Acme"
methods = ["POST", "PUT"]
event_key = ["/id"]
event_type = "/type"

[providers.acme.signature]
headers = ["x-acme-signature"]
encoding = "base64url"
algorithm = "hmac-sha512"
content = "{method}\n{url}\n{timestamp}\n{body}"
timestamp = { header = "x-acme-time", unit = "s" }
tolerance = { past = "5m", future = "5m" }

[sources.acme]
provider = "acme"
public_url = "https://hooks.example.com"
secrets = [
  { id = "new", value = "the-new-secret-of-acme" },
  { id = "old", value = "the-old-secret-of-acme" },
]
upstream = "up"
"#;

/// What Acme signs, and with what.
#[derive(Clone, Copy)]
struct Signed<'a> {
    secret: &'a str,
    method: &'a str,
    url: &'a str,
    at_s: i64,
    body: &'a str,
}

impl<'a> Signed<'a> {
    fn genuine(secret: &'a str, body: &'a str) -> Self {
        Self { secret, method: "POST", url: URL, at_s: NOW_S, body }
    }

    fn signature(self) -> String {
        let mut mac = Hmac::<Sha512>::new_from_slice(self.secret.as_bytes()).expect("any length");
        mac.update(format!("{}\n{}\n{}\n{}", self.method, self.url, self.at_s, self.body).as_bytes());
        Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes())
    }
}

/// Sends one thing with the signature of another.
async fn send(world: &World, sent: Signed<'_>, signed: Signed<'_>) -> Reply {
    let (signature, time) = (signed.signature(), sent.at_s.to_string());
    let path = sent.url.strip_prefix("https://hooks.example.com").expect("one of ours");
    let headers = [("x-acme-signature", &*signature), ("x-acme-time", &*time)];
    request(world.gateway.public, sent.method, path, &headers, sent.body.as_bytes()).await
}

#[tokio::test]
async fn a_provider_of_ones_own_works_from_the_configuration_alone() {
    let world = World::start(ACME).await;
    let genuine = Signed::genuine;
    let ack = |reply: &Reply| (reply.status, reply.ack().0);

    // Two secrets are live, and a copy under the other one is a copy.
    let first = genuine(NEW, r#"{"id":"1","type":"order.made"}"#);
    let reply = send(&world, first, first).await;
    assert_eq!(ack(&reply), (200, "accepted".to_owned()));
    let id = reply.ack().1;
    let second = genuine(OLD, r#"{"id":"2","type":"order.made"}"#);
    assert_eq!(ack(&send(&world, second, second).await), (200, "accepted".to_owned()));
    let later = Signed { at_s: NOW_S + 7, ..first };
    for copy in [first, later, Signed { secret: OLD, ..first }] {
        assert_eq!(send(&world, copy, copy).await.ack(), ("duplicate".to_owned(), id.clone()));
    }
    let put =
        Signed { method: "PUT", url: "https://hooks.example.com/hooks/acme?from=eu", ..genuine(NEW, r#"{"id":"3"}"#) };
    assert_eq!(ack(&send(&world, put, put).await), (200, "accepted".to_owned()), "the query is part of the URL");

    let unsent = genuine(NEW, r#"{"id":"4"}"#);
    let other = |change: fn(&mut Signed<'static>)| {
        let mut other = unsent;
        change(&mut other);
        other
    };
    let mismatches = [
        ("a third secret", unsent, other(|one| one.secret = "another-secret-than-those")),
        ("another method", other(|one| one.method = "PUT"), unsent),
        ("another path signed", unsent, other(|one| one.url = "https://hooks.example.com/hooks/other")),
        ("another host signed", unsent, other(|one| one.url = "https://hooks.example.org/hooks/acme")),
        ("a query that was not signed", other(|one| one.url = "https://hooks.example.com/hooks/acme?a=1"), unsent),
        ("another time", other(|one| one.at_s += 1), unsent),
        ("another body", other(|one| one.body = r#"{"id":"5"}"#), unsent),
        ("bytes moved over a separator", other(|one| one.body = ""), other(|one| one.body = "\n")),
    ];
    for (count, (name, sent, signed)) in (1..).zip(mismatches) {
        assert_eq!(send(&world, sent, signed).await.status, 401, "{name}");
        assert_eq!(refusals(&world, "signature_mismatch").await, count, "{name}");
    }
    for (count, off_s) in (1..).zip([-301, 301]) {
        let stale = Signed { at_s: NOW_S + off_s, ..unsent };
        assert_eq!(send(&world, stale, stale).await.status, 401, "{off_s}");
        assert_eq!(refusals(&world, "stale").await, count, "{off_s}");
    }

    world.settled().await;
    let received = world.upstream.wait_for(3).await;
    let mut verified: Vec<_> = received.iter().map(|one| one.header("hookward-provider")).collect();
    verified.dedup();
    assert_eq!((received.len(), verified), (3, vec![Some("acme")]));
}

async fn refusals(world: &World, code: &str) -> u64 {
    world.metric(&format!("hookward_webhooks_total{{source=\"acme\",code=\"{code}\"")).await
}

/// What people get wrong: a name, and what stands in place of what.
const MISTAKES: &[(&str, &[(&str, &str)])] = &[
    ("an algorithm that there is not", &[("\"hmac-sha512\"", "\"hmac-sha3\"")]),
    ("an algorithm by another name", &[("\"hmac-sha512\"", "\"HMAC_SHA512\"")]),
    ("nothing between the URL and the time", &[(r"{url}\n{timestamp}", "{url}{timestamp}")]),
    ("a part that there is not", &[("{body}\"", "{raw_body}\"")]),
    ("a signed URL that nobody knows", &[("public_url = \"https://hooks.example.com\"\n", "")]),
    ("a time without a unit", &[(", unit = \"s\"", "")]),
    ("a time without a tolerance", &[("tolerance = { past = \"5m\", future = \"5m\" }\n", "")]),
    ("half a tolerance", &[(", future = \"5m\"", "")]),
    ("a time that is not signed", &[(r"{timestamp}\n", "")]),
    ("a body that is not signed", &[(r"\n{body}", "")]),
    ("an id without its place", &[(r"{timestamp}\n", r"{timestamp}\n{id}\n")]),
    ("an event key that is not signed", &[("[\"/id\"]", "[\"header:x-acme-delivery\"]")]),
    ("a public key for an HMAC", &[("title = \"Acme\"", "title = \"Acme\"\nkey_format = \"pem\"")]),
    ("a public key that is given as a secret", &[("\"hmac-sha512\"", "\"ed25519\"")]),
    (
        "a token with two kinds of keys",
        &[
            (
                "encoding = \"base64url\"\nalgorithm = \"hmac-sha512\"\n",
                "grammar = \"jwt\"\nuncovered = \"The body.\"\n",
            ),
            (
                "content = \"{method}\\n{url}\\n{timestamp}\\n{body}\"\ntimestamp = { header = \"x-acme-time\", unit = \"s\" }\n",
                "",
            ),
            ("\n[sources", "\n[providers.acme.signature.jwt]\nalgorithms = [\"HS256\", \"RS256\"]\n\n[sources"),
        ],
    ),
    (
        "a separator that may stand in a signature",
        &[("encoding", "grammar = \"fields\"\nseparator = \":\"\nfield = \"v1\"\nencoding")],
    ),
    ("fields without the key of the signature", &[("encoding", "grammar = \"fields\"\nseparator = \",\"\nencoding")]),
    ("a grammar that there is not", &[("encoding", "grammar = \"csv\"\nencoding")]),
    ("two places for a signature", &[("encoding", "json = \"/signature\"\nencoding")]),
    ("no place for a signature", &[("headers = [\"x-acme-signature\"]\n", "")]),
    ("a key that is misspelt", &[("algorithm =", "algoritm =")]),
    ("a parameter that nobody declared", &[("{body}\"", "{param:account}\\n{body}\"")]),
    ("a secret in the content of an HMAC", &[("{body}\"", "{body}{secret}\"")]),
];

/// Each message names the place, what is wrong there, and what to write.
#[test]
fn a_mistake_in_a_provider_of_ones_own_is_named_with_what_to_write() {
    let mut shown = String::new();
    for (name, changes) in MISTAKES {
        let mut text = ACME.to_owned();
        for (from, to) in *changes {
            assert_eq!(text.matches(from).count(), 1, "{name}: {from}");
            text = text.replace(from, to);
        }
        let text = configuration(&text, "", "http://127.0.0.1:9/in", std::path::Path::new("data"));
        let loaded = config::from_text("acme.toml", &text, std::path::Path::new("."));
        let problems = loaded.problems.render(false);
        assert!(loaded.config.is_none(), "{name}: it would start");
        assert!(!problems.contains(NEW) && !problems.contains(OLD), "{name}: {problems}");
        for part in ["error: ", "acme.toml:", "= help: "] {
            assert!(problems.contains(part), "{name}: no `{part}` in {problems}");
        }
        // The secrets stand in the text here, and `check` would rather have them elsewhere.
        let errors = problems.split("\nwarning: ").next().unwrap_or_default();
        let _ = write!(shown, "# {name}\n\n{}\n\n", errors.trim_end());
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("invalid-own-provider", shown));
}
