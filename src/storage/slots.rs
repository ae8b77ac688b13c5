//! Places among the bodies that come in, or go out, at the same time.
//!
//! A body may take long, and its client may mean it to: so no principal has more than half of the places.

use crate::access::PrincipalId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    /// How many each principal has that has any.
    taken: Arc<Mutex<HashMap<PrincipalId, usize>>>,
    /// How many one principal may have.
    share: usize,
}

/// A place that is taken, free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    principal: PrincipalId,
    _place: OwnedSemaphorePermit,
}

impl Slots {
    /// So many places.
    pub fn new(concurrent: usize) -> Self {
        let free = Arc::new(Semaphore::new(concurrent.min(Semaphore::MAX_PERMITS)));
        Self { free, taken: Arc::default(), share: (concurrent / 2).max(1) }
    }

    /// A place for the principal, where one is free; nobody waits for one.
    pub fn take(&self, principal: PrincipalId) -> Option<Slot> {
        let place = self.free.clone().try_acquire_owned().ok()?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.entry(principal).or_default();
        if *own >= self.share {
            return None;
        }
        *own += 1;
        drop(taken);
        Some(Slot { slots: self.clone(), principal, _place: place })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_half_of_the_places_and_what_is_dropped_is_free_again() {
        let slots = Slots::new(4);
        let one = [slots.take(1).unwrap(), slots.take(1).unwrap()];
        assert!(slots.take(1).is_none());
        let two = [slots.take(2).unwrap(), slots.take(2).unwrap()];
        assert!(slots.take(3).is_none(), "all are taken");
        drop(one);
        slots.take(3).unwrap();
        assert!(slots.take(2).is_none());
        drop(two);
        assert!(slots.taken.lock().unwrap().is_empty());
        Slots::new(1).take(1).unwrap();
    }
}
