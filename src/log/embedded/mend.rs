//! A new log of what can still be read of a damaged one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::checksum;
use super::inspect::{Inspection, connect};
use super::lock_file::LockFile;
use super::positions::{self, Ranges};
use super::rows::ROW_OVERHEAD;
use super::schema::{self, signed, unsigned};
use super::states;
use super::{DATABASE, RESTORING, half_restored, refusal};
use crate::log::{LogError, Topic, directory};
use crate::model::Timestamp;

/// How the name of a log that was put aside begins: behind it is the time.
const ASIDE: &str = "log.db.before-mend-";

/// The new log while it is being written.
const MENDING: &str = "log.db.mending";

/// How the name of a new log begins that is whole and not yet in its place: behind it is the time.
const MENDED: &str = "log.db.mended-";

/// What is to be left out of a mended log, and what its groups are.
#[derive(Debug, Clone, Default)]
pub struct Mending {
    /// Groups and partitions whose snapshots are dropped, beside those that are not all there: their state is rebuilt from the
    /// records.
    pub drop_states: Vec<(String, u32)>,
    /// Each group and what it reads: one whose position may have been lost goes on at the end, so that it does nothing twice.
    pub groups: Vec<(&'static str, Topic)>,
    /// Whether the positions are older than what was done: then each group goes on at the end.
    pub positions_are_older: bool,
}

/// Makes a new log of what can be read of the one in `directory`, and puts the old one aside: its file's name, which
/// has `at` in it. Offsets stay; what is lost becomes a gap, which is told to whoever reads across it. Where an earlier
/// mend was stopped when its new log was whole, that one is put in its place, and nothing else is done.
///
/// A mend that is stopped leaves the log as it was, or a new one that the next mend or the next start puts in its place.
///
/// # Errors
/// [`LogError::Fatal`]: a process runs on the directory, a restore into it did not come to its end, there is no room for
/// the copy, or nothing can be read.
pub fn mend(directory: &Path, mending: &Mending, at: Timestamp) -> Result<PathBuf, LogError> {
    let lock = LockFile::take(directory)?;
    if let Some(aside) = settle(directory, &lock)? {
        return Ok(aside);
    }
    if directory.join(RESTORING).exists() {
        return Err(LogError::Fatal { reason: half_restored(directory) });
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        refusal(directory, LogError::Fatal { reason: format!("the log in {} cannot be mended: {what}: {error}", directory.display()) })
    };
    let new = directory.join(MENDING);
    write_new(&Inspection::open(directory)?, &new, mending).map_err(|error| {
        // Half a copy helps nobody, and takes the room that is missing.
        clear(directory);
        failed("writing the new one", &error)
    })?;
    let moves = Moves { directory: directory.to_owned(), at: at.as_millis().to_string() };
    // From here on the new one is the log, wherever it stands.
    let whole = || -> io::Result<()> {
        File::open(&new)?.sync_all()?;
        fs::rename(&new, moves.mended())?;
        directory::sync(directory)
    };
    whole().map_err(|error| failed("naming the new one", &error))?;
    moves.finish(&lock).map_err(|error| failed("putting it in its place", &error))
}

/// Whether a mend was stopped when its new log was whole, and before that was in its place.
pub(super) fn is_unfinished(directory: &Path) -> bool {
    Moves::unfinished(directory).is_some()
}

/// Puts the new log of a mend that was stopped in its place: the name of the one before, where there was such a mend.
pub(super) fn settle(directory: &Path, lock: &LockFile) -> Result<Option<PathBuf>, LogError> {
    clear(directory);
    let Some(moves) = Moves::unfinished(directory) else { return Ok(None) };
    let failed = |error: io::Error| LogError::Fatal {
        reason: format!("a mend of the log in {} was stopped, and cannot be brought to its end: {error}; {}", directory.display(), moves.says()),
    };
    moves.finish(lock).map(Some).map_err(|error| refusal(directory, failed(error)))
}

/// Takes away what a mend left that was stopped before its new log was whole.
fn clear(directory: &Path) {
    for name in [MENDING.to_owned(), format!("{MENDING}-journal")] {
        drop(fs::remove_file(directory.join(name)));
    }
}

/// What is left to do when the new log is whole: to put the old one aside, and it in its place. Each step can be done again.
struct Moves {
    directory: PathBuf,
    /// When the mend began: what both names have at their end.
    at: String,
}

impl Moves {
    /// In this order. The database's write-ahead log goes first: beside another database SQLite would write it over that one.
    const STEPS: [fn(&Moves, &LockFile) -> io::Result<()>; 5] = [Moves::mark, Moves::wal_aside, Moves::database_aside, Moves::in_place, Moves::keep];

