//! Deterministic simulation: the real stages, runtime and actuator on the memory log, under a virtual clock, with
//! everything that can go wrong going wrong, each run drawn from a seed.
//!
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | what a run is made of: installation, targets, faults |
//! | [`policy`] | policies, what their metrics measure of a load, and when they are content |
//! | [`world`] | fleets, people, producers and observers: the truth |
//! | [`faulty`] | a log that fails |
//! | [`process`] | a process of Loadline, a step at a time |
//! | [`run`](mod@run) | one run |
//! | [`check`] | the invariants |
//! | [`shrink`] | the shortest scenario that still fails |
//! | `panics` | a panic ends a run as any other violation does |
//!
//! The same seed gives the same run, byte for byte.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use loadline::runtime::clock::Stopwatch;

pub mod check;
pub mod faulty;
mod panics;
pub mod policy;
pub mod process;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod world;

use check::Violation;
use run::{Ran, run, trace};
use scenario::{Kinds, Scenario};

/// How to simulate.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Draw faults of these kinds alone, such as `Kill,Commits`; a name that there is not is answered with all of them.
    #[arg(long)]
    pub faults: Option<Kinds>,
    /// How many run at once; as many as there are processors where it is not given.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Stop after so many failures.
    #[arg(long, default_value_t = 20)]
    pub most_failures: usize,
    /// Run the first seed alone, and print all that happens: with its faults, then without them.
    #[arg(long)]
    pub trace: bool,
    /// Of a seed that fails, trace the shortest form.
    #[arg(long, requires = "trace")]
    pub shortest: bool,
    /// For how many seconds a shorter scenario is looked for, of each seed that fails; with 0 it is printed as it is.
    #[arg(long, default_value_t = 60)]
    pub shrink_for: u64,
    /// Fail, too, where something that can go wrong, or come of it, was met by no seed.
    #[arg(long, conflicts_with = "trace")]
    pub all_met: bool,
}

/// What many seeds must have met, as it is counted: faults by their effect, and what comes of commands.
pub const MUST_BE_MET: [&str; 50] = [
    "appends to partitions that nobody leads",
    "calls that took effect after their deadline",
    "changes by hand",
    "ends that were not reached",
    "full",
    "hidden behind an open transaction",
    "instances that did not measure",
    "late calls of the dead",
    "late commits of the dead that nobody had replaced",
    "late commits of the dead that were fenced",
    "looks at instances that do not become ready",
    "looks in which a part stood still",
    "metrics that were not measured",
    "observations of an earlier observer",
    "observations that came late",
    "observations that were lost",
    "outcomes: applied",
    "outcomes: conflict",
    "outcomes: expired",
    "outcomes: failed",
    "outcomes: frozen",
    "outcomes: lost",
    "outcomes: superseded",
    "parts that died alone",
    "policies that were written anew",
    "polls that failed",
    "processes that died",
    "processes that left in order",
    "processes that were cut off as they left",
    "records of partitions that nobody leads",
    "records that nobody can read",
    "refused",
    "requests that came late, and in another order",
    "retention took what nobody needed",
    "retention took what somebody needed",
    "rounds with a policy that cannot be read",
    "rounds without a policy that was there",
    "samples that are no numbers, or of the future",
    "states that could not be read",
    "targets that were made anew",
    "the clock was set",
    "too large",
    "under way, done",
    "under way, not done",
    "under way, then unknown, done",
    "under way, then unknown, not done",
    "unknown, done",
    "unknown, done in part",
    "unknown, not done",
    "unreadable",
];

