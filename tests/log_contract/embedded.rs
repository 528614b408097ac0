//! What only the embedded log promises: of its directory, of its file, and of a real `kill -9`.
//!
//! Other processes are this test binary again: it runs [`another_process`] alone, which does what
//! the environment says.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Batch, Log, LogError, Offset, Partitions, Polled, Topic};
use loadline::runtime::clock::{Stopwatch, SystemClock};

use crate::harness::{DEADLINE, EmbeddedHarness, Harness, all, assert_fatal, join, join_as, poll_assigned, position, put, signal, signals, text, to};

const TASK: &str = "LOADLINE_TEST_TASK";
const DIRECTORY: &str = "LOADLINE_TEST_DIRECTORY";
const ROUND: &str = "LOADLINE_TEST_ROUND";

fn open(directory: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(directory, Arc::new(SystemClock), Options::default())
}

/// The other process; in the ordinary run of the tests it has nothing to do.
#[test]
fn another_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    let outcome = open(Path::new(&directory));
    match task.as_str() {
        "open" => println!("\nsaid {}", outcome.err().map_or("opened".to_owned(), |error| error.to_string())),
        "produce" => produce(&outcome.unwrap(), &std::env::var(ROUND).unwrap()),
        other => panic!("{other}"),
    }
}

fn start(task: &str, directory: &Path, round: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::another_process", "--nocapture"])
        .envs([(TASK, task), (DIRECTORY, directory.to_str().unwrap()), (ROUND, &round.to_string())])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Appends to `metrics` from three threads, saying what was acknowledged, and copies `metrics` to
/// `audit` and counts into a state, until it is killed.
fn produce(log: &EmbeddedLog, round: &str) {
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for i in 0.. {
                    let value = |part| format!("{round}:{thread}:{i}:{part}");
                    log.append(vec![to(Topic::Metrics, 0, value(0)), to(Topic::Metrics, 0, value(1))]).unwrap();
                    println!("\nacknowledged {} {}", value(0), value(1));
                }
            });
        }
        let mut session = join_as(log, "aggregate", "a", Topic::Metrics);
        loop {
            for polled in session.poll(10, DEADLINE).unwrap() {
                let Polled::Records { records, .. } = polled else { continue };
                let next = records.last().unwrap().offset + 1;
                let appends = records.iter().map(|record| to(Topic::Audit, 0, text(record))).collect();
                session.commit(&Batch { appends, states: vec![put("count", Some(&next.to_string()))], ..position(0, next) }).unwrap();
            }
        }
    });
}

#[test]
fn a_kill_loses_nothing_acknowledged_and_shows_nothing_half() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut child = start("produce", directory.path(), round);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = |enough: usize| {
            let mut count = 0;
            while count < enough {
                let Some(Ok(line)) = lines.next() else { break };
                if let Some(values) = line.strip_prefix("acknowledged ") {
                    acknowledged.extend(values.split(' ').map(str::to_owned));
                    count += 1;
                }
            }
        };
        read(40 + 20 * round);
        // A reader beside the running process sees what was acknowledged.
        let reader = EmbeddedLog::open_read_only(directory.path()).unwrap();
        let seen = reader.range(Topic::Metrics, 0).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        read(usize::MAX);
        assert!(seen.end >= 80, "{seen:?}");
        // And so does one after it, before anyone repaired anything.
        let reader = EmbeddedLog::open_read_only(directory.path()).unwrap();
        assert!(reader.range(Topic::Metrics, 0).unwrap().end >= seen.end);
        assert!(!reader.scan(Topic::Metrics, 0, seen.end - 1, 1).unwrap().is_empty());
    }
    assert!(acknowledged.len() >= 2 * (40 + 60 + 80), "{}", acknowledged.len());

    let log = open(directory.path()).unwrap();
    let found = all(&log, Topic::Metrics, 0);
    let mut sorted = found.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), found.len(), "a record stands there twice");
    for value in &acknowledged {
        assert!(sorted.binary_search(value).is_ok(), "{value} was acknowledged and is gone");
    }
    // Both records of an append, or none.
    for value in &found {
        let (append, part) = value.rsplit_once(':').unwrap();
        let other = format!("{append}:{}", u8::from(part == "0"));
        assert!(sorted.binary_search(&other).is_ok(), "{value} is there without {other}");
    }
    // Appends, position and state of each commit went together.
    let next = log.committed("aggregate", Topic::Metrics, 0).unwrap().unwrap();
    assert_eq!(all(&log, Topic::Audit, 0), found[..usize::try_from(next).unwrap()]);
    assert_eq!(log.states("aggregate", 0).unwrap(), [("count".to_owned(), next.to_string().into_bytes())]);
}

