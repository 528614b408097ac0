//! What was decided is what an undisturbed fold decides; and of one target's signals alone the same comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loadline::log::{Offset, Topic};
use loadline::model::{Audit, Command, Decision, Grant, Message, OutcomeResult, Request, RequestsEntry, Signal, TargetId};
use loadline::stages::arbitrate::{self, Arbitrate};
use loadline::stages::decide::{self, AuditWhen, Decide};
use loadline::stages::{Effects, Input, Located, Stage};

use super::Violation;
use super::tape::{Entry, Tape};

const SAME: &str = "a run that crashes and restores decides as the undisturbed fold";
const ALONE: &str = "a target's signals alone give its decisions";

/// What decide says, in order.
#[derive(Default)]
struct Said {
    decisions: BTreeMap<TargetId, Vec<Decision>>,
    claims: BTreeMap<TargetId, Vec<Request>>,
}

pub(super) fn check(tape: &Tape, arbiter: &Arbitrate, lossy: &[(Topic, u32)], size_limited: bool) -> Result<(), Violation> {
    let live = said(tape);
    for partition in 0..tape.partitions(Topic::Signals) {
        if lossy.contains(&(Topic::Signals, partition)) {
            continue;
        }
        let signals = tape.partition(Topic::Signals, partition);
        let undisturbed = fold(signals, None)?;
        for (target, decisions) in &undisturbed.decisions {
            same(target, live.decisions.get(target).map_or(&[], Vec::as_slice), decisions, size_limited, SAME)?;
            claims(target, live.claims.get(target).map_or(&[], Vec::as_slice), undisturbed.claims.get(target).map_or(&[], Vec::as_slice))?;
        }
        // One of them, another one in each run.
        if let Some((target, decisions)) = undisturbed.decisions.iter().cycle().nth(signals.len() % undisturbed.decisions.len().max(1)) {
            let alone = fold(signals, Some(target))?;
            same(target, alone.decisions.get(target).map_or(&[], Vec::as_slice), decisions, false, ALONE)?;
        }
    }
    for partition in 0..tape.partitions(Topic::Requests) {
        if !lossy.contains(&(Topic::Requests, partition)) && !size_limited {
            grants(tape, arbiter, partition)?;
        }
    }
    Ok(())
}

fn said(tape: &Tape) -> Said {
    let mut said = Said::default();
    for entry in tape.all(Topic::Audit) {
        if let Ok(Message::Audit(Audit::Decision(decision))) = &entry.message {
            said.decisions.entry(decision.target.clone()).or_default().push(decision.clone());
        }
    }
    for entry in tape.all(Topic::Requests) {
        if let Ok(Message::Request(request)) = &entry.message {
            said.claims.entry(request.target.clone()).or_default().push(request.clone());
        }
    }
    said
}

/// Folds a partition once, from its beginning; of one target alone, or of all.
fn fold(signals: &[Arc<Entry>], only: Option<&TargetId>) -> Result<Said, Violation> {
    let stage = Decide { audit: AuditWhen::Always, ..Decide::default() };
    let (mut state, mut said, mut known) = (decide::State::default(), Said::default(), Known::default());
    for entry in signals {
        let Ok(Message::Signal(signal)) = &entry.message else { continue };
        if only.is_some_and(|only| signal.target().is_some_and(|target| target != only)) {
            continue;
        }
        known.signal(signal);
        let mut effects = Effects::new();
        let located = Located { partition: entry.partition, offset: entry.offset, at: entry.at, record: signal.clone() };
        stage.apply(&mut state, Input::Record(located), &mut effects);
        for effect in effects.take() {
            match effect.message {
                Message::Audit(Audit::Decision(decision)) => {
                    known.decision(&decision)?;
                    said.decisions.entry(decision.target.clone()).or_default().push(decision);
                }
                Message::Request(request) => {
                    let last = said.decisions.get(&request.target).and_then(|decisions| decisions.last());
                    if !request.withdrawn && last.is_none_or(|d| (d.current, d.desired) != (request.current, request.desired)) {
                        return Err(Violation::new("no claim without a decision", format!("{request:?} after {last:?}")));
                    }
                    said.claims.entry(request.target.clone()).or_default().push(request);
                }
                _ => {}
            }
        }
    }
    Ok(said)
}

/// The counts of a target that the newest evidence names: an older observation undoes no outcome.
#[derive(Default)]
struct Known(BTreeMap<TargetId, Evidence>);

#[derive(Default)]
struct Evidence {
    uid: String,
    /// The largest revision of an outcome Applied.
    applied: Option<i64>,
    /// What was said of which revision.
    said: BTreeSet<(i64, u32)>,
}

impl Known {
    fn signal(&mut self, signal: &Signal) {
        match signal {
            Signal::Fleet(seen) => {
                let evidence = self.0.entry(seen.target.clone()).or_default();
                if evidence.uid != seen.uid {
                    *evidence = Evidence { uid: seen.uid.clone(), ..Evidence::default() };
                }
                evidence.said.extend(seen.revision.map(|revision| (revision, seen.desired)));
            }
            Signal::Outcome(outcome) => {
                let evidence = self.0.entry(outcome.target.clone()).or_default();
                if let (Some(revision), Some(replicas)) = (outcome.revision, outcome.replicas) {
                    evidence.said.insert((revision, replicas));
                    if outcome.result == OutcomeResult::Applied {
                        evidence.applied = evidence.applied.max(Some(revision));
                    }
                }
            }
            _ => {}
        }
    }

