//! Records, states and positions: what is appended and committed is read, whole, in order, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loadline::log::memory::Fault;
use loadline::log::{Batch, LogError, MAX_RECORD_BYTES, Offset, Partitions, Polled, RawAppend, RawRecord, Topic};
use loadline::model::Timestamp;
use loadline::runtime::clock::Stopwatch;

use crate::harness::{
    DEADLINE, Harness, MemoryHarness, all, assert_fatal, assigned, behind, gone, join, join_as, nothing_is_skipped_silently, offsets, poll_assigned,
    poll_records, poll_until, position, put, records, signal, signals, text, to,
};

pub(crate) fn records_of_a_partition_keep_their_order<H: Harness>() {
    let harness = H::create(signals(2));
    for i in 0..50 {
        harness.log().append(vec![signal(0, format!("a{i}")), signal(1, format!("b{i}")), signal(0, format!("c{i}"))]).unwrap();
    }
    let zero: Vec<_> = (0..50).flat_map(|i| [format!("a{i}"), format!("c{i}")]).collect();
    let one: Vec<_> = (0..50).map(|i| format!("b{i}")).collect();
    assert_eq!(all(harness.log(), Topic::Signals, 0), zero);
    assert_eq!(all(harness.log(), Topic::Signals, 1), one);

    let mut session = join(harness.log(), "a");
    let polled = poll_records(&mut *session, 150);
    let of = |partition| polled.iter().filter(|record| record.partition == partition).map(text).collect::<Vec<_>>();
    assert_eq!((of(0), of(1)), (zero, one));
}

pub(crate) fn offsets_count_up_and_are_returned_in_the_order_of_the_appends<H: Harness>() {
    let harness = H::create(signals(2));
    let log = harness.log();
    let first = log.append(vec![signal(0, "a"), signal(1, "b"), signal(0, "c"), signal(1, "d")]).unwrap();
    let second = log.append(vec![signal(1, "e")]).unwrap();
    assert_eq!(log.append(Vec::new()).unwrap(), Vec::<Offset>::new());
    assert_eq!(offsets(log, Topic::Signals, 0), [first[0], first[2]]);
    assert_eq!(offsets(log, Topic::Signals, 1), [first[1], first[3], second[0]]);
    for (partition, last) in [(0, first[2]), (1, second[0])] {
        assert!(offsets(log, Topic::Signals, partition).is_sorted_by(|a, b| a < b));
        let range = log.range(Topic::Signals, partition).unwrap();
        assert!(range.start <= first[0].min(first[1]) && range.end > last, "{range:?}");
    }
}

pub(crate) fn a_scan_reads_to_the_end_in_slices<H: Harness>() {
    let harness = H::create(Partitions::default());
    let log = harness.log();
    let values: Vec<_> = (0..100).map(|i| format!("{i}")).collect();
    for chunk in values.chunks(13) {
        log.append(chunk.iter().map(|value| RawAppend { key: None, ..to(Topic::Audit, 0, value) }).collect()).unwrap();
    }
    let (mut read, mut next) = (Vec::new(), 0);
    loop {
        let slice = log.scan(Topic::Audit, 0, next, 7).unwrap();
        assert!(slice.len() <= 7);
        let Some(last) = slice.last() else { break };
        assert!(slice.iter().all(|record| record.key.is_none() && record.partition == 0 && record.offset >= next));
        next = last.offset + 1;
        read.extend(slice.iter().map(text));
    }
    assert_eq!(read, values);
    assert!(log.scan(Topic::Audit, 0, 1_000_000, 7).unwrap().is_empty());
    assert!(log.scan(Topic::Audit, 0, 0, 0).unwrap().is_empty());
}

