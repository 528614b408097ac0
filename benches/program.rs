//! What the whole program costs: `cargo bench --bench program -- [ready] [idle] [reaction] [ingest]`, all of them where none
//! is named. Prints a table in Markdown.
//!
//! It sleeps to keep a rate, or for the time over which something is measured; what is to happen is waited for.
//!
//! The program runs as people run it, on a directory under `target/`, and is asked over HTTP. Sender and program share the
//! machine.
#![allow(clippy::unwrap_used, clippy::panic, clippy::match_wild_err_arm, reason = "a benchmark that cannot be set up has nothing to say")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use apache_avro::{Schema, Writer};
use loadline::edge::api::{Decisions, TargetDetail};
use loadline::log::Topic;
use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::model::{FleetObservation, Kind, Message, OutcomeResult, Sample, SampleBatch, Signal, Timestamp};
use loadline::runtime::clock::{Clock, Stopwatch, SystemClock};
use loadline::runtime::publish;
use loadline::stages::Effects;
use loadline::wire::schemas::RecordType;

#[path = "../tests/common/mod.rs"]
mod common;

use common::{LOADLINE, Running, SLEEPERS, fleet_of_sleepers, waiting};

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    println!("| what | measured |\n|---|---|");
    for (name, measure) in [("ready", ready as fn()), ("idle", idle), ("reaction", reaction), ("ingest", ingest)] {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            measure();
        }
    }
}

fn row(what: &str, measured: &str) {
    println!("| {what} | {measured} |");
}

/// The value below which so many percent lie, of sorted ones.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn spread(mut measured: Vec<Duration>) -> String {
    measured.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| percentile(&measured, percent));
    format!("p50 {p50:.1?}, p99 {p99:.1?}, longest {:.1?} of {}", measured.last().unwrap(), measured.len())
}

/// A Loadline on `home`, with panes of this length and the other settings as they are by default.
fn start(home: &Path, pane: &str) -> Running {
    let mut command = Command::new(LOADLINE);
    command.current_dir(home).args(["run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0", "--pane", pane, "--stop-fleets-on-exit"]);
    command.env_remove("LOADLINE_CONFIG");
    Running::spawn(command)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// From the start of the process until it says that it is ready.
fn ready() {
    const TARGETS: usize = 10_000;
    let starts = (0..20).map(|_| {
        let home = directory();
        std::fs::create_dir(home.path().join("policies")).unwrap();
        let watch = Stopwatch::start();
        let running = start(home.path(), "5s");
        let took = watch.elapsed();
        running.kill();
        took
    });
    row("`loadline run` until it is ready, on an empty directory", &spread(starts.collect()));

    let home = directory();
    history(home.path(), TARGETS, 24);
    let bytes = std::fs::metadata(home.path().join("data/log.db")).map_or(0, |file| file.len());
    let starts = (0..5).map(|_| {
        let watch = Stopwatch::start();
        let running = start(home.path(), "5s");
        let took = watch.elapsed();
        running.kill();
        took
    });
    row(&format!("… with {TARGETS} targets of history ({} MB), killed before", bytes / 1_000_000), &spread(starts.collect()));
}

/// A Loadline that has decided for so many targets over so many panes, and was killed.
fn history(home: &Path, targets: usize, panes: usize) {
    let policies = home.join("policies");
    std::fs::create_dir(&policies).unwrap();
    let document = |number: usize| {
        format!(
            "---\napiVersion: loadline.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {{ namespace: many, name: t{number} }}\nspec:\n  target: {{ apiVersion: apps/v1, kind: \
             Deployment, name: t{number} }}\n  mode: Advise\n  replicas: {{ min: 1, max: 50 }}\n  metrics:\n    - {{ name: queue_depth, track: {{ perReplica: 10 }} }}\n"
        )
    };
    for first in (0..targets).step_by(500) {
        std::fs::write(policies.join(format!("{first}.yaml")), (first..first + 500).map(document).collect::<String>()).unwrap();
    }
    let log = EmbeddedLog::open(&home.join("data"), Arc::new(SystemClock), Options::default()).unwrap();
    let mut effects = Effects::new();
    for number in 0..targets {
        let target = format!("many/Deployment/t{number}");
        let seen = FleetObservation {
            target: target.parse().unwrap(),
            uid: "1".to_owned(),
            term: 1,
            sequence: 1,
            revision: Some(1),
            desired: 3,
            status_replicas: 3,
            updating: false,
            instances: Vec::new(),
        };
        effects.to_key(Topic::Signals, &target, Message::Signal(Signal::Fleet(seen)));
    }
    publish(&log, effects).unwrap();
    drop(log);
    let running = start(home, "5s");
    for pane in 0..panes {
        let watch = Stopwatch::start();
        for part in 0..targets / 1_000 {
            let mut lines = String::new();
            for number in part * 1_000..(part + 1) * 1_000 {
                let value = 10 + (number * 7 + pane * 13) % 200;
                writeln!(lines, "{{\"target\":\"many/Deployment/t{number}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{value}}}").unwrap();
            }
            running.post(&lines).unwrap();
        }
        std::thread::sleep(Duration::from_secs(5).saturating_sub(watch.elapsed()));
    }
    let decided = running.status("many/Deployment/t0").unwrap();
    assert!(decided["desired"].is_u64(), "it has decided: {decided}");
    running.kill();
}

/// The processor time of a process that has nothing to do.
fn idle() {
    const FOR: Duration = Duration::from_secs(60);
    for (what, fleet, pane) in
        [("no policy", false, "5s"), ("a fleet of three and its policy, panes of 5 s", true, "5s"), ("the same, panes of 250 ms", true, "250ms")]
    {
        let (home, _) = fleet_of_sleepers(3, "");
        if !fleet {
            std::fs::remove_dir_all(home.path().join("policies")).unwrap();
            std::fs::create_dir(home.path().join("policies")).unwrap();
        }
        let running = start(home.path(), pane);
        let used = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
            let fields: Vec<u64> = stat.rsplit_once(')').unwrap().1.split_whitespace().filter_map(|field| field.parse().ok()).collect();
            // utime and stime, the state (a letter) left out; in hundredths of a second.
            fields[10] + fields[11]
        };
        std::thread::sleep(Duration::from_secs(5));
        let before = used();
        std::thread::sleep(FOR);
        let percent = (used() - before) as f64 / FOR.as_secs_f64();
        row(&format!("idle, {what}: share of a core"), &format!("{percent:.2} %"));
        running.stop();
    }
}

