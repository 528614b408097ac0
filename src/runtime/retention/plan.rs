//! What may go, and what goes next: facts in, trims out.
//!
//! Nothing goes that a group has still to read, or that a restart of it reads again. By age, each topic
//! has a limit of its own. By size, once the log is nearly full: `metrics` first, then `signals`, then
//! `requests` and `commands`, then `audit`, `alerts` and `dead-letters`, the oldest of them first; one of
//! these only when nothing more may go of those before it. `control` never goes.
//!
//! A plan is one small step: at most [`STEP_ROWS`] rows or [`STEP_BYTES`] of a topic, so that commits
//! wait for little. Rows go whole, so what one row holds goes or stays together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::embedded::RowExtent;
use crate::log::{Offset, Topic};
use crate::model::Timestamp;

/// The most rows that a step takes of a partition.
pub const STEP_ROWS: u32 = 64;

/// The most bytes that a step takes for one reason: measured, a step takes about as long as a commit.
pub const STEP_BYTES: u64 = 1024 * 1024;

/// The part of the limit that is kept free for what comes between two steps.
const HEADROOM: u64 = 16;

/// Beyond the limit, what the stages may append so that what is there can still be dealt with: a tenth.
const RESERVE: u64 = 10;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes that the database may have in use; see [`Limits::reserve`] for the stages.
    pub size: u64,
    /// The age at which records of each topic go.
    pub ages: Ages,
}

/// The age at which records of a topic go, where nobody needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Of `metrics`.
    pub metrics: Duration,
    /// Of `signals`.
    pub signals: Duration,
    /// Of `requests`.
    pub requests: Duration,
    /// Of `commands`.
    pub commands: Duration,
    /// Of `audit`.
    pub audit: Duration,
    /// Of `alerts`.
    pub alerts: Duration,
    /// Of `dead-letters`.
    pub dead_letters: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let ages = Ages {
            metrics: hours(6),
            signals: hours(3 * 24),
            requests: hours(24),
            commands: hours(24),
            audit: hours(90 * 24),
            alerts: hours(7 * 24),
            dead_letters: hours(7 * 24),
        };
        Limits { size: 4 * 1024 * 1024 * 1024, ages }
    }
}

impl Limits {
    /// The bytes that the stages may fill: so much more than [`Limits::size`], at which no more samples are
    /// taken, that what was taken can be dealt with.
    pub fn reserve(&self) -> u64 {
        self.size + self.size / RESERVE
    }

    /// Above so many bytes in use, records go by size.
    pub fn low(&self) -> u64 {
        self.size - self.size / HEADROOM
    }

    fn age(&self, topic: Topic) -> Option<Duration> {
        Some(match topic {
            Topic::Metrics => self.ages.metrics,
            Topic::Signals => self.ages.signals,
            Topic::Requests => self.ages.requests,
            Topic::Commands => self.ages.commands,
            Topic::Audit => self.ages.audit,
            Topic::Alerts => self.ages.alerts,
            Topic::DeadLetters => self.ages.dead_letters,
            Topic::Control | Topic::Schemas => return None,
        })
    }
}

/// The order in which topics give way to size.
const BY_SIZE: [&[Topic]; 4] = [&[Topic::Metrics], &[Topic::Signals], &[Topic::Requests, Topic::Commands], &[Topic::Audit, Topic::Alerts, Topic::DeadLetters]];

/// Why a partition keeps what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Everything from this offset on stays.
    pub from: Offset,
    /// Who needs it.
    pub group: &'static str,
    /// What for.
    pub why: Why,
}

/// What records are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The group has not read them.
    Unread,
    /// The group has committed nothing yet, so it begins at the earliest.
    Unstarted,
    /// A restart of the group reads them again.
    Restart,
    /// They never go.
    Forever,
}

/// How far a group that reads a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The group.
    pub group: &'static str,
    /// The next offset that it has to read; `None` before its first commit.
    pub committed: Option<Offset>,
    /// From where a restart reads again; `None` where the group has no snapshots.
    pub restart: Option<Restart>,
}

/// From where a restart of a group with snapshots reads its input again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// There is no complete round of snapshots yet: from the earliest record.
    Earliest,
    /// From here, by its last complete round.
    From(Offset),
}

/// What the groups that read a partition of `topic` need of it. Of a topic whose readers are not known
/// everything stays.
pub fn hold(topic: Topic, readers: &[Progress]) -> Option<Hold> {
    let for_people = matches!(topic, Topic::Audit | Topic::Alerts | Topic::DeadLetters);
    match topic {
        Topic::Control => return Some(Hold { from: 0, group: "admit", why: Why::Forever }),
        Topic::Schemas => return Some(Hold { from: 0, group: "everybody", why: Why::Forever }),
        _ => {}
    }
    if readers.is_empty() && !for_people {
        return Some(Hold { from: 0, group: "nobody", why: Why::Unstarted });
    }
    let of_reader = |reader: &Progress| {
        let (from, why) = match (reader.committed, reader.restart) {
            (None, _) => (0, Why::Unstarted),
            (Some(_), Some(Restart::Earliest)) => (0, Why::Restart),
            (Some(committed), Some(Restart::From(restart))) if restart < committed => (restart, Why::Restart),
            (Some(committed), _) => (committed, Why::Unread),
        };
        Hold { from, group: reader.group, why }
    };
    readers.iter().map(of_reader).min_by_key(|hold| hold.from)
}

