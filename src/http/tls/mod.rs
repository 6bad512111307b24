//! TLS towards providers: certificates by name, replaced while connections are open; certificates of clients; ACME.
//!
//! Everything that a new connection is offered is one [`ServerConfig`] behind an atomic swap. What replaces it is whole
//! and was checked before: a key belongs to its certificate, a certificate is valid. What fails that changes nothing.
//! Connections that are open stay, unless clients have to show something else from then on: whoever was let in before is
//! told to leave, as in a drain.
//!
//! TLS 1.3 and 1.2, no 0-RTT, one provider of cryptography. A client may resume a session for a while, from a small
//! memory of this process and never by a ticket that another could read; unless certificates of clients are asked for:
//! then every connection proves anew.

mod acme;
mod clients;
mod expiry;
mod resolver;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use rustls::{
    ServerConfig,
    pki_types::UnixTime,
    server::{NoServerSessionStorage, WantsServerCert},
    time_provider::TimeProvider,
};
use tokio_util::sync::CancellationToken;

use self::{
    clients::{Asking, Terms},
    expiry::Stage,
    resolver::{ACME_PROTOCOL, Challenges, Resolver},
};
use crate::{
    config::{
        certificate::{self, Certificate},
        model::{CertificateFiles, Tls},
    },
    files::{Stamps, stamps},
    http::listener::Offer,
    telemetry::Metrics,
    time::Clock,
};

pub use clients::Wanted;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why TLS cannot be set up. A lower-case fragment.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("failed to set up tls: {0}")]
pub struct TlsError(String);

/// What TLS connections are offered, now.
pub struct Front {
    serving: ArcSwap<Serving>,
    state: Mutex<State>,
    challenges: Arc<Challenges>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Front")
    }
}

/// What is offered, and on which terms.
#[derive(Debug)]
struct Serving {
    offer: Offer,
    terms: Terms,
}

#[derive(Debug)]
struct State {
    tls: Arc<Tls>,
    /// Whether a source judges certificates of clients.
    sources_judge: bool,
    pairs: Vec<Pair>,
    clients: Option<Clients>,
    /// The certificate that was asked for, once there is one.
    asked: Option<Kept>,
}

/// A pair of files, and what of it is served.
#[derive(Debug)]
struct Pair {
    files: CertificateFiles,
    seen: Changing,
    kept: Kept,
}

/// The authorities of clients.
#[derive(Debug)]
struct Clients {
    seen: Changing,
    asking: Arc<Asking>,
}

/// A certificate that is served, and what was said of its end.
#[derive(Clone, Debug)]
struct Kept {
    certificate: Arc<Certificate>,
    said: Stage,
}

impl Kept {
    fn new(certificate: Certificate) -> Self {
        Self { certificate: Arc::new(certificate), said: Stage::Fine }
    }
}

/// Files that were read, and whether they are others now.
#[derive(Debug)]
struct Changing {
    read: Stamps,
    /// What failed at the last look. Of two files one is written before the other, so that only what still fails at
    /// the next look is worth a word.
    failed: Option<Stamps>,
}

impl Changing {
    fn new(read: Stamps) -> Self {
        Self { read, failed: None }
    }
    /// What failed. Whether it is to be told: it failed before, and is not read again until it changes.
    fn fails(&mut self, now: Stamps) -> bool {
        if self.failed.as_ref() == Some(&now) {
            *self = Self::new(now);
            return true;
        }
        self.failed = Some(now);
        false
    }
}

impl Front {
    /// Reads everything. `sources_judge`: some source has `client_cert`, so that clients are asked for certificates.
    pub fn open(tls: &Arc<Tls>, sources_judge: bool, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let challenges = Arc::<Challenges>::default();
        let mut state = State::read(tls, sources_judge).map_err(TlsError)?;
        state.asked = tls.acme.as_ref().and_then(acme::kept).map(Kept::new);
        let (config, terms) = state.serve(&clock, &challenges).map_err(TlsError)?;
        let offer = Offer { config, outdated: CancellationToken::new() };
        let serving = ArcSwap::from_pointee(Serving { offer, terms });
        let front = Self { serving, state: Mutex::new(state), challenges, clock, metrics };
        front.tell(&mut front.lock());
        Ok(front)
    }

    /// For the next connection.
    pub fn offer(&self) -> Offer {
        self.serving.load().offer.clone()
    }