pub(crate) fn the_first_record_after_a_time_is_found<H: Harness>() {
    let harness = H::create(signals(2));
    let log = harness.log();
    for i in 0..40 {
        if let Some(clock) = harness.clock() {
            clock.set(Timestamp::from_millis(1_000 + i / 7 * 10));
        }
        log.append(vec![signal(0, format!("{i}"))]).unwrap();
    }
    harness.settle();
    let records = log.scan(Topic::Signals, 0, 0, 100).unwrap();
    let (first, last) = (records[0].at, records[39].at);
    assert!(first <= last, "{first} {last}");
    let times = records.iter().map(|record| record.at).chain([
        Timestamp::MIN,
        Timestamp::from_millis(0),
        first - Duration::from_millis(1),
        last + Duration::from_secs(60),
    ]);
    for at in times {
        let found = log.first_after(Topic::Signals, 0, at).unwrap();
        let next = log.scan(Topic::Signals, 0, found, 1).unwrap().first().map(|record| record.offset);
        assert_eq!(next, records.iter().find(|record| record.at > at).map(|record| record.offset), "after {at}: {found}");
        assert!(log.range(Topic::Signals, 0).unwrap().end >= found, "{found}");
    }
    assert_eq!(log.first_after(Topic::Signals, 1, first).unwrap(), log.range(Topic::Signals, 1).unwrap().end, "where there is nothing");
    assert_fatal(log.first_after(Topic::Signals, 1_000, first));
}

pub(crate) fn at_is_the_logs_and_the_same_on_every_read<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    let at = |harness: &H| harness.log().scan(Topic::Signals, 0, 0, 10).unwrap().iter().map(|record| record.at).collect::<Vec<_>>();
    harness.log().append(vec![signal(0, "a"), signal(0, "b")]).unwrap();
    if let Some(clock) = harness.clock() {
        clock.set(Timestamp::from_millis(2_000));
    }
    harness.log().append(vec![signal(0, "c")]).unwrap();
    let first = at(&harness);
    if harness.clock().is_some() {
        assert_eq!(first, [1_000, 1_000, 2_000].map(Timestamp::from_millis));
    }
    assert!(first.is_sorted(), "{first:?}");
    if let Some(clock) = harness.clock() {
        clock.set(Timestamp::from_millis(500));
    }
    harness.kill_and_reopen();
    assert_eq!(at(&harness), first);
    let mut session = join(harness.log(), "a");
    assert_eq!(poll_records(&mut *session, 3).iter().map(|record| record.at).collect::<Vec<_>>(), first);
}

/// What is appended after the question has no earlier time. A log whose clock is another machine's knows it from its answers.
pub(crate) fn the_logs_clock_is_known_from_a_commit_on_and_never_ahead<H: Harness>() {
    let harness = H::create(Partitions::default());
    harness.log().append(vec![signal(0, "a")]).unwrap();
    let mut session = join(harness.log(), "a");
    let input = poll_records(&mut *session, 1).remove(0);
    session.commit(&Batch { appends: vec![signal(0, "b")], ..behind(&input) }).unwrap();
    let last_at = || harness.log().scan(Topic::Signals, 0, 0, 10).unwrap().last().unwrap().at;
    let (committed, reached) = (last_at(), harness.log().reached());
    assert!(reached >= committed, "{reached} is all that is known, and {committed} was answered");
    harness.log().append(vec![signal(0, "c")]).unwrap();
    assert!(last_at() >= reached, "{} came after {reached}", last_at());
}

fn too_large() -> RawAppend {
    RawAppend { value: vec![0; MAX_RECORD_BYTES], ..signal(0, "") }
}

pub(crate) fn an_append_with_a_record_too_large_leaves_nothing<H: Harness>() {
    let harness = H::create(Partitions::default());
    let outcome = harness.log().append(vec![signal(0, "a"), too_large(), signal(0, "b")]);
    let bytes = MAX_RECORD_BYTES + "prod/Deployment/api".len();
    assert!(matches!(outcome, Err(LogError::TooLarge { topic: Topic::Signals, bytes: found }) if found == bytes), "{outcome:?}");
    assert!(offsets(harness.log(), Topic::Signals, 0).is_empty());
    harness.log().append(vec![signal(0, "c")]).unwrap();
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["c"]);
}

