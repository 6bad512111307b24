//! Who has to leave when what is not verified yet has no room left: a choice, given how each upload gets on.
//!
//! Bytes and places are asked for apart. Where bytes are short, an upload is judged by what its bytes are *worth*: how
//! many seconds of its present pace it would take to bring them again. One that stalls holds what is worth much and
//! brings nothing; one at full speed holds nothing old. Where places are short, all hold the same, and the slowest
//! leaves. Whoever wants the room is judged as well, and gets it only from somebody who is worse.
//!
//! So nobody can push out an upload at full speed: what arrived within [`WINDOW`] makes up half of it, and that protects
//! it. To have any other upload pushed out, an attacker has to hold the room with uploads of a better pace, which costs
//! bandwidth in proportion: to hold all of it against an upload that has been going for ten seconds takes a tenth of it
//! in new bytes every second. Who stops paying is the next to leave.

use std::time::Duration;

use tokio::time::Instant;

/// The time that counts as now.
pub const WINDOW: Duration = Duration::from_secs(2);
/// Bytes per second that everybody is credited with, so that small bodies are worth little although they wait: what
/// holds up to four seconds of it is never ended for its bytes.
const CREDIT: u64 = 4 << 10;
/// Bytes that are worth up to this are let be, in seconds of the upload's own pace.
const FAIR_S: u64 = 4;
/// In its first second nobody has to leave its place.
const GRACE: Duration = Duration::from_secs(1);
/// Nor does who is at least that fast, in bytes per second.
const FAST: u64 = 64 << 10;

/// How one upload gets on. Two counters stand for the sliding window, so that it costs the same at any number of frames.
#[derive(Clone, Debug)]
pub struct Pace {
    began: Instant,
    /// Where the present half of the window began, and what arrived in it and in the one before.
    half_began: Instant,
    present: u64,
    before: u64,
    /// All that arrived.
    brought: u64,
    /// Bytes of the budget that it holds.
    held: u64,
}

/// What an upload is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Since it was admitted.
    pub age: Duration,
    /// Bytes that arrived within [`WINDOW`].
    pub recent: u64,
    /// Bytes that arrived at all.
    pub brought: u64,
    /// Bytes that it holds and that others would get.
    pub held: u64,
}

impl Pace {
    /// Of an upload that begins.
    pub fn new(now: Instant) -> Self {
        Self { began: now, half_began: now, present: 0, before: 0, brought: 0, held: 0 }
    }

    /// So many bytes arrived.
    pub fn received(&mut self, bytes: u64, now: Instant) {
        let since = now.saturating_duration_since(self.half_began);
        if since >= WINDOW {
            self.before = if since < WINDOW * 2 { self.present } else { 0 };
            (self.half_began, self.present) = (now, 0);
        }
        self.present = self.present.saturating_add(bytes);
        self.brought = self.brought.saturating_add(bytes);
    }

    /// It holds so many bytes more.
    pub fn holds(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
    }

    /// How it stands now.
    pub fn standing(&self, now: Instant) -> Standing {
        let since = now.saturating_duration_since(self.half_began);
        // What is left in the window of a counter that began so long ago, as if it had come evenly.
        let part = |bytes: u64, gone: Duration| {
            let left_ms = WINDOW.saturating_sub(gone).as_millis();
            u64::try_from(u128::from(bytes) * left_ms / WINDOW.as_millis()).unwrap_or(bytes)
        };
        let recent = if since < WINDOW {
            self.present.saturating_add(part(self.before, since))
        } else {
            part(self.present, since.saturating_sub(WINDOW))
        };
        Standing { age: now.saturating_duration_since(self.began), recent, brought: self.brought, held: self.held }
    }
}

impl Standing {
    /// What its bytes are worth: milliseconds of its pace. A buffer that has just grown holds more than was brought, which
    /// is not the client's doing.
    fn worth_ms(&self) -> u64 {
        let pace = self.recent / WINDOW.as_secs() + CREDIT;
        self.held.min(self.brought).saturating_mul(1000) / pace
    }
    fn may_lose_bytes(&self) -> bool {
        self.held > 0 && self.worth_ms() > FAIR_S * 1000
    }
    fn may_lose_place(&self) -> bool {
        self.age >= GRACE && self.recent / WINDOW.as_secs() < FAST
    }
}

/// Which uploads end so that `wanted` bytes come free for `newcomer`, worst first; nobody if that is not enough.
pub fn for_bytes<K: Copy>(uploads: impl Iterator<Item = (K, Standing)>, newcomer: Standing, wanted: u64) -> Vec<K> {
    let worse = |standing: &Standing| standing.may_lose_bytes() && standing.worth_ms() > newcomer.worth_ms();
    let mut worse: Vec<_> = uploads.filter(|(_, standing)| worse(standing)).collect();
    worse.sort_by_key(|(_, standing)| std::cmp::Reverse((standing.worth_ms(), standing.held)));
    let mut freed = 0_u64;
    let mut ended = Vec::new();
    for (key, standing) in worse {
        if freed >= wanted {
            break;
        }
        freed = freed.saturating_add(standing.held);
        ended.push(key);
    }
    if freed >= wanted { ended } else { Vec::new() }
}

