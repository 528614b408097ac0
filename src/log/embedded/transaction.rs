//! One transaction: what the writer does with the requests that share it, all or nothing.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::failure::Failure;
use super::rows::{Chunk, ROW_OVERHEAD};
use super::schema::{signed, unsigned};
use super::tails::{Ends, Extent, Tails};
use super::writer::{Outcome, Work};
use super::{checksum, positions, states};
use crate::log::{Offset, StatePut, Topic};
use crate::model::Timestamp;

/// Rows that one step of a trim deletes: at most 16 MB, so that others write between the steps.
const TRIM_ROWS: u32 = 64;

/// Does all of `works` in one transaction at the instant `at`: the outcome of each, and the ends of
/// the partitions that changed.
pub(super) fn transact(connection: &mut Connection, tails: &Tails, at: Timestamp, works: Vec<Work>) -> Result<(Vec<Outcome>, Ends), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut writes = Writes { transaction: &transaction, tails, at, changed: Ends::new(), open: BTreeMap::new() };
    let mut outcomes = Vec::with_capacity(works.len());
    for work in works {
        outcomes.push(match work {
            Work::Append(chunks) => Outcome::Appended(writes.append(chunks)?),
            Work::Commit { committer, partition, position, chunks, states } => {
                writes.append(chunks)?;
                if let Some(position) = position {
                    positions::put(&transaction, committer.group, committer.topic, partition, position)?;
                }
                writes.states(committer.group, partition, states)?;
                Outcome::Committed
            }
            Work::Trim { topic, partition, before } => writes.trim(topic, partition, before)?,
        });
    }
    let changed = writes.finish()?;
    transaction.commit()?;
    Ok((outcomes, changed))
}

/// The writes of one transaction.
struct Writes<'a> {
    transaction: &'a Transaction<'a>,
    tails: &'a Tails,
    at: Timestamp,
    /// The ends of the partitions that this transaction changes.
    changed: Ends,
    /// The row that is being filled, with the offset of its first record, for each partition.
    open: BTreeMap<(Topic, u32), (Offset, Chunk)>,
}

impl Writes<'_> {
    fn extent(&mut self, topic: Topic, partition: u32) -> Result<&mut Extent, Failure> {
        use std::collections::btree_map::Entry;
        match self.changed.entry((topic, partition)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let extent = self.tails.extent(topic, partition).map_err(|error| Failure::Lasting(error.to_string()))?;
                Ok(entry.insert(extent))
            }
        }
    }

    /// Appends chunks; the first offset of each.
    fn append(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Offset>, Failure> {
        let mut firsts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let (topic, partition) = (chunk.topic, chunk.partition);
            let offsets = &mut self.extent(topic, partition)?.offsets;
            let first = offsets.end;
            offsets.end += chunk.count;
            firsts.push(first);
            match self.open.get_mut(&(topic, partition)) {
                Some((_, row)) if row.has_room_for(&chunk) => row.join(&chunk),
                _ => {
                    if let Some((first, row)) = self.open.insert((topic, partition), (first, chunk)) {
                        self.insert(first, row)?;
                    }
                }
            }
        }
        Ok(firsts)
    }

    fn insert(&mut self, first: Offset, row: Chunk) -> Result<(), Failure> {
        let (topic, partition, count) = (row.topic, row.partition, row.count);
        let (keys, payload) = row.columns();
        let crc = checksum::of_records(topic.name(), partition, first, count, self.at, keys.as_deref(), &payload);
        self.extent(topic, partition)?.bytes += (keys.as_ref().map_or(0, String::len) + payload.len()) as u64 + ROW_OVERHEAD;
        self.transaction
            .prepare_cached("INSERT INTO records (topic, partition, first, count, at, keys, payload, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![topic.name(), partition, signed(first), signed(count), self.at.as_millis(), keys, payload, crc])?;
        Ok(())
    }

    fn states(&self, group: &str, partition: u32, states: Vec<StatePut>) -> Result<(), Failure> {
        let (mut added, mut removed) = (0, 0);
        for StatePut { key, value } in states {
            let Some(value) = value else {
                let mut delete = self.transaction.prepare_cached("DELETE FROM states WHERE group_name = ?1 AND partition = ?2 AND key = ?3")?;
                removed += delete.execute(params![group, partition, key])? as u64;
                continue;
            };
            let row = params![group, partition, key, value, checksum::of_state(group, partition, &key, &value)];
            let mut update = self.transaction.prepare_cached("UPDATE states SET value = ?4, crc = ?5 WHERE group_name = ?1 AND partition = ?2 AND key = ?3")?;
            if update.execute(row)? == 0 {
                let mut insert = self.transaction.prepare_cached("INSERT INTO states (group_name, partition, key, value, crc) VALUES (?1, ?2, ?3, ?4, ?5)")?;
                added += insert.execute(row)? as u64;
            }
        }
        if added != removed {
            let before = states::counted(self.transaction, group, partition)?;
            states::put_count(self.transaction, group, partition, (before + added).saturating_sub(removed))?;
        }
        Ok(())
    }

    /// Deletes the first rows that end at or before `before`. Rows of this transaction are not in
    /// the table yet, and stay.
    fn trim(&mut self, topic: Topic, partition: u32, before: Offset) -> Result<Outcome, Failure> {
        let (rows, bytes): (i64, i64) = self
            .transaction
            .prepare_cached(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM (SELECT octet_length(payload) + coalesce(octet_length(keys), 0) AS bytes FROM records \
                 WHERE topic = ?1 AND partition = ?2 AND first < ?3 AND first + count <= ?3 ORDER BY first LIMIT ?4)",
            )?
            .query_row(params![topic.name(), partition, signed(before), TRIM_ROWS], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let deleted = self
            .transaction
            .prepare_cached(
                "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE topic = ?1 AND partition = ?2 AND first < ?3 \
                 AND first + count <= ?3 ORDER BY first LIMIT ?4)",
            )?
            .execute(params![topic.name(), partition, signed(before), TRIM_ROWS])?;
        debug_assert_eq!(unsigned(rows), deleted as u64);
        let first: Option<i64> = self
            .transaction
            .prepare_cached("SELECT min(first) FROM records WHERE topic = ?1 AND partition = ?2")?
            .query_row(params![topic.name(), partition], |row| row.get(0))?;
        let in_this_transaction = self.open.get(&(topic, partition)).map(|(first, _)| *first);
        let extent = self.extent(topic, partition)?;
        extent.bytes = extent.bytes.saturating_sub(unsigned(bytes) + unsigned(rows) * ROW_OVERHEAD);
        let offsets = &mut extent.offsets;
        offsets.start = first.map(unsigned).or(in_this_transaction).unwrap_or(offsets.end);
        Ok(Outcome::Trimmed { earliest: offsets.start, done: deleted < TRIM_ROWS as usize || offsets.start >= before })
    }

    /// Writes the rows that are still open, and the ends.
    fn finish(mut self) -> Result<Ends, Failure> {
        for (first, row) in std::mem::take(&mut self.open).into_values() {
            self.insert(first, row)?;
        }
        for ((topic, partition), Extent { offsets, bytes }) in &self.changed {
            let crc = checksum::of_partition(topic.name(), *partition, offsets.start, offsets.end, *bytes);
            self.transaction
                .prepare_cached("UPDATE partitions SET earliest = ?3, next = ?4, bytes = ?5, crc = ?6 WHERE topic = ?1 AND partition = ?2")?
                .execute(params![topic.name(), partition, signed(offsets.start), signed(offsets.end), signed(*bytes), crc])?;
        }
        Ok(self.changed)
    }
}
