//! What somebody else's group has read, on a cluster that need not be the one of the log.
//!
//! Two clients: one sees all records, for the positions of the group (which a transaction under way would hide for as long as it lasts, where only stable
//! ones were asked for), the earliest offsets and the ends; one sees what is committed, for the last stable offsets, and to count the records of a tail. Both bear the
//! group's name and never join it: partitions are assigned by hand, and nothing is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset as At, TopicPartitionList};

use super::{Options, client};
use crate::log::consumption::{Consumption, Looked, Place, Standing, Tail, Unseen};
use crate::log::{LogError, Offset};
use crate::runtime::clock::Stopwatch;

/// How long a poll waits at a time.
const SLICE: Duration = Duration::from_millis(100);

/// So many bytes of tails are read of a topic at a time: records may be large, and their number is all that is wanted.
const MOST_BYTES: usize = 8 << 20;

/// A group on a cluster.
pub struct KafkaConsumption {
    options: Options,
    group: String,
    topics: Vec<String>,
    all: client::Consumer,
    committed: client::Consumer,
    /// When there was an answer last, or these clients were made.
    answered: Stopwatch,
    /// Those before, which had no answer. They are kept until the next ones had none either, as a client that is closed while it stops to fetch may end the process.
    before: Option<[client::Consumer; 2]>,
}

/// What a call has left of its time.
struct Deadline(Stopwatch, Duration);

impl Deadline {
    fn left(&self) -> Duration {
        self.1.saturating_sub(self.0.elapsed())
    }
}

impl KafkaConsumption {
    /// Makes the clients; no broker is asked yet.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where a setting is wrong.
    pub fn new(options: &Options, group: &str, topics: &[String]) -> Result<Self, LogError> {
        let [all, committed] = clients(options, group)?;
        Ok(KafkaConsumption {
            options: options.clone(),
            group: group.to_owned(),
            topics: topics.to_vec(),
            all,
            committed,
            answered: Stopwatch::start(),
            before: None,
        })
    }

    /// Other clients in place of those that had no answer: they may have lost the cluster ([`super::reach`]).
    fn renew(&mut self) {
        if let Ok([all, committed]) = clients(&self.options, &self.group) {
            let before = [std::mem::replace(&mut self.all, all), std::mem::replace(&mut self.committed, committed)];
            if let Some(before) = self.before.replace(before) {
                client::close(before);
            }
            self.answered = Stopwatch::start();
        }
    }

    /// Why a question has no answer.
    fn unseen(&self, what: &str, error: &KafkaError) -> Unseen {
        let brokers = &self.options.brokers;
        let of = |reason: String| format!("{what}: {brokers} {reason}");
        let group = &self.group;
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => {
                Unseen::Refused(of(format!("does not show this user its topics ({error}); grant it Describe and Read on the topics of group {group}")))
            }
            Some(Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
                Unseen::Refused(of(format!("does not show this user its groups ({error}); grant it Describe on group {group}")))
            }
            Some(Code::SaslAuthenticationFailed | Code::Authentication | Code::SSL) => {
                Unseen::Refused(of(format!("refuses this client ({error}); see the user, password and certificates in its settings")))
            }
            Some(Code::OperationTimedOut | Code::RequestTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve) => Unseen::Unanswered(
                of(format!("does not answer ({error}); check that the brokers run and that this machine reaches them at the addresses that they advertise")),
            ),
            _ => Unseen::Unanswered(of(format!("answers with an error ({error}); it is asked again"))),
        }
    }

    /// The partitions of a topic; `None` where it is not there.
    fn partitions(&self, topic: &str, deadline: &Deadline) -> Result<Option<Vec<u32>>, Unseen> {
        let what = format!("the partitions of {topic} are not known");
        let metadata = self.all.fetch_metadata(Some(topic), deadline.left()).map_err(|error| self.unseen(&what, &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Some(code) => Err(self.unseen(&what, &KafkaError::MetadataFetch(code))),
            // Where it is about to be made.
            None if found.partitions().is_empty() => Ok(None),
            None => Ok(Some(numbers(found))),
        }
    }

    /// The offset of each partition at one of its ends, as this client sees it.
    fn ends(&self, client: &client::Consumer, places: &[Place], end: At, deadline: &Deadline) -> Result<BTreeMap<Place, Offset>, Unseen> {
        let what = "where partitions begin and end is not known";
        let answer = client.offsets_for_times(list(places.iter().map(|place| (place, end))), deadline.left()).map_err(|error| self.unseen(what, &error))?;
        let offsets = offsets(&answer).map_err(|error| self.unseen(what, &error))?;
        if places.iter().any(|place| !offsets.contains_key(place)) {
            return Err(self.unseen(what, &KafkaError::MetadataFetch(Code::UnknownPartition)));
        }
        Ok(offsets)
    }

    /// How many committed records these parts of one topic hold, as far as it could be read.
    fn count(&self, tails: &[&Tail], deadline: &Deadline) -> Result<BTreeMap<Place, u64>, Unseen> {
        let places = list(tails.iter().map(|tail| (&tail.place, client::at(tail.from))));
        let what = "what is left cannot be read";
        self.committed.assign(&places).map_err(|error| self.unseen(what, &error))?;
        let mut open: BTreeMap<u32, (&Tail, u64)> = tails.iter().map(|tail| (tail.place.partition, (*tail, 0))).collect();
        let (mut counted, mut bytes) = (BTreeMap::new(), 0);
        let outcome = loop {
            let left = deadline.left();
            if open.is_empty() || left.is_zero() || bytes > MOST_BYTES {
                break Ok(counted);
            }
            let partition = match self.committed.poll(client::whole_millis(left.min(SLICE))) {
                None => continue,
                Some(Ok(record)) => {
                    let partition = client::partition(record.partition());
                    let Some((tail, count)) = open.get_mut(&partition) else { continue };
                    bytes += record.payload_len() + record.key_len();
                    let offset = client::offset(record.offset());
                    *count += u64::from(offset < tail.to);
                    if offset + 1 < tail.to {
                        continue;
                    }
                    partition
                }
                // To the end of what is committed, which is not before the tail's.
                Some(Err(KafkaError::PartitionEOF(partition))) => client::partition(partition),
                Some(Err(error)) => match self.unseen(what, &error) {
                    refused @ Unseen::Refused(_) => break Err(refused),
                    // Counted by offsets this time.
                    Unseen::Unanswered(_) => break Ok(counted),
                },
            };
            if let Some((tail, count)) = open.remove(&partition) {
                counted.insert(tail.place.clone(), count);
            }
        };
        // Nothing more is fetched.
        self.committed.unassign().map_err(|error| self.unseen(what, &error))?;
        outcome
    }

    /// What the clients have to say reaches the log when they are polled; neither has records to give now.
    fn listen(&self) {
        for client in [&self.all, &self.committed] {
            while client.poll(Duration::ZERO).is_some() {}
        }
    }
}

