//! Values with bounds, as most tables need them. What does not fit is reported and replaced by the default, so
//! that reading goes on; a model with such a value is never handed out.

use std::time::Duration;

use crate::{
    document::{FromValue, Section, Size},
    policy::Rate,
};

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

/// `rate = { per_second, burst }`, of a source or an upstream.
pub(super) fn rate(section: &mut Section<'_>) -> Option<Rate> {
    let mut section = section.section("rate")?;
    let per_second = section.required::<f64>("per_second", "write rate = { per_second = 50, burst = 200 }");
    let burst = section.read::<u32>("burst");
    let problems = section.problems();
    if let Some(at) = per_second.as_ref().filter(|at| !(at.value > 0.0 && at.value <= 1e6)) {
        problems.error(
            &at.place,
            "`rate.per_second` must be above 0 and at most 1000000",
            "take `rate` out for no limit",
        );
    }
    if let Some(at) = burst.as_ref().filter(|at| at.value == 0) {
        problems.error(&at.place, "`rate.burst` must not be 0", "nothing would ever pass");
    }
    section.finish();
    let per_second = per_second?.value;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates in a cast")]
    let burst = burst.map_or(per_second.ceil() as u32, |at| at.value);
    Some(Rate { per_second, burst })
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
