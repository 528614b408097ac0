//! What must hold afterwards, told from what the log holds and what the producers and fleets know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use loadline::log::kafka::Options;
use loadline::log::{Log, Offset, RawRecord, Topic, partition_of};
use loadline::model::{Amount, Audit, Message, MetricStatus, Outcome, OutcomeResult, RequestsEntry, Signal, Sketch};
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::Decide;
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire::{self, jsonl};

use super::fleets::changes_by_command;
use super::producers::{Place, Sent};
use crate::waiting::{PATIENCE, answered};

/// How many records are read at once.
const SLICE: usize = 10_000;

/// A partition that is read on from where it was left.
pub(super) struct Reading {
    topic: Topic,
    partition: u32,
    next: Offset,
}

impl Reading {
    /// All partitions of a topic, from their beginning.
    pub(super) fn of(log: &dyn Log, topic: Topic) -> Vec<Reading> {
        (0..log.partitions(topic)).map(|partition| Reading { topic, partition, next: 0 }).collect()
    }

    /// The same, from where they end now.
    pub(super) fn from_the_end(log: &dyn Log, topic: Topic) -> anyhow::Result<Vec<Reading>> {
        let end = |partition| answered(&format!("the end of {topic}/{partition}"), || log.range(topic, partition)).map(|range| range.end);
        (0..log.partitions(topic)).map(|partition| Ok(Reading { topic, partition, next: end(partition)? })).collect()
    }

    /// What came since the last time.
    pub(super) fn read(&mut self, log: &dyn Log) -> anyhow::Result<Vec<RawRecord>> {
        let mut records = Vec::new();
        loop {
            let slice = answered(&format!("what is on {}/{}", self.topic, self.partition), || log.scan(self.topic, self.partition, self.next, SLICE))?;
            let Some(last) = slice.last() else { return Ok(records) };
            self.next = last.offset + 1;
            records.extend(slice);
        }
    }
}

/// What stands in the log when nothing runs any more.
pub(super) struct Standing<'a> {
    log: &'a dyn Log,
    signals: Messages,
    requests: Messages,
    commands: Messages,
    audit: Messages,
}

/// All messages of a topic, by partition.
type Messages = Vec<Vec<(RawRecord, Message)>>;

