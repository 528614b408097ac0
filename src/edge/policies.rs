//! Watches policy files and announces them on `control`, in numbered rounds.
//!
//! All paths that are watched (directories, and single files) are one source, `file`; each file is an origin. A round
//! names every policy of every file, and refuses each file that cannot be read or used, of which it then names nothing. What
//! follows from a round is admit's affair; what a policy means is the parser's, which the caller gives.
//!
//! - A round is due at the start, on every change, and every 5 minutes. 11 s after the first, and after each that lacks a policy of a file which
//!   the one before it had, another one is due, since admit takes a policy for gone after 10 s.
//! - Rounds are numbered by the clock in milliseconds, at least one up, so that they grow over restarts.
//! - Files are `*.yaml` and `*.yml` directly in the directory (not `loadline.yaml`, the configuration), of at most 256 kB, not hidden. They are looked at once a second: time of change and
//!   size each time, the content where one of them differs, where the file is younger than 2 s, and for each round.
//! - A directory that cannot be listed, or a look that takes longer than 10 s, makes no round: nothing is decided
//!   on half a view.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::events::PoliciesUnread;
use crate::log::LogError;
use crate::model::TargetId;
use crate::runtime::clock::{Clock, Stopwatch};
use crate::runtime::events::PartFailed;
use crate::stages::Effects;

pub(in crate::edge) mod directory;
pub(crate) use directory::{MAX_FILE_BYTES, files_in};
mod rounds;

use rounds::Source;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedFile {
    /// Its policies: target, and `spec` as JSON text.
    pub policies: Vec<(TargetId, String)>,
    /// What is wrong with it and how to mend it. With any of it, no policy of the file is taken.
    pub errors: Vec<String>,
}

/// Turns a file's text into its policies.
pub type Parse = Box<dyn Fn(&Path, &str) -> ParsedFile + Send>;

/// Appends effects durably, all or nothing; `runtime::publish` on a log.
pub type Publish = Box<dyn Fn(Effects) -> Result<(), LogError> + Send>;

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It is not there, or may not be read.
    #[error("cannot watch policies in {path}: {error}; create it, or correct `policies` in the configuration", path = path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the thread that watches policies: {0}")]
    Thread(std::io::Error),
    /// The log takes no more.
    #[error("policies cannot be announced any more: {0}")]
    Log(LogError),
    /// The thread ended by a fault in the program.
    #[error("the thread that watches policies ended by a fault in the program")]
    Fault,
}

/// Watches until it is stopped or dropped.
#[derive(Debug)]
pub struct PolicyWatcher {
    wake: SyncSender<Wake>,
    thread: Option<JoinHandle<Result<(), WatchError>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Look,
    Stop,
}

impl PolicyWatcher {
    /// Announces what is there, and then what changes, on a thread of its own.
    ///
    /// # Errors
    /// [`WatchError::Unreadable`] where a path cannot be read now; [`WatchError::Thread`].
    pub fn start(paths: &[PathBuf], clock: Arc<dyn Clock>, parse: Parse, publish: Publish) -> Result<Self, WatchError> {
        for path in paths {
            let there = std::fs::metadata(path).and_then(|_| directory::list(path));
            there.map_err(|error| WatchError::Unreadable { path: path.clone(), error })?;
        }
        let source = Source::new(paths.to_vec());
        // One: a second wish to look while one waits adds nothing, and a stop waits for its place.
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("policies".to_owned())
            .spawn(move || watch(source, &*clock, &parse, &publish, &woken))
            .map_err(WatchError::Thread)?;
        Ok(PolicyWatcher { wake, thread: Some(thread) })
    }

    /// Looks at the files now.
    pub fn look(&self) {
        match self.wake.try_send(Wake::Look) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Whether the thread has ended; [`PolicyWatcher::stop`] says why.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, and waits until the thread has ended.
    ///
    /// # Errors
    /// Why it had ended before: [`WatchError::Log`] or [`WatchError::Fault`].
    pub fn stop(mut self) -> Result<(), WatchError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), WatchError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // An error says that it has ended already.
        let _ = self.wake.send(Wake::Stop);
        thread.join().unwrap_or(Err(WatchError::Fault))
    }
}

impl Drop for PolicyWatcher {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            PartFailed { part: "the policy watcher", reason: &error.to_string() }.emit();
        }
    }
}

/// The thread: looks, announces, waits.
fn watch(mut source: Source, clock: &dyn Clock, parse: &Parse, publish: &Publish, woken: &Receiver<Wake>) -> Result<(), WatchError> {
    let running = Stopwatch::start();
    loop {
        announce(&mut source, clock, &|| running.elapsed(), parse, publish)?;
        match woken.recv_timeout(LOOK_EVERY) {
            Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// One look at a source, and its round where one is due.
fn announce(source: &mut Source, clock: &dyn Clock, elapsed: &dyn Fn() -> Duration, parse: &Parse, publish: &Publish) -> Result<(), WatchError> {
    let begun = elapsed();
    let round = match source.look(clock.now(), begun, parse) {
        Ok(Some(round)) => round,
        Ok(None) => return Ok(()),
        Err(error) => {
            if source.note_failure(&error) {
                PoliciesUnread(&error).emit();
            }
            return Ok(());
        }
    };
    for effects in round.effects {
        match publish(effects) {
            Ok(()) => {}
            Err(error @ LogError::Fatal { .. }) => return Err(WatchError::Log(error)),
            Err(error) => {
                // The round stays incomplete, so it says nothing; the next look makes another one.
                if source.note_failure(&error.to_string()) {
                    PoliciesUnread(&error.to_string()).emit();
                }
                return Ok(());
            }
        }
    }
    source.announced(round.number, begun, elapsed());
    Ok(())
}

#[cfg(test)]
mod tests;
