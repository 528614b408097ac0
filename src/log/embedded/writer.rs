//! The one thread that writes. Requests that wait together share a transaction and its fsync: while
//! one is being written, the next gather behind it.
//!
//! A commit's right to its partition is checked when its transaction begins, and the partition does
//! not change hands until the transaction ended ([`Coordinator::begin`], [`Coordinator::finish`]).
//! A request that has no such right fails alone. A transaction that fails is rolled back, and each
//! of its requests fails with the reason.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::failure::Failure;
use super::lock_file::Mark;
use super::place::Place;
use super::rows::Chunk;
use super::tails::Tails;
use super::transaction::transact;
use super::trouble::Standing;
use crate::log::coordinator::{Committer, Coordinator, Touched, closed, lock};
use crate::log::{CommitTimes, LogError, Offset, StatePut, Topic};
use crate::runtime::clock::{Clock, Stopwatch};

/// Requests that wait. Each has a blocked thread behind it, of which there are far fewer than this;
/// a caller beyond it waits for a place.
const QUEUE: usize = 256;

/// The most bytes of records and states that share a transaction (a larger request has one of its
/// own): some 10 ms of writing, so that a small request never waits long behind large ones.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Work {
    /// Records that no input caused.
    Append(Vec<Chunk>),
    /// What a session commits.
    Commit { committer: Committer, partition: u32, position: Option<Offset>, chunks: Vec<Chunk>, states: Vec<StatePut> },
    /// One step of a trim.
    Trim { topic: Topic, partition: u32, before: Offset },
}

