use super::*;
use crate::edge::view::View;
use crate::edge::view::tests::{api, at, command, decision, grant, outcome};
use crate::model::Audit;

fn told(entries: impl IntoIterator<Item = Audit>) -> String {
    let view = View::new();
    for (n, entry) in (10..).zip(entries) {
        view.audit(at(n), entry);
    }
    let story = view.decisions(&api(), 1, None).unwrap().pop().unwrap();
    let mut out = Vec::new();
    write(&mut out, &story, Paint::PLAIN).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_decision_is_told_from_its_metrics_to_its_outcome() {
    insta::assert_snapshot!(told([Audit::Decision(decision(10, 3, 5)), grant(10, 3, 5), command(10, 3, 5), outcome(10, 5)]));
}

#[test]
fn what_has_not_come_yet_is_said() {
    for (entries, end) in [
        (vec![Audit::Decision(decision(10, 5, 5))], "There was nothing to do."),
        (vec![Audit::Decision(decision(10, 3, 5))], "The arbiter has not answered yet."),
        (vec![Audit::Decision(decision(10, 3, 5)), grant(10, 3, 5), command(10, 3, 5)], "What came of the command is not known yet."),
        (vec![Audit::Decision(Decision { advised: true, ..decision(10, 3, 5) })], "It was advice only: nothing was asked for."),
    ] {
        assert!(told(entries).ends_with(&format!("{end}\n")), "{end}");
    }
}

#[test]
fn times_are_read_as_people_write_them() {
    let now = at(0); // 2025-11-24T16:00:00Z
    for (text, ms) in [
        ("1764000000000", 1_764_000_000_000),
        ("2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("15:59:30", 1_764_000_000_000 - 30_000),
        ("16:00:30", 1_764_000_000_000 + 30_000 - 86_400_000),
    ] {
        assert_eq!(moment(text, now).unwrap().as_millis(), ms, "{text}");
    }
    assert!(moment("yesterday", now).unwrap_err().to_string().contains("is no time"));
}
