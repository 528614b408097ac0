//! A target: who offers a policy for it, whose is in force, and its generation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Place, announce, canonical};
use crate::log::{Offset, Topic};
use crate::model::{Alert, AlertState, Audit, Message, Order, PolicyAnnouncement, PolicyEntry, Severity, Signal, TargetId, Timestamp};
use crate::stages::Effects;

/// For how long complete rounds must lack a policy until it is gone.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// For how long a target without a policy is remembered, for its generation: longer than signals are kept (3 days).
const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 86_400);

/// What admit remembers of a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Target {
    /// The first offset that its snapshot did not hold.
    pub(super) through: Offset,
    /// The policy in force.
    spec: Option<String>,
    /// Its place in its source's order; the last one that was announced, where the policy is gone.
    source: String,
    origin: String,
    generation: i64,
    /// The position of the record by which it came into force.
    position: Offset,
    announced_at: Timestamp,
    offers: Vec<Offer>,
}

/// A policy for the target, by one origin of one source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Offer {
    source: String,
    origin: String,
    /// The position of its first announcement: the oldest holds.
    since: Offset,
    /// As of the last complete round; `None` where none was complete.
    spec: Option<String>,
    /// Whether it is the one in force.
    holds: bool,
    /// Whether it is refused, with an alert.
    refused: bool,
    /// The first of the complete rounds that lack it.
    missing_since: Option<Timestamp>,
    /// Of the round under way: named by it, with the content where that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    named: Option<Named>,
    /// Of the round under way: its origin was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Named {
    round: i64,
    #[serde(default)]
    changed: Option<String>,
}

impl Offer {
    fn label(&self) -> String {
        super::source::shown(&self.source, &self.origin)
    }

    /// Takes in what the round said; false where the offer is gone.
    fn complete(&mut self, round: i64, at: Timestamp) -> bool {
        let named = self.named.take().filter(|n| n.round == round);
        let kept = self.kept.take() == Some(round);
        if kept || named.is_some() {
            self.missing_since = None;
            if let Some(changed) = named.filter(|_| !kept).and_then(|n| n.changed) {
                self.spec = Some(changed);
            }
        } else {
            let since = *self.missing_since.get_or_insert(at);
            if at.since(since) >= GONE_AFTER {
                return false;
            }
            // The clock was set back: count from here.
            self.missing_since = Some(since.min(at));
        }
        self.spec.is_some()
    }
}

impl Target {
    /// The target without what only the round under way put there.
    pub(super) fn without_marks(&self) -> Target {
        let mut plain = self.clone();
        plain.offers.retain(|offer| offer.spec.is_some());
        for offer in &mut plain.offers {
            (offer.named, offer.kept) = (None, None);
        }
        plain
    }

    /// Whether nothing is known of it.
    pub(super) fn is_nothing(&self) -> bool {
        Target { through: 0, ..self.clone() } == Target::default()
    }

    /// As it is saved: it holds every record before `next`.
    pub(super) fn saved(&self, next: Offset) -> Self {
        let mut saved = self.clone();
        saved.through = next;
        saved
    }

    /// It stands in another log from `offset` on: what was announced before is older than all that is announced there.
    pub(super) fn carried(&mut self, offset: Offset) {
        self.offers.sort_by_key(|offer| offer.since);
        self.offers.iter_mut().for_each(|offer| offer.since = offset);
        (self.through, self.position) = (0, offset);
    }

    /// Whether a round under way left marks.
    pub(super) fn has_marks(&self) -> bool {
        self.offers.iter().any(|offer| offer.named.is_some() || offer.kept.is_some())
    }

    /// Whether a source says anything about it.
    pub(super) fn is_of(&self, source: &str) -> bool {
        self.offers.iter().any(|offer| offer.source == source)
    }

    /// A source names it in a round. What the origin named first in the round counts.
    pub(super) fn offer(&mut self, entry: PolicyEntry, offset: Offset) {
        let index = self.offers.iter().position(|o| o.source == entry.source && o.origin == entry.origin).unwrap_or_else(|| {
            self.offers.push(Offer { source: entry.source, origin: entry.origin, since: offset, ..Offer::default() });
            self.offers.len() - 1
        });
        let offer = &mut self.offers[index];
        if offer.named.as_ref().is_none_or(|named| named.round != entry.round) {
            let changed = offer.spec.as_deref().is_none_or(|spec| !canonical::same(spec, &entry.spec));
            offer.named = Some(Named { round: entry.round, changed: changed.then_some(entry.spec) });
        }
    }

    /// Its origin was refused in a round.
    pub(super) fn keep(&mut self, source: &str, origin: &str, round: i64) {
        if let Some(offer) = self.offers.iter_mut().find(|o| o.source == source && o.origin == origin) {
            offer.kept = Some(round);
        }
    }

    /// A round of a source is complete.
    pub(super) fn complete(&mut self, target: &TargetId, source: &str, round: i64, place: Place, effects: &mut Effects) {
        self.retain(target, place, effects, |offer| offer.source != source || offer.complete(round, place.at));
        self.follow_a_rename(target, place, effects);
        self.settle(target, place, effects);
    }

    /// A source takes its policy back.
    pub(super) fn withdraw(&mut self, target: &TargetId, source: &str, place: Place, effects: &mut Effects) {
        self.retain(target, place, effects, |offer| offer.source != source);
        self.settle(target, place, effects);
    }

