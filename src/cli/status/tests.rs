use super::*;
use crate::edge::view::View;
use crate::edge::view::tests::{at, decision};
use crate::model::{Alert, AlertState, Audit};
use crate::runtime::retention::TopicUsage;

fn shown(status: &Status) -> String {
    let mut out = Vec::new();
    write(&mut out, status, Paint::PLAIN).unwrap();
    String::from_utf8(out).unwrap()
}

fn status(view: &View) -> Status {
    Status { started_at: at(0), at: at(300), targets: view.statuses(), lag: Vec::new(), log: None, alerts: Vec::new() }
}

#[test]
fn a_target_is_a_line_and_what_is_wrong_stands_below() {
    let view = View::new();
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    let mut status = status(&view);
    status.targets[0].min = Some(3);
    status.targets[0].max = Some(60);
    status.targets[0].mode = Some("Active".to_owned());
    status.targets[0].ready = Some(2);
    status.targets[0].seen_at = Some(at(0));
    let alert = Alert {
        target: None,
        name: "PolicyRefused".to_owned(),
        subject: "web.yaml".to_owned(),
        severity: Severity::Warning,
        state: AlertState::Firing,
        message: "web.yaml:3:5: there is no field \"replica\"; did you mean \"replicas\"?".to_owned(),
        at: at(0),
    };
    status.alerts.push(alert);
    status.lag.push(Lag {
        stage: "decide".to_owned(),
        topic: "signals".to_owned(),
        partition: 0,
        records: 5_000,
        waiting_since: None,
        late: false,
        owner: None,
        hidden: None,
    });
    status.lag.push(Lag {
        stage: "admit".to_owned(),
        topic: "control".to_owned(),
        partition: 0,
        records: 3,
        waiting_since: None,
        late: false,
        owner: None,
        hidden: None,
    });
    insta::assert_snapshot!(shown(&status));
}

/// Several processes share the work: who has what, what nobody has, and what waits for long.
#[test]
fn who_has_which_part_of_the_work_is_shown() {
    let mut status = status(&View::new());
    let lag = |partition, records, waits: Option<i64>, owner: Option<&str>| Lag {
        stage: "decide".to_owned(),
        topic: "signals".to_owned(),
        partition,
        records,
        waiting_since: waits.map(|waits| at(300 - waits)),
        late: waits.is_some_and(|waits| waits > 10),
        owner: Some(owner.map_or(Owner::Nobody, |owner| Owner::Member(owner.to_owned()))),
        hidden: None,
    };
    status.lag =
        vec![lag(0, 3, Some(2), Some("loadline-a-7 at 10.0.0.1")), lag(1, 4, Some(14), Some("loadline-b-9 at 10.0.0.2")), lag(2, 5_000, Some(31), None)];
    insta::assert_snapshot!(shown(&status));
}

/// How the log stands to its limit, in a line: what is not known is not shown as nothing.
#[test]
fn the_log_is_shown_with_its_limit_what_a_day_brings_and_how_far_it_reaches() {
    let mut status = status(&View::new());
    let topic = |topic: &str, hours_kept| TopicUsage { topic: topic.to_owned(), bytes: 1, hours_kept, bytes_a_day: None };
    let usage = Usage {
        pressure: Pressure::Roomy,
        bytes: 1_288_490_189,
        limit: 4 << 30,
        free_bytes: 0,
        bytes_a_day: None,
        topics: vec![topic("metrics", Some(6.02)), topic("requests", None), topic("signals", Some(71.96))],
        held_by: Vec::new(),
    };
    let mut line = |usage: Usage| {
        status.log = Some(usage);
        shown(&status).lines().last().unwrap_or_default().to_owned()
    };
    let reaches = "reaches back: metrics 6.0 h, signals 72.0 h";
    assert_eq!(line(usage.clone()), format!("log: 1.2 GiB of 4 GiB, how much comes in a day is not known yet; {reaches}"));
    let usage = Usage { bytes_a_day: Some(68_157_440), ..usage };
    assert_eq!(line(usage.clone()), format!("log: 1.2 GiB of 4 GiB, 65 MiB a day; {reaches}"));
    let held_by = vec!["4 GiB of metrics/0 stay, since aggregate has read nothing yet".to_owned()];
    let full = line(Usage { pressure: Pressure::Full, bytes: 4 << 30, held_by, ..usage });
    assert_eq!(
        full,
        format!(
            "! log: 4 GiB of 4 GiB, 65 MiB a day; {reaches}; it is full, and samples are refused: 4 GiB of metrics/0 stay, since aggregate has read nothing yet"
        )
    );
}

#[test]
fn nothing_to_show_says_what_to_do() {
    assert_eq!(shown(&status(&View::new())), "No target yet: start Loadline with --policies, or put a policy into the directory that it reads.\n");
}

/// What a thousand targets have in common is a line, and what two have is said of each.
#[test]
fn many_equal_alerts_are_one_line() {
    let mut status = status(&View::new());
    let alert = |n: u32| Alert {
        target: Some(format!("prod/Deployment/service-{n:04}").parse().unwrap()),
        name: "TargetNotSeen".to_owned(),
        subject: "replicas".to_owned(),
        severity: Severity::Warning,
        state: AlertState::Firing,
        message: "its replicas have not been seen".to_owned(),
        at: at(0),
    };
    status.alerts = (0..1_000).map(alert).collect();
    let said = shown(&status);
    let line = "! 1000 targets: its replicas have not been seen: prod/Deployment/service-0000, prod/Deployment/service-0001, prod/Deployment/service-0002 and 997 more (TargetNotSeen)";
    assert_eq!(said.lines().filter(|line| line.starts_with('!')).collect::<Vec<_>>(), [line]);
    // Several of one target, as of its sources.
    status.alerts = (0..4).map(|n| Alert { subject: format!("source-{n}"), ..alert(7) }).collect();
    assert!(shown(&status).contains("! 1 target: its replicas have not been seen: prod/Deployment/service-0007 (TargetNotSeen)"), "{}", shown(&status));
    status.alerts = (0..2).map(alert).collect();
    assert_eq!(shown(&status).lines().filter(|line| line.starts_with('!')).count(), 2);
}

/// What is decided but not carried out does not read as if it were.
#[test]
fn a_target_that_only_advises_or_is_frozen_says_so() {
    let view = View::new();
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    let mut status = status(&view);
    status.targets[0].mode = Some("Advise".to_owned());
    assert!(shown(&status).contains("would scale out (advises)"), "{}", shown(&status));
    assert!(!status.targets[0].is_scaling());
    status.targets[0].frozen = Some("data/freeze".to_owned());
    assert!(shown(&status).contains("frozen (would scale out)"), "{}", shown(&status));
    assert!(!status.targets[0].is_scaling());
}

/// With `mode: Off` nothing is decided: neither what was decided before nor a decision to come.
#[test]
fn a_target_that_is_off_says_so() {
    let view = View::new();
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    let mut status = status(&view);
    status.targets[0].mode = Some("Off".to_owned());
    assert!(!status.targets[0].is_scaling());
    for verdict in [status.targets[0].verdict, None] {
        status.targets[0].verdict = verdict;
        let said = shown(&status);
        assert!(said.contains(" Off ") && said.contains(" off "), "{said}");
        assert!(!said.contains("undecided") && !said.contains("scales out"), "{said}");
    }
}
