//! Why a member does not come to the end of a partition, where that lasts: somebody's open transaction hides it, or the client cannot unpack what comes next. Only a person can
//! mend that, so it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ENDS_WITHIN, Member};
use crate::log::kafka::client;
use crate::log::{Lacking, LogError, Offset};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// Where an end is not reached for so long, it is looked why.
const LATE: Duration = Duration::from_secs(3);
/// And so often, and no more than a tenth of the time: the others wait meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RESTS: u32 = 9;
/// The client says it again as often as it fetches.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// Partitions whose ends are not reached.
#[derive(Default)]
pub(super) struct Hidden {
    partitions: BTreeMap<u32, Lacking>,
    /// When that was looked at last, and for how long it is not again.
    looked: Option<(Stopwatch, Duration)>,
    /// What the client said last of records that it could not fetch; it does not say of which partition.
    failed: Option<(Stopwatch, String)>,
}

impl Hidden {
    /// What such a partition waits for.
    pub(super) fn lacking(&self, partition: u32) -> Option<&Lacking> {
        self.partitions.get(&partition)
    }

    /// The client could not fetch something.
    pub(super) fn failed(&mut self, reason: String) {
        self.failed = Some((Stopwatch::start(), reason));
    }

    /// Why what comes next is not read, where readers may see as far as `seen`.
    fn why(&self, next: Offset, seen: Offset, end: Offset) -> Option<Lacking> {
        if seen < end {
            return Some(Lacking {
                what: "the end of a producer's transaction".to_owned(),
                reason: format!("it is open at offset {seen}, and hides what stands behind it"),
                mend: "let that producer end it, or end it as docs/producers.md says (\"Transactions\")".to_owned(),
            });
        }
        let (_, reason) = self.failed.as_ref().filter(|(said, _)| said.elapsed() < SAID_WITHIN)?;
        Some(Lacking {
            what: "a record that its client can unpack".to_owned(),
            reason: format!("at offset {next} or next to it: {reason}"),
            mend:
                "see that the disks of the brokers are sound; what cannot be had back is deleted as docs/kafka.md says (\"A record that no client can unpack\")"
                    .to_owned(),
        })
    }
}

impl Member {
    /// Looks, where ends are not reached for long, why that is.
    pub(super) fn look_at_the_late(&mut self, now: Timestamp) -> Result<(), LogError> {
        let is_read = |partition: &u32| self.owned.get(partition).is_some_and(|owned| owned.ahead.is_empty() && !owned.held_back);
        let late: BTreeMap<u32, Offset> = self.questions.open_since(now - LATE).filter(|(partition, _)| is_read(partition)).collect();
        let found = if late.is_empty() {
            BTreeMap::new()
        } else if self.hidden.looked.as_ref().is_some_and(|(looked, rests)| looked.elapsed() < *rests) {
            let still = self.hidden.partitions.iter().filter(|(partition, _)| late.contains_key(partition));
            still.map(|(partition, lacking)| (*partition, lacking.clone())).collect()
        } else {
            let looking = Stopwatch::start();
            let asker = self.shared.asker(self.membership.group)?;
            let asks: Vec<u32> = late.keys().copied().collect();
            let seen = client::ends(&asker, self.topic(), &asks, ENDS_WITHIN);
            self.hidden.looked = Some((Stopwatch::start(), LOOK_EVERY.max(looking.elapsed() * RESTS)));
            let why = |(partition, seen): (u32, Offset)| {
                let next = self.owned.get(&partition)?.next;
                Some((partition, self.hidden.why(next, seen, *late.get(&partition)?)?))
            };
            seen.into_iter().filter_map(why).collect()
        };
        let before = std::mem::replace(&mut self.hidden.partitions, found);
        let place = |partition: u32| (self.membership.group, self.membership.topic, partition);
        for (partition, lacking) in &before {
            if self.hidden.lacking(*partition).is_none_or(|now| now.what != lacking.what) {
                self.shared.hold(place(*partition), None);
            }
        }
        for (partition, lacking) in &self.hidden.partitions {
            if before.get(partition).is_none_or(|before| before.what != lacking.what) {
                self.shared.hold(place(*partition), Some(lacking.what.clone()));
            }
        }
        Ok(())
    }
}
