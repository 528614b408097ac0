//! One target's decisions, each joined with the grants, commands and outcomes that it led to.
//!
//! The joins: a claim's epoch is never smaller than its decision's time in milliseconds, and the next
//! decision is later, so an epoch belongs to the last decision at or before it. An outcome names its command.

use std::collections::VecDeque;

use crate::edge::api::{Dated, MOST_PARTS, Story};
use crate::model::{Command, Decision, Grant, ManualChange, Outcome, Timestamp};
use crate::wire::words;

#[derive(Debug, Default)]
pub(super) struct Stories {
    list: VecDeque<Tale>,
    /// What people set by hand since the last decision.
    by_hand: Vec<Dated<ManualChange>>,
    /// Whether older ones were dropped (or were never read).
    cut: bool,
}

#[derive(Debug)]
struct Tale {
    decision: Decision,
    grants: Vec<Dated<Grant>>,
    commands: Vec<Dated<Command>>,
    outcomes: Vec<Dated<Outcome>>,
    by_hand: Vec<Dated<ManualChange>>,
}

impl Tale {
    fn story(&self) -> Story {
        Story {
            sentence: words::sentence(&self.decision),
            decision: self.decision.clone(),
            grants: self.grants.clone(),
            commands: self.commands.clone(),
            outcomes: self.outcomes.clone(),
            by_hand: self.by_hand.clone(),
        }
    }
}

/// The decisions up to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Those at this time and before.
    At(Timestamp),
    /// Those before this one: its time, and its sequence for others of the same time.
    Before(Timestamp, i64),
}

impl Until {
    /// Whether a decision is one of them.
    pub fn holds(self, decision: &Decision) -> bool {
        match self {
            Until::At(until) => decision.at <= until,
            Until::Before(at, sequence) => (decision.at, decision.sequence) < (at, sequence),
        }
    }

    /// Those before a page, by the path to what comes before it ([`super::next_page`]).
    pub fn of_page(path: &str) -> Option<Until> {
        Until::parse(path.split_once("before=")?.1)
    }

    /// The place where a page ended: time and sequence.
    pub fn parse(place: &str) -> Option<Until> {
        let (at, sequence) = place.split_once('.')?;
        Some(Until::Before(Timestamp::from_millis(at.parse().ok()?), sequence.parse().ok()?))
    }

    /// None of them is later.
    pub fn at(self) -> Timestamp {
        match self {
            Until::At(at) | Until::Before(at, _) => at,
        }
    }
}

impl Stories {
    /// Takes the next decision, and keeps the last `kept`.
    pub(super) fn decision(&mut self, decision: Decision, kept: usize) {
        if self.list.back().is_some_and(|last| last.decision == decision) {
            return;
        }
        let by_hand = std::mem::take(&mut self.by_hand);
        self.list.push_back(Tale { decision, grants: Vec::new(), commands: Vec::new(), outcomes: Vec::new(), by_hand });
        while self.list.len() > kept {
            self.list.pop_front();
            self.cut = true;
        }
    }

    pub(super) fn by_hand(&mut self, at: Timestamp, change: ManualChange) {
        push(&mut self.by_hand, at, change);
    }

    /// What people set by hand since the last decision.
    pub(super) fn since(&self) -> &[Dated<ManualChange>] {
        &self.by_hand
    }

    pub(super) fn grant(&mut self, at: Timestamp, grant: Grant) {
        if let Some(tale) = self.of_epoch(grant.epoch) {
            push(&mut tale.grants, at, grant);
        }
    }

    pub(super) fn command(&mut self, at: Timestamp, command: Command) {
        if let Some(tale) = self.of_epoch(command.epoch) {
            push(&mut tale.commands, at, command);
        }
    }

    pub(super) fn outcome(&mut self, at: Timestamp, outcome: Outcome) {
        let of = |tale: &&mut Tale| {
            tale.commands.iter().any(|c| c.record.id == outcome.command)
                || tale.grants.iter().any(|g| g.record.command.as_ref().is_some_and(|c| c.id == outcome.command))
        };
        if let Some(tale) = self.list.iter_mut().rev().find(of) {
            push(&mut tale.outcomes, at, outcome);
        }
    }

    /// The last `limit` stories of decisions by `until`, the newest last; `None` where what was
    /// dropped could be among them and none that is left is.
    pub(super) fn newest(&self, limit: usize, until: Option<Until>) -> Option<Vec<Story>> {
        let end = until.map_or(self.list.len(), |until| self.list.iter().rposition(|tale| until.holds(&tale.decision)).map_or(0, |last| last + 1));
        if end == 0 && (self.cut || until.is_some()) {
            return None;
        }
        Some(self.list.iter().take(end).skip(end.saturating_sub(limit)).map(Tale::story).collect())
    }

    fn of_epoch(&mut self, epoch: i64) -> Option<&mut Tale> {
        self.list.iter_mut().rev().find(|tale| tale.decision.at.as_millis() <= epoch)
    }
}

/// Adds a record once: what is appended at least once may come again.
fn push<T: PartialEq>(list: &mut Vec<Dated<T>>, at: Timestamp, record: T) {
    if list.iter().any(|dated| dated.record == record) {
        return;
    }
    if list.len() == MOST_PARTS {
        list.remove(0);
    }
    list.push(Dated { at, record });
}