impl Consumption for KafkaConsumption {
    fn look(&mut self, within: Duration) -> Result<Looked, Unseen> {
        self.listen();
        let looked = self.look_by(&Deadline(Stopwatch::start(), within));
        match &looked {
            Ok(_) => self.answered = Stopwatch::start(),
            Err(Unseen::Unanswered(_)) if self.answered.elapsed() >= client::CONNECTS_WITHIN => self.renew(),
            Err(_) => {}
        }
        looked
    }

    fn records(&mut self, tails: &[Tail], within: Duration) -> Result<BTreeMap<Place, u64>, Unseen> {
        let deadline = Deadline(Stopwatch::start(), within);
        let mut counted = BTreeMap::new();
        // Topic by topic, since the end of a partition is told by its number alone.
        for topic in &self.topics {
            let tails: Vec<&Tail> = tails.iter().filter(|tail| tail.place.topic == *topic).collect();
            if !tails.is_empty() {
                counted.extend(self.count(&tails, &deadline)?);
            }
        }
        Ok(counted)
    }
}

impl KafkaConsumption {
    fn look_by(&self, deadline: &Deadline) -> Result<Looked, Unseen> {
        let mut looked = Looked::default();
        let mut places = Vec::new();
        for topic in &self.topics {
            let partitions = self.partitions(topic, deadline)?;
            places.extend(partitions.iter().flatten().map(|partition| Place { topic: topic.clone(), partition: *partition }));
            looked.topics.insert(topic.clone(), partitions.map(|_| BTreeMap::new()));
        }
        if places.is_empty() {
            return Ok(looked);
        }
        // In this order: what the group commits meanwhile makes the lag too large at most, and no position looks as if it were outside of its partition.
        let low = self.ends(&self.all, &places, At::Beginning, deadline)?;
        let what = "what the group has committed is not known";
        let answer = self.all.committed_offsets(list(places.iter().map(|place| (place, At::Invalid))), deadline.left());
        let committed = answer.and_then(|answer| offsets(&answer)).map_err(|error| self.unseen(what, &error))?;
        let high = self.ends(&self.all, &places, At::End, deadline)?;
        let stable = self.ends(&self.committed, &places, At::End, deadline)?;
        looked.is_group = if committed.is_empty() {
            let groups = self.all.fetch_group_list(Some(&self.group), deadline.left());
            let groups = groups.map_err(|error| self.unseen("whether there is such a group is not known", &error))?;
            groups.groups().iter().any(|group| group.name() == self.group)
        } else {
            true
        };
        for place in places {
            let of = |offsets: &BTreeMap<Place, Offset>| offsets.get(&place).copied();
            // All are there: each of these questions was answered in full.
            if let (Some(low), Some(high), Some(stable)) = (of(&low), of(&high), of(&stable))
                && let Some(Some(partitions)) = looked.topics.get_mut(&place.topic)
            {
                // Another moment later: the end may have been held back then and not before, or be further.
                let high = high.max(stable);
                partitions.insert(place.partition, Standing { committed: of(&committed), low, high, stable });
            }
        }
        Ok(looked)
    }
}

/// One that sees all, and one that sees what is committed.
fn clients(options: &Options, group: &str) -> Result<[client::Consumer; 2], LogError> {
    Ok([client::onlooker(options, group, false)?, client::onlooker(options, group, true)?])
}

fn numbers(topic: &MetadataTopic) -> Vec<u32> {
    topic.partitions().iter().map(|partition| client::partition(partition.id())).collect()
}

fn list<'a>(places: impl Iterator<Item = (&'a Place, At)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (place, at) in places {
        // Refused for logical offsets that no caller gives.
        let _ = list.add_partition_offset(&place.topic, client::number(place.partition), at);
    }
    list
}

/// The offsets of an answer, those that there are.
fn offsets(answer: &TopicPartitionList) -> Result<BTreeMap<Place, Offset>, KafkaError> {
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error()?;
        if let At::Offset(raw) = element.offset() {
            offsets.insert(Place { topic: element.topic().to_owned(), partition: client::partition(element.partition()) }, client::offset(raw));
        }
    }
    Ok(offsets)
}
