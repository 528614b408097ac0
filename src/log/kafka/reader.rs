//! Reading outside of a group: what stands at a place, from there to the end that readers see.

use std::ops::Range;
use std::time::Duration;

use rdkafka::Timestamp as KafkaTime;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};

use super::session::ENDS_WITHIN;
use super::{Options, client, errors};
use crate::log::{LogError, Offset, RawRecord};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// How long a poll waits at a time.
const SLICE: Duration = Duration::from_millis(100);

/// Longer than it takes another broker to lead a partition, where one can.
pub(super) const FINDS_WITHIN: Duration = Duration::from_secs(5);

/// A client that reads one partition at a time.
pub(super) struct Reader {
    consumer: client::Consumer,
    /// Where it reads on, while there is more.
    at: Option<(String, u32, Offset)>,
    used: Stopwatch,
    patience: Duration,
    /// How long it is looked for who leads a partition that is to be read.
    finds: Duration,
}

impl Reader {
    /// One for whoever has nothing else to go on with.
    pub(super) fn new(options: &Options) -> Result<Self, LogError> {
        Ok(Reader { consumer: client::reader(options)?, at: None, used: Stopwatch::start(), patience: options.patience, finds: options.patience })
    }

    /// One for whoever reads again what nobody leads now, and has others to go on with.
    pub(super) fn of_many(options: &Options) -> Result<Self, LogError> {
        Reader::new(options).map(|reader| Reader { finds: options.patience.min(FINDS_WITHIN), ..reader })
    }

    /// Whether its next record is the one at this place.
    pub(super) fn stands_at(&self, (topic, partition, from): (&str, u32, Offset)) -> bool {
        self.at.as_ref().is_some_and(|(t, p, next)| t == topic && *p == partition && *next == from)
    }

    /// Whether it fetches what nobody asked for in so long. Where all is fetched the client asks for what comes next, a hundred times a second.
    pub(super) fn is_left(&self, unused: Duration) -> bool {
        self.at.is_some() && self.used.elapsed() >= unused
    }

    /// Fetches nothing more.
    pub(super) fn rests(&mut self) -> Result<(), LogError> {
        self.at = None;
        self.consumer.unassign().map_err(|error| errors::of_reading(&error))
    }

    pub(super) fn range(&self, topic: &str, partition: u32) -> Result<Range<Offset>, LogError> {
        client::range(&self.consumer, topic, partition, self.finds)
    }

    /// As [`crate::log::Log::first_after`]: brokers find it by an index of times.
    pub(super) fn first_after(&self, topic: &str, partition: u32, at: Timestamp) -> Result<Offset, LogError> {
        client::first_after(&self.consumer, topic, partition, at, self.finds)
    }

    /// At most `max` records from `from` on, or from the earliest where that is later.
    pub(super) fn scan(&mut self, topic: &str, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        let mut records = Vec::new();
        if max == 0 {
            return Ok(records);
        }
        let stood = self.stands_at((topic, partition, from));
        if !stood {
            let range = self.range(topic, partition)?;
            if from >= range.end {
                return Ok(records);
            }
            self.go_to(topic, partition, from.max(range.start))?;
        }
        let ended = self.read(topic, |message| {
            records.push(record_of(message, true));
            records.len() < max
        })?;
        self.at = records.last().filter(|_| !ended).map(|last| (topic.to_owned(), partition, last.offset + 1));
        self.used = Stopwatch::start();
        // Who asks for one record has a look at it, and does not read on.
        if max == 1 && !ended {
            self.rests()?;
        }
        if stood && ended && records.is_empty() {
            // The end of when it came to stand here, which the client had told since: more may have come.
            return self.scan(topic, partition, from, max);
        }
        Ok(records)
    }

    /// Hands over each key with its value, from the earliest to the end; records without a key are none of ours.
    pub(super) fn each(&mut self, topic: &str, partition: u32, mut take: impl FnMut(&str, Option<&[u8]>)) -> Result<(), LogError> {
        // One that nobody leads is asked for again: whoever restores it has others to go on with.
        let range = client::range(&self.consumer, topic, partition, self.patience.min(ENDS_WITHIN))?;
        if range.is_empty() {
            return Ok(());
        }
        self.go_to(topic, partition, range.start)?;
        self.read(topic, |message| {
            if let Some(Ok(key)) = message.key().map(std::str::from_utf8) {
                take(key, message.payload());
            }
            true
        })?;
        Ok(())
    }

    fn go_to(&mut self, topic: &str, partition: u32, from: Offset) -> Result<(), LogError> {
        self.at = None;
        self.consumer.assign(&client::one(topic, partition, client::at(from))).map_err(|error| errors::of_topic(&error, topic))
    }

