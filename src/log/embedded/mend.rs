//! Copies of a log: a backup of one that runs, and a new one of what can still be read of a damaged one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::checksum;
use super::inspect::Inspection;
use super::lock_file::{LOCK, LockFile};
use super::rows::ROW_OVERHEAD;
use super::schema::{self, signed, unsigned};
use super::{DATABASE, RESTORING, refusal};
use crate::log::{LogError, Offset, Topic};
use crate::model::Timestamp;

/// How the name of a log that was put aside begins: behind it is the time.
pub(super) const ASIDE: &str = "log.db.before-mend-";

/// What is to be left out of a mended log, and what its groups are.
#[derive(Debug, Clone, Default)]
pub struct Mending {
    /// Groups and partitions whose snapshots are dropped: their state is rebuilt from the records.
    pub drop_states: Vec<(String, u32)>,
    /// Each group and what it reads: one whose position cannot be read any more stands at the end, so that it does
    /// nothing twice.
    pub groups: Vec<(&'static str, Topic)>,
}

/// Makes a new log of what can be read of the one in `directory`, and puts the old one aside: its file's name, which
/// has `at` in it. Offsets stay; what is lost becomes a gap, which is told to whoever reads across it.
///
/// # Errors
/// [`LogError::Fatal`]: a process runs on the directory, there is no room for the copy, or nothing can be read.
pub fn mend(directory: &Path, mending: &Mending, at: Timestamp) -> Result<PathBuf, LogError> {
    let (lock, _) = LockFile::take(directory)?;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        refusal(directory, LogError::Fatal { reason: format!("the log in {} cannot be mended: {what}: {error}", directory.display()) })
    };
    let new = directory.join(format!("{DATABASE}.mending"));
    drop(fs::remove_file(&new));
    let appended = {
        let old = Inspection::open(directory)?;
        write_new(&old, &new, mending).map_err(|error| {
            // Half a copy helps nobody, and takes the room that is missing.
            drop(fs::remove_file(&new));
            drop(fs::remove_file(format!("{}-journal", new.display())));
            failed("writing the new one", &error)
        })?
    };
    let aside = directory.join(format!("{ASIDE}{}", at.as_millis()));
    let moves = || -> std::io::Result<()> {
        File::open(&new)?.sync_all()?;
        // Beside its database under the same name, so that the two still open together. The shared memory is made anew.
        let wal = |of: &Path| PathBuf::from(format!("{}-wal", of.display()));
        let old = directory.join(DATABASE);
        if wal(&old).exists() {
            fs::rename(wal(&old), wal(&aside))?;
        }
        fs::rename(&old, &aside)?;
        drop(fs::remove_file(format!("{}-shm", old.display())));
        fs::rename(&new, &old)?;
        drop(fs::remove_file(directory.join(RESTORING)));
        File::open(directory)?.sync_all()
    };
    moves().map_err(|error| failed("putting it in its place", &error))?;
    lock.mark().map_err(|error| failed("marking it", &error))?.set(appended);
    Ok(aside)
}

