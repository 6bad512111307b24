//! The configuration as meant: validated, defaults filled in, secrets loaded. Built by `config::load` only;
//! whoever holds a [`Config`] may rely on every rule that start-up checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use super::{PublicUrl, RemoteKeys};
pub use crate::policy::{Breaker, Rate, Retry, Routes};
use crate::{
    document::Written,
    event::{Name, OnConflict, OnResend},
    policy::Route,
    preset::{Items, Locator, OnMismatch, OnStale, Provider},
    secret::Secret,
    time::Wall,
    verify::{KeyPlan, Keyring, Scheme, Tolerance},
};

/// Everything.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[admin]`.
    pub admin: Admin,
    /// `[store]`.
    pub store: Store,
    /// `[replay]`.
    pub replay: Replay,
    /// `[log]`.
    pub log: Log,
    /// `[sources.*]`, by name.
    pub sources: BTreeMap<Name, Arc<Source>>,
    /// `[upstreams.*]`, by name; those written as a URL at a source are here too, named after the source.
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// What its files say, to be compared with another.
    pub written: Written,
}

/// `[server]`: the public listeners.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it listens; at least one.
    pub listeners: Vec<Listener>,
    /// Whose `X-Forwarded-For` and PROXY protocol count.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the configuration is loaded anew when its files change.
    pub watch: bool,
    /// The status for a path that no source has: 404 or 503.
    pub unknown_path: u16,
    /// Where the public listener answers health probes; `None` turns that off.
    pub health_path: Option<String>,
    /// From SIGTERM until the listener closes; readiness is 503 from the start of it.
    pub drain_delay: Duration,
    /// From the closing of the listener until what is left gets 503.
    pub drain_timeout: Duration,
    /// Where the sources' paths begin for a provider; for schemes that sign the URL.
    pub public_url: Option<PublicUrl>,
    /// `[server.limits]`.
    pub limits: Limits,
}

impl Server {
    /// TLS of the listeners that speak it: all share one.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.listeners.iter().find_map(|listener| listener.tls.as_ref())
    }
}

/// One public listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where.
    pub at: ListenAt,
    /// With TLS, and how.
    pub tls: Option<Arc<Tls>>,
    /// Whether each connection begins with a PROXY protocol header of a trusted proxy; without one it is closed.
    pub proxy_protocol: bool,
    /// Whether a plaintext connection may speak HTTP/2 from its first byte.
    pub h2c: bool,
}

/// Where a listener is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ListenAt {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket, which is made.
    Unix(PathBuf),
    /// A socket that the service manager hands over: the one of this name, or the only one.
    Systemd(Option<String>),
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

impl ListenAt {
    /// The address, of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            _ => None,
        }
    }
    /// Whether a second listener may say the same: any free port, or the next socket of that name.
    pub fn may_repeat(&self) -> bool {
        match self {
            Self::Tcp(address) => address.port() == 0,
            Self::Unix(_) => false,
            Self::Systemd(_) => true,
        }
    }
    /// Whether only this machine can reach it. What a service manager hands over may be anything.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
            Self::Systemd(_) => false,
        }
    }
}

/// `server.tls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// By the names in them; the first is shown to a client that names none, or another.
    pub certificates: Vec<CertificateFiles>,
    /// Whose clients may connect.
    pub clients: Option<ClientAuthorities>,
    /// Certificates that are asked for and renewed.
    pub acme: Option<Acme>,
}

/// A certificate with its chain, and its key: PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The chain, the certificate itself first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// `client_ca`: authorities whose clients may connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAuthorities {
    /// A PEM file.
    pub ca: PathBuf,
    /// Whether a client must show a certificate; else it may.
    pub required: bool,
}

/// `tls.acme`: certificates of RFC 8555, proven by TLS-ALPN-01.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acme {
    /// The directory of the authority.
    pub directory: Uri,
    /// The names of the certificate.
    pub domains: Vec<String>,
    /// An e-mail address for the account.
    pub contact: Option<String>,
    /// A PEM file with the authorities that vouch for the directory, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The directory in which account, key and certificate are kept.
    pub cache: PathBuf,
}

/// `client_cert` of a source: what its clients must show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientCert {
    /// A certificate from one of these authorities.
    Issuer(Authorities),
    /// One of these certificates, by the SHA-256 of its DER.
    Fingerprints(Vec<[u8; 32]>),
}

/// Authorities whose certificates count.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// The PEM file.
    pub file: PathBuf,
    /// What was in it when the configuration was loaded.
    pub roots: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({}, {})", self.file.display(), self.roots.len())
    }
}

