//! The lines that the program writes, as a person and as a program read them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{FLEET, LOADLINE, Running, SLEEPERS, arguments, fleet_of_sleepers, fleet_yaml, messages, own, wait_for, waiting};
use loadline::log::Topic;
use loadline::model::{Alert, AlertState, Message};
use serde_json::Value;

const AT_ONCE: &str =
    "  behavior: { scaleIn: { stabilization: 1s, policies: [{ percent: 100, period: 1s }] }, scaleOut: { policies: [{ replicas: 10, period: 1s }] } }\n";

/// Lets a fleet of one grow to 4, and waits until the line about its command is written; refuses a hundred requests.
fn told(format: &str) -> Vec<String> {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let mut command = Command::new(LOADLINE);
    arguments(&mut command, home.path(), &["--stop-fleets-on-exit"]);
    command.env("LOADLINE_LOG_FORMAT", format);
    let loadline = Running::spawn(command);
    (0..100).for_each(|_| assert!(loadline.post("no sample\n").is_none()));
    wait_for("the fleet to grow to 4, and the lines about it", || {
        loadline.post(&waiting(40.0))?;
        let said = loadline.said();
        let about = |word: &str| said.iter().any(|line| line.contains(word));
        (loadline.status(&SLEEPERS)?["current"] == 4 && about("decided") && about("command-ended")).then_some(())
    });
    let said = loadline.said();
    assert_eq!(loadline.stop(), 0);
    said
}

/// Whoever reads its lines may go, as a terminal that is closed: it works on.
#[test]
fn it_works_on_where_nobody_reads_its_lines() {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let mut command = Command::new(LOADLINE);
    arguments(&mut command, home.path(), &["--stop-fleets-on-exit"]);
    let loadline = Running::spawn_unread(command);
    wait_for("the fleet to grow to 4", || {
        loadline.post(&waiting(40.0))?;
        (loadline.status(&SLEEPERS)?["ready"] == 4).then_some(())
    });
    assert_eq!(loadline.stop(), 0);
}

/// On a terminal, or where it is asked for: a line says in words what changed, from how many to how many, and why.
#[test]
fn as_text_a_change_is_one_line_in_words() {
    let said = told("text");
    let about = |word: &str| said.iter().filter(|line| line.contains(word)).collect::<Vec<_>>();
    let decided = about("event=\"decided\"");
    assert_eq!(decided.len(), 1, "one decision changed something: {said:#?}");
    for word in [" INFO ", &format!("{SLEEPERS} scales out from 1 to 4 replicas: queue_depth 40 against 10 asks for 4"), "from=1 to=4", "step=\"Combine\""] {
        assert!(decided[0].contains(word), "{word:?} is not in {}", decided[0]);
    }
    let ended = about("event=\"command-ended\"");
    assert!(ended.len() == 1 && ended[0].contains("applied; 4 replicas now"), "{ended:?}");
    let refused = about("event=\"request-refused\"");
    assert!(refused.len() == 1 && refused[0].contains(" WARN "), "what repeats is told once: {refused:?}");
}

/// Where nobody looks on, each line is a JSON object.
#[test]
fn without_a_terminal_each_line_is_an_object() {
    let lines: Vec<Value> = told("auto").iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let decided: Vec<&Value> = lines.iter().filter(|line| line["event"] == "decided").collect();
    assert_eq!(decided.len(), 1, "{lines:#?}");
    let decided = decided[0];
    assert_eq!((&decided["level"], &decided["target_id"], &decided["from"], &decided["to"]), (&"INFO".into(), &Value::from(&*SLEEPERS), &1.into(), &4.into()));
    assert_eq!((&decided["verdict"], &decided["step"]), (&"ScaleOut".into(), &"Combine".into()));
    assert!(lines.iter().any(|line| line["event"] == "policy-changed"), "{lines:#?}");
}

