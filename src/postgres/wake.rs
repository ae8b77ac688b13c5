//! A number that only grows, and tasks that wait for it to grow.

use std::future::pending;
use tokio::sync::watch;

/// A number that only grows. Cheap to clone; every clone is the same.
#[derive(Clone, Debug)]
pub struct Growing(watch::Sender<i64>);

impl Default for Growing {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Growing {
    /// The number.
    pub fn get(&self) -> i64 {
        *self.0.borrow()
    }

    /// Raises the number to this one and wakes those who wait; a lower one changes nothing.
    pub fn raise(&self, to: i64) {
        self.0.send_if_modified(|number| {
            let grows = to > *number;
            *number = to.max(*number);
            grows
        });
    }

    /// Raises the number by one.
    pub fn increment(&self) {
        self.0.send_modify(|number| *number = number.saturating_add(1));
    }

    /// Waits from here on.
    pub fn wake(&self) -> Wake {
        Wake(self.0.subscribe())
    }
}

/// Waits for a number to grow. It only saves waiting: who waits also looks from time to time, since what raises
/// the number (a notification of Postgres, a commit of this process) may not come.
#[derive(Clone, Debug)]
pub struct Wake(watch::Receiver<i64>);

impl Wake {
    /// Waits until the number is greater than when this was last called, or than when the wake was made, and
    /// returns it. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> i64 {
        if self.0.changed().await.is_err() {
            // Nobody can raise it any more.
            pending::<()>().await;
        }
        *self.0.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_wake_wakes_once_for_all_that_came_before() {
        let number = Growing::default();
        number.raise(3);
        let mut wake = number.wake();
        assert_eq!(wake.changed().now_or_never(), None, "it has not grown since");
        number.raise(5);
        number.raise(7);
        number.raise(6);
        assert_eq!(wake.changed().now_or_never(), Some(7));
        assert_eq!(wake.changed().now_or_never(), None);
        number.increment();
        assert_eq!(wake.changed().now_or_never(), Some(8));
    }
}
