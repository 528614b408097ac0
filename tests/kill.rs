//! `kill -9` of the real program under full load at random moments, again and again on one directory: 20 times in
//! every `make test`, 200 times in `make soak`.
//!
//! After each kill the log is compared with what one undisturbed run would have written: no acknowledged sample is
//! lost, none is doubled, no decision and no command is different, and no command took effect twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::ledger::Ledger;
use common::load::{PRODUCERS, Shared, Told, target, under_load, write_documents};
use common::random::{Random, rounds};
use common::{LOADLINE, Running, instances_of, wait_for};
use loadline::log::Topic;
use loadline::log::embedded::EmbeddedLog;
use loadline::model::{Audit, Message};
use loadline::runtime::clock::Stopwatch;
use loadline::wire::{self, jsonl};

/// Two are scaled, four only advised.
const TARGETS: &[&str] = &["active-1", "active-2", "advised-1", "advised-2", "advised-3", "advised-4"];

/// How long a life may wait for a change of a fleet, which comes every second or so.
const LONGEST_LIFE: Duration = Duration::from_secs(2);

#[test]
fn killed_at_random_moments_nothing_is_lost_doubled_or_decided_otherwise() {
    let mut random = Random::from_environment();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    write_documents(home.path(), TARGETS);
    let mut told: Vec<Told> = (0..PRODUCERS).map(|_| Told::default()).collect();
    let mut ledger = Ledger::new(TARGETS);
    for kill in 0..rounds(20, 200) {
        println!("kill {kill}");
        // Now and then it does not even get so far as to be ready.
        if kill > 0 && random.percent(15) {
            kill_while_it_starts(home.path(), Duration::from_millis(random.below(300)));
        } else {
            kill_under_load(home.path(), &mut told, &mut random);
        }
        ledger.compare(&data, &told);
    }
    // What is still on its way arrives, and the fleets are as large as they were asked to be, with no process doubled.
    let last = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let log = EmbeddedLog::open_read_only(&data).unwrap();
    wait_for("everything to be aggregated", || {
        (log.committed("aggregate", Topic::Metrics, 0).unwrap() == Some(log.range(Topic::Metrics, 0).unwrap().end)).then_some(())
    });
    for name in TARGETS {
        wait_for("the fleet to be as large as it is asked to be", || {
            let asked = last.status(&target(name))?["current"].as_u64()?;
            (asked == instances_of(&data, name) as u64).then_some(())
        });
    }
    assert_eq!(last.stop(), 0);
    assert!(TARGETS.iter().all(|name| instances_of(&data, name) == 0), "nothing was doubled and nothing is left");
    ledger.compare(&data, &told);
    the_replay_of_the_export_says_the_same(&data);

    let sum = |of: fn(&Told) -> usize| told.iter().map(of).sum::<usize>();
    let (acknowledged, unknown) = (sum(|told| told.acknowledged.len()), sum(|told| told.unknown.len()));
    let applied = ledger.issued.values().flatten().count();
    println!(
        "{acknowledged} requests acknowledged, {unknown} not; {} samples, {} decisions, {} commands, {applied} told as applied, {} changes",
        ledger.samples(),
        ledger.decisions,
        ledger.issued.len(),
        ledger.changes,
    );
    assert!(acknowledged > 100 && ledger.decisions > 50 && applied > 1, "else nothing was under load");
}

/// Kills it after a random number of acknowledged requests, while more are under way.
fn kill_under_load(home: &Path, told: &mut [Told], random: &mut Random) {
    let shared = Shared::new(TARGETS, |_, _| ());
    let (requests, rest) = (random.below(600), Duration::from_micros(random.below(20_000)));
    // In a third of the lives it is killed at once when a command was carried out, before it could tell.
    let at_a_change = random.percent(33);
    let states = || ["active-1", "active-2"].map(|name| std::fs::read(home.join("data/fleets/local").join(name).join("state.json")).ok());
    let running = Running::start(home, &[]);
    let url = running.url.clone();
    under_load(&url, told, &shared, || {
        let before = states();
        wait_for("requests to be acknowledged", || (shared.acknowledged.load(Ordering::SeqCst) as u64 > requests).then_some(()));
        let waiting = Stopwatch::start();
        while at_a_change && states() == before && waiting.elapsed() < LONGEST_LIFE {
            std::thread::yield_now();
        }
        if !at_a_change {
            std::thread::sleep(rest);
        }
        running.kill();
    });
}

/// Kills it `after` it was started, whatever it does then.
fn kill_while_it_starts(home: &Path, after: Duration) {
    let mut command = Command::new(LOADLINE);
    common::arguments(&mut command, home, &[]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The decisions that were written down stand, to the letter and in their order, among those that `loadline replay`
/// prints from what `loadline export` wrote.
fn the_replay_of_the_export_says_the_same(data: &Path) {
    let mut export = Command::new(LOADLINE).args(["export", "--data"]).arg(data).stdout(Stdio::piped()).spawn().unwrap();
    let replay = Command::new(LOADLINE).arg("replay").stdin(export.stdout.take().unwrap()).output().unwrap();
    assert!(export.wait().unwrap().success());
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let printed = String::from_utf8(replay.stdout).unwrap();
    let mut printed = printed.lines();
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let range = log.range(Topic::Audit, 0).unwrap();
    for record in log.scan(Topic::Audit, 0, range.start, usize::MAX >> 1).unwrap() {
        if let Ok(Message::Audit(Audit::Decision(decision))) = wire::decode(Topic::Audit, &record.value) {
            let line = jsonl::decision_to_line(decision.at, &decision);
            assert!(printed.any(|other| other == line), "not printed, or not in this order: {line}");
        }
    }
}
