//! A data directory that is damaged, not writable, or of another version: a clear refusal, never a start on a guess,
//! and a doctor that says what is lost and mends what can be mended.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "common/doctor.rs"]
mod doctor;
#[path = "common/small_disk.rs"]
mod small_disk;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::random::Random;
use common::{LOADLINE, Running, SLEEPERS, decisions_are_those_of_an_undisturbed_fold, fleet_of_sleepers, sleepers, wait_for, waiting};
use doctor::{doctor, open, refused, refuses_to_run, sum, wrong};
use loadline::log::embedded::{EmbeddedLog, Mending, mend};
use loadline::log::{Batch, Log, LogError, Membership, Offset, Polled, RawAppend, StatePut, Topic};
use loadline::model::{DeadLetter, Message, Timestamp};
use loadline::wire;
use rusqlite::Connection;
use serde_json::Value;
use small_disk::{SmallDisk, with_mounts};

/// A record that takes a page of its own, and is found in the file by its number.
fn record(n: usize) -> RawAppend {
    let letter = DeadLetter { topic: "signals".to_owned(), partition: 0, offset: 0, reason: marker(n), record: vec![7; 3000] };
    RawAppend { topic: Topic::DeadLetters, partition: 0, key: None, value: wire::encode(&Message::DeadLetter(letter)) }
}

fn marker(n: usize) -> String {
    format!("marker-{n:04}-marker")
}

/// A log of `records`, each in a row of its own, that was closed in order.
fn a_log(records: usize) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).unwrap();
    (0..records).for_each(|n| drop(log.append(vec![record(n)]).unwrap()));
    log.close();
    let database = directory.path().join("log.db");
    (directory, database)
}

/// Overwrites the page that holds `record(n)`.
fn damage(database: &Path, n: usize) {
    let bytes = fs::read(database).unwrap();
    let marker = marker(n).into_bytes();
    let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    let file = fs::File::options().write(true).open(database).unwrap();
    file.write_all_at(&[0xAA; 4096], (at / 4096 * 4096) as u64).unwrap();
}

