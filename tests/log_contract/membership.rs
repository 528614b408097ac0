//! Groups: who owns which partition, who is fenced, and who is woken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use loadline::log::{Batch, Log, LogError, Membership, Moment, Partitions, Polled, Session, Topic};
use loadline::model::Timestamp;
use loadline::runtime::clock::Stopwatch;

use crate::harness::{
    DEADLINE, Harness, all, assert_fatal, assert_fenced, assigned, behind, gone, join, join_as, poll_assigned, poll_fenced, poll_records, poll_until, position,
    put, records, revoked, signal, signals, text, to, while_waiting,
};

/// How long a member waits in its poll where several take turns in one thread.
const TURN: Duration = Duration::from_millis(5);

/// How often a stream appends, at most.
const STREAM: Duration = Duration::from_micros(200);

pub(crate) fn a_group_starts_at_the_earliest_record<H: Harness>() {
    let harness = H::create(Partitions::default());
    harness.log().append(vec![signal(0, "a"), signal(0, "b")]).unwrap();
    let mut session = join(harness.log(), "a");
    let polled = poll_until(&mut *session, |polled| records(polled).len() >= 2);
    assert_eq!(assigned(&polled), [(0, harness.log().range(Topic::Signals, 0).unwrap().start)]);
    assert_eq!(records(&polled).iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
}

pub(crate) fn a_session_resumes_where_the_last_commit_left_off<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    for i in 0..5 {
        harness.log().append(vec![signal(0, format!("{i}"))]).unwrap();
    }
    let next = {
        let mut session = join(harness.log(), "a");
        let read = poll_records(&mut *session, 5);
        assert_eq!(read.len(), 5);
        session.commit(&behind(&read[1])).unwrap();
        read[1].offset + 1
    };
    for _ in 0..2 {
        let mut session = join(harness.log(), "a");
        let polled = poll_until(&mut *session, |polled| records(polled).len() >= 3);
        assert_eq!(assigned(&polled), [(0, next)]);
        assert!(gone(&polled).is_empty(), "nothing was trimmed");
        assert_eq!(records(&polled).iter().map(text).collect::<Vec<_>>(), ["2", "3", "4"]);
        drop(session);
        harness.kill_and_reopen();
    }
}

pub(crate) fn what_is_asked_of_all_partitions_is_what_each_says<H: Harness>() {
    let harness = H::create(signals(3));
    let log = harness.log();
    log.append(vec![signal(0, "a"), signal(2, "b"), signal(2, "c")]).unwrap();
    let mut session = join(log, "a");
    let read = poll_records(&mut *session, 3);
    let of_two = read.iter().find(|record| record.partition == 2).unwrap();
    session.commit(&behind(of_two)).unwrap();
    let committed = log.all_committed("decide", Topic::Signals).unwrap();
    assert_eq!(committed, [None, None, Some(of_two.offset + 1)]);
    let each = (0..3).map(|partition| log.range(Topic::Signals, partition).unwrap());
    let ranges = log.ranges(Topic::Signals).unwrap();
    assert_eq!(ranges, each.collect::<Vec<_>>());
    assert!(!ranges[0].is_empty() && ranges[1].is_empty() && ranges[2].end > ranges[0].end, "{ranges:?}");
}

pub(crate) fn a_poll_brings_no_more_than_asked<H: Harness>() {
    let harness = H::create(signals(3));
    harness.log().append((0..30).map(|i| signal(i % 3, format!("{i}"))).collect()).unwrap();
    let mut session = join(harness.log(), "a");
    let mut came = 0;
    while came < 30 {
        let polled = session.poll(7, DEADLINE).unwrap();
        assert!(records(&polled).len() <= 7);
        came += records(&polled).len();
    }
    assert_eq!(came, 30);
}

/// A moment that is named by a number.
fn moment(number: u64) -> Moment {
    let at = Timestamp::from_millis(i64::try_from(number).unwrap());
    Moment { at, log: at }
}

/// Polls at most `most`, and says up to which moment each partition has been read, also where that is not due; counts what came of each.
fn reads_through(session: &mut dyn Session, most: usize, now: u64, came: &mut [u64; 2]) -> Vec<(usize, u64)> {
    for record in records(&session.poll(most, Duration::ZERO).unwrap()) {
        came[record.partition as usize] += 1;
    }
    let [known, through] = [false, true].map(|due| session.read_through(moment(now), &|_| due).unwrap());
    known.into_iter().chain(through).map(|(partition, moment)| (partition as usize, u64::try_from(moment.at.as_millis()).unwrap())).collect()
}

