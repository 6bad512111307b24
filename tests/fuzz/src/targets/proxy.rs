//! Headers of the PROXY protocol, read as a listener reads them: never a byte more than certainly belongs to one. Input:
//! what comes on a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::proxy_protocol::{Announced, Header, parse};

/// More than any header has.
const BYTES_MAX: usize = 16 + 216 + 1024;

pub fn run(data: &[u8]) {
    let Some((announced, taken)) = read(data) else { return };
    assert!(taken <= BYTES_MAX, "{taken} bytes");
    let header = &data[..taken];
    // What follows changes nothing, and no beginning of it is a header.
    let other = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(read(&other), Some((announced, taken)));
    assert!((0..taken).all(|end| !matches!(parse(&header[..end]), Ok(Header::Whole(_)))), "it was whole before");

    let expected = if header.starts_with(b"PROXY ") { line(header) } else { binary(header) };
    assert_eq!(announced, expected.expect("the other reader takes it as well"));
}

/// What is announced, and how many bytes were taken.
fn read(data: &[u8]) -> Option<(Announced, usize)> {
    let mut taken = 0;
    loop {
        match parse(&data[..taken]).ok()? {
            Header::Whole(announced) => return Some((announced, taken)),
            Header::Unfinished(more) => {
                assert!(more > 0, "it would wait for ever");
                taken = taken.checked_add(more).filter(|taken| *taken <= data.len())?;
            }
        }
    }
}

fn line(header: &[u8]) -> Option<Announced> {
    let text = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    if text.contains(['\r', '\n']) || text.len() > 105 {
        return None;
    }
    let words: Vec<&str> = text.split(' ').collect();
    if words.get(1) == Some(&"UNKNOWN") {
        return Some(Announced::Proxy);
    }
    let [_, family, source, target, ports @ ..] = words.as_slice() else { return None };
    let (source, target): (IpAddr, IpAddr) = (source.parse().ok()?, target.parse().ok()?);
    let agrees = match *family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    let ports_are = ports.len() == 2 && ports.iter().all(|port| port.parse::<u16>().is_ok());
    (agrees && ports_are).then(|| Announced::Client(source.to_canonical()))
}

fn binary(header: &[u8]) -> Option<Announced> {
    let (command, family) = (*header.get(12)?, *header.get(13)?);
    let rest = header.get(16..)?;
    let length = usize::from(header[14]) * 256 + usize::from(header[15]);
    if rest.len() != length {
        return None;
    }
    match (command, family) {
        (0x20, _) | (0x21, 0) => Some(Announced::Proxy),
        (0x21, 0x11) => {
            let octets: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            (length >= 12).then_some(Announced::Client(Ipv4Addr::from(octets).into()))
        }
        (0x21, 0x21) => {
            let octets: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            (length >= 36).then(|| Announced::Client(IpAddr::from(Ipv6Addr::from(octets)).to_canonical()))
        }
        (0x21, 0x31) => (length >= 216).then_some(Announced::Unix),
        _ => None,
    }
}
