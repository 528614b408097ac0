//! The room that is left in the log: what ingest asks before it appends, and what `status` shows.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Pressure;

/// How the log stands to its limit, as last looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// In one word.
    pub pressure: Pressure,
    /// The bytes that the database has in use.
    pub bytes: u64,
    /// The bytes that it may have in use.
    pub limit: u64,
    /// The bytes of the file that are free, and used again before it grows.
    pub free_bytes: u64,
    /// What comes in a day, by what is kept of each topic; `None` where that spans too little time to say.
    #[serde(default)]
    pub bytes_a_day: Option<u64>,
    /// What is kept of each topic.
    pub topics: Vec<TopicUsage>,
    /// Why nothing more may go, while the log is near its limit.
    #[serde(default)]
    pub held_by: Vec<String>,
}

/// What is kept of a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicUsage {
    /// The topic.
    pub topic: String,
    /// Its bytes.
    pub bytes: u64,
    /// How far back it reaches; `None` where it is empty.
    #[serde(default)]
    pub hours_kept: Option<f64>,
    /// What comes in a day; `None` where it reaches back too little to say.
    #[serde(default)]
    pub bytes_a_day: Option<u64>,
}

/// The room that is left for what may be refused. Asked by many, told by one.
#[derive(Debug)]
pub struct Room {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that may still be appended before the next look; `None`: as many as there are.
    left: Option<u64>,
    /// Whether somebody was refused since the last look.
    refused: bool,
    stopping: bool,
    usage: Option<Usage>,
}

impl Room {
    /// Room without a limit, and nothing to show.
    pub fn unlimited() -> Room {
        Room { state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes `bytes` of what is left. `false` where they do not fit: then nothing is taken, and it is looked at
    /// once whether something may go.
    pub fn take(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        match state.left {
            None => true,
            Some(left) if left >= bytes => {
                state.left = Some(left - bytes);
                true
            }
            Some(_) => {
                state.refused = true;
                self.changed.notify_all();
                false
            }
        }
    }

    /// How the log stands to its limit; `None` where it has none.
    pub fn usage(&self) -> Option<Usage> {
        self.lock().usage.clone()
    }

    /// Whether somebody was refused since it was last told.
    pub(super) fn was_refused(&self) -> bool {
        self.lock().refused
    }

    /// Tells how it stands.
    pub(super) fn tell(&self, left: u64, usage: Usage) {
        let mut state = self.lock();
        state.left = Some(left);
        state.usage = Some(usage);
        state.refused = false;
    }

    /// Waits until somebody is refused, it is to end, or `at_most` has passed. Says whether to go on.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let over = |state: &mut State| !state.refused && !state.stopping;
        let (state, _) = self.changed.wait_timeout_while(self.lock(), at_most, over).unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    /// Waits `at_most`, or until it is to end. Says whether to go on.
    pub(super) fn pause(&self, at_most: Duration) -> bool {
        let (state, _) = self.changed.wait_timeout_while(self.lock(), at_most, |state| !state.stopping).unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    /// Ends every wait from now on.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