    /// Reads until `take` has enough, or to the end that readers see. Says whether it came to the end.
    fn read(&mut self, topic: &str, mut take: impl FnMut(&BorrowedMessage<'_>) -> bool) -> Result<bool, LogError> {
        // Since when nothing came; the clock is not looked at for each record.
        let (mut since, mut came) = (Stopwatch::start(), false);
        loop {
            let polled = self.consumer.poll(SLICE);
            if let Some(Ok(message)) = &polled {
                came = true;
                if !take(message) {
                    return Ok(false);
                }
                continue;
            }
            if std::mem::take(&mut came) {
                since = Stopwatch::start();
            }
            match polled {
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // Or it would ask for what comes next, again and again, and let the next partition wait.
                    self.consumer.unassign().map_err(|error| errors::of_topic(&error, topic))?;
                    return Ok(true);
                }
                // Brokers come back by themselves.
                Some(Err(error)) if errors::is_of_connection(&error) && since.elapsed() < self.patience => {}
                Some(Err(error)) => {
                    // Trimmed in the very moment, or a broker that is away: another look tells.
                    self.at = None;
                    return Err(errors::of_topic(&error, topic));
                }
                _ if since.elapsed() < self.patience => {}
                _ => {
                    self.at = None;
                    return Err(LogError::Retry { reason: format!("Kafka: no answer within {} s", self.patience.as_secs()) });
                }
            }
        }
    }
}

/// A record as the port has it, `keyed` or without its key.
pub(super) fn record_of(message: &BorrowedMessage<'_>, keyed: bool) -> RawRecord {
    let at = match message.timestamp() {
        KafkaTime::LogAppendTime(at) | KafkaTime::CreateTime(at) => at,
        KafkaTime::NotAvailable => 0,
    };
    let payload = message.payload().unwrap_or_default();
    // Where the value says itself how it is written nothing is asked of them: to read them, also where there are none, is a tenth of what a record costs.
    let headers = if payload.starts_with(&SINGLE_OBJECT) { None } else { message.headers() };
    let content_type = headers.and_then(content_type);
    let named = headers.and_then(|headers| headers.iter().find(|header| header.key == SCHEMA_ID)?.value);
    RawRecord {
        partition: client::partition(message.partition()),
        offset: client::offset(message.offset()),
        at: Timestamp::from_millis(at),
        key: message.key().filter(|_| keyed).map(text),
        value: value(named, content_type.as_deref(), payload),
        content_type,
    }
}

/// How a value in Avro's single-object encoding begins.
const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];

/// Where Confluent's serializers say which schema a value has, where its first bytes do not.
const SCHEMA_ID: &str = "__value_schema_id";

/// A value; what a header says of its schema stands before it, as where the value says that itself.
fn value(named: Option<&[u8]>, content_type: Option<&str>, payload: &[u8]) -> Vec<u8> {
    // Serializers of other formats write the header too, and what is JSON tells that by itself.
    let is_avro = content_type.map_or(!payload.starts_with(b"{"), |named| named.contains("avro"));
    match named {
        Some(named) if is_avro => [named, payload].concat(),
        _ => payload.to_vec(),
    }
}

/// What the bytes are, as a header says; names of headers are compared as HTTP does, since producers spell this one in both ways.
fn content_type(headers: &BorrowedHeaders) -> Option<String> {
    let header = headers.iter().find(|header| header.key.eq_ignore_ascii_case("content-type"))?;
    header.value.map(text)
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At the end of what it reads ahead it would ask for what comes next, a hundred times a second.
    #[test]
    fn a_reader_that_nobody_reads_on_with_fetches_nothing() {
        let mut reader = Reader::new(&Options::new("127.0.0.1:1")).unwrap();
        reader.go_to("t", 0, 7).unwrap();
        reader.at = Some(("t".to_owned(), 0, 8));
        assert_eq!((reader.is_left(Duration::ZERO), reader.is_left(Duration::MAX)), (true, false));
        assert_eq!(reader.consumer.assignment().unwrap().count(), 1);
        reader.rests().unwrap();
        assert!(!reader.is_left(Duration::ZERO) && !reader.stands_at(("t", 0, 8)));
        assert_eq!(reader.consumer.assignment().unwrap().count(), 0);
    }

    #[test]
    fn what_a_header_says_of_the_schema_stands_before_what_may_be_avro() {
        let named: Option<&[u8]> = Some(&[1, 7]);
        assert_eq!(value(named, None, &[2, 3]), [1, 7, 2, 3]);
        assert_eq!(value(named, Some("application/avro"), b"{"), [1, 7, b'{']);
        for (content_type, payload) in [(None, &b"{}"[..]), (Some("application/json"), b"{}"), (Some("application/x-protobuf"), &[10])] {
            assert_eq!(value(named, content_type, payload), payload);
        }
        assert_eq!(value(None, None, &[2, 3]), [2, 3]);
    }
}
