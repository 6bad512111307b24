//! `remote_keys`: public keys that a provider publishes, for sources that do not pin them.

use std::{path::PathBuf, time::Duration};

use http::{Uri, uri::Scheme as UriScheme};

use super::{load::Reader, upstreams::read_ca};
use crate::{
    document::{At, Section},
    verify::{KeyKind, Scheme},
};

/// Where a provider publishes its keys. Nothing of a request leads there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteKeys {
    /// A JSON Web Key Set.
    pub url: Uri,
    /// How often it is fetched.
    pub refresh: Duration,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

const HELP: &str = "write remote_keys = { url = \"https://provider.example/keys.json\", refresh = \"1h\" }";
const REFRESH: Duration = Duration::from_hours(1);
const REFRESH_MIN: Duration = Duration::from_mins(1);
const REFRESH_MAX: Duration = Duration::from_hours(24);

/// Reads it, if it is there: https only, and for providers that sign with a private key.
pub(super) fn read(reader: &Reader<'_>, section: &mut Section<'_>, scheme: Option<&Scheme>) -> Option<RemoteKeys> {
    let problems = reader.problems;
    let place = section.peek_place("remote_keys")?;
    let mut table = section.section("remote_keys")?;
    let url = table.required::<String>("url", HELP);
    let refresh = table.read::<Duration>("refresh");
    let ca = table.read::<PathBuf>("ca");
    table.finish();
    if !scheme.and_then(Scheme::key_kind).is_some_and(|kind| kind != KeyKind::Shared) {
        problems.error(
            &place,
            "`remote_keys` is set and this provider's signatures are not checked with a public key",
            "take it out, and write `secrets`",
        );
    }
    let At { value: text, place: url_place } = url?;
    let Some(url) = text.parse::<Uri>().ok().filter(|url| url.host().is_some() && url.scheme().is_some()) else {
        problems.error(&url_place, format!("`remote_keys.url`: \"{text}\" is not a URL"), HELP);
        return None;
    };
    // Whoever can change the answer can sign for the provider.
    let is_loopback = matches!(url.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
    if url.scheme() != Some(&UriScheme::HTTPS) && !is_loopback {
        problems.error(
            &url_place,
            "`remote_keys.url` is not https: anybody on the way could sign for the provider",
            HELP,
        );
    }
    let refresh = match refresh {
        Some(at) if !(REFRESH_MIN..=REFRESH_MAX).contains(&at.value) => {
            problems.error(&at.place, "`remote_keys.refresh` must be from \"1m\" to \"24h\"", HELP);
            REFRESH
        }
        Some(at) => at.value,
        None => REFRESH,
    };
    let ca = ca.map(|at| read_ca(reader, &at, &url));
    Some(RemoteKeys { url, refresh, ca })
}
