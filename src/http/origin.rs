//! A request of HTTP/2 as HTTP/1.1 would have written it, so that everything behind reads one form: a path, and who is
//! asked in one `Host`.

use http::{HeaderValue, Request, Uri, header};

/// Rewrites `:authority` as `Host`. Where both are there and disagree, the URI stays as it is, and is refused like an
/// absolute URI of HTTP/1.1. `:scheme` says nothing that the connection does not say.
pub(super) fn from_http2<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let said = (hosts.next(), hosts.next());
    let host = match said {
        (None, _) => HeaderValue::from_str(authority.as_str()).ok(),
        (Some(host), None) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => Some(host.clone()),
        _ => None,
    };
    let path = request.uri().path_and_query().cloned();
    // A CONNECT has no path. It keeps its authority, and is a path that nobody has.
    let (Some(host), Some(path)) = (host, path) else { return };
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = Uri::from(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(uri: &str, hosts: &[&str]) -> (String, Vec<String>) {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().expect("a URI");
        for host in hosts {
            request.headers_mut().append(header::HOST, host.parse().expect("a value"));
        }
        from_http2(&mut request);
        let hosts = request.headers().get_all(header::HOST).iter();
        (request.uri().to_string(), hosts.map(|host| host.to_str().expect("text").to_owned()).collect())
    }

    #[test]
    fn an_authority_becomes_the_host_unless_another_is_there() {
        let of = |hosts: &[&str]| rewritten("https://hooks.example:8443/hooks/a?b=c", hosts);
        assert_eq!(of(&[]), ("/hooks/a?b=c".into(), vec!["hooks.example:8443".into()]));
        assert_eq!(of(&["Hooks.Example:8443"]).0, "/hooks/a?b=c");
        for other in [&["hooks.example"][..], &["other"], &[""], &["hooks.example:8443", "hooks.example:8443"]] {
            let (uri, hosts) = of(other);
            assert_eq!(uri, "https://hooks.example:8443/hooks/a?b=c");
            assert_eq!(hosts, other);
        }
        assert_eq!(rewritten("/hooks/a", &["a"]), ("/hooks/a".into(), vec!["a".into()]));
        assert_eq!(rewritten("hooks.example:443", &[]), ("hooks.example:443".into(), vec![]));
    }
}
