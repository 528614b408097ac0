//! What was decided is what an undisturbed fold decides; and of one target's signals alone the same comes.
//!
//! Each record that the stages made must stand in the log, and no other. What may lack, and nothing else: a claim that had
//! expired when it was to be appended; a record larger than the log took at the time; what is not committed at the end; and
//! of a partition that lost records before they were read, what came after the loss.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loadline::log::{Offset, Topic};
use loadline::model::{Audit, Command, Decision, Grant, Message, OutcomeResult, Request, RequestsEntry, Signal, TargetId};
use loadline::stages::arbitrate::{self, Arbitrate};
use loadline::stages::decide::{self, AuditWhen, Decide};
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire;

use super::super::scenario::Millis;
use super::Violation;
use super::tape::{Entry, Tape};

const SAME: &str = "a run that crashes and restores decides as the undisturbed fold";
const ALONE: &str = "a target's signals alone give its decisions";

/// What happened that lets a record lack.
#[derive(Default)]
pub(super) struct Excuses {
    /// Partitions that lost records which somebody had not read, or has to read again: up to where it had committed then.
    pub(super) lost: Vec<(Topic, u32, Offset)>,
    /// The most bytes that a record could have, and until when (virtual time).
    pub(super) limits: Vec<(usize, Millis, Millis)>,
    /// When the clock was set (virtual time), and what it had shown.
    pub(super) sets: Vec<(Millis, i64)>,
    /// How far the clock of a process may be ahead of the log's, in ms.
    pub(super) skew: i64,
}

impl Excuses {
    /// From where on nothing can be told of a partition.
    fn known_before(&self, topic: Topic, partition: u32) -> Offset {
        self.lost.iter().filter(|(t, p, _)| (*t, *p) == (topic, partition)).map(|(_, _, committed)| *committed).min().unwrap_or(Offset::MAX)
    }

    /// Whether records of `topic/partition` were lost that somebody needed.
    pub(super) fn is_lost(&self, subject: &str) -> bool {
        self.lost.iter().any(|(topic, partition, _)| format!("{topic}/{partition}") == subject)
    }

    /// Whether the log may have refused a record for its size.
    fn too_large(&self, message: &Message, key: usize, seen: Millis) -> bool {
        let size = || wire::encode(message).len() + key;
        self.limits.iter().any(|(bytes, from, until)| seen >= *from && seen <= *until && size() > *bytes)
    }

    /// The latest that a process's clock showed between two moments of virtual time, the log's being `at` at the second.
    fn latest(&self, from: Millis, until: Millis, at: i64) -> i64 {
        let before = self.sets.iter().filter(|(set, _)| (from..=until).contains(set)).map(|(_, shown)| *shown);
        before.fold(at, i64::max) + self.skew
    }
}

/// Something that a fold said, of which record, and when that was seen.
struct Made<T> {
    what: T,
    offset: Offset,
    seen: Millis,
}

/// What decide says, in order.
#[derive(Default)]
struct Said {
    decisions: BTreeMap<TargetId, Vec<Made<Decision>>>,
    claims: BTreeMap<TargetId, Vec<Made<Request>>>,
}

/// What stands in the log of it.
#[derive(Default)]
struct Stands<'a> {
    decisions: BTreeMap<&'a TargetId, Vec<(&'a Decision, &'a Entry)>>,
    claims: BTreeMap<&'a TargetId, Vec<&'a Request>>,
}

