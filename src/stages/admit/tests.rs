use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::log::Offset;
use crate::model::{Alert, AlertState, AnnounceAgain, Audit, CarriedState, Message, Signal, TargetId};
use crate::stages::Snapshot;

const SECOND: i64 = 1_000;
const DAY: i64 = 86_400 * SECOND;

fn target(name: &str) -> TargetId {
    format!("prod/Deployment/{name}").parse().unwrap()
}

/// A spec whose content is `n`.
fn spec(n: u32) -> String {
    format!(r#"{{"replicas":{{"max":{n}}}}}"#)
}

fn policy(source: &str, round: i64, origin: &str, name: &str, spec: String) -> ControlEntry {
    ControlEntry::Policy(PolicyEntry { source: source.to_owned(), round, origin: origin.to_owned(), target: target(name), spec })
}

fn rejected(source: &str, round: i64, origin: &str, error: &str) -> ControlEntry {
    ControlEntry::Rejected(PolicyRejected { source: source.to_owned(), round, origin: origin.to_owned(), target: None, error: error.to_owned() })
}

fn end(source: &str, round: i64) -> ControlEntry {
    ControlEntry::RoundEnd(RoundEnd { source: source.to_owned(), round })
}

/// Feeds records at given times and tells what came of them, a line each.
#[derive(Default, Clone)]
struct Story {
    state: State,
    next: Offset,
}

impl Story {
    fn feed(&mut self, at: i64, entry: ControlEntry) -> String {
        let offset = self.next;
        self.next += 1;
        self.feed_at(offset, at, entry)
    }

    fn feed_at(&mut self, offset: Offset, at: i64, entry: ControlEntry) -> String {
        let mut effects = Effects::new();
        Admit.apply(&mut self.state, Input::Record(Located { partition: 0, offset, at: Timestamp::from_millis(at), record: entry }), &mut effects);
        let mut told = String::new();
        for effect in effects.take() {
            match effect.message {
                Message::Signal(Signal::Policy(p)) => {
                    let spec = p.spec.as_deref().map_or("none", |s| s.trim_start_matches(r#"{"replicas":{"max":"#).trim_end_matches('}'));
                    writeln!(told, "{} is {spec} by {}@{}", p.target.name(), p.order.source, p.order.generation).unwrap();
                }
                Message::Alert(Alert { name, subject, state, .. }) => writeln!(told, "{name} {subject} {state:?}").unwrap(),
                Message::Audit(Audit::Rejected(r)) => writeln!(told, "rejected {}: {}", r.origin, r.error).unwrap(),
                Message::Audit(Audit::Policy(_)) => {}
                other => panic!("admit does not append {other:?}"),
            }
        }
        told
    }

    /// A whole round of `source`: (origin, target, content).
    fn round(&mut self, at: i64, source: &str, round: i64, policies: &[(&str, &str, u32)]) -> String {
        let mut told = String::new();
        for (origin, name, content) in policies {
            told += &self.feed(at, policy(source, round, origin, name, spec(*content)));
        }
        told + &self.feed(at, end(source, round))
    }
}

#[test]
fn a_policy_is_announced_once_and_again_when_its_content_changes() {
    let mut story = Story::default();
    assert_eq!(story.feed(0, policy("f", 1, "a.yaml", "api", spec(1))), "", "a round says nothing before its end");
    assert_eq!(story.feed(0, end("f", 1)), "api is 1 by f/a.yaml@1\n");
    assert_eq!(story.round(30 * SECOND, "f", 2, &[("a.yaml", "api", 1)]), "", "unchanged");
    story.feed(60 * SECOND, policy("f", 3, "a.yaml", "api", r#"{ "replicas": {"max": 1} }"#.to_owned()));
    assert_eq!(story.feed(60 * SECOND, end("f", 3)), "", "spaces are no change");
    assert_eq!(story.round(61 * SECOND, "f", 4, &[("a.yaml", "api", 2)]), "api is 2 by f/a.yaml@2\n");
}

#[test]
fn a_change_is_audited_with_its_order() {
    let mut state = State::default();
    let mut effects = Effects::new();
    for (offset, record) in [policy("f", 1, "a.yaml", "api", spec(1)), end("f", 1)].into_iter().enumerate() {
        let located = Located { partition: 0, offset: offset as u64, at: Timestamp::from_millis(5), record };
        Admit.apply(&mut state, Input::Record(located), &mut effects);
    }
    let effects = effects.take();
    let [audit, signal] = effects.as_slice() else { panic!("{effects:?}") };
    let (Message::Audit(Audit::Policy(audited)), Message::Signal(Signal::Policy(announced))) = (&audit.message, &signal.message) else { panic!("{effects:?}") };
    assert_eq!(audited, announced);
    assert_eq!((audit.topic, signal.topic), (Topic::Audit, Topic::Signals));
    assert_eq!(signal.route, crate::stages::Route::Key("prod/Deployment/api".to_owned()));
}

#[test]
fn an_incomplete_round_decides_nothing() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1), ("b.yaml", "web", 1)]);
    story.feed(20 * SECOND, policy("f", 2, "a.yaml", "api", spec(7)));
    // The source died and starts again; what it said before it died does not count.
    assert_eq!(story.round(40 * SECOND, "f", 3, &[("a.yaml", "api", 1), ("b.yaml", "web", 1)]), "");
}

#[test]
fn a_round_that_is_not_newer_is_ignored() {
    let mut story = Story::default();
    story.round(0, "f", 5, &[("a.yaml", "api", 1)]);
    assert_eq!(story.round(1, "f", 4, &[("a.yaml", "api", 9), ("b.yaml", "web", 9)]), "PolicyRoundIgnored f Firing\n");
    assert_eq!(story.round(2, "f", 5, &[("a.yaml", "api", 9)]), "", "the same round twice");
    assert_eq!(story.round(20 * SECOND, "g", 1, &[]), "", "rounds are each source's own");
    assert_eq!(story.round(40 * SECOND, "f", 6, &[("a.yaml", "api", 1)]), "");
}

#[test]
fn a_source_that_numbers_its_rounds_from_below_is_told_so() {
    let mut story = Story::default();
    story.round(0, "f", 499_000, &[("a.yaml", "api", 1)]);
    story.round(0, "f", 500_000, &[("a.yaml", "api", 1)]);
    assert_eq!(story.round(9_999, "f", 499_000, &[("a.yaml", "api", 9)]), "", "a copy of an earlier round that comes late is no news");
    assert_eq!(story.round(9_999, "f", 500_000, &[("a.yaml", "api", 9)]), "", "nor the same once more");
    assert_eq!(story.round(10_000, "f", 500_000, &[("a.yaml", "api", 9)]), "PolicyRoundIgnored f Firing\n", "it never counts up");
    assert_eq!(story.round(20_000, "f", 500_000, &[("a.yaml", "api", 9)]), "", "told once");
    assert_eq!(story.round(30_000, "f", 500_001, &[("a.yaml", "api", 2)]), "api is 2 by f/a.yaml@2\n");
    assert_eq!(story.round(80_000, "f", 500_002, &[("a.yaml", "api", 2)]), "PolicyRoundIgnored f Resolved\n");
}

/// Between two of the one there is hardly a moment in which a late copy could be told from a round of the other.
#[test]
fn two_that_write_as_one_source_are_told_once_and_as_long_as_they_do() {
    let mut story = Story::default();
    let said: Vec<String> = (0..40)
        .map(|n| story.round(n * 3 * SECOND, "f", 500_000 + n, &[("a.yaml", "api", 1)]) + &story.round(n * 3 * SECOND, "f", 1 + n, &[("a.yaml", "api", 9)]))
        .filter(|said| !said.is_empty())
        .collect();
    assert_eq!(said, ["api is 1 by f/a.yaml@1\nPolicyRoundIgnored f Firing\n"]);
}

#[test]
fn a_number_that_would_hide_all_later_ones_is_refused() {
    let now = 1_800_000_000 * SECOND;
    let mut story = Story::default();
    assert_eq!(story.round(now, "ns", now * 1_000_000, &[("a.yaml", "api", 9)]), "PolicyRoundIgnored ns Firing\n", "nanoseconds are not milliseconds");
    assert_eq!(story.feed(now, rejected("ns", i64::MAX, "b.yaml", "no")), "");
    assert_eq!(story.round(now + 1, "ns", now, &[("a.yaml", "api", 1)]), "api is 1 by ns/a.yaml@1\n");
    let later = now + 60 * SECOND;
    assert_eq!(story.round(later, "ns", later, &[("a.yaml", "api", 1)]), "PolicyRoundIgnored ns Resolved\n");
    assert_eq!(story.round(later, "ns", later + 601 * SECOND, &[("a.yaml", "api", 2)]), "PolicyRoundIgnored ns Firing\n");
    assert_eq!(story.round(later, "ns", later + 600 * SECOND, &[("a.yaml", "api", 2)]), "api is 2 by ns/a.yaml@2\n");
}

#[test]
fn after_the_clock_was_set_back_rounds_count_by_the_new_time() {
    let mut story = Story::default();
    let (ahead, now) = (9_000_000 * SECOND, 8_000_000 * SECOND);
    story.round(ahead, "f", ahead, &[("a.yaml", "api", 1)]);
    assert_eq!(story.round(now, "f", now, &[("a.yaml", "api", 2)]), "api is 2 by f/a.yaml@2\n");
    assert_eq!(story.round(now + 1, "f", now + 1, &[("a.yaml", "api", 3)]), "api is 3 by f/a.yaml@3\n");
}

#[test]
fn what_a_round_without_an_end_named_takes_nothing_from_later_ones() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    // It died before the end of the round, on a machine whose clock is ahead.
    story.feed(1_000, policy("f", 300_000, "a.yaml", "api", spec(9)));
    for round in 2..6 {
        assert_eq!(story.round(round * 10 * SECOND, "f", round, &[("a.yaml", "api", 1)]), "");
    }
}

