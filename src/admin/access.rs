//! Who may ask what.
//!
//! With tokens configured, every request but a probe needs one, and its role decides. Without, only a loopback
//! listener answers, and what threatens it is the operator's own browser: a page from elsewhere that sends
//! requests here, or that renames itself to this address (DNS rebinding). So the `Host` must be a loopback name,
//! and a request that a browser calls cross-origin is refused, with tokens or without.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts, uri::Authority};

use super::{Tokens, answer::Problem};
use crate::config::model::{AdminToken, Role};

/// The rule of one listener.
pub(super) struct Access {
    listen: SocketAddr,
    tokens: Tokens,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Who was let in, for the audit log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// On loopback without tokens.
    Loopback,
    /// With the token at this place in the configuration, counted from 1, and its role.
    Token(usize, Role),
}

impl Caller {
    /// Whether who was let in may change things.
    pub(super) fn may_operate(self) -> bool {
        match self {
            Self::Loopback => true,
            Self::Token(_, role) => role == Role::Operate,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::Token(number, _) => write!(f, "token-{number}"),
        }
    }
}

impl Access {
    pub(super) fn new(listen: SocketAddr, tokens: Tokens) -> Self {
        Self { listen, tokens }
    }

    /// Lets a request in that needs `role`, or says why not.
    pub(super) fn check(&self, request: &Parts, role: Role) -> Result<Caller, Problem> {
        // One look for the whole of a request: a reload may change them.
        let tokens = (self.tokens)();
        self.check_browser_with(request, tokens.is_empty())?;
        if tokens.is_empty() { Ok(Caller::Loopback) } else { check_token(&tokens, &request.headers, role) }
    }

    /// Whether a browser could be tricked into this request, or into reading its answer for somebody else.
    pub(super) fn check_browser(&self, request: &Parts) -> Result<(), Problem> {
        self.check_browser_with(request, (self.tokens)().is_empty())
    }

    fn check_browser_with(&self, request: &Parts, is_without_tokens: bool) -> Result<(), Problem> {
        let host = host(request);
        if is_without_tokens {
            if !self.listen.ip().is_loopback() {
                return Err(forbidden(
                    "token_required",
                    "this listener is reachable from elsewhere and no token is configured",
                    "set [admin] tokens, or listen on 127.0.0.1",
                ));
            }
            if !host.as_ref().is_some_and(|host| self.is_local(host)) {
                return Err(forbidden(
                    "host_not_allowed",
                    "without tokens, the Host of a request must be 127.0.0.1, localhost or [::1]",
                    "ask by one of these names, or set [admin] tokens",
                ));
            }
        }
        let headers = &request.headers;
        let origin_ok = headers
            .get_all(header::ORIGIN)
            .iter()
            .all(|origin| host.as_ref().is_some_and(|host| same_origin(origin, host)));
        let site_ok =
            headers.get_all("sec-fetch-site").iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        if origin_ok && site_ok {
            return Ok(());
        }
        Err(forbidden(
            "cross_origin",
            "a page of another origin may not use the admin API",
            "open the address of the admin listener itself, or use a program that is not a browser",
        ))
    }

    fn is_local(&self, host: &Authority) -> bool {
        let name = host.host();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || matches!(name, "127.0.0.1" | "[::1]")
            || address.is_ok_and(|address| address == self.listen.ip())
    }
}

/// The one authority that the request names; `None` if there is none, several, or one that is malformed.
fn host(request: &Parts) -> Option<Authority> {
    let mut lines = request.headers.get_all(header::HOST).iter();
    let host = Authority::try_from(lines.next()?.as_bytes()).ok()?;
    let alone = lines.next().is_none();
    let plain = !host.as_str().contains('@');
    let agrees = request.uri.authority().is_none_or(|named| *named == host);
    (alone && plain && agrees).then_some(host)
}

fn same_origin(origin: &HeaderValue, host: &Authority) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let value = lines.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    (lines.next().is_none() && scheme.eq_ignore_ascii_case(b"bearer ")).then(|| token.trim_ascii())
}

fn check_token(tokens: &[AdminToken], headers: &HeaderMap, role: Role) -> Result<Caller, Problem> {
    let Some(candidate) = bearer(headers) else {
        return Err(unauthorized("token_missing", "this needs a token"));
    };
    // Every token is compared, so that the time does not tell which one it was.
    let mut found = None;
    for (index, token) in tokens.iter().enumerate() {
        if token.token.matches(candidate) {
            found = found.max(Some((token.role, index + 1)));
        }
    }
    match found {
        None => Err(unauthorized("token_unknown", "this token is not one of those configured")),
        Some((has, _)) if has < role => {
            Err(forbidden("role_too_low", "this token may only read", "use a token whose role is \"operate\""))
        }
        Some((role, number)) => Ok(Caller::Token(number, role)),
    }
}

