//! What it costs to verify a webhook: `cargo bench --bench verify`.
//!
//! For ten providers it prints, as Markdown, the time from the head of a request to its proof, with one secret, beside
//! one bare HMAC-SHA256 over the same body. Both are measured in turns, and the quickest turn of each counts: the
//! others had company. What carries over to another machine is the ratio.
//!
//! The passes are counted by a test, `src/preset/tests/passes.rs`, which writes down what is read here.

use std::{collections::BTreeMap, fmt::Write as _, hint::black_box, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookward::{
    preset::{self, Provider},
    secret::Secret,
    time::Wall,
    verify::{
        KeyKind, Keyring, Scheme, SecretKey, Seen, SignRequest, SigningKey,
        public::{PrivateKey, PublicFormat},
    },
};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::time::Instant;

const PROVIDERS: [&str; 10] = [
    "stripe",
    "github",
    "shopify",
    "slack",
    "standard-webhooks",
    "twilio",
    "paypal",
    "hubspot-v3",
    "discord",
    "mailgun",
];
const BODY_BYTES: [usize; 2] = [2 * 1024, 64 * 1024];
const SECRET: &str = "whsec_YS1zZWNyZXQtZm9yLW1lYXN1cmVtZW50cy1vbmx5";
const NOW: Wall = Wall::from_unix_s(1_700_000_000);
const URL: &str = "https://hooks.example.com/hooks/measured";
/// Of each way; in between it is the other's turn.
const TURNS: u32 = 200;
/// As many requests as fit into this are a turn.
const TURN: Duration = Duration::from_millis(1);
/// As `insta` keeps it: what the test counted.
const PASSES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/passes.snap");

fn main() -> Result<ExitCode> {
    let passes = passes();
    println!("| provider | proof | 2 KiB | to HMAC | 64 KiB | to HMAC | passes: proof, SHA-256 |");
    println!("|---|---|--:|--:|--:|--:|---|");
    for name in PROVIDERS {
        let provider = preset::find(name).context("a preset")?;
        let algorithm = provider.scheme.name();
        let mut row = format!("| {} | {algorithm} |", provider.title);
        for bytes in BODY_BYTES {
            let (webhook, bare) = Webhook::signed(&provider, bytes)?.measure()?;
            write!(row, " {:.1} µs | {:.2} |", micros(webhook), webhook.as_secs_f64() / bare.as_secs_f64())?;
        }
        println!("{row} {} |", passes.get(name).map_or("not counted", String::as_str));
    }
    Ok(ExitCode::SUCCESS)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// `name: 1, 2` as the test wrote it, by name: passes for one secret, and of SHA-256 for keys.
fn passes() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(PASSES).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(name, counted)| (name.to_owned(), counted.to_owned())).collect()
}

/// A genuine request.
struct Webhook {
    scheme: Scheme,
    keyring: Keyring,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Webhook {
    fn signed(provider: &Provider, bytes: usize) -> Result<Self> {
        let params = provider.params.keys().map(|name| (name.clone(), "measured".to_owned())).collect();
        let scheme = provider.scheme.with_params(&params);
        let private = match scheme.key_kind() {
            Some(KeyKind::Public(kind)) => Some(PrivateKey::generate(kind, &mut rand::rng())),
            _ => None,
        };
        let shared = provider.key_format.decode(SECRET.as_bytes());
        let key = match &private {
            Some(private) => Secret::new(private.public().text(PublicFormat::SpkiBase64).context("its text")?),
            None => shared?,
        };
        let signing_key = private.as_ref().map_or(SigningKey::Shared(&key), SigningKey::Private);
        let method = provider.methods[0].clone();
        let body = grown(provider.sample.as_deref().unwrap_or(b"{}"), bytes);
        let request = SignRequest { method: &method, url: Some(URL), ..SignRequest::new(signing_key, &body, NOW) };
        let signature = scheme.sign(&request)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &signature.headers {
            headers.append(name, HeaderValue::from_str(value)?);
        }
        let url = signature.url(URL);
        let body = signature.body.unwrap_or(body);
        let keys = vec![SecretKey { id: "measured".into(), key, not_before: None, expires_at: None }];
        let keyring = Keyring::new(keys, &scheme).map_err(|(_, error)| error)?;
        Ok(Self { scheme, keyring, method, url, headers, body })
    }

    /// The quickest verification, and the quickest HMAC-SHA256 of the body.
    fn measure(&self) -> Result<(Duration, Duration)> {
        ensure!(self.verifies(), "a genuine request is refused");
        let keyed = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).context("any length")?;
        let bare = || {
            let mut mac = keyed.clone();
            mac.update(black_box(&self.body));
            black_box(mac.finalize().into_bytes());
        };
        let webhook = || {
            black_box(self.verifies());
        };
        let (bare_times, webhook_times) = (fitting(bare), fitting(webhook));
        let mut quickest = (Duration::MAX, Duration::MAX);
        for _ in 0..TURNS {
            quickest.0 = quickest.0.min(turn(webhook, webhook_times));
            quickest.1 = quickest.1.min(turn(bare, bare_times));
        }
        Ok(quickest)
    }

    fn verifies(&self) -> bool {
        let query = self.url.split_once('?').map(|(_, query)| query);
        let seen =
            Seen { method: &self.method, url: Some(&self.url), query, headers: black_box(&self.headers), token: None };
        let claim = self.scheme.claim(seen);
        claim.is_ok_and(|claim| self.scheme.verify(&claim, &self.keyring, black_box(&self.body), NOW).is_ok())
    }
}

/// How often it fits into a turn.
fn fitting(work: impl Fn()) -> u32 {
    let begin = Instant::now();
    let mut times = 0;
    while times == 0 || begin.elapsed() < TURN {
        work();
        times += 1;
    }
    times
}

/// How long it takes on average over a turn.
fn turn(work: impl Fn(), times: u32) -> Duration {
    let begin = Instant::now();
    (0..times).for_each(|_| work());
    begin.elapsed() / times
}

/// A body as the provider sends it, with more of what is in such bodies until it has so many bytes.
fn grown(sample: &[u8], bytes: usize) -> Vec<u8> {
    let mut items = Vec::new();
    loop {
        let number = items.len();
        items
            .push(json!({ "sku": format!("item-{number}"), "quantity": number, "note": "nothing that anybody reads" }));
        let body = match serde_json::from_slice(sample) {
            Ok(Value::Array(own)) => json!([own, items.clone()].concat()).to_string(),
            Ok(Value::Object(own)) => {
                let mut own = own;
                own.insert("zz_items".to_owned(), json!(items));
                Value::Object(own).to_string()
            }
            _ => {
                let fields = (0..=number).map(|n| format!("&Zz{n}={}", "nothing%20that+anybody%20reads".repeat(4)));
                String::from_utf8_lossy(sample).into_owned() + &fields.collect::<String>()
            }
        };
        if body.len() >= bytes {
            return body.into_bytes();
        }
    }
}