impl Standing<'_> {
    pub(super) fn read(log: &dyn Log) -> anyhow::Result<Standing<'_>> {
        let all = |topic: Topic| -> anyhow::Result<Messages> {
            let message = |record: RawRecord| Ok((record.clone(), wire::decode(topic, &record.value)?));
            Reading::of(log, topic).into_iter().map(|mut reading| reading.read(log)?.into_iter().map(message).collect()).collect()
        };
        Ok(Standing { log, signals: all(Topic::Signals)?, requests: all(Topic::Requests)?, commands: all(Topic::Commands)?, audit: all(Topic::Audit)? })
    }

    /// Each sample that was acknowledged is in the one pane that it belongs to; one that was not, in it at most as often as it was tried. How many samples are there.
    pub(super) fn each_sample_is_in_one_pane(&self, sent: &BTreeMap<Place, Sent>) -> anyhow::Result<i64> {
        let metrics: BTreeSet<&str> = sent.keys().map(|(_, metric, ..)| metric.as_str()).collect();
        let mut found: BTreeMap<Place, (i64, Amount)> = BTreeMap::new();
        for (_, message) in self.signals.iter().flatten() {
            match message {
                Message::Signal(Signal::Part(part)) => {
                    for pane in part.panes.iter().filter(|pane| metrics.contains(pane.metric.as_str())) {
                        let counted: i64 = pane.instances.values().map(|reading| reading.count).sum();
                        ensure!(
                            pane.sketch.as_ref().is_none_or(|sketch: &Sketch| sketch.count() == counted),
                            "a sketch has other samples than its pane: {pane:?}"
                        );
                        for (instance, reading) in &pane.instances {
                            let place = (part.target.to_string(), pane.metric.to_string(), instance.to_string(), pane.start.as_millis());
                            let (count, sum) = found.entry(place).or_insert((0, Amount::ZERO));
                            (*count, *sum) = (*count + reading.count, *sum + reading.sum);
                        }
                    }
                }
                Message::Signal(Signal::Mark(mark)) => ensure!(mark.rejected == 0, "samples were refused: {mark:?}"),
                _ => {}
            }
        }
        for (place, sent) in sent {
            let (count, sum) = found.get(place).copied().unwrap_or((0, Amount::ZERO));
            ensure!(sent.count().contains(&count), "every acknowledged sample is in exactly one pane: {place:?} has {count} samples: {sent:?}");
            ensure!(
                count > sent.acknowledged || sum == sent.sum,
                "every acknowledged sample is in exactly one pane: {place:?} has other samples, of {sum:?} together: {sent:?}"
            );
        }
        let foreign: Vec<&Place> = found.keys().filter(|place| !sent.contains_key(*place)).collect();
        ensure!(foreign.is_empty(), "samples that nobody sent: {foreign:?}");
        Ok(found.values().map(|(count, _)| count).sum())
    }

    /// What a stage writes that folds its input up to where the group came, in one go and undisturbed.
    fn undisturbed<S: Stage>(&self, stage: &S, input: &Messages, entry: impl Fn(Message) -> anyhow::Result<S::Record>) -> anyhow::Result<Vec<Vec<Message>>> {
        let fold = |(partition, input): (u32, &Vec<(RawRecord, Message)>)| {
            let end = answered(&format!("the position of {}", S::NAME), || self.log.committed(S::NAME, S::INPUT, partition))?.unwrap_or(0);
            let (mut state, mut effects) = (S::State::default(), Effects::new());
            for (record, message) in input.iter().take_while(|(record, _)| record.offset < end) {
                let located = Located { partition, offset: record.offset, at: record.at, record: entry(message.clone())? };
                stage.apply(&mut state, Input::Record(located), &mut effects);
            }
            Ok(effects.take().into_iter().map(|effect| effect.message).collect())
        };
        (0..).zip(input).map(fold).collect()
    }

    /// The decisions on `audit` are those of one undisturbed fold of each partition of `signals`, byte for byte and in its order. How many there are.
    pub(super) fn decisions_are_the_folds(&self) -> anyhow::Result<usize> {
        let of_fold = self.undisturbed(&Decide::default(), &self.signals, |message| match message {
            Message::Signal(signal) => Ok(signal),
            other => anyhow::bail!("on signals stands {other:?}"),
        })?;
        let mut count = 0;
        // A target has the same partition on both.
        for (partition, (of_fold, audit)) in of_fold.into_iter().zip(&self.audit).enumerate() {
            let is_decision = |message: &Message| matches!(message, Message::Audit(Audit::Decision(_)));
            let expected: Vec<Message> = of_fold.into_iter().filter(is_decision).collect();
            let written: Vec<&(RawRecord, Message)> = audit.iter().filter(|(_, message)| is_decision(message)).collect();
            for ((record, message), expected) in written.iter().zip(&expected) {
                ensure!(
                    message == expected && record.value == wire::encode(expected),
                    "decisions are those of one undisturbed fold: at offset {} of partition {partition} of audit stands {message:?} instead of {expected:?}",
                    record.offset
                );
            }
            ensure!(
                written.len() == expected.len(),
                "decisions are those of one undisturbed fold: in partition {partition} stand {} of {}; the next one: {:?}",
                written.len(),
                expected.len(),
                expected.get(written.len())
            );
            count += written.len();
        }
        Ok(count)
    }

    /// The decisions for which a metric was stale, what feeds it being silent for too long: their times, and what was stale.
    pub(super) fn blind(&self) -> Vec<(i64, String)> {
        let decisions =
            self.audit.iter().flatten().filter_map(|(_, message)| if let Message::Audit(Audit::Decision(decision)) = message { Some(decision) } else { None });
        let stale = decisions.flat_map(|decision| {
            decision.metrics.iter().filter(|report| report.status == MetricStatus::Stale).map(move |report| {
                let note = report.note.as_deref().unwrap_or("no note");
                (decision.at.as_millis(), format!("{} at {}: {} ({note})", decision.target, decision.at, report.name))
            })
        });
        stale.collect()
    }

    /// Each decision on `audit` stands, to the letter, among those that `loadline replay` prints from what `loadline export` reads.
    pub(super) fn the_replay_of_the_export_says_the_same(&self, program: &Path, options: &Options) -> anyhow::Result<()> {
        let wait = format!("{}s", PATIENCE.as_secs());
        let reach = ["--brokers", &options.brokers, "--prefix", &options.prefix, "--wait", &wait];
        let mut export = Command::new(program).arg("export").args(reach).stdout(Stdio::piped()).spawn().context("start loadline export")?;
        let exported = export.stdout.take().context("loadline export has no output")?;
        let replay = Command::new(program).arg("replay").stdin(exported).output().context("start loadline replay")?;
        let ended = export.wait()?;
        ensure!(ended.success(), "loadline export: {ended}");
        ensure!(replay.status.success(), "loadline replay: {}", String::from_utf8_lossy(&replay.stderr));
        let printed = String::from_utf8(replay.stdout)?;
        // A line begins with the time of the signal, which may be earlier than the target's: what was decided is what comes after it.
        let decided = |line: &str| line.split_once("\"target\":").map(|(_, decided)| decided.to_owned()).with_context(|| format!("no decision: {line}"));
        let printed = printed.lines().map(decided).collect::<anyhow::Result<BTreeSet<String>>>()?;
        for (_, message) in self.audit.iter().flatten() {
            if let Message::Audit(Audit::Decision(decision)) = message {
                let line = jsonl::decision_to_line(decision.at, decision);
                let mark = format!("\"{}\",\"decision\":{{\"sequence\":{},", decision.target, decision.sequence);
                let near = printed.iter().find(|other| other.starts_with(&mark));
                ensure!(
                    printed.contains(&decided(&line)?),
                    "replay of the exported signals gives the same decisions: it does not print {line}\ninstead: {near:?}"
                );
            }
        }
        Ok(())
    }

    /// The commands are those of one undisturbed fold over the claims.
    pub(super) fn commands_are_the_folds(&self) -> anyhow::Result<()> {
        let of_fold = self.undisturbed(&Arbitrate::default(), &self.requests, |message| {
            RequestsEntry::try_from(message).map_err(|other| anyhow::anyhow!("on requests stands {other:?}"))
        })?;
        let commands = |partition: u32| {
            let is_here = move |message: &&Message| match message {
                Message::Command(command) => partition_of(command.target.as_str(), self.log.partitions(Topic::Commands)) == partition,
                _ => false,
            };
            of_fold.iter().flatten().filter(is_here).cloned().collect::<Vec<_>>()
        };
        for (partition, written) in (0..).zip(&self.commands) {
            let written: Vec<Message> = written.iter().map(|(_, message)| message.clone()).collect();
            let expected = commands(partition);
            ensure!(written == expected, "commands are those of one undisturbed fold: in partition {partition} stand {written:?} instead of {expected:?}");
        }
        Ok(())
    }
}