/// Changes the snapshots of decide with a key like this, as a writer would: with their check sums.
fn change_states(database: &Path, like: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let connection = Connection::open(database).unwrap();
    let mut select = connection.prepare("SELECT partition, key, value FROM states WHERE group_name = 'decide' AND key LIKE ?1").unwrap();
    let rows = select.query_map([like], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let rows: Vec<(u32, String, Vec<u8>)> = rows.map(Result::unwrap).collect();
    assert!(!rows.is_empty(), "{like}");
    for (partition, key, value) in rows {
        let value = change(value);
        let crc = sum(&[b"states", b"decide", &u64::from(partition).to_le_bytes(), key.as_bytes(), &value]);
        let put = "UPDATE states SET value = ?3, crc = ?4 WHERE group_name = 'decide' AND partition = ?1 AND key = ?2";
        connection.execute(put, rusqlite::params![partition, key, value, crc]).unwrap();
    }
}

/// What a reader from the beginning gets: the numbers of records, and gaps.
fn read_through(log: &dyn Log) -> Vec<Result<(Offset, usize), (Offset, Offset)>> {
    let mut session = log.join(Membership { group: "reader", member: "one".to_owned(), topic: Topic::DeadLetters }).unwrap();
    let mut read = Vec::new();
    loop {
        let polled = session.poll(1000, Duration::ZERO).unwrap();
        if polled.is_empty() {
            return read;
        }
        for event in polled {
            match event {
                Polled::Records { records, .. } => read.push(Ok((records[0].offset, records.len()))),
                Polled::Gap { from, to, .. } => read.push(Err((from, to))),
                Polled::Assigned { .. } | Polled::Revoked { .. } => {}
            }
        }
    }
}

#[test]
fn a_damaged_page_costs_its_records_alone_and_whoever_reads_on_is_told() {
    let (directory, database) = a_log(200);
    damage(&database, 100);
    let before = fs::read(&database).unwrap();
    let (code, answer) = doctor(directory.path(), &[]);
    assert_eq!(code, 1);
    let wrong_before = wrong(&answer);
    assert!(wrong_before.iter().any(|(check, _)| check == "pages"), "{wrong_before:?}");
    let records = wrong_before.iter().find(|(check, _)| check == "records").unwrap();
    assert!(records.1.contains("dead-letters/0: 199 records, offsets 0 to 200"), "{records:?}");
    assert!(records.1.contains("1 records are lost: 100..101 (appended between 20"), "{records:?}");
    assert_eq!(fs::read(&database).unwrap(), before, "a look changes nothing");

    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!((code, wrong(&answer)), (0, vec![]), "{answer}");
    assert_eq!(fs::read(answer["before"].as_str().unwrap()).unwrap(), before, "the old log is kept");
    let log = open(directory.path()).unwrap();
    assert_eq!(read_through(&log), [Ok((0, 100)), Err((100, 101)), Ok((101, 99))]);
    assert_eq!(log.append(vec![record(200)]).unwrap(), [200], "offsets go on");
}

#[test]
fn what_is_lost_at_the_end_is_told_too() {
    let (directory, database) = a_log(200);
    damage(&database, 199);
    assert_eq!(doctor(directory.path(), &["--mend"]).0, 0);
    let log = open(directory.path()).unwrap();
    assert_eq!(log.append(vec![record(200)]).unwrap(), [200]);
    assert_eq!(read_through(&log), [Ok((0, 199)), Err((199, 200)), Ok((200, 1))]);
}

#[test]
fn a_truncated_file_is_refused_and_its_rest_saved() {
    let (directory, database) = a_log(200);
    let file = fs::File::options().write(true).open(&database).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 4096 / 2 * 4096).unwrap();
    let said = refused(directory.path());
    assert!(said.contains("malformed") && said.contains(&format!("`loadline doctor {}`", directory.path().display())), "{said}");
    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!((code, wrong(&answer)), (0, vec![]), "{answer}");
    let read = read_through(&open(directory.path()).unwrap());
    let Ok((0, records)) = read[0] else { panic!("{read:?}") };
    assert!((80..120).contains(&records), "{read:?}");
    assert_eq!(read[1], Err((records as Offset, 200)));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (directory, database) = a_log(10);
    fs::File::options().write(true).open(&database).unwrap().write_all_at(&[0xAA; 4096], 0).unwrap();
    let before = fs::read(&database).unwrap();
    let said = refused(directory.path());
    assert!(said.contains("file is not a database; `loadline doctor"), "{said}");
    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!(code, 1);
    assert!(answer["findings"].to_string().contains("restore a backup, or move log.db (with its -wal and -shm) and lock away"), "{answer}");
    assert_eq!(fs::read(&database).unwrap(), before);
    assert_eq!(doctor(&directory.path().join("nothing"), &[]).0, 2);
}

/// A log as `kill -9` leaves it: its newest part in the WAL.
fn killed(records: usize) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).unwrap();
    (0..records).for_each(|n| drop(log.append(vec![record(n)]).unwrap()));
    let copy = tempfile::tempdir().unwrap();
    for file in ["log.db", "log.db-wal", "lock"] {
        fs::copy(directory.path().join(file), copy.path().join(file)).unwrap();
    }
    copy
}

#[test]
fn a_torn_end_of_the_wal_is_as_good_as_none() {
    let directory = killed(50);
    let wal = directory.path().join("log.db-wal");
    let torn = fs::read(&wal).unwrap()[32..32 + 4120 + 100].to_vec();
    let whole = fs::metadata(&wal).unwrap().len();
    fs::File::options().write(true).open(&wal).unwrap().write_all_at(&torn, whole).unwrap();
    assert_eq!(doctor(directory.path(), &[]).0, 0, "{:?}", doctor(directory.path(), &[]));
    assert_eq!(read_through(&open(directory.path()).unwrap()), [Ok((0, 50))]);
}

#[test]
fn a_log_that_is_gone_is_no_new_one() {
    for lose in [(|path: &Path| fs::write(path, "").unwrap()) as fn(&Path), |path| fs::remove_file(path).unwrap()] {
        let directory = killed(50);
        drop(open(directory.path()).unwrap()); // ended in order: nothing is left beside log.db
        lose(&directory.path().join("log.db"));
        drop(fs::remove_file(directory.path().join("log.db-wal")));
        let said = refused(directory.path());
        assert!(said.contains("records is gone: log.db is missing or empty") && said.contains("restore a backup"), "{said}");
        assert_eq!(refused(directory.path()), said, "the evidence stays");
        // Whoever means it says so.
        fs::remove_file(directory.path().join("lock")).unwrap();
        drop(open(directory.path()).unwrap());
    }
}

