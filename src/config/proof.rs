//! How a source proves its requests: the provider's signature, or a guard where the provider signs nothing.

use http::HeaderName;
use ipnet::IpNet;

use super::{
    client_cert,
    load::Reader,
    model::{ClientCert, PathTemplate},
    networks, path,
    providers::Facts,
    secrets::SecretText,
};
use crate::{
    document::{At, Place, Problems, Section},
    preset::Provider,
    verify::{CredentialPlace, Scheme, SecretKey},
};

/// How a source proves its requests.
#[derive(Debug)]
pub(super) struct Proof {
    /// `None`: the provider's own.
    pub(super) scheme: Option<Scheme>,
    pub(super) place: Option<CredentialPlace>,
    pub(super) is_guard: bool,
    pub(super) allow: Vec<IpNet>,
    /// The certificate that its clients must show.
    pub(super) client_cert: Option<ClientCert>,
    pub(super) description: String,
}

impl Proof {
    /// Whether something besides a credential keeps strangers out.
    fn has_other_guard(&self) -> bool {
        !self.allow.is_empty() || self.client_cert.is_some()
    }
}

/// What of a source `read_proof` goes by.
#[derive(Debug)]
pub(super) struct Written<'a> {
    /// Whether secrets were written, right or wrong: what is wrong with them was reported.
    pub(super) has_secrets: bool,
    pub(super) path: &'a PathTemplate,
    pub(super) path_place: &'a Place,
}

/// A signed provider needs its secret; one that signs nothing needs a guard, unless the user accepts that.
pub(super) fn read(
    reader: &Reader<'_>,
    section: &mut Section<'_>,
    facts: Option<&Facts>,
    written: &Written<'_>,
) -> Proof {
    let problems = reader.problems;
    let Written { has_secrets, path, path_place } = *written;
    let guard = section.read::<String>("guard");
    let accept_unverified = section.read::<bool>("accept_unverified");
    let allow = networks::read(section, "allow");
    let client_cert = client_cert::read(reader, section);
    let mut proof =
        Proof { scheme: None, place: None, is_guard: false, allow, client_cert, description: String::new() };
    let Some(facts) = facts else { return proof };
    let place = section.place().clone();
    let has_token = path.around_token.is_some();

    if facts.signed {
        proof.description.clone_from(&facts.description);
        if has_token {
            let help = "take {token} out of `path`: the signature is the proof";
            problems.error(path_place, "this provider signs its webhooks and needs no {token} in its path", help);
        }
        if let Some(at) = &guard {
            let help = "take it out: the signature is the proof";
            problems.error(&at.place, "`guard` is for providers that sign nothing, and this one signs", help);
        }
        if let Some(at) = accept_unverified.filter(|at| at.value) {
            let help = "take it out and set `secrets`";
            problems.error(
                &at.place,
                "`accept_unverified` is for providers that sign nothing, and this one signs",
                help,
            );
        }
        if !has_secrets && facts.captures {
            problems.warn(
                &place,
                "this source has no secret yet: every webhook gets 503 until it has one",
                "register the endpoint at the provider, which hands one over; `hookward status` then names the file for \
                 secrets = [{ file = \"…\" }]",
            );
        } else if !has_secrets {
            problems.error(
                &place,
                "this provider signs its webhooks and the source has no secret",
                "add secrets = [{ file = \"…\" }] with the secret that the provider shows",
            );
        }
        return proof;
    }

    let chosen = guard.as_ref().and_then(|at| read_guard(problems, at));
    if chosen == Some(CredentialPlace::Token) && !has_token {
        problems.error(
            path_place,
            "`guard` is \"token\" and there is no {token} in the path",
            format!("write path = \"{}/{{token}}\"", path.text),
        );
    }
    if has_token && chosen.as_ref().is_some_and(|place| *place != CredentialPlace::Token) {
        let at = guard.as_ref().map_or(path_place, |at| &at.place);
        problems.error(at, "there are two guards: this one, and {token} in the path", "keep one of them");
    }
    let token = has_token.then_some(CredentialPlace::Token);
    proof.place = chosen.or(token).or_else(|| facts.credential.clone());
    if let Some(place) = &proof.place {
        proof.is_guard = facts.credential.as_ref() != Some(place);
        proof.scheme = proof.is_guard.then(|| Scheme::credential(place.clone()));
        proof.description = describe_guard(place);
    }
    match (&proof.place, !has_secrets) {
        (Some(_), false) => {}
        (Some(place), true) => {
            let open = accept_unverified.is_some_and(|at| at.value) || proof.has_other_guard();
            let written = guard.is_some() || has_token;
            if written || !open {
                problems.error(
                    &section.place().clone(),
                    format!("the guard ({}) has no secret to compare with", describe_guard(place)),
                    "add secrets = [{ file = \"…\" }]",
                );
            } else {
                open_up(&mut proof);
            }
        }
        // A guard that is wrong was reported.
        (None, false) if guard.is_some() => {}
        (None, false) => problems.error(
            &section.place().clone(),
            "the secrets of this source are compared with nothing: its provider signs nothing",
            format!("add {{token}} to its path, such as \"{}/{{token}}\", or guard = \"header:NAME\" or \"basic\"", path.text),
        ),
        (None, true) if accept_unverified.is_some_and(|at| at.value) || proof.has_other_guard() => open_up(&mut proof),
        (None, true) => problems.error(
            &section.place().clone(),
            "anybody could send to this source: its provider signs nothing, and there is no guard",
            format!(
                "write path = \"{}/{{token}}\" and secrets = [{{ file = \"…\" }}]; or allow = [\"…\"]; or accept_unverified = true",
                path.text
            ),
        ),
    }
    proof
}

