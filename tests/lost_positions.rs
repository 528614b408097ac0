//! Positions and snapshots that are gone or older than what was done, of a Loadline that has run: nothing starts on them, `doctor`
//! says what they cost, and after its mend nothing is counted twice and nothing done twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "common/doctor.rs"]
mod doctor;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Running, fleet_of_sleepers, sleepers, wait_for, waiting};
use doctor::{doctor, open, refuses_to_run, sum, wrong};
use loadline::log::embedded::EmbeddedLog;
use loadline::log::{Log, Offset, RawAppend, Topic};
use loadline::model::{Message, OutcomeResult, Signal};
use loadline::wire;
use rusqlite::Connection;
use serde_json::Value;

/// The two tables that have the positions.
const TABLES: [&str; 2] = ["positions", "positions_copy"];

/// Group and topic.
type Reader = (String, String);

/// A Loadline that ran, scaled and ended in order. Its directory, and what it was when it had ended.
struct Ended {
    home: tempfile::TempDir,
    log: Vec<u8>,
    positions: BTreeMap<Reader, Offset>,
}

impl Ended {
    fn new() -> Ended {
        let (home, _) = fleet_of_sleepers(1, "");
        let data = home.path().join("data");
        let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
        wait_for("a fleet of three", || {
            loadline.post(&waiting(30.0));
            (sleepers(&data) == 3).then_some(())
        });
        assert_eq!(loadline.stop(), 0);
        let positions = positions(&data.join("log.db"));
        assert_eq!(positions.keys().map(|(group, _)| group.as_str()).collect::<Vec<_>>(), ["actuate", "admit", "aggregate", "arbitrate", "decide"]);
        Ended { log: fs::read(data.join("log.db")).unwrap(), positions, home }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn database(&self) -> PathBuf {
        self.data().join("log.db")
    }

    /// Puts the log back as it was, and damages it.
    fn damaged(&self, damage: impl FnOnce(&Path)) {
        fs::write(self.database(), &self.log).unwrap();
        damage(&self.database());
    }

    /// Up to where aggregate had read when it ended.
    fn aggregated(&self) -> Offset {
        self.positions[&("aggregate".to_owned(), "metrics".to_owned())]
    }

    fn sql(&self, statement: &str) {
        self.damaged(|database| {
            assert!(Connection::open(database).unwrap().execute(statement, []).unwrap() > 0, "{statement}");
        });
    }

    /// That nothing starts on it, `run` says all of `words`, and so does the doctor's first complaint of `check`, with `mend` as the way out.
    fn is_refused(&self, words: &[&str], check: &str, mend: &[&str]) {
        refuses_to_run(self.home.path(), &[words, &["loadline doctor"]].concat());
        assert_eq!(sleepers(&self.data()), 0, "nothing was started");
        let (code, answer) = doctor(&self.data(), &[]);
        assert_eq!(code, 1, "{answer}");
        let finding = finding(&answer, check);
        words.iter().for_each(|word| assert!(finding["says"].as_str().unwrap().contains(word), "{word:?} is not in {finding}"));
        mend.iter().for_each(|word| assert!(finding["mend"].as_str().unwrap().contains(word), "{word:?} is not in {finding}"));
    }

    fn is_mended(&self) {
        let (code, answer) = doctor(&self.data(), &["--mend"]);
        assert_eq!((code, wrong(&answer)), (0, vec![]), "{answer}");
        assert_eq!(positions_of(&self.database(), TABLES[0]), positions_of(&self.database(), TABLES[1]));
    }

    /// It goes on, takes samples and scales; what was there before was not counted or carried out again.
    fn goes_on(&self) {
        self.goes_on_without(0..0);
    }

    /// As [`Ended::goes_on`], and what was `left_out` of `metrics` stays so.
    fn goes_on_without(&self, left_out: Range<Offset>) {
        let data = self.data();
        let loadline = Running::start(self.home.path(), &["--stop-fleets-on-exit"]);
        wait_for("a fleet of five", || {
            loadline.post(&waiting(50.0));
            (sleepers(&data) == 5).then_some(())
        });
        assert_eq!(loadline.stop(), 0);
        let log = EmbeddedLog::open_read_only(&data).unwrap();
        let read = log.committed("aggregate", Topic::Metrics, 0).unwrap().unwrap();
        let records = log.scan(Topic::Metrics, 0, 0, usize::MAX >> 1).unwrap();
        let samples = records.iter().filter(|record| record.offset < read && !left_out.contains(&record.offset)).map(|record| {
            match wire::decode(Topic::Metrics, &record.value) {
                Ok(Message::Samples(batch)) => batch.samples.iter().map(|sample| sample.targets.len()).sum::<usize>(),
                other => panic!("{other:?}"),
            }
        });
        let (mut counted, mut applied) = (0, BTreeMap::<String, usize>::new());
        for record in log.scan(Topic::Signals, 0, 0, usize::MAX >> 1).unwrap() {
            match wire::decode(Topic::Signals, &record.value) {
                Ok(Message::Signal(Signal::Part(part))) => {
                    counted += part.panes.iter().flat_map(|pane| pane.instances.values()).map(|reading| reading.count).sum::<i64>();
                }
                Ok(Message::Signal(Signal::Outcome(outcome))) if outcome.result == OutcomeResult::Applied => *applied.entry(outcome.command).or_default() += 1,
                _ => {}
            }
        }
        assert_eq!(usize::try_from(counted).unwrap(), samples.sum::<usize>(), "each sample is in one pane");
        assert!(!applied.is_empty() && applied.values().all(|times| *times == 1), "{applied:?}");
    }
}

fn finding<'a>(answer: &'a Value, check: &str) -> &'a Value {
    let findings = answer["findings"].as_array().unwrap_or_else(|| panic!("{answer}"));
    findings.iter().find(|finding| finding["check"] == check && finding["state"] == "Wrong").unwrap_or_else(|| panic!("no complaint of {check}: {answer}"))
}

