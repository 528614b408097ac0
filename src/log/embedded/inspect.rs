//! A log's directory looked at without changing anything: what is there, and what cannot be read any more.
//!
//! Works beside the process that runs on the directory: all of it is one moment. Where the database is damaged,
//! every row that can still be reached is read: by the table from both of its ends, and each row that an index
//! names by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::checksum;
use super::failure::Failure;
use super::lock_file::{Content, Runs};
use super::positions::{self, Positions};
use super::rows::Row;
use super::schema::{SetUpError, check_version, unsigned};
use super::states::{self, States};
use super::{DATABASE, RESTORING, beginning_is_gone, mend, trouble, wal_bytes};
use crate::log::{LogError, Offset, RawRecord, Topic};
use crate::model::Timestamp;

/// The most complaints of SQLite's own check that are kept.
const COMPLAINTS: u32 = 20;

/// The longest stretch of the table that is looked through row number by row number.
const PROBES: i64 = 1_000_000;

/// How long another process may hold the database.
const BUSY: Duration = Duration::from_secs(5);

/// A log's directory, looked at.
pub struct Inspection {
    directory: PathBuf,
    /// Nothing can be written beside it, and nobody writes.
    immutable: bool,
    connection: Connection,
}

/// Why a log cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// There is none, or none that this version can read.
    #[error("{reason}")]
    NoLog {
        /// What is there.
        reason: String,
    },
    /// It may well be sound: this process may not read it, or not here.
    #[error("{reason}: {way}")]
    NotFromHere {
        /// What keeps it from being read.
        reason: String,
        /// The way out.
        way: String,
    },
    /// A mend of it was stopped when its new log was whole.
    #[error("a mend of the log in {0} was stopped before its end; `loadline doctor {0} --mend` brings it there, and so does the next `loadline run`", directory.display())]
    Unfinished {
        /// The directory.
        directory: PathBuf,
    },
}

impl From<Unopened> for LogError {
    fn from(error: Unopened) -> Self {
        LogError::Fatal { reason: error.to_string() }
    }
}

/// What stands in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The earliest offset and the next one; by the rows, where the database does not say it any more.
    pub range: Range<Offset>,
    /// How many records can be read.
    pub records: u64,
    /// When the first and the last of them were appended.
    pub times: Option<(Timestamp, Timestamp)>,
    /// What is not there: lost to a damage now, or cut out by an earlier mend.
    pub lost: Vec<Lost>,
    /// Whether something stands there that cannot be read.
    pub damaged: bool,
}

/// Records that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Their offsets.
    pub offsets: Range<Offset>,
    /// When what lies before and after them was appended, where there is something.
    pub between: (Option<Timestamp>, Option<Timestamp>),
}

/// A row of a table that is read as far as it can be.
#[derive(Debug, Default)]
pub struct Readable<T> {
    /// What could be read.
    pub rows: Vec<T>,
    /// Why it ended before its end, where it did.
    pub error: Option<String>,
}

/// What is said of a database that is a link, a directory, a pipe: SQLite keeps its newest part beside what a link leads to, and waits for ever at a
/// pipe.
pub(super) fn no_file(path: &Path) -> String {
    format!("{} is no file of its own, and a log is one: put the file itself there (a link to the whole directory is fine)", path.display())
}

/// A row of records as it stands in the table.
pub(super) struct StoredRow {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) first: Offset,
    pub(super) count: u64,
    pub(super) at: Timestamp,
    pub(super) keys: Option<String>,
    pub(super) payload: Vec<u8>,
    pub(super) crc: i64,
}

impl StoredRow {
    /// Its records.
    pub(super) fn records(&self) -> Result<Vec<RawRecord>, String> {
        let StoredRow { topic, partition, first, count, at, ref keys, ref payload, crc } = *self;
        let row = Row { topic, partition, first, count, at, keys: keys.as_deref(), payload, crc };
        let mut records = Vec::new();
        row.decode(0, usize::MAX, &mut records).map_err(|failure| failure.reason().to_owned())?;
        Ok(records)
    }
}

