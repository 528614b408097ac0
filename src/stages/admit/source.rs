//! A source: its complete rounds, and which of its origins are refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Place;
use crate::log::{Offset, Topic};
use crate::model::{Alert, AlertState, Audit, Message, PolicyRejected, RoundEnd, Severity, Timestamp};
use crate::stages::Effects;

/// How many rounds are remembered: more than a source makes between two snapshots (a round in 30 s, snapshots
/// every 5 minutes), with room for a person who edits.
const ROUNDS_KEPT: usize = 64;

/// For how long all rounds count until the alert is over that one did not.
const SETTLED: Duration = Duration::from_secs(60);

/// For how long after a round copies of it and of earlier ones may still come.
const LATE_COPY: Duration = Duration::from_secs(10);

/// The alert of an origin that cannot be used.
const INVALID: &str = "PolicyInvalid";

/// The alert of a source whose rounds do not count.
const IGNORED: &str = "PolicyRoundIgnored";

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
    /// When its last round was complete.
    completed: Timestamp,
    /// When it last ended a round that did not count, while an alert says so.
    ignored: Option<Timestamp>,
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

    /// Whether `round` is newer than the last round that was complete before `place`. One that is ahead of the time is no measure:
    /// the clock was set back since.
    pub(super) fn is_newer(&self, round: i64, place: Place) -> bool {
        match self.rounds.iter().rev().find(|(end, _)| *end < place.offset) {
            Some((_, last)) => round > *last || RoundEnd::is_ahead(*last, place.at),
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
            append_alert(INVALID, &end.source, &format!("{}/{origin}", end.source), AlertState::Firing, message, place, effects);
            for document in &refusal.documents {
                let key = document.target.as_ref().map_or(end.source.as_str(), |t| t.as_str());
                effects.to_key(Topic::Audit, key, Message::Audit(Audit::Rejected(document.clone())));
            }
        }
        for origin in self.refused.keys().filter(|origin| !now.contains_key(*origin)) {
            let message = format!("{} is in order again, or gone", shown(&end.source, origin));
            append_alert(INVALID, &end.source, &format!("{}/{origin}", end.source), AlertState::Resolved, message, place, effects);
        }
        self.refused = now;
        self.completed = place.at;
        // Two that write as one source are told once.
        if self.ignored.is_some_and(|last| place.at.since(last) >= SETTLED || place.at < last) {
            self.ignored = None;
            let message = format!("round {} of \"{}\" counts", end.round, end.source);
            append_alert(IGNORED, &end.source, &end.source, AlertState::Resolved, message, place, effects);
        }
    }

    /// A round ended that does not count. A copy of an earlier one that comes late is no news.
    pub(super) fn ignore(&mut self, end: &RoundEnd, place: Place, effects: &mut Effects) {
        let RoundEnd { source, round } = end;
        let last = self.rounds.back().map_or(i64::MIN, |(_, last)| *last);
        let message = if RoundEnd::is_ahead(*round, place.at) {
            format!(
                "round {round} of \"{source}\" is not followed: its number is more than 10 minutes ahead of the time ({} ms since 1970), and would hide each later \
                 one; number rounds by the time in milliseconds{}",
                place.at.as_millis(),
                if source == RoundEnd::FILES { ": correct the clock of the machine whose Loadline watches the policy files" } else { ", or by a count" }
            )
        } else if *round <= last && (place.at.since(self.completed) >= LATE_COPY || self.rounds.iter().all(|(_, complete)| complete != round)) {
            format!(
                "round {round} of \"{source}\" is not followed: round {last} was complete before; announce with a number above {last}, of one writer alone{}",
                if source == RoundEnd::FILES {
                    " (that of policy files is the time of its machine, in milliseconds: correct the clock, and see that one process watches them)"
                } else {
                    ""
                }
            )
        } else {
            return;
        };
        if self.ignored.replace(place.at).is_none() {
            append_alert(IGNORED, source, source, AlertState::Firing, message, place, effects);
        }
    }
}

/// An origin as people know it: an absolute path needs no source before it.
pub(super) fn shown(source: &str, origin: &str) -> String {
    if origin.starts_with('/') { origin.to_owned() } else { format!("{source}/{origin}") }
}

fn append_alert(name: &str, source: &str, subject: &str, state: AlertState, message: String, place: Place, effects: &mut Effects) {
    let (name, subject) = (name.to_owned(), subject.to_owned());
    let alert = Alert { target: None, name, subject, severity: Severity::Warning, state, message, at: place.at };
    effects.to_key(Topic::Alerts, source, Message::Alert(alert));
}