#[test]
fn what_complete_rounds_lack_for_ten_seconds_is_gone() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    assert_eq!(story.round(1_000, "f", 2, &[]), "", "one round");
    assert_eq!(story.round(10_999, "f", 3, &[]), "", "less than 10 s apart");
    assert_eq!(story.round(11_000, "f", 4, &[]), "api is none by f/a.yaml@2\n");
    assert_eq!(story.round(50_000, "f", 5, &[("a.yaml", "api", 1)]), "api is 1 by f/a.yaml@3\n", "generations only grow");
    assert_eq!(story.round(60_000, "f", 6, &[]), "");
    assert_eq!(story.round(65_000, "f", 7, &[("a.yaml", "api", 1)]), "", "it was there again");
    assert_eq!(story.round(70_000, "f", 8, &[]), "", "so the ten seconds begin anew");
}

#[test]
fn a_policy_that_is_removed_by_hand_is_gone_at_once() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    let removed = |source: &str| ControlEntry::Removed(PolicyRemoved { source: source.to_owned(), target: target("api") });
    assert_eq!(story.feed(1, removed("g")), "", "not by a source that has none");
    assert_eq!(story.feed(1, removed("f")), "api is none by f/a.yaml@2\n");
    assert_eq!(story.feed(2, removed("f")), "");
}

