//! What goes over when an installation moves to another log: what each stage remembers, as the first of its input there.
//!
//! Offsets and times of append belong to a log and stay with it; what is remembered has times of its own. So nothing is copied record by record: the
//! snapshots of each stage, and what its input since then does to them, go over as messages of that input, and the stage goes on from them by its own
//! fold. What the last records call for goes along. All of it is one commit of a group of its own, whose position says that it was done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Batch, Log, LogError, MAX_RECORD_BYTES, Membership, Offset, Polled, RawAppend, Session, Topic, partition_of};
use crate::model::{CarriedState, ControlEntry, Message, NameError, Signal, Timestamp};
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::Aggregate;
use crate::stages::arbitrate::{self, Arbitrate};
use crate::stages::decide::Decide;
use crate::wire;

use super::clock::Stopwatch;
use super::runner::{Rounds, Runner};
use super::snapshots;

/// The group of migrations. It reads nothing; where it has a position, one was done.
pub const GROUP: &str = "migrate";
/// Whose partition [`GROUP`] commits for: there is one, so that one migration at a time is under way.
const TOPIC: Topic = Topic::Control;

/// How many records are read at once.
const SLICE: usize = 10_000;
/// How long a poll waits for the group to give its partition.
const POLL: Duration = Duration::from_millis(200);

/// What an installation remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remembered {
    /// What goes over, in order: what is remembered, then what the last records call for. The partitions are those of the log that it comes from.
    pub appends: Vec<RawAppend>,
    /// How many targets decide remembers.
    pub targets: usize,
    /// How many policies admit knows of, also of targets that have none any more.
    pub policies: usize,
    /// How many fleets the arbiter has claims or removals of.
    pub fleets: usize,
    /// How many records of `metrics` no pane holds yet: they stay behind.
    pub samples_left: u64,
}

/// Why nothing was migrated.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// This very migration was done before.
    #[error("it was done before")]
    Done,
    /// Something runs on the log, or ran.
    #[error("{what}: an installation is migrated into a new one, before anything has run there")]
    InUse {
        /// What there is.
        what: String,
    },
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads what is remembered in a log that nothing runs on; the stages fold what they had not read as they would have there. `arbitrate` is that of the
/// installation, `migration` what this one is called.
///
/// # Errors
/// As the log's reads; [`LogError::Fatal`] where a snapshot cannot be used, or takes more than a record may.
pub fn remembered(log: &Arc<dyn Log>, arbitrate: &Arbitrate, now: Timestamp, migration: &str) -> Result<Remembered, LogError> {
    let carried =
        |key: &str, version: u32, state: String| CarriedState { key: key.to_owned(), migration: migration.to_owned(), version: i64::from(version), state };
    let admit = of_stage(&Admit, log, now, |key, state| {
        let carried = carried(key, Admit::VERSION, state);
        Ok(vec![(key.to_owned(), Message::Control(ControlEntry::Carried(carried)))])
    })?;
    let decide = of_stage(&Decide::default(), log, now, |key, state| {
        let CarriedState { migration, version, state, .. } = carried(key, Decide::VERSION, state);
        let target = key.parse().map_err(|error: NameError| error.to_string())?;
        Ok(vec![(key.to_owned(), Message::Signal(Signal::Carried(CarriedState { key: target, migration, version, state })))])
    })?;
    let fleets = of_stage(arbitrate, log, now, |key, state| {
        let fleet = key.split_once(':').map_or(key, |(_, name)| name);
        let part = |part| (fleet.to_owned(), Message::RequestsCarried(carried(key, Arbitrate::VERSION, part)));
        Ok(arbitrate::parts(key, &state)?.into_iter().map(part).collect())
    })?;
    let mut samples_left = 0;
    for partition in 0..log.partitions(Aggregate::INPUT) {
        let range = log.range(Aggregate::INPUT, partition)?;
        let read = log.committed(Aggregate::NAME, Aggregate::INPUT, partition)?.unwrap_or(range.start);
        samples_left += range.end.saturating_sub(read.max(range.start));
    }
    let is_policy = |append: &&RawAppend| append.key.as_deref().is_some_and(|key| key.starts_with("target:"));
    Ok(Remembered {
        targets: decide.keys,
        policies: admit.carried.iter().filter(is_policy).count(),
        fleets: fleets.keys,
        samples_left,
        appends: [admit.carried, decide.carried, fleets.carried, admit.called_for, decide.called_for, fleets.called_for].concat(),
    })
}

