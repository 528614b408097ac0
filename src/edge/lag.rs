//! The lag of consumer groups as a metric: what a group on Kafka has still to read, as samples of targets.
//!
//! The cluster need not be the one of the log, nor need the log be on Kafka. Each source has a thread and its clients to itself, so that one cluster that does
//! not answer holds up no other source. A round asks the cluster, within a deadline, and appends what it found as any producer does: a
//! sample on `metrics`. Where there is no figure there is no sample: after the second round in a row without one an alert says why, and the metric of the targets is
//! told to be unreadable (a `SourceError`), so that nothing shrinks by what was measured before.
//!
//! - [`measure`]: the arithmetic, pure
//! - `told`: which alerts fire

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::measure::{Fold, Lag, Rules, Stuck, Unknown, named};
use self::told::{STUCK, Told, Trouble, UNKNOWN};
use super::events::{LagMeasured, LagUnappended};
use super::stop::Bell;
use crate::log::consumption::Consumption;
use crate::log::{Log, LogError, Topic};
use crate::model::{Alert, InstanceName, Kind, Message, MetricName, Sample, SampleBatch, Signal, SourceError, TargetId, Timestamp};
use crate::runtime::clock::{Clock, Stopwatch};
use crate::runtime::publish;
use crate::runtime::retention::Room;
use crate::stages::Effects;

pub mod measure;
#[cfg(test)]
mod tests;
mod told;

/// The longest that a cluster is asked in a round.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long there is rest at least between two rounds, also where a round took longer than it should.
const REST: Duration = Duration::from_millis(500);

/// After so many rounds in a row without a figure it is told: a broker that is replaced costs one.
const TELL_AFTER: u32 = 2;

/// About what a round's sample takes of the log: names and a value.
const SAMPLE_BYTES: u64 = 200;

/// Alerts that wait for the log; each is a change, so few.
const MOST_OWED: usize = 256;

/// A source of lag.
pub struct Source {
    /// Its name in the configuration, which alerts bear.
    pub name: String,
    /// The targets that the figure is of.
    pub targets: Vec<TargetId>,
    /// The metric that it is.
    pub metric: MetricName,
    /// How often it is measured.
    pub every: Duration,
    /// How.
    pub rules: Rules,
    /// Where.
    pub consumption: Box<dyn Consumption>,
}

/// The threads of all sources. They end with [`LagSources::stop`], or when this is dropped.
pub struct LagSources(Vec<Running>);

struct Running {
    name: String,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl LagSources {
    /// Starts them; `room` is what samples may take of the log.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(sources: Vec<Source>, log: &Arc<dyn Log>, clock: &Arc<dyn Clock>, room: &Arc<Room>) -> std::io::Result<Self> {
        let mut running = LagSources(Vec::new());
        for source in sources {
            let (name, bell) = (source.name.clone(), Arc::new(Bell::default()));
            let mut rounds = Rounds::new(source, Arc::clone(log), Arc::clone(clock), Arc::clone(room));
            let waiting = Arc::clone(&bell);
            let thread = std::thread::Builder::new().name("lag".to_owned()).spawn(move || rounds.run(&waiting))?;
            running.0.push(Running { name, bell, thread: Some(thread) });
        }
        Ok(running)
    }

    /// The name of a source whose thread has ended by itself: the log is closed, or broken.
    pub fn finished(&self) -> Option<&str> {
        self.0.iter().find(|source| source.thread.as_ref().is_none_or(JoinHandle::is_finished)).map(|source| source.name.as_str())
    }

    /// Ends them, each after the question that is under way.
    ///
    /// # Errors
    /// What had ended one before.
    pub fn stop(mut self) -> Result<(), LogError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LogError> {
        self.0.iter().for_each(|source| source.bell.stop());
        let mut ended = Ok(());
        for source in &mut self.0 {
            let joined = source.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
            let joined = joined.unwrap_or_else(|_| Err(LogError::Fatal { reason: format!("the thread of the lag source {} panicked", source.name) }));
            ended = ended.and(joined);
        }
        ended
    }
}

impl Drop for LagSources {
    fn drop(&mut self) {
        // What had ended one was told by whoever stopped it.
        drop(self.end());
    }
}

/// What a round knows of those before it.
struct Rounds {
    source: Source,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    room: Arc<Room>,
    fold: Fold,
    /// `None` until it could be read back.
    told: Option<Told>,
    /// Rounds in a row without a figure.
    failed: u32,
    /// Alerts that are not in the log yet.
    owed: VecDeque<Alert>,
}

impl Rounds {
    fn new(source: Source, log: Arc<dyn Log>, clock: Arc<dyn Clock>, room: Arc<Room>) -> Self {
        Rounds { source, log, clock, room, fold: Fold::default(), told: None, failed: 0, owed: VecDeque::new() }
    }

    fn run(&mut self, bell: &Bell) -> Result<(), LogError> {
        let running = Stopwatch::start();
        loop {
            let round = Stopwatch::start();
            self.round(running.elapsed())?;
            if !bell.pause(self.source.every.saturating_sub(round.elapsed()).max(REST)) {
                return Ok(());
            }
        }
    }

