//! Work that may take long or not come back, on a thread of its own: whoever waits for it waits so long and no longer, and may be woken when it comes to its end later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::runtime::clock::Stopwatch;

/// Work that was begun.
pub(super) struct Apart<T> {
    pub(super) began: Stopwatch,
    /// Somebody waited for it in vain.
    is_left: Arc<AtomicBool>,
    ended: Receiver<T>,
}

/// There was no thread for it, or it unwound.
pub(super) struct Lost;

impl<T: Send + 'static> Apart<T> {
    /// Begins it; `wake` is called at its end, where somebody waited for it in vain before.
    pub(super) fn begin(name: &str, work: impl FnOnce() -> T + Send + 'static, wake: impl FnOnce() + Send + 'static) -> Self {
        let (tell, ended) = channel();
        let (began, is_left) = (Stopwatch::start(), Arc::<AtomicBool>::default());
        let wakes = Arc::clone(&is_left);
        let works = move || {
            // Nobody may want to know any more.
            let _ = tell.send(work());
            if wakes.load(Ordering::SeqCst) {
                wake();
            }
        };
        // Without a thread nothing is ever told, which is told as that.
        let _ = std::thread::Builder::new().name(name.to_owned()).spawn(works);
        Apart { began, is_left, ended }
    }

    /// What came of it, once, where it came to its end within `wait`.
    pub(super) fn ended(&self, wait: Duration) -> Option<Result<T, Lost>> {
        match self.ended.recv_timeout(wait) {
            Ok(ended) => Some(Ok(ended)),
            Err(RecvTimeoutError::Disconnected) => Some(Err(Lost)),
            Err(RecvTimeoutError::Timeout) => {
                self.is_left.store(true, Ordering::SeqCst);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_waited_in_vain_is_woken_and_nobody_else() {
        let (woken, wakes) = channel();
        let (go_on, waits) = channel::<()>();
        let slow = Apart::begin("slow", move || waits.recv().is_ok(), move || woken.send("slow").unwrap());
        assert!(slow.ended(Duration::ZERO).is_none());
        go_on.send(()).unwrap();
        assert!(matches!(slow.ended(LONG), Some(Ok(true))));
        assert_eq!(wakes.recv_timeout(LONG), Ok("slow"));
        let (woken, wakes) = channel();
        let quick = Apart::begin("quick", || 1, move || woken.send("quick").unwrap());
        assert!(matches!(quick.ended(LONG), Some(Ok(1))));
        assert_eq!(wakes.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected), "it ended without a word");
    }

    #[test]
    fn work_that_unwinds_is_told_as_that() {
        let unwinds = Apart::begin("unwinds", || -> u32 { panic!("planned") }, || {});
        assert!(matches!(unwinds.ended(LONG), Some(Err(Lost))));
    }
}