/// The rows that were read, by their first offset: how many records, and when they were appended.
type Found = BTreeMap<(Topic, u32), BTreeMap<Offset, (u64, Timestamp)>>;

/// What a log consists of.
const TABLES: [&str; 6] = ["partitions", "records", "positions", "positions_copy", "states", "entries"];

/// Where the header says which format a writer must know, and the newest that there is (<https://sqlite.org/fileformat.html>, 1.3.3): a newer one is
/// read, and not written.
const WRITE_FORMAT_AT: u64 = 18;
const WAL_FORMAT: u8 = 2;

const COLUMNS: &str = "rowid, topic, partition, first, count, at, keys, payload, crc";

impl Inspection {
    /// Looks at `directory`.
    ///
    /// # Errors
    /// [`Unopened`] says whose fault it is.
    pub fn open(directory: &Path) -> Result<Self, Unopened> {
        if mend::is_unfinished(directory) {
            return Err(Unopened::Unfinished { directory: directory.to_owned() });
        }
        let path = directory.join(DATABASE);
        match std::fs::symlink_metadata(&path) {
            Ok(file) if file.is_file() => {}
            Ok(_) => return Err(Unopened::NoLog { reason: no_file(&path) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Unopened::NoLog {
                    reason: format!("there is no log in {}; one on Kafka is looked at by `loadline topology check`", directory.display()),
                });
            }
            Err(error) => {
                let reason = format!("{} cannot be looked at from here: {error}", path.display());
                return Err(Unopened::NotFromHere { reason, way: "look as the user that it belongs to".to_owned() });
            }
        }
        let refused = |error: &dyn std::fmt::Display| Unopened::NoLog { reason: format!("{} cannot be read: {error}", path.display()) };
        let from_here = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Unopened::NotFromHere {
                reason: format!("{} cannot be read from here: {error}", path.display()),
                way: "look as the user that it belongs to".to_owned(),
            },
            // A full disk too: SQLite makes a file beside it even to read it.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => Unopened::NotFromHere {
                reason: format!("{} cannot be read: {error}", path.display()),
                way: "see that there is room on its file system and that the disk is sound, or copy the directory elsewhere and look at the copy".to_owned(),
            },
            _ => refused(&error),
        };
        let mut immutable = false;
        let connection = match connect(&path, false).map_err(from_here) {
            // Beside a database in this mode SQLite makes files even to read it. Where nothing can be written, and nobody runs,
            // nobody else writes either, and without a WAL the file is all there is.
            Err(Unopened::NotFromHere { reason, way }) => {
                if Runs::on(directory) != Runs::Nobody {
                    return Err(Unopened::NotFromHere { reason: format!("{reason}; a process runs on it"), way });
                } else if wal_bytes(directory) > 0 {
                    let reason = format!("{reason}; its newest part is in {DATABASE}-wal, which cannot be read where nothing can be written");
                    let way = "copy the directory to a place that can be written, and look at the copy".to_owned();
                    return Err(Unopened::NotFromHere { reason, way });
                }
                immutable = true;
                connect(&path, true).map_err(from_here)?
            }
            connected => connected?,
        };
        match check_version(&connection) {
            Ok(false) => Ok(Inspection { directory: directory.to_owned(), immutable, connection }),
            Ok(true) if wal_bytes(directory) > 0 => Err(Unopened::NoLog { reason: beginning_is_gone(directory) }),
            Ok(true) => Err(refused(&"it is empty")),
            // It is sound, and another's: of a newer Loadline, or of another program.
            Err(SetUpError::Refused { reason, mend }) => {
                Err(Unopened::NotFromHere { reason: format!("{} cannot be read: {reason}", path.display()), way: mend.to_owned() })
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// Who runs on `directory` now.
    pub fn holder(directory: &Path) -> Runs {
        Runs::on(directory)
    }

    /// The room that is left on the file system of `directory`, in bytes.
    pub fn free_bytes(directory: &Path) -> Option<u64> {
        trouble::free_bytes(directory)
    }

    /// Whether a restore into the directory did not come to its end.
    pub fn is_half_restored(&self) -> bool {
        self.directory.join(RESTORING).exists()
    }

    /// The sizes of the database and of its write-ahead log, in bytes.
    pub fn sizes(&self) -> (u64, u64) {
        let size = |name: String| std::fs::metadata(self.directory.join(name)).map_or(0, |file| file.len());
        (size(DATABASE.to_owned()), size(format!("{DATABASE}-wal")))
    }

    /// What SQLite's own check of every page finds wrong; nothing where all is well.
    ///
    /// And what stands in the way of opening it as `run` does, which forgives nothing in the schema and in the header of the file.
    pub fn complaints(&self) -> Vec<String> {
        let check = || -> rusqlite::Result<Vec<String>> {
            let mut check = self.connection.prepare(&format!("PRAGMA integrity_check({COMPLAINTS})"))?;
            let rows = check.query_map([], |row| row.get::<_, String>(0))?;
            rows.filter(|row| row.as_ref().map_or(true, |text| text != "ok")).collect()
        };
        let mut complaints = check().unwrap_or_else(|error| vec![error.to_string()]);
        complaints.extend(self.as_it_is_run_on().err());
        complaints
    }

    fn as_it_is_run_on(&self) -> Result<(), String> {
        let path = self.directory.join(DATABASE);
        let read = || -> rusqlite::Result<()> {
            let connection = open(&path, self.immutable)?;
            TABLES.into_iter().try_for_each(|table| connection.prepare(&format!("SELECT * FROM {table} LIMIT 1"))?.exists([]).map(drop))
        };
        read().map_err(|error| error.to_string())?;
        let mut format = [0];
        let found = std::fs::File::open(&path).and_then(|file| file.read_exact_at(&mut format, WRITE_FORMAT_AT));
        if found.is_ok() && format[0] > WAL_FORMAT {
            return Err(format!("its header asks for format {} of whoever writes, and {WAL_FORMAT} is the newest: SQLite takes it for read-only", format[0]));
        }
        Ok(())
    }

    /// How many records were acknowledged that the log does not have any more: its newest part is gone. `None` where the mark is gone that
    /// says how many there were.
    pub fn newest_missing(&self) -> Option<u64> {
        let appended: u64 = self.ends().rows.iter().map(|(_, _, range)| range.end).sum();
        match Content::read(&self.directory).mark {
            // Of a log that is in use the mark may have moved on since this look began.
            _ if matches!(Runs::on(&self.directory), Runs::Process(_)) => Some(0),
            None => (appended == 0).then_some(0),
            Some(mark) => Some(mark.saturating_sub(appended)),
        }
    }

    /// Every partition, as far as it can be read; `each` is given each record.
    pub fn records(&self, each: &mut dyn FnMut(Topic, &RawRecord)) -> Vec<PartitionReport> {
        self.walk(&mut |row, records| records.iter().for_each(|record| each(row.topic, record)))
    }

    /// As [`Inspection::records`], row by row.
    pub(super) fn walk(&self, each: &mut dyn FnMut(&StoredRow, &[RawRecord])) -> Vec<PartitionReport> {
        let mut found = Found::new();
        let mut broken = BTreeSet::new();
        let mut take = |row: Option<&StoredRow>| {
            let Some(row) = row else {
                broken.insert(None); // of no topic that there is
                return;
            };
            let Ok(records) = row.records() else {
                broken.insert(Some((row.topic, row.partition)));
                return;
            };
            let rows = found.entry((row.topic, row.partition)).or_default();
            // Two rows never hold the same offset.
            let before = rows.range(..=row.first).next_back().is_none_or(|(first, (count, _))| first + count <= row.first);
            let after = rows.range(row.first..).next().is_none_or(|(first, _)| *first >= row.first + row.count);
            if row.count > 0 && before && after {
                rows.insert(row.first, (row.count, row.at));
                each(row, &records);
            }
        };
        let damage = self.every_row(&mut take);
        self.report(&found, damage.as_ref(), &broken)
    }

    fn report(&self, found: &Found, damage: Option<&BTreeSet<(Topic, u32, Offset)>>, broken: &BTreeSet<Option<(Topic, u32)>>) -> Vec<PartitionReport> {
        let mut ranges: BTreeMap<(Topic, u32), Option<Range<Offset>>> = Topic::ALL.into_iter().map(|topic| ((topic, 0), None)).collect();
        ranges.extend(found.keys().map(|key| (*key, None)));
        ranges.extend(self.ends().rows.into_iter().map(|(topic, partition, range)| ((topic, partition), Some(range))));
        let nothing = BTreeMap::new();
        let mut reports = Vec::new();
        for ((topic, partition), said) in ranges {
            let rows = found.get(&(topic, partition)).unwrap_or(&nothing);
            let end = rows.last_key_value().map_or(0, |(first, (count, _))| first + count);
            let first = rows.first_key_value().map_or(end, |(first, _)| *first);
            let of_index = damage.into_iter().flatten().filter(|(t, p, _)| (*t, *p) == (topic, partition)).map(|(_, _, first)| *first).min().unwrap_or(first);
            let said = said.unwrap_or(first.min(of_index)..end);
            let range = said.start.min(first)..said.end.max(end);
            let (mut lost, mut next, mut before) = (Vec::new(), range.start, None);
            for (first, (count, at)) in rows {
                if *first > next {
                    lost.push(Lost { offsets: next..*first, between: (before, Some(*at)) });
                }
                (next, before) = (first + count, Some(*at));
            }
            if range.end > next {
                lost.push(Lost { offsets: next..range.end, between: (before, None) });
            }
            let records = rows.values().map(|(count, _)| count).sum();
            let times = rows.first_key_value().zip(rows.last_key_value()).map(|((_, (_, first)), (_, (_, last)))| (*first, *last));
            // A damaged row may name another partition than its own.
            let damaged = broken.contains(&Some((topic, partition))) || ((damage.is_some() || !broken.is_empty()) && !lost.is_empty());
            reports.push(PartitionReport { topic, partition, range, records, times, lost, damaged });
        }
        reports
    }

    /// Reads every row that can be read. Where the table is damaged, also the rows that an index names.
    fn every_row(&self, take: &mut dyn FnMut(Option<&StoredRow>)) -> Option<BTreeSet<(Topic, u32, Offset)>> {
        let (last, whole) = self.along("ASC", i64::MIN, i64::MAX, take);
        if whole {
            return None;
        }
        let (first_behind, _) = self.along("DESC", last.saturating_add(1), i64::MAX, take);
        let named = self.named();
        let highest = named.keys().last().copied().unwrap_or(last);
        let behind = if first_behind > last { first_behind } else { highest.max(last).saturating_add(1) };
        let mut candidates: BTreeSet<i64> = named.keys().copied().filter(|rowid| (last < *rowid) && (*rowid < behind)).collect();
        if behind.saturating_sub(last) <= PROBES {
            candidates.extend(last.saturating_add(1)..behind);
        }
        for rowid in candidates {
            self.along("ASC", rowid, rowid, take);
        }
        Some(named.into_values().collect())
    }

    /// Reads the rows with numbers `from..=to` in this direction until one cannot be read: the number of the last
    /// one, and whether all could.
    fn along(&self, direction: &str, from: i64, to: i64, take: &mut dyn FnMut(Option<&StoredRow>)) -> (i64, bool) {
        let mut last = if direction == "ASC" { from.saturating_sub(1) } else { i64::MIN };
        let mut read = || -> rusqlite::Result<()> {
            let sql = format!("SELECT {COLUMNS} FROM records NOT INDEXED WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid {direction}");
            let mut select = self.connection.prepare_cached(&sql)?;
            let mut rows = select.query(params![from, to])?;
            while let Some(row) = rows.next()? {
                let rowid = row.get(0)?;
                take(stored(row)?.as_ref());
                last = rowid;
            }
            Ok(())
        };
        let whole = read().is_ok();
        (last, whole)
    }

    /// The rows that the index of the primary key names, by their number: from both of its ends.
    fn named(&self) -> BTreeMap<i64, (Topic, u32, Offset)> {
        let mut named = BTreeMap::new();
        for direction in ["ASC", "DESC"] {
            let mut read = || -> rusqlite::Result<()> {
                let sql = format!(
                    "SELECT rowid, topic, partition, first FROM records INDEXED BY sqlite_autoindex_records_1 \
                     ORDER BY topic {direction}, partition {direction}, first {direction}"
                );
                let mut select = self.connection.prepare(&sql)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    if let Some(topic) = topic_of(&row.get::<_, String>(1)?) {
                        named.insert(row.get(0)?, (topic, row.get(2)?, unsigned(row.get(3)?)));
                    }
                }
                Ok(())
            };
            if read().is_ok() {
                break;
            }
        }
        named
    }

    /// Where each partition begins and ends, as the database says it.
    pub fn ends(&self) -> Readable<(Topic, u32, Range<Offset>)> {
        self.read("SELECT topic, partition, earliest, next, bytes, crc FROM partitions", |row| {
            let name: String = row.get(0)?;
            let (partition, range) = (row.get(1)?, unsigned(row.get(2)?)..unsigned(row.get(3)?));
            let sum = checksum::of_partition(&name, partition, range.start, range.end, unsigned(row.get(4)?));
            checksum::holds(|| format!("what the log says of the ends of {name:?}/{partition}"), row.get(5)?, sum)?;
            Ok(topic_of(&name).map(|topic| (topic, partition, range)))
        })
    }

    /// How far each group is.
    pub fn positions(&self) -> Positions {
        positions::read(&self.connection)
    }

    /// The snapshots of each group.
    pub fn states(&self) -> States {
        states::read(&self.connection)
    }

    /// What can be read; of what is damaged, the first.
    fn read<T>(&self, sql: &str, of: impl Fn(&rusqlite::Row<'_>) -> Result<Option<T>, Failure>) -> Readable<T> {
        let mut readable = Readable { rows: Vec::new(), error: None };
        let mut damaged = None;
        let mut read = || -> Result<(), Failure> {
            let mut select = self.connection.prepare(sql)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                match of(row) {
                    Ok(row) => readable.rows.extend(row),
                    Err(failure) => damaged = damaged.take().or(Some(failure)),
                }
            }
            Ok(())
        };
        let error = read().err().or(damaged).map(|failure| failure.reason().to_owned());
        readable.error = error;
        readable
    }
}

/// A connection that only reads, in a transaction; of an `immutable` file, without looking for anything beside it. A truncated file, or one whose schema is
/// damaged, is read as far as it goes.
pub(super) fn connect(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let connection = open(path, immutable)?;
    connection.execute_batch("PRAGMA writable_schema = ON; BEGIN")?;
    // Nothing is opened before the first read.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn open(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if immutable {
        let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<StoredRow>> {
    let Some(topic) = topic_of(&row.get::<_, String>(1)?) else { return Ok(None) };
    Ok(Some(StoredRow {
        topic,
        partition: row.get(2)?,
        first: unsigned(row.get(3)?),
        count: unsigned(row.get(4)?),
        at: Timestamp::from_millis(row.get(5)?),
        keys: row.get(6)?,
        payload: row.get(7)?,
        crc: row.get(8)?,
    }))
}

pub(super) fn topic_of(name: &str) -> Option<Topic> {
    Topic::ALL.into_iter().find(|topic| topic.name() == name)
}