pub(super) fn check(tape: &Tape, arbiter: &Arbitrate, excuses: &Excuses) -> Result<(), Violation> {
    let live = Stands::of(tape)?;
    for partition in 0..tape.partitions(Topic::Signals) {
        let known = excuses.known_before(Topic::Signals, partition);
        let signals = tape.partition(Topic::Signals, partition);
        let signals = &signals[..signals.partition_point(|entry| entry.offset < known)];
        let undisturbed = fold(signals, None)?;
        let committed = if known == Offset::MAX { tape.committed(Decide::NAME, Topic::Signals, partition) } else { known };
        let ends = Ends { committed, goes_on: known != Offset::MAX, excuses };
        for (target, decisions) in &undisturbed.decisions {
            let stands = live.decisions.get(target).map_or(&[][..], Vec::as_slice);
            ends.same(target, stands, decisions)?;
            let claims = undisturbed.claims.get(target).map_or(&[][..], Vec::as_slice);
            ends.claims(target, live.claims.get(target).map_or(&[], Vec::as_slice), claims, stands, decisions)?;
        }
        // One of them, another one in each run.
        if let Some((target, decisions)) = undisturbed.decisions.iter().cycle().nth(signals.len() % undisturbed.decisions.len().max(1)) {
            let alone = fold(signals, Some(target))?;
            let alone = alone.decisions.get(target).map_or(&[][..], Vec::as_slice);
            if let Some((one, all)) = alone.iter().zip(decisions).find(|(one, all)| one.what != all.what) {
                return Err(Violation::new(ALONE, format!("{target}: {:?}, where all signals give {:?}", one.what, all.what)));
            }
            if alone.len() != decisions.len() {
                return Err(Violation::new(ALONE, format!("{target}: {} decisions, where all signals give {}", alone.len(), decisions.len())));
            }
        }
    }
    let mut found: BTreeMap<TargetId, [usize; 2]> = BTreeMap::new();
    for partition in 0..tape.partitions(Topic::Requests) {
        grants(tape, arbiter, partition, excuses, &mut found)?;
    }
    if excuses.lost.iter().all(|(topic, ..)| *topic != Topic::Requests) {
        for (target, found) in found {
            let there = [commands_of(tape, &target).count(), grants_of(tape, &target).count()];
            if there != found {
                return Err(Violation::new(SAME, format!("{target}: {there:?} commands and grants stand in the log, of which the fold has {found:?}")));
            }
        }
    }
    Ok(())
}

fn commands_of<'a>(tape: &'a Tape, target: &'a TargetId) -> impl Iterator<Item = &'a Command> {
    let commands = tape.all(Topic::Commands).filter_map(|entry| if let Ok(Message::Command(command)) = &entry.message { Some(command) } else { None });
    commands.filter(move |command| command.target == *target)
}

fn grants_of<'a>(tape: &'a Tape, target: &'a TargetId) -> impl Iterator<Item = &'a Grant> {
    let grants = tape.all(Topic::Signals).filter_map(|entry| if let Ok(Message::Signal(Signal::Grant(grant))) = &entry.message { Some(grant) } else { None });
    grants.filter(move |grant| grant.target == *target)
}

impl<'a> Stands<'a> {
    fn of(tape: &'a Tape) -> Result<Self, Violation> {
        let mut stands = Stands::default();
        for entry in tape.all(Topic::Audit) {
            if let Ok(Message::Audit(Audit::Decision(decision))) = &entry.message {
                stands.decisions.entry(&decision.target).or_default().push((decision, entry));
            }
        }
        for partition in 0..tape.partitions(Topic::Requests) {
            let mut newest: BTreeMap<&TargetId, i64> = BTreeMap::new();
            for entry in tape.partition(Topic::Requests, partition) {
                let Ok(Message::Request(request)) = &entry.message else { continue };
                if newest.insert(&request.target, request.epoch).is_some_and(|before| before >= request.epoch) {
                    return Err(Violation::new(SAME, format!("{request:?} stands behind a later claim of its target")));
                }
                stands.claims.entry(&request.target).or_default().push(request);
            }
        }
        // Where its fleet changed, a target's claims stand in two partitions.
        stands.claims.values_mut().for_each(|claims| claims.sort_by_key(|claim| claim.epoch));
        Ok(stands)
    }
}

