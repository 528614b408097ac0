//! A file of the log that is removed or replaced under a running Loadline: it ends, and says which and the way out. Nothing
//! was acknowledged that is not in the log at its path.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{LOADLINE, Running, SLEEPERS, fleet_of_sleepers, sleepers, wait_for};
use loadline::log::Topic;
use loadline::log::embedded::EmbeddedLog;
use loadline::model::Message;
use loadline::wire;

/// A Loadline with a fleet of one, to which numbered samples are sent.
struct World {
    home: tempfile::TempDir,
    data: PathBuf,
    acknowledged: Vec<String>,
    sent: usize,
}

impl World {
    fn new() -> Self {
        let (home, _) = fleet_of_sleepers(1, "");
        let data = home.path().join("data");
        World { home, data, acknowledged: Vec::new(), sent: 0 }
    }

    fn start(&self, flags: &[&str]) -> Running {
        Running::start(self.home.path(), flags)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// Sends samples until one is refused.
    fn send_until_refused(&mut self, loadline: &Running) {
        wait_for("samples to be refused", || {
            let taken = self.send(loadline);
            (!taken).then_some(())
        });
    }

    fn send(&mut self, loadline: &Running) -> bool {
        self.sent += 1;
        let line = format!("{{\"target\":\"{SLEEPERS}\",\"metric\":\"sent\",\"kind\":\"Gauge\",\"value\":{}}}\n", self.sent);
        let taken = loadline.post(&line).is_some();
        if taken {
            self.acknowledged.push(self.sent.to_string());
        }
        taken
    }

    /// That the log at its path has every sample that was acknowledged.
    fn nothing_acknowledged_is_missing(&self) {
        assert!(self.acknowledged.len() >= 20);
        let there = samples(&self.data);
        let lost: Vec<_> = self.acknowledged.iter().filter(|sent| !there.contains(sent)).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    }

    /// That it starts and goes on; ends the fleet.
    fn goes_on(&mut self) {
        let loadline = self.start(&["--stop-fleets-on-exit"]);
        wait_for("samples to be taken", || self.send(&loadline).then_some(()));
        assert_eq!(loadline.stop(), 0);
        assert_eq!(sleepers(&self.data), 0);
    }
}

/// The numbers of the samples that stand in the log.
fn samples(data: &Path) -> Vec<String> {
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let mut values = Vec::new();
    let mut next = log.range(Topic::Metrics, 0).unwrap().start;
    loop {
        let records = log.scan(Topic::Metrics, 0, next, 1000).unwrap();
        let Some(last) = records.last() else { return values };
        next = last.offset + 1;
        for record in &records {
            let Ok(Message::Samples(batch)) = wire::decode(Topic::Metrics, &record.value) else { continue };
            values.extend(batch.samples.iter().filter(|sample| sample.metric.as_str() == "sent").map(|sample| format!("{}", sample.value)));
        }
    }
}

/// Starts a Loadline, takes something away under it while samples come, and waits until it has ended: what it said.
fn takes_away(world: &mut World, take: impl FnOnce(&World)) -> String {
    let loadline = world.start(&[]);
    wait_for("the fleet", || (sleepers(&world.data) == 1).then_some(()));
    for _ in 0..20 {
        assert!(world.send(&loadline));
    }
    take(world);
    world.send_until_refused(&loadline);
    let (code, said) = loadline.ended();
    assert_eq!(code, 1, "{said}");
    assert_eq!(sleepers(&world.data), 1, "the fleet runs on");
    said.lines().last().unwrap().to_owned()
}

/// What `run` says where it refuses to start.
fn refused(world: &World) -> String {
    let mut command = Command::new(LOADLINE);
    common::arguments(&mut command, world.home.path(), &[]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[test]
fn a_log_that_is_moved_away_ends_it_and_goes_on_where_it_is_put_back() {
    let mut world = World::new();
    let elsewhere = world.home.path().join("elsewhere.db");
    let said = takes_away(&mut world, |world| fs::rename(world.file("log.db"), &elsewhere).unwrap());
    let place = format!("data/log.db was moved to {} while Loadline had it open", elsewhere.canonicalize().unwrap().display());
    assert!(said.contains(&place) && said.contains("its newest part is still in data/log.db-wal; put it back"), "{said}");
    assert!(refused(&world).contains("log.db-wal is there, and the log.db that it belongs to is not"));
    fs::rename(&elsewhere, world.file("log.db")).unwrap();
    world.nothing_acknowledged_is_missing();
    world.goes_on();
}

/// Another log stands in its place: SQLite would write the newest part of the one before over it.
#[test]
fn a_log_that_is_replaced_ends_it_and_leaves_the_other_one_as_it_is() {
    let mut world = World::new();
    world.goes_on(); // what stands there then is a log that was closed in order
    let other = world.home.path().join("other.db");
    let before = world.home.path().join("before.db");
    fs::copy(world.file("log.db"), &other).unwrap();
    let said = takes_away(&mut world, |world| {
        fs::hard_link(world.file("log.db"), &before).unwrap();
        fs::copy(&other, world.file("new.db")).unwrap();
        fs::rename(world.file("new.db"), world.file("log.db")).unwrap();
    });
    assert!(said.contains("data/log.db was replaced") && said.contains("its newest part is put aside as data/log.db-wal.of-the-one-before-"), "{said}");
    assert_eq!(fs::read(world.file("log.db")).unwrap(), fs::read(&other).unwrap(), "the other one is as it was");
    // The one before, with its newest part, is whole.
    assert!(refused(&world).contains("lacks the newest "), "what is missing in the other one is noticed");
    let aside = fs::read_dir(&world.data).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.display().to_string().contains("of-the-one-before"));
    fs::rename(&before, world.file("log.db")).unwrap();
    fs::rename(aside.unwrap(), world.file("log.db-wal")).unwrap();
    world.nothing_acknowledged_is_missing();
    world.goes_on();
}

#[test]
fn a_log_that_is_removed_ends_it_and_no_new_one_is_begun() {
    let mut world = World::new();
    let said = takes_away(&mut world, |world| fs::remove_file(world.file("log.db")).unwrap());
    assert!(said.contains("data/log.db was removed while") && said.contains("restore a backup; or, to begin a new log, move data/lock away too"), "{said}");
    assert!(refused(&world).contains("is gone: log.db is missing or empty"));
    fs::remove_file(world.file("lock")).unwrap();
    world.goes_on();
}

/// The newest part alone: it is still open, and is copied into the log at the end.
#[test]
fn a_write_ahead_log_that_is_removed_is_saved_at_the_end() {
    let mut world = World::new();
    let said = takes_away(&mut world, |world| fs::remove_file(world.file("log.db-wal")).unwrap());
    assert!(said.contains("data/log.db-wal was removed or replaced") && said.contains("do not put it back, and start again"), "{said}");
    world.nothing_acknowledged_is_missing();
    world.goes_on();
}

/// Without its name the lock keeps nobody away.
#[test]
fn a_lock_that_is_removed_ends_it_before_two_run_for_long() {
    let mut world = World::new();
    let said = takes_away(&mut world, |world| fs::remove_file(world.file("lock")).unwrap());
    assert!(said.contains("data/lock was removed or replaced") && said.contains("start again, when none runs there"), "{said}");
    world.nothing_acknowledged_is_missing();
    world.goes_on();
}
