//! A backup of a Loadline that runs: restored elsewhere, it decides on from there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use common::{FLEET, LOADLINE, Running, SLEEPERS, decisions_are_those_of_an_undisturbed_fold, fleet_of_sleepers, sleepers, wait_for, waiting};
use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Log, RawAppend, Topic};
use loadline::model::{DeadLetter, Message, OutcomeResult, Signal};
use loadline::runtime::clock::SystemClock;
use loadline::wire;

fn cli(arguments: &[&str]) -> Output {
    Command::new(LOADLINE).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn signals(data: &Path) -> Vec<Signal> {
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let records = log.scan(Topic::Signals, 0, 0, 1_000_000).unwrap();
    let signal = |value: &[u8]| match wire::decode(Topic::Signals, value) {
        Ok(Message::Signal(signal)) => signal,
        other => panic!("{other:?}"),
    };
    records.iter().map(|record| signal(&record.value)).collect()
}

#[test]
fn a_restored_backup_decides_on_and_doubles_nothing() {
    // Scaling in waits: what is removed would be by the restore alone.
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleIn: { stabilization: 120s, cooldown: 120s } }\n");
    let data = home.path().join("data");
    let first = Running::start(home.path(), &[]);
    wait_for("a fleet of two", || {
        first.post(&waiting(20.0));
        (sleepers(&data) == 2).then_some(())
    });
    let backup = home.path().join("backup");
    let (from, to) = (data.to_str().unwrap(), backup.to_str().unwrap());
    let done = cli(&["backup", from, to]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(cli(&["doctor", to]).status.code(), Some(0), "{}", said(&cli(&["doctor", to])));
    let again = cli(&["backup", from, to]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("is there already; nothing is overwritten"), "{}", said(&again));

    // The fleet goes on after the backup; then all is lost but what runs.
    wait_for("a fleet of four", || {
        first.post(&waiting(40.0));
        (sleepers(&data) == 4).then_some(())
    });
    let new = home.path().join("new");
    let too_soon = cli(&["restore", to, new.to_str().unwrap()]);
    assert_eq!(too_soon.status.code(), Some(2), "{}", said(&too_soon));
    assert!(said(&too_soon).contains(&format!("process {} runs on", first.pid())), "{}", said(&too_soon));
    first.kill();
    let elsewhere = cli(&["restore", to, home.path().to_str().unwrap()]);
    assert_eq!(elsewhere.status.code(), Some(2), "a directory with something in it: {}", said(&elsewhere));
    let restored = cli(&["restore", to, new.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains(&format!("{SLEEPERS}: 4 run, the backup says 2")), "{}", said(&restored));
    fs::remove_dir_all(&data).unwrap();

    let mut command = Command::new(LOADLINE);
    command.current_dir(home.path()).args(["run", "--data", "new", "--policies", "policies", "--listen", "127.0.0.1:0", "--stop-fleets-on-exit"]);
    command.args(["--pane", "250ms", "--grace", "100ms"]).env_remove("LOADLINE_CONFIG");
    let second = Running::spawn(command);
    let adopted = || second.said().iter().any(|line| line.contains("supervising") && line.contains("running=4"));
    wait_for("the instances to be taken over", || adopted().then_some(()));
    wait_for("the fleet to follow its load", || {
        assert!(sleepers(&new) >= 4, "what ran is not removed by a restore");
        second.post(&waiting(60.0));
        (sleepers(&new) == 6).then_some(())
    });
    assert_eq!(second.stop(), 0);

    // Each command was carried out once at most, and epochs never ran back.
    let mut applied: BTreeMap<String, usize> = BTreeMap::new();
    let mut epochs = Vec::new();
    for signal in signals(&new) {
        match signal {
            Signal::Outcome(outcome) if outcome.result == OutcomeResult::Applied => *applied.entry(outcome.command).or_default() += 1,
            Signal::Grant(grant) => epochs.push(grant.epoch),
            _ => {}
        }
    }
    assert!(applied.len() >= 2 && applied.values().all(|times| *times == 1), "{applied:?}");
    assert!(epochs.is_sorted(), "{epochs:?}");
    assert!(decisions_are_those_of_an_undisturbed_fold(&new) >= 3);
}

/// A Loadline on the directory `data` of `home`, which may be refused.
fn run_on(home: &Path, data: &str) -> Command {
    let mut command = Command::new(LOADLINE);
    command.current_dir(home).args(["run", "--data", data, "--policies", "policies", "--listen", "127.0.0.1:0", "--stop-fleets-on-exit"]);
    command.args(["--pane", "250ms", "--grace", "100ms"]).env_remove("LOADLINE_CONFIG");
    command
}

#[test]
fn a_copy_and_its_original_never_run_the_same_fleets() {
    let (home, _) = fleet_of_sleepers(2, "");
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let supervises = |loadline: &Running| loadline.said().iter().any(|line| line.contains("supervising"));
    let first = Running::spawn(run_on(home.path(), "data"));
    wait_for("the fleet", || (sleepers(&home.path().join("data")) == 2).then_some(()));
    assert!(cli(&["backup", &at("data"), &at("backup")]).status.success());
    assert_eq!(first.stop(), 0);
    assert!(cli(&["restore", &at("backup"), &at("copy")]).status.success());

    // Neither runs beside the other, whichever came first; a third is not made while one runs, wherever its origin is now.
    for (running, other) in [("data", "copy"), ("copy", "data")] {
        let loadline = Running::spawn(run_on(home.path(), running));
        wait_for("the fleet to be supervised", || supervises(&loadline).then_some(()));
        let refused = run_on(home.path(), other).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        let holder = format!("process {} (`", loadline.pid());
        let fleet = format!(" --data {running} ");
        assert!(said(&refused).contains(&holder) && said(&refused).contains(&fleet), "{}", said(&refused));
        assert!(said(&refused).contains(&format!("supervises the fleet local/{FLEET} of {other}/fleets")), "{}", said(&refused));
        let seen = cli(&["doctor", &at(other)]);
        assert_eq!(seen.status.code(), Some(0), "{}", said(&seen));
        assert!(said(&seen).contains("this directory is a copy; `run` is refused here while it does"), "{}", said(&seen));
        let third = cli(&["restore", &at("backup"), &at("third")]);
        assert_eq!(third.status.code(), Some(2), "{}", said(&third));
        assert!(said(&third).contains(&format!("process {}", loadline.pid())), "{}", said(&third));
        // Also one that is killed leaves nothing that keeps the other away.
        loadline.kill();
    }

    // A copy with incarnations of its own is no copy of the fleets any more.
    let original = Running::spawn(run_on(home.path(), "data"));
    fs::remove_file(home.path().join(format!("copy/fleets/local/{FLEET}/state.json"))).unwrap();
    let trial = Running::spawn(run_on(home.path(), "copy"));
    wait_for("fleets of its own", || (sleepers(&home.path().join("copy")) == 2).then_some(()));
    assert_eq!(sleepers(&home.path().join("data")), 2);
    assert_eq!((trial.stop(), original.stop()), (0, 0));
}

/// At night the disk fails: what can be read is saved, and nobody takes it for a sound backup.
#[test]
fn what_is_damaged_is_backed_up_and_said_to_be() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let log = EmbeddedLog::open(&home.path().join("data"), Arc::new(SystemClock), Options::default()).unwrap();
    let record = |n: u8| {
        let letter = DeadLetter { topic: "signals".to_owned(), partition: 0, offset: 0, reason: "a test".to_owned(), record: vec![n; 3000] };
        RawAppend { topic: Topic::DeadLetters, partition: 0, key: None, value: wire::encode(&Message::DeadLetter(letter)) }
    };
    (0..50).for_each(|n| drop(log.append(vec![record(n)]).unwrap()));
    log.close();
    let database = home.path().join("data/log.db");
    let whole = fs::read(&database).unwrap();
    // A row that holds something else than what was written: SQLite copies it as it is.
    let at = whole.windows(100).position(|window| window == [20; 100]).unwrap();
    fs::File::options().write(true).open(&database).unwrap().write_all_at(&[7], at as u64).unwrap();
    let done = cli(&["backup", &path("data"), &path("backup")]);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    for words in ["backup, and is not sound itself:", "records: dead-letters/0: 49 records", "Keep the backups from before", "cp -a"] {
        assert!(said(&done).contains(words), "{words:?} is not in {}", said(&done));
    }
    let refused = cli(&["restore", &path("backup"), &path("new")]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    // What is left of it can be gone on with.
    assert_eq!(cli(&["doctor", &path("backup"), "--mend"]).status.code(), Some(0));
    let restored = cli(&["restore", &path("backup"), &path("new")]);
    assert_eq!(restored.status.code(), Some(0), "{}", said(&restored));

    // A page that SQLite cannot read ends the copy: then it is said how to save the files.
    fs::write(&database, &whole).unwrap();
    fs::File::options().write(true).open(&database).unwrap().write_all_at(&[0xAA; 4096], (at / 4096 * 4096) as u64).unwrap();
    let failed = cli(&["backup", &path("data"), &path("again")]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("malformed. To save all that is there, stop what runs on it and copy the directory itself (`cp -a`)"), "{}", said(&failed));
    assert!(!home.path().join("again").exists());
}

#[test]
fn a_backup_that_is_not_sound_is_not_restored() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let nothing = cli(&["backup", &path("nothing"), &path("backup")]);
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
    assert!(!home.path().join("backup").exists());
    EmbeddedLog::open(&home.path().join("data"), Arc::new(SystemClock), Options::default()).unwrap();
    let done = cli(&["backup", &path("data"), &path("backup")]);
    assert!(done.status.success(), "{}", said(&done));
    let again = cli(&["backup", &path("backup"), &path("again")]);
    assert!(again.status.success(), "{}", said(&again));
    let of = |backup: &str| -> serde_json::Value {
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(home.path().join(backup).join("backup.json")).unwrap()).unwrap();
        manifest["of"].clone()
    };
    assert_eq!(of("again"), of("backup"), "a backup of a backup is of what owns the fleets");
    fs::remove_dir_all(home.path().join("again")).unwrap();
    let refused = cli(&["replay", &path("backup")]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("is a directory: name a file of lines"), "{}", said(&refused));
    let file = fs::File::options().write(true).open(home.path().join("backup/log.db")).unwrap();
    file.set_len(4096).unwrap();
    let refused = cli(&["restore", &path("backup"), &path("new")]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("is not sound"), "{}", said(&refused));
    assert!(!home.path().join("new").exists());
    let mut left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort_unstable();
    assert_eq!(left, ["backup", "data"], "nothing half is left");
}