/// A session that says that it has read up to a moment has polled all that was appended before; and it comes to say so, whatever a commit leaves behind
/// its records.
pub(crate) fn what_was_appended_has_been_polled_when_it_says_so<H: Harness>() {
    let harness = H::create(signals(2));
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 2);
    let mut came = [0, 0];
    for round in 1..=6_u64 {
        let appends = (0..7).map(|i| signal(i % 2, format!("{i}"))).collect();
        if round % 2 == 1 {
            harness.log().append(appends).unwrap();
        } else {
            session.commit(&Batch { appends, ..position(0, 0) }).unwrap();
            harness.settle();
        }
        let (started, mut read) = (Stopwatch::start(), BTreeSet::new());
        while read.len() < 2 {
            for (partition, through) in reads_through(&mut *session, 100, round, &mut came) {
                assert!(came[partition] >= through * [4, 3][partition], "{came:?} in round {round}");
                if through == round {
                    read.insert(partition);
                }
            }
            assert!(started.elapsed() < DEADLINE, "it never says so, after {came:?}");
        }
    }
    assert_eq!(came, [24, 18]);
}

/// Of a partition that went and came back nothing is said that was known of it before: its records are polled anew from where they were committed.
pub(crate) fn what_was_known_of_a_partition_goes_with_it<H: Harness>() {
    let harness = H::create(signals(2));
    harness.log().append(vec![signal(0, "a"), signal(1, "b")]).unwrap();
    let mut session = join(harness.log(), "a");
    poll_records(&mut *session, 2);
    let started = Stopwatch::start();
    let again = |what: &str| assert!(started.elapsed() < DEADLINE, "it never {what}");
    while session.read_through(moment(1), &|_| false).unwrap().len() < 2 {
        again("says that it has read both");
        assert_eq!(records(&session.poll(10, TURN).unwrap()).len(), 0);
    }
    let elsewhere = harness.elsewhere();
    let mut other = join(&*elsewhere, "b");
    let lost = loop {
        again("loses one");
        other.poll(0, TURN).unwrap();
        if let [lost, ..] = revoked(&session.poll(0, TURN).unwrap())[..] {
            break lost;
        }
    };
    drop(other);
    while !assigned(&session.poll(0, TURN).unwrap()).iter().any(|(partition, _)| *partition == lost) {
        again("has it back");
    }
    let told = |session: &mut dyn Session| session.read_through(moment(2), &|_| false).unwrap().contains_key(&lost);
    assert!(!told(&mut *session), "its record has not been polled anew");
    let anew = poll_until(&mut *session, |polled| records(polled).iter().any(|record| record.partition == lost));
    while !told(&mut *session) {
        again("says that it has read it anew");
        session.poll(10, TURN).unwrap();
    }
    assert_eq!(records(&anew).iter().filter(|record| record.partition == lost).count(), 1);
}

/// An end that was asked for is reached while others append without a pause, and lies behind all that had been appended when it was asked for.
pub(crate) fn an_end_is_reached_under_a_stream<H: Harness>() {
    let harness = H::create(signals(2));
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 2);
    let (harness, appended) = (&harness, &AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Dropped also where the test fails.
        let (_stream, is_over) = channel::<()>();
        scope.spawn(move || {
            while is_over.recv_timeout(STREAM) == Err(RecvTimeoutError::Timeout) {
                harness.log().append((0..2).map(|partition| signal(partition, "more")).collect()).unwrap();
                appended.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (started, mut came, mut ends) = (Stopwatch::start(), [0, 0], [0, 0]);
        while ends.iter().any(|ends| *ends < 10) {
            let before = appended.load(Ordering::SeqCst);
            for (partition, through) in reads_through(&mut *session, 1_000, before, &mut came) {
                assert!(came[partition] >= through, "{came:?}, of which {through} were appended before");
                ends[partition] += 1;
            }
            assert!(started.elapsed() < DEADLINE, "{ends:?} ends were reached, after {came:?}");
        }
    });
}

/// What a member has not asked for yet, since it asks for little, is not read: also where the other partition is at its end.
pub(crate) fn a_partition_that_is_behind_holds_up_no_other<H: Harness>() {
    let harness = H::create(signals(2));
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 2);
    harness.log().append((0..1_000).map(|_| signal(0, "much")).chain([signal(1, "little")]).collect()).unwrap();
    let (started, mut came, mut others) = (Stopwatch::start(), [0, 0], 0);
    for now in 1.. {
        let told = reads_through(&mut *session, 10, now, &mut came);
        assert!(started.elapsed() < DEADLINE, "{told:?}, after {came:?}");
        others += usize::from(told.iter().any(|(partition, _)| *partition == 1) && came[0] < 1_000);
        if told.iter().any(|(partition, _)| *partition == 0) {
            break;
        }
    }
    assert_eq!(came[0], 1_000);
    assert!(others > 1, "the other one was read to its end all the time");
}

