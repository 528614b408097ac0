//! `loadline replay`: any lines, through the very function that the command calls.
//!
//! A first line that begins with `@` is the start state.

use std::io::BufReader;

use loadline::cli::replay::lines;
use loadline::runtime::replay::Replay;
use loadline::stages::arbitrate::Arbitrate;
use loadline::wire::jsonl::StartState;

/// Replayed twice, and open once: it says the same, one JSON object a line, and echoes each line that it took.
pub fn check(input: &[u8]) {
    let (start, input) = match input.strip_prefix(b"@") {
        Some(rest) => {
            let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let text = String::from_utf8_lossy(&rest[..end]);
            match StartState::from_json(&text) {
                Ok(start) => (start, &rest[end..]),
                Err(error) => return super::said(&error.to_string()),
            }
        }
        None => (StartState::default(), input),
    };
    replayed(&start, input, false);
    assert_eq!(replayed(&start, input, true), replayed(&start, input, true), "a replay is not the same twice");
}

fn replayed(start: &StartState, input: &[u8], follow: bool) -> String {
    let mut replay = if follow { Replay::closed(Arbitrate::default()) } else { Replay::open() };
    for (target, start) in start.targets.clone() {
        let proposals = start.proposals.into_iter().map(|p| (p.age, p.replicas)).collect();
        let events = start.scale_events.into_iter().map(|e| (e.age, e.change)).collect();
        replay.start(target, proposals, events);
    }
    let (mut out, mut troubles) = (Vec::new(), Vec::new());
    let outcome = lines(&mut replay, BufReader::new(input), follow, None, &mut out, &mut troubles);
    let troubles = String::from_utf8(troubles).expect("UTF-8");
    assert!(!troubles.contains("(Faulted)"), "the fold panicked: {troubles}");
    troubles.lines().for_each(|trouble| assert!(!trouble.chars().any(char::is_control), "{trouble:?}"));
    let out = String::from_utf8(out).expect("UTF-8");
    let mut done = 0;
    for line in out.lines() {
        serde_json::from_str::<&serde_json::value::RawValue>(line).unwrap_or_else(|error| panic!("{line} is no JSON: {error}"));
        if line.starts_with("{\"done\":") {
            done += 1;
            assert_eq!(line, format!("{{\"done\":{done}}}"));
        }
    }
    match outcome {
        Ok(_) => assert_eq!(done, if follow { std::io::BufRead::lines(input).count() } else { 0 }, "every line is echoed"),
        Err(error) => {
            let error = format!("{error:#}");
            super::said(&error);
            assert!(error.contains("line "), "{error}");
        }
    }
    out
}
