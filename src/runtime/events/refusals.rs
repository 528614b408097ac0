//! Commands that come to nothing again and again, told seldom.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Repeated;
use crate::model::{Outcome, OutcomeResult, TargetId};

/// The most targets of which it is known, as many as a process takes; what comes of others is told each time.
const MOST_TARGETS: usize = 100_000;

/// Of each target whose last command came to nothing: why, and when that was told.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<TargetId, Refusal>>);

#[derive(Debug)]
struct Refusal {
    result: OutcomeResult,
    error: Option<String>,
    repeated: Repeated,
}

/// Whether a command came to nothing, so that it is tried again.
pub(super) fn is_refusal(result: OutcomeResult) -> bool {
    !matches!(result, OutcomeResult::Applied | OutcomeResult::Superseded)
}

impl Refusals {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Refusals(Mutex::new(BTreeMap::new()))
    }

    /// Something came of a command. `Some` where that is to be told: how often it came since it was told last, this time
    /// included. Another reason is told at once, as is the first one after a command that was carried out.
    pub(super) fn note(&self, outcome: &Outcome) -> Option<u64> {
        let Outcome { target, result, error, .. } = outcome;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_refusal(*result) {
            if *result == OutcomeResult::Applied {
                known.remove(target);
            }
            return Some(1);
        }
        if let Some(refusal) = known.get(target).filter(|refusal| refusal.result == *result && refusal.error == *error) {
            return refusal.repeated.note();
        }
        let refusal = Refusal { result: *result, error: error.clone(), repeated: Repeated::new() };
        let times = refusal.repeated.note();
        if known.len() < MOST_TARGETS || known.contains_key(target) {
            known.insert(target.clone(), refusal);
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: &str, result: OutcomeResult, error: Option<&str>) -> Outcome {
        let (target, error) = (target.parse().unwrap(), error.map(str::to_owned));
        Outcome { target, command: "c".to_owned(), uid: None, result, replicas: None, revision: None, error }
    }

    #[test]
    fn a_refusal_is_told_once_a_target_and_reason_until_a_command_is_carried_out() {
        let refusals = Refusals::new();
        let told = |target, result, error| refusals.note(&outcome(target, result, error)).is_some();
        let frozen = OutcomeResult::Frozen;
        assert_eq!([told("a/B/c", frozen, None), told("a/B/c", frozen, None), told("a/B/c", frozen, None)], [true, false, false]);
        assert!(told("a/B/d", frozen, None), "another target");
        assert!(told("a/B/c", OutcomeResult::Superseded, None));
        assert!(!told("a/B/c", frozen, None), "a newer command changes nothing about the freeze");
        assert!(told("a/B/c", OutcomeResult::Failed, Some("x")), "another reason");
        assert!(!told("a/B/c", OutcomeResult::Failed, Some("x")));
        assert!(told("a/B/c", OutcomeResult::Failed, Some("y")), "another error");
        assert!(told("a/B/c", OutcomeResult::Applied, None));
        assert!(told("a/B/c", OutcomeResult::Failed, Some("y")), "it was over");
    }
}
