//! A stage over the memory log, driven by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Membership, Moment, Partitions, RawRecord, Session, Topic};
use loadline::model::{Alert, Audit, DeadLetter, Message, TargetId, Timestamp};
use loadline::runtime::clock::{Clock, ManualClock};
use loadline::runtime::publish;
use loadline::runtime::runner::Runner;
use loadline::stages::{Effects, Stage};
use loadline::wire;

pub(crate) const START: i64 = 1_800_000_000_000;

pub(crate) fn target(name: &str) -> TargetId {
    format!("prod/Deployment/{name}").parse().unwrap()
}

/// A stage over a log, which can end and start again.
pub(crate) struct World<S: Stage + Clone> {
    pub(crate) stage: S,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) log: MemoryLog,
    pub(crate) life: Option<(Box<dyn Session>, Runner<S>)>,
    pub(crate) said: i64,
}

impl<S: Stage + Clone> World<S> {
    pub(crate) fn new(stage: S) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(START)));
        let log = MemoryLog::new(Partitions::default(), clock.clone());
        World { stage, clock, log, life: None, said: 0 }
    }

    pub(crate) fn say(&mut self, topic: Topic, key: &str, message: Message) {
        let mut effects = Effects::new();
        effects.to_key(topic, key, message);
        publish(&self.log, effects).unwrap();
    }

    /// Reads and commits until nothing is left.
    pub(crate) fn run(&mut self) {
        let now = self.clock.now();
        let (session, runner) = self.life.get_or_insert_with(|| {
            let session = self.log.join(Membership { group: S::NAME, member: "one".to_owned(), topic: S::INPUT }).unwrap();
            (session, Runner::new(self.stage.clone(), Arc::new(self.log.clone())))
        });
        for _ in 0..4 {
            let polled = session.poll(10_000, Duration::ZERO).unwrap();
            let through = session.read_through(Moment { at: now, log: now }, &|_| true).unwrap();
            runner.take(&mut VecDeque::from(polled), now, &through).unwrap();
            while let Some(batch) = runner.next_batch(now) {
                session.commit(&batch).unwrap();
                runner.confirmed(batch.partition);
            }
        }
    }

    /// Ends in order, with a snapshot of everything.
    pub(crate) fn hand_over(&mut self) {
        let now = self.clock.now();
        let Some((mut session, mut runner)) = self.life.take() else { return };
        runner.hand_over(now);
        while let Some(batch) = runner.next_batch(now) {
            session.commit(&batch).unwrap();
            runner.confirmed(batch.partition);
        }
    }

    pub(crate) fn records(&self, topic: Topic) -> Vec<(RawRecord, Message)> {
        let of = |partition| self.log.scan(topic, partition, 0, 1_000_000).unwrap();
        let raw = (0..self.log.partitions(topic)).flat_map(of);
        raw.map(|record| (record.clone(), wire::decode(topic, &record.value).unwrap())).collect()
    }

    /// The bytes that were said of other targets than `bad`.
    pub(crate) fn of_others(&self) -> Vec<(Topic, Vec<u8>)> {
        let topics = [Topic::Audit, Topic::Alerts, Topic::Requests];
        let all = topics.into_iter().flat_map(|topic| self.records(topic).into_iter().map(move |(raw, message)| (topic, raw.value, message)));
        all.filter(|(_, _, message)| target_of(message).is_some_and(|id| id.name() != "bad")).map(|(topic, bytes, _)| (topic, bytes)).collect()
    }

    pub(crate) fn alerts(&self) -> Vec<Alert> {
        self.records(Topic::Alerts).into_iter().filter_map(|(_, m)| if let Message::Alert(alert) = m { Some(alert) } else { None }).collect()
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.records(Topic::DeadLetters).into_iter().filter_map(|(_, m)| if let Message::DeadLetter(letter) = m { Some(letter) } else { None }).collect()
    }
}

pub(crate) fn target_of(message: &Message) -> Option<TargetId> {
    match message {
        Message::Audit(Audit::Decision(decision)) => Some(decision.target.clone()),
        Message::Alert(alert) => alert.target.clone(),
        Message::Request(request) => Some(request.target.clone()),
        _ => None,
    }
}