#[test]
fn a_wal_that_is_gone_or_damaged_is_missed() {
    let gone = killed(50);
    fs::remove_file(gone.path().join("log.db-wal")).unwrap();
    let damaged = killed(50);
    let wal = damaged.path().join("log.db-wal");
    let half = fs::metadata(&wal).unwrap().len() / 2;
    fs::File::options().write(true).open(&wal).unwrap().write_all_at(&[0xAA; 4096], half).unwrap();
    let orphan = killed(5);
    fs::remove_file(orphan.path().join("log.db")).unwrap();
    let said = refused(orphan.path());
    assert!(said.contains("log.db-wal is there, and the log.db that it belongs to is not"), "{said}");

    let before = files(damaged.path());
    let said = refused(damaged.path());
    assert!(said.contains("lacks the newest ") && said.contains("records that were acknowledged"), "{said}");
    assert_eq!(files(damaged.path()), before, "what may yet be put right is left as it was");
    let (code, answer) = doctor(damaged.path(), &[]);
    assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "newest"), "{answer}");
    assert_eq!(doctor(damaged.path(), &["--mend"]).0, 0);
    let read = read_through(&open(damaged.path()).unwrap());
    assert!(matches!(read[..], [Ok((0, 1..50))]), "{read:?}");
    // Without the WAL there is no table yet: a log that was never checkpointed is all WAL.
    let before = files(gone.path());
    let said = refused(gone.path());
    assert!(said.contains("held 50 records is gone") && said.contains("Put it back, or restore a backup"), "{said}");
    assert_eq!(files(gone.path()), before);
}

/// What the database and its WAL hold, by a sum; `None` where that is nothing.
fn files(directory: &Path) -> Vec<Option<u32>> {
    ["log.db", "log.db-wal"].map(|name| fs::read(directory.join(name)).ok().filter(|bytes| !bytes.is_empty()).map(|bytes| crc32fast::hash(&bytes))).to_vec()
}

/// An older WAL of the same log beside a newer database would undo what that holds: it is refused, and the database left alone. Without it all is there.
#[test]
fn a_wal_of_before_is_not_taken_into_a_newer_log() {
    let directory = killed(50);
    let wal = directory.path().join("log.db-wal");
    let older = fs::read(&wal).unwrap();
    // Opened and closed, all is in the database, and the WAL is gone.
    let log = open(directory.path()).unwrap();
    log.append(vec![record(50)]).unwrap();
    log.close();
    drop(log);
    fs::write(&wal, &older).unwrap();
    let before = files(directory.path());
    let said = refused(directory.path());
    assert!(said.contains("lacks the newest "), "{said}");
    assert_eq!(files(directory.path()), before);
    fs::remove_file(&wal).unwrap();
    assert_eq!(read_through(&open(directory.path()).unwrap()), [Ok((0, 51))]);
}

/// A sound log that is only not this one's to read is not told to be thrown away; and whether its newest part is there is not guessed.
#[test]
fn what_the_doctor_cannot_know_it_does_not_say() {
    let (newer, database) = a_log(3);
    Connection::open(&database).unwrap().execute_batch("PRAGMA user_version = 4").unwrap();
    let output = Command::new(LOADLINE).args(["doctor"]).arg(newer.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("a newer Loadline wrote it") && said.contains("start that one") && !said.contains("move log.db"), "{said}");
    let (unmarked, _) = a_log(3);
    fs::write(unmarked.path().join("lock"), "").unwrap();
    let (code, answer) = doctor(unmarked.path(), &[]);
    assert_eq!(code, 0, "{answer}");
    assert!(answer.to_string().contains("whether the newest records are there cannot be told"), "{answer}");
}

/// A position of decide, at the beginning.
fn decide_commits(directory: &Path) {
    let log = open(directory).unwrap();
    let mut session = log.join(Membership { group: "decide", member: "one".to_owned(), topic: Topic::Signals }).unwrap();
    session.poll(1, Duration::ZERO).unwrap();
    session.commit(&Batch { position: Some(0), ..Batch::default() }).unwrap();
    drop(session);
    log.close();
}

