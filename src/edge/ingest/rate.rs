//! How many samples a second are taken: a limit that an operator sets, so that what producers send cannot take the
//! machine from the decisions.
//!
//! A token bucket (the generic cell rate algorithm) that holds a second's samples. A request is taken whole or not at
//! all, and one that is refused is told when it would be taken if nobody came before it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::runtime::clock::Stopwatch;

/// The limit.
pub(super) struct Rate<C: Clock<Instant = Duration> = Ticking> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<Duration>>,
    clock: C,
    most: NonZeroU32,
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// It would be taken after this.
    Wait(Duration),
    /// It has more samples than are taken in a second: so many.
    TooMany(NonZeroU32),
}

/// Time that passes here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticking(Stopwatch);

impl Clock for Ticking {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Rate {
    /// At most so many samples a second.
    pub(super) fn new(samples: NonZeroU32) -> Rate {
        Rate::with_clock(samples, Ticking(Stopwatch::start()))
    }
}

impl<C: Clock<Instant = Duration> + Clone> Rate<C> {
    fn with_clock(samples: NonZeroU32, clock: C) -> Self {
        Rate { limiter: RateLimiter::direct_with_clock(Quota::per_second(samples), clock.clone()), clock, most: samples }
    }

    /// Takes a request of so many samples.
    pub(super) fn take(&self, samples: usize) -> Result<(), Exceeded> {
        let Some(samples) = u32::try_from(samples).ok().and_then(NonZeroU32::new) else {
            return if samples == 0 { Ok(()) } else { Err(Exceeded::TooMany(self.most)) };
        };
        match self.limiter.check_n(samples) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(Exceeded::Wait(not_until.wait_time_from(self.clock.now()))),
            Err(_) => Err(Exceeded::TooMany(self.most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Set(Arc<AtomicU64>);

    impl Clock for Set {
        type Instant = Duration;

        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    /// However many are sent, a second's samples are taken at once and a second's more in each second after it; and
    /// whoever waits as told is taken.
    #[test]
    fn no_more_are_taken_than_the_limit_says_and_the_wait_is_honest() {
        let clock = Set::default();
        let rate = Rate::with_clock(NonZeroU32::new(5_000).unwrap(), clock.clone());
        let taken = |rate: &Rate<Set>| (0..100).filter(|_| rate.take(500).is_ok()).count() * 500;
        assert_eq!(taken(&rate), 5_000);
        let mut in_a_minute = 0;
        for _ in 0..600 {
            clock.0.fetch_add(100, Ordering::Relaxed);
            in_a_minute += taken(&rate);
        }
        assert_eq!(in_a_minute, 300_000);
        let Err(Exceeded::Wait(wait)) = rate.take(4_000) else { panic!("it is refused") };
        assert_eq!(wait, Duration::from_millis(800));
        clock.0.fetch_add(799, Ordering::Relaxed);
        assert!(rate.take(4_000).is_err(), "not before");
        clock.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(rate.take(4_000), Ok(()));
        assert_eq!(rate.take(5_001), Err(Exceeded::TooMany(NonZeroU32::new(5_000).unwrap())), "that one would wait for ever");
        assert_eq!(rate.take(0), Ok(()));
    }
}
