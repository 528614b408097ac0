//! What is kept of the log and what goes, and what a flood of samples does, through the program itself.
//!
//! With `LOADLINE_SOAK=1` the flood lasts a minute.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{LOADLINE, Running, SLEEPERS, fleet_of_sleepers, policy_yaml, wait_for, waiting};
use loadline::log::embedded::EmbeddedLog;
use loadline::log::{Offset, RawRecord, Topic};
use loadline::model::{Audit, Decision, Message, Signal};
use loadline::runtime::clock::{Clock, Stopwatch, SystemClock};
use loadline::runtime::snapshots::replays_from;
use loadline::stages::decide::{Decide, State};
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire;
use serde_json::Value;

const AT_ONCE: &str =
    "  behavior: { scaleIn: { stabilization: 1s, policies: [{ percent: 100, period: 1s }] }, scaleOut: { policies: [{ replicas: 10, period: 1s }] } }\n";

/// Everything young goes as soon as it may; audit stays.
const AGGRESSIVE: [&str; 8] =
    ["--set", "retention.metrics=1s", "--set", "retention.signals=1s", "--set", "retention.requests=1s", "--set", "retention.commands=1s"];

fn get(loadline: &Running, path: &str) -> Option<Value> {
    serde_json::from_str(&ureq::get(format!("{}{path}", loadline.url)).call().ok()?.body_mut().read_to_string().ok()?).ok()
}

/// The first offset of a topic that is there.
fn earliest(data: &Path, topic: Topic) -> Offset {
    EmbeddedLog::open_read_only(data).unwrap().range(topic, 0).unwrap().start
}

/// The records of a topic, copied before retention deletes them.
#[derive(Default)]
struct Copied {
    records: Vec<RawRecord>,
    next: Offset,
}

impl Copied {
    /// Copies what came since the last time. Nothing of it may be gone by then.
    fn copy(&mut self, data: &Path, topic: Topic) {
        let log = EmbeddedLog::open_read_only(data).unwrap();
        loop {
            let slice = log.scan(topic, 0, self.next, 1_000).unwrap();
            let (Some(first), Some(last)) = (slice.first(), slice.last()) else { return };
            assert_eq!(first.offset, self.next, "{topic} went before they were copied: the test compares nothing then");
            self.next = last.offset + 1;
            self.records.extend(slice);
        }
    }
}

fn decision(message: Message) -> Option<Decision> {
    if let Message::Audit(Audit::Decision(decision)) = message { Some(decision) } else { None }
}