/// `enforce = false` of a source: until then, what does not verify is let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lenient {
    /// `enforce_until`.
    pub until: Wall,
}

/// `[server.limits]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// What all of it may sum up to, in bytes; the start refuses more.
    pub memory_max: u64,
    /// Connections to the public listener.
    pub connections_max: usize,
    /// Requests being served, and flights that outlive their request.
    pub in_flight_max: usize,
    /// Largest body of a source that does not set its own, in bytes.
    pub body_bytes_max: u64,
    /// All bodies in flight, in bytes; a quarter is kept for bodies up to 64 KiB.
    pub body_memory_max: u64,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body; never past the provider's deadline.
    pub body_timeout: Duration,
    /// Bytes per second, over the last 5 s.
    pub body_rate_min: u64,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// A connection in all; it ends after the request that is then served.
    pub connection_age_max: Duration,
    /// Requests on one connection; it ends after so many.
    pub connection_requests_max: u64,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Bearer tokens; required unless `listen` is loopback.
    pub tokens: Vec<AdminToken>,
}

/// A token of the admin API.
#[derive(Clone, Debug)]
pub struct AdminToken {
    /// The token.
    pub token: Secret,
    /// What it may do.
    pub role: Role,
}

/// What a token may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Look.
    Read,
    /// Look and change.
    Operate,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    /// The engine.
    pub engine: Engine,
    /// The directory of the embedded engine.
    pub path: PathBuf,
    /// When an append counts as durable.
    pub durability: Durability,
    /// How long delivered events are kept for redelivery.
    pub retention: Duration,
    /// All files of the store, in bytes.
    pub disk_bytes_max: u64,
    /// What undelivered events and dead letters of one upstream may take of that, from 0 to 1.
    pub disk_share_max: f64,
    /// Keys for bodies at rest: the first encrypts, all decrypt. Empty: bodies are stored as they came.
    pub encryption: Vec<EncryptionKey>,
}

/// A key for bodies at rest.
#[derive(Clone, Debug)]
pub struct EncryptionKey {
    /// Stored beside what it encrypts.
    pub id: Arc<str>,
    /// 32 bytes.
    pub key: Secret,
}

/// The engine of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// Embedded, durable.
    Sqlite,
    /// Lost with the process.
    Memory,
}

/// When an append counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// After fsync: survives a power cut.
    Fsync,
    /// After the write: survives a crash of the process, not a power cut.
    Os,
}

/// `[replay]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// Entries of the LRU before the store's index.
    pub capacity: usize,
    /// What the memory engine does when `capacity` live keys are there.
    pub on_full: OnFull,
}