pub(crate) fn a_commit_with_a_record_too_large_leaves_nothing<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    {
        let log = harness.log();
        log.append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
        let mut session = join_as(log, "aggregate", "a", Topic::Metrics);
        let input = poll_records(&mut *session, 1).remove(0);
        let states = vec![put("k", Some("v"))];
        let outcome = session.commit(&Batch { appends: vec![signal(0, "a"), too_large()], states, ..behind(&input) });
        assert!(matches!(outcome, Err(LogError::TooLarge { .. })), "{outcome:?}");
    }
    for _ in 0..2 {
        assert!(all(harness.log(), Topic::Signals, 0).is_empty());
        assert!(harness.log().states("aggregate", 0).unwrap().is_empty());
        assert_eq!(harness.log().committed("aggregate", Topic::Metrics, 0).unwrap(), None);
        harness.kill_and_reopen();
    }
}

pub(crate) fn the_largest_record_is_accepted<H: Harness>() {
    let harness = H::create(Partitions::default());
    let largest = RawAppend { key: None, ..too_large() };
    harness.log().append(vec![signal(0, "a"), largest.clone(), signal(0, "b"), largest]).unwrap();
    let lengths: Vec<_> = harness.log().scan(Topic::Signals, 0, 0, 10).unwrap().iter().map(|record| record.value.len()).collect();
    assert_eq!(lengths, [1, MAX_RECORD_BYTES, 1, MAX_RECORD_BYTES]);
}

pub(crate) fn a_commit_is_visible_whole<H: Harness>() {
    let mut harness = H::create(signals(2));
    let next = {
        let log = harness.log();
        log.append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
        let mut session = join_as(log, "aggregate", "a", Topic::Metrics);
        let input = poll_records(&mut *session, 1).remove(0);
        let appends = vec![signal(0, "a"), signal(1, "b"), signal(0, "c")];
        let states = vec![put("k2", Some("v2")), put("k1", Some("v1"))];
        session.commit(&Batch { appends, states, ..behind(&input) }).unwrap();
        input.offset + 1
    };
    for _ in 0..2 {
        harness.settle();
        let log = harness.log();
        assert_eq!(all(log, Topic::Signals, 0), ["a", "c"]);
        assert_eq!(all(log, Topic::Signals, 1), ["b"]);
        assert_eq!(log.states("aggregate", 0).unwrap(), [("k1".to_owned(), b"v1".to_vec()), ("k2".to_owned(), b"v2".to_vec())]);
        assert_eq!(log.committed("aggregate", Topic::Metrics, 0).unwrap(), Some(next));
        harness.kill_and_reopen();
    }
}

/// An aborted commit: none of it is seen, by whoever looks, then or later; and the same batch can be tried again.
pub(crate) fn what_was_aborted_is_never_seen<H: Harness>() {
    let mut harness = H::create(signals(2));
    let nothing = |harness: &H| {
        assert!(all(harness.log(), Topic::Signals, 0).is_empty() && all(harness.log(), Topic::Signals, 1).is_empty());
        assert!(harness.log().states("aggregate", 0).unwrap().is_empty());
        assert_eq!(harness.log().committed("aggregate", Topic::Metrics, 0).unwrap(), None);
    };
    harness.log().append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
    let appends = vec![signal(0, "a"), signal(1, "b"), signal(0, "c")];
    let batch = |input: &RawRecord| Batch { appends: appends.clone(), states: vec![put("k", Some("v"))], ..behind(input) };
    {
        let mut session = join_as(harness.log(), "aggregate", "a", Topic::Metrics);
        let input = poll_records(&mut *session, 1).remove(0);
        let outcome = harness.refusing(|| session.commit(&batch(&input)));
        assert!(matches!(outcome, Err(LogError::Retry { .. })), "{outcome:?}");
        nothing(&harness);
    }
    harness.kill_and_reopen();
    nothing(&harness);
    let mut reader = join(harness.log(), "reader");
    let mut session = join_as(harness.log(), "aggregate", "a", Topic::Metrics);
    let input = poll_records(&mut *session, 1).remove(0);
    assert!(harness.refusing(|| session.commit(&batch(&input))).is_err());
    session.commit(&batch(&input)).unwrap();
    harness.settle();
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["a", "c"]);
    let read = poll_records(&mut *reader, 3);
    assert_eq!(read.iter().filter(|record| record.partition == 0).map(text).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(read.iter().filter(|record| record.partition == 1).map(text).collect::<Vec<_>>(), ["b"]);
}

