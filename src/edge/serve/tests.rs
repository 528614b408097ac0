use std::sync::Mutex;

use super::*;
use crate::edge::api::{Decisions, Scaled, TargetDetail};
use crate::edge::ingest::Bounds;
use crate::edge::testing::Running;
use crate::edge::view::Tail;
use crate::edge::view::tests::{api, at, command, decision, grant, outcome};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::memory::MemoryLog;
use crate::log::{Batch, Membership, Partitions, Topic};
use crate::model::Audit;
use crate::runtime::clock::{ManualClock, Stopwatch};
use crate::runtime::retention::{Limits, Reader, Retention};

#[derive(Default)]
pub(crate) struct Hand(Mutex<Vec<(String, u32, String)>>);

impl ManualScale for Hand {
    fn scale(&self, target: &TargetId, replicas: u32, actor: &str) -> Result<u32, ScaleError> {
        self.0.lock().unwrap().push((target.to_string(), replicas, actor.to_owned()));
        if replicas > 100 { Err(ScaleError::Refused("its port range has 10 ports".to_owned())) } else { Ok(3) }
    }
}

pub(crate) fn started() -> (Arc<View>, Arc<Hand>, Running) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(at(60)));
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::clone(&clock)));
    let room = Arc::new(Room::unlimited());
    let bounds = Bounds { queue: 4, samples_per_second: None, room: Arc::clone(&room) };
    let (ingest, _appender) = Ingest::start(Arc::clone(&log), Arc::clone(&clock), bounds).unwrap();
    let (view, manual) = (Arc::new(View::new()), Arc::new(Hand::default()));
    let freeze = FreezeFiles::new("/nonexistent/freeze");
    let services = Services { view: Arc::clone(&view), log, room, clock, ingest, manual: manual.clone(), freeze, started_at: at(0) };
    (view, manual, Running::start(router(services)))
}

/// A log that is full refuses samples and says so wherever one looks, and takes them again when somebody has read on.
#[test]
fn a_full_log_refuses_samples_says_why_and_takes_them_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(at(60)));
    let embedded = EmbeddedLog::open(directory.path(), Arc::clone(&clock), Options::default()).unwrap();
    let log: Arc<dyn Log> = Arc::new(embedded.clone());
    let readers = vec![Reader::group("aggregate", Topic::Metrics)];
    let retention = Retention::start(embedded, Arc::clone(&clock), readers, Limits { size: 1_600_000, ..Limits::default() }).unwrap();
    let view = Arc::new(View::new());
    let _tail = Tail::start(&view, &log, &clock, &[], |_| {}).unwrap();
    let bounds = Bounds { queue: 4, samples_per_second: None, room: retention.room() };
    let (ingest, _appender) = Ingest::start(Arc::clone(&log), Arc::clone(&clock), bounds).unwrap();
    let (room, freeze) = (retention.room(), FreezeFiles::new("/nonexistent/freeze"));
    let manual = Arc::new(Hand::default());
    let server = Running::start(router(Services { view, log: Arc::clone(&log), room, clock, ingest, manual, freeze, started_at: at(0) }));
    let until = |what: &str, there: &dyn Fn() -> bool| {
        let waited = Stopwatch::start();
        while !there() {
            assert!(waited.elapsed() < Duration::from_secs(60), "{what} did not come");
            std::thread::yield_now();
        }
    };
    let status = || server.get("/api/v1/status").json::<Status>();
    until("readiness", &|| server.get("/readyz").status == 200);

    let body = format!("{{\"target\":\"prod/Deployment/api\",\"metric\":\"cpu\",\"instance\":\"{}\",\"value\":1}}\n", "i".repeat(200)).repeat(500);
    let post = || server.post("/api/v1/metrics", "application/x-ndjson", body.as_bytes());
    until("the end of the room", &|| post().status == 429);
    until("the reason", &|| post().json::<Problem>().title.contains("the log is full"));
    let (refused, end) = (post(), log.range(Topic::Metrics, 0).unwrap().end);
    let problem: Problem = refused.json();
    assert_eq!((refused.status, refused.retry_after.as_deref(), problem.retry_after), (429, Some("5"), Some(5)));
    assert!(problem.title.contains("of metrics/0 stay, since aggregate has read nothing yet") && problem.mend.contains("retention.size"), "{problem:?}");
    assert_eq!(log.range(Topic::Metrics, 0).unwrap().end, end, "nothing of it was appended");
    until("the alert", &|| status().alerts.iter().any(|alert| alert.name == "LogFull" && alert.state == AlertState::Firing));
    assert_eq!(status().log.unwrap().pressure, Pressure::Full);
    let unready = server.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.json::<Problem>().title.contains("the log is full"), "{}", unready.body);

    let mut session = log.join(Membership { group: "aggregate", member: "one".to_owned(), topic: Topic::Metrics }).unwrap();
    session.poll(1, Duration::ZERO).unwrap();
    session.commit(&Batch { position: Some(end), ..Batch::default() }).unwrap();
    until("room", &|| post().status == 200);
    until("the end of the alert", &|| status().alerts.is_empty());
    assert_eq!(server.get("/readyz").status, 200);
    assert!(log.range(Topic::Metrics, 0).unwrap().start > 0);
    retention.stop().unwrap();
}

