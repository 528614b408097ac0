//! Power failure under the real program: the directory as a disk could be found at many moments, with what was not
//! synced lost, torn or there.
//!
//! A shim written in C (`power_failure/journal.c`) is preloaded into the program and writes down each write, sync and
//! change of a name in order; a client writes its acknowledgements into the same journal. For each moment the disk is
//! built anew from it ([`disk`]). On each of them the log must open, hold what was acknowledged until then as it stands
//! in the undisturbed log, and be one moment of it: panes, decisions, commands and positions belong together.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "power_failure/disk.rs"]
mod disk;

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::ledger::Ledger;
use common::load::{PRODUCERS, Shared, Told, under_load, write_documents};
use common::random::{Random, rounds};
use common::{LOADLINE, Running, arguments, shim, wait_for};
use disk::{ACKNOWLEDGED, Disk, Event, Syncs, read_journal};
use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Log, RawRecord, Topic};
use loadline::runtime::clock::SystemClock;
use rustix::process::Signal;

const TARGETS: &[&str] = &["active-1", "advised-1"];

/// The database is larger than this when the write-ahead log was copied into it for the first time, and smaller before.
const COPIED_BYTES: u64 = 1 << 20;

/// What a program did, and what it told its clients.
struct Journaled {
    _home: tempfile::TempDir,
    events: Vec<Event>,
    told: Vec<Told>,
    /// All records of the log in the end.
    records: Vec<(Topic, Vec<RawRecord>)>,
}

impl Journaled {
    /// Runs the program twice on one directory under load: killed when the write-ahead log was `copied` into the database
    /// and more was acknowledged since, then ended in order.
    fn record(copied: bool) -> Journaled {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        write_documents(&root, TARGETS);
        let shim = shim(&root, "power_failure/journal.c");
        let journal = root.join("journal");
        let mut told: Vec<Told> = (0..PRODUCERS).map(|_| Told::default()).collect();
        for life in 0..2 {
            let mut command = Command::new(LOADLINE);
            arguments(&mut command, &root, &["--stop-fleets-on-exit"]);
            command.env("LD_PRELOAD", &shim).env("LOADLINE_JOURNAL", &journal);
            command.env("LOADLINE_JOURNAL_ROOT", &root);
            let mut running = Running::spawn(command);
            let url = running.url.clone();
            let notes = File::options().append(true).open(&journal).unwrap();
            let shared = Shared::new(TARGETS, move |producer, request| note(&notes, producer, request));
            under_load(&url, &mut told, &shared, || {
                let size = || std::fs::metadata(root.join("data/log.db")).unwrap().len();
                if life == 0 && copied {
                    wait_for("the database to be written", || (size() > COPIED_BYTES).then_some(()));
                }
                let enough = shared.acknowledged.load(Ordering::SeqCst) + 150;
                wait_for("requests to be acknowledged", || (shared.acknowledged.load(Ordering::SeqCst) >= enough).then_some(()));
                if life == 0 {
                    // Between two calls that are written down (`journal.c`).
                    assert_eq!(running.end_by(Signal::USR2).signal(), Some(Signal::KILL.as_raw()));
                } else {
                    assert_eq!(running.stop(), 0);
                }
            });
        }
        let log = EmbeddedLog::open_read_only(&root.join("data")).unwrap();
        let records = Topic::ALL.map(|topic| (topic, log.scan(topic, 0, 0, usize::MAX >> 1).unwrap())).into();
        Journaled { events: read_journal(&std::fs::read(&journal).unwrap()), _home: home, told, records }
    }

    /// Where in the journal such events are.
    fn places(&self, is: impl Fn(&Event) -> bool) -> Vec<usize> {
        (0..self.events.len()).filter(|index| is(&self.events[*index])).collect()
    }

