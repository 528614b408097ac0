//! Reading a topic outside of any group.

use std::collections::BTreeMap;

use loadline::log::{Batch, Follower, Offset, Partitions, Polled, Topic};
use loadline::runtime::clock::Stopwatch;

use crate::harness::{
    DEADLINE, Harness, assert_fatal, behind, gone, join_as, nothing_is_skipped_silently, poll_records, records, signal, signals, text, to, until, while_waiting,
};

/// From these places on, of partitions 0, 1, …
fn follow(harness: &impl Harness, from: &[Offset]) -> Box<dyn Follower> {
    let from: BTreeMap<u32, Offset> = (0..).zip(from.iter().copied()).collect();
    harness.log().follow(Topic::Signals, &from).unwrap()
}

fn follow_until(follower: &mut dyn Follower, done: impl Fn(&[Polled]) -> bool) -> Vec<Polled> {
    until(|| follower.poll(3, DEADLINE).unwrap(), done)
}

/// The next `count` records, by partition.
fn next(follower: &mut dyn Follower, count: usize) -> BTreeMap<u32, Vec<String>> {
    let polled = follow_until(follower, |polled| records(polled).len() >= count);
    let mut seen = BTreeMap::<u32, Vec<String>>::new();
    for record in records(&polled) {
        seen.entry(record.partition).or_default().push(text(&record));
    }
    seen
}

pub(crate) fn every_follower_sees_all_from_where_it_began<H: Harness>() {
    let harness = H::create(signals(2));
    let offsets = harness.log().append(vec![signal(0, "a"), signal(1, "b"), signal(0, "c")]).unwrap();
    // A group that reads the same takes nothing away.
    let mut session = join_as(harness.log(), "decide", "a", Topic::Signals);
    assert_eq!(poll_records(&mut *session, 3).len(), 3);
    let (mut all, mut later) = (follow(&harness, &[]), follow(&harness, &[offsets[2]]));
    let of = |texts: [&[&str]; 2]| (0..).zip(texts.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect())).collect::<BTreeMap<u32, Vec<String>>>();
    assert_eq!(next(&mut *all, 3), of([&["a", "c"], &["b"]]));
    assert_eq!(next(&mut *later, 2), of([&["c"], &["b"]]), "a partition that is not named is read from its beginning");
    harness.log().append(vec![signal(1, "d"), to(Topic::Audit, 0, "not its own"), signal(0, "e")]).unwrap();
    for follower in [&mut all, &mut later] {
        assert_eq!(next(&mut **follower, 2), of([&["e"], &["d"]]));
        assert!(follower.poll(10, std::time::Duration::ZERO).unwrap().is_empty(), "nothing comes twice");
    }
}

pub(crate) fn a_follower_sees_no_half_of_a_commit<H: Harness>() {
    let harness = H::create(Partitions::default());
    harness.log().append(vec![to(Topic::Metrics, 0, "input")]).unwrap();
    let mut session = join_as(harness.log(), "aggregate", "a", Topic::Metrics);
    let input = poll_records(&mut *session, 1).remove(0);
    let mut follower = follow(&harness, &[]);
    let batch = |value: &str| Batch { appends: vec![signal(0, value)], ..behind(&input) };
    assert!(harness.refusing(|| session.commit(&batch("aborted"))).is_err());
    session.commit(&batch("committed")).unwrap();
    assert_eq!(next(&mut *follower, 1).remove(&0).unwrap(), ["committed"]);
}

pub(crate) fn a_follower_waits_for_what_comes_and_for_its_waker<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut follower = follow(&harness, &[]);
    let waker = follower.waker();
    waker.wake();
    let started = Stopwatch::start();
    assert!(follower.poll(10, DEADLINE).unwrap().is_empty());
    assert!(started.elapsed() < DEADLINE, "it waited until its time was over");
    assert!(while_waiting(|| follower.poll(10, DEADLINE).unwrap(), || waker.wake()).is_empty());
    let came = while_waiting(|| follow_until(&mut *follower, |polled| !polled.is_empty()), || drop(harness.log().append(vec![signal(0, "a")]).unwrap()));
    assert_eq!(records(&came).iter().map(text).collect::<Vec<_>>(), ["a"]);
}

pub(crate) fn a_follower_that_is_overtaken_is_told<H: Harness>() {
    let harness = H::create(Partitions::default());
    let offsets: Vec<Offset> = (0..10).flat_map(|i| harness.log().append(vec![signal(0, format!("{i}"))]).unwrap()).collect();
    let last = *offsets.last().unwrap();
    let mut follower = follow(&harness, &[]);
    let mut polled = Vec::new();
    while records(&polled).is_empty() {
        polled.extend(follower.poll(2, DEADLINE).unwrap());
    }
    harness.trim(Topic::Signals, 0, offsets[7]);
    let to_the_end = |polled: &[Polled]| records(polled).iter().any(|record| record.offset == last);
    polled.extend(follow_until(&mut *follower, to_the_end));
    nothing_is_skipped_silently(&offsets, 0, &polled);
    // And one that begins where nothing is any more.
    let polled = follow_until(&mut *follow(&harness, &[offsets[2]]), to_the_end);
    nothing_is_skipped_silently(&offsets, offsets[2], &polled);
    assert_eq!(gone(&polled).first().map(|(from, _)| *from), Some(offsets[2]), "{polled:?}");
}

pub(crate) fn closing_ends_a_follower<H: Harness>() {
    let harness = H::create(Partitions::default());
    let mut follower = follow(&harness, &[]);
    assert_fatal(while_waiting(|| follower.poll(10, DEADLINE), || harness.log().close()));
    assert!(harness.log().follow(Topic::Signals, &BTreeMap::new()).is_err());
}
