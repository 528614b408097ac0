//! A process of Loadline as the simulation runs it: the real workers of the real stages and the real courier, a step at a
//! time. It can die between any two steps; what it was committing may still arrive after its death.

use std::sync::Arc;
use std::time::Duration;

use loadline::edge::actuate::{Courier, Hands, Reach, Stepped};
use loadline::log::{Batch, Log, LogError, Session};
use loadline::model::Timestamp;
use loadline::runtime::runner::Rounds;
use loadline::runtime::worker::{Committed, Read, Worker};
use loadline::stages::Stage;
use loadline::stages::admit::Admit;
use loadline::stages::aggregate::Aggregate;
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::{AuditWhen, Decide};

use super::faulty::FaultyLog;
use super::scenario::Part;

/// The most records of one poll: small, so that a poll rarely takes all.
const POLL_RECORDS: usize = 40;

/// What every process runs.
#[derive(Clone)]
pub struct Settings {
    /// The stage.
    pub aggregate: Aggregate,
    /// The stage.
    pub arbitrate: Arbitrate,
    /// When snapshots are written.
    pub rounds: Rounds,
}

/// A running process.
pub struct Process {
    name: String,
    log: Arc<FaultyLog>,
    settings: Settings,
    hands: Arc<Hands>,
    aggregate: Member<Aggregate>,
    admit: Member<Admit>,
    decide: Member<Decide>,
    arbitrate: Member<Arbitrate>,
    courier: Option<Courier>,
}

/// A worker, and where it is in its turn.
struct Member<S: Stage> {
    worker: Option<Worker<S>>,
    reads: bool,
}

impl<S: Stage> Member<S> {
    fn new() -> Self {
        Member { worker: None, reads: true }
    }

    /// One step: a read, or a commit; reads and commits take turns as the driver has them.
    fn step(&mut self, join: impl FnOnce() -> Result<Worker<S>, LogError>, now: Timestamp) -> Result<bool, LogError> {
        let worker = match &mut self.worker {
            Some(worker) => worker,
            None => self.worker.insert(join()?),
        };
        if self.reads {
            self.reads = false;
            return Ok(worker.read(now, POLL_RECORDS, Duration::ZERO)? != Read::Nothing);
        }
        match worker.commit(now)? {
            Committed::Nothing => {
                self.reads = true;
                Ok(false)
            }
            Committed::Done { .. } | Committed::Refused | Committed::Lost { .. } | Committed::Later { .. } => Ok(true),
        }
    }

    /// Dies; what it was committing, and with what.
    fn die(&mut self, now: Timestamp) -> Option<Zombie> {
        let (batch, session) = self.worker.take()?.into_last_words(now);
        self.reads = true;
        Some(Zombie::Commit { batch, session })
    }

    /// Ends in order, as the driver does.
    fn leave(&mut self, now: Timestamp, most_commits: usize) -> Option<Zombie> {
        let worker = self.worker.as_mut()?;
        worker.hand_over(now);
        // A commit that fails now is left undone, as when the process is asked to stop at once.
        for _ in 0..most_commits {
            match worker.commit(now) {
                Ok(Committed::Nothing) | Err(_) => {
                    (self.worker, self.reads) = (None, true);
                    return None;
                }
                Ok(_) => {}
            }
        }
        self.die(now)
    }
}

/// What is left of a part that died, which nobody has told that it is dead.
pub enum Zombie {
    /// The commit that it had sent, perhaps.
    Commit {
        /// What it was committing.
        batch: Option<Batch>,
        /// Its session.
        session: Box<dyn Session>,
    },
    /// A command that it was carrying out, and has yet to tell of.
    Courier(Box<Courier>),
}

/// The most commits of a hand-over that is not cut.
const ALL_COMMITS: usize = 10_000;

impl Process {
    /// A process that has not begun to work yet.
    pub fn new(name: String, log: Arc<FaultyLog>, settings: Settings, hands: Arc<Hands>) -> Self {
        Process { name, log, settings, hands, aggregate: Member::new(), admit: Member::new(), decide: Member::new(), arbitrate: Member::new(), courier: None }
    }

