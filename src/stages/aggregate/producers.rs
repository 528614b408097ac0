//! Which message of each producer was taken last: what tells a repetition from a message that is new.
//!
//! It outlives flushes and restarts, so it is bounded: the producers that wrote last are remembered, the others are forgotten.
//! It is saved in buckets, so that a flush writes a few small rows, and of few producers only theirs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::log::{Offset, partition_of};
use crate::model::json;

/// How many producers are remembered of a partition. When one more comes, an eighth is forgotten: those that were silent longest.
pub const REMEMBERED_PRODUCERS: usize = 10_000;

/// The longest name of a producer that is remembered, in bytes; the messages of one with a longer name are all taken.
pub const MAX_PRODUCER_BYTES: usize = 253;

const BUCKETS: u32 = 64;

const KEY: &str = "producers:";

/// How many parts of a message are remembered that came before one that should have come first. A request over HTTP has some sixteen parts at most.
const MOST_BEYOND: usize = 64;

/// The last message of a producer, of which each part is taken once: a log may have stored some of them and not the others, and all of them
/// come again then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Last {
    sequence: i64,
    /// All parts from 0 to this one were taken; -1 where 0 was not.
    part: i64,
    /// Parts behind one that was not taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    beyond: Vec<i64>,
    /// Where its newest message stands, taken or not.
    offset: Offset,
}

impl Last {
    fn begun(sequence: i64, part: i64, offset: Offset) -> Self {
        let mut last = Last { sequence, part: -1, beyond: Vec::new(), offset };
        last.takes(part);
        last
    }

    /// Whether this part is new; notes it. One that cannot be remembered is taken, perhaps again.
    fn takes(&mut self, part: i64) -> bool {
        if (0..=self.part).contains(&part) || self.beyond.contains(&part) {
            return false;
        }
        if part != self.part + 1 {
            if self.beyond.len() < MOST_BEYOND {
                self.beyond.push(part);
            }
            return true;
        }
        self.part = part;
        while let Some(place) = self.beyond.iter().position(|beyond| Some(*beyond) == self.part.checked_add(1)) {
            self.part = self.beyond.swap_remove(place);
        }
        true
    }
}

/// What a message is, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// A new one.
    New,
    /// The last one again.
    Repeated,
    /// A smaller one than the last: a repetition that comes late, or a producer that does not count on.
    RanBack {
        /// The last one.
        last: i64,
    },
}

/// The producers of a partition.
#[derive(Debug, Default)]
pub(super) struct Producers {
    buckets: BTreeMap<u32, BTreeMap<String, Last>>,
    len: usize,
    changed: BTreeSet<u32>,
}

impl Producers {
    /// Whether the message at `offset` was there before; notes it where not.
    pub(super) fn note(&mut self, producer: &str, sequence: i64, part: i64, offset: Offset) -> Number {
        if producer.len() > MAX_PRODUCER_BYTES {
            return Number::New;
        }
        let bucket = partition_of(producer, BUCKETS);
        self.changed.insert(bucket);
        let held = self.buckets.entry(bucket).or_default();
        let Some(last) = held.get_mut(producer) else {
            held.insert(producer.to_owned(), Last::begun(sequence, part, offset));
            self.len += 1;
            if self.len > REMEMBERED_PRODUCERS {
                self.forget();
            }
            return Number::New;
        };
        last.offset = offset;
        match sequence.cmp(&last.sequence) {
            Ordering::Less => return Number::RanBack { last: last.sequence },
            Ordering::Greater => *last = Last::begun(sequence, part, offset),
            Ordering::Equal if last.takes(part) => {}
            Ordering::Equal => return Number::Repeated,
        }
        Number::New
    }

    /// Forgets the eighth that was silent longest.
    fn forget(&mut self) {
        let mut offsets: Vec<Offset> = self.buckets.values().flat_map(|bucket| bucket.values().map(|last| last.offset)).collect();
        let (_, newest_to_go, _) = offsets.select_nth_unstable(REMEMBERED_PRODUCERS / 8);
        let newest_to_go = *newest_to_go;
        for (number, bucket) in &mut self.buckets {
            let before = bucket.len();
            bucket.retain(|_, last| last.offset > newest_to_go);
            self.len -= before - bucket.len();
            if bucket.len() != before {
                self.changed.insert(*number);
            }
        }
    }

