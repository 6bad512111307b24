//! When the end of a certificate is worth a word.

use std::time::Duration;

use crate::time::Wall;

const DAY: Duration = Duration::from_hours(24);

/// How near the end of a certificate is. Each stage is told once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    Fine,
    Days21,
    Days7,
    Day1,
    Expired,
}

/// The stage of a certificate of this lifetime. A stage counts only in the last third of a lifetime: whoever renews
/// when a third is left, as ACME does here and elsewhere, hears of it only if that did not happen.
pub(super) fn stage(not_before: Wall, not_after: Wall, now: Wall) -> Stage {
    let third = (not_after.unix_s().saturating_sub(not_before.unix_s())) / 3;
    let left = not_after.unix_s().saturating_sub(now.unix_s());
    let within = |days: u32| {
        let seconds = i64::try_from((DAY * days).as_secs()).unwrap_or(i64::MAX);
        left <= seconds && seconds < third
    };
    if now > not_after {
        Stage::Expired
    } else if within(1) {
        Stage::Day1
    } else if within(7) {
        Stage::Days7
    } else if within(21) {
        Stage::Days21
    } else {
        Stage::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_weeks_of_a_certificate_are_stages_unless_it_has_only_weeks() {
        let day = 86_400;
        let at = |lifetime: i64, left: i64| {
            stage(Wall::from_unix_s(0), Wall::from_unix_s(lifetime), Wall::from_unix_s(lifetime - left))
        };
        for (lifetime, left, expected) in [
            (90 * day, 21 * day + 1, Stage::Fine),
            (90 * day, 21 * day, Stage::Days21),
            (90 * day, 7 * day + 1, Stage::Days21),
            (90 * day, 7 * day, Stage::Days7),
            (90 * day, day, Stage::Day1),
            (90 * day, 0, Stage::Day1),
            (90 * day, -1, Stage::Expired),
            // Of 47 days a third is less than 21, of six days less than seven, of one day less than all.
            (47 * day, 16 * day, Stage::Fine),
            (47 * day, 7 * day, Stage::Days7),
            (6 * day, 2 * day, Stage::Fine),
            (6 * day, day, Stage::Day1),
            (day, 60, Stage::Fine),
            (day, -60, Stage::Expired),
        ] {
            assert_eq!(at(lifetime, left), expected, "{lifetime} {left}");
        }
    }
}
