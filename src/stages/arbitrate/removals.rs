//! What was removed from a fleet in the running period.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// The removals of the running period, each with the time at which its command was issued, in order.
/// Never more entries than the limit that was in force, since each is of one replica at least.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Removals {
    issued: VecDeque<(Timestamp, u32)>,
}

impl Removals {
    /// Forgets what is older than `period`. What is exactly as old still counts.
    pub(super) fn advance(&mut self, now: Timestamp, period: Duration) {
        while self.issued.front().is_some_and(|(at, _)| now.since(*at) > period) {
            self.issued.pop_front();
        }
    }

    /// The clock was set back: what is in the future now counts as issued now.
    pub(super) fn set_back(&mut self, now: Timestamp) {
        for (at, _) in &mut self.issued {
            *at = (*at).min(now);
        }
    }

    /// Counts a removal.
    pub(super) fn add(&mut self, at: Timestamp, replicas: u32) {
        if replicas == 0 {
            return;
        }
        match self.issued.back_mut() {
            Some((last, count)) if *last == at => *count = count.saturating_add(replicas),
            _ => self.issued.push_back((at, replicas)),
        }
    }

    /// How many were removed.
    pub(super) fn spent(&self) -> u64 {
        self.issued.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Whether there were none.
    pub(super) fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }
}
