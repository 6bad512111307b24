//! The circuit breaker of one upstream.
//!
//! Closed: attempts flow. It opens when enough *distinct* events failed within the window, and enough of all
//! attempts: one event that the upstream chokes on never stops the others. Open: nothing flows, and no attempt
//! is burnt. After the pause one probe is let through (half-open): its success closes, its failure opens again.
//!
//! Events that opened it, or failed as a probe, are suspects: a caller that has another event due probes with
//! that one, else a single poisonous event could keep a healthy upstream closed off.
//!
//! Memory is bounded: distinct failures are remembered up to the number that opens, attempts are counted in
//! slices of the window, suspects are the latest few.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// `breaker = { failures, ratio, within, pause }`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Breaker {
    /// Failures of distinct events that open it,
    pub failures: u32,
    /// if they are at least this share of all attempts,
    pub ratio: f64,
    /// counted over this long.
    pub within: Duration,
    /// From opening to the probe.
    pub pause: Duration,
}

/// Suspects remembered.
const SUSPECTS_MAX: usize = 8;
/// Parts of the window in which attempts are counted.
const SLICES: u32 = 10;

/// The state as shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Flowing.
    Closed,
    /// One probe is on its way.
    HalfOpen,
    /// Paused.
    Open,
}

impl State {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
    /// The number that the metric shows: 0 closed, 1 half-open, 2 open.
    pub const fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// What may be begun now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Anything.
    Flow,
    /// One probe, preferably with an event that is no suspect.
    Probe,
    /// Nothing for this long.
    Wait(Duration),
    /// Nothing until the probe on its way has ended.
    Probing,
}

/// The right to one attempt; given back with [`Circuit::finish`].
#[derive(Debug)]
#[must_use = "an admission that is not finished keeps a half-open breaker waiting"]
pub struct Admission {
    /// The opening that it belongs to: what began before the last change of state decides nothing any more.
    era: u64,
}

/// The breaker's state machine, over whatever identifies an event.
#[derive(Clone, Debug)]
pub struct Circuit<E> {
    rule: Breaker,
    phase: Phase,
    era: u64,
    /// Distinct failing events, each at its latest failure, oldest first; at most `rule.failures`.
    failing: VecDeque<(E, Instant)>,
    /// Attempts and failures by slices of the window, oldest first; at most `SLICES + 1`.
    slices: VecDeque<Slice>,
    suspects: VecDeque<E>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    began: Instant,
    attempts: u32,
    failures: u32,
}

impl<E: Clone + PartialEq> Circuit<E> {
    /// A closed one.
    pub fn new(rule: Breaker) -> Self {
        Self {
            rule,
            phase: Phase::Closed,
            era: 0,
            failing: VecDeque::new(),
            slices: VecDeque::new(),
            suspects: VecDeque::new(),
        }
    }

