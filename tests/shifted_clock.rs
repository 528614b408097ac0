//! The machine's clock jumps by an hour, forward or back, while the real program runs (libfaketime shifts what it reads;
//! the monotonic clock goes on, as when a clock is really set).
//!
//! The fleet stands through it: nothing shrinks while its load is the same, no instance is lost or replaced, no command is
//! carried out twice; and within a few panes it follows its load again, as no wait lasts an hour longer than it should.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::ledger::Ledger;
use common::{FLEET, LOADLINE, Running, SLEEPERS, arguments, fleet_of_sleepers, pids_of, wait_for, waiting};
use loadline::log::Topic;
use loadline::log::embedded::EmbeddedLog;
use loadline::model::{Alert, Message, Signal};
use loadline::wire;

/// Waits that a clock which was set back could make an hour longer: a cooldown both ways, a stabilization, a period.
const PACED: &str = "  behavior:
    scaleIn: { stabilization: 1s, cooldown: 2s, policies: [{ percent: 100, period: 1s }] }
    scaleOut: { cooldown: 2s, policies: [{ replicas: 10, period: 1s }] }
";

/// The most panes (of 250 ms) in which the fleet follows its load again: the cooldown, the window, the stabilization and the
/// period one after the other are 20; as many again for a machine that is busy with other things.
const PANES: usize = 40;

/// A running Loadline whose clock can be set.
struct Shifted {
    home: tempfile::TempDir,
    /// By how many hours it is shifted.
    hours: i32,
    running: Running,
}

impl Shifted {
    fn start() -> Shifted {
        let (home, _) = fleet_of_sleepers(1, PACED);
        set_clock(home.path(), 0);
        let running = start(home.path());
        Shifted { home, hours: 0, running }
    }

    /// The clock jumps while the program runs, …
    fn jumps(&mut self, hours: i32) {
        self.through(hours, |_| ());
    }