/// In a long run, how it goes is said as often as this.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What came of a seed: of its disturbed run, and of the one without faults.
#[derive(Debug)]
pub struct Outcome {
    /// What did not hold; with the scenario in which it did not.
    pub violation: Option<(Violation, Scenario)>,
    /// How much there was of what.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed: with its faults, and without them to compare the ends.
pub fn seed(seed: u64, kinds: &Kinds) -> Outcome {
    let disturbed = Scenario::draw_with(seed, kinds);
    let Judged { ran, undisturbed, violation } = judge(&disturbed);
    let mut counts = ran.counts.clone();
    if let Some(violation) = violation {
        return Outcome { violation: Some((violation, disturbed)), counts };
    }
    if let Some(undisturbed) = undisturbed {
        for (number, end) in &ran.ends {
            let rests = match end.rests_at.len() {
                _ if !end.acts => "targets whose policy moves nothing at the end",
                0 => "targets whose policy swings between some counts at the end",
                1 => "targets whose policy leaves one count alone at the end",
                2 | 3 => "targets whose policy leaves two or three counts alone at the end",
                _ => "targets whose policy leaves more counts alone at the end",
            };
            *counts.entry(rests).or_default() += 1;
            let same = undisturbed.ends.get(number).is_some_and(|other| other.replicas == end.replicas);
            if disturbed.sweeps && end.acts && undisturbed.ends.get(number).is_some_and(|other| other.stood_at == end.stood_at) {
                *counts.entry("targets that the last load found at the same count, after a sweep").or_default() += 1;
            }
            *counts
                .entry(if same { "targets that ended as undisturbed" } else { "targets that ended at another count that their policy leaves alone" })
                .or_default() += 1;
        }
        for (what, count) in &undisturbed.counts {
            *counts.entry(*what).or_default() += count;
        }
    }
    Outcome { violation: None, counts }
}

/// A run, and how it compares with the one without faults.
#[derive(Debug)]
pub struct Judged {
    /// The run.
    pub ran: Ran,
    /// The same without its faults, where it has any and came to its end.
    pub undisturbed: Option<Ran>,
    /// The first thing that did not hold.
    pub violation: Option<Violation>,
}

/// Runs a scenario, and compares its end with that of the same one without its faults; one in twenty a second time, for the same trace.
pub fn judge(scenario: &Scenario) -> Judged {
    judge_ran(scenario, run(scenario))
}

fn judge_ran(scenario: &Scenario, ran: Ran) -> Judged {
    let again = || if scenario.seed.is_multiple_of(20) { same_again(scenario, &ran) } else { None };
    let violation = ran.violations.first().cloned().or_else(again);
    if violation.is_some() || scenario.faults.is_empty() {
        return Judged { ran, undisturbed: None, violation };
    }
    // That what it decides is what the fold decides is looked at in one of four: nothing disturbed it.
    let undisturbed = scenario.undisturbed();
    let undisturbed = if scenario.seed.is_multiple_of(4) { run(&undisturbed) } else { run::run_to_compare(&undisturbed) };
    let violation = undisturbed.violations.first().cloned().or_else(|| ends_alike(&ran, &undisturbed, scenario.sweeps));
    Judged { ran, undisturbed: Some(undisturbed), violation }
}

/// Each target ends where it ends without faults. By its policy it may end elsewhere in four cases, and in no other:
///
/// - the policy leaves more than one count alone under the load of the end (its tolerance, what lies between the two
///   values of a threshold, a direction that it forbids): the count then depends on the way that led there. Both must be
///   such counts; and where the last load found both at the same count, as it does after a sweep, one apart at most.
/// - the policy moves nothing (`Off`, `Advise`): it stands where somebody left it.
/// - the policy leaves no count alone: it swings between some.
/// - a person set it to 0, which is left alone.
fn ends_alike(disturbed: &Ran, undisturbed: &Ran, sweeps: bool) -> Option<Violation> {
    disturbed.ends.iter().find_map(|(number, end)| {
        let other = undisturbed.ends.get(number)?;
        let leaves_alone = |end: &run::End| end.rests_at.len() > 1 && end.rests_at.contains(&end.replicas);
        let swings = |end: &run::End| end.rests_at.is_empty();
        // From one count, under one load, the ways differ by the phase in which each was: what a fleet may remove at a moment.
        let one_way = sweeps && end.stood_at == other.stood_at && end.replicas.abs_diff(other.replicas) > 1;
        let another_way = !one_way && leaves_alone(end) && leaves_alone(other);
        let may_differ = !end.acts || (end.replicas, end.by_person) == (0, 0) || another_way || swings(end) && swings(other);
        let differ = end.replicas != other.replicas && !may_differ;
        differ.then(|| {
            let details = format!("t{number} has {} replicas, and {} without faults; its policy rests at {:?}", end.replicas, other.replicas, end.rests_at);
            Violation::new("after the faults the fleet reaches what it reaches without them", details)
        })
    })
}

fn same_again(scenario: &Scenario, first: &Ran) -> Option<Violation> {
    let second = run(scenario);
    let same = (second.trace, &second.ends, &second.counts) == (first.trace, &first.ends, &first.counts);
    (!same).then(|| Violation::new("the same seed twice gives the same trace", format!("{:016x}, then {:016x}", first.trace, second.trace)))
}

/// Runs the command.
///
/// # Errors
/// With the number of seeds that failed.
pub fn simulate(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.trace {
        return trace_one(arguments);
    }
    if arguments.from.checked_add(arguments.seeds).is_none() {
        bail!("--from {} and --seeds {}: the last seed would be above {}", arguments.from, arguments.seeds, u64::MAX);
    }
    let threads = arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let kinds = arguments.faults.clone().unwrap_or_default();
    let started = Stopwatch::start();
    let said = Mutex::new(Duration::ZERO);
    let all = All::run(arguments.from, arguments.seeds, &kinds, threads, arguments.most_failures, |done, failed| {
        let (elapsed, mut said) = (started.elapsed(), said.lock().unwrap_or_else(PoisonError::into_inner));
        if elapsed >= *said + PROGRESS_EVERY {
            *said = elapsed;
            eprintln!("{done} of {} seeds, {failed} failed, {:.0} s", arguments.seeds, elapsed.as_secs_f64());
        }
    });
    println!("{} in {:.1} s, {} failed", all.ran(arguments), started.elapsed().as_secs_f64(), all.failed.len());
    for (what, count) in &all.counts {
        println!("  {count:>12} {what}");
    }
    all.report(threads, (arguments.shrink_for > 0).then(|| Duration::from_secs(arguments.shrink_for)));
    if !all.failed.is_empty() {
        bail!("{} of {} seeds failed", all.failed.len(), all.done);
    }
    let lacking: Vec<&str> = MUST_BE_MET.into_iter().filter(|what| !all.counts.contains_key(what)).collect();
    if arguments.all_met && !lacking.is_empty() {
        bail!("no seed met: {}", lacking.join("; "));
    }
    Ok(())
}

/// Prints a line of a trace; who has read enough (`| head`) ends it.
fn say(line: &str) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// Runs one seed, or its shortest form, and says all that happens.
fn trace_one(arguments: &Arguments) -> anyhow::Result<()> {
    let mut scenario = Scenario::draw_with(arguments.from, &arguments.faults.clone().unwrap_or_default());
    if arguments.shortest {
        let Some(violation) = judge(&scenario).violation else {
            bail!("seed {} does not fail: it has no shortest form; --trace alone shows it", arguments.from)
        };
        (scenario, _) = shrink::shrink(&scenario, &violation, Duration::from_secs(arguments.shrink_for));
    }
    say(&scenario.to_string());
    let ran = trace(&scenario, &mut say);
    let judged = judge_ran(&scenario, ran);
    if let Some(undisturbed) = &judged.undisturbed {
        say("\nwithout its faults:");
        trace(&scenario.undisturbed(), &mut say);
        for (number, end) in &judged.ran.ends {
            let other = undisturbed.ends.get(number).map(|end| end.replicas);
            say(&format!("t{number} ended with {} replicas, without faults with {other:?}; its policy rests at {:?}", end.replicas, end.rests_at));
        }
    }
    match judged.violation {
        Some(violation) => bail!("seed {}: {violation}", arguments.from),
        None => Ok(()),
    }
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct All {
    /// The seeds that failed, in their order.
    pub failed: Vec<(u64, Violation, Scenario)>,
    /// How much there was of what.
    pub counts: BTreeMap<&'static str, u64>,
    /// How many seeds were run: fewer than were asked for, where enough of them failed before.
    pub done: u64,
}

impl All {
    /// How many seeds were run, of how many, and why not all of them.
    fn ran(&self, asked: &Arguments) -> String {
        if self.done == asked.seeds {
            format!("{} seeds from {}", self.done, asked.from)
        } else {
            format!("{} of {} seeds from {} (--most-failures {} ended it)", self.done, asked.seeds, asked.from, asked.most_failures)
        }
    }

    /// Prints each seed that failed; with `shrink_for`, in its shortest form that is found in this time, on so many threads.
    fn report(&self, threads: usize, shrink_for: Option<Duration>) {
        for some in self.failed.chunks(threads) {
            let reports: Vec<Option<String>> = std::thread::scope(|scope| {
                let report = |(_, violation, scenario): &'_ (u64, Violation, Scenario)| Some(shrink::report(scenario, violation, shrink_for?));
                let at_once: Vec<_> = some.iter().map(|failed| scope.spawn(move || report(failed))).collect();
                at_once.into_iter().map(|report| report.join().unwrap_or_default()).collect()
            });
            for ((seed, violation, _), report) in some.iter().zip(reports) {
                println!("\nseed {seed}: {violation}");
                report.into_iter().for_each(|report| println!("{report}"));
            }
        }
    }

    /// Runs `count` seeds from `from` on, with faults of these kinds, on so many threads, until so many have failed (and those that are under way then).
    /// `progress` gets how many are done, and how many failed.
    pub fn run(from: u64, count: u64, kinds: &Kinds, threads: usize, most_failures: usize, progress: impl Fn(u64, usize) + Sync) -> All {
        let (next, enough) = (AtomicU64::new(from), AtomicBool::new(false));
        let all = Mutex::new(All::default());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= from.saturating_add(count) || enough.load(Ordering::Relaxed) {
                            return;
                        }
                        let Outcome { violation, counts } = seed(number, kinds);
                        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                        for (what, count) in counts {
                            *all.counts.entry(what).or_default() += count;
                        }
                        if let Some((violation, scenario)) = violation {
                            // At once: a long run may be stopped before its end.
                            eprintln!("seed {number} failed: \"{}\"", violation.invariant);
                            all.failed.push((number, violation, scenario));
                            enough.store(all.failed.len() >= most_failures, Ordering::Relaxed);
                        }
                        all.done += 1;
                        progress(all.done, all.failed.len());
                    }
                });
            }
        });
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.failed.sort_by_key(|(seed, _, _)| *seed);
        all
    }
}