    /// What has to run until it is told to end: the look at the files, and the asking for certificates.
    pub fn tasks(self: &Arc<Self>, ending: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
        let (front, end) = (self.clone(), ending.clone());
        let looking = async move {
            let mut every = tokio::time::interval(LOOK_EVERY);
            every.tick().await; // at once: everything was just read
            loop {
                tokio::select! {
                    () = end.cancelled() => return,
                    _ = every.tick() => {}
                }
                let front = front.clone();
                let _ = tokio::task::spawn_blocking(move || front.look()).await;
            }
        };
        let mut tasks: Vec<BoxFuture<'static, ()>> = vec![Box::pin(looking)];
        let asks = self.lock().tls.acme.clone();
        if let Some(asks) = asks {
            let (front, end) = (self.clone(), ending.clone());
            tasks.push(Box::pin(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = acme::keep(front, asks) => {}
                }
            }));
        }
        tasks
    }

    /// Looks at the files, and takes what changed and is whole. Blocks on the disk.
    pub fn look(&self) {
        let mut state = self.lock();
        let mut changed = false;
        for pair in &mut state.pairs {
            changed |= self.look_at_pair(pair);
        }
        let State { tls, clients, .. } = &mut *state;
        if let Some((clients, wanted)) = clients.as_mut().zip(tls.clients.as_ref()) {
            let now = stamps([wanted.ca.as_path()]);
            if clients.seen.read != now {
                match ask(&wanted.ca, wanted.required) {
                    Ok(asking) => {
                        *clients = Clients { seen: Changing::new(now), asking: Arc::new(asking) };
                        tracing::info!(file = %wanted.ca.display(), "authorities of clients changed");
                        self.metrics.certificate_changed("taken");
                        changed = true;
                    }
                    Err(why) => self.refused(&mut clients.seen, now, &why),
                }
            }
        }
        if changed {
            self.swap(&state);
        }
        self.tell(&mut state);
    }

    /// Whether another certificate is to be served.
    fn look_at_pair(&self, pair: &mut Pair) -> bool {
        // Before the files are read: what changes while they are is seen at the next look.
        let now = stamps(pair.paths());
        if pair.seen.read == now {
            return false;
        }
        let wall = self.clock.wall();
        let old = &pair.kept.certificate;
        let read = Certificate::read(&pair.files).and_then(|new| {
            if new.is_valid(wall) || !old.is_valid(wall) { Ok(new) } else { Err(not_valid(pair, &new)) }
        });
        match read {
            Ok(new) => {
                if new.fingerprint() != old.fingerprint() {
                    tracing::info!(name = new.name(), until = %new.not_after, "certificate changed");
                    self.metrics.certificate_changed("taken");
                }
                *pair = Pair { files: pair.files.clone(), seen: Changing::new(now), kept: Kept::new(new) };
                true
            }
            Err(why) => {
                self.refused(&mut pair.seen, now, &why);
                false
            }
        }
    }

    fn refused(&self, seen: &mut Changing, now: Stamps, why: &str) {
        if seen.fails(now) {
            self.metrics.certificate_changed("refused");
            tracing::warn!(%why, "failed to take a changed certificate: the last good one is served on");
        }
    }

    /// Reads all that another configuration names, and changes nothing yet. What it returns serves it, from the next
    /// connection on.
    pub fn prepare(
        self: &Arc<Self>,
        tls: &Arc<Tls>,
        sources_judge: bool,
    ) -> Result<impl FnOnce() + Send + use<>, TlsError> {
        let asked = {
            let state = self.lock();
            if state.tls.acme != tls.acme {
                return Err(TlsError("`tls.acme` changes with a restart only".to_owned()));
            }
            state.asked.clone()
        };
        let mut new = State::read(tls, sources_judge).map_err(TlsError)?;
        new.asked = asked;
        if new.tls.acme.is_none() && new.certificates().next().is_none() {
            return Err(TlsError(
                "from files to `tls.acme` needs a restart: until then nothing could be shown".to_owned(),
            ));
        }
        new.serve(&self.clock, &self.challenges).map_err(TlsError)?;
        let front = self.clone();
        Ok(move || {
            let mut state = front.lock();
            // Another may have come meanwhile.
            new.asked = state.asked.take();
            *state = new;
            front.swap(&state);
            front.tell(&mut state);
        })
    }

    /// Serves a certificate that was asked for.
    fn take(&self, certificate: Certificate) {
        let mut state = self.lock();
        state.asked = Some(Kept::new(certificate));
        self.swap(&state);
        self.tell(&mut state);
    }

    /// The certificate that was asked for.
    fn asked(&self) -> Option<Arc<Certificate>> {
        self.lock().asked.as_ref().map(|kept| kept.certificate.clone())
    }

    /// Whether there is no certificate at all.
    fn is_bare(&self) -> bool {
        self.lock().certificates().next().is_none()
    }

    fn swap(&self, state: &State) {
        let (config, terms) = match state.serve(&self.clock, &self.challenges) {
            Ok(new) => new,
            Err(why) => {
                tracing::error!(%why, "failed to serve changed certificates: the last good ones are served on");
                return;
            }
        };
        let old = self.serving.load_full();
        // Another certificate of ours takes nothing from what a client has shown; other terms for clients do.
        let stays = old.terms == terms;
        let outdated = if stays { old.offer.outdated.clone() } else { CancellationToken::new() };
        self.serving.store(Arc::new(Serving { offer: Offer { config, outdated }, terms }));
        if !stays {
            tracing::info!("what clients have to show changed: connections that were let in before end");
            old.offer.outdated.cancel();
        }
    }

    /// Metrics, and a word about certificates that end soon.
    fn tell(&self, state: &mut State) {
        let now = self.clock.wall();
        for kept in state.pairs.iter_mut().map(|pair| &mut pair.kept).chain(&mut state.asked) {
            let certificate = &kept.certificate;
            let stage = expiry::stage(certificate.not_before, certificate.not_after, now);
            if stage > kept.said {
                let (name, until) = (certificate.name(), certificate.not_after);
                if stage == Stage::Expired {
                    tracing::warn!(name, %until, "certificate expired: clients refuse it");
                } else {
                    tracing::warn!(name, %until, "certificate expires soon: renew it");
                }
                kept.said = stage;
            }
        }
        let all = state.certificates();
        self.metrics.certificates(all.map(|certificate| (certificate.name(), certificate.not_after.unix_s())));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    fn paths(&self) -> [&Path; 2] {
        [&self.files.cert, &self.files.key]
    }
}

