//! Random operations: each log against a model that is too simple to be wrong, so that the logs
//! agree with each other too.

use std::collections::BTreeMap;

use loadline::log::{Batch, LogError, MAX_RECORD_BYTES, Offset, Polled, RawAppend, Session, Topic};
use proptest::prelude::*;

use crate::harness::{DEADLINE, EmbeddedHarness, GappedHarness, Harness, MemoryHarness, all, assigned, gone, join, put, records, signal, signals, text};

const PARTITIONS: u32 = 2;

#[derive(Debug, Clone)]
enum Operation {
    /// Append so many records to each of these partitions.
    Append(Vec<(u32, u8)>),
    Poll {
        max: usize,
    },
    /// Commit the position of what was read, less `back`; append; put or delete a state.
    Commit {
        partition: u32,
        back: usize,
        appends: u8,
        state: Option<(u8, bool)>,
        too_large: bool,
    },
    /// Another session of the same name takes over.
    TakeOver,
    Leave,
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        3 => proptest::collection::vec((partition.clone(), 1..5_u8), 1..4).prop_map(Operation::Append),
        4 => (1..12_usize).prop_map(|max| Operation::Poll { max }),
        4 => (partition, 0..3_usize, 0..3_u8, proptest::option::of((0..3_u8, any::<bool>())), proptest::bool::weighted(0.1))
            .prop_map(|(partition, back, appends, state, too_large)| Operation::Commit { partition, back, appends, state, too_large }),
        1 => Just(Operation::TakeOver),
        1 => Just(Operation::Leave),
        1 => Just(Operation::Kill),
    ]
}

#[derive(Default)]
struct Model {
    /// The values in each partition, in order.
    values: BTreeMap<u32, Vec<String>>,
    /// The offsets of those that were read.
    offsets: BTreeMap<u32, Vec<Offset>>,
    /// What was committed: the position, and how many values are before it.
    positions: BTreeMap<u32, (Offset, usize)>,
    states: BTreeMap<(u32, String), String>,
    /// How many values the session has read, of the partitions that it owns.
    owned: BTreeMap<u32, usize>,
    written: usize,
}

impl Model {
    /// New records, noted where `kept`.
    fn write(&mut self, partition: u32, count: u8, kept: bool) -> Vec<RawAppend> {
        let new: Vec<_> = (0..count).map(|i| format!("{}", self.written + usize::from(i))).collect();
        self.written += new.len();
        let appends = new.iter().map(|value| signal(partition, value)).collect();
        if kept {
            self.values.entry(partition).or_default().extend(new);
        }
        appends
    }

    /// Polls until something came that was to come.
    fn poll(&mut self, session: &mut dyn Session, start: Offset, max: usize) {
        while self.owned.len() < PARTITIONS as usize {
            let polled = session.poll(max, DEADLINE).unwrap();
            for (partition, position) in assigned(&polled) {
                let (expected, before) = self.positions.get(&partition).copied().unwrap_or((start, 0));
                assert_eq!(position, expected);
                assert_eq!(self.owned.insert(partition, before), None);
            }
            self.take(&polled, max);
        }
        if self.owned.iter().any(|(partition, read)| *read < self.length(*partition)) {
            let polled = session.poll(max, DEADLINE).unwrap();
            assert!(assigned(&polled).is_empty());
            self.take(&polled, max);
        }
    }

    fn take(&mut self, polled: &[Polled], max: usize) {
        let records = records(polled);
        assert!(records.len() <= max);
        assert!(gone(polled).is_empty(), "a hole between offsets is no loss: {polled:?}");
        for record in records {
            let index = self.owned.get_mut(&record.partition).unwrap();
            assert_eq!(text(&record), self.values[&record.partition][*index]);
            let offsets = self.offsets.entry(record.partition).or_default();
            if let Some(offset) = offsets.get(*index) {
                assert_eq!(record.offset, *offset, "the same as at the first time");
            } else {
                assert!(offsets.last().is_none_or(|last| *last < record.offset));
                offsets.push(record.offset);
            }
            *index += 1;
        }
    }

