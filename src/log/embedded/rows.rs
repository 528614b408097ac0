//! The records of a row: from appends to bytes and back.
//!
//! A row holds the records that one transaction appended to one partition, with consecutive offsets
//! from `first` on. `payload` is, for each record, its value's length (4 bytes, little endian) and
//! its value. `keys` is a JSON array with each record's key or null, so that a shell can read it
//! (`SELECT first + key, value FROM records, json_each(keys)`); it is NULL where no record has one.
//!
//! Callers encode [`Chunk`]s on their own threads; the writer joins those of one partition.

use std::collections::BTreeMap;

use super::checksum;
use super::failure::Failure;
use crate::log::{LogError, Offset, RawAppend, RawRecord, Topic};
use crate::model::Timestamp;

/// A row is closed when it has so many bytes. Reading a few records of a row reads all of it, so
/// rows stay small beside what a read brings; 256 kB still makes an append of 10,000 small records
/// no more than five rows.
const ROW_BYTES: usize = 256 * 1024;

/// What a row costs beside its keys and its payload: its other columns, its entry in the index, and
/// the room that both leave in their pages. Counted so that sizes add up to what the file holds.
pub(super) const ROW_OVERHEAD: u64 = 100;

/// Encoded records of one partition, in order.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) count: u64,
    payload: Vec<u8>,
    /// The elements of the JSON array, separated by commas; empty while no record has a key.
    keys: Vec<u8>,
}

impl Chunk {
    fn new(topic: Topic, partition: u32) -> Self {
        Chunk { topic, partition, count: 0, payload: Vec::new(), keys: Vec::new() }
    }

    /// Its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.keys.len()
    }

    fn push(&mut self, key: Option<&str>, value: &[u8]) -> Result<(), LogError> {
        if key.is_some() && self.keys.is_empty() {
            pad(&mut self.keys, self.count);
        }
        if key.is_some() || !self.keys.is_empty() {
            separate(&mut self.keys);
            serde_json::to_writer(&mut self.keys, &key).map_err(|error| LogError::Fatal { reason: format!("a key cannot be written: {error}") })?;
        }
        // The size was checked against MAX_RECORD_BYTES, far below 4 GB.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.payload.extend_from_slice(&length.to_le_bytes());
        self.payload.extend_from_slice(value);
        self.count += 1;
        Ok(())
    }

    /// Whether `other` may be joined to this row.
    pub(super) fn has_room_for(&self, other: &Chunk) -> bool {
        self.bytes() + other.bytes() <= ROW_BYTES
    }

    /// Puts the records of `other`, of the same partition, behind its own.
    pub(super) fn join(&mut self, other: &Chunk) {
        if !other.keys.is_empty() {
            if self.keys.is_empty() {
                pad(&mut self.keys, self.count);
            }
            separate(&mut self.keys);
            self.keys.extend_from_slice(&other.keys);
        } else if !self.keys.is_empty() {
            pad(&mut self.keys, other.count);
        }
        self.payload.extend_from_slice(&other.payload);
        self.count += other.count;
    }

    /// The columns `keys` and `payload`.
    pub(super) fn columns(self) -> (Option<String>, Vec<u8>) {
        let keys = (!self.keys.is_empty()).then(|| format!("[{}]", String::from_utf8_lossy(&self.keys)));
        (keys, self.payload)
    }
}

fn separate(keys: &mut Vec<u8>) {
    if !keys.is_empty() {
        keys.push(b',');
    }
}

fn pad(keys: &mut Vec<u8>, nulls: u64) {
    for _ in 0..nulls {
        separate(keys);
        keys.extend_from_slice(b"null");
    }
}

/// Where a record stands among chunks: which one, and how far behind its first.
pub(super) type Place = (usize, u64);

/// Encodes appends, those of each partition in their order; and the place of each.
pub(super) fn chunks(appends: &[RawAppend]) -> Result<(Vec<Chunk>, Vec<Place>), LogError> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut places = Vec::with_capacity(appends.len());
    let mut open: BTreeMap<(Topic, u32), usize> = BTreeMap::new();
    for RawAppend { topic, partition, key, value } in appends {
        let index = *open.entry((*topic, *partition)).or_insert(chunks.len());
        let index = match chunks.get(index) {
            Some(chunk) if chunk.count == 0 || chunk.bytes() + value.len() <= ROW_BYTES => index,
            _ => {
                chunks.push(Chunk::new(*topic, *partition));
                open.insert((*topic, *partition), chunks.len() - 1);
                chunks.len() - 1
            }
        };
        places.push((index, chunks[index].count));
        chunks[index].push(key.as_deref(), value)?;
    }
    Ok((chunks, places))
}

/// A row as it stands in the database.
pub(super) struct Row<'a> {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) first: Offset,
    pub(super) count: u64,
    pub(super) at: Timestamp,
    pub(super) keys: Option<&'a str>,
    pub(super) payload: &'a [u8],
    /// Its check sum, as it stands there.
    pub(super) crc: i64,
}

