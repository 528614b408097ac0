//! A load to stop a program under: producers that send numbered samples as fast as they are taken, and remember what
//! was acknowledged; and the fleets that follow it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::random::Random;

/// The producers that send at once.
pub(crate) const PRODUCERS: usize = 4;

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

/// What the producers and who stops the program share.
pub(crate) struct Shared {
    /// The targets, each a fleet of real processes.
    pub(crate) targets: &'static [&'static str],
    /// How many requests were acknowledged.
    pub(crate) acknowledged: AtomicUsize,
    /// Told at once of each that was, with its producer and number.
    pub(crate) telling: Box<dyn Fn(usize, u64) + Send + Sync>,
    /// The producers are to end.
    pub(crate) stop: AtomicBool,
}

impl Shared {
    pub(crate) fn new(targets: &'static [&'static str], telling: impl Fn(usize, u64) + Send + Sync + 'static) -> Shared {
        Shared { targets, acknowledged: AtomicUsize::default(), telling: Box::new(telling), stop: AtomicBool::default() }
    }
}

/// Sends the load to `url` until `done` comes back; then the program may be gone.
pub(crate) fn under_load(url: &str, told: &mut [Told], shared: &Shared, done: impl FnOnce()) {
    std::thread::scope(|scope| {
        for (producer, told) in told.iter_mut().enumerate() {
            scope.spawn(move || produce(url, producer, told, shared));
        }
        done();
        shared.stop.store(true, Ordering::SeqCst);
    });
}

/// A target's name.
pub(crate) fn target(name: &str) -> String {
    format!("local/ProcessFleet/{name}")
}

/// The value by which each sample of a request is known: its number in increments of one.
pub(crate) fn stamp(targets: usize, target: usize, request: u64) -> u64 {
    request * targets as u64 + target as u64 + 1
}

/// Sends requests until the program is gone, or told to stop.
fn produce(url: &str, producer: usize, told: &mut Told, shared: &Shared) {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into();
    while !shared.stop.load(Ordering::SeqCst) {
        let request = told.next;
        told.next += 1;
        let body = body(shared.targets, producer, request);
        match agent.post(format!("{url}/api/v1/metrics")).header("content-type", "application/x-ndjson").send(body) {
            Ok(answer) if answer.status() == 200 => {
                told.acknowledged.push(request);
                (shared.telling)(producer, request);
                shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            // Told to come again later: it goes on with another one.
            Ok(_) | Err(ureq::Error::StatusCode(_)) => told.unknown.push(request),
            Err(_) => return told.unknown.push(request),
        }
    }
}

/// Of each target its queue, a latency, and a stamp that no other sample has.
fn body(targets: &[&str], producer: usize, request: u64) -> String {
    // Some 50 requests long the queue stays as it is, so that the fleets have something to follow.
    let waiting = 10 * (1 + Random::new(request / 50).below(6));
    let lines = targets.iter().enumerate().map(|(index, name)| {
        let (target, stamp) = (target(name), stamp(targets.len(), index, request));
        format!(
            "{{\"target\":\"{target}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{waiting}}}\n\
             {{\"target\":\"{target}\",\"metric\":\"latency\",\"kind\":\"Distribution\",\"value\":0.25}}\n\
             {{\"target\":\"{target}\",\"metric\":\"stamp\",\"instance\":\"producer-{producer}\",\"kind\":\"Delta\",\"value\":{stamp}}}\n"
        )
    });
    lines.collect()
}

/// A fleet and a policy for each target, in `home/policies`: those called active are scaled, the others only advised.
pub(crate) fn write_documents(home: &Path, targets: &[&str]) {
    let policies = home.join("policies");
    std::fs::create_dir(&policies).unwrap();
    for name in targets {
        std::fs::write(policies.join(format!("{name}.yaml")), format!("{}---\n{}", fleet_of(name), policy_of(name))).unwrap();
    }
}

/// The fleet of a target: processes that sleep.
pub(crate) fn fleet_of(name: &str) -> String {
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ProcessFleet
metadata: {{ namespace: local, name: {name} }}
spec: {{ command: sleep, args: [\"3600\"], replicas: 1, drain: {{ grace: 2s }} }}
"
    )
}

/// The policy of a target.
pub(crate) fn policy_of(name: &str) -> String {
    let mode = if name.starts_with("active") { "Active" } else { "Advise" };
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: {{ namespace: local, name: {name} }}
spec:
  target: {{ kind: ProcessFleet, name: {name} }}
  mode: {mode}
  replicas: {{ min: 1, max: 6 }}
  metrics:
    - {{ name: queue_depth, track: {{ perReplica: 10 }}, window: 1s, staleAfter: 30s }}
    - {{ name: latency, kind: Distribution, measure: {{ quantile: 95% }}, window: 1s, unit: seconds, track: {{ value: 300ms }} }}
    - {{ name: stamp, kind: Delta }}
  behavior: {{ scaleIn: {{ stabilization: 0s, cooldown: 0s, policies: [{{ percent: 100, period: 1s }}] }}, scaleOut: {{ policies: [{{ replicas: 10, period: 1s }}] }} }}
"
    )
}
