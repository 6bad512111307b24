//! Signed times: read strictly, compared with the clock exactly.

use std::time::Duration;

use super::{Freshness, Refusal, Stamp, Tolerance, scheme::TimeUnit};
use crate::time::Wall;

/// Digits of a timestamp.
const DIGITS_MAX: usize = 19;
const NS_PER_S: i128 = 1_000_000_000;

/// Reads a time in this unit.
pub(super) fn stamp(text: &[u8], unit: TimeUnit) -> Result<Stamp, Refusal> {
    match unit {
        TimeUnit::Rfc3339 => rfc3339(text),
        _ => number(text, unit),
    }
    .ok_or(Refusal::TimestampMalformed)
}

/// Digits only, in their one writing.
fn number(text: &[u8], unit: TimeUnit) -> Option<Stamp> {
    let fits = (1..=DIGITS_MAX).contains(&text.len());
    let canonical = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text.first() != Some(&b'0'));
    // At most 19 digits and a factor of 10^9 stay far below 2^127.
    (fits && canonical).then(|| {
        let number = text.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let is_usual = text.len() == unit.usual_digits();
        Stamp { is_usual, ..Stamp::at(text.to_vec(), number * unit.ns(), unit.ns()) }
    })
}

/// `2023-11-14T22:13:20[.123456789](Z|+01:00)` and nothing else of the format's freedom.
fn rfc3339(text: &[u8]) -> Option<Stamp> {
    let shape = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text
                .iter()
                .zip(form)
                .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    let (head, rest) = text.split_at_checked(19)?;
    let decimals = match rest.strip_prefix(b".") {
        Some(rest) => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        None => 0,
    };
    let offset = &rest[if decimals > 0 { decimals + 1 } else { 0 }..];
    let fits = shape(head, b"0000-00-00T00:00:00")
        && decimals <= 9
        && (offset == b"Z" || shape(offset, b"+00:00") || shape(offset, b"-00:00"));
    if !fits {
        return None;
    }
    let at: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    let unit_ns = 10_i128.pow(9 - u32::try_from(decimals).ok()?);
    Some(Stamp::at(text.to_vec(), at.as_nanosecond(), unit_ns))
}

impl Stamp {
    /// One moment.
    pub(super) fn at(text: Vec<u8>, at_ns: i128, unit_ns: i128) -> Self {
        Self { text, at_ns, from_ns: Some(at_ns), until_ns: Some(at_ns), unit_ns, is_usual: true }
    }
    /// The clock in the unit of the stamp, rounded down.
    pub(super) fn rounded(&self, now: Wall) -> i128 {
        i128::from(now.unix_ns()).div_euclid(self.unit_ns) * self.unit_ns
    }
    pub(super) fn freshness(&self, now: Wall, tolerance: Tolerance) -> Freshness {
        let now_ns = self.rounded(now);
        let (past, future) = tolerance.ns();
        let late_ns = self.until_ns.map_or(0, |until| now_ns - until - past);
        let early_ns = self.from_ns.map_or(0, |from| from - now_ns - future);
        if late_ns > 0 {
            Freshness::Past(as_duration(late_ns))
        } else if early_ns > 0 {
            Freshness::Future(as_duration(early_ns))
        } else {
            Freshness::Fresh
        }
    }
    /// When it was signed, as far as that is said; far beyond what a clock shows it saturates.
    pub(super) fn signed_at(&self) -> Wall {
        wall(self.at_ns)
    }
    /// Until when it is fresh, but for the tolerance.
    pub(super) fn fresh_until(&self) -> Wall {
        wall(self.until_ns.unwrap_or(self.at_ns))
    }
}

fn wall(ns: i128) -> Wall {
    Wall::from_unix_ms(i64::try_from(ns.div_euclid(1_000_000)).unwrap_or(i64::MAX))
}

pub(super) fn as_duration(ns: i128) -> Duration {
    let ns = ns.max(0);
    match (u64::try_from(ns / NS_PER_S), u32::try_from(ns % NS_PER_S)) {
        (Ok(seconds), Ok(rest)) => Duration::new(seconds, rest),
        _ => Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, unit: TimeUnit) -> Option<(i128, i128)> {
        stamp(text.as_bytes(), unit).ok().map(|stamp| (stamp.at_ns, stamp.unit_ns))
    }

    #[test]
    fn every_unit_is_read_in_one_writing() {
        const NS: i128 = 1_700_000_000_000_000_000;
        assert_eq!(read("1700000000", TimeUnit::Seconds), Some((NS, NS_PER_S)));
        assert_eq!(read("1700000000000", TimeUnit::Milliseconds), Some((NS, 1_000_000)));
        assert_eq!(read("1700000000000000", TimeUnit::Microseconds), Some((NS, 1_000)));
        assert_eq!(read("1700000000000000000", TimeUnit::Nanoseconds), Some((NS, 1)));
        for (text, ns, unit) in [
            ("2023-11-14T22:13:20Z", NS, NS_PER_S),
            ("2023-11-14T22:13:20.5Z", NS + NS_PER_S / 2, 100_000_000),
            ("2023-11-14T22:13:20.000000001Z", NS + 1, 1),
            ("2023-11-14T23:13:20+01:00", NS, NS_PER_S),
            ("2023-11-14T15:13:20-07:00", NS, NS_PER_S),
        ] {
            assert_eq!(read(text, TimeUnit::Rfc3339), Some((ns, unit)), "{text}");
        }
        for wrong in ["", "01", "+1", "-1", "1.5", " 1", "1 ", "12345678901234567890"] {
            assert_eq!(read(wrong, TimeUnit::Seconds), None, "{wrong}");
        }
        for wrong in [
            "2023-11-14 22:13:20Z",
            "2023-11-14t22:13:20z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20.1234567890Z",
            "2023-11-14T22:13Z",
            "2023-02-30T22:13:20Z",
            "2023-11-14T22:13:20+0100",
            "+002023-11-14T22:13:20Z",
            "2023-11-14T22:13:20Z[UTC]",
            "1700000000",
        ] {
            assert_eq!(read(wrong, TimeUnit::Rfc3339), None, "{wrong}");
        }
    }
}