impl Row<'_> {
    /// Puts its records from offset `from` on into `records`, until there are `max` of them.
    pub(super) fn decode(&self, from: Offset, max: usize, records: &mut Vec<RawRecord>) -> Result<(), Failure> {
        let Row { topic, partition, first, count, at, .. } = *self;
        let sum = checksum::of_records(topic.name(), partition, first, count, at, self.keys, self.payload);
        checksum::holds(|| self.place(), self.crc, sum)?;
        let keys: Vec<Option<String>> = match self.keys {
            Some(keys) => serde_json::from_str(keys).map_err(|error| self.damaged(&format!("its keys: {error}")))?,
            None => Vec::new(),
        };
        let mut keys = keys.into_iter();
        let mut rest = self.payload;
        for offset in self.first..self.first + self.count {
            if records.len() >= max {
                return Ok(());
            }
            let key = if self.keys.is_some() { keys.next().ok_or_else(|| self.damaged("it has fewer keys than records"))? } else { None };
            let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(|| self.damaged("its payload ends too soon"))?;
            let length = u32::from_le_bytes(*length) as usize;
            let (value, behind) = behind.split_at_checked(length).ok_or_else(|| self.damaged("its payload ends too soon"))?;
            rest = behind;
            if offset >= from {
                records.push(RawRecord { partition: self.partition, offset, at: self.at, key, content_type: None, value: value.to_vec() });
            }
        }
        Ok(())
    }

    fn damaged(&self, what: &str) -> Failure {
        Failure::Lasting(format!("{} is damaged: {what}", self.place()))
    }

    fn place(&self) -> String {
        format!("the row of {}/{} that begins at offset {}", self.topic, self.partition, self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(key: Option<&str>, value: &[u8]) -> RawAppend {
        RawAppend { topic: Topic::Signals, partition: 0, key: key.map(str::to_owned), value: value.to_vec() }
    }

    fn read(chunk: Chunk, from: Offset, max: usize) -> Vec<(Offset, Option<String>, Vec<u8>)> {
        let count = chunk.count;
        let (keys, payload) = chunk.columns();
        let (topic, at) = (Topic::Signals, Timestamp::from_millis(1));
        let crc = checksum::of_records(topic.name(), 0, 100, count, at, keys.as_deref(), &payload);
        let row = Row { topic, partition: 0, first: 100, count, at, keys: keys.as_deref(), payload: &payload, crc };
        let mut records = Vec::new();
        row.decode(from, max, &mut records).unwrap();
        records.into_iter().map(|record| (record.offset, record.key, record.value)).collect()
    }

    #[test]
    fn chunks_join_whether_they_have_keys_or_not() {
        let keyless = [append(None, b"a"), append(None, b"")];
        let keyed = [append(None, b"b"), append(Some("x/\"y\"\n"), b"c")];
        let value = |text: &str| text.as_bytes().to_vec();
        let key = Some("x/\"y\"\n".to_owned());
        let join = |first: &[RawAppend], second: &[RawAppend]| {
            let mut chunk = chunks(first).unwrap().0.remove(0);
            chunk.join(&chunks(second).unwrap().0[0]);
            read(chunk, 0, 10)
        };
        assert_eq!(join(&keyless, &keyed), [(100, None, value("a")), (101, None, value("")), (102, None, value("b")), (103, key.clone(), value("c"))]);
        assert_eq!(join(&keyed, &keyless), [(100, None, value("b")), (101, key, value("c")), (102, None, value("a")), (103, None, value(""))]);
    }

    #[test]
    fn a_part_of_a_row_can_be_read() {
        let appends: Vec<_> = (0..5_u8).map(|i| append(Some("k"), &[i])).collect();
        let records = read(chunks(&appends).unwrap().0.remove(0), 102, 2);
        assert_eq!(records, [(102, Some("k".to_owned()), vec![2]), (103, Some("k".to_owned()), vec![3])]);
    }

    #[test]
    fn many_bytes_become_several_chunks_in_order() {
        let appends: Vec<_> = (0..5_u8).map(|i| append(None, &vec![i; 100 * 1024])).collect();
        let (chunks, places) = chunks(&appends).unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.count).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]);
    }

    #[test]
    fn a_damaged_row_is_an_error_with_its_place() {
        let (topic, at, payload) = (Topic::Signals, Timestamp::from_millis(1), [9, 0, 0, 0, 1]);
        let crc = checksum::of_records(topic.name(), 3, 7, 1, at, None, &payload);
        let reason = |row: Row<'_>| match row.decode(0, 1, &mut Vec::new()) {
            Err(Failure::Lasting(reason)) => reason,
            other => panic!("{other:?}"),
        };
        let row = Row { topic, partition: 3, first: 7, count: 1, at, keys: None, payload: &payload, crc };
        assert_eq!(reason(row), "the row of signals/3 that begins at offset 7 is damaged: its payload ends too soon");
        let row = Row { topic, partition: 3, first: 7, count: 1, at, keys: None, payload: &[9, 0, 0, 0, 3], crc };
        assert!(reason(row).starts_with("the row of signals/3 that begins at offset 7 is damaged: its check sum is "));
    }
}
