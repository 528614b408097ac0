use std::sync::Mutex;

use super::*;
use crate::edge::api::{Decisions, Scaled, TargetDetail};
use crate::edge::ingest::Bounds;
use crate::edge::testing::Running;
use crate::edge::view::Tail;
use crate::edge::view::tests::{api, at, caught_up, command, decision, grant, outcome, policy};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::memory::MemoryLog;
use crate::log::{Batch, Membership, Partitions, Topic};
use crate::model::{AlertState, Audit, Message, Signal};
use crate::runtime::clock::{ManualClock, Stopwatch};
use crate::runtime::retention::{Limits, Reader, Retention};
use crate::wire;

#[derive(Default)]
pub(crate) struct Hand(Mutex<Vec<(String, u32, String)>>);

impl ManualScale for Hand {
    fn scale(&self, target: &TargetId, replicas: u32, actor: &str) -> Result<u32, ScaleError> {
        self.0.lock().unwrap().push((target.to_string(), replicas, actor.to_owned()));
        if replicas > 100 { Err(ScaleError::Refused("its port range has 10 ports".to_owned())) } else { Ok(3) }
    }
}

pub(crate) fn started() -> (Arc<View>, Arc<Hand>, Running) {
    let (services, manual, server) = begin(at(60));
    (services.view, manual, server)
}

pub(crate) fn started_on(now: Timestamp) -> (Services, Running) {
    let (services, _, server) = begin(now);
    (services, server)
}

fn begin(now: Timestamp) -> (Services, Arc<Hand>, Running) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::clone(&clock)));
    let room = Arc::new(Room::unlimited());
    let bounds = Bounds { queue: 4, samples_per_second: None, room: Arc::clone(&room) };
    let (view, manual) = (Arc::new(View::new()), Arc::new(Hand::default()));
    let (ingest, _appender) = Ingest::start(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&view), bounds).unwrap();
    let freeze = FreezeFiles::new("/nonexistent/freeze");
    let services = Services {
        view,
        log,
        room,
        clock,
        ingest: Some(ingest),
        shows: true,
        manual: manual.clone(),
        freeze,
        started_at: at(0),
        live: Live::default(),
        unrecorded: Arc::default(),
    };
    let server = Running::start(router(services.clone()));
    (services, manual, server)
}

/// A process that reads the log after its start is not ready, and takes samples all the same where that does not end; what it shows says that it is not all.
#[test]
fn who_cannot_read_all_of_the_log_takes_samples_after_a_while() {
    for (second, ready) in [(0, 503), (59, 503), (60, 200)] {
        let (services, server) = started_on(at(second));
        assert!(!services.view.is_caught_up());
        assert_eq!(server.get("/readyz").status, ready, "after {second} s");
    }
    let (services, server) = started_on(at(60));
    services.view.signal(at(10), Signal::Fleet(crate::edge::view::tests::fleet(1, 3, 3)));
    let reason = || server.get("/api/v1/status").json::<Status>().targets[0].reason.clone();
    assert_eq!(reason(), "what policy it has is not known yet: the log is still being read");
    caught_up(&services.view, at(60));
    assert_eq!(reason(), "no policy names it");
}

