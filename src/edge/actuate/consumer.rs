//! The thread that drives a [`Courier`]: the only part of the actuator that waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, warn};

use super::Hands;
use super::courier::{Courier, Outcomes, Reach};
use crate::edge::stop::Bell;
use crate::log::{Log, LogError, Waker};
use crate::runtime::events::CommitRefused;

/// How long a poll waits; waking it ends it at once, so this bounds only a lost wake-up.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// The wait before a failed call of the log is tried again: short beside the 30 s that a command
/// lives, long beside a busy file.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// How an actuator runs.
#[derive(Debug, Clone)]
pub struct ActuatorSettings {
    /// This member's name within the group; a second one of the same name takes over.
    pub member: String,
    /// Whose commands it reads.
    pub reach: Reach,
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
        let consumer = Consumer { log, hands: Arc::new(hands), settings, bell: Arc::clone(&bell), waker: Arc::clone(&waker) };
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
            error!(event = "part-failed", %error, "the actuator ended");
        }
    }
}

struct Consumer {
    log: Arc<dyn Log>,
    hands: Arc<Hands>,
    settings: ActuatorSettings,
    bell: Arc<Bell>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Consumer {
    fn run(self) -> Result<(), LogError> {
        let mut outcomes = Outcomes::default();
        while !self.bell.is_stopping() {
            let courier = Courier::join(Arc::clone(&self.log), Arc::clone(&self.hands), &self.settings.member, self.settings.reach)?;
            let mut courier = courier.with(outcomes);
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(courier.waker());
            match self.carry(&mut courier) {
                Err(LogError::Fenced { group, partition }) => {
                    // Another member of this name is at work: give it room before joining again.
                    warn!(event = "taken-over", group, partition, "another actuator took over; joining again");
                    outcomes = courier.into_outcomes();
                    self.bell.pause(POLL_WAIT);
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    fn carry(&self, courier: &mut Courier) -> Result<(), LogError> {
        loop {
            if self.bell.is_stopping() {
                // What was begun is brought to its end, and nothing more is begun.
                while courier.is_busy() {
                    courier.finish()?;
                }
                return Ok(());
            }
            match courier.step(POLL_WAIT) {
                Ok(_) => {}
                Err(LogError::Retry { reason } | LogError::Unknown { reason }) => {
                    CommitRefused { stage: super::GROUP, reason: &reason, pause: RETRY_WAIT }.emit();
                    self.bell.pause(RETRY_WAIT);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
