//! The PROXY protocol, versions 1 and 2: what a proxy in front says of the connection that it passes on, before the
//! first byte of TLS or HTTP. Pure: bytes in, and how many more of them certainly belong to the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What begins a header of version 2. No request begins like this, and no TLS.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// A line of version 1, with its end, is never longer.
const LINE_BYTES_MAX: usize = 107;
/// What is read of a version 2 header behind its first 16 bytes: two Unix addresses and 1 KiB of additions.
const REST_BYTES_MAX: usize = UNIX_BYTES + (1 << 10);
const UNIX_BYTES: usize = 216;

/// Whom a header speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announced {
    /// The proxy itself (a health check of its own), or nobody that it knows.
    Proxy,
    /// A client at this address.
    Client(IpAddr),
    /// A client on a Unix socket of the proxy's machine.
    Unix,
}

/// How far a header is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// At least so many more bytes belong to it; never 0.
    Unfinished(usize),
    /// It is whole.
    Whole(Announced),
}

/// It is no header, or one that no proxy writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no header of the PROXY protocol")]
pub struct NoHeader;

/// Reads what has come of a header. Whoever reads no more than [`Header::Unfinished`] says never takes a byte that
/// belongs to what follows.
pub fn parse(head: &[u8]) -> Result<Header, NoHeader> {
    // The shortest line of version 1 is longer than the signature of version 2.
    let begun = &head[..head.len().min(SIGNATURE.len())];
    if begun == &SIGNATURE[..begun.len()] {
        return if begun.len() < SIGNATURE.len() {
            Ok(Header::Unfinished(SIGNATURE.len() - begun.len()))
        } else {
            binary(&head[SIGNATURE.len()..])
        };
    }
    if !begun.starts_with(&b"PROXY "[..begun.len().min(6)]) {
        return Err(NoHeader);
    }
    if begun.len() < SIGNATURE.len() {
        return Ok(Header::Unfinished(SIGNATURE.len() - begun.len()));
    }
    line(head)
}

fn line(head: &[u8]) -> Result<Header, NoHeader> {
    let Some(text) = head.strip_suffix(b"\r\n") else {
        let goes_on = head.len() < LINE_BYTES_MAX && !head.contains(&b'\n');
        // Only its last byte can be a `\r`.
        let is_text = head[..head.len() - 1].iter().all(|byte| (b' '..0x7f).contains(byte));
        return if goes_on && is_text { Ok(Header::Unfinished(1)) } else { Err(NoHeader) };
    };
    let text = std::str::from_utf8(text).map_err(|_| NoHeader)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Header::Whole(Announced::Proxy));
    }
    let mut word = || words.next().ok_or(NoHeader);
    let (source, target) = (word()?, word()?);
    let source: IpAddr = match family {
        Some("TCP4") => both::<Ipv4Addr>(source, target)?.into(),
        Some("TCP6") => both::<Ipv6Addr>(source, target)?.into(),
        _ => return Err(NoHeader),
    };
    port(word()?)?;
    port(word()?)?;
    if word().is_ok() { Err(NoHeader) } else { Ok(Header::Whole(Announced::Client(source.to_canonical()))) }
}

/// The source, if both are addresses of one family.
fn both<A: std::str::FromStr>(source: &str, target: &str) -> Result<A, NoHeader> {
    target.parse::<A>().map_err(|_| NoHeader)?;
    source.parse().map_err(|_| NoHeader)
}

fn port(text: &str) -> Result<u16, NoHeader> {
    let written = text.parse::<u16>().map_err(|_| NoHeader)?;
    // As one writes a number, and in no other way: no sign, no leading zero.
    if written.to_string() == text { Ok(written) } else { Err(NoHeader) }
}

/// Version 2, behind its signature.
fn binary(head: &[u8]) -> Result<Header, NoHeader> {
    let [command, family, high, low, rest @ ..] = head else {
        return Ok(Header::Unfinished(4 - head.len()));
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(NoHeader),
    };
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => UNIX_BYTES,
        // Whoever speaks for itself may write anything here.
        _ if is_local => 0,
        _ => return Err(NoHeader),
    };
    if length > REST_BYTES_MAX || (!is_local && length < addresses) || rest.len() > length {
        return Err(NoHeader);
    }
    if rest.len() < length {
        return Ok(Header::Unfinished(length - rest.len()));
    }
    if is_local || *family == 0 {
        return Ok(Header::Whole(Announced::Proxy));
    }
    if !are_additions(&rest[addresses..]) {
        return Err(NoHeader);
    }
    let address: IpAddr = match family {
        0x11 => Ipv4Addr::from(*rest.first_chunk::<4>().ok_or(NoHeader)?).into(),
        0x21 => Ipv6Addr::from(*rest.first_chunk::<16>().ok_or(NoHeader)?).into(),
        _ => return Ok(Header::Whole(Announced::Unix)),
    };
    Ok(Header::Whole(Announced::Client(address.to_canonical())))
}

