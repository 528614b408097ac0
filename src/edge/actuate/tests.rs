use std::sync::Mutex;

use super::*;
use crate::runtime::clock::ManualClock;

/// One target whose record changes behind the actuator's back when `race` is set.
struct One {
    record: Mutex<ScaleRecord>,
    race: bool,
    refuses: bool,
}

impl Scalable for One {
    fn read(&self, target: &TargetId) -> Result<ScaleRecord, ScaleError> {
        if target.name() == "gone" {
            return Err(ScaleError::NotFound { target: target.clone() });
        }
        Ok(self.record.lock().unwrap().clone())
    }

    fn write(&self, _: &TargetId, expected: &ScaleRecord, replicas: u32, epoch: i64, deadline: Duration) -> Result<ScaleRecord, ScaleError> {
        assert!(deadline <= Duration::from_millis(500), "no call outlives its command");
        let mut record = self.record.lock().unwrap();
        if self.race {
            record.revision += 1;
        }
        if record.revision != expected.revision {
            return Err(ScaleError::Conflict { expected: expected.revision, found: record.revision });
        }
        if self.refuses {
            return Err(ScaleError::Failed { reason: "the disk is full".to_owned() });
        }
        *record = ScaleRecord { replicas, epoch, revision: record.revision + 1, ..record.clone() };
        Ok(record.clone())
    }
}

fn hands(one: One, directory: &std::path::Path) -> (Hands, Arc<One>) {
    let one = Arc::new(one);
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(500)));
    let served: Arc<dyn Scalable> = Arc::clone(&one) as Arc<dyn Scalable>;
    (Hands::new(FreezeFiles::new(directory.join("freeze")), clock).with_kind("ProcessFleet", served), one)
}

fn one() -> One {
    One { record: Mutex::new(ScaleRecord { uid: "u".to_owned(), replicas: 3, revision: 7, epoch: 1, frozen: false }), race: false, refuses: false }
}

fn command(target: &str) -> Command {
    Command {
        id: "c".to_owned(),
        target: target.parse().unwrap(),
        uid: "u".to_owned(),
        epoch: 10,
        from: 3,
        to: 5,
        replaces: None,
        replaced_to: None,
        expires_at: Timestamp::from_millis(1000),
    }
}

#[test]
fn an_applied_command_says_count_and_revision_and_a_second_one_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (hands, one) = hands(one(), directory.path());
    let outcome = hands.carry_out(&command("a/ProcessFleet/b"));
    assert_eq!((outcome.result, outcome.replicas, outcome.revision, outcome.error), (OutcomeResult::Applied, Some(5), Some(8), None));
    let again = hands.carry_out(&command("a/ProcessFleet/b"));
    assert_eq!((again.result, again.replicas, again.revision), (OutcomeResult::Stale, Some(5), Some(8)));
    assert_eq!(*one.record.lock().unwrap(), ScaleRecord { uid: "u".to_owned(), replicas: 5, revision: 8, epoch: 10, frozen: false });
}

#[test]
fn each_refusal_of_the_world_has_its_outcome_and_its_words() {
    let directory = tempfile::tempdir().unwrap();
    for (what, one, target, result, words) in [
        ("unknown kind", one(), "a/Deployment/b", OutcomeResult::Rejected, "served are: ProcessFleet"),
        ("no such target", one(), "a/ProcessFleet/gone", OutcomeResult::Rejected, "no target"),
        ("changed in between", One { race: true, ..one() }, "a/ProcessFleet/b", OutcomeResult::Conflict, "revision 8"),
        ("a failing call", One { refuses: true, ..one() }, "a/ProcessFleet/b", OutcomeResult::Failed, "disk is full"),
    ] {
        let (hands, one) = hands(one, directory.path());
        let outcome = hands.carry_out(&command(target));
        assert_eq!(outcome.result, result, "{what}");
        assert!(outcome.error.as_ref().is_some_and(|error| error.contains(words)), "{what}: {:?}", outcome.error);
        assert_eq!(one.record.lock().unwrap().replicas, 3, "{what}");
    }
}

#[test]
fn a_freeze_file_stops_all_commands_until_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (hands, one) = hands(one(), directory.path());
    std::fs::write(directory.path().join("freeze.a"), "").unwrap();
    let outcome = hands.carry_out(&command("a/ProcessFleet/b"));
    assert_eq!((outcome.result, outcome.replicas), (OutcomeResult::Frozen, Some(3)));
    assert!(outcome.error.unwrap().contains("freeze.a"));
    assert_eq!(one.record.lock().unwrap().replicas, 3);
    std::fs::remove_file(directory.path().join("freeze.a")).unwrap();
    assert_eq!(hands.carry_out(&command("a/ProcessFleet/b")).result, OutcomeResult::Applied);
}