/// What one stage remembers, and what the records call for that it had not read.
#[derive(Default)]
struct OfStage {
    keys: usize,
    carried: Vec<RawAppend>,
    called_for: Vec<RawAppend>,
}

/// `messages` makes records of a key and its snapshot: the key of each, and what it says.
fn of_stage<S: Stage + Clone>(
    stage: &S,
    log: &Arc<dyn Log>,
    now: Timestamp,
    messages: impl Fn(&str, String) -> Result<Vec<(String, Message)>, String>,
) -> Result<OfStage, LogError> {
    let mut of = OfStage::default();
    for partition in 0..log.partitions(S::INPUT) {
        let position = match log.committed(S::NAME, S::INPUT, partition)? {
            Some(position) => position,
            None => log.range(S::INPUT, partition)?.start,
        };
        let mut runner = Runner::with_rounds(stage.clone(), Arc::clone(log), Rounds { bytes: usize::MAX, ..Rounds::default() });
        read_to_end(&mut runner, &**log, partition, position, now)?;
        let mut rows: BTreeMap<String, Vec<u8>> = log.states(S::NAME, partition)?.into_iter().collect();
        let mut keep = |Batch { appends, states, .. }: Batch| {
            // To its own input a stage appends ticks alone.
            of.called_for.extend(appends.into_iter().filter(|append| append.topic != S::INPUT));
            for put in states {
                match put.value {
                    Some(value) => drop(rows.insert(put.key, value)),
                    None => drop(rows.remove(&put.key)),
                }
            }
        };
        // None of these batches is committed anywhere; the last round of snapshots stands for the end of the input.
        each_batch(&mut runner, partition, now, &mut keep);
        runner.hand_over(now);
        each_batch(&mut runner, partition, now, &mut keep);
        let rows: Vec<(String, Vec<u8>)> = rows.into_iter().collect();
        let whole = snapshots::whole(&rows).map_err(|reason| LogError::Fatal { reason })?;
        for (key, bytes) in whole.into_iter().filter(|(key, _)| !snapshots::is_own(key)) {
            let unusable = |reason: String| LogError::Fatal { reason: format!("what {} remembers of {key} cannot go over: {reason}", S::NAME) };
            let state = String::from_utf8(bytes.into_owned()).map_err(|_| unusable("it is no text".to_owned()))?;
            of.keys += 1;
            for (key, message) in messages(key, state).map_err(unusable)? {
                let append = RawAppend { topic: S::INPUT, partition, key: Some(key), value: wire::encode(&message) };
                let bytes = append.value.len() + append.key.as_ref().map_or(0, String::len);
                if bytes > MAX_RECORD_BYTES {
                    return Err(unusable(format!(
                        "it takes {bytes} bytes, and a record may have {MAX_RECORD_BYTES}; of a target: take its policy away (its replicas stay), end `run` in order once more, and put it back afterwards; of a \
                         source: mend the files that it refuses first"
                    )));
                }
                of.carried.push(append);
            }
        }
    }
    Ok(of)
}

/// Restores a partition, and folds what comes after its position.
fn read_to_end<S: Stage>(runner: &mut Runner<S>, log: &dyn Log, partition: u32, position: Offset, now: Timestamp) -> Result<(), LogError> {
    let (mut polled, mut next) = (VecDeque::from([Polled::Assigned { partition, position }]), position);
    loop {
        runner.take(&mut polled, now, &BTreeMap::new()).map_err(|not_taken| not_taken.error)?;
        let records = log.scan(S::INPUT, partition, next, SLICE)?;
        let Some(last) = records.last() else { return Ok(()) };
        next = last.offset + 1;
        polled.push_back(Polled::Records { partition, records });
    }
}

fn each_batch<S: Stage>(runner: &mut Runner<S>, partition: u32, now: Timestamp, keep: &mut impl FnMut(Batch)) {
    while let Some(batch) = runner.next_batch(now) {
        runner.confirmed(partition);
        keep(Arc::unwrap_or_clone(batch));
    }
}