fn unauthorized(code: &'static str, detail: &str) -> Problem {
    let help = "send `authorization: Bearer <token>` with a token of [admin] tokens; the commands take --token-file";
    Problem::new(StatusCode::UNAUTHORIZED, code, detail, help)
        .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"hookward admin\"")
}

fn forbidden(code: &'static str, detail: &str, help: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, detail, help)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::secret::Secret;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/api/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn verdict(access: &Access, headers: &[(&str, &str)], role: Role) -> Result<Caller, &'static str> {
        access.check(&parts(headers), role).map_err(|problem| problem.code())
    }

    fn on(listen: &str, tokens: &[(&str, Role)]) -> Access {
        let tokens: Vec<_> =
            tokens.iter().map(|(token, role)| AdminToken { token: Secret::new(*token), role: *role }).collect();
        Access::new(listen.parse().expect("an address"), Box::new(move || tokens.clone()))
    }

    #[test]
    fn without_tokens_only_loopback_names_are_answered() {
        let access = on("127.0.0.1:9900", &[]);
        for host in ["127.0.0.1", "127.0.0.1:9900", "localhost:1", "LOCALHOST", "[::1]:9900"] {
            assert_eq!(verdict(&access, &[("host", host)], Role::Operate), Ok(Caller::Loopback), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.", "a@localhost", "127.0.0.2", "", "::1"] {
            assert_eq!(verdict(&access, &[("host", host)], Role::Read), Err("host_not_allowed"), "{host}");
        }
        assert_eq!(verdict(&access, &[], Role::Read), Err("host_not_allowed"));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(verdict(&access, &twice, Role::Read), Err("host_not_allowed"));
    }

    #[test]
    fn without_tokens_a_listener_off_loopback_answers_nothing() {
        assert_eq!(verdict(&on("0.0.0.0:9900", &[]), &[("host", "localhost")], Role::Read), Err("token_required"));
    }

    #[test]
    fn what_a_browser_calls_cross_origin_is_refused_with_tokens_and_without() {
        for access in [on("127.0.0.1:9900", &[]), on("127.0.0.1:9900", &[("t", Role::Operate)])] {
            let base = [("host", "localhost:9900"), ("authorization", "Bearer t")];
            let with = |more: (&'static str, &'static str)| {
                let headers: Vec<_> = base.into_iter().chain([more]).collect();
                verdict(&access, &headers, Role::Read).err()
            };
            assert_eq!(with(("origin", "http://localhost:9900")), None);
            assert_eq!(with(("sec-fetch-site", "same-origin")), None);
            for origin in ["http://localhost:3000", "https://evil.example", "null", "localhost:9900", ""] {
                assert_eq!(with(("origin", origin)), Some("cross_origin"), "{origin}");
            }
            assert_eq!(with(("sec-fetch-site", "cross-site")), Some("cross_origin"));
            assert_eq!(with(("sec-fetch-site", "same-site")), Some("cross_origin"));
        }
    }

    #[test]
    fn a_token_is_needed_and_its_role_decides() {
        let access = on("10.0.0.1:9900", &[("reader", Role::Read), ("operator", Role::Operate)]);
        let ask = |authorization: &str, role| verdict(&access, &[("authorization", authorization)], role);
        assert_eq!(ask("Bearer reader", Role::Read), Ok(Caller::Token(1, Role::Read)));
        assert_eq!(ask("Bearer reader", Role::Operate), Err("role_too_low"));
        assert_eq!(ask("bearer  operator", Role::Operate), Ok(Caller::Token(2, Role::Operate)));
        for wrong in ["Bearer operato", "Bearer operatorx", "Bearer ", "Bearer reader,operator"] {
            assert_eq!(ask(wrong, Role::Read), Err("token_unknown"), "{wrong}");
        }
        for missing in ["Basic b3BlcmF0b3I=", "operator", "Bearer"] {
            assert_eq!(ask(missing, Role::Read), Err("token_missing"), "{missing}");
        }
        let twice = [("authorization", "Bearer operator"), ("authorization", "Bearer operator")];
        assert_eq!(verdict(&access, &twice, Role::Read), Err("token_missing"));
    }

    #[test]
    fn a_token_configured_with_both_roles_may_do_what_the_greater_one_may() {
        let access = on("127.0.0.1:1", &[("same", Role::Operate), ("same", Role::Read)]);
        let headers = [("host", "anything"), ("authorization", "Bearer same")];
        assert_eq!(verdict(&access, &headers, Role::Operate), Ok(Caller::Token(1, Role::Operate)));
    }
}