/// Who has not the role says that, and not that there is nothing to be seen.
#[test]
fn who_lacks_a_role_says_so() {
    let (services, _) = started_on(at(60));
    let server = Running::start(router(Services { shows: false, ingest: None, ..services }));
    for path in ["/", "/api/v1/status", "/api/v1/targets/prod/Deployment/api"] {
        let answer = server.get(path);
        assert!(answer.status == 404 && answer.body.contains("it has not the role view"), "{path}: {answer:?}");
    }
    let answer = server.post("/api/v1/metrics", "application/x-ndjson", b"{}");
    assert!(answer.status == 404 && answer.body.contains("it has not the role ingest"), "{answer:?}");
    assert_eq!((server.get("/readyz").status, server.get("/metrics").status), (200, 200));
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
    let (ingest, _appender) = Ingest::start(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&view), bounds).unwrap();
    let (room, freeze) = (retention.room(), FreezeFiles::new("/nonexistent/freeze"));
    let manual = Arc::new(Hand::default());
    let server = Running::start(router(Services {
        view,
        log: Arc::clone(&log),
        room,
        clock,
        ingest: Some(ingest),
        shows: true,
        manual,
        freeze,
        started_at: at(0),
        live: Live::default(),
        unrecorded: Arc::default(),
    }));
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
    let (_, server) = started_on(at(59));
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
        ("/api/v1/targets/prod/Deployment/api/decisions?until=5", 400, "there is no parameter until", "at, before and limit"),
        ("/api/v1/targets/prod/Deployment/api/decisions?before=5", 400, "\"5\" is no place", "next of the page before"),
        ("/api/v1/targets/prod/Deployment/api/decisions?before=5.1&at=5", 400, "exclude each other", "one of them"),
        ("/api/v1/targets/prod/Deployment/ap/series", 404, "there is no target", "did you mean prod/Deployment/api?"),
        ("/api/v1/targets/prod/Deployment/api/series?range=2h", 400, "\"2h\" is not one of the choices", "15m, 1h or 24h"),
        ("/api/v1/targets/prod/Deployment/ap/signals", 404, "there is no target", "did you mean prod/Deployment/api?"),
        ("/api/v1/targets/prod/Deployment/api/signals?before=x", 400, "\"x\" is no place", "next of the page before"),
        ("/api/v1/targets?limit=1001", 400, "\"1001\" is no limit", "1 to 1000"),
        ("/api/v1/targets?show=some", 400, "\"some\" is not one of the choices", "all, attention or scaling"),
        ("/api/v1/targets?after=x", 400, "after names no target", "next of the page before"),
        ("/api/v1/nothing", 404, "there is nothing here", "/api/v1/status"),
        ("/api/v1/metrics", 405, "GET is not for this path", "POST"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.content_type.as_str()), (status, "application/problem+json"), "{path}: {}", answer.body);
        let problem: Problem = answer.json();
        assert!(problem.title.contains(title) && problem.mend.contains(mend), "{path}: {problem:?}");
    }
}

