//! One order: account, names, proofs, certificate.

use std::{error::Error as _, sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::{
    super::resolver::Challenges,
    cache::{Cache, is_for},
    transport::Transport,
};
use crate::{
    config::{
        certificate::{Certificate, provider},
        model::Acme,
    },
    time::Clock,
};

/// How long the authority may take to look, and to issue.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_mins(1));

/// Gets a certificate and keeps it. Why not: a lower-case fragment.
pub(super) async fn order(
    acme: &Acme,
    cache: &Cache,
    challenges: &Challenges,
    clock: &Clock,
) -> Result<Certificate, String> {
    let account = account(acme, cache).await?;
    let names: Vec<_> = acme.domains.iter().cloned().map(Identifier::Dns).collect();
    let ordered = account.new_order(&NewOrder::new(&names)).await;
    let mut order = ordered.map_err(|error| {
        if is_unknown_account(&error) {
            cache.forget_account();
        }
        explain("order", &error)
    })?;
    prove(&mut order, challenges).await?;
    let status = order.poll_ready(&POLLS).await.map_err(|error| explain("prove the names", &error))?;
    if status != OrderStatus::Ready {
        return Err(refusals(&mut order).await);
    }

    let key = KeyPair::generate().map_err(|_| "failed to make a key")?;
    let mut params = CertificateParams::new(acme.domains.clone()).map_err(|_| "failed to write the request")?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(|_| "failed to write the request")?;
    order.finalize_csr(request.der()).await.map_err(|error| explain("finish the order", &error))?;
    let chain = order.poll_certificate(&POLLS).await.map_err(|error| explain("get the certificate", &error))?;

    let key = Zeroizing::new(key.serialize_pem());
    let certificate = Certificate::from_pem(&chain, &key).map_err(|why| format!("the certificate: {why}"))?;
    if !is_for(&certificate, &acme.domains) {
        return Err("the certificate is for other names".to_owned());
    }
    if certificate.not_after <= clock.wall() {
        return Err("the certificate has expired already; look at the clock of this machine".to_owned());
    }
    cache.keep_certificate(&key, &chain);
    Ok(certificate)
}

/// The kept account, or a new one.
async fn account(acme: &Acme, cache: &Cache) -> Result<Account, String> {
    let transport = || Transport::new(acme).map(|transport| Account::builder_with_http(Box::new(transport)));
    let kept = cache.account().and_then(|text| serde_json::from_str(&text).ok());
    if let Some(credentials) = kept {
        let builder = transport().map_err(|error| error.to_string())?;
        let account = builder.from_credentials(credentials).await;
        return account.map_err(|error| explain("reach the authority", &error));
    }
    let contact: Vec<_> = acme.contact.iter().map(|address| format!("mailto:{address}")).collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let builder = transport().map_err(|error| error.to_string())?;
    let created = builder.create(&new, acme.directory.to_string(), None).await;
    let (account, credentials) = created.map_err(|error| explain("open an account", &error))?;
    if let Ok(text) = serde_json::to_string(&credentials).map(Zeroizing::new) {
        cache.keep_account(&text);
    }
    Ok(account)
}

/// Answers every question for a name, and tells the authority to look.
async fn prove(order: &mut Order, challenges: &Challenges) -> Result<(), String> {
    let mut names = order.authorizations();
    while let Some(name) = names.next().await {
        let mut name = name.map_err(|error| explain("read the order", &error))?;
        match name.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err("the authority refuses a name of the order".to_owned()),
        }
        let mut challenge =
            name.challenge(ChallengeType::TlsAlpn01).ok_or("the authority does not offer tls-alpn-01")?;
        let host = challenge.identifier().to_string();
        let answer = answer(&host, challenge.key_authorization().digest().as_ref())?;
        challenges.set(&host, Arc::new(answer));
        challenge.set_ready().await.map_err(|error| explain("prove a name", &error))?;
    }
    Ok(())
}

/// The certificate that shows a digest to the authority, and is good for nothing else.
fn answer(host: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let failed = |_| "failed to make the proof for a name".to_owned();
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = provider().key_provider.load_private_key(private);
    let signing = signing.map_err(|_| "failed to make the proof for a name")?;
    // Not held against its key, as others are: who does that refuses an extension that it must know and does not.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

/// What the authority says of the names that it refused.
async fn refusals(order: &mut Order) -> String {
    let mut said = Vec::new();
    let mut names = order.authorizations();
    while let Some(Ok(name)) = names.next().await {
        let host = name.identifier().to_string();
        let problems = name.challenges.iter().filter_map(|challenge| challenge.error.as_ref()?.detail.clone());
        said.extend(problems.map(|detail| format!("{host}: {detail}")));
    }
    if said.is_empty() { "the authority refuses the order".to_owned() } else { said.join("; ") }
}

fn is_unknown_account(error: &Error) -> bool {
    const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
    matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some(UNKNOWN))
}

/// With its innermost cause, which is the one that helps.
fn explain(what: &str, error: &Error) -> String {
    let mut text = format!("failed to {what}: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.source().is_none() && !text.ends_with(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use x509_cert::der::{Decode as _, oid::ObjectIdentifier};

    use super::*;

    #[test]
    fn the_proof_for_a_name_is_a_certificate_with_the_digest_for_that_name_alone() {
        let proof = answer("hooks.example.com", &[7; 32]).expect("made");
        let certificate = x509_cert::Certificate::from_der(&proof.cert[0]).expect("a certificate");
        let extensions = certificate.tbs_certificate().extensions().expect("there are");
        // RFC 8737, section 3: id-pe-acmeIdentifier, critical, the digest as an octet string.
        let id = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.31");
        let shown = extensions.iter().find(|extension| extension.extn_id == id).expect("the extension");
        assert!(shown.critical);
        assert_eq!(shown.extn_value.as_bytes(), [&[4, 32][..], &[7; 32]].concat());
        let facts = crate::config::certificate::Facts::of(&proof.cert[0]).expect("facts");
        assert_eq!(facts.names, ["hooks.example.com"]);
    }
}
