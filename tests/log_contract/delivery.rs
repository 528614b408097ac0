//! Records, states and positions: what is appended and committed is read, whole, in order, once.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::log::{Batch, LogError, MAX_RECORD_BYTES, Offset, Partitions, Polled, RawAppend, Topic};
use loadline::model::Timestamp;

use crate::harness::{Harness, all, assert_fatal, join, join_as, poll_assigned, poll_records, poll_until, position, put, records, signal, signals, text, to};

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

pub(crate) fn offsets_are_contiguous_and_returned_in_the_order_of_the_appends<H: Harness>() {
    let harness = H::create(signals(2));
    let log = harness.log();
    assert_eq!(log.append(vec![signal(0, "a"), signal(1, "b"), signal(0, "c"), signal(1, "d")]).unwrap(), [0, 0, 1, 1]);
    assert_eq!(log.append(vec![signal(1, "e")]).unwrap(), [2]);
    assert_eq!(log.append(Vec::new()).unwrap(), Vec::<Offset>::new());
    assert_eq!(log.range(Topic::Signals, 0).unwrap(), 0..2);
    assert_eq!(log.range(Topic::Signals, 1).unwrap(), 0..3);
    let offsets: Vec<_> = log.scan(Topic::Signals, 1, 0, 10).unwrap().iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

pub(crate) fn a_scan_reads_to_the_end_in_slices<H: Harness>() {
    let harness = H::create(Partitions::default());
    let log = harness.log();
    let values: Vec<_> = (0..100).map(|i| format!("{i}")).collect();
    for chunk in values.chunks(13) {
        log.append(chunk.iter().map(|value| RawAppend { key: None, ..to(Topic::Audit, 0, value) }).collect()).unwrap();
    }
    let mut read = Vec::new();
    loop {
        let slice = log.scan(Topic::Audit, 0, read.len() as Offset, 7).unwrap();
        assert!(slice.len() <= 7);
        if slice.is_empty() {
            break;
        }
        assert!(slice.iter().all(|record| record.key.is_none() && record.partition == 0));
        read.extend(slice.iter().map(text));
    }
    assert_eq!(read, values);
    assert!(log.scan(Topic::Audit, 0, 1_000_000, 7).unwrap().is_empty());
    assert!(log.scan(Topic::Audit, 0, 0, 0).unwrap().is_empty());
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

fn too_large() -> RawAppend {
    RawAppend { value: vec![0; MAX_RECORD_BYTES], ..signal(0, "") }
}

pub(crate) fn an_append_with_a_record_too_large_leaves_nothing<H: Harness>() {
    let harness = H::create(Partitions::default());
    let outcome = harness.log().append(vec![signal(0, "a"), too_large(), signal(0, "b")]);
    let bytes = MAX_RECORD_BYTES + "prod/Deployment/api".len();
    assert!(matches!(outcome, Err(LogError::TooLarge { topic: Topic::Signals, bytes: found }) if found == bytes), "{outcome:?}");
    assert_eq!(harness.log().range(Topic::Signals, 0).unwrap(), 0..0);
    harness.log().append(vec![signal(0, "c")]).unwrap();
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["c"]);
}

pub(crate) fn a_commit_with_a_record_too_large_leaves_nothing<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    {
        let log = harness.log();
        log.append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
        let mut session = join_as(log, "aggregate", "a", Topic::Metrics);
        poll_records(&mut *session, 1);
        let states = vec![put("k", Some("v"))];
        let outcome = session.commit(&Batch { partition: 0, position: Some(1), appends: vec![signal(0, "a"), too_large()], states });
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
    {
        let log = harness.log();
        log.append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
        let mut session = join_as(log, "aggregate", "a", Topic::Metrics);
        poll_records(&mut *session, 1);
        let appends = vec![signal(0, "a"), signal(1, "b"), signal(0, "c")];
        let states = vec![put("k2", Some("v2")), put("k1", Some("v1"))];
        session.commit(&Batch { partition: 0, position: Some(1), appends, states }).unwrap();
    }
    for _ in 0..2 {
        let log = harness.log();
        assert_eq!(all(log, Topic::Signals, 0), ["a", "c"]);
        assert_eq!(all(log, Topic::Signals, 1), ["b"]);
        assert_eq!(log.states("aggregate", 0).unwrap(), [("k1".to_owned(), b"v1".to_vec()), ("k2".to_owned(), b"v2".to_vec())]);
        assert_eq!(log.committed("aggregate", Topic::Metrics, 0).unwrap(), Some(1));
        harness.kill_and_reopen();
    }
}

pub(crate) fn a_state_can_be_replaced_and_deleted<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 1);
    let mut commit = |states| session.commit(&Batch { partition: 0, states, ..Batch::default() }).unwrap();
    commit(vec![put("kept", Some("1")), put("gone", Some("1")), put("twice", Some("1")), put("twice", Some("2"))]);
    commit(vec![put("kept", Some("2")), put("gone", None), put("never there", None)]);
    assert_eq!(harness.log().states("decide", 0).unwrap(), [("kept".to_owned(), b"2".to_vec()), ("twice".to_owned(), b"2".to_vec())]);
    assert_eq!(harness.log().committed("decide", Topic::Signals, 0).unwrap(), None, "no position was committed");
}