    /// A step of one of its parts. Says whether there may be more to do now.
    ///
    /// # Errors
    /// [`LogError::Fatal`]: no run may come to that.
    pub fn step(&mut self, part: Part, now: Timestamp) -> Result<bool, LogError> {
        let (log, name, rounds) = (Arc::clone(&self.log) as Arc<dyn Log>, self.name.clone(), self.settings.rounds);
        let stepped = match part {
            Part::Aggregate => self.aggregate.step(|| Worker::join(self.settings.aggregate, log, &name, rounds), now),
            Part::Admit => self.admit.step(|| Worker::join(Admit, log, &name, rounds), now),
            Part::Decide => self.decide.step(|| Worker::join(Decide { audit: AuditWhen::Always, ..Decide::default() }, log, &name, rounds), now),
            Part::Arbitrate => self.arbitrate.step(|| Worker::join(self.settings.arbitrate.clone(), log, &name, rounds), now),
            Part::Actuate => self.carry(),
        };
        match stepped {
            // A driver waits then.
            Err(LogError::Retry { .. } | LogError::Unknown { .. }) => Ok(false),
            // Another member of this name took over: the process ends, and is started again.
            Err(LogError::Fenced { .. }) => {
                self.forget(part);
                Ok(false)
            }
            stepped => stepped,
        }
    }

    fn carry(&mut self) -> Result<bool, LogError> {
        let courier = match &mut self.courier {
            Some(courier) => courier,
            None => self.courier.insert(Courier::join(Arc::clone(&self.log) as Arc<dyn Log>, Arc::clone(&self.hands), &self.name, Reach::All)?),
        };
        Ok(courier.step(Duration::ZERO)? != Stepped::Idle)
    }

    fn forget(&mut self, part: Part) {
        match part {
            Part::Aggregate => self.aggregate = Member::new(),
            Part::Admit => self.admit = Member::new(),
            Part::Decide => self.decide = Member::new(),
            Part::Arbitrate => self.arbitrate = Member::new(),
            Part::Actuate => self.courier = None,
        }
    }

    /// Dies at once. What its stages were committing, for a log that gets it later.
    pub fn kill(&mut self, now: Timestamp) -> Vec<Zombie> {
        self.log.died();
        Part::ALL.into_iter().filter_map(|part| self.kill_part(part, now)).collect()
    }

    /// One of its parts dies at once.
    pub fn kill_part(&mut self, part: Part, now: Timestamp) -> Option<Zombie> {
        match part {
            Part::Aggregate => self.aggregate.die(now),
            Part::Admit => self.admit.die(now),
            Part::Decide => self.decide.die(now),
            Part::Arbitrate => self.arbitrate.die(now),
            Part::Actuate => self.courier.take().filter(Courier::is_busy).map(|courier| Zombie::Courier(Box::new(courier))),
        }
    }

    /// Ends in order; with `cut`, each part dies after so many commits of its hand-over.
    pub fn leave(&mut self, now: Timestamp, cut: Option<usize>) -> Vec<Zombie> {
        // A command that is begun is brought to its end, or not.
        let mut zombies: Vec<Zombie> = match (self.courier.take(), cut) {
            (Some(mut courier), None) => {
                end_in_order(&mut courier);
                Vec::new()
            }
            (courier, _) => courier.filter(Courier::is_busy).map(|courier| Zombie::Courier(Box::new(courier))).into_iter().collect(),
        };
        let most = cut.unwrap_or(ALL_COMMITS);
        let rest = [self.aggregate.leave(now, most), self.admit.leave(now, most), self.decide.leave(now, most), self.arbitrate.leave(now, most)];
        zombies.extend(rest.into_iter().flatten());
        zombies
    }
}

/// A command that is begun is brought to its end, as far as the log allows.
pub fn end_in_order(courier: &mut Courier) {
    for _ in 0..4 {
        if !courier.is_busy() || courier.finish().is_err() {
            break;
        }
    }
}
