//! The pages in a real Chromium: a person looks at the fleet, by mouse, by keyboard, on a phone, in the dark, and is told when what
//! is shown is no longer so.
//!
//! `tests/page/run.mjs` drives the browser; here are the Loadlines that it looks at, real ones. Screenshots are left in
//! `target/page-tests/shots`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::fmt::Write;
use std::process::Command;

#[path = "page/drive.rs"]
mod drive;

use common::{FLEET, LOADLINE, Running, SLEEPERS, fleet_called, fleet_yaml, own, policy_yaml, wait_for, waiting};
use drive::{a_thousand_targets, story, story_of, story_that_asks};

/// A sample of how many wait for a fleet: each test here has one of its own, since it is told on the page where processes of another one
/// are found.
fn waiting_for(fleet: &str, value: f64) -> String {
    waiting(value).replace(&*FLEET, fleet)
}

/// The target that a fleet is.
fn target(fleet: &str) -> String {
    SLEEPERS.replace(&*FLEET, fleet)
}

/// A fleet that scales, one whose only metric never comes, one that is frozen, and a policy for what does not exist.
#[test]
fn a_person_sees_what_the_fleet_does_and_why() {
    let [sleepers, unfed, frozen, missing] = ["sleepers", "unfed", "frozen", "missing"].map(own);
    let (home, policies) = fleet_called(&sleepers, 2, "");
    let named = |text: String, namespace: &str, name: &str| text.replace("namespace: local", &format!("namespace: {namespace}")).replace(&*FLEET, name);
    for (namespace, name) in [("local", &unfed), ("shop", &frozen)] {
        std::fs::write(policies.join(format!("{name}-fleet.yaml")), named(fleet_yaml(1), namespace, name)).unwrap();
        std::fs::write(policies.join(format!("{name}-policy.yaml")), named(policy_yaml(4, ""), namespace, name)).unwrap();
    }
    std::fs::write(policies.join("missing-policy.yaml"), named(policy_yaml(4, ""), "local", &missing)).unwrap();
    std::fs::create_dir(home.path().join("data")).unwrap();
    std::fs::write(home.path().join("data/freeze.shop"), "").unwrap();
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    // So that there is something to scale from and to: three wait for each of two, then many more.
    for depth in [15.0, 38.0] {
        let reached = i64::from(depth > 20.0) * 2 + 2;
        wait_for("a scale-out", || {
            loadline.post(&waiting_for(&sleepers, depth)).unwrap();
            loadline.status(&target(&sleepers)).filter(|status| status["ready"].as_i64() >= Some(reached))
        });
    }
    wait_for("the alert about what does not exist", || {
        let status = loadline.status(&target(&missing))?;
        status["alerts"].as_array().filter(|alerts| alerts.iter().any(|alert| alert["name"] == "TargetNotSeen")).map(drop)
    });
    wait_for("the blind one", || loadline.status(&target(&unfed)).filter(|status| status["verdict"] == "Blind").map(drop));
    story_of("fleet", &loadline.url, loadline.pid(), &sleepers);
    // The story ended by stopping it for a while.
    loadline.stop();
}

/// More windows than a browser has connections to a server: six, for all of them.
#[test]
fn however_many_windows_are_open_each_is_told_what_changes() {
    let crowd = own("crowd");
    let (home, _) = fleet_called(&crowd, 2, "");
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("an evaluation", || {
        loadline.post(&waiting_for(&crowd, 15.0)).unwrap();
        loadline.status(&target(&crowd)).filter(|status| status["metrics"][0]["status"] == "Ok").map(drop)
    });
    story_of("tabs", &loadline.url, loadline.pid(), &crowd);
    loadline.stop();
}

/// As long as names get where companies name things by what they are.
const LONG: &str = "checkout-payment-settlement-reconciliation-and-notification-workers-of-the-european-region-blue";

