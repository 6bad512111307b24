//! What the rules of a source need to know about its provider.

use crate::{preset::Provider, verify::CredentialPlace};

/// What the rules need to know about a provider's scheme.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Whether it signs anything; a credential is not a signature.
    pub(super) signed: bool,
    /// Whether it signs a time.
    pub(super) timed: bool,
    /// The place of the credential that the provider itself sends, if it signs nothing.
    pub(super) credential: Option<CredentialPlace>,
    /// Whether it hands over its secret when the endpoint is registered.
    pub(super) captures: bool,
    /// Algorithm and headers, for people.
    pub(super) description: String,
}

impl Facts {
    pub(super) fn of(provider: &Provider) -> Self {
        let scheme = &provider.scheme;
        let headers: Vec<String> = scheme.description().headers.iter().map(ToString::to_string).collect();
        let description = match scheme.credential_place() {
            Some(place) => format!("credential in {place}"),
            None if scheme.is_signed() => format!("{} in {}", scheme.name(), headers.join(", ")),
            None => scheme.name().to_owned(),
        };
        Self {
            signed: scheme.is_signed(),
            timed: scheme.is_timed(),
            captures: provider.captures(),
            // A token in the path is the user's: it is there if the path has it.
            credential: scheme.credential_place().filter(|place| **place != CredentialPlace::Token).cloned(),
            description,
        }
    }
}
