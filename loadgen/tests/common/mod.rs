//! Waiting for what must happen.

use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(300);

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = stopwatch();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline of a test")]
fn stopwatch() -> Instant {
    Instant::now()
}
