//! The simulation itself: the same seed is the same run, what it draws can be used, and a failing scenario is made smaller.
//! Many seeds run in `make test` with an optimised build (`loadgen simulate`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loadgen::simulate::check::Violation;
use loadgen::simulate::run::{run, trace};
use loadgen::simulate::scenario::{Fault, Kinds, Part, Planned, Scenario};
use loadgen::simulate::{All, judge, shrink};
use serde_json::Value;

#[test]
fn what_must_hold_holds() {
    let all = All::run(0, 24, &Kinds::default(), 2, 1, |_, _| {});
    assert!(all.failed.is_empty(), "{:?}", all.failed.iter().map(|(seed, violation, _)| format!("seed {seed}: {violation}")).collect::<Vec<_>>());
    assert_eq!(all.done, 24);
    for what in ["decisions", "commands that took effect", "measured values that were added up anew", "records that nobody can read", "unknown, done"] {
        assert!(all.counts.contains_key(what), "{what} was met");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let scenario = Scenario::draw(7);
    assert_eq!(scenario.to_string(), Scenario::draw(7).to_string());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let traces = [trace(&scenario, &mut |line| first.push(line.to_owned())).trace, trace(&scenario, &mut |line| second.push(line.to_owned())).trace];
    assert_eq!((traces[0], &first), (traces[1], &second));
    assert!(!first.is_empty());
    assert_ne!(run(&Scenario::draw(8)).trace, traces[0]);
}

/// Each kind of fault is drawn, alone too; of kinds that are named there is no other.
#[test]
fn every_kind_of_fault_is_drawn() {
    let drawn = |kinds: &Kinds| (0..200).flat_map(|seed| Scenario::draw_with(seed, kinds).faults).map(|planned| planned.fault.kind()).collect::<BTreeSet<_>>();
    assert_eq!(drawn(&Kinds::default()), BTreeSet::from(Fault::KINDS));
    for kind in Fault::KINDS {
        assert_eq!(drawn(&kind.parse().unwrap()), BTreeSet::from([kind]));
    }
    assert_eq!(drawn(&"Kill,FewTell".parse().unwrap()), BTreeSet::from(["Kill", "FewTell"]));
    let unknown = "Kill,Kil".parse::<Kinds>().unwrap_err();
    assert!(unknown.contains("\"Kil\"") && unknown.contains("KillPart"), "{unknown}");
}

/// Each policy that is drawn is one that the program takes without an error.
#[test]
fn every_policy_that_is_drawn_can_be_used() {
    for seed in 0..500 {
        for target in Scenario::draw(seed).targets {
            let id = loadgen::simulate::world::target(target.number);
            let spec = target.policy.spec(target.number);
            loadline::model::policy::resolve_spec_json(&spec, &id).unwrap_or_else(|problems| panic!("seed {seed}: {problems:?} in {spec}"));
        }
    }
}

/// What the schema of a policy knows and no seed draws, and why.
const NOT_DRAWN: [&str; 0] = [];

/// The fields below `spec`, each with the words that it may have: what a schema allows, or what a document says.
fn fields(of: &Value, path: &str, schema: bool, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if !schema {
        match of {
            Value::Object(fields_of) => fields_of.iter().for_each(|(name, value)| fields(value, &format!("{path}.{name}"), false, found)),
            Value::Array(values) => values.iter().for_each(|value| fields(value, &format!("{path}[]"), false, found)),
            Value::String(word) => drop(found.entry(path.to_owned()).or_default().insert(word.clone())),
            _ => drop(found.entry(path.to_owned()).or_default()),
        }
        return;
    }
    let inner = of["properties"].as_object().into_iter().flatten();
    inner.for_each(|(name, value)| fields(value, &format!("{path}.{name}"), true, found));
    if of["items"].is_object() {
        fields(&of["items"], &format!("{path}[]"), true, found);
    }
    for choice in ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|key| of[key].as_array()).flatten() {
        fields(choice, path, true, found);
    }
    if of["properties"].is_null() && of["items"].is_null() && (!of["type"].is_null() || of["enum"].is_array()) {
        let words = of["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        found.entry(path.to_owned()).or_default().extend(words);
    }
}

/// Every field that the schema of a policy knows, and every word of those that have words, is drawn by one of these seeds.
#[test]
fn every_field_of_a_policy_is_drawn() {
    let (mut known, mut drawn) = (BTreeMap::new(), BTreeMap::new());
    fields(&loadline::wire::document::schema::scaling_policy()["properties"]["spec"], "", true, &mut known);
    for seed in 0..300 {
        let scenario = Scenario::draw(seed);
        let edited = scenario.faults.iter().filter_map(|planned| if let Fault::PolicyEdited { policy, .. } = &planned.fault { Some(&**policy) } else { None });
        for plan in scenario.targets.iter().map(|target| &target.policy).chain(edited) {
            fields(&serde_json::from_str(&plan.spec(0)).unwrap(), "", false, &mut drawn);
        }
    }
    assert!(known.len() > 30 && known.values().map(BTreeSet::len).sum::<usize>() > 20, "the schema was read: {known:?}");
    let lack = known.iter().flat_map(|(field, words)| {
        let drawn = drawn.get(field);
        let missing = words.iter().filter(move |word| drawn.is_none_or(|drawn| !drawn.contains(*word))).map(move |word| format!("{field}: {word}"));
        // What has fields of its own is drawn with them.
        let parts =
            known.range(format!("{field}.")..format!("{field}/")).next().is_some() || known.range(format!("{field}[")..format!("{field}\\")).next().is_some();
        missing.chain((drawn.is_none() && !parts).then(|| field.clone()))
    });
    let lack: Vec<String> = lack.filter(|field| !NOT_DRAWN.contains(&field.as_str())).collect();
    assert!(lack.is_empty(), "drawn by no seed: {lack:?}");
}

/// A load that never comes to rest: no fleet can follow it to the end.
fn restless(mut scenario: Scenario) -> Scenario {
    let (from, to) = (scenario.calm_at, scenario.end_at);
    for target in &mut scenario.targets {
        target.load.extend((0..).map(|n| (from + n * 7_000, if n % 2 == 0 { 0.5 } else { 30.0 })).take_while(|(at, _)| *at < to));
    }
    scenario
}

/// What is not needed for the failure is taken out: here all faults, and all targets but one.
#[test]
fn a_failing_scenario_is_made_smaller() {
    let fits = |scenario: &Scenario| scenario.faults.len() == 3 && scenario.targets.len() == 2 && scenario.end_at - scenario.calm_at < 300_000;
    let mut large = (0..).map(Scenario::draw).filter(fits).map(restless);
    let (scenario, violation) = large.find_map(|scenario| run(&scenario).violations.into_iter().next().map(|v: Violation| (scenario, v))).unwrap();
    let (smallest, found) = shrink::shrink(&scenario, &violation, Duration::MAX);
    assert_eq!((found.invariant, smallest.faults.len(), smallest.targets.len()), (violation.invariant, 0, 1));
}

/// A panic outside of a stage is found as any other violation: with its place, and in the shortest form that panics.
#[test]
fn a_panic_is_a_violation_of_its_seed() {
    let scenario = (0..1_000).map(Scenario::draw).find(|scenario| scenario.faults.len() >= 3 && scenario.faults[0].at > 10_000).unwrap();
    let mut panics = scenario.clone();
    // No process has this number: what plays the fault panics.
    panics.faults.push(Planned { at: 6_000, fault: Fault::KillPart { process: 99, part: Part::Decide, down: 1_000, zombie: None } });
    panics.faults.sort_by_key(|planned| planned.at);
    let violation = judge(&panics).violation.unwrap();
    assert_eq!(violation.invariant, "nothing panics");
    assert!(violation.details.contains("index is 99") && violation.details.contains("faults.rs:"), "{violation}");
    let (smallest, found) = shrink::shrink(&panics, &violation, Duration::MAX);
    assert_eq!((found.invariant, smallest.faults.len(), smallest.targets.len()), ("nothing panics", 1, 1));
    assert!(judge(&scenario).violation.is_none(), "and the next one is judged as ever");
}

/// The command as it is run: what it prints, and how it ends.
#[test]
fn the_command_says_how_it_went_and_ends_so() {
    let simulate = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("simulate").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = simulate(&["--seeds", "2", "--from", "5"]);
    assert!(code == Some(0) && out.starts_with("2 seeds from 5 in ") && out.lines().any(|line| line.ends_with(" decisions")), "{out}");
    let (code, _, errors) = simulate(&["--seeds", "1", "--faults", "Kill", "--all-met"]);
    assert!(code == Some(1) && errors.starts_with("error: no seed met: ") && errors.contains("the clock was set"), "{errors}");
    let (code, _, errors) = simulate(&["--faults", "Kil"]);
    assert!(code == Some(2) && errors.contains("there is no kind of faults \"Kil\""), "{errors}");
    let (code, out, errors) = simulate(&["--from", "5", "--trace", "--shortest"]);
    assert!(code == Some(1) && errors.contains("seed 5 does not fail"), "{out}{errors}");
}
