//! A source: its complete rounds, and which of its origins are refused.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::Place;
use crate::log::{Offset, Topic};
use crate::model::{Alert, AlertState, Audit, Message, PolicyRejected, RoundEnd, Severity};
use crate::stages::Effects;

/// How many rounds are remembered: more than a source makes between two snapshots (a round in 30 s, snapshots
/// every 5 minutes), with room for a person who edits.
const ROUNDS_KEPT: usize = 64;

/// What admit remembers of a source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Source {
    /// The first offset that its snapshot did not hold.
    pub(super) through: Offset,
    /// The ends of its last complete rounds, in order, with their offsets.
    rounds: VecDeque<(Offset, i64)>,
    /// The origins refused in the round under way, with what was said of each.
    refusing: BTreeMap<String, Refusal>,
    /// The origins refused in the last complete round.
    refused: BTreeMap<String, Refusal>,
}

/// What was said of a refused origin in one round.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Refusal {
    round: i64,
    documents: Vec<PolicyRejected>,
}

impl Refusal {
    fn errors(&self) -> Vec<&str> {
        self.documents.iter().map(|d| d.error.as_str()).collect()
    }
}

impl Source {
    /// As it is saved: it holds every record before `next`.
    pub(super) fn saved(&self, next: Offset) -> Self {
        let mut saved = self.clone();
        saved.through = next;
        saved
    }

    /// It stands in another log from `offset` on: of the rounds of before the last one counts.
    pub(super) fn carried(&mut self, offset: Offset) {
        self.through = 0;
        self.rounds = self.rounds.back().map(|(_, round)| (offset, *round)).into_iter().collect();
    }

    /// Whether `round` is newer than the last round that was complete before `offset`.
    pub(super) fn is_newer(&self, round: i64, offset: Offset) -> bool {
        match self.rounds.iter().rev().find(|(end, _)| *end < offset) {
            Some((_, last)) => round > *last,
            // Nothing before, or too long ago to know: such a record is only read again after a restore.
            None => true,
        }
    }

    /// Notes a refused origin, until the round is complete.
    pub(super) fn refuse(&mut self, rejected: PolicyRejected) {
        let refusal = self.refusing.entry(rejected.origin.clone()).or_default();
        if refusal.round != rejected.round {
            *refusal = Refusal { round: rejected.round, documents: Vec::new() };
        }
        refusal.documents.push(rejected);
    }

    /// The round is complete: alerts follow what it refused.
    pub(super) fn complete(&mut self, end: &RoundEnd, place: Place, effects: &mut Effects) {
        self.rounds.push_back((place.offset, end.round));
        if self.rounds.len() > ROUNDS_KEPT {
            self.rounds.pop_front();
        }
        let mut now: BTreeMap<String, Refusal> = std::mem::take(&mut self.refusing);
        now.retain(|_, refusal| refusal.round == end.round);
        for (origin, refusal) in &now {
            if self.refused.get(origin).is_some_and(|before| before.errors() == refusal.errors()) {
                continue;
            }
            let message = format!(
                "{} cannot be used: {}; its last valid policies, if any, stay in force until it is corrected",
                shown(&end.source, origin),
                refusal.errors().join("; ")
            );
            append_alert(end, origin, AlertState::Firing, message, place, effects);
            for document in &refusal.documents {
                let key = document.target.as_ref().map_or(end.source.as_str(), |t| t.as_str());
                effects.to_key(Topic::Audit, key, Message::Audit(Audit::Rejected(document.clone())));
            }
        }
        for origin in self.refused.keys().filter(|origin| !now.contains_key(*origin)) {
            append_alert(end, origin, AlertState::Resolved, format!("{} is in order again, or gone", shown(&end.source, origin)), place, effects);
        }
        self.refused = now;
    }
}

/// An origin as people know it: an absolute path needs no source before it.
pub(super) fn shown(source: &str, origin: &str) -> String {
    if origin.starts_with('/') { origin.to_owned() } else { format!("{source}/{origin}") }
}

fn append_alert(end: &RoundEnd, origin: &str, state: AlertState, message: String, place: Place, effects: &mut Effects) {
    let alert = Alert {
        target: None,
        name: "PolicyInvalid".to_owned(),
        subject: format!("{}/{origin}", end.source),
        severity: Severity::Warning,
        state,
        message,
        at: place.at,
    };
    effects.to_key(Topic::Alerts, end.source.as_str(), Message::Alert(alert));
}
