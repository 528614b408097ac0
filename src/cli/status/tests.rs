use super::*;
use crate::edge::api::Lag;
use crate::edge::view::View;
use crate::edge::view::tests::{at, decision};
use crate::model::{Alert, AlertState, Audit};

fn shown(status: &Status) -> String {
    let mut out = Vec::new();
    write(&mut out, status, Paint::PLAIN).unwrap();
    String::from_utf8(out).unwrap()
}

fn status(view: &View) -> Status {
    Status { started_at: at(0), at: at(300), targets: view.statuses(), lag: Vec::new(), alerts: Vec::new() }
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
    status.lag.push(Lag { stage: "decide".to_owned(), topic: "signals".to_owned(), partition: 0, records: 5_000 });
    status.lag.push(Lag { stage: "admit".to_owned(), topic: "control".to_owned(), partition: 0, records: 3 });
    insta::assert_snapshot!(shown(&status));
}

#[test]
fn nothing_to_show_says_what_to_do() {
    assert_eq!(shown(&status(&View::new())), "No target yet: start Loadline with --policies, or put a policy into the directory that it reads.\n");
}
