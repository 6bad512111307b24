//! What a time out of tolerance comes from.

use std::time::Duration;

use super::{
    super::{Freshness, Stamp, time as stamps, time::as_duration},
    Cause, CauseKind, Lab, Question, TimeUnit,
};
use crate::verify::{
    Scheme,
    scheme::{Kind, Signed},
};

/// Half hours, and how far from one a clock may be on top of its zone.
const ZONE_STEP: Duration = Duration::from_mins(30);
const ZONE_SLACK: Duration = Duration::from_mins(2);
const ZONE_MAX: Duration = Duration::from_hours(14);
/// What lies further back than clocks are off was on its way for so long.
const SKEW_MAX: Duration = Duration::from_hours(1);
/// A time in another unit is at least of today.
const TODAY: Duration = Duration::from_hours(24);

/// The cause of a time that is too old or too far ahead.
pub(super) fn of(stamp: Option<&Stamp>, question: &Question<'_>, proven: bool) -> Vec<Cause> {
    let Some(stamp) = stamp else { return Vec::new() };
    let behind = match stamp.freshness(question.now, question.tolerance) {
        Freshness::Untimed | Freshness::Fresh => return Vec::new(),
        Freshness::Past(_) => true,
        Freshness::Future(_) => false,
    };
    let signed = question.scheme.as_signed();
    let unit = signed.and_then(|signed| signed.timestamp.as_ref()).map(|(_, unit)| *unit);
    let by = off(stamp, question);
    let other = unit.and_then(|wanted| {
        let is_today = |found: &TimeUnit| {
            *found != wanted && stamps::stamp(&stamp.text, *found).is_ok_and(|stamp| off(&stamp, question) <= TODAY)
        };
        let found = TimeUnit::ALL.into_iter().map(|(_, unit)| unit).find(is_today)?;
        Some(CauseKind::TimestampUnit { wanted, found })
    });
    let kind = match other {
        Some(kind) => kind,
        None if is_zone(by) => CauseKind::TimeZone { by, behind },
        None if behind && by > SKEW_MAX => CauseKind::Late { by },
        None => CauseKind::ClockSkew { by, behind },
    };
    vec![Cause { kind, proven }]
}

fn off(stamp: &Stamp, question: &Question<'_>) -> Duration {
    as_duration((stamp.rounded(question.now) - stamp.at_ns).abs())
}

fn is_zone(by: Duration) -> bool {
    let step = ZONE_STEP.as_secs();
    let beyond = by.as_secs() % step;
    by + ZONE_SLACK >= ZONE_STEP && by <= ZONE_MAX + ZONE_SLACK && beyond.min(step - beyond) <= ZONE_SLACK.as_secs()
}

impl Lab<'_> {
    /// A time that is malformed in the unit of the scheme and well-formed in another.
    pub(super) fn other_unit(&mut self, body: Option<&[u8]>) -> Option<Cause> {
        let signed = self.question.scheme.as_signed()?;
        let (place, wanted) = signed.timestamp.clone()?;
        for (_, found) in TimeUnit::ALL.into_iter().filter(|(_, unit)| *unit != wanted) {
            let changed = Signed { timestamp: Some((place.clone(), found)), ..signed.clone() };
            let scheme = Scheme(Kind::Signed(changed.into()));
            let Ok(claim) = scheme.claim(self.question.seen) else { continue };
            if claim.stamp.is_some_and(|stamp| off(&stamp, self.question) > TODAY) {
                continue;
            }
            if let Some(proven) = self.with_head(&scheme, self.question.seen.headers, body) {
                return Some(Cause { kind: CauseKind::TimestampUnit { wanted, found }, proven });
            }
        }
        None
    }
}
