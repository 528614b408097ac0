//! Keeps the embedded log within its limits: deletes what is too old, and what is too much.
//!
//! [`plan`] decides; a thread carries it out, one small step after the other, and rests after each as long as it
//! took, so that commits find the log free at least half of the time. It looks every second, and at once when
//! ingest is refused. What may not go is left alone, whatever the limits say: at the limit ingest is refused
//! ([`Room::take`]), the stages have a reserve beyond it, and the alert [`ALERT`] fires until there is room again.
//!
//! Which group reads what is told by whoever starts it; of messages only its own alert is known here.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::log::embedded::EmbeddedLog;
use crate::log::{Log, LogError, Topic, partition_of};
use crate::model::{Alert, AlertState, Message, Severity, Timestamp};
use crate::stages::{Effects, Stage};
use crate::wire;

use super::clock::{Clock, Stopwatch};
use super::publish;
use super::snapshots::replays_from;

pub mod plan;
mod room;

pub use plan::{Ages, Limits, Pressure};
use plan::{Facts, Hold, PartitionFacts, Plan, Progress, Restart, STEP_ROWS, Trim, Why, hold};
pub use room::{Room, TopicUsage, Usage};

/// The alert that fires while no samples are taken because the log is full.
pub const ALERT: &str = "LogFull";

/// The key of its records, and what it is about.
const SUBJECT: &str = "log.db";

/// How often it is looked how the log stands.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The rest after a look that found nothing due, however many are refused meanwhile.
const LOOK_REST: Duration = Duration::from_millis(100);

/// The rest after a step, at least: one that frees little would otherwise follow the next at once.
const LEAST_REST: Duration = Duration::from_millis(1);

/// The wait after the log said "later".
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The shortest stretch of time of which it is said what a day brings.
const LEAST_SPAN: Duration = Duration::from_secs(60);

/// The most alerts that are read back at the start, to find how the last one ended.
const ALERTS_BACK: u64 = 20_000;

/// Alerts that are read at once.
const SLICE: usize = 1_000;

/// A group that reads a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    group: &'static str,
    topic: Topic,
    snapshots: bool,
}

impl Reader {
    /// A stage.
    pub fn stage<S: Stage>() -> Reader {
        Reader { group: S::NAME, topic: S::INPUT, snapshots: !S::FLUSHES }
    }

    /// A group that remembers nothing but its position.
    pub fn group(group: &'static str, topic: Topic) -> Reader {
        Reader { group, topic, snapshots: false }
    }
}

/// The thread that deletes. It ends with [`Retention::stop`], or when it is dropped.
pub struct Retention {
    room: Arc<Room>,
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl Retention {
    /// Looks once how the log stands, and starts the thread.
    ///
    /// # Errors
    /// As the log's reads; [`LogError::Fatal`] where the system gives no thread.
    pub fn start(log: EmbeddedLog, clock: Arc<dyn Clock>, readers: Vec<Reader>, limits: Limits) -> Result<Retention, LogError> {
        let mut keeper = Keeper::new(log, clock, readers, limits)?;
        keeper.look()?;
        let room = Arc::clone(&keeper.room);
        let run = move || keeper.run();
        let thread = std::thread::Builder::new().name("retention".to_owned()).spawn(run);
        let thread = thread.map_err(|error| LogError::Fatal { reason: format!("cannot start a thread for retention: {error}") })?;
        Ok(Retention { room, thread: Some(thread) })
    }

    /// The room that is left.
    pub fn room(&self) -> Arc<Room> {
        Arc::clone(&self.room)
    }

    /// Whether it has ended by itself: the log is closed, or broken.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it after the step that is under way.
    ///
    /// # Errors
    /// What had ended it before.
    pub fn stop(mut self) -> Result<(), LogError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LogError> {
        self.room.stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(LogError::Fatal { reason: "the thread of retention panicked".to_owned() }),
            None => Ok(()),
        }
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(event = "part-failed", %error, "retention ended");
        }
    }
}

