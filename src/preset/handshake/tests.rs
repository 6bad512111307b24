use std::{collections::BTreeMap, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::{
    document::{self, Problems},
    preset::{Provider, read},
    verify::encode_hex,
};

fn provider(text: &str) -> Provider {
    let problems = Problems::default();
    let provider = read(document::parse(&problems, "a.toml", text), "acme");
    provider.unwrap_or_else(|| panic!("{}", problems.render(false)))
}

/// One handshake, written as the keys of its table.
fn handshake(keys: &str) -> Handshake {
    let declared = "params = { token = \"what both sides know\", key = \"what is shown\" }\n";
    provider(&format!("{declared}[[handshakes]]\n{keys}\n")).handshakes.remove(0)
}

/// What is said about a handshake that is wrong.
fn problems(keys: &str) -> String {
    let problems = Problems::default();
    let text = format!("[[handshakes]]\n{keys}\n");
    assert!(read(document::parse(&problems, "a.toml", &text), "acme").is_none(), "{keys}");
    let shown = problems.render(false);
    assert!(problems.errors() > 0 && shown.contains("help"), "{keys}\n{shown}");
    shown
}

/// A request: method, headers, query, body.
type Request<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

const KEY: &str = "the-first-live-secret";

fn ask_with(handshake: &Handshake, request: Request<'_>, params: &BTreeMap<&str, &str>) -> Option<Met> {
    let (method, lines, query, body) = request;
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    let method = method.parse().expect("a method");
    let query = (!query.is_empty()).then_some(query);
    let key = Secret::new(KEY);
    let params = |name: &str| params.get(name).copied();
    let known = Known { params: &params, url: Some("https://acme.example/hooks/a"), key: Some(&key) };
    handshake.meet(Asked { method: &method, headers: &headers, query, body: body.as_bytes() }, known)
}

fn ask(handshake: &Handshake, request: Request<'_>) -> Option<String> {
    let params = BTreeMap::from([("token", "t0ken <of> both"), ("key", "public_key")]);
    ask_with(handshake, request, &params).map(|met| met.reply.body)
}

#[test]
fn every_kind_of_place_is_looked_at_and_what_stands_there_twice_is_not_there() {
    let cases: [(&str, Request<'_>, Request<'_>); 4] = [
        (
            "when = [{ header = \"x-kind\", equals = \"hello\" }]\ntoken = { header = \"x-token\" }",
            ("POST", &[("x-kind", "hello"), ("x-token", "abc")], "", ""),
            ("POST", &[("x-kind", "hello"), ("x-token", "abc"), ("X-Token", "abc")], "", ""),
        ),
        (
            "method = \"GET\"\nsigned = false\nwhen = [{ query = \"hub.mode\", starts = \"sub\" }]\n\
             token = { query = \"hub.challenge\" }",
            ("GET", &[], "hub.mode=subscribe&hub%2Echallenge=a%62c", ""),
            ("GET", &[], "hub.mode=subscribe&hub.challenge=abc&hub%2Echallenge=abc", ""),
        ),
        (
            "when = [{ json = \"/0/data\" }]\ntoken = { json = \"/0/data/code\" }",
            ("POST", &[], "", r#"[{"data":{"code":"abc"}}]"#),
            ("POST", &[], "", r#"[{"data":{"code":"abc","code":"abc"}}]"#),
        ),
        (
            "when = [{ form = \"kind\", equals = \"a b\" }]\ntoken = { form = \"token\" }",
            ("POST", &[], "", "kind=a+b&token=abc&x"),
            ("POST", &[], "", "kind=a+b&token=abc&token="),
        ),
    ];
    for (keys, fits, twice) in cases {
        let handshake = handshake(keys);
        assert_eq!(ask(&handshake, fits).as_deref(), Some("abc"), "{keys}");
        assert_eq!(ask(&handshake, twice), None, "{keys}");
        assert_eq!(ask(&handshake, ("PUT", fits.1, fits.2, fits.3)), None, "{keys}");
        assert_eq!(ask(&handshake, ("POST", &[], "", "")), None, "{keys}");
    }
}

#[test]
fn a_condition_holds_only_as_it_is_written() {
    let equals = handshake("when = [{ json = \"/type\", equals = \"1\" }]\nbody = \"ok\"");
    for (body, answer) in [
        (r#"{"type":1}"#, Some("ok")),
        (r#"{"type":"1"}"#, Some("ok")),
        (r#"{"type":11}"#, None),
        (r#"{"type":1.0}"#, None),
        (r#"{"type":true}"#, None),
        (r#"{"type":1"#, None),
    ] {
        assert_eq!(ask(&equals, ("POST", &[], "", body)).as_deref(), answer, "{body}");
    }
    let all = handshake("when = [{ header = \"a\", starts = \"x\" }, { query = \"b\" }]\nbody = \"ok\"");
    assert_eq!(ask(&all, ("POST", &[("a", "xy")], "b", "")).as_deref(), Some("ok"), "there, and empty");
    assert_eq!(ask(&all, ("POST", &[("a", "yx")], "b", "")), None);
    assert_eq!(ask(&all, ("POST", &[("a", "xy")], "c", "")), None);
    assert_eq!(ask(&all, ("POST", &[("a", "xy")], "b=%ff", "")), None, "no text");
}

#[test]
fn shapes_are_exact() {
    let fits = |shape: Shape, text: &str| shape.fits(text);
    let long = "a".repeat(TOKEN_BYTES_MAX);
    for shape in [Shape::Plain, Shape::Dotted, Shape::Words] {
        assert!(fits(shape, "aZ09_-") && fits(shape, &long), "{shape:?}");
        assert!(!fits(shape, "") && !fits(shape, &format!("{long}a")), "{shape:?}");
        for wrong in ["<b>", "a\"b", "a&b", "a'b", "a\\b", "a{b", "a\nb", "a\u{e9}b", "a|b", "a,b", "a;b", "a%b"] {
            assert!(!fits(shape, wrong), "{shape:?} {wrong}");
        }
    }
    assert!(!fits(Shape::Plain, "a.b") && fits(Shape::Dotted, "https://a.b:1/~c=d+e") && !fits(Shape::Dotted, "a b"));
    assert!(fits(Shape::Words, "Validation: Request-Id: 1a2b") && !fits(Shape::Words, "a  b"));
    assert!(!fits(Shape::Words, " a") && !fits(Shape::Words, "a ") && !fits(Shape::Words, " "));
    assert!(fits(Shape::Digits, "0123456789") && !fits(Shape::Digits, "1a") && !fits(Shape::Digits, "-1"));
    assert!(fits(Shape::Uuid, "01234567-89ab-cdef-ABCD-0123456789ab"));
    for wrong in [
        "01234567-89ab-cdef-abcd-0123456789a",
        "0123456789ab-cdef-abcd-0123-456789ab",
        "g1234567-89ab-cdef-abcd-0123456789ab",
    ] {
        assert!(!fits(Shape::Uuid, wrong), "{wrong}");
    }
    assert!(fits(Shape::Host, "eventgrid.azure.net") && fits(Shape::Host, "a-b"));
    for wrong in ["a..b", "-a.b", "a-.b", ".a", "a.", "a_b", "a:1", &"a".repeat(64), &"a.".repeat(127)] {
        assert!(!fits(Shape::Host, wrong), "{wrong}");
    }
}

#[test]
fn an_answer_is_what_the_template_says() {
    let request: Request<'_> = ("POST", &[("x-kind", "a"), ("x-token", "abc")], "", "");
    let with = |answer: &str| {
        let keys = format!("when = [{{ header = \"x-kind\" }}]\ntoken = {{ header = \"x-token\" }}\n{answer}");
        ask(&handshake(&keys), request).expect("it fits")
    };
    assert_eq!(with("body = '{\"a\":{\"challenge\":\"{token}\"}}'"), r#"{"a":{"challenge":"abc"}}"#);
    // As `printf abc | openssl dgst -sha256 -hmac the-first-live-secret` says, and so on.
    let (hex, base64) = (
        "430a6d72481d64bd802460b9104615e2ba6a7bb71aa69288e33ea8f7870aa025",
        "QwptckgdZL2AJGC5EEYV4rpqe7cappKI4z6o94cKoCU=",
    );
    assert_eq!(with("body = \"{hmac-sha256-hex}\""), hex);
    assert_eq!(with("body = \"sha256={hmac-sha256-base64}\""), format!("sha256={base64}"));
    let sha1 = "97cad073ff0f3b9912fbe3476ce83f900b20d071";
    assert_eq!(with("body = \"{param:key}|{hmac-sha1-hex}\""), format!("public_key|{sha1}"));
    let digest = Sha256::digest("abct0ken <of> bothhttps://acme.example/hooks/a");
    assert_eq!(with("body = \"{sha256-hex:{token}{param:token}{url}}\""), encode_hex(&digest));
    assert_eq!(with("status = 204"), "");
    assert_eq!(with("body = \"\""), "");
    assert_eq!(with(""), "abc");
}

#[test]
fn what_an_answer_would_break_on_is_not_answered() {
    let shown = handshake("when = [{ header = \"a\" }]\nbody = '{\"key\":\"{param:key}\"}'");
    let with = |value: &str| ask_with(&shown, ("POST", &[("a", "b")], "", ""), &BTreeMap::from([("key", value)]));
    assert!(with("public key").is_some());
    assert!(with("\"}<script>").is_none(), "a check of the configuration stands before this one");
    let nothing = BTreeMap::new();
    assert!(ask_with(&shown, ("POST", &[("a", "b")], "", ""), &nothing).is_none());
}

#[test]
fn a_token_that_both_sides_know_is_compared() {
    let keys = "method = \"GET\"\nsigned = false\nwhen = [{ query = \"mode\", equals = \"subscribe\" }]\n\
                token = { query = \"challenge\" }\nshape = \"digits\"\ncompare = { query = \"verify\", param = \"token\" }";
    let handshake = handshake(keys);
    let with = |verify: &str| ask(&handshake, ("GET", &[], &format!("mode=subscribe&challenge=17&{verify}"), ""));
    assert_eq!(with("verify=t0ken+%3Cof%3E+both").as_deref(), Some("17"));
    for wrong in ["verify=t0ken", "verify=", "", "verify=t0ken+%3Cof%3E+bothx", "verify=T0ken+%3Cof%3E+both"] {
        assert_eq!(with(wrong), None, "{wrong}");
    }
    let unknown = BTreeMap::new();
    assert!(ask_with(&handshake, ("GET", &[], "mode=subscribe&challenge=17&verify=", ""), &unknown).is_none());
}

#[test]
fn what_a_stranger_may_have_signed_is_known_again() {
    let keys = "signed = false\nmethod = \"GET\"\nwhen = []\ntoken = { query = \"t\" }\n";
    let signing = handshake(&format!("{keys}body = \"{{hmac-sha256-hex}}\""));
    for content in ["abc", "a-b_c", "0"] {
        assert!(signing.could_sign(content.as_bytes()), "{content}");
        assert!(ask(&signing, ("GET", &[], &format!("t={content}"), "")).is_some());
    }
    for content in ["", "{}", "a=b", "v0:1:{}", "a b", &"a".repeat(257)] {
        assert!(!signing.could_sign(content.as_bytes()), "{content}");
        assert!(ask(&signing, ("GET", &[], &format!("t={}", content.replace(' ', "+")), "")).is_none());
    }
    assert!(!signing.could_sign(&[0xff]));
    assert!(!handshake(&format!("{keys}body = \"{{token}}\"")).could_sign(b"abc"), "nothing is signed");
    let signed = "when = [{ json = \"/a\" }]\ntoken = { json = \"/a\" }\nbody = \"{hmac-sha256-hex}\"";
    assert!(!handshake(signed).could_sign(b"abc"), "strangers get no answer");
}

#[test]
fn a_handshake_that_is_wrong_is_explained_where_it_is_wrong() {
    let when = "when = [{ header = \"a\" }]\n";
    let open = "signed = false\nmethod = \"GET\"\nwhen = []\n";
    for (keys, says) in [
        ("", "needs `when`"),
        ("when = \"/type\"", "`when` is a list"),
        ("when = []", "every webhook would be this handshake"),
        ("when = [{ equals = \"a\" }]", "one place is needed"),
        ("when = [{ header = \"a\", query = \"b\" }]", "one place is needed"),
        ("when = [{ header = \"a b\" }]", "no name of a header"),
        ("when = [{ json = \"type\" }]", "no JSON pointer"),
        ("when = [{ query = \"\" }]", "the name is empty"),
        ("when = [{ header = \"a\", equals = \"\" }]", "empty text"),
        ("when = [{ header = \"a\", equals = \"b\", starts = \"b\" }]", "not both"),
        ("when = [{ claim = \"a\" }]", "unknown key `claim`"),
        ("method = \"get\"\nwhen = [{ query = \"a\" }]", "`method` cannot be \"get\""),
        ("method = \"GET\"\nwhen = [{ query = \"a\" }]", "no webhook comes with GET"),
        ("method = \"GET\"\nsigned = false\nwhen = [{ json = \"/a\" }]", "a GET has none"),
        ("method = \"HEAD\"\nsigned = false\nwhen = []\ntoken = { form = \"a\" }", "a HEAD has none"),
        ("shape = \"plain\"", "there is a shape and no token"),
        ("token = { header = \"b\" }\nshape = \"uid\"", "did you mean \"uuid\"?"),
        ("token = { field = \"b\" }", "unknown key `field`"),
        ("capture = true", "there is none"),
        ("status = 404", "404 is no success"),
        ("status = 204\nbody = \"a\"", "a 204 has no body"),
        ("content_type = \"json\"", "is no content type"),
        ("headers = { \"a b\" = \"c\" }", "no name of a header"),
        ("headers = { Content-Type = \"text/html\" }", "cannot set the header content-type"),
        ("headers = { set-cookie = \"a=b\" }", "cannot set the header set-cookie"),
        ("headers = { x-a = \"a\\nb\" }", "no line ends"),
        ("headers = { x-a = \"{token}\" }", "there is none"),
        ("body = \"{token}\"", "there is none"),
        ("body = \"{hmac-sha256-hex}\"", "there is none"),
        ("body = \"{sha256-hex:{token}}\"", "there is none"),
        ("body = \"{tokn}\"", "{tokn} is no part of an answer"),
        ("body = \"{url}\"", "{url} is no part of an answer"),
        ("body = \"{token\"", "has no end"),
        ("token = { header = \"b\" }\nbody = \"{sha256-hex:{hmac-sha1-hex}}\"", "is no part of a digest"),
        ("token = { header = \"b\" }\nbody = \"{sha256-hex:}\"", "is no part of an answer"),
        ("body = \"{param:nobody}\"", "there is no parameter `nobody`"),
        ("body = \"{sha256-hex:{param:nobody}}\"", "there is no parameter `nobody`"),
        ("compare = { header = \"b\" }", "`param` is missing"),
        ("compare = { header = \"b\", param = \"nobody\" }", "there is no parameter `nobody`"),
        ("compare = { param = \"nobody\" }", "one place is needed"),
        ("equals = \"a\"", "unknown key `equals`"),
    ] {
        let first = if keys.contains("when") || keys.is_empty() { "" } else { when };
        let shown = problems(&format!("{first}{keys}"));
        assert!(shown.contains(says), "{keys}: {says} is not in:\n{shown}");
    }
    for shape in ["dotted", "words", "host"] {
        let signing = format!("{open}token = {{ query = \"t\" }}\nshape = \"{shape}\"\nbody = \"{{hmac-sha256-hex}}\"");
        assert!(problems(&signing).contains("room for an event"), "{shape}");
        let _ = handshake(&signing.replace("{hmac-sha256-hex}", "{token}"));
    }
    let _ =
        handshake(&format!("{when}token = {{ header = \"t\" }}\nshape = \"dotted\"\nbody = \"{{hmac-sha256-hex}}\""));
}

#[test]
fn all_of_what_is_wrong_is_said_at_once() {
    let shown = problems(
        "method = \"get\"\nwhen = [{ json = \"x\" }, { equals = \"b\" }]\nstatus = 99\nbody = \"{x}\"\ncapture = true\n",
    );
    for place in ["a.toml:2:10", "a.toml:3:18", "a.toml:3:25", "a.toml:4:10", "a.toml:5:8", "a.toml:6:11"] {
        assert!(shown.contains(place), "{place} is not in:\n{shown}");
    }
}

#[test]
fn a_secret_that_is_handed_over_shows_nowhere() {
    let handshake = handshake(
        "signed = false\nwhen = [{ header = \"x-hook-secret\" }]\ntoken = { header = \"x-hook-secret\" }\n\
        capture = true\nheaders = { x-hook-secret = \"{token}\" }\nbody = \"\"",
    );
    let request: Request<'_> = ("POST", &[("x-hook-secret", "canary")], "", "");
    let met = ask_with(&handshake, request, &BTreeMap::new()).expect("it fits");
    assert_eq!(met.reply.headers[0].1, "canary");
    assert!(met.captured.as_ref().is_some_and(|secret| secret.matches(b"canary")));
    let shown = format!("{met:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

/// Handshakes of every kind of answer, each with what stands before and behind its hole, header or body.
fn holes() -> Vec<(Handshake, &'static str, &'static str)> {
    let spots = [("query", "t"), ("header", "x-t"), ("json", "/t"), ("form", "t")];
    let answers = [
        ("body = '{\"a\":\"{token}\"}'", "{\"a\":\"", "\"}"),
        ("body = 'x={hmac-sha256-base64};'", "x=", ";"),
        ("body = '<{hmac-sha1-hex}>'", "<", ">"),
        ("body = '\"{sha256-hex:{token}{url}}\"'", "\"", "\""),
        ("body = '({token}{param:key}{hmac-sha256-hex})'", "(", ")"),
    ];
    let mut all = Vec::new();
    for (kind, name) in spots {
        for (shape, _) in Shape::ALL {
            for (answer, before, behind) in answers {
                if answer.contains("hmac") && !matches!(shape, "plain" | "digits" | "uuid") {
                    continue;
                }
                let keys = format!(
                    "signed = false\nwhen = [{{ {kind} = \"{name}\" }}]\ntoken = {{ {kind} = \"{name}\" }}\n\
                     shape = \"{shape}\"\n{answer}"
                );
                all.push((handshake(&keys), before, behind));
            }
        }
    }
    all
}

static HOLES: LazyLock<Vec<(Handshake, &str, &str)>> = LazyLock::new(holes);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_asked_the_answer_is_literals_and_safe_characters(
        token in prop_oneof![
            "[a-zA-Z0-9_-]{1,40}",
            "[0-9]{1,30}",
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "[a-z0-9.:=~+/ -]{1,40}",
            "[a-c<>\"'&\\\\{}%; ]{0,12}",
            "\\PC{0,20}",
            any::<String>(),
        ],
        raw in any::<bool>(),
    ) {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let encoded = utf8_percent_encode(&token, NON_ALPHANUMERIC).to_string();
        let query = if raw { token.replace(['&', '#'], "") } else { encoded };
        let json = serde_json::json!({ "t": token }).to_string();
        let is_value = HeaderValue::from_str(&token).is_ok();
        let lines: &[(&str, &str)] = if is_value { &[("x-t", &token)] } else { &[] };
        let query = format!("t={query}");
        let mut answered = 0;
        for (handshake, before, behind) in &*HOLES {
            for body in [json.as_str(), query.as_str()] {
                let params = BTreeMap::from([("key", "public_key")]);
                let Some(met) = ask_with(handshake, ("POST", lines, &query, body), &params) else { continue };
                answered += 1;
                let inside = met.reply.body.strip_prefix(*before).and_then(|rest| rest.strip_suffix(*behind));
                let inside = inside.expect("the literals stand where they were written");
                prop_assert!(
                    inside.bytes().all(|byte| is_dotted(byte) || byte == b' ') && !inside.is_empty(),
                    "{:?}: {:?}", token, met.reply.body
                );
            }
        }
        // Else nothing was tried.
        if Shape::Plain.fits(&token) {
            prop_assert!(answered > 0);
        }
    }
}