/// A backup of another layout, and one that has what was never backed up, are not restored.
#[test]
fn a_backup_that_is_not_what_it_says_is_not_restored() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    EmbeddedLog::open(&home.path().join("data"), Arc::new(SystemClock), Options::default()).unwrap();
    let manifest = home.path().join("backup/backup.json");
    let without_files = |text: String| {
        let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["files"] = serde_json::json!({});
        manifest.to_string()
    };
    let changes: [(&dyn Fn(), &str); 5] = [
        (&|| fs::write(&manifest, r#"{ "version": 2, "content": [] }"#).unwrap(), "restore it, with the one that wrote it, or a newer one"),
        (
            &|| fs::write(&manifest, fs::read_to_string(&manifest).unwrap().replace("\"version\": 1", "\"version\": 2")).unwrap(),
            "restore it, with the one that wrote it",
        ),
        (&|| fs::write(&manifest, without_files(fs::read_to_string(&manifest).unwrap())).unwrap(), "backup.json does not have log.db"),
        (&|| fs::write(home.path().join("backup/freeze"), "").unwrap(), "freeze was not backed up with it"),
        (
            &|| {
                fs::create_dir_all(home.path().join("backup/fleets/local/ghost")).unwrap();
                fs::write(home.path().join("backup/fleets/local/ghost/state.json"), "{}").unwrap();
            },
            "fleets/local/ghost/state.json was not backed up with it",
        ),
    ];
    for (change, says) in changes {
        drop(fs::remove_dir_all(home.path().join("backup")));
        assert!(cli(&["backup", &path("data"), &path("backup")]).status.success());
        // What nothing is put back of changes nothing.
        fs::create_dir_all(home.path().join("backup/fleets/local")).unwrap();
        fs::write(home.path().join("backup/fleets/local/.directory"), "").unwrap();
        assert_eq!(cli(&["doctor", &path("backup")]).status.code(), Some(0));
        change();
        let checked = cli(&["doctor", &path("backup")]);
        assert!(checked.status.code() == Some(1) && said(&checked).contains(says), "{}", said(&checked));
        let refused = cli(&["restore", &path("backup"), &path("new")]);
        assert!(refused.status.code() == Some(2) && said(&refused).contains(says), "{}", said(&refused));
        // Nor is a log mended of which it could not be written down that it was.
        if says.contains("the one that wrote it") {
            let log = home.path().join("backup/log.db");
            let damaged = fs::read(&log).unwrap();
            fs::write(&log, &damaged[..damaged.len() - 4096]).unwrap();
            let left = cli(&["doctor", &path("backup"), "--mend"]);
            assert!(left.status.code() == Some(2) && said(&left).contains("is left as it is"), "{}", said(&left));
            assert_eq!(fs::metadata(&log).unwrap().len(), damaged.len() as u64 - 4096);
        }
        assert!(!home.path().join("new").exists());
    }
}

/// What a backup or a data directory has lost beside the log is seen before anything goes on without it.
#[test]
fn fleets_that_are_gone_are_missed() {
    let (home, _) = fleet_of_sleepers(1, "");
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let running = Running::spawn(run_on(home.path(), "data"));
    wait_for("the fleet", || (sleepers(&home.path().join("data")) == 1).then_some(()));
    let inside = cli(&["backup", &at("data"), &at("data/backup")]);
    assert_eq!(inside.status.code(), Some(2), "{}", said(&inside));
    assert!(said(&inside).contains("a backup in the directory that it is of is lost with it; choose a place elsewhere"), "{}", said(&inside));
    assert!(!home.path().join("data/backup").exists());
    for backup in ["without", "other", "sound"] {
        assert!(cli(&["backup", &at("data"), &at(backup)]).status.success());
    }
    assert_eq!(running.stop(), 0);

    let state = format!("fleets/local/{FLEET}/state.json");
    fs::remove_dir_all(home.path().join("without/fleets")).unwrap();
    let other = home.path().join("other").join(&state);
    fs::write(&other, fs::read_to_string(&other).unwrap().replace("\"replicas\": 1", "\"replicas\": 2")).unwrap();
    for (backup, words) in [("without", format!("{state} is missing")), ("other", format!("{state} is not what was backed up"))] {
        let seen = cli(&["doctor", &at(backup)]);
        assert_eq!(seen.status.code(), Some(1), "{}", said(&seen));
        assert!(said(&seen).contains(&words), "{words:?} is not in {}", said(&seen));
        let refused = cli(&["restore", &at(backup), &at("new")]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains("is not sound: backup: fleets/") && !home.path().join("new").exists(), "{}", said(&refused));
    }

    fs::remove_dir_all(home.path().join("data/fleets")).unwrap();
    let refused = run_on(home.path(), "data").output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let seen = cli(&["doctor", &at("data")]);
    assert_eq!(seen.status.code(), Some(1), "{}", said(&seen));
    for output in [&refused, &seen] {
        assert!(said(output).contains("/fleets is gone, and with it the count of every fleet"), "{}", said(output));
    }
    assert!(cli(&["restore", &at("sound"), &at("new")]).status.success());
    for data in ["new", "data"] {
        drop(fs::create_dir(home.path().join(data).join("fleets")));
        let running = Running::spawn(run_on(home.path(), data));
        wait_for("the fleet", || (sleepers(&home.path().join(data)) == 1).then_some(()));
        assert_eq!(running.stop(), 0);
    }
}

/// What nobody can look into is not taken for nothing, and what was run on is no backup any more.
#[test]
fn only_what_is_whole_is_taken_for_a_backup() {
    let (home, _) = fleet_of_sleepers(1, "");
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let running = Running::spawn(run_on(home.path(), "data"));
    wait_for("the fleet", || (sleepers(&home.path().join("data")) == 1).then_some(()));
    assert!(cli(&["backup", &at("data"), &at("older")]).status.success());
    running.post(&waiting(10.0));
    assert!(cli(&["backup", &at("data"), &at("newer")]).status.success());
    assert_eq!(running.stop(), 0);

    // The log of another backup.
    assert!(Command::new("cp").args(["-a", &at("newer"), &at("mixed")]).status().unwrap().success());
    fs::copy(home.path().join("older/log.db"), home.path().join("mixed/log.db")).unwrap();
    // Mended, it is a backup still, and its other files are still compared.
    assert!(Command::new("cp").args(["-a", &at("newer"), &at("mended")]).status().unwrap().success());
    let log = rusqlite::Connection::open(home.path().join("mended/log.db")).unwrap();
    assert!(log.execute("UPDATE records SET crc = crc + 1 WHERE topic = 'metrics'", []).unwrap() > 0);
    drop(log);
    assert_eq!(cli(&["doctor", &at("mended")]).status.code(), Some(1));
    let mended = cli(&["doctor", &at("mended"), "--mend"]);
    assert_eq!(mended.status.code(), Some(0), "{}", said(&mended));
    assert!(cli(&["restore", &at("mended"), &at("of-mended")]).status.success());
    fs::remove_file(home.path().join(format!("mended/fleets/local/{FLEET}/instances.json"))).unwrap();
    // One that a Loadline ran on.
    assert!(Command::new("cp").args(["-a", &at("newer"), &at("ran")]).status().unwrap().success());
    let running = Running::spawn(run_on(home.path(), "ran"));
    running.post(&waiting(10.0));
    running.kill();
    let refused =
        [("mixed", "log.db is not what was backed up"), ("mended", "instances.json is missing"), ("ran", "is no backup any more: a Loadline has run on it")];
    for (backup, words) in refused {
        let restored = cli(&["restore", &at(backup), &at("new")]);
        assert_eq!(restored.status.code(), Some(2), "{backup}: {}", said(&restored));
        assert!(said(&restored).contains(words) && !home.path().join("new").exists(), "{backup}: {}", said(&restored));
    }
    for (to, within) in [("newer/new", "newer"), ("data/fleets/new", "data")] {
        let restored = cli(&["restore", &at("newer"), &at(to)]);
        assert_eq!(restored.status.code(), Some(2), "{to}: {}", said(&restored));
        assert!(said(&restored).contains(&format!("lies within {}", at(within))), "{to}: {}", said(&restored));
    }

    // A directory of fleets that is no directory: as one that may not be looked into, it holds what is not known.
    fs::rename(home.path().join("data/fleets/local"), home.path().join("local")).unwrap();
    std::os::unix::fs::symlink("local", home.path().join("data/fleets/local")).unwrap();
    for arguments in [vec!["backup", &at("data"), &at("again")], vec!["doctor", &at("data")]] {
        let done = cli(&arguments);
        assert_eq!(done.status.code(), Some(1), "{}", said(&done));
        assert!(said(&done).contains("data/fleets/local: ") && !home.path().join("again").exists(), "{}", said(&done));
    }
}
