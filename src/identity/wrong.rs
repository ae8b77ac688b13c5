//! Wrong credentials, slowed for each address: a guess costs its client more time than it costs the database.

use crate::failure::{Failure, TooManyWrong};
use crate::names::client_network;
use moka::sync::Cache;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of addresses that are remembered.
const MAX_ADDRESSES: u64 = 100_000;

/// After this time without a wrong credential an address has all its tries again, and is forgotten.
const WHOLE: Duration = Duration::from_mins(1);

/// The tries of each address: so many at once, which come back evenly within a minute.
#[derive(Debug)]
pub(super) struct Tries {
    addresses: Cache<IpAddr, Arc<Mutex<Bucket>>>,
    per_minute: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one of what there is then, or says how long it takes until there is one.
    fn take(&mut self, now: Instant, per_minute: u32) -> Result<(), Duration> {
        let most = f64::from(per_minute);
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * most / WHOLE.as_secs_f64();
        self.left = (self.left + gained).min(most);
        self.at = now;
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) * WHOLE.as_secs_f64() / most));
        }
        self.left -= 1.0;
        Ok(())
    }
}

impl Tries {
    pub fn new(per_minute: u32) -> Self {
        let addresses = Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(WHOLE).build();
        Self { addresses, per_minute }
    }

    /// Takes a try of the address, before anything is looked up for it.
    pub fn take(&self, from: IpAddr) -> Result<(), Failure> {
        let bucket = self.bucket(from);
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(Instant::now(), self.per_minute).map_err(|wait| {
            metrics::counter!("proofmark_wrong_credentials_slowed_total").increment(1);
            Failure::new("authenticating", TooManyWrong { seconds: wait.as_secs() + 1 })
        })
    }

    /// The credential was none that is wrong.
    pub fn give_back(&self, from: IpAddr) {
        let bucket = self.bucket(from);
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.left = (bucket.left + 1.0).min(f64::from(self.per_minute));
    }

    fn bucket(&self, from: IpAddr) -> Arc<Mutex<Bucket>> {
        self.addresses.get_with(client_network(from), || {
            Arc::new(Mutex::new(Bucket { left: f64::from(self.per_minute), at: Instant::now() }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_has_so_many_tries_and_others_have_their_own() {
        let tries = Tries::new(3);
        let (one, same, other): (IpAddr, IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), "192.0.2.1".parse().unwrap());
        for from in [one, same, one] {
            tries.take(from).unwrap();
        }
        let refused = tries.take(same).unwrap_err();
        assert!(refused.retry_after().is_some_and(|seconds| (1..=21).contains(&seconds)), "{refused:?}");
        tries.take(other).unwrap();
        tries.give_back(one);
        tries.take(one).unwrap();
    }

    proptest! {
        #[test]
        fn within_any_time_a_bucket_gives_no_more_than_it_holds_and_gains(
            gaps in proptest::collection::vec(0_u64..5_000, 1..200), per_minute in 1_u32..100
        ) {
            let begun = Instant::now();
            let (mut now, mut given) = (begun, 0_u32);
            let mut bucket = Bucket { left: f64::from(per_minute), at: begun };
            for gap in gaps {
                now += Duration::from_millis(gap);
                match bucket.take(now, per_minute) {
                    Ok(()) => given += 1,
                    Err(wait) => {
                        let mut later = bucket;
                        prop_assert!(later.take(now + wait + Duration::from_millis(1), per_minute).is_ok());
                    }
                }
            }
            let gained = (now - begun).as_secs_f64() * f64::from(per_minute) / 60.0;
            prop_assert!(f64::from(given) <= f64::from(per_minute) + gained + 0.001);
        }
    }
}
