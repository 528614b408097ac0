//! What must hold afterwards, told from what the log holds and what the producers and fleets know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use loadline::log::kafka::{KafkaLog, Options};
use loadline::log::{Log, Offset, RawRecord, Topic, partition_of};
use loadline::model::{Amount, Audit, Message, MetricStatus, Outcome, OutcomeResult, RequestsEntry, Signal, Sketch};
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::Decide;
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire::{self, jsonl};

use crate::common::LOADLINE;
use crate::common::ledger::changes_by_command;
use crate::producers::{Place, Sent};

/// A partition that is read on from where it was left.
pub(crate) struct Reading {
    topic: Topic,
    partition: u32,
    next: Offset,
}

impl Reading {
    /// All partitions of a topic, from their beginning.
    pub(crate) fn of(log: &KafkaLog, topic: Topic) -> Vec<Reading> {
        (0..log.partitions(topic)).map(|partition| Reading { topic, partition, next: 0 }).collect()
    }

    /// What came since the last time.
    pub(crate) fn read(&mut self, log: &KafkaLog) -> Vec<RawRecord> {
        let mut records = Vec::new();
        loop {
            let slice = log.scan(self.topic, self.partition, self.next, 10_000).unwrap();
            let Some(last) = slice.last() else { return records };
            self.next = last.offset + 1;
            records.extend(slice);
        }
    }
}

/// What stands in the log when nothing runs any more.
pub(crate) struct Standing<'a> {
    log: &'a KafkaLog,
    signals: Messages,
    requests: Messages,
    commands: Messages,
    audit: Messages,
}

/// All messages of a topic, by partition.
type Messages = Vec<Vec<(RawRecord, Message)>>;

