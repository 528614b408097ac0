use std::fs;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::*;
use crate::model::{ControlEntry, Message, Timestamp};
use crate::runtime::clock::ManualClock;
use crate::stages::Stage as _;

/// A line `TARGET CONTENT` is a policy, anything else an error.
fn parse() -> Parse {
    Box::new(|_, text| {
        let mut parsed = ParsedFile::default();
        for line in text.lines() {
            match line.split_once(' ').and_then(|(target, spec)| Some((target.parse().ok()?, spec.to_owned()))) {
                Some(policy) => parsed.policies.push(policy),
                None => parsed.errors.push(format!("\"{line}\" is no policy")),
            }
        }
        parsed
    })
}

fn name(origin: &str) -> &str {
    assert!(origin.starts_with('/'), "an origin is an absolute path: {origin}");
    origin.rsplit('/').next().unwrap()
}

/// The entries of a round, a word each.
fn told(effects: Vec<Effects>) -> Vec<String> {
    effects
        .into_iter()
        .flat_map(|mut e| e.take())
        .map(|effect| match effect.message {
            Message::Control(ControlEntry::Policy(p)) => format!("{}: {} {}", name(&p.origin), p.target.name(), p.spec),
            Message::Control(ControlEntry::Rejected(r)) => format!("{}: {}", name(&r.origin), r.error),
            Message::Control(ControlEntry::RoundEnd(_)) => "end".to_owned(),
            other => panic!("a watcher does not append {other:?}"),
        })
        .collect()
}

/// A directory that is looked at by hand. Its clock stands in 1970, so that every file is young and is read each time.
struct Desk {
    directory: tempfile::TempDir,
    source: Source,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::new(vec![directory.path().to_owned()]);
        Desk { directory, source }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Looks `second` seconds after the start; what is announced, `None` where no round is due.
    fn look(&mut self, second: u64) -> Option<Vec<String>> {
        let elapsed = Duration::from_secs(second);
        let round = self.source.look(Timestamp::from_millis(5_000), elapsed, &parse()).unwrap()?;
        self.source.announced(round.number, elapsed, elapsed);
        Some(told(round.effects))
    }
}

#[test]
fn a_round_is_announced_at_the_start_on_a_change_and_every_5_minutes() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1\nprod/Deployment/web 1");
    desk.write("b.yml", "prod/Deployment/bot 1");
    for other in ["notes.txt", ".a.yaml.swp", ".hidden.yaml"] {
        desk.write(other, "prod/Deployment/no 1");
    }
    fs::create_dir(desk.directory.path().join("folder.yaml")).unwrap();
    assert_eq!(desk.look(0).unwrap(), ["a.yaml: api 1", "a.yaml: web 1", "b.yml: bot 1", "end"]);
    assert_eq!(desk.look(1), None);
    desk.write("b.yml", "prod/Deployment/bot 2");
    assert_eq!(desk.look(2).unwrap(), ["a.yaml: api 1", "a.yaml: web 1", "b.yml: bot 2", "end"], "the same size, perhaps the same time");
    assert!(desk.look(11).is_some(), "the first one is confirmed, whatever has changed since");
    assert_eq!(desk.look(310), None);
    assert!(desk.look(311).is_some());
}

/// A policy whose file went away while nobody watched is missing from the first round already.
#[test]
fn the_first_round_is_confirmed_after_11_seconds() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1");
    desk.look(0).unwrap();
    assert_eq!(desk.look(10), None);
    assert_eq!(desk.look(11).unwrap(), ["a.yaml: api 1", "end"]);
    assert_eq!(desk.look(22), None, "once");
    assert_eq!(desk.look(310), None);
    assert!(desk.look(311).is_some());
}

#[test]
fn a_removed_policy_is_confirmed_after_11_seconds() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1");
    desk.look(0).unwrap();
    fs::remove_file(desk.directory.path().join("a.yaml")).unwrap();
    assert_eq!(desk.look(1).unwrap(), ["end"]);
    assert_eq!(desk.look(11).unwrap(), ["end"], "the first round is confirmed");
    assert_eq!(desk.look(12).unwrap(), ["end"]);
    assert_eq!(desk.look(23), None, "once");
}

/// Whatever is edited in the meantime; and where another file has the target by then, as after a rename.
/// A log that is slow: what admit holds against the 10 s is when the round stood there, not when it began.
#[test]
fn a_removal_is_confirmed_11_seconds_after_it_was_told() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1");
    desk.look(0).unwrap();
    desk.look(11).unwrap();
    fs::remove_file(desk.directory.path().join("a.yaml")).unwrap();
    let (told, clock) = (Arc::new(Mutex::new(Vec::new())), ManualClock::new(Timestamp::from_millis(5_000)));
    let mut step = |second: u64, takes: u64| {
        let telling = Arc::clone(&told);
        let publish: Publish = Box::new(move |_| {
            telling.lock().unwrap().push(second);
            Ok(())
        });
        // Asked when it begins, and when all was published.
        let moments = Mutex::new(vec![second + takes, second]);
        let elapsed = || Duration::from_secs(moments.lock().unwrap().pop().unwrap());
        announce(&mut desk.source, &clock, &elapsed, &parse(), &publish).unwrap();
    };
    step(20, 6);
    (26..60).for_each(|second| step(second, 0));
    assert_eq!(*told.lock().unwrap(), [20, 37], "one round each");
}

