//! Grammars of signature headers.
//!
//! Input, of a grammar: `KIND_SEPARATOR_trim_GROUPS` on a line, then the signature header, an id, a time and a nonce on
//! a line each, and the body; `SIG` in the header stands for the genuine signature. Or of a preset: its name and a query on
//! a line, headers, an empty line, and the body.

use base64ct::{Base64, Encoding as _};
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::{
    given::{KEY, OTHER_KEY, URL, cut, headers, ring, seen, text},
    preset,
    secret::Secret,
    time::Wall,
    verify::{
        Algorithm, CANDIDATES_MAX, Claim, Explanation, Grammar, KeyKind, Place, Scheme, SignaturePlace, SignedSpec,
        TimeUnit, Tolerance, encode_hex, mac_once,
    },
};

const NOW: Wall = Wall::from_unix_s(1_700_000_000);

pub fn run(data: &[u8]) {
    let (line, rest) = cut(data, b'\n');
    let words: Vec<&str> = text(line).split('_').collect();
    match preset::find(text(line).split(' ').next().unwrap_or_default()) {
        Some(provider) => of_preset(&provider, text(line).split_once(' ').map_or("", |(_, query)| query), rest),
        None => of_grammar(&words, rest),
    }
}

fn of_preset(provider: &preset::Provider, query: &str, rest: &[u8]) {
    let mut pairs: Vec<(&str, &[u8])> = Vec::new();
    let mut rest = rest;
    loop {
        let (line, behind) = cut(rest, b'\n');
        rest = behind;
        let (name, value) = cut(line, b':');
        if name.is_empty() || pairs.len() > 40 {
            break;
        }
        pairs.push((text(name), value.trim_ascii_start()));
    }
    let params = provider.params.keys().map(|name| (name.clone(), "value".to_owned())).collect();
    let scheme = provider.scheme.with_params(&params);
    if scheme.key_kind() != Some(KeyKind::Shared) {
        return;
    }
    let url = if query.is_empty() { URL.to_owned() } else { format!("{URL}?{query}") };
    let judge = |headers: &HeaderMap| {
        let ring = ring(&scheme, OTHER_KEY).expect("a shared secret");
        scheme.explain(seen(headers, &url), &ring, rest, NOW, provider.tolerance, usize::MAX)
    };
    let mut map = headers(pairs);
    let first = judge(&map);
    assert!(first.proof.is_err(), "nobody signed with this secret");
    assert!(first.places.len() <= CANDIDATES_MAX);
    if !map.contains_key("x-unrelated") {
        map.append("x-unrelated", "t=1,v1=00".parse().expect("a value"));
        assert_same(&first, &judge(&map));
    }
}

fn assert_same(one: &Explanation, other: &Explanation) {
    assert_eq!(one.claim.as_ref().err(), other.claim.as_ref().err());
    assert_eq!(one.proof.as_ref().err(), other.proof.as_ref().err());
    assert_eq!(one.places, other.places);
    assert_eq!(one.tried, other.tried);
    assert_eq!((one.timestamp, one.freshness), (other.timestamp, other.freshness));
    assert_eq!(one.signed_content, other.signed_content);
}

/// A grammar, and where its time and nonce stand.
struct Own {
    grammar: Grammar,
    separator: char,
    trim: bool,
    groups: Option<char>,
}

/// What the header says, read as simply as the rules allow.
#[derive(Default)]
struct Read {
    candidates: Vec<String>,
    time: Option<String>,
    nonce: Option<String>,
}

impl Own {
    fn of(words: &[&str]) -> Self {
        let char_at = |at: usize| words.get(at).and_then(|word| word.chars().next());
        let separator = char_at(1).unwrap_or(',');
        let trim = words.get(2) == Some(&"trim");
        let groups = char_at(3);
        let kind = *words.first().unwrap_or(&"");
        let grammar = match kind {
            "fields" => Grammar::Fields { separator, signature: "v1".into(), trim, groups },
            "list" => Grammar::List { separator, prefix: "v1:".into(), trim },
            "positional" => Grammar::Positional { separator },
            "keyed" => Grammar::Keyed { separator, assign: '|', param: "public".into() },
            "base64-json" => Grammar::Base64Json { pointer: "/sig".into() },
            _ => Grammar::Plain { prefix: "sha256=".into() },
        };
        Self { grammar, separator, trim, groups }
    }

    fn scheme(&self) -> Option<Scheme> {
        let header = |name| Place::Header(HeaderName::from_static(name));
        let (time, nonce) = match self.grammar {
            Grammar::Fields { .. } => (Place::Field("t".into()), Place::Field("n".into())),
            Grammar::Positional { .. } => (Place::Position(0), Place::Position(1)),
            _ => (header("x-time"), header("x-nonce")),
        };
        let spec = SignedSpec {
            place: SignaturePlace::Headers(vec![HeaderName::from_static("x-sig")]),
            grammar: self.grammar.clone(),
            timestamp: Some((time, TimeUnit::Seconds)),
            id: Some(header("x-id")),
            nonce: Some(nonce),
            ..SignedSpec::new("{timestamp}.{nonce}\n{id}\n{body}")
        };
        Scheme::signed(spec).ok()
    }