    /// Seeded moments: some right after an acknowledgement, some while the database itself is written, others anywhere.
    fn moments(&self, count: usize, random: &mut Random) -> Vec<usize> {
        let told = self.places(|event| matches!(event, Event::Acknowledged { .. }));
        let database = self.events.iter().find_map(|event| match event {
            Event::Created { file, path } if path == Path::new("data/log.db") => Some(*file),
            _ => None,
        });
        let copied = self.places(|event| matches!(event, Event::Written { file, .. } if Some(*file) == database));
        assert!(copied.iter().any(|place| (told[0]..told[told.len() - 1]).contains(place)), "the write-ahead log was copied into the database under load");
        println!("{} events, {} of the database", self.events.len(), copied.len());
        let anywhere: Vec<usize> = (0..self.events.len()).collect();
        let mut pick = |places: &[usize]| places[usize::try_from(random.below(places.len() as u64)).unwrap()];
        let mut moments: Vec<usize> = (0..count).map(|i| pick([&told, &copied, &anywhere][i % 3])).collect();
        moments.sort_unstable();
        moments
    }

    /// What the clients knew then. Of all that they sent later nobody can say whether it had arrived.
    fn told_until(&self, moment: usize) -> Vec<Told> {
        let mut told: Vec<Told> = self.told.iter().map(|told| Told { next: told.next, unknown: (0..told.next).collect(), ..Told::default() }).collect();
        for event in &self.events[..=moment] {
            if let Event::Acknowledged { producer, request } = event {
                told[*producer].acknowledged.push(*request);
                let place = told[*producer].unknown.binary_search(request).unwrap();
                told[*producer].unknown.remove(place);
            }
        }
        told
    }

    /// Builds the disk as it could be found at each of `moments`, and hands it over with what the clients knew.
    fn at_each(&self, moments: &[usize], syncs: Syncs, random: &mut Random, mut check: impl FnMut(usize, &Path, Vec<Told>)) {
        let mut disk = Disk::new(syncs);
        let mut done = 0;
        for moment in moments {
            self.events[done..=*moment].iter().for_each(|event| disk.apply(event));
            done = moment + 1;
            let home = tempfile::tempdir().unwrap();
            disk.found_after_power_failure(home.path(), random);
            check(*moment, home.path(), self.told_until(*moment));
        }
    }

    /// The log opens; what it holds are the first records of the undisturbed one, each at its offset, with its `at` and
    /// its bytes; what was acknowledged is there, and everything belongs together.
    fn check(&self, home: &Path, told: &[Told]) -> Ledger<'static> {
        let data = home.join("data");
        let log = EmbeddedLog::open(&data, Arc::new(SystemClock), Options::default()).unwrap();
        for (topic, records) in &self.records {
            let found = log.scan(*topic, 0, 0, usize::MAX >> 1).unwrap();
            assert!(found.len() <= records.len(), "{topic}");
            let other = found.iter().zip(records).find(|(found, undisturbed)| found != undisturbed);
            assert!(other.is_none(), "{topic}: {other:?}");
        }
        drop(log);
        let mut ledger = Ledger::new(TARGETS);
        ledger.compare(&data, told);
        ledger
    }
}

/// Notes an acknowledgement, in one write as the shim does.
fn note(mut journal: &File, producer: usize, request: u64) {
    let record: Vec<u8> = [ACKNOWLEDGED, producer as u64, request, 0].into_iter().flat_map(u64::to_ne_bytes).collect();
    journal.write_all(&record).unwrap();
}

/// Nothing acknowledged is lost and nothing is half there, whenever the power fails; the program goes on from what is
/// found, and decides what an undisturbed run decides.
#[test]
fn a_power_failure_at_any_moment_loses_nothing_acknowledged() {
    let mut random = Random::from_environment();
    let journaled = Journaled::record(true);
    let moments = journaled.moments(rounds(18, 400), &mut random);
    let going_on = usize::try_from(random.below(8)).unwrap();
    let mut number = 0;
    journaled.at_each(&moments, Syncs::Kept, &mut random, |moment, home, mut told| {
        let acknowledged: usize = told.iter().map(|told| told.acknowledged.len()).sum();
        println!("moment {moment} of {}: {acknowledged} requests acknowledged", journaled.events.len());
        let mut ledger = journaled.check(home, &told);
        number += 1;
        if number % 8 == going_on {
            go_on(home, &mut told, &mut ledger);
        }
    });
}