    fn unfinished(directory: &Path) -> Option<Self> {
        let names = fs::read_dir(directory).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let at = names.filter_map(|name| name.strip_prefix(MENDED).map(str::to_owned));
        let at = at.filter(|at| at.bytes().all(|byte| byte.is_ascii_digit())).min()?;
        Some(Moves { directory: directory.to_owned(), at })
    }

    fn finish(&self, lock: &LockFile) -> io::Result<PathBuf> {
        Self::STEPS.iter().try_for_each(|step| step(self, lock))?;
        Ok(self.aside())
    }

    fn says(&self) -> String {
        format!("the new log is {}, the one before {DATABASE} or {ASIDE}{} (with its -wal)", self.mended().display(), self.at)
    }

    fn mended(&self) -> PathBuf {
        self.directory.join(format!("{MENDED}{}", self.at))
    }

    fn aside(&self) -> PathBuf {
        self.directory.join(format!("{ASIDE}{}", self.at))
    }

    fn database(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }

    /// Marks how many records the new one has: the old mark may ask for more.
    fn mark(&self, lock: &LockFile) -> io::Result<()> {
        let count = |connection: &Connection| connection.query_row("SELECT coalesce(sum(next), 0) FROM partitions", [], |row| row.get(0));
        let appended = connect(&self.mended(), true).and_then(|connection| count(&connection)).map_err(io::Error::other)?;
        let mark = lock.mark()?;
        mark.set(unsigned(appended));
        mark.sync()
    }

    fn wal_aside(&self, _: &LockFile) -> io::Result<()> {
        set_aside(&wal_of(&self.database()), &wal_of(&self.aside()))
    }

    fn database_aside(&self, _: &LockFile) -> io::Result<()> {
        set_aside(&self.database(), &self.aside())
    }

    fn in_place(&self, _: &LockFile) -> io::Result<()> {
        // The shared memory is made anew.
        drop(fs::remove_file(format!("{}-shm", self.database().display())));
        fs::rename(self.mended(), self.database())
    }