    /// Measures once and appends what came of it. Only a log that is of no use any more is an error.
    fn round(&mut self, moment: Duration) -> Result<(), LogError> {
        let measured = self.measured(moment);
        let now = self.clock.now();
        let mut effects = Effects::new();
        match &measured {
            Ok(lag) => {
                self.failed = 0;
                LagMeasured { source: &self.source.name, lag }.emit();
                let Source { targets, metric, .. } = &self.source;
                let (kind, value) = (Kind::Gauge, lag.value as f64);
                let sample =
                    Sample { targets: targets.clone(), metric: metric.clone(), instance: InstanceName::default(), time: now, kind, value, histogram: None };
                // In a full log it is refused as everybody's samples are; the alert says it.
                if self.room.take(SAMPLE_BYTES) {
                    let key = targets.first().map_or("", TargetId::as_str);
                    effects.to_key(Topic::Metrics, key, Message::Samples(SampleBatch { samples: vec![sample], ..SampleBatch::default() }));
                }
            }
            Err(unknown) => {
                self.failed = self.failed.saturating_add(1);
                if self.failed >= TELL_AFTER {
                    // Each time: a pane that was measured before may come after the first.
                    let error = self.words(unknown);
                    for target in &self.source.targets {
                        let error = SourceError { target: target.clone(), metric: self.source.metric.clone(), error: error.clone() };
                        effects.to_key(Topic::Signals, target.as_str(), Message::Signal(Signal::SourceError(error)));
                    }
                }
            }
        }
        self.append(effects)?;
        self.tell(&measured, now)
    }

    fn measured(&mut self, moment: Duration) -> Result<Lag, Unknown> {
        let Source { consumption, rules, every, .. } = &mut self.source;
        let (within, asking) = (DEADLINE.min((*every).max(Duration::from_secs(1))), Stopwatch::start());
        let looked = consumption.look(within)?;
        let tails = self.fold.tails(rules, &looked);
        let left = within.saturating_sub(asking.elapsed());
        let records = if tails.is_empty() { BTreeMap::new() } else { consumption.records(&tails, left)? };
        self.fold.measure(rules, &looked, &tails, &records, moment)
    }

    fn words(&self, unknown: &Unknown) -> String {
        format!("the lag of group {} is not known: {unknown}", self.source.rules.group)
    }

    /// Appends what changed of the alerts.
    fn tell(&mut self, measured: &Result<Lag, Unknown>, now: Timestamp) -> Result<(), LogError> {
        if self.told.is_none() {
            match Told::read_back(self.log.as_ref(), &self.source.name, &self.source.targets) {
                Ok(mut told) => {
                    self.owed.extend(told.let_go(now));
                    self.told = Some(told);
                }
                Err(LogError::Fatal { reason }) => return Err(LogError::Fatal { reason }),
                // It is read with the next round; until then nothing is told.
                Err(error) => {
                    LagUnappended { source: &self.source.name, error: &error }.emit();
                    return Ok(());
                }
            }
        }
        let group = &self.source.rules.group;
        let (unknown, stuck) = match measured {
            Ok(lag) => (Some(None), Some(stuck(group, lag))),
            Err(unknown) if self.failed >= TELL_AFTER => (Some(Some(Trouble { kind: unknown.kind(), words: self.words(unknown) })), None),
            Err(_) => (None, None),
        };
        let Some(told) = &mut self.told else { return Ok(()) };
        let lag = measured.as_ref().map_or(0, |lag| lag.value);
        if let Some(trouble) = unknown {
            self.owed.extend(told.say(UNKNOWN, trouble.as_ref(), &format!("the lag of group {group} is measured again: {lag}"), now));
        }
        if let Some(trouble) = stuck {
            self.owed.extend(told.say(STUCK, trouble.as_ref(), &format!("group {group} reads on in all its partitions"), now));
        }
        while self.owed.len() > MOST_OWED {
            self.owed.pop_front();
        }
        let mut effects = Effects::new();
        for alert in &self.owed {
            let key = alert.target.as_ref().map_or("", TargetId::as_str);
            effects.to_key(Topic::Alerts, key, Message::Alert(alert.clone()));
        }
        if self.append(effects)? {
            self.owed.clear();
        }
        Ok(())
    }

    /// Says whether it was appended; `Log::trouble` tells where it was not.
    fn append(&self, effects: Effects) -> Result<bool, LogError> {
        if effects.is_empty() {
            return Ok(true);
        }
        match publish(self.log.as_ref(), effects) {
            Ok(()) => Ok(true),
            Err(LogError::Fatal { reason }) => Err(LogError::Fatal { reason }),
            Err(error) => {
                LagUnappended { source: &self.source.name, error: &error }.emit();
                Ok(false)
            }
        }
    }
}

/// The partitions that are not read on, in words.
fn stuck(group: &str, lag: &Lag) -> Option<Trouble> {
    let first = lag.stuck.first_key_value()?;
    let alone = lag.stuck.values().all(|stuck| stuck.is_alone);
    let words = |(place, Stuck { at, since, .. }): (&_, &Stuck)| {
        format!("{place} (at {at} for {} s, {} to read)", since.as_secs(), lag.partitions.get(place).copied().unwrap_or(0))
    };
    let names = named(&lag.stuck.iter().map(words).collect::<Vec<_>>());
    let kinds: Vec<String> = lag.stuck.iter().map(|(place, stuck)| format!("{place} {}", stuck.is_alone)).collect();
    let words = if alone {
        let (place, Stuck { at, .. }) = first;
        format!(
            "group {group} does not read on in {names}, and does in others: each of these counts as 1, since more replicas cannot help; look at what its member does with the record at {at} \
             of {place}, and mend the member, or skip the record (kafka-consumer-groups.sh --reset-offsets)"
        )
    } else {
        format!(
            "group {group} does not read on in {names}, nor in its other partitions: all of it counts; look whether its members run, and what they wait for"
        )
    };
    Some(Trouble { kind: kinds.join(", "), words })
}