pub(crate) fn a_full_partition_does_not_starve_another<H: Harness>() {
    const FULL: usize = 20_000;
    let harness = H::create(signals(2));
    harness.log().append(vec![signal(0, "first"), signal(1, "first")]).unwrap();
    let mut session = join(harness.log(), "a");
    poll_records(&mut *session, 2);
    harness.log().append((0..FULL).map(|i| signal(0, format!("{i}"))).collect()).unwrap();
    harness.log().append(vec![signal(1, "the other")]).unwrap();
    let mut before = 0;
    loop {
        let polled = session.poll(10, DEADLINE).unwrap();
        if records(&polled).iter().any(|record| record.partition == 1) {
            break;
        }
        before += records(&polled).len();
    }
    assert!(before < FULL, "partition 1 came only behind all of partition 0");
}

pub(crate) fn a_zombie_is_fenced<H: Harness>() {
    let harness = H::create(Partitions::default());
    harness.log().append(vec![signal(0, "a")]).unwrap();
    let mut zombie = join(harness.log(), "a");
    let read = poll_records(&mut *zombie, 1);
    // The same member once more, in another process.
    let elsewhere = harness.elsewhere();
    let mut successor = join(&*elsewhere, "a");
    assert_eq!(poll_assigned(&mut *successor, 1), [(0, read[0].offset)]);
    let batch = |value| Batch { appends: vec![to(Topic::Audit, 0, value)], states: vec![put("k", Some(value))], ..behind(&read[0]) };
    assert_fenced(zombie.commit(&batch("zombie's")));
    poll_fenced(&mut *zombie);
    assert!(all(harness.log(), Topic::Audit, 0).is_empty() && harness.log().states("decide", 0).unwrap().is_empty());
    assert_eq!(harness.log().committed("decide", Topic::Signals, 0).unwrap(), None);
    // Its leaving takes nothing from the successor.
    drop(zombie);
    successor.commit(&batch("successor's")).unwrap();
    harness.settle();
    assert_eq!(all(harness.log(), Topic::Audit, 0), ["successor's"]);
    assert_eq!(harness.log().states("decide", 0).unwrap(), [("k".to_owned(), b"successor's".to_vec())]);
}

pub(crate) fn a_waiting_zombie_is_told<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut zombie = join(harness.log(), "a");
    poll_assigned(&mut *zombie, 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || poll_fenced(&mut *zombie));
        let elsewhere = harness.elsewhere();
        let _successor = join(&*elsewhere, "a");
        waiting.join().unwrap();
    });
}

pub(crate) fn a_commit_for_a_partition_not_owned_is_fenced<H: Harness>() {
    let harness = H::create(signals(2));
    let mut session = join(harness.log(), "a");
    // Before its first poll it owns none.
    assert_fenced(session.commit(&position(0, 0)));
    poll_assigned(&mut *session, 2);
    session.commit(&position(1, 0)).unwrap();
    assert_fenced(session.commit(&Batch { appends: vec![signal(0, "a")], ..position(2, 0) }));
    assert!(all(harness.log(), Topic::Signals, 0).is_empty());
}

/// Lets members poll in turn until `partitions` are shared between them; the owner of each.
fn share(sessions: &mut [Box<dyn Session>], partitions: usize) -> BTreeMap<u32, usize> {
    let started = Stopwatch::start();
    let mut owners = BTreeMap::new();
    loop {
        let shares: Vec<usize> = (0..sessions.len()).map(|index| owners.values().filter(|owner| **owner == index).count()).collect();
        if owners.len() == partitions && shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1 {
            return owners;
        }
        assert!(started.elapsed() < DEADLINE, "ownership never settles: {owners:?}");
        for (index, session) in sessions.iter_mut().enumerate() {
            let polled = session.poll(0, TURN).unwrap();
            for partition in revoked(&polled) {
                assert_eq!(owners.remove(&partition), Some(index), "only its owner is told that it lost {partition}");
            }
            for (partition, _) in assigned(&polled) {
                assert_eq!(owners.insert(partition, index), None, "{partition} was given away before its owner was told");
            }
        }
    }
}