/// Every page once, none twice, to the end.
#[test]
fn lists_come_in_pages_that_lead_to_each_other() {
    let (services, server) = started_on(at(60));
    for name in ["a", "b", "c", "other"] {
        let target: TargetId = format!("prod/Deployment/{name}").parse().unwrap();
        services.view.evaluated(&crate::model::Decision { target, ..decision(10, 3, 5) });
    }
    let (mut next, mut names) = (Some("/api/v1/targets?limit=1&filter=DEPLOYMENT%2F".to_owned()), Vec::new());
    while let Some(path) = next {
        let page: crate::edge::api::Targets = server.get(&path).json();
        assert_eq!(page.matching, 4);
        names.extend(page.targets.iter().map(|target| target.target.name().to_owned()));
        next = page.next;
    }
    assert_eq!(names, ["a", "b", "c", "other"]);

    // Two of one millisecond, and the oldest in the log alone: the memory of the view begins later.
    let mut effects = crate::stages::Effects::new();
    for sequence in 1..=5 {
        let decision = crate::model::Decision { sequence, ..decision(sequence / 2 * 10, 3, 5) };
        if sequence > 2 {
            services.view.audit(at(60), Audit::Decision(decision.clone()));
        }
        effects.to_key(Topic::Audit, api().as_str(), crate::model::Message::Audit(Audit::Decision(decision)));
    }
    crate::runtime::publish(&*services.log, effects).unwrap();
    let (mut next, mut sequences) = (Some("/api/v1/targets/prod/Deployment/api/decisions?limit=2".to_owned()), Vec::new());
    while let Some(path) = next {
        let page: Decisions = server.get(&path).json();
        sequences.extend(page.decisions.iter().rev().map(|story| story.decision.sequence));
        next = page.next;
    }
    assert_eq!(sequences, [5, 4, 3, 2, 1]);

    let mut effects = crate::stages::Effects::new();
    for sequence in 0..5 {
        for target in [api(), "prod/Deployment/a".parse().unwrap()] {
            let fleet = crate::model::FleetObservation { target: target.clone(), ..crate::edge::view::tests::fleet(sequence, 3, 3) };
            effects.to_key(Topic::Signals, target.as_str(), crate::model::Message::Signal(crate::model::Signal::Fleet(fleet)));
        }
    }
    crate::runtime::publish(&*services.log, effects).unwrap();
    let (mut next, mut sequences) = (Some("/api/v1/targets/prod/Deployment/api/signals?limit=2".to_owned()), Vec::new());
    while let Some(path) = next {
        let page: serde_json::Value = server.get(&path).json();
        sequences.extend(page["signals"].as_array().unwrap().iter().rev().map(|signal| signal["fleet"]["sequence"].as_i64().unwrap()));
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(sequences, [4, 3, 2, 1, 0]);
}

/// What others wrote is text in a page, whatever it holds.
#[test]
fn markup_in_what_others_wrote_is_text() {
    let (services, server) = started_on(at(60));
    let hostile = "<script>alert(1)</script>\"'&";
    let mut decision = decision(10, 3, 5);
    decision.metrics[1].note = Some(hostile.to_owned());
    decision.policy_version = hostile.to_owned();
    services.view.evaluated(&decision);
    services.view.audit(at(10), Audit::Decision(decision));
    let alert = crate::edge::view::tests::alert(AlertState::Firing);
    services.view.alert(crate::model::Alert { message: hostile.to_owned(), ..alert });
    for path in ["/".to_owned(), "/?filter=%3Cscript%3Ealert(1)".to_owned(), "/targets/prod/Deployment/api".to_owned(), "/targets/%3Cscript%3E/b/c".to_owned()]
    {
        let page = server.get(&path);
        assert_eq!(page.content_type, "text/html; charset=utf-8", "{path}");
        assert!(!page.body.contains("<script>") && page.body.contains("&lt;script&gt;"), "{path}: {}", page.body);
    }
}

#[test]
fn what_another_sites_page_makes_a_browser_send_is_refused() {
    let (_, hand, server) = started();
    let sent = |name: &str, value: &str| {
        let request = ureq::post(format!("{}/api/v1/targets/prod/Deployment/api/scale", server.base)).config().http_status_as_error(false).build();
        request.header(name, value).send(r#"{"replicas":8,"actor":"ana"}"#).unwrap().status().as_u16()
    };
    for site in ["cross-site", "same-site"] {
        assert_eq!((sent("sec-fetch-site", site), hand.0.lock().unwrap().len()), (403, 0), "{site}");
    }
    // Browsers say only this of what goes over plain HTTP to another machine.
    for origin in ["http://evil.example", "https://127.0.0.1", "null", "http://127.0.0.1:1"] {
        assert_eq!((sent("origin", origin), hand.0.lock().unwrap().len()), (403, 0), "{origin}");
    }
    assert_ne!(sent("origin", &server.base), 403, "its own page may");
    assert_ne!(sent("sec-fetch-site", "same-origin"), 403);
}

#[test]
fn a_path_that_is_no_text_is_a_problem_as_any_other() {
    let (_, _, server) = started();
    for (path, status) in
        [("/api/v1/targets/%ff/Deployment/api", 400), ("/api/v1/targets/%C3%A9/Deployment/api", 404), ("/api/v1/targets/%4/Deployment/api", 404)]
    {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.content_type.as_str()), (status, "application/problem+json"), "{path}: {}", answer.body);
    }
}