#[test]
fn a_position_beyond_the_end_is_refused_and_set_to_the_end() {
    let (directory, database) = a_log(3);
    decide_commits(directory.path());
    for table in ["positions", "positions_copy"] {
        let crc = sum(&[table.as_bytes(), b"decide", b"signals", &0_u64.to_le_bytes(), &7_u64.to_le_bytes()]);
        Connection::open(&database).unwrap().execute(&format!("UPDATE {table} SET next = 7, crc = ?1"), [crc]).unwrap();
    }
    let said = refused(directory.path());
    assert!(said.contains("decide stands at 7 of signals/0, which ends at 0") && said.contains("loadline doctor"), "{said}");
    assert_eq!(doctor(directory.path(), &["--mend"]).0, 0);
    assert_eq!(open(directory.path()).unwrap().committed("decide", Topic::Signals, 0).unwrap(), Some(0));
}

/// Changes a group's name at the last entry of the index of the snapshots: the table has its row still, and nobody finds it.
fn hide_the_last_from_the_index(database: &Path, group: &str, key: &str) {
    let connection = Connection::open(database).unwrap();
    let number = |sql: &str| usize::try_from(connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap();
    let page_size = number("PRAGMA page_size");
    let root = number("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_states_1'");
    let page = (root - 1) * page_size;
    let entry = format!("{group}{key}").into_bytes();
    let within = fs::read(database).unwrap()[page..page + page_size].windows(entry.len()).position(|window| window == entry).unwrap();
    // Its last letter is the next one, so that the order of the index stays.
    let last = group.len() - 1;
    fs::File::options().write(true).open(database).unwrap().write_all_at(&[entry[last] + 1], (page + within + last) as u64).unwrap();
}

#[test]
fn a_snapshot_that_the_index_hides_is_missed() {
    let (directory, database) = a_log(3);
    let log = open(directory.path()).unwrap();
    let mut session = log.join(Membership { group: "decide", member: "one".to_owned(), topic: Topic::Signals }).unwrap();
    session.poll(1, Duration::ZERO).unwrap();
    let put = |key: &str, value: Option<&[u8]>| StatePut { key: key.to_owned(), value: value.map(<[u8]>::to_vec) };
    for states in [
        vec![put("a", Some(b"1")), put("b", Some(b"2")), put("c", Some(b"3"))],
        vec![put("a", Some(b"4")), put("b", None), put("d", None), put("last", Some(b"5"))],
    ] {
        session.commit(&Batch { position: Some(0), states, ..Batch::default() }).unwrap();
    }
    drop(session);
    let keys = |log: &EmbeddedLog| log.states("decide", 0).map(|states| states.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
    assert_eq!(keys(&log).unwrap(), ["a", "c", "last"]);
    log.close();
    hide_the_last_from_the_index(&database, "decide", "last");

    let said = keys(&open(directory.path()).unwrap()).unwrap_err().to_string();
    assert!(said.contains("the snapshots of decide/0 are damaged: 2 are found, and 3 were written"), "{said}");
    let (code, answer) = doctor(directory.path(), &[]);
    assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "pages"), "{answer}");
    mend(directory.path(), &Mending::default(), Timestamp::from_millis(17)).unwrap();
    assert_eq!(keys(&open(directory.path()).unwrap()).unwrap(), ["a", "c", "last"], "the table has it still");

    // A row that is gone from the table and the index alike, as an older page that was written back leaves it.
    Connection::open(&database).unwrap().execute("DELETE FROM states WHERE key = 'c'", []).unwrap();
    let said = keys(&open(directory.path()).unwrap()).unwrap_err().to_string();
    assert!(said.contains("2 are found, and 3 were written"), "{said}");
    let (code, answer) = doctor(directory.path(), &[]);
    assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "snapshots"), "{answer}");
    assert_eq!(doctor(directory.path(), &["--mend"]).0, 0);
    assert_eq!(keys(&open(directory.path()).unwrap()).unwrap(), Vec::<String>::new(), "state is rebuilt from the records");
}