/// What is told of a command that changed nothing. The others may be told of one that was carried out before.
const LEAVES_ALONE: [OutcomeResult; 4] = [OutcomeResult::Expired, OutcomeResult::Superseded, OutcomeResult::Frozen, OutcomeResult::Rejected];

/// What came of the commands.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Each command by its id, with the revision of the fleet that it led to.
    issued: BTreeMap<String, Option<i64>>,
    /// Those of which it is told that they changed nothing.
    left_alone: BTreeSet<String>,
    /// How often a fleet's count was changed.
    pub(super) changes: i64,
}

impl Carried {
    /// From what was written down: each is issued once, and applied at most once. A word on an outcome may stand there twice, where its writer was not told that it was taken.
    pub(super) fn of(standing: &Standing<'_>) -> anyhow::Result<Carried> {
        let mut carried = Carried::default();
        for (_, message) in standing.audit.iter().flatten() {
            match message {
                Message::Audit(Audit::Command(command)) => {
                    ensure!(carried.issued.insert(command.id.clone(), None).is_none(), "{command:?} was issued twice");
                }
                Message::Audit(Audit::Outcome(Outcome { command, revision, result: OutcomeResult::Applied, .. })) => {
                    let before = carried.issued.insert(command.clone(), *revision);
                    ensure!(
                        before == Some(None) || before == Some(*revision),
                        "no command took effect twice: {command} led to {before:?}, and to {revision:?}"
                    );
                }
                Message::Audit(Audit::Outcome(Outcome { command, result, .. })) if LEAVES_ALONE.contains(result) => {
                    carried.left_alone.insert(command.clone());
                }
                _ => {}
            }
        }
        Ok(carried)
    }

    /// Each change of a fleet's record is the work of one command: its revision counts the changes.
    pub(super) fn compare(&mut self, data: &Path, fleet: &str) -> anyhow::Result<()> {
        let may_have = |(id, revision): &(&String, &Option<i64>)| revision.is_some() || !self.left_alone.contains(*id);
        let issued = self.issued.iter().filter(may_have).map(|(id, revision)| (id.clone(), *revision)).collect();
        self.changes += changes_by_command(data, fleet, &issued)?;
        Ok(())
    }

    pub(super) fn commands(&self) -> usize {
        self.issued.len()
    }

