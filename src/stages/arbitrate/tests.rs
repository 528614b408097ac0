use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::log::Offset;
use crate::model::{CarriedState, Timestamp};
use crate::stages::{Located, Snapshot};

/// A claim of the fleet `f` for `prod/Deployment/NAME`: paced, priority 0, `min` 1, standing for 150 s; of all commands before
/// it has been heard.
fn claim(name: &str, epoch: i64, current: u32, desired: u32) -> Request {
    Request {
        target: format!("prod/Deployment/{name}").parse().unwrap(),
        fleet: "f".parse().unwrap(),
        epoch,
        uid: "u".to_owned(),
        current,
        desired,
        min: 1,
        priority: 0,
        paced: true,
        open: None,
        heard_of: epoch - 1,
        expires_at: Timestamp::from_millis(epoch + 150_000),
        withdrawn: false,
    }
}

fn open(id: &str, epoch: i64, from: u32, to: u32, expires_at: i64) -> OpenCommand {
    OpenCommand { id: format!("prod/Deployment/{id}"), epoch, from, to, expires_at: Timestamp::from_millis(expires_at) }
}

/// Feeds records at given times and tells what came of each as text, one line an answer.
#[derive(Default)]
struct Story {
    stage: Arbitrate,
    state: State,
    next: Offset,
    commands: Vec<(i64, Command)>,
}

impl Story {
    fn feed(&mut self, at: i64, record: RequestsEntry) -> String {
        let mut effects = Effects::new();
        let record = Located { partition: 0, offset: self.next, at: Timestamp::from_millis(at), record };
        self.next += 1;
        self.stage.apply(&mut self.state, Input::Record(record), &mut effects);
        let mut told = String::new();
        for effect in effects.take() {
            match effect.message {
                Message::Command(c) => {
                    let replaced = c.replaces.as_ref().map(|id| format!(" instead of {} to {}", short(id), c.replaced_to.unwrap())).unwrap_or_default();
                    writeln!(told, "command {} {}->{} until {}{replaced}", short(&c.id), c.from, c.to, c.expires_at.as_millis()).unwrap();
                    self.commands.push((at, c));
                }
                Message::Signal(Signal::Grant(g)) => {
                    let command = g.command.as_ref().map(|c| format!(" by {}", short(&c.id))).unwrap_or_default();
                    writeln!(told, "grant {}#{} {} of {} {:?}{command}", g.target.name(), g.epoch, g.granted, g.desired, g.limit).unwrap();
                }
                Message::Audit(Audit::Command(_) | Audit::Grant(_)) => {}
                Message::Alert(alert) => writeln!(told, "alert {}", alert.name).unwrap(),
                other => panic!("the arbiter does not append {other:?}"),
            }
        }
        told
    }

    fn claim(&mut self, at: i64, request: Request) -> String {
        self.feed(at, RequestsEntry::Claim(request))
    }

    fn tick(&mut self, at: i64) -> String {
        self.feed(at, RequestsEntry::Tick(Tick {}))
    }

    /// Another process: the snapshots of all that changed, restored.
    fn restart(&mut self) {
        let mut restored = State::default();
        for key in self.state.take_changed() {
            if let Some(bytes) = self.state.encode(&key, self.next) {
                restored.restore(&key, &bytes).unwrap();
            }
        }
        self.state = restored;
    }
}

fn short(id: &str) -> &str {
    id.rsplit('/').next().unwrap()
}

#[test]
fn growth_is_granted_at_once_and_once() {
    let mut story = Story::default();
    assert_eq!(story.claim(1_050, claim("a", 1_000, 3, 8)), "command a#1000 3->8 until 31050\ngrant a#1000 8 of 8 None by a#1000\n");
    assert_eq!(story.claim(1_060, claim("a", 1_000, 3, 8)), "", "the same epoch twice");
    assert_eq!(story.claim(1_070, claim("a", 900, 3, 20)), "", "an older epoch");
    assert_eq!(story.tick(2_000) + &story.tick(40_000), "", "a claim has one command, also once that has expired");
    assert_eq!(story.claim(50_000, claim("a", 49_000, 8, 8)), "", "a refresh at rest");
}

#[test]
fn a_command_is_for_the_claim_and_no_longer() {
    let mut story = Story::default();
    let mut short_lived = claim("a", 1_000, 3, 8);
    short_lived.expires_at = Timestamp::from_millis(9_000);
    assert!(story.claim(1_050, short_lived).starts_with("command a#1000 3->8 until 9000\n"));
    let command = &story.commands[0].1;
    assert_eq!((command.uid.as_str(), command.epoch, command.replaces.as_ref()), ("u", 1_000, None));
}