/// Writes a database with all that can be read; how many records were ever appended to it.
fn write_new(old: &Inspection, path: &Path, mending: &Mending) -> rusqlite::Result<u64> {
    let connection = Connection::open(path)?;
    schema::create(&connection)?;
    let transaction = connection.unchecked_transaction()?;
    let mut failed = None;
    let reports = {
        let mut insert =
            transaction.prepare("INSERT INTO records (topic, partition, first, count, at, keys, payload, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        old.walk(&mut |row, _| {
            let row = params![row.topic.name(), row.partition, signed(row.first), signed(row.count), row.at.as_millis(), row.keys, row.payload, row.crc];
            if failed.is_none() {
                failed = insert.execute(row).err();
            }
        })
    };
    if let Some(error) = failed {
        return Err(error);
    }
    let positions = old.positions();
    let mut ends: BTreeMap<(Topic, u32), Offset> = reports.iter().map(|report| ((report.topic, report.partition), report.range.end)).collect();
    if old.ends().error.is_some() {
        // What a group has read was there.
        for (_, topic, partition, next) in &positions.rows {
            ends.entry((*topic, *partition)).and_modify(|end| *end = (*end).max(*next));
        }
    }
    let mut known: BTreeMap<(String, Topic, u32), Offset> =
        positions.rows.into_iter().map(|(group, topic, partition, next)| ((group, topic, partition), next)).collect();
    for report in &reports {
        let end = ends.get(&(report.topic, report.partition)).copied().unwrap_or(report.range.end);
        let start = report.lost.first().filter(|lost| lost.offsets.start == report.range.start).map_or(report.range.start, |lost| lost.offsets.end).min(end);
        let (topic, partition) = (report.topic.name(), report.partition);
        let bytes: i64 = transaction.query_row(
            "SELECT coalesce(sum(octet_length(payload) + coalesce(octet_length(keys), 0) + ?3), 0) FROM records WHERE topic = ?1 AND partition = ?2",
            params![topic, partition, signed(ROW_OVERHEAD)],
            |row| row.get(0),
        )?;
        let crc = checksum::of_partition(topic, partition, start, end, unsigned(bytes));
        transaction.execute(
            "INSERT INTO partitions (topic, partition, earliest, next, bytes, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![topic, partition, signed(start), signed(end), bytes, crc],
        )?;
        for (group, topic) in mending.groups.iter().filter(|(_, topic)| positions.error.is_some() && *topic == report.topic) {
            known.entry(((*group).to_owned(), *topic, report.partition)).or_insert(end);
        }
    }
    for ((group, topic, partition), next) in known {
        let next = next.min(ends.get(&(topic, partition)).copied().unwrap_or(next));
        transaction.execute(
            "INSERT INTO positions (group_name, topic, partition, next, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![group, topic.name(), partition, signed(next), checksum::of_position(&group, topic.name(), partition, next)],
        )?;
    }
    for (group, partition, key, value) in old.states().rows {
        if !mending.drop_states.contains(&(group.clone(), partition)) {
            let put = "INSERT OR REPLACE INTO states (group_name, partition, key, value, crc) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(put, params![group, partition, key, value, checksum::of_state(&group, partition, &key, &value)])?;
        }
    }
    transaction.commit()?;
    Ok(ends.values().sum())
}

/// Writes a copy of the log in `directory`, as of one moment, to the file `to`, which must not be there yet; also while
/// a process runs on it, which is not held up.
///
/// # Errors
/// [`LogError::Fatal`] where there is no log of this version, or the copy cannot be written.
pub fn copy(directory: &Path, to: &Path) -> Result<(), LogError> {
    let failed = |error: &dyn std::fmt::Display| {
        let place = to.parent().unwrap_or(to);
        refusal(place, LogError::Fatal { reason: format!("the log in {} cannot be copied to {}: {error}", directory.display(), to.display()) })
    };
    drop(Inspection::open(directory)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(DATABASE), flags).map_err(|error| failed(&error))?;
    // One read transaction: the newest part cannot be copied into the database meanwhile, and grows by what is written.
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(|error| failed(&error))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| failed(&error))
}

/// A directory into which a log is being put back: nothing runs on it before it is complete.
pub struct Restoring {
    directory: PathBuf,
    _lock: LockFile,
}

impl Restoring {
    /// Begins in an empty directory, which is created where it is not there.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where it is not empty, or cannot be written.
    pub fn begin(directory: &Path) -> Result<Self, LogError> {
        let failed = |error: std::io::Error| refusal(directory, LogError::Fatal { reason: format!("{} cannot be used: {error}", directory.display()) });
        fs::create_dir_all(directory).map_err(failed)?;
        let mut entries = fs::read_dir(directory).map_err(failed)?;
        if entries.next().is_some() {
            return Err(LogError::Fatal { reason: format!("{} is not empty; restore into a new directory, or move away what is there", directory.display()) });
        }
        File::create(directory.join(RESTORING)).and_then(|file| file.sync_all()).map_err(failed)?;
        let (lock, _) = LockFile::take(directory)?;
        Ok(Restoring { directory: directory.to_owned(), _lock: lock })
    }

    /// Copies the database of the backup in `from`.
    ///
    /// # Errors
    /// As the system says.
    pub fn database(&self, from: &Path) -> std::io::Result<()> {
        let to = self.directory.join(DATABASE);
        fs::copy(from.join(DATABASE), &to)?;
        File::open(to)?.sync_all()
    }

    /// Ends it: from now on a process may run there.
    ///
    /// # Errors
    /// As the system says.
    pub fn complete(self) -> std::io::Result<()> {
        File::open(&self.directory)?.sync_all()?;
        fs::remove_file(self.directory.join(RESTORING))?;
        fs::remove_file(self.directory.join(LOCK))?;
        File::open(&self.directory)?.sync_all()
    }
}
