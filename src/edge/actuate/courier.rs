//! What the actuator does with commands, as steps: each is one call to the log or one to the world, so that a crash, or a
//! simulation, can stop between any two.
//!
//! The order is the promise: first the position of a command is committed, then it is carried out, then its outcome is
//! appended. What a crash swallows after the first is never carried out again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error};

use super::{Hands, refusal};
use crate::edge::events::Actuating;
use crate::log::{Batch, Log, LogError, Membership, Offset, Polled, RawRecord, Session, Topic, Waker};
use crate::model::{Audit, Command, DeadLetter, Message, Outcome, OutcomeResult, Signal};
use crate::runtime::events::CommandEnded;
use crate::runtime::{publish, schemas};
use crate::stages::Effects;
use crate::wire;

/// The group that consumes `commands`.
pub const GROUP: &str = "actuate";

/// Commands taken at once. They are carried out one after the other; more would only let the last
/// ones grow old in memory, while a look ahead shows what is superseded.
const MAX_POLL: usize = 64;

/// Tries to append an outcome: 20 s in all. After that the fold closes the command as lost, since
/// a command lives 30 s.
const OUTCOME_TRIES: u32 = 200;

/// The part of an unusable record that its dead letter keeps.
const DEAD_LETTER_BYTES: usize = 64 * 1024;

/// Whose commands a courier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All: those of a partition belong to whoever of [`GROUP`] has it.
    All,
    /// Those of the targets that its [`Hands`] serve, in a group of its own: each process has targets that no other one reaches, and
    /// leaves those of the others alone.
    Own {
        /// The group.
        group: &'static str,
    },
}

impl Reach {
    /// The group that reads them.
    pub fn group(self) -> &'static str {
        match self {
            Reach::All => GROUP,
            Reach::Own { group } => group,
        }
    }
}

/// A record of `commands`, and what it says.
type Received = (RawRecord, Result<Command, String>);

/// One member of the group that consumes `commands`.
pub struct Courier {
    log: Arc<dyn Log>,
    session: Box<dyn Session>,
    hands: Arc<Hands>,
    reach: Reach,
    /// What was polled and could not be taken yet: it is not polled again.
    polled: VecDeque<Polled>,
    queue: VecDeque<Received>,
    doing: Option<Doing>,
    /// Partitions whose last commit of a position is of unknown outcome.
    unsettled: BTreeSet<u32>,
    schemas: schemas::Reading,
}

/// What is under way with a command whose position is committed.
enum Doing {
    CarryOut(Received),
    Tell { effects: Effects, tries: u32 },
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// Nothing came.
    Idle,
    /// The log was polled, and something came.
    Polled,
    /// The position of a command is committed: it is this member's to carry out.
    Committed,
    /// A command was carried out, or refused.
    CarriedOut(Outcome),
    /// What came of it is in the log, or was given up.
    Told,
}

impl Courier {
    /// Joins the group of `reach` as `member`.
    ///
    /// # Errors
    /// As [`Log::join`].
    pub fn join(log: Arc<dyn Log>, hands: Arc<Hands>, member: &str, reach: Reach) -> Result<Self, LogError> {
        let session = log.join(Membership { group: reach.group(), member: member.to_owned(), topic: Topic::Commands })?;
        Ok(Courier {
            log,
            session,
            hands,
            reach,
            polled: VecDeque::new(),
            queue: VecDeque::new(),
            doing: None,
            unsettled: BTreeSet::new(),
            schemas: schemas::Reading::default(),
        })
    }

    /// Ends a waiting [`Courier::step`] from another thread.
    pub fn waker(&self) -> Waker {
        self.session.waker()
    }

    /// Whether a command is begun, and not yet brought to its end.
    pub fn is_busy(&self) -> bool {
        self.doing.is_some()
    }

