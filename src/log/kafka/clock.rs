//! The cluster's clock, as far as this process knows it: from the times that it gave to what was written.

use std::sync::Mutex;
use std::time::Duration;

use crate::log::coordinator::lock;
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// An earlier time than what is known by as much is a clock that was set back, and is followed.
const SET_BACK: Duration = Duration::from_secs(60);

/// By so little for each of what passes here may less have passed there: two clocks never run quite alike.
const DRIFT: u32 = 1_000;

/// A time that the cluster has reached for certain. An answer brings the time at which a record was appended, which was before it
/// came; from then on this process counts by itself, so that no setting of its own clock matters.
#[derive(Default)]
pub(super) struct ClusterClock(Mutex<Option<(Timestamp, Stopwatch)>>);

impl ClusterClock {
    /// An answer came just now, to a record that was appended at `at`.
    pub(super) fn heard(&self, at: Timestamp) {
        let mut known = lock(&self.0);
        if reached(*known).is_none_or(|reached| at > reached || at + SET_BACK < reached) {
            *known = Some((at, Stopwatch::start()));
        }
    }

    /// `None` before the first answer.
    pub(super) fn reached(&self) -> Option<Timestamp> {
        reached(*lock(&self.0))
    }
}

fn reached(known: Option<(Timestamp, Stopwatch)>) -> Option<Timestamp> {
    known.map(|(at, since)| {
        let passed = since.elapsed();
        at + passed.saturating_sub(passed / DRIFT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn the_largest_time_that_was_heard_counts_on_and_a_clock_that_was_set_back_is_followed() {
        let clock = ClusterClock::default();
        assert_eq!(clock.reached(), None);
        clock.heard(time(1_000_000));
        assert!(clock.reached() >= Some(time(1_000_000)));
        // An answer that took long takes nothing back.
        clock.heard(time(990_000));
        assert!(clock.reached() >= Some(time(1_000_000)));
        clock.heard(time(2_000_000));
        assert!(clock.reached() >= Some(time(2_000_000)));
        clock.heard(time(1_000_000));
        assert!(clock.reached() < Some(time(2_000_000)), "an hour was taken back");
    }
}