#[test]
fn a_position_under_another_name_is_refused() {
    let (directory, database) = a_log(3);
    decide_commits(directory.path());
    Connection::open(&database).unwrap().execute("UPDATE positions SET group_name = 'decidf'", []).unwrap();
    let said = refused(directory.path());
    assert!(said.contains("the position of decidf in signals/0 is damaged: its check sum is ") && said.contains("`loadline doctor "), "{said}");
    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!((code, wrong(&answer)), (0, vec![]), "{answer}");
    open(directory.path()).unwrap();
}

#[test]
fn a_mend_or_a_restore_that_was_stopped_is_told() {
    let directory = killed(5);
    let mended = directory.path().join("log.db.mended-17");
    let other = a_log(3);
    fs::copy(&other.1, &mended).unwrap();
    let (code, answer) = doctor(directory.path(), &[]);
    assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "mend"), "{answer}");
    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!((code, wrong(&answer), &answer["mended"]), (0, vec![], &Value::Bool(true)), "{answer}");
    assert!(answer["before"].as_str().unwrap().ends_with("log.db.before-mend-17"), "{answer}");
    assert_eq!(read_through(&open(directory.path()).unwrap()), [Ok((0, 3))]);

    fs::write(directory.path().join("restoring"), "").unwrap();
    damage(&directory.path().join("log.db"), 1);
    for flags in [&[][..], &["--mend"]] {
        let (code, answer) = doctor(directory.path(), flags);
        assert_eq!((code, wrong(&answer).len(), wrong(&answer)[0].0.as_str(), &answer["mended"]), (1, 1, "restore", &Value::Bool(false)), "{answer}");
    }
    assert!(refused(directory.path()).contains("did not come to its end; empty it, and restore again"));
}

#[test]
fn a_fleet_whose_record_is_gone_is_told_with_both_ways_out() {
    let directory = a_log(1).0;
    let fleet = directory.path().join("fleets/local/web");
    fs::create_dir_all(&fleet).unwrap();
    fs::write(fleet.join("instances.json"), "{}").unwrap();
    for (text, way) in
        [(None, "put it back from a backup, or leave it so: the next `run` begins a new incarnation of the fleet"), (Some("{"), "or remove it to begin")]
    {
        if let Some(text) = text {
            fs::write(fleet.join("state.json"), text).unwrap();
        }
        let (code, answer) = doctor(directory.path(), &[]);
        assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "fleets"), "{answer}");
        assert!(answer["findings"].to_string().contains(way), "{answer}");
    }
}

/// What `run` is refused for is said here too: what opens only for who forgives a damaged schema; and what stands beside the log.
#[test]
fn what_run_is_refused_for_is_said_by_doctor_and_mended() {
    let (directory, database) = a_log(20);
    let whole = fs::read(&database).unwrap();
    let name = whole.windows(10).position(|window| window == b"partitions").unwrap();
    // The name of a table, and how many pages there are.
    for byte in [name, 28] {
        let mut bytes = whole.clone();
        bytes[byte] ^= 1;
        fs::write(&database, bytes).unwrap();
        assert!(refused(directory.path()).contains("malformed"), "{byte}");
        let (code, answer) = doctor(directory.path(), &[]);
        assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "pages"), "{byte}: {answer}");
        let (code, answer) = doctor(directory.path(), &["--mend"]);
        assert_eq!((code, wrong(&answer)), (0, vec![]), "{byte}: {answer}");
        assert_eq!(read_through(&open(directory.path()).unwrap()), [Ok((0, 20))], "{byte}");
    }
    for (of, name, damage) in [
        ("term", "term", (|path| fs::write(path, "hello").unwrap()) as fn(&Path)),
        ("term", "term", |path| fs::write(path, i64::MAX.to_string()).unwrap()),
        ("lock", "lock", |path| fs::remove_file(path).and_then(|()| fs::create_dir(path)).unwrap()),
        ("lock", "lock", |path| {
            fs::remove_file(path).unwrap();
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("fleets", "fleets/local/web", |path| fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(path, "")).unwrap()),
    ] {
        let (directory, _) = a_log(1);
        damage(&directory.path().join(name));
        let (code, answer) = doctor(directory.path(), &[]);
        assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, of), "{answer}");
        assert!(wrong(&answer)[0].1.contains(name), "{answer}");
    }
}

