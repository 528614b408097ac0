//! A worker as a process: what it refuses, what it finishes, what it pushes.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Uri;
use axum::routing::post;
use loadgen::client::{Answer, Client};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Long enough for any machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(300);

struct Worker {
    process: Child,
    address: String,
}

impl Worker {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["worker", "--port", "0", "--memory-per-request", "64KiB"])
            .args(arguments)
            .env_remove("LOADGEN_REPORT")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on ").unwrap().to_owned();
        Worker { process, address }
    }

    fn uri(&self, path: &str) -> Uri {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn terminate(&self) {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    }

    async fn end(&mut self) -> ExitStatus {
        until("the worker ends", async || self.process.try_wait().unwrap()).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn healthy(client: &Client, worker: &Worker) {
    let uri = worker.uri("/healthz");
    until("it is healthy", async || client.get(&uri, DEADLINE).await.ok().filter(|answer| answer.status == 200)).await;
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn what_finds_no_place_in_the_queue_is_refused_with_a_count() {
    let worker = Worker::start(&["--concurrency", "1", "--queue", "0", "--service-time", "60s", "--report", "off"]);
    let client = Client::new();
    healthy(&client, &worker).await;
    let work = worker.uri("/");
    // One gets the place for a minute; so the first answer is that of the other.
    let refused = tokio::select! {
        answer = client.get(&work, DEADLINE) => answer.unwrap(),
        answer = client.get(&work, DEADLINE) => answer.unwrap(),
    };
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["x-refused"], "full");
    assert!(text(&refused).contains("so far)"), "{}", text(&refused));
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_refuses_the_rest() {
    let mut worker = Worker::start(&["--concurrency", "1", "--queue", "1", "--service-time", "3s", "--report", "off"]);
    let client = Client::new();
    healthy(&client, &worker).await;
    let work = worker.uri("/");
    let mut three = JoinSet::new();
    for _ in 0..3 {
        let (client, work) = (client.clone(), work.clone());
        three.spawn(async move { client.get(&work, DEADLINE).await.unwrap() });
    }
    // Of three, the one without a place is answered first; so the others have theirs, in service and in the queue.
    let first = three.join_next().await.unwrap().unwrap();
    assert_eq!((first.status.as_u16(), &first.headers["x-refused"]), (503, &"full".parse().unwrap()));

    worker.terminate();
    let health = until("it drains", async || client.get(&worker.uri("/healthz"), DEADLINE).await.ok().filter(|answer| answer.status == 503)).await;
    assert_eq!(text(&health), "draining\n");
    let refused = client.get(&work, DEADLINE).await.unwrap();
    assert_eq!((refused.status.as_u16(), &refused.headers["x-refused"]), (503, &"draining".parse().unwrap()));
    while let Some(accepted) = three.join_next().await {
        assert_eq!(accepted.unwrap().status, 200, "what was accepted is served");
    }
    assert!(worker.end().await.success());
}

#[tokio::test]
async fn it_is_not_healthy_while_it_starts_and_ends_when_told_to() {
    let mut worker = Worker::start(&["--startup", "60s", "--report", "off"]);
    let client = Client::new();
    let health = client.get(&worker.uri("/healthz"), DEADLINE).await.unwrap();
    assert_eq!((health.status.as_u16(), text(&health).as_str()), (503, "starting\n"));
    let work = client.get(&worker.uri("/"), DEADLINE).await.unwrap();
    assert_eq!(work.headers["x-refused"], "starting");
    worker.terminate();
    assert!(worker.end().await.success());
}

#[tokio::test]
async fn a_push_that_is_not_taken_comes_again_and_nothing_is_lost() {
    // Refuses the first two pushes, as a full queue and a stall would.
    let pushes: Arc<Mutex<(u32, String)>> = Arc::default();
    let router = axum::Router::new().route(
        "/api/v1/metrics",
        post({
            let pushes = Arc::clone(&pushes);
            async move |body: String| {
                let mut pushes = pushes.lock().unwrap();
                pushes.0 += 1;
                match pushes.0 {
                    1 => (axum::http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]),
                    2 => (axum::http::StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]),
                    _ => {
                        pushes.1.push_str(&body);
                        (axum::http::StatusCode::OK, [("x-nothing", "0")])
                    }
                }
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let report = format!("http://{}/api/v1/metrics", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut worker =
        Worker::start(&["--service-time", "10ms", "--every", "20ms", "--report", &report, "--target", "local/ProcessFleet/shop", "--instance", "shop-7"]);
    let client = Client::new();
    healthy(&client, &worker).await;
    for _ in 0..5 {
        assert_eq!(client.get(&worker.uri("/"), DEADLINE).await.unwrap().status, 200);
    }
    worker.terminate();
    assert!(worker.end().await.success());

    let pushed = pushes.lock().unwrap().1.clone();
    let samples: Vec<serde_json::Value> = pushed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(samples.iter().all(|sample| sample["target"] == "local/ProcessFleet/shop" && sample["instance"] == "shop-7"));
    let of = |metric: &str, kind: &str| samples.iter().filter(|sample| sample["metric"] == metric && sample["kind"] == kind).count();
    let times = samples.iter().rfind(|sample| sample["metric"] == "response_time").unwrap();
    assert_eq!((times["kind"].as_str(), times["count"].as_u64()), (Some("Histogram"), Some(5)));
    assert!(of("connections", "Gauge") > 0 && of("queue_depth", "Gauge") > 0);
    let total = samples.iter().rfind(|sample| sample["metric"] == "rps").unwrap();
    assert_eq!((total["kind"].as_str(), total["value"].as_f64()), (Some("Counter"), Some(5.0)));
}
