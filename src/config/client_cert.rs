//! `client_cert` of a source: the certificate that its provider's clients must show.

use std::path::PathBuf;

use super::{
    certificate,
    load::{Reader, Secrets},
    model::{Authorities, ClientCert},
};
use crate::{
    document::{At, Section},
    verify::decode_hex,
};

const HELP: &str = "write client_cert = { issuer = \"partner-ca.pem\" }, or { fingerprints = [\"…\"] }: the SHA-256 of the \
                    certificate as `openssl x509 -noout -fingerprint -sha256` prints it";

pub(super) fn read(reader: &Reader<'_>, section: &mut Section<'_>) -> Option<ClientCert> {
    let mut section = section.section("client_cert")?;
    let place = section.place().clone();
    let issuer = section.read::<String>("issuer");
    let listed = section.read::<Vec<String>>("fingerprints");
    section.finish();
    match (issuer, listed) {
        (Some(at), None) => Some(ClientCert::Issuer(read_issuer(reader, &at))),
        (None, Some(at)) => {
            let read: Option<Vec<_>> = at.value.iter().map(|text| fingerprint(text)).collect();
            let read = read.filter(|read| !read.is_empty());
            if read.is_none() {
                reader.problems.error(
                    &at.place,
                    "`client_cert.fingerprints` needs SHA-256 digests of 64 hex digits",
                    HELP,
                );
            }
            read.map(ClientCert::Fingerprints)
        }
        _ => {
            reader.problems.error(&place, "`client_cert` needs either `issuer` or `fingerprints`", HELP);
            None
        }
    }
}

fn read_issuer(reader: &Reader<'_>, at: &At<String>) -> Authorities {
    let file = reader.resolve(&at.place, &PathBuf::from(&at.value));
    if reader.options.secrets == Secrets::Skip {
        return Authorities { file, roots: Vec::new() };
    }
    let roots = certificate::read_authorities(&file).unwrap_or_else(|why| {
        let help = "name a PEM file with the authorities of those clients, relative to the configuration file";
        reader.problems.error(&at.place, format!("`client_cert.issuer`: {why}"), help);
        Vec::new()
    });
    Authorities { file, roots }
}

/// 64 hex digits of either case, with or without colons.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    decode_hex(digits.as_bytes(), true)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it_and_in_no_other_way() {
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&colons), Some([0xab; 32]));
        assert_eq!(fingerprint(&"ab".repeat(32)), Some([0xab; 32]));
        for wrong in ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"+f".repeat(32), &"zz".repeat(32)] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }
}
