//! A disk that is full: nothing acknowledged is lost, the fleet stands, it is told once, and it goes on by itself.
//!
//! The program itself on a small file system that is really full.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "common/small_disk.rs"]
mod small_disk;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use common::{FLEET, LOADLINE, Running, SLEEPERS, fleet_of_sleepers, sleepers, wait_for, waiting};
use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Log, LogError, RawAppend, Topic};
use loadline::model::{Alert, AlertState, DeadLetter, Message};
use loadline::runtime::clock::SystemClock;
use loadline::wire;
use serde_json::Value;
use small_disk::{SmallDisk, with_mounts};

const BEHAVIOR: &str = "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n";

/// An answer, whatever its status.
fn ask(url: &str) -> (u16, Value) {
    answer(ureq::get(url).config().http_status_as_error(false).build().call())
}

fn post(running: &Running, lines: &str) -> (u16, Value) {
    let request = ureq::post(format!("{}/api/v1/metrics", running.url)).config().http_status_as_error(false).build();
    answer(request.header("content-type", "application/x-ndjson").send(lines))
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = result.unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn run(directory: &Path) -> Output {
    let mut command = Command::new(LOADLINE);
    command.current_dir(directory).args(["run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0"]);
    command.env_remove("LOADLINE_CONFIG").output().unwrap()
}

fn alerts(data: &Path) -> Vec<Alert> {
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let records = log.scan(Topic::Alerts, 0, 0, 10_000).unwrap();
    let alert = |value: &[u8]| match wire::decode(Topic::Alerts, value) {
        Ok(Message::Alert(alert)) => alert,
        other => panic!("{other:?}"),
    };
    records.iter().map(|record| alert(&record.value)).collect()
}

/// The samples that are in the log, by their value.
fn samples(data: &Path) -> Vec<String> {
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let (range, mut values) = (log.range(Topic::Metrics, 0).unwrap(), Vec::new());
    let mut next = range.start;
    while next < range.end {
        for record in log.scan(Topic::Metrics, 0, next, 1000).unwrap() {
            next = record.offset + 1;
            let Ok(Message::Samples(batch)) = wire::decode(Topic::Metrics, &record.value) else { continue };
            values.extend(batch.samples.iter().filter(|sample| sample.metric.as_str() == "sent").map(|sample| format!("{}", sample.value)));
        }
    }
    values
}

#[test]
fn a_full_disk_holds_the_fleet_and_goes_on_by_itself() {
    with_mounts("a_full_disk_holds_the_fleet_and_goes_on_by_itself", || {
        let (home, _) = fleet_of_sleepers(1, BEHAVIOR);
        let data = home.path().join("data");
        let disk = SmallDisk::mount(&data, 16);
        let loadline = Running::start(home.path(), &[]);
        let mut acknowledged = Vec::new();
        let mut sent = 0;
        let mut send = |waiting_now: f64| {
            sent += 1;
            let line = format!("{{\"target\":\"{SLEEPERS}\",\"metric\":\"sent\",\"kind\":\"Gauge\",\"value\":{sent}}}\n");
            let (status, body) = post(&loadline, &(waiting(waiting_now) + &line));
            if status == 200 {
                acknowledged.push(sent.to_string());
            }
            (status, body)
        };
        wait_for("a fleet of three", || {
            send(30.0);
            (sleepers(&data) == 3).then_some(())
        });

        disk.fill();
        let problem = wait_for("samples to be refused", || Some(send(60.0)).filter(|(status, _)| *status == 503).map(|(_, body)| body));
        assert_eq!(problem["place"], "data");
        assert!(problem["title"].as_str().unwrap().contains("no room is left for the log in data"), "{problem}");
        assert!(problem["mend"].as_str().unwrap().starts_with("make room there: it goes on by itself then"), "{problem}");
        let (status, unready) = ask(&format!("{}/readyz", loadline.url));
        assert_eq!(status, 503);
        assert!(unready["title"].as_str().unwrap().starts_with("nothing can be written since 20"), "{unready}");
        let told = |line: &&String| line.contains("ERROR") && line.contains("nothing can be written since");
        wait_for("the operator to be told", || loadline.said().iter().any(|line| told(&line)).then_some(()));
        let shown = Command::new(LOADLINE).args(["status", "--server", &loadline.url]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("! nothing can be written since") && shown.contains("(LogNotWritable)"), "{shown}");

        // The fleet stands, however much is asked for, and what ends is started again.
        let pid = |n: usize| std::fs::read_to_string(data.join(format!("fleets/local/{FLEET}/instances.json"))).unwrap().contains(&n.to_string());
        let victim = sleeper_pids(&data)[0];
        assert!(pid(victim), "it is supervised");
        rustix::process::kill_process(rustix::process::Pid::from_raw(i32::try_from(victim).unwrap()).unwrap(), rustix::process::Signal::KILL).unwrap();
        wait_for("the instance that ended to be started again", || {
            let pids = sleeper_pids(&data);
            (pids.len() == 3 && !pids.contains(&victim)).then_some(())
        });
        assert_eq!(send(60.0).0, 503);

        disk.make_room();
        wait_for("it to go on", || (ask(&format!("{}/readyz", loadline.url)).0 == 200).then_some(()));
        wait_for("the fleet to follow its load again", || {
            send(50.0);
            (sleepers(&data) == 5).then_some(())
        });
        let ended = wait_for("the alert with the whole story", || {
            send(50.0);
            alerts(&data).into_iter().find(|alert| alert.name == "LogNotWritable")
        });
        assert_eq!(ended.state, AlertState::Event);
        assert!(ended.message.starts_with("nothing could be written for ") && ended.message.contains("no room is left"), "{}", ended.message);

        // Each line once: a full disk fills no log either.
        let said: Vec<String> = loadline.said().iter().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect();
        assert_eq!(loadline.said().iter().filter(told).count(), 1, "{said:#?}");
        assert!(said.len() < 60, "{said:#?}");
        assert_eq!(loadline.stop(), 0);
        assert_eq!(alerts(&data).iter().filter(|alert| alert.name == "LogNotWritable").count(), 1);
        let there = samples(&data);
        let lost: Vec<_> = acknowledged.iter().filter(|sent| !there.contains(sent)).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        assert!(common::decisions_are_those_of_an_undisturbed_fold(&data) >= 3);
        end_sleepers(&data);
    });
}

#[test]
fn a_full_disk_keeps_it_from_starting_and_lets_it_end() {
    with_mounts("a_full_disk_keeps_it_from_starting_and_lets_it_end", || {
        let (home, _) = fleet_of_sleepers(1, BEHAVIOR);
        let data = home.path().join("data");
        let disk = SmallDisk::mount(&data, 16);
        let loadline = Running::start(home.path(), &[]);
        wait_for("the fleet", || (sleepers(&data) == 1).then_some(()));
        disk.fill();
        wait_for("samples to be refused", || (post(&loadline, &waiting(1.0)).0 == 503).then_some(()));
        assert_eq!(loadline.stop(), 0);
        assert_eq!(sleepers(&data), 1, "the fleet runs on");
        // Whatever its end gave back is gone too.
        disk.fill();
        let refused = run(home.path());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("no room is left in data") && said.contains("make room there"), "{said}");
        disk.make_room();
        let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
        wait_for("samples to be taken", || (post(&loadline, &waiting(1.0)).0 == 200).then_some(()));
        assert_eq!(loadline.stop(), 0);
        assert_eq!(sleepers(&data), 0);
    });
}

