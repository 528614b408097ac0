use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::edge::testing::{Answer, Running};
use crate::edge::view::tests::{at, caught_up, decision, policy};
use crate::log::{Follower, Membership, Offset, RawRecord, Session, Topic};
use crate::model::{Message, PolicyAnnouncement, Sample, Signal, Timestamp};
use crate::runtime::clock::ManualClock;
use crate::wire;

const NDJSON: &str = "application/x-ndjson";
const GOOD: &str = r#"{"target":"prod/Deployment/api","metric":"cpu","kind":"Gauge","value":0.7}"#;

/// A log that only appends: at once, when its gate opens, or not at all.
#[derive(Default)]
struct Double {
    appended: Mutex<Vec<Vec<RawAppend>>>,
    refuse: Mutex<Option<String>>,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: usize,
}

impl Double {
    fn samples(&self) -> Vec<Sample> {
        let batches = self.appended.lock().unwrap();
        batches
            .iter()
            .flatten()
            .flat_map(|append| match wire::decode(Topic::Metrics, &append.value).unwrap() {
                Message::Samples(batch) => batch.samples,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn set_closed(&self, closed: bool) {
        self.gate.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    /// Waits until an append stands at the gate.
    fn await_append(&self) {
        let gate = self.gate.lock().unwrap();
        let (_gate, timeout) = self.changed.wait_timeout_while(gate, Duration::from_secs(20), |gate| gate.waiting == 0).unwrap();
        assert!(!timeout.timed_out(), "no append came");
    }
}

fn unused<T>() -> Result<T, LogError> {
    Err(LogError::Fatal { reason: "this log only appends".to_owned() })
}

impl Log for Double {
    fn partitions(&self, _: Topic) -> u32 {
        2
    }
    fn join(&self, _: Membership) -> Result<Box<dyn Session>, LogError> {
        unused()
    }
    fn follow(&self, _: Topic, _: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        unused()
    }
    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        let mut gate = self.gate.lock().unwrap();
        gate.waiting += 1;
        self.changed.notify_all();
        gate = self.changed.wait_while(gate, |gate| gate.closed).unwrap();
        gate.waiting -= 1;
        if let Some(reason) = self.refuse.lock().unwrap().clone() {
            return Err(LogError::Retry { reason });
        }
        let offsets = (0..appends.len() as u64).collect();
        self.appended.lock().unwrap().push(appends);
        Ok(offsets)
    }
    fn range(&self, _: Topic, _: u32) -> Result<Range<Offset>, LogError> {
        unused()
    }
    fn scan(&self, _: Topic, _: u32, _: Offset, _: usize) -> Result<Vec<RawRecord>, LogError> {
        unused()
    }
    fn reached(&self) -> Timestamp {
        Timestamp::MIN
    }
    fn states(&self, _: &str, _: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        unused()
    }
    fn committed(&self, _: &str, _: Topic, _: u32) -> Result<Option<Offset>, LogError> {
        unused()
    }
    fn close(&self) {}
}

fn started(queue: usize) -> (Arc<Double>, Arc<Running>) {
    started_with(Bounds { queue, samples_per_second: None, room: Arc::new(Room::unlimited()) })
}

fn started_with(bounds: Bounds) -> (Arc<Double>, Arc<Running>) {
    let log = Arc::new(Double::default());
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_764_000_000_000)));
    let (ingest, _appender) = Ingest::start(Arc::clone(&log) as Arc<dyn Log>, clock, Arc::new(View::new()), bounds).unwrap();
    (log, Arc::new(Running::start(ingest.router())))
}

fn post(server: &Running, body: &str) -> Answer {
    server.post("/api/v1/metrics", NDJSON, body.as_bytes())
}