pub(crate) fn states_belong_to_their_group_and_partition<H: Harness>() {
    let harness = H::create(signals(2));
    let mut decide = join(harness.log(), "a");
    let mut forecast = join_as(harness.log(), "forecast", "a", Topic::Signals);
    poll_assigned(&mut *decide, 2);
    poll_assigned(&mut *forecast, 2);
    for (partition, value) in [(0, "decide 0"), (1, "decide 1")] {
        decide.commit(&Batch { states: vec![put("k", Some(value))], ..position(partition, u64::from(partition)) }).unwrap();
    }
    forecast.commit(&Batch { states: vec![put("k", Some("forecast 0"))], ..position(0, 7) }).unwrap();
    let state = |group, partition| harness.log().states(group, partition).unwrap().into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect();
    assert_eq!(
        [state("decide", 0), state("decide", 1), state("forecast", 0), state("forecast", 1)].map(|values: Vec<_>| values.join(" ")),
        ["decide 0", "decide 1", "forecast 0", ""]
    );
    let committed = |group, partition| harness.log().committed(group, Topic::Signals, partition).unwrap();
    assert_eq!([committed("decide", 0), committed("decide", 1), committed("forecast", 0), committed("forecast", 1)], [Some(0), Some(1), Some(7), None]);
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
    assert_eq!(assert_fatal(session.commit(&Batch { appends: vec![signal(2, "b")], ..position(0, 5) })), reason);
    assert_eq!(log.range(Topic::Signals, 0).unwrap(), 0..0);
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
            assert_eq!(poll_records(&mut *session, 1).iter().map(text).collect::<Vec<_>>(), [format!("{round}")]);
            let appends = vec![to(Topic::Audit, 0, format!("{round}"))];
            session.commit(&Batch { appends, ..position(0, round + 1) }).unwrap();
        }
        harness.kill_and_reopen();
    }
    assert_eq!(all(harness.log(), Topic::Signals, 0), ["0", "1", "2"]);
    assert_eq!(all(harness.log(), Topic::Audit, 0), ["0", "1", "2"]);
}

pub(crate) fn what_is_trimmed_is_a_gap_and_never_skipped_silently<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    for i in 0..10 {
        harness.log().append(vec![signal(0, format!("{i}"))]).unwrap();
    }
    let mut session = join(harness.log(), "a");
    let polled = poll_until(&mut *session, |polled| !records(polled).is_empty());
    assert!(!polled.iter().any(|polled| matches!(polled, Polled::Gap { .. })));
    session.commit(&position(0, 3)).unwrap();
    drop(session);
    harness.trim(Topic::Signals, 0, 7);
    for _ in 0..2 {
        let earliest = harness.log().range(Topic::Signals, 0).unwrap().start;
        assert!((4..=7).contains(&earliest), "{earliest}");
        let mut session = join(harness.log(), "a");
        let polled = poll_until(&mut *session, |polled| !records(polled).is_empty());
        assert_eq!(polled[0..2], [Polled::Assigned { partition: 0, position: 3 }, Polled::Gap { partition: 0, from: 3, to: earliest }]);
        assert_eq!(records(&polled).iter().map(|record| record.offset).collect::<Vec<_>>(), (earliest..10).collect::<Vec<_>>());
        assert_eq!(harness.log().scan(Topic::Signals, 0, 0, 1).unwrap()[0].offset, earliest);

        // A session that never committed begins at the earliest, which is no gap.
        let mut newcomer = join_as(harness.log(), "forecast", "a", Topic::Signals);
        let polled = poll_until(&mut *newcomer, |polled| !records(polled).is_empty());
        assert_eq!(polled[0], Polled::Assigned { partition: 0, position: earliest });
        assert!(!polled.iter().any(|polled| matches!(polled, Polled::Gap { .. })));
        drop((session, newcomer));
        harness.kill_and_reopen();
    }
}

pub(crate) fn offsets_go_on_after_everything_was_trimmed<H: Harness>() {
    let mut harness = H::create(Partitions::default());
    harness.log().append(vec![signal(0, "a"), signal(0, "b")]).unwrap();
    let mut session = join(harness.log(), "a");
    poll_assigned(&mut *session, 1);
    harness.trim(Topic::Signals, 0, 2);
    assert_eq!(harness.log().range(Topic::Signals, 0).unwrap(), 2..2);
    drop(session);
    harness.kill_and_reopen();
    let mut session = join(harness.log(), "a");
    assert_eq!(session.poll(10, Duration::ZERO).unwrap(), [Polled::Assigned { partition: 0, position: 2 }]);
    assert_eq!(harness.log().append(vec![signal(0, "c")]).unwrap(), [2]);
    assert_eq!(poll_records(&mut *session, 1)[0].offset, 2);
}
