//! The log on Kafka: the same port, on a cluster that many processes share.
//!
//! A session is a member of a consumer group, with one transactional producer for each partition that it owns: a batch is one
//! transaction of its appends, its state puts and its position. The producer of a partition is made when the partition is
//! assigned and before its position is read, which ends whatever transaction its last owner left open, and shuts that one out. State is a compacted
//! topic a stage. What no input caused is appended without a transaction, acknowledged by all in-sync replicas: of several such records some may be
//! there already when the call fails, and stand there twice when it is repeated; what they carry makes that harmless.
//!
//! - [`client`]: every setting of librdkafka that matters, with its reason; [`settings`]: what a user may set above it
//! - [`declaration`]: the one declaration of the topics, `topology/asyncapi.yaml`
//! - [`errors`]: what each error of Kafka means for a caller
//! - [`topics`]: names of the topics; creating them, and how those on a cluster differ from the declaration
//! - [`session`], [`transaction`]: consuming and committing; [`standing`]: how that fares; [`clock`]: the time there
//! - [`owners`]: who has which partition; [`predecessor`]: who was killed and is a member for a while
//! - [`reach`]: clients that have lost the cluster
//! - [`consumption`]: what somebody else's group has read
//! - [`reader`], [`follower`]: reading outside of a group, once and as it grows; [`appender`]: appending outside of one; [`read_only`]: reading alone
//!
//! All calls block, and have deadlines.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::Offset as At;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rustc_hash::FxHashMap;

use super::coordinator::{closed, lock};
use super::{CommitTimes, Follower, Held, Lacking, Log, LogError, Membership, Offset, Owners, Partitions, RawAppend, RawRecord, Session, Told, Topic, Trouble};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;
use appender::{Appender, Outcomes};
use clock::ClusterClock;
use follower::Following;
use reader::Reader;
use session::Member;
use standing::Standing;
use topics::{Difference, Names};

mod apart;
mod appender;
mod client;
mod clock;
mod consumption;
pub mod declaration;
mod errors;
mod follower;
mod owners;
mod predecessor;
mod reach;
mod read_only;
mod reader;
mod session;
mod settings;
mod standing;
pub mod topics;
mod transaction;

pub use client::{LARGEST_MESSAGE, READERS, check_together, reading};
pub use consumption::KafkaConsumption;
pub use read_only::ReadOnlyLog;
pub use settings::{canonical, check_setting, is_secret};

