//! Troubles that repeat, told seldom.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::runtime::clock::Stopwatch;

/// How often what goes on is told again.
const AGAIN: Duration = Duration::from_secs(60);

/// How long a trouble stays away until it counts as over: what comes and goes is one trouble.
const CALM: Duration = Duration::from_secs(10);

/// One trouble: told when it begins, then once a minute, and when it is over.
#[derive(Debug, Default)]
pub struct Repeated(Mutex<Option<Trouble>>);

#[derive(Debug)]
struct Trouble {
    told: Stopwatch,
    last: Stopwatch,
    /// How often it came since it was told.
    untold: u64,
    all: u64,
}

impl Repeated {
    /// Nothing yet.
    pub const fn new() -> Self {
        Repeated(Mutex::new(None))
    }

    /// It came. `Some` where that is to be told: how often it came since it was told last, this time included.
    pub fn note(&self) -> Option<u64> {
        self.note_after(AGAIN)
    }

    /// Nothing came just now. `Some` where it is over: how often it came in all.
    pub fn calm(&self) -> Option<u64> {
        self.calm_after(CALM)
    }

    fn note_after(&self, again: Duration) -> Option<u64> {
        let mut state = self.lock();
        let Some(trouble) = state.as_mut() else {
            *state = Some(Trouble { told: Stopwatch::start(), last: Stopwatch::start(), untold: 0, all: 1 });
            return Some(1);
        };
        trouble.last = Stopwatch::start();
        trouble.all += 1;
        trouble.untold += 1;
        (trouble.told.elapsed() >= again).then(|| {
            trouble.told = Stopwatch::start();
            std::mem::take(&mut trouble.untold)
        })
    }

    fn calm_after(&self, calm: Duration) -> Option<u64> {
        let mut state = self.lock();
        let over = state.as_ref().is_some_and(|trouble| trouble.last.elapsed() >= calm);
        if over { state.take().map(|trouble| trouble.all) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_trouble_is_told_once_then_with_its_count_and_when_it_is_over() {
        let trouble = Repeated::new();
        assert_eq!(trouble.calm_after(Duration::ZERO), None, "there is none");
        assert_eq!([trouble.note_after(LONG), trouble.note_after(LONG), trouble.note_after(LONG)], [Some(1), None, None]);
        assert_eq!(trouble.note_after(Duration::ZERO), Some(3), "those that were not told, and this one");
        assert_eq!(trouble.calm_after(LONG), None, "it came just now");
        assert_eq!(trouble.calm_after(Duration::ZERO), Some(4));
        assert_eq!(trouble.note_after(LONG), Some(1), "a new one is told at once");
    }
}