/// From the end of the pane that a decision to grow is made of to the start of the process, the grace taken off.
fn reaction() {
    const ROUNDS: u32 = 200;
    const GRACE: Duration = Duration::from_millis(500);
    let quick = "  behavior:\n    scaleIn: { stabilization: 0s, cooldown: 0s, policies: [{ percent: 100, period: 1s }] }\n    scaleOut: { stabilization: 0s, cooldown: 0s, policies: [{ replicas: 10, period: 1s }] }\n";
    let (home, _) = fleet_of_sleepers(1, quick);
    let running = start(home.path(), "250ms");
    let (wanted, ended) = (AtomicU32::new(1), AtomicBool::new(false));
    let (mut took, mut measured) = (Vec::new(), None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                running.post(&waiting(f64::from(wanted.load(Ordering::Relaxed)) * 10.0));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let stands_at = |count: u32| {
            common::wait_for("the fleet to follow", || {
                let status = running.status(&SLEEPERS)?;
                (status["current"] == count && status["ready"] == count).then_some(())
            });
        };
        stands_at(1);
        for round in 0..ROUNDS {
            // Each time at another moment of a pane.
            std::thread::sleep(Duration::from_millis(u64::from(round) * 37 % 250));
            wanted.store(2, Ordering::Relaxed);
            stands_at(2);
            let (pane, started) = common::wait_for("the outcome to be told", || reaction_of(&running).filter(|(pane, _)| Some(*pane) > measured));
            took.push(started.since(pane).saturating_sub(GRACE));
            measured = Some(pane);
            wanted.store(1, Ordering::Relaxed);
            stands_at(1);
        }
        ended.store(true, Ordering::Relaxed);
    });
    running.stop();
    row("from the end of a pane to the started process, grace taken off", &spread(took));
}

/// The end of the pane that the newest applied growth was decided on, and when the newest process started; `None` where that is not told yet.
fn reaction_of(running: &Running) -> Option<(Timestamp, Timestamp)> {
    let get = |path: &str| ureq::get(format!("{}/api/v1/targets/{SLEEPERS}{path}", running.url)).call().unwrap().body_mut().read_to_string().unwrap();
    let detail: TargetDetail = serde_json::from_str(&get("")).unwrap();
    let newest = detail.fleet?.instances.into_iter().filter_map(|instance| instance.started_at).max()?;
    let decisions: Decisions = serde_json::from_str(&get("/decisions?limit=100")).unwrap();
    let applied = |story: &loadline::edge::api::Story| story.decision.desired == 2 && story.outcomes.iter().any(|o| o.record.result == OutcomeResult::Applied);
    let story = decisions.decisions.iter().rfind(|story| applied(story))?;
    Some((story.decision.through, newest))
}

