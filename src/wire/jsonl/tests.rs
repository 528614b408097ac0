//! The lines as they are documented, there and back, and what is wrong with others.

use proptest::prelude::*;

use super::*;
use crate::model::{Kind, Part, Sample, Signal, Timestamp};
use crate::wire::arbitrary;

const AT: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// Lines as a person would write them, one of each kind, in the form that is written back.
const LINES: [&str; 13] = [
    r#"{"at":1764000000000,"target":"prod/Deployment/api","policy":{"replicas":{"min":3},"x":1.10},"order":{"source":"file:api.yaml","generation":3}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","policy":null,"order":{"source":"file:api.yaml","generation":4}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","fleet":{"uid":"u","term":1,"sequence":4,"desired":3,"statusReplicas":3,"updating":false,"instances":[{"name":"api-1","phase":"Running","ready":true,"deleting":false,"startedAt":1763999000000,"readyChangedAt":1763999010000,"requests":{"cpu":1,"memory":536870912}}]}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","part":{"source":0,"panes":[{"metric":"cpu","kind":"Gauge","start":1763999995000,"end":1764000000000,"instances":{"api-1":{"count":4,"sum":12345678901234567890.123456789,"max":0.9,"last":0.7,"lastAt":1763999999000}},"sketch":null}]}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","part":{"source":0,"panes":[{"metric":"latency","kind":"Distribution","start":1763999995000,"end":1764000000000,"instances":{"":{"count":2,"sum":0.5,"max":0.3,"last":0.3,"lastAt":1763999999000}},"sketch":{"bins":[[-70,1],[-60,1]],"zero":0}}]}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","part":{"source":0,"panes":[{"metric":"latency","kind":"Histogram","start":1763999995000,"end":1764000000000,"instances":{"api-1":{"bounds":[0.1,0.5],"counts":[3,1,0],"count":4,"sum":0.55,"lastAt":1763999999000}},"sketch":null}]}}"#,
    r#"{"at":1764000000000,"partition":7,"mark":{"source":0,"of":1,"through":1764000005000,"paneMs":5000,"records":0,"late":0,"rejected":0}}"#,
    r#"{"at":1764000000000,"partition":7,"tick":{}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","sourceError":{"metric":"queue_depth","error":"broker unreachable"}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","partition":7,"sourceError":{"metric":"queue_depth","error":"broker unreachable"}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","outcome":{"command":"c-1","result":"Applied","replicas":5,"revision":77}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","grant":{"epoch":17,"desired":5,"granted":4,"limit":"Removals","command":{"id":"c-1","epoch":17,"from":3,"to":4,"expiresAt":1764000030000}}}"#,
    r#"{"at":1764000000000,"target":"prod/Deployment/api","carried":{"migration":"m-1","version":1,"state":{"current":3}}}"#,
];

