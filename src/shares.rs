//! Limits that all callers share: memory, downloads, uploads, database connections.
//!
//! A principal, or the anonymous public as one, holds at most its share. A request waits for the share of its principal
//! first, and then for the whole, so that it takes no place in the second queue while it waits in the first.

use crate::access::PrincipalId;
use crate::failure::Overloaded;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A number of units that callers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares {
    all: Arc<Semaphore>,
    /// The shares of those who hold or want something.
    own: Arc<Mutex<HashMap<Owner, Weak<Semaphore>>>>,
    share: usize,
}

/// Who has a share of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// A principal, or the anonymous public.
    Sender(Option<PrincipalId>),
    /// Requests whose credential is still being looked up.
    Unknown,
}

/// The share of one principal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Share {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    size: usize,
}

/// Units that are taken. They are free again when this is dropped.
#[derive(Debug)]
pub struct Taken {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Shares {
    /// `all` units, of which one principal holds at most `share`.
    pub fn new(all: usize, share: usize) -> Self {
        let all = all.min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(all)), own: Arc::default(), share: share.clamp(1, all.max(1)) }
    }

    /// `all` units, of which one principal holds at most half, but can hold one.
    pub fn halves(all: usize) -> Self {
        Self::new(all, all.div_ceil(2))
    }

    /// The share of a principal, or of the anonymous public.
    pub fn of(&self, whose: Option<PrincipalId>) -> Share {
        self.owned_by(Owner::Sender(whose))
    }

    /// The share of all requests whose credential is still being looked up.
    pub fn of_unknown(&self) -> Share {
        self.owned_by(Owner::Unknown)
    }

    fn owned_by(&self, whose: Owner) -> Share {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.get(&whose).and_then(Weak::upgrade).unwrap_or_else(|| {
            all.retain(|_, own| own.strong_count() > 0);
            let own = Arc::new(Semaphore::new(self.share));
            all.insert(whose, Arc::downgrade(&own));
            own
        });
        Share { all: Arc::clone(&self.all), own, size: self.share }
    }

    /// One unit for the principal, if it is free now.
    pub fn try_take_one(&self, principal: PrincipalId) -> Option<Taken> {
        self.of(Some(principal)).try_take(1)
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.all.available_permits()
    }
}

impl Share {
    /// All of it.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether its principal itself holds all of it.
    pub fn is_used_up(&self) -> bool {
        self.own.available_permits() == 0
    }

    /// `count` units, if they are free now.
    pub fn try_take(&self, count: usize) -> Option<Taken> {
        let count = u32::try_from(count).ok()?;
        let own = Arc::clone(&self.own).try_acquire_many_owned(count).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(count).ok()?;
        Some(Taken { own, all })
    }

    /// `count` units, unless they are not free within `wait`. Requests are served in the order in which they came.
    pub async fn take(&self, count: usize, wait: Duration) -> Result<Taken, Overloaded> {
        let count = u32::try_from(count).map_err(|_| Overloaded)?;
        let both = async {
            let own = Arc::clone(&self.own).acquire_many_owned(count).await.ok()?;
            let all = Arc::clone(&self.all).acquire_many_owned(count).await.ok()?;
            Some(Taken { own, all })
        };
        timeout(wait, both).await.ok().flatten().ok_or(Overloaded)
    }
}

impl Taken {
    /// How many.
    pub fn count(&self) -> usize {
        self.own.num_permits()
    }

    /// Both, of the same share.
    pub fn merge(&mut self, other: Self) {
        self.own.merge(other.own);
        self.all.merge(other.all);
    }

    /// Gives back what is more than so many.
    pub fn shrink(&mut self, count: usize) {
        let surplus = self.count().saturating_sub(count);
        drop((self.own.split(surplus), self.all.split(surplus)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn nobody_takes_more_than_its_share_and_what_is_dropped_is_free_again() {
        let places = Shares::halves(4);
        let one = [places.of(Some(1)).try_take(1).unwrap(), places.of(Some(1)).try_take(1).unwrap()];
        assert!(places.of(Some(1)).try_take(1).is_none() && places.of(Some(1)).is_used_up());
        let two = places.of(Some(2)).try_take(2).unwrap();
        assert!(places.of(None).try_take(1).is_none() && !places.of(None).is_used_up(), "all are taken");
        drop(one);
        let mut public = places.of(None).try_take(2).unwrap();
        public.shrink(1);
        assert_eq!((public.count(), places.free()), (1, 1));
        drop((two, public));
        assert_eq!(places.free(), 4);
        Shares::halves(1).of(Some(1)).try_take(1).unwrap();
        places.of(Some(9));
        assert_eq!(places.own.lock().unwrap().len(), 1, "who holds nothing is forgotten");
    }

    #[tokio::test]
    async fn who_has_to_wait_for_itself_keeps_nobody_waiting() {
        let places = Shares::halves(4);
        let own = places.of(Some(1));
        let held = own.try_take(2).unwrap();
        let mut waiting = Box::pin(own.take(1, Duration::from_mins(1)));
        assert!(waiting.as_mut().now_or_never().is_none());
        places.of(Some(2)).take(2, Duration::from_mins(1)).now_or_never().unwrap().unwrap();
        drop(held);
        waiting.await.unwrap();
    }
}