fn positions_of(database: &Path, table: &str) -> BTreeMap<Reader, Offset> {
    let connection = Connection::open(database).unwrap();
    let mut select = connection.prepare(&format!("SELECT group_name, topic, next FROM {table}")).unwrap();
    let rows = select.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), Offset::try_from(row.get::<_, i64>(2)?).unwrap()))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn positions(database: &Path) -> BTreeMap<Reader, Offset> {
    positions_of(database, TABLES[0])
}

/// Where each group's input ends.
fn ends(database: &Path) -> BTreeMap<Reader, Offset> {
    let connection = Connection::open(database).unwrap();
    let end = |topic: &str| connection.query_row("SELECT next FROM partitions WHERE topic = ?1", [topic], |row| row.get::<_, i64>(0)).unwrap();
    positions(database).into_keys().map(|(group, topic)| (Offset::try_from(end(&topic)).unwrap(), (group, topic))).map(|(end, key)| (key, end)).collect()
}

/// Sets every position of a table back to `next`, as a page would that was once written so: with its check sums.
fn set_back(database: &Path, table: &str, next: Offset) {
    let connection = Connection::open(database).unwrap();
    for (group, topic) in positions_of(database, table).keys() {
        let crc = sum(&[table.as_bytes(), group.as_bytes(), topic.as_bytes(), &0_u64.to_le_bytes(), &next.to_le_bytes()]);
        let set = format!("UPDATE {table} SET next = ?1, crc = ?2 WHERE group_name = ?3");
        connection.execute(&set, rusqlite::params![i64::try_from(next).unwrap(), crc, group]).unwrap();
    }
}

/// Where the page of a table is in the file, if it has but one.
fn page(database: &Path, table: &str) -> u64 {
    let root = Connection::open(database).unwrap().query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get::<_, i64>(0));
    u64::try_from(root.unwrap() - 1).unwrap() * 4096
}

/// Changes how many rows the page of a table says that it has: the last ones are hidden.
fn hide_rows(database: &Path, table: &str, bits: u8) {
    let at = page(database, table) + 4;
    let file = fs::File::options().read(true).write(true).open(database).unwrap();
    let mut count = [0];
    file.read_exact_at(&mut count, at).unwrap();
    file.write_all_at(&[count[0] ^ bits], at).unwrap();
}