#[test]
fn a_refused_origin_keeps_its_policies_and_alerts_until_it_is_in_order() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1), ("a.yaml", "web", 1), ("b.yaml", "bot", 1)]);
    let refuse = |story: &mut Story, at: i64, round: i64, error: &str| {
        story.feed(at, policy("f", round, "b.yaml", "bot", spec(1)));
        story.feed(at, policy("f", round, "a.yaml", "api", spec(9)));
        story.feed(at, rejected("f", round, "a.yaml", error)) + &story.feed(at, end("f", round))
    };
    assert_eq!(refuse(&mut story, 20_000, 2, "no max"), "PolicyInvalid f/a.yaml Firing\nrejected a.yaml: no max\n", "nothing of it is taken");
    assert_eq!(refuse(&mut story, 40_000, 3, "no max"), "", "the same error is told once, and nothing is gone");
    assert_eq!(refuse(&mut story, 60_000, 4, "no min"), "PolicyInvalid f/a.yaml Firing\nrejected a.yaml: no min\n");
    let mended = story.round(80_000, "f", 5, &[("a.yaml", "api", 2), ("a.yaml", "web", 1), ("b.yaml", "bot", 1)]);
    assert_eq!(mended, "api is 2 by f/a.yaml@2\nPolicyInvalid f/a.yaml Resolved\n");
}