fn not_valid(pair: &Pair, new: &Certificate) -> String {
    let file = pair.files.cert.display();
    format!("{file}: it is valid from {} until {}, and the one before it still is", new.not_before, new.not_after)
}

fn ask(ca: &Path, required: bool) -> Result<Asking, String> {
    certificate::read_authorities(ca).and_then(|authorities| Asking::of(&authorities, required))
}

impl State {
    fn read(tls: &Arc<Tls>, sources_judge: bool) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for files in &tls.certificates {
            let seen = stamps([files.cert.as_path(), files.key.as_path()]);
            let kept = Kept::new(Certificate::read(files)?);
            pairs.push(Pair { files: files.clone(), seen: Changing::new(seen), kept });
        }
        let clients = tls.clients.as_ref().map(|wanted| {
            let seen = Changing::new(stamps([wanted.ca.as_path()]));
            ask(&wanted.ca, wanted.required).map(|asking| Clients { seen, asking: Arc::new(asking) })
        });
        Ok(Self { tls: tls.clone(), sources_judge, pairs, clients: clients.transpose()?, asked: None })
    }

    fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.pairs.iter().map(|pair| &pair.kept).chain(&self.asked).map(|kept| &kept.certificate)
    }

    fn serve(&self, clock: &Clock, challenges: &Arc<Challenges>) -> Result<(Arc<ServerConfig>, Terms), String> {
        let time = Arc::new(Time(clock.clone()));
        let builder = ServerConfig::builder_with_details(certificate::provider(), time)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?;
        // Where a client must show a certificate of the listener's authorities, it must whatever the sources ask for.
        let asking = match (&self.clients, &self.tls.clients) {
            (Some(clients), Some(wanted)) if wanted.required || !self.sources_judge => Some(clients.asking.clone()),
            _ if self.sources_judge => Some(Arc::new(Asking::any())),
            _ => None,
        };
        let terms = asking.as_ref().map_or(Terms::Nothing, |asking| asking.terms.clone());
        let builder: rustls::ConfigBuilder<ServerConfig, WantsServerCert> = match asking {
            Some(asking) => builder.with_client_cert_verifier(asking),
            None => builder.with_no_client_auth(),
        };
        let resolver = Resolver::new(self.certificates().cloned(), challenges.clone());
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.tls.acme.is_some() {
            config.alpn_protocols.push(ACME_PROTOCOL.to_vec());
        }
        config.max_early_data_size = 0;
        // Every suite here is sound, and still it is not the client that chooses the last of them.
        config.ignore_client_order = true;
        if terms != Terms::Nothing {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok((Arc::new(config), terms))
    }
}

