//! How writes fare: since when none succeeds, and how long those took that did.

use std::sync::Mutex;
use std::time::Duration;

use crate::log::coordinator::lock;
use crate::log::{CommitTimes, LogError, Trouble};
use crate::runtime::clock::{Clock as _, Stopwatch, SystemClock};

/// What became of the writes of a process.
#[derive(Default)]
pub(super) struct Standing {
    brokers: String,
    trouble: Mutex<Option<Trouble>>,
    times: CommitTimes,
}

impl Standing {
    pub(super) fn new(brokers: &str) -> Self {
        Standing { brokers: brokers.to_owned(), ..Standing::default() }
    }

    /// Does a write, and notes what came of it.
    pub(super) fn note<T>(&self, write: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        let started = Stopwatch::start();
        let outcome = write();
        match &outcome {
            Ok(_) => self.written(started.elapsed()),
            Err(LogError::Retry { reason } | LogError::Unknown { reason }) => self.refused(reason),
            Err(LogError::Fenced { .. } | LogError::TooLarge { .. } | LogError::Fatal { .. }) => self.times.failed(),
        }
        outcome
    }

    fn written(&self, time: Duration) {
        self.times.took(time);
        drop(lock(&self.trouble).take());
    }

    fn refused(&self, reason: &str) {
        self.times.failed();
        let mut trouble = lock(&self.trouble);
        let (since, refused) = trouble.as_ref().map_or_else(|| (SystemClock.now(), 0), |trouble| (trouble.since, trouble.refused));
        *trouble = Some(Trouble {
            since,
            refused: refused + 1,
            reason: reason.to_owned(),
            place: self.brokers.clone(),
            mend: "see that the brokers run and can be reached, and have enough replicas in sync: it goes on by itself then".to_owned(),
        });
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        lock(&self.trouble).clone()
    }

    pub(super) fn times(&self) -> &CommitTimes {
        &self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_counted_since_the_last_write_that_did_not() {
        let standing = Standing::new("a:9092");
        let fail = |reason: &str| drop(standing.note(|| Err::<(), _>(LogError::Retry { reason: reason.to_owned() })));
        assert_eq!(standing.trouble(), None);
        fail("no answer");
        let since = standing.trouble().unwrap().since;
        fail("still none");
        let Trouble { refused, reason, place, .. } = standing.trouble().unwrap();
        assert_eq!((standing.trouble().unwrap().since, refused, reason.as_str(), place.as_str()), (since, 2, "still none", "a:9092"));
        // Of one that was too large the cluster is not to blame.
        drop(standing.note(|| Err::<(), _>(LogError::TooLarge { topic: crate::log::Topic::Metrics, bytes: 1 })));
        assert_eq!(standing.trouble().unwrap().refused, 2);
        standing.note(|| Ok(())).unwrap();
        assert_eq!(standing.trouble(), None);
        assert_eq!((*standing.times().cumulative().last().unwrap(), standing.times().failures()), (1, 3));
    }
}