fn snapshots(database: &Path) -> BTreeMap<(String, String), Vec<u8>> {
    let connection = Connection::open(database).unwrap();
    let mut select = connection.prepare("SELECT group_name, key, value FROM states").unwrap();
    let rows = select.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_position_that_is_gone_from_one_table_is_taken_from_the_other() {
    let ended = Ended::new();
    let aggregate = ended.aggregated();
    for (table, said) in [
        (TABLES[0], format!("the position of aggregate in metrics/0 is missing, and its copy is {aggregate}")),
        (TABLES[1], format!("the position of aggregate in metrics/0 is {aggregate}, and its copy is missing")),
    ] {
        ended.sql(&format!("DELETE FROM {table} WHERE group_name = 'aggregate'"));
        ended.is_refused(&[&said], "positions", &["--mend takes the later one", "nothing is lost, nothing done twice"]);
        ended.is_mended();
        assert_eq!(positions(&ended.database()), ended.positions, "{table}");
    }
    ended.goes_on();
}

/// A bit of the number of rows on a page flips: one is hidden or several are, and SQLite reads on as if there were no more.
#[test]
fn positions_that_a_damaged_page_hides_are_missed_and_found_again() {
    let ended = Ended::new();
    for table in TABLES {
        for (bits, first) in [(1, "decide in signals/0"), (4, "admit in control/0"), (5, "actuate in commands/0")] {
            ended.damaged(|database| hide_rows(database, table, bits));
            let hidden = positions_of(&ended.database(), table);
            assert!(hidden.len() < ended.positions.len(), "{hidden:?}");
            ended.is_refused(&[&format!("the position of {first} is ")], "positions", &["nothing is lost"]);
            ended.is_mended();
            assert_eq!(positions(&ended.database()), ended.positions, "{table}");
        }
    }
    ended.goes_on();
}

#[test]
fn positions_of_an_older_page_are_missed() {
    let ended = Ended::new();
    for table in TABLES {
        ended.damaged(|database| set_back(database, table, 0));
        ended.is_refused(&["the position of actuate in commands/0 is "], "positions", &["nothing is lost"]);
        ended.is_mended();
        assert_eq!(positions(&ended.database()), ended.positions, "{table}");
    }
    ended.goes_on();
}

/// Both tables are older, alike: the snapshots tell it. Who has none would be believed, but for the others.
#[test]
fn positions_that_are_older_than_the_snapshots_are_set_to_the_end() {
    let ended = Ended::new();
    let kept = snapshots(&ended.database());
    ended.damaged(|database| TABLES.iter().for_each(|table| set_back(database, table, 0)));
    refuses_to_run(ended.home.path(), &["cannot be restored: the snapshots hold the input up to ", "and it was read up to 0 only", "loadline doctor"]);
    assert_eq!(sleepers(&ended.data()), 0, "nothing was started");
    let (code, answer) = doctor(&ended.data(), &[]);
    assert_eq!(code, 1, "{answer}");
    let ends = ends(&ended.database());
    let end = |group: &str, topic: &str| ends[&(group.to_owned(), topic.to_owned())];
    let finding = finding(&answer, "positions");
    let says = finding["says"].as_str().unwrap();
    assert!(says.contains("they are older than the snapshots") && says.contains("decide stands at 0 of signals/0, and its snapshots hold it up to "), "{says}");
    let left_out = format!("aggregate metrics/0 0..{}", end("aggregate", "metrics"));
    assert!(finding["mend"].as_str().unwrap().contains(&left_out), "{left_out}: {finding}");
    assert!(!answer.to_string().contains("nothing is missing"), "{answer}");
    ended.is_mended();
    assert_eq!(positions(&ended.database()), ends);
    assert_eq!(snapshots(&ended.database()), kept);
    ended.goes_on_without(ended.aggregated()..ends[&("aggregate".to_owned(), "metrics".to_owned())]);
}

#[test]
fn a_position_that_is_in_neither_table_is_missed_where_snapshots_hold_what_was_read() {
    let ended = Ended::new();
    ended.damaged(|database| {
        for table in TABLES {
            Connection::open(database).unwrap().execute(&format!("DELETE FROM {table} WHERE group_name = 'decide'"), []).unwrap();
        }
    });
    refuses_to_run(ended.home.path(), &["the state of decide for partition 0 cannot be restored", "and it was read up to 0 only", "loadline doctor"]);
    assert_eq!(sleepers(&ended.data()), 0, "nothing was started");
    let (code, answer) = doctor(&ended.data(), &[]);
    assert_eq!(code, 1, "{answer}");
    assert!(finding(&answer, "positions")["says"].as_str().unwrap().contains("decide stands at 0 of signals/0, and its snapshots hold it up to "), "{answer}");
    ended.is_mended();
    let ends = ends(&ended.database());
    assert_eq!(positions(&ended.database()), ends);
    ended.goes_on_without(ended.aggregated()..ends[&("aggregate".to_owned(), "metrics".to_owned())]);
}

#[test]
fn where_both_tables_are_destroyed_every_stage_goes_on_at_the_end() {
    let ended = Ended::new();
    let (kept, ends) = (snapshots(&ended.database()), ends(&ended.database()));
    ended.damaged(|database| {
        for table in TABLES {
            let at = page(database, table);
            fs::File::options().write(true).open(database).unwrap().write_all_at(&[0xAA; 4096], at).unwrap();
        }
    });
    ended.is_refused(&["malformed"], "positions", &["--mend takes what either table still says"]);
    let (_, answer) = doctor(&ended.data(), &[]);
    let end = ends[&("aggregate".to_owned(), "metrics".to_owned())];
    let said = format!("aggregate does nothing twice; what it had not done yet is left out: at most 0..{end}");
    assert!(answer.to_string().contains(&said), "{said}: {answer}");
    ended.is_mended();
    assert_eq!(positions(&ended.database()), ends);
    assert_eq!(snapshots(&ended.database()), kept);
    ended.goes_on_without(ended.aggregated()..ends[&("aggregate".to_owned(), "metrics".to_owned())]);
}

/// A group that was killed before its first commit has no position, and begins at the beginning.
#[test]
fn a_group_that_has_committed_nothing_yet_has_lost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).unwrap();
    log.append(vec![RawAppend { topic: Topic::Metrics, partition: 0, key: None, value: vec![1] }]).unwrap();
    log.close();
    let (_, answer) = doctor(directory.path(), &[]);
    assert!(!wrong(&answer).iter().any(|(check, _)| check == "positions"), "{answer}");
    // Also where something else is mended.
    let (code, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!((code, &answer["mended"]), (1, &Value::Bool(false)), "{answer}");
    let first = fs::read(directory.path().join("log.db")).unwrap();
    let connection = Connection::open(directory.path().join("log.db")).unwrap();
    connection.execute("UPDATE partitions SET crc = 0 WHERE topic = 'audit'", []).unwrap();
    drop(connection);
    assert_ne!(fs::read(directory.path().join("log.db")).unwrap(), first);
    let (_, answer) = doctor(directory.path(), &["--mend"]);
    assert_eq!(answer["mended"], Value::Bool(true), "{answer}");
    assert_eq!(open(directory.path()).unwrap().committed("aggregate", Topic::Metrics, 0).unwrap(), None);
}

