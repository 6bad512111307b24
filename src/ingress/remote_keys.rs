//! Public keys that a provider publishes: fetched in the background, never because of what a request says, and the last
//! good ones are kept whatever happens.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Gate, routes::Route};
use crate::{
    config::RemoteKeys,
    event::Name,
    http::client::{Client, Sent},
    secret::Secret,
    time::Clock,
    verify::{
        KeyKind, Keyring, Scheme, SecretKey,
        public::{PublicFormat, PublicKey},
    },
};

/// Keys of a set that are used; more would let one forged request cost too much.
const KEYS_MAX: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two fetches, however many signatures do not match.
const PAUSE: Duration = Duration::from_mins(1);

/// The keys of a source that come from elsewhere. A reload keeps them, unless they are to come from another place.
#[derive(Debug, Default)]
pub(super) struct Remote {
    /// A signature did not match: there may be a new key.
    pub(super) mismatched: Notify,
    /// The last good ones.
    fetched: Mutex<Vec<SecretKey>>,
    /// Somebody fetches them.
    kept: AtomicBool,
    /// They are not wanted any more.
    ending: CancellationToken,
}

impl Remote {
    /// Whether nobody fetches them yet; the caller does from now on.
    pub(super) fn begin(&self) -> bool {
        !self.kept.swap(true, Relaxed)
    }

    /// Nobody wants them any more.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }
}

/// Fetches the keys of a source until it is told to end, or until they are to come from another place. The first fetch
/// begins at once.
pub(super) async fn keep(gate: Arc<Gate>, name: Name, remote: Arc<Remote>, ending: CancellationToken) {
    loop {
        // As it is configured now: a reload changes the route, and keeps these keys.
        let route = gate.snapshot.load().of_source(&name).cloned();
        let Some(route) = route.filter(|route| Arc::ptr_eq(&route.remote, &remote)) else { return };
        let Some(wanted) = &route.source.remote_keys else { return };
        let fetched = tokio::select! {
            fetched = fetch(wanted, &route.source.scheme, &gate.clock) => fetched,
            () = ending.cancelled() => return,
            () = remote.ending.cancelled() => return,
        };
        let wait = match fetched {
            Ok(keys) => {
                let count = keys.len();
                if renew(&gate, &name, &remote, keys) {
                    tracing::info!(source = &*name, keys = count, "keys of the provider fetched: they changed");
                }
                gate.metrics.remote_keys(&name, count);
                wanted.refresh
            }
            Err(why) => {
                let kept = route.keyring().keys().len();
                gate.metrics.remote_keys_failed(&name);
                tracing::warn!(source = &*name, %why, kept, "failed to fetch keys of the provider: the last ones are kept");
                PAUSE.min(wanted.refresh)
            }
        };
        drop(route);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = async {
                remote.mismatched.notified().await;
                tokio::time::sleep(PAUSE.min(wait)).await;
            } => {}
            () = ending.cancelled() => return,
            () = remote.ending.cancelled() => return,
        }
    }
}

/// Takes fetched keys instead of those that were fetched before. Whether something changed.
fn renew(gate: &Gate, name: &str, remote: &Remote, fetched: Vec<SecretKey>) -> bool {
    let texts = |keys: &[SecretKey]| keys.iter().map(|key| key.key.expose().to_vec()).collect::<Vec<_>>();
    {
        let mut last = remote.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if texts(&last) == texts(&fetched) {
            return false;
        }
        *last = fetched;
    }
    // A reload takes them after it has swapped the snapshot, so that one of the two finds the other's.
    if let Some(route) = gate.snapshot.load().of_source(name) {
        route.take_fetched();
    }
    true
}

async fn fetch(wanted: &RemoteKeys, scheme: &Scheme, clock: &Clock) -> Result<Vec<SecretKey>, String> {
    // Anew each time: authorities change, and a pooled connection would be closed by then.
    let client = Client::new(&wanted.url, wanted.ca.as_deref(), clock.clone()).map_err(|error| error.to_string())?;
    match client.send(Method::GET, wanted.url.clone(), HeaderMap::new(), bytes::Bytes::new(), TIMEOUT).await {
        Sent::Answered(answer) if answer.status != 200 => Err(format!("it answered {}", answer.status.as_u16())),
        Sent::Answered(answer) if answer.truncated => Err("the answer is too long, or was cut".to_owned()),
        Sent::Answered(answer) => read(&answer.body, scheme),
        Sent::NotSent(trouble) | Sent::Unknown(trouble) => Err(trouble.to_string()),
    }
}