impl Work {
    fn bytes(&self) -> usize {
        let records = |chunks: &[Chunk]| chunks.iter().map(Chunk::bytes).sum::<usize>();
        match self {
            Work::Append(chunks) => records(chunks),
            Work::Commit { chunks, states, .. } => {
                records(chunks) + states.iter().map(|put| put.key.len() + put.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
            }
            Work::Trim { .. } => TRANSACTION_BYTES,
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The first offset of each chunk.
    Appended(Vec<Offset>),
    /// The commit is durable.
    Committed,
    /// The earliest offset now, and whether nothing is left to delete.
    Trimmed { earliest: Offset, done: bool },
}

impl Outcome {
    /// The error of a caller that got another outcome than its work has.
    pub(super) fn unexpected(&self) -> LogError {
        LogError::Fatal { reason: format!("the log's writer mixed up its answers: {self:?}") }
    }
}

struct Request {
    work: Work,
    reply: SyncSender<Result<Outcome, LogError>>,
}

/// A handle of the writing thread.
pub(super) struct Writer {
    requests: Mutex<Option<SyncSender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(mut writing: Writing) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writing.run(&receiver))?;
        Ok(Writer { requests: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Writes `work`, and returns when it is durable.
    pub(super) fn write(&self, work: Work) -> Result<Outcome, LogError> {
        let ended = || LogError::Fatal { reason: "the log's writing thread ended; start the program again".to_owned() };
        let requests = lock(&self.requests).clone().ok_or_else(closed)?;
        let (reply, answer) = sync_channel(1);
        requests.send(Request { work, reply }).map_err(|_| ended())?;
        // The thread ends only when no sender is left; this one would be the last.
        drop(requests);
        answer.recv().map_err(|_| ended())?
    }

    /// Writes what was asked for already, and ends the thread.
    pub(super) fn stop(&self) {
        drop(lock(&self.requests).take());
        if let Some(thread) = lock(&self.thread).take() {
            // A panic in it has told every waiting caller already.
            drop(thread.join());
        }
    }
}

/// What the thread owns.
pub(super) struct Writing {
    pub(super) connection: Connection,
    pub(super) tails: Arc<Tails>,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) standing: Arc<Standing>,
    pub(super) times: Arc<CommitTimes>,
    pub(super) place: Arc<Place>,
    pub(super) mark: Mark,
}

impl Writing {
    fn run(&mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut bytes = first.work.bytes();
            let mut together = vec![first];
            while bytes < TRANSACTION_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                bytes += next.work.bytes();
                together.push(next);
            }
            self.write(together);
        }
    }

    /// Writes requests in one transaction and answers them.
    fn write(&mut self, together: Vec<Request>) {
        let mut commits = Vec::new();
        let mut works = Vec::with_capacity(together.len());
        let mut replies = Vec::with_capacity(together.len());
        for Request { work, reply } in together {
            if let Work::Commit { committer, partition, .. } = &work {
                if let Err(error) = self.coordinator.begin(*committer, *partition) {
                    answer(&reply, Err(error));
                    continue;
                }
                commits.push((committer.group, *partition));
            }
            works.push(work);
            replies.push(reply);
        }
        let began = Stopwatch::start();
        let in_place = || self.place.check().map_err(Failure::Lasting);
        let outcomes = in_place().and_then(|()| transact(&mut self.connection, &self.tails, self.clock.now(), works));
        // Looked at again: what was written to a file that is not in its place is not acknowledged.
        let outcomes = outcomes.and_then(|outcomes| in_place().map(|()| outcomes));
        match &outcomes {
            Ok(_) => {
                self.times.took(began.elapsed());
                self.standing.written();
            }
            Err(failure) => {
                self.times.failed();
                self.standing.refused(failure, self.clock.now());
            }
        }
        let touched = match &outcomes {
            Ok((_, changed)) => changed.keys().copied().collect(),
            Err(_) => Touched::new(),
        };
        match outcomes {
            Ok((outcomes, changed)) => {
                self.tails.publish(changed);
                self.mark.set(self.tails.appended());
                self.coordinator.finish(&commits, &touched);
                for (reply, outcome) in replies.iter().zip(outcomes) {
                    answer(reply, Ok(outcome));
                }
            }
            Err(failure) => {
                self.coordinator.finish(&commits, &touched);
                for reply in &replies {
                    answer(reply, Err(failure.clone().into()));
                }
            }
        }
    }
}

/// Answers a caller. It waits until it is answered, so it is there.
fn answer(reply: &SyncSender<Result<Outcome, LogError>>, outcome: Result<Outcome, LogError>) {
    drop(reply.send(outcome));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::lock_file::LockFile;
    use crate::log::embedded::{Options, rows, schema};
    use crate::log::{Membership, RawAppend};
    use crate::model::Timestamp;
    use crate::runtime::clock::ManualClock;

    type Answer = Receiver<Result<Outcome, LogError>>;

    fn request(work: Work) -> (Request, Answer) {
        let (reply, answer) = sync_channel(1);
        (Request { work, reply }, answer)
    }

    fn chunks(partition: u32, value: &str) -> Vec<Chunk> {
        rows::chunks(&[RawAppend { topic: Topic::Signals, partition, key: None, value: value.into() }]).unwrap().0
    }

    fn commit(session: u64, value: &str) -> Work {
        let committer = Committer { session, group: "decide", topic: Topic::Signals };
        let states = vec![StatePut { key: "k".to_owned(), value: Some(value.into()) }];
        Work::Commit { committer, partition: 0, position: Some(1), chunks: chunks(0, value), states }
    }

    /// The thread's work without the thread: all of `works` were asked for before it looks.
    fn write(works: impl FnOnce(&Coordinator) -> Vec<Work>) -> (Vec<Result<Outcome, LogError>>, Writing, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let (connection, tails) = schema::open(&directory.path().join("log.db"), &Options::default()).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(5)));
        let standing = Arc::new(Standing::new(directory.path(), None));
        let mark = LockFile::take(directory.path()).unwrap().mark().unwrap();
        let place = Arc::new(Place::of(directory.path()).unwrap());
        let mut writing = Writing { connection, tails: Arc::new(tails), coordinator: Arc::default(), clock, standing, times: Arc::default(), place, mark };
        let (sender, receiver) = sync_channel(QUEUE);
        let mut answers = Vec::new();
        for work in works(&writing.coordinator) {
            let (request, answer) = request(work);
            sender.send(request).unwrap();
            answers.push(answer);
        }
        drop(sender);
        writing.run(&receiver);
        (answers.iter().map(|answer| answer.recv().unwrap()).collect(), writing, directory)
    }

    fn rows_of(writing: &Writing) -> Vec<(i64, i64)> {
        let mut select = writing.connection.prepare("SELECT first, count FROM records ORDER BY rowid").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn requests_that_wait_together_share_a_transaction() {
        let (answers, writing, _directory) = write(|_| (0..20).map(|i| Work::Append(chunks(0, &i.to_string()))).collect());
        let firsts: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer {
                Ok(Outcome::Appended(firsts)) => firsts,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(firsts, (0..20).map(|i| vec![i]).collect::<Vec<_>>());
        assert_eq!(rows_of(&writing), [(0, 20)]);
    }

    #[test]
    fn a_fenced_request_fails_alone() {
        let (answers, writing, _directory) = write(|coordinator| {
            let membership = Membership { group: "decide", member: "a".to_owned(), topic: Topic::Signals };
            let zombie = coordinator.join(&membership, 1).unwrap();
            coordinator.turn(zombie).unwrap();
            let successor = coordinator.join(&membership, 1).unwrap();
            coordinator.turn(successor).unwrap();
            vec![Work::Append(chunks(0, "x")), commit(zombie, "zombie"), commit(successor, "successor")]
        });
        assert!(matches!(answers[..], [Ok(Outcome::Appended(_)), Err(LogError::Fenced { .. }), Ok(Outcome::Committed)]), "{answers:?}");
        assert_eq!(rows_of(&writing), [(0, 2)]);
        let state: Vec<u8> = writing.connection.query_row("SELECT value FROM states", [], |row| row.get(0)).unwrap();
        assert_eq!(state, b"successor");
    }

    #[test]
    fn a_trim_counts_what_its_own_transaction_appends() {
        let trim = || Work::Trim { topic: Topic::Signals, partition: 0, before: 100 };
        let (answers, writing, _directory) = write(|_| vec![Work::Append(chunks(0, "a")), trim(), trim(), Work::Append(chunks(0, "b"))]);
        let earliest: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                Ok(Outcome::Trimmed { earliest, done: true }) => Some(*earliest),
                _ => None,
            })
            .collect();
        assert_eq!(earliest, [0, 1]);
        assert_eq!(writing.tails.range(Topic::Signals, 0).unwrap(), 1..2);
        assert_eq!(rows_of(&writing), [(1, 1)]);
    }
}
