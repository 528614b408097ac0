//! The thread that appends: what waits at the same time shares one commit, where the log has commits, and nobody waits for what another one's records wait for, where it has partitions.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::log::{Log, LogError, RawAppend, Told};

/// The most bytes of one commit: two whole requests. Larger commits gain nothing (an fsync is a few
/// per cent of it then) and make everybody wait for the largest.
const MAX_COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// The most bytes that wait: four commits, which a slow disk takes in well under the time that a request waits.
const MAX_QUEUED_BYTES: usize = 4 * MAX_COMMIT_BYTES;

/// One request's records.
pub(super) struct Job {
    pub(super) appends: Vec<RawAppend>,
    /// Told when they are durable, or why they are not.
    pub(super) done: oneshot::Sender<Result<(), LogError>>,
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many wait as may.
    Full,
    /// The thread has ended.
    Closed,
}

/// The way to the thread.
pub(super) struct Queue {
    jobs: SyncSender<Job>,
    /// The bytes that wait or are being appended.
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn push(&self, job: Job) -> Result<(), Refused> {
        let size = size(&job);
        // What is larger than the bound by itself is taken when nothing else waits.
        if self.bytes.fetch_add(size, Ordering::Relaxed) > MAX_QUEUED_BYTES.saturating_sub(size) {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        self.jobs.try_send(job).map_err(|e| {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            match e {
                TrySendError::Full(_) => Refused::Full,
                TrySendError::Disconnected(_) => Refused::Closed,
            }
        })
    }
}

/// The appending thread. It ends by itself when the last [`super::Ingest`] is dropped.
#[derive(Debug)]
pub struct Appender(JoinHandle<()>);

impl Appender {
    /// Waits until everything that was taken is durable or refused.
    ///
    /// # Errors
    /// Where the thread ended by a fault in the program.
    pub fn join(self) -> Result<(), &'static str> {
        self.0.join().map_err(|_| "the appending thread of ingest ended by a fault in the program")
    }

    /// Whether it has ended; while the server runs, that is a fault.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

pub(super) fn start(log: Arc<dyn Log>, queue: usize) -> std::io::Result<(Queue, Appender)> {
    let (sender, receiver) = sync_channel(queue);
    let bytes = Arc::new(AtomicUsize::new(0));
    let waiting = Arc::clone(&bytes);
    let thread = std::thread::Builder::new().name("ingest".to_owned()).spawn(move || run(log.as_ref(), &receiver, &waiting))?;
    Ok((Queue { jobs: sender, bytes }, Appender(thread)))
}

fn run(log: &dyn Log, jobs: &Receiver<Job>, waiting: &Arc<AtomicUsize>) {
    // Everybody who waits for an answer has one of these.
    let (all, answered) = channel::<Infallible>();
    while let Ok(first) = jobs.recv() {
        let mut bytes = size(&first);
        let mut together = vec![first];
        while bytes < MAX_COMMIT_BYTES
            && let Ok(next) = jobs.try_recv()
        {
            bytes += size(&next);
            together.push(next);
        }
        log.append_each(together.into_iter().map(|job| call(job, waiting, &all)).collect());
    }
    drop(all);
    let _ = answered.recv();
}

fn size(job: &Job) -> usize {
    job.appends.iter().map(|a| a.value.len()).sum()
}

/// What a job appends, and what is done when it is known what came of that.
fn call(job: Job, waiting: &Arc<AtomicUsize>, all: &Sender<Infallible>) -> (Vec<RawAppend>, Told) {
    let (bytes, waiting, all) = (size(&job), Arc::clone(waiting), all.clone());
    let Job { appends, done } = job;
    let told = move |outcome: Result<(), LogError>| {
        waiting.fetch_sub(bytes, Ordering::Relaxed);
        if let Err(error) = &outcome {
            // The client is told; of a log that cannot be written, `Log::trouble` tells.
            tracing::debug!(event = "samples-untaken", %error, "samples were not taken");
        }
        // A request whose client has gone hears nothing, and needs nothing.
        let _ = done.send(outcome);
        drop(all);
    };
    (appends, Box::new(told))
}
