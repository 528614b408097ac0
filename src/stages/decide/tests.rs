use super::*;
use crate::model::{Alert, Amount, FleetObservation, Instance, InstanceName, Kind, Mark, Order, Pane, Phase, Reading, StepKind};

const SPEC: &str = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"NAME"},"replicas":{"min":MIN,"max":9},"metrics":[{"name":"q","track":{"perReplica":10}}]}"#;

#[derive(Default)]
struct Story {
    state: State,
    next: Offset,
}

fn id(name: &str) -> TargetId {
    format!("prod/Deployment/{name}").parse().unwrap()
}

fn at(offset: Offset) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + i64::try_from(offset).unwrap() * 1_000)
}

impl Story {
    /// What came of a signal: verdicts, and alerts with their state.
    fn say(&mut self, record: Signal) -> Vec<String> {
        let mut effects = Effects::new();
        let input = Input::Record(Located { partition: 0, offset: self.next, at: at(self.next), record });
        Decide { audit: AuditWhen::Always, probe: None }.apply(&mut self.state, input, &mut effects);
        self.next += 1;
        told(effects)
    }

    fn policy(&mut self, name: &str, generation: i64, min: u32) -> Vec<String> {
        let spec = Some(SPEC.replace("NAME", name).replace("MIN", &min.to_string()));
        self.say(Signal::Policy(PolicyAnnouncement { target: id(name), spec, order: Order { source: "file".to_owned(), generation } }))
    }

