//! JSON lines: signals, samples, and the start state of a replay.

use loadline::log::Topic;
use loadline::model::{Message, Sample, SampleBatch, Signal, Timestamp};
use loadline::wire::{self, jsonl};

const RECEIVED: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Every line as each of its readers takes it.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(error) = jsonl::StartState::from_json(text) {
        super::said(&error.to_string());
    }
    for line in text.lines() {
        signal(line);
        sample(line);
    }
}

/// A signal that was read is the same after it was written: as a line, and in the log.
fn signal(line: &str) {
    let (at, partition, read) = match jsonl::line_to_signal(line) {
        Ok(signal) => signal,
        Err(error) => return super::said(&error.to_string()),
    };
    let written = jsonl::signal_to_line(at, partition.unwrap_or(0), &read);
    assert!(!written.contains(['\n', '\r']), "{written}");
    let again = jsonl::line_to_signal(&written).unwrap_or_else(|error| panic!("{written} cannot be read: {error}"));
    assert_eq!(again.0, at);
    if !matches!(read, Signal::Policy(_)) {
        assert_eq!(again.2, read);
    }
    assert_eq!(jsonl::signal_to_line(at, again.1.unwrap_or(0), &again.2), written);
    let message = Message::Signal(read);
    let logged = wire::decode(Topic::Signals, &wire::encode(&message)).unwrap_or_else(|error| panic!("{message:?} cannot be read from the log: {error}"));
    assert_eq!(logged, message);
}

/// The same of a sample.
fn sample(line: &str) {
    let read: Sample = match jsonl::sample_from_line(line, RECEIVED) {
        Ok(sample) => sample,
        Err(error) => return super::said(&error.to_string()),
    };
    let written = jsonl::sample_to_line(&read);
    assert!(!written.contains(['\n', '\r']), "{written}");
    let again = jsonl::sample_from_line(&written, RECEIVED).unwrap_or_else(|error| panic!("{written} cannot be read: {error}"));
    assert_eq!(again, read);
    let message = Message::Samples(SampleBatch { samples: vec![read], ..SampleBatch::default() });
    let logged = wire::decode(Topic::Metrics, &wire::encode(&message)).unwrap_or_else(|error| panic!("{message:?} cannot be read from the log: {error}"));
    assert_eq!(logged, message);
}
