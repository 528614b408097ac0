use std::fs;

use super::*;

const POLICY: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { namespace: local, name: bots }
spec:
  target: { kind: ProcessFleet, name: bots }
  replicas: { min: 1, max: 10 }
  metrics:
    - name: queue_depth
      track: { perReplica: 100 }
      window: 5s
  behavior:
    scaleOut: { policies: [{ replicas: 2, period: 15s }] }
    scaleIn: { stabilization: 30s }
";

const HEAD: &str = "apiVersion: loadline.dev/v1alpha1\nkind: PolicyTest\nspec:\n  policies: [policy.yaml]\n  tests:\n";

/// A folder with a policy and a file of tests, and what `policy test` says of it.
fn tested(policy: &str, tests: &str) -> Answer {
    tested_as(policy, tests, TestFormat::Text)
}

fn tested_as(policy: &str, tests: &str, format: TestFormat) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.yaml"), policy).unwrap();
    let file = folder.path().join("policy_test.yaml");
    fs::write(&file, tests).unwrap();
    let answer = run(&[file], None, format, false);
    Answer { text: answer.text.replace(&format!("{}/", folder.path().display()), ""), ..answer }
}

#[test]
fn a_choice_that_chooses_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let file = folder.path().join("policy_test.yaml");
    fs::write(&file, format!("{HEAD}    - {{ name: in, series: [{{ metric: queue_depth, values: 200x11 }}], expect: [{{ at: 60s, desired: 2 }}] }}\n"))
        .unwrap();
    let answer = run(&[file], Some("zzz"), TestFormat::Text, false);
    assert_eq!(answer.code, FAULTY);
    assert!(answer.text.ends_with("no test has a name that contains \"zzz\"\n"), "{}", answer.text);
}

/// What cannot fail tests nothing: an expectation without a field, a series of an instance that is never there.
#[test]
fn a_test_that_tests_nothing_is_an_error() {
    for (test, says) in [
        ("series: [{ metric: queue_depth, values: 200x11 }], expect: [{ at: 60s, metrics: { queue_depth: {} } }]", "nothing is expected of `queue_depth`"),
        (
            "fleet: { replicas: 2 }, series: [{ metric: queue_depth, instance: bot-1, values: 200x11 }], expect: [{ at: 1s, replicas: 2 }]",
            "the fleet of this test never has an instance `bot-1`; it has `bots-1` to `bots-2`",
        ),
    ] {
        let answer = tested(POLICY, &format!("{HEAD}    - {{ name: n, {test} }}\n"));
        assert!(answer.code == FAULTY && answer.text.contains(says), "{says}: {}", answer.text);
    }
    let mended = tested(
        POLICY,
        &format!(
            "{HEAD}    - {{ name: n, fleet: {{ replicas: 2 }}, series: [{{ metric: queue_depth, instance: bot-1, values: 1 }}], expect: [{{ at: 1s, replicas: 2 }}] }}\n"
        ),
    );
    assert!(mended.text.contains("did you mean `bots-1`?"), "{}", mended.text);
}

#[track_caller]
fn passes(policy: &str, test: &str) {
    let answer = tested(policy, &format!("{HEAD}{test}"));
    assert_eq!(answer.code, FINE, "{}", answer.text);
}

/// The fleet follows what is decided, instances become ready after their start-up, and every part can be expected.
#[test]
fn a_fleet_follows_the_decisions() {
    passes(
        POLICY,
        "    - name: out by two in 15 s, and in again
      fleet: { replicas: 2, startUp: 7s }
      series: [{ metric: queue_depth, values: 200x11 800x11 100x60 }]
      expect:
        - { at: 0s, replicas: 2, ready: 2, verdict: Blind, metrics: { queue_depth: { status: NoData } } }
        - { at: 60s, desired: 2, verdict: Hold, binding: Combine, reason: LargestProposal, metrics: { queue_depth: { status: Ok, value: 100, proposal: 2 } } }
        - { at: 65s, desired: 4, replicas: 4, ready: 2, verdict: ScaleOut, binding: RateLimit, reason: ScaleOutRate }
        - { at: 71s, ready: 2 }
        - { at: 72s, ready: 4 }
        - { at: 95s, replicas: 8 }
        - { at: 145s, replicas: 8, binding: Stabilize, reason: ScaleInWindow }
        - { at: 200s, replicas: 1 }
",
    );
}