    fn decision(&self, decision: &Decision) -> Result<(), Violation> {
        let Some(evidence) = self.0.get(&decision.target) else { return Ok(()) };
        if let Some(applied) = evidence.applied
            && !decision.advised
            && !evidence.said.range((applied, 0)..).any(|(_, replicas)| *replicas == decision.current)
        {
            let details = format!("revision {applied} was applied, and it decides from {}: {decision:?}", decision.current);
            return Err(Violation::new("an old observation never undoes an outcome", details));
        }
        Ok(())
    }
}

/// That the live decisions are those of the fold; where records may have been refused for their size, none that it has not.
fn same(target: &TargetId, live: &[Decision], fold: &[Decision], some_lack: bool, invariant: &'static str) -> Result<(), Violation> {
    if some_lack {
        let folded: Vec<&Decision> = fold.iter().collect();
        return match live.iter().find(|decision| !folded.contains(decision)) {
            Some(decision) => Err(Violation::new(invariant, format!("{target}: {decision:?} is none of the fold's"))),
            None => Ok(()),
        };
    }
    // What stands at the end of the log may not be decided yet.
    for (place, (live, fold)) in live.iter().zip(fold).enumerate() {
        if live != fold {
            return Err(Violation::new(invariant, format!("{target}, decision {place}: {live:?}, where the fold has {fold:?}")));
        }
    }
    let missing = fold.len().abs_diff(live.len());
    if live.len() > fold.len() || missing > 3 {
        return Err(Violation::new(invariant, format!("{target}: {} decisions, where the fold has {}", live.len(), fold.len())));
    }
    Ok(())
}

/// The live claims are the fold's, in their order; those that had expired when they were to be appended are left out.
fn claims(target: &TargetId, live: &[Request], fold: &[Request]) -> Result<(), Violation> {
    let mut rest = fold.iter();
    match live.iter().find(|claim| !rest.any(|folded| folded == *claim)) {
        Some(claim) => Err(Violation::new(SAME, format!("{target}: {claim:?} is not the fold's, or not in its order"))),
        None => Ok(()),
    }
}

/// What the arbiter said is what an undisturbed fold over the claims says.
fn grants(tape: &Tape, stage: &Arbitrate, partition: u32) -> Result<(), Violation> {
    let mut state = arbitrate::State::default();
    let (mut commands, mut answers): (Vec<Command>, Vec<Grant>) = (Vec::new(), Vec::new());
    let mut fleets = BTreeSet::new();
    for entry in tape.partition(Topic::Requests, partition) {
        let record = match &entry.message {
            Ok(Message::Request(request)) => {
                fleets.insert(request.target.clone());
                RequestsEntry::Claim(request.clone())
            }
            Ok(Message::RequestsTick(tick)) => RequestsEntry::Tick(*tick),
            _ => continue,
        };
        let mut effects = Effects::new();
        let offset: Offset = entry.offset;
        stage.apply(&mut state, Input::Record(Located { partition, offset, at: entry.at, record }), &mut effects);
        for effect in effects.take() {
            match effect.message {
                Message::Command(command) => commands.push(command),
                Message::Signal(Signal::Grant(grant)) => answers.push(grant),
                _ => {}
            }
        }
    }
    // A target's claims stand in one partition of requests unless its fleet changed; its commands and grants keep their order.
    for target in fleets {
        let live = |topic: Topic| tape.all(topic).filter_map(|entry| entry.message.as_ref().ok());
        let sent: Vec<&Command> =
            live(Topic::Commands).filter_map(|m| if let Message::Command(c) = m { Some(c) } else { None }).filter(|c| c.target == target).collect();
        let folded: Vec<&Command> = commands.iter().filter(|c| c.target == target).collect();
        compare(&target, &sent, &folded)?;
        let said: Vec<&Grant> = live(Topic::Signals)
            .filter_map(|m| if let Message::Signal(Signal::Grant(g)) = m { Some(g) } else { None })
            .filter(|g| g.target == target)
            .collect();
        let folded: Vec<&Grant> = answers.iter().filter(|g| g.target == target).collect();
        compare(&target, &said, &folded)?;
    }
    Ok(())
}

fn compare<T: PartialEq + std::fmt::Debug>(target: &TargetId, live: &[T], fold: &[T]) -> Result<(), Violation> {
    for (live, fold) in live.iter().zip(fold) {
        if live != fold {
            return Err(Violation::new(SAME, format!("{target}: {live:?}, where the fold has {fold:?}")));
        }
    }
    if live.len() > fold.len() || fold.len() - live.len() > 2 {
        return Err(Violation::new(SAME, format!("{target}: {} commands or grants, where the fold has {}", live.len(), fold.len())));
    }
    Ok(())
}