#[test]
fn a_second_process_is_refused_and_told_who_runs() {
    let harness = EmbeddedHarness::create(Partitions::default());
    let mut child = start("open", harness.directory(), 0);
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).find_map(|line| line.strip_prefix("said ").map(str::to_owned));
    child.wait().unwrap();
    let expected = format!(
        "process {} runs on the log's directory {}: stop it, or choose another directory with --data",
        std::process::id(),
        harness.directory().display()
    );
    assert_eq!(said.unwrap(), expected);
    assert_eq!(assert_fatal(open(harness.directory()).map(|_| ())), expected);
    // A closed log lets its directory go, whoever still holds a handle, and is one file again.
    harness.log().append(vec![signal(0, "a")]).unwrap();
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["a"]);
    harness.log().close();
    let mut files: Vec<_> = std::fs::read_dir(harness.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort_unstable();
    assert_eq!(files, ["lock", "log.db"]);
    assert_eq!(all(&open(harness.directory()).unwrap(), Topic::Signals, 0), ["a"]);
}

#[test]
fn a_reader_sees_what_is_committed_while_others_append() {
    let harness = EmbeddedHarness::create(signals(2));
    harness.log().append(vec![signal(1, "a")]).unwrap();
    let reader = EmbeddedLog::open_read_only(harness.directory()).unwrap();
    assert_eq!(reader.partitions().unwrap(), signals(2));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                harness.log().append(vec![signal(0, "x"), signal(0, "y")]).unwrap();
            }
        });
        let started = Stopwatch::start();
        let mut end = 0;
        while end < 100 {
            assert!(started.elapsed() < DEADLINE);
            let range = reader.range(Topic::Signals, 0).unwrap();
            assert!(range.end >= end && range.end.is_multiple_of(2), "half of an append was seen");
            end = range.end;
            if end > 0 {
                assert_eq!(text(&reader.scan(Topic::Signals, 0, end - 1, 1).unwrap()[0]), "y");
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 2);
    session.commit(&Batch { states: vec![put("k", Some("v"))], ..position(1, 1) }).unwrap();
    assert_eq!(reader.states("decide", 1).unwrap(), [("k".to_owned(), b"v".to_vec())]);
    assert_eq!(reader.committed("decide", Topic::Signals, 1).unwrap(), Some(1));
    assert_fatal(reader.range(Topic::Signals, 2));
}

#[test]
fn a_reader_of_nothing_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let reason = assert_fatal(EmbeddedLog::open_read_only(directory.path()).map(|_| ()));
    let expected = format!("there is no log in {}: start `loadline run` there, or name its directory with --data", directory.path().display());
    assert_eq!(reason, expected);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a reader writes nothing");
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("data");
    let reason = assert_fatal(open(&inside).map(|_| ()));
    assert_eq!(
        reason,
        format!("the log's directory {} cannot be used: Not a directory (os error 20); make it writable, or choose another with --data", inside.display())
    );
}

#[test]
fn a_file_of_a_newer_version_or_of_another_program_is_left_alone() {
    let harness = EmbeddedHarness::create(Partitions::default());
    harness.log().close();
    let path = harness.directory().join("log.db");
    let shell = rusqlite::Connection::open(&path).unwrap();
    shell.pragma_update(None, "user_version", 7).unwrap();
    let reason = assert_fatal(open(harness.directory()).map(|_| ()));
    assert!(reason.contains("a newer Loadline wrote it (its tables have version 7, this one knows 3)"), "{reason}");
    let reason = assert_fatal(EmbeddedLog::open_read_only(harness.directory()).map(|_| ()));
    assert!(reason.contains("version 7"), "{reason}");
    shell.pragma_update(None, "application_id", 1).unwrap();
    let reason = assert_fatal(open(harness.directory()).map(|_| ()));
    assert!(reason.contains("a database of another program"), "{reason}");
    drop(shell);
    std::fs::write(&path, "no database at all, but some text that is long enough").unwrap();
    let reason = assert_fatal(open(harness.directory()).map(|_| ()));
    assert_eq!(
        reason,
        format!(
            "{} cannot be used: file is not a database; `loadline doctor {}` says what is lost, and mends what can be mended",
            path.display(),
            harness.directory().display()
        )
    );
}

#[test]
fn the_number_of_partitions_is_fixed_but_for_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let open = |partitions| EmbeddedLog::open(directory.path(), Arc::new(SystemClock), Options { partitions, ..Options::default() });
    let created = signals(2).with(Topic::Metrics, 2);
    open(created).unwrap().append(vec![to(Topic::Metrics, 1, "a")]).unwrap();
    let reason = assert_fatal(open(created.with(Topic::Signals, 3)).map(|_| ()));
    assert!(reason.contains("signals was created with 2 partitions, and 3 are configured"), "{reason}");
    let grown = open(created.with(Topic::Metrics, 3)).unwrap();
    grown.append(vec![to(Topic::Metrics, 2, "b")]).unwrap();
    assert_eq!(all(&grown, Topic::Metrics, 1), ["a"]);
    drop(grown);
    assert_eq!(open(created).unwrap().partitions(Topic::Metrics), 3, "partitions with records never go away");
}