/// Which upload ends so that somebody else gets its place: the slowest, of those the oldest.
pub fn for_place<K: Copy>(uploads: impl Iterator<Item = (K, Standing)>) -> Option<K> {
    let slow = uploads.filter(|(_, standing)| standing.may_lose_place());
    slow.min_by_key(|(_, standing)| (standing.recent, std::cmp::Reverse(standing.age))).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(age_s: u64, recent: u64, held: u64) -> Standing {
        Standing { age: Duration::from_secs(age_s), recent, brought: held, held }
    }

    fn of(all: &[Standing]) -> impl Iterator<Item = (usize, Standing)> + Clone {
        all.iter().copied().enumerate()
    }

    /// A small webhook that has just come.
    const SMALL: Standing = Standing { age: Duration::ZERO, recent: 1024, brought: 1024, held: 0 };

    #[test]
    fn a_stalled_upload_leaves_before_a_slow_one_and_one_at_full_speed_stays() {
        let all = [at(9, 0, 1 << 20), at(9, 40_000, 1 << 20), at(9, 1 << 20, 1 << 20), at(1, 8 << 10, 8 << 10)];
        assert_eq!(for_bytes(of(&all), SMALL, 1024), [0]);
        assert_eq!(for_bytes(of(&all), SMALL, 2 << 20), [0, 1]);
        assert_eq!(for_bytes(of(&all), SMALL, 3 << 20), [0; 0], "nobody ends in vain");
        assert_eq!(for_place(of(&all)), Some(0));
        assert_eq!(for_place(of(&all[2..3])), None);
    }

    #[test]
    fn a_small_body_that_waits_is_let_be_and_a_stalled_newcomer_gets_nothing_of_others() {
        assert!(for_bytes(of(&[at(60, 0, 16 << 10)]), SMALL, 1).is_empty());
        let slow = at(9, 40_000, 1 << 20);
        assert!(for_bytes(of(&[slow]), at(9, 1000, 1 << 20), 1024).is_empty());
    }

    #[tokio::test]
    async fn the_window_slides() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let ms = Duration::from_millis;
        pace.received(1000, began);
        assert_eq!(pace.standing(began + ms(1999)).recent, 1000);
        assert_eq!(pace.standing(began + ms(3000)).recent, 500);
        assert_eq!(pace.standing(began + ms(4000)).recent, 0);
        pace.received(1000, began + ms(2000));
        assert_eq!(pace.standing(began + ms(3000)).recent, 1500);
        pace.received(10, began + ms(60_000));
        assert_eq!(pace.standing(began + ms(60_000)).recent, 10, "what came long ago is forgotten");
    }

    fn standing() -> impl Strategy<Value = Standing> {
        (0u64..60, 0u64..(4 << 20), 0u64..(2 << 20)).prop_map(|(age_s, recent, held)| at(age_s, recent, held))
    }

    proptest! {
        /// Whatever others do, and whoever asks for however much.
        #[test]
        fn what_comes_at_full_speed_is_never_ended(
            others in proptest::collection::vec(standing(), 0..40), newcomer in standing(),
            held in 1u64..(32 << 20), wanted in 1u64..(64 << 20), age_s in 0u64..60,
        ) {
            // Half of it within the window.
            let genuine = at(age_s, held.div_ceil(2), held);
            let all: Vec<_> = others.into_iter().chain([genuine]).collect();
            prop_assert!(!for_bytes(of(&all), newcomer, wanted).contains(&(all.len() - 1)));
            let fast = at(age_s, FAST * WINDOW.as_secs(), held);
            let all: Vec<_> = all.into_iter().chain([fast]).collect();
            prop_assert_ne!(for_place(of(&all)), Some(all.len() - 1));
        }

        /// Who ends is no better than who stays, and no better than who gets the room.
        #[test]
        fn the_worst_end_and_only_as_many_as_it_takes(
            all in proptest::collection::vec(standing(), 0..40), newcomer in standing(), wanted in 1u64..(8 << 20),
        ) {
            let ended = for_bytes(of(&all), newcomer, wanted);
            for (index, stays) in of(&all).filter(|(index, stays)| !ended.contains(index) && stays.held > 0) {
                for &other in &ended {
                    prop_assert!(all[other].worth_ms() >= stays.worth_ms(), "{other} ended before {index}");
                }
            }
            prop_assert!(ended.iter().all(|&index| all[index].worth_ms() > newcomer.worth_ms()));
            let freed: u64 = ended.iter().map(|&index| all[index].held).sum();
            let without_last: u64 = ended.iter().rev().skip(1).map(|&index| all[index].held).sum();
            prop_assert!(ended.is_empty() || freed >= wanted && without_last < wanted);
        }

        /// The price of pushing out: those who stay brought what they hold at a better pace.
        #[test]
        fn to_stay_when_another_ends_costs_bandwidth_in_proportion(
            attackers in proptest::collection::vec(standing(), 1..40), slow in standing(),
        ) {
            let all: Vec<_> = attackers.iter().copied().chain([slow]).collect();
            let ended = for_bytes(of(&all), SMALL, 1);
            if ended == [all.len() - 1] {
                for attacker in attackers {
                    let pace = attacker.recent / WINDOW.as_secs() + CREDIT;
                    prop_assert!(attacker.held * 1000 <= pace * (slow.worth_ms() + 1));
                }
            }
        }

        /// The counters never say more than arrived, and all of what arrived just now.
        #[test]
        fn a_pace_counts_what_arrived(steps in proptest::collection::vec((0u64..3000, 0u64..100_000), 1..60)) {
            let began = tokio::time::Instant::now();
            let (mut now, mut sum, mut pace) = (began, 0, Pace::new(began));
            for (gap_ms, bytes) in steps {
                now += Duration::from_millis(gap_ms);
                pace.received(bytes, now);
                sum += bytes;
                let recent = pace.standing(now).recent;
                prop_assert!(bytes <= recent && recent <= sum);
            }
            prop_assert_eq!(pace.standing(now + WINDOW * 2).recent, 0);
        }
    }
}