/// The gateway's clock, for handshakes.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.wall().unix_s()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::{config::model::ClientAuthorities, time::Wall};

    fn write(directory: &Path, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec![format!("{name}.example")]).expect("a name");
        let files = CertificateFiles { cert: directory.join(format!("{name}.crt")), key: directory.join("key") };
        fs::write(&files.cert, certificate.self_signed(&key).expect("signed").pem()).expect("written");
        fs::write(&files.key, key.serialize_pem()).expect("written");
        files
    }

    fn tls(certificates: Vec<CertificateFiles>) -> Arc<Tls> {
        Arc::new(Tls { certificates, clients: None, acme: None })
    }

    fn open(tls: &Arc<Tls>) -> Result<Front, TlsError> {
        let clock = Clock::starting_at(Wall::from_unix_s(1_700_000_000));
        Front::open(tls, false, clock, Arc::new(Metrics::default()))
    }

    #[tokio::test]
    async fn another_configuration_is_served_whole_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = tls(vec![write(directory.path(), "a")]);
        let front = Arc::new(open(&first).expect("it opens"));
        let serving = front.offer().config;
        let missing = CertificateFiles { cert: directory.path().join("none"), key: directory.path().join("none") };
        let with_missing = tls([&first.certificates[..], std::slice::from_ref(&missing)].concat());
        assert!(open(&with_missing).is_err(), "a start reads everything");
        let clients = Some(ClientAuthorities { ca: missing.cert, required: true });
        let without_authorities = Arc::new(Tls { clients, ..Tls::clone(&first) });
        let acme = crate::config::model::Acme {
            directory: "https://127.0.0.1:1/".parse().expect("a URL"),
            domains: vec!["a.example".to_owned()],
            contact: None,
            ca: None,
            cache: directory.path().to_owned(),
        };
        let asking = Arc::new(Tls { acme: Some(acme), ..Tls::clone(&first) });
        for wrong in [with_missing, without_authorities, asking] {
            assert!(front.prepare(&wrong, false).is_err());
            assert!(Arc::ptr_eq(&front.offer().config, &serving));
        }
        let swap = front.prepare(&first, true).expect("it can be served");
        assert!(Arc::ptr_eq(&front.offer().config, &serving), "not yet");
        swap();
        let now = front.offer().config;
        assert!(!Arc::ptr_eq(&now, &serving));
        // Sessions are resumed only where no client has to prove anything.
        assert_eq!((serving.session_storage.can_cache(), now.session_storage.can_cache()), (true, false));
        assert_eq!((serving.max_early_data_size, now.max_early_data_size, now.send_tls13_tickets), (0, 0, 0));
        assert!(!serving.ticketer.enabled() && !now.ticketer.enabled());
    }

    #[tokio::test]
    async fn who_was_let_in_goes_when_clients_have_to_show_something_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let [a, b] = ["a", "b"].map(|name| write(directory.path(), name));
        let with = |clients: Option<(&CertificateFiles, bool)>| {
            let clients = clients.map(|(of, required)| ClientAuthorities { ca: of.cert.clone(), required });
            Arc::new(Tls { clients, ..Tls::clone(&tls(vec![b.clone()])) })
        };
        let front = Arc::new(open(&with(None)).expect("it opens"));
        // What the listener wants, whether a source judges, and whether that is something else than before.
        for (clients, sources_judge, ends) in [
            (None, false, false),
            (Some((&a, true)), false, true),
            (Some((&a, true)), true, false),
            (Some((&b, true)), true, true),
            (Some((&b, false)), false, true),
            // Then any certificate is taken, whoever the authorities are.
            (Some((&b, false)), true, true),
            (Some((&a, false)), true, false),
            (None, true, false),
            (None, false, true),
        ] {
            let before = front.offer().outdated;
            front.prepare(&with(clients), sources_judge).expect("it can be served")();
            assert_eq!(before.is_cancelled(), ends, "{clients:?}, sources judge: {sources_judge}");
            assert!(!front.offer().outdated.is_cancelled());
        }
    }

    #[tokio::test]
    async fn a_reload_that_would_leave_no_certificate_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = write(directory.path(), "a");
        let config = |tls: &str| {
            let text = format!(
                "[server]\nlisten = \"127.0.0.1:1\"\ntls = {{ {tls} }}\n[sources.a]\nprovider = \"github\"\n\
                 secrets = [{{ value = \"canary-0123456789\" }}]\nupstream = \"http://127.0.0.1:9/\"\n"
            );
            let loaded = crate::config::from_text("a.toml", &text, directory.path());
            loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)))
        };
        let old = config(&format!("cert = \"{}\", key = \"{}\"", files.cert.display(), files.key.display()));
        let new = config("acme = { domains = [\"a.example\"] }");
        let front = Arc::new(open(old.server.tls().expect("tls")).expect("it opens"));
        // What needs a restart stays, and it is what the new certificates would come from.
        let mixed = old.reloaded(new).expect("they can be mixed");
        assert!(front.prepare(mixed.server.tls().expect("tls"), false).is_err());
        assert!(!front.is_bare());
    }
}
