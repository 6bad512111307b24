//! A bound per client address, so that nobody alone uses up what all share.
//!
//! Clients on this machine have no bound: they are a proxy, and whose requests it passes on can be told only if it is
//! one of `trusted_proxies`.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// How much of something each client has, and may have.
#[derive(Debug)]
pub struct PerClient {
    max: AtomicU64,
    taken: Mutex<HashMap<IpAddr, u64>>,
}

/// What one client has taken: given back when dropped.
#[derive(Debug)]
pub struct Taken {
    of: Arc<PerClient>,
    /// `None`: without a bound.
    client: Option<IpAddr>,
    amount: u64,
}

impl PerClient {
    /// So much for each client.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max: AtomicU64::new(max), taken: Mutex::default() })
    }

    /// So much from now on. Nobody loses what it has.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Relaxed);
    }

    /// The share of a client, empty at first.
    pub fn share(self: &Arc<Self>, address: Option<IpAddr>) -> Taken {
        Taken { of: self.clone(), client: address.and_then(client), amount: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes so much more, or says that it would be too much. Whoever has nothing else may take any amount: it has
    /// bounds of its own, and would never fit.
    #[must_use]
    pub fn grow(&mut self, amount: u64) -> bool {
        let Some(client) = self.client else { return true };
        let mut taken = self.of.taken();
        let sum = taken.get(&client).copied().unwrap_or(0);
        let fits = sum.saturating_add(amount) <= self.of.max.load(Relaxed) || sum == self.amount;
        if fits {
            taken.insert(client, sum.saturating_add(amount));
            self.amount += amount;
        }
        fits
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(client) = self.client.filter(|_| self.amount > 0) else { return };
        let mut taken = self.of.taken();
        if let Some(sum) = taken.get_mut(&client) {
            *sum -= self.amount;
            if *sum == 0 {
                taken.remove(&client);
            }
        }
    }
}

/// Who counts as one client: an IPv4 address, or the network of 64 bits that a provider of access gives to one
/// customer of IPv6.
fn client(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(of: &Arc<PerClient>, address: &str) -> Taken {
        of.share(Some(address.parse().expect("an address")))
    }

    #[test]
    fn each_client_has_its_own_bound_and_gives_back_what_it_had() {
        let shares = PerClient::new(10);
        let (mut one, mut two) = (share(&shares, "203.0.113.1"), share(&shares, "203.0.113.1"));
        assert!(one.grow(6) && two.grow(4) && !two.grow(1) && !one.grow(1));
        assert!(share(&shares, "203.0.113.2").grow(10), "another client");
        assert!(!share(&shares, "::ffff:203.0.113.1").grow(1), "the same one");
        drop(one);
        assert!(two.grow(6));
        drop(two);
        assert!(shares.taken().is_empty(), "nothing is kept of who has nothing");
    }

    #[test]
    fn what_never_fits_is_taken_by_whoever_has_nothing_else() {
        let shares = PerClient::new(10);
        let mut large = share(&shares, "203.0.113.1");
        assert!(large.grow(8) && large.grow(8));
        assert!(!share(&shares, "203.0.113.1").grow(1));
    }

    #[test]
    fn a_network_of_64_bits_is_one_client_and_this_machine_is_none() {
        let shares = PerClient::new(1);
        let mut one = share(&shares, "2001:db8::1");
        assert!(
            one.grow(1) && !share(&shares, "2001:db8::ffff:2").grow(1) && share(&shares, "2001:db8:0:1::1").grow(1)
        );
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let mut all: Vec<_> = (0..3).map(|_| share(&shares, address)).collect();
            assert!(all.iter_mut().all(|share| share.grow(1)), "{address}");
        }
    }
}