#[test]
fn a_full_disk_refuses_whole_commits_and_takes_them_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: Some(4 * 1024 * 1024), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock), options).unwrap();
    log.append(vec![signal(0, "input")]).unwrap();
    let mut session = join(&log, "a");
    poll_assigned(&mut *session, 1);
    let mut appended: Vec<String> = Vec::new();
    let refused = loop {
        let value = format!("{}:{}", appended.len(), "x".repeat(100_000));
        match log.append(vec![to(Topic::Audit, 0, &value)]) {
            Ok(_) => appended.push(value),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, LogError::Retry { reason } if reason.contains("database or disk is full")), "{refused:?}");
    assert!(appended.len() > 20);
    let batch = Batch { appends: vec![to(Topic::Audit, 0, "y".repeat(100_000))], states: vec![put("k", Some("v"))], ..position(0, 1) };
    assert!(matches!(session.commit(&batch), Err(LogError::Retry { .. })));
    assert_eq!(all(&log, Topic::Audit, 0), appended);
    assert_eq!(log.committed("decide", Topic::Signals, 0).unwrap(), None);
    assert!(log.states("decide", 0).unwrap().is_empty());

    assert_eq!(log.trim(Topic::Audit, 0, 10).unwrap(), 10);
    session.commit(&batch).unwrap();
    assert_eq!(log.committed("decide", Topic::Signals, 0).unwrap(), Some(1));
    assert_eq!(log.range(Topic::Audit, 0).unwrap(), 10..appended.len() as Offset + 1);
}

#[test]
fn a_person_who_holds_the_database_delays_and_loses_nothing() {
    let harness = EmbeddedHarness::create(Partitions::default());
    harness.log().append(vec![signal(0, "a")]).unwrap();
    let shell = rusqlite::Connection::open(harness.directory().join("log.db")).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = harness.log().append(vec![signal(0, "b")]).unwrap_err();
    assert!(matches!(&refused, LogError::Retry { reason } if reason.contains("locked")), "{refused:?}");
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["a"], "reading goes on");
    shell.execute_batch("COMMIT").unwrap();
    harness.log().append(vec![signal(0, "c")]).unwrap();
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["a", "c"]);
}

#[test]
fn a_long_reader_does_not_hold_the_writer_up() {
    let harness = EmbeddedHarness::create(Partitions::default());
    harness.log().append(vec![signal(0, "a")]).unwrap();
    let shell = rusqlite::Connection::open(harness.directory().join("log.db")).unwrap();
    shell.execute_batch("BEGIN; SELECT count(*) FROM records").unwrap();
    for i in 0..100 {
        harness.log().append(vec![signal(0, format!("{i}"))]).unwrap();
    }
    assert_eq!(harness.log().range(Topic::Signals, 0).unwrap(), 0..101);
}

#[test]
fn a_shell_can_read_the_log() {
    let harness = EmbeddedHarness::create(Partitions::default());
    let keyless = loadline::log::RawAppend { key: None, ..signal(0, "b") };
    harness.log().append(vec![signal(0, "a"), keyless]).unwrap();
    let shell = rusqlite::Connection::open(harness.directory().join("log.db")).unwrap();
    let mut select = shell.prepare("SELECT topic, partition, first + json_each.key, at, value FROM records, json_each(keys)").unwrap();
    let rows: Vec<(String, u32, i64, i64, Option<String>)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))).unwrap().map(Result::unwrap).collect();
    let row = |offset, key: Option<&str>| ("signals".to_owned(), 0, offset, 1_000, key.map(str::to_owned));
    assert_eq!(rows, [row(0, Some("prod/Deployment/api")), row(1, None)]);
}

#[test]
fn a_trim_of_many_rows_leaves_the_rest() {
    let harness = EmbeddedHarness::create(Partitions::default());
    for i in 0..300 {
        harness.log().append(vec![signal(0, format!("{i}")), signal(0, "second")]).unwrap();
    }
    let log = harness.embedded();
    assert_eq!(log.trim(Topic::Signals, 0, 401).unwrap(), 400, "a row that is needed in part stays whole");
    assert_eq!(log.scan(Topic::Signals, 0, 0, 1).unwrap()[0].offset, 400);
    assert_eq!(log.trim(Topic::Signals, 0, 10).unwrap(), 400, "nothing comes back");
    assert_eq!(log.trim(Topic::Signals, 0, Offset::MAX).unwrap(), 600);
}