/// Samples in requests of 1,000: as many as go, and half of 200,000 a second at a steady rate.
fn ingest() {
    for (format, bodies) in [("JSON lines", json_bodies()), ("Avro container files", avro_bodies())] {
        for connections in [4, 16] {
            let (rate, times) = flood(&bodies, connections, None);
            row(&format!("ingest, {format}, {connections} connections, as many as go"), &format!("{rate:.0} durable samples/s; answers {}", spread(times)));
        }
        let (rate, times) = flood(&bodies, 16, Some(100));
        row(&format!("ingest, {format}, 100 requests of 1,000 a second"), &format!("{rate:.0} durable samples/s; answers {}", spread(times)));
    }
}

struct Bodies {
    content_type: &'static str,
    make: fn(usize) -> Vec<u8>,
}

/// 1,000 samples: five metrics of 200 targets of 1,000.
fn samples(number: usize) -> impl Iterator<Item = (String, &'static str, f64)> {
    (0..1_000).map(move |place| {
        let target = format!("prod/Deployment/api-{}", (number * 200 + place / 5) % 1_000);
        (target, ["cpu", "memory", "rps", "queue_depth", "latency"][place % 5], (place * 31 % 977) as f64 / 16.0)
    })
}

fn json_bodies() -> Bodies {
    let make = |number| {
        let line = |(target, metric, value)| format!("{{\"target\":\"{target}\",\"metric\":\"{metric}\",\"kind\":\"Gauge\",\"value\":{value}}}\n");
        samples(number).map(line).collect::<String>().into_bytes()
    };
    Bodies { content_type: "application/x-ndjson", make }
}

fn avro_bodies() -> Bodies {
    let make = |number| {
        let schema = Schema::parse_str(RecordType::SampleBatch.schema_json()).unwrap();
        let time: Timestamp = SystemClock.now();
        let samples = samples(number).map(|(target, metric, value)| Sample {
            targets: vec![target.parse().unwrap()],
            metric: metric.parse().unwrap(),
            instance: String::new().parse().unwrap_or_default(),
            time,
            kind: Kind::Gauge,
            value,
            histogram: None,
        });
        let mut writer = Writer::builder().schema(&schema).writer(Vec::new()).build().unwrap();
        writer.append_ser(&SampleBatch { samples: samples.collect(), ..SampleBatch::default() }).unwrap();
        writer.into_inner().unwrap()
    };
    Bodies { content_type: "application/avro", make }
}

/// Sends for 30 s, with so many requests a second where that is given: each is then measured from the moment at which it was to
/// be sent. Gives the samples that were acknowledged a second, and the times of the answers.
fn flood(bodies: &Bodies, connections: usize, requests_a_second: Option<u32>) -> (f64, Vec<Duration>) {
    const FOR: Duration = Duration::from_secs(30);
    let home = directory();
    std::fs::create_dir(home.path().join("policies")).unwrap();
    let running = start(home.path(), "5s");
    let prepared: Vec<Vec<u8>> = (0..5).map(bodies.make).collect();
    let (next, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Stopwatch::start();
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build().into();
                    let mut times = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let due = requests_a_second.map_or(started.elapsed(), |rate| Duration::from_secs(1) * u32::try_from(number).unwrap() / rate);
                        if due >= FOR || started.elapsed() >= FOR {
                            return times;
                        }
                        std::thread::sleep(due.saturating_sub(started.elapsed()));
                        let body = &prepared[usize::try_from(number).unwrap() % prepared.len()];
                        let mut answer = agent.post(format!("{}/api/v1/metrics", running.url)).header("content-type", bodies.content_type).send(body).unwrap();
                        let answer: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
                        times.push(started.elapsed().saturating_sub(due));
                        assert_eq!(answer["rejected"], 0, "{answer}");
                        accepted.fetch_add(answer["accepted"].as_u64().unwrap(), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    let took = started.elapsed();
    running.stop();
    (accepted.load(Ordering::Relaxed) as f64 / took.as_secs_f64(), times)
}