/// Whether it is a list of additions, each with its kind, its length and so many bytes. None of them is used.
fn are_additions(mut rest: &[u8]) -> bool {
    while let [_kind, high, low, after @ ..] = rest {
        let Some(next) = after.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        rest = next;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as the listener does, and returns what was announced and how many bytes were taken.
    fn read(bytes: &[u8]) -> Option<(Announced, usize)> {
        let mut taken = 0;
        loop {
            match parse(&bytes[..taken]).ok()? {
                Header::Whole(announced) => return Some((announced, taken)),
                Header::Unfinished(more) => {
                    assert!(more > 0);
                    taken += more;
                    if taken > bytes.len() {
                        return None;
                    }
                }
            }
        }
    }

    fn binary_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    fn client(address: &str) -> Option<Announced> {
        Some(Announced::Client(address.parse().expect("an address")))
    }

    #[test]
    fn a_line_says_whom_it_speaks_for() {
        for (line, announced) in [
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", client("203.0.113.7")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", client("2001:db8::7")),
            ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 0\r\n", client("203.0.113.7")),
            ("PROXY UNKNOWN\r\n", Some(Announced::Proxy)),
            ("PROXY UNKNOWN ffff:: :: 1 2\r\n", Some(Announced::Proxy)),
        ] {
            let request = format!("{line}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(read(request.as_bytes()).map(|(announced, _)| announced), announced, "{line}");
            assert_eq!(read(request.as_bytes()).map(|(_, taken)| taken), Some(line.len()), "no byte of the request");
        }
    }

    #[test]
    fn what_no_proxy_writes_is_no_header() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX));
        for line in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}aaaaaaaaaaaaaaaaaaa",
            "proxy TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
            "PROXY  TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 2 \r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 02\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 :: 1 2\r\n",
            "PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n",
            "PROXY UNKNOWN\r \r\n",
            "PROXY \r\n      \r\n",
            &long,
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn a_binary_header_says_whom_it_speaks_for() {
        let v4 = [&[203, 0, 113, 7, 192, 0, 2, 1][..], &[1, 2, 3, 4]].concat();
        let v6 = [&"2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets()[..], &[0; 20]].concat();
        let more = [&v4[..], &[0x04, 0, 3, 1, 2, 3], &[0x20, 0, 0]].concat();
        let unix = vec![b'/'; UNIX_BYTES];
        for (header, announced) in [
            (binary_header(0x21, 0x11, &v4), client("203.0.113.7")),
            (binary_header(0x21, 0x21, &v6), client("2001:db8::7")),
            (binary_header(0x21, 0x11, &more), client("203.0.113.7")),
            (binary_header(0x21, 0x31, &unix), Some(Announced::Unix)),
            (binary_header(0x21, 0x00, &[]), Some(Announced::Proxy)),
            (binary_header(0x20, 0x00, &[]), Some(Announced::Proxy)),
            (binary_header(0x20, 0x11, &v4), Some(Announced::Proxy)),
            (binary_header(0x20, 0xff, &[1, 2, 3]), Some(Announced::Proxy)),
            (binary_header(0x21, 0x11, &vec![0; 12 + (3 << 8)]), client("0.0.0.0")),
            // Another command, another version, datagrams, too short, too long, additions that do not add up.
            (binary_header(0x22, 0x11, &v4), None),
            (binary_header(0x11, 0x11, &v4), None),
            (binary_header(0x21, 0x12, &v4), None),
            (binary_header(0x21, 0x11, &v4[..11]), None),
            (binary_header(0x21, 0x21, &v4), None),
            (binary_header(0x21, 0x11, &[0; REST_BYTES_MAX + 1]), None),
            (binary_header(0x20, 0x00, &[0; REST_BYTES_MAX + 1]), None),
            (binary_header(0x21, 0x11, &[&v4[..], &[4, 0, 9, 1]].concat()), None),
            (binary_header(0x21, 0x11, &[&v4[..], &[4, 0]].concat()), None),
        ] {
            let length = header.len();
            let bytes = [header, b"\x16\x03\x01".to_vec()].concat();
            let expected = announced.map(|announced| (announced, length));
            assert_eq!(read(&bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_address_comes_back_and_nothing_of_what_follows_is_taken(
            v4: [u8; 4], v6: [u8; 16], source: u16, target: u16, additions in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8), after: Vec<u8>,
        ) {
            let additions: Vec<u8> = additions
                .iter()
                .flat_map(|(kind, value)| [&[*kind, 0, u8::try_from(value.len()).expect("short")][..], value].concat())
                .collect();
            let (four, six) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
            let ports = [source.to_be_bytes(), target.to_be_bytes()].concat();
            for (header, address) in [
                (format!("PROXY TCP4 {four} 192.0.2.1 {source} {target}\r\n").into_bytes(), IpAddr::V4(four)),
                (format!("PROXY TCP6 {six} ::1 {source} {target}\r\n").into_bytes(), IpAddr::V6(six)),
                (binary_header(0x21, 0x11, &[&v4[..], &[1; 4], &ports, &additions].concat()), IpAddr::V4(four)),
                (binary_header(0x21, 0x21, &[&v6[..], &[1; 16], &ports, &additions].concat()), IpAddr::V6(six)),
            ] {
                let bytes = [&header[..], &after].concat();
                prop_assert_eq!(read(&bytes), Some((Announced::Client(address.to_canonical()), header.len())));
                prop_assert_eq!(read(&header[..header.len() - 1]), None);
            }
        }

        #[test]
        fn no_bytes_are_a_panic_or_endless(at: prop::sample::Index, byte: u8, bytes: Vec<u8>) {
            for mut header in [
                b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n".to_vec(),
                binary_header(0x21, 0x11, &[7; 20]),
                [b"PROXY ", &bytes[..]].concat(),
                [&SIGNATURE[..], &bytes].concat(),
                bytes,
            ] {
                if !header.is_empty() {
                    let at = at.index(header.len());
                    header[at] = byte;
                }
                header.resize(header.len() + 2000, b' ');
                if let Some((_, taken)) = read(&header) {
                    prop_assert!(taken <= 16 + REST_BYTES_MAX);
                }
            }
        }
    }
}
