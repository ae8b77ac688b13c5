//! How much of the time a long run works.

use std::time::Duration;

/// A share of the time: work that took so long is followed by a rest that keeps the share.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    percent: u32,
}

/// No rest is longer, or a lease would end over it.
const LONGEST: Duration = Duration::from_secs(10);

impl Pace {
    /// So many percent of the time, 1 to 100.
    pub fn percent(percent: u32) -> Self {
        Self { percent: percent.clamp(1, 100) }
    }

    /// The rest after work that took so long.
    pub fn rest_after(self, worked: Duration) -> Duration {
        (worked * (100 - self.percent) / self.percent).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_keeps_the_share_and_is_never_long() {
        let worked = Duration::from_millis(100);
        assert_eq!(Pace::percent(100).rest_after(worked), Duration::ZERO);
        assert_eq!(Pace::percent(20).rest_after(worked), Duration::from_millis(400));
        assert_eq!(Pace::percent(0).rest_after(worked), Duration::from_millis(9_900));
        assert_eq!(Pace::percent(1).rest_after(worked * 1000), LONGEST);
    }
}
