//! Reading, on connections of its own: each query is one snapshot of what is committed, and never
//! holds the writer up.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::failure::Failure;
use super::rows::{ROW_OVERHEAD, Row};
use super::schema::{read_partitions, signed, unsigned};
use super::tails::Ends;
use super::{RowExtent, Space, positions, states};
use crate::log::coordinator::lock;
use crate::log::{LogError, Offset, Partitions, RawRecord, Topic};
use crate::model::Timestamp;

/// Idle connections that are kept: the stages, each with a reading thread, and the API. More may be
/// open at a time; each one costs up to 2 MB of cache.
const IDLE_CONNECTIONS: usize = 8;

/// A reader waits for a lock only while another process recovers or removes the WAL.
const BUSY: Duration = Duration::from_secs(1);

/// Reads a log's database.
pub(super) struct Reader {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Reader {
    /// A reader of the database at `path`; nothing is opened yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Reader { path, idle: Mutex::default() }
    }

    /// As [`crate::log::Log::scan`], of a partition that exists.
    pub(super) fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.with(|connection| {
            let mut records = Vec::new();
            // From the row that holds `from`, or else the next one.
            let mut select = connection.prepare_cached(
                "SELECT first, count, at, keys, payload, crc FROM records WHERE topic = ?1 AND partition = ?2 AND first >= coalesce(\
                 (SELECT max(first) FROM records WHERE topic = ?1 AND partition = ?2 AND first <= ?3), 0) ORDER BY first",
            )?;
            let mut rows = select.query(params![topic.name(), partition, signed(from)])?;
            while records.len() < max {
                let Some(row) = rows.next()? else { break };
                let row = Row {
                    topic,
                    partition,
                    first: unsigned(row.get(0)?),
                    count: unsigned(row.get(1)?),
                    at: Timestamp::from_millis(row.get(2)?),
                    keys: row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?,
                    payload: row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?,
                    crc: row.get(5)?,
                };
                row.decode(from, max, &mut records)?;
            }
            Ok(records)
        })
    }

    /// As [`crate::log::Log::states`].
    pub(super) fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.with(|connection| {
            // In one transaction, so that what is found and what was counted are of one moment.
            let transaction = connection.unchecked_transaction()?;
            let mut select = transaction.prepare_cached("SELECT key, value, crc FROM states WHERE group_name = ?1 AND partition = ?2 ORDER BY key")?;
            let mut rows = select.query(params![group, partition])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (key, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                states::holds(group, partition, &key, &value, row.get(2)?)?;
                found.push((key, value));
            }
            states::all_found(group, partition, found.len() as u64, states::counted(&transaction, group, partition)?)?;
            Ok(found)
        })
    }

    /// One entry of a state.
    pub(super) fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        self.with(|connection| {
            let mut select = connection.prepare_cached("SELECT value, crc FROM states WHERE group_name = ?1 AND partition = ?2 AND key = ?3")?;
            let found: Option<(Vec<u8>, i64)> = select.query_row(params![group, partition, key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((value, crc)) = found else { return Ok(None) };
            states::holds(group, partition, key, &value, crc)?;
            Ok(Some(value))
        })
    }

    /// The first rows of a partition, without what they hold.
    pub(super) fn head(&self, topic: Topic, partition: u32, rows: u32) -> Result<Vec<RowExtent>, LogError> {
        self.with(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT first, count, at, octet_length(payload) + coalesce(octet_length(keys), 0) FROM records \
                 WHERE topic = ?1 AND partition = ?2 ORDER BY first LIMIT ?3",
            )?;
            let rows = select.query_map(params![topic.name(), partition, rows], |row| {
                Ok(RowExtent {
                    end: unsigned(row.get(0)?) + unsigned(row.get(1)?),
                    at: Timestamp::from_millis(row.get(2)?),
                    bytes: unsigned(row.get(3)?) + ROW_OVERHEAD,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The bytes of the database that are in use, and those that are free to be used again.
    pub(super) fn space(&self) -> Result<Space, LogError> {
        self.with(|connection| {
            // In one transaction, so that the three numbers are of one moment.
            let transaction = connection.unchecked_transaction()?;
            let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(unsigned);
            let (pages, free, size) = (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
            Ok(Space { used: pages.saturating_sub(free) * size, free: free * size })
        })
    }

    /// As [`crate::log::Log::committed`].
    pub(super) fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.with(|connection| positions::of(connection, group, topic, partition))
    }

    /// The partitions and their ends.
    pub(super) fn partitions(&self) -> Result<(Partitions, Ends), LogError> {
        self.with(read_partitions)
    }

    /// Runs `read` on a connection.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, LogError> {
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open(&self.path).map_err(Failure::from)?,
        };
        let outcome = read(&connection);
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
        outcome.map_err(LogError::from)
    }

    /// Closes what is idle.
    pub(super) fn close(&self) {
        lock(&self.idle).clear();
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}