/// A reader keeps the WAL from being copied into the database; what is acknowledged stays, whichever write fails.
#[test]
fn a_disk_that_fills_up_beneath_a_long_reader_loses_nothing() {
    with_mounts("a_disk_that_fills_up_beneath_a_long_reader_loses_nothing", || {
        let home = tempfile::tempdir().unwrap();
        let disk = SmallDisk::mount(&home.path().join("data"), 48);
        disk.take(16);
        let data = home.path().join("data");
        let log = EmbeddedLog::open(&data, Arc::new(SystemClock), Options::default()).unwrap();
        let append = |n: usize| RawAppend { topic: Topic::Audit, partition: 0, key: None, value: format!("{n}:{}", "x".repeat(20_000)).into_bytes() };
        let mut there = 0;
        let mut fill = |log: &EmbeddedLog| loop {
            match log.append(vec![append(there)]) {
                Ok(offsets) => assert_eq!(offsets, [there as u64]),
                Err(LogError::Retry { .. }) => break there,
                Err(error) => panic!("{error}"),
            }
            there += 1;
        };
        let check = |log: &EmbeddedLog, there: usize| {
            let mut seen = 0;
            while let Some(records) = Some(log.scan(Topic::Audit, 0, seen as u64, 100).unwrap()).filter(|records| !records.is_empty()) {
                records.iter().for_each(|record| {
                    assert_eq!(record.value, append(seen).value);
                    seen += 1;
                });
            }
            assert_eq!(seen, there);
        };
        log.append(vec![RawAppend { topic: Topic::Signals, ..append(0) }]).unwrap();
        let reader = rusqlite::Connection::open(data.join("log.db")).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM records").unwrap();
        let first = fill(&log);
        assert!(first > 500, "{first}");
        assert!(log.trouble().unwrap().reason.starts_with("no room is left for the log in "), "{:?}", log.trouble());
        check(&log, first);
        // Without the reader the WAL may be copied, but there is no room for the copy.
        reader.execute_batch("COMMIT").unwrap();
        drop(reader);
        let second = fill(&log);
        check(&log, second);
        disk.make_room();
        let third = fill(&log);
        assert!(third > second, "there was room");
        check(&log, third);
        drop(log);
        // A start needs some room; nothing is begun without.
        let refused = EmbeddedLog::open(&data, Arc::new(SystemClock), Options::default()).map(|_| ()).unwrap_err().to_string();
        assert!(refused.starts_with("no room is left in "), "{refused}");
        disk.resize(96);
        let log = EmbeddedLog::open(&data, Arc::new(SystemClock), Options::default()).unwrap();
        check(&log, third);
        let shell = rusqlite::Connection::open(data.join("log.db")).unwrap();
        let sound: String = shell.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    });
}

