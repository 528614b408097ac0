//! What the open transactions of others hide of the partitions of a member: it is told where that lasts, since only a person can end it sooner.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ENDS_WITHIN, Member};
use crate::log::kafka::client;
use crate::log::{Lacking, LogError, Offset};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// Where an end is not reached for so long, it is looked why.
const LATE: Duration = Duration::from_secs(3);
/// And so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Partitions of which a transaction hides the end, with its first offset.
#[derive(Default)]
pub(super) struct Hidden {
    begins: BTreeMap<u32, Offset>,
    looked: Option<Stopwatch>,
}

impl Hidden {
    /// What such a partition waits for.
    pub(super) fn lacking(&self, partition: u32) -> Option<Lacking> {
        let begins = self.begins.get(&partition)?;
        Some(Lacking {
            what: what(),
            reason: format!("it is open at offset {begins}, and hides what stands behind it"),
            mend: "let that producer end it, or end it as docs/producers.md says (\"Transactions\")".to_owned(),
        })
    }
}

fn what() -> String {
    "the end of a producer's transaction".to_owned()
}

impl Member {
    /// Looks, where ends are not reached for long, whether a transaction hides them.
    pub(super) fn look_for_transactions(&mut self, now: Timestamp) -> Result<(), LogError> {
        let is_read = |partition: &u32| self.owned.get(partition).is_some_and(|owned| owned.ahead.is_empty());
        let late: BTreeMap<u32, Offset> = self.questions.open_since(now - LATE).filter(|(partition, _)| is_read(partition)).collect();
        let begins = if late.is_empty() {
            BTreeMap::new()
        } else if self.hidden.looked.as_ref().is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            self.hidden.begins.iter().filter(|(partition, _)| late.contains_key(partition)).map(|(partition, begins)| (*partition, *begins)).collect()
        } else {
            self.hidden.looked = Some(Stopwatch::start());
            let asker = self.shared.asker(self.membership.group)?;
            let asks: Vec<u32> = late.keys().copied().collect();
            let mut seen = client::ends(&asker, self.topic(), &asks, ENDS_WITHIN);
            seen.retain(|partition, seen| late.get(partition).is_some_and(|end| *seen < *end));
            seen
        };
        let before = std::mem::replace(&mut self.hidden.begins, begins);
        let place = |partition: u32| (self.membership.group, self.membership.topic, partition);
        for partition in before.keys().filter(|partition| !self.hidden.begins.contains_key(partition)) {
            self.shared.hold(place(*partition), None);
        }
        for partition in self.hidden.begins.keys().filter(|partition| !before.contains_key(partition)) {
            self.shared.hold(place(*partition), Some(what()));
        }
        Ok(())
    }
}