/// What stands around a record for those who are not Loadline: headers, by the full name of the topic and the record. The log knows no messages.
pub type Describe = fn(topic_name: &str, append: &RawAppend) -> Vec<(&'static str, String)>;

/// What must be known to read a record and does not stand in the log, as schemas by the ids of a registry.
pub trait LookUp: Send + Sync {
    /// Sees to what this record needs, within a few seconds. A record of which it cannot be told now whether it can be read is handed to nobody, nor is what comes after it in
    /// its partition: what becomes of a record must not depend on when it was read.
    ///
    /// # Errors
    /// What is lacking now.
    fn look_up(&self, topic: Topic, record: &RawRecord) -> Result<(), Lacking>;
}

/// How to reach a cluster, and what to ask of it.
#[derive(Clone)]
pub struct Options {
    /// Brokers to begin with: `host:port,host:port`.
    pub brokers: String,
    /// What all names of topics, groups and transactions begin with.
    pub prefix: String,
    /// Settings of librdkafka, by its names; those that Loadline's promises rest on cannot be set.
    pub settings: BTreeMap<String, String>,
    /// How many partitions the installation was made with; as declared where nothing is said.
    pub partitions: Option<Partitions>,
    /// How many replicas each partition has; as declared where nothing is said.
    pub replicas: Option<u32>,
    /// A member keeps its partitions over a restart of its process under the same name, and is replaced by a second one of that name. The others wait for
    /// the whole session time-out when it leaves: nothing is handed over in order.
    pub static_members: bool,
    /// After so long without a sign of life a member's partitions go to others.
    pub session_timeout: Duration,
    /// After so long a transaction that was left open is ended by the broker; until then it hides what comes after it.
    pub transaction_timeout: Duration,
    /// How long a call may take before it is given up.
    pub patience: Duration,
    /// The headers of what is appended.
    pub describe: Option<Describe>,
    /// What records of others need besides the log.
    pub look_up: Option<Arc<dyn LookUp>>,
}

impl Options {
    /// What holds where nothing else was said.
    pub fn new(brokers: impl Into<String>) -> Self {
        Options {
            brokers: brokers.into(),
            prefix: declaration::PREFIX.to_owned(),
            settings: BTreeMap::new(),
            partitions: None,
            replicas: None,
            static_members: false,
            session_timeout: Duration::from_secs(6),
            transaction_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            describe: None,
            look_up: None,
        }
    }

    /// Whether a record can be handed out, or refused, for good.
    fn is_known(&self, topic: Topic, record: &RawRecord) -> Result<(), Lacking> {
        self.look_up.as_ref().map_or(Ok(()), |beside| beside.look_up(topic, record))
    }

    /// The headers of a record that goes to the topic of this full name.
    fn headers(&self, name: &str, append: &RawAppend) -> Option<OwnedHeaders> {
        let headers = self.describe?(name, append);
        let headers = headers.iter().map(|(key, value)| Header { key, value: Some(value) });
        let owned = headers.fold(OwnedHeaders::new(), OwnedHeaders::insert);
        (owned.count() > 0).then_some(owned)
    }
}

/// Settings by their names alone: passwords are among the values.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.settings.keys().collect();
        f.debug_struct("Options").field("brokers", &self.brokers).field("prefix", &self.prefix).field("settings", &names).finish_non_exhaustive()
    }
}

/// A handle on the log; its clones are the same one.
#[derive(Clone)]
pub struct KafkaLog(Arc<Shared>);

