//! How writes fare: since when none succeeds, and how long those took that did; and which partitions nobody leads, of which none can.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::topics::NO_LEADER;
use crate::log::coordinator::lock;
use crate::log::{CommitTimes, LogError, Trouble};
use crate::model::Timestamp;
use crate::runtime::clock::{Clock as _, Stopwatch, SystemClock};

/// For how long a writer that does not try again counts as one that cannot write: its partition is another's now, or it has nothing to say. Where samples are sent to
/// who is ready alone, it is ready after that, and the next ones tell. Longer than a try takes.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What became of the writes of a process.
pub(super) struct Standing {
    brokers: String,
    forgotten_after: Duration,
    quiet_after: Duration,
    told_after: Duration,
    leaders_every: Duration,
    troubles: Mutex<Troubles>,
    times: CommitTimes,
}

/// So long after the last write it is asked whether the cluster answers, and so often.
const QUIET: Duration = Duration::from_secs(5);

/// So often it is asked which partitions nobody leads.
const LEADERS: Duration = Duration::from_secs(5);

/// So many questions in a row without an answer are a trouble: one may be lost with a broker that is replaced.
const UNANSWERED: u32 = 2;

/// Nobody leads a partition that was found so as often in a row: one broker takes over from another within less.
const UNLED: u32 = 2;

/// What takes so long is told of, as what is refused: beyond what the replacement of a broker takes.
pub(super) const TOLD_AFTER: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Troubles {
    /// When something was written last, or the cluster was asked.
    heard: Option<Stopwatch>,
    /// Questions in a row without an answer, and what is told of them.
    unanswered: (u32, Option<Trouble>),
    /// When it was asked last which partitions nobody leads.
    asked: Option<Stopwatch>,
    /// Those, with how often in a row that was found, and since when.
    unled: BTreeMap<String, (u32, Timestamp)>,
    /// Of all writers: no write succeeded since. With the time since the last refusal.
    of_all: Option<(Trouble, Stopwatch)>,
    /// Of each, by its words, with the time since the last refusal.
    of_each: BTreeMap<String, (Trouble, Stopwatch)>,
}

impl Standing {
    pub(super) fn new(brokers: &str) -> Self {
        Standing {
            brokers: brokers.to_owned(),
            forgotten_after: FORGOTTEN_AFTER,
            quiet_after: QUIET,
            told_after: TOLD_AFTER,
            leaders_every: LEADERS,
            troubles: Mutex::default(),
            times: CommitTimes::default(),
        }
    }

    /// Does a write that was begun then, and notes what came of it. `of` says what it is that is written.
    pub(super) fn note<T>(&self, began: Stopwatch, of: impl Fn() -> String, write: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        let outcome = write();
        self.came_of(&of, began.elapsed(), outcome.as_ref().err());
        outcome
    }

    /// The same of one that says since when it has been done: it may have come to its end before anybody asked.
    pub(super) fn note_ended(&self, began: Stopwatch, of: impl Fn() -> String, write: impl FnOnce() -> Result<Stopwatch, LogError>) -> Result<(), LogError> {
        let outcome = write();
        let since = outcome.as_ref().map_or(Duration::ZERO, |ended| ended.elapsed());
        self.came_of(&of, began.elapsed().saturating_sub(since), outcome.as_ref().err());
        outcome.map(drop)
    }

    fn came_of(&self, of: &impl Fn() -> String, time: Duration, failed: Option<&LogError>) {
        match failed {
            None => self.written(of, time),
            Some(LogError::Retry { reason } | LogError::Unknown { reason }) => self.refused(of(), reason, time),
            // It is no failure yet; but what waits for so long is told.
            Some(LogError::UnderWay { reason }) if time >= self.told_after => self.waits(of(), reason, time, false),
            Some(LogError::UnderWay { .. }) => {}
            Some(LogError::Fenced { .. } | LogError::TooLarge { .. } | LogError::Fatal { .. }) => self.times.failed(),
        }
    }

    /// Notes what came of several writes that were done at once, in `time`, each with what it is: those that succeed hide none that do not.
    pub(super) fn note_each(&self, outcomes: impl Iterator<Item = (String, Option<LogError>)>, time: Duration) {
        let (mut succeed, mut all) = (Vec::new(), true);
        for (of, outcome) in outcomes {
            all &= outcome.is_none();
            match outcome {
                None => succeed.push(of),
                // What needs a person ends a stage, but not who takes samples.
                Some(LogError::Retry { reason } | LogError::Unknown { reason } | LogError::Fatal { reason }) => self.refused(of, &reason, time),
                Some(LogError::UnderWay { .. }) => {}
                Some(LogError::Fenced { .. } | LogError::TooLarge { .. }) => self.times.failed(),
            }
        }
        if all && !succeed.is_empty() {
            self.times.took(time);
        }
        // A cluster that takes some of it can be written to.
        succeed.iter().for_each(|of| self.is_taken(&|| of.clone()));
    }