#[test]
fn bad_lines_are_reported_by_number_and_cost_no_good_one() {
    let (log, server) = started(4);
    let answer = post(&server, &format!("{GOOD}\nnot json\n\n{GOOD}\n{{\"target\":\"api\",\"metric\":\"cpu\",\"value\":1}}\n"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ingested: Ingested = answer.json();
    assert_eq!((ingested.accepted, ingested.rejected), (2, 2));
    assert_eq!(ingested.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 5]);
    assert!(ingested.errors[1].reason.contains("api"), "{ingested:?}");
    assert_eq!(log.samples().len(), 2);
}

/// What aggregate would drop later, its producer is told now.
#[test]
fn what_can_never_count_is_refused_by_its_line() {
    let (log, server) = started(4);
    let with = |rest: &str| format!("{{\"target\":\"a/B/c\",\"metric\":\"cpu\",{rest}}}");
    for (line, reason) in [
        (with("\"value\":1e300"), "beyond ±10^18"),
        (with("\"value\":1,\"time\":1764000040000"), "more than 30 s after"),
        (with("\"value\":1,\"time\":1764000000"), "times are Unix milliseconds"),
        (with("\"value\":1,\"time\":-5"), "more than a day ago"),
        (with("\"kind\":\"Distribution\",\"value\":-1"), "negative"),
    ] {
        let answer = post(&server, &format!("{GOOD}\n{line}\n"));
        assert_eq!(answer.status, 200, "{line}: {}", answer.body);
        let ingested: Ingested = answer.json();
        assert_eq!((ingested.accepted, ingested.rejected, ingested.errors[0].line), (1, 1, 2), "{line}");
        assert!(ingested.errors[0].reason.contains(reason), "{line}: {ingested:?}");
    }
    assert_eq!(log.samples().len(), 5);
}

#[test]
fn a_sample_without_a_time_is_of_when_it_was_received() {
    let (log, server) = started(4);
    post(&server, GOOD);
    assert_eq!(log.samples()[0].time, Timestamp::from_millis(1_764_000_000_000));
}

#[test]
fn an_avro_container_file_is_taken_whole_or_refused_with_its_reason() {
    let (log, server) = started(4);
    let schema = apache_avro::Schema::parse_str(wire::schemas::RecordType::SampleBatch.schema_json()).unwrap();
    let mut writer = apache_avro::Writer::new(&schema, Vec::new()).unwrap();
    let sample = wire::jsonl::sample_from_line(GOOD, Timestamp::from_millis(1_764_000_000_000)).unwrap();
    writer.append_ser(crate::model::SampleBatch { samples: vec![sample.clone(), sample], ..Default::default() }).unwrap();
    let file = writer.into_inner().unwrap();
    for media in ["application/avro", "avro/binary"] {
        let answer = server.post("/api/v1/metrics", media, &file);
        assert_eq!((answer.status, answer.json::<Ingested>().accepted), (200, 2), "{}", answer.body);
    }
    assert_eq!(log.samples().len(), 4);
    let answer = server.post("/api/v1/metrics", "application/avro", GOOD.as_bytes());
    assert_eq!(answer.status, 400);
    assert!(answer.json::<Problem>().ingested.unwrap().errors[0].reason.contains("container file"), "{}", answer.body);
}

#[test]
fn an_otlp_request_is_taken_point_by_point_or_refused_with_its_reason() {
    let (log, server) = started(4);
    let request = include_bytes!("../../wire/otlp/request.bin");
    for media in ["application/x-protobuf", "application/protobuf"] {
        let answer = server.post("/api/v1/metrics", media, request);
        assert_eq!((answer.status, answer.json::<Ingested>().accepted), (200, 6), "{}", answer.body);
    }
    assert_eq!(log.samples().len(), 12);
    let answer = server.post("/api/v1/metrics", "application/x-protobuf", GOOD.as_bytes());
    assert_eq!(answer.status, 400);
    assert!(answer.json::<Problem>().ingested.unwrap().errors[0].reason.contains("not an OTLP ExportMetricsServiceRequest"), "{}", answer.body);
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, body).unwrap();
    packed.finish().unwrap()
}