/// As with a disk: the log's own limit.
#[test]
fn a_log_at_its_limit_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: Some(1024 * 1024), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock), options).unwrap();
    let append = || vec![RawAppend { topic: Topic::Audit, partition: 0, key: None, value: vec![0; 100_000] }];
    assert_eq!(log.trouble(), None);
    while log.append(append()).is_ok() {}
    let trouble = log.trouble().unwrap();
    assert!(trouble.reason.ends_with("has reached its limit of 1048576 bytes"), "{trouble:?}");
    let since = trouble.since;
    log.append(append()).unwrap_err();
    assert_eq!(log.trouble().map(|trouble| (trouble.since, trouble.refused)), Some((since, 2)));
    let end = log.range(Topic::Audit, 0).unwrap().end;
    log.trim(Topic::Audit, 0, end).unwrap();
    log.append(append()).unwrap();
    assert_eq!(log.trouble(), None);
}

/// The leaders of the fleet's instances.
fn sleeper_pids(data: &Path) -> Vec<usize> {
    let state = std::fs::read_to_string(data.join(format!("fleets/local/{FLEET}/state.json"))).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let mark = format!("LOADLINE_FLEET_UID={}", state["uid"].as_str().unwrap());
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<usize>().ok());
    let ours = |pid: &usize| std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == mark.as_bytes()));
    pids.filter(ours).collect()
}

/// Ends what Loadline left running.
fn end_sleepers(data: &Path) {
    for pid in sleeper_pids(data) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn a_backup_onto_a_full_disk_fails_says_why_and_leaves_nothing() {
    with_mounts("a_backup_onto_a_full_disk_fails_says_why_and_leaves_nothing", || {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let log = EmbeddedLog::open(&data, Arc::new(SystemClock), Options::default()).unwrap();
        let letter = DeadLetter { topic: "signals".to_owned(), partition: 0, offset: 0, reason: "a test".to_owned(), record: vec![7; 60_000] };
        let value = wire::encode(&Message::DeadLetter(letter));
        (0..40).for_each(|_| drop(log.append(vec![RawAppend { topic: Topic::DeadLetters, partition: 0, key: None, value: value.clone() }]).unwrap()));
        let disk = SmallDisk::mount(&home.path().join("disk"), 1);
        let backup = |to: &Path| Command::new(LOADLINE).arg("backup").arg(&data).arg(to).output().unwrap();
        let failed = backup(&home.path().join("disk/backup"));
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert_eq!(failed.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot be copied to ") && said.contains("database or disk is full"), "{said}");
        assert_eq!(std::fs::read_dir(home.path().join("disk")).unwrap().count(), 0);
        assert_eq!(backup(&home.path().join("backup")).status.code(), Some(0));
        drop(disk);
    });
}
