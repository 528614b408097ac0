//! What the actuator does with commands, as steps: each is one call to the log or one to the world, so that a crash, or a
//! simulation, can stop between any two.
//!
//! The order is the promise: first the position of a command is committed, then it is carried out, then its outcome is
//! appended. What a crash swallows after the first is never carried out again.
//!
//! What waits for one partition holds up no other: a partition whose position cannot be committed now rests, and an outcome
//! that cannot be appended now is tried again while the next command is carried out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tracing::{debug, error};

use super::{Hands, refusal};
use crate::edge::events::Actuating;
use crate::log::{Batch, Log, LogError, Membership, Offset, Polled, RawAppend, RawRecord, Session, Told, Topic, Waker};
use crate::model::{Audit, Command, DeadLetter, Message, Outcome, OutcomeResult, Signal, Timestamp};
use crate::runtime::events::CommandEnded;
use crate::runtime::raw_appends;
use crate::runtime::rest::Rest;
use crate::runtime::schemas;
use crate::stages::Effects;
use crate::wire;

/// The group that consumes `commands`.
pub const GROUP: &str = "actuate";

/// Commands taken at once. They are carried out one after the other; more would only let the last
/// ones grow old in memory, while a look ahead shows what is superseded.
const MAX_POLL: usize = 64;

/// How long it is tried to append an outcome. After that the fold closes the command as lost, since
/// a command lives 30 s.
const OUTCOME_FOR: Duration = Duration::from_secs(20);

/// How soon it is looked again what came of an append.
const LOOK: Duration = Duration::from_millis(50);

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
    /// Partitions whose position cannot be committed for now.
    resting: BTreeMap<u32, Rest>,
    outcomes: Outcomes,
    schemas: schemas::Reading,
}

/// What is under way with a command whose position is committed.
enum Doing {
    CarryOut(Received),
    Tell(Effects),
}

/// Records that say what came of commands, and are not in the log yet.
pub struct Outcomes {
    /// Each under a number of its own.
    telling: BTreeMap<u64, Telling>,
    told: u64,
    answers: (Sender<Answer>, Receiver<Answer>),
}

impl Default for Outcomes {
    fn default() -> Self {
        Outcomes { telling: BTreeMap::new(), told: 0, answers: channel() }
    }
}

/// What came of appending one of [`Outcomes::telling`].
type Answer = (u64, Result<(), LogError>);

