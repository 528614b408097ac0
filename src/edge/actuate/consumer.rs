//! The thread that consumes `commands`.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::{Hands, refusal};
use crate::edge::stop::Bell;
use crate::log::{Batch, Log, LogError, Membership, Offset, Polled, RawRecord, Session, Topic, Waker};
use crate::model::{Audit, Command, DeadLetter, Message, Outcome, OutcomeResult, Signal};
use crate::runtime::publish;
use crate::stages::Effects;
use crate::wire;

/// The group that consumes `commands`.
pub const GROUP: &str = "actuate";

/// Commands taken at once. They are carried out one after the other; more would only let the last
/// ones grow old in memory, while a look ahead shows what is superseded.
const MAX_POLL: usize = 64;

/// How long a poll waits; waking it ends it at once, so this bounds only a lost wake-up.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// The wait before a failed call of the log is tried again: short beside the 30 s that a command
/// lives, long beside a busy file.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Tries to append an outcome: 20 s in all. After that the fold closes the command as lost, since
/// a command lives 30 s.
const OUTCOME_TRIES: u32 = 200;

/// The part of an unusable record that its dead letter keeps.
const DEAD_LETTER_BYTES: usize = 64 * 1024;

/// How an actuator runs.
#[derive(Debug, Clone)]
pub struct ActuatorSettings {
    /// This member's name within the group; a second one of the same name takes over.
    pub member: String,
}

/// The running consumer of `commands`. It ends with [`Actuator::stop`], or when it is dropped.
pub struct Actuator {
    bell: Arc<Bell>,
    waker: Arc<Mutex<Option<Waker>>>,
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl Actuator {
    /// Starts it on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(log: Arc<dyn Log>, hands: Hands, settings: ActuatorSettings) -> std::io::Result<Actuator> {
        let bell = Arc::new(Bell::default());
        let waker = Arc::new(Mutex::new(None));
        let consumer = Consumer { log, hands, settings, bell: Arc::clone(&bell), waker: Arc::clone(&waker) };
        let thread = std::thread::Builder::new().name("actuate".to_owned()).spawn(move || consumer.run())?;
        Ok(Actuator { bell, waker, thread: Some(thread) })
    }

    /// Whether it has ended by itself: the log is closed, or broken.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it after the command that is under way.
    ///
    /// # Errors
    /// What had ended it before.
    pub fn stop(mut self) -> Result<(), LogError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LogError> {
        self.bell.stop();
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            waker.wake();
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(LogError::Fatal { reason: "the actuator's thread panicked".to_owned() }),
            None => Ok(()),
        }
    }
}

impl Drop for Actuator {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            error!(%error, "the actuator ended");
        }
    }
}

