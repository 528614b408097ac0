//! The check sum of each row: CRC-32 over its key and all that it holds.
//!
//! SQLite checks that its pages belong together, not what is written on them: a bit that flips in a row's bytes would be
//! read as if it had been appended so. Every field is preceded by its length, so that none can pass for a part of another.

use crc32fast::Hasher;

use super::failure::Failure;
use crate::log::Offset;
use crate::model::Timestamp;

/// Adds up the fields of a row.
struct Sum(Hasher);

impl Sum {
    fn of(table: &str) -> Self {
        Sum(Hasher::new()).text(table)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    fn end(self) -> i64 {
        i64::from(self.0.finalize())
    }
}

/// Of a row of records.
pub(super) fn of_records(topic: &str, partition: u32, first: Offset, count: u64, at: Timestamp, keys: Option<&str>, payload: &[u8]) -> i64 {
    let row = Sum::of("records").text(topic).number(partition.into()).number(first).number(count).bytes(&at.as_millis().to_le_bytes());
    // A row without keys is another one than a row whose keys are an empty text.
    let keyed = row.number(keys.is_some().into());
    keyed.text(keys.unwrap_or_default()).bytes(payload).end()
}

/// Of where a partition begins and ends, and its size.
pub(super) fn of_partition(topic: &str, partition: u32, earliest: Offset, next: Offset, bytes: u64) -> i64 {
    Sum::of("partitions").text(topic).number(partition.into()).number(earliest).number(next).number(bytes).end()
}

/// Of a group's position, in one of the two tables that have it.
pub(super) fn of_position(table: &str, group: &str, topic: &str, partition: u32, next: Offset) -> i64 {
    Sum::of(table).text(group).text(topic).number(partition.into()).number(next).end()
}

/// Of an entry of a state.
pub(super) fn of_state(group: &str, partition: u32, key: &str, value: &[u8]) -> i64 {
    Sum::of("states").text(group).number(partition.into()).text(key).bytes(value).end()
}

/// Of how many entries a state has.
pub(super) fn of_entries(group: &str, partition: u32, count: u64) -> i64 {
    Sum::of("entries").text(group).number(partition.into()).number(count).end()
}

/// That a row holds what was written.
pub(super) fn holds(what: impl FnOnce() -> String, stored: i64, sum: i64) -> Result<(), Failure> {
    if stored == sum {
        return Ok(());
    }
    Err(Failure::Lasting(format!("{} is damaged: its check sum is {stored:08x}, what it holds adds up to {sum:08x}", what())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_none_passes_for_another() {
        let at = Timestamp::from_millis;
        let sums = [
            of_records("signals", 0, 1, 1, at(5), Some("[\"a\"]"), b"x"),
            of_records("metrics", 0, 1, 1, at(5), Some("[\"a\"]"), b"x"),
            of_records("signals", 1, 1, 1, at(5), Some("[\"a\"]"), b"x"),
            of_records("signals", 0, 2, 1, at(5), Some("[\"a\"]"), b"x"),
            of_records("signals", 0, 1, 2, at(5), Some("[\"a\"]"), b"x"),
            of_records("signals", 0, 1, 1, at(6), Some("[\"a\"]"), b"x"),
            of_records("signals", 0, 1, 1, at(5), Some("[\"b\"]"), b"x"),
            of_records("signals", 0, 1, 1, at(5), None, b"x"),
            of_records("signals", 0, 1, 1, at(5), Some(""), b"x"),
            of_records("signals", 0, 1, 1, at(5), Some("[\"a\"]x"), b""),
            of_state("decide", 0, "ab", b"c"),
            of_state("decide", 0, "a", b"bc"),
            of_position("positions", "decide", "signals", 0, 1),
            of_position("positions_copy", "decide", "signals", 0, 1),
            of_partition("signals", 0, 0, 1, 2),
            of_partition("signals", 0, 1, 1, 2),
        ];
        let different: std::collections::BTreeSet<i64> = sums.into_iter().collect();
        assert_eq!(different.len(), sums.len());
    }
}
