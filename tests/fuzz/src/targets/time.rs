//! Signed times, held against `jiff` and a second computation. Input: `unit now_ns past_ms future_ms` on a line, and a time.

use std::time::Duration;

use http::HeaderName;

use crate::{
    given::{URL, cut, headers, seen, text},
    time::Wall,
    verify::{Freshness, Place, Refusal, Scheme, SignaturePlace, SignedSpec, TimeUnit, Tolerance},
};

pub fn run(data: &[u8]) {
    let (line, written) = cut(data, b'\n');
    let mut words = text(line).split(' ');
    let unit = words.next().unwrap_or_default();
    let unit = TimeUnit::ALL.iter().find(|(name, _)| *name == unit).map_or(TimeUnit::Rfc3339, |(_, unit)| *unit);
    let now_ns: i64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(1_700_000_000_000_000_000);
    let mut ms = || words.next().and_then(|word| word.parse::<u32>().ok()).unwrap_or_default();
    let (past_ms, future_ms) = (ms(), ms());

    let spec = SignedSpec {
        place: SignaturePlace::Headers(vec![HeaderName::from_static("x-sig")]),
        timestamp: Some((Place::Header(HeaderName::from_static("x-time")), unit)),
        ..SignedSpec::new("{timestamp}.{body}")
    };
    let scheme = Scheme::signed(spec).expect("it fits");
    let signature = "0".repeat(64);
    let headers = headers([("x-sig", signature.as_bytes()), ("x-time", written)]);
    let on_the_wire = headers.get("x-time").map(|value| value.as_bytes().to_vec());
    let claim = match scheme.claim(seen(&headers, URL)) {
        Ok(claim) => claim,
        Err(refusal) => {
            let expected = on_the_wire.as_ref().map_or(Refusal::TimestampMissing, |_| Refusal::TimestampMalformed);
            assert_eq!(refusal, expected);
            let read = on_the_wire.and_then(|wire| read(&wire, unit));
            assert!(read.is_none(), "{read:?} was refused: {:?}", text(written));
            return;
        }
    };
    let written = on_the_wire.expect("a time is needed");
    let (at_ns, unit_ns) = read(&written, unit).expect("the other reader takes it as well");

    let at_ms = claim.timestamp().expect("a time").unix_ms();
    let clamped = at_ns.div_euclid(1_000_000).clamp(i128::from(i64::MIN / 1_000_000), i128::from(i64::MAX / 1_000_000));
    assert!(
        i128::from(at_ms).abs_diff(clamped) <= u128::from(clamped != at_ns.div_euclid(1_000_000)),
        "{at_ms} is not {clamped}"
    );
    assert_eq!(
        scheme.short_content(&claim, b"x", usize::MAX).as_deref(),
        Some([written.as_slice(), b".x"].concat().as_slice()),
        "the text is signed as it stands"
    );

    let tolerance =
        Tolerance { past: Duration::from_millis(past_ms.into()), future: Duration::from_millis(future_ms.into()) };
    let now = i128::from(now_ns).div_euclid(unit_ns) * unit_ns;
    let late = now - at_ns - i128::from(past_ms) * 1_000_000;
    let early = at_ns - now - i128::from(future_ms) * 1_000_000;
    let expected = match (u128::try_from(late), u128::try_from(early)) {
        (Ok(late), _) if late > 0 => Freshness::Past(duration(late)),
        (_, Ok(early)) if early > 0 => Freshness::Future(duration(early)),
        _ => Freshness::Fresh,
    };
    assert_eq!(claim.freshness(Wall::from_unix_ns(now_ns), tolerance), expected, "rounded to {now}, signed at {at_ns}");
}

fn duration(ns: u128) -> Duration {
    const S: u128 = 1_000_000_000;
    let rest = u32::try_from(ns % S).expect("less than a second");
    u64::try_from(ns / S).map_or(Duration::MAX, |seconds| Duration::new(seconds, rest))
}

/// Moment and precision in nanoseconds.
fn read(text: &[u8], unit: TimeUnit) -> Option<(i128, i128)> {
    let text = std::str::from_utf8(text).ok()?;
    let unit_ns = match unit {
        TimeUnit::Seconds => 1_000_000_000,
        TimeUnit::Milliseconds => 1_000_000,
        TimeUnit::Microseconds => 1_000,
        TimeUnit::Nanoseconds => 1,
        TimeUnit::Rfc3339 => return rfc3339(text),
    };
    let number: u64 = text.parse().ok().filter(|number| *number < 10_u64.pow(19))?;
    (number.to_string() == text).then_some((i128::from(number) * unit_ns, unit_ns))
}

/// `jiff` reads more than RFC 3339 has; what is not in this one writing is left out.
fn rfc3339(text: &str) -> Option<(i128, i128)> {
    let at: jiff::Timestamp = text.parse().ok()?;
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let rest = shape.strip_prefix("0000-00-00T00:00:00")?;
    let (decimals, offset) = match rest.strip_prefix('.') {
        Some(rest) => {
            let offset = rest.trim_start_matches('0');
            (Some(rest.len() - offset.len()), offset)
        }
        None => (None, rest),
    };
    let formed = matches!(offset, "Z" | "+00:00" | "-00:00") && decimals.is_none_or(|n| (1..=9).contains(&n));
    // The digits of the offset come behind those of the decimals.
    let unit_ns = 10_i128.pow(9 - u32::try_from(decimals.unwrap_or_default()).ok().filter(|n| *n <= 9)?);
    formed.then_some((at.as_nanosecond(), unit_ns))
}