/// Appends what is remembered to a log on which nothing has run, all of it or nothing. `begins` is called when nothing stands in its way any more.
///
/// # Errors
/// [`Refused`]; after [`LogError::Unknown`] it is not known whether it was done: another call says it.
pub fn migrate(
    to: &dyn Log,
    remembered: &Remembered,
    migration: &str,
    patience: Duration,
    begins: impl FnOnce() -> Result<(), LogError>,
) -> Result<(), Refused> {
    let membership = Membership { group: GROUP, member: GROUP.to_owned(), topic: TOPIC };
    let mut session = to.join(membership)?;
    // One at a time: another one that is under way keeps the partition until it is done.
    let (partition, position) = assigned(&mut *session, patience)?;
    check(to, migration)?;
    begins()?;
    let appends = remembered.appends.iter().map(|append| {
        let partitions = to.partitions(append.topic);
        let partition = append.key.as_deref().map_or(append.partition % partitions, |key| partition_of(key, partitions));
        RawAppend { partition, ..append.clone() }
    });
    let batch = Batch { partition, position: Some(position), appends: appends.collect(), states: Vec::new() };
    session.commit(&batch).map_err(|error| match error {
        // Another member may have taken over while it was not known whether this took effect.
        LogError::Fenced { .. } => LogError::Unknown { reason: error.to_string() }.into(),
        error => error.into(),
    })
}

/// Waits until the group gives its partition.
fn assigned(session: &mut dyn Session, patience: Duration) -> Result<(u32, Offset), LogError> {
    let waited = Stopwatch::start();
    while waited.elapsed() < patience {
        for polled in session.poll(0, POLL)? {
            if let Polled::Assigned { partition, position } = polled {
                return Ok((partition, position));
            }
        }
    }
    Err(LogError::Retry { reason: format!("the group {GROUP} gave no partition within {} s: is another migration under way?", patience.as_secs()) })
}

/// That nothing runs on a log, and nothing did.
///
/// # Errors
/// [`Refused`].
pub fn check(log: &dyn Log, migration: &str) -> Result<(), Refused> {
    // What went over stands before everything else.
    for topic in [Admit::INPUT, Decide::INPUT, Arbitrate::INPUT] {
        for partition in 0..log.partitions(topic) {
            if log.scan(topic, partition, 0, 1)?.first().is_some_and(|record| brought_by(topic, &record.value).as_deref() == Some(migration)) {
                return Err(Refused::Done);
            }
        }
    }
    if log.committed(GROUP, TOPIC, 0)?.is_some() {
        return Err(Refused::InUse { what: "another installation was migrated into it before".to_owned() });
    }
    let stages = [(Admit::NAME, Admit::INPUT), (Aggregate::NAME, Aggregate::INPUT), (Decide::NAME, Decide::INPUT), (Arbitrate::NAME, Arbitrate::INPUT)];
    for (group, input) in stages {
        for partition in 0..log.partitions(input) {
            if let Some(position) = log.committed(group, input, partition)? {
                return Err(Refused::InUse { what: format!("{group} has read {input} up to {position} of partition {partition}") });
            }
            // Samples may come before anything runs.
            if input != Aggregate::INPUT
                && let Some(record) = log.scan(input, partition, 0, 1)?.first()
            {
                return Err(Refused::InUse { what: format!("{input} has records (offset {} of partition {partition}, of {})", record.offset, record.at) });
            }
        }
    }
    Ok(())
}