    /// … or just after it was killed; then it starts again.
    fn jumps_while_it_is_down(&mut self, hours: i32) {
        self.through(hours, |shifted| {
            shifted.running.kill_in_place();
            shifted.running = start(shifted.home.path());
        });
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Keeps the load at `level` replicas until the fleet is as large; meanwhile it is never smaller than `least`.
    fn follows(&self, level: u32, least: u64) {
        wait_for("the fleet to follow its load", || {
            self.running.post(&waiting(f64::from(level * 10)))?;
            let current = self.running.status(&SLEEPERS)?["current"].as_u64()?;
            assert!(current >= least, "{current} replicas, while the load asked for {least} or more");
            (current == u64::from(level) && pids_of(&self.data(), &FLEET).len() == level as usize).then_some(())
        });
    }

    /// Keeps the load at `level` until so many panes were marked.
    fn stays(&self, level: u32, panes: usize) {
        let from = self.signals_end();
        wait_for("panes to go by", || {
            self.running.post(&waiting(f64::from(level * 10)))?;
            assert_eq!(self.running.status(&SLEEPERS)?["current"].as_u64()?, u64::from(level), "nothing moves it");
            (self.marks_since(from) >= panes).then_some(())
        });
    }

    /// The clock jumps under a fleet of 3 that has just grown: it stands, with each of its processes; then it follows its
    /// load in and out, as fast as ever.
    fn through(&mut self, hours: i32, meanwhile: impl FnOnce(&mut Shifted)) {
        self.follows(3, 1);
        let before = pids_of(&self.data(), &FLEET);
        let jumped = self.signals_end();
        let by = hours - std::mem::replace(&mut self.hours, hours);
        set_clock(self.home.path(), hours);
        meanwhile(self);
        self.stays(3, 8);
        assert_eq!(pids_of(&self.data(), &FLEET), before, "each instance is still there");
        assert!(self.clock_was_seen_to_jump(jumped, by));
        for (level, least) in [(2, 2), (5, 2)] {
            let from = self.signals_end();
            self.follows(level, least);
            let panes = self.marks_since(from);
            assert!(panes <= PANES, "it took {panes} panes to go to {level}");
        }
    }

    fn signals_end(&self) -> u64 {
        EmbeddedLog::open_read_only(&self.data()).unwrap().range(Topic::Signals, 0).unwrap().end
    }

    fn signals_since(&self, from: u64) -> Vec<(loadline::model::Timestamp, Signal)> {
        let log = EmbeddedLog::open_read_only(&self.data()).unwrap();
        let records = log.scan(Topic::Signals, 0, from, usize::MAX >> 1).unwrap();
        let read = |record: loadline::log::RawRecord| match wire::decode(Topic::Signals, &record.value).unwrap() {
            Message::Signal(signal) => (record.at, signal),
            other => panic!("{other:?}"),
        };
        records.into_iter().map(read).collect()
    }

    fn marks_since(&self, from: u64) -> usize {
        self.signals_since(from).iter().filter(|(_, signal)| matches!(signal, Signal::Mark(_))).count()
    }

    /// The log's own times jumped: else libfaketime did nothing, and the rest proves nothing.
    fn clock_was_seen_to_jump(&self, since: u64, hours: i32) -> bool {
        let times: Vec<i64> = self.signals_since(since.saturating_sub(1)).iter().map(|(at, _)| at.as_millis()).collect();
        let jump = i64::from(hours) * 3_600_000;
        times.windows(2).any(|pair| (pair[1] - pair[0] - jump).abs() < 60_000)
    }

    fn alerts(&self) -> Vec<Alert> {
        let log = EmbeddedLog::open_read_only(&self.data()).unwrap();
        let records = log.scan(Topic::Alerts, 0, 0, usize::MAX >> 1).unwrap();
        let read =
            |record: loadline::log::RawRecord| if let Ok(Message::Alert(alert)) = wire::decode(Topic::Alerts, &record.value) { Some(alert) } else { None };
        records.into_iter().filter_map(read).collect()
    }

    /// Ends it. What it decided and commanded is what one undisturbed fold does, and no command took effect twice.
    fn end(self) -> Vec<Alert> {
        let (data, alerts) = (self.data(), self.alerts());
        assert_eq!(self.running.stop(), 0);
        assert!(pids_of(&data, &FLEET).is_empty(), "nothing is left running");
        let fleets: [&str; 1] = [&FLEET];
        let mut ledger = Ledger::new(&fleets);
        ledger.compare_decisions(&data);
        assert!(ledger.decisions > 5);
        alerts
    }
}

/// Starts the program under the clock of `home`.
fn start(home: &Path) -> Running {
    let mut command = Command::new(LOADLINE);
    arguments(&mut command, home, &["--stop-fleets-on-exit"]);
    command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", home.join("clock"));
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    Running::spawn(command)
}

/// What the program takes for the time from now on: the machine's, and so many hours.
fn set_clock(home: &Path, hours: i32) {
    // Replaced whole, as it is read at any moment.
    std::fs::write(home.join("clock.new"), format!("{hours:+}h\n")).unwrap();
    std::fs::rename(home.join("clock.new"), home.join("clock")).unwrap();
}

/// Where the package `faketime` has its library.
fn libfaketime() -> PathBuf {
    let places = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = |place: &PathBuf| std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let candidates = places.iter().flat_map(|place| [vec![place.clone()], below(place)].concat());
    let found = candidates.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    found.expect("libfaketimeMT.so.1 is not installed: run tools/setup, which installs the package faketime")
}

#[test]
fn a_clock_that_jumps_an_hour_back_is_followed_with_an_alert() {
    let mut shifted = Shifted::start();
    shifted.jumps(-1);
    let alerts = shifted.end();
    assert!(alerts.iter().any(|alert| alert.name == "ClockRanBack"), "{alerts:?}");
}

#[test]
fn a_clock_that_jumps_an_hour_forward_shrinks_nothing() {
    let mut shifted = Shifted::start();
    shifted.jumps(1);
    let alerts = shifted.end();
    assert!(!alerts.iter().any(|alert| alert.name == "ClockRanBack"), "{alerts:?}");
}

/// Forward by mistake, and set right again.
#[test]
fn a_clock_that_jumps_forward_and_back_again_is_followed_both_times() {
    let mut shifted = Shifted::start();
    shifted.jumps(1);
    shifted.jumps(0);
    shifted.end();
}

/// As on a machine that starts with a wrong clock, before anything sets it.
#[test]
fn a_clock_that_was_set_back_while_the_program_was_down_is_followed() {
    let mut shifted = Shifted::start();
    shifted.jumps_while_it_is_down(-1);
    let alerts = shifted.end();
    assert!(alerts.iter().any(|alert| alert.name == "ClockRanBack"), "{alerts:?}");
}