/// With everything deleted as soon as it may go, through an orderly end, a kill, and an end again, the decisions are those of an undisturbed
/// fold over all signals that there ever were; and what is gone is named.
#[test]
fn what_retention_deletes_changes_no_decision_and_is_named() {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    // What a restart needs spans a few seconds only, so that there is more than that.
    std::fs::write(policies.join("policy.yaml"), policy_yaml(6, AT_ONCE).replace("staleAfter: 30s", "staleAfter: 1s")).unwrap();
    let data = home.path().join("data");
    let mut signals = Copied::default();
    let follows = |loadline: &Running, level: u32| {
        wait_for("the fleet to follow its load", || {
            loadline.post(&waiting(f64::from(level * 10)))?;
            (loadline.status(&SLEEPERS)?["current"] == level).then_some(())
        });
    };
    let gone = |topic: Topic, at_least: Offset| wait_for(&format!("{topic} to go"), || (earliest(&data, topic) >= at_least).then_some(()));

    // The first life ends in order, with a round of snapshots: from then on signals may go.
    let first = Running::start(home.path(), &AGGRESSIVE);
    follows(&first, 4);
    follows(&first, 2);
    let far = EmbeddedLog::open_read_only(&data).unwrap().range(Topic::Signals, 0).unwrap().end;
    wait_for("more signals than a restart needs", || {
        first.post(&waiting(20.0))?;
        (EmbeddedLog::open_read_only(&data).unwrap().range(Topic::Signals, 0).unwrap().end >= far + 50).then_some(())
    });
    gone(Topic::Metrics, 1);
    let states: BTreeMap<String, Vec<u8>> = EmbeddedLog::open_read_only(&data).unwrap().states("decide", 0).unwrap().into_iter().collect();
    let needed = replays_from(|key| Ok(states.get(key).cloned())).unwrap().unwrap_or(0);
    assert!(
        earliest(&data, Topic::Signals) <= needed && needed < 10,
        "a restart would read all of them but what came before the first target: from {needed} on"
    );
    assert_eq!(first.stop(), 0);
    signals.copy(&data, Topic::Signals);

    let second = Running::start(home.path(), &AGGRESSIVE);
    gone(Topic::Signals, far);
    let kept_from = SystemClock.now();
    follows(&second, 6);
    follows(&second, 3);
    signals.copy(&data, Topic::Signals);
    second.kill();
    signals.copy(&data, Topic::Signals);

    let third = Running::start(home.path(), &AGGRESSIVE);
    follows(&third, 5);
    assert_eq!(third.stop(), 0);
    signals.copy(&data, Topic::Signals);

    let mut audit = Copied::default();
    audit.copy(&data, Topic::Audit);
    let written: Vec<Decision> = audit.records.iter().filter_map(|record| wire::decode(Topic::Audit, &record.value).ok().and_then(decision)).collect();
    let (mut state, mut undisturbed) = (State::default(), Vec::new());
    for record in &signals.records {
        let Ok(Message::Signal(signal)) = wire::decode(Topic::Signals, &record.value) else { panic!("a signal") };
        let mut effects = Effects::new();
        let located = Located { partition: 0, offset: record.offset, at: record.at, record: signal };
        Decide::default().apply(&mut state, Input::Record(located), &mut effects);
        undisturbed.extend(effects.take().into_iter().filter_map(|effect| decision(effect.message)));
    }
    assert!(written.len() > 10, "only {} decisions were written", written.len());
    assert!(written.len() <= undisturbed.len(), "{} written, {} undisturbed", written.len(), undisturbed.len());
    for (written, undisturbed) in written.iter().zip(&undisturbed) {
        assert_eq!(written, undisturbed);
    }
    assert!(undisturbed[written.len()..].iter().all(|decision| Some(decision.at) >= written.last().map(|last| last.at)), "none is missing");

    // An export says what it lacks, unless it was not asked for it.
    let export = |from: &[&str]| {
        let exported = Command::new(LOADLINE).args(["export", "--data"]).arg(&data).args(from).output().unwrap();
        assert!(exported.status.success());
        String::from_utf8(exported.stderr).unwrap()
    };
    let start = earliest(&data, Topic::Signals);
    let lacks = format!("signals 0..{start} of partition 0 are left out: retention has removed them");
    assert!(export(&[]).contains(&lacks), "{}", export(&[]));
    assert!(export(&["--from", "2001-09-09T01:46:40Z"]).contains(&lacks));
    assert_eq!(export(&["--from", &(kept_from + Duration::from_secs(3600)).as_millis().to_string()]), "");

    // So does `why`, of a decision that is gone.
    let last = Running::start(home.path(), &[&AGGRESSIVE[..], &["--set", "retention.audit=1s", "--stop-fleets-on-exit"]].concat());
    gone(Topic::Audit, 1);
    let why = Command::new(LOADLINE).args(["why", &*SLEEPERS, "--at", "2001-09-09T01:46:40Z", "--server", &last.url]).output().unwrap();
    let said = String::from_utf8_lossy(&why.stderr);
    assert!(
        why.status.code() == Some(1)
            && said.contains("of partition 0 were removed by retention (retention.audit, retention.size; on Kafka that of the topic audit)"),
        "{said}"
    );
    // And how far back the log reaches, and what a day brings, is in the status.
    let usage = get(&last, "/api/v1/status").unwrap()["log"].clone();
    assert_eq!((usage["pressure"].as_str(), usage["limit"].as_u64()), (Some("Roomy"), Some(4 << 30)), "{usage}");
    let control = usage["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == "control").unwrap().clone();
    assert!(control["bytes"].as_u64() > Some(0) && control["hoursKept"].as_f64() > Some(0.0), "{control}");
    assert_eq!(earliest(&data, Topic::Control), 0, "control never goes");
    assert_eq!(last.stop(), 0);
}

/// How a flood is.
struct Flood {
    taken_a_second: u32,
    sent_a_second: u32,
    lasts: Duration,
}

impl Flood {
    fn chosen() -> Flood {
        match std::env::var_os("LOADLINE_SOAK") {
            Some(_) => Flood { taken_a_second: 5_000, sent_a_second: 50_000, lasts: Duration::from_secs(60) },
            None => Flood { taken_a_second: 1_000, sent_a_second: 20_000, lasts: Duration::from_secs(4) },
        }
    }
}

/// Samples of one request.
const REQUEST: u32 = 100;

/// Requests that may be under way: bounds what the program holds.
const QUEUE: u64 = 16;

#[derive(Default)]
struct Sent {
    requests: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// Posts requests at its part of the rate until `over`.
fn sender(url: &str, every: Duration, over: &AtomicBool, sent: &Sent) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let line = format!("{{\"target\":\"{SLEEPERS}\",\"metric\":\"flood\",\"kind\":\"Delta\",\"value\":1}}\n");
    let body = line.repeat(REQUEST as usize);
    let started = Stopwatch::start();
    let mut due = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        // The beat of the load; a sender that is late sends at once.
        while let Some(rest) = due.checked_sub(started.elapsed()).filter(|rest| !rest.is_zero()) {
            std::thread::park_timeout(rest);
        }
        due += every;
        let answer = agent.post(format!("{url}/api/v1/metrics")).header("content-type", "application/x-ndjson").send(&body);
        sent.requests.fetch_add(1, Ordering::Relaxed);
        let Ok(mut answer) = answer else {
            sent.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        match status {
            200 => sent.taken.fetch_add(body["accepted"].as_u64().unwrap(), Ordering::Relaxed),
            429 => {
                // A bucket of a second is full again within one, and so is the queue.
                assert_eq!((retry_after, body["retryAfter"].as_u64()), (Some(1), Some(1)), "{body}");
                sent.refused.fetch_add(1, Ordering::Relaxed)
            }
            _ => sent.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How many samples of the flood stand in panes.
fn in_panes(data: &Path) -> u64 {
    let mut signals = Copied::default();
    signals.copy(data, Topic::Signals);
    let parts = signals.records.iter().filter_map(|record| match wire::decode(Topic::Signals, &record.value) {
        Ok(Message::Signal(Signal::Part(part))) => Some(part),
        _ => None,
    });
    let panes = parts.flat_map(|part| part.panes).filter(|pane| pane.metric.as_str() == "flood");
    panes.flat_map(|pane| pane.instances.into_values()).map(|reading| u64::try_from(reading.count).unwrap()).sum()
}

/// Far more samples come than may: what is taken is what the setting says, everything else is told to come again, each
/// sample that was taken stands in one pane, memory stays within what the queue may hold, and the stages keep up, so that
/// the fleet goes on following its load.
#[test]
fn a_flood_is_held_to_the_rate_that_is_set_and_nothing_that_was_taken_is_lost() {
    let Flood { taken_a_second, sent_a_second, lasts } = Flood::chosen();
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let data = home.path().join("data");
    let (rate, queue) = (format!("ingest.samplesPerSecond={taken_a_second}"), format!("ingest.queue={QUEUE}"));
    let loadline = Running::start(home.path(), &["--set", &rate, "--set", &queue, "--stop-fleets-on-exit"]);
    wait_for("the fleet to be seen", || (loadline.status(&SLEEPERS)?["current"] == 1).then_some(()));
    let (before, sent, over) = (memory(loadline.pid(), "VmRSS"), Sent::default(), AtomicBool::new(false));
    let senders = 8;
    let every = Duration::from_secs(1) * REQUEST * senders / sent_a_second;
    let started = Stopwatch::start();
    let (mut behind, mut late) = (0, false);
    std::thread::scope(|scope| {
        for _ in 0..senders {
            scope.spawn(|| sender(&loadline.url, every, &over, &sent));
        }
        let mut wanted = 3;
        while started.elapsed() < lasts {
            // The load that is decided on comes through the same door, as long as it takes.
            wait_for("the fleet to follow its load through the flood", || {
                loadline.post(&waiting(f64::from(wanted * 10)));
                let status = get(&loadline, "/api/v1/status")?;
                let lag = status["lag"].as_array()?.iter().filter_map(|lag| lag["records"].as_u64()).max()?;
                behind = behind.max(lag);
                late |= status["lag"].as_array()?.iter().any(|lag| lag["late"] == true);
                (status["targets"][0]["current"] == wanted || started.elapsed() >= lasts).then_some(())
            });
            wanted = if wanted == 3 { 5 } else { 3 };
        }
        over.store(true, Ordering::Relaxed);
    });
    let took = started.elapsed().as_secs_f64();
    let peak = memory(loadline.pid(), "VmHWM");
    let [requests, taken, refused, failed] = [&sent.requests, &sent.taken, &sent.refused, &sent.failed].map(|count| count.load(Ordering::Relaxed));
    wait_for("everything that was taken to stand in a pane", || (in_panes(&data) >= taken).then_some(()));
    assert_eq!(loadline.stop(), 0);
    eprintln!(
        "in {took:.1} s {} samples were sent ({:.0} a second) and {taken} taken ({:.0} a second); {refused} of {requests} requests were refused; \
         resident {} MiB before, at most {} MiB; at most {behind} records behind",
        requests * u64::from(REQUEST),
        requests as f64 * f64::from(REQUEST) / took,
        taken as f64 / took,
        before >> 20,
        peak >> 20,
    );
    assert_eq!((in_panes(&data), failed), (taken, 0), "each in one pane, and each request was answered");
    assert!(refused > requests / 4, "it was no flood: {refused} of {requests} requests were refused");
    // One second's worth at once, and then the rate; in the same bucket is what the fleet's load took.
    assert!(taken as f64 <= f64::from(taken_a_second) * (took + 1.0), "{taken} in {took} s");
    let may_be_taken = (f64::from(taken_a_second) * took).min((requests * u64::from(REQUEST)) as f64);
    assert!(taken as f64 >= may_be_taken / 2.0, "{taken} of {may_be_taken} that may be taken");
    // Each place holds a request of at most 4 MiB, four commits of 8 MiB may wait, and SQLite's caches take some.
    let bound = before + QUEUE * (4 << 20) + (32 << 20) + (32 << 20);
    assert!(peak <= bound, "{peak} of {bound} bytes");
    // A stage that is up to date has no more before it than what one poll brings.
    assert!(behind <= 2_000, "{behind} records behind");
    assert!(!late, "a stage came later than it may");
}