    fn read(&self, header: &str) -> Read {
        let mut read = Read::default();
        let items = |text: &str| -> Vec<String> {
            let trimmed = |(i, item): (usize, &str)| {
                let spaces = |c: char| c.is_ascii_whitespace() && c != '\u{b}';
                if self.trim && i > 0 { item.trim_start_matches(spaces).to_owned() } else { item.to_owned() }
            };
            text.split(self.separator).enumerate().map(trimmed).collect()
        };
        let behind = |item: &str, prefix: &str| item.strip_prefix(prefix).map(str::to_owned);
        match &self.grammar {
            Grammar::Plain { prefix } => read.candidates.extend(behind(header, prefix)),
            Grammar::List { prefix, .. } => {
                read.candidates.extend(items(header).iter().filter_map(|item| behind(item, prefix)));
            }
            Grammar::Keyed { .. } => {
                read.candidates.extend(items(header).iter().filter_map(|item| behind(item, "public|")));
            }
            Grammar::Positional { .. } => {
                let mut items = items(header).into_iter();
                (read.time, read.nonce) = (items.next(), items.next());
                read.candidates.extend(items);
            }
            Grammar::Fields { .. } => {
                let whole = [header];
                let groups: Vec<&str> = match self.groups {
                    Some(outer) => header.split(outer).filter(|group| !group.is_empty()).collect(),
                    None => whole.to_vec(),
                };
                for item in groups.into_iter().flat_map(items) {
                    match item.split_once('=') {
                        Some(("v1", value)) => read.candidates.push(value.to_owned()),
                        Some(("t", value)) => read.time = Some(value.to_owned()),
                        Some(("n", value)) => read.nonce = Some(value.to_owned()),
                        _ => {}
                    }
                }
            }
            Grammar::Base64Json { .. } => {
                let document = Base64::decode_vec(header).unwrap_or_default();
                let document: Value = serde_json::from_slice(&document).unwrap_or_default();
                read.candidates.extend(document["sig"].as_str().map(str::to_owned));
            }
            Grammar::Jwt { .. } => {}
        }
        let is_hex = |text: &String| text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
        read.candidates.retain(is_hex);
        read
    }

    /// The header as this grammar would have it.
    fn render(&self, read: &Read) -> String {
        let join = |items: Vec<String>| items.join(&self.separator.to_string());
        let each = |prefix: &str| read.candidates.iter().map(|text| format!("{prefix}{text}")).collect::<Vec<_>>();
        let own = |prefix: [&str; 2]| {
            let [time, nonce] = [&read.time, &read.nonce].map(|value| value.as_deref().unwrap_or_default());
            [format!("{}{time}", prefix[0]), format!("{}{nonce}", prefix[1])].into_iter()
        };
        match &self.grammar {
            Grammar::Plain { prefix } => each(prefix).pop().unwrap_or_default(),
            Grammar::List { prefix, .. } => join(each(prefix)),
            Grammar::Keyed { .. } => join(each("public|")),
            Grammar::Positional { .. } => join(own(["", ""]).chain(each("")).collect()),
            Grammar::Fields { .. } => join(own(["t=", "n="]).chain(each("v1=")).collect()),
            Grammar::Base64Json { .. } => {
                let document = serde_json::json!({ "sig": read.candidates.first() });
                Base64::encode_string(document.to_string().as_bytes())
            }
            Grammar::Jwt { .. } => String::new(),
        }
    }
}

fn of_grammar(words: &[&str], rest: &[u8]) {
    let own = Own::of(words);
    let Some(scheme) = own.scheme() else { return };
    let (header, rest) = cut(rest, b'\n');
    let (id, rest) = cut(rest, b'\n');
    let (time, rest) = cut(rest, b'\n');
    let (nonce, body) = cut(rest, b'\n');
    let request = |header: &[u8]| {
        let base64 = matches!(own.grammar, Grammar::Base64Json { .. }) && header.starts_with(b"{");
        let header = if base64 { Base64::encode_string(header).into_bytes() } else { header.to_vec() };
        headers([("x-sig", header.as_slice()), ("x-id", id), ("x-time", time), ("x-nonce", nonce)])
    };
    let judge = |headers: &HeaderMap, key: &[u8]| {
        let ring = ring(&scheme, key).expect("a shared secret");
        let minutes = std::time::Duration::from_mins(5);
        let tolerance = Tolerance { past: minutes, future: minutes };
        scheme.explain(seen(headers, URL), &ring, body, NOW, Some(tolerance), usize::MAX)
    };

    let unsigned = request(&put(header, &"0".repeat(64)));
    let explanation = judge(&unsigned, OTHER_KEY);
    assert!(explanation.proof.is_err(), "nobody signed with this secret");
    assert!(explanation.places.len() <= CANDIDATES_MAX);
    let Ok(claim) = scheme.claim(seen(&unsigned, URL)) else { return };

    let mac = |claim: &Claim| {
        let content = scheme.short_content(claim, body, usize::MAX).expect("all of it is in the head");
        encode_hex(&mac_once(&Secret::new(KEY), Algorithm::HmacSha256, std::iter::once(content.as_slice())))
    };
    let signed = request(&put(header, &mac(&claim)));
    // A nonce may have become another with it.
    let Ok(claim) = scheme.claim(seen(&signed, URL)) else { return };
    let mac = mac(&claim);
    let explanation = judge(&signed, KEY);
    let on_the_wire = signed.get("x-sig").expect("it was read").as_bytes();
    // A byte that is no text stands in nothing that is used, or it would not be a claim.
    let read = own.read(&String::from_utf8_lossy(on_the_wire));
    assert_eq!(explanation.places.len(), read.candidates.len(), "{:?}", read.candidates);
    assert_eq!(explanation.proof.is_ok(), read.candidates.contains(&mac), "of {:?}", explanation.proof);
    let again = request(own.render(&read).as_bytes());
    assert_same(&explanation, &judge(&again, KEY));
}

/// The header with this signature in the place of `SIG`.
fn put(header: &[u8], signature: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = header;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(b"SIG") {
            out.extend_from_slice(signature.as_bytes());
            rest = behind;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    out
}
