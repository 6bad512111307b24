//! Causes in words.

use crate::document::format_duration;

use super::{Cause, CauseKind, KeyFormat, UrlChange};

impl Cause {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match &self.kind {
            CauseKind::BodyRewritten(_) => "body_reserialised",
            CauseKind::BodyNewline { .. } => "body_newline",
            CauseKind::BodyCompressed => "body_compressed",
            CauseKind::BodyDecompressed => "body_decompressed",
            CauseKind::SecretNotLive { expired: true, .. } => "secret_expired",
            CauseKind::SecretNotLive { expired: false, .. } => "secret_not_yet_live",
            CauseKind::SecretOfOther { .. } => "secret_of_other_source",
            CauseKind::SecretEncoding { .. } => "secret_encoding",
            CauseKind::SecretPrefix { .. } => "secret_prefix",
            CauseKind::SecretSpace { .. } => "secret_white_space",
            CauseKind::TimestampUnit { .. } => "timestamp_unit",
            CauseKind::ClockSkew { .. } => "clock_skew",
            CauseKind::TimeZone { .. } => "time_zone",
            CauseKind::Late { .. } => "late",
            CauseKind::Url(_) => "other_url",
            CauseKind::UrlUnknown => "url_unknown",
            CauseKind::HeaderRenamed { .. } => "header_renamed",
            CauseKind::HeaderLost { .. } => "header_lost",
            CauseKind::HeaderUnderscore { .. } => "header_underscore",
            CauseKind::OtherAlgorithm { .. } => "other_algorithm",
            CauseKind::SignatureEncoding { .. } => "signature_encoding",
            CauseKind::SignatureUpperCase => "signature_upper_case",
            CauseKind::SignaturePrefix { .. } => "signature_prefix",
            CauseKind::SignatureTruncated { .. } => "signature_truncated",
        }
    }

    /// What happened, as one sentence without a full stop. It says so if that is not proven.
    pub fn message(&self) -> String {
        let side = |behind: &bool| if *behind { "before" } else { "after" };
        let message = match &self.kind {
            CauseKind::BodyRewritten(writing) => {
                format!(
                    "the signature matches the same JSON written {writing}: something parsed the body and wrote it again"
                )
            }
            CauseKind::BodyNewline { lost: true } => {
                "the signature matches the body with a line end behind it, which was lost".to_owned()
            }
            CauseKind::BodyNewline { lost: false } => {
                "the signature matches the body without the white space at its end, which was added".to_owned()
            }
            CauseKind::BodyCompressed => {
                "the signature matches the decompressed body: it was compressed on the way".to_owned()
            }
            CauseKind::BodyDecompressed => {
                "`content-encoding` names a compression that the body does not have: it was decompressed on the way"
                    .to_owned()
            }
            CauseKind::SecretNotLive { id, expired: true } => {
                format!("it is signed with the secret {id}, which has expired")
            }
            CauseKind::SecretNotLive { id, expired: false } => {
                format!("it is signed with the secret {id}, which does not count yet")
            }
            CauseKind::SecretOfOther { source } => format!("it is signed with a secret of {source}"),
            CauseKind::SecretEncoding { id, format } => {
                let name = match format {
                    KeyFormat::Utf8 => "plain text",
                    other => other.name(),
                };
                format!("the sender reads the secret {id} as {name}")
            }
            CauseKind::SecretPrefix { id, wanted: true } => {
                format!("the sender has `whsec_` before the secret {id} as a part of the key")
            }
            CauseKind::SecretPrefix { id, wanted: false } => {
                format!("the secret {id} has `whsec_` before it, which is no part of the sender's key")
            }
            CauseKind::SecretSpace { id, here: true } => {
                format!("the secret {id} has white space at its beginning or end")
            }
            CauseKind::SecretSpace { id, here: false } => {
                format!("the sender's copy of the secret {id} has white space at its end")
            }
            CauseKind::TimestampUnit { wanted, found } => {
                format!("the signed time is in {}, and this provider's is in {}", found.in_words(), wanted.in_words())
            }
            CauseKind::ClockSkew { by, behind } => {
                format!("the signed time is {} {} ours", format_duration(*by), side(behind))
            }
            CauseKind::TimeZone { by, behind } => {
                let by = format_duration(*by);
                format!("the signed time is {by} {} ours, as far as a time zone is", side(behind))
            }
            CauseKind::Late { by } => format!("it was signed {} ago", format_duration(*by)),
            CauseKind::Url(change) => format!("the signature matches the URL {}", change.in_words()),
            CauseKind::UrlUnknown => "this provider signs the URL, and which one that is is not known here".to_owned(),
            CauseKind::HeaderRenamed { wanted, found } => {
                format!("what should stand in the header `{wanted}` stands in `{found}`")
            }
            CauseKind::HeaderLost { name } => {
                format!("the header `{name}` is missing, and others of the signature are there")
            }
            CauseKind::HeaderUnderscore { name } => {
                format!("the header `{name}` is missing: many proxies drop names with `_`")
            }
            CauseKind::OtherAlgorithm { wanted, found } => {
                format!("it is signed with {}, and this provider's scheme is {}", found.name(), wanted.name())
            }
            CauseKind::SignatureEncoding { wanted, found } => {
                format!("the signature is written in {}, and this provider's is in {}", found.name(), wanted.name())
            }
            CauseKind::SignatureUpperCase => "the signature is hexadecimal in upper case".to_owned(),
            CauseKind::SignaturePrefix { found, wanted } => {
                let named = |text: &str| if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
                format!("before the signature stands {}, and not {}", named(found), named(wanted))
            }
            CauseKind::SignatureTruncated { has, needs } => {
                format!("the signature ends after {has} of {needs} characters")
            }
        };
        if self.proven { message } else { format!("{message} (whether the request is authentic then is not proven)") }
    }

    /// What to do, as an imperative.
    pub const fn advice(&self) -> &'static str {
        match &self.kind {
            CauseKind::BodyRewritten(_) => {
                "let every proxy, function or framework in front pass the body on byte for byte: no JSON middleware, no body \
                 mapping; a capture must be the raw body, too"
            }
            CauseKind::BodyNewline { .. } => {
                "pass the body on byte for byte; save a capture with `curl --data-binary` or `printf`, not with `echo` or an editor"
            }
            CauseKind::BodyCompressed => "turn compression of requests off in the proxy in front",
            CauseKind::BodyDecompressed => "turn decompression of requests off in the proxy in front",
            CauseKind::SecretNotLive { expired: true, .. } => {
                "let the provider sign with the new secret, or move `expires_at` of this one until it does"
            }
            CauseKind::SecretNotLive { expired: false, .. } => {
                "bring its `not_before` forward: the provider uses it already"
            }
            CauseKind::SecretOfOther { .. } => {
                "send to the path of that source, or give this source the secret that the provider shows for this endpoint"
            }
            CauseKind::SecretEncoding { .. } => {
                "set `encoding` of the secret to what the sender does, or let the sender decode it as the provider says"
            }
            CauseKind::SecretPrefix { wanted: true, .. } => {
                "let the sender cut it off and decode the rest, or set encoding = \"utf8\" and keep the prefix in the secret"
            }
            CauseKind::SecretPrefix { wanted: false, .. } => "take the prefix out of the secret",
            CauseKind::SecretSpace { here: true, .. } => {
                "take it out: write the secret with `printf %s`, without a line end"
            }
            CauseKind::SecretSpace { here: false, .. } => {
                "let the sender trim it: often a file or an environment variable that ends in a line end"
            }
            CauseKind::TimestampUnit { .. } => {
                "let the sender write it in the provider's unit; for a sender of your own, set `unit` of `timestamp` in its [providers.NAME]"
            }
            CauseKind::ClockSkew { .. } => {
                "let both machines keep their clocks by NTP; for a capture, say with --now when it came"
            }
            CauseKind::TimeZone { .. } => {
                "let the sender sign the time in UTC; if it is behind, a retry may keep its first time: set on_stale = \"hold\""
            }
            CauseKind::Late { .. } => {
                "for a capture, say with --now when it came; for retries that keep their first time, set on_stale = \"hold\" or \
                 a longer tolerance.past; else it may be a replay"
            }
            CauseKind::Url(_) | CauseKind::UrlUnknown => {
                "set `public_url` to the URL that is registered at the provider, character for character"
            }
            CauseKind::HeaderRenamed { .. } => {
                "let the proxy in front keep the name; if the sender is another than the provider, choose its own provider"
            }
            CauseKind::HeaderLost { .. } => "let the proxy in front pass it on: some pass on only headers on a list",
            CauseKind::HeaderUnderscore { .. } => {
                "let the proxy in front pass it on: in nginx that is `underscores_in_headers on`"
            }
            CauseKind::OtherAlgorithm { .. } => {
                "choose the provider's algorithm at the sender, or for a sender of your own set `algorithm` in its [providers.NAME]"
            }
            CauseKind::SignatureEncoding { .. } | CauseKind::SignatureUpperCase | CauseKind::SignaturePrefix { .. } => {
                "write it at the sender as the provider does; for a sender of your own set `encoding` and `prefix` in its [providers.NAME]"
            }
            CauseKind::SignatureTruncated { .. } => {
                "look for a limit on header values in the proxy in front, or a column that is too short at the sender"
            }
        }
    }
}

impl UrlChange {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Scheme => "with the other scheme (http and https)",
            Self::NoPort => "without its port",
            Self::DefaultPort => "with the default port",
            Self::Host => "with the host of the request",
            Self::Slash => "with a slash at the end of its path",
            Self::NoSlash => "without the slash at the end of its path",
            Self::NoQuery => "without its query",
            Self::PathAndQuery => "cut down to path and query",
            Self::Path => "cut down to the path",
        }
    }
}