/// What is told to be lost is not told to be there in the same breath.
#[test]
fn a_state_that_is_rebuilt_from_what_is_left_is_told_so() {
    let (directory, database) = a_log(1);
    let log = open(directory.path()).unwrap();
    for n in 0..40 {
        let value = [&[0xC3, 0x01][..], &[n; 3000]].concat();
        log.append(vec![RawAppend { topic: Topic::Signals, partition: 0, key: Some(marker(n.into())), value }]).unwrap();
    }
    // A snapshot that nobody can use.
    let mut session = log.join(Membership { group: "decide", member: "one".to_owned(), topic: Topic::Signals }).unwrap();
    session.poll(1, Duration::ZERO).unwrap();
    let newer = StatePut { key: "\u{1}version".to_owned(), value: Some(b"2".to_vec()) };
    session.commit(&Batch { position: Some(0), states: vec![newer], ..Batch::default() }).unwrap();
    drop(session);
    log.close();
    drop(log);
    damage(&database, 20);
    let (code, answer) = doctor(directory.path(), &[]);
    let said = answer.to_string();
    assert!(
        code == 1 && said.contains("records are lost") && said.contains("what is left of signals/0; what is lost of it, as said above, is not known then"),
        "{answer}"
    );
    assert!(!said.contains("nothing is missing then"), "{answer}");
}

/// A log whose tables are all in the WAL yet, of which the beginning is damaged: what is damaged is named.
#[test]
fn a_wal_that_is_damaged_at_its_beginning_is_named() {
    let directory = killed(3);
    let database = directory.path().join("log.db");
    if fs::metadata(&database).unwrap().len() > 4096 {
        fs::write(&database, &fs::read(&database).unwrap()[..4096]).unwrap();
    }
    let wal = fs::File::options().read(true).write(true).open(directory.path().join("log.db-wal")).unwrap();
    wal.write_all_at(&[0xAA], 17).unwrap();
    let before = files(directory.path());
    let words = "what was written since is in log.db-wal, which is damaged at its beginning: keep a copy of both, and restore a backup";
    let (code, answer) = doctor(directory.path(), &[]);
    assert!(code == 1 && answer.to_string().contains(words), "{answer}");
    let said = refused(directory.path());
    assert!(said.contains(words), "{said}");
    assert_eq!(files(directory.path()), before);
}

#[test]
fn snapshots_that_cannot_be_used_are_refused_and_state_is_rebuilt_from_the_log() {
    let (home, _) = fleet_of_sleepers(1, "");
    let data = home.path().join("data");
    let loadline = Running::start(home.path(), &[]);
    wait_for("a fleet of three", || {
        loadline.post(&waiting(30.0));
        (sleepers(&data) == 3).then_some(())
    });
    let (code, answer) = doctor(&data, &[]);
    assert_eq!(code, 0, "{answer}");
    assert!(answer.to_string().contains(&format!("process {} runs on it", loadline.pid())), "{answer}");
    let (code, answer) = doctor(&data, &["--mend"]);
    assert_eq!((code, &answer["mended"]), (0, &Value::Bool(false)), "nothing is to be mended");
    assert_eq!(loadline.stop(), 0);
    let database = data.join("log.db");

    // Of a newer version.
    change_states(&database, "\u{1}version", |_| b"2".to_vec());
    refuses_to_run(home.path(), &["the state of decide for partition 0 cannot be restored: another Loadline wrote the snapshots", "loadline doctor"]);
    change_states(&database, "\u{1}version", |_| b"1".to_vec());
    // Truncated.
    change_states(&database, "local/%", |value| value[..20].to_vec());
    refuses_to_run(home.path(), &[&format!("the state of decide for partition 0 cannot be restored: the snapshot of {SLEEPERS} cannot be read")]);
    let (code, answer) = doctor(&data, &[]);
    assert_eq!((code, wrong(&answer)[0].0.as_str()), (1, "snapshots"), "{answer}");
    assert!(answer.to_string().contains("decide rebuilds its state from the whole of signals/0"), "{answer}");
    let (code, answer) = doctor(&data, &["--mend"]);
    assert_eq!((code, wrong(&answer)), (0, vec![]), "{answer}");

    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let refused = Command::new(LOADLINE).arg("doctor").arg(&data).arg("--mend").output().unwrap();
    assert_eq!(refused.status.code(), Some(0), "nothing is wrong, so nothing is mended");
    wait_for("a fleet of five", || {
        loadline.post(&waiting(50.0));
        (sleepers(&data) == 5).then_some(())
    });
    assert_eq!(loadline.stop(), 0);
    assert!(decisions_are_those_of_an_undisturbed_fold(&data) >= 3);
}