/// A partition of a group's input.
type Input = (&'static str, Topic, u32);

/// What the handles and sessions of a process share.
struct Shared {
    options: Options,
    names: Names,
    partitions: Partitions,
    differences: Vec<Difference>,
    closed: AtomicBool,
    appender: Appender,
    standing: Arc<Standing>,
    clock: ClusterClock,
    /// Readers that nobody uses now.
    readers: Mutex<Vec<Reader>>,
    /// Readers that failed, until they may be closed.
    failed_readers: Mutex<Vec<(Stopwatch, Reader)>>,
    /// Clients that ask for the positions and members of a group without being members, and where partitions begin and end: they read nothing, so no answer waits for a fetch.
    askers: Mutex<BTreeMap<String, Arc<client::Consumer>>>,
    /// Who sees what no transaction has committed yet.
    onlooker: Mutex<Option<Arc<client::Consumer>>>,
    /// Partitions that members of this process have and that wait: for what, and since when.
    held: Mutex<BTreeMap<Input, (String, Stopwatch)>>,
}

/// How long a session's or a follower's poll waits at a time: so long a waker, or the end of the log, may be waited for.
const SLICE: Duration = Duration::from_millis(200);

/// How long a broker may take to tell how far a group is, and who its members are: it is asked again and again, for people to see.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Far longer than a client takes to stop fetching.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Whoever reads on from where a reader stands does so within this.
const READS_ON: Duration = Duration::from_secs(2);

/// So many readers are kept for the next scan. So many read at once: one takes what came while another waits for the broker.
const IDLE_READERS: usize = 4;

impl KafkaLog {
    /// Connects, and looks at the topics.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where a setting is wrong or topics are missing or would corrupt ([`topics::verified`]), with what to do; [`LogError::Retry`]
    /// where the cluster cannot be reached now.
    pub fn open(options: Options) -> Result<Self, LogError> {
        let names = Names::new(&options.prefix)?;
        let (partitions, differences) = topics::verified(&options)?;
        let reader = Reader::of_many(&options)?;
        let appender = Appender::new(&options)?;
        let standing = Arc::new(Standing::new(&options.brokers));
        let (readers, closed) = (Mutex::new(vec![reader]), AtomicBool::new(false));
        Ok(KafkaLog(Arc::new(Shared {
            options,
            names,
            partitions,
            differences,
            closed,
            appender,
            standing,
            clock: ClusterClock::default(),
            readers,
            failed_readers: Mutex::default(),
            askers: Mutex::default(),
            onlooker: Mutex::default(),
            held: Mutex::default(),
        })))
    }

    /// What the cluster calls itself: the same by whatever address it was reached.
    ///
    /// # Errors
    /// [`LogError::Retry`] where it does not say.
    pub fn cluster_id(&self) -> Result<String, LogError> {
        self.0.ask(READERS, Topic::Signals, |asker| {
            let id = asker.client().fetch_cluster_id(self.0.options.patience);
            id.ok_or_else(|| LogError::Retry { reason: "Kafka: the cluster does not say which one it is".to_owned() })
        })
    }

    /// How the topics differed from what is declared when it was opened, where that is no reason not to run: to be told once, as warnings.
    pub fn differences(&self) -> &[Difference] {
        &self.0.differences
    }
}

impl Shared {
    fn check_open(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::SeqCst) { Err(closed()) } else { Ok(()) }
    }

    /// Who asks about a group.
    fn asker(&self, group: &str) -> Result<Arc<client::Consumer>, LogError> {
        self.check_open()?;
        let mut askers = lock(&self.askers);
        if let Some(asker) = askers.get(group).filter(|asker| !asker.context().may_be_lost()) {
            return Ok(Arc::clone(asker));
        }
        let asker = Arc::new(client::asker(&self.options, &self.names.group(group))?);
        if let Some(before) = askers.insert(group.to_owned(), Arc::clone(&asker)) {
            client::close(before);
        }
        Ok(asker)
    }

    /// Asks about a group and a topic that it reads. Who has no answer is asked besides whether the cluster answers at all.
    fn ask<T>(&self, group: &str, topic: Topic, question: impl FnOnce(&client::Consumer) -> Result<T, LogError>) -> Result<T, LogError> {
        let asker = self.asker(group)?;
        let answer = question(&asker);
        if matches!(answer, Err(LogError::Retry { .. })) {
            client::look_for_leaders(&asker, self.names.of(topic), session::ENDS_WITHIN);
        }
        answer
    }

    /// The partitions that no broker leads now; nothing where the cluster does not tell it. All topics are asked for at once: for each that is named the client makes itself one anew.
    fn unled(&self) -> Option<Vec<String>> {
        let metadata = client::metadata(&*self.asker(READERS).ok()?, None, client::ANSWERS_WITHIN).ok()?;
        let unled = |name: &str| {
            let partitions = metadata.topics().iter().filter(|topic| topic.name() == name).flat_map(MetadataTopic::partitions);
            partitions.filter(|partition| partition.leader() < 0).map(|partition| format!("{name}/{}", partition.id())).collect::<Vec<_>>()
        };
        Some(self.names.all().flat_map(unled).collect())
    }

    /// Who sees what no transaction has committed yet.
    fn onlooker(&self) -> Result<Arc<client::Consumer>, LogError> {
        self.check_open()?;
        let mut onlooker = lock(&self.onlooker);
        if let Some(onlooker) = onlooker.as_ref().filter(|onlooker| !onlooker.context().may_be_lost()) {
            return Ok(Arc::clone(onlooker));
        }
        let made = Arc::new(client::onlooker(&self.options, &self.names.group(READERS), false)?);
        if let Some(before) = onlooker.replace(Arc::clone(&made)) {
            client::close(before);
        }
        Ok(made)
    }

    /// What a partition waits for now, where it does.
    fn hold(&self, place: Input, what: Option<String>) {
        let mut held = lock(&self.held);
        match what {
            Some(what) => drop(held.insert(place, (what, Stopwatch::start()))),
            None => drop(held.remove(&place)),
        }
    }

    /// Lends a reader, one that stands at this place where there is one.
    fn read<T>(&self, place: Option<(&str, u32, Offset)>, act: impl FnOnce(&mut Reader) -> Result<T, LogError>) -> Result<T, LogError> {
        self.check_open()?;
        let idle = {
            let mut readers = lock(&self.readers);
            let standing = place.and_then(|place| readers.iter().position(|reader| reader.stands_at(place)));
            let index = standing.or(readers.len().checked_sub(1));
            index.map(|index| readers.remove(index))
        };
        let mut reader = idle.map_or_else(|| Reader::of_many(&self.options), Ok)?;
        let outcome = match act(&mut reader) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.put_away(reader);
                return Err(error);
            }
        };
        self.give_back(reader);
        Ok(outcome)
    }

    fn give_back(&self, reader: Reader) {
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
    }

    /// Readers that nobody reads on with fetch nothing more.
    fn let_readers_rest(&self) {
        let left = lock(&self.readers).extract_if(.., |reader| reader.is_left(READS_ON)).collect::<Vec<_>>();
        for mut reader in left {
            match reader.rests() {
                Ok(()) => self.give_back(reader),
                Err(_) => self.put_away(reader),
            }
        }
    }

    /// One that failed is not used again, and closed later: a client that is closed while it stops to fetch a partition stops that once more, for which librdkafka
    /// ends the process.
    fn put_away(&self, reader: Reader) {
        let mut failed = lock(&self.failed_readers);
        let over = failed.extract_if(.., |(since, _)| since.elapsed() >= STOPS_WITHIN).collect::<Vec<_>>();
        failed.push((Stopwatch::start(), reader));
        drop(failed);
        drop(over);
    }
}

