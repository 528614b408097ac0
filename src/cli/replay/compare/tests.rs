use super::*;

use clap::Parser;

/// A recorded history: the signals of a golden trace.
fn recorded(name: &str) -> Vec<String> {
    let path = format!("{}/tests/golden/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let trace = std::fs::read_to_string(path).unwrap();
    trace.lines().filter(|line| jsonl::line_to_signal(line).is_ok()).map(ToOwned::to_owned).collect()
}

const QUEUE: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { namespace: prod, name: shop }
spec:
  target: { apiVersion: apps/v1, kind: Deployment, name: shop }
  replicas: { min: 1, max: 10 }
  metrics:
    - { name: queue_depth, track: { perReplica: 10 }, window: 5s, staleAfter: 20s }
  behavior:
    scaleOut: { cooldown: 30s, policies: [{ replicas: 10, period: 5s }] }
    scaleIn: { stabilization: 0s, cooldown: 40s, policies: [{ percent: 100, period: 5s }] }
";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ReplayArgs,
}

/// Compares a recorded history with a policy: the exit code and what is printed.
fn compared(lines: &[String], policy: &str, flags: &[&str]) -> anyhow::Result<(u8, String)> {
    let folder = tempfile::tempdir().unwrap();
    let (history, file) = (folder.path().join("signals.jsonl"), folder.path().join("new.yaml"));
    std::fs::write(&history, lines.join("\n")).unwrap();
    std::fs::write(&file, policy).unwrap();
    let mut words = vec!["replay", history.to_str().unwrap(), "--policy", file.to_str().unwrap()];
    words.extend(flags);
    let mut out = Vec::new();
    let code = super::super::run(&Cli::try_parse_from(words)?.args, &mut out)?;
    Ok((code, String::from_utf8(out).unwrap().replace(&format!("{}/", folder.path().display()), "")))
}

/// Whatever happened, the policy that was in force differs nowhere from itself.
#[test]
fn the_same_policy_differs_nowhere() {
    let lines = recorded("cooldown");
    let (code, text) = compared(&lines, QUEUE, &["--fail-above", "0"]).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("prod/Deployment/shop: no difference in "), "{text}");
}

#[test]
fn where_decisions_differ_is_told_in_every_format() {
    let lines = recorded("cooldown");
    let slower = QUEUE.replace("perReplica: 10 ", "perReplica: 20 ").replace("cooldown: 40s", "cooldown: 10s");
    let (code, text) = compared(&lines, &slower, &[]).unwrap();
    assert_eq!(code, 0);
    insta::assert_snapshot!(text);
    insta::assert_snapshot!(compared(&lines, &slower, &["--output", "markdown"]).unwrap().1);
    let json: Value = serde_json::from_str(&compared(&lines, &slower, &["--output", "json"]).unwrap().1).unwrap();
    let target = &json["targets"][0];
    assert!(target["recorded"]["replicaHours"].as_f64() > target["now"]["replicaHours"].as_f64(), "{json:#}");
    assert_eq!(target["differences"][0]["recorded"]["desired"].as_u64().unwrap().abs_diff(target["differences"][0]["now"]["desired"].as_u64().unwrap()), 2);
}

#[test]
fn a_difference_above_the_limit_is_an_exit_code() {
    let lines = recorded("cooldown");
    let larger = QUEUE.replace("min: 1", "min: 4");
    for (limit, code) in [("2", 3), ("3", 0), ("1%", 3), ("1000%", 0)] {
        assert_eq!(compared(&lines, &larger, &["--fail-above", limit]).unwrap().0, code, "{limit}");
    }
    let error = compared(&lines, &larger, &["--fail-above", "a lot"]).unwrap_err().to_string();
    assert!(error.contains("write replicas, as in `3`"), "{error}");
}

/// A policy that only grows is compared as one that only grows.
#[test]
fn a_policy_that_only_grows_is_compared_as_such() {
    let lines = recorded("cooldown");
    let out_only = QUEUE.replace("spec:\n", "spec:\n  mode: OutOnly\n");
    let (_, text) = compared(&lines, &out_only, &["--output", "json"]).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((json["targets"][0]["now"]["in"].as_u64(), json["targets"][0]["recorded"]["in"].as_u64()), (Some(0), Some(1)), "{json:#}");
}