    fn keep(&self, _: &LockFile) -> io::Result<()> {
        directory::sync(&self.directory)
    }
}

/// The write-ahead log of a database. Under the same name beside it, so that the two still open together.
fn wal_of(database: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", database.display()))
}

/// Renames a file that may have been renamed already, and overwrites none.
fn set_aside(from: &Path, to: &Path) -> io::Result<()> {
    match (from.exists(), to.exists()) {
        (false, _) => Ok(()),
        (true, false) => fs::rename(from, to),
        // Made by whoever looked at the database meanwhile.
        (true, true) if fs::metadata(from)?.len() == 0 => fs::remove_file(from),
        (true, true) => Err(io::Error::other(format!("{} is there although {} is: move away the one that is not wanted", from.display(), to.display()))),
    }
}

/// Writes a database with all that can be read.
fn write_new(old: &Inspection, path: &Path, mending: &Mending) -> rusqlite::Result<()> {
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
    let mut ranges: Ranges = reports.iter().map(|report| ((report.topic, report.partition), report.range.clone())).collect();
    if old.ends().error.is_some() {
        // What a group has read was there.
        for ((_, topic, partition), next) in &positions.next {
            ranges.entry((*topic, *partition)).and_modify(|range| range.end = range.end.max(*next));
        }
    }
    for report in &reports {
        let end = ranges.get(&(report.topic, report.partition)).map_or(report.range.end, |range| range.end);
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
    }
    for ((group, topic, partition), next) in positions.settled(&mending.groups, &ranges, mending.positions_are_older) {
        positions::put(&transaction, &group, topic, partition, next)?;
    }
    let states = old.states();
    for (group, partition, key, value) in states.rows {
        let place = (group, partition);
        if !mending.drop_states.contains(&place) && !states.damaged.contains_key(&place) {
            let put = "INSERT OR REPLACE INTO states (group_name, partition, key, value, crc) VALUES (?1, ?2, ?3, ?4, ?5)";
            let (group, partition) = place;
            transaction.execute(put, params![group, partition, key, value, checksum::of_state(&group, partition, &key, &value)])?;
        }
    }
    let counted: Vec<(String, u32, i64)> = transaction
        .prepare("SELECT group_name, partition, count(*) FROM states GROUP BY group_name, partition")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (group, partition, count) in counted {
        states::put_count(&transaction, &group, partition, unsigned(count))?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::embedded::{EmbeddedLog, Options};
    use crate::log::{Log, Offset, RawAppend};
    use crate::runtime::clock::SystemClock;

    fn open(directory: &Path) -> Result<EmbeddedLog, LogError> {
        EmbeddedLog::open(directory, Arc::new(SystemClock), Options::default())
    }

    fn append(log: &EmbeddedLog, value: u8) -> Offset {
        log.append(vec![RawAppend { topic: Topic::Audit, partition: 0, key: None, value: vec![value] }]).unwrap()[0]
    }

    /// A log of three records of which the WAL has the last two, as a process leaves it that is killed.
    fn a_log() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path()).unwrap();
        append(&log, 0);
        log.close();
        let log = open(directory.path()).unwrap();
        append(&log, 1);
        append(&log, 2);
        let copy = tempfile::tempdir().unwrap();
        for name in [DATABASE, "log.db-wal", "lock"] {
            fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    }

    fn values(directory: &Path) -> Vec<u8> {
        open(directory).unwrap().scan(Topic::Audit, 0, 0, 10).unwrap().into_iter().map(|record| record.value[0]).collect()
    }

    #[test]
    fn a_mend_that_is_stopped_anywhere_is_brought_to_its_end_by_the_next_start_or_the_next_mend() {
        for done in 0..=Moves::STEPS.len() {
            for marked in [true, false] {
                for by_start in [true, false] {
                    let case = format!("{done} steps, marked: {marked}, by a start: {by_start}");
                    let directory = a_log();
                    let directory = directory.path();
                    let moves = Moves { directory: directory.to_owned(), at: "17".to_owned() };
                    {
                        let lock = LockFile::take(directory).unwrap();
                        write_new(&Inspection::open(directory).unwrap(), &moves.mended(), &Mending::default()).unwrap();
                        // Made otherwise, so that it is seen which of both is read; and shorter than the mark says.
                        Connection::open(moves.mended()).unwrap().execute("DELETE FROM records WHERE first = 2", []).unwrap();
                        Moves::STEPS[..done].iter().for_each(|step| step(&moves, &lock).unwrap());
                    }
                    if !marked {
                        fs::remove_file(directory.join("lock")).unwrap();
                    }
                    if done < 4 {
                        assert!(matches!(Inspection::open(directory), Err(super::super::Unopened::Unfinished { .. })), "{case}");
                        assert!(EmbeddedLog::open_read_only(directory).err().unwrap().to_string().contains("before its end"), "{case}");
                        if !by_start {
                            assert_eq!(mend(directory, &Mending::default(), Timestamp::from_millis(18)).unwrap(), moves.aside(), "{case}");
                        }
                    }
                    assert_eq!(values(directory), [0, 1], "{case}");
                    assert!(!moves.mended().exists() && moves.aside().exists(), "{case}");
                    // The one before is whole, with its newest part.
                    fs::rename(moves.aside(), directory.join(DATABASE)).unwrap();
                    fs::rename(wal_of(&moves.aside()), directory.join("log.db-wal")).unwrap();
                    assert_eq!(values(directory), [0, 1, 2], "{case}");
                }
            }
        }
    }

    #[test]
    fn a_mend_that_is_stopped_before_its_new_log_is_whole_leaves_the_log_as_it_was() {
        let directory = a_log();
        for name in [MENDING, "log.db.mending-journal"] {
            fs::write(directory.path().join(name), "half of it").unwrap();
        }
        assert_eq!(values(directory.path()), [0, 1, 2]);
        assert!(!directory.path().join(MENDING).exists());
    }

    #[test]
    fn a_mend_overwrites_no_log_that_was_put_there_meanwhile() {
        let directory = a_log();
        let directory = directory.path();
        let moves = Moves { directory: directory.to_owned(), at: "17".to_owned() };
        write_new(&Inspection::open(directory).unwrap(), &moves.mended(), &Mending::default()).unwrap();
        fs::copy(directory.join(DATABASE), moves.aside()).unwrap();
        let said = open(directory).err().unwrap().to_string();
        assert!(said.contains("log.db is there although ") && said.contains("log.db.before-mend-17 is: move away the one that is not wanted"), "{said}");
    }

    #[test]
    fn what_a_restore_did_not_complete_is_not_mended() {
        let directory = a_log();
        fs::write(directory.path().join(RESTORING), "").unwrap();
        let said = mend(directory.path(), &Mending::default(), Timestamp::from_millis(17)).unwrap_err().to_string();
        assert!(said.contains("did not come to its end; empty it, and restore again"), "{said}");
        assert!(directory.path().join(RESTORING).exists());
    }
}
