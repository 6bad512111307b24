//! Sizes and durations, always with a unit.

use std::{fmt::Write as _, time::Duration};

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `"500ms"`, `"30s"`, `"5m"`, `"72h"`, `"7d"`, or several in falling order: `"1h30m"`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total_ms, mut last) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (_, unit_ms) = *DURATIONS.iter().find(|(unit, _)| *unit == &after[..unit_end])?;
        if unit_ms >= last {
            return None;
        }
        last = unit_ms;
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = &after[unit_end..];
    }
    // Longer than a century is a typing error, and would overflow sums further on.
    (last != u64::MAX && total_ms <= 100 * 366 * 86_400_000).then(|| Duration::from_millis(total_ms))
}

/// `"64KiB"`, `"1MiB"` (1 048 576 bytes), `"1MB"` (1 000 000 bytes).
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let (_, bytes) = *SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(bytes).filter(|n| i64::try_from(*n).is_ok())
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The shortest exact writing of a duration: `1h30m`.
pub fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, unit_ms) in DURATIONS.iter().rev() {
        if ms >= *unit_ms {
            let _ = write!(out, "{}{unit}", ms / unit_ms);
            ms %= unit_ms;
        }
    }
    out
}

/// The shortest exact writing of a size in binary units: `1MiB`, else in bytes.
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_mean_what_the_documentation_says() {
        assert_eq!(parse_size("1MB"), Some(1_000_000));
        assert_eq!(parse_size("1MiB"), Some(1_048_576));
        assert_eq!(parse_duration("5m"), Some(Duration::from_mins(5)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_mins(90)));
        for wrong in ["", "5", "m", "-5m", "5 m", "5M", "1.5h", "5m1h", "5m5m", "99999999999999999999s", "1000000d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for wrong in ["", "1", "MiB", "1mib", "1 MiB", "99999999999TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_reads_back(ms in 0u64..100_000_000_000, bytes in 0u64..1 << 50) {
            prop_assert_eq!(parse_duration(&format_duration(Duration::from_millis(ms))), Some(Duration::from_millis(ms)));
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
