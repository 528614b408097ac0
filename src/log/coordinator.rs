//! Membership with waiting: the [`Groups`] of one process behind a lock, and for each session a
//! signal that ends its waiting poll.
//!
//! Nothing polls here: a session sleeps until a commit appended to a partition that it owns, its
//! group changed, its waker was used, or the log was closed. A signal that comes between a
//! session's look and its sleep is kept, so none is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::groups::{Changes, Groups, SessionId};
use super::{LogError, Membership, Topic};

/// Who commits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committer {
    /// Its session.
    pub(super) session: SessionId,
    /// Its group.
    pub(super) group: &'static str,
    /// What the group consumes.
    pub(super) topic: Topic,
}

/// The partitions that a commit appended to.
pub(super) type Touched = BTreeSet<(Topic, u32)>;

/// Membership of one process.
#[derive(Debug, Default)]
pub(super) struct Coordinator(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    groups: Groups,
    signals: BTreeMap<SessionId, Signal>,
    /// Who reads a topic outside of any group.
    followers: BTreeMap<SessionId, Topic>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Signal {
    condvar: Arc<Condvar>,
    /// Something happened since the session's last look.
    news: bool,
    /// Its waker was used.
    woken: bool,
}

/// What [`Coordinator::turn`] brings.
pub(super) struct Turn {
    /// What changed hands.
    pub(super) changes: Changes,
    /// The session's waker was used: this poll must not wait.
    pub(super) woken: bool,
}

impl State {
    fn tell(&mut self, sessions: impl IntoIterator<Item = SessionId>) {
        for session in sessions {
            if let Some(signal) = self.signals.get_mut(&session) {
                signal.news = true;
                signal.condvar.notify_all();
            }
        }
    }

    /// From here on news is what comes later. Whether the session's waker was used.
    fn take_news(&mut self, session: SessionId) -> bool {
        self.signals.get_mut(&session).is_some_and(|signal| {
            signal.news = false;
            std::mem::take(&mut signal.woken)
        })
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.closed { Err(closed()) } else { Ok(()) }
    }
}

/// What every call says after the log was closed.
pub(super) fn closed() -> LogError {
    LogError::Fatal { reason: "the log is closed".to_owned() }
}

impl Coordinator {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// That the log is not closed.
    pub(super) fn check_open(&self) -> Result<(), LogError> {
        self.state().check_open()
    }

    /// Adds a session to its group.
    pub(super) fn join(&self, membership: &Membership, partitions: u32) -> Result<SessionId, LogError> {
        let mut state = self.state();
        state.check_open()?;
        let earlier = state.groups.session_of(membership.group, &membership.member);
        let session = state.groups.join(membership, partitions)?;
        state.signals.insert(session, Signal::default());
        let peers = state.groups.peers(session);
        state.tell(peers.into_iter().chain(earlier));
        Ok(session)
    }

    /// Adds a session that reads a topic outside of any group; it leaves as the others do.
    pub(super) fn follow(&self, topic: Topic) -> Result<SessionId, LogError> {
        let mut state = self.state();
        state.check_open()?;
        let session = state.groups.new_session();
        state.signals.insert(session, Signal::default());
        state.followers.insert(session, topic);
        Ok(session)
    }

    /// A follower's look: all that was appended before is seen after it. Whether its waker was used.
    pub(super) fn look(&self, session: SessionId) -> Result<bool, LogError> {
        let mut state = self.state();
        state.check_open()?;
        Ok(state.take_news(session))
    }

    /// Takes a session out of its group.
    pub(super) fn leave(&self, session: SessionId) {
        let mut state = self.state();
        state.followers.remove(&session);
        let peers = state.groups.peers(session);
        state.groups.leave(session);
        state.signals.remove(&session);
        state.tell(peers);
    }

    /// A session's look at its group: all that happened before is known after it.
    pub(super) fn turn(&self, session: SessionId) -> Result<Turn, LogError> {
        let mut state = self.state();
        state.check_open()?;
        let woken = state.take_news(session);
        let changes = state.groups.turn(session)?;
        if !changes.revoked.is_empty() {
            let peers = state.groups.peers(session);
            state.tell(peers.into_iter().filter(|peer| *peer != session));
        }
        Ok(Turn { changes, woken })
    }

    /// Sleeps until something happened since the session's last turn, at most `wait`.
    pub(super) fn wait(&self, session: SessionId, wait: Duration) {
        let state = self.state();
        let Some(condvar) = state.signals.get(&session).map(|signal| Arc::clone(&signal.condvar)) else { return };
        let nothing = |state: &mut State| !state.closed && state.signals.get(&session).is_some_and(|signal| !signal.news && !signal.woken);
        drop(condvar.wait_timeout_while(state, wait, nothing).unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the session's waiting poll, or its next one.
    pub(super) fn wake(&self, session: SessionId) {
        if let Some(signal) = self.state().signals.get_mut(&session) {
            signal.woken = true;
            signal.condvar.notify_all();
        }
    }

    /// Begins a commit; [`Coordinator::finish`] must follow where it is allowed.
    pub(super) fn begin(&self, committer: Committer, partition: u32) -> Result<(), LogError> {
        let mut state = self.state();
        state.check_open()?;
        state.groups.begin(committer.session, partition)
    }

    /// Ends commits, and wakes whom the appends concern. What was appended must be visible before.
    pub(super) fn finish(&self, commits: &[(&'static str, u32)], touched: &Touched) {
        let mut state = self.state();
        for (group, partition) in commits {
            let heir = state.groups.end(group, *partition);
            state.tell(heir);
        }
        for (topic, partition) in touched {
            let following = state.followers.iter().filter(|(_, of)| *of == topic).map(|(session, _)| *session);
            let readers: Vec<_> = state.groups.readers(*topic, *partition).chain(following).collect();
            state.tell(readers);
        }
    }

    /// Wakes everyone; from now on all calls fail.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for signal in state.signals.values() {
            signal.condvar.notify_all();
        }
    }
}

/// Locks; a thread that panicked while it held the lock left whole values behind, as each critical
/// section here and in the logs changes its value in steps that cannot fail.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
