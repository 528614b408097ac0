//! `Stabilize`: a proposal is followed only as far as the recent ones agree.
//!
//! The smallest proposal inside the scale-out window bounds growth, the largest inside the scale-in
//! window bounds shrinking (Kubernetes 1.37, `stabilizeRecommendationWithBehaviors`). The history
//! holds the proposals before stabilization.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Reason, Timestamp};

/// An earlier proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// When.
    pub(super) at: Timestamp,
    /// What.
    pub(super) replicas: u32,
}

/// Earlier proposals, as far as they can still bound anything: two monotone queues, so that a long
/// window with a short interval costs no more than the turns of the load inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Proposals {
    /// Falling towards the newest: the front is the largest of the scale-in window.
    largest: Vec<Proposal>,
    /// Rising towards the newest: the front is the smallest of the scale-out window.
    smallest: Vec<Proposal>,
    /// Whether anything was ever entered.
    #[serde(default)]
    begun: bool,
}

impl Proposals {
    /// Whether nothing was ever entered.
    pub(super) fn is_new(&self) -> bool {
        !self.begun
    }

    /// From now on the history counts as begun, also without an entry.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// Enters a proposal; `at` is not earlier than any before it.
    pub(super) fn enter(&mut self, at: Timestamp, replicas: u32) {
        self.begun = true;
        let proposal = Proposal { at, replicas };
        while self.largest.last().is_some_and(|p| p.replicas <= replicas) {
            self.largest.pop();
        }
        self.largest.push(proposal);
        while self.smallest.last().is_some_and(|p| p.replicas >= replicas) {
            self.smallest.pop();
        }
        self.smallest.push(proposal);
    }

    /// The clock was set back to `at`: nothing was entered after it.
    pub(super) fn set_back(&mut self, at: Timestamp) {
        self.largest.iter_mut().chain(&mut self.smallest).for_each(|p| p.at = p.at.min(at));
    }

    /// Forgets what has left both windows.
    pub(super) fn prune(&mut self, now: Timestamp, out: Duration, r#in: Duration) {
        self.largest.retain(|p| p.at > now - r#in);
        self.smallest.retain(|p| p.at > now - out);
    }
}

/// What stabilization made of a proposal.
pub(super) struct Stabilized {
    /// The count.
    pub(super) after: u32,
    /// Which window bound.
    pub(super) reason: Reason,
    /// When the proposal that bound leaves its window.
    pub(super) until: Timestamp,
}

/// Bounds `desired` by the recent proposals; `None` where none of them binds.
pub(super) fn stabilize(current: u32, desired: u32, history: &Proposals, out: Duration, r#in: Duration, now: Timestamp) -> Option<Stabilized> {
    // A window's edge is outside: a proposal exactly as old as the window no longer counts.
    let smallest = history.smallest.iter().find(|p| p.at > now - out).filter(|p| p.replicas < desired);
    let largest = history.largest.iter().find(|p| p.at > now - r#in).filter(|p| p.replicas > desired);
    let up = smallest.map_or(desired, |p| p.replicas);
    let down = largest.map_or(desired, |p| p.replicas);
    let after = current.max(up).min(down);
    if after == desired {
        return None;
    }
    let (reason, binding, window) = if desired > after { (Reason::ScaleOutWindow, smallest, out) } else { (Reason::ScaleInWindow, largest, r#in) };
    Some(Stabilized { after, reason, until: binding.map_or(now, |p| p.at) + window })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    #[test]
    fn a_proposal_exactly_as_old_as_the_window_no_longer_counts() {
        let mut history = Proposals::default();
        history.enter(at(0), 9);
        let window = Duration::from_secs(300);
        assert_eq!(stabilize(9, 3, &history, Duration::ZERO, window, at(299)).unwrap().after, 9);
        assert!(stabilize(9, 3, &history, Duration::ZERO, window, at(300)).is_none());
    }

    proptest! {
        /// The queues say what a list of everything says.
        #[test]
        fn queues_equal_the_whole_history(
            steps in prop::collection::vec((0_i64..40, 0_u32..20, 0_u32..20), 1..60),
            out in 0_u64..200, r#in in 0_u64..200,
        ) {
            let (out, r#in) = (Duration::from_secs(out), Duration::from_secs(r#in));
            let (mut history, mut list, mut now) = (Proposals::default(), Vec::new(), at(1000));
            for (wait, desired, current) in steps {
                now = now + Duration::from_secs(wait.unsigned_abs());
                let up = list.iter().filter(|(t, _)| *t > now - out).map(|(_, n)| *n).chain([desired]).min().unwrap();
                let down = list.iter().filter(|(t, _)| *t > now - r#in).map(|(_, n)| *n).chain([desired]).max().unwrap();
                let expected = current.max(up).min(down);
                let got = stabilize(current, desired, &history, out, r#in, now).map_or(desired, |s| s.after);
                prop_assert_eq!(got, expected);
                history.enter(now, desired);
                history.prune(now, out, r#in);
                list.push((now, desired));
            }
        }
    }
}
