//! `docs/api.md` is true: its examples are what the server answers, and it says what each field means.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::tests::started_on;
use crate::edge::view::tests::{api, at, caught_up, command, decision, fleet, grant, outcome, policy};
use crate::log::Topic;
use crate::model::{Amount, Audit, Message, Pane, Part, Reading, Signal};
use crate::runtime::publish;
use crate::stages::Effects;

/// A block of requests and the answer that follows it.
struct Example {
    request: String,
    /// The bytes of the answer in the text.
    answer: std::ops::Range<usize>,
}

fn examples(text: &str) -> Vec<Example> {
    let (begin, json) = ("```http\n", "\n```\n\n```json\n");
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find(begin).map(|i| from + i + begin.len()) {
        let middle = start + text[start..].find(json).expect("an example of a request has an answer");
        let end = middle + json.len() + text[middle + json.len()..].find("\n```").unwrap();
        found.push(Example { request: text[start..middle].to_owned(), answer: middle + json.len()..end });
        from = end;
    }
    found
}

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            // What stands in a line of a log has a format of its own; instances and resources are names.
            if !["part", "signals", "requests"].contains(&key.as_str()) {
                keys(value, into);
            }
            into.insert(key.clone());
        }),
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

/// JSON in its own order, a field a line; what is short stays on one.
fn indented(json: &str) -> String {
    const WIDTH: usize = 140;
    let (mut text, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        let inner = if quoted || !matches!(c, '{' | '[') { None } else { closed(rest) };
        if let Some(inner) = inner.filter(|inner| depth > 0 && inner.len() < WIDTH - 2 * depth) {
            text.push_str(inner);
            rest = &rest[inner.len()..];
            continue;
        }
        let line = |text: &mut String, depth: usize| {
            text.push('\n');
            text.push_str(&"  ".repeat(depth));
        };
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        match c {
            '{' | '[' if !quoted => {
                depth += 1;
                text.push(c);
                line(&mut text, depth);
            }
            '}' | ']' if !quoted => {
                depth -= 1;
                line(&mut text, depth);
                text.push(c);
            }
            ',' if !quoted => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' if !quoted => text.push_str(": "),
            _ => text.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    text
}

/// The object or list with which a text begins.
fn closed(text: &str) -> Option<&str> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (i, c) in text.char_indices() {
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        match c {
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (i > 0).then(|| &text[..=i]);
        }
    }
    None
}

#[test]
fn documented_examples_are_what_is_answered() {
    let (services, server) = started_on(at(60));
    let spec = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"api"},"replicas":{"min":3,"max":60},"metrics":[{"name":"cpu","track":{"utilization":"70%"}},{"name":"queue_depth","track":{"perReplica":"100"}}]}"#;
    let view = &services.view;
    // Long before the requests.
    caught_up(view, at(0));
    view.signal(at(2), Signal::Policy(policy(3, Some(spec))));
    view.signal(at(2), Signal::Fleet(fleet(2, 3, 3)));
    view.evaluated(&decision(10, 3, 5));
    for entry in [Audit::Decision(decision(10, 3, 5)), grant(10, 3, 5), command(10, 3, 5), outcome(10, 5)] {
        view.audit(at(11), entry);
    }
    view.evaluated(&decision(30, 5, 5));
    let mut effects = Effects::new();
    let reading =
        Reading { count: 2, sum: Amount::from_millis(1_680), max: Amount::from_millis(900), last: Amount::from_millis(780), last_at: at(4), histogram: None };
    let pane = Pane {
        metric: "cpu".parse().unwrap(),
        kind: crate::model::Kind::Gauge,
        start: at(0),
        end: at(5),
        instances: [("api-1".parse().unwrap(), reading)].into(),
        sketch: None,
    };
    for _ in 0..2 {
        let part = Part { target: api(), source: 0, panes: vec![pane.clone()] };
        effects.to_key(Topic::Signals, api().as_str(), Message::Signal(Signal::Part(part)));
    }
    effects.to_key(Topic::Signals, api().as_str(), Message::Signal(Signal::Fleet(fleet(2, 3, 3))));
    publish(&*services.log, effects).unwrap();

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let all = examples(&text);
    assert!(all.len() >= 8, "{} examples were found", all.len());
    let mut known = BTreeSet::new();
    // From the end, so that the places of those before stay.
    for example in all.into_iter().rev() {
        let (head, body) = example.request.split_once("\n\n").unwrap_or((&example.request, ""));
        let (method, rest) = head.split_once(' ').unwrap();
        let (path, kind) = rest.split_once("\ncontent-type: ").unwrap_or((rest, ""));
        let answer = if method == "GET" { server.get(path) } else { server.post(path, kind, body.as_bytes()) };
        keys(&answer.json(), &mut known);
        let answer = indented(&answer.body);
        if std::env::var_os("DOCS").is_some_and(|v| v == "write") {
            text.replace_range(example.answer, &answer);
        } else {
            assert_eq!(text[example.answer.clone()], answer, "the answer to {path} in docs/api.md; write it anew with DOCS=write");
        }
    }
    std::fs::write(&path, &text).unwrap();
    let prose: String = text.split("```").step_by(2).collect();
    let unsaid: Vec<&String> = known.iter().filter(|key| !prose.contains(&format!("`{key}`"))).collect();
    assert!(unsaid.is_empty(), "docs/api.md does not say what these fields mean: {unsaid:?}");
}
