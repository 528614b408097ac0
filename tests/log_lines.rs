//! The lines that the program writes, as a person and as a program read them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::process::Command;

use common::{LOADLINE, Running, SLEEPERS, arguments, fleet_of_sleepers, wait_for, waiting};
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
        (loadline.status(SLEEPERS)?["current"] == 4 && about("decided") && about("command-ended")).then_some(())
    });
    let said = loadline.said();
    assert_eq!(loadline.stop(), 0);
    said
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
    assert_eq!((&decided["level"], &decided["target_id"], &decided["from"], &decided["to"]), (&"INFO".into(), &SLEEPERS.into(), &1.into(), &4.into()));
    assert_eq!((&decided["verdict"], &decided["step"]), (&"ScaleOut".into(), &"Combine".into()));
    assert!(lines.iter().any(|line| line["event"] == "policy-changed"), "{lines:#?}");
}