    /// The next step; it waits at most `wait`, where there is nothing to do.
    ///
    /// # Errors
    /// [`LogError::Retry`] and [`LogError::Unknown`]: the same call again, later. Any other ends this member.
    pub fn step(&mut self, wait: Duration) -> Result<Stepped, LogError> {
        match self.doing.take() {
            Some(Doing::CarryOut((record, Ok(command)))) => {
                let outcome = self.carry_out(&command, record.partition);
                self.doing = Some(Doing::Tell { effects: tell(&outcome), tries: 0 });
                Ok(Stepped::CarriedOut(outcome))
            }
            Some(Doing::CarryOut((record, Err(reason)))) => {
                self.doing = Some(Doing::Tell { effects: put_aside(&record, reason), tries: 0 });
                self.step(wait)
            }
            Some(Doing::Tell { effects, tries }) => self.tell(effects, tries),
            None if self.queue.is_empty() => self.poll(wait),
            None => self.commit_position(),
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<Stepped, LogError> {
        if self.polled.is_empty() {
            self.polled = self.session.poll(MAX_POLL, wait)?.into();
        }
        if self.polled.is_empty() {
            return Ok(Stepped::Idle);
        }
        let mut assigned = Vec::new();
        while let Some(event) = self.polled.pop_front() {
            match event {
                Polled::Records { partition, records } => {
                    if let Err(error) = self.schemas.see_to(&*self.log, &records) {
                        self.polled.push_front(Polled::Records { partition, records });
                        return Err(error);
                    }
                    let last = records.last().map(|record| record.offset);
                    let received = records.into_iter().map(|record| {
                        let command = read(&record);
                        (record, command)
                    });
                    // The position moves over those of others with the last of them.
                    let kept = received.filter(|received| self.is_ours(received) || Some(received.0.offset) == last);
                    let kept: Vec<Received> = kept.collect();
                    self.queue.extend(kept);
                }
                Polled::Assigned { partition, .. } => assigned.push(partition),
                Polled::Revoked { partition } => self.leave(partition),
                Polled::Gap { partition, from, to } => {
                    // Whatever stood there expired long ago; the fold has closed it as lost.
                    error!(event = "commands-removed", partition, from, to, "commands were removed before they were read; none of them was carried out");
                }
            }
        }
        if !assigned.is_empty() {
            Actuating(&assigned).emit();
        }
        Ok(Stepped::Polled)
    }

    /// Whether it is this member's to carry out, or to put aside.
    fn is_ours(&self, (_, command): &Received) -> bool {
        match (self.reach, command) {
            (Reach::Own { .. }, Ok(command)) => self.hands.serves(&command.target),
            // What is no command is nobody's: each puts it aside, as none knows whether another one does.
            (Reach::All, _) | (Reach::Own { .. }, Err(_)) => true,
        }
    }

    /// Another member has the partition: its records are left alone.
    fn leave(&mut self, partition: u32) {
        self.queue.retain(|(record, _)| record.partition != partition);
        self.unsettled.remove(&partition);
    }

    /// Commits that everything up to the first waiting command is dealt with. Until it has, nothing is carried out.
    fn commit_position(&mut self) -> Result<Stepped, LogError> {
        let Some((record, _)) = self.queue.front() else { return Ok(Stepped::Idle) };
        let (partition, next) = (record.partition, record.offset + 1);
        if self.unsettled.contains(&partition) {
            let committed = self.log.committed(self.reach.group(), Topic::Commands, partition)?;
            self.unsettled.remove(&partition);
            match committed {
                Some(position) if position == next => return Ok(self.committed()),
                Some(position) if position > next => {
                    self.leave(partition);
                    return Ok(Stepped::Polled);
                }
                _ => {}
            }
        }
        match self.session.commit(&Batch { partition, position: Some(next), ..Batch::default() }) {
            Ok(()) => Ok(self.committed()),
            Err(error) => {
                if matches!(error, LogError::Unknown { .. }) {
                    self.unsettled.insert(partition);
                }
                Err(error)
            }
        }
    }

    fn committed(&mut self) -> Stepped {
        self.doing = self.queue.pop_front().filter(|received| self.is_ours(received)).map(Doing::CarryOut);
        Stepped::Committed
    }

    fn carry_out(&self, command: &Command, partition: u32) -> Outcome {
        let waiting = self.queue.iter().filter(|(record, _)| record.partition == partition).filter_map(|(_, later)| later.as_ref().ok());
        match waiting.into_iter().find(|later| later.replaces.as_deref() == Some(command.id.as_str())) {
            Some(newer) => refusal(command, OutcomeResult::Superseded, format!("replaced by command {}", newer.id)),
            None => self.hands.carry_out(command),
        }
    }

    fn tell(&mut self, effects: Effects, tries: u32) -> Result<Stepped, LogError> {
        match publish(self.log.as_ref(), effects.clone()) {
            Ok(()) => Ok(Stepped::Told),
            Err(LogError::Fatal { reason }) => Err(LogError::Fatal { reason }),
            Err(_) if tries + 1 >= OUTCOME_TRIES => {
                error!(event = "outcome-lost", at = %self.hands.now(), "gave up appending an outcome; the fold will close its command as lost");
                Ok(Stepped::Told)
            }
            Err(error) => {
                // The same outcome twice is the same: the fold knows commands by their id. `Log::trouble` tells of it.
                debug!(event = "outcome-retried", %error, "failed to append an outcome; trying again");
                self.doing = Some(Doing::Tell { effects, tries: tries + 1 });
                Err(LogError::Retry { reason: error.to_string() })
            }
        }
    }
}

/// What came of a command, to the fold and to the audit, together.
fn tell(outcome: &Outcome) -> Effects {
    CommandEnded(outcome).emit();
    let key = outcome.target.as_str().to_owned();
    let mut effects = Effects::new();
    effects.to_key(Topic::Signals, key.clone(), Message::Signal(Signal::Outcome(outcome.clone())));
    effects.to_key(Topic::Audit, key, Message::Audit(Audit::Outcome(outcome.clone())));
    effects
}

/// Keeps a record that is no command.
fn put_aside(record: &RawRecord, reason: String) -> Effects {
    error!(event = "record-put-aside", partition = record.partition, offset = record.offset, reason, "a record of commands cannot be used");
    let letter = DeadLetter {
        topic: Topic::Commands.name().to_owned(),
        partition: record.partition,
        offset: offset_of(record.offset),
        reason,
        record: record.value.iter().take(DEAD_LETTER_BYTES).copied().collect(),
    };
    let mut effects = Effects::new();
    effects.to_partition(Topic::DeadLetters, 0, Message::DeadLetter(letter));
    effects
}

fn offset_of(offset: Offset) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// The command that a record holds, or why there is none.
fn read(record: &RawRecord) -> Result<Command, String> {
    match wire::decode(Topic::Commands, &record.value) {
        Ok(Message::Command(command)) => Ok(command),
        Ok(_) => Err("not a command".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