#[test]
fn of_two_policies_the_older_stays_until_it_goes() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    assert_eq!(story.round(1_000, "g", 1, &[("z.yaml", "api", 2)]), "PolicyConflict g/z.yaml Firing\n");
    assert_eq!(story.round(2_000, "g", 2, &[("z.yaml", "api", 3)]), "", "told once");
    assert_eq!(story.round(3_000, "f", 2, &[("a.yaml", "api", 4)]), "api is 4 by f/a.yaml@2\n", "the older still changes");
    assert_eq!(story.round(20_000, "f", 3, &[]), "");
    assert_eq!(story.round(30_000, "f", 4, &[]), "api is 3 by g/z.yaml@3\nPolicyConflict g/z.yaml Resolved\n");
    // The other way: the newer goes.
    assert_eq!(story.round(31_000, "f", 5, &[("a.yaml", "api", 4)]), "PolicyConflict f/a.yaml Firing\n");
    story.round(32_000, "f", 6, &[]);
    assert_eq!(story.round(42_000, "f", 7, &[]), "PolicyConflict f/a.yaml Resolved\n");
}

#[test]
fn a_conflict_names_both() {
    let mut state = State::default();
    let mut effects = Effects::new();
    let records = [policy("f", 1, "a.yaml", "api", spec(1)), policy("f", 1, "b.yaml", "api", spec(2)), end("f", 1)];
    for (offset, record) in records.into_iter().enumerate() {
        let located = Located { partition: 0, offset: offset as u64, at: Timestamp::from_millis(5), record };
        Admit.apply(&mut state, Input::Record(located), &mut effects);
    }
    let alert = effects.take().into_iter().find_map(|e| if let Message::Alert(alert) = e.message { Some(alert) } else { None }).unwrap();
    assert_eq!(
        alert.message,
        "f/a.yaml and f/b.yaml both have a policy for prod/Deployment/api; the one of f/a.yaml came first and is the one that counts while it is there: remove one of the two"
    );
    assert_eq!((alert.target, alert.state), (Some(target("api")), AlertState::Firing));
}

#[test]
fn a_renamed_file_is_no_conflict_and_the_policy_has_its_name() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    assert_eq!(story.round(1_000, "f", 2, &[("b.yaml", "api", 1)]), "api is 1 by f/b.yaml@2\n", "the new name has taken over");
    assert_eq!(story.round(2_000, "f", 3, &[("b.yaml", "api", 2)]), "api is 2 by f/b.yaml@3\n");
    // Other content under another name is no rename: the old one may come back within ten seconds.
    assert_eq!(story.round(3_000, "f", 4, &[("c.yaml", "api", 5)]), "");
    assert_eq!(story.round(13_000, "f", 5, &[("c.yaml", "api", 5)]), "api is 5 by f/c.yaml@4\n");
}

#[test]
fn a_live_policy_is_announced_again_once_a_day_and_a_removed_one_is_not() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1), ("b.yaml", "web", 1)]);
    story.feed(1, ControlEntry::Removed(PolicyRemoved { source: "f".to_owned(), target: target("web") }));
    let mut told = Vec::new();
    for minute in 1..=3 * 24 * 60 {
        let answer = story.round(minute * 60 * SECOND, "f", 1 + minute, &[("a.yaml", "api", 1)]);
        if !answer.is_empty() {
            told.push((minute, answer));
        }
    }
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|(_, answer)| answer == "api is 1 by f/a.yaml@1\n"), "the same generation: {told:?}");
    assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 == 24 * 60), "at the same time of the day: {told:?}");
}

#[test]
fn who_lost_signals_is_told_every_policy_in_force_again() {
    let mut story = Story::default();
    story.round(0, "dir", 1, &[("a.yaml", "a", 1), ("b.yaml", "b", 1), ("c.yaml", "c", 1)]);
    story.feed(SECOND, ControlEntry::Removed(PolicyRemoved { source: "dir".to_owned(), target: target("b") }));
    let ask = AnnounceAgain { asker: "decide".to_owned(), reason: "signals 3..9 of partition 0 are gone".to_owned() };
    let told = story.feed(2 * SECOND, ControlEntry::AnnounceAgain(ask));
    assert_eq!(told, "a is 1 by dir/a.yaml@1\nc is 1 by dir/c.yaml@1\n");
}

