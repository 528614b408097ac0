//! One fleet: its standing claims, what was issued for them, and what it removed lately.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::removals::Removals;
use super::{COMMAND_LIFE, Pacing};
use crate::model::{GrantLimit, OpenCommand, Request, TargetId, Timestamp};

/// From what distance on an earlier time is a clock that was set back, and is followed.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);

/// A claim and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Standing {
    pub(super) claim: Request,
    /// The last command for this target, also of an earlier claim.
    #[serde(default)]
    pub(super) issued: Option<Issued>,
    /// The last answer to this claim.
    #[serde(default)]
    pub(super) answered: Option<Answer>,
}

impl Standing {
    /// Whether it may want a change (of the count, or of what a command in flight makes of it) and has no
    /// command of its own.
    pub(super) fn waits(&self) -> bool {
        let claim = &self.claim;
        let served = self.issued.as_ref().is_some_and(|issued| issued.command.epoch == claim.epoch);
        !claim.withdrawn && !served && (claim.desired != claim.current || claim.open.is_some() || self.issued.is_some())
    }

    /// How many replicas it adds to the fleet's total.
    fn counted(&self) -> u64 {
        if self.claim.withdrawn { 0 } else { u64::from(self.claim.current) }
    }

    fn rank(&self) -> (Reverse<i32>, TargetId) {
        (Reverse(self.claim.priority), self.claim.target.clone())
    }
}

/// A command that was issued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Issued {
    /// For which incarnation of the target.
    pub(super) uid: String,
    pub(super) command: OpenCommand,
}

/// An answer to a claim, as far as a change of it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) granted: u32,
    pub(super) limit: GrantLimit,
    /// The id of the command that it names.
    #[serde(default)]
    pub(super) command: Option<String>,
}

/// A fleet. What can be derived from the claims is not saved.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Fleet {
    now: Option<Timestamp>,
    removals: Removals,
    claims: Vec<Standing>,
    #[serde(skip)]
    by_target: BTreeMap<TargetId, Standing>,
    /// The claims that wait, in the order of service.
    #[serde(skip)]
    waiting: BTreeSet<(Reverse<i32>, TargetId)>,
    #[serde(skip)]
    expiries: BTreeSet<(Timestamp, TargetId)>,
    /// The replicas of all claims that count.
    #[serde(skip)]
    total: u64,
}

impl Fleet {
    /// The largest time that was seen.
    pub(super) fn now(&self) -> Timestamp {
        self.now.unwrap_or(Timestamp::MIN)
    }

    /// Moves its clock to the time of a record: claims expire, and old removals count no more.
    pub(super) fn advance(&mut self, at: Timestamp, period: Duration) {
        if self.now.is_some_and(|now| now.since(at) > CLOCK_SET_BACK) {
            self.now = Some(at);
            self.removals.set_back(at);
            for issued in self.by_target.values_mut().filter_map(|s| s.issued.as_mut()) {
                issued.command.expires_at = issued.command.expires_at.min(at + COMMAND_LIFE);
            }
        }
        self.now = Some(self.now().max(at));
        let now = self.now();
        self.removals.advance(now, period);
        while let Some((_, target)) = self.expiries.first().filter(|(expires_at, _)| *expires_at <= now).cloned() {
            self.remove(&target);
        }
    }

    /// Puts a claim in its place; false where it is not newer than the one that stands, or has expired.
    pub(super) fn put(&mut self, claim: Request) -> bool {
        if self.by_target.get(&claim.target).is_some_and(|standing| standing.claim.epoch >= claim.epoch) {
            return false;
        }
        let before = self.remove(&claim.target);
        if claim.expires_at <= self.now() {
            return false;
        }
        self.insert(Standing { claim, issued: before.and_then(|b| b.issued), answered: None });
        true
    }

    /// How many replicas may still be removed now.
    pub(super) fn available(&self, pacing: Pacing) -> u64 {
        pacing.limit(self.total).saturating_sub(self.removals.spent())
    }

    /// The targets whose claims wait, in the order of service.
    pub(super) fn waiting(&self) -> Vec<TargetId> {
        self.waiting.iter().map(|(_, target)| target.clone()).collect()
    }

    pub(super) fn standing(&self, target: &TargetId) -> Option<&Standing> {
        self.by_target.get(target)
    }

    /// Remembers an answer.
    pub(super) fn answered(&mut self, target: &TargetId, answer: Answer) {
        if let Some(standing) = self.by_target.get_mut(target) {
            standing.answered = Some(answer);
        }
    }

    /// Remembers a command, and what it removes.
    pub(super) fn issued(&mut self, target: &TargetId, issued: Issued, removes: u32) {
        self.removals.add(self.now(), removes);
        if let Some(mut standing) = self.remove(target) {
            standing.issued = Some(issued);
            self.insert(standing);
        }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.by_target.is_empty() && self.removals.is_empty()
    }

    /// As it is saved.
    pub(super) fn to_saved(&self) -> Fleet {
        Fleet { now: self.now, removals: self.removals.clone(), claims: self.by_target.values().cloned().collect(), ..Fleet::default() }
    }

    /// Takes what another installation remembered of it, or a part of that; what stands here is newer. Whether all of it was taken.
    pub(super) fn carry(&mut self, saved: Fleet) -> bool {
        let mut all = saved.removals.is_empty() || self.removals.is_empty();
        if self.removals.is_empty() {
            self.removals = saved.removals;
        }
        self.now = self.now.max(saved.now);
        for standing in saved.claims {
            let known = self.by_target.contains_key(&standing.claim.target);
            all &= !known;
            if !known {
                self.insert(standing);
            }
        }
        all
    }

    /// As it is saved, in parts with so many claims at most; what was removed is in the first.
    pub(super) fn parts(mut saved: Fleet, most: usize) -> Vec<Fleet> {
        let claims = std::mem::take(&mut saved.claims);
        let mut parts: Vec<Fleet> = claims.chunks(most).map(|claims| Fleet { now: saved.now, claims: claims.to_vec(), ..Fleet::default() }).collect();
        match parts.first_mut() {
            Some(first) => first.removals = saved.removals,
            None => parts.push(saved),
        }
        parts
    }

    /// Derives what was not saved.
    pub(super) fn from_saved(mut saved: Fleet) -> Fleet {
        for standing in std::mem::take(&mut saved.claims) {
            saved.insert(standing);
        }
        saved
    }

    fn insert(&mut self, standing: Standing) {
        self.total += standing.counted();
        self.expiries.insert((standing.claim.expires_at, standing.claim.target.clone()));
        if standing.waits() {
            self.waiting.insert(standing.rank());
        }
        self.by_target.insert(standing.claim.target.clone(), standing);
    }

    fn remove(&mut self, target: &TargetId) -> Option<Standing> {
        let standing = self.by_target.remove(target)?;
        self.total -= standing.counted();
        self.expiries.remove(&(standing.claim.expires_at, target.clone()));
        self.waiting.remove(&standing.rank());
        Some(standing)
    }
}