/// As exporters of OpenTelemetry send it where nobody says otherwise. What would be larger unpacked than a body may be is not unpacked.
#[test]
fn a_body_that_is_compressed_is_taken_or_refused_with_its_reason() {
    let (log, server) = started(4);
    let send = |media: &str, encoding: &str, body: &[u8]| server.post_packed("/api/v1/metrics", media, encoding, body);
    let otlp = include_bytes!("../../wire/otlp/request.bin");
    let answer = send("application/x-protobuf", "gzip", &gzip(otlp));
    assert_eq!((answer.status, answer.json::<Ingested>().accepted), (200, 6), "{}", answer.body);
    let answer = send(NDJSON, "GZIP", &gzip(GOOD.as_bytes()));
    assert_eq!((answer.status, answer.json::<Ingested>().accepted), (200, 1), "{}", answer.body);
    assert_eq!(send(NDJSON, "identity", GOOD.as_bytes()).status, 200);
    assert_eq!(log.samples().len(), 8);
    let half = gzip(GOOD.repeat(100).as_bytes());
    for (encoding, body, status, says) in [
        ("gzip", GOOD.as_bytes().to_vec(), 400, "the body is no gzip"),
        ("gzip", half[..half.len() / 2].to_vec(), 400, "the body is no gzip"),
        ("gzip", gzip(&vec![b' '; MAX_BODY_BYTES + 1]), 413, "exceeds 4 MiB"),
        ("zstd", GOOD.as_bytes().to_vec(), 415, "gzip, or not compressed"),
        ("gzip, gzip", GOOD.as_bytes().to_vec(), 415, "gzip, or not compressed"),
    ] {
        let answer = send(NDJSON, encoding, &body);
        assert_eq!((answer.status, answer.body.contains(says)), (status, true), "{encoding}: {}", answer.body);
    }
    assert_eq!(log.samples().len(), 8, "of what is refused nothing is taken");
}

#[test]
fn a_hundred_errors_are_listed_and_all_are_counted() {
    let (_log, server) = started(4);
    let ingested: Ingested = post(&server, &format!("{GOOD}\n{}", "x\n".repeat(250))).json();
    assert_eq!((ingested.accepted, ingested.rejected, ingested.errors.len()), (1, 250, 100));
}

#[test]
fn a_request_without_a_usable_sample_is_refused() {
    let (log, server) = started(4);
    for (body, rejected) in [("", 0), ("x\ny\n", 2)] {
        let answer = post(&server, body);
        assert_eq!((answer.status, answer.content_type.as_str()), (400, "application/problem+json"), "{}", answer.body);
        assert_eq!(answer.json::<Problem>().ingested.unwrap().rejected, rejected);
    }
    assert!(log.samples().is_empty());
}

#[test]
fn other_types_and_larger_bodies_are_refused() {
    let (_log, server) = started(4);
    let answer = server.post("/api/v1/metrics", "application/x-www-form-urlencoded", GOOD.as_bytes());
    assert_eq!(answer.status, 415);
    assert!(answer.json::<Problem>().mend.contains("application/x-ndjson"));
    assert_eq!(post(&server, &"x".repeat(MAX_BODY_BYTES + 1)).status, 413);
}

#[test]
fn nothing_is_answered_before_it_is_durable_and_what_exceeds_the_queue_is_to_come_again() {
    let (log, server) = started(1);
    log.set_closed(true);
    let first = std::thread::spawn({
        let server = Arc::clone(&server);
        move || post(&server, GOOD)
    });
    log.await_append();
    assert!(!first.is_finished(), "answered before it was durable");
    let second = post(&server, GOOD);
    assert_eq!((second.status, second.retry_after.as_deref()), (429, Some("1")), "{}", second.body);
    log.set_closed(false);
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(log.samples().len(), 1);
}

/// Most clients send all of a body before they listen. One that finds no memory hears so all the same, and sees no broken connection: what
/// it sends is read to its end, as it says how long it is and as it does not.
#[test]
fn a_body_that_finds_no_memory_is_refused_so_that_who_still_sends_it_hears_it() {
    let log = Arc::new(Double::default());
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_764_000_000_000)));
    let bounds = Bounds { queue: 4, samples_per_second: None, room: Arc::new(Room::unlimited()) };
    let (ingest, _appender) = Ingest::start(Arc::clone(&log) as Arc<dyn Log>, clock, Arc::new(View::new()), bounds).unwrap();
    let server = Running::start(ingest.router());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let take = || runtime.block_on(ingest.inner.budget.share(MAX_BODY_BYTES, Duration::ZERO));
    let taken: Vec<_> = std::iter::from_fn(take).collect();
    assert_eq!(taken.len(), 8, "32 MiB are taken, and nobody gives any back");

    let body = format!("{GOOD}\n").repeat(MAX_BODY_BYTES / (GOOD.len() + 1));
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (length, sent) in [(format!("content-length: {}", body.len()), &body), ("transfer-encoding: chunked".to_owned(), &chunked)] {
        let mut stream = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: here\r\ncontent-type: {NDJSON}\r\nconnection: close\r\n{length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(sent.as_bytes()).unwrap_or_else(|error| panic!("{length}: the whole body is read: {error}"));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, problem) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nretry-after: 1"), "{length}: {head}");
        assert!(problem.contains("memory"), "{length}: {problem}");
    }
    assert!(log.samples().is_empty());
    drop(taken);
    assert_eq!(post(&server, GOOD).status, 200, "and as soon as there is room it is taken");
}