#[test]
fn a_removed_target_is_forgotten_when_no_signal_can_know_its_generation() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    story.feed(1, ControlEntry::Removed(PolicyRemoved { source: "f".to_owned(), target: target("api") }));
    story.round(7 * DAY, "g", 1, &[]);
    assert!(story.state.encode("target:prod/Deployment/api", 9).is_some());
    story.state.take_changed();
    story.round(7 * DAY + 2 * SECOND, "g", 2, &[]);
    assert_eq!(story.state.take_changed(), ["source:g", "target:prod/Deployment/api"]);
    assert_eq!(story.state.encode("target:prod/Deployment/api", 9), None);
}

#[test]
fn rounds_that_say_the_same_leave_nothing_to_save_but_the_source() {
    let mut story = Story::default();
    story.round(0, "f", 1, &[("a.yaml", "api", 1)]);
    assert_eq!(story.state.take_changed(), ["source:f", "target:prod/Deployment/api"]);
    story.round(30_000, "f", 2, &[("a.yaml", "api", 1)]);
    assert_eq!(story.state.take_changed(), ["source:f"]);
    story.feed(60_000, policy("f", 3, "a.yaml", "api", spec(1)));
    assert_eq!(story.state.take_changed(), ["target:prod/Deployment/api"], "in the middle of a round");
    story.feed(60_000, end("f", 3));
    assert_eq!(story.state.take_changed(), ["source:f", "target:prod/Deployment/api"], "and again after it");
}

