//! The tables, and how the writer's connection is opened.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use super::Options;
use super::failure::Failure;
use super::tails::{Ends, Extent, Tails};
use super::{checksum, positions};
use crate::log::{LogError, Partitions, Topic};

/// The version of the tables below. A release reads what the one before it wrote; it refuses what a
/// newer one wrote.
const VERSION: i64 = 3;

/// "LOAD": marks the file as ours, for `file` and against a mistaken directory.
const APPLICATION_ID: i64 = 0x4C4F_4144;

/// How long a statement waits for somebody else's lock (a person in a shell): short, as all writers
/// wait behind it, and the caller tries again anyway.
const BUSY: Duration = Duration::from_millis(250);

/// The WAL is copied into the database every so many pages (4 kB each): 16 MB, so that the copying
/// is shared by many commits, and the WAL is still read back fast after a kill.
const CHECKPOINT_PAGES: i64 = 4096;

/// After a checkpoint the WAL file is cut to this, so that one long reader does not cost disk for good.
const WAL_BYTES: i64 = 64 * 1024 * 1024;

/// `records` has a row for what one transaction appended to one partition; see `rows`. `crc` is that of the whole row
/// (see `checksum`).
const TABLES: &str = "
CREATE TABLE partitions (
    topic     TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    earliest  INTEGER NOT NULL, -- the first offset that is there
    next      INTEGER NOT NULL, -- the offset of the next record
    bytes     INTEGER NOT NULL, -- the size of its rows
    crc       INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID, STRICT;
CREATE TABLE records (
    topic     TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    first     INTEGER NOT NULL, -- the offset of the first record
    count     INTEGER NOT NULL, -- how many records
    at        INTEGER NOT NULL, -- when they were appended: Unix milliseconds
    keys      TEXT,             -- a JSON array of keys and nulls; NULL: no record has a key
    payload   BLOB    NOT NULL, -- for each record: its length (4 bytes, little endian), its bytes
    crc       INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, first)
) STRICT;
CREATE TABLE positions (
    group_name TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    next       INTEGER NOT NULL, -- the next offset to process
    crc        INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID, STRICT;
CREATE TABLE positions_copy ( -- the same once more, on pages of its own: a row that is missing or older in one is missed
    group_name TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    next       INTEGER NOT NULL,
    crc        INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID, STRICT;
CREATE TABLE states (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    value      BLOB    NOT NULL,
    crc        INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition, key)
) STRICT;
CREATE TABLE entries (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    count      INTEGER NOT NULL, -- how many rows states has of them: a row that a damaged index hides is missed
    crc        INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition)
) WITHOUT ROWID, STRICT;
";

/// Why the database at `path` cannot be used, with the way out.
fn unusable(path: &Path, error: &SetUpError) -> LogError {
    LogError::Fatal { reason: format!("{} cannot be used: {error}; {}", path.display(), error.mend(path)) }
}

/// A connection whose end copies nothing from the WAL into the database and does not delete it: until all is known to be sound, what stands
/// there is evidence, and perhaps the only copy.
fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Looks for everything in the database that a start is refused for, and changes nothing. How many records were ever appended; `None`
/// where it has no tables yet.
///
/// # Errors
/// [`LogError::Fatal`] with what is wrong and the way out.
pub(super) fn look(path: &Path, asked: &Partitions) -> Result<Option<u64>, LogError> {
    let look = || -> Result<Option<u64>, SetUpError> {
        let connection = connect(path, OpenFlags::empty())?;
        if check_version(&connection)? {
            return Ok(None);
        }
        let (_, ends) = check_partitions(&connection, asked)?;
        check_positions(&connection, &ends)?;
        Ok(Some(Tails::new(*asked, ends).appended()))
    };
    look().map_err(|error| unusable(path, &error))
}

/// Opens or creates the database for writing, once [`look`] has found nothing against it.
pub(super) fn open(path: &Path, options: &Options) -> Result<(Connection, Tails), LogError> {
    let unusable = |error: SetUpError| unusable(path, &error);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE).map_err(|error| unusable(error.into()))?;
    let is_new = check_version(&connection).map_err(unusable)?;
    let mut set_up = || -> Result<(Partitions, Ends), SetUpError> {
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(SetUpError::Refused {
                reason: format!("its file system does not allow write-ahead logging (journal mode {mode})"),
                mend: "choose a directory on a local disk with --data",
            });
        }
        // A commit is on the disk when it is acknowledged, even if the power fails.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
        if let Some(bytes) = options.max_bytes {
            let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page;
            connection.pragma_update(None, "max_page_count", pages.max(1))?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if is_new {
            create(&transaction)?;
        }
        // Also where it says so already: what cannot be written is to be known now.
        transaction.pragma_update(None, "user_version", VERSION)?;
        let found = settle_partitions(&transaction, is_new, &options.partitions)?;
        transaction.commit()?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(found)
    };
    let (partitions, ends) = set_up().map_err(unusable)?;
    Ok((connection, Tails::new(partitions, ends)))
}

/// Makes the tables in an empty database.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)
}

/// The way out that most damages have.
pub(super) const DOCTOR: &str = "stop what runs on it, and see what `loadline doctor` says of the directory";

/// Why a database cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    #[error("{reason}")]
    Refused { reason: String, mend: &'static str },
    #[error("{}", .0.reason())]
    Damaged(Failure),
}

