//! What an operation does: kept beside it in the store, so that it means the same after a restart.

use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        answer::Problem,
        api::EventFilter,
        filter::{self, event_id},
        route::Action,
    },
    event::EventId,
    store::{Act, Filter},
};

/// What is done to which events, at what rate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The name of an [`Action`].
    pub(super) action: String,
    /// Frozen: times are absolute.
    pub(super) filter: EventFilter,
    pub(super) upstream: Option<String>,
    pub(super) rate: Option<u32>,
    pub(super) by: String,
    /// Only ids below this one: events that came after the beginning are not meant. Without one, there were none.
    pub(super) before: Option<String>,
    /// Whether the count came to an end.
    pub(super) total_exact: bool,
}

impl Plan {
    pub(super) fn spec(&self) -> String {
        serde_json::to_string(self).expect("a plan has string keys and no failing Serialize")
    }
    /// `None` if another version wrote it.
    pub(super) fn of(spec: &str) -> Option<Self> {
        serde_json::from_str(spec).ok()
    }

    /// Which of the events after the cursor it still has to look at.
    pub(super) fn rest(&self, cursor: Option<EventId>) -> Result<Filter, Problem> {
        let before = self.before.as_deref().and_then(event_id);
        // An id below all others: nothing was there when it began.
        let before = Some(before.unwrap_or(EventId::from_bytes([0; 16])));
        Ok(Filter { before, after: cursor, ..filter::to_store(&self.filter)? })
    }

    /// `None` if another version named the action.
    pub(super) fn act(&self) -> Option<Act> {
        Some(match Action::from_name(&self.action)? {
            Action::Release => Act::Release,
            Action::Forget => Act::Forget,
            Action::Purge => Act::Purge,
            Action::Redeliver => {
                // What the filter says about deliveries holds for what is sent, too: of an event whose one delivery is
                // dead and whose other was delivered only the dead one goes out again. But not if it is to go elsewhere.
                let elsewhere = self.upstream.is_some() && self.upstream != self.filter.upstream;
                let state = self.filter.state.as_deref().filter(|_| !elsewhere);
                let to = self.upstream.as_deref().or(self.filter.upstream.as_deref());
                Act::Redeliver { to: to.map(Into::into), state: state.and_then(crate::event::State::from_name) }
            }
        })
    }
}

/// The id after this one.
pub(super) fn successor(id: EventId) -> EventId {
    EventId::from_bytes(u128::from_be_bytes(*id.as_bytes()).saturating_add(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::State;

    fn act(filter: &[(&str, &str)], upstream: Option<&str>) -> (Option<String>, Option<State>) {
        let mut parts = EventFilter::default();
        for (name, value) in filter {
            *parts.part(name).expect("a part") = Some((*value).to_owned());
        }
        let plan = Plan {
            action: "redeliver".to_owned(),
            filter: parts,
            upstream: upstream.map(ToOwned::to_owned),
            rate: None,
            by: "loopback".to_owned(),
            before: None,
            total_exact: true,
        };
        assert_eq!(Plan::of(&plan.spec()), Some(plan.clone()));
        match plan.act() {
            Some(Act::Redeliver { to, state }) => (to.map(|to| to.to_string()), state),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_deliveries_that_match_are_sent_again() {
        assert_eq!(act(&[("state", "dead")], None), (None, Some(State::Dead)));
        assert_eq!(act(&[("upstream", "audit")], None), (Some("audit".to_owned()), None));
        let both = [("upstream", "audit"), ("state", "dead")];
        assert_eq!(act(&both, None), (Some("audit".to_owned()), Some(State::Dead)));
        assert_eq!(act(&both, Some("audit")), (Some("audit".to_owned()), Some(State::Dead)));
        assert_eq!(act(&[("source", "gains")], None), (None, None));
    }

    #[test]
    fn what_goes_elsewhere_goes_there_whatever_state_it_is_in_here() {
        assert_eq!(act(&[("state", "dead")], Some("new")), (Some("new".to_owned()), None));
        assert_eq!(act(&[("state", "dead"), ("upstream", "old")], Some("new")), (Some("new".to_owned()), None));
        assert_eq!(act(&[("state", "unrouted")], Some("new")), (Some("new".to_owned()), None));
    }

    #[test]
    fn one_id_follows_another() {
        let id: EventId = "01960000-0000-7000-8000-0000000000ff".parse().expect("an id");
        assert_eq!(successor(id).to_string(), "01960000-0000-7000-8000-000000000100");
    }
}