    /// A policy of at least 1, with this behavior.
    fn behave(&mut self, name: &str, generation: i64, behavior: &str) -> Vec<String> {
        let spec = SPEC.replace("NAME", name).replace("MIN", "1").replacen('{', &format!(r#"{{"behavior":{{{behavior}}},"#), 1);
        self.say(Signal::Policy(PolicyAnnouncement { target: id(name), spec: Some(spec), order: Order { source: "file".to_owned(), generation } }))
    }

    fn fleet(&mut self, name: &str, desired: u32) -> Vec<String> {
        self.say(self.seen(name, desired))
    }

    /// An observation of a target without instances.
    fn seen(&self, name: &str, desired: u32) -> Signal {
        let sequence = i64::try_from(self.next).unwrap();
        let (revision, updating, instances) = (None, false, Vec::new());
        let (target, uid, status_replicas) = (id(name), "a".to_owned(), desired);
        Signal::Fleet(FleetObservation { target, uid, term: 1, sequence, revision, desired, status_replicas, updating, instances })
    }
}

/// A part of target `a`: a queue as deep, measured once, at the start of a pane of 5 s.
fn depth(start: Timestamp, value: i64) -> Signal {
    let amount = Amount::from_units(value);
    let reading = Reading { count: 1, sum: amount, max: amount, last: amount, last_at: start, histogram: None };
    let (metric, end) = ("q".parse().unwrap(), start + Duration::from_secs(5));
    let pane = Pane { metric, kind: Kind::Gauge, start, end, instances: [(InstanceName::none(), reading)].into(), sketch: None };
    Signal::Part(Part { target: id("a"), source: 0, panes: vec![pane] })
}

fn mark(through: Timestamp) -> Signal {
    Signal::Mark(Mark { source: 0, of: 1, through, pane_ms: 5_000, records: 1, late: 0, rejected: 0, repeated: 0 })
}

fn told(mut effects: Effects) -> Vec<String> {
    let words = effects.take().into_iter().filter_map(|effect| match effect.message {
        Message::Audit(Audit::Decision(decision)) => Some(format!("{} {:?} {}", decision.target.name(), decision.verdict, decision.desired)),
        Message::Alert(Alert { name, state, .. }) => Some(format!("{name} {state:?}")),
        _ => None,
    });
    words.collect()
}

/// The state as another process restores it.
fn restored(story: &Story, names: &[&str]) -> State {
    let mut restored = State::default();
    restored.restore_wide(&story.state.encode_wide(story.next)).unwrap();
    for key in names.iter().map(|name| id(name)) {
        restored.restore(key.as_str(), &story.state.encode(key.as_str(), story.next).unwrap()).unwrap();
    }
    restored
}

/// A fault in the fold of one target holds that target, says so, and holds no other; only a changed policy ends it.
#[test]
fn a_fault_holds_its_target_alone() {
    let mut story = Story::default();
    for name in ["a", "b"] {
        story.policy(name, 1, 1);
        story.fleet(name, 3);
    }
    let mut effects = Effects::new();
    let stage = Decide { audit: AuditWhen::Always, probe: None };
    story.state.with(&id("a"), (story.next, at(story.next)), stage, &mut effects, |_, _, _| panic!("a fault, on purpose"));
    story.next += 1;
    assert_eq!(told(effects), ["Faulted Firing", "a Faulted 3"]);
    assert!(story.fleet("a", 4).is_empty(), "its replicas stand");
    assert_eq!(story.fleet("b", 4), ["ChangedFromOutside Event", "b Blind 4"]);
    // The fault is remembered.
    story.state = restored(&story, &["a", "b"]);
    assert!(story.policy("a", 2, 1).is_empty(), "the same policy again changes nothing");
    assert_eq!(story.policy("a", 3, 2), ["Faulted Resolved"]);
    assert_eq!(story.fleet("a", 4), ["a Blind 4"], "it starts as new");
}

/// A policy that was moved to another file is the same, and decisions name where it is now.
#[test]
fn a_policy_is_named_by_the_file_that_it_is_in() {
    let mut story = Story::default();
    let spec = SPEC.replace("NAME", "a").replace("MIN", "1");
    let mut effects = Effects::new();
    let mut version = |story: &mut Story, record: Signal| {
        let input = Input::Record(Located { partition: 0, offset: story.next, at: at(story.next), record });
        Decide { audit: AuditWhen::Always, probe: None }.apply(&mut story.state, input, &mut effects);
        story.next += 1;
        let versions = effects.take().into_iter().filter_map(|effect| match effect.message {
            Message::Audit(Audit::Decision(decision)) => Some(decision.policy_version),
            _ => None,
        });
        versions.last()
    };
    let policy = |source: &str, generation: i64| {
        let order = Order { source: source.to_owned(), generation };
        Signal::Policy(PolicyAnnouncement { target: id("a"), spec: Some(spec.clone()), order })
    };
    version(&mut story, policy("/etc/a.yaml", 1));
    let seen = story.seen("a", 3);
    assert_eq!(version(&mut story, seen).as_deref(), Some("/etc/a.yaml@1"));
    assert_eq!(version(&mut story, policy("/etc/b.yaml", 2)), None, "nothing is evaluated for it");
    let seen = story.seen("a", 4);
    assert_eq!(version(&mut story, seen).as_deref(), Some("/etc/b.yaml@2"));
}

/// A name that the fleet does not list is told for as long as samples come under it; not that of an instance which was just removed, nor of
/// one that starts and is listed when it is seen.
#[test]
fn samples_of_an_instance_that_the_fleet_does_not_list_are_told() {
    let mut story = Story::default();
    story.policy("a", 1, 1);
    let base = at(0).as_millis().div_euclid(5_000) * 5_000;
    // In each pane of 5 s: what is listed, who sends, and what is said of the metric.
    let mut pane = 0;
    let mut turn = |story: &mut Story, listed: &[&str], senders: &[&str]| {
        story.next = u64::try_from((base + pane * 5_000 - at(0).as_millis()) / 1_000 + 5).unwrap();
        let start = Timestamp::from_millis(base + pane * 5_000);
        pane += 1;
        let reading = |name: &&str| {
            let amount = Amount::from_units(20);
            let last_at = start + Duration::from_secs(4);
            let name: InstanceName = name.parse().unwrap();
            (name, Reading { count: 1, sum: amount, max: amount, last: amount, last_at, histogram: None })
        };
        let (metric, end) = ("q".parse().unwrap(), start + Duration::from_secs(5));
        let one = Pane { metric, kind: Kind::Gauge, start, end, instances: senders.iter().map(reading).collect(), sketch: None };
        story.say(Signal::Part(Part { target: id("a"), source: 0, panes: vec![one] }));
        let instance = |name: &&str| Instance { name: name.parse().unwrap(), ready: Some(true), ..Instance::default() };
        let (uid, sequence, desired) = ("a".to_owned(), i64::try_from(story.next).unwrap(), u32::try_from(listed.len()).unwrap());
        let instances = listed.iter().map(instance).collect();
        let (target, revision, updating) = (id("a"), None, false);
        story.say(Signal::Fleet(FleetObservation { target, uid, term: 1, sequence, revision, desired, status_replicas: desired, updating, instances }));
        let mut effects = Effects::new();
        let input = Input::Record(Located { partition: 0, offset: story.next, at: at(story.next), record: mark(end) });
        Decide { audit: AuditWhen::Always, probe: None }.apply(&mut story.state, input, &mut effects);
        story.next += 1;
        let decisions = effects.take().into_iter().filter_map(|effect| match effect.message {
            Message::Audit(Audit::Decision(decision)) => Some(decision),
            _ => None,
        });
        let report = decisions.last().unwrap().metrics[0].clone();
        (report.value.unwrap().to_string(), report.note.unwrap_or_default())
    };
    let (two, one) = (["a-1", "a-2"], ["a-1"]);
    for (listed, senders, value, note) in [
        (&two[..], &["a-1", "a-2"][..], "20", ""),
        (&two, &["a-1", "a-2"], "20", ""),
        (&two, &["a-1", "a-2", "a2"], "20", "the fleet does not list a2, whose samples do not count"),
        (&two, &["a-1", "a-2", "a2", "a1", "b"], "20", "the fleet does not list 3 instances, a1 among them, whose samples do not count"),
        (&two, &["a-1", "a-2"], "20", "the fleet does not list 3 instances, a1 among them, whose samples do not count"),
    ] {
        assert_eq!(turn(&mut story, listed, senders), (value.to_owned(), note.to_owned()), "{listed:?} {senders:?}");
    }
    // Out of the window.
    for _ in 0..6 {
        turn(&mut story, &two, &two);
    }
    assert_eq!(turn(&mut story, &two, &two).1, "");
    // What a-2 sent before it was removed is nothing to tell, and a-3 is listed once it was seen.
    assert_eq!(turn(&mut story, &one, &one).1, "");
    assert_eq!(turn(&mut story, &["a-1", "a-3"], &["a-1", "a-3"]).1, "");
}

/// A target that nobody names and nobody sees is forgotten, so that names which come and go do not use the limit up.
#[test]
fn what_nobody_sees_is_forgotten() {
    let mut story = Story::default();
    story.fleet("a", 3);
    assert_eq!(story.state.targets.len(), 1);
    for _ in 0..599 {
        story.say(Signal::Tick(Tick {}));
    }
    assert_eq!(story.state.targets.len(), 1);
    for _ in 0..3 {
        story.say(Signal::Tick(Tick {}));
    }
    assert!(story.state.targets.is_empty() && story.state.due.is_empty());
    assert_eq!(story.state.encode("prod/Deployment/a", story.next), None);
}

/// Instances that started before the clock was set back are not new for as long as it was set back.
#[test]
fn a_clock_that_was_set_back_makes_no_instance_new() {
    let seen = |sequence: i64, at: i64, ready: bool| {
        let time = Some(Timestamp::from_millis(3_600_000));
        let instance = Instance { name: "i".parse().unwrap(), ready: Some(ready), started_at: time, ready_changed_at: time, ..Instance::default() };
        let (uid, instances) = ("a".to_owned(), vec![instance]);
        let seen = FleetObservation { target: id("a"), uid, term: 1, sequence, revision: None, desired: 1, status_replicas: 1, updating: false, instances };
        (Timestamp::from_millis(at), seen)
    };
    let times = |fleet: &memory::FleetSeen| {
        let instance = &fleet.seen.instances[0];
        (instance.started_at.unwrap().as_millis(), instance.ready_changed_at.unwrap().as_millis())
    };
    let (at, first) = seen(1, 1_000, true);
    let first = memory::FleetSeen::after(None, at, first);
    assert_eq!(times(&first), (1_000, 1_000));
    let (at, again) = seen(2, 31_000, true);
    let again = memory::FleetSeen::after(Some(&first), at, again);
    assert_eq!(times(&again), (1_000, 1_000), "not new again with each observation");
    let (at, changed) = seen(3, 61_000, false);
    let changed = memory::FleetSeen::after(Some(&again), at, changed);
    assert_eq!(times(&changed), (1_000, 61_000), "its readiness did change");
}

/// After a long stop nothing shrinks on one look: the stabilization window begins with the count that there is.
#[test]
fn a_target_that_was_not_watched_for_long_begins_with_its_count() {
    let mut story = Story::default();
    story.policy("a", 1, 1);
    story.fleet("a", 4);
    story.next = 5;
    story.say(depth(at(0), 40));
    assert_eq!(story.say(mark(at(5))), ["a Hold 4"]);
    // Nothing for an hour; then the queue is empty.
    story.next = 3_600;
    story.fleet("a", 4);
    story.say(depth(at(3_595), 0));
    let said = story.say(mark(at(3_600)));
    assert!(said.contains(&"a Hold 4".to_owned()), "{said:?}");
    for later in [3_700, 3_800, 3_910] {
        story.next = later;
        story.fleet("a", 4);
        story.say(depth(at(later - 5), 0));
        let said = story.say(mark(at(later)));
        assert_eq!(said.iter().any(|said| said.starts_with("a ScaleIn")), later == 3_910, "its window is over: {said:?}");
    }
}

/// A fleet that is seen after the clock was set back, before any source has marked again, is not taken for evaluated up to the
/// time before.
#[test]
fn panes_are_evaluated_after_the_clock_was_set_back() {
    let mut story = Story::default();
    story.policy("a", 1, 1);
    story.fleet("a", 2);
    story.next = 3_600;
    story.say(mark(at(3_600)));
    // An hour back; offsets go on, and the clock of the story is that of the offsets.
    let mut effects = Effects::new();
    let mut say = |offset: Offset, at: Timestamp, record: Signal| {
        Decide { audit: AuditWhen::Always, ..Decide::default() }.apply(
            &mut story.state,
            Input::Record(Located { partition: 0, offset, at, record }),
            &mut effects,
        );
        told(std::mem::take(&mut effects))
    };
    let (updating, instances) = (false, Vec::new());
    let seen = FleetObservation {
        target: id("a"),
        uid: "a".to_owned(),
        term: 1,
        sequence: 9_999,
        revision: None,
        desired: 3,
        status_replicas: 3,
        updating,
        instances,
    };
    say(4_000, at(10), Signal::Fleet(seen));
    say(4_001, at(15), depth(at(10), 50));
    assert_eq!(say(4_002, at(16), mark(at(15))), ["a ScaleOut 5"]);
}

/// What was measured before the clock was set back, and comes after it, is not taken for new when that time comes again.
#[test]
fn a_pane_of_the_time_before_the_clock_was_set_back_does_not_come_again() {
    let mut story = Story::default();
    story.policy("a", 1, 1);
    story.fleet("a", 2);
    story.say(depth(at(0) + Duration::from_secs(3_600), 50));
    story.next = 3_600;
    story.fleet("a", 2);
    story.next = 3_606;
    let said = story.say(mark(at(3_605)));
    assert!(!said.contains(&"a ScaleOut 5".to_owned()), "{said:?}");
}

/// Nothing ticks while the stage stands still: what comes first after that is decided by what is known at its own time, when the source
/// has long been silent.
#[test]
fn what_comes_first_after_a_standstill_finds_a_silent_source_silent() {
    let quick = r#""scaleIn":{"stabilization":"0s","policies":[{"percent":100,"period":"1s"}]}"#;
    let story_until_40_s = || {
        let mut story = Story::default();
        story.behave("a", 1, quick);
        story.fleet("a", 4);
        story.next = 5;
        story.say(depth(at(0), 40));
        story.say(mark(at(5)));
        story.next = 40;
        story
    };
    let mut silent = story_until_40_s();
    assert_eq!(silent.fleet("a", 8).last().map(String::as_str), Some("a Blind 8"));
    let mut spoke = story_until_40_s();
    spoke.say(mark(at(40)));
    assert_eq!(spoke.fleet("a", 8).last().map(String::as_str), Some("a ScaleIn 4"));
}

/// A sum over instances that two sources measure, each 20 of two; the second one is silent from 20 s on.
struct TwoSources {
    story: Story,
    /// When the next pane begins, in seconds.
    start: Offset,
}

impl TwoSources {
    fn begin() -> Self {
        let mut story = Story::default();
        let spec = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"},"replicas":{"min":1,"max":10},
            "metrics":[{"name":"q","measure":{"over":"Mean","across":"Sum"},"window":"10s","staleAfter":"30s",
                        "threshold":{"scaleOutAbove":100,"scaleInBelow":50,"for":"5s","step":{"out":1,"in":1}}}],
            "behavior":{"scaleIn":{"stabilization":"0s","cooldown":"0s","policies":[{"percent":100,"period":"5s"}]}}}"#;
        let order = Order { source: "file".to_owned(), generation: 1 };
        story.say(Signal::Policy(PolicyAnnouncement { target: id("a"), spec: Some(spec.to_owned()), order }));
        TwoSources { story, start: 10 }
    }

    /// The next pane, of the first source and, where it speaks, the second one: the last verdict.
    fn pane(&mut self, of: u32, second_speaks: bool) -> String {
        let (start, end) = (at(self.start), at(self.start + 5));
        self.story.next = self.start + 5;
        let instances = (1..=4).map(|n| Instance { name: format!("i{n}").parse().unwrap(), ready: Some(true), ..Instance::default() }).collect();
        let (uid, sequence) = ("a".to_owned(), i64::try_from(self.start).unwrap());
        let seen = FleetObservation { target: id("a"), uid, term: 1, sequence, revision: None, desired: 4, status_replicas: 4, updating: false, instances };
        let mut said = self.story.say(Signal::Fleet(seen));
        for source in if second_speaks { 0..2 } else { 0..1 } {
            let amount = Amount::from_units(20);
            let reading = Reading { count: 1, sum: amount, max: amount, last: amount, last_at: start, histogram: None };
            let instances = [1, 2].map(|n| (format!("i{}", source * 2 + n).parse().unwrap(), reading.clone())).into();
            let pane = Pane { metric: "q".parse().unwrap(), kind: Kind::Gauge, start, end, instances, sketch: None };
            self.story.say(Signal::Part(Part { target: id("a"), source, panes: vec![pane] }));
            said.extend(self.story.say(Signal::Mark(Mark { source, of, through: end, pane_ms: 5_000, records: 1, late: 0, rejected: 0, repeated: 0 })));
        }
        // Ticks tell of silence.
        self.start += 10;
        self.story.next = self.start;
        said.extend(self.story.say(Signal::Tick(Tick {})));
        said.into_iter().rfind(|said| said.starts_with("a ")).unwrap_or_default()
    }
}

/// However long a source says nothing: a sum without its share is no smaller sum.
#[test]
fn what_a_silent_source_fed_is_missed_until_it_speaks_again_or_is_none_any_more() {
    for speaks in [true, false] {
        let mut two = TwoSources::begin();
        assert_eq!([two.pane(2, true), two.pane(2, true), two.pane(2, true)].last().map(String::as_str), Some("a Hold 4"));
        two.pane(2, false);
        let verdicts: BTreeSet<String> = (0..60).map(|_| two.pane(2, false)).collect();
        assert_eq!(verdicts, ["a Blind 4".to_owned()].into(), "ten minutes of silence");
        // What it remembers of that outlasts a restart.
        let target = two.story.state.targets.get(&id("a")).unwrap();
        let restored: Memory = serde_json::from_slice(&serde_json::to_vec(&target.memory).unwrap()).unwrap();
        assert_eq!(restored.metrics, target.memory.metrics);
        assert_eq!(restored.metrics.values().next().unwrap().fed.keys().collect::<Vec<_>>(), [&0, &1]);
        if speaks {
            assert_eq!(two.pane(2, true), "a Hold 4", "80 again");
        } else {
            // There is one source now: what is gone is not waited for.
            two.pane(1, false);
            assert_eq!(two.pane(1, false), "a ScaleIn 3");
        }
    }
}

/// What changed before a policy was written anew counts for as long as the new one says, also where the old one had forgotten it.
#[test]
fn a_policy_with_longer_periods_counts_what_changed_before_it() {
    let by_two = |period: &str| format!(r#""scaleOut":{{"stabilization":"0s","policies":[{{"replicas":2,"period":"{period}"}}]}}"#);
    let mut story = Story::default();
    story.behave("a", 1, &by_two("5s"));
    story.fleet("a", 2);
    story.next = 10;
    story.fleet("a", 4);
    story.next = 16;
    story.say(depth(at(10), 40));
    story.say(mark(at(15)));
    story.behave("a", 2, &by_two("30s"));
    story.next = 26;
    story.say(depth(at(20), 90));
    assert_eq!(story.say(mark(at(25))), ["a Hold 4"], "2 came 16 s before");
    story.next = 46;
    story.say(depth(at(40), 90));
    assert_eq!(story.say(mark(at(45))), ["a ScaleOut 6"]);
}

/// A policy of target `a` with a threshold on `q`, and its last decision's report of it.
fn threshold_story() -> Story {
    let mut story = Story::default();
    let spec = SPEC.replace("NAME", "a").replace("MIN", "1").replace(r#""track":{"perReplica":10}"#, THRESHOLD);
    story.say(Signal::Policy(PolicyAnnouncement { target: id("a"), spec: Some(spec), order: Order { source: "file".to_owned(), generation: 1 } }));
    story.fleet("a", 3);
    story
}

const THRESHOLD: &str = r#""kind":"Gauge","window":"5s","threshold":{"scaleOutAbove":30,"scaleInBelow":12,"for":"20s"}"#;

/// Feeds one pane, and gives the report of `q` in the decision that follows.
fn look(story: &mut Story, start: Offset, value: i64) -> crate::model::MetricReport {
    story.next = start + 5;
    story.say(depth(at(start), value));
    let mut effects = Effects::new();
    let record = mark(at(start + 5));
    let input = Input::Record(Located { partition: 0, offset: story.next, at: at(story.next), record });
    Decide { audit: AuditWhen::Always, probe: None }.apply(&mut story.state, input, &mut effects);
    story.next += 1;
    let decisions = effects.take().into_iter().filter_map(|effect| match effect.message {
        Message::Audit(Audit::Decision(decision)) => Some(decision),
        _ => None,
    });
    decisions.last().expect("a mark is evaluated").metrics.remove(0)
}

/// The record says which limit applied, above as below, and until when the value has to stay there before a step is asked for.
#[test]
fn a_threshold_reports_the_limit_that_applied_and_until_when_it_waits() {
    use crate::model::{ThresholdSide as Side, ThresholdWait as Wait};
    let mut story = threshold_story();
    let mut start = 10;
    let mut told = |value: i64| {
        let report = look(&mut story, start, value);
        start += 10;
        let threshold = report.threshold.expect("it has a value");
        let left = threshold.until.map(|until| until.since(at(start - 5)).as_secs());
        (threshold.side, report.target.map(Amount::as_f64), report.proposal, threshold.waits.zip(left))
    };
    assert_eq!(told(20), (Side::Between, None, Some(3), None));
    assert_eq!(told(40), (Side::Above, Some(30.0), Some(3), Some((Wait::For, 20))));
    assert_eq!(told(40), (Side::Above, Some(30.0), Some(3), Some((Wait::For, 10))));
    assert_eq!(told(40), (Side::Above, Some(30.0), Some(4), None), "it stayed for 20 s");
    assert_eq!(told(5), (Side::Below, Some(12.0), Some(3), Some((Wait::For, 20))), "the lower limit is the one that applies");
    assert_eq!(told(5).3, Some((Wait::For, 10)));
    assert_eq!(told(5), (Side::Below, Some(12.0), Some(2), None));
}

/// After a growth a threshold waits for the new instances, and says so.
#[test]
fn a_threshold_that_waits_for_instances_says_so() {
    use crate::model::ThresholdWait as Wait;
    let mut story = threshold_story();
    look(&mut story, 10, 40);
    story.fleet("a", 4);
    let waits = |report: crate::model::MetricReport| report.threshold.and_then(|threshold| threshold.waits);
    // `for` is over, but only three of four instances were ever seen: none has told that it is ready.
    let starts = [20, 30, 40, 50].map(|second| look(&mut story, second, 40));
    assert_eq!(starts.map(waits).last().copied().flatten(), Some(Wait::StartUp));
}

/// Also for instances that say, by a clock that is behind the log's, that they started before the growth; not for those that
/// started long before it.
#[test]
fn a_threshold_waits_for_instances_whose_clock_is_behind() {
    use crate::model::ThresholdWait as Wait;
    for (started, waits) in [(12, Some(Wait::StartUp)), (9, None)] {
        let mut story = threshold_story();
        look(&mut story, 10, 40);
        let Signal::Fleet(mut seen) = story.seen("a", 4) else { unreachable!() };
        seen.instances = (0..4)
            .map(|number| Instance {
                name: format!("i{number}").parse().unwrap(),
                phase: Phase::Running,
                ready: Some(number < 3),
                deleting: false,
                started_at: Some(at(if number < 3 { 0 } else { started })),
                ready_changed_at: Some(at(0)),
                requests: [].into(),
            })
            .collect();
        story.next = 16;
        story.say(Signal::Fleet(seen));
        let reports = [20, 30, 40, 50].map(|second| look(&mut story, second, 40));
        let [.., last] = reports.map(|report| report.threshold.and_then(|threshold| threshold.waits));
        assert_eq!(last, waits, "one that started at {started} s, where the growth was at 16 s");
    }
}

/// How long a value was beyond a limit counts for that limit alone: a policy that is written anew waits anew where it says another one, or
/// measures in another way; and goes on waiting where only the rest of it is new.
#[test]
fn a_threshold_that_is_written_anew_waits_anew() {
    use crate::model::ThresholdWait as Wait;
    for (from, to, waits) in [
        (r#""scaleOutAbove":30"#, r#""scaleOutAbove":35"#, true),
        (r#""window":"5s""#, r#""window":"10s""#, true),
        (r#""kind":"Gauge""#, r#""kind":"Gauge","measure":{"over":"Max"}"#, true),
        (r#""scaleInBelow":12"#, r#""scaleInBelow":10"#, false),
        (r#""for":"20s""#, r#""for":"15s""#, false),
    ] {
        let mut story = threshold_story();
        for start in [10, 20, 30] {
            look(&mut story, start, 40);
        }
        let anew = THRESHOLD.replacen(from, to, 1);
        assert_ne!(anew, THRESHOLD, "{from}");
        let spec = SPEC.replace("NAME", "a").replace("MIN", "1").replace(r#""track":{"perReplica":10}"#, &anew);
        story.say(Signal::Policy(PolicyAnnouncement { target: id("a"), spec: Some(spec), order: Order { source: "file".to_owned(), generation: 2 } }));
        let report = look(&mut story, 40, 40);
        let (wait, proposal) = (report.threshold.and_then(|threshold| threshold.waits), report.proposal);
        assert_eq!((wait, proposal), if waits { (Some(Wait::For), Some(3)) } else { (None, Some(4)) }, "{to}");
    }
}

/// A rate over a window of which a part was lost is the rate of what is left: the part that is missing was not zero.
#[test]
fn a_loss_makes_no_rate_smaller() {
    let mut story = Story::default();
    let spec = SPEC.replace("NAME", "a").replace("MIN", "1").replace(r#""track""#, r#""window":"30s","track""#);
    story.say(Signal::Policy(PolicyAnnouncement { target: id("a"), spec: Some(spec), order: Order { source: "file".to_owned(), generation: 1 } }));
    story.fleet("a", 4);
    // 200 in each pane of 5 s.
    let rate = |story: &mut Story, start: Offset| {
        story.next = start + 5;
        let Signal::Part(mut part) = depth(at(start), 200) else { unreachable!() };
        part.panes[0].kind = Kind::Delta;
        story.say(Signal::Part(part));
        let mut effects = Effects::new();
        let input = Input::Record(Located { partition: 0, offset: story.next, at: at(story.next), record: mark(at(start + 5)) });
        Decide { audit: AuditWhen::Always, probe: None }.apply(&mut story.state, input, &mut effects);
        story.next += 1;
        let decisions = effects.take().into_iter().filter_map(|effect| match effect.message {
            Message::Audit(Audit::Decision(decision)) => Some(decision),
            _ => None,
        });
        decisions.last().unwrap().metrics.remove(0).value.map(Amount::as_f64)
    };
    // A second and replica.
    assert_eq!([0, 5].map(|start| rate(&mut story, start)), [Some(10.0); 2]);
    // Two panes are lost, and a part of the third: what comes next was appended at second 22.
    let lost = |story: &mut Story, now| Decide::default().apply(&mut story.state, Input::Lost { next: 22, at: at(now) }, &mut Effects::new());
    lost(&mut story, 22);
    assert_eq!(rate(&mut story, 20), None, "nobody knows what this pane held before");
    assert_eq!(rate(&mut story, 25), Some(10.0));
    // It is remembered, and said once more changes nothing.
    lost(&mut story, 31);
    assert_eq!(rate(&mut story, 30), Some(10.0));
}

/// What a source had fed may be among what was lost: while it is silent, nothing shrinks.
#[test]
fn a_source_that_is_silent_since_a_loss_blinds_what_it_may_have_fed() {
    let mut story = Story::default();
    Decide::default().apply(&mut story.state, Input::Lost { next: 0, at: at(0) }, &mut Effects::new());
    story.behave("a", 1, r#""scaleIn":{"stabilization":"0s","cooldown":"0s"}"#);
    story.fleet("a", 4);
    let marked = |source, end| Signal::Mark(Mark { source, of: 2, through: at(end), pane_ms: 5_000, records: 1, late: 0, rejected: 0, repeated: 0 });
    let mut last = |start: Offset, sources: &[u32]| {
        story.next = start + 5;
        let mut told = story.say(depth(at(start), 10));
        for source in sources {
            told.extend(story.say(marked(*source, start + 5)));
        }
        told.extend(story.say(Signal::Tick(Tick {})));
        told.retain(|word| word.starts_with("a "));
        told.pop()
    };
    let told = [5, 10, 15, 20, 25, 30].map(|start| last(start, &[0]));
    assert_eq!(told.last().unwrap().as_deref(), Some("a Blind 4"), "one of two sources says nothing: {told:?}");
    last(35, &[0, 1]);
    assert_eq!(last(40, &[0, 1]).as_deref(), Some("a ScaleIn 1"));
}

/// The state of a target, as another installation saved it.
fn saved(story: &Story, name: &str, version: u32) -> Signal {
    let state = String::from_utf8(story.state.encode(id(name).as_str(), story.next).unwrap()).unwrap();
    Signal::Carried(CarriedState { key: id(name), migration: String::new(), version: i64::from(version), state })
}

/// What was migrated goes on with its own times: a cooldown of before holds, its metrics are measured anew, and it says so over a restart.
#[test]
fn a_target_that_was_migrated_goes_on_where_it_was() {
    let mut before = Story { next: 100, ..Story::default() };
    before.behave("a", 1, r#""scaleIn":{"stabilization":"0s","cooldown":"1h"}"#);
    before.fleet("a", 2);
    before.say(depth(at(90), 30));
    assert_eq!(before.say(mark(at(95))), ["a ScaleOut 3"]);
    before.fleet("a", 3);
    // In another log, whose first record it is.
    let mut story = Story::default();
    let mut effects = Effects::new();
    let record = saved(&before, "a", Decide::VERSION);
    let mut say = |story: &mut Story, record: Signal, at: Timestamp| {
        let input = Input::Record(Located { partition: 0, offset: story.next, at, record });
        Decide { audit: AuditWhen::Always, probe: None }.apply(&mut story.state, input, &mut effects);
        story.next += 1;
        effects
            .take()
            .into_iter()
            .filter_map(|effect| match effect.message {
                Message::Audit(Audit::Decision(decision)) => Some((decision.sequence, decision.desired, decision.binding, decision.policy_version)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(say(&mut story, record, at(200)), []);
    say(&mut story, mark(at(200)), at(200));
    say(&mut story, depth(at(205), 10), at(210));
    let decided = say(&mut story, mark(at(210)), at(211));
    let [(sequence, 3, StepKind::Cooldown, version)] = &decided[..] else { panic!("{decided:?}") };
    assert!(*sequence > 3 && version == "file@1", "{decided:?}");
    // It is the same target after a restart there.
    let restored = restored(&story, &["a"]);
    let mut after = |state: State| {
        let mut story = Story { state, next: story.next };
        say(&mut story, depth(at(210), 10), at(215));
        say(&mut story, mark(at(215)), at(216))
    };
    assert_eq!(after(restored)[0].2, StepKind::Cooldown);
}

#[test]
fn what_cannot_be_carried_is_told_and_changes_nothing() {
    let mut before = Story::default();
    before.policy("a", 7, 1);
    before.fleet("a", 4);
    let mut story = Story::default();
    assert_eq!(story.say(saved(&before, "a", Decide::VERSION + 1)), ["StateNotCarried Event"]);
    let unreadable = Signal::Carried(CarriedState { key: id("a"), migration: String::new(), version: i64::from(Decide::VERSION), state: "{".to_owned() });
    assert_eq!(story.say(unreadable), ["StateNotCarried Event"]);
    assert!(story.say(saved(&before, "a", Decide::VERSION)).is_empty(), "neither stands in the way of what can be read");
    assert_eq!(story.say(saved(&before, "a", Decide::VERSION)), ["StateNotCarried Event"], "what is known here is newer");
    assert_eq!(story.policy("a", 6, 9), ["PolicyUnusable Firing"], "its policy is the newer one, and whoever announced another one hears of it");
    assert_eq!(story.policy("a", 8, 9)[0], "PolicyUnusable Resolved");
}

/// Where nothing waits for what is complete it is not looked for again; a pane that comes late for it is found all the same, by the next mark, whoever says that.
#[test]
fn a_late_pane_is_evaluated_with_the_next_mark() {
    let mut story = Story::default();
    for name in ["a", "b"] {
        story.policy(name, 1, 1);
        story.fleet(name, 2);
    }
    let base = at(0).window_start(Duration::from_secs(5));
    let mark = |source, seconds| {
        let through = base + Duration::from_secs(seconds);
        Signal::Mark(Mark { source, of: 2, through, pane_ms: 5_000, records: 1, late: 0, rejected: 0, repeated: 0 })
    };
    story.next = 20;
    for (source, seconds) in [(0, 10), (1, 10)] {
        story.say(mark(source, seconds));
    }
    assert!(story.say(mark(0, 15)).is_empty(), "all is complete through 10 s, as before");
    story.say(depth(base + Duration::from_secs(5), 40));
    let told = story.say(mark(0, 20));
    assert!(told.len() == 1 && told[0].starts_with("a "), "{told:?}");
    assert!(story.say(mark(0, 25)).is_empty(), "it was evaluated with it");
}