    /// Asks whether the cluster answers, where nothing was written for a while: who only reads would wait in silence.
    pub(super) fn look(&self, ask: impl FnOnce() -> Result<(), String>) {
        let is_quiet = lock(&self.troubles).heard.get_or_insert_with(Stopwatch::start).elapsed() >= self.quiet_after;
        if !is_quiet {
            return;
        }
        let asking = Stopwatch::start();
        let answer = ask();
        let mut troubles = lock(&self.troubles);
        troubles.heard = Some(Stopwatch::start());
        match answer {
            Ok(()) => troubles.unanswered = (0, None),
            Err(reason) => {
                let (count, told) = std::mem::take(&mut troubles.unanswered);
                let count = count.saturating_add(1);
                let told = (count >= UNANSWERED).then(|| self.trouble_of(told.as_ref(), None, &reason, asking.elapsed(), true));
                troubles.unanswered = (count, told);
            }
        }
    }

    /// Asks now and then which partitions nobody leads; nothing is known where the cluster does not answer.
    pub(super) fn look_at_leaders(&self, ask: impl FnOnce() -> Option<Vec<String>>) {
        let is_due = lock(&self.troubles).asked.is_none_or(|asked| asked.elapsed() >= self.leaders_every);
        if !is_due {
            return;
        }
        let answer = ask();
        let mut troubles = lock(&self.troubles);
        troubles.asked = Some(Stopwatch::start());
        let (now, mut before) = (SystemClock.now(), std::mem::take(&mut troubles.unled));
        let again = |partition: String| {
            let (count, since) = before.remove(&partition).unwrap_or((0, now));
            (partition, (count.saturating_add(1), since))
        };
        troubles.unled = answer.into_iter().flatten().map(again).collect();
    }

    /// What was begun so long ago is in trouble, as it was before or from then on.
    fn trouble_of(&self, before: Option<&Trouble>, of: Option<String>, reason: &str, began: Duration, refused: bool) -> Trouble {
        Trouble {
            of,
            since: before.map_or_else(|| SystemClock.now() - began, |before| before.since),
            refused: before.map_or(0, |before| before.refused) + u64::from(refused),
            reason: reason.to_owned(),
            place: self.brokers.clone(),
            mend: "see that the brokers run and can be reached, and have enough replicas in sync: it goes on by itself then".to_owned(),
        }
    }

    fn written(&self, of: &impl Fn() -> String, time: Duration) {
        self.times.took(time);
        self.is_taken(of);
    }

    fn is_taken(&self, of: &impl Fn() -> String) {
        let mut troubles = lock(&self.troubles);
        troubles.heard = Some(Stopwatch::start());
        troubles.unanswered = (0, None);
        troubles.of_all = None;
        if !troubles.of_each.is_empty() {
            troubles.of_each.remove(&of());
        }
    }

    fn refused(&self, of: String, reason: &str, began: Duration) {
        self.times.failed();
        self.waits(of, reason, began, true);
    }

    /// Whoever wrote it does no more.
    pub(super) fn forget(&self, of: &str) {
        let mut troubles = lock(&self.troubles);
        if troubles.of_each.remove(of).is_some() && troubles.of_each.is_empty() {
            troubles.of_all = None;
        }
    }

    /// Something waits to be written, since it was `refused` or has not been taken.
    fn waits(&self, of: String, reason: &str, began: Duration, refused: bool) {
        let mut troubles = lock(&self.troubles);
        let again = |before: Option<&Trouble>, of: Option<String>| self.trouble_of(before, of, reason, began, refused);
        troubles.of_all = Some((again(troubles.of_all.as_ref().map(|(before, _)| before), None), Stopwatch::start()));
        let before = troubles.of_each.get(&of).map(|(before, _)| before);
        let trouble = again(before, Some(of.clone()));
        troubles.of_each.insert(of, (trouble, Stopwatch::start()));
    }