/// What is known of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFacts {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The bytes of all its rows.
    pub bytes: u64,
    /// Its first rows, at most [`STEP_ROWS`].
    pub head: Vec<RowExtent>,
    /// What is needed of it.
    pub hold: Option<Hold>,
}

impl PartitionFacts {
    /// The rows of the head that nobody needs.
    fn free(&self) -> &[RowExtent] {
        let from = self.hold.map_or(Offset::MAX, |hold| hold.from);
        let count = self.head.iter().take_while(|row| row.end <= from).count();
        &self.head[..count]
    }
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// The bytes that the database has in use.
    pub used: u64,
    /// Every partition.
    pub partitions: Vec<PartitionFacts>,
}

/// Records to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    /// Of which topic.
    pub topic: Topic,
    /// Of which partition.
    pub partition: u32,
    /// All that stand before this offset.
    pub before: Offset,
}

/// How the log stands to its limit. What little may go still goes when it is held or full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Pressure {
    /// There is room.
    Roomy,
    /// Near the limit: records go by size.
    Trimming,
    /// Near the limit, and no more may go than a step's part.
    Held,
    /// At the limit, likewise: no samples are taken until there is room again.
    Full,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What goes; empty where nothing is due.
    pub trims: Vec<Trim>,
    /// How the log stands to its limit.
    pub pressure: Pressure,
}

/// What goes next.
pub fn plan(facts: &Facts, limits: &Limits) -> Plan {
    let mut taken = Taken::new();
    for partition in &facts.partitions {
        let expired = expired(partition, facts.now, limits);
        if !expired.is_empty() {
            taken.insert((partition.topic, partition.partition), expired);
        }
    }
    let by_age: u64 = taken.values().flat_map(|rows| rows.iter()).map(|row| row.bytes).sum();
    let excess = facts.used.saturating_sub(by_age).saturating_sub(limits.low()).min(STEP_BYTES);
    let enough = take_by_size(&facts.partitions, excess, &mut taken);
    let pressure = match facts.used {
        used if used <= limits.low() => Pressure::Roomy,
        _ if enough => Pressure::Trimming,
        used if used < limits.size => Pressure::Held,
        _ => Pressure::Full,
    };
    let trim = |((topic, partition), rows): ((Topic, u32), &[RowExtent])| Some(Trim { topic, partition, before: rows.last()?.end });
    Plan { trims: taken.into_iter().filter_map(trim).collect(), pressure }
}

/// The first rows of a partition that are too old, as soon as they are worth a commit: a whole step, or
/// one that has been too old for a sixteenth of its age.
fn expired<'a>(partition: &'a PartitionFacts, now: Timestamp, limits: &Limits) -> &'a [RowExtent] {
    let Some(age) = limits.age(partition.topic) else { return &[] };
    let free = partition.free();
    // The last one that is too old takes those before it along: where the clock ran back, they only seem younger.
    let count = free.iter().rposition(|row| row.at < now - age).map_or(0, |last| last + 1);
    let (rows, bytes) = first_bytes(&free[..count], STEP_BYTES);
    let whole = bytes >= STEP_BYTES || rows.len() >= STEP_ROWS as usize;
    let overdue = rows.iter().any(|row| row.at < now - (age + age / 16));
    if whole || overdue { rows } else { &[] }
}

/// The first rows that come to `bytes` together, at least one where there is any; and what they come to.
fn first_bytes(rows: &[RowExtent], bytes: u64) -> (&[RowExtent], u64) {
    let mut sum = 0;
    let count = rows
        .iter()
        .take_while(|row| {
            sum < bytes && {
                sum += row.bytes;
                true
            }
        })
        .count();
    (&rows[..count], sum)
}

/// Rows that are taken of each partition.
type Taken<'a> = BTreeMap<(Topic, u32), &'a [RowExtent]>;

/// Takes `excess` bytes in the order in which topics give way, of one tier the oldest rows first. Whether there were so
/// many, or may be more behind what is known.
fn take_by_size<'a>(partitions: &'a [PartitionFacts], excess: u64, taken: &mut Taken<'a>) -> bool {
    let mut sum = 0;
    for tier in BY_SIZE {
        let of_tier = || partitions.iter().filter(|facts| tier.contains(&facts.topic));
        while sum < excess {
            let next = of_tier().filter_map(|facts| {
                let so_far = taken.get(&(facts.topic, facts.partition)).map_or(0, |rows| rows.len());
                facts.free().get(so_far).map(|row| (row.at, facts, so_far))
            });
            let Some((_, facts, so_far)) = next.min_by_key(|(at, ..)| *at) else { break };
            sum += facts.head[so_far].bytes;
            taken.insert((facts.topic, facts.partition), &facts.head[..=so_far]);
        }
        // The next tier comes only when nothing more may go of this one.
        let may_have_more = |facts: &PartitionFacts| facts.head.len() >= STEP_ROWS as usize && facts.free().len() == facts.head.len();
        if sum >= excess || of_tier().any(may_have_more) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