/// Which migration brought a record.
fn brought_by(topic: Topic, bytes: &[u8]) -> Option<String> {
    match wire::decode(topic, bytes).ok()? {
        Message::Control(ControlEntry::Carried(carried)) | Message::RequestsCarried(carried) => Some(carried.migration),
        Message::Signal(Signal::Carried(carried)) => Some(carried.migration),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Partitions;
    use crate::log::memory::MemoryLog;
    use crate::model::{Audit, FleetObservation, PolicyEntry, Request, RoundEnd, TargetId};
    use crate::runtime::clock::{Clock, ManualClock};
    use crate::runtime::publish;
    use crate::runtime::worker::{Committed, Read, Worker};
    use crate::stages::Effects;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    struct World {
        clock: Arc<ManualClock>,
        log: Arc<dyn Log>,
    }

    impl World {
        fn new(partitions: u32) -> World {
            let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
            let partitions = Partitions::default().with(Topic::Signals, partitions).with(Topic::Audit, partitions);
            let log = Arc::new(MemoryLog::new(partitions, Arc::clone(&clock) as Arc<dyn Clock>));
            World { clock, log }
        }

        fn say(&self, topic: Topic, key: &str, message: Message) {
            let mut effects = Effects::new();
            effects.to_key(topic, key, message);
            publish(&*self.log, effects).unwrap();
        }

        /// A complete round of policies, each of so many at least.
        fn round(&self, round: i64, min: u32) {
            let source = || "files".to_owned();
            for name in NAMES {
                let spec = format!(
                    r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"{name}"}},"replicas":{{"min":{min},"max":9}},"metrics":[{{"name":"q","track":{{"perReplica":10}}}}]}}"#
                );
                let entry = PolicyEntry { source: source(), round, origin: format!("{name}.yaml"), target: target(name), spec };
                self.say(Topic::Control, "files", Message::Control(ControlEntry::Policy(entry)));
            }
            self.say(Topic::Control, "files", Message::Control(ControlEntry::RoundEnd(RoundEnd { source: source(), round })));
        }

        /// Each target was seen with so many replicas.
        fn seen(&self, sequence: i64, desired: u32) {
            for name in NAMES {
                let seen = FleetObservation {
                    target: target(name),
                    uid: "u".to_owned(),
                    term: 1,
                    sequence,
                    revision: None,
                    desired,
                    status_replicas: desired,
                    updating: false,
                    instances: Vec::new(),
                };
                self.say(Topic::Signals, target(name).as_str(), Message::Signal(Signal::Fleet(seen)));
            }
        }

        /// One stage reads all that is there, and commits it.
        fn run<S: Stage>(&self, stage: S) {
            let mut worker = Worker::join(stage, Arc::clone(&self.log), "a", Rounds::default()).unwrap();
            while worker.read(self.clock.now(), 100, Duration::ZERO).unwrap() != Read::Nothing {
                while worker.commit(self.clock.now()).unwrap() != Committed::Nothing {}
            }
        }

        fn runs(&self) {
            self.run(Admit);
            self.run(Decide::default());
            self.run(Arbitrate::default());
        }

        fn remembered(&self) -> Remembered {
            remembered(&self.log, &Arbitrate::default(), self.clock.now(), "this one").unwrap()
        }

        /// What has been decided about each target: how many of it, by which policy.
        fn decided(&self) -> Vec<(String, u32, String)> {
            let mut decided = Vec::new();
            for partition in 0..self.log.partitions(Topic::Audit) {
                for record in self.log.scan(Topic::Audit, partition, 0, 1_000).unwrap() {
                    if let Ok(Message::Audit(Audit::Decision(decision))) = wire::decode(Topic::Audit, &record.value) {
                        decided.push((decision.target.name().to_owned(), decision.desired, decision.policy_version));
                    }
                }
            }
            decided.sort();
            decided
        }
    }

    fn target(name: &str) -> TargetId {
        format!("prod/Deployment/{name}").parse().unwrap()
    }

    fn goes(from: &World, to: &World) -> Result<(), Refused> {
        migrate(&*to.log, &from.remembered(), "this one", Duration::from_secs(10), || Ok(()))
    }

    /// Whatever stage had read how much of its input: what is remembered goes on as if all had been read there, spread over other partitions.
    #[test]
    fn what_was_not_read_yet_is_not_lost() {
        let decided = |stop: usize| {
            let (from, to) = (World::new(1), World::new(3));
            from.round(1, 1);
            from.runs();
            from.seen(1, 2);
            from.round(2, 4);
            if stop > 0 {
                from.run(Admit);
            }
            if stop > 1 {
                from.run(Decide::default());
            }
            if stop > 2 {
                from.run(Arbitrate::default());
            }
            let before = from.decided();
            goes(&from, &to).unwrap();
            to.clock.advance(Duration::from_secs(1));
            to.runs();
            to.runs();
            let commands = to.log.scan(Topic::Commands, 0, 0, 100).unwrap().len() + from.log.scan(Topic::Commands, 0, 0, 100).unwrap().len();
            let all: std::collections::BTreeSet<_> = before.into_iter().chain(to.decided()).collect();
            (all, commands, to.remembered().policies)
        };
        let undisturbed = decided(3);
        assert_eq!((undisturbed.1, undisturbed.2), (NAMES.len(), NAMES.len()), "each is to grow: {undisturbed:?}");
        assert!(undisturbed.0.iter().any(|(name, desired, version)| name == "a" && *desired == 4 && version == "files/a.yaml@2"), "{undisturbed:?}");
        for stop in 0..3 {
            assert_eq!(decided(stop), undisturbed, "as far as {stop}");
        }
    }

    #[test]
    fn nothing_goes_where_something_was() {
        let (from, to) = (World::new(1), World::new(3));
        from.round(1, 1);
        from.runs();
        goes(&from, &to).unwrap();
        assert!(matches!(goes(&from, &to), Err(Refused::Done)));
        let another = migrate(&*to.log, &from.remembered(), "another", Duration::from_secs(10), || Ok(())).unwrap_err().to_string();
        assert!(another.starts_with("another installation was migrated into it before: "), "{another}");
        let said = |to: &World| goes(&from, to).unwrap_err().to_string();
        let used = World::new(3);
        used.seen(1, 2);
        used.run(Decide::default());
        assert!(said(&used).starts_with("decide has read signals up to "), "{}", said(&used));
        let heard = World::new(3);
        heard.round(1, 1);
        assert!(said(&heard).starts_with("control has records (offset 0 of partition 0, of "), "{}", said(&heard));
        assert_eq!(heard.log.range(Topic::Requests, 0).unwrap(), 0..0, "nothing of it went there");
    }

    /// Whose partition another one took in the midst of it does not know whether it was done, and the next call says it.
    #[test]
    fn who_is_shut_out_in_the_midst_of_it_does_not_know() {
        let (from, to) = (World::new(1), World::new(3));
        from.round(1, 1);
        from.runs();
        let mut other = None;
        let takes_over = || {
            let mut session = to.log.join(Membership { group: GROUP, member: GROUP.to_owned(), topic: TOPIC })?;
            assigned(&mut *session, Duration::from_secs(10))?;
            other = Some(session);
            Ok(())
        };
        let refused = migrate(&*to.log, &from.remembered(), "this one", Duration::from_secs(10), takes_over).unwrap_err();
        assert!(matches!(&refused, Refused::Log(LogError::Unknown { reason }) if reason.contains("another member took over")), "{refused:?}");
        drop(other);
        goes(&from, &to).unwrap();
    }

    /// A fleet of many targets goes over in several records, and nothing of it is lost: no claim, and no removal of the last minute.
    #[test]
    fn a_large_fleet_goes_over_in_parts() {
        const TARGETS: i64 = 4_000;
        let (from, to) = (World::new(1), World::new(3));
        for number in 0..TARGETS {
            let now = from.clock.now();
            let claim = Request {
                target: target(&format!("t{number}")),
                fleet: "f".parse().unwrap(),
                epoch: now.as_millis(),
                uid: "u".to_owned(),
                current: 10,
                desired: if number < 3 { 9 } else { 10 },
                min: 1,
                priority: 0,
                paced: true,
                open: None,
                heard_of: 0,
                expires_at: now + Duration::from_secs(600),
                withdrawn: false,
            };
            from.say(Topic::Requests, "f", Message::Request(claim));
        }
        from.run(Arbitrate::default());
        let remembered = from.remembered();
        assert_eq!((remembered.fleets, remembered.appends.len()), (1, 8));
        goes(&from, &to).unwrap();
        to.run(Arbitrate::default());
        let saved = |world: &World| {
            let appends = world.remembered().appends.into_iter().map(|append| wire::decode(append.topic, &append.value).unwrap());
            let parts = appends.map(|message| if let Message::RequestsCarried(carried) = message { carried.state } else { panic!("{message:?}") });
            parts.collect::<Vec<_>>()
        };
        assert_eq!(saved(&to), saved(&from));
        assert!(saved(&to)[0].contains("\"removals\":[["), "{}", &saved(&to)[0][..200]);
        assert!(to.log.scan(Topic::Alerts, 0, 0, 10).unwrap().is_empty());
    }

    #[test]
    fn it_goes_as_messages_that_this_release_reads() {
        let from = World::new(1);
        from.round(1, 1);
        from.seen(1, 2);
        from.runs();
        let remembered = from.remembered();
        assert_eq!((remembered.targets, remembered.policies, remembered.samples_left), (4, 4, 0));
        for append in &remembered.appends {
            assert!(wire::decode(append.topic, &append.value).is_ok(), "{append:?}");
        }
    }
}
