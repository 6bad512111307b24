//! Values with bounds, as most tables need them. What does not fit is reported and replaced by the default, so
//! that reading goes on; a model with such a value is never handed out.

use std::time::Duration;

use crate::document::{FromValue, Section, Size};

/// A duration above zero.
pub(super) fn duration(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    above_zero(section, key, default, Duration::ZERO, "\"0s\"")
}

/// A size above zero, in bytes.
pub(super) fn size(section: &mut Section<'_>, key: &'static str, default: u64) -> u64 {
    above_zero(section, key, Size(default), Size(0), "\"0B\"").0
}

/// A number above zero and up to `max`.
pub(super) fn count(section: &mut Section<'_>, key: &'static str, default: u32, max: u32) -> usize {
    let place = section.peek_place(key);
    let count = above_zero(section, key, default, 0, "0");
    if let Some(place) = place.filter(|_| count > max) {
        let name = format!("{}.{key}", section.path());
        section.problems().error(&place, format!("`{name}` must be at most {max}"), "leave it out for the default");
    }
    count as usize
}

fn above_zero<T: FromValue + PartialOrd + Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    default: T,
    zero: T,
    written: &str,
) -> T {
    let Some(at) = section.read::<T>(key) else { return default };
    if at.value <= zero {
        let name = format!("{}.{key}", section.path());
        section.problems().error(&at.place, format!("`{name}` must not be {written}"), "leave it out for the default");
        return default;
    }
    at.value
}
