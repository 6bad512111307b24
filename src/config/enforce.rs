//! `enforce` and `enforce_until` of a source: the time in which what does not verify is let through.

use std::time::Duration;

use super::{load::Reader, model::Lenient};
use crate::{document::Section, time::Wall};

/// The longest such time.
const LENIENT_MAX: Duration = Duration::from_hours(30 * 24);

/// `None`: what does not verify is refused, as always.
pub(super) fn read(reader: &Reader<'_>, section: &mut Section<'_>) -> Option<Lenient> {
    const HELP: &str = "write enforce = false and enforce_until = \"2026-12-01T00:00:00Z\", at most 30 days ahead; from then on \
                        what does not verify is refused";
    let enforce = section.read::<bool>("enforce");
    let until_place = section.peek_place("enforce_until");
    let until = section.read::<Wall>("enforce_until");
    let problems = reader.problems;
    match (enforce.filter(|at| !at.value), until) {
        (None, None) => None,
        (None, Some(at)) => {
            problems.error(&at.place, "`enforce_until` has no effect without enforce = false", "take it out");
            None
        }
        (Some(at), None) => {
            if until_place.is_none() {
                problems.error(&at.place, "enforce = false needs `enforce_until`", HELP);
            }
            None
        }
        (Some(enforce), Some(until)) => {
            let now = reader.options.now;
            if until.value > now.plus(LENIENT_MAX) {
                problems.error(&until.place, "`enforce_until` is more than 30 days ahead", HELP);
            } else if until.value <= now {
                problems.warn(
                    &until.place,
                    "`enforce_until` is over: what does not verify is refused",
                    "take both keys out",
                );
            } else {
                let message = "what does not verify is let through, marked hookward-verified: false";
                problems.warn(
                    &enforce.place,
                    message,
                    "take `enforce` out once the counts of refused webhooks are right",
                );
            }
            Some(Lenient { until: until.value })
        }
    }
}
