//! What an undisturbed run would have written, kept beside the program that is killed: each stage folded once, in one
//! go, over the log that all its lives wrote together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use loadline::log::embedded::{EmbeddedLog, ReadOnlyLog};
use loadline::log::{Offset, RawRecord, Topic};
use loadline::model::{Amount, Audit, Message, OutcomeResult, RequestsEntry, Signal, Sketch};
use loadline::stages::arbitrate::{self, Arbitrate};
use loadline::stages::decide::{self, Decide};
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire;

use super::load::{PRODUCERS, Told, stamp, target};

/// A topic that is read on from where it was left.
struct Reading {
    topic: Topic,
    next: Offset,
}

impl Reading {
    fn of(topic: Topic) -> Reading {
        Reading { topic, next: 0 }
    }

    /// The records before `end`, or all that are there.
    fn read(&mut self, log: &ReadOnlyLog, end: Option<Offset>) -> Vec<RawRecord> {
        let mut records = Vec::new();
        loop {
            let slice = log.scan(self.topic, 0, self.next, 10_000).unwrap();
            let before = records.len();
            records.extend(slice.into_iter().take_while(|record| end.is_none_or(|end| record.offset < end)));
            if records.len() == before {
                return records;
            }
            self.next = records.last().map_or(0, |last: &RawRecord| last.offset + 1);
        }
    }
}

/// How often something was measured, and the sum of it.
type Totals = BTreeMap<(String, String), (i64, Amount)>;

