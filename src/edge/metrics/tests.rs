use super::*;
use crate::edge::serve::tests::started;
use crate::edge::view::tests::{at, decision};
use crate::model::{Alert, Audit, Decision, MetricReport, Order, PolicyAnnouncement, Severity, Signal};
use crate::runtime::clock::Stopwatch;

/// A thousand targets with five metrics each are a page that is made in far less than a scrape's time-out of 10 s. What it
/// takes stands in docs/performance.md.
#[test]
fn a_thousand_targets_are_one_page() {
    let (view, _, server) = started();
    for n in 0..1_000 {
        let target: TargetId = format!("prod/Deployment/service-{n}").parse().unwrap();
        let metrics: Vec<String> = (0..5).map(|m| format!("{{\"name\":\"m{m}\",\"track\":{{\"perReplica\":10}}}}")).collect();
        let spec = format!(
            "{{\"target\":{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"name\":\"service-{n}\"}},\"replicas\":{{\"min\":1,\"max\":9}},\"metrics\":[{}]}}",
            metrics.join(",")
        );
        let order = Order { source: "file".to_owned(), generation: 1 };
        view.signal(at(0), Signal::Policy(PolicyAnnouncement { target: target.clone(), spec: Some(spec), order }));
        let made = decision(10, 3, 5);
        let reports = (0..5).map(|m| MetricReport { name: format!("m{m}").parse().unwrap(), ..made.metrics[0].clone() }).collect();
        view.evaluated(&Decision { target, metrics: reports, ..made });
    }
    let taken = Stopwatch::start();
    let answer = server.get("/metrics");
    eprintln!("{} bytes, {} lines in {:?}", answer.body.len(), answer.body.lines().count(), taken.elapsed());
    assert_eq!(answer.status, 200);
    for (family, count) in [("loadline_target_spec_max_replicas{", 1_000), ("loadline_target_metric_value{", 5_000), ("loadline_target_metric_status{", 5_000)]
    {
        assert_eq!(answer.body.lines().filter(|line| line.starts_with(family)).count(), count, "{family}");
    }
}

/// Firing alerts are counted by name; resolved ones and moments are not. What is free text is in no label.
#[test]
fn alerts_that_fire_are_counted() {
    let (view, _, server) = started();
    let alert = |subject: &str, state| Alert {
        target: None,
        name: "PolicyInvalid".to_owned(),
        subject: subject.to_owned(),
        severity: Severity::Warning,
        state,
        message: "somebody's words".to_owned(),
        at: at(50),
    };
    for (subject, state) in [
        ("a.yaml", AlertState::Firing),
        ("b.yaml", AlertState::Firing),
        ("c.yaml", AlertState::Firing),
        ("c.yaml", AlertState::Resolved),
        ("d", AlertState::Event),
    ] {
        view.alert(alert(subject, state));
    }
    let page = server.get("/metrics").body;
    assert!(page.contains("loadline_alerts_firing{alert=\"PolicyInvalid\",severity=\"Warning\",target=\"\"} 2\n"), "{page}");
    assert!(!page.contains("somebody") && !page.contains("a.yaml"), "{page}");
}

/// A target that was decided on and is not seen has no current count; nothing unknown is 0.
#[test]
fn what_is_not_known_is_absent() {
    let (view, _, server) = started();
    view.audit(at(11), Audit::Decision(decision(10, 3, 5)));
    let page = server.get("/metrics").body;
    assert!(page.contains("loadline_target_status_desired_replicas{target=\"prod/Deployment/api\"} 5\n"), "{page}");
    for absent in
        ["loadline_target_status_ready_replicas{", "loadline_target_spec_max_replicas{", "loadline_target_seen_age_seconds{", "loadline_log_size_bytes "]
    {
        assert!(!page.lines().any(|line| line.starts_with(absent)), "{absent}");
    }
}