fn open_up(proof: &mut Proof) {
    proof.place = None;
    proof.is_guard = true;
    proof.scheme = Some(Scheme::none());
    let who = match (&proof.client_cert, proof.allow.is_empty()) {
        (Some(_), true) => "client certificate",
        (Some(_), false) => "client certificate and address",
        (None, true) => "none: anybody may send",
        (None, false) => "none: by address only",
    };
    who.clone_into(&mut proof.description);
}

fn describe_guard(place: &CredentialPlace) -> String {
    match place {
        CredentialPlace::Token => "token in the path".to_owned(),
        CredentialPlace::Basic => "basic authentication".to_owned(),
        CredentialPlace::Header(name) => format!("value of the header {name}"),
        CredentialPlace::Query(name) => format!("value of the query parameter {name}"),
        CredentialPlace::Json(pointer) => format!("value at {pointer} in the body"),
    }
}

fn read_guard(problems: &Problems, at: &At<String>) -> Option<CredentialPlace> {
    const HELP: &str = "write \"token\", \"basic\" or \"header:NAME\"";
    match at.value.split_once(':') {
        None if at.value == "token" => Some(CredentialPlace::Token),
        None if at.value == "basic" => Some(CredentialPlace::Basic),
        Some(("header", name)) => {
            let header = HeaderName::try_from(name.trim()).ok();
            if header.is_none() {
                problems.error(&at.place, format!("`guard`: \"{name}\" is not the name of a header"), HELP);
            }
            header.map(CredentialPlace::Header)
        }
        _ => {
            problems.error(&at.place, format!("`guard`: \"{}\" is not a guard", at.value), HELP);
            None
        }
    }
}

pub(super) fn decode(
    reader: &Reader<'_>,
    secrets: &[SecretText],
    provider: Option<&Provider>,
    proof: &Proof,
) -> Vec<(SecretKey, Place)> {
    let Some(provider) = provider else { return Vec::new() };
    let decode = |secret: &SecretText| match &proof.place {
        None => secret.decode(reader, provider.key_format, provider.allow_short),
        Some(CredentialPlace::Token) => secret.credential(reader, provider.allow_short, path::token_fits),
        Some(CredentialPlace::Basic) => secret.credential(reader, provider.allow_short, |text| {
            if text.contains(':') { Ok(()) } else { Err("basic authentication is \"user:password\"") }
        }),
        Some(CredentialPlace::Query(_) | CredentialPlace::Json(_)) => {
            secret.credential(reader, provider.allow_short, |_| Ok(()))
        }
        Some(CredentialPlace::Header(_)) => secret.credential(reader, provider.allow_short, |text| {
            let fits = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
            if fits { Ok(()) } else { Err("the value of a header has neither line ends nor spaces around it") }
        }),
    };
    secrets.iter().filter_map(|secret| Some((secret.key(decode(secret)?), secret.place.clone()))).collect()
}
