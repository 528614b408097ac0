//! How a thread of the edge is told to go on or to end.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::runtime::clock::Stopwatch;

/// A bell that a thread waits for, and that can tell it to end.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    woken: bool,
    stopping: bool,
}

impl Bell {
    /// Ends the wait that is under way, or the next one.
    pub(crate) fn ring(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).woken = true;
        self.rung.notify_all();
    }

    /// Ends every wait from now on.
    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopping = true;
        self.rung.notify_all();
    }

    /// Whether the thread is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopping
    }

    /// Waits until it is rung, the thread is to end, or `at_most` has passed. Says whether to go on.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        self.wait_for(at_most, |state| state.woken || state.stopping)
    }

    /// Waits `at_most`, whatever rings; only the order to end shortens it. Says whether to go on.
    pub(crate) fn pause(&self, at_most: Duration) -> bool {
        self.wait_for(at_most, |state| state.stopping)
    }

    fn wait_for(&self, at_most: Duration, over: impl Fn(&Rung) -> bool) -> bool {
        let started = Stopwatch::start();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !over(&state) {
            let Some(left) = at_most.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { break };
            state = self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.woken = false;
        !state.stopping
    }
}

/// Calls this where the thread that holds it unwinds: nobody would know that its part stands still.
pub(crate) struct WhenUnwound<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for WhenUnwound<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}
