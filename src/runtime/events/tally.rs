//! Counts of events, by closed sets of words.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{TargetId, Timestamp};

/// The most targets that are counted, as many as a process takes.
const MOST_TARGETS: usize = 100_000;

/// Counts by a word of a closed set. All words are there from the start, at 0: what did not happen is known.
#[derive(Debug)]
pub struct Tally {
    words: &'static [&'static str],
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Of these words.
    pub const fn new(words: &'static [&'static str]) -> Self {
        Tally { words, counts: Mutex::new(BTreeMap::new()) }
    }

    /// Adds `n` to a word. A word that is none of the set counts as `other`.
    pub fn add(&self, word: &str, n: u64) {
        let word = self.words.iter().copied().find(|known| *known == word).unwrap_or("other");
        *lock(&self.counts).entry(word).or_default() += n;
    }

    /// Each word with its count.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts: BTreeMap<_, _> = self.words.iter().map(|word| (*word, 0)).collect();
        counts.extend(lock(&self.counts).iter().map(|(word, n)| (*word, *n)));
        counts
    }
}

/// Two words, of closed sets.
type Words = (&'static str, &'static str);

/// Counts by target and two words. Only what happened is there.
#[derive(Debug, Default)]
pub struct TargetTally(Mutex<BTreeMap<TargetId, BTreeMap<Words, u64>>>);

impl TargetTally {
    /// Nothing yet.
    pub const fn new() -> Self {
        TargetTally(Mutex::new(BTreeMap::new()))
    }

    /// Adds one.
    pub fn add(&self, target: &TargetId, first: &'static str, second: &'static str) {
        let mut counts = lock(&self.0);
        if let Some(counts) = counts.get_mut(target) {
            *counts.entry((first, second)).or_default() += 1;
        } else if counts.len() < MOST_TARGETS {
            counts.insert(target.clone(), BTreeMap::from([((first, second), 1)]));
        }
    }

    /// The counts of a target.
    pub fn of(&self, target: &TargetId) -> BTreeMap<Words, u64> {
        lock(&self.0).get(target).cloned().unwrap_or_default()
    }
}

/// When something happened last, by a word.
#[derive(Debug, Default)]
pub struct Latest(Mutex<BTreeMap<&'static str, Timestamp>>);

impl Latest {
    /// Nothing yet.
    pub const fn new() -> Self {
        Latest(Mutex::new(BTreeMap::new()))
    }

    /// It happened.
    pub fn set(&self, word: &'static str, at: Timestamp) {
        lock(&self.0).insert(word, at);
    }

    /// Each word with when.
    pub fn times(&self) -> BTreeMap<&'static str, Timestamp> {
        lock(&self.0).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_set_are_there_from_the_start_and_no_others_come_in() {
        static TALLY: Tally = Tally::new(&["a", "b"]);
        TALLY.add("b", 2);
        TALLY.add("who knows what", 1);
        assert_eq!(TALLY.counts(), BTreeMap::from([("a", 0), ("b", 2), ("other", 1)]));
    }

    #[test]
    fn targets_are_counted_apart() {
        let (tally, one, two): (_, TargetId, TargetId) = (TargetTally::new(), "a/B/c".parse().unwrap(), "a/B/d".parse().unwrap());
        tally.add(&one, "Hold", "Combine");
        tally.add(&one, "Hold", "Combine");
        assert_eq!(tally.of(&one), BTreeMap::from([(("Hold", "Combine"), 2)]));
        assert!(tally.of(&two).is_empty());
    }
}
