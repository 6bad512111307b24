//! Registration handshakes against a running gateway: what each kind of provider asks, and what a stranger gets.

mod captured;
mod kinds;
mod oracle;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::world::{Reply, World, request};

const SECRET: &str = "a-secret-of-some-length";
/// What every refusal of authenticity says.
const UNAUTHORIZED: &str =
    r#"{"type":"about:blank","title":"Unauthorized","status":401,"detail":"the webhook could not be authenticated"}"#;
const PATH: &str = "/hooks/own";
/// A signature over the body alone.
const SIGNATURE: &str = "[providers.own.signature]\nheaders = [\"x-sig\"]\ncontent = \"{body}\"\n";

/// A source `own` of a provider that is made of these keys, tables and all, with more keys of its own.
fn configuration(provider: &str, source: &str) -> String {
    let secrets = if source.contains("secrets") { "" } else { "secrets = [{ value = \"a-secret-of-some-length\" }]\n" };
    format!("[providers.own]\n{provider}\n[sources.own]\nprovider = \"own\"\nupstream = \"up\"\n{secrets}{source}\n")
}

/// A gateway whose provider signs its bodies and has this one handshake.
async fn with_handshake(handshake: &str) -> World {
    World::start(&configuration(&format!("[[providers.own.handshakes]]\n{handshake}\n{SIGNATURE}"), "")).await
}

/// As [`with_handshake`], where the provider declares `param` and the source says what it is.
async fn with_param(param: &str, value: &str, handshake: &str) -> World {
    let provider =
        format!("params = {{ {param} = \"of a test\" }}\n[[providers.own.handshakes]]\n{handshake}\n{SIGNATURE}");
    World::start(&configuration(&provider, &format!("params = {{ {param} = \"{value}\" }}"))).await
}

/// A request to the source, with this behind its path.
async fn ask(world: &World, method: &str, behind: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    request(world.gateway.public, method, &format!("{PATH}{behind}"), headers, body.as_bytes()).await
}

/// How many handshakes of the source were answered, of any kind.
async fn answered(world: &World) -> u64 {
    world.metric("hookward_handshakes_total{source=\"own\"").await
}

/// The one handshake was answered, with this status and body, and nothing of it is left.
async fn is_answered(world: &World, reply: &Reply, status: u16, body: &str) {
    assert_eq!((reply.status, reply.text().as_str()), (status, body));
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(world.metric("hookward_handshakes_total{source=\"own\",handshake=\"0\"}").await, answered(world).await);
    assert!(answered(world).await > 0 && code(world, "challenge").await > 0);
    no_trace(world).await;
}

/// It was refused like anything else that proves nothing.
async fn is_refused(world: &World, reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (401, UNAUTHORIZED));
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    no_trace(world).await;
}

/// How often a webhook of the source ended with this code.
async fn code(world: &World, code: &str) -> u64 {
    world.metric(&format!("hookward_webhooks_total{{source=\"own\",code=\"{code}\"}}")).await
}

/// Nothing was stored and nothing was forwarded.
async fn no_trace(world: &World) {
    let status = world.admin("GET", "/api/v1/status").await;
    assert_eq!((&status["health"]["counts"]["events"], &status["health"]["counts"]["keys"]), (&0.into(), &0.into()));
    assert!(world.upstream.received().is_empty());
}

fn mac(content: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(content);
    mac.finalize().into_bytes().into()
}

fn hex_mac(content: &str) -> String {
    hookward::verify::encode_hex(&mac(content.as_bytes()))
}

fn base64_mac(content: &str) -> String {
    Base64::encode_string(&mac(content.as_bytes()))
}