fn started_knowing(now: i64) -> (Arc<View>, Arc<Double>, Running) {
    let (view, log) = (Arc::new(View::new()), Arc::new(Double::default()));
    let clock = Arc::new(ManualClock::new(at(now)));
    let bounds = Bounds { queue: 4, samples_per_second: None, room: Arc::new(Room::unlimited()) };
    let (ingest, _appender) = Ingest::start(Arc::clone(&log) as Arc<dyn Log>, clock, Arc::clone(&view), bounds).unwrap();
    let server = Running::start(ingest.router());
    (view, log, server)
}

fn announce(view: &View, name: &str, metrics: &[&str]) {
    let metrics: Vec<String> = metrics.iter().map(|metric| format!("{{\"name\":\"{metric}\",\"track\":{{\"perReplica\":10}}}}")).collect();
    let spec = format!(
        "{{\"target\":{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"name\":\"{name}\"}},\"replicas\":{{\"min\":1,\"max\":9}},\"metrics\":[{}]}}",
        metrics.join(",")
    );
    let target = format!("prod/Deployment/{name}").parse().unwrap();
    view.signal(at(0), Signal::Policy(PolicyAnnouncement { target, ..policy(1, Some(&spec)) }));
}

/// A slip in a name costs nothing and is told: how often, where first, and what was probably meant.
#[test]
fn samples_that_no_policy_asks_for_are_taken_and_told() {
    let (view, log, server) = started_knowing(60);
    caught_up(&view, at(0));
    announce(&view, "api", &["cpu", "queue_depth"]);
    announce(&view, "checkout", &["a", "b", "c", "d", "e", "f", "g"]);
    let line = |targets: &str, metric: &str| format!("{{\"targets\":[{targets}],\"metric\":\"{metric}\",\"value\":1}}\n");
    let (api, checkout) = ("\"prod/Deployment/api\"", "\"prod/Deployment/checkout\"");
    let body = [
        line(api, "cpu"),
        line("\"prod/Deployment/chekout\"", "a"),
        line(api, "queue_dpeth"),
        line("\"prod/Deployment/chekout\"", "b"),
        line("\"dev/Deployment/api\"", "cpu"),
        line("\"prod/Deployment/zzz\"", "cpu"),
        line(&format!("{api},{checkout}"), "cpu"),
        line(api, "backlog"),
    ];
    let answer = post(&server, &body.concat());
    let ingested: Ingested = answer.json();
    assert_eq!((answer.status, ingested.accepted, ingested.rejected, ingested.unused), (200, 8, 0, Some(7)), "{}", answer.body);
    let told: Vec<_> = ingested.warnings.iter().map(|warning| (warning.line, warning.samples, warning.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            (2, 2, "no policy names target prod/Deployment/chekout; did you mean prod/Deployment/checkout?"),
            (3, 1, "the policy of prod/Deployment/api has no metric queue_dpeth; did you mean queue_depth?"),
            (5, 1, "no policy names target dev/Deployment/api; did you mean prod/Deployment/api?"),
            (6, 1, "no policy names target prod/Deployment/zzz: until one does, its samples are not used"),
            (7, 1, "the policy of prod/Deployment/checkout has no metric cpu: it has a, b, c, d, e and 2 more"),
            (8, 1, "the policy of prod/Deployment/api has no metric backlog; did you mean queue_depth?"),
        ]
    );
    assert_eq!(log.samples().len(), 8, "all are taken");
    assert!(post(&server, &line(api, "cpu")).body.contains("\"unused\":0,\"warnings\":[]"), "what is known to be none is 0");

    let many: String = (0..50).map(|n| line(&format!("\"other/Deployment/{n}\""), "cpu").repeat(2)).collect();
    let ingested: Ingested = post(&server, &many).json();
    assert_eq!((ingested.unused, ingested.warnings.len()), (Some(100), 10), "ten are listed, and all are counted");

    view.signal(at(1), Signal::Policy(policy(2, None)));
    let reason = &post(&server, &line(api, "cpu")).json::<Ingested>().warnings[0].reason;
    assert_eq!(reason, "no policy names target prod/Deployment/api: until one does, its samples are not used", "its policy was removed");
}