#[test]
fn min_is_granted_while_nothing_may_be_removed() {
    let mut story = Story { stage: Arbitrate { pacing: Pacing { percent: 0, at_least: 0, ..Pacing::default() }, ..Arbitrate::default() }, ..Story::default() };
    assert_eq!(story.claim(1_000, claim("a", 1_000, 5, 3)), "grant a#1000 5 of 3 Removals\n");
    let below = Request { min: 2, ..claim("b", 1_000, 0, 2) };
    assert_eq!(story.claim(1_000, below), "command b#1000 0->2 until 31000\ngrant b#1000 2 of 2 None by b#1000\n");
}

#[test]
fn removals_are_paced_over_the_fleet_and_the_rest_is_served_on_the_next_claim() {
    let mut story = Story::default();
    // 20 replicas in all: 5 a minute.
    assert_eq!(story.claim(1_000, claim("a", 1_000, 12, 9)), "command a#1000 12->9 until 31000\ngrant a#1000 9 of 9 None by a#1000\n");
    assert_eq!(story.claim(2_000, claim("b", 2_000, 8, 4)), "command b#2000 8->6 until 32000\ngrant b#2000 6 of 4 Removals by b#2000\n");
    assert_eq!(story.claim(4_000, claim("b", 4_000, 6, 4)), "grant b#4000 6 of 4 Removals\n", "answered, naming the limit");
    assert_eq!(story.tick(5_000) + &story.tick(61_000), "", "answered once; what is a minute old still counts");
    assert_eq!(story.tick(61_001), "command b#4000 6->4 until 91001\ngrant b#4000 4 of 4 None by b#4000\n");
}

#[test]
fn ten_percent_of_a_large_fleet_may_go_and_a_fleet_can_have_its_own_limit() {
    let mut story = Story::default();
    assert!(story.claim(1_000, claim("a", 1_000, 300, 10)).starts_with("command a#1000 300->270 "));
    let own = Pacing { percent: 50, at_least: 1, period: Duration::from_secs(1) };
    story.stage.fleets.insert("g".parse().unwrap(), own);
    let other = Request { fleet: "g".parse().unwrap(), ..claim("b", 1_000, 4, 0) };
    assert!(story.claim(1_000, other).starts_with("command b#1000 4->2 "), "fleets do not share a limit");
    let other = Request { fleet: "g".parse().unwrap(), ..claim("b", 1_500, 2, 0) };
    assert_eq!(story.claim(1_500, other), "grant b#1500 2 of 0 Removals\n");
    assert!(story.tick(2_001).starts_with("command b#1500 2->1 "), "its own period");
}

#[test]
fn targets_that_are_not_paced_are_not_held_back_but_count() {
    let mut story = Story::default();
    let free = Request { paced: false, ..claim("a", 1_000, 20, 10) };
    assert!(story.claim(1_000, free).starts_with("command a#1000 20->10 "));
    assert_eq!(story.claim(1_000, claim("b", 1_000, 9, 5)), "grant b#1000 9 of 5 Removals\n");
}

#[test]
fn what_waits_is_served_by_priority_then_by_name() {
    let mut story = Story::default();
    story.claim(1_000, claim("first", 1_000, 10, 5));
    for (name, priority) in [("c", 0), ("b", 0), ("z", 7)] {
        let waiting = Request { priority, ..claim(name, 2_000, 10, 8) };
        assert!(story.claim(2_000, waiting).contains("Removals"));
    }
    let served = story.tick(61_001);
    let commands: Vec<&str> = served.lines().filter(|l| l.starts_with("command")).collect();
    assert_eq!(commands, ["command z#2000 10->8 until 91001", "command b#2000 10->8 until 91001", "command c#2000 10->9 until 91001"], "{served}");
}

#[test]
fn a_newcomer_does_not_take_what_a_more_important_claim_waits_for() {
    let mut story = Story::default();
    story.claim(1_000, claim("first", 1_000, 10, 5));
    story.claim(2_000, Request { priority: 9, ..claim("waits", 2_000, 20, 10) });
    let answer = story.claim(61_001, claim("new", 61_000, 10, 5));
    assert!(answer.starts_with("command waits#2000 20->15 "), "{answer}");
    assert!(answer.ends_with("grant new#61000 10 of 5 Removals\n"), "{answer}");
}

