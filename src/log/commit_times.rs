//! How long commits took, and how many failed: counted where they happen, read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets in seconds, as text: a number's text is the identity of a bucket. An fsync takes 0.1 to
/// 10 ms on a healthy disk; what takes a second holds everything up.
pub const BOUNDS: [(&str, Duration); 14] = [
    ("0.0005", Duration::from_micros(500)),
    ("0.001", Duration::from_millis(1)),
    ("0.0025", Duration::from_micros(2_500)),
    ("0.005", Duration::from_millis(5)),
    ("0.01", Duration::from_millis(10)),
    ("0.025", Duration::from_millis(25)),
    ("0.05", Duration::from_millis(50)),
    ("0.1", Duration::from_millis(100)),
    ("0.25", Duration::from_millis(250)),
    ("0.5", Duration::from_millis(500)),
    ("1.0", Duration::from_secs(1)),
    ("2.5", Duration::from_millis(2_500)),
    ("5.0", Duration::from_secs(5)),
    ("10.0", Duration::from_secs(10)),
];

/// The commits of a log since it was opened.
#[derive(Debug, Default)]
pub struct CommitTimes {
    /// How many took at most so long, and longer than the bound before; the last: longer than any bound.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
    failed: AtomicU64,
}

impl CommitTimes {
    /// One that took `time` took effect.
    pub fn took(&self, time: Duration) {
        let bucket = BOUNDS.iter().position(|(_, bound)| time <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One failed: nothing of it took effect.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many took at most as long as each bound, and in all.
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.counts[bucket].load(Ordering::Relaxed);
            sum
        })
    }

    /// How long all took together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// How many failed.
    pub fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_counted_in_its_bucket_and_all_above() {
        let times = CommitTimes::default();
        [0, 500, 501, 20_000_000].into_iter().for_each(|us| times.took(Duration::from_micros(us)));
        times.failed();
        let counted = times.cumulative();
        assert_eq!((counted[0], counted[1], counted[13], counted[14]), (2, 3, 3, 4));
        assert_eq!((times.total(), times.failures()), (Duration::from_micros(20_001_001), 1));
    }

    #[test]
    fn the_bounds_are_what_their_texts_say() {
        for (text, bound) in BOUNDS {
            assert_eq!(Duration::from_secs_f64(text.parse().unwrap()), bound, "{text}");
        }
        assert!(BOUNDS.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }
}