    fn length(&self, partition: u32) -> usize {
        self.values.get(&partition).map_or(0, Vec::len)
    }

    /// The position behind so many values.
    fn position(&self, partition: u32, values: usize, start: Offset) -> Offset {
        values.checked_sub(1).map_or(start, |last| self.offsets[&partition][last] + 1)
    }
}

fn run<H: Harness>(operations: &[Operation]) {
    let mut harness = H::create(signals(PARTITIONS));
    let start = harness.log().range(Topic::Signals, 0).unwrap().start;
    let mut model = Model::default();
    let mut session: Option<Box<dyn Session>> = None;
    for operation in operations {
        match operation {
            Operation::Append(parts) => {
                let appends = parts.iter().flat_map(|(partition, count)| model.write(*partition, *count, true)).collect();
                harness.log().append(appends).unwrap();
            }
            Operation::Poll { max } => model.poll(&mut **session.get_or_insert_with(|| join(harness.log(), "a")), start, *max),
            Operation::Commit { partition, back, appends, state, too_large } => {
                let Some(session) = &mut session else { continue };
                let values = model.owned.get(partition).map(|read| read.saturating_sub(*back));
                let next = values.map(|values| (model.position(*partition, values, start), values));
                let kept = next.is_some() && !too_large;
                let mut appends = model.write(1 - *partition, *appends, kept);
                if *too_large {
                    appends.push(RawAppend { value: vec![0; MAX_RECORD_BYTES + 1], ..signal(*partition, "") });
                }
                let state = state.map(|(key, exists)| (format!("k{key}"), exists.then(|| format!("v{}", model.written))));
                let states = state.iter().map(|(key, value)| put(key, value.as_deref())).collect();
                let outcome = session.commit(&Batch { partition: *partition, position: next.map(|(position, _)| position), appends, states });
                match outcome {
                    Ok(()) => assert!(kept),
                    Err(LogError::TooLarge { .. }) => assert!(too_large),
                    Err(LogError::Fenced { .. }) => assert!(next.is_none()),
                    Err(error) => panic!("{error}"),
                }
                if kept {
                    model.positions.extend(next.map(|next| (*partition, next)));
                    match state {
                        Some((key, Some(value))) => drop(model.states.insert((*partition, key), value)),
                        Some((key, None)) => drop(model.states.remove(&(*partition, key))),
                        None => {}
                    }
                }
            }
            Operation::TakeOver => {
                session = Some(join(harness.log(), "a"));
                model.owned.clear();
            }
            Operation::Leave => {
                session = None;
                model.owned.clear();
            }
            Operation::Kill => {
                session = None;
                model.owned.clear();
                harness.kill_and_reopen();
            }
        }
    }
    drop(session);
    harness.kill_and_reopen();
    for partition in 0..PARTITIONS {
        assert_eq!(all(harness.log(), Topic::Signals, partition), model.values.get(&partition).cloned().unwrap_or_default());
        let committed = harness.log().committed("decide", Topic::Signals, partition).unwrap();
        assert_eq!(committed, model.positions.get(&partition).map(|(position, _)| *position));
        let states: Vec<_> =
            harness.log().states("decide", partition).unwrap().into_iter().map(|(key, value)| (key, String::from_utf8(value).unwrap())).collect();
        let expected = model.states.iter().filter(|((of, _), _)| *of == partition).map(|((_, key), value)| (key.clone(), value.clone()));
        assert_eq!(states, expected.collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_log_does_what_the_model_does(operations in proptest::collection::vec(operation(), 1..60), gaps in any::<bool>()) {
        if gaps { run::<GappedHarness>(&operations) } else { run::<MemoryHarness>(&operations) }
    }
}

proptest! {
    // Each commit syncs the disk, so fewer.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_log_does_what_the_model_does(operations in proptest::collection::vec(operation(), 1..60)) {
        run::<EmbeddedHarness>(&operations);
    }
}