#[test]
fn snapshots_that_cannot_be_read_say_why() {
    for (key, bytes, reason) in
        [("x", "{}", "neither target:ID nor source:NAME"), ("target:x", "{}", "namespace/Kind/name"), ("source:x", "[", "source x cannot be read")]
    {
        let error = State::default().restore(key, bytes.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

fn entries() -> impl Strategy<Value = Vec<(i64, ControlEntry)>> {
    let source = prop_oneof![Just("f"), Just("g")];
    let origin = prop_oneof![Just("a.yaml"), Just("b.yaml")];
    let name = prop_oneof![Just("api"), Just("web")];
    let entry = (0..8_u32, source, origin, name, 0..2_i64, 0..3_u32);
    prop::collection::vec((0..6_000_i64, entry), 1..100).prop_map(|drawn| {
        // Rounds count up at each end; now and then one comes too late.
        let mut rounds: BTreeMap<&str, i64> = BTreeMap::new();
        drawn
            .into_iter()
            .map(|(step, (kind, source, origin, name, late, content))| {
                let current = rounds.entry(source).or_insert(2);
                let round = *current - i64::from(late == 1 && content == 0);
                let entry = match kind {
                    0..=3 => policy(source, round, origin, name, spec(content)),
                    4 => rejected(source, round, origin, "no max"),
                    5 if content == 0 => ControlEntry::Removed(PolicyRemoved { source: source.to_owned(), target: target(name) }),
                    _ => {
                        *current += 1;
                        end(source, round)
                    }
                };
                (step, entry)
            })
            .collect()
    })
}

/// Saves what changed into `saved`, of it the keys that `keep` takes.
fn save(story: &mut Story, saved: &mut BTreeMap<String, Vec<u8>>, keep: impl Fn(usize) -> bool) {
    for (index, key) in story.state.take_changed().into_iter().enumerate() {
        if keep(index) {
            match story.state.encode(&key, story.next) {
                Some(bytes) => saved.insert(key, bytes),
                None => saved.remove(&key),
            };
        }
    }
}

proptest! {
    /// Two complete rounds of snapshots, and a third one of which a crash left only some keys. What is restored and fed
    /// again from the second on goes on as the undisturbed state does.
    #[test]
    fn a_restart_changes_nothing(entries in entries(), mut rounds in prop::array::uniform3(0..100_usize), mask in any::<u8>()) {
        rounds.sort_unstable();
        let [zeroth, first, second] = rounds.map(|round| round.min(entries.len()));
        let mut at = 0;
        let timed: Vec<(i64, ControlEntry)> = entries.into_iter().map(|(step, entry)| { at += step; (at, entry) }).collect();
        let mut undisturbed = Story::default();
        let mut saved = BTreeMap::new();
        let mut told = Vec::new();
        for (index, (at, entry)) in timed.iter().enumerate() {
            if index == zeroth || index == first {
                save(&mut undisturbed, &mut saved, |_| true);
            }
            if index == second {
                save(&mut undisturbed, &mut saved, |key| mask & (1 << (key % 8)) != 0);
            }
            told.push(undisturbed.feed(*at, entry.clone()));
        }
        let mut restored = Story::default();
        for (key, bytes) in &saved {
            restored.state.restore(key, bytes).unwrap();
        }
        for (index, (at, entry)) in timed.iter().enumerate().skip(first) {
            let answer = restored.feed_at(index as u64, *at, entry.clone());
            // Up to the crash the effects are there already.
            if index >= second {
                prop_assert_eq!(&answer, &told[index], "record {}", index);
            }
        }
    }

    #[test]
    fn generations_grow_by_one_and_no_content_is_announced_twice_in_a_row(entries in entries()) {
        let mut story = Story::default();
        let mut last: BTreeMap<String, (i64, String)> = BTreeMap::new();
        let mut at = 0;
        for (step, entry) in entries {
            at += step;
            for line in story.feed(at, entry).lines().filter(|l| l.contains('@')) {
                let words: Vec<&str> = line.split(['@', ' ']).collect();
                let (content, generation) = (format!("{} {}", words[2], words[4]), words[5].parse::<i64>().unwrap());
                if let Some((before, was)) = last.insert(words[0].to_owned(), (generation, content.clone())) {
                    prop_assert_eq!(generation, before + 1);
                    prop_assert_ne!(was, content);
                } else {
                    prop_assert_eq!(generation, 1);
                }
            }
        }
    }
}

/// A record for each key that admit saves, as another installation gets them.
fn carried(story: &mut Story) -> Vec<ControlEntry> {
    let keys = story.state.take_changed();
    let state = |key: &String| String::from_utf8(story.state.encode(key, story.next).unwrap()).unwrap();
    keys.iter()
        .map(|key| ControlEntry::Carried(CarriedState { key: key.clone(), migration: String::new(), version: i64::from(Admit::VERSION), state: state(key) }))
        .collect()
}

/// In another log generations go on, the first one that named a target holds it, and what was refused is mended there.
#[test]
fn what_was_migrated_holds_in_the_other_log() {
    let mut before = Story { next: 1_000, ..Story::default() };
    before.round(0, "f", 10, &[("a.yaml", "api", 1)]);
    before.round(SECOND, "f", 11, &[("a.yaml", "api", 2)]);
    assert_eq!(before.round(2 * SECOND, "g", 5, &[("b.yaml", "api", 9)]), "PolicyConflict g/b.yaml Firing\n");
    before.feed(3 * SECOND, rejected("f", 12, "a.yaml", "no"));
    assert_eq!(before.feed(3 * SECOND, end("f", 12)), "PolicyInvalid f/a.yaml Firing\nrejected a.yaml: no\n");
    let mut story = Story::default();
    let told: String = carried(&mut before).into_iter().map(|entry| story.feed(60 * SECOND, entry)).collect();
    assert_eq!(told, "api is 2 by f/a.yaml@2\n", "who shows policies there hears of it");
    assert_eq!(story.round(61 * SECOND, "f", 12, &[("a.yaml", "api", 3)]), "PolicyRoundIgnored f Firing\n", "that round was complete before");
    assert_eq!(story.round(62 * SECOND, "f", 13, &[("a.yaml", "api", 3)]), "api is 3 by f/a.yaml@3\nPolicyInvalid f/a.yaml Resolved\n");
    story.round(63 * SECOND, "f", 14, &[]);
    assert_eq!(story.round(74 * SECOND, "f", 15, &[]), "api is 9 by g/b.yaml@4\nPolicyConflict g/b.yaml Resolved\n", "who was refused comes after it");
    let known =
        ControlEntry::Carried(CarriedState { key: "target:prod/Deployment/api".to_owned(), migration: String::new(), version: 1, state: "{}".to_owned() });
    assert_eq!(story.feed(75 * SECOND, known), "StateNotCarried admit target:prod/Deployment/api Event\n");
}
