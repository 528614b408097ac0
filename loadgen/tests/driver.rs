//! The driver against real workers' kind of answers: who gets how much, what counts as lost.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use loadgen::drive::Driver;
use loadgen::drive::arrivals::Arrivals;
use loadgen::drive::endpoints::Watch;
use loadgen::drive::load::{Load, Shape};
use loadgen::drive::measure::Totals;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(300);

/// A server that answers `status` with the header `x-refused: why`, and counts.
async fn server(status: StatusCode, why: &'static str) -> (String, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let router = axum::Router::new().fallback(async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        (status, [("x-refused", why)])
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, count)
}

/// Drives at `endpoints` until `enough`.
async fn drive(endpoints: &[&str], enough: impl Fn(Totals) -> bool) -> Totals {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints.json");
    std::fs::write(&file, serde_json::json!([{ "targets": endpoints }]).to_string()).unwrap();
    let load = Load::shape(Shape::Constant, 200.0, 0.0, Duration::from_secs(60)).unwrap();
    let driver = Arc::new(Driver::new(DEADLINE));
    let seen = async {
        let end = Instant::now() + DEADLINE;
        loop {
            let totals = driver.snapshot().totals;
            if enough(totals) {
                return totals;
            }
            assert!(Instant::now() < end, "not within {DEADLINE:?}: {totals:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = Arc::clone(&driver).run(Arrivals::new(load, 1), Watch::new(file)) => unreachable!("it runs for ever"),
        totals = seen => totals,
    }
}

#[tokio::test]
async fn endpoints_share_the_load() {
    let (one, one_count) = server(StatusCode::OK, "").await;
    let (two, two_count) = server(StatusCode::OK, "").await;
    let totals = drive(&[&one, &two], |totals| totals.served >= 200).await;
    assert_eq!(totals.lost(), 0);
    let (one, two) = (one_count.load(Ordering::SeqCst), two_count.load(Ordering::SeqCst));
    assert!(one.min(two) * 3 > one.max(two), "{one} and {two}");
}

#[tokio::test]
async fn a_draining_endpoint_and_one_that_is_gone_lose_nothing() {
    let (serving, _) = server(StatusCode::OK, "").await;
    let (draining, _) = server(StatusCode::SERVICE_UNAVAILABLE, "draining").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let totals = drive(&[&serving, &draining], |totals| totals.served >= 100 && totals.retried >= 20).await;
    assert_eq!(totals.lost(), 0);
    let totals = drive(&[&serving, &gone], |totals| totals.served >= 100 && totals.retried >= 20).await;
    assert_eq!(totals.lost(), 0);
}

#[tokio::test]
async fn shed_load_and_missing_endpoints_are_counted_each_as_what_they_are() {
    let (full, _) = server(StatusCode::SERVICE_UNAVAILABLE, "full").await;
    let (broken, _) = server(StatusCode::INTERNAL_SERVER_ERROR, "").await;
    let totals = drive(&[&full], |totals| totals.shed >= 20).await;
    assert_eq!((totals.served, totals.failed, totals.unserved, totals.retried), (0, 0, 0, 0));
    let totals = drive(&[&broken], |totals| totals.failed >= 20).await;
    assert_eq!((totals.served, totals.shed), (0, 0));
    // One may be sent before the file is looked at first, so only these are looked for.
    let totals = drive(&[], |totals| totals.unserved >= 20).await;
    assert_eq!((totals.served, totals.shed, totals.failed), (0, 0, 0));
}
