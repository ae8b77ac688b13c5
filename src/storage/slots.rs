//! Places among the bodies that come in, or go out, at the same time.
//!
//! A body may take long, and its client may mean it to: so no principal has more than half of the places.

use crate::access::PrincipalId;
use crate::shares::{Shares, Taken};

/// The places. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Shares);

/// A place that is taken, free again when it is dropped.
pub type Slot = Taken;

impl Slots {
    /// So many places.
    pub fn new(concurrent: usize) -> Self {
        Self(Shares::new(concurrent, concurrent / 2))
    }

    /// A place for the principal, where one is free; nobody waits for one.
    pub fn take(&self, principal: PrincipalId) -> Option<Slot> {
        self.0.of(Some(principal)).try_take(1)
    }
}
