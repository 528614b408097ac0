//! What is to be appended, partition by partition: each in its order, and none waits for another one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tracing::{debug, error};

use crate::log::{Log, LogError, RawAppend, Told, Topic};
use crate::runtime::clock::Stopwatch;

/// The wait before a failed append is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// After so long what was seen is seen anew, and only alerts are kept.
const KEPT_FOR: Duration = Duration::from_secs(5);

type Place = (Topic, u32);
type Answer = (Place, Result<(), LogError>);

/// So many records wait for a partition; beyond it the oldest go.
const MAX_WAITS: usize = 4096;

/// So many are appended at once.
const MAX_CALL: usize = 512;

/// The records of all partitions that wait for the log.
pub(super) struct Lanes {
    by_place: BTreeMap<Place, Lane>,
    /// What found no room.
    dropped: Settled,
    answers: (Sender<Answer>, Receiver<Answer>),
}

/// Those of one partition.
#[derive(Default)]
struct Lane {
    waits: VecDeque<RawAppend>,
    under_way: Vec<RawAppend>,
    /// Since when it fails, and when it was tried last.
    fails: Option<(Stopwatch, Stopwatch)>,
}

/// What became of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// So many alerts are in the log, or cannot ever be.
    pub(super) alerts: usize,
    /// What was seen of fleets was given up: it is to be seen anew.
    pub(super) is_forgotten: bool,
}

/// How many alerts there are among so many records of a topic.
fn alerts_among(topic: Topic, count: usize) -> usize {
    if topic == Topic::Alerts { count } else { 0 }
}

impl Settled {
    /// So many records of a topic that will not be appended.
    fn of(topic: Topic, count: usize) -> Settled {
        Settled { alerts: alerts_among(topic, count), is_forgotten: topic == Topic::Signals }
    }

    fn add(&mut self, more: Settled) {
        self.alerts += more.alerts;
        self.is_forgotten |= more.is_forgotten;
    }
}

impl Lanes {
    pub(super) fn new() -> Self {
        Lanes { by_place: BTreeMap::new(), dropped: Settled::default(), answers: channel() }
    }

    /// Takes records that are to be appended, each behind those of its partition.
    pub(super) fn put(&mut self, appends: Vec<RawAppend>) {
        for append in appends {
            let lane = self.by_place.entry((append.topic, append.partition)).or_default();
            if lane.waits.len() >= MAX_WAITS {
                lane.waits.pop_front();
                self.dropped.add(Settled::of(append.topic, 1));
            }
            lane.waits.push_back(append);
        }
    }

    /// Whether something waits, or is being appended.
    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Whether something may come to its end soon: what has failed is waited for by nobody.
    pub(super) fn is_busy(&self) -> bool {
        self.by_place.values().any(|lane| lane.fails.is_none())
    }

    /// Appends what can be, and hears what came of it.
    ///
    /// # Errors
    /// [`LogError::Fatal`].
    pub(super) fn go_on(&mut self, log: &dyn Log) -> Result<Settled, LogError> {
        let mut settled = std::mem::take(&mut self.dropped);
        settled.add(self.hear()?);
        let mut calls: Vec<(Vec<RawAppend>, Told)> = Vec::new();
        for (place, lane) in &mut self.by_place {
            if !lane.under_way.is_empty() || lane.fails.as_ref().is_some_and(|(_, tried)| tried.elapsed() < RETRY_WAIT) {
                continue;
            }
            lane.under_way = lane.waits.drain(..lane.waits.len().min(MAX_CALL)).collect();
            let (place, answers) = (*place, self.answers.0.clone());
            calls.push((lane.under_way.clone(), Box::new(move |outcome| drop(answers.send((place, outcome))))));
        }
        if !calls.is_empty() {
            log.append_each(calls);
            settled.add(self.hear()?);
        }
        Ok(settled)
    }

    fn hear(&mut self) -> Result<Settled, LogError> {
        let mut settled = Settled::default();
        while let Ok((place, outcome)) = self.answers.1.try_recv() {
            let Some(lane) = self.by_place.get_mut(&place) else { continue };
            let tried = std::mem::take(&mut lane.under_way);
            match outcome {
                Ok(()) => {
                    settled.alerts += alerts_among(place.0, tried.len());
                    lane.fails = None;
                }
                Err(LogError::Fatal { reason }) => return Err(LogError::Fatal { reason }),
                Err(error @ LogError::TooLarge { .. }) => {
                    error!(event = "observations-lost", %error, "failed to append what was observed; this is a fault of the program");
                    settled.alerts += alerts_among(place.0, tried.len());
                    lane.fails = None;
                }
                Err(error) => {
                    // `Log::trouble` tells of it.
                    debug!(event = "observations-retried", %error, "failed to append what was observed; trying again");
                    let since = lane.fails.take().map_or_else(Stopwatch::start, |(since, _)| since);
                    tried.into_iter().rev().for_each(|append| lane.waits.push_front(append));
                    if place.0 != Topic::Alerts && since.elapsed() >= KEPT_FOR {
                        settled.is_forgotten |= place.0 == Topic::Signals;
                        lane.waits.clear();
                    }
                    lane.fails = Some((since, Stopwatch::start()));
                }
            }
        }
        self.by_place.retain(|_, lane| !(lane.waits.is_empty() && lane.under_way.is_empty()));
        Ok(settled)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::log::Partitions;
    use crate::log::memory::MemoryLog;
    use crate::log::testing::Refusing;
    use crate::model::Timestamp;
    use crate::runtime::clock::ManualClock;

    /// What one partition does not take waits there in its order; the others go on.
    #[test]
    fn what_is_not_taken_holds_no_other_partition_up() {
        let log = MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(Timestamp::from_millis(500))));
        let refuses = Arc::new(AtomicBool::new(true));
        let refusing = Refusing { log: log.clone(), topic: Topic::Alerts, refuses: Arc::clone(&refuses) };
        let append = |topic, value: &str| RawAppend { topic, partition: 0, key: None, value: value.as_bytes().to_vec() };
        let values = |topic| log.scan(topic, 0, 0, 10).unwrap().into_iter().map(|record| String::from_utf8(record.value).unwrap()).collect::<Vec<_>>();
        let mut lanes = Lanes::new();
        lanes.put(vec![append(Topic::Alerts, "fires"), append(Topic::Signals, "one")]);
        assert!(lanes.is_busy());
        assert_eq!(lanes.go_on(&refusing).unwrap(), Settled::default());
        assert_eq!((values(Topic::Signals), lanes.is_empty(), lanes.is_busy()), (vec!["one".to_owned()], false, false));
        lanes.put(vec![append(Topic::Alerts, "is over"), append(Topic::Signals, "two")]);
        lanes.go_on(&refusing).unwrap();
        assert_eq!((values(Topic::Signals).len(), values(Topic::Alerts).len()), (2, 0));
        refuses.store(false, Ordering::SeqCst);
        let mut alerts = 0;
        while !lanes.is_empty() {
            alerts += lanes.go_on(&refusing).unwrap().alerts;
        }
        assert_eq!((values(Topic::Alerts), alerts), (vec!["fires".to_owned(), "is over".to_owned()], 2));
        // There is an end to what waits, and what went is not waited for.
        refuses.store(true, Ordering::SeqCst);
        lanes.put(vec![append(Topic::Alerts, "one of many"); MAX_WAITS + 3]);
        assert_eq!(lanes.go_on(&refusing).unwrap(), Settled { alerts: 3, is_forgotten: false });
    }
}