/// The program starts on what was found, takes more, and decides on.
fn go_on(home: &Path, told: &mut [Told], ledger: &mut Ledger<'_>) {
    write_documents(home, TARGETS);
    let before = ledger.decisions;
    let running = Running::start(home, &["--stop-fleets-on-exit"]);
    let url = running.url.clone();
    let shared = Shared::new(TARGETS, |_, _| ());
    under_load(&url, told, &shared, || {
        wait_for("requests to be acknowledged", || (shared.acknowledged.load(Ordering::SeqCst) >= 100).then_some(()));
        assert_eq!(running.stop(), 0);
    });
    ledger.compare(&home.join("data"), told);
    assert!(ledger.decisions > before);
}

/// These checks find what they look for: on a disk that ignores each sync, as if the log never asked for one, acknowledged
/// requests are lost at every moment.
#[test]
fn a_log_that_does_not_sync_is_caught() {
    let mut random = Random::from_environment();
    let journaled = Journaled::record(false);
    let told = journaled.places(|event| matches!(event, Event::Acknowledged { .. }));
    let moments: Vec<usize> = (1..8).map(|eighth| told[told.len() * eighth / 8]).collect();
    let (mut checked, mut caught) = (0, 0);
    journaled.at_each(&moments, Syncs::Ignored, &mut random, |_, home, told| {
        checked += 1;
        caught += usize::from(catch_unwind(AssertUnwindSafe(|| journaled.check(home, &told))).is_err());
    });
    assert_eq!(caught, checked);
}

/// A restore that the power ends leaves nothing, or says that it is not complete; and when it has said that it is done it is,
/// by the name of its directory too. (What is in its files is not written down: the system copies them.)
#[test]
fn a_restore_that_the_power_ends_is_never_taken_for_a_log() {
    let mut random = Random::from_environment();
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    EmbeddedLog::open(&home.join("data"), Arc::new(SystemClock), Options::default()).unwrap().close();
    let root = home.join("disk");
    std::fs::create_dir(&root).unwrap();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new(LOADLINE).arg("backup").args([home.join("data"), home.join("backup")]));
    let (shim, journal) = (shim(&home, "power_failure/journal.c"), home.join("journal"));
    let mut restore = Command::new(LOADLINE);
    restore.env("LD_PRELOAD", &shim).env("LOADLINE_JOURNAL", &journal).env("LOADLINE_JOURNAL_ROOT", &root);
    run(restore.arg("restore").args([home.join("backup"), root.join("machine/data")]));
    let events = read_journal(&std::fs::read(&journal).unwrap());
    assert!(events.iter().any(|event| matches!(event, Event::Created { path, .. } if path == Path::new("machine/data/log.db"))), "{events:?}");

    let mut disk = Disk::new(Syncs::Kept).names_in_any_order();
    let mut unfinished = 0;
    for (number, event) in events.iter().enumerate() {
        disk.apply(event);
        for _ in 0..8 {
            let found = tempfile::tempdir().unwrap();
            disk.found_after_power_failure(found.path(), &mut random);
            let there = |name: &str| found.path().join("machine/data").join(name).exists();
            let complete = events[..=number].iter().any(|event| matches!(event, Event::Removed { path } if path.ends_with("restoring")));
            assert!(!there("log.db") || there("restoring") || complete, "event {number}: {event:?}");
            assert!(there("log.db") || number + 1 < events.len(), "it was done, and is gone");
            unfinished += usize::from(there("log.db") && there("restoring"));
        }
    }
    assert!(unfinished > 0);
}