/// Right after the start it is not known what the policies ask for: nothing is said then, and not that there is nothing.
#[test]
fn what_is_not_known_yet_is_no_warning() {
    for (caught_up_at, now, known) in [(None, 60, false), (Some(55), 60, false), (Some(50), 60, true)] {
        let (view, _, server) = started_knowing(now);
        caught_up_at.into_iter().for_each(|seconds| caught_up(&view, at(seconds)));
        let ingested: Ingested = post(&server, GOOD).json();
        assert_eq!((ingested.unused, ingested.warnings.len()), if known { (Some(1), 1) } else { (None, 0) }, "caught up at {caught_up_at:?}");
    }
    // Of a target whose announcement is not in what was read back, an evaluation tells; a policy that cannot be read here names no metrics.
    let (view, _, server) = started_knowing(60);
    caught_up(&view, at(0));
    view.evaluated(&decision(10, 3, 5));
    let with = |metric: &str| format!("{{\"target\":\"prod/Deployment/api\",\"metric\":\"{metric}\",\"value\":1}}");
    assert_eq!(post(&server, &with("cpu")).json::<Ingested>().unused, Some(0));
    assert_eq!(post(&server, &with("gpu")).json::<Ingested>().unused, Some(1));
    view.evaluated(&crate::model::Decision { metrics: Vec::new(), ..decision(11, 3, 5) });
    view.signal(at(11), Signal::Policy(policy(1, Some("{}"))));
    assert_eq!(post(&server, &with("gpu")).json::<Ingested>().unused, Some(0));
}

/// A line that is longer than any record takes a multiple of itself to read: it is not.
#[test]
fn a_line_of_very_many_targets_is_refused_by_its_length() {
    let (log, server) = started(4);
    let line = |targets: usize| format!("{{\"targets\":[{}],\"metric\":\"cpu\",\"value\":1}}", vec!["\"a/B/c\""; targets].join(","));
    let ingested: Ingested = post(&server, &format!("{}\n{}\n", line(30_000), line(40_000))).json();
    assert_eq!((ingested.accepted, ingested.rejected, log.samples().len()), (1, 1, 1));
    let reason = &ingested.errors[0].reason;
    assert_eq!(reason, "the line has 320038 bytes, and a sample takes at most 256 KiB; name fewer targets in one line");
}

/// Beyond the rate a request is refused whole, with when to come again; one that could never be taken is told so.
#[test]
fn what_exceeds_the_rate_is_refused_whole() {
    let bounds = Bounds { queue: 4, samples_per_second: NonZeroU32::new(100), room: Arc::new(Room::unlimited()) };
    let (log, server) = started_with(bounds);
    let lines = |count: usize| format!("{GOOD}\n").repeat(count);
    assert_eq!(post(&server, &format!("no sample\n{}", lines(100))).status, 200, "what is no sample does not count");
    let refused = post(&server, &lines(99));
    let problem: Problem = refused.json();
    assert_eq!((refused.status, refused.content_type.as_str(), refused.retry_after.as_deref()), (429, "application/problem+json", Some("1")));
    assert!(problem.title.contains("ingest.samplesPerSecond") && problem.retry_after == Some(1), "{problem:?}");
    let refused = post(&server, &lines(101));
    assert_eq!((refused.status, &refused.retry_after), (413, &None), "{}", refused.body);
    assert!(
        refused.json::<Problem>().title.contains("101 samples, one for each target that it names, and ingest.samplesPerSecond takes 100"),
        "{}",
        refused.body
    );
    let targets: Vec<String> = (0..101).map(|number| format!("\"prod/Deployment/t{number}\"")).collect();
    let refused = post(&server, &format!("{{\"targets\":[{}],\"metric\":\"q\",\"value\":1}}\n", targets.join(",")));
    assert_eq!(refused.status, 413, "one sample of so many targets is as much work: {}", refused.body);
    assert_eq!(log.samples().len(), 100);
}

