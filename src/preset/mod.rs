//! Providers as data: one TOML file each, embedded in the binary. `[providers.NAME]` in a configuration has
//! the same schema.
//!
//! A new provider is one file in `data`, and its name in `SHIPPED`.
#![doc = include_str!("SCHEMA.md")]

mod handshake;
mod read;
mod signature;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderName, Method};

use crate::{
    document::{self, Problems},
    event::Name,
    verify::{EventKey, KeyFormat, Scheme, Tolerance},
};

pub use handshake::{Asked, Handshake, Known, Met, Reply, Shape, TOKEN_BYTES_MAX};
pub use read::{event_key, read};

/// What is known about one provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Lower-case with hyphens: `mobility-work`.
    pub name: Name,
    /// As the provider writes itself: `Mobility Work`.
    pub title: String,
    /// How it proves itself.
    pub scheme: Scheme,
    /// How its secrets are written.
    pub key_format: KeyFormat,
    /// How far its timestamp may be off; `None` where it signs no time.
    pub tolerance: Option<Tolerance>,
    /// What identifies an event across its retries.
    pub event_key: EventKey,
    /// Whether two of its events may be signed alike, so that no copy can be told from another event.
    pub repeats: bool,
    /// Where it says what kind of event it is.
    pub event_type: Option<Locator>,
    /// Where it numbers or names the attempt. Unsigned: never part of a key.
    pub attempt_id: Option<Locator>,
    /// What a source must say besides its secrets, by name, and what each is.
    pub params: BTreeMap<String, String>,
    /// Handshakes answered without storing anything.
    pub handshakes: Vec<Handshake>,
    /// Items of a body that it re-sends apart.
    pub items: Option<Items>,
    /// How it behaves as a sender.
    pub sender: Sender,
    /// What a source does unless it says otherwise.
    pub on_stale: OnStale,
    /// What a source does unless it says otherwise.
    pub on_mismatch: OnMismatch,
    /// The largest body it sends, where that is more than the server's default.
    pub body_bytes_max: Option<u64>,
    /// How well its facts are known.
    pub evidence: Evidence,
    /// What nobody has confirmed, in sentences.
    pub unconfirmed: Vec<String>,
    /// Known answers.
    pub vectors: Vec<Vector>,
    /// Whether it hands out secrets that are shorter than they should be.
    pub allow_short: bool,
    /// The methods that its webhooks come with.
    pub methods: Vec<Method>,
    /// A body such as it sends.
    pub sample: Option<Vec<u8>>,
    /// What follows from a signed content that can be taken apart in several ways.
    pub ambiguous: Option<String>,
    /// What follows from a body that is not signed, or not all of it.
    pub uncovered: Option<String>,
}

/// Where a value stands in a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Locator {
    /// A header.
    Header(HeaderName),
    /// A JSON pointer into the body; read after verification only.
    Json(String),
    /// A field of a form; read after verification only.
    Form(String),
}

/// `items = { each = "/Data", key = ["/DataType", "/TrackingNumber"] }`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Items {
    /// JSON pointer to the list.
    pub each: String,
    /// JSON pointers inside an item that make up its key.
    pub key: Vec<String>,
}

/// How a provider behaves as a sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    /// By when it wants an answer.
    pub deadline: Duration,
    /// From its first attempt to its last.
    pub retry_span: Option<Duration>,
    /// Statuses that it tries again; `None`: every status that is not 2xx.
    pub retries: Option<BTreeSet<u16>>,
    /// Statuses after which it drops the event for good, or disables the subscription.
    pub drops: BTreeSet<u16>,
    /// After how many failures in a row it disables the subscription.
    pub disables_after: Option<u32>,
    /// The one status it takes for success, where any 2xx will not do.
    pub ack_status: Option<u16>,
    /// The body it takes for success, where any will not do.
    pub ack_body: Option<String>,
}