struct Consumer {
    log: Arc<dyn Log>,
    hands: Hands,
    settings: ActuatorSettings,
    bell: Arc<Bell>,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// What a commit came to.
enum Committed {
    /// The position is ours: the command may be carried out.
    Yes,
    /// Another member has the partition: leave its records alone.
    Lost,
    /// The actuator is to end.
    Stopping,
}

impl Consumer {
    fn run(self) -> Result<(), LogError> {
        while !self.bell.is_stopping() {
            let membership = Membership { group: GROUP, member: self.settings.member.clone(), topic: Topic::Commands };
            let mut session = self.log.join(membership)?;
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.waker());
            match self.consume(session.as_mut()) {
                Err(LogError::Fenced { group, partition }) => {
                    // Another member of this name is at work: give it room before joining again.
                    warn!(group, partition, "another actuator took over; joining again");
                    self.bell.pause(POLL_WAIT);
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    fn consume(&self, session: &mut dyn Session) -> Result<(), LogError> {
        while !self.bell.is_stopping() {
            let polled = match session.poll(MAX_POLL, POLL_WAIT) {
                Ok(polled) => polled,
                Err(LogError::Retry { reason }) => {
                    warn!(reason, "failed to poll commands; trying again");
                    self.bell.pause(RETRY_WAIT);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut revoked = Vec::new();
            for event in polled {
                match event {
                    Polled::Records { partition, records } if !revoked.contains(&partition) => self.records(session, partition, &records)?,
                    Polled::Records { .. } => {}
                    Polled::Assigned { partition, position } => info!(partition, position, "actuating commands"),
                    Polled::Revoked { partition } => revoked.push(partition),
                    Polled::Gap { partition, from, to } => {
                        // Whatever stood there expired long ago; the fold has closed it as lost.
                        error!(partition, from, to, "commands were removed before they were read; none of them was carried out");
                    }
                }
            }
        }
        Ok(())
    }

    fn records(&self, session: &mut dyn Session, partition: u32, records: &[RawRecord]) -> Result<(), LogError> {
        let commands: Vec<Result<Command, String>> = records.iter().map(read).collect();
        for (index, (record, command)) in records.iter().zip(&commands).enumerate() {
            if self.bell.is_stopping() {
                return Ok(());
            }
            match self.commit_position(session, partition, record.offset + 1)? {
                Committed::Yes => {}
                Committed::Lost | Committed::Stopping => return Ok(()),
            }
            match command {
                Ok(command) => {
                    let newer = commands[index + 1..].iter().flatten().find(|later| later.replaces.as_deref() == Some(command.id.as_str()));
                    let outcome = match newer {
                        Some(newer) => refusal(command, OutcomeResult::Superseded, format!("replaced by command {}", newer.id)),
                        None => self.hands.carry_out(command),
                    };
                    self.answer(outcome)?;
                }
                Err(reason) => self.put_aside(record, reason)?,
            }
        }
        Ok(())
    }

    /// Commits that everything before `next` is dealt with. Until it has, nothing is carried out.
    fn commit_position(&self, session: &mut dyn Session, partition: u32, next: Offset) -> Result<Committed, LogError> {
        let batch = Batch { partition, position: Some(next), ..Batch::default() };
        loop {
            match session.commit(&batch) {
                Ok(()) => return Ok(Committed::Yes),
                // `Log::trouble` tells of it.
                Err(LogError::Retry { reason }) => debug!(reason, partition, next, "failed to commit the position of a command; trying again"),
                Err(LogError::Unknown { reason }) => {
                    warn!(reason, partition, next, "the commit of a command's position is unknown; reading it again");
                    match self.log.committed(GROUP, Topic::Commands, partition) {
                        Ok(Some(position)) if position == next => return Ok(Committed::Yes),
                        Ok(Some(position)) if position > next => return Ok(Committed::Lost),
                        Ok(_) | Err(LogError::Retry { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
            if !self.bell.pause(RETRY_WAIT) {
                return Ok(Committed::Stopping);
            }
        }
    }

    /// Says what came of a command, to the fold and to the audit, together.
    fn answer(&self, outcome: Outcome) -> Result<(), LogError> {
        info!(target_id = %outcome.target, command = outcome.command, result = ?outcome.result, replicas = outcome.replicas, error = outcome.error, "command");
        let key = outcome.target.as_str().to_owned();
        let mut effects = Effects::new();
        effects.to_key(Topic::Signals, key.clone(), Message::Signal(Signal::Outcome(outcome.clone())));
        effects.to_key(Topic::Audit, key, Message::Audit(Audit::Outcome(outcome)));
        self.append(&effects)
    }

    /// Keeps a record that is no command.
    fn put_aside(&self, record: &RawRecord, reason: &str) -> Result<(), LogError> {
        error!(partition = record.partition, offset = record.offset, reason, "a record of commands cannot be used");
        let letter = DeadLetter {
            topic: Topic::Commands.name().to_owned(),
            partition: record.partition,
            offset: i64::try_from(record.offset).unwrap_or(i64::MAX),
            reason: reason.to_owned(),
            record: record.value.iter().take(DEAD_LETTER_BYTES).copied().collect(),
        };
        let mut effects = Effects::new();
        effects.to_partition(Topic::DeadLetters, 0, Message::DeadLetter(letter));
        self.append(&effects)
    }

    fn append(&self, effects: &Effects) -> Result<(), LogError> {
        for _ in 0..OUTCOME_TRIES {
            match publish(self.log.as_ref(), effects.clone()) {
                Ok(()) => return Ok(()),
                Err(LogError::Fatal { reason }) => return Err(LogError::Fatal { reason }),
                // The same outcome twice is the same: the fold knows commands by their id.
                Err(error) => debug!(%error, "failed to append an outcome; trying again"),
            }
            if !self.bell.pause(RETRY_WAIT) {
                break;
            }
        }
        error!(at = %self.hands.now(), "gave up appending an outcome; the fold will close its command as lost");
        Ok(())
    }
}

/// The command that a record holds, or why there is none.
fn read(record: &RawRecord) -> Result<Command, String> {
    match wire::decode(Topic::Commands, &record.value) {
        Ok(Message::Command(command)) => Ok(command),
        Ok(_) => Err("not a command".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