#[test]
fn scaling_by_hand_is_passed_on_and_recorded() {
    let (view, hand, server) = started();
    // Long before the request: what is not known by then is not there.
    caught_up(&view, at(0));
    let post = |body: &str| server.post("/api/v1/targets/prod/Deployment/api/scale", "application/json", body.as_bytes());
    let scaled: Scaled = post(r#"{"replicas":8,"actor":"ana"}"#).json();
    assert_eq!((scaled.from, scaled.to, scaled.note.as_str()), (3, 8, "there is no policy for it, so it stays"));
    let long = format!(r#"{{"replicas":8,"actor":"ana","reason":"{}"}}"#, "ä".repeat(1001));
    for (body, status, title, place) in [
        (r#"{"replicas":8}"#, 400, r#""actor" is missing"#, "actor"),
        (r#"{"replicas":8,"actor":" "}"#, 400, "actor is empty", "actor"),
        (r#"{"replicas":-1,"actor":"ana"}"#, 400, r#""replicas" is -1, and must be a whole number from 0 to 4294967295"#, "replicas"),
        (r#"{"replicas":8,"actor":"ana","reson":"launch"}"#, 400, r#"unknown field "reson"; did you mean "reason"?"#, "reson"),
        (r#"{"replicas":8,"actor":"ana""#, 400, "not JSON at column 27: it ends too early", "body"),
        (r#"{"replicas":8,"actor":"ana\u001b[2J"}"#, 400, r"actor has a control character, \u{1b}", "actor"),
        (r#"{"replicas":8,"actor":"ana","reason":"a\nb"}"#, 400, r"reason has a control character, \u{a}", "reason"),
        (&long, 400, "reason has 1001 characters, and may have 1000", "reason"),
        (r#"{"replicas":101,"actor":"ana"}"#, 409, "its port range has 10 ports", "prod/Deployment/api"),
    ] {
        let answer = post(body);
        let problem: Problem = answer.json();
        assert_eq!((answer.status, problem.title.as_str(), problem.place.as_str()), (status, title, place), "{body}");
    }
    let asked = hand.0.lock().unwrap();
    assert_eq!(*asked, [("prod/Deployment/api".to_owned(), 8, "ana".to_owned()), ("prod/Deployment/api".to_owned(), 101, "ana".to_owned())]);
}

/// A slip of the finger, 300 for 30, does not start 300: who means it says so, and the record says that they did.
#[test]
fn a_count_beyond_the_policys_bounds_is_refused_unless_it_is_meant() {
    let (services, hand, server) = begin(at(60));
    let view = &services.view;
    let bounds = |mode: &str, bounds: &str| {
        format!(
            r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"api"}},"mode":"{mode}","replicas":{bounds},"metrics":[{{"name":"rps","track":{{"perReplica":100}}}}]}}"#
        )
    };
    let post = |body: &str| server.post("/api/v1/targets/prod/Deployment/api/scale", "application/json", body.as_bytes());
    let mut generation = 0;
    let mut announce = |mode: &str, written: &str| {
        generation += 1;
        view.signal(at(1), Signal::Policy(policy(generation, Some(&bounds(mode, written)))));
    };
    announce("Active", r#"{"min":2,"max":30}"#);
    for (body, title, mend) in [
        (
            r#"{"replicas":50,"actor":"ana"}"#,
            "50 is more than the maximum, 30, of the policy of prod/Deployment/api (/etc/loadline/policies/api.yaml@1)",
            "set 2 to 30, or say that 50 is meant, with --force (in a request \"force\":true)",
        ),
        (
            r#"{"replicas":1,"actor":"ana","force":false}"#,
            "1 is less than the minimum, 2, of the policy of prod/Deployment/api (/etc/loadline/policies/api.yaml@1)",
            "set 2 to 30, or say that 1 is meant, with --force (in a request \"force\":true)",
        ),
        (
            r#"{"replicas":0,"actor":"ana"}"#,
            "0 is less than the minimum, 2, of the policy of prod/Deployment/api (/etc/loadline/policies/api.yaml@1)",
            "set 2 to 30, or say that 0 is meant, with --force (in a request \"force\":true); at 0 it is left alone until somebody sets it above 0",
        ),
    ] {
        let answer = post(body);
        let problem: Problem = answer.json();
        assert_eq!((answer.status, problem.title.as_str(), problem.place.as_str(), problem.mend.as_str()), (409, title, "replicas", mend), "{body}");
    }
    assert!(hand.0.lock().unwrap().is_empty(), "nothing was set");
    let done = |replicas: u32, force: bool| {
        let answer = post(&format!(r#"{{"replicas":{replicas},"actor":"ana","force":{force}}}"#));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json::<Scaled>().note
    };
    assert_eq!(done(30, false), "its policy goes on from there; set mode: Off to hold it");
    assert_eq!(done(50, true), "its policy's maximum is 30, so it shrinks to that; set mode: Off to hold it");
    assert_eq!(done(1, true), "its policy's minimum is 2, so it goes back to that at once; set mode: Off to hold it");
    assert_eq!(done(0, true), "a target that was set to 0 by hand is left alone until it is set above 0");
    assert_eq!(done(2, true), "its policy goes on from there; set mode: Off to hold it");
    // The bounds were written with care whatever the mode is.
    announce("Off", r#"{"max":30}"#);
    assert_eq!(post(r#"{"replicas":50,"actor":"ana"}"#).status, 409);
    assert_eq!(done(50, true), "its policy's mode is Off, so it stays");
    announce("OutOnly", r#"{"max":30}"#);
    assert_eq!(done(50, true), "its policy's maximum is 30, and its mode, OutOnly, lets nothing shrink; so it stays");
    let recorded = services.log.scan(Topic::Audit, 0, 0, 100).unwrap();
    let forced = recorded.iter().map(|record| match wire::decode(Topic::Audit, &record.value).unwrap() {
        Message::Audit(Audit::ByHand(change)) => (change.to, change.forced),
        other => panic!("{other:?}"),
    });
    assert_eq!(forced.collect::<Vec<_>>(), [(30, false), (50, true), (1, true), (0, true), (2, false), (50, true), (50, true)]);
}

/// What is not known is said, and nothing is taken for unbounded in silence.
#[test]
fn a_count_that_cannot_be_held_against_a_policy_says_so() {
    let (view, _, server) = started();
    let note = || {
        let scaled: Scaled = server.post("/api/v1/targets/prod/Deployment/api/scale", "application/json", br#"{"replicas":50,"actor":"ana"}"#).json();
        scaled.note
    };
    let not_known = "what its policy allows is not known now, so 50 was not held against its bounds; see `loadline status`";
    assert_eq!(note(), not_known, "the log has not been read to its end");
    view.evaluated(&decision(10, 3, 5));
    caught_up(&view, at(0));
    assert_eq!(note(), not_known, "it was evaluated, and its policy is older than what was read");
    view.signal(at(1), Signal::Policy(policy(1, Some(r#"{"replicas":"many"}"#))));
    assert_eq!(note(), not_known, "a policy of another version");
    view.signal(at(1), Signal::Policy(policy(2, None)));
    assert_eq!(note(), "there is no policy for it, so it stays");
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
    let hosts = Hosts::new(listener.local_addr().unwrap(), &[]);
    let serving = serve(listener, Router::new(), hosts, std::future::ready(()));
    tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap().unwrap();
}

/// What answers to `host` on a server of loopback that also answers to `scaling.example.com`.
async fn ask(host: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let hosts = Hosts::new(address, &["scaling.example.com".to_owned()]);
    let router = Router::new().route("/healthz", get(|| async { "ok" }));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router, hosts, async move { drop(ended.await) }));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    drop(end);
    server.await.unwrap().unwrap();
    answer
}

/// A name that was made to lead here by someone else is not answered, and the answer says how to be.
#[tokio::test]
async fn a_foreign_host_is_refused_on_loopback() {
    let refused = ask("evil.example:8080").await;
    assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
    assert!(refused.contains("does not answer to the name evil.example") && refused.contains("hosts: [evil.example]"), "{refused}");
    for host in ["127.0.0.1:8080", "localhost", "[::1]:8080", "scaling.example.com"] {
        let answer = ask(host).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{host}: {answer}");
    }
}

/// A browser keeps the files of the pages: for good under the address that the pages name, else after asking whether they are the same.
#[test]
fn the_files_of_the_pages_are_kept_by_browsers() {
    let (_, _, server) = started();
    let page = server.get("/").body;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let links: Vec<&str> = page.split('"').filter(|text| text.starts_with("/assets/")).collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links {
        let url = format!("{}{link}", server.base);
        let whole = agent.get(&url).call().unwrap();
        let header = |name: &str| whole.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        assert_eq!(header("cache-control"), "public, max-age=31536000, immutable", "{link}");
        let tag = header("etag");
        let plain = url.split('?').next().unwrap();
        let again = agent.get(plain).header("if-none-match", format!("\"other\", {tag}")).call().unwrap();
        assert_eq!((again.status().as_u16(), again.headers()["cache-control"].to_str().unwrap()), (304, "no-cache"), "{link}");
        assert_eq!(agent.get(plain).header("if-none-match", "\"other\"").call().unwrap().status().as_u16(), 200, "{link}");
    }
}

/// What is asked for wrongly is told in words, with what may be asked for; not in those of the library that read it.
#[test]
fn a_wrong_parameter_is_told_in_words() {
    let (_, _, server) = started();
    for (path, said) in [
        ("/?show=bogus", ["&quot;bogus&quot; is not one of the choices", "show is all, attention or scaling"]),
        ("/?sho=all", ["there is no parameter sho", "filter is a part of a name"]),
        ("/?page=x", ["the value of page is not understood", "page is a number from 1"]),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert!(said.iter().all(|said| answer.body.contains(said)), "{path}: {}", answer.body);
        assert!(!answer.body.contains("variant") && !answer.body.contains("deserialize"), "{path}: {}", answer.body);
    }
}

/// What people did by hand stands between the decisions in the order of time, not inside one as if it had caused it.
#[test]
fn a_change_by_hand_stands_between_decisions() {
    let (view, _, server) = started();
    let by_hand = |to| Audit::ByHand(crate::model::ManualChange { target: api(), from: 3, to, actor: "ana".to_owned(), reason: None, forced: false });
    for (second, entry) in [(10, Audit::Decision(decision(10, 3, 5))), (12, by_hand(7)), (20, Audit::Decision(decision(20, 5, 6))), (30, by_hand(9))] {
        view.audit(at(second), entry);
    }
    let page = server.get("/targets/prod/Deployment/api").body;
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not there: {page}"));
    let (newest, older) = (place("id=\"d20\""), place("id=\"d10\""));
    assert!(place("3 → 9") < newest && newest < place("3 → 7") && place("3 → 7") < older);
    let inside = &page[newest..place("3 → 7")];
    assert!(inside.contains("</details>"), "it is no part of the decision above it");
}

/// What was decided and never carried out does not read like what was: not green, and why.
#[test]
fn a_decision_that_was_not_carried_out_says_so_in_its_line() {
    let (view, _, server) = started();
    let row = |second: i64| {
        let page = server.get("/targets/prod/Deployment/api").body;
        let row = page.split(&format!("id=\"d{second}\"")).nth(1).and_then(|rest| rest.split("</summary>").next()).unwrap_or_default().to_owned();
        assert!(row.contains("3 → 5"), "{page}");
        row
    };
    let but = |audit: Audit, change: &dyn Fn(&mut crate::model::Grant, &mut crate::model::Outcome)| {
        let (Audit::Grant(mut granted), Audit::Outcome(mut came)) = (grant(20, 3, 5), outcome(30, 3)) else { unreachable!() };
        change(&mut granted, &mut came);
        if matches!(audit, Audit::Grant(_)) { Audit::Grant(granted) } else { Audit::Outcome(came) }
    };
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    assert!(row(10).contains("class=\"calm\">scales out<") && row(10).contains("The arbiter has not answered yet."), "{}", row(10));
    for entry in [grant(10, 3, 5), command(10, 3, 5)] {
        view.audit(at(11), entry);
    }
    assert!(row(10).contains("class=\"calm\"") && row(10).contains("What came of the command is not known yet."), "{}", row(10));
    view.audit(at(12), outcome(10, 5));
    assert!(row(10).contains("class=\"out\">scales out<") && !row(10).contains("undone"), "{}", row(10));
    view.audit(at(20), Audit::Decision(decision(20, 3, 5)));
    let freeze = |grant: &mut crate::model::Grant, _: &mut crate::model::Outcome| {
        (grant.granted, grant.limit, grant.command) = (3, crate::model::GrantLimit::Freeze, None);
    };
    view.audit(at(21), but(grant(20, 3, 5), &freeze));
    assert!(row(20).contains("class=\"bad\">frozen (would scale out)<") && row(20).contains("A freeze is in force: nothing is issued"), "{}", row(20));
    view.audit(at(30), Audit::Decision(decision(30, 3, 5)));
    view.audit(at(31), command(30, 3, 5));
    let fail = |_: &mut crate::model::Grant, outcome: &mut crate::model::Outcome| {
        (outcome.result, outcome.error) = (crate::model::OutcomeResult::Failed, Some("no such program".to_owned()));
    };
    view.audit(at(32), but(outcome(30, 3), &fail));
    assert!(row(30).contains("class=\"calm\">scales out<"), "{}", row(30));
    assert!(row(30).contains("Not applied: the call failed (no such program); 3 replicas now"), "{}", row(30));
}

/// What has no value and holds nothing back is not said to; and what is not carried out does not read or count as if it were.
#[test]
fn the_page_says_only_what_is_so() {
    let (view, _, server) = started();
    let mut made = decision(10, 3, 5);
    made.advised = true;
    made.metrics[1].while_blind = crate::model::WhileBlind::Ignore;
    view.audit(at(10), Audit::Decision(made));
    let spec = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"api"},"mode":"Advise","replicas":{"min":1,"max":9},"metrics":[{"name":"cpu","track":{"utilization":"70%"}}]}"#;
    let order = crate::model::Order { source: "file".to_owned(), generation: 1 };
    view.signal(at(10), crate::model::Signal::Policy(crate::model::PolicyAnnouncement { target: api(), spec: Some(spec.to_owned()), order }));
    let page = server.get("/").body;
    assert!(page.contains("would scale out (advises)") && !page.contains(">scales out<"), "{page}");
    assert!(page.contains("Scaling <span class=\"n\">0</span>"), "{page}");
    assert!(page.contains("queue_depth: the other metrics decide without it") && !page.contains("nothing is removed"), "{page}");
    let status: Status = server.get("/api/v1/status").json();
    assert_eq!((status.targets[0].blind.len(), status.targets[0].blind_ignored.as_slice()), (0, ["queue_depth".to_owned()].as_slice()));
    // Its replicas were never seen and it has no policy of its own: there is no chart, and why.
    let order = crate::model::Order { source: "file".to_owned(), generation: 1 };
    let other: TargetId = "prod/Deployment/other".parse().unwrap();
    view.signal(
        at(11),
        crate::model::Signal::Policy(crate::model::PolicyAnnouncement {
            target: other,
            spec: Some(spec.replace("\"name\":\"api\"", "\"name\":\"other\"")),
            order,
        }),
    );
    // What is off is not waiting for a decision.
    let off = spec.replace("Advise", "Off").replace("\"name\":\"api\"", "\"name\":\"idle\"");
    let order = crate::model::Order { source: "file".to_owned(), generation: 1 };
    let idle: TargetId = "prod/Deployment/idle".parse().unwrap();
    view.signal(at(11), crate::model::Signal::Policy(crate::model::PolicyAnnouncement { target: idle, spec: Some(off), order }));
    for page in ["/", "/targets/prod/Deployment/idle"] {
        let page = server.get(page).body;
        assert!(page.contains("<span class=\"calm\">off</span>"), "{page}");
    }
    let page = server.get("/targets/prod/Deployment/other").body;
    assert!(page.contains("Its replicas have never been seen") && page.contains("<div class=\"charts\" id=\"charts\" hidden"), "{page}");
}