impl Sender {
    /// Of whom nothing is known.
    pub fn unknown() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            retry_span: None,
            retries: None,
            drops: BTreeSet::new(),
            disables_after: None,
            ack_status: None,
            ack_body: None,
        }
    }

    /// Whether an event is lost that is answered so: the provider drops it, or tries again after other statuses only.
    /// Of one that never tries again nothing can be saved.
    pub fn gives_up_after(&self, status: u16) -> bool {
        let retried = self.retries.as_ref().filter(|retried| !retried.is_empty());
        self.drops.contains(&status) || retried.is_some_and(|retried| !retried.contains(&status))
    }
}

impl Provider {
    /// The methods of its webhooks.
    pub fn webhook_methods(&self) -> &[Method] {
        &self.methods
    }

    /// The methods that it sends anything with: its webhooks, and its handshakes.
    pub fn methods(&self) -> Vec<&Method> {
        let mut methods: Vec<_> = self.webhook_methods().iter().collect();
        for handshake in &self.handshakes {
            if !methods.contains(&&handshake.method) {
                methods.push(&handshake.method);
            }
        }
        methods
    }

    /// Whether it hands over the secret of a source in a handshake. A public key is none.
    pub fn captures(&self) -> bool {
        !self.key_format.is_public() && self.handshakes.iter().any(|handshake| handshake.captures)
    }

    /// Whether it has a handshake that signs what a stranger sends.
    pub fn signs_for_strangers(&self) -> bool {
        self.handshakes.iter().any(Handshake::signs_for_strangers)
    }

    /// Whether a handshake would sign this content for a stranger: then its signature is no proof.
    pub fn refuses_content(&self, content: &[u8]) -> bool {
        self.handshakes.iter().any(|handshake| handshake.could_sign(content))
    }
}

/// What happens to an authentic claim whose time is out of tolerance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStale {
    /// 401.
    Reject,
    /// 503, so that the provider tries again.
    Retry,
    /// Verified, stored, answered 200, and held for an operator.
    Hold,
}

impl OnStale {
    /// All of them, by the name they have in a configuration.
    pub const ALL: [(&'static str, Self); 3] = [("reject", Self::Reject), ("retry", Self::Retry), ("hold", Self::Hold)];
}

/// What happens to a well-formed signature that does not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMismatch {
    /// 401.
    Reject,
    /// 503, so that a genuine sender keeps trying while a secret is put right.
    Retry,
}

impl OnMismatch {
    /// All of them, by the name they have in a configuration.
    pub const ALL: [(&'static str, Self); 2] = [("reject", Self::Reject), ("retry", Self::Retry)];
}

/// How well the facts are known, and where they are from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// `vendor-vector`, `official-sdk`, `vendor-doc` or `second-hand`.
    pub kind: EvidenceKind,
    /// The page, or the file of the SDK.
    pub place: String,
}

/// From best to least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EvidenceKind {
    /// A signature published by the provider was recomputed.
    VendorVector,
    /// Read in the provider's own library.
    OfficialSdk,
    /// Read in the provider's documentation.
    VendorDoc,
    /// From others.
    SecondHand,
}

impl EvidenceKind {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("vendor-vector", Self::VendorVector),
        ("official-sdk", Self::OfficialSdk),
        ("vendor-doc", Self::VendorDoc),
        ("second-hand", Self::SecondHand),
    ];
    /// The stable name.
    pub fn name(self) -> impl Display {
        read::name_of(self, &Self::ALL)
    }
}

/// A known answer: this request, with this secret, at this time, is (or is not) authentic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vector {
    /// Its name.
    pub id: String,
    /// The secrets, as a user would configure them.
    pub secrets: Vec<String>,
    /// The source's parameters.
    pub params: BTreeMap<String, String>,
    /// The method.
    pub method: String,
    /// The URL as the provider knows it, where that matters.
    pub url: Option<String>,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The secret segment of the path, where that is the credential.
    pub token: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The time of the check, Unix seconds.
    pub now_s: i64,
    /// Whether it is authentic.
    pub valid: bool,
}

