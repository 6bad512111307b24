use super::*;

fn plan_of(event_key: EventKey) -> KeyPlan {
    KeyPlan {
        bodiless: false,
        scope: "orders".into(),
        replay_scope: "shared".into(),
        event_key,
        tolerance: TOLERANCE,
        untimed_horizon: Duration::from_hours(168),
        event_horizon: Duration::from_hours(72),
    }
}

fn pointer(text: &str) -> EventKey {
    EventKey::Parts(vec![KeyPart::Json(text.to_owned())])
}

fn proof_of(scheme: &Scheme, body: &[u8]) -> Proof {
    verify(scheme, &signed(scheme, "secret-1", body), &ring(&[("main", "secret-1")]), body).expect("it is signed")
}

fn event(plan: &KeyPlan, body: &str) -> (Option<Key>, bool) {
    let keys = plan.keys(&Proof::for_test(body.as_bytes()), body.as_bytes(), NOW);
    (keys.event.map(|lived| lived.key), keys.fell_back)
}

#[test]
fn the_replay_key_is_the_same_whatever_secret_or_header_matched_and_whatever_is_unsigned() {
    let scheme = plain("{timestamp}.{body}");
    let plan = plan_of(EventKey::Body);
    let mut headers = signed(&scheme, "new-secret", BODY);
    let replay = |headers: &HeaderMap, keyring: &Keyring| {
        plan.keys(&verify(&scheme, headers, keyring, BODY).expect("authentic"), BODY, NOW).replay
    };
    let first = replay(&headers, &ring(&[("new", "new-secret")]));
    assert!(first.is_some());
    set(&mut headers, "x-sig-previous", &text(&signed(&scheme, "old-secret", BODY), "x-sig"));
    set(&mut headers, "x-delivery-id", "another");
    assert_eq!(replay(&headers, &ring(&[("old", "old-secret")])), first);
    headers.remove("x-sig");
    assert_eq!(replay(&headers, &ring(&[("old", "old-secret")])), first);
    // Another signed time is another content.
    set(&mut headers, "x-time", "1700000001");
    assert_eq!(
        verify(&scheme, &headers, &ring(&[("old", "old-secret")]), BODY).err(),
        Some(Refusal::SignatureMismatch)
    );
}

#[test]
fn keys_of_other_scopes_and_kinds_differ() {
    let proof = proof_of(&fields(false), BODY);
    let here = plan_of(pointer("/id"));
    let there = KeyPlan { scope: "other".into(), ..here.clone() };
    let apart = KeyPlan { replay_scope: "other".into(), ..here.clone() };
    let keys = |plan: &KeyPlan| plan.keys(&proof, BODY, NOW);
    assert_eq!(keys(&here).all().count(), 3, "replay, nonce and event");
    assert_eq!(keys(&here).replay, keys(&there).replay, "sources that share a secret share replay keys");
    assert_ne!(keys(&here).replay, keys(&apart).replay);
    assert_ne!(keys(&here).nonce, keys(&there).nonce);
    assert_ne!(keys(&here).event, keys(&there).event);
    let mut all: Vec<_> = keys(&here).all().map(|lived| lived.key).collect();
    all.dedup();
    assert_eq!(all.len(), 3);
}

#[test]
fn lives_follow_the_signed_time() {
    let scheme = fields(false);
    let plan = plan_of(EventKey::Body);
    let proof = proof_of(&scheme, BODY);
    let life = |now_s: i64| {
        let keys = plan.keys(&proof, BODY, Wall::from_unix_s(now_s));
        assert_eq!(keys.nonce.map(|lived| lived.lives), keys.replay.map(|lived| lived.lives));
        assert!(keys.timed);
        keys.replay.expect("it is signed").lives
    };
    let least = Duration::from_mins(2 * (5 + 1) + 60);
    assert_eq!(life(NOW_S), least);
    assert_eq!(life(NOW_S + 86_400), least, "held although stale");
    assert_eq!(life(NOW_S - 3600), Duration::from_mins(60 + 5 + 60), "held although ahead");
    assert!(life(i64::MIN) < Duration::from_hours(24 * 367 * 100), "no life overflows a store's time");
    let untimed = plan.keys(&proof_of(&plain("{body}"), BODY), BODY, NOW);
    assert_eq!(untimed.replay.map(|lived| lived.lives), Some(Duration::from_hours(168)));
    assert!(!untimed.timed);
    assert_eq!(untimed.event.map(|lived| lived.lives), Some(Duration::from_hours(72)));
}

#[test]
fn where_nothing_is_signed_there_is_no_replay_key() {
    let keys = plan_of(EventKey::Body).keys(&Proof::for_test(BODY), BODY, NOW);
    assert_eq!((keys.replay, keys.nonce), (None, None));
    assert!(keys.event.is_some() && !keys.fell_back);
    assert_eq!(plan_of(EventKey::None).keys(&Proof::for_test(b""), BODY, NOW).all().count(), 0);
}