impl Standing<'_> {
    pub(crate) fn read(log: &KafkaLog) -> Standing<'_> {
        let all = |topic: Topic| -> Messages {
            let message = |record: RawRecord| (record.clone(), wire::decode(topic, &record.value).unwrap());
            Reading::of(log, topic).into_iter().map(|mut reading| reading.read(log).into_iter().map(message).collect()).collect()
        };
        Standing { log, signals: all(Topic::Signals), requests: all(Topic::Requests), commands: all(Topic::Commands), audit: all(Topic::Audit) }
    }

    /// Each sample that was acknowledged is in the one pane that it belongs to; one that was not, in it at most as often as it was tried. How many samples are there.
    pub(crate) fn each_sample_is_in_one_pane(&self, sent: &BTreeMap<Place, Sent>) -> i64 {
        let metrics: BTreeSet<&str> = sent.keys().map(|(_, metric, ..)| metric.as_str()).collect();
        let mut found: BTreeMap<Place, (i64, Amount)> = BTreeMap::new();
        for (_, message) in self.signals.iter().flatten() {
            match message {
                Message::Signal(Signal::Part(part)) => {
                    for pane in part.panes.iter().filter(|pane| metrics.contains(pane.metric.as_str())) {
                        let counted: i64 = pane.instances.values().map(|reading| reading.count).sum();
                        assert!(pane.sketch.as_ref().is_none_or(|sketch: &Sketch| sketch.count() == counted), "{pane:?}");
                        for (instance, reading) in &pane.instances {
                            let place = (part.target.to_string(), pane.metric.to_string(), instance.to_string(), pane.start.as_millis());
                            let (count, sum) = found.entry(place).or_insert((0, Amount::ZERO));
                            (*count, *sum) = (*count + reading.count, *sum + reading.sum);
                        }
                    }
                }
                Message::Signal(Signal::Mark(mark)) => assert_eq!(mark.rejected, 0, "nothing is refused: {mark:?}"),
                _ => {}
            }
        }
        for (place, sent) in sent {
            let (count, sum) = found.get(place).copied().unwrap_or((0, Amount::ZERO));
            assert!(sent.count().contains(&count), "{place:?} has {count} samples: {sent:?}");
            assert!(count > sent.acknowledged || sum == sent.sum, "{place:?} has other samples, of {sum:?} together: {sent:?}");
        }
        let foreign: Vec<&Place> = found.keys().filter(|place| !sent.contains_key(*place)).collect();
        assert!(foreign.is_empty(), "samples that nobody sent: {foreign:?}");
        found.values().map(|(count, _)| count).sum()
    }

    /// What a stage writes that folds its input up to where the group came, in one go and undisturbed.
    fn undisturbed<S: Stage>(&self, stage: &S, input: &Messages, entry: impl Fn(Message) -> S::Record) -> Vec<Vec<Message>> {
        let fold = |(partition, input): (u32, &Vec<(RawRecord, Message)>)| {
            let end = self.log.committed(S::NAME, S::INPUT, partition).unwrap().unwrap_or(0);
            let (mut state, mut effects) = (S::State::default(), Effects::new());
            for (record, message) in input.iter().take_while(|(record, _)| record.offset < end) {
                let located = Located { partition, offset: record.offset, at: record.at, record: entry(message.clone()) };
                stage.apply(&mut state, Input::Record(located), &mut effects);
            }
            effects.take().into_iter().map(|effect| effect.message).collect()
        };
        (0..).zip(input).map(fold).collect()
    }

    /// The decisions on `audit` are those of one undisturbed fold of each partition of `signals`, byte for byte and in its order. How many there are.
    pub(crate) fn decisions_are_the_folds(&self) -> usize {
        let of_fold = self.undisturbed(&Decide::default(), &self.signals, |message| {
            let Message::Signal(signal) = message else { panic!("a signal") };
            signal
        });
        let mut count = 0;
        // A target has the same partition on both.
        for (partition, (of_fold, audit)) in of_fold.into_iter().zip(&self.audit).enumerate() {
            let is_decision = |message: &Message| matches!(message, Message::Audit(Audit::Decision(_)));
            let expected: Vec<Message> = of_fold.into_iter().filter(is_decision).collect();
            let written: Vec<&(RawRecord, Message)> = audit.iter().filter(|(_, message)| is_decision(message)).collect();
            for ((record, message), expected) in written.iter().zip(&expected) {
                assert_eq!(message, expected, "at offset {} of partition {partition}", record.offset);
                assert_eq!(record.value, wire::encode(expected));
            }
            assert_eq!(written.len(), expected.len(), "as many decisions in partition {partition}; the next one: {:?}", expected.get(written.len()));
            count += written.len();
        }
        count
    }

    /// How many decisions found this metric without a fresh value, after one that had it.
    pub(crate) fn blind(&self, metric: &str) -> usize {
        let (mut measured, mut blind) = (BTreeSet::new(), 0);
        for (_, message) in self.audit.iter().flatten() {
            let Message::Audit(Audit::Decision(decision)) = message else { continue };
            let Some(report) = decision.metrics.iter().find(|report| report.name.as_str() == metric) else { continue };
            if report.status == MetricStatus::Ok {
                measured.insert(decision.target.clone());
            } else {
                blind += usize::from(measured.contains(&decision.target));
            }
        }
        blind
    }

    /// Each decision on `audit` stands, to the letter, among those that `loadline replay` prints from what `loadline export` reads.
    pub(crate) fn the_replay_of_the_export_says_the_same(&self, options: &Options) {
        let reach = ["--brokers", &options.brokers, "--prefix", &options.prefix];
        let mut export = Command::new(LOADLINE).arg("export").args(reach).stdout(Stdio::piped()).spawn().unwrap();
        let replay = Command::new(LOADLINE).arg("replay").stdin(export.stdout.take().unwrap()).output().unwrap();
        assert!(export.wait().unwrap().success());
        assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
        let printed = String::from_utf8(replay.stdout).unwrap();
        // A line begins with the time of the signal, which may be earlier than the target's: what was decided is what comes after it.
        let decided = |line: &str| line.split_once("\"target\":").unwrap().1.to_owned();
        let printed: BTreeSet<String> = printed.lines().map(decided).collect();
        for (_, message) in self.audit.iter().flatten() {
            if let Message::Audit(Audit::Decision(decision)) = message {
                let line = jsonl::decision_to_line(decision.at, decision);
                let mark = format!("\"{}\",\"decision\":{{\"sequence\":{},", decision.target, decision.sequence);
                let near = printed.iter().find(|other| other.starts_with(&mark));
                assert!(printed.contains(&decided(&line)), "not printed: {line}\ninstead: {near:?}");
            }
        }
    }

    /// The commands are those of one undisturbed fold over the claims.
    pub(crate) fn commands_are_the_folds(&self) {
        let of_fold = self.undisturbed(&Arbitrate::default(), &self.requests, |message| RequestsEntry::try_from(message).unwrap());
        let commands = |partition: u32| {
            let is_here = move |message: &&Message| match message {
                Message::Command(command) => partition_of(command.target.as_str(), self.log.partitions(Topic::Commands)) == partition,
                _ => false,
            };
            of_fold.iter().flatten().filter(is_here).cloned().collect::<Vec<_>>()
        };
        for (partition, written) in (0..).zip(&self.commands) {
            let written: Vec<Message> = written.iter().map(|(_, message)| message.clone()).collect();
            assert_eq!(written, commands(partition), "in partition {partition}");
        }
    }
}

/// What came of the commands.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Each command by its id, with the revision of the fleet that it led to.
    issued: BTreeMap<String, Option<i64>>,
    /// How often a fleet's count was changed.
    pub(crate) changes: i64,
}

impl Carried {
    /// From what was written down: each is issued once, and applied at most once. A word on an outcome may stand there twice, where its writer was not told that it was taken.
    pub(crate) fn of(standing: &Standing<'_>) -> Carried {
        let mut carried = Carried::default();
        for (_, message) in standing.audit.iter().flatten() {
            match message {
                Message::Audit(Audit::Command(command)) => {
                    assert_eq!(carried.issued.insert(command.id.clone(), None), None, "{command:?} was issued twice");
                }
                Message::Audit(Audit::Outcome(Outcome { command, revision, result: OutcomeResult::Applied, .. })) => {
                    let before = carried.issued.insert(command.clone(), *revision);
                    assert!(before == Some(None) || before == Some(*revision), "{command} led to {before:?}, and to {revision:?}");
                }
                _ => {}
            }
        }
        carried
    }

    /// Each change of a fleet's record is the work of one command: its revision counts the changes.
    pub(crate) fn compare(&mut self, data: &Path, fleet: &str) {
        self.changes += changes_by_command(data, fleet, &self.issued).unwrap();
    }

    pub(crate) fn commands(&self) -> usize {
        self.issued.len()
    }

    pub(crate) fn applied(&self) -> usize {
        self.issued.values().flatten().count()
    }
}