/// All that a log holds, as a stage reads it: records of every topic, positions, states; or why it cannot be read.
fn content(directory: &Path) -> Result<String, String> {
    let said = |error: LogError| error.to_string();
    let log = open(directory).map_err(said)?;
    let mut content = String::new();
    for topic in Topic::ALL {
        for partition in 0..log.partitions(topic) {
            let mut next = log.range(topic, partition).map_err(said)?.start;
            writeln!(content, "{topic}/{partition} from {next} to {}", log.range(topic, partition).map_err(said)?.end).unwrap();
            loop {
                let records = log.scan(topic, partition, next, 1000).map_err(said)?;
                let Some(last) = records.last() else { break };
                next = last.offset + 1;
                writeln!(content, "{records:?}").unwrap();
            }
        }
    }
    for (group, topic) in [("decide", Topic::Signals), ("arbitrate", Topic::Requests)] {
        writeln!(content, "{:?} {:?}", log.committed(group, topic, 0).map_err(said)?, log.states(group, 0).map_err(said)?).unwrap();
    }
    Ok(content)
}

/// One bit of a closed log's file flips. What is read then is what was written, or is refused or missing with the doctor's
/// word for it: nothing is ever read that nobody wrote.
#[test]
fn a_bit_that_flips_is_never_read_as_what_somebody_wrote() {
    let (directory, database) = a_log(20);
    let log = open(directory.path()).unwrap();
    for (group, topic) in [("decide", Topic::Signals), ("arbitrate", Topic::Requests)] {
        let mut session = log.join(Membership { group, member: "one".to_owned(), topic }).unwrap();
        session.poll(1, Duration::ZERO).unwrap();
        // Snapshots that can be used: what the doctor says is then of the damage alone.
        let ranges: Vec<_> = (0..100).map(|n| serde_json::json!({ "start": 2 * n, "end": 2 * n + 1 })).collect();
        let put = |key: &str, value: Value| StatePut { key: key.to_owned(), value: Some(value.to_string().into_bytes()) };
        let states = vec![put("\u{1}version", Value::from(1)), put("\u{1}aside", Value::from(ranges))];
        session.commit(&Batch { position: Some(0), states, ..Batch::default() }).unwrap();
    }
    log.close();
    let (whole, written) = (fs::read(&database).unwrap(), content(directory.path()).unwrap());
    let (code, answer) = doctor(directory.path(), &[]);
    assert_eq!((code, wrong(&answer)), (0, vec![]), "{answer}");
    let (mut refused, mut missing) = (0, 0);
    let mut random = Random::new(17);
    // Of the first page, which says what all others are, each byte of the header and each eighth of the rest besides.
    let all = (0..400).map(|_| random.below(whole.len() as u64 * 8)).collect::<Vec<_>>();
    for bit in all.into_iter().chain((0..100).chain((100..4096).step_by(8)).map(|byte| byte * 8)) {
        let place = format!("bit {} of byte {} of {}", bit % 8, bit / 8, whole.len());
        let mut bytes = whole.clone();
        bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("log.db"), &bytes).unwrap();
        fs::copy(directory.path().join("lock"), copy.path().join("lock")).unwrap();
        let read = content(copy.path());
        if read.as_ref() == Ok(&written) {
            continue;
        }
        *(if read.is_ok() { &mut missing } else { &mut refused }) += 1;
        // The file as it was: opening it may have written to it.
        fs::write(copy.path().join("log.db"), bytes).unwrap();
        let (code, answer) = doctor(copy.path(), &[]);
        // Where it could be another program's, or a newer release's, it is told so (2).
        assert!(code == 1 || code == 2 && read.is_err(), "{place}: {read:?}: {code}: {answer}");
        // Records may be missing, each a gap; none is another one.
        for line in read.iter().flat_map(|read| read.lines()) {
            let records = line.starts_with("[RawRecord") && written.contains(line.trim_start_matches('[').trim_end_matches(']'));
            assert!(records || written.lines().any(|whole| whole == line), "{place}: {line}");
        }
    }
    assert!(refused > 20, "{refused} refused, {missing} with something missing");
}