/// A record that is to be appended.
struct Telling {
    append: RawAppend,
    since: Timestamp,
    is_under_way: bool,
    /// After a try that failed.
    rest: Option<Rest>,
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
    /// What came of it is being appended, or was.
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
            resting: BTreeMap::new(),
            outcomes: Outcomes::default(),
            schemas: schemas::Reading::default(),
        })
    }

    /// Goes on with what another member of this process could not tell before it lost its place.
    #[must_use]
    pub fn with(self, outcomes: Outcomes) -> Self {
        Courier { outcomes, ..self }
    }

    /// What could not be told yet.
    pub fn into_outcomes(self) -> Outcomes {
        self.outcomes
    }

    /// Ends a waiting [`Courier::step`] from another thread.
    pub fn waker(&self) -> Waker {
        self.session.waker()
    }

    /// Whether a command is begun, and not yet brought to its end. What cannot be appended now is waited for by nobody.
    pub fn is_busy(&self) -> bool {
        self.doing.is_some() || self.outcomes.telling.values().any(|telling| telling.rest.is_none())
    }

    /// A step of what is begun, and nothing new: as long as [`Courier::is_busy`].
    ///
    /// # Errors
    /// As [`Courier::step`].
    pub fn finish(&mut self) -> Result<(), LogError> {
        if self.doing.is_some() {
            return self.step(Duration::ZERO).map(drop);
        }
        self.hear()?;
        if self.is_busy() {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The next step; it waits at most `wait`, where there is nothing to do.
    ///
    /// # Errors
    /// [`LogError::Retry`] and [`LogError::Unknown`]: the same call again, later. Any other ends this member.
    pub fn step(&mut self, wait: Duration) -> Result<Stepped, LogError> {
        self.hear()?;
        match self.doing.take() {
            Some(Doing::CarryOut((record, Ok(command)))) => {
                let outcome = self.carry_out(&command, record.partition);
                self.doing = Some(Doing::Tell(tell(&outcome)));
                return Ok(Stepped::CarriedOut(outcome));
            }
            Some(Doing::CarryOut((record, Err(reason)))) => {
                self.doing = Some(Doing::Tell(put_aside(&record, reason)));
                return self.step(wait);
            }
            Some(Doing::Tell(effects)) => return self.tell(effects),
            None => {}
        }
        let now = self.hands.now();
        let again: Vec<u64> = self.outcomes.telling.iter().filter(|(_, telling)| telling.is_due(now)).map(|(number, _)| *number).collect();
        if !again.is_empty() {
            return self.append(&again);
        }
        match self.queue.iter().position(|(record, _)| !self.rests(record.partition, now)) {
            Some(index) => self.commit_position(index, now),
            None => self.poll(self.until_due(wait, now)),
        }
    }

    fn rests(&self, partition: u32, now: Timestamp) -> bool {
        self.resting.get(&partition).is_some_and(|rest| rest.lasts(now))
    }

    /// How long it may be waited: no longer than until something is tried again, or is to be looked at.
    fn until_due(&self, wait: Duration, now: Timestamp) -> Duration {
        let waits = self.outcomes.telling.values().filter(|telling| !telling.is_under_way).filter_map(|telling| telling.rest.as_ref());
        let rests = self.resting.values().chain(waits).map(|rest| rest.until.since(now));
        let due = rests.chain(self.outcomes.telling.values().any(|telling| telling.is_under_way).then_some(LOOK)).min();
        due.map_or(wait, |due| wait.min(due))
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
        self.resting.remove(&partition);
    }

    /// Commits that everything up to a waiting command, the first of its partition, is dealt with. Until it has, it is not carried out.
    fn commit_position(&mut self, index: usize, now: Timestamp) -> Result<Stepped, LogError> {
        let Some((record, _)) = self.queue.get(index) else { return Ok(Stepped::Idle) };
        let (partition, next) = (record.partition, record.offset + 1);
        let outcome = self.try_commit(partition, next);
        let before = self.resting.remove(&partition);
        match &outcome {
            Err(LogError::UnderWay { .. }) => drop(self.resting.insert(partition, Rest::under_way(before, now))),
            Err(LogError::Retry { .. } | LogError::Unknown { .. }) => drop(self.resting.insert(partition, Rest::failed(before, now))),
            _ => {}
        }
        // Nothing more is read of one that waits.
        self.session.hold_back(partition, self.resting.contains_key(&partition));
        match outcome {
            Ok(Some(position)) if position > next => {
                self.leave(partition);
                Ok(Stepped::Polled)
            }
            Ok(_) => {
                self.doing = self.queue.remove(index).filter(|received| self.is_ours(received)).map(Doing::CarryOut);
                Ok(Stepped::Committed)
            }
            Err(LogError::UnderWay { .. }) => Ok(Stepped::Idle),
            Err(error) => Err(error),
        }
    }

    /// Commits a position. Where the last one may have been committed, it says what is.
    fn try_commit(&mut self, partition: u32, next: Offset) -> Result<Option<Offset>, LogError> {
        if self.unsettled.contains(&partition) {
            let committed = self.log.committed(self.reach.group(), Topic::Commands, partition)?;
            self.unsettled.remove(&partition);
            if committed.is_some_and(|position| position >= next) {
                return Ok(committed);
            }
        }
        let outcome = self.session.commit_soon(&Batch { partition, position: Some(next), ..Batch::default() }, false);
        if matches!(outcome, Err(LogError::Unknown { .. })) {
            self.unsettled.insert(partition);
        }
        outcome.map(|()| None)
    }

    fn carry_out(&self, command: &Command, partition: u32) -> Outcome {
        let waiting = self.queue.iter().filter(|(record, _)| record.partition == partition).filter_map(|(_, later)| later.as_ref().ok());
        match waiting.into_iter().find(|later| later.replaces.as_deref() == Some(command.id.as_str())) {
            Some(newer) => refusal(command, OutcomeResult::Superseded, format!("replaced by command {}", newer.id)),
            None => self.hands.carry_out(command),
        }
    }

    fn tell(&mut self, mut effects: Effects) -> Result<Stepped, LogError> {
        let (since, outcomes) = (self.hands.now(), &mut self.outcomes);
        let first = outcomes.told;
        for append in raw_appends(self.log.as_ref(), effects.take()) {
            outcomes.telling.insert(outcomes.told, Telling { append, since, is_under_way: false, rest: None });
            outcomes.told += 1;
        }
        let all: Vec<u64> = (first..outcomes.told).collect();
        self.append(&all)
    }

    /// Appends these, each for itself: the fold is told though the audit cannot be.
    fn append(&mut self, numbers: &[u64]) -> Result<Stepped, LogError> {
        let mut calls: Vec<(Vec<RawAppend>, Told)> = Vec::new();
        for number in numbers {
            let (number, answers) = (*number, self.outcomes.answers.0.clone());
            let Some(telling) = self.outcomes.telling.get_mut(&number) else { continue };
            telling.is_under_way = true;
            calls.push((vec![telling.append.clone()], Box::new(move |outcome| drop(answers.send((number, outcome))))));
        }
        self.log.append_each(calls);
        self.hear()?;
        Ok(Stepped::Told)
    }

    /// Hears what came of what was appended.
    fn hear(&mut self) -> Result<(), LogError> {
        while let Ok((number, outcome)) = self.outcomes.answers.1.try_recv() {
            let now = self.hands.now();
            let Some(mut telling) = self.outcomes.telling.remove(&number) else { continue };
            match outcome {
                Ok(()) => {}
                Err(LogError::Fatal { reason }) => return Err(LogError::Fatal { reason }),
                Err(_) if now.since(telling.since) >= OUTCOME_FOR => {
                    let topic = telling.append.topic.name();
                    error!(event = "outcome-lost", at = %now, topic, "gave up appending an outcome; where the fold is not told, it will close its command as lost");
                }
                Err(error) => {
                    // The same outcome twice is the same: the fold knows commands by their id. `Log::trouble` tells of it.
                    debug!(event = "outcome-retried", %error, "failed to append an outcome; trying again");
                    (telling.is_under_way, telling.rest) = (false, Some(Rest::failed(telling.rest, now)));
                    self.outcomes.telling.insert(number, telling);
                }
            }
        }
        Ok(())
    }
}

impl Telling {
    fn is_due(&self, now: Timestamp) -> bool {
        !self.is_under_way && !self.rest.is_some_and(|rest| rest.lasts(now))
    }
}

/// What came of a command, to the fold and to the audit.
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
