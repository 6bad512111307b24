//! Whose request it is, held against a model that reads from the left.
//!
//! Input: the peer's address (anything else is a Unix socket) on a line, trusted networks separated by spaces on a line, and
//! lines of `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    given::{cut, headers, text},
    wire::{connected::Connected, forwarded},
};

pub fn run(data: &[u8]) {
    let (peer, rest) = cut(data, b'\n');
    let (networks, rest) = cut(rest, b'\n');
    let peer: Option<IpAddr> = text(peer).parse().ok().map(|address: IpAddr| address.to_canonical());
    let trusted: Vec<ipnet::IpNet> = text(networks).split(' ').filter_map(|network| network.parse().ok()).collect();
    let map = headers(rest.split(|byte| *byte == b'\n').map(|line| ("x-forwarded-for", line)));
    let connected = Connected { address: peer, is_unix: peer.is_none(), tls: None };
    let found = forwarded::client(&connected, &map, &trusted);

    let is_trusted = |address: IpAddr| trusted.iter().any(|network| contains(network, address));
    if peer.is_some_and(|peer| !is_trusted(peer)) {
        assert_eq!(found, peer, "nobody believes this peer");
        return;
    }
    let lines = map.get_all("x-forwarded-for");
    let entries: Vec<_> =
        lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(address).collect();
    // Left to right: each entry is believed if everybody from there to us is a trusted proxy.
    let believed = (0..entries.len())
        .find(|at| entries[*at].is_some() && entries[at + 1..].iter().all(|entry| entry.is_some_and(is_trusted)));
    let expected = believed.and_then(|at| entries[at]).or(peer);
    assert_eq!(found, expected, "{entries:?}");
    if let (Some(found), Some(at)) = (found, believed) {
        assert!(entries[at..].contains(&Some(found)), "it was written");
        let left = &entries[..at];
        assert!(is_trusted(found) || left.iter().all(|entry| *entry != Some(found)) || entries[at] == Some(found));
    }
}

/// An address, one in brackets, or either of them with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches(|c: char| c.is_ascii_whitespace());
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let found: IpAddr = if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']')?;
        let inside = match behind.strip_prefix(':') {
            Some(port) if is_port(port) => {
                // With a port, it may say which interface it is of.
                let zoned = inside
                    .split_once('%')
                    .filter(|(_, zone)| zone.bytes().all(|byte| byte.is_ascii_digit()) && zone.parse::<u32>().is_ok());
                zoned.map_or(inside, |(address, _)| address)
            }
            None if behind.is_empty() => inside,
            _ => return None,
        };
        inside.parse::<Ipv6Addr>().ok()?.into()
    } else {
        match text.split_once(':') {
            Some((v4, port)) if !port.contains(':') && is_port(port) => IpAddr::V4(v4.parse().ok()?),
            _ => text.parse().ok()?,
        }
    };
    Some(found.to_canonical())
}

/// By comparing bits.
fn contains(network: &ipnet::IpNet, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    };
    let ((width, one), (other_width, other)) = (bits(network.addr()), bits(address));
    let beyond = width - u32::from(network.prefix_len());
    width == other_width && one.checked_shr(beyond).unwrap_or(0) == other.checked_shr(beyond).unwrap_or(0)
}