/// Long names, a very long reason, every kind of metric, and targets whose decisions are not carried out: it fits a window of any width and
/// says what is so.
#[test]
fn long_names_and_reasons_fit_any_window() {
    let home = tempfile::tempdir().unwrap();
    let policies = home.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    let policy = |name: &str, mode: &str, metrics: &str| {
        format!(
            "apiVersion: loadline.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {{ namespace: local, name: {name} }}\nspec:\n  target: {{ kind: ProcessFleet, name: {name} }}\n  mode: {mode}\n  replicas: {{ min: 1, max: 4 }}\n  metrics:\n{metrics}"
        )
    };
    let timing = "window: 1s, staleAfter: 10m";
    let every_kind = format!(
        "    - {{ name: http_requests_of_every_public_endpoint_with_retries_total, kind: Counter, track: {{ perReplica: 100 }}, {timing} }}\n    \
           - {{ name: resident_memory_of_the_settlement_workers_bytes, unit: bytes, track: {{ perReplica: 512Mi }}, {timing} }}\n    \
           - {{ name: response_time, kind: Gauge, threshold: {{ scaleOutAbove: 300ms, scaleInBelow: 120ms, for: 10m }}, {timing} }}\n    \
           - {{ name: backlog_of_a_partner_that_seldom_tells, track: {{ perReplica: 10 }}, whenBlind: Ignore, {timing} }}\n    \
           - {{ name: errors_that_are_only_looked_at }}\n"
    );
    let mut unknown = String::new();
    for word in ["orders", "payments", "refunds", "invoices", "deliveries", "complaints", "subscriptions", "notifications"] {
        writeln!(unknown, "    - {{ name: messages_that_wait_in_the_queue_of_{word}_ready_for_delivery, track: {{ perReplica: 10 }} }}").unwrap();
    }
    for (name, mode, metrics) in [(LONG, "Active", every_kind.as_str()), (&LONG.replace("blue", "dark"), "Active", &unknown), ("advised", "Advise", &unknown)] {
        std::fs::write(policies.join(format!("{name}-fleet.yaml")), fleet_yaml(2).replace(&*FLEET, name)).unwrap();
        std::fs::write(policies.join(format!("{name}-policy.yaml")), policy(name, mode, metrics)).unwrap();
    }
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let target = format!("local/ProcessFleet/{LONG}");
    let (mut served, names) = (0, ["", "-0", "-1"]);
    wait_for("values of every kind", || {
        served += 25;
        let mut samples = String::new();
        for name in &names[1..] {
            let of = |metric: &str, value: f64, kind: &str| {
                format!("{{\"target\":\"{target}\",\"metric\":\"{metric}\",\"instance\":\"{LONG}{name}\",\"kind\":\"{kind}\",\"value\":{value}}}\n")
            };
            samples += &of("http_requests_of_every_public_endpoint_with_retries_total", f64::from(served), "Counter");
            samples += &of("resident_memory_of_the_settlement_workers_bytes", 300_000_000.0, "Gauge");
            samples += &of("response_time", 0.45, "Gauge");
        }
        loadline.post(&samples)?;
        let status = loadline.status(&target)?;
        let ok = status["metrics"].as_array()?.iter().filter(|metric| metric["status"] == "Ok").count();
        (ok == 3).then_some(())
    });
    let dark = format!("local/ProcessFleet/{}", LONG.replace("blue", "dark"));
    wait_for("the blind one", || loadline.status(&dark).filter(|status| status["verdict"] == "Blind").map(drop));
    story("long", &loadline.url, loadline.pid());
    loadline.stop();
}

/// Nothing is there yet: the page says what to do.
#[test]
fn an_empty_fleet_says_how_to_begin() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("policies")).unwrap();
    let loadline = Running::start(home.path(), &[]);
    story("empty", &loadline.url, loadline.pid());
    loadline.stop();
}

/// A thousand targets are a light page, and a name away.
#[test]
fn a_thousand_targets_are_light_and_can_be_found() {
    let (_home, loadline) = a_thousand_targets();
    story("thousand", &loadline.url, loadline.pid());
    loadline.stop();
}

/// The server ends, and another one takes its place.
#[test]
fn an_end_is_told_and_so_is_a_return() {
    let ending = own("ending");
    let (home, _) = fleet_called(&ending, 2, "");
    let start = |listen: &str| {
        let mut command = Command::new(LOADLINE);
        command.current_dir(home.path()).args(["run", "--data", "data", "--policies", "policies", "--listen", listen, "--stop-fleets-on-exit"]);
        command.args(["--pane", "250ms", "--grace", "100ms"]).env_remove("LOADLINE_CONFIG");
        Running::spawn(command)
    };
    let loadline = start("127.0.0.1:0");
    wait_for("an evaluation", || {
        loadline.post(&waiting_for(&ending, 15.0)).unwrap();
        loadline.status(&target(&ending)).filter(|status| status["metrics"][0]["status"] == "Ok").map(drop)
    });
    let (url, pid) = (loadline.url.clone(), loadline.pid());
    let port = url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let mut running = Some(loadline);
    story_that_asks("end", &url, pid, &ending, |asked| match asked {
        "end" => drop(running.take().unwrap().stop()),
        "return" => running = Some(start(&format!("127.0.0.1:{port}"))),
        _ => panic!("{asked} is asked for"),
    });
    running.unwrap().stop();
}
