//! Whether a client that hears nothing still reaches the cluster.
//!
//! A cluster whose brokers were all late to be heard of by their controller has no broker for a moment, and says so. librdkafka forgets the brokers that it knew then, and may
//! never look for them again (its issue 5301, open as of 2.12): such a client is silent for good, and another one is made in its place.

use std::time::Duration;

use super::apart::Apart;
use crate::runtime::clock::Stopwatch;

/// So long nothing is heard before it is asked.
const QUIET: Duration = Duration::from_secs(5);

/// What is known of one client.
pub(super) struct Reach {
    patience: Duration,
    quiet: Stopwatch,
    asks: Option<Apart<bool>>,
}

impl Reach {
    /// Of a client that was just made.
    pub(super) fn new() -> Self {
        Reach { patience: QUIET, quiet: Stopwatch::start(), asks: None }
    }

    /// Something came by it: what is being asked does not matter any more.
    pub(super) fn heard(&mut self) {
        self.quiet = Stopwatch::start();
        self.asks = None;
    }

    /// Whether the client is lost. Where nothing was heard for a while, `is_lost` is asked on a thread of its own, and nobody waits for it.
    pub(super) fn is_lost(&mut self, is_lost: impl FnOnce() -> bool + Send + 'static) -> bool {
        let Some(asks) = &self.asks else {
            if self.is_due() {
                self.asks = Some(Apart::begin("reach", is_lost, || {}));
            }
            return false;
        };
        let Some(outcome) = asks.ended(Duration::ZERO) else { return false };
        self.heard();
        matches!(outcome, Ok(true))
    }

    /// Whether it is to be asked, for who waits for the answer; it is again after another while.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.quiet.elapsed() >= self.patience;
        if is_due {
            self.quiet = Stopwatch::start();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it when it is asked, and this is the answer.
    fn told(reach: &mut Reach, answer: bool) -> bool {
        assert!(!reach.is_lost(move || answer), "nobody waits for the answer");
        loop {
            let told = reach.is_lost(|| panic!("it is asked once"));
            if reach.asks.is_none() {
                return told;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_hears_nothing_is_asked_and_what_comes_meanwhile_settles_it() {
        let mut reach = Reach { patience: Duration::MAX, ..Reach::new() };
        assert!(!reach.is_lost(|| panic!("it is too soon")) && reach.asks.is_none());
        reach.patience = Duration::ZERO;
        assert!(told(&mut reach, true));
        assert!(!told(&mut reach, false));
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        assert!(!reach.is_lost(move || waits.recv().is_err()));
        reach.heard();
        assert!(reach.asks.is_none(), "an answer of before");
        drop(go_on);
    }
}