/// Folds a partition once, from its beginning; of one target alone, or of all.
fn fold(signals: &[Arc<Entry>], only: Option<&TargetId>) -> Result<Said, Violation> {
    let stage = Decide { audit: AuditWhen::Always, ..Decide::default() };
    let (mut state, mut said, mut known) = (decide::State::default(), Said::default(), Known::default());
    let mut without_policy: BTreeSet<TargetId> = BTreeSet::new();
    for entry in signals {
        let Ok(Message::Signal(signal)) = &entry.message else { continue };
        if only.is_some_and(|only| signal.target().is_some_and(|target| target != only)) {
            continue;
        }
        known.signal(signal);
        if let Signal::Policy(announced) = signal {
            match announced.spec {
                Some(_) => without_policy.remove(&announced.target),
                None => without_policy.insert(announced.target.clone()),
            };
        }
        let mut effects = Effects::new();
        let located = Located { partition: entry.partition, offset: entry.offset, at: entry.at, record: signal.clone() };
        stage.apply(&mut state, Input::Record(located), &mut effects);
        let (offset, seen) = (entry.offset, entry.seen);
        for effect in effects.take() {
            match effect.message {
                Message::Audit(Audit::Decision(decision)) => {
                    known.decision(&decision)?;
                    if without_policy.contains(&decision.target) {
                        return Err(Violation::new("a target whose policy is gone is not decided on", format!("{decision:?}")));
                    }
                    said.decisions.entry(decision.target.clone()).or_default().push(Made { what: decision, offset, seen });
                }
                Message::Request(request) => {
                    let last = said.decisions.get(&request.target).and_then(|decisions| decisions.last()).map(|made| &made.what);
                    if !request.withdrawn && last.is_none_or(|d| (d.current, d.desired) != (request.current, request.desired)) {
                        return Err(Violation::new("no claim without a decision", format!("{request:?} after {last:?}")));
                    }
                    said.claims.entry(request.target.clone()).or_default().push(Made { what: request, offset, seen });
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
                // A late word on an earlier incarnation says nothing of this one.
                if outcome.uid.as_ref().is_some_and(|uid| *uid != evidence.uid) {
                    return;
                }
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

/// How far what a fold said must stand in the log, and what may lack.
struct Ends<'a> {
    /// What was made of records before this must be there.
    committed: Offset,
    /// The log goes on after what the fold had.
    goes_on: bool,
    excuses: &'a Excuses,
}

impl Ends<'_> {
    /// That the decisions in the log are those of the fold.
    fn same(&self, target: &TargetId, live: &[(&Decision, &Entry)], fold: &[Made<Decision>]) -> Result<(), Violation> {
        let mut stands = live.iter().map(|(decision, _)| *decision).peekable();
        for (place, made) in fold.iter().enumerate() {
            if stands.next_if(|decision| **decision == made.what).is_some() || made.offset >= self.committed {
                continue;
            }
            if !self.excuses.too_large(&Message::Audit(Audit::Decision(made.what.clone())), target.as_str().len(), made.seen) {
                let found = stands.next();
                return Err(Violation::new(SAME, format!("{target}, decision {place}: {found:?}, where the fold has {:?}", made.what)));
            }
        }
        match stands.next() {
            Some(decision) if !self.goes_on => Err(Violation::new(SAME, format!("{target}: {decision:?} is none of the fold's"))),
            _ => Ok(()),
        }
    }

    /// The claims in the log are the fold's, in their order; one lacks only where it had expired when it was to be appended.
    fn claims(
        &self,
        target: &TargetId,
        live: &[&Request],
        fold: &[Made<Request>],
        stands: &[(&Decision, &Entry)],
        decisions: &[Made<Decision>],
    ) -> Result<(), Violation> {
        let mut rest = live.iter().copied().peekable();
        for made in fold {
            let claim = &made.what;
            if rest.next_if(|found| *found == claim).is_some() || made.offset >= self.committed {
                continue;
            }
            // The decision behind it was to be appended with it.
            let behind = decisions.iter().rfind(|decision| decision.offset <= made.offset);
            let appended = behind.and_then(|behind| stands.iter().find(|(decision, _)| **decision == behind.what));
            let expired = !claim.withdrawn
                && appended.is_some_and(|(_, entry)| claim.expires_at.as_millis() <= self.excuses.latest(made.seen, entry.seen, entry.at.as_millis()));
            if !expired && !self.excuses.too_large(&Message::Request(claim.clone()), claim.fleet.as_str().len(), made.seen) {
                let at = appended.map(|(_, entry)| entry.at);
                let invariant = "a claim is left out only when it had expired";
                return Err(Violation::new(invariant, format!("{target}: {claim:?} lacks, what came with it was appended at {at:?}")));
            }
        }
        match rest.next() {
            Some(claim) if !self.goes_on => Err(Violation::new(SAME, format!("{target}: {claim:?} is not the fold's, or not in its order"))),
            _ => Ok(()),
        }
    }
}

/// What the arbiter said is what an undisturbed fold over the claims says.
fn grants(tape: &Tape, stage: &Arbitrate, partition: u32, excuses: &Excuses, found: &mut BTreeMap<TargetId, [usize; 2]>) -> Result<(), Violation> {
    let known = excuses.known_before(Topic::Requests, partition);
    let committed = if known == Offset::MAX { tape.committed(Arbitrate::NAME, Topic::Requests, partition) } else { known };
    let mut state = arbitrate::State::default();
    let (mut commands, mut answers): (Vec<Made<Command>>, Vec<Made<Grant>>) = (Vec::new(), Vec::new());
    let mut fleets = BTreeSet::new();
    for entry in tape.partition(Topic::Requests, partition).iter().take_while(|entry| entry.offset < known) {
        let record = match &entry.message {
            Ok(Message::Request(request)) => {
                fleets.insert(request.target.clone());
                RequestsEntry::Claim(request.clone())
            }
            Ok(Message::RequestsTick(tick)) => RequestsEntry::Tick(*tick),
            _ => continue,
        };
        let mut effects = Effects::new();
        let (offset, seen) = (entry.offset, entry.seen);
        stage.apply(&mut state, Input::Record(Located { partition, offset, at: entry.at, record }), &mut effects);
        for effect in effects.take() {
            match effect.message {
                Message::Command(what) => commands.push(Made { what, offset, seen }),
                Message::Signal(Signal::Grant(what)) => answers.push(Made { what, offset, seen }),
                _ => {}
            }
        }
    }
    // A target's claims may stand in two partitions of requests, where its fleet changed: those of each keep their order.
    for target in fleets {
        let found = found.entry(target.clone()).or_default();
        let large = |made: &Made<Command>| excuses.too_large(&Message::Command(made.what.clone()), target.as_str().len(), made.seen);
        found[0] += stand(&target, commands_of(tape, &target), commands.iter().filter(|made| made.what.target == target), committed, large)?;
        let large = |made: &Made<Grant>| excuses.too_large(&Message::Signal(Signal::Grant(made.what.clone())), target.as_str().len(), made.seen);
        found[1] += stand(&target, grants_of(tape, &target), answers.iter().filter(|made| made.what.target == target), committed, large)?;
    }
    Ok(())
}

/// That all of `fold` stands in `live`, in its order; how much of it does. What else stands there is of another partition.
fn stand<'a, T: PartialEq + std::fmt::Debug + 'a>(
    target: &TargetId,
    live: impl Iterator<Item = &'a T>,
    fold: impl Iterator<Item = &'a Made<T>>,
    committed: Offset,
    may_lack: impl Fn(&Made<T>) -> bool,
) -> Result<usize, Violation> {
    let live: Vec<&T> = live.collect();
    let (mut next, mut found) = (0, 0);
    for made in fold {
        match live[next..].iter().position(|found| **found == made.what) {
            Some(place) => (next, found) = (next + place + 1, found + 1),
            None if made.offset >= committed || may_lack(made) => {}
            None => return Err(Violation::new(SAME, format!("{target}: {:?} is the fold's, and not in the log", made.what))),
        }
    }
    Ok(found)
}