/// A history without any policy is compared all the same: nothing was asked for before.
#[test]
fn a_history_without_a_policy_says_so() {
    let lines: Vec<String> = recorded("cooldown").into_iter().filter(|line| !line.contains("\"policy\":")).collect();
    let (_, text) = compared(&lines, QUEUE, &[]).unwrap();
    assert!(text.contains("nothing to compare"), "{text}");
    // A gate that compared nothing is not passed.
    let error = compared(&lines, QUEUE, &["--fail-above", "0"]).unwrap_err().to_string();
    assert!(error.contains("nothing of prod/Deployment/shop was compared"), "{error}");
}

/// What came before a time is played, so that policies and counts are known by then, and not counted.
#[test]
fn what_is_compared_from_a_time_on_knows_what_came_before() {
    let lines = recorded("cooldown");
    let larger = QUEUE.replace("min: 1", "min: 4");
    let spans = |flags: &[&str]| {
        let json: Value = serde_json::from_str(&compared(&lines, &larger, &[&["--output", "json"], flags].concat()).unwrap().1).unwrap();
        let target = json["targets"][0].clone();
        (target["differences"].as_array().unwrap().clone(), target["recorded"]["evaluations"].as_u64().unwrap())
    };
    let (all, evaluations) = spans(&[]);
    let last = all.last().unwrap();
    // In the midst of the last difference: its policy and counts are of long before.
    let (begin, end) = (last["from"].as_i64().unwrap(), last["until"].as_i64().unwrap());
    let middle = i64::midpoint(begin, end);
    let from = Timestamp::from_millis(middle).to_string();
    let (left, fewer) = spans(&["--from", &from]);
    assert_eq!((left.len(), &left[0]["until"], &left[0]["now"]["desired"]), (1, &last["until"], &last["now"]["desired"]), "{left:?}");
    assert_eq!(left[0]["from"].as_i64(), Some(middle));
    assert!(fewer < evaluations, "{fewer} of {evaluations}");
    assert_eq!(compared(&lines, &larger, &["--from", &from, "--fail-above", "0"]).unwrap().0, 3);
}

/// The beginning of a file is left out as that of a log is; what is no time is refused.
#[test]
fn a_file_is_compared_from_a_time_on() {
    let lines = recorded("cooldown");
    let (_, all) = compared(&lines, QUEUE, &[]).unwrap();
    let error = compared(&lines, QUEUE, &["--from", "2999-01-01T00:00:00Z"]).unwrap_err().to_string();
    assert!(error.contains("it has no target at all") && !all.contains("no target"), "{error}");
    let error = compared(&lines, QUEUE, &["--from", "tomorrow"]).unwrap_err().to_string();
    assert!(error.starts_with("--from \"tomorrow\" is no time"), "{error}");
}

#[test]
fn a_metric_that_the_history_never_had_is_said() {
    let candidate = Candidate { target: "a/B/c".parse().unwrap(), spec: String::new(), metrics: vec!["queue_dept".to_owned(), "cpu".to_owned()] };
    let had = ["cpu", "queue_depth"].map(|name| name.parse().unwrap()).into();
    let said = unsampled(&candidate, Some(&had));
    assert_eq!(said, ["a/B/c: the history has no sample of `queue_dept`, which the policy uses; did you mean `queue_depth`?"]);
    assert!(unsampled(&candidate, None)[0].ends_with("it has no sample of any"));
}

#[test]
fn what_cannot_be_compared_says_why() {
    let lines = recorded("cooldown");
    for (policy, flags, says) in [
        (QUEUE.replace("name: shop }\n  replicas", "name: shops }\n  replicas"), vec![], "has no signal of prod/Deployment/shops; it has prod/Deployment/shop"),
        (QUEUE.replace("min: 1", "min: 0"), vec![], "new.yaml:6:20"),
        ("# nothing\n".to_owned(), vec![], "there is no ScalingPolicy in"),
        (QUEUE.to_owned(), vec!["--target", "a/b/c"], "--target a/b/c: of what was read, there is no target a/b/c"),
        (QUEUE.to_owned(), vec!["--follow"], "cannot be used with"),
    ] {
        let error = format!("{:#}", compared(&lines, &policy, &flags).unwrap_err());
        assert!(error.contains(says), "{says}: {error}");
    }
    let mut broken = lines.clone();
    broken.insert(3, "{".to_owned());
    assert!(compared(&broken, QUEUE, &[]).unwrap_err().to_string().starts_with("line 4 cannot be used: "));
}
