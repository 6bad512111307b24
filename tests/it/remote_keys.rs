//! Public keys that a provider publishes: fetched, kept, and never led to by a request.

use hookward::{
    preset,
    time::Wall,
    verify::{
        SignRequest, SigningKey,
        public::{KeyKind, PrivateKey, PublicFormat},
    },
};
use serde_json::json;

use crate::world::{Act, NOW_S, Reply, Upstream, World};

const BODY: &[u8] = br#"{"id":"787053080478613556","type":2}"#;

pub(crate) fn key() -> PrivateKey {
    PrivateKey::generate(KeyKind::Ed25519, &mut rand::rng())
}

/// A key set with these keys, as a server answers it.
pub(crate) fn set(keys: &[&PrivateKey]) -> Act {
    let jwk = |key: &&PrivateKey| {
        let text = key.public().text(PublicFormat::Jwk).expect("every key has one");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let document = json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() });
    Act::Json(200, Box::leak(document.to_string().into_boxed_str()))
}

pub(crate) async fn sent(world: &World, key: &PrivateKey) -> Reply {
    let provider = preset::find("discord").expect("it ships");
    let request = SignRequest::new(SigningKey::Private(key), BODY, Wall::from_unix_s(NOW_S));
    let signature = provider.scheme.sign(&request).expect("signed");
    let headers: Vec<_> = signature.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    world.post("/hooks/discord", &headers, BODY).await
}

pub(crate) fn source(url: &str, more: &str) -> String {
    format!("[sources.discord]\nprovider = \"discord\"\nremote_keys = {{ url = \"{url}\" }}\n{more}upstream = \"up\"\n")
}

#[tokio::test]
async fn what_is_signed_with_a_published_key_is_accepted_and_with_another_one_refused() {
    let (published, other, keys) = (key(), key(), Upstream::start().await);
    keys.script([set(&[&published])]);
    let world = World::start(&source(&keys.url(), "")).await;
    world.until_metric("hookward_remote_keys{source=\"discord\"}", 1).await;
    assert_eq!(sent(&world, &published).await.ack().0, "accepted");
    assert_eq!(sent(&world, &other).await.status, 401);
    assert_eq!(keys.received().len(), 1, "no request leads to a fetch at once");
}

#[tokio::test]
async fn without_keys_everything_is_tried_again_later_and_a_pinned_key_counts_all_the_same() {
    let (pinned, keys) = (key(), Upstream::start().await);
    keys.script([Act::Answer(500, "down")]);
    let world = World::start(&source(&keys.url(), "")).await;
    world.until_metric("hookward_remote_keys_failures_total{source=\"discord\"}", 1).await;
    assert_eq!(sent(&world, &pinned).await.status, 503);

    keys.script([Act::Answer(500, "down")]);
    let text = pinned.public().text(PublicFormat::Ed25519Hex).expect("it is one");
    let world = World::start(&source(&keys.url(), &format!("secrets = [{{ value = \"{text}\" }}]\n"))).await;
    world.until_metric("hookward_remote_keys_failures_total{source=\"discord\"}", 1).await;
    assert_eq!(sent(&world, &pinned).await.ack().0, "accepted");
}
