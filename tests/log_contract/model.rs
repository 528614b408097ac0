//! Random operations: each log against a model that is too simple to be wrong, so that the logs
//! agree with each other too.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::log::{Batch, LogError, MAX_RECORD_BYTES, Offset, RawAppend, Session, Topic};
use proptest::prelude::*;

use crate::harness::{EmbeddedHarness, Harness, MemoryHarness, all, assigned, join, put, records, signal, signals, text};

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
        back: u64,
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
        4 => (partition, 0..3_u64, 0..3_u8, proptest::option::of((0..3_u8, any::<bool>())), proptest::bool::weighted(0.1))
            .prop_map(|(partition, back, appends, state, too_large)| Operation::Commit { partition, back, appends, state, too_large }),
        1 => Just(Operation::TakeOver),
        1 => Just(Operation::Leave),
        1 => Just(Operation::Kill),
    ]
}

#[derive(Default)]
struct Model {
    records: BTreeMap<u32, Vec<String>>,
    positions: BTreeMap<u32, Offset>,
    states: BTreeMap<(u32, String), String>,
    /// What the session reads next, of the partitions that it owns.
    owned: BTreeMap<u32, Offset>,
    written: usize,
}

impl Model {
    /// New records, noted where `kept`.
    fn write(&mut self, partition: u32, count: u8, kept: bool) -> Vec<RawAppend> {
        let new: Vec<_> = (0..count).map(|i| format!("{}", self.written + usize::from(i))).collect();
        self.written += new.len();
        let appends = new.iter().map(|value| signal(partition, value)).collect();
        if kept {
            self.records.entry(partition).or_default().extend(new);
        }
        appends
    }

    fn poll(&mut self, session: &mut dyn Session, max: usize) {
        let polled = session.poll(max, Duration::ZERO).unwrap();
        if self.owned.is_empty() {
            self.owned = (0..PARTITIONS).map(|partition| (partition, self.positions.get(&partition).copied().unwrap_or(0))).collect();
            assert_eq!(assigned(&polled), self.owned.iter().map(|(partition, position)| (*partition, *position)).collect::<Vec<_>>());
        } else {
            assert!(assigned(&polled).is_empty());
        }
        let unread: usize = self.owned.iter().map(|(partition, next)| self.length(*partition) - usize::try_from(*next).unwrap()).sum();
        let records = records(&polled);
        assert_eq!(records.len(), unread.min(max));
        for record in records {
            let next = self.owned.get_mut(&record.partition).unwrap();
            assert_eq!(record.offset, *next);
            assert_eq!(text(&record), self.records[&record.partition][usize::try_from(*next).unwrap()]);
            *next += 1;
        }
    }

    fn length(&self, partition: u32) -> usize {
        self.records.get(&partition).map_or(0, Vec::len)
    }
}

fn run<H: Harness>(operations: &[Operation]) {
    let mut harness = H::create(signals(PARTITIONS));
    let mut model = Model::default();
    let mut session: Option<Box<dyn Session>> = None;
    for operation in operations {
        match operation {
            Operation::Append(parts) => {
                let appends = parts.iter().flat_map(|(partition, count)| model.write(*partition, *count, true)).collect();
                harness.log().append(appends).unwrap();
            }
            Operation::Poll { max } => model.poll(&mut **session.get_or_insert_with(|| join(harness.log(), "a")), *max),
            Operation::Commit { partition, back, appends, state, too_large } => {
                let Some(session) = &mut session else { continue };
                let next = model.owned.get(partition).map(|next| next.saturating_sub(*back));
                let kept = next.is_some() && !too_large;
                let mut appends = model.write(1 - *partition, *appends, kept);
                if *too_large {
                    appends.push(RawAppend { value: vec![0; MAX_RECORD_BYTES + 1], ..signal(*partition, "") });
                }
                let state = state.map(|(key, exists)| (format!("k{key}"), exists.then(|| format!("v{}", model.written))));
                let states = state.iter().map(|(key, value)| put(key, value.as_deref())).collect();
                let outcome = session.commit(&Batch { partition: *partition, position: next, appends, states });
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
        assert_eq!(all(harness.log(), Topic::Signals, partition), model.records.get(&partition).cloned().unwrap_or_default());
        assert_eq!(harness.log().committed("decide", Topic::Signals, partition).unwrap(), model.positions.get(&partition).copied());
        let states: Vec<_> =
            harness.log().states("decide", partition).unwrap().into_iter().map(|(key, value)| (key, String::from_utf8(value).unwrap())).collect();
        let expected = model.states.iter().filter(|((of, _), _)| *of == partition).map(|((_, key), value)| (key.clone(), value.clone()));
        assert_eq!(states, expected.collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_log_does_what_the_model_does(operations in proptest::collection::vec(operation(), 1..60)) {
        run::<MemoryHarness>(&operations);
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