#[test]
fn an_event_key_is_read_from_signed_parts() {
    let plan = plan_of(pointer("/id"));
    let same = event(&plan, r#"{"id":"evt_1","attempt":1}"#);
    assert_eq!(same, event(&plan, r#"{ "attempt":2, "id":"evt\u005f1"}"#));
    assert!(same.0.is_some() && !same.1);
    let mut differing = vec![same.0];
    for body in [r#"{"id":"evt_2"}"#, r#"{"id":"1"}"#, r#"{"id":1}"#, r#"{"id":true}"#, r#"{"id":"true"}"#] {
        let (key, fell_back) = event(&plan, body);
        assert!(!differing.contains(&key) && !fell_back, "{body}");
        differing.push(key);
    }
    // Where one part ends is part of the key.
    let two = plan_of(EventKey::Parts(vec![KeyPart::Json("/a".into()), KeyPart::Json("/b".into())]));
    assert_ne!(event(&two, r#"{"a":"x","b":"ysz"}"#).0, event(&two, r#"{"a":"xsy","b":"z"}"#).0);
}

#[test]
fn an_id_that_cannot_be_read_falls_back_to_the_body_and_never_collapses_events() {
    let plan = plan_of(pointer("/id"));
    let bodies = [
        r#"{"id":null}"#,
        r#"{"id":""}"#,
        "{}",
        "[]",
        "x",
        r#"{"id":1.0}"#,
        r#"{"id":1e0}"#,
        r#"{"id":"a","id":"b"}"#,
        r#"{"id":["a"]}"#,
        r#"{"id":"\udead"}"#,
    ];
    let mut seen = Vec::new();
    for body in bodies {
        let (key, fell_back) = event(&plan, body);
        assert!(fell_back && key.is_some() && !seen.contains(&key), "{body}");
        assert_eq!(key, event(&plan_of(EventKey::Body), body).0, "{body}");
        seen.push(key);
    }
    assert!(event(&plan, &"[".repeat(1 << 20)).1);
    assert!(event(&plan, "").0.is_some_and(|key| !seen.contains(&Some(key))));
    // Where webhooks have no body by their nature, that of none would collapse all of them.
    let bodiless = |event_key| KeyPlan { bodiless: true, ..plan_of(event_key) };
    assert_eq!(event(&bodiless(pointer("/id")), ""), (None, true));
    assert_eq!(event(&bodiless(EventKey::Body), ""), (None, false));
}

#[test]
fn a_token_that_never_ends_is_known_as_long_as_what_has_no_time() {
    let jwt = |exp| JwtSpec { algorithms: vec![Algorithm::HmacSha256], nbf: true, exp, ..JwtSpec::default() };
    let scheme = |exp| {
        Scheme::signed(SignedSpec {
            uncovered: Some("it is a test".into()),
            ..spec(Grammar::Jwt { prefix: String::new(), jwt: jwt(exp) }, "")
        })
        .expect("it fits")
    };
    let keys = |exp| plan_of(EventKey::None).keys(&proof_of(&scheme(exp), BODY), BODY, NOW);
    let life = |exp| keys(exp).replay.expect("it is signed").lives;
    assert_eq!((life(false), keys(false).timed), (Duration::from_hours(168), false));
    assert!(life(true) < Duration::from_hours(3) && keys(true).timed);
}

#[test]
fn where_two_events_may_be_signed_alike_nothing_is_remembered() {
    let plan = KeyPlan { untimed_horizon: Duration::ZERO, ..plan_of(EventKey::None) };
    assert_eq!(plan.keys(&proof_of(&plain("{body}"), BODY), BODY, NOW).all().count(), 0);
    // A signed time tells them apart.
    assert_eq!(plan.keys(&proof_of(&plain("{timestamp}.{body}"), BODY), BODY, NOW).all().count(), 1);
}

#[test]
fn a_header_is_part_of_a_key_only_if_it_is_signed() {
    let scheme = list();
    let by_header = |text| plan_of(EventKey::Parts(vec![KeyPart::Header(name(text))]));
    let proof = proof_of(&scheme, BODY);
    let signed = by_header("x-id").keys(&proof, BODY, NOW);
    assert!(!signed.fell_back);
    assert_eq!(signed.event, by_header("x-id").keys(&proof, b"another body", NOW).event);
    assert!(by_header("x-delivery-id").keys(&proof, BODY, NOW).fell_back);
}

#[test]
fn items_have_keys_of_their_own() {
    let plan = plan_of(EventKey::Body);
    let key = ["/n".to_owned()];
    let read = |body: &str| plan.items(body.as_bytes(), "/d", &key);
    let whole = read(r#"{"d":[{"n":"a","q":1},{"n":"b"},{"x":1}]}"#);
    let part = read(r#"{"d":[{"n":"a","q":2}],"other":1}"#);
    let (first, again) = (whole[0].expect("it has a key"), part[0].expect("it has a key"));
    assert_eq!(first.0, again.0, "the same item");
    assert_ne!(first.1, again.1, "with other content");
    assert_ne!(first.0, whole[1].expect("it has a key").0);
    assert_eq!(whole[2], None);
}

#[test]
fn the_providers_own_id_leads_to_the_event_key_whatever_its_type_in_the_body() {
    let plan = plan_of(pointer("/id"));
    for (body, id) in [(r#"{"id":"evt_1"}"#, "evt_1"), (r#"{"id":42}"#, "42"), (r#"{"id":"42"}"#, "42")] {
        let key = event(&plan, body).0.expect("a key");
        assert!(plan.event_keys_of_id(id).expect("one part").contains(&key), "{body}");
        assert!(!plan.event_keys_of_id("other").expect("one part").contains(&key));
    }
    let two = EventKey::Parts(vec![KeyPart::Json("/a".to_owned()), KeyPart::Json("/b".to_owned())]);
    for none in [EventKey::Body, EventKey::None, two] {
        assert_eq!(plan_of(none).event_keys_of_id("42"), None);
    }
}
