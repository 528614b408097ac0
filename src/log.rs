//! The port to the log: ordered, durable partitions of records, and what lives behind it.
//!
//! A *session* is one member of a group: it polls records of the topics it consumes and commits
//! appends, state puts and positions together, all or nothing. Everything else in Loadline knows
//! the log only through [`Log`], [`Session`] and [`Follower`]; `memory`, `embedded` and `kafka` stand behind them.
//!
//! Invariants that every implementation keeps, and that one contract suite (`tests/log_contract.rs`)
//! checks: order within a partition; atomicity of a commit; what was refused is invisible; a zombie
//! is fenced; a new session resumes where the last commit left off; `at` is set by the log alone
//! and is the same on every read.
//!
//! All calls block; they run on threads of their own, never on an async executor. Only
//! [`Session::poll`] waits.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::model::Timestamp;

mod commit_times;
pub mod consumption;
mod coordinator;
pub(crate) mod directory;
pub mod embedded;
mod groups;
#[cfg(feature = "kafka")]
pub mod kafka;
mod member;
pub mod memory;
mod partitioner;
mod partitions;
mod read_through;
#[cfg(test)]
pub(crate) mod testing;

pub use commit_times::{BOUNDS as COMMIT_BOUNDS, CommitTimes};
pub use partitioner::partition_of;
pub use partitions::Partitions;

/// The topics of the pipeline. The prefix of their names on a broker is the log's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Samples from producers; any key.
    Metrics,
    /// Policies, budgets and overrides from people and files.
    Control,
    /// The ordered signals of each target; keyed by target, partition-wide entries name a partition.
    Signals,
    /// Standing claims at the arbiter; keyed by fleet.
    Requests,
    /// What actuators are to do; keyed by target.
    Commands,
    /// Decisions, grants, outcomes; keyed by target.
    Audit,
    /// What a person should look at; keyed by target.
    Alerts,
    /// Records that could not be used, with the reason.
    DeadLetters,
    /// The schemas by which the releases of this installation write; keyed by fingerprint.
    Schemas,
}

impl Topic {
    /// Every topic, in the order of the flow.
    pub const ALL: [Topic; 9] =
        [Topic::Metrics, Topic::Control, Topic::Signals, Topic::Requests, Topic::Commands, Topic::Audit, Topic::Alerts, Topic::DeadLetters, Topic::Schemas];

    /// The topic's name, without a prefix.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Metrics => "metrics",
            Topic::Control => "control",
            Topic::Signals => "signals",
            Topic::Requests => "requests",
            Topic::Commands => "commands",
            Topic::Audit => "audit",
            Topic::Alerts => "alerts",
            Topic::DeadLetters => "dead-letters",
            Topic::Schemas => "schemas",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The place of a record in its partition, counting up. A log may leave places empty (a broker's transaction
/// markers); that a record is gone is told by [`Polled::Gap`] alone.
pub type Offset = u64;

/// The most bytes that one record may have (key and value together).
pub const MAX_RECORD_BYTES: usize = 512 * 1024;

/// A record to append. `at` and the offset are the log's to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAppend {
    /// Where to.
    pub topic: Topic,
    /// Which partition of it; see [`partition_of`] for keyed records.
    pub partition: u32,
    /// The record's key, where it has one.
    pub key: Option<String>,
    /// The record's bytes.
    pub value: Vec<u8>,
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// The partition it stands in.
    pub partition: u32,
    /// Its place there.
    pub offset: Offset,
    /// When the log appended it; the same on every read.
    pub at: Timestamp,
    /// Its key, where it has one; a session may leave out those of samples, which say nothing.
    pub key: Option<String>,
    /// What its bytes are, where somebody else than Loadline wrote it and says so: its `content-type`. None in a log that only Loadline writes.
    pub content_type: Option<String>,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// What a session is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group: the name of the stage.
    pub group: &'static str,
    /// This member's name. A second session of the same group and name takes over from the first,
    /// which is fenced from then on.
    pub member: String,
    /// The topic that the group consumes.
    pub topic: Topic,
}

/// What a poll brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// Records of one partition, in order; never empty.
    Records {
        /// The partition.
        partition: u32,
        /// Its next records.
        records: Vec<RawRecord>,
    },
    /// This session owns the partition from now on; `position` is the next offset to process
    /// (the earliest record where the group has committed nothing yet).
    Assigned {
        /// The partition.
        partition: u32,
        /// The group's committed position.
        position: Offset,
    },
    /// This session owns the partition no more. What it has not committed, another will read.
    Revoked {
        /// The partition.
        partition: u32,
    },
    /// The records `from..to` are gone: retention overtook the reader, or they were damaged and cut out.
    Gap {
        /// The partition.
        partition: u32,
        /// The first offset that is gone.
        from: Offset,
        /// The first offset that is there.
        to: Offset,
    },
}

