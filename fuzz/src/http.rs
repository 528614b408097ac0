//! Bodies over HTTP: samples by their `content-type`, and a count that is set by hand. The same bytes as a record on `metrics`, with and without the type.
//!
//! The first line of an input is the `content-type`, or `scale`; the rest is the body.

use std::sync::{Arc, LazyLock};

use loadline::edge::api::{Problem, ScaleRequest};
use loadline::edge::ingest::{Parsed, format_of, parsed};
use loadline::edge::view::View;
use loadline::log::memory::MemoryLog;
use loadline::log::{MAX_RECORD_BYTES, Partitions, RawRecord, Topic};
use loadline::model::{Message, Timestamp};
use loadline::runtime::clock::ManualClock;
use loadline::stages::aggregate::refusal;
use loadline::wire::{self, Read};

const RECEIVED: Timestamp = Timestamp::from_millis(1_800_000_000_000);

static VIEW: LazyLock<View> = LazyLock::new(View::new);

static LOG: LazyLock<MemoryLog> = LazyLock::new(|| MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(RECEIVED))));

/// Records that aggregate takes, as many samples as are counted; or a problem.
pub fn check(input: &[u8]) {
    let end = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
    let (named, body) = (String::from_utf8_lossy(&input[..end]), input.get(end + 1..).unwrap_or_default());
    if named == "scale" {
        return scale(body);
    }
    record(None, body);
    record(Some(named.clone().into_owned()), body);
    let format = match format_of(&named) {
        Ok(format) => format,
        Err(problem) => return told(&problem),
    };
    match parsed(format, body, RECEIVED, None, &*LOG, &VIEW) {
        Ok(Parsed { ingested, appends, .. }) => {
            ingested.errors.iter().for_each(|error| super::said(&error.reason));
            assert!(ingested.accepted > 0 && ingested.errors.len() as u64 <= ingested.rejected);
            let mut taken = 0;
            for append in appends {
                assert!(append.topic == Topic::Metrics && append.value.len() <= MAX_RECORD_BYTES, "{} bytes", append.value.len());
                let Ok(Message::Samples(batch)) = wire::decode(append.topic, &append.value) else { panic!("no samples were appended") };
                taken += batch.samples.len() as u64;
                // What was answered with 200 counts: aggregate refuses none of it.
                batch.samples.iter().for_each(|sample| assert_eq!(refusal(sample, RECEIVED), None, "{sample:?}"));
            }
            assert_eq!(taken, ingested.accepted);
        }
        Err(problem) => {
            told(&problem);
            let ingested = problem.ingested.expect("what was not taken is counted");
            assert_eq!(ingested.accepted, 0);
            ingested.errors.iter().for_each(|error| super::said(&error.reason));
        }
    }
}

/// Samples that the log can hold, and what they lack in words; or a reason.
fn record(content_type: Option<String>, body: &[u8]) {
    let record = RawRecord { partition: 0, offset: 0, at: RECEIVED, key: None, content_type, value: body.to_vec() };
    match wire::read(Topic::Metrics, &record) {
        Ok(Read { message: Message::Samples(batch), lacks }) => {
            assert_eq!(lacks.is_some(), batch.unread > 0);
            lacks.iter().for_each(|lacks| super::said(lacks));
        }
        Ok(read) => panic!("no samples: {read:?}"),
        Err(error) => super::said(&error.to_string()),
    }
}

fn scale(body: &[u8]) {
    match ScaleRequest::read(body) {
        Ok(request) => assert_eq!(ScaleRequest::read(&serde_json::to_vec(&request).expect("JSON")), Ok(request)),
        Err(problem) => told(&problem),
    }
}

fn told(problem: &Problem) {
    assert!((400..500).contains(&problem.status), "bad input is the sender's: {problem:?}");
    super::said(&problem.title);
    super::said(&problem.mend);
}