#[test]
fn nothing_is_mended_beneath_a_running_process() {
    let (directory, database) = a_log(50);
    let log = open(directory.path()).unwrap();
    damage(&database, 20);
    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!(code, 2);
    assert!(answer.to_string().contains(&format!("process {} runs on the log's directory", std::process::id())), "{answer}");
    drop(log);
}

/// A link, a directory or a pipe in place of the log is told as what it is, and nobody waits at it; what else is no file is told too.
#[test]
fn what_is_no_file_of_its_own_is_no_log() {
    let elsewhere = tempfile::tempdir().unwrap();
    open(elsewhere.path()).unwrap().close();
    for kind in ["link", "directory", "pipe"] {
        let (home, _) = fleet_of_sleepers(1, "");
        let data = home.path().join("data");
        fs::create_dir(&data).unwrap();
        let log = data.join("log.db");
        match kind {
            "link" => std::os::unix::fs::symlink(elsewhere.path().join("log.db"), &log).unwrap(),
            "directory" => fs::create_dir(&log).unwrap(),
            _ => assert!(Command::new("mkfifo").arg(&log).status().unwrap().success()),
        }
        refuses_to_run(home.path(), &["log.db is no file of its own, and a log is one"]);
        assert!(!data.join("lock").exists(), "it is left as it was found");
        let (code, answer) = doctor(&data, &[]);
        assert_eq!(code, 1, "{answer}");
        assert!(answer.to_string().contains("log.db is no file of its own"), "{answer}");
    }
    let (home, _) = fleet_of_sleepers(1, "");
    let data = home.path().join("data");
    ["fleets", "term"].iter().for_each(|name| fs::create_dir_all(data.join(name)).unwrap());
    refuses_to_run(home.path(), &["data/term cannot be used: Is a directory", "see that it is a file that this user may read and write"]);
    fs::remove_dir(data.join("term")).unwrap();
    fs::write(data.join("term"), "1\n").unwrap();
    fs::remove_dir_all(data.join("fleets")).unwrap();
    fs::write(data.join("fleets"), "").unwrap();
    refuses_to_run(home.path(), &["data/fleets is no directory, and holds the count of no fleet: put back what was there"]);
}

#[test]
fn a_directory_or_a_file_that_cannot_be_written_is_refused() {
    with_mounts("a_directory_or_a_file_that_cannot_be_written_is_refused", || {
        let (home, _) = fleet_of_sleepers(1, "");
        let data = home.path().join("data");
        let disk = SmallDisk::mount(&data, 16);
        open(&data).unwrap().close();
        disk.make_read_only();
        refuses_to_run(home.path(), &["data/lock cannot be written: Read-only file system", "make it writable, or choose another directory with --data"]);
        let (code, answer) = doctor(&data, &[]);
        assert_eq!((code, wrong(&answer)), (0, vec![]), "what is whole is whole, also where nothing can be written: {answer}");
        disk.make_writable();
        // With its newest part beside it, which SQLite does not read where nothing can be written.
        let killed = killed(5);
        for name in ["log.db", "log.db-wal", "lock"] {
            fs::copy(killed.path().join(name), data.join(name)).unwrap();
        }
        disk.make_read_only();
        let (code, said) = doctor(&data, &[]);
        assert_eq!(code, 2, "{said}");
        let said = said.to_string();
        assert!(said.contains("its newest part is in log.db-wal") && said.contains("copy the directory to a place that can be written"), "{said}");
        disk.make_writable();
        assert_eq!(doctor(&data, &[]).0, 0);
        // The file alone: mounted over itself, read-only, for root may write any file.
        let file = data.join("log.db");
        let mount = |args: &[&str]| assert!(Command::new("mount").args(args).arg(&file).status().unwrap().success());
        mount(&["--bind", file.to_str().unwrap()]);
        mount(&["-o", "remount,ro,bind"]);
        refuses_to_run(home.path(), &["data/log.db cannot be used: attempt to write a readonly database; make it and its directory writable"]);
        assert!(Command::new("umount").arg(&file).status().unwrap().success());
        open(&data).unwrap();
    });
}