impl Polled {
    /// The partition that it is of.
    pub fn partition(&self) -> u32 {
        let (Polled::Records { partition, .. } | Polled::Assigned { partition, .. } | Polled::Revoked { partition } | Polled::Gap { partition, .. }) = self;
        *partition
    }
}

/// One put into the group's state: `None` deletes the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePut {
    /// The state's key.
    pub key: String,
    /// Its bytes.
    pub value: Option<Vec<u8>>,
}

/// What a session commits at once, for one partition of its input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The input partition that this batch is about.
    pub partition: u32,
    /// The next offset to process; `None` leaves the position as it is.
    pub position: Option<Offset>,
    /// Records to append, in order.
    pub appends: Vec<RawAppend>,
    /// Puts into the state of (group, partition).
    pub states: Vec<StatePut>,
}

/// Why the log could not do a thing, by what the caller is to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Nothing happened; the same call may succeed later (a full disk, a busy file).
    #[error("{reason}; nothing was lost, it will be tried again")]
    Retry {
        /// What stood in the way.
        reason: String,
    },
    /// Another session took over; drop this one and all its state.
    #[error("another member took over partition {partition} of group {group}")]
    Fenced {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
    },
    /// It is not known whether it took effect, or how far; of a commit, the committed position tells.
    #[error("whether it took effect is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// A commit takes long, and is still under way: the same call again, soon, tells what came of it ([`Session::commit_soon`]).
    #[error("{reason}; it is still being written")]
    UnderWay {
        /// What it waits for.
        reason: String,
    },
    /// A record exceeds [`MAX_RECORD_BYTES`], or what its topic on Kafka takes; it will never be accepted.
    #[error("{}", too_large(*topic, *bytes))]
    TooLarge {
        /// Where it was to go.
        topic: Topic,
        /// Its size.
        bytes: usize,
    },
    /// The log was closed, or cannot be used by anyone: give up, with the reason.
    #[error("{reason}")]
    Fatal {
        /// What is wrong, and the way out.
        reason: String,
    },
}

fn too_large(topic: Topic, bytes: usize) -> String {
    if bytes > MAX_RECORD_BYTES {
        format!("a record of {bytes} bytes for {topic} exceeds the limit of {MAX_RECORD_BYTES} bytes")
    } else {
        format!("the topic {topic} takes no record of {bytes} bytes: its max.message.bytes is too small; `loadline topology check` says how that is mended")
    }
}

/// That nothing, or not all, can be written for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What cannot be written, where other writes succeed: `what decide says of its partition 3`; `None` where none does.
    pub of: Option<String>,
    /// Since when, without one of these writes that succeeded.
    pub since: Timestamp,
    /// How many writes were refused since.
    pub refused: u64,
    /// What stands in the way.
    pub reason: String,
    /// Where: the log's directory.
    pub place: String,
    /// The way out. What waits is written by itself then.
    pub mend: String,
}