/// Whoever reads meanwhile sees all that a commit appended to a partition, or none of it.
pub(crate) fn nobody_sees_half_of_a_commit<H: Harness>() {
    const COMMITS: usize = 60;
    let harness = H::create(Partitions::default());
    harness.log().append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = join_as(harness.log(), "aggregate", "a", Topic::Metrics);
            let input = poll_records(&mut *session, 1).remove(0);
            for i in 0..COMMITS {
                let appends = (0..3).map(|part| signal(0, format!("{i}:{part}"))).collect();
                session.commit(&Batch { appends, ..behind(&input) }).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let elsewhere = harness.elsewhere();
        let started = Stopwatch::start();
        let mut ended = false;
        while !ended {
            ended = done.load(Ordering::SeqCst);
            let seen = elsewhere.scan(Topic::Signals, 0, 0, 10_000).unwrap().len();
            assert!(seen.is_multiple_of(3), "{seen} records");
            assert!(started.elapsed() < DEADLINE);
        }
        harness.settle();
        assert_eq!(all(&*elsewhere, Topic::Signals, 0).len(), 3 * COMMITS);
    });
}

/// Where it is not known whether a commit took effect, the committed position tells; and all of it did, or nothing.
pub(crate) fn an_unknown_outcome_is_all_or_nothing(harness: &MemoryHarness) {
    let log = harness.log();
    log.append(vec![to(Topic::Metrics, 0, "a"), to(Topic::Metrics, 0, "b")]).unwrap();
    let mut session = join_as(log, "aggregate", "a", Topic::Metrics);
    let input = poll_records(&mut *session, 2);
    for (record, fault) in input.iter().zip([Fault::UnknownNotDone, Fault::UnknownDone]) {
        harness.memory().inject(fault);
        let batch = Batch { appends: vec![signal(0, text(record))], states: vec![put(&text(record), Some("v"))], ..behind(record) };
        assert!(matches!(session.commit(&batch), Err(LogError::Unknown { .. })));
        let took_effect = log.committed("aggregate", Topic::Metrics, 0).unwrap() == batch.position;
        assert_eq!(all(log, Topic::Signals, 0).contains(&text(record)), took_effect);
        assert_eq!(log.states("aggregate", 0).unwrap().iter().any(|(key, _)| *key == text(record)), took_effect);
        assert_eq!(took_effect, fault == Fault::UnknownDone);
    }
}

pub(crate) fn a_state_can_be_replaced_and_deleted<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 1);
    let mut commit = |states| session.commit(&Batch { partition: 0, states, ..Batch::default() }).unwrap();
    commit(vec![put("kept", Some("1")), put("gone", Some("1")), put("twice", Some("1")), put("twice", Some("2"))]);
    commit(vec![put("kept", Some("2")), put("gone", None), put("never there", None)]);
    harness.settle();
    assert_eq!(harness.log().states("decide", 0).unwrap(), [("kept".to_owned(), b"2".to_vec()), ("twice".to_owned(), b"2".to_vec())]);
    assert_eq!(harness.log().committed("decide", Topic::Signals, 0).unwrap(), None, "no position was committed");
}

