//! Whose request it is, when proxies stand in front: the right-most address of `X-Forwarded-For` that no trusted proxy
//! has. What stands further left is whatever somebody beyond that address wanted us to believe.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::connected::Connected;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address. Where a trusted proxy says nothing of use, it is that proxy's own: never what an untrusted
/// peer said, and never an address that was not written as one. `None` where the connection has none and says none.
pub fn client(connected: &Connected, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = connected.address;
    if !connected.is_unix && !client.is_some_and(is_trusted) {
        return client;
    }
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries {
        let Some(address) = std::str::from_utf8(entry).ok().and_then(|text| address(text.trim_ascii())) else { break };
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6);
    let parsed = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).or_else(bare);
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: Option<&str>, lines: &[&str]) -> Option<String> {
        let connected = Connected {
            address: peer.map(|peer| peer.parse().expect("an address")),
            is_unix: peer.is_none(),
            tls: None,
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a value"));
        }
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
        client(&connected, &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_right_most_address_that_is_no_trusted_proxy_is_the_client() {
        for (lines, client) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.1, 203.0.113.7, 10.0.0.9"], "203.0.113.7"),
            (&["198.51.100.1", "203.0.113.7,10.0.0.9"], "203.0.113.7"),
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            (&[], "10.0.0.1"),
            (&["unknown"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["203.0.113.7, _hidden, 10.0.0.9"], "10.0.0.9"),
            (&["203.0.113.7, "], "10.0.0.1"),
        ] {
            assert_eq!(seen(Some("10.0.0.1"), lines).as_deref(), Some(client), "{lines:?}");
        }
    }

    #[test]
    fn what_an_untrusted_peer_says_counts_for_nothing() {
        assert_eq!(seen(Some("203.0.113.9"), &["198.51.100.1"]).as_deref(), Some("203.0.113.9"));
    }

    #[test]
    fn whoever_is_on_the_unix_socket_says_for_whom_it_speaks() {
        assert_eq!(seen(None, &["198.51.100.1, 203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(seen(None, &[]), None);
        assert_eq!(seen(None, &["garbage"]), None);
    }
}