pub(crate) fn members_share_the_partitions<H: Harness>() {
    let harness = H::create(signals(7));
    let elsewhere = [harness.elsewhere(), harness.elsewhere()];
    let mut sessions = vec![join(harness.log(), "a"), join(&*elsewhere[0], "b"), join(&*elsewhere[1], "c")];
    let owners = share(&mut sessions, 7);
    assert_eq!(owners.keys().copied().collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
}

pub(crate) fn a_partition_is_handed_over_on_join<H: Harness>() {
    let harness = H::create(signals(2));
    harness.log().append(vec![signal(0, "a"), signal(1, "b"), signal(0, "c"), signal(1, "d")]).unwrap();
    let mut first = join(harness.log(), "a");
    let read = poll_records(&mut *first, 4);
    let of = |partition: u32| read.iter().filter(move |record| record.partition == partition).collect::<Vec<_>>();
    let elsewhere = harness.elsewhere();
    let mut second = join(&*elsewhere, "b");
    // The first owns both until it is told; what it commits until then counts.
    let mut of_second = second.poll(10, Duration::ZERO).unwrap();
    assert!(of_second.is_empty());
    first.commit(&behind(of(0)[0])).unwrap();
    first.commit(&behind(of(1)[0])).unwrap();
    let (started, mut of_first) = (Stopwatch::start(), Vec::new());
    while assigned(&of_second).is_empty() || records(&of_second).is_empty() {
        assert!(started.elapsed() < DEADLINE, "{of_first:?} {of_second:?}");
        of_first.extend(first.poll(10, TURN).unwrap());
        of_second.extend(second.poll(10, TURN).unwrap());
    }
    let lost = revoked(&of_first);
    let [lost] = lost[..] else { panic!("{lost:?}") };
    assert_eq!(assigned(&of_second), [(lost, of(lost)[0].offset + 1)], "from where the first had come to");
    assert_eq!(records(&of_second).iter().map(text).collect::<Vec<_>>(), [text(of(lost)[1])]);
    assert_fenced(first.commit(&behind(of(lost)[1])));
    assert_fenced(second.commit(&behind(of(1 - lost)[1])));
    first.commit(&behind(of(1 - lost)[1])).unwrap();
    second.commit(&behind(of(lost)[1])).unwrap();
}

pub(crate) fn a_partition_is_handed_over_on_leave<H: Harness>() {
    let harness = H::create(signals(2));
    let appended = harness.log().append(vec![signal(0, "a"), signal(1, "b"), signal(0, "c"), signal(1, "d")]).unwrap();
    let elsewhere = harness.elsewhere();
    let mut sessions = vec![join(harness.log(), "a"), join(&*elsewhere, "b")];
    let owners = share(&mut sessions, 2);
    let (mut leaving, mut staying) = (sessions.remove(0), sessions.remove(0));
    let left = *owners.iter().find(|(_, owner)| **owner == 0).unwrap().0;
    let next = appended[left as usize] + 1;
    leaving.commit(&position(left, next)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let polled = poll_until(&mut *staying, |polled| !assigned(polled).is_empty() && records(polled).iter().any(|record| record.partition == left));
            (assigned(&polled), records(&polled), staying)
        });
        drop(leaving);
        let (assigned, records, _staying) = waiting.join().unwrap();
        assert_eq!(assigned, [(left, next)]);
        assert_eq!(records.iter().find(|record| record.partition == left).unwrap().offset, appended[left as usize + 2]);
    });
}

/// Copies signals to audit, each in the commit that moves the position behind it, until told to stop.
fn copy(log: &dyn Log, member: &str, stop: &AtomicBool, rejoin: bool) {
    let mut session = join(log, member);
    let mut polls = 0;
    while !stop.load(Ordering::SeqCst) {
        polls += 1;
        if rejoin && polls % 7 == 0 {
            // Sometimes in order, sometimes by taking over.
            let successor = if polls % 2 == 0 { None } else { Some(join(log, member)) };
            drop(session);
            session = successor.unwrap_or_else(|| join(log, member));
        }
        // Others come and go, so a short wait: a member that waits is woken by each of them anyway.
        let polled = match session.poll(5, Duration::from_millis(5)) {
            // Whoever has nothing else is told that what it was given cannot be opened yet.
            Err(LogError::Retry { .. }) => continue,
            polled => polled.unwrap(),
        };
        for polled in polled {
            let Polled::Records { partition, records } = polled else { continue };
            let appends = records.iter().map(|record| to(Topic::Audit, 0, text(record))).collect();
            match session.commit(&Batch { appends, ..behind(records.last().unwrap()) }) {
                // The partition went to another meanwhile, who reads these records again.
                Ok(()) | Err(LogError::Fenced { .. }) => {}
                Err(error) => panic!("{error} in partition {partition}"),
            }
        }
    }
}