    /// What cannot be written: all, or else what has waited for longest, or else a partition that nobody leads, which is told with each of the others, too.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let mut troubles = lock(&self.troubles);
        let lasts = |refused: &Stopwatch| refused.elapsed() < self.forgotten_after;
        troubles.of_each.retain(|_, (_, refused)| lasts(refused));
        troubles.of_all = troubles.of_all.take().filter(|(_, refused)| lasts(refused));
        let oldest = troubles.of_each.values().map(|(trouble, _)| trouble).min_by_key(|trouble| trouble.since);
        let of_writes = troubles.of_all.as_ref().map(|(trouble, _)| trouble).or(troubles.unanswered.1.as_ref()).or(oldest).cloned();
        let unled = || troubles.unled.iter().filter(|(_, (count, _))| *count >= UNLED);
        let Some(since) = unled().map(|(_, (_, since))| *since).min() else { return of_writes };
        let partitions = unled().map(|(partition, _)| partition.as_str()).collect::<Vec<_>>().join(", ");
        let trouble = of_writes.map(|trouble| Trouble { reason: format!("{}; no broker leads {partitions}", trouble.reason), ..trouble });
        let trouble = trouble.unwrap_or_else(|| {
            let (reason, refused) = ("no broker leads it, and none reads it either".to_owned(), 0);
            Trouble { of: Some(partitions), since, refused, reason, place: self.brokers.clone(), mend: String::new() }
        });
        Some(Trouble { mend: NO_LEADER.to_owned(), ..trouble })
    }

    pub(super) fn times(&self) -> &CommitTimes {
        &self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(standing: &Standing, of: &str, reason: &str) {
        drop(standing.note(Stopwatch::start(), || of.to_owned(), || Err::<(), _>(LogError::Retry { reason: reason.to_owned() })));
    }

    fn write(standing: &Standing, of: &str) {
        standing.note(Stopwatch::start(), || of.to_owned(), || Ok(())).unwrap();
    }

    #[test]
    fn what_fails_is_counted_since_the_last_write_that_did_not() {
        let standing = Standing::new("a:9092");
        assert_eq!(standing.trouble(), None);
        fail(&standing, "admit", "no answer");
        let since = standing.trouble().unwrap().since;
        fail(&standing, "decide", "still none");
        let Trouble { of, refused, reason, place, .. } = standing.trouble().unwrap();
        assert_eq!((of, standing.trouble().unwrap().since, refused, reason.as_str(), place.as_str()), (None, since, 2, "still none", "a:9092"));
        // Of one that was too large the cluster is not to blame.
        drop(standing.note(Stopwatch::start(), || "admit".to_owned(), || Err::<(), _>(LogError::TooLarge { topic: crate::log::Topic::Metrics, bytes: 1 })));
        assert_eq!(standing.trouble().unwrap().refused, 2);
        write(&standing, "admit");
        write(&standing, "decide");
        assert_eq!(standing.trouble(), None);
        assert_eq!((*standing.times().cumulative().last().unwrap(), standing.times().failures()), (2, 3));
    }

    #[test]
    fn a_write_that_succeeds_hides_no_other_that_does_not() {
        let standing = Standing::new("a:9092");
        fail(&standing, "admit", "no leader");
        fail(&standing, "decide", "no leader");
        write(&standing, "aggregate");
        assert_eq!(standing.trouble().unwrap().of.as_deref(), Some("admit"), "the one that waits for longest");
        write(&standing, "admit");
        fail(&standing, "decide", "still none");
        write(&standing, "aggregate");
        let Trouble { of, refused, .. } = standing.trouble().unwrap();
        assert_eq!((of.as_deref(), refused), (Some("decide"), 2));
        write(&standing, "decide");
        assert_eq!(standing.trouble(), None);
        fail(&standing, "decide", "no leader");
        write(&standing, "admit");
        standing.forget("decide");
        assert_eq!(standing.trouble(), None, "it is another member's now");
    }

    /// A write that is still under way is no trouble at first; one that takes long is told as long as it waits, and counts as none that was refused.
    #[test]
    fn a_write_that_takes_long_is_told_for_as_long_as_it_waits() {
        let look = |standing: &Standing| {
            let waits = || Err::<(), _>(LogError::UnderWay { reason: "not taken yet".to_owned() });
            drop(standing.note(Stopwatch::start(), || "decide".to_owned(), waits));
            standing.trouble()
        };
        let standing = Standing::new("a:9092");
        assert_eq!(look(&standing), None);
        let standing = Standing { told_after: Duration::ZERO, forgotten_after: Duration::from_millis(200), ..Standing::new("a:9092") };
        let since = look(&standing).unwrap().since;
        let looking = Stopwatch::start();
        while looking.elapsed() < standing.forgotten_after * 2 {
            let Trouble { reason, refused, since: again, .. } = look(&standing).unwrap();
            assert_eq!((reason.as_str(), refused, again), ("not taken yet", 0, since));
        }
        write(&standing, "decide");
        assert_eq!((standing.trouble(), standing.times().failures()), (None, 0));
    }

    /// Of what was sent at once: a partition without a leader is told, though all others are written, also after it.
    #[test]
    fn what_is_written_at_once_hides_no_part_that_is_not() {
        let standing = Standing::new("a:9092");
        let failed = || Some(LogError::Retry { reason: "no leader".to_owned() });
        let note = |outcomes: &[(&str, Option<LogError>)]| {
            standing.note_each(outcomes.iter().map(|(of, outcome)| ((*of).to_owned(), outcome.clone())), Duration::ZERO);
        };
        note(&[("metrics/0", failed()), ("metrics/1", failed())]);
        assert_eq!(standing.trouble().unwrap().of, None);
        note(&[("metrics/0", None), ("metrics/1", failed()), ("metrics/2", None)]);
        note(&[("metrics/2", None)]);
        let Trouble { of, refused, reason, .. } = standing.trouble().unwrap();
        assert_eq!((of.as_deref(), refused, reason.as_str()), (Some("metrics/1"), 2, "no leader"));
        note(&[]);
        assert!(standing.trouble().is_some(), "nothing was written");
        note(&[("metrics/1", None)]);
        assert_eq!(standing.trouble(), None);
        note(&[("metrics/1", Some(LogError::Fatal { reason: "not authorized".to_owned() }))]);
        assert_eq!(standing.trouble().map(|trouble| trouble.reason).as_deref(), Some("not authorized"), "samples are sent elsewhere until it is mended");
    }

    /// Who only reads is told of a cluster that does not answer, as soon as it is sure; any answer ends that.
    #[test]
    fn a_cluster_that_does_not_answer_is_told_where_nothing_is_written() {
        let standing = Standing { quiet_after: Duration::ZERO, ..Standing::new("a:9092") };
        for answers in [false, true, false] {
            standing.look(|| if answers { Ok(()) } else { Err("no answer".to_owned()) });
            assert_eq!(standing.trouble(), None, "one may be lost");
        }
        standing.look(|| Err("no answer".to_owned()));
        assert_eq!(standing.trouble().map(|trouble| (trouble.of, trouble.reason)), Some((None, "no answer".to_owned())));
        write(&standing, "decide");
        assert_eq!(standing.trouble(), None);
        let busy = Standing::new("a:9092");
        busy.look(|| unreachable!("it has just begun"));
        write(&busy, "decide");
        busy.look(|| unreachable!("something was written"));
    }

    /// A partition that nobody leads is told as soon as it is sure, beside what cannot be written for it, until somebody does.
    #[test]
    fn a_partition_that_nobody_leads_is_named() {
        let standing = Standing { leaders_every: Duration::ZERO, ..Standing::new("a:9092") };
        let look = |unled: &[&str]| standing.look_at_leaders(|| Some(unled.iter().map(|partition| (*partition).to_owned()).collect()));
        let told = || standing.trouble().map(|trouble| (trouble.of, trouble.reason));
        look(&["metrics/1", "signals/3"]);
        assert_eq!(told(), None, "one may be just taking over");
        look(&["signals/3"]);
        let (of, reason) = (Some("signals/3".to_owned()), "no broker leads it, and none reads it either".to_owned());
        assert_eq!(told(), Some((of, reason)));
        let since = standing.trouble().unwrap().since;
        fail(&standing, "metrics/0", "not enough replicas");
        write(&standing, "aggregate");
        assert_eq!(told(), Some((Some("metrics/0".to_owned()), "not enough replicas; no broker leads signals/3".to_owned())));
        write(&standing, "metrics/0");
        look(&["signals/3"]);
        assert_eq!(standing.trouble().map(|trouble| trouble.since), Some(since));
        // Where it cannot be seen nothing is claimed.
        standing.look_at_leaders(|| None);
        assert_eq!(told(), None);
        Standing::new("a:9092").look_at_leaders(|| Some(Vec::new()));
        look(&[]);
        look(&["signals/3"]);
        assert_eq!(told(), None);
    }

    /// What failed after a while has been in trouble since it was begun.
    #[test]
    fn a_write_that_fails_is_in_trouble_since_it_began() {
        let (standing, began, before) = (Standing::new("a:9092"), Stopwatch::start(), SystemClock.now());
        while began.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        drop(standing.note(began, || "decide".to_owned(), || Err::<(), _>(LogError::Retry { reason: "no answer".to_owned() })));
        assert!(standing.trouble().unwrap().since < before + Duration::from_millis(20), "not since it failed");
    }

    /// Who is not ready is sent nothing that could succeed.
    #[test]
    fn who_tries_no_more_is_in_no_trouble() {
        let standing = Standing { forgotten_after: Duration::ZERO, ..Standing::new("a:9092") };
        fail(&standing, "what is appended to metrics", "no answer");
        assert_eq!(standing.trouble(), None);
    }

    /// A commit that came to its end before anybody asked took no longer for it.
    #[test]
    fn a_commit_takes_until_its_end() {
        let began = Stopwatch::start();
        let [asked_late, waited] = [(), ()].map(|()| Standing::new("a:9092"));
        asked_late.note_ended(began, || "decide".to_owned(), || Ok(began)).unwrap();
        waited.note(began, || "decide".to_owned(), || Ok(())).unwrap();
        assert!(asked_late.times().total() < waited.times().total());
    }
}
