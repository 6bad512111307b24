//! Everybody who is not verified yet, and how they get on.
//!
//! All of them together have half of `in_flight_max`: what verified keeps the other half, however many forgeries come.
//! Genuine webhooks are among them until they verify, so the half needs turnover. A webhook that arrives whole passes
//! through it in the time that its last byte takes to be hashed, and keeps its place in `in_flight_max` alone. Who stalls
//! holds a place only until somebody else wants it: with every place taken, the slowest of those that have been there
//! for a second ends, with 408, and the newcomer has its place at once. A tenth for each client address stands before
//! that, so it takes several addresses to get there, and to keep all places against others they have to send either as
//! many new requests a second as there are places, or 64 KiB a second on each.
//!
//! Bytes are the same story: see [`Budget`](super::Budget) for when, and [`crate::policy::crowd`] for who.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use crate::policy::crowd::{self, Pace, Standing};

/// Those who are not verified yet.
#[derive(Debug)]
pub(super) struct Crowd {
    places_max: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// Who has a place. Who was told to end is not here any more.
    taken: HashMap<u64, Arc<Upload>>,
}

/// The place of one request, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    upload: Arc<Upload>,
}

/// One upload, as those see it who want its room. Its lock is held for a few instructions, once a frame.
#[derive(Debug)]
pub(super) struct Upload {
    pace: Mutex<Pace>,
    ended: Notify,
}

impl Crowd {
    /// So many places.
    pub(super) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self { places_max: places_max.max(1), seats: Mutex::default() })
    }

    /// A place, if need be that of somebody who hardly gets on and ends now.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Option<Seat> {
        let mut seats = self.seats();
        if seats.taken.len() >= self.places_max {
            let slowest = crowd::for_place(seats.standings(now))?;
            seats.end(slowest);
        }
        let number = seats.next;
        seats.next += 1;
        let upload = Arc::new(Upload { pace: Mutex::new(Pace::new(now)), ended: Notify::new() });
        seats.taken.insert(number, upload.clone());
        Some(Seat { crowd: self.clone(), number, upload })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn standings(&self, now: Instant) -> impl Iterator<Item = (u64, Standing)> {
        self.taken.iter().map(move |(number, upload)| (*number, upload.pace().standing(now)))
    }
    /// Its place is free from now on; its bytes come back when its task drops them.
    fn end(&mut self, number: u64) {
        if let Some(upload) = self.taken.remove(&number) {
            upload.ended.notify_one();
        }
    }
}

impl Seat {
    pub(super) fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    /// Ends those who get on worse than this one, so that `wanted` bytes come free. Nobody, if that is not enough.
    pub(super) fn make_room(&self, wanted: u64, now: Instant) {
        let mut seats = self.crowd.seats();
        let me = self.upload.pace().standing(now);
        let others = seats.standings(now).filter(|(number, _)| *number != self.number);
        for number in crowd::for_bytes(others, me, wanted) {
            seats.end(number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.seats().taken.remove(&self.number);
    }
}

impl Upload {
    /// So many bytes arrived.
    pub(super) fn received(&self, bytes: usize, now: Instant) {
        self.pace().received(bytes as u64, now);
    }
    /// It holds so many bytes more that others could have.
    pub(super) fn holds(&self, bytes: usize) {
        self.pace().holds(bytes as u64);
    }
    /// Resolves when somebody else gets its room.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_stalls_gives_its_place_to_a_newcomer_and_is_told_once() {
        let (crowd, began) = (Crowd::new(2), Instant::now());
        let stalled = crowd.enter(began).expect("a place");
        let other = crowd.enter(began).expect("a place");
        assert!(crowd.enter(began).is_none(), "both have just come");
        let now = began + Duration::from_secs(3);
        other.upload().received(10, now);
        let newcomer = crowd.enter(now).expect("the place of the slowest");
        assert!(stalled.upload().ended().now_or_never().is_some() && other.upload().ended().now_or_never().is_none());
        drop(stalled);
        assert_eq!(crowd.seats().taken.len(), 2, "its place was given away already");
        other.upload().received(1 << 20, now);
        assert!(crowd.enter(now).is_none(), "one has just come, the other is fast");
        drop((other, newcomer));
        assert!(crowd.seats().taken.is_empty());
    }

    #[tokio::test]
    async fn room_is_made_by_those_who_get_on_worse() {
        let (crowd, began) = (Crowd::new(9), Instant::now());
        let seats: Vec<_> = (0..3).map(|_| crowd.enter(began).expect("a place")).collect();
        seats[0].upload().holds(1 << 20);
        seats[0].upload().received(1 << 20, began);
        let now = began + Duration::from_secs(9);
        seats[1].upload().holds(1 << 20);
        seats[1].upload().received(1 << 20, now);
        let ended = || seats.iter().map(|seat| seat.upload().ended().now_or_never().is_some()).collect::<Vec<_>>();
        seats[2].make_room(2 << 20, now);
        assert_eq!(ended(), [false; 3], "there is not as much to be had");
        seats[0].make_room(1000, now);
        assert_eq!(ended(), [false; 3], "it is the worst itself");
        seats[2].make_room(1000, now);
        assert_eq!(ended(), [true, false, false]);
        seats[2].make_room(1000, now);
        assert_eq!(ended(), [false; 3], "and not again");
    }
}