#[test]
fn each_removal_is_confirmed_in_its_time() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1");
    desk.write("b.yaml", "prod/Deployment/bot 1");
    desk.look(0).unwrap();
    desk.look(11).unwrap();
    fs::remove_file(desk.directory.path().join("a.yaml")).unwrap();
    assert_eq!(desk.look(20).unwrap(), ["b.yaml: bot 1", "end"]);
    desk.write("b.yaml", "prod/Deployment/bot 2");
    assert_eq!(desk.look(24).unwrap(), ["b.yaml: bot 2", "end"]);
    fs::remove_file(desk.directory.path().join("b.yaml")).unwrap();
    desk.write("c.yaml", "prod/Deployment/bot 3");
    assert_eq!(desk.look(26).unwrap(), ["c.yaml: bot 3", "end"], "the target is there, and its old file is not");
    assert_eq!(desk.look(30), None);
    assert!(desk.look(31).is_some(), "the first removal");
    assert_eq!(desk.look(36), None);
    assert!(desk.look(37).is_some(), "the rename");
    assert_eq!(desk.look(60), None, "once");
}

#[test]
fn a_file_that_cannot_be_used_is_refused_as_a_whole() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1\nnonsense");
    desk.write("b.yaml", "prod/Deployment/bot 1\nprod/Deployment/bot 2");
    desk.write("big.yaml", &"x".repeat(300_000));
    fs::write(desk.directory.path().join("c.yaml"), [0xff, 0xfe]).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", desk.directory.path().join("d.yaml")).unwrap();
    let told = desk.look(0).unwrap();
    let starts = [
        "a.yaml: \"nonsense\" is no policy",
        "b.yaml: has more than one policy for prod/Deployment/bot: keep one of them",
        "big.yaml: has more than 262144 bytes; split it into several files",
        "c.yaml: cannot be read: stream did not contain valid UTF-8",
        "d.yaml: cannot be read: No such file",
        "end",
    ];
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (line, start) in told.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    desk.write("a.yaml", "prod/Deployment/api 1");
    assert_eq!(desk.look(1).unwrap()[0], "a.yaml: api 1", "mended");
}

#[test]
fn a_directory_that_went_away_makes_no_round() {
    let mut desk = Desk::new();
    desk.write("a.yaml", "prod/Deployment/api 1");
    desk.look(0).unwrap();
    let (here, away) = (desk.directory.path().to_owned(), desk.directory.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    let failure = desk.source.look(Timestamp::from_millis(0), Duration::from_secs(40), &parse()).err().unwrap();
    assert!(failure.contains("cannot be listed"), "{failure}");
    assert!(desk.source.note_failure(&failure));
    assert!(!desk.source.note_failure(&failure), "told once");
    fs::rename(&away, &here).unwrap();
    assert_eq!(desk.look(41).unwrap(), ["a.yaml: api 1", "end"]);
}

#[test]
fn rounds_grow_with_the_clock_and_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut elapsed = Duration::ZERO;
    let mut number = |source: &mut Source, now: i64| {
        elapsed += Duration::from_secs(300);
        let round = source.look(Timestamp::from_millis(now), elapsed, &parse()).unwrap().unwrap();
        source.announced(round.number, elapsed, elapsed);
        round.number
    };
    let mut source = Source::new(vec![directory.path().to_owned()]);
    assert_eq!([number(&mut source, 7_000), number(&mut source, 7_000), number(&mut source, 6_000)], [7_000, 7_001, 7_002]);
    assert_eq!([number(&mut source, 900_000), number(&mut source, 100_000)], [900_000, 100_000], "a clock that was set back by much is followed");
    assert_eq!(number(&mut Source::new(vec![directory.path().to_owned()]), 8_000), 8_000);
}

#[test]
fn a_large_round_is_appended_in_pieces_with_its_end_last() {
    let mut desk = Desk::new();
    let lines: Vec<String> = (0..600).map(|n| format!("prod/Deployment/api-{n} 1")).collect();
    desk.write("a.yaml", &lines.join("\n"));
    let round = desk.source.look(Timestamp::from_millis(0), Duration::ZERO, &parse()).unwrap().unwrap();
    assert_eq!(round.effects.len(), 3);
    let told = told(round.effects);
    assert_eq!((told.len(), told.last().map(String::as_str)), (601, Some("end")));
}