pub(crate) fn states_belong_to_their_group_and_partition<H: Harness>() {
    let harness = H::create(signals(2).with(Topic::Metrics, 2));
    let mut decide = join(harness.log(), "a");
    let mut aggregate = join_as(harness.log(), "aggregate", "a", Topic::Metrics);
    poll_assigned(&mut *decide, 2);
    poll_assigned(&mut *aggregate, 2);
    for (partition, value) in [(0, "decide 0"), (1, "decide 1")] {
        decide.commit(&Batch { states: vec![put("k", Some(value))], ..position(partition, u64::from(partition)) }).unwrap();
    }
    aggregate.commit(&Batch { states: vec![put("k", Some("aggregate 0"))], ..position(0, 7) }).unwrap();
    harness.settle();
    let state = |group, partition| harness.log().states(group, partition).unwrap().into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect();
    assert_eq!(
        [state("decide", 0), state("decide", 1), state("aggregate", 0), state("aggregate", 1)].map(|values: Vec<_>| values.join(" ")),
        ["decide 0", "decide 1", "aggregate 0", ""]
    );
    let committed = |group, topic, partition| harness.log().committed(group, topic, partition).unwrap();
    assert_eq!([0, 1].map(|partition| committed("decide", Topic::Signals, partition)), [Some(0), Some(1)]);
    assert_eq!([0, 1].map(|partition| committed("aggregate", Topic::Metrics, partition)), [Some(7), None]);
}

pub(crate) fn an_unknown_partition_is_named<H: Harness>() {
    let harness = H::create(signals(2));
    let log = harness.log();
    let reason = "signals has no partition 2: its partitions are 0 to 1";
    assert_eq!(assert_fatal(log.append(vec![signal(0, "a"), signal(2, "b")])), reason);
    assert_eq!(assert_fatal(log.range(Topic::Signals, 2)), reason);
    assert_eq!(assert_fatal(log.scan(Topic::Signals, 2, 0, 1)), reason);
    let mut session = join(log, "a");
    poll_assigned(&mut *session, 2);
    assert_eq!(assert_fatal(session.commit(&Batch { appends: vec![signal(0, "a"), signal(2, "b")], ..position(0, 5) })), reason);
    assert!(offsets(log, Topic::Signals, 0).is_empty());
}