#[test]
fn requests_that_wait_together_share_one_commit() {
    let log = Arc::new(Double::default());
    let (queue, thread) = appender::start(Arc::clone(&log) as Arc<dyn Log>, 3).unwrap();
    log.set_closed(true);
    let push = || {
        let (done, answer) = oneshot::channel();
        let append = RawAppend { topic: Topic::Metrics, partition: 0, key: None, value: vec![0] };
        queue.push(appender::Job { appends: vec![append], done }).map(|()| answer)
    };
    let first = push().unwrap();
    log.await_append();
    let others: Vec<_> = (0..3).map(|_| push().unwrap()).collect();
    assert_eq!(push().unwrap_err(), appender::Refused::Full);
    log.set_closed(false);
    for answer in std::iter::once(first).chain(others) {
        answer.blocking_recv().unwrap().unwrap();
    }
    let commits: Vec<usize> = log.appended.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(commits, [1, 3]);
    drop(queue);
    thread.join().unwrap();
}

#[test]
fn a_log_that_cannot_append_is_said_to_be_so() {
    let (log, server) = started(4);
    *log.refuse.lock().unwrap() = Some("the disk is full".to_owned());
    let answer = post(&server, GOOD);
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")));
    assert!(answer.json::<Problem>().title.contains("the disk is full"));
    *log.refuse.lock().unwrap() = None;
    assert_eq!(post(&server, GOOD).status, 200, "it goes on when the log does");
}

#[test]
fn a_target_keeps_its_order_in_one_partition_and_no_record_is_too_large() {
    let log = Double::default();
    let long = "i".repeat(250);
    let samples: Vec<Sample> = (0..3_000)
        .map(|n| {
            let line = format!(r#"{{"target":"prod/Deployment/api-{}","metric":"cpu","instance":"{long}","kind":"Gauge","value":{n}}}"#, n % 2);
            wire::jsonl::sample_from_line(&line, Timestamp::from_millis(n)).unwrap()
        })
        .collect();
    let mut filling = parse::Records::new(&log);
    filling.number(Some("p".to_owned()), Some(7));
    samples.into_iter().for_each(|sample| filling.push(sample));
    let records = filling.finish();
    assert!(records.len() > 2, "more than one batch a partition");
    assert!(records.iter().all(|r| r.value.len() < crate::log::MAX_RECORD_BYTES));
    for target in ["prod/Deployment/api-0", "prod/Deployment/api-1"] {
        let of_target: Vec<(u32, f64)> = records
            .iter()
            .flat_map(|record| match wire::decode(Topic::Metrics, &record.value).unwrap() {
                Message::Samples(batch) => batch.samples.into_iter().map(|s| (record.partition, s)).collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .filter(|(_, s)| s.targets[0].as_str() == target)
            .map(|(partition, s)| (partition, s.value))
            .collect();
        assert_eq!(of_target.len(), 1_500);
        assert!(of_target.windows(2).all(|w| w[0].0 == w[1].0 && w[0].1 < w[1].1));
    }
}

/// What is refused now and taken when the same request comes again (or the other way round) moves nothing into another part: each part is told from its
/// repetition by its number alone.
#[test]
fn where_a_part_ends_does_not_depend_on_what_is_left_out() {
    let log = Double::default();
    let long = "i".repeat(250);
    let parts = |is_taken: fn(i64) -> bool| {
        let mut filling = parse::Records::new(&log);
        filling.number(Some("p".to_owned()), Some(7));
        for n in 0..3_000 {
            let line = format!(r#"{{"target":"prod/Deployment/api-{}","metric":"cpu","instance":"{long}","kind":"Gauge","value":{n}}}"#, n % 2);
            let sample = wire::jsonl::sample_from_line(&line, Timestamp::from_millis(n)).unwrap();
            if is_taken(n) { filling.push(sample) } else { filling.leave_out(&sample) }
        }
        let parts = filling.finish().into_iter().map(|record| match wire::decode(Topic::Metrics, &record.value).unwrap() {
            Message::Samples(batch) => ((record.partition, batch.part), batch.samples.iter().map(|sample| sample.value).collect::<Vec<_>>()),
            _ => unreachable!(),
        });
        parts.collect::<std::collections::BTreeMap<_, _>>()
    };
    let (all, some, late) = (parts(|_| true), parts(|n| n % 3 == 0), parts(|n| n > 2_000));
    assert!(all.len() >= 4 && some.len() == all.len() && late.len() < all.len(), "{} {} {}", all.len(), some.len(), late.len());
    for (place, values) in some.iter().chain(&late) {
        let of_all = &all[place];
        assert!(!values.is_empty() && values.iter().all(|value| of_all.contains(value)), "{place:?}");
    }
    assert_eq!(some.values().flatten().count(), 1_000);
}
