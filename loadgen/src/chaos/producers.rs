//! Producers that number their samples, send them to whichever process answers, and keep what must be found afterwards.

use std::collections::BTreeMap;
use std::ops::{AddAssign, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use loadline::model::Amount;
use loadline::runtime::clock::Stopwatch;

use super::fleets::target;
use crate::clock::unix_millis;
use crate::random::Random;
use crate::waiting::PATIENCE;

/// How long an answer is waited for before the request is sent to another process: one that is stopped holds it.
const ANSWER: Duration = Duration::from_secs(3);

/// Between two requests of a producer, and before one is repeated.
const PACE: Duration = Duration::from_millis(200);

/// How often a producer without numbers tries at most.
const TRIES: u32 = 3;

/// One request of so many is large, …
const LARGE_EVERY: u32 = 8;

/// … by so many samples: a megabyte, and some five records.
const BULK: u32 = 4_000;

/// A client that waits no longer than that.
pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(ANSWER)).build().into()
}

/// A sum of samples, by its target, metric, instance, and the start of its pane in milliseconds.
pub(super) type Place = (String, String, String, i64);

/// What is known of the samples of a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// How many were acknowledged.
    pub(super) acknowledged: i64,
    /// How many may be there: each as often as it was tried, where nothing tells its repetitions.
    pub(super) at_most: i64,
    /// The sum of those that were acknowledged.
    pub(super) sum: Amount,
}

impl Sent {
    /// How many must be found.
    pub(super) fn count(&self) -> RangeInclusive<i64> {
        self.acknowledged..=self.at_most
    }
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Sent) {
        let Sent { acknowledged, at_most, sum } = other;
        (self.acknowledged, self.at_most, self.sum) = (self.acknowledged + acknowledged, self.at_most + at_most, self.sum + sum);
    }
}

/// What a producer keeps.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Its samples.
    pub(super) sent: BTreeMap<Place, Sent>,
    /// Requests that were acknowledged, …
    pub(super) acknowledged: u64,
    /// … of them not at the first try, …
    pub(super) repeated: u64,
    /// … and those that never were.
    pub(super) unknown: u64,
}

/// What all producers share.
pub(super) struct Load<'a> {
    pub(super) targets: &'a [&'a str],
    /// Where the processes listen.
    pub(super) urls: &'a [String],
    pub(super) pane: Duration,
    pub(super) acknowledged: AtomicU64,
    pub(super) stop: AtomicBool,
}

impl Load<'_> {
    /// Sends requests until it is told to stop. With numbers each is repeated until it is acknowledged; without, a few times.
    pub(super) fn produce(&self, producer: usize, numbered: bool) -> anyhow::Result<Book> {
        let name = format!("producer-{producer}");
        let agent = agent();
        let mut book = Book::default();
        for sequence in 0_u32.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let time = unix_millis();
            let body = self.body(&name, sequence, time);
            let (begun, mut tries) = (Stopwatch::start(), 0);
            let acknowledged = loop {
                let url = &self.urls[(producer + sequence as usize + tries as usize) % self.urls.len()];
                tries += 1;
                let mut request = agent.post(format!("{url}/api/v1/metrics")).header("content-type", "application/x-ndjson");
                if numbered {
                    request = request.header("loadline-producer", &name).header("loadline-sequence", sequence.to_string());
                }
                match request.send(&body) {
                    Ok(_) => break true,
                    Err(_) if !numbered && tries == TRIES => break false,
                    Err(error) => ensure!(begun.elapsed() < PATIENCE, "request {sequence} of {name} is never acknowledged: {error}"),
                }
                std::thread::park_timeout(PACE);
            };
            let at_most = if numbered { 1 } else { i64::from(tries) };
            self.note(&mut book, &name, sequence, time, Sent { acknowledged: i64::from(acknowledged), at_most, sum: Amount::ZERO })?;
            match acknowledged {
                true => book.acknowledged += 1,
                false => book.unknown += 1,
            }
            book.repeated += u64::from(acknowledged && tries > 1);
            self.acknowledged.fetch_add(u64::from(acknowledged), Ordering::SeqCst);
            std::thread::park_timeout(PACE);
        }
        Ok(book)
    }

    /// Of each target its queue, a latency, and a stamp that no other sample of this producer has; now and then so many of one target that the request takes
    /// several records of one partition, of which a broker that dies may have some.
    fn samples<'a>(&'a self, name: &'a str, sequence: u32) -> impl Iterator<Item = (String, &'static str, &'static str, String, f64)> {
        // For about as long as a window the queue stays as it is, so that the fleets have something to follow.
        let queue = 10 * (1 + Random::new(u64::from(sequence) / 20).below(6));
        let small = self.targets.iter().flat_map(move |of| {
            let of = target(of);
            [
                (of.clone(), "queue_depth", "Gauge", String::new(), queue as f64),
                (of.clone(), "latency", "Distribution", name.to_owned(), 0.25),
                (of, "stamp", "Delta", name.to_owned(), f64::from(sequence + 1)),
            ]
        });
        let bulk = if sequence % LARGE_EVERY == LARGE_EVERY - 1 { BULK } else { 0 };
        let bulk = (0..bulk).map(move |number| (target(self.targets[0]), "bulk", "Delta", format!("{name}-{:0>200}", number % 10), f64::from(number)));
        small.chain(bulk)
    }

    fn body(&self, name: &str, sequence: u32, time: i64) -> String {
        let line = |(target, metric, kind, instance, value): (String, &str, &str, String, f64)| {
            format!("{{\"target\":\"{target}\",\"metric\":\"{metric}\",\"instance\":\"{instance}\",\"kind\":\"{kind}\",\"time\":{time},\"value\":{value}}}\n")
        };
        self.samples(name, sequence).map(line).collect()
    }

    fn note(&self, book: &mut Book, name: &str, sequence: u32, time: i64, sent: Sent) -> anyhow::Result<()> {
        let pane = i64::try_from(self.pane.as_millis())?;
        for (target, metric, _, instance, value) in self.samples(name, sequence) {
            let sum = if sent.acknowledged > 0 { Amount::from_f64(value).context("a sample's value is no amount")? } else { Amount::ZERO };
            let place = (target, metric.to_owned(), instance, time.div_euclid(pane) * pane);
            *book.sent.entry(place).or_insert(Sent { acknowledged: 0, at_most: 0, sum: Amount::ZERO }) += Sent { sum, ..sent };
        }
        Ok(())
    }
}
