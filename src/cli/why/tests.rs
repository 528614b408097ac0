use super::*;
use crate::edge::view::View;
use crate::edge::view::tests::{api, at, command, decision, grant, outcome};
use crate::model::Audit;

fn told(entries: impl IntoIterator<Item = Audit>) -> String {
    let view = View::new();
    for (n, entry) in (10..).zip(entries) {
        view.audit(at(n), entry);
    }
    let mut decisions = view.decisions(&api(), 10, None).unwrap();
    let story = decisions.pop().unwrap();
    let around = Decisions { target: api(), decisions, by_hand: view.by_hand(&api()), next: None, gone: None };
    let mut out = Vec::new();
    write(&mut out, &story, &around, Paint::PLAIN).unwrap();
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

/// What people did stands where it belongs in time: before the decisions that came later, after what came earlier, under none as its consequence.
#[test]
fn changes_by_hand_are_told_in_the_order_of_time() {
    let set = |from, to| Audit::ByHand(ManualChange { target: api(), from, to, actor: "ana".to_owned(), reason: None, forced: to == 6 });
    let told = told([set(3, 4), Audit::Decision(decision(12, 4, 4)), Audit::Decision(decision(13, 4, 5)), grant(13, 4, 5), set(5, 6)]);
    let starts = |line: &&str| ["By hand", "Decided", "Grant"].iter().any(|word| line.starts_with(word));
    let lines: Vec<&str> = told.lines().filter(starts).map(|line| line.split_once('Z').map_or(line, |(start, _)| start)).collect();
    let expected = [
        "By hand  2025-11-24T16:00:10",
        "Decided  2025-11-24T16:00:12",
        "Decided  2025-11-24T16:00:13",
        "Grant    2025-11-24T16:00:13",
        "By hand  2025-11-24T16:00:14",
    ];
    assert_eq!(lines.iter().map(|line| line.split('.').next().unwrap_or_default()).collect::<Vec<_>>(), expected, "{told}");
    assert!(told.contains("  ana set 3 → 4\n") && told.contains("  ana forced 5 → 6\n"), "{told}");
}

/// A command that an emergency stop holds is tried again every few seconds, for as long as the stop is in force.
#[test]
fn what_came_again_and_again_is_told_once_with_how_often() {
    let frozen = |n| match outcome(n, 3) {
        Audit::Outcome(outcome) => Audit::Outcome(crate::model::Outcome { result: crate::model::OutcomeResult::Frozen, ..outcome }),
        other => other,
    };
    let tries = |n| (0..n).flat_map(|n| [grant(10 + n, 3, 5), command(10 + n, 3, 5), frozen(10 + n)]);
    let held = told([Audit::Decision(decision(10, 3, 5))].into_iter().chain(tries(25)));
    assert!(held.contains("; at least 20 times, the last at 2025"), "only so many are kept: {held}");
    let told = told([Audit::Decision(decision(10, 3, 5))].into_iter().chain(tries(12)).chain([grant(30, 3, 5), command(30, 3, 5), outcome(30, 5)]));
    let count = |word: &str| told.lines().filter(|line| line.starts_with(word)).collect::<Vec<_>>();
    assert_eq!([count("Grant").len(), count("Command").len(), count("Outcome").len()], [1, 1, 2], "{told}");
    assert!(
        count("Outcome")[0].contains("an emergency stop is in force") && count("Outcome")[0].contains("; 12 times, the last at 2025-11-24T16:00:46"),
        "{told}"
    );
    assert!(count("Outcome")[1].contains("applied; 5 replicas now"), "{told}");
}

#[test]
fn times_are_read_as_people_write_them() {
    let now = at(0); // 2025-11-24T16:00:00Z
    for (text, ms) in [
        ("1764000000000", 1_764_000_000_000),
        ("2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("2h", 1_764_000_000_000 - 7_200_000),
        ("15:59:30", 1_764_000_000_000 - 30_000),
        ("16:00:30", 1_764_000_000_000 + 30_000 - 86_400_000),
    ] {
        assert_eq!(moment("at", text, now).unwrap().as_millis(), ms, "{text}");
    }
    for (text, says) in [("yesterday", "--from \"yesterday\" is no time; write 30m, 2h or 3d"), ("2", "--from \"2\" has no unit; write 2m, 2h or 2d ago")] {
        assert!(moment("from", text, now).unwrap_err().to_string().contains(says), "{text}");
    }
    assert_eq!(ago("99999999999999d"), ago("36600d"), "no time overflows");
}
