//! Tells of a log that cannot be written: once, with one voice, and again when it is over.
//!
//! While it lasts an alert cannot be appended, so it is told where nothing needs the log: one line of ERROR, one
//! a minute with the count, `/readyz`, and the alert [`firing`] in the status. When writes have succeeded for a
//! while, one alert with the whole story is appended. What lasts less than [`TELL_AFTER`] is not told: a person
//! with a shell holds the database up for as long.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, info};

use super::stop::Bell;
use crate::log::{Log, LogError, Topic, Trouble};
use crate::model::{Alert, AlertState, Message, Severity, Timestamp};
use crate::runtime::clock::{Clock, Stopwatch};
use crate::runtime::publish;
use crate::stages::Effects;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long nothing can be written before it is told.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// How often it is told again.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How long writes succeed before it is over: a nearly full disk takes a small write between large ones that it
/// refuses, and stages try again every 5 s.
const SETTLED: Duration = Duration::from_secs(10);

const NAME: &str = "LogNotWritable";

/// That nothing, or not all, can be written, in a sentence.
pub(super) fn words(trouble: &Trouble) -> String {
    let Trouble { of, since, reason, .. } = trouble;
    match of {
        None => format!("nothing can be written since {since}: {reason}; nothing is decided or commanded, the fleets stand"),
        Some(of) => format!("{of} cannot be written since {since}: {reason}; it waits, and whatever follows from it"),
    }
}

/// The alert while it lasts.
pub(super) fn firing(trouble: &Trouble) -> Alert {
    alert(AlertState::Firing, trouble.since, format!("{}; {}", words(trouble), trouble.mend))
}

fn alert(state: AlertState, at: Timestamp, message: String) -> Alert {
    Alert { target: None, name: NAME.to_owned(), subject: "log".to_owned(), severity: Severity::Critical, state, message, at }
}

/// The thread that watches. It ends with [`LogWatch::stop`], or when it is dropped.
pub struct LogWatch {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl LogWatch {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> std::io::Result<LogWatch> {
        let bell = Arc::new(Bell::default());
        let watching = Arc::clone(&bell);
        let thread = std::thread::Builder::new().name("log-watch".to_owned()).spawn(move || {
            let (running, mut watch, mut owed) = (Stopwatch::start(), Watch::default(), None);
            while watching.pause(LOOK_EVERY) {
                log.look();
                if let Some(said) = watch.look(running.elapsed(), clock.now(), log.trouble()) {
                    owed = said.tell().or(owed);
                }
                owed = owed.and_then(|alert| append(&*log, alert));
            }
        })?;
        Ok(LogWatch { bell, thread: Some(thread) })
    }

    /// Whether it has ended by itself, by a fault in the program.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it.
    pub fn stop(self) {}
}

impl Drop for LogWatch {
    fn drop(&mut self) {
        self.bell.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!(event = "part-failed", "the watch over the log ended by a fault in the program");
        }
    }
}