    /// The state as shown to people. It stays open after the pause until a probe begins.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen => State::HalfOpen,
        }
    }

    /// What may be begun now.
    pub fn gate(&self, now: Instant) -> Gate {
        match self.phase {
            Phase::Closed => Gate::Flow,
            Phase::Open { until } if now < until => Gate::Wait(until - now),
            Phase::Open { .. } => Gate::Probe,
            Phase::HalfOpen => Gate::Probing,
        }
    }

    /// Whether probing with this event tells more about the event than about the upstream.
    pub fn is_suspect(&self, event: &E) -> bool {
        self.suspects.contains(event)
    }

    /// How many due events to look at so that one of them is no suspect, if there is such a one.
    pub fn probe_candidates(&self) -> usize {
        self.suspects.len() + 1
    }

    /// Begins an attempt, if one may begin now.
    pub fn admit(&mut self, now: Instant) -> Option<Admission> {
        match self.gate(now) {
            Gate::Flow => {}
            Gate::Probe => self.enter(Phase::HalfOpen),
            Gate::Wait(_) | Gate::Probing => return None,
        }
        Some(Admission { era: self.era })
    }

    /// Ends an attempt. `healthy` says whether the upstream did its work, whatever it thought of the event.
    pub fn finish(&mut self, now: Instant, admission: &Admission, event: &E, healthy: bool) {
        if admission.era != self.era {
            return;
        }
        match (self.phase, healthy) {
            (Phase::HalfOpen, true) => {
                self.suspects.clear();
                self.failing.clear();
                self.slices.clear();
                self.enter(Phase::Closed);
            }
            (Phase::HalfOpen, false) => self.open(now, event),
            (Phase::Closed, _) => {
                self.count(now, event, healthy);
                if !healthy && self.is_too_much(now) {
                    self.open(now, event);
                }
            }
            (Phase::Open { .. }, _) => {}
        }
    }

    /// Takes an admission back of which no attempt was made. Another probe may begin at once.
    pub fn cancel(&mut self, now: Instant, admission: &Admission) {
        if admission.era == self.era && matches!(self.phase, Phase::HalfOpen) {
            self.enter(Phase::Open { until: now });
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
    }

    fn open(&mut self, now: Instant, event: &E) {
        self.suspects.retain(|suspect| suspect != event);
        self.suspects.push_back(event.clone());
        if self.suspects.len() > SUSPECTS_MAX {
            self.suspects.pop_front();
        }
        self.enter(Phase::Open { until: now + self.rule.pause });
    }

    fn count(&mut self, now: Instant, event: &E, healthy: bool) {
        let slice_length = self.rule.within / SLICES;
        self.slices.retain(|slice| now.saturating_duration_since(slice.began) < self.rule.within);
        if self.slices.back().is_none_or(|slice| now.saturating_duration_since(slice.began) >= slice_length) {
            self.slices.push_back(Slice { began: now, attempts: 0, failures: 0 });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.attempts = slice.attempts.saturating_add(1);
            slice.failures = slice.failures.saturating_add(u32::from(!healthy));
        }
        if !healthy {
            self.failing.retain(|(failed, _)| failed != event);
            self.failing.push_back((event.clone(), now));
            if self.failing.len() > self.rule.failures.max(1) as usize {
                self.failing.pop_front();
            }
        }
    }

    fn is_too_much(&self, now: Instant) -> bool {
        let enough = self.failing.len() >= self.rule.failures.max(1) as usize;
        let recent = self.failing.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) < self.rule.within);
        let attempts: f64 = self.slices.iter().map(|slice| f64::from(slice.attempts)).sum();
        let failures: f64 = self.slices.iter().map(|slice| f64::from(slice.failures)).sum();
        enough && recent && failures >= self.rule.ratio * attempts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Breaker =
        Breaker { failures: 3, ratio: 0.5, within: Duration::from_mins(1), pause: Duration::from_secs(30) };
    const SECOND: Duration = Duration::from_secs(1);

    /// One attempt that begins and ends now.
    fn attempt(circuit: &mut Circuit<u32>, now: Instant, event: u32, healthy: bool) {
        let admission = circuit.admit(now).expect("flows");
        circuit.finish(now, &admission, &event, healthy);
    }

    fn opened(now: Instant) -> Circuit<u32> {
        let mut circuit = Circuit::new(RULE);
        (1..=3).for_each(|event| attempt(&mut circuit, now, event, false));
        assert_eq!(circuit.state(), State::Open);
        circuit
    }

    #[test]
    fn one_event_never_opens_it_and_three_do() {
        let (mut circuit, now) = (Circuit::new(RULE), Instant::now());
        (0..50).for_each(|_| attempt(&mut circuit, now, 1, false));
        attempt(&mut circuit, now, 2, false);
        assert_eq!(circuit.gate(now), Gate::Flow);
        attempt(&mut circuit, now, 3, false);
        assert_eq!(circuit.gate(now), Gate::Wait(RULE.pause));
        assert!(circuit.admit(now).is_none());
    }

    #[test]
    fn failures_that_are_far_apart_or_few_among_many_do_not_open_it() {
        let (mut circuit, began) = (Circuit::new(RULE), Instant::now());
        (0..20).for_each(|n| attempt(&mut circuit, began + 30 * n * SECOND, n, false));
        assert_eq!(circuit.state(), State::Closed);

        let mut circuit = Circuit::new(RULE);
        (0..10).for_each(|n| attempt(&mut circuit, began, 100 + n, true));
        (0..9).for_each(|n| attempt(&mut circuit, began + SECOND, n, false));
        assert_eq!(circuit.state(), State::Closed, "9 of 19");
        attempt(&mut circuit, began + SECOND, 9, false);
        assert_eq!(circuit.state(), State::Open, "10 of 20");
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let later = now + RULE.pause;
        assert_eq!(circuit.gate(later - SECOND), Gate::Wait(SECOND));
        let probe = circuit.admit(later).expect("a probe");
        assert_eq!((circuit.gate(later), circuit.state()), (Gate::Probing, State::HalfOpen));
        assert!(circuit.admit(later).is_none(), "one probe at a time");
        circuit.finish(later, &probe, &7, false);
        assert_eq!(circuit.gate(later), Gate::Wait(RULE.pause));
        assert!(circuit.is_suspect(&7) && circuit.is_suspect(&3) && !circuit.is_suspect(&1));
        assert_eq!(circuit.probe_candidates(), 3);

        let latest = later + RULE.pause;
        let probe = circuit.admit(latest).expect("a probe");
        circuit.finish(latest, &probe, &8, true);
        assert_eq!((circuit.gate(latest), circuit.probe_candidates()), (Gate::Flow, 1));
        attempt(&mut circuit, latest, 1, false);
        assert_eq!(circuit.state(), State::Closed, "closing forgets the old failures");
    }

    #[test]
    fn a_probe_taken_back_makes_way_for_another() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let probe = circuit.admit(now + RULE.pause).expect("a probe");
        circuit.cancel(now + RULE.pause, &probe);
        assert_eq!((circuit.state(), circuit.gate(now + RULE.pause)), (State::Open, Gate::Probe));
    }

    #[test]
    fn what_began_before_it_opened_decides_nothing_afterwards() {
        let now = Instant::now();
        let mut circuit = Circuit::new(RULE);
        let early = [circuit.admit(now).expect("flows"), circuit.admit(now).expect("flows")];
        (1..=3).for_each(|event| attempt(&mut circuit, now, event, false));
        circuit.finish(now, &early[0], &8, true);
        assert_eq!(circuit.state(), State::Open);
        let _probe = circuit.admit(now + RULE.pause).expect("a probe");
        circuit.finish(now + RULE.pause, &early[1], &9, true);
        assert_eq!(circuit.state(), State::HalfOpen, "only the probe closes it");
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_lets_a_single_probe_through(
            steps in proptest::collection::vec((0u32..40, 0u32..12, any::<bool>(), any::<bool>()), 1..300),
        ) {
            let (mut circuit, mut now) = (Circuit::new(RULE), Instant::now());
            let mut running = Vec::new();
            for (seconds, event, healthy, begin) in steps {
                now += seconds * SECOND;
                if begin {
                    let before = circuit.state();
                    let admission = circuit.admit(now);
                    prop_assert_eq!(admission.is_some(), before != State::HalfOpen && circuit.state() != State::Open);
                    running.extend(admission.map(|admission| (admission, event)));
                } else if let Some((admission, event)) = running.pop() {
                    circuit.finish(now, &admission, &event, healthy);
                }
                let probes = running.iter().filter(|(admission, _)| admission.era == circuit.era).count();
                prop_assert!(circuit.state() != State::HalfOpen || probes == 1);
                prop_assert!(circuit.failing.len() <= 3 && circuit.slices.len() <= SLICES as usize + 1);
                prop_assert!(circuit.suspects.len() <= SUSPECTS_MAX);
            }
        }
    }
}