#[test]
fn a_snapshot_that_is_lost_costs_its_own_stage_alone_and_it_is_said_what() {
    let ended = Ended::new();
    let kept = snapshots(&ended.database());
    let of = |group: &str, snapshots: &BTreeMap<(String, String), Vec<u8>>| snapshots.keys().filter(|(of, _)| of == group).count();
    let written = of("admit", &kept);
    ended.sql("DELETE FROM states WHERE group_name = 'admit' AND key LIKE 'target%'");
    let said = format!("the snapshots of admit/0 are damaged: {} are found, and {written} were written", written - 1);
    ended.is_refused(&[&said], "snapshots", &["--mend drops them; admit rebuilds its state from the whole of control/0"]);
    let (_, answer) = doctor(&ended.data(), &[]);
    assert_eq!(wrong(&answer).len(), 1, "{answer}");
    ended.is_mended();
    let left = snapshots(&ended.database());
    let others = |all: &BTreeMap<(String, String), Vec<u8>>| {
        all.iter().filter(|((group, _), _)| group != "admit").map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    assert_eq!((of("admit", &left), others(&left)), (0, others(&kept)));
    ended.goes_on();
}

#[test]
fn how_many_snapshots_there_are_is_lost_too_where_its_table_is_destroyed() {
    let ended = Ended::new();
    ended.damaged(|database| {
        let at = page(database, "entries");
        fs::File::options().write(true).open(database).unwrap().write_all_at(&[0xAA; 4096], at).unwrap();
    });
    refuses_to_run(ended.home.path(), &["malformed", "loadline doctor"]);
    assert_eq!(doctor(&ended.data(), &[]).0, 1);
    ended.is_mended();
    assert_eq!(snapshots(&ended.database()).keys().filter(|(group, _)| group == "decide").count(), 0);
    assert_eq!(positions(&ended.database()), ended.positions);
    ended.goes_on();
}