impl Log for KafkaLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.0.partitions.of(topic)
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
        self.0.check_open()?;
        Ok(Box::new(Member::join(Arc::clone(&self.0), membership)?))
    }

    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        Ok(Box::new(Following::begin(Arc::clone(&self.0), topic, from)?))
    }

    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        self.0.check_open()?;
        self.0.partitions.check_appends(&appends)?;
        self.0.standing.note(Stopwatch::start(), || appended(&appends), || self.0.appender.append(&self.0.options, &self.0.names, &appends))
    }

    fn append_each(&self, calls: Vec<(Vec<RawAppend>, Told)>) {
        for (appends, told) in calls {
            if let Err(error) = self.0.check_open().and_then(|()| self.0.partitions.check_appends(&appends)) {
                told(Err(error));
                continue;
            }
            let (standing, started) = (Arc::clone(&self.0.standing), Stopwatch::start());
            let done = move |outcomes: Outcomes| {
                let place = |(topic, partition): (Topic, u32)| format!("what is appended to {topic}/{partition}");
                standing.note_each(outcomes.by_partition().into_iter().map(|(at, outcome)| (place(at), outcome.err())), started.elapsed());
                told(outcomes.of_all().map(drop));
            };
            self.0.appender.begin(&self.0.options, &self.0.names, &appends, Box::new(done));
        }
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.0.partitions.check(topic, partition)?;
        self.0.read(None, |reader| reader.range(self.0.names.of(topic), partition))
    }

    fn ranges(&self, topic: Topic) -> Result<Vec<Range<Offset>>, LogError> {
        let asker = self.0.asker(READERS)?;
        let partitions: Vec<u32> = (0..self.partitions(topic)).collect();
        let edges = |edge| client::edges(&asker, self.0.names.of(topic), &partitions, edge, session::ENDS_WITHIN);
        let (first, next) = (edges(At::Beginning), edges(At::End));
        let range = |partition: &u32| Some(*first.get(partition)?..*next.get(partition)?);
        let ranges: Option<Vec<_>> = partitions.iter().map(range).collect();
        ranges.ok_or_else(|| LogError::Retry { reason: format!("Kafka: where the partitions of {topic} begin and end is not told now") })
    }

    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.0.partitions.check(topic, partition)?;
        let name = self.0.names.of(topic);
        let records = self.0.read(Some((name, partition, from)), |reader| reader.scan(name, partition, from, max))?;
        records.iter().try_for_each(|record| self.0.options.is_known(topic, record)).map_err(|Lacking { reason, .. }| LogError::Retry { reason })?;
        Ok(records)
    }

    fn first_after(&self, topic: Topic, partition: u32, at: Timestamp) -> Result<Offset, LogError> {
        self.0.partitions.check(topic, partition)?;
        self.0.read(None, |reader| reader.first_after(self.0.names.of(topic), partition, at))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn leaves_gaps(&self) -> bool {
        true
    }

    fn readers(&self) -> usize {
        IDLE_READERS
    }

    fn reached(&self) -> Timestamp {
        self.0.clock.reached().unwrap_or(Timestamp::MIN)
    }

    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        let name = self.0.names.states_of(group)?;
        // Until the topic is compacted each key stands there with every round.
        let mut states: FxHashMap<String, Vec<u8>> = FxHashMap::default();
        self.0.read(None, |reader| {
            reader.each(name, partition, |key, value| {
                let Some(value) = value else { return drop(states.remove(key)) };
                if let Some(held) = states.get_mut(key) {
                    held.clear();
                    held.extend_from_slice(value);
                } else {
                    states.insert(key.to_owned(), value.to_vec());
                }
            })
        })?;
        let mut states: Vec<(String, Vec<u8>)> = states.into_iter().collect();
        states.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(states)
    }

    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        let patience = self.0.options.patience.min(reader::FINDS_WITHIN);
        self.0.ask(group, topic, |asker| client::committed(asker, self.0.names.of(topic), partition, patience))
    }

    fn all_committed(&self, group: &str, topic: Topic) -> Result<Vec<Option<Offset>>, LogError> {
        let partitions: Vec<u32> = (0..self.partitions(topic)).collect();
        self.0.ask(group, topic, |asker| client::all_committed(asker, self.0.names.of(topic), &partitions, SEEN_WITHIN))
    }

    fn owners(&self, group: &str, topic: Topic) -> Result<Option<Owners>, LogError> {
        let asker = self.0.asker(group)?;
        owners::owners(&asker, &self.0.names.group(group), self.0.names.of(topic), SEEN_WITHIN).map(Some)
    }

    fn hidden(&self, topic: Topic) -> Result<BTreeMap<u32, Range<Offset>>, LogError> {
        let readers = self.0.asker(READERS)?;
        let onlooker = self.0.onlooker()?;
        let partitions: Vec<u32> = (0..self.partitions(topic)).collect();
        let ends = |asker: &client::Consumer| client::ends(asker, self.0.names.of(topic), &partitions, session::ENDS_WITHIN);
        // In this order: what is committed in between is not taken for hidden.
        let (all, mut seen) = (ends(&onlooker), ends(&readers));
        let hidden = all.into_iter().filter_map(|(partition, end)| Some((partition, seen.remove(&partition)?..end)));
        Ok(hidden.filter(|(_, hidden)| !hidden.is_empty()).collect())
    }

    fn held(&self) -> Vec<Held> {
        let held = lock(&self.0.held);
        held.iter()
            .map(|((group, topic, partition), (what, since))| Held {
                group,
                topic: *topic,
                partition: *partition,
                what: what.clone(),
                for_time: since.elapsed(),
            })
            .collect()
    }

    fn look(&self) {
        self.0.let_readers_rest();
        self.0.standing.look(|| {
            let asker = self.0.asker(READERS).map_err(|error| error.to_string())?;
            let answer = client::metadata(&asker, Some(self.0.names.of(Topic::Signals)), client::ANSWERS_WITHIN);
            answer.map(drop).map_err(|error| format!("Kafka: the cluster does not answer: {error}"))
        });
        self.0.standing.look_at_leaders(|| self.0.unled());
    }

    fn trouble(&self) -> Option<Trouble> {
        self.0.standing.trouble()
    }

    fn commit_times(&self) -> Option<&CommitTimes> {
        Some(self.0.standing.times())
    }

    fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }
}

/// What an append without an input writes, for a person.
fn appended(appends: &[RawAppend]) -> String {
    let topic = appends.first().map_or("nothing", |append| append.topic.name());
    format!("what is appended to {topic}")
}