/// What the memory engine does when it would have to forget a live key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFull {
    /// 503.
    Refuse,
    /// Forget the oldest of the source with the most.
    Evict,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter as of tracing-subscriber.
    pub level: String,
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[sources.NAME]`.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file, and none depends on another")]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// Its path.
    pub path: PathTemplate,
    /// Its provider.
    pub provider: Arc<Provider>,
    /// The URL as the provider knows it: the source's own, else the server's.
    pub public_url: Option<PublicUrl>,
    /// The provider's scheme, with this source's guard where the provider signs nothing.
    pub scheme: Scheme,
    /// The secrets.
    pub keyring: Keyring,
    /// Where the provider publishes its public keys, if they are fetched.
    pub remote_keys: Option<RemoteKeys>,
    /// The parameters that the provider declares.
    pub params: BTreeMap<String, String>,
    /// Who gets what no route wants; without routes, who gets everything. Empty only if there are routes: what none
    /// of them wants is stored as unrouted then.
    pub upstreams: Vec<Name>,
    /// Who gets what; there are none in mode `proxy`.
    pub routes: Routes,
    /// Queue, respond or proxy.
    pub mode: Mode,
    /// In force; meaningless where no time is signed.
    pub tolerance: Tolerance,
    /// How keys are derived.
    pub key_plan: KeyPlan,
    /// By when the answer must have left, counted from the arrival of the request: the provider's deadline less
    /// a margin.
    pub answer_within: Duration,
    /// How long an upstream's answer is kept for copies: the provider's retry span, a day if unknown.
    pub answer_kept: Duration,
    /// Largest body, in bytes.
    pub body_bytes_max: u64,
    /// The status of an acknowledgement.
    pub ack_status: u16,
    /// Networks that may send; empty: all.
    pub allow: Vec<IpNet>,
    /// The certificate that a client must show.
    pub client_cert: Option<ClientCert>,
    /// Verified webhooks per second; more get 429.
    pub rate: Option<Rate>,
    /// Requests of this source being served, and flights that outlive them.
    pub in_flight_max: Option<usize>,
    /// 401 or 503.
    pub on_mismatch: OnMismatch,
    /// 401, 503, or held.
    pub on_stale: OnStale,
    /// Held, delivered or dropped.
    pub on_conflict: OnConflict,
    /// Dropped or delivered.
    pub on_resend: OnResend,
    /// Items that the provider re-sends apart.
    pub items: Option<Items>,
    /// Whether the query goes to the upstream.
    pub forward_query: bool,
    /// What orders its deliveries, if something does.
    pub order_by: Option<OrderBy>,
    /// Whether bodies are kept once every delivery is delivered.
    pub store_body: bool,
    /// What nobody is shown.
    pub redact: Redact,
    /// Whether the reasons of its last refusals are found out and kept.
    pub explain: bool,
    /// Whether what does not verify is let through, and until when.
    pub lenient: Option<Lenient>,
    /// `proxy`: pass the upstream's status on as it is.
    pub proxy_status_raw: bool,
    /// `proxy`: wait for the disk before the answer.
    pub proxy_keys_fsync: bool,
}

impl Source {
    /// Whether it waits for a secret that its provider hands over, and can verify nothing until then.
    pub fn awaits_secret(&self) -> bool {
        self.keyring.keys().is_empty() && self.scheme.needs_secret() && self.provider.captures()
    }
    /// Every upstream that may get an event of it, each once.
    pub fn targets(&self) -> BTreeSet<&Name> {
        self.upstreams.iter().chain(self.routes.iter().flat_map(Route::to)).collect()
    }
}

/// `order_by` and `on_block`: events with one key reach an upstream one after another.
#[derive(Clone, PartialEq, Debug)]
pub struct OrderBy {
    /// Where the key stands.
    pub at: Locator,
    /// After how many attempts an event that fails becomes a dead letter, so that the others of its key go on;
    /// `None`: they wait until it is delivered or given up on.
    pub dead_letter_after: Option<u32>,
}

/// `redact`: what is neither shown nor logged. The store and the upstream have it all the same.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Redact {
    /// JSON pointers into the body.
    pub pointers: Vec<String>,
    /// Headers.
    pub headers: Vec<HeaderName>,
}

impl Redact {
    /// Whether anything is.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.headers.is_empty()
    }
}

/// The path of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathTemplate {
    /// As written: `/hooks/sourcehub/{token}`. Shown in logs.
    pub text: String,
    /// What stands before and after the `{token}` segment; `None` where there is none.
    pub around_token: Option<(String, String)>,
}

impl PathTemplate {
    /// Of a text as it stands in a model.
    pub fn of(text: &str) -> Self {
        let around_token = text.split_once("{token}").map(|(before, after)| (before.to_owned(), after.to_owned()));
        Self { text: text.to_owned(), around_token }
    }

    /// Whether a raw path matches. Nothing is decoded.
    pub fn fits(&self, path: &str) -> bool {
        if self.around_token.is_some() { self.token(path).is_some() } else { self.text == path }
    }

    /// What stands for `{token}` in a raw path, if the path matches. Nothing is decoded.
    pub fn token<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (before, after) = self.around_token.as_ref()?;
        let token = path.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
        (!token.is_empty() && !token.contains('/')).then_some(token)
    }
}

/// How a source answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// Stored, acknowledged, delivered in the background.
    Queue,
    /// Stored, delivered at once; the first upstream's answer if it comes in time.
    Respond,
    /// The upstream's answer is the answer; only keys are stored.
    Proxy,
}

impl Mode {
    /// As written in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Respond => "respond",
            Self::Proxy => "proxy",
        }
    }
}

/// `[upstreams.NAME]`.
#[derive(Clone, PartialEq, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: Name,
    /// Where it is. The path and query are the upstream's own.
    pub url: Uri,
    /// One attempt, from connect to the end of the answer.
    pub timeout: Duration,
    /// Attempts at a time.
    pub concurrency: usize,
    /// Attempts per second; `None`: as many as it takes.
    pub rate: Option<Rate>,
    /// When to try again.
    pub retry: Retry,
    /// When to pause.
    pub breaker: Breaker,
    /// Statuses that make a dead letter at once.
    pub dead_letter_on: Vec<u16>,
    /// Signs each attempt as Standard Webhooks: decoded key bytes.
    pub signing_secret: Option<Secret>,
    /// Added to each attempt; marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// PEM file with the authorities to trust instead of the system's, for an `https` URL.
    pub ca: Option<PathBuf>,
    /// What it is shown of us, for an `https` URL.
    pub client_cert: Option<CertificateFiles>,
}
