//! What a person is told of a partition whose next record waits for what is not in the log: an alert, once that lasts, and again when it is over.
//!
//! The alert is appended with the stage's own commits, and that it fires is a part of its state: whoever has the partition then tells that it is over.

use std::time::Duration;

use crate::log::{Lacking, StatePut, Topic};
use crate::model::{Alert, AlertState, Severity, Timestamp};
use crate::runtime::snapshots::TOLD_KEY;

/// For so long a partition waits before it is told: a registry that is started anew is back sooner.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// For so long nothing is lacking until it is over also where nothing comes that could be read: who takes a partition over takes less to find what it lacks.
const OVER_AFTER: Duration = Duration::from_secs(30);

/// What is told of a partition that waits.
#[derive(Debug, Default)]
pub(super) struct Told {
    waits: Option<(Timestamp, Lacking)>,
    /// What was lacking when the alert was appended that fires; empty where another release said it in other words.
    firing: Option<String>,
    /// Since when nothing is lacking, while the alert fires.
    clear: Option<Timestamp>,
    over: bool,
}

impl Told {
    /// What the state of the group says of a partition that was given.
    pub(super) fn of_state(firing: Option<String>) -> Self {
        Told { firing, ..Told::default() }
    }

    /// What the partition waits for now, where it does.
    pub(super) fn note(&mut self, lacking: Option<&Lacking>, now: Timestamp) {
        self.waits = match (self.waits.take(), lacking) {
            (_, None) => None,
            (Some((since, before)), Some(lacking)) if before.what == lacking.what => Some((since, lacking.clone())),
            (_, Some(lacking)) => Some((now, lacking.clone())),
        };
        self.clear = if self.waits.is_none() && self.firing.is_some() { self.clear.or(Some(now)) } else { None };
    }

    /// Something of the partition was read.
    pub(super) fn goes_on(&mut self) {
        self.over = self.firing.is_some();
    }

    /// What is to be told now: an alert, and what the state says of it then.
    pub(super) fn say(&mut self, stage: &str, input: Topic, partition: u32, now: Timestamp) -> Option<(Alert, StatePut)> {
        let alert = |state, message| Alert {
            target: None,
            name: "PartitionHeld".to_owned(),
            subject: format!("{input}/{partition}"),
            severity: Severity::Warning,
            state,
            message,
            at: now,
        };
        let put = |value: Option<&str>| StatePut { key: TOLD_KEY.to_owned(), value: value.and_then(|what| serde_json::to_vec(what).ok()) };
        if let Some((since, Lacking { what, reason, mend })) = &self.waits
            && now.since(*since) >= TELL_AFTER
            && self.firing.as_ref() != Some(what)
        {
            let message = format!("{stage} reads no more of {input}/{partition} since {since}, for want of {what}: {reason}; {mend}, and it goes on by itself");
            (self.firing, self.over) = (Some(what.clone()), false);
            return Some((alert(AlertState::Firing, message), put(Some(what))));
        }
        if std::mem::take(&mut self.over) || self.clear.is_some_and(|since| now.since(since) >= OVER_AFTER) {
            self.clear = None;
            let what = self.firing.take().unwrap_or_default();
            return Some((alert(AlertState::Resolved, format!("{stage} reads {input}/{partition} again: it waits no more for {what}")), put(None)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(what: &str) -> Lacking {
        Lacking { what: what.to_owned(), reason: "it is down".to_owned(), mend: "start it".to_owned() }
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(1_764_000_000_000 + s * 1_000)
    }

    /// What is told at this second: the state, and what stands in the state of the group then.
    fn said(told: &mut Told, s: i64) -> Option<(AlertState, Option<String>)> {
        let (alert, put) = told.say("aggregate", Topic::Metrics, 3, at(s))?;
        assert_eq!((alert.name.as_str(), alert.subject.as_str()), ("PartitionHeld", "metrics/3"));
        let value = put.value.map(|value| serde_json::from_slice(&value).unwrap());
        if let Some(what) = &value {
            assert!(alert.message.contains(&format!("for want of {what}: it is down; start it")), "{}", alert.message);
        }
        Some((alert.state, value))
    }

    #[test]
    fn what_lasts_is_told_once_and_again_when_it_is_over() {
        let mut told = Told::default();
        told.note(Some(&lacking("the schema 1")), at(0));
        assert_eq!(said(&mut told, 4), None, "a moment is not told");
        told.note(None, at(4));
        told.note(Some(&lacking("the schema 1")), at(5));
        assert_eq!(said(&mut told, 9), None, "it counts from its beginning");
        told.note(Some(&lacking("the schema 1")), at(9));
        let fires = |what: &str| Some((AlertState::Firing, Some(what.to_owned())));
        assert_eq!((said(&mut told, 10), said(&mut told, 60)), (fires("the schema 1"), None));
        // It goes on, and waits for another one.
        told.goes_on();
        told.note(Some(&lacking("the schema 2")), at(60));
        assert_eq!(said(&mut told, 60), Some((AlertState::Resolved, None)));
        assert_eq!(said(&mut told, 65), fires("the schema 2"));
        told.note(None, at(66));
        assert_eq!(said(&mut told, 66), None, "nothing was read yet");
        told.goes_on();
        assert_eq!((said(&mut told, 66), said(&mut told, 67)), (Some((AlertState::Resolved, None)), None));
    }

    #[test]
    fn it_is_over_also_where_nothing_comes_that_could_be_read() {
        let mut told = Told::default();
        told.note(Some(&lacking("an open transaction's end")), at(0));
        assert!(matches!(said(&mut told, 5), Some((AlertState::Firing, _))));
        for s in [6, 35] {
            told.note(None, at(s));
            assert_eq!(said(&mut told, s), None, "{s}");
        }
        told.note(None, at(36));
        assert_eq!((said(&mut told, 36), said(&mut told, 90)), (Some((AlertState::Resolved, None)), None));
    }

    #[test]
    fn who_takes_a_partition_over_tells_that_it_goes_on() {
        let mut told = Told::of_state(Some("the schema 1".to_owned()));
        told.note(Some(&lacking("the schema 1")), at(0));
        assert_eq!(said(&mut told, 100), None, "it was told");
        told.note(None, at(101));
        told.goes_on();
        assert_eq!(said(&mut told, 101), Some((AlertState::Resolved, None)));
    }
}