/// Hears what came of an append.
pub type Told = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A log.
pub trait Log: Send + Sync + 'static {
    /// How many partitions `topic` has; never 0.
    fn partitions(&self, topic: Topic) -> u32;

    /// Becomes a member of a group.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the log is closed.
    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError>;

    /// Follows a topic outside of any group, from these offsets on (0 for a partition that is not named): everyone who asks sees
    /// all of it.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the log is closed, [`LogError::Retry`].
    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError>;

    /// Appends records that no input caused, all or nothing; returns when they are durable, with
    /// each one's offset. On Kafka a part of them may be there, which is told.
    ///
    /// # Errors
    /// [`LogError::Retry`] and [`LogError::TooLarge`] when nothing was appended; [`LogError::Unknown`] when all or a part of them
    /// may be there; [`LogError::Fatal`] when the log is closed.
    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError>;

    /// Appends what several callers have, each for itself: each is told what came of its own as soon as that is known, on whichever thread; it may be after this returns. One that
    /// is refused costs no other.
    fn append_each(&self, calls: Vec<(Vec<RawAppend>, Told)>) {
        let (appends, told): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        match self.append(appends.concat()) {
            // Nothing was appended.
            Err(LogError::TooLarge { .. }) if appends.len() > 1 => {
                appends.into_iter().zip(told).for_each(|(appends, told)| told(self.append(appends).map(drop)));
            }
            outcome => {
                let outcome = outcome.map(drop);
                told.into_iter().for_each(|told| told(outcome.clone()));
            }
        }
    }

    /// The earliest offset that is still there, and the next one to be appended.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<Offset>, LogError>;

    /// As [`Log::range`], of all partitions of a topic, in their order.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn ranges(&self, topic: Topic) -> Result<Vec<std::ops::Range<Offset>>, LogError> {
        (0..self.partitions(topic)).map(|partition| self.range(topic, partition)).collect()
    }

    /// Reads at most `max` committed records from `from` on (from the earliest, where that is
    /// later). Empty at the end.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError>;

    /// Where the first record of a partition stands that was appended after `at`, or the end where there is none: at it, or in a gap before it. Times in a log
    /// may run back a little where a clock did; what that displaces is displaced by as much.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn first_after(&self, topic: Topic, partition: u32, at: Timestamp) -> Result<Offset, LogError> {
        halved(self.range(topic, partition)?, at, |offset| self.scan(topic, partition, offset, 1))
    }

    /// Whether other processes take over from one that is gone. A partition waits meanwhile until what came since its last snapshots is folded again.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether the log itself leaves offsets without a record (a broker's markers of transactions). Where it does not, an
    /// offset that holds nothing is a loss, and told.
    fn leaves_gaps(&self) -> bool {
        false
    }

    /// A time that the log's own clock has reached for certain: no later record has an earlier `at`, unless that clock is set
    /// back. [`Timestamp::MIN`] where nothing is known of it yet. The clock of who asks may be another one.
    fn reached(&self) -> Timestamp;

    /// So many threads read it at once without waiting for each other. Where it is 1 the order of reads is that of who asks, and the same in every run.
    fn readers(&self) -> usize {
        1
    }

    /// The state of (group, partition), in the order of its keys.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError>;

    /// The position that the group has committed for a partition of its input.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError>;

    /// As [`Log::committed`], of all partitions of `topic`, in their order.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn all_committed(&self, group: &str, topic: Topic) -> Result<Vec<Option<Offset>>, LogError> {
        (0..self.partitions(topic)).map(|partition| self.committed(group, topic, partition)).collect()
    }

    /// Who has which partition of `topic` as a member of `group`, in words for people; `None` where the log has no other processes than this
    /// one. A partition that is being handed over, or that nobody takes, is not among them.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn owners(&self, _group: &str, _topic: Topic) -> Result<Option<Owners>, LogError> {
        Ok(None)
    }

    /// What no reader sees yet at the end of a partition of `topic`, since a transaction is open there: from its beginning on. Only partitions where
    /// there is such a thing.
    ///
    /// # Errors
    /// [`LogError::Retry`] or [`LogError::Fatal`].
    fn hidden(&self, _topic: Topic) -> Result<BTreeMap<u32, std::ops::Range<Offset>>, LogError> {
        Ok(BTreeMap::new())
    }

    /// The partitions whose next record waits until it is known how to read it.
    fn held(&self) -> Vec<Held> {
        Vec::new()
    }

    /// To be called now and then. Looks whether it can be reached, where that is not seen by what is written: a process that reads alone would not know; and lets go what
    /// nobody uses any more. May take seconds.
    fn look(&self) {}

    /// Why nothing can be written for now, where that is so. Whoever is answered [`LogError::Retry`] by a
    /// write tries again in silence: what watches this tells of it, once and with one voice.
    fn trouble(&self) -> Option<Trouble> {
        None
    }

    /// How long its commits took; `None` where nobody measures it.
    fn commit_times(&self) -> Option<&CommitTimes> {
        None
    }

    /// Wakes every waiting poll and makes all later calls fail with [`LogError::Fatal`].
    fn close(&self);
}

/// Who has which partition, in words for people.
pub type Owners = BTreeMap<u32, String>;

/// A log for reading alone, beside the processes that run on it or after them: what is committed, and nothing else.
pub trait ReadOnly {
    /// How many partitions `topic` has; never 0.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where there is no such topic, [`LogError::Retry`].
    fn partitions(&self, topic: Topic) -> Result<u32, LogError>;

    /// As [`Log::range`].
    ///
    /// # Errors
    /// As there.
    fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<Offset>, LogError>;

    /// As [`Log::scan`].
    ///
    /// # Errors
    /// As there.
    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError>;

    /// As [`Log::first_after`].
    ///
    /// # Errors
    /// As there.
    fn first_after(&self, topic: Topic, partition: u32, at: Timestamp) -> Result<Offset, LogError> {
        halved(self.range(topic, partition)?, at, |offset| self.scan(topic, partition, offset, 1))
    }