#[test]
fn expired_and_withdrawn_claims_are_neither_granted_nor_counted() {
    let mut story = Story::default();
    assert_eq!(story.claim(200_000, claim("late", 1_000, 3, 8)), "", "expired before it was read");
    story.claim(200_000, claim("big", 200_000, 1_000, 1_000));
    let gone = Request { withdrawn: true, ..claim("big", 200_001, 1_000, 0) };
    assert_eq!(story.claim(200_002, gone), "");
    assert!(story.claim(200_003, claim("a", 200_003, 50, 10)).starts_with("command a#200003 50->45 "), "10 % of 50, not of 1,050");
    assert_eq!(story.claim(200_004, claim("a", 200_004, 45, 10)), "grant a#200004 45 of 10 Removals\n");
    assert_eq!(story.tick(350_004), "", "it expired while it waited");
}

#[test]
fn one_command_is_in_flight_and_only_a_claim_that_goes_further_out_replaces_it() {
    struct Row {
        open: (u32, u32),
        current: u32,
        desired: u32,
        told: &'static str,
    }
    let rows = [
        Row { open: (5, 8), current: 5, desired: 8, told: "grant a#2000 8 of 8 None by a#1000\n" },
        Row { open: (5, 8), current: 5, desired: 7, told: "grant a#2000 8 of 7 None by a#1000\n" },
        Row { open: (5, 8), current: 5, desired: 2, told: "grant a#2000 8 of 2 None by a#1000\n" },
        Row { open: (5, 8), current: 5, desired: 5, told: "" },
        Row { open: (5, 8), current: 5, desired: 12, told: "command a#2000 5->12 until 32000 instead of a#1000 to 8\ngrant a#2000 12 of 12 None by a#2000\n" },
        Row { open: (10, 5), current: 10, desired: 7, told: "command a#2000 10->7 until 32000 instead of a#1000 to 5\ngrant a#2000 7 of 7 None by a#2000\n" },
        Row {
            open: (10, 5),
            current: 10,
            desired: 10,
            told: "command a#2000 10->10 until 32000 instead of a#1000 to 5\ngrant a#2000 10 of 10 None by a#2000\n",
        },
        Row { open: (10, 5), current: 10, desired: 3, told: "grant a#2000 5 of 3 None by a#1000\n" },
    ];
    for Row { open: (from, to), current, desired, told } in rows {
        let mut story = Story::default();
        let named = Request { open: Some(open("a#1000", 1_000, from, to, 31_000)), ..claim("a", 2_000, current, desired) };
        assert_eq!(story.claim(2_000, named.clone()), told, "{from}->{to}, then {current}->{desired}, named by the claim");

        let mut story = Story::default();
        story.claim(2_000, claim("a", 1_000, from, to));
        let crossed = Request { heard_of: 0, ..claim("a", 2_000, current, desired) };
        assert_eq!(story.claim(2_000, crossed), told, "{from}->{to}, then {current}->{desired}, before decide had heard of it");
    }
}

/// Three claims that were made before any command of them was heard of: down, as it was, and down again. The third would remove
/// what the second is to bring back, by a decision that knows of neither.
#[test]
fn a_count_that_a_command_is_to_bring_back_is_not_taken_for_closed() {
    let mut story = Story::default();
    let unheard = |epoch, desired| Request { heard_of: 500, ..claim("a", epoch, 5, desired) };
    assert!(story.claim(2_000, unheard(1_000, 3)).starts_with("command a#1000 5->3 "));
    assert!(story.claim(2_000, unheard(2_000, 5)).starts_with("command a#2000 5->5 until 32000 instead of a#1000 to 3\n"));
    assert_eq!(story.claim(2_000, unheard(2_001, 3)), "grant a#2001 5 of 3 None by a#2000\n");
    let heard = Request { heard_of: 2_000, ..claim("a", 2_002, 5, 3) };
    assert!(story.claim(2_002, heard).starts_with("command a#2002 5->3 "));
}

#[test]
fn a_closed_command_holds_nothing_back() {
    let cases = [
        ("decide closed it", claim("a", 3_000, 5, 7), 3_000, "command a#3000 5->7 "),
        ("it was applied", claim("a", 1_500, 8, 7), 2_000, "command a#1500 8->7 "),
        ("another incarnation", Request { uid: "v".to_owned(), ..claim("a", 1_500, 1, 2) }, 2_000, "command a#1500 1->2 "),
    ];
    for (why, next, at, told) in cases {
        let mut story = Story::default();
        story.claim(2_000, claim("a", 1_000, 5, 8));
        let answer = story.claim(at, next);
        assert!(answer.starts_with(told), "{why}: {answer}");
    }
    let mut story = Story::default();
    let waiting = Request { open: Some(open("a#1", 1, 5, 8, 20_000)), ..claim("a", 2_000, 5, 7) };
    assert_eq!(story.claim(2_000, waiting), "grant a#2000 8 of 7 None by a#1\n");
    assert_eq!(story.tick(19_999), "");
    assert!(story.tick(20_000).starts_with("command a#2000 5->7 "), "it expired");
}

