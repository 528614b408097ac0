//! What another policy would have done: asked of a Loadline that runs, and of what it exported.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{LOADLINE, Running, SLEEPERS, fleet_of_sleepers, wait_for, waiting};
use serde_json::Value;

const AT_ONCE: &str = "  behavior: { scaleIn: { stabilization: 1s }, scaleOut: { policies: [{ replicas: 10, period: 1s }] } }\n";

fn replay(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(LOADLINE).arg("replay").args(args).current_dir(folder).env_remove("LOADLINE_CONFIG").output().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The fleet grows under a real Loadline. Beside it, and from its export, the policy in force differs nowhere from itself; one with
/// a smaller `max` would have kept fewer, which is told, and is an exit code.
#[test]
fn another_policy_is_tried_on_the_history_of_a_running_loadline() {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    let same = std::fs::read_to_string(policies.join("policy.yaml")).unwrap();
    assert!(same.contains("max: 6"));
    std::fs::write(home.path().join("same.yaml"), &same).unwrap();
    std::fs::write(home.path().join("smaller.yaml"), same.replace("max: 6", "max: 2")).unwrap();
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("the fleet to grow to 4", || {
        loadline.post(&waiting(40.0))?;
        (loadline.status(&SLEEPERS)?["current"] == 4).then_some(())
    });
    // A further decision, so that time passes at the larger count.
    let (largest, since) = wait_for("the larger count to have lasted", || {
        loadline.post(&waiting(40.0))?;
        let (code, text) = replay(home.path(), &["--data", "data", "--policy", "smaller.yaml", "--output", "json"]);
        assert_eq!(code, Some(0), "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        let target = &json["targets"][0];
        target["largest"].as_u64().filter(|largest| *largest > 0).map(|largest| (largest, target["differences"][0]["from"].as_i64().unwrap()))
    });
    assert_eq!(largest, 2);
    let (code, text) = replay(home.path(), &["--data", "data", "--policy", "same.yaml", "--fail-above", "0"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with(&format!("{SLEEPERS}: no difference in ")), "{text}");
    let (code, text) = replay(home.path(), &["--data", "data", "--policy", "smaller.yaml", "--fail-above", "1", "--output", "markdown"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("| Bounds: AboveMax |") && text.contains("by at most 2 replicas"), "{text}");
    // From a time on: the policy was announced long before, and is known all the same.
    let (code, text) = replay(home.path(), &["--data", "data", "--policy", "smaller.yaml", "--from", &(since + 1).to_string(), "--fail-above", "0"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("by at most 2 replicas"), "{text}");
    assert_eq!(loadline.stop(), 0);

    let exported = Command::new(LOADLINE).args(["export", "--data", "data"]).current_dir(home.path()).output().unwrap();
    std::fs::write(home.path().join("signals.jsonl"), exported.stdout).unwrap();
    let (code, text) = replay(home.path(), &["signals.jsonl", "--policy", "same.yaml", "--fail-above", "0%"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("no difference"), "{text}");
}