/// A file is itself, however its path is spelled; and what is not watched any more is not in the next round.
#[test]
fn all_paths_are_one_source_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one.yaml"), directory.path().join("two.yaml"));
    fs::write(&one, "prod/Deployment/api 1").unwrap();
    fs::write(&two, "prod/Deployment/bot 1").unwrap();
    let entries = |paths: Vec<PathBuf>| {
        let round = Source::new(paths).look(Timestamp::from_millis(0), Duration::ZERO, &parse()).unwrap().unwrap();
        let messages = round.effects.into_iter().flat_map(|mut e| e.take()).map(|e| e.message);
        let named = messages.filter_map(|m| match m {
            Message::Control(ControlEntry::Policy(entry)) => Some((entry.source, entry.origin)),
            _ => None,
        });
        named.collect::<Vec<_>>()
    };
    let files = |paths: &[&PathBuf]| paths.iter().map(|path| ("file".to_owned(), path.display().to_string())).collect::<Vec<_>>();
    assert_eq!(entries(vec![one.clone(), two.clone()]), files(&[&one, &two]));
    assert_eq!(entries(vec![directory.path().join("./"), one.clone()]), files(&[&one, &two]));
    assert_eq!(entries(vec![one.clone()]), files(&[&one]));
}

#[test]
fn a_missing_directory_is_a_clear_error_at_the_start() {
    let path = PathBuf::from("/nowhere/policies");
    let error = PolicyWatcher::start(&[path], Arc::new(ManualClock::default()), parse(), Box::new(|_| Ok(()))).unwrap_err();
    assert!(error.to_string().starts_with("cannot watch policies in /nowhere/policies: No such file"), "{error}");
}

#[test]
fn the_thread_announces_tries_again_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), "prod/Deployment/api 1").unwrap();
    let (rounds, announced) = channel();
    let failures = Mutex::new(1);
    let publish = move |effects: Effects| {
        let mut left = failures.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(LogError::Retry { reason: "the disk is full".to_owned() });
        }
        rounds.send(effects).unwrap();
        Ok(())
    };
    let paths = [directory.path().to_owned()];
    let watcher = PolicyWatcher::start(&paths, Arc::new(ManualClock::default()), parse(), Box::new(publish)).unwrap();
    let deadline = Duration::from_secs(20);
    watcher.look();
    assert_eq!(told(vec![announced.recv_timeout(deadline).unwrap()]), ["a.yaml: api 1", "end"]);
    fs::write(directory.path().join("a.yaml"), "prod/Deployment/api 22").unwrap();
    watcher.look();
    assert_eq!(told(vec![announced.recv_timeout(deadline).unwrap()]), ["a.yaml: api 22", "end"]);
    assert!(!watcher.has_ended());
    watcher.stop().unwrap();
}

#[test]
fn a_closed_log_ends_the_thread_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let publish = |_| Err(LogError::Fatal { reason: "the log was closed".to_owned() });
    let watcher = PolicyWatcher::start(&[directory.path().to_owned()], Arc::new(ManualClock::default()), parse(), Box::new(publish)).unwrap();
    assert_eq!(watcher.stop().unwrap_err().to_string(), "policies cannot be announced any more: the log was closed");
}

/// What the watcher announces and what admit makes of it, together.
#[test]
fn an_edit_takes_effect_and_a_broken_one_does_not() {
    use crate::model::{Alert, Signal};
    use crate::stages::admit::{Admit, State};
    use crate::stages::{Input, Located};

    let mut desk = Desk::new();
    let (mut state, mut offset) = (State::default(), 0);
    let mut step = |desk: &mut Desk, second: u64| {
        let (elapsed, now) = (Duration::from_secs(second), Timestamp::from_millis(1_000) + Duration::from_secs(second));
        let Some(round) = desk.source.look(now, elapsed, &parse()).unwrap() else { return Vec::new() };
        desk.source.announced(round.number, elapsed, elapsed);
        let mut effects = Effects::new();
        for message in round.effects.into_iter().flat_map(|mut e| e.take()).map(|e| e.message) {
            let Ok(record) = ControlEntry::try_from(message) else { continue };
            Admit.apply(&mut state, Input::Record(Located { partition: 0, offset, at: now, record }), &mut effects);
            offset += 1;
        }
        let seen = effects.take().into_iter().filter_map(|e| match e.message {
            Message::Signal(Signal::Policy(p)) => Some(format!("{:?}@{}", p.spec, p.order.generation)),
            Message::Alert(Alert { name, state, .. }) => Some(format!("{name} {state:?}")),
            _ => None,
        });
        seen.collect::<Vec<_>>()
    };
    desk.write("a.yaml", "prod/Deployment/api 1");
    assert_eq!(step(&mut desk, 0), ["Some(\"1\")@1"]);
    desk.write("a.yaml", "prod/Deploy");
    assert_eq!(step(&mut desk, 1), ["PolicyInvalid Firing"]);
    assert!(step(&mut desk, 40).is_empty(), "it stays in force");
    desk.write("a.yaml", "prod/Deployment/api 2");
    assert_eq!(step(&mut desk, 41), ["Some(\"2\")@2", "PolicyInvalid Resolved"]);
    fs::remove_file(desk.directory.path().join("a.yaml")).unwrap();
    assert!(step(&mut desk, 42).is_empty());
    assert_eq!(step(&mut desk, 53), ["None@3"]);
}