/// What the thread owns.
struct Keeper {
    log: EmbeddedLog,
    clock: Arc<dyn Clock>,
    readers: Vec<Reader>,
    limits: Limits,
    room: Arc<Room>,
    /// Whether no samples are taken, and [`ALERT`] fires.
    full: bool,
}

impl Keeper {
    fn new(log: EmbeddedLog, clock: Arc<dyn Clock>, readers: Vec<Reader>, limits: Limits) -> Result<Keeper, LogError> {
        let full = fires(&log)?;
        Ok(Keeper { log, clock, readers, limits, room: Arc::new(Room::unlimited()), full })
    }

    fn run(mut self) -> Result<(), LogError> {
        loop {
            let started = Stopwatch::start();
            let go_on = match self.step() {
                Ok(true) => self.room.pause(started.elapsed().max(LEAST_REST)),
                Ok(false) => self.room.pause(LOOK_REST) && self.room.wait(LOOK_EVERY),
                Err(LogError::Retry { reason }) => {
                    tracing::warn!(event = "retention-waits", reason, "nothing can be deleted for now, trying again in {RETRY_WAIT:?}");
                    self.room.pause(RETRY_WAIT)
                }
                Err(error) => return Err(error),
            };
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Looks how the log stands, and deletes what is due. Whether there was anything.
    fn step(&mut self) -> Result<bool, LogError> {
        let Plan { trims, .. } = self.look()?;
        for Trim { topic, partition, before } in &trims {
            self.log.trim(*topic, *partition, *before)?;
        }
        Ok(!trims.is_empty())
    }

    /// Looks how the log stands, tells it, and plans the next step.
    fn look(&mut self) -> Result<Plan, LogError> {
        let space = self.log.space()?;
        let facts = Facts { now: self.clock.now(), used: space.used, partitions: self.partitions()? };
        let plan = plan::plan(&facts, &self.limits);
        // Once full, it is so until there is room again: else every record that goes would let one more request in.
        let full = match plan.pressure {
            Pressure::Roomy => false,
            Pressure::Full => true,
            Pressure::Held => self.full || self.room.was_refused(),
            Pressure::Trimming => self.full,
        };
        let usage = usage(&facts, if full { Pressure::Full } else { plan.pressure }, &self.limits, space.free);
        let held_by = usage.held_by.join("; ");
        let left = if full { 0 } else { self.limits.size.saturating_sub(facts.used) };
        self.room.tell(left, usage);
        if full != self.full {
            match self.tell(full, &held_by, facts.now) {
                Ok(()) => self.full = full,
                // What makes room must not wait for the alert; it is due again at the next look.
                Err(LogError::Retry { reason }) => tracing::warn!(event = "alert-untold", reason, "the alert {ALERT} cannot be told for now"),
                Err(error) => return Err(error),
            }
        }
        Ok(plan)
    }

    fn partitions(&self) -> Result<Vec<PartitionFacts>, LogError> {
        let mut all = Vec::new();
        for topic in Topic::ALL {
            for partition in 0..self.log.partitions(topic) {
                let hold = hold(topic, &self.progress(topic, partition)?);
                let head = self.log.head(topic, partition, STEP_ROWS)?;
                all.push(PartitionFacts { topic, partition, bytes: self.log.bytes(topic, partition)?, head, hold });
            }
        }
        Ok(all)
    }

    fn progress(&self, topic: Topic, partition: u32) -> Result<Vec<Progress>, LogError> {
        let of = |reader: &Reader| {
            let group = reader.group;
            let restart = match reader.snapshots {
                false => None,
                true => Some(replays_from(|key| self.log.state(group, partition, key))?.map_or(Restart::Earliest, Restart::From)),
            };
            // Read last: what a round needs again never grows, so it holds for this position too.
            Ok(Progress { group, committed: self.log.committed(group, topic, partition)?, restart })
        };
        self.readers.iter().filter(|reader| reader.topic == topic).map(of).collect()
    }

    /// Says that the log is full, or is no more.
    fn tell(&self, full: bool, held_by: &str, at: Timestamp) -> Result<(), LogError> {
        let limit = size(self.limits.size);
        let (state, message) = if full {
            let message = format!(
                "the log has reached its limit of {limit}, and nothing more of it may go, so samples are refused (429): {held_by}; see why, or raise retention.size"
            );
            (AlertState::Firing, message)
        } else {
            (AlertState::Resolved, format!("the log is below its limit of {limit} again, and samples are taken"))
        };
        let alert = Alert { target: None, name: ALERT.to_owned(), subject: SUBJECT.to_owned(), severity: Severity::Critical, state, message, at };
        let mut effects = Effects::new();
        effects.to_key(Topic::Alerts, SUBJECT, Message::Alert(alert));
        publish(&self.log, effects)
    }
}

/// Whether the alert of an earlier run still fires.
fn fires(log: &EmbeddedLog) -> Result<bool, LogError> {
    let partition = partition_of(SUBJECT, log.partitions(Topic::Alerts));
    let range = log.range(Topic::Alerts, partition)?;
    let (mut firing, mut next) = (false, range.start.max(range.end.saturating_sub(ALERTS_BACK)));
    while next < range.end {
        let slice = log.scan(Topic::Alerts, partition, next, SLICE)?;
        let Some(last) = slice.last() else { break };
        next = last.offset + 1;
        for record in slice.iter().filter(|record| record.key.as_deref() == Some(SUBJECT)) {
            if let Ok(Message::Alert(alert)) = wire::decode(Topic::Alerts, &record.value)
                && alert.name == ALERT
            {
                firing = alert.state == AlertState::Firing;
            }
        }
    }
    Ok(firing)
}

/// What is shown of the facts.
fn usage(facts: &Facts, pressure: Pressure, limits: &Limits, free: u64) -> Usage {
    let topics: Vec<TopicUsage> = Topic::ALL.into_iter().map(|topic| topic_usage(facts, topic)).collect();
    let days: Vec<u64> = topics.iter().filter_map(|topic| topic.bytes_a_day).collect();
    let held_by = match pressure {
        Pressure::Roomy | Pressure::Trimming => Vec::new(),
        Pressure::Held | Pressure::Full => held_by(facts),
    };
    Usage { pressure, bytes: facts.used, limit: limits.size, free_bytes: free, bytes_a_day: (!days.is_empty()).then(|| days.iter().sum()), topics, held_by }
}

fn topic_usage(facts: &Facts, topic: Topic) -> TopicUsage {
    let partitions = || facts.partitions.iter().filter(|partition| partition.topic == topic);
    let bytes = partitions().map(|partition| partition.bytes).sum();
    let oldest = partitions().filter_map(|partition| partition.head.first()).map(|row| row.at).min();
    let kept = oldest.map(|at| facts.now.since(at));
    let a_day = |kept: Duration| (u128::from(bytes) * 86_400_000).checked_div(kept.as_millis()).and_then(|bytes| u64::try_from(bytes).ok());
    TopicUsage {
        topic: topic.name().to_owned(),
        bytes,
        hours_kept: kept.map(|kept| kept.as_secs_f64() / 3600.0),
        bytes_a_day: kept.filter(|kept| *kept >= LEAST_SPAN).and_then(a_day),
    }
}

/// Who holds what, the largest first.
fn held_by(facts: &Facts) -> Vec<String> {
    let mut holding: Vec<(u64, String)> = facts
        .partitions
        .iter()
        .filter(|partition| partition.bytes > 0)
        .filter_map(|PartitionFacts { topic, partition, bytes, hold, .. }| {
            let Hold { from, group, why } = (*hold)?;
            let what = format!("{} of {topic}/{partition}", size(*bytes));
            let words = match why {
                Why::Forever => format!("{what} are kept for good"),
                Why::Unstarted => format!("{what} stay, since {group} has read nothing yet"),
                Why::Unread => format!("{what} stay, since {group} has read them up to {from} only"),
                Why::Restart => format!("{what} stay, since a restart of {group} reads them again from {from} on"),
            };
            Some((*bytes, words))
        })
        .collect();
    holding.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    holding.into_iter().take(3).map(|(_, words)| words).collect()
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests;