    pub(super) fn applied(&self) -> usize {
        self.issued.values().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use loadline::log::memory::MemoryLog;
    use loadline::log::{Batch, Membership, Partitions, Polled};
    use loadline::model::{Part, Timestamp};
    use loadline::runtime::clock::ManualClock;

    use super::*;

    /// What is done to the records of a partition.
    type Change<'a> = &'a dyn Fn(&mut Vec<(RawRecord, Message)>);

    /// Signals of a load that comes and is followed.
    const STORY: &str = include_str!("../../../tests/golden/queue-depth-binds.jsonl");

    fn records(messages: impl IntoIterator<Item = (Timestamp, Message)>) -> Vec<(RawRecord, Message)> {
        let record = |(offset, (at, message)): (u64, (Timestamp, Message))| {
            let value = wire::encode(&message);
            (RawRecord { partition: 0, offset, at, key: None, content_type: None, value }, message)
        };
        (0..).zip(messages).map(record).collect()
    }

    /// A group has read its first partition up to there.
    fn commits(log: &MemoryLog, group: &'static str, topic: Topic, position: usize) {
        let mut session = log.join(Membership { group, member: "a".to_owned(), topic }).unwrap();
        while !session.poll(1, Duration::ZERO).unwrap().iter().any(|polled| matches!(polled, Polled::Assigned { partition: 0, .. })) {}
        let position = Some(u64::try_from(position).unwrap());
        session.commit(&Batch { partition: 0, position, appends: Vec::new(), states: Vec::new() }).unwrap();
    }

    /// What stands in a log on which all went well, in its first partitions.
    fn well(log: &MemoryLog) -> Standing<'_> {
        // What is decided by then stands between them.
        let signals = STORY.lines().filter_map(|line| jsonl::line_to_signal(line).ok());
        let signals = records(signals.map(|(at, _, signal)| (at, Message::Signal(signal))));
        let at = signals[0].0.at;
        commits(log, Decide::NAME, Decide::INPUT, signals.len());
        let mut standing = Standing { log, signals: vec![signals], requests: Vec::new(), commands: Vec::new(), audit: Vec::new() };
        let decided =
            standing.undisturbed(&Decide::default(), &standing.signals, |message| if let Message::Signal(signal) = message { Ok(signal) } else { panic!() });
        let decided = decided.unwrap().concat();
        let requests = records(decided.iter().filter(|message| RequestsEntry::try_from((*message).clone()).is_ok()).map(|message| (at, message.clone())));
        commits(log, Arbitrate::NAME, Arbitrate::INPUT, requests.len());
        standing.requests = vec![requests];
        let commanded = standing.undisturbed(&Arbitrate::default(), &standing.requests, |message| Ok(RequestsEntry::try_from(message).unwrap()));
        let commanded = commanded.unwrap().concat();
        let on = |partition: u32| {
            let is_here = move |message: &&Message| matches!(message, Message::Command(command) if partition_of(command.target.as_str(), log.partitions(Topic::Commands)) == partition);
            records(commanded.iter().filter(is_here).map(|message| (at, message.clone())))
        };
        standing.commands = (0..log.partitions(Topic::Commands)).map(on).collect();
        let audit = decided.iter().chain(&commanded).filter(|message| matches!(message, Message::Audit(_)));
        standing.audit = vec![records(audit.map(|message| (at, message.clone())))];
        standing
    }

    fn log() -> MemoryLog {
        MemoryLog::new(Partitions::default(), Arc::new(ManualClock::default()))
    }

    /// What the producers know, where all was acknowledged at once.
    fn sent(standing: &Standing<'_>) -> BTreeMap<Place, Sent> {
        let mut sent: BTreeMap<Place, Sent> = BTreeMap::new();
        for (_, message) in standing.signals.iter().flatten() {
            let Message::Signal(Signal::Part(part)) = message else { continue };
            for pane in &part.panes {
                for (instance, reading) in &pane.instances {
                    let place = (part.target.to_string(), pane.metric.to_string(), instance.to_string(), pane.start.as_millis());
                    let here = Sent { acknowledged: reading.count, at_most: reading.count, sum: reading.sum };
                    sent.entry(place).and_modify(|sent| *sent += here).or_insert(here);
                }
            }
        }
        sent
    }