#[test]
fn every_kind_of_line_is_read_and_written_back() {
    for text in LINES {
        let (at, partition, signal) = line_to_signal(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(signal_to_line(at, partition.unwrap_or(0), &signal), text);
        assert_eq!(partition, text.contains("\"partition\"").then_some(7));
    }
}

#[test]
fn the_short_forms_of_the_documentation_are_read() {
    let (_, partition, signal) = line_to_signal(r#"{"at":1764000000000,"partition":0,"mark":{"source":0,"of":1,"through":1764000005000}}"#).unwrap();
    let Signal::Mark(mark) = signal else { panic!("a mark") };
    assert_eq!((mark.pane_ms, partition), (5000, Some(0)));
}

#[test]
fn a_policy_written_over_several_lines_stays_on_one() {
    let policy = crate::model::PolicyAnnouncement {
        target: "a/b/c".parse().unwrap(),
        spec: Some("{\n  \"note\": \"two\\nlines\"\r\n}\n".to_owned()),
        order: crate::model::Order { source: "file:a.yaml".to_owned(), generation: 1 },
    };
    let text = signal_to_line(AT, 0, &Signal::Policy(policy));
    assert!(!text.contains(['\n', '\r']), "{text}");
    let (_, _, Signal::Policy(read)) = line_to_signal(&text).unwrap() else { panic!("a policy") };
    let spec: serde_json::Value = serde_json::from_str(&read.spec.unwrap()).unwrap();
    assert_eq!(spec["note"], "two\nlines");
}

#[test]
fn a_wrong_line_says_what_is_wrong_and_the_mend() {
    let rows = [
        (r#"{"at":1,"override":{"floor":20}}"#, r#"this version of Loadline has no "override" lines; leave the line out"#),
        (r#"{"at":1,"target":"a/b/c","forecast":{}}"#, r#"this version of Loadline has no "forecast" lines; leave the line out"#),
        (r#"{"at":1,"targt":"a/b/c","tick":{}}"#, r#"unknown field "targt"; did you mean "target"?"#),
        (
            r#"{"at":1,"weather":1,"tick":{}}"#,
            r#"unknown field "weather"; known are at, target, partition, policy, order, part, mark, tick, fleet, outcome, grant, sourceError, carried, override, forecast"#,
        ),
        (
            r#"{"at":1,"partition":0,"tick":{},"mark":{"source":0,"of":1,"through":2}}"#,
            r#"a line says one thing, this one has "mark" and "tick": write a line for each"#,
        ),
        (r#"{"at":1,"target":"a/b/c"}"#, r#""part" is missing: a line needs one of part, mark, tick, fleet, policy, outcome, grant, sourceError, carried"#),
        (r#"{"at":1,"sourceError":{"metric":"m","error":"e"}}"#, r#""target" is missing: a "sourceError" line needs "target":"namespace/Kind/name""#),
        (r#"{"at":1,"target":"a/b/c","policy":null}"#, r#""order" is missing: a "policy" line needs "order":{"source":"…","generation":1}"#),
        (r#"{"at":1,"target":"a/b/c","tick":{}}"#, r#"a "tick" concerns all targets of its partition: leave "target":"a/b/c" out"#),
        (r#"{"at":1,"target":"api","tick":{}}"#, r#"target "api" is not namespace/Kind/name, as in prod/Deployment/api-server (in "target")"#),
        (r#"{"at":1,"partition":0,"tick":{"now":3}}"#, r#"unknown field "tick.now": leave it out"#),
        (r#"{"at":"noon","tick":{}}"#, r#""at" is "noon", and must be a whole number"#),
        (r#"{"at":1,"partition":0,"mark":{"source":0,"of":1}}"#, r#""mark.through" is missing"#),
        (r#"{"at":1,"partition":0,"tick":{}"#, "not JSON at column 31: it ends too early"),
        (
            r#"{"at":1,"target":"a/b/c","part":{"source":0,"panes":[{"metric":"m","kind":"Gauge","start":1,"end":2,"instances":{"i":{"cuont":1}}}]}}"#,
            r#"unknown field "part.panes[0].instances.i.cuont"; did you mean "count"?"#,
        ),
        (
            r#"{"at":1,"target":"a/b/c","part":{"source":0,"panes":[{"metric":"m","kind":"gauge","start":1,"end":2,"instances":{}}]}}"#,
            r#""part.panes[0].kind" is "gauge", and must be one of Gauge, Counter, Delta, Distribution, Histogram; did you mean "Gauge"?"#,
        ),
    ];
    for (text, words) in rows {
        assert_eq!(line_to_signal(text).unwrap_err().to_string(), words, "{text}");
    }
    let gauge = r#"{"at":1,"target":"a/b/c","part":{"source":0,"panes":[{"metric":"m","kind":"Gauge","start":1,"end":2,"instances":{"i":{"count":1,"sum":1,"lastAt":1}}}]}}"#;
    assert_eq!(
        line_to_signal(gauge).unwrap_err().to_string(),
        r#"instance "i" of metric m: it needs "count", "sum", "max", "last" and "lastAt"; only a Histogram has "bounds" and "counts""#
    );
}

/// What is JSON and no lines of it is said as such, not as an error of a field.
#[test]
fn samples_that_are_no_lines_are_said_to_be_none() {
    let said = |text: &str| sample_from_line(text, Timestamp::from_millis(0)).unwrap_err().to_string();
    assert!(said(r#"[{"target":"a/b/c","metric":"cpu","value":1}]"#).starts_with("one object a line is read, and this is an array"));
    assert!(said("[").contains("this is an array"));
    assert!(said(include_str!("../otlp/collector/otlp-json.json")).starts_with("this is OTLP in JSON, and OTLP is read in protobuf alone"));
    assert!(said("{").starts_with("one object a line is read, and this is one over several lines"));
}

/// Whatever stands in a line: what is said of it fits on one, and disturbs no terminal.
#[test]
fn what_is_said_of_a_line_is_short_and_plain() {
    let escape = "\u{1b}[31m\u{7f}";
    for text in [
        format!(r#"{{"at":1,"ti{escape}ck":{{}}}}"#),
        format!(r#"{{"at":1,"tick":{{"{escape}":1}}}}"#),
        format!(r#"{{"at":1,"target":"{}"}}"#, "x".repeat(100_000)),
        format!(r#"{{"at":1,"{}":1}}"#, "y".repeat(100_000)),
    ] {
        for said in [line_to_signal(&text).unwrap_err().to_string(), sample_from_line(&text, AT).unwrap_err().to_string()] {
            assert!(said.len() < 1_000 && !said.contains(char::is_control), "{said}");
        }
    }
    let named = "x".repeat(1_000).parse::<crate::model::MetricName>().unwrap_err().to_string();
    assert!(named.ends_with("…\" must have 1 to 253 bytes, it has 1000"), "{named}");
}

#[test]
fn a_sample_is_read_with_its_defaults() {
    let sample = sample_from_line(r#"{"target":"prod/Deployment/api","metric":"cpu","value":0.7}"#, AT).unwrap();
    assert_eq!((sample.time, sample.kind, sample.instance.is_none(), sample.value), (AT, Kind::Gauge, true, 0.7));
    let text = r#"{"targets":["a/b/c","a/b/d"],"metric":"latency","instance":"i-1","time":5,"kind":"Histogram","bounds":[0.1,0.5],"counts":[3,1,0],"count":4,"sum":0.5}"#;
    let sample = sample_from_line(text, AT).unwrap();
    assert_eq!((sample.targets.len(), sample.time), (2, Timestamp::from_millis(5)));
    assert_eq!(sample_to_line(&sample), text);
}

#[test]
fn a_wrong_sample_says_what_is_wrong_and_the_mend() {
    let rows = [
        (r#"{"metric":"cpu","value":1}"#, r#""target" is missing: write "target":"namespace/Kind/name", or "targets" for several"#),
        (r#"{"target":"a/b/c","value":1}"#, r#""metric" is missing: write the metric's name, as in "metric":"cpu""#),
        (r#"{"target":"a/b/c","metric":"cpu"}"#, r#""value" is missing: a Gauge needs a number in base units (cores, bytes, seconds, a count)"#),
        (r#"{"target":"a/b/c","metric":"cpu","valeu":1}"#, r#"unknown field "valeu"; did you mean "value"?"#),
        (
            r#"{"target":"a/b/c","targets":["a/b/c"],"metric":"cpu","value":1}"#,
            r#"both "target" and "targets" are given: keep "targets" and name all of them there"#,
        ),
        (r#"{"targets":[],"metric":"cpu","value":1}"#, r#""targets" is missing: name at least one target, as namespace/Kind/name"#),
        (
            r#"{"target":"a/b/c","metric":"cpu","value":1,"kind":"Histogram"}"#,
            r#"a Histogram has no "value": it has "bounds", "counts", "count" and "sum" in its place"#,
        ),
        (
            r#"{"target":"a/b/c","metric":"l","kind":"Histogram","bounds":[1]}"#,
            r#""counts" is missing: a Histogram needs "bounds", "counts", "count" and "sum""#,
        ),
        (
            r#"{"target":"a/b/c","metric":"l","value":1,"sum":3}"#,
            r#""sum" belongs to kind Histogram and this is a Gauge: add "kind":"Histogram", or leave it out"#,
        ),
        (
            r#"{"target":"a/b/c","metric":"l","kind":"Histogram","bounds":[1],"counts":[1],"count":1,"sum":1}"#,
            r#"1 "bounds" need 2 "counts", one more, since the last bucket has no upper bound; there are 1"#,
        ),
        (
            r#"{"target":"a/b/c","metric":"l","kind":"Histogram","bounds":[2,1],"counts":[1,1,1],"count":3,"sum":1}"#,
            r#""bounds" must ascend, 2 comes before 1"#,
        ),
        (r#"{"target":"a/b/c","metric":"cpu","value":"high"}"#, r#""value" is "high", and must be a number"#),
        (r#"{"target":"a/b/c","metric":"cpu","value":"0.7"}"#, r#""value" is "0.7", and must be a number: leave the quotes out"#),
        (r#"{"target":"a/b/c","metric":"cpu","value":1e999}"#, r#""value" is 1e999, and must be a number of at most 1.7e308"#),
        (
            r#"{"target":"a/b/c","metric":"cpu","value":1,"kind":"gauge"}"#,
            r#""kind" is "gauge", and must be one of Gauge, Counter, Delta, Distribution, Histogram; did you mean "Gauge"?"#,
        ),
        (
            r#"{"targets":["a/b/c","api"],"metric":"cpu","value":1}"#,
            r#"target "api" is not namespace/Kind/name, as in prod/Deployment/api-server (in "targets[1]")"#,
        ),
        (r#"{"target":"a/b/c","metric":"cpu","value":1,"time":"2026-03-01T12:00:00Z"}"#, r#""time" is "2026-03-01T12:00:00Z", and must be a whole number"#),
        ("target=a/b/c", "not JSON at column 2: a word is none of true, false and null"),
        ("cpu 0.7", "not JSON at column 1: a value is missing, or none of JSON: texts stand in double quotes"),
        ("0.7", "this is 0.7, and must be an object"),
    ];
    for (text, words) in rows {
        assert_eq!(sample_from_line(text, AT).unwrap_err().to_string(), words, "{text}");
    }
}

#[test]
fn a_decision_has_its_words() {
    let decision: crate::model::Decision = serde_json::from_str(
        r#"{"target":"prod/Deployment/api","sequence":17,"at":1764000000000,"through":1763999999000,"current":3,"desired":5,"verdict":"ScaleOut","binding":"RateLimit",
        "metrics":[{"name":"cpu","status":"Ok","unit":"Ratio","value":0.84,"target":0.7,"proposal":8}],
        "steps":[{"step":"Combine","before":3,"after":8,"reason":"LargestProposal","metric":"cpu"},{"step":"RateLimit","before":8,"after":5,"reason":"ScaleOutRate","limit":5}],
        "policyVersion":"file:api.yaml@3","foldVersion":1}"#,
    )
    .unwrap();
    assert_eq!(
        decision_to_line(AT, &decision),
        concat!(
            r#"{"at":1764000000000,"target":"prod/Deployment/api","decision":{"sequence":17,"current":3,"desired":5,"verdict":"ScaleOut","binding":"RateLimit","#,
            r#""reason":"cpu 84 % against 70 % asks for 8; the scale-out rate allows 5","#,
            r#""metrics":[{"name":"cpu","status":"Ok","value":0.84,"target":0.7,"proposal":8}],"#,
            r#""steps":[{"step":"Combine","before":3,"after":8,"why":"cpu 84 % against 70 % asks for 8"},"#,
            r#"{"step":"RateLimit","before":8,"after":5,"why":"the scale-out rate allows 5"}],"policyVersion":"file:api.yaml@3","foldVersion":1}}"#
        )
    );
}

#[test]
fn commands_and_the_end_of_an_input_line() {
    let command = crate::model::Command {
        id: "c-1".to_owned(),
        target: "a/b/c".parse().unwrap(),
        uid: "u".to_owned(),
        epoch: 17,
        from: 3,
        to: 5,
        replaces: None,
        replaced_to: None,
        expires_at: Timestamp::from_millis(9),
    };
    assert_eq!(
        command_to_line(AT, &command),
        r#"{"at":1764000000000,"target":"a/b/c","command":{"id":"c-1","uid":"u","epoch":17,"from":3,"to":5,"expiresAt":9}}"#
    );
    assert_eq!(done_line(12), r#"{"done":12}"#);
}

#[test]
fn a_grants_line_is_a_signals_line() {
    let (at, _, signal) = line_to_signal(LINES[11]).unwrap();
    let Signal::Grant(grant) = &signal else { panic!("a grant") };
    assert_eq!(grant_to_line(at, grant), signal_to_line(at, 0, &signal));
}

#[test]
fn a_start_state_is_read() {
    let text = r#"{"prod/Deployment/api":{"proposals":[{"replicas":5,"ageMs":120000}],"scaleEvents":[{"change":-3,"ageMs":30000}]},"a/b/c":{}}"#;
    let state = StartState::from_json(text).unwrap();
    let api = &state.targets["prod/Deployment/api"];
    assert_eq!(api.proposals, [SeedProposal { replicas: 5, age: std::time::Duration::from_secs(120) }]);
    assert_eq!(api.scale_events, [SeedScaleEvent { change: -3, age: std::time::Duration::from_secs(30) }]);
    assert_eq!(state.targets["a/b/c"], TargetStart::default());
    let wrong = StartState::from_json(r#"{"a/b/c":{"proposal":[]}}"#).unwrap_err().to_string();
    assert_eq!(wrong, r#"unknown field "a/b/c.proposal"; did you mean "proposals"?"#);
}

proptest! {
    #[test]
    fn a_signal_comes_back_from_its_line(signal in arbitrary::signal(), at in any::<i64>()) {
        let at = Timestamp::from_millis(at);
        let text = signal_to_line(at, 3, &signal);
        prop_assert!(!text.contains(['\n', '\r']));
        let (read_at, partition, read) = line_to_signal(&text).unwrap();
        prop_assert_eq!((read_at, partition), (at, Some(3)));
        prop_assert_eq!(read, signal);
    }

    #[test]
    fn a_sample_comes_back_from_its_line(sample in arbitrary::valid_sample()) {
        let read: Sample = sample_from_line(&sample_to_line(&sample), AT).unwrap();
        prop_assert_eq!(read, sample);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}|\\{\"at\":1,.{0,40}\\}") {
        let _ = line_to_signal(&text);
        let _ = sample_from_line(&text, AT);
        let _ = StartState::from_json(&text);
    }

    #[test]
    fn every_decision_and_command_is_one_line_of_json(decision in arbitrary::decision(), command in arbitrary::command()) {
        for text in [decision_to_line(decision.at, &decision), command_to_line(AT, &command)] {
            prop_assert!(!text.contains('\n'));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}

#[test]
fn sums_keep_every_digit() {
    let (_, _, Signal::Part(Part { panes, .. })) = line_to_signal(LINES[3]).unwrap() else { panic!("a part") };
    assert_eq!(panes[0].instances["api-1"].sum.to_string(), "12345678901234567890.123456789");
}