#[test]
fn a_clock_that_is_set_back_is_followed_and_frees_nothing() {
    let mut story = Story::default();
    story.claim(1_000_000, claim("a", 1_000_000, 10, 5));
    assert_eq!(story.claim(900_000, claim("b", 900_000, 10, 8)), "grant b#900000 10 of 8 Removals\n");
    assert!(story.tick(960_001).starts_with("command b#900000 10->8 "), "counted as issued when the clock was set back");
}

#[test]
fn a_record_that_a_snapshot_holds_is_not_applied_again() {
    let mut story = Story::default();
    story.claim(1_000, claim("a", 1_000, 10, 5));
    story.restart();
    let held = Located { partition: 0, offset: 0, at: Timestamp::from_millis(1_000), record: RequestsEntry::Claim(claim("b", 1_000, 10, 20)) };
    let mut effects = Effects::new();
    story.stage.apply(&mut story.state, Input::Record(held), &mut effects);
    assert!(effects.is_empty());
    assert_eq!(story.claim(2_000, claim("b", 2_000, 10, 9)), "grant b#2000 10 of 9 Removals\n", "the pacing was restored");
    assert!(State::default().restore("target:a", b"{}").unwrap_err().contains("is not fleet:NAME"));
    assert!(State::default().restore("fleet:f", b"x").unwrap_err().starts_with("fleet f cannot be read"));
}

#[test]
fn a_fleet_of_which_nothing_is_left_is_forgotten() {
    let mut story = Story::default();
    story.claim(1_000, claim("a", 1_000, 3, 3));
    assert_eq!(story.state.take_changed(), ["fleet:f"]);
    story.tick(151_000);
    assert_eq!(story.state.take_changed(), ["fleet:f"]);
    assert!(story.state.encode("fleet:f", 2).is_some(), "that nothing is left is said first, in case the round is torn");
    assert_eq!(story.state.take_changed(), ["fleet:f"]);
    assert_eq!(story.state.encode("fleet:f", 2), None);
    assert!(story.state.take_changed().is_empty());
}

#[derive(Debug, Clone)]
enum Event {
    Tick,
    Claim { target: usize, current: u32, desired: u32, priority: i32, paced: bool, names_open: bool, withdrawn: bool },
}

fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let a_claim = (0..4_usize, 0..40_u32, 0..40_u32, -1..2_i32, prop::bool::weighted(0.9), any::<bool>(), prop::bool::weighted(0.05)).prop_map(
        |(target, current, desired, priority, paced, names_open, withdrawn)| Event::Claim { target, current, desired, priority, paced, names_open, withdrawn },
    );
    let event = prop_oneof![Just(Event::Tick), a_claim];
    prop::collection::vec((0..9_000_i64, event), 1..80)
}

/// What was told, the commands and the claims, these two with their times.
type Run = (Vec<String>, Vec<(i64, Command)>, Vec<(i64, Request)>);

/// Runs the events through a story; restarts it after `restart_after` of them.
fn run(events: &[(i64, Event)], restart_after: Option<usize>) -> Run {
    let (mut story, mut told, mut claims) = (Story::default(), Vec::new(), Vec::new());
    let mut now = 1_000_000;
    for (index, (step, event)) in events.iter().enumerate() {
        now += step;
        told.push(match event {
            Event::Tick => story.tick(now),
            Event::Claim { target, current, desired, priority, paced, names_open, withdrawn } => {
                let name = ["a", "b", "c", "d"][*target];
                let mut request = claim(name, now, *current, *desired);
                (request.priority, request.paced, request.withdrawn) = (*priority, *paced, *withdrawn);
                if *names_open {
                    let last = story.commands.iter().rev().find(|(_, c)| c.target == request.target);
                    request.open = last.map(|(_, c)| OpenCommand { id: c.id.clone(), epoch: c.epoch, from: c.from, to: c.to, expires_at: c.expires_at });
                }
                claims.push((now, request.clone()));
                story.claim(now, request)
            }
        });
        if restart_after == Some(index) {
            story.restart();
        }
    }
    (told, story.commands, claims)
}