    fn fails<T: std::fmt::Debug>(outcome: anyhow::Result<T>, with: &str) {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(with), "{error}");
    }

    #[test]
    fn a_sample_that_is_lost_doubled_changed_or_nobodys_is_found() {
        let log = log();
        let of = |change: Change<'_>| {
            let mut standing = well(&log);
            let sent = sent(&standing);
            change(&mut standing.signals[0]);
            standing.each_sample_is_in_one_pane(&sent)
        };
        assert!(of(&|_| ()).unwrap() > 10);
        let part = |signals: &[(RawRecord, Message)]| signals.iter().position(|(_, message)| matches!(message, Message::Signal(Signal::Part(_)))).unwrap();
        let once = "every acknowledged sample is in exactly one pane";
        fails(of(&|signals| drop(signals.remove(part(signals)))), once);
        fails(of(&|signals| signals.push(signals[part(signals)].clone())), once);
        let changed = |change: fn(&mut Part)| {
            of(&move |signals: &mut Vec<(RawRecord, Message)>| {
                let at = part(signals);
                if let Message::Signal(Signal::Part(part)) = &mut signals[at].1 {
                    change(part);
                }
            })
        };
        fails(changed(|part| part.panes[0].instances.values_mut().for_each(|reading| reading.sum = Amount::ZERO)), "has other samples");
        fails(changed(|part| part.panes[0].start = Timestamp::from_millis(1)), once);
        fails(
            of(&|signals| {
                signals.iter_mut().for_each(|(_, message)| {
                    if let Message::Signal(Signal::Mark(mark)) = message {
                        mark.rejected = 1;
                    }
                });
            }),
            "samples were refused",
        );
        // One that nobody sent, in a pane of its own.
        let mut standing = well(&log);
        let mut sent = sent(&standing);
        let at = part(&standing.signals[0]);
        let mut more = standing.signals[0][at].clone();
        if let Message::Signal(Signal::Part(part)) = &mut more.1 {
            part.panes.truncate(1);
            part.panes[0].start = Timestamp::from_millis(1);
        }
        standing.signals[0].push(more);
        fails(standing.each_sample_is_in_one_pane(&sent), "samples that nobody sent");
        // What was never acknowledged may be there as often as it was tried, and no more often.
        let standing = well(&log);
        sent.values_mut().for_each(|sent| *sent = Sent { acknowledged: 0, ..*sent });
        standing.each_sample_is_in_one_pane(&sent).unwrap();
        sent.values_mut().for_each(|sent| sent.at_most -= 1);
        fails(standing.each_sample_is_in_one_pane(&sent), once);
    }

    #[test]
    fn a_decision_or_command_that_is_not_the_folds_is_found() {
        let log = log();
        let is_decision = |(_, message): &(RawRecord, Message)| matches!(message, Message::Audit(Audit::Decision(_)));
        let decisions = |change: Change<'_>| {
            let mut standing = well(&log);
            standing.audit[0].retain(is_decision);
            change(&mut standing.audit[0]);
            standing.decisions_are_the_folds()
        };
        assert!(decisions(&|_| ()).unwrap() > 3);
        let undisturbed = "decisions are those of one undisturbed fold";
        fails(decisions(&|audit| drop(audit.remove(1))), undisturbed);
        fails(decisions(&|audit| drop(audit.pop())), undisturbed);
        fails(decisions(&|audit| audit.push(audit[0].clone())), undisturbed);
        fails(decisions(&|audit| audit.swap(0, 1)), undisturbed);
        fails(decisions(&|audit| audit[0].0.value.push(b' ')), undisturbed);
        let commands = |change: Change<'_>| {
            let mut standing = well(&log);
            change(standing.commands.iter_mut().find(|commands| !commands.is_empty()).unwrap());
            standing.commands_are_the_folds()
        };
        commands(&|_| ()).unwrap();
        fails(commands(&|commands| drop(commands.pop())), "commands are those of one undisturbed fold");
        fails(commands(&|commands| commands.push(commands[0].clone())), "commands are those of one undisturbed fold");
    }

    #[test]
    fn a_command_that_is_issued_or_takes_effect_twice_is_found() {
        let log = log();
        let mut standing = well(&log);
        Carried::of(&standing).unwrap();
        let command = standing.audit[0].iter().find(|(_, message)| matches!(message, Message::Audit(Audit::Command(_)))).unwrap().clone();
        let (command_at, Message::Audit(Audit::Command(issued))) = (command.0.at, &command.1) else { panic!() };
        let applied = |revision| {
            let (target, command) = (issued.target.clone(), issued.id.clone());
            let outcome = Outcome { target, command, uid: None, result: OutcomeResult::Applied, replicas: None, revision: Some(revision), error: None };
            records([(command_at, Message::Audit(Audit::Outcome(outcome)))])
        };
        // A word on one outcome may stand there twice.
        for (revision, is_same) in [(4, true), (4, true), (5, false)] {
            standing.audit.push(applied(revision));
            assert_eq!(Carried::of(&standing).is_ok(), is_same, "{revision}");
        }
        fails(Carried::of(&standing), "no command took effect twice");
        let mut standing = well(&log);
        standing.audit[0].push(command);
        fails(Carried::of(&standing), "was issued twice");
    }
}