/// The keys of a set that fit the scheme. A set without one is no set: the last one stays.
fn read(body: &[u8], scheme: &Scheme) -> Result<Vec<SecretKey>, String> {
    let document: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let listed = document["keys"].as_array().ok_or("the answer is no JSON Web Key Set: it has no `keys`")?;
    let mut keys: Vec<SecretKey> = Vec::new();
    for listed in listed {
        if listed["use"].as_str().is_some_and(|usage| usage != "sig") {
            continue;
        }
        let Ok(public) = PublicKey::parse(PublicFormat::Jwk, listed.to_string().as_bytes()) else { continue };
        if scheme.key_kind() != Some(KeyKind::Public(public.kind())) {
            continue;
        }
        let Some(text) = public.text(PublicFormat::SpkiBase64) else { continue };
        let named = |id: &&str| {
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let id =
            listed["kid"].as_str().filter(named).map_or_else(|| format!("remote-{}", keys.len() + 1), str::to_owned);
        keys.push(SecretKey { id: id.into(), key: Secret::new(text), not_before: None, expires_at: None });
    }
    if keys.is_empty() {
        return Err("none of its keys is for the signatures of this provider".to_owned());
    }
    if keys.len() > KEYS_MAX {
        return Err(format!("it has {} keys for this provider, and at most {KEYS_MAX} are used", keys.len()));
    }
    Ok(keys)
}

impl Route {
    /// The secrets that count now: those of the configuration, and those that were fetched.
    pub(super) fn keyring(&self) -> Keyring {
        Keyring::clone(&self.keys.load())
    }

    /// Takes the keys that were fetched last, beside those of the configuration.
    pub(super) fn take_fetched(&self) {
        if self.source.remote_keys.is_none() {
            return;
        }
        let fetched = self.remote.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.source.keyring.keys().iter().chain(&*fetched).cloned().collect();
        // Every key was held against the scheme when it was read.
        if let Ok(ring) = Keyring::new(all, &self.source.scheme) {
            self.keys.store(Arc::new(ring));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        preset,
        verify::public::{KeyKind as Kind, PrivateKey},
    };

    #[test]
    fn a_set_gives_the_keys_that_fit_and_nothing_else() {
        let provider = preset::find("discord").expect("it ships");
        let text = |body: &str| {
            read(body.as_bytes(), &provider.scheme)
                .map(|keys| keys.iter().map(|key| key.id.to_string()).collect::<Vec<_>>())
        };
        // The public key of RFC 8037, appendix A.2.
        let key = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let set = |keys: &str| format!("{{\"keys\":[{keys}]}}");
        assert_eq!(
            text(&set(&format!("{{{key},\"kid\":\"a-1\"}},{{\"kty\":\"oct\",\"k\":\"AA\"}},7"))),
            Ok(vec!["a-1".into()])
        );
        assert_eq!(text(&set(&format!("{{{key},\"kid\":\"a b\"}}"))), Ok(vec!["remote-1".into()]));
        // A good key of another kind, as of a provider that signs in two ways.
        let other = PrivateKey::generate(Kind::P256, &mut rand::rng()).public();
        let other = other.text(PublicFormat::Jwk).expect("every key has it");
        assert_eq!(text(&set(&format!("{other},{{{key},\"kid\":\"a-1\"}}"))), Ok(vec!["a-1".into()]));
        for (wrong, says) in [
            (set(""), "none of its keys"),
            (set(&format!("{{{key},\"use\":\"enc\"}}")), "none of its keys"),
            (set(r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#), "none of its keys"),
            (set(&vec![format!("{{{key}}}"); 9].join(",")), "at most 8"),
            ("[]".to_owned(), "no `keys`"),
            ("<html>".to_owned(), "not JSON"),
        ] {
            assert!(text(&wrong).is_err_and(|why| why.contains(says)), "{wrong}");
        }
    }
}