#[test]
fn each_kind_of_series_means_what_it_says() {
    let policy = POLICY.replace("perReplica: 100 }\n      window: 5s", "perReplica: 100 }\n    - name: cpu\n      track: { utilization: 50% }\n    - name: rps\n      kind: Counter\n      track: { perReplica: 10 }\n    - name: response_time\n      kind: Histogram\n      measure: { quantile: 95% }\n      threshold: { scaleOutAbove: 300ms, scaleInBelow: 50ms }");
    passes(
        &policy,
        "    - name: values
      fleet: { replicas: 4, requests: { cpu: 1 } }
      series:
        - { metric: queue_depth, values: 120x20 }
        - { metric: cpu, of: Split, values: 1200mx20 }        # 0.3 cores each
        - { metric: rps, of: Split, values: 0+150x20 }        # 30 a second, in steps of 5 s
        - { metric: response_time, of: Each, values: 0.2x20 }
      expect:
        - at: 60s
          desired: 4
          metrics:
            queue_depth: { value: 30, proposal: 2 }
            cpu: { value: 30%, proposal: 3 }
            rps: { value: 7.5, proposal: 3 }
            response_time: { status: Ok, value: 200ms, proposal: 4 }
    - name: states
      every: 5s
      fleet: { replicas: 4, requests: { cpu: 1 } }
      series:
        - { metric: queue_depth, values: 120 error 120 _x40 }
        - { metric: cpu, instance: bots-1, values: NaNx40 }
        - { metric: rps, of: Each, values: 7x40 }
        - { metric: response_time, of: Each, values: 100ms idlex40 }
      expect:
        - { at: 8s, metrics: { queue_depth: { status: Error }, cpu: { status: NoData } } }
        - { at: 15s, metrics: { queue_depth: { status: Ok } } }
        - { at: 60s, metrics: { response_time: { status: Idle }, rps: { status: Ok, value: 0 } } }
        - { at: 180s, verdict: Hold, metrics: { queue_depth: { status: Stale } } }
",
    );
}

#[test]
fn people_and_other_policies_may_intervene() {
    let folder = tempfile::tempdir().unwrap();
    let resting = POLICY.replace("stabilization: 30s", "stabilization: 30s, cooldown: 1m");
    fs::write(folder.path().join("policy.yaml"), &resting).unwrap();
    fs::write(folder.path().join("later.yaml"), resting.replace("min: 1", "min: 6")).unwrap();
    let file = folder.path().join("policy_test.yaml");
    let test = "    - name: by hand, then another policy
      fleet: { replicas: 3 }
      series: [{ metric: queue_depth, values: 300x60 }]
      events: [{ at: 62s, replicas: 5 }, { at: 182s, policy: later.yaml }]
      expect:
        - { at: 61s, replicas: 3 }
        - { at: 62s, replicas: 5, binding: Cooldown, reason: ScaleInCooldown }
        - { at: 181s, replicas: 3 }
        - { at: 182s, replicas: 6, binding: Bounds, reason: BelowMin }
";
    fs::write(&file, format!("{HEAD}{test}")).unwrap();
    let answer = run(&[file], None, TestFormat::Text, false);
    assert_eq!(answer.code, FINE, "{}", answer.text);
}

/// The configuration's panes and removal limit hold in the tests.
#[test]
fn the_configuration_holds_in_tests() {
    let folder = tempfile::tempdir().unwrap();
    let gentle = POLICY
        .replace("  replicas:", "  role: BotInstances\n  replicas:")
        .replace("stabilization: 30s", "stabilization: 0s, cooldown: 0s, policies: [{ percent: 100, period: 1s }]");
    fs::write(folder.path().join("policy.yaml"), gentle).unwrap();
    fs::write(folder.path().join("loadline.yaml"), "pane: 1s\nremovals: { percent: 0%, atLeast: 2, period: 10s }\n").unwrap();
    let file = folder.path().join("policy_test.yaml");
    let head = HEAD.replace("  tests:", "  configuration: loadline.yaml\n  tests:");
    let test = "    - name: removals are paced
      fleet: { replicas: 9 }
      series: [{ metric: queue_depth, values: 900x40 100x60 }]
      expect: [{ at: 40s, replicas: 9 }, { at: 50s, desired: 1, replicas: 7 }, { at: 58s, replicas: 5 }]
";
    fs::write(&file, format!("{head}{test}")).unwrap();
    let answer = run(&[file], None, TestFormat::Text, false);
    assert_eq!(answer.code, FINE, "{}", answer.text);
}