    /// The keys of what changed since the last call, in order.
    pub(super) fn take_changed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changed).into_iter().map(|bucket| format!("{KEY}{bucket:02}")).collect()
    }

    /// A key's bytes; `None` where it holds nobody.
    pub(super) fn encode(&self, key: &str) -> Option<Vec<u8>> {
        let bucket = self.buckets.get(&key.strip_prefix(KEY)?.parse().ok()?)?;
        if bucket.is_empty() { None } else { serde_json::to_vec(bucket).ok() }
    }

    /// Puts a key's bytes back.
    pub(super) fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<(), String> {
        let bucket = key.strip_prefix(KEY).and_then(|number| number.parse().ok()).filter(|number| *number < BUCKETS);
        let bucket: u32 = bucket.ok_or_else(|| format!("key \"{key}\" is not {KEY}00 to {KEY}{}", BUCKETS - 1))?;
        let held: BTreeMap<String, Last> = json::read_bytes(bytes).map_err(|e| format!("the producers of \"{key}\" cannot be read: {e}"))?;
        self.len += held.len();
        self.buckets.insert(bucket, held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is saved of `producers`, put back.
    fn restored(producers: &mut Producers) -> Producers {
        let mut restored = Producers::default();
        for key in producers.take_changed() {
            if let Some(bytes) = producers.encode(&key) {
                restored.restore(&key, &bytes).unwrap();
            }
        }
        restored
    }

    /// On Kafka each part is stored by itself: what a repetition brings of those that were not is new.
    #[test]
    fn the_parts_of_a_large_request_are_taken_once_each_whichever_came_first() {
        let mut producers = Producers::default();
        let mut offset = 0;
        let mut taken = |producers: &mut Producers, sequence, parts: i64| {
            let first = offset;
            offset += 10;
            (0..parts).filter(|part| producers.note("p", sequence, *part, first + part.unsigned_abs()) == Number::New).count()
        };
        assert_eq!(taken(&mut producers, 7, 3), 3);
        assert_eq!(taken(&mut producers, 7, 3), 0);
        assert_eq!(taken(&mut producers, 7, 5), 2, "those that were not stored");
        assert_eq!(taken(&mut producers, 7, 5), 0);
        assert_eq!(taken(&mut producers, 6, 1), 0);
        assert_eq!(producers.note("p", 6, 0, 99), Number::RanBack { last: 7 });
        assert_eq!(taken(&mut producers, 8, 2), 2, "a repetition hinders nothing that is new");
        let mut after = restored(&mut producers);
        assert_eq!(taken(&mut after, 8, 2), 0);
        assert_eq!(taken(&mut after, 9, 4), 4);
        for part in [3, 1, 6, 5] {
            assert_eq!(after.note("p", 10, part, 200), Number::New, "{part}");
        }
        let mut after = restored(&mut after);
        assert_eq!(taken(&mut after, 10, 7), 3, "0, 2 and 4");
        assert_eq!(taken(&mut after, 10, 7), 0);
        assert_eq!(taken(&mut after, 10, 8), 1);
        // Numbers that nobody should write cost no more than they may.
        for part in [i64::MAX, i64::MIN, -1].into_iter().chain((1..1_000).map(|part| part * 3)) {
            after.note("p", 11, part, 300);
        }
        assert_eq!(after.note("p", 11, i64::MAX, 301), Number::Repeated);
        assert!(after.buckets.values().flat_map(BTreeMap::values).all(|last| last.beyond.len() <= MOST_BEYOND));
    }

    #[test]
    fn the_producers_that_were_silent_longest_are_forgotten_and_nobody_else() {
        let mut producers = Producers::default();
        let most = REMEMBERED_PRODUCERS as u64;
        for number in 0..most {
            assert_eq!(producers.note(&format!("p{number}"), 5, 0, number), Number::New);
        }
        assert_eq!(producers.note("p0", 5, 0, most), Number::Repeated, "as many as that are remembered");
        assert_eq!(producers.note("one more", 5, 0, most + 1), Number::New);
        for (name, known) in [("p0", true), ("one more", true), ("p1300", true), ("p1", false), ("p1250", false)] {
            let mut after = Producers::default();
            for (bucket, held) in &producers.buckets {
                after.restore(&format!("{KEY}{bucket:02}"), &serde_json::to_vec(held).unwrap()).unwrap();
            }
            assert_eq!(after.note(name, 5, 0, most + 2) == Number::Repeated, known, "{name}");
        }
        assert_eq!(producers.len, producers.buckets.values().map(BTreeMap::len).sum::<usize>());
    }

    #[test]
    fn what_nobody_is_left_in_is_deleted_and_a_key_of_something_else_is_refused() {
        let mut producers = Producers::default();
        producers.note("p", 1, 0, 0);
        let [key] = producers.take_changed().try_into().unwrap();
        assert!(producers.encode(&key).is_some() && producers.take_changed().is_empty());
        producers.buckets.values_mut().for_each(BTreeMap::clear);
        assert_eq!(producers.encode(&key), None);
        for key in ["producers:64", "producers:x", "target:a"] {
            assert!(producers.restore(key, b"{}").unwrap_err().contains(key));
        }
        assert!(producers.restore("producers:01", b"[]").unwrap_err().contains("cannot be read"));
        for offset in [1, 2] {
            assert_eq!(producers.note(&"n".repeat(MAX_PRODUCER_BYTES + 1), 1, 0, offset), Number::New, "it is not remembered");
        }
    }
}