    /// As [`Log::leaves_gaps`].
    fn leaves_gaps(&self) -> bool;
}

/// What [`Log::first_after`] says, by halves of `range`; `read` reads one record, from an offset on.
fn halved(range: std::ops::Range<Offset>, at: Timestamp, read: impl Fn(Offset) -> Result<Vec<RawRecord>, LogError>) -> Result<Offset, LogError> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match read(middle)?.first() {
            Some(record) if record.at <= at => low = record.offset + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

impl<L: Log + ?Sized> ReadOnly for L {
    fn partitions(&self, topic: Topic) -> Result<u32, LogError> {
        Ok(Log::partitions(self, topic))
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<Offset>, LogError> {
        Log::range(self, topic, partition)
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        Log::scan(self, topic, partition, from, max)
    }

    fn first_after(&self, topic: Topic, partition: u32, at: Timestamp) -> Result<Offset, LogError> {
        Log::first_after(self, topic, partition, at)
    }

    fn leaves_gaps(&self) -> bool {
        Log::leaves_gaps(self)
    }
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the clock of this process.
    pub at: Timestamp,
    /// By the log's own clock, which may be another one: [`Log::reached`].
    pub log: Timestamp,
}

/// What must be known before a record can be read, and is not in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// It, in words that stay the same while the same thing is lacking: "the schema 17 of a registry".
    pub what: String,
    /// What stands in the way.
    pub reason: String,
    /// The way out. It goes on by itself then.
    pub mend: String,
}

/// A partition whose next record waits for what is lacking, for who reads it in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who reads it.
    pub group: &'static str,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// What is lacking.
    pub what: String,
    /// For how long.
    pub for_time: Duration,
}

/// One member of a group. Dropping it leaves the group in order: its partitions go to the others.
pub trait Session: Send {
    /// What is new for this member: at most `max` records in all, and changes of ownership.
    /// Waits at most `wait` while there is nothing; an empty answer means that nothing came.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when another session took over; [`LogError::Retry`]; [`LogError::Fatal`]
    /// when the log is closed.
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError>;

    /// Of partitions that this member owns, a moment before which all that was appended has been polled. `now` lies before the last poll. A partition that
    /// is not read to its end by then is not among them: it comes later, as of then, whatever is appended meanwhile and however far the others are.
    /// What is appended in a transaction that is open counts as appended: until that ends, nothing behind it has been read.
    ///
    /// Where a partition is `due` its end is asked for anew; of others what was known a moment ago may be said again, as of then.
    ///
    /// # Errors
    /// As [`Session::poll`].
    fn read_through(&mut self, now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError>;

    /// Hands out no records of a partition from the next poll on, so that what cannot be written for now does not pile up; or does again. Whoever is given a
    /// partition anew is handed its records.
    fn hold_back(&mut self, partition: u32, on: bool);

    /// What the next record of a partition waits for, where it is not known how to read it.
    fn lacking(&self) -> Vec<(u32, Lacking)> {
        Vec::new()
    }

    /// Commits a batch for a partition that this member owns: all of it or nothing. Returns when
    /// it is durable.
    ///
    /// # Errors
    /// Each variant of [`LogError`] says what to do with the batch.
    fn commit(&mut self, batch: &Batch) -> Result<(), LogError>;

    /// As [`Session::commit`], but what takes long goes on by itself, so that other partitions need not wait for it: the same batch is to be tried again then, until
    /// it is told what came of it. Where the caller reads on meanwhile and there is more to read, nothing is waited for.
    ///
    /// # Errors
    /// As [`Session::commit`]; [`LogError::UnderWay`] while it goes on.
    fn commit_soon(&mut self, batch: &Batch, _reads_on: bool) -> Result<(), LogError> {
        self.commit(batch)
    }

    /// A handle that ends a waiting [`Session::poll`] from another thread, at once.
    fn waker(&self) -> Waker;
}

/// Reads what is appended to a topic, for itself alone.
pub trait Follower: Send {
    /// What is new: at most `max` records in all, as [`Polled::Records`] and [`Polled::Gap`]. Waits at most `wait` while there is
    /// nothing.
    ///
    /// # Errors
    /// [`LogError::Retry`]; [`LogError::Fatal`] when the log is closed.
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError>;

    /// A handle that ends a waiting [`Follower::poll`] from another thread, at once.
    fn waker(&self) -> Waker;
}

/// Ends a session's or a follower's waiting poll from another thread.
#[derive(Clone)]
pub struct Waker(std::sync::Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(std::sync::Arc::new(wake))
    }

    /// Ends the poll that waits now; the next one, where none waits.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