/// Of a run with a bad policy file, a scale by hand, a freeze and a restart, too: who filters lines by their event misses none.
#[test]
fn each_line_of_a_troubled_run_names_its_event() {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    let start = |flags: &[&str]| {
        let mut command = Command::new(LOADLINE);
        arguments(&mut command, home.path(), flags);
        command.env("LOADLINE_LOG_FORMAT", "json");
        Running::spawn(command)
    };
    let told = |loadline: &Running, event: &str| loadline.said().iter().any(|line| line.contains(&format!("\"event\":\"{event}\"")));
    let await_event = |loadline: &Running, event: &str| wait_for(event, || told(loadline, event).then_some(()));
    let mut said = Vec::new();
    let loadline = start(&[]);
    ["supervising", "instance-started", "actuating", "policy-changed"].iter().for_each(|event| await_event(&loadline, event));
    std::fs::write(policies.join("bad.yaml"), "kind: Nonsense\n").unwrap();
    await_event(&loadline, "policy-file-unusable");
    std::fs::remove_file(policies.join("bad.yaml")).unwrap();
    let by_hand = ureq::post(format!("{}/api/v1/targets/{SLEEPERS}/scale", loadline.url));
    by_hand.header("content-type", "application/json").send("{\"replicas\":2,\"actor\":\"ana\"}").unwrap();
    await_event(&loadline, "by-hand");
    std::fs::write(home.path().join("data/freeze"), "").unwrap();
    wait_for("a command that the freeze holds", || {
        loadline.post(&waiting(50.0))?;
        told(&loadline, "command-ended").then_some(())
    });
    said.extend(loadline.said());
    assert_eq!(loadline.stop(), 0);
    std::fs::remove_file(home.path().join("data/freeze")).unwrap();
    let loadline = start(&["--stop-fleets-on-exit"]);
    await_event(&loadline, "supervising");
    said.extend(loadline.said());
    assert_eq!(loadline.stop(), 0);
    for line in said {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["event"].is_string() && line["message"].is_string(), "{line}");
        if ["instance-started", "supervising", "by-hand"].iter().any(|event| line["event"] == *event) {
            assert!(line["message"].as_str().unwrap().contains(&*SLEEPERS), "{line}");
        }
    }
}

/// The alerts that stand in the log, each with whether it fires.
fn alerts(home: &Path) -> Vec<(String, AlertState)> {
    let alert = |message| if let Message::Alert(Alert { name, state, .. }) = message { Some((name, state)) } else { None };
    messages(&home.join("data"), Topic::Alerts).into_iter().filter_map(alert).collect()
}

fn lines_of<'a>(said: &'a [String], event: &str) -> Vec<&'a String> {
    let event = format!("event=\"{event}\"");
    said.iter().filter(|line| line.contains(&event)).collect()
}

/// A fleet whose processes no other test takes for those of another incarnation, without a policy: nothing is to be told of
/// it. Its target, and the file of its document.
fn fleet_of_its_own(name: &str) -> (tempfile::TempDir, String, PathBuf) {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    std::fs::remove_file(policies.join("policy.yaml")).unwrap();
    let (name, document) = (own(name), policies.join("fleet.yaml"));
    std::fs::write(&document, fleet_yaml(1).replace(&format!("name: {FLEET}"), &format!("name: {name}"))).unwrap();
    (home, format!("local/ProcessFleet/{name}"), document)
}

#[test]
fn a_restart_of_a_healthy_fleet_tells_of_no_alert() {
    let (home, target, _) = fleet_of_its_own("healthy");
    for _ in 0..2 {
        let loadline = Running::start(home.path(), &[]);
        wait_for("its fleet to be looked after", || loadline.said().iter().any(|line| line.contains("supervis")).then_some(()));
        wait_for("its fleet", || (loadline.status(&target)?["current"] == 1).then_some(()));
        // What a supervisor put by then is appended, and told, before the end.
        let said = loadline.said();
        assert_eq!(loadline.stop(), 0);
        assert_eq!(lines_of(&said, "alert"), Vec::<&String>::new());
        assert_eq!(alerts(home.path()), []);
    }
    assert_eq!(Running::start(home.path(), &["--stop-fleets-on-exit"]).stop(), 0);
}

#[test]
fn an_alert_that_fired_before_kill_9_and_holds_no_more_is_told_as_over_once() {
    const CANNOT_START: &str = "CommandCannotStart";
    let (home, target, document) = fleet_of_its_own("mended");
    let sound = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, sound.replace("command: sleep", "command: /no/such/command")).unwrap();
    let loadline = Running::start(home.path(), &[]);
    wait_for("the alert", || lines_of(&loadline.said(), "alert").iter().any(|line| line.contains(CANNOT_START)).then_some(()));
    loadline.kill();
    std::fs::write(&document, sound).unwrap();
    let over = |said: &[String]| lines_of(said, "alert").iter().filter(|line| line.contains(&format!("{CANNOT_START} is over"))).count();
    let loadline = Running::start(home.path(), &[]);
    wait_for("its end", || (over(&loadline.said()) == 1).then_some(()));
    let firing = home.path().join("data/fleets").join(target.replace("ProcessFleet/", "")).join("firing.json");
    wait_for("its end to be noted", || (std::fs::read_to_string(&firing).ok()? == "{}").then_some(()));
    assert_eq!(over(&loadline.said()), 1, "told once");
    assert_eq!(loadline.stop(), 0);
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("its fleet", || (loadline.status(&target)?["current"] == 1).then_some(()));
    assert_eq!(loadline.stop(), 0);
    let told: Vec<AlertState> = alerts(home.path())
        .into_iter()
        .map(|(name, state)| {
            assert_eq!(name, CANNOT_START);
            state
        })
        .collect();
    assert_eq!(told.iter().filter(|state| **state == AlertState::Resolved).count(), 1, "{told:?}");
    assert_eq!(told.last(), Some(&AlertState::Resolved));
}