const FAILING: &str = "    - name: calm
      fleet: { replicas: 2 }
      series: [{ metric: queue_depth, values: 200x20 }]
      expect: [{ at: 1m, desired: 2 }]
    - name: four at once
      fleet: { replicas: 2, startUp: 20s }
      series: [{ metric: queue_depth, values: 200x11 400x20 }]
      expect:
        - { at: 1m, desired: 2 }
        - at: 1m5s
          desired: 4
          binding: Combine
          metrics: { queue_depth: { proposal: 5 } }
";

#[test]
fn a_failing_test_shows_what_happened() {
    let answer = tested(&POLICY.replace("replicas: 2, period", "replicas: 1, period"), &format!("{HEAD}{FAILING}"));
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

#[test]
fn a_build_server_gets_junit() {
    let answer = tested_as(&POLICY.replace("replicas: 2, period", "replicas: 1, period"), &format!("{HEAD}{FAILING}"), TestFormat::Junit);
    assert_eq!(answer.code, FAULTY);
    let mut reader = quick_xml::Reader::from_str(&answer.text);
    let (mut cases, mut failures, mut text) = (Vec::new(), Vec::new(), String::new());
    loop {
        use quick_xml::events::Event;
        let attributes = |e: &quick_xml::events::BytesStart<'_>| -> std::collections::BTreeMap<String, String> {
            let pair = |a: quick_xml::events::attributes::Attribute<'_>| (a.key.as_ref().to_owned(), a.value.to_string());
            e.attributes().map(|a| pair(a.unwrap())).collect()
        };
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(e) | Event::Empty(e) if e.name().as_ref() == "testsuite" => {
                let a = attributes(&e);
                assert_eq!((a["tests"].as_str(), a["failures"].as_str(), a["errors"].as_str()), ("2", "1", "0"));
            }
            Event::Start(e) | Event::Empty(e) if e.name().as_ref() == "testcase" => cases.push(attributes(&e)),
            Event::Start(e) if e.name().as_ref() == "failure" => failures.push(attributes(&e)),
            Event::Text(t) => text.push_str(&t),
            _ => {}
        }
    }
    assert_eq!(cases.iter().map(|c| c["name"].as_str()).collect::<Vec<_>>(), ["calm", "four at once"]);
    assert_eq!((cases[1]["classname"].as_str(), cases[1]["line"].as_str()), ("local/ProcessFleet/bots", "10"));
    assert_eq!(failures.len(), 1);
    assert!(failures[0]["message"].starts_with("at 1m5s, desired: expected 4, was 3"), "{failures:?}");
    assert!(text.contains("RateLimit"), "{text}");
}

