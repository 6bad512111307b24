//! What operators and reloads do.

use std::collections::BTreeMap;

use super::{
    super::{
        Act, Operation, OperationState, StoreError,
        judge::{ACT_MAX, Birth, OPERATIONS_MAX, cause, reason, tally},
    },
    inner::Inner,
};
use crate::event::{EventId, Name, State};

impl Inner {
    pub(super) fn release(&mut self, now_ms: i64, id: EventId) -> Result<u32, StoreError> {
        let mut released = 0;
        for number in self.numbers_of(id) {
            if self.deliveries[&number].state == State::Held {
                self.arm(now_ms, number, Some(cause::RELEASED));
                released += 1;
            }
        }
        if released == 0 { Err(StoreError::NotFound) } else { Ok(released) }
    }

    /// With a state, only what is in it.
    pub(super) fn redeliver(
        &mut self,
        now_ms: i64,
        id: EventId,
        upstream: Option<&str>,
        state: Option<State>,
    ) -> Result<u32, StoreError> {
        if self.events.get(&id).ok_or(StoreError::NotFound)?.body_removed {
            return Err(StoreError::BodyRemoved);
        }
        let all = self.numbers_of(id);
        let mut numbers = all.clone();
        if let Some(upstream) = upstream {
            numbers.retain(|number| &*self.deliveries[number].upstream == upstream);
        }
        let anew = upstream.filter(|upstream| numbers.is_empty() && state.is_none() && self.is_configured(upstream));
        numbers.retain(|number| {
            let placed = &self.deliveries[number];
            !matches!(placed.state, State::Leased | State::Held)
                && state.is_none_or(|state| placed.state == state)
                && self.is_configured(&placed.upstream)
        });
        if let Some(upstream) = anew {
            let order_key = all.first().and_then(|number| self.deliveries[number].order_key.clone());
            // Held until it is armed below, where its turn is looked at.
            numbers.push(self.insert_delivery(now_ms, id, &Name::from(upstream), order_key, Birth::Held("")));
        }
        if numbers.is_empty() {
            return Err(StoreError::NotFound);
        }
        for number in &numbers {
            self.arm(now_ms, *number, Some(cause::REDELIVERY));
        }
        self.unfinish(id);
        if let Some(stored) = self.events.get_mut(&id) {
            stored.unrouted = false;
        }
        Ok(u32::try_from(numbers.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn forget(&mut self, now_ms: i64, id: EventId) -> Result<u64, StoreError> {
        let live = self.keys.of_event(id, now_ms).len() as u64;
        if live == 0 && !self.events.contains_key(&id) {
            return Err(StoreError::NotFound);
        }
        self.keys.forget(id);
        self.drop_answer(id);
        Ok(live)
    }

    pub(super) fn purge(&mut self, now_ms: i64, id: EventId) -> Result<(), StoreError> {
        if !self.events.contains_key(&id)
            || self.numbers_of(id).iter().any(|number| self.deliveries[number].state == State::Leased)
        {
            return Err(StoreError::NotFound);
        }
        self.keys.forget(id);
        self.drop_answer(id);
        self.remove_event(now_ms, id);
        Ok(())
    }

    pub(super) fn reconcile(&mut self, now_ms: i64, upstreams: &[Name]) -> BTreeMap<Name, u64> {
        self.configured = Some(upstreams.iter().cloned().collect());
        let mut parked = BTreeMap::new();
        let all: Vec<i64> = self.deliveries.keys().copied().collect();
        for number in all {
            let placed = &self.deliveries[&number];
            match (placed.state, self.is_configured(&placed.upstream)) {
                // Whoever waits behind it is parked, too: no turn passes on.
                (State::Due | State::Leased, false) => {
                    self.place(number, |placed| {
                        placed.lapse(cause::LEASE_LAPSED);
                        placed.state = State::Parked;
                        placed.reason = Some(reason::UPSTREAM_REMOVED.to_owned());
                        placed.fence += 1;
                    });
                }
                (State::Parked, true) => self.arm(now_ms, number, None),
                _ => {}
            }
            let placed = &self.deliveries[&number];
            if placed.state == State::Parked {
                *parked.entry(Name::clone(&placed.upstream)).or_default() += 1;
            }
        }
        parked
    }

    pub(super) fn act(
        &mut self,
        now_ms: i64,
        act: &Act,
        ids: &[EventId],
        mut operation: Operation,
    ) -> Result<Operation, StoreError> {
        if ids.len() > ACT_MAX {
            return Err(StoreError::Unavailable(format!("an act is over {ACT_MAX} events at most")));
        }
        for id in ids {
            let acted = match act {
                Act::Redeliver { to, state } => self.redeliver(now_ms, *id, to.as_deref(), *state).map(drop),
                Act::Release => self.release(now_ms, *id).map(drop),
                Act::Forget => self.forget(now_ms, *id).map(drop),
                Act::Purge => self.purge(now_ms, *id),
            };
            // Here they fail in no other way than by skipping, so there is nothing to undo.
            tally(&mut operation, acted)?;
        }
        self.save_operation(operation.clone());
        Ok(operation)
    }

    pub(super) fn save_operation(&mut self, operation: Operation) {
        let saved = operation.id;
        // Never the one just saved: whoever watches it looks once more.
        let others = OPERATIONS_MAX - usize::from(operation.state != OperationState::Running);
        self.operations.insert(saved, operation);
        let over = self.operations.values().filter(|one| one.state != OperationState::Running && one.id != saved);
        let ids: Vec<EventId> = over.map(|one| one.id).collect();
        for id in &ids[..ids.len().saturating_sub(others)] {
            self.operations.remove(id);
        }
    }

    /// What opening a durable store does to what the last process left.
    #[cfg(test)]
    pub(super) fn restart(&mut self, now_ms: i64) {
        self.configured = None;
        self.queues.forget_turns();
        let leased = self.deliveries.iter().filter(|(_, placed)| placed.state == State::Leased);
        let leased: Vec<i64> = leased.map(|(number, _)| *number).collect();
        for number in leased {
            self.place(number, |placed| {
                placed.lapse(cause::RESTART);
                (placed.state, placed.due_at) = (State::Due, now_ms);
                placed.fence += 1;
            });
        }
        for operation in self.operations.values_mut().filter(|one| one.state == OperationState::Running) {
            operation.state = OperationState::Stopped;
            operation.reason = Some(reason::PROCESS_ENDED.to_owned());
        }
    }

    pub(super) fn numbers_of(&self, event: EventId) -> Vec<i64> {
        self.events.get(&event).map(|stored| stored.deliveries.clone()).unwrap_or_default()
    }
}