impl SetUpError {
    /// The way out.
    pub(super) fn mend(&self, path: &Path) -> String {
        let directory = path.parent().unwrap_or(path);
        match self {
            SetUpError::Refused { mend, .. } => (*mend).to_owned(),
            SetUpError::Damaged(_) => format!("`loadline doctor {}` says what is lost, and mends what can be mended", directory.display()),
            SetUpError::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    format!("`loadline doctor {}` says what is lost, and mends what can be mended", directory.display())
                }
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                    "make it and its directory writable, or choose another directory with --data".to_owned()
                }
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "end what uses it: a shell, a copy under way".to_owned(),
                Some(ErrorCode::DiskFull) => "make room there".to_owned(),
                _ => format!("look with `loadline doctor {}`", directory.display()),
            },
        }
    }
}

/// That this version can read the file: whether it is empty, or why not.
pub(super) fn check_version(connection: &Connection) -> Result<bool, SetUpError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(true);
    }
    if pragma("application_id")? != APPLICATION_ID {
        return Err(SetUpError::Refused {
            reason: "it is a database of another program".to_owned(),
            mend: "move it away, or choose another directory with --data",
        });
    }
    match pragma("user_version")? {
        VERSION => Ok(false),
        version if version < VERSION => Err(SetUpError::Refused {
            reason: format!("its tables have version {version}, which no release wrote; this one knows {VERSION}"),
            mend: "choose another directory with --data",
        }),
        version => Err(SetUpError::Refused {
            reason: format!("a newer Loadline wrote it (its tables have version {version}, this one knows {VERSION})"),
            mend: "start that one, or choose another directory with --data",
        }),
    }
}

/// That every position holds what was written last, and that no group stands beyond the end of what it reads: it would skip
/// what is appended next.
fn check_positions(connection: &Connection, ends: &Ends) -> Result<(), SetUpError> {
    for ((group, topic, partition), next) in positions::read_whole(connection)? {
        let end = ends.get(&(topic, partition)).map_or(0, |extent| extent.offsets.end);
        if next > end {
            return Err(SetUpError::Refused { reason: format!("{group} stands at {next} of {topic}/{partition}, which ends at {end}"), mend: DOCTOR });
        }
    }
    Ok(())
}

/// How many partitions each topic has, where that is what was asked for, and where they begin and end.
fn check_partitions(connection: &Connection, asked: &Partitions) -> Result<(BTreeMap<Topic, u32>, Ends), SetUpError> {
    let (mut there, mut ends) = (BTreeMap::new(), Ends::new());
    for topic in Topic::ALL {
        let found = read_ends(connection, topic, &mut ends).map_err(SetUpError::Damaged)?;
        let asked = asked.of(topic);
        if topic != Topic::Metrics && found != asked {
            return Err(SetUpError::Refused {
                reason: format!("{topic} was created with {found} partitions, and {asked} are configured"),
                mend: "configure the number that it was created with: it is fixed then",
            });
        }
        there.insert(topic, found);
    }
    Ok((there, ends))
}

/// Makes the partitions that `asked` has and the database has not, where that is allowed.
fn settle_partitions(connection: &Connection, is_new: bool, asked: &Partitions) -> Result<(Partitions, Ends), SetUpError> {
    let (there, mut ends) = if is_new { (BTreeMap::new(), Ends::new()) } else { check_partitions(connection, asked)? };
    let mut partitions = *asked;
    for topic in Topic::ALL {
        let found = there.get(&topic).copied().unwrap_or(0);
        let asked = asked.of(topic);
        partitions = partitions.with(topic, asked.max(found));
        let mut insert = connection.prepare("INSERT INTO partitions (topic, partition, earliest, next, bytes, crc) VALUES (?1, ?2, 0, 0, 0, ?3)")?;
        for partition in found..asked {
            insert.execute(params![topic.name(), partition, checksum::of_partition(topic.name(), partition, 0, 0, 0)])?;
            ends.insert((topic, partition), Extent::default());
        }
    }
    Ok((partitions, ends))
}

/// Reads where the partitions of a topic begin and end; how many there are.
fn read_ends(connection: &Connection, topic: Topic, ends: &mut Ends) -> Result<u32, Failure> {
    let mut select = connection.prepare_cached("SELECT partition, earliest, next, bytes, crc FROM partitions WHERE topic = ?1")?;
    let mut rows = select.query([topic.name()])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let extent = Extent { offsets: unsigned(row.get(1)?)..unsigned(row.get(2)?), bytes: unsigned(row.get(3)?) };
        let partition = row.get(0)?;
        let sum = checksum::of_partition(topic.name(), partition, extent.offsets.start, extent.offsets.end, extent.bytes);
        checksum::holds(|| format!("what the log says of the ends of {topic}/{partition}"), row.get(4)?, sum)?;
        ends.insert((topic, partition), extent);
        count += 1;
    }
    Ok(count)
}

/// Reads the partitions of all topics.
pub(super) fn read_partitions(connection: &Connection) -> Result<(Partitions, Ends), Failure> {
    let mut partitions = Partitions::default();
    let mut ends = Ends::new();
    for topic in Topic::ALL {
        partitions = partitions.with(topic, read_ends(connection, topic, &mut ends)?);
    }
    Ok((partitions, ends))
}

/// A number as SQLite has it; numbers here count records and never come near 2^63.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as it was before [`signed`].
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
