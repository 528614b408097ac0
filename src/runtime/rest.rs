//! When what failed for now is tried again.

use std::time::Duration;

use crate::model::Timestamp;

/// How often what is still being done is looked at, at first and later.
const FIRST_LOOK: Duration = Duration::from_millis(10);
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// The first wait after a failure, and the longest.
pub(crate) const FIRST: Duration = Duration::from_millis(100);
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// The rest of a partition that failed for now, while the others go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// When it is tried again.
    pub(crate) until: Timestamp,
    /// After another failure it rests twice as long.
    pause: Duration,
    /// It is still being done, and is only looked at.
    pub(crate) under_way: bool,
    /// So long after the last look it is looked at again.
    look: Duration,
}

impl Rest {
    /// After another failure.
    pub(crate) fn failed(before: Option<Rest>, now: Timestamp) -> Rest {
        let pause = before.map_or(FIRST, |before| (before.pause * 2).clamp(LOOK, LONGEST));
        Rest { until: now + pause, pause, under_way: false, look: FIRST_LOOK }
    }

    /// While it is still being done.
    pub(crate) fn under_way(before: Option<Rest>, now: Timestamp) -> Rest {
        let look = before.filter(|before| before.under_way).map_or(FIRST_LOOK, |before| (before.look * 2).min(LOOK));
        Rest { until: now + look, pause: before.map_or(Duration::ZERO, |before| before.pause), under_way: true, look }
    }

    /// A clock that is set back prolongs it by nothing.
    pub(crate) fn lasts(self, now: Timestamp) -> bool {
        now < self.until && self.until <= now + LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_twice_as_long_after_each_failure_up_to_the_longest_and_ends_with_a_clock_that_is_set_back() {
        let now = Timestamp::from_millis(1_764_000_000_000);
        let mut rest = Rest::failed(None, now);
        let mut waits = vec![rest.until.since(now)];
        for _ in 0..6 {
            rest = Rest::failed(Some(rest), now);
            waits.push(rest.until.since(now));
        }
        let expected = [100, 200, 400, 800, 1600, 3200, 5000].map(Duration::from_millis);
        assert_eq!(waits, expected);
        assert!(rest.lasts(now) && !rest.lasts(rest.until) && !rest.lasts(now - Duration::from_millis(1)));
        let mut looked = Rest::under_way(Some(rest), now);
        assert_eq!(Rest::failed(Some(looked), now).until.since(now), LONGEST);
        let mut looks = vec![looked.until.since(now)];
        for _ in 0..3 {
            looked = Rest::under_way(Some(looked), now);
            looks.push(looked.until.since(now));
        }
        assert_eq!(looks, [10, 20, 40, 50].map(Duration::from_millis));
    }
}
