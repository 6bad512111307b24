//! Time, by Welch's t-test of two classes, measured in random order.

use std::hint::black_box;

use hookward::time::Clock;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Case, Class, Trial, measured_verification};

/// Batches of a pair. What happens to one of them by chance is not in the middle of all.
const BATCHES: usize = 21;
/// Measurements in a batch, of both classes together.
const MEASUREMENTS: usize = 6_000;
/// Of all measurements these are kept, the quickest: the others were interrupted.
const KEPT_PERCENT: usize = 80;
/// |t| above this in the middle of all batches is a leak. By chance it is above 1 once in a thousand pairs.
pub const LEAKS_FROM: f64 = 4.5;

/// The pairs of classes that must not be told apart.
const PAIRS: [(Class, Class); 5] = [
    (Class::FirstByte, Class::LastByte),
    (Class::OtherKey, Class::LastByte),
    (Class::OtherKey, Class::FirstByte),
    (Class::OtherKey, Class::OtherBody),
    (Class::First, Class::Second),
];

/// The pair that differs most, and by how much.
pub struct Worst {
    pub pair: String,
    pub t: f64,
}

/// Measures every pair that the case has.
pub fn worst_pair(case: &Case) -> Worst {
    let mut worst = Worst { pair: "none".to_owned(), t: 0.0 };
    for (one, other) in PAIRS {
        let Some(t) = pair(case, one, other) else { continue };
        if t >= worst.t {
            worst = Worst { pair: format!("{one:?}, {other:?}"), t };
        }
    }
    worst
}

/// |t| in the middle of all batches, if the case has both classes.
pub fn pair(case: &Case, one: Class, other: Class) -> Option<f64> {
    let (a, b) = (case.trials.get(&one)?, case.trials.get(&other)?);
    let mut found: Vec<f64> = (0..BATCHES).map(|batch| batch_of(a, b, batch as u64)).collect();
    found.sort_by(f64::total_cmp);
    Some(found[BATCHES / 2].abs())
}

/// Welch's t of one batch.
fn batch_of(a: &Trial, b: &Trial, seed: u64) -> f64 {
    let mut random = StdRng::seed_from_u64(seed);
    let clock = Clock::system();
    // Something of a random size before them, so that they lie elsewhere in each batch.
    let padding = vec![0_u8; random.random_range(1..4096)];
    black_box(&padding);
    let mut measured: Vec<(bool, u64)> = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        let is_second: bool = random.random();
        // A copy each time: the allocator gives it the memory of the one before, whichever class that was of.
        let copy = black_box(if is_second { b } else { a }).copy();
        let begin = clock.monotonic();
        black_box(measured_verification(black_box(&copy)));
        measured.push((is_second, u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)));
    }
    measured.sort_by_key(|(_, ns)| *ns);
    measured.truncate(MEASUREMENTS * KEPT_PERCENT / 100);
    welch(&measured)
}

/// How many standard errors the means of the two classes lie apart.
fn welch(measured: &[(bool, u64)]) -> f64 {
    let of = |second: bool| {
        let values = measured.iter().filter(|(is_second, _)| *is_second == second).map(|(_, ns)| to_f64(*ns));
        let count = to_f64(values.clone().count() as u64).max(1.0);
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        (mean, variance / count)
    };
    let ((one, one_squared), (other, other_squared)) = (of(false), of(true));
    (one - other) / (one_squared + other_squared).sqrt().max(f64::MIN_POSITIVE)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of microseconds")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