/// The replicas of a fleet at `now`, from all claims that were ever sent.
fn total(claims: &[(i64, Request)], now: i64) -> u64 {
    let mut newest: BTreeMap<&TargetId, &Request> = BTreeMap::new();
    for (_, request) in claims.iter().filter(|(at, _)| *at <= now) {
        newest
            .entry(&request.target)
            .and_modify(|r| {
                if request.epoch > r.epoch {
                    *r = request;
                }
            })
            .or_insert(request);
    }
    newest.values().filter(|r| !r.withdrawn && r.expires_at.as_millis() > now).map(|r| u64::from(r.current)).sum()
}

proptest! {
    #[test]
    fn no_period_has_more_paced_removals_than_its_limit(events in events()) {
        let (_, commands, claims) = run(&events, None);
        // A command that replaces another goes less far: what it removes was counted there.
        let removed = |c: &Command| if c.replaces.is_some() { 0 } else { u64::from(c.from.saturating_sub(c.to)) };
        for (index, (at, command)) in commands.iter().enumerate() {
            let (_, paced) = claims.iter().map(|(_, r)| (r.epoch, r)).find(|(epoch, r)| *epoch == command.epoch && r.target == command.target).unwrap();
            if !paced.paced || removed(command) == 0 {
                continue;
            }
            let within: u64 = commands[..=index].iter().filter(|(then, _)| at - then <= 60_000).map(|(_, c)| removed(c)).sum();
            // Claims of one instant come one after the other: the command was issued with those up to one of them.
            let before = claims.iter().filter(|(then, _)| then < at).count();
            let until = claims.iter().filter(|(then, _)| then <= at).count();
            let largest = (before..=until).map(|known| total(&claims[..known], *at)).chain([total(&claims, at - 1)]).max().unwrap();
            let limit = (largest / 10).max(5);
            prop_assert!(within <= limit, "{within} removed in the minute up to {at}, the limit is {limit}");
        }
    }

    #[test]
    fn every_command_has_its_own_id_and_serves_its_claim(events in events()) {
        let (_, commands, claims) = run(&events, None);
        let mut ids = std::collections::BTreeSet::new();
        for (at, command) in &commands {
            prop_assert!(ids.insert(command.id.clone()), "{} twice", command.id);
            let (_, claim) = claims.iter().find(|(_, r)| r.epoch == command.epoch && r.target == command.target).unwrap();
            prop_assert_eq!(command.from, claim.current);
            prop_assert!(command.to >= claim.desired && command.to <= claim.current.max(claim.desired), "neither beyond the claim nor against it");
            prop_assert!(command.expires_at <= claim.expires_at && command.expires_at.as_millis() <= at + 30_000);
            prop_assert!(!claim.withdrawn);
        }
    }

    #[test]
    fn growth_is_never_cut(events in events()) {
        let (_, commands, claims) = run(&events, None);
        for (_, command) in &commands {
            let (_, claim) = claims.iter().find(|(_, r)| r.epoch == command.epoch && r.target == command.target).unwrap();
            if claim.desired > claim.current {
                prop_assert_eq!(command.to, claim.desired);
            }
        }
    }

    #[test]
    fn a_restart_changes_nothing(events in events(), at in 0..80_usize) {
        let undisturbed = run(&events, None);
        prop_assert_eq!(&run(&events, None), &undisturbed, "the same input twice");
        prop_assert_eq!(&run(&events, Some(at)), &undisturbed, "restarted after record {}", at);
    }
}

/// In another log what a fleet has removed counts, and a claim that is served is not served again.
#[test]
fn a_fleet_that_was_migrated_goes_on_where_it_was() {
    let mut before = Story { next: 500, ..Story::default() };
    assert!(before.claim(1_000, claim("a", 1_000, 20, 12)).contains("command a#1000 20->15"), "five of a small fleet in a minute");
    let key = before.state.take_changed().pop().unwrap();
    let state = String::from_utf8(before.state.encode(&key, before.next).unwrap()).unwrap();
    let carried = |key: &str| {
        RequestsEntry::Carried(CarriedState { key: key.to_owned(), migration: String::new(), version: i64::from(Arbitrate::VERSION), state: state.clone() })
    };
    let mut story = Story::default();
    assert_eq!(story.feed(2_000, carried(&key)), "");
    assert_eq!(story.claim(3_000, claim("a", 1_000, 20, 12)), "", "the same claim again");
    assert!(!story.claim(4_000, claim("b", 4_000, 20, 10)).contains("command"), "the limit of the minute is spent");
    story.restart();
    assert!(story.tick(62_000).contains("command b#4000 20->15"), "and is there again after it");
    assert_eq!(story.feed(63_000, carried(&key)), "alert StateNotCarried\n", "what is known here is newer");
    assert_eq!(story.feed(63_000, carried("f")), "alert StateNotCarried\n", "no key of a fleet");
}