/// Appends an alert; gives it back where that is to be tried again.
fn append(log: &dyn Log, alert: Alert) -> Option<Alert> {
    let mut effects = Effects::new();
    effects.to_key(Topic::Alerts, NAME, Message::Alert(alert.clone()));
    matches!(publish(log, effects), Err(LogError::Retry { .. } | LogError::Unknown { .. })).then_some(alert)
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
struct Watch(Option<Episode>);

/// A time in which writes were refused.
#[derive(Debug)]
struct Episode {
    /// The newest trouble, with the first one's `since`.
    trouble: Trouble,
    /// Refusals of troubles before this one.
    refused_before: u64,
    began: Duration,
    told: Option<Duration>,
    /// Since when writes have succeeded.
    well: Option<(Duration, Timestamp)>,
}

/// What is to be told.
#[derive(Debug, PartialEq)]
enum Said {
    Began(Trouble),
    Lasts(Trouble),
    Over(Trouble, Timestamp),
}

impl Watch {
    fn look(&mut self, moment: Duration, now: Timestamp, trouble: Option<Trouble>) -> Option<Said> {
        let Some(episode) = &mut self.0 else {
            self.0 = trouble.map(|trouble| Episode { trouble, refused_before: 0, began: moment, told: None, well: None });
            return None;
        };
        let Some(trouble) = trouble else {
            let (since, at) = *episode.well.get_or_insert((moment, now));
            let (told, settled) = (episode.told.is_some(), moment.saturating_sub(since) >= SETTLED);
            let ended = if settled || !told { self.0.take() } else { None };
            return ended.filter(|_| told).map(|episode| Said::Over(episode.trouble, at));
        };
        if episode.well.take().is_some() {
            episode.refused_before = episode.trouble.refused;
        }
        episode.trouble = Trouble { since: episode.trouble.since, refused: episode.refused_before + trouble.refused, ..trouble };
        let said = match episode.told {
            None if moment.saturating_sub(episode.began) >= TELL_AFTER => Said::Began(episode.trouble.clone()),
            Some(told) if moment.saturating_sub(told) >= TELL_AGAIN => Said::Lasts(episode.trouble.clone()),
            _ => return None,
        };
        episode.told = Some(moment);
        Some(said)
    }
}

impl Said {
    /// Writes the line; gives the alert that is to be appended.
    fn tell(self) -> Option<Alert> {
        match self {
            Said::Began(trouble) => error!(event = "log-not-writable", directory = trouble.place, "{}; {}", words(&trouble), trouble.mend),
            Said::Lasts(trouble) => {
                error!(event = "log-not-writable", directory = trouble.place, refused = trouble.refused, "still {}; {}", words(&trouble), trouble.mend);
            }
            Said::Over(trouble, at) => {
                let Trouble { of, since, refused, reason, .. } = trouble;
                let seconds = at.since(since).as_secs();
                let message = match of {
                    None => format!(
                        "nothing could be written for {seconds} s, from {since} to {at}: {reason}; nothing acknowledged was lost, and nothing was decided meanwhile"
                    ),
                    Some(of) => format!("{of} could not be written for {seconds} s, from {since} to {at}: {reason}; nothing acknowledged was lost"),
                };
                info!(event = "log-writable", refused, "it goes on: {message}");
                return Some(alert(AlertState::Event, at, message));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(since: i64, refused: u64) -> Trouble {
        let since = Timestamp::from_millis(since);
        Trouble { of: None, since, refused, reason: "no room".to_owned(), place: "/data".to_owned(), mend: "make room".to_owned() }
    }

    /// Looks at each second of `troubles`, from 0 on: what was told, with its second.
    fn told(troubles: impl IntoIterator<Item = Option<Trouble>>) -> Vec<(u64, &'static str, u64)> {
        let mut watch = Watch::default();
        let look = |(second, trouble): (u64, Option<Trouble>)| {
            let now = Timestamp::from_millis(i64::try_from(second).unwrap() * 1000);
            watch.look(Duration::from_secs(second), now, trouble).map(|said| match said {
                Said::Began(t) => (second, "began", t.refused),
                Said::Lasts(t) => (second, "lasts", t.refused),
                Said::Over(t, at) => {
                    assert_eq!(t.since, Timestamp::from_millis(0), "the whole time is told");
                    (second, "over", u64::try_from(at.as_millis()).unwrap() / 1000)
                }
            })
        };
        (0..).zip(troubles).filter_map(look).collect()
    }

    #[test]
    fn a_long_trouble_is_told_once_and_once_a_minute_and_when_it_is_over() {
        let troubles = (0..150).map(|second| Some(trouble(0, second))).chain((0..20).map(|_| None));
        assert_eq!(told(troubles), [(2, "began", 2), (62, "lasts", 62), (122, "lasts", 122), (160, "over", 150)]);
    }

    #[test]
    fn a_write_that_succeeds_between_refusals_ends_nothing() {
        // Every sixth second a small write finds room.
        let troubles = (0..30).map(|second| (second % 6 != 5).then(|| trouble(second / 6 * 6000, 1))).chain((0..20).map(|_| None));
        assert_eq!(told(troubles), [(2, "began", 1), (39, "over", 29)]);
    }

    #[test]
    fn a_moment_is_not_told() {
        let troubles = [Some(trouble(0, 1)), Some(trouble(0, 2)), None, None, Some(trouble(4000, 1)), None].into_iter().chain((0..20).map(|_| None));
        assert_eq!(told(troubles), []);
    }
}
