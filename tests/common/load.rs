//! The load: producers that send numbered samples as fast as they are taken, and remember what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::random::Random;

/// The producers that send at once.
pub(crate) const PRODUCERS: usize = 4;

/// The targets, each a fleet of real processes: the first act, the others are only advised.
pub(crate) const TARGETS: [&str; 6] = ["active-1", "active-2", "advised-1", "advised-2", "advised-3", "advised-4"];

/// What a producer knows.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The number of its next request; in the life of the test each is sent once.
    pub(crate) next: u64,
    /// The requests that were answered with 200.
    pub(crate) acknowledged: Vec<u64>,
    /// Those whose answer was another one, or never came.
    pub(crate) unknown: Vec<u64>,
}

/// What the producers and who kills share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// How many requests were acknowledged.
    pub(crate) acknowledged: AtomicUsize,
    /// The producers are to end.
    pub(crate) stop: AtomicBool,
}

/// A target's name.
pub(crate) fn target(name: &str) -> String {
    format!("local/ProcessFleet/{name}")
}

/// The value by which each sample of a request is known: its number in increments of one.
pub(crate) fn stamp(target: usize, request: u64) -> u64 {
    request * TARGETS.len() as u64 + target as u64 + 1
}

/// Sends requests until the program is gone, or told to stop.
pub(crate) fn produce(url: &str, producer: usize, told: &mut Told, shared: &Shared) {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into();
    while !shared.stop.load(Ordering::SeqCst) {
        let request = told.next;
        told.next += 1;
        let body = body(producer, request);
        match agent.post(format!("{url}/api/v1/metrics")).header("content-type", "application/x-ndjson").send(body) {
            Ok(answer) if answer.status() == 200 => {
                told.acknowledged.push(request);
                shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            // Told to come again later: it goes on with another one.
            Ok(_) | Err(ureq::Error::StatusCode(_)) => told.unknown.push(request),
            Err(_) => return told.unknown.push(request),
        }
    }
}

/// Of each target its queue, a latency, and a stamp that no other sample has.
fn body(producer: usize, request: u64) -> String {
    // Some 50 requests long the queue stays as it is, so that the fleets have something to follow.
    let waiting = 10 * (1 + Random::new(request / 50).below(6));
    let lines = TARGETS.iter().enumerate().map(|(index, name)| {
        let (target, stamp) = (target(name), stamp(index, request));
        format!(
            "{{\"target\":\"{target}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{waiting}}}\n\
             {{\"target\":\"{target}\",\"metric\":\"latency\",\"kind\":\"Distribution\",\"value\":0.25}}\n\
             {{\"target\":\"{target}\",\"metric\":\"stamp\",\"instance\":\"producer-{producer}\",\"kind\":\"Delta\",\"value\":{stamp}}}\n"
        )
    });
    lines.collect()
}