pub(crate) fn concurrent_producers_lose_nothing_and_repeat_nothing<H: Harness>() {
    const PRODUCERS: usize = 8;
    const APPENDS: usize = 25;
    let harness = H::create(signals(2));
    let log = harness.log();
    let acknowledged: Vec<(String, u32, Offset)> = std::thread::scope(|scope| {
        let producer = |producer: usize| {
            move || {
                let mut acknowledged = Vec::new();
                for i in 0..APPENDS {
                    let values: Vec<_> = (0..2_u32).map(|partition| (partition, format!("{producer}:{i}:{partition}"))).collect();
                    let offsets = log.append(values.iter().map(|(partition, value)| signal(*partition, value)).collect()).unwrap();
                    acknowledged.extend(values.into_iter().zip(offsets).map(|((partition, value), offset)| (value, partition, offset)));
                }
                acknowledged
            }
        };
        let threads: Vec<_> = (0..PRODUCERS).map(|i| scope.spawn(producer(i))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(acknowledged.len(), PRODUCERS * APPENDS * 2);
    // What one producer appended one after the other stands in that order.
    for of_one in acknowledged.chunks(APPENDS * 2) {
        for of_partition in [0, 1].map(|partition| of_one.iter().filter(move |(_, of, _)| *of == partition)) {
            assert!(of_partition.map(|(_, _, offset)| *offset).is_sorted_by(|a, b| a < b));
        }
    }
    let mut expected: BTreeMap<u32, BTreeMap<Offset, String>> = BTreeMap::new();
    for (value, partition, offset) in acknowledged {
        assert_eq!(expected.entry(partition).or_default().insert(offset, value), None, "an offset was given twice");
    }
    for (partition, expected) in expected {
        let found: BTreeMap<_, _> = log.scan(Topic::Signals, partition, 0, 10_000).unwrap().iter().map(|record| (record.offset, text(record))).collect();
        assert_eq!(found, expected);
    }
}

pub(crate) fn nothing_committed_is_lost_in_a_kill<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    for round in 0..3 {
        harness.log().append(vec![signal(0, format!("{round}"))]).unwrap();
        {
            let mut session = join(harness.log(), "a");
            let read = poll_records(&mut *session, 1);
            assert_eq!(read.iter().map(text).collect::<Vec<_>>(), [format!("{round}")]);
            let appends = vec![to(Topic::Audit, 0, format!("{round}"))];
            session.commit(&Batch { appends, ..behind(&read[0]) }).unwrap();
        }
        harness.kill_and_reopen();
    }
    harness.settle();
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["0", "1", "2"]);
    assert_eq!(all(harness.log(), Topic::Audit, 0), ["0", "1", "2"]);
}

/// Ten records, each of its own commit; their offsets.
fn ten_records<H: Harness>(harness: &H) -> Vec<Offset> {
    (0..10).flat_map(|i| harness.log().append(vec![signal(0, format!("{i}"))]).unwrap()).collect()
}

pub(crate) fn what_is_trimmed_is_a_gap_and_never_skipped_silently<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    let offsets = ten_records(&harness);
    let last = *offsets.last().unwrap();
    let to_the_end = |polled: &[Polled]| records(polled).iter().any(|record| record.offset == last);
    let mut session = join(harness.log(), "a");
    let polled = poll_until(&mut *session, to_the_end);
    assert!(gone(&polled).is_empty());
    let committed = offsets[2] + 1;
    session.commit(&position(0, committed)).unwrap();
    drop(session);
    harness.trim(Topic::Signals, 0, offsets[7]);
    for _ in 0..2 {
        let earliest = harness.log().range(Topic::Signals, 0).unwrap().start;
        assert!(committed < earliest && earliest <= offsets[7], "{earliest}");
        let mut session = join(harness.log(), "a");
        let polled = poll_until(&mut *session, to_the_end);
        assert_eq!(assigned(&polled), [(0, committed)]);
        assert_eq!(gone(&polled), [(committed, earliest)]);
        nothing_is_skipped_silently(&offsets, committed, &polled);
        assert!(harness.log().scan(Topic::Signals, 0, 0, 1).unwrap()[0].offset >= earliest);

        // A session that never committed begins at the earliest, which is no gap.
        let mut newcomer = join_as(harness.log(), "forecast", "a", Topic::Signals);
        let polled = poll_until(&mut *newcomer, to_the_end);
        assert_eq!(assigned(&polled), [(0, earliest)]);
        assert!(gone(&polled).is_empty());
        drop((session, newcomer));
        harness.kill_and_reopen();
    }
}

pub(crate) fn a_reader_that_is_overtaken_is_told<H: Harness>() {
    let harness = H::create(Partitions::default());
    let offsets = ten_records(&harness);
    let mut session = join(harness.log(), "a");
    let mut polled = Vec::new();
    while records(&polled).is_empty() {
        polled.extend(session.poll(2, DEADLINE).unwrap());
    }
    harness.trim(Topic::Signals, 0, offsets[7]);
    let last = *offsets.last().unwrap();
    polled.extend(poll_until(&mut *session, |polled| records(polled).iter().any(|record| record.offset == last)));
    nothing_is_skipped_silently(&offsets, 0, &polled);
}

pub(crate) fn offsets_go_on_after_everything_was_trimmed<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    harness.log().append(vec![signal(0, "a"), signal(0, "b")]).unwrap();
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 1);
    let end = harness.log().range(Topic::Signals, 0).unwrap().end;
    harness.trim(Topic::Signals, 0, end);
    assert_eq!(harness.log().range(Topic::Signals, 0).unwrap(), end..end);
    drop(session);
    harness.kill_and_reopen();
    let mut session = join(harness.log(), "a");
    assert_eq!(poll_assigned(&mut *session, 1), [(0, end)]);
    let next = harness.log().append(vec![signal(0, "c")]).unwrap();
    assert!(next[0] >= end);
    assert_eq!(poll_records(&mut *session, 1)[0].offset, next[0]);
}