    /// Whether a policy is in force.
    pub(super) fn has_policy(&self) -> bool {
        self.spec.is_some()
    }

    /// Whether the policy in force is to be announced again.
    pub(super) fn is_due(&self, target: &TargetId, now: Timestamp) -> bool {
        self.has_policy() && announce::due(target, self.announced_at, now)
    }

    /// Announces the policy in force as it is.
    pub(super) fn announce_again(&mut self, target: &TargetId, now: Timestamp, effects: &mut Effects) {
        self.announced_at = now;
        effects.to_key(Topic::Signals, target.as_str(), Message::Signal(Signal::Policy(self.announcement(target))));
    }

    /// Whether it has been without a policy for so long that it can be forgotten.
    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.offers.is_empty() && self.spec.is_none() && now.since(self.announced_at) > REMEMBERED_FOR
    }

    /// Drops offers; a refusal ends with its offer.
    fn retain(&mut self, target: &TargetId, place: Place, effects: &mut Effects, mut keeps: impl FnMut(&mut Offer) -> bool) {
        self.offers.retain_mut(|offer| {
            let stays = keeps(offer);
            if !stays && offer.refused {
                append_conflict(target, offer, AlertState::Resolved, format!("{} names {target} no more", offer.label()), place, effects);
            }
            stays
        });
    }

    /// The same content from the same source under another origin, and the old origin gone from the round: it moved.
    fn follow_a_rename(&mut self, target: &TargetId, place: Place, effects: &mut Effects) {
        let Some(old) = self.offers.iter().find(|o| o.holds && o.missing_since.is_some()).cloned() else { return };
        let moved = self.offers.iter_mut().find(|o| {
            !o.holds
                && o.source == old.source
                && o.missing_since.is_none()
                && o.spec.as_deref().zip(old.spec.as_deref()).is_some_and(|(a, b)| canonical::same(a, b))
        });
        if let Some(offer) = moved {
            (offer.holds, offer.since) = (true, old.since);
            let origin = old.origin;
            self.retain(target, place, effects, |o| o.origin != origin || o.source != old.source);
        }
    }

    /// Brings what is in force, and what is refused, in line with the offers.
    fn settle(&mut self, target: &TargetId, place: Place, effects: &mut Effects) {
        if !self.offers.iter().any(|o| o.holds)
            && let Some(oldest) = self.offers.iter_mut().filter(|o| o.spec.is_some()).min_by(|a, b| a.since.cmp(&b.since))
        {
            oldest.holds = true;
        }
        let holder = self.offers.iter().find(|o| o.holds).cloned();
        match &holder {
            Some(holder) => {
                let unchanged = self.spec.as_deref().zip(holder.spec.as_deref()).is_some_and(|(a, b)| canonical::same(a, b));
                // The same from elsewhere is announced too: whoever looks for the policy is to find it.
                if !unchanged || (&self.source, &self.origin) != (&holder.source, &holder.origin) {
                    self.spec.clone_from(&holder.spec);
                    self.source.clone_from(&holder.source);
                    self.origin.clone_from(&holder.origin);
                    self.announce(target, place, effects);
                }
            }
            None if self.spec.is_some() => {
                self.spec = None;
                self.announce(target, place, effects);
            }
            None => {}
        }
        if let Some(holder) = holder {
            self.refuse_others(target, &holder, place, effects);
        }
    }

    fn refuse_others(&mut self, target: &TargetId, holder: &Offer, place: Place, effects: &mut Effects) {
        for offer in &mut self.offers {
            if offer.holds && offer.refused {
                offer.refused = false;
                append_conflict(target, offer, AlertState::Resolved, format!("the policy of {} is in force", offer.label()), place, effects);
            }
            // Where the holder may be about to go, the other waits without noise.
            if !offer.holds && !offer.refused && offer.spec.is_some() && offer.missing_since.is_none() && holder.missing_since.is_none() {
                offer.refused = true;
                let message = format!(
                    "{} and {} both have a policy for {target}; the one of {} came first and is the one that counts while it is there: remove one of the two",
                    holder.label(),
                    offer.label(),
                    holder.label()
                );
                append_conflict(target, offer, AlertState::Firing, message, place, effects);
            }
        }
    }

    /// The next generation.
    fn announce(&mut self, target: &TargetId, place: Place, effects: &mut Effects) {
        self.generation += 1;
        self.position = place.offset;
        self.introduce(target, place.at, effects);
    }

    /// Announces what is in force to those who never heard of it.
    pub(super) fn introduce(&mut self, target: &TargetId, now: Timestamp, effects: &mut Effects) {
        effects.to_key(Topic::Audit, target.as_str(), Message::Audit(Audit::Policy(self.announcement(target))));
        self.announce_again(target, now, effects);
    }

    fn announcement(&self, target: &TargetId) -> PolicyAnnouncement {
        let source = super::source::shown(&self.source, &self.origin);
        PolicyAnnouncement { target: target.clone(), spec: self.spec.clone(), order: Order { source, generation: self.generation } }
    }
}

fn append_conflict(target: &TargetId, offer: &Offer, state: AlertState, message: String, place: Place, effects: &mut Effects) {
    let alert = Alert {
        target: Some(target.clone()),
        name: "PolicyConflict".to_owned(),
        subject: offer.label(),
        severity: Severity::Warning,
        state,
        message,
        at: place.at,
    };
    effects.to_key(Topic::Alerts, target.as_str(), Message::Alert(alert));
}
