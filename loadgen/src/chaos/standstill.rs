//! The machine itself stands still now and then, as a virtual one does whose host is busy. To all that runs on it that is a fault like any other: sessions are over when it goes on.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadline::runtime::clock::Stopwatch;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Who wakes later than that was kept from it.
const STANDS: Duration = Duration::from_secs(1);

/// What was seen of it.
#[derive(Debug, Default)]
pub(super) struct Standstill(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    times: u32,
    longest: Duration,
    /// Since when it goes on.
    over: Option<Stopwatch>,
}

impl Standstill {
    /// Looks until it is told to stop.
    pub(super) fn watch(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let sleeps = Stopwatch::start();
            std::thread::sleep(LOOK);
            self.woke_after(sleeps.elapsed());
        }
    }

    fn woke_after(&self, slept: Duration) {
        if slept >= STANDS {
            let mut seen = self.seen();
            seen.times += 1;
            seen.longest = seen.longest.max(slept);
            seen.over = Some(Stopwatch::start());
        }
    }

    /// How long ago the last one ended, where there was one.
    pub(super) fn over_since(&self) -> Option<Duration> {
        self.seen().over.map(Stopwatch::elapsed)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing where there was none.
impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { times, longest, .. } = &*self.seen();
        if *times == 0 { Ok(()) } else { write!(f, "; the machine itself stood still {times} times, for {:.1} s at most", longest.as_secs_f64()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wakes_late_saw_the_machine_stand_still() {
        let seen = Standstill::default();
        seen.woke_after(STANDS / 2);
        assert!(seen.over_since().is_none() && seen.to_string().is_empty());
        seen.woke_after(Duration::from_secs(5));
        seen.woke_after(Duration::from_secs(3));
        assert!(seen.over_since().is_some());
        assert_eq!(seen.to_string(), "; the machine itself stood still 2 times, for 5.0 s at most");
    }
}