/// The files, by the names they are used under.
macro_rules! shipped {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("data/", $name, ".toml")))),*] };
}

const SHIPPED: [(&str, &str); 151] = shipped! {
    "360learning" "ably" "adobe-io-events" "adyen-classic" "adyen-platform" "aftership"
    "aftership-returns" "aftership-shipping" "amazon-sns" "amazon-sns-subject" "amazon-sns-v1" "amazon-sns-v1-subject"
    "asana" "auth0-log-streams" "azure-event-grid" "azure-event-grid-cloudevents" "bigcommerce" "bitbucket"
    "box" "braintree" "buildkite" "buildkite-token" "cal-com" "calendly"
    "chargebee" "checkout-com" "circleci" "clerk" "clickup" "cloudflare-notifications"
    "cloudflare-stream" "cloudinary-sha1" "cloudinary-sha256" "coinbase-commerce" "cursor" "customer-io"
    "datadog" "discord" "docker-hub" "docusign" "dodo-payments" "doppler"
    "dropbox" "easypost" "ebay" "elevenlabs" "fal-ai" "forgejo"
    "fourthwall" "front" "front-rule" "fusionauth" "fusionauth-ec" "fusionauth-eddsa"
    "fusionauth-rsa" "gains" "gitea" "github" "github-sha1" "gitlab-signing"
    "gitlab-token" "gocardless" "google-pubsub" "grafana" "grafana-timestamp" "gusto"
    "heroku" "hubspot-v1" "hubspot-v2" "hubspot-v3" "hygraph" "intercom"
    "iron-xyz" "jira" "kick" "lemon-squeezy" "line" "linear"
    "linkedin" "mailgun" "mandrill" "messagebird" "meta" "microsoft-graph"
    "mobility-work" "mollie" "mollie-classic" "monday" "mux" "netlify"
    "notion" "nylas" "okta" "onfido" "openai" "paddle"
    "pagerduty" "partssource" "paypal" "persona" "plaid" "plivo-v2"
    "plivo-v3-post" "polar" "postmark" "postsyncer" "price2b" "pusher"
    "qonto" "qonto-onboarding" "quickbooks" "razorpay" "recurly" "replicate"
    "resend" "sanity" "scalr" "segment" "sendcloud" "sendgrid"
    "sentry" "shipstation" "shopify" "slack" "sourcehub" "square"
    "standard-webhooks" "standard-webhooks-ed25519" "stripe" "supabase-auth" "supabase-database" "svix"
    "tabapay" "telegram" "telnyx" "terraform-cloud" "tiktok" "trello"
    "twilio" "twilio-json" "twitch" "typeform" "vercel" "vonage"
    "webflow" "woocommerce" "workos" "x" "xero" "zendesk"
    "zoom"
};

/// Each is read when it is first asked for: a command needs one, and a gateway a few.
static PRESETS: [OnceLock<Arc<Provider>>; SHIPPED.len()] = [const { OnceLock::new() }; SHIPPED.len()];

fn preset(index: usize) -> Arc<Provider> {
    let (name, text) = SHIPPED[index];
    let load = || {
        let problems = Problems::default();
        let provider = read(document::parse(&problems, format!("{name}.toml"), text), name);
        // Presets are part of the program, and a test reads every one of them.
        Arc::new(provider.unwrap_or_else(|| panic!("a shipped preset is wrong:\n{}", problems.render(false))))
    };
    PRESETS[index].get_or_init(load).clone()
}

/// The preset of that name.
pub fn find(name: &str) -> Option<Arc<Provider>> {
    SHIPPED.iter().position(|(known, _)| *known == name).map(preset)
}

/// All presets, by name.
pub fn all() -> Vec<Arc<Provider>> {
    (0..SHIPPED.len()).map(preset).collect()
}

/// The scheme that upstreams verify: Standard Webhooks.
pub fn standard_webhooks() -> Arc<Provider> {
    find("standard-webhooks").expect("it is shipped")
}