/// What newcomers write, and what they are told: each with its line, a caret and the mend.
#[test]
fn mistakes_in_tests_name_their_place() {
    let test = "    - name: mistakes
      fleet: { replica: 2 }
      interval: 15s
      series:
        - { metric: queue_depht, values: 200x20 }
        - { metric: queue_depth, values: \"200x5 20O 300ms\" }
      expect:
        - { eval_time: 2m, desired: 2 }
        - { at: 1m, binding: Ratelimit }
        - { at: 1m, metrics: { queu_depth: { status: Ok } } }
";
    let answer = tested(POLICY, &format!("{HEAD}{test}"));
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
    // What needs the policy is told once the rest is right.
    let test = "    - name: mistakes
      series:
        - { metric: queue_depht, values: 200x20 }
        - { metric: queue_depth, values: \"200x5 20O\" }
        - { metric: queue_depth, values: 300ms 5 }
      expect:
        - { at: 1m, metrics: { queu_depth: { status: Ok }, queue_depth: { value: 5s } } }
";
    let answer = tested(POLICY, &format!("{HEAD}{test}"));
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

/// Two series of one metric for the same instances would be mixed into a third that nobody wrote.
#[test]
fn two_series_of_one_thing_are_refused_with_both_places() {
    let series = |of: &str| {
        let series: Vec<String> = of.split(" & ").map(|of| format!("        - {{ metric: queue_depth, {of}values: 100x20 }}\n")).collect();
        format!(
            "{HEAD}    - name: twice\n      series:\n{}      fleet: {{ replicas: 2 }}\n      expect: [{{ at: 1m, metrics: {{ queue_depth: {{ status: Ok }} }} }}]\n",
            series.concat()
        )
    };
    for (of, whose) in [
        (" & ", "the target as a whole"),
        ("kind: Gauge,  & kind: Delta, ", "the target as a whole"),
        ("of: Each,  & of: Split, ", "every ready instance"),
        ("instance: bots-1,  & instance: bots-1, ", "the instance bots-1"),
        ("of: Each,  & instance: bots-1, ", "the instance bots-1"),
        ("instance: bots-1,  & of: Split, ", "the instance bots-1"),
    ] {
        let answer = tested(POLICY, &series(of));
        let said = format!("`queue_depth` of {whose} has a series already, at policy_test.yaml:8:21; what is measured would be a mix of both");
        assert!(answer.code == FAULTY && answer.text.contains(&said) && answer.text.contains("policy_test.yaml:9:21"), "{of}: {}", answer.text);
    }
    for of in ["", " & instance: bots-1, ", "instance: bots-1,  & instance: bots-2, "] {
        let answer = tested(POLICY, &series(of));
        assert_eq!(answer.code, FINE, "{of}: {}", answer.text);
    }
    // As a person sees it, from `policy check` too, which knows no fleet.
    let source = Source { name: "policy_test.yaml".to_owned(), text: Ok(series(" & ")) };
    let checked = super::super::check(&[source], super::super::CheckFormat::Text, false, false, Duration::from_secs(5));
    insta::assert_snapshot!(checked.text);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    for (policy, tests, code, says) in [
        (POLICY.to_owned(), POLICY.to_owned(), FAULTY, "this is a ScalingPolicy, not a PolicyTest"),
        (POLICY.to_owned(), String::new(), FAULTY, "there is no PolicyTest in this file"),
        (POLICY.replace("max: 10", "max: 0"), format!("{HEAD}{FAILING}"), FAULTY, "policy.yaml has errors"),
        (format!("{POLICY}---\n{POLICY}"), format!("{HEAD}{FAILING}"), FAULTY, "local/ProcessFleet/bots has a policy already, at policy.yaml:5:39"),
        (POLICY.to_owned(), format!("{HEAD}{FAILING}").replace("[policy.yaml]", "[polcy.yaml]"), FAULTY, "failed to read polcy.yaml"),
        (format!("{POLICY}---\n{}", POLICY.replace("bots", "others")), format!("{HEAD}{FAILING}"), FAULTY, "write `target: local/ProcessFleet/bots`"),
        (
            POLICY.to_owned(),
            format!("{HEAD}{FAILING}").replace("    - name: calm", "    - name: calm\n      target: local/ProcessFleet/bot"),
            FAULTY,
            "did you mean `local/ProcessFleet/bots`?",
        ),
    ] {
        let answer = tested(&policy, &tests);
        assert_eq!(answer.code, code, "{}", answer.text);
        assert!(answer.text.contains(says), "{says}: {}", answer.text);
    }
    assert_eq!(run(&["/nonexistent/test.yaml".into()], None, TestFormat::Text, false).code, UNREADABLE);
}

#[test]
fn one_test_may_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let file = folder.path().join("policy_test.yaml");
    fs::write(&file, format!("{HEAD}{FAILING}")).unwrap();
    let answer = run(std::slice::from_ref(&file), Some("calm"), TestFormat::Text, false);
    assert_eq!(answer.code, FINE);
    assert!(answer.text.ends_with("1 test: 1 passed, 0 failed\n"), "{}", answer.text);
    assert_eq!(run(&[file], Some("no such test"), TestFormat::Text, false).code, FAULTY);
}

/// The words that may be expected are those that a decision's record has.
#[test]
fn words_are_those_of_the_record() {
    use crate::model::document::fields::Choice;
    use crate::model::{MetricStatus, Reason, StepKind, Verdict};
    fn same<T: Choice + serde::Serialize>() {
        for (word, value) in T::WORDS {
            assert_eq!(serde_json::to_value(value).unwrap(), *word);
        }
    }
    same::<Verdict>();
    same::<StepKind>();
    same::<MetricStatus>();
    same::<Reason>();
}

/// The decision that moved the count stands for its moment, also where what follows it is blind: by a fallback, or down to `max`.
#[test]
fn what_moved_the_count_is_expected_also_while_blind() {
    let policy = POLICY
        .replace("  behavior:", "  fallback: { after: 30s, behavior: IfHigher, replicas: 5 }\n  behavior:")
        .replace("window: 5s", "window: 5s\n      staleAfter: 20s");
    passes(
        &policy,
        "    - { name: blind, fleet: { replicas: 3 }, series: [{ metric: queue_depth, values: 300 _x20 }], \
         expect: [{ at: 5s, replicas: 3 }, { at: 58s, binding: Fallback, reason: FallbackIfHigher, verdict: ScaleOut, replicas: 5 }] }\n",
    );
}