pub(crate) fn a_changing_group_processes_each_record_once<H: Harness>() {
    const RECORDS: usize = 200;
    let harness = H::create(signals(4));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (member, rejoin) in [("a", false), ("b", true), ("c", true)] {
            let (log, stop) = (harness.elsewhere(), &stop);
            scope.spawn(move || copy(&*log, member, stop, rejoin));
        }
        for i in 0..RECORDS {
            harness.log().append(vec![signal(u32::try_from(i % 4).unwrap(), format!("{i}"))]).unwrap();
        }
        let mut copied = 0;
        let mut reader = join_as(harness.log(), "reader", "a", Topic::Audit);
        let started = Stopwatch::start();
        while copied < RECORDS && started.elapsed() < DEADLINE {
            copied += records(&reader.poll(1000, Duration::from_secs(1)).unwrap()).len();
        }
        stop.store(true, Ordering::SeqCst);
    });
    harness.settle();
    let mut copied: Vec<usize> = all(harness.log(), Topic::Audit, 0).iter().map(|value| value.parse().unwrap()).collect();
    copied.sort_unstable();
    assert_eq!(copied, (0..RECORDS).collect::<Vec<_>>());
}

/// Runs `act` while a member waits with nothing to read, and gives what its poll answered.
fn while_a_member_waits<H: Harness>(harness: &H, act: impl FnOnce(&H)) -> Result<Vec<Polled>, LogError> {
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 1);
    while_waiting(|| session.poll(10, DEADLINE), || act(harness))
}

pub(crate) fn an_append_wakes_a_waiting_poll<H: Harness>() {
    let polled = while_a_member_waits(&H::create(Partitions::default()), |harness| {
        harness.log().append(vec![to(Topic::Audit, 0, "not its own")]).unwrap();
        harness.log().append(vec![signal(0, "a")]).unwrap();
    });
    assert_eq!(records(&polled.unwrap()).iter().map(text).collect::<Vec<_>>(), ["a"]);
}

pub(crate) fn a_commit_wakes_the_next_stage<H: Harness>() {
    let polled = while_a_member_waits(&H::create(Partitions::default()), |harness| {
        harness.log().append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
        let mut aggregate = join_as(harness.log(), "aggregate", "a", Topic::Metrics);
        let input = poll_records(&mut *aggregate, 1).remove(0);
        aggregate.commit(&Batch { appends: vec![signal(0, "a")], ..behind(&input) }).unwrap();
    });
    assert_eq!(records(&polled.unwrap()).iter().map(text).collect::<Vec<_>>(), ["a"]);
}

pub(crate) fn a_waker_ends_the_poll_that_waits_or_the_next_one<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 1);
    let waker = session.waker();
    waker.wake();
    let started = Stopwatch::start();
    assert!(session.poll(10, DEADLINE).unwrap().is_empty());
    std::thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        assert!(session.poll(10, DEADLINE).unwrap().is_empty());
    });
    assert!(started.elapsed() < DEADLINE, "it waited until its time was over");
}

pub(crate) fn closing_ends_a_waiting_poll_and_all_later_calls<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut other = join_as(harness.log(), "forecast", "b", Topic::Signals);
    let polled = while_a_member_waits(&harness, |harness| harness.log().close());
    assert_eq!(assert_fatal(polled), "the log is closed");
    let log = harness.log();
    assert_fatal(log.append(vec![signal(0, "a")]));
    assert_fatal(log.range(Topic::Signals, 0));
    assert_fatal(log.scan(Topic::Signals, 0, 0, 1));
    assert_fatal(log.states("decide", 0));
    assert_fatal(log.committed("decide", Topic::Signals, 0));
    assert_fatal(other.poll(1, DEADLINE));
    assert_fatal(other.commit(&position(0, 0)));
    assert!(matches!(log.join(Membership { group: "decide", member: "c".to_owned(), topic: Topic::Signals }), Err(LogError::Fatal { .. })));
    log.close();
}