/// Everything that is compared.
pub(crate) struct Ledger<'a> {
    targets: &'a [&'a str],
    metrics: Reading,
    aggregated: Reading,
    signals: Reading,
    decided: Reading,
    requested: Reading,
    commands: Reading,
    audit: Reading,
    /// The stamps of each producer that stand on `metrics`.
    stamps: Vec<BTreeSet<u64>>,
    /// What aggregate has read, and what it has written.
    read: Totals,
    written: Totals,
    decide: decide::State,
    arbitrate: arbitrate::State,
    /// The decisions so far.
    pub(crate) decisions: usize,
    /// The ids of all commands, with the revisions of their targets that they led to.
    pub(crate) issued: BTreeMap<String, Option<i64>>,
    /// How often a fleet's count was changed.
    pub(crate) changes: i64,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(targets: &'a [&'a str]) -> Ledger<'a> {
        Ledger {
            targets,
            metrics: Reading::of(Topic::Metrics),
            aggregated: Reading::of(Topic::Metrics),
            signals: Reading::of(Topic::Signals),
            decided: Reading::of(Topic::Signals),
            requested: Reading::of(Topic::Requests),
            commands: Reading::of(Topic::Commands),
            audit: Reading::of(Topic::Audit),
            stamps: vec![BTreeSet::new(); PRODUCERS],
            read: Totals::new(),
            written: Totals::new(),
            decide: decide::State::default(),
            arbitrate: arbitrate::State::default(),
            decisions: 0,
            issued: BTreeMap::new(),
            changes: 0,
        }
    }

    /// Reads what came since the last time and compares everything; the program does not run.
    pub(crate) fn compare(&mut self, data: &Path, told: &[Told]) {
        // A program that was killed in its first moments has written nothing yet.
        let Ok(log) = EmbeddedLog::open_read_only(data) else {
            assert!(told.iter().all(|told| told.acknowledged.is_empty()));
            return;
        };
        self.acknowledged_samples_stand_once(&log, told);
        self.each_sample_is_in_one_pane(&log);
        self.decisions_are_the_folds(&log);
        self.commands_are_the_folds(&log);
        self.no_command_took_effect_twice(data);
    }

    /// Compares only what was decided and commanded.
    pub(crate) fn compare_decisions(&mut self, data: &Path) {
        let log = EmbeddedLog::open_read_only(data).unwrap();
        self.decisions_are_the_folds(&log);
        self.commands_are_the_folds(&log);
        self.no_command_took_effect_twice(data);
    }

    /// A request that was acknowledged is there with all its samples, one whose answer was lost with all or none; and
    /// nothing is there twice.
    fn acknowledged_samples_stand_once(&mut self, log: &ReadOnlyLog, told: &[Told]) {
        for record in self.metrics.read(log, None) {
            let Message::Samples(batch) = wire::decode(Topic::Metrics, &record.value).unwrap() else { panic!("samples") };
            for sample in batch.samples.iter().filter(|sample| sample.metric.as_str() == "stamp") {
                let producer: usize = sample.instance.as_str().strip_prefix("producer-").unwrap().parse().unwrap();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "stamps are whole numbers")]
                let stamp = sample.value as u64;
                assert!(self.stamps[producer].insert(stamp), "sample {stamp} of producer {producer} stands there twice");
            }
        }
        let all = self.targets.len();
        for (producer, told) in told.iter().enumerate() {
            let there = |request: u64| (0..all).filter(|target| self.stamps[producer].contains(&stamp(all, *target, request))).count();
            for request in &told.acknowledged {
                assert_eq!(there(*request), all, "request {request} of producer {producer} was acknowledged and is lost");
            }
            let unknown: usize = told.unknown.iter().map(|request| there(*request)).sum();
            for request in &told.unknown {
                assert!([0, all].contains(&there(*request)), "half of request {request} of producer {producer} is there");
            }
            assert_eq!(self.stamps[producer].len(), told.acknowledged.len() * all + unknown, "nothing else is there");
        }
    }

    /// What aggregate has read up to its position it has written, to the last digit.
    fn each_sample_is_in_one_pane(&mut self, log: &ReadOnlyLog) {
        let position = log.committed("aggregate", Topic::Metrics, 0).unwrap().unwrap_or(0);
        for record in self.aggregated.read(log, Some(position)) {
            let Message::Samples(batch) = wire::decode(Topic::Metrics, &record.value).unwrap() else { panic!("samples") };
            for sample in batch.samples {
                for target in &sample.targets {
                    add(&mut self.read, (target.as_str(), sample.metric.as_str()), 1, Amount::from_f64(sample.value).unwrap());
                }
            }
        }
        for record in self.signals.read(log, None) {
            match wire::decode(Topic::Signals, &record.value).unwrap() {
                Message::Signal(Signal::Part(part)) => {
                    for pane in &part.panes {
                        let observed = pane.sketch.as_ref().map_or(0, Sketch::count);
                        let counted: i64 = pane.instances.values().map(|reading| reading.count).sum();
                        assert!(pane.sketch.is_none() || observed == counted, "{pane:?}");
                        for reading in pane.instances.values() {
                            add(&mut self.written, (part.target.as_str(), pane.metric.as_str()), reading.count, reading.sum);
                        }
                    }
                }
                Message::Signal(Signal::Mark(mark)) => assert_eq!(mark.rejected, 0, "nothing is refused"),
                _ => {}
            }
        }
        // The fleets' own measurements stand there, too; they come by way of `metrics` like all others.
        assert_eq!(self.written, self.read);
    }

    /// What decide wrote up to its position is what one fold over the signals up to there writes, byte for byte.
    fn decisions_are_the_folds(&mut self, log: &ReadOnlyLog) {
        let position = log.committed("decide", Topic::Signals, 0).unwrap().unwrap_or(0);
        let mut undisturbed = Vec::new();
        for record in self.decided.read(log, Some(position)) {
            let Message::Signal(signal) = wire::decode(Topic::Signals, &record.value).unwrap() else { panic!("a signal") };
            for message in fold(&Decide::default(), &mut self.decide, &record, signal) {
                if matches!(message, Message::Audit(Audit::Decision(_))) {
                    undisturbed.push(wire::encode(&message));
                }
            }
        }
        let mut written = Vec::new();
        for record in self.audit.read(log, None) {
            match wire::decode(Topic::Audit, &record.value).unwrap() {
                Message::Audit(Audit::Decision(_)) => written.push(record.value),
                Message::Audit(Audit::Outcome(outcome)) if outcome.result == OutcomeResult::Applied => {
                    let before = self.issued.insert(outcome.command.clone(), outcome.revision);
                    assert_eq!(before, Some(None), "{outcome:?}: a command is issued before it is applied, and applied once");
                }
                Message::Audit(Audit::Command(command)) => {
                    let before = self.issued.insert(command.id.clone(), None);
                    assert_eq!(before, None, "{command:?} was issued twice");
                }
                _ => {}
            }
        }
        self.decisions += written.len();
        for (number, (written, undisturbed)) in written.iter().zip(&undisturbed).enumerate() {
            let read = |bytes: &[u8]| wire::decode(Topic::Audit, bytes);
            assert_eq!(written, undisturbed, "decision {number} of this life: {:?} {:?}", read(written), read(undisturbed));
        }
        assert_eq!(written.len(), undisturbed.len(), "as many decisions");
    }

    /// The same of arbitrate: its commands.
    fn commands_are_the_folds(&mut self, log: &ReadOnlyLog) {
        let position = log.committed("arbitrate", Topic::Requests, 0).unwrap().unwrap_or(0);
        let mut undisturbed = Vec::new();
        for record in self.requested.read(log, Some(position)) {
            let message = wire::decode(Topic::Requests, &record.value).unwrap();
            let entry = RequestsEntry::try_from(message).unwrap();
            let commands =
                fold(&Arbitrate::default(), &mut self.arbitrate, &record, entry).into_iter().filter(|message| matches!(message, Message::Command(_)));
            undisturbed.extend(commands);
        }
        let written: Vec<Message> = self.commands.read(log, None).iter().map(|record| wire::decode(Topic::Commands, &record.value).unwrap()).collect();
        assert_eq!(written, undisturbed);
    }

    fn no_command_took_effect_twice(&mut self, data: &Path) {
        self.changes = self.targets.iter().filter_map(|name| changes_by_command(data, name, &self.issued)).sum();
    }

    /// How many samples were taken.
    pub(crate) fn samples(&self) -> i64 {
        self.written.values().map(|(count, _)| count).sum()
    }
}

