//! The machine itself stands still now and then, as a virtual one does whose host is busy. To all that runs on it that is a fault like any other: sessions are over when it goes on.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadline::runtime::clock::Stopwatch;

use crate::clock::unix_millis;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Who wakes later than that was kept from it.
const STANDS: Duration = Duration::from_secs(1);

/// What was seen of it. Times are since it is watched.
#[derive(Debug)]
pub(super) struct Standstill {
    since: Stopwatch,
    since_ms: i64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last_look: Duration,
    stood: Vec<Range<Duration>>,
}

impl Standstill {
    /// From now on.
    pub(super) fn new() -> Self {
        Standstill { since: Stopwatch::start(), since_ms: unix_millis(), seen: Mutex::default() }
    }

    /// Looks until it is told to stop.
    pub(super) fn watch(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            self.now();
            // That it lasts longer than it should is what is looked for.
            std::thread::sleep(LOOK);
        }
    }

    /// Looks; the time. Only while it is watched: who comes first after a standstill sees it.
    pub(super) fn now(&self) -> Duration {
        let mut seen = self.seen();
        let now = self.since.elapsed();
        seen.looked(now);
        now
    }

    /// What went by in this time without a standstill, in stretches.
    pub(super) fn undisturbed(&self, time: Range<Duration>) -> Vec<Duration> {
        self.seen().undisturbed(time)
    }

    /// Whether it stood still at this time of day, or so shortly before.
    pub(super) fn befell(&self, unix_ms: i64, shortly: Duration) -> bool {
        let at = Duration::from_millis(u64::try_from(unix_ms - self.since_ms).unwrap_or(0));
        self.seen().stood.iter().any(|stood| stood.start <= at && at <= stood.end + shortly)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn looked(&mut self, now: Duration) {
        if now.saturating_sub(self.last_look) >= STANDS {
            self.stood.push(self.last_look..now);
        }
        self.last_look = now;
    }

    fn undisturbed(&self, time: Range<Duration>) -> Vec<Duration> {
        let mut from = time.start;
        let mut stretches = Vec::new();
        for stood in self.stood.iter().filter(|stood| stood.end > time.start && stood.start < time.end) {
            stretches.push(stood.start.saturating_sub(from));
            from = stood.end;
        }
        stretches.push(time.end.saturating_sub(from));
        stretches
    }
}

/// Nothing where there was none.
impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen();
        let Some(longest) = seen.stood.iter().map(|stood| stood.end.saturating_sub(stood.start)).max() else { return Ok(()) };
        write!(f, "; the machine itself stood still {} times, for {:.1} s at most", seen.stood.len(), longest.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(times: Range<u64>) -> Range<Duration> {
        Duration::from_secs(times.start)..Duration::from_secs(times.end)
    }

    /// It stood still from 10 to 15 and from 20 to 23 seconds.
    fn seen() -> Standstill {
        let seen = Seen { stood: vec![seconds(10..15), seconds(20..23)], ..Seen::default() };
        Standstill { seen: Mutex::new(seen), ..Standstill::new() }
    }

    #[test]
    fn who_wakes_late_saw_the_machine_stand_still() {
        let mut late = Seen::default();
        [20, 40, 1_030, 6_030, 6_050].into_iter().for_each(|at| late.looked(Duration::from_millis(at)));
        assert_eq!(late.stood, [Duration::from_millis(1_030)..Duration::from_millis(6_030)]);
        assert_eq!(Standstill::new().to_string(), "");
        assert_eq!(seen().to_string(), "; the machine itself stood still 2 times, for 5.0 s at most");
    }

    /// What is slow by itself is as slow with standstills: each stretch between them counts, the first and the last too.
    #[test]
    fn what_went_by_between_standstills_counts() {
        let table: [(_, &[u64]); 8] = [
            (0..30, &[10, 5, 7]),
            (0..9, &[9]),
            (12..30, &[0, 5, 7]),
            (16..18, &[2]),
            (3..16, &[7, 1]),
            (22..60, &[0, 37]),
            (24..60, &[36]),
            (11..14, &[0, 0]),
        ];
        for (time, stretches) in table {
            let expected: Vec<_> = stretches.iter().copied().map(Duration::from_secs).collect();
            assert_eq!(seen().undisturbed(seconds(time.clone())), expected, "{time:?}");
        }
        assert_eq!(Standstill::new().undisturbed(seconds(5..65)), [Duration::from_secs(60)]);
    }

    #[test]
    fn what_came_long_after_it_or_before_is_none_of_its_doing() {
        let seen = seen();
        let befell = |second: i64| seen.befell(seen.since_ms + second * 1_000, Duration::from_secs(2));
        assert_eq!((9..=26).filter(|second| befell(*second)).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23, 24, 25]);
    }
}
