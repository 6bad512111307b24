//! Client address and certificate, well-formedness, and a place among the requests in flight: 400, 401, 403, 503.
//!
//! Nothing here belongs to a source but its address list and what it asks of certificates: what is unverified takes
//! only from the server's own limits, and of those only the share of its client address and of all that is unverified.

use std::sync::Arc;

use http::{HeaderValue, Version, header, request::Parts, uri::Authority};

use super::{
    Gate, Rejection,
    select::{Cx, Selected, Unproven},
};
use crate::{http::connected::Connected, secret::Secret};

/// A webhook that may try to prove itself.
pub(super) struct Admitted {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) token: Option<Secret>,
}

pub(super) fn admit(gate: &Gate, selected: Selected) -> Result<Admitted, Rejection> {
    let Selected { mut cx, head, token } = selected;
    if !is_well_formed(&head) {
        return Err(Rejection::Malformed);
    }
    let allow = &cx.route.source.allow;
    // Fails closed: where there is a list, a client without an address is on none of it.
    if !allow.is_empty() && !cx.exchange.peer.is_some_and(|ip| allow.iter().any(|net| net.contains(&ip))) {
        return Err(Rejection::AddressNotAllowed);
    }
    if let Some(wanted) = &cx.route.client_cert
        && !shows(&head, |chain| wanted.accepts(chain, cx.exchange.came_at))
    {
        return Err(Rejection::ClientCertificate);
    }
    // Before the places that all share, so that who is turned away here takes none.
    let peer = cx.exchange.peer;
    let (mut place, bytes) = (gate.unproven_requests.share(peer), gate.unproven_bytes.share(peer));
    if !place.grow(1) {
        return Err(Rejection::TooManyInFlight);
    }
    let permit = gate.in_flight.clone().try_acquire_owned().map_err(|_| Rejection::TooManyInFlight)?;
    cx.permits.push(Arc::new(permit));
    // Last: it may end another upload, which is not to be in vain.
    let seat = gate.crowd.enter(gate.clock.monotonic()).ok_or(Rejection::TooManyInFlight)?;
    cx.unproven = Some(Unproven { _place: place, bytes, seat: Some(seat) });
    Ok(Admitted { cx, head, token })
}

/// Whether the client showed certificates over TLS, and they are right. Fails closed: over a plaintext connection
/// nobody shows any.
fn shows(head: &Parts, right: impl FnOnce(&[Box<[u8]>]) -> bool) -> bool {
    let connected = head.extensions.get::<Arc<Connected>>();
    let session = connected.and_then(|connected| connected.tls.as_ref());
    session.and_then(|session| session.client_chain.as_deref()).is_some_and(right)
}

/// What hyper lets through and a proxy behind or in front of us might read otherwise.
fn is_well_formed(head: &Parts) -> bool {
    let Parts { uri, headers, version, .. } = head;
    let mut hosts = headers.get_all(header::HOST).iter();
    // It is passed on as `x-forwarded-host`.
    let is_host = |value: &HeaderValue| Authority::try_from(value.as_bytes()).is_ok_and(|a| !a.as_str().contains('@'));
    // HTTP/1.0 need not name one.
    let one_host = hosts.next().map_or(*version == Version::HTTP_10, is_host) && hosts.next().is_none();
    let chunked_once = headers.get_all(header::TRANSFER_ENCODING).iter().count() <= 1
        && headers.get(header::TRANSFER_ENCODING).is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    // A header named in Connection is hop-by-hop: a proxy would strip it, so it may not be a signature.
    let only_hops = headers.get_all(header::CONNECTION).iter().all(|value| {
        value.as_bytes().split(|byte| *byte == b',').all(|token| {
            let token = token.trim_ascii();
            [&b"close"[..], b"keep-alive", b"te", b"upgrade", b"http2-settings", b""]
                .iter()
                .any(|known| token.eq_ignore_ascii_case(known))
        })
    });
    uri.authority().is_none() && one_host && chunked_once && only_hops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, lines: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::post(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_request_that_two_parsers_could_read_differently_is_malformed() {
        let is_well_formed = |lines: &[(&'static str, &'static str)]| is_well_formed(&head("/hooks/a", lines));
        assert!(is_well_formed(&[("host", "a"), ("connection", "Keep-Alive, close")]));
        assert!(is_well_formed(&[("host", "a"), ("transfer-encoding", "Chunked")]));
        for wrong in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", "a b")],
            &[("host", "me@a")],
            &[("host", "a/b")],
            &[("host", "a"), ("connection", "x-ps-signature")],
            &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
            &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(!is_well_formed(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_path_alone_says_where_it_goes() {
        assert!(!is_well_formed(&head("http://other/hooks/a", &[("host", "a")])));
    }

    #[test]
    fn the_version_that_had_no_host_may_leave_it_out() {
        let is_well_formed = |lines: &[(&'static str, &'static str)]| {
            let mut head = head("/hooks/a", lines);
            head.version = Version::HTTP_10;
            is_well_formed(&head)
        };
        assert!(is_well_formed(&[]));
        assert!(!is_well_formed(&[("host", "")]));
        assert!(!is_well_formed(&[("host", "a"), ("host", "b")]));
    }
}