fn add(totals: &mut Totals, (target, metric): (&str, &str), count: i64, sum: Amount) {
    let total = totals.entry((target.to_owned(), metric.to_owned())).or_insert((0, Amount::ZERO));
    *total = (total.0 + count, total.1 + sum);
}

fn fold<S: Stage>(stage: &S, state: &mut S::State, record: &RawRecord, entry: S::Record) -> Vec<Message> {
    let mut effects = Effects::new();
    let located = Located { partition: record.partition, offset: record.offset, at: record.at, record: entry };
    stage.apply(state, Input::Record(located), &mut effects);
    effects.take().into_iter().map(|effect| effect.message).collect()
}

/// How often a fleet's record was changed, each time by one command of those that were issued (with the revision that it is said to have made):
/// its revision counts the changes. `None` where there is no record.
pub(crate) fn changes_by_command(data: &Path, fleet: &str, issued: &BTreeMap<String, Option<i64>>) -> Option<i64> {
    let text = std::fs::read(data.join("fleets/local").join(fleet).join("state.json")).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let changes = record["revision"].as_i64().unwrap() - 1;
    let prefix = format!("{}#", target(fleet));
    let of_target: Vec<Option<i64>> = issued.iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(_, revision)| *revision).collect();
    let applied: Vec<i64> = of_target.iter().flatten().copied().collect();
    let distinct: BTreeSet<i64> = applied.iter().copied().collect();
    assert_eq!(distinct.len(), applied.len(), "two commands for one change of {fleet}");
    assert!(applied.iter().all(|revision| (2..=changes + 1).contains(revision)), "{applied:?} of {changes} changes of {fleet}");
    assert!(usize::try_from(changes).unwrap() <= of_target.len(), "{changes} changes of {fleet} by {} commands", of_target.len());
    Some(changes)
}