#[test]
fn status_target_and_decisions_answer_from_the_view() {
    let (view, _, server) = started();
    for entry in [Audit::Decision(decision(10, 3, 5)), grant(10, 3, 5), command(10, 3, 5), outcome(10, 5), Audit::Decision(decision(20, 5, 6))] {
        view.audit(at(11), entry);
    }
    let status: Status = server.get("/api/v1/status").json();
    assert_eq!((status.started_at, status.at, status.targets[0].desired), (at(0), at(60), Some(6)));
    let detail: TargetDetail = server.get("/api/v1/targets/prod/Deployment/api").json();
    assert_eq!(detail.last.unwrap().decision.desired, 6);
    for query in ["limit=1&at=2025-11-24T16:00:15Z".to_owned(), format!("at={}", at(15).as_millis())] {
        let found: Decisions = server.get(&format!("/api/v1/targets/prod/Deployment/api/decisions?{query}")).json();
        assert_eq!((found.target, found.decisions[0].decision.sequence, found.decisions[0].outcomes.len()), (api(), 10, 1), "{query}");
    }
}

#[test]
fn health_is_there_at_once_and_readiness_when_the_log_was_read() {
    let (_, _, server) = started();
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 503));
}

#[test]
fn problems_say_what_where_and_the_way_out() {
    let (view, _, server) = started();
    view.audit(at(11), Audit::Decision(decision(10, 3, 5)));
    for (path, status, title, mend) in [
        ("/api/v1/targets/prod/Deployment/ap", 404, "there is no target prod/Deployment/ap", "did you mean prod/Deployment/api?"),
        ("/api/v1/targets/prod/Deployment/other/decisions", 404, "there is no target", "there are: prod/Deployment/api"),
        ("/api/v1/targets/prod/Deployment/api/decisions?at=noon", 400, "\"noon\" is no time", "RFC 3339"),
        ("/api/v1/targets/prod/Deployment/api/decisions?limit=0", 400, "\"0\" is no limit", "1 to 200"),
        ("/api/v1/targets/prod/Deployment/api/decisions?until=5", 400, "unknown field `until`", "at and limit"),
        ("/api/v1/nothing", 404, "there is nothing here", "/api/v1/status"),
        ("/api/v1/metrics", 405, "GET is not for this path", "POST"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.content_type.as_str()), (status, "application/problem+json"), "{path}: {}", answer.body);
        let problem: Problem = answer.json();
        assert!(problem.title.contains(title) && problem.mend.contains(mend), "{path}: {problem:?}");
    }
}

#[test]
fn scaling_by_hand_is_passed_on_and_recorded() {
    let (view, hand, server) = started();
    view.audit(at(11), Audit::Decision(decision(10, 3, 5)));
    let post = |body: &str| server.post("/api/v1/targets/prod/Deployment/api/scale", "application/json", body.as_bytes());
    let scaled: Scaled = post(r#"{"replicas":8,"actor":"ana"}"#).json();
    assert_eq!((scaled.from, scaled.to, scaled.note.as_str()), (3, 8, "there is no policy for it, so it stays"));
    for (body, status, title) in [
        (r#"{"replicas":8}"#, 400, "missing field `actor`"),
        (r#"{"replicas":8,"actor":" "}"#, 400, "actor is empty"),
        (r#"{"replicas":-1,"actor":"ana"}"#, 400, "invalid value"),
        (r#"{"replicas":101,"actor":"ana"}"#, 409, "its port range has 10 ports"),
    ] {
        let answer = post(body);
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.json::<Problem>().title.contains(title), "{}", answer.body);
    }
    let asked = hand.0.lock().unwrap();
    assert_eq!(*asked, [("prod/Deployment/api".to_owned(), 8, "ana".to_owned()), ("prod/Deployment/api".to_owned(), 101, "ana".to_owned())]);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_how_to_choose_another() {
    let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("port {} of 127.0.0.1 is in use", address.port())) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn the_server_stops_when_it_is_told_to() {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let serving = serve(listener, Router::new(), std::future::ready(()));
    tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap().unwrap();
}
