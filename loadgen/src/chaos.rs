//! Three Loadlines on one real broker, with everything that kills and stops them, and what must hold afterwards.
//!
//! | module | what it is |
//! |---|---|
//! | [`processes`] | the three processes, each with fleets of its own, and what befalls them and the broker |
//! | [`producers`] | who sends numbered samples, and keeps what must be found |
//! | [`fleets`] | the fleets and their policies, and what their supervisor's files say |
//! | [`oracle`] | what must hold, told from the log, the producers and the fleets |
//! | [`standstill`] | whether the machine itself stood still meanwhile |
//!
//! Afterwards every sample that was acknowledged is in exactly one pane, the decisions and commands are those of one undisturbed fold, no command took effect
//! twice, and what comes then is decided on within [`CURRENT_WITHIN`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use loadline::log::kafka::{KafkaLog, Options, topics};
use loadline::log::{Log, Offset, Partitions, Topic};
use loadline::model::{Audit, Message, MetricStatus};
use loadline::runtime::clock::Stopwatch;
use loadline::stages::Stage;
use loadline::stages::aggregate::Aggregate;
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::Decide;
use loadline::wire;

use crate::broker::{Broker, settle};
use crate::clock::unix_millis;
use crate::last_lines::last_lines;
use crate::place;
use crate::program;
use crate::random::Random;
use crate::waiting::{answered, wait_for};
use fleets::{instances_of, target};
use oracle::{Carried, Reading, Standing};
use processes::{Fault, Process, befall, draw};
use producers::{Book, Load, agent};
use standstill::Standstill;

mod fleets;
mod oracle;
mod processes;
mod producers;
mod standstill;

/// What `loadgen chaos` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many faults, one after the other.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    faults: u32,
    /// Restarts each process in order instead, one after the other, as for a new release.
    #[arg(long, conflicts_with = "faults")]
    rolling_restart: bool,
    /// The same seed, the same faults [default: another one each time; it is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// The program that is killed [default: the one beside this program, else the one in PATH]
    #[arg(long, value_name = "FILE")]
    loadline: Option<PathBuf>,
    /// How much the processes say: error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    log_level: String,
    /// Where the broker and the processes have their files and what they say; what an earlier run left there is removed first.
    #[arg(long, value_name = "DIR", default_value = "data/chaos")]
    data: PathBuf,
}

/// The fleets of each process: one is scaled, the other only advised.
const FLEETS: [&[&str]; 3] = [&["active-1", "advised-1"], &["active-2", "advised-2"], &["active-3", "advised-3"]];

/// Of the producers the last one does not number its requests.
const PRODUCERS: usize = 4;

/// Short, so that much is in panes that are under way when something is killed, …
const PANE: Duration = Duration::from_secs(1);
/// … and as in an installation, where it counts how long the stages stand.
const USUAL_PANE: Duration = Duration::from_secs(5);

/// How often a rolling restart is tried where decisions are blind as the machine itself stood still.
const ROLLING_TRIES: u32 = 3;

/// The value of the samples that are sent when the faults are over.
const FRESH: u32 = 7;

/// So soon after the last fault what is sent then is decided on, and every stage has read what was there, whatever the fault was: the session of who was killed
/// takes 6 s to end. The time runs from when whatever was killed or stopped has been started again, a broker until it answers; where the machine itself stands still after that, each
/// stretch without a standstill is held against it, and twice as long all of them: a session that was over for that takes no more than one more to end.
const CURRENT_WITHIN: Duration = Duration::from_secs(10);

/// Runs it, and prints what came of it.
///
/// # Errors
/// What did not hold, or could not be set up.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = program::find(arguments.loadline.as_deref())?;
    let pane = if arguments.rolling_restart { USUAL_PANE } else { PANE };
    let home = place::emptied(&arguments.data)?;
    let site = |place: PathBuf| Site { program: program.clone(), place, log_level: arguments.log_level.clone(), pane };
    if arguments.rolling_restart {
        for number in 1..=ROLLING_TRIES {
            if sees_through_a_rolling_restart(&site(home.join(number.to_string())))? {
                return Ok(());
            }
        }
        bail!(
            "the machine stood still in each of {ROLLING_TRIES} rolling restarts, and decisions were blind after it: nothing can be told from that; see {}",
            home.display()
        );
    }
    let site = site(home);
    let seed = arguments.seed.unwrap_or_else(|| unix_millis().unsigned_abs() ^ u64::from(std::process::id()) << 44);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let faults = draw(arguments.faults as usize, &mut random);
    let mut kinds = BTreeMap::<Fault, usize>::new();
    faults.iter().for_each(|fault| *kinds.entry(*fault).or_default() += 1);
    let befallen = under_load(&site, |broker, processes, wait| {
        let begun = Stopwatch::start();
        for (number, fault) in (1..).zip(&faults) {
            // Mostly while others still take over from the one before; now and then when all is at work again.
            wait(if random.below(100) < 20 { 120 } else { 5 + random.below(30) as u64 })?;
            if number == faults.len() {
                // What it takes to be current after the last one is not to hold what those before take.
                let log = open(&installation(broker))?;
                Ends::now(&log)?.are_reached(&log)?;
            }
            println!("{number} of {}, {:.0} s: {fault:?}", faults.len(), begun.elapsed().as_secs_f64());
            processes.iter_mut().try_for_each(Process::is_there)?;
            befall(*fault, broker, processes, &mut random, wait)?;
        }
        Ok(())
    })
    .with_context(|| format!("--seed {seed} --faults {}", arguments.faults))?;
    println!("seed {seed}: {} faults {kinds:?}; {befallen}", faults.len());
    Ok(())
}

/// Restarts each process in order, by which no decision may be blind. `false` where some were, each after the machine itself stood still: nothing came from the producers either.
fn sees_through_a_rolling_restart(site: &Site) -> anyhow::Result<bool> {
    let befallen = under_load(site, a_rolling_restart)?;
    println!("a rolling restart: {befallen}");
    let of_the_restart: Vec<_> = befallen.blind.iter().filter(|(at, _)| !befallen.standstill.befell(*at, CURRENT_WITHIN)).collect();
    ensure!(of_the_restart.is_empty(), "a rolling restart makes no decision blind: {of_the_restart:?}; what the processes said is in {}", site.place.display());
    Ok(befallen.blind.is_empty())
}

/// A new release, a process at a time: each ends in order and comes back while the others have its work.
fn a_rolling_restart(_: &mut Broker, processes: &mut [Process], wait: Wait<'_>) -> anyhow::Result<()> {
    for number in 0..processes.len() {
        wait(20)?;
        processes.iter_mut().try_for_each(Process::is_there)?;
        processes[number].leaves_and_comes_back()?;
        processes[number].becomes_ready()?;
    }
    Ok(())
}

/// Waits for so many more requests to be acknowledged.
type Wait<'a> = &'a dyn Fn(u64) -> anyhow::Result<()>;

/// What came of it.
struct Befallen {
    took: Duration,
    /// From the last fault until what is sent then was decided on, …
    current: Duration,
    /// … and the stretches of that without a standstill.
    undisturbed: Vec<Duration>,
    acknowledged: u64,
    /// Requests that were acknowledged, and not at once; and those that never were.
    repeated: u64,
    unknown: u64,
    samples: i64,
    decisions: usize,
    /// When a metric was stale in which decision.
    blind: Vec<(i64, String)>,
    commands: usize,
    applied: usize,
    changes: i64,
    standstill: Standstill,
}

impl fmt::Display for Befallen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Befallen { took, current, undisturbed, acknowledged, repeated, unknown, samples, decisions, blind, commands, applied, changes, standstill } = self;
        write!(
            f,
            "{:.0} s; {acknowledged} requests acknowledged, {repeated} of them not at once, {unknown} never; {samples} samples, {decisions} decisions ({blind} of them blind), \
             {commands} commands, {applied} told as applied, {changes} changes; current {:.1} s after the last fault{standstill}",
            took.as_secs_f64(),
            current.as_secs_f64(),
            blind = blind.len(),
        )?;
        match undisturbed.iter().max() {
            Some(longest) if longest < current => write!(f, " ({:.1} s of it in one stretch)", longest.as_secs_f64()),
            _ => Ok(()),
        }
    }
}

/// What runs, and where.
struct Site {
    program: PathBuf,
    place: PathBuf,
    log_level: String,
    pane: Duration,
}

/// Three processes under load, and what befalls them; then all that must hold.
fn under_load(site: &Site, befalls: impl FnOnce(&mut Broker, &mut [Process], Wait<'_>) -> anyhow::Result<()>) -> anyhow::Result<Befallen> {
    // One that was killed is let in again when its session is over: 9 s, where nothing else is said.
    let mut broker = Broker::start(&site.place.join("broker"), &["broker.session.timeout.ms=4000"])?;
    let options = installation(&broker);
    answered("the topics to be made", || topics::apply(&options, false))?;
    let all: Vec<&str> = FLEETS.into_iter().flatten().copied().collect();
    let mut processes = processes(site, &options, &all)?;
    let outcome = judged(site, &mut broker, &mut processes, &options, &all, befalls);
    if outcome.is_err() {
        for process in &processes {
            eprintln!("{} said last:\n{}", process.name(), last_lines(&process.said()));
        }
    }
    outcome.with_context(|| format!("what they said is in {}", site.place.display()))
}

fn judged(
    site: &Site,
    broker: &mut Broker,
    processes: &mut [Process],
    options: &Options,
    all: &[&str],
    befalls: impl FnOnce(&mut Broker, &mut [Process], Wait<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Befallen> {
    let urls: Vec<String> = processes.iter().map(|process| process.url.clone()).collect();
    let load = &Load { targets: all, urls: &urls, pane: site.pane, acknowledged: AtomicU64::new(0), stop: AtomicBool::new(false) };
    processes.iter_mut().try_for_each(Process::start)?;
    processes.iter_mut().try_for_each(Process::becomes_ready)?;
    let standstill = Standstill::new();

    let (books, log, took, becomes_current) = std::thread::scope(|scope| -> anyhow::Result<_> {
        // Whoever fails ends the producers, too.
        let stopping = Stopping(&load.stop);
        scope.spawn(|| standstill.watch(&load.stop));
        let producers: Vec<_> = (0..PRODUCERS).map(|number| scope.spawn(move || load.produce(number, number + 1 < PRODUCERS))).collect();
        // When all are at work.
        each_is_decided_by(&open(options)?, Since::TheBeginning, "stamp", all)?;
        let begun = Stopwatch::start();
        let wait = |more: u64| {
            let until = load.acknowledged.load(Ordering::SeqCst) + more;
            wait_for("requests to be acknowledged", || {
                // None ends before it is told to, but one that fails.
                ensure!(!producers.iter().any(std::thread::ScopedJoinHandle::is_finished), "a producer gave up");
                Ok((load.acknowledged.load(Ordering::SeqCst) >= until).then_some(()))
            })
        };
        let befell = befalls(broker, processes, &wait);
        // From here: whatever was killed or stopped has been started again.
        let (took, over) = (begun.elapsed(), standstill.now());
        let current = befell.and_then(|()| {
            let log = open(options)?;
            let ends = Ends::now(&log)?;
            what_comes_now_is_decided_on(&log, &urls, all)?;
            ends.are_reached(&log)?;
            Ok((log, over..standstill.now()))
        });
        drop(stopping);
        let books = producers.into_iter().map(|producer| producer.join().ok().context("a producer panicked")?).collect::<anyhow::Result<Vec<Book>>>()?;
        let (log, becomes_current) = current?;
        Ok((books, log, took, becomes_current))
    })?;
    let (current, undisturbed) = (becomes_current.end.saturating_sub(becomes_current.start), standstill.undisturbed(becomes_current));
    ensure!(
        undisturbed.iter().all(|stretch| *stretch <= CURRENT_WITHIN) && undisturbed.iter().sum::<Duration>() <= 2 * CURRENT_WITHIN,
        "after the faults the pipeline is current within {} s: it took {:.1} s{standstill}; without a standstill: {undisturbed:.1?}",
        CURRENT_WITHIN.as_secs(),
        current.as_secs_f64()
    );

    everything_is_aggregated(&log)?;
    for process in &mut *processes {
        process.becomes_ready()?;
        process.fleets.iter().try_for_each(|fleet| is_as_large_as_it_is_asked_to_be(process, fleet))?;
    }
    processes.iter_mut().try_for_each(Process::tell_to_end)?;
    processes.iter_mut().try_for_each(Process::has_ended)?;
    settle(options)?;

    let mut sent = BTreeMap::new();
    for (place, of_producer) in books.iter().flat_map(|book| &book.sent) {
        sent.entry(place.clone()).and_modify(|sent| *sent += *of_producer).or_insert(*of_producer);
    }
    let standing = Standing::read(&log)?;
    let samples = standing.each_sample_is_in_one_pane(&sent)?;
    let decisions = standing.decisions_are_the_folds()?;
    standing.the_replay_of_the_export_says_the_same(&site.program, options)?;
    standing.commands_are_the_folds()?;
    let mut carried = Carried::of(&standing)?;
    for process in processes.iter() {
        process.fleets.iter().try_for_each(|fleet| carried.compare(&process.data(), fleet))?;
    }

    let sum = |of: fn(&Book) -> u64| books.iter().map(of).sum::<u64>();
    let (acknowledged, repeated, unknown) = (sum(|book| book.acknowledged), sum(|book| book.repeated), sum(|book| book.unknown));
    let (commands, applied, changes, blind) = (carried.commands(), carried.applied(), carried.changes, standing.blind());
    let befallen = Befallen { took, current, undisturbed, acknowledged, repeated, unknown, samples, decisions, blind, commands, applied, changes, standstill };
    ensure!(acknowledged > 50 && decisions > 20 && applied > 0, "too little was under load for this to say anything: {befallen}");
    Ok(befallen)
}

/// Ends the producers, however it ends.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An installation whose shared topics have three partitions.
fn installation(broker: &Broker) -> Options {
    let shared = [Topic::Metrics, Topic::Signals, Topic::Commands, Topic::Audit];
    let partitions = shared.into_iter().fold(Partitions::default(), |partitions, topic| partitions.with(topic, 3));
    Options { prefix: "chaos.".to_owned(), partitions: Some(partitions), replicas: Some(1), ..Options::new(broker.address.clone()) }
}

/// The log, as soon as the broker shows all its topics.
fn open(options: &Options) -> anyhow::Result<KafkaLog> {
    wait_for("the topics to be shown", || Ok(KafkaLog::open(options.clone()).ok()))
}

/// The processes, not started.
fn processes(site: &Site, options: &Options, all: &[&str]) -> anyhow::Result<Vec<Process>> {
    let prefix = format!("kafka.prefix={}", options.prefix);
    let pane = format!("{}s", site.pane.as_secs());
    let installation = ["--brokers", &options.brokers, "--set", &prefix, "--set", "kafka.partitions=3", "--set", "kafka.replication=1"];
    let arguments = [&installation[..], &["--pane", &pane, "--log-level", &site.log_level]].concat();
    let of = |(number, fleets): (usize, &'static [&'static str])| {
        Process::new(&site.program, &site.place.join(format!("process-{number}")), number, fleets, all, &arguments)
    };
    (0..).zip(FLEETS).map(of).collect()
}

/// A sample of a metric that had none makes a decision of each target.
fn what_comes_now_is_decided_on(log: &KafkaLog, urls: &[String], all: &[&str]) -> anyhow::Result<()> {
    let since = Since::now(log)?;
    let line = |name: &&str| format!("{{\"target\":\"{}\",\"metric\":\"fresh\",\"value\":{FRESH}}}\n", target(name));
    let body: String = all.iter().map(line).collect();
    let agent = agent();
    let post = |url: &String| agent.post(format!("{url}/api/v1/metrics")).header("content-type", "application/x-ndjson").send(&body).ok();
    wait_for("a sample to be taken after the faults", || Ok(urls.iter().find_map(post)))?;
    each_is_decided_by(log, since, "fresh", all)
}

/// From where on `audit` is read.
enum Since {
    TheBeginning,
    Now(Vec<Reading>),
}

impl Since {
    fn now(log: &KafkaLog) -> anyhow::Result<Since> {
        Ok(Since::Now(Reading::from_the_end(log, Topic::Audit)?))
    }
}

/// Waits for a decision of each target for which this metric has a value.
fn each_is_decided_by(log: &KafkaLog, since: Since, metric: &str, all: &[&str]) -> anyhow::Result<()> {
    let mut reading = match since {
        Since::TheBeginning => Reading::of(log, Topic::Audit),
        Since::Now(reading) => reading,
    };
    let mut waiting: Vec<String> = all.iter().map(|name| target(name)).collect();
    wait_for(&format!("each target to be decided on with a value of {metric}"), || {
        for partition in &mut reading {
            for record in partition.read(log)? {
                if let Message::Audit(Audit::Decision(decision)) = wire::decode(Topic::Audit, &record.value)?
                    && decision.metrics.iter().any(|m| m.name.as_str() == metric && m.status == MetricStatus::Ok)
                {
                    waiting.retain(|target| *target != decision.target.as_str());
                }
            }
        }
        Ok(waiting.is_empty().then_some(()))
    })
}

/// What is on `metrics` now has been aggregated.
fn everything_is_aggregated(log: &KafkaLog) -> anyhow::Result<()> {
    Ends::of::<Aggregate>(log)?.are_reached(log)
}

/// Where partitions ended that stages read.
struct Ends(Vec<(&'static str, Topic, u32, Offset)>);

impl Ends {
    /// Those of all stages. On each of these topics more comes by itself, so that a transaction's marker is no end for long.
    fn now(log: &KafkaLog) -> anyhow::Result<Ends> {
        let all = [Ends::of::<Aggregate>(log)?, Ends::of::<Decide>(log)?, Ends::of::<Arbitrate>(log)?];
        Ok(Ends(all.into_iter().flat_map(|ends| ends.0).collect()))
    }

    fn of<S: Stage>(log: &KafkaLog) -> anyhow::Result<Ends> {
        (0..log.partitions(S::INPUT))
            .map(|partition| {
                let range = answered(&format!("the end of {}/{partition}", S::INPUT), || log.range(S::INPUT, partition))?;
                Ok((S::NAME, S::INPUT, partition, range.end))
            })
            .collect::<anyhow::Result<_>>()
            .map(Ends)
    }

    /// Waits until the stages have read so far.
    fn are_reached(&self, log: &KafkaLog) -> anyhow::Result<()> {
        for (stage, topic, partition, end) in &self.0 {
            let position = || answered("a position", || log.committed(stage, *topic, *partition));
            wait_for(&format!("{stage} to read {topic} {partition} up to {end}"), || Ok(position()?.filter(|position| position >= end)))?;
        }
        Ok(())
    }
}

fn is_as_large_as_it_is_asked_to_be(process: &Process, fleet: &str) -> anyhow::Result<()> {
    let shown = || -> Option<u64> {
        let mut answer = agent().get(format!("{}/api/v1/status", process.url)).call().ok()?;
        let status: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
        let shown = status["targets"].as_array()?.iter().find(|shown| shown["target"] == target(fleet))?;
        shown["current"].as_u64()
    };
    wait_for(&format!("the fleet {fleet} to be as large as it is asked to be"), || {
        Ok((shown() == Some(instances_of(&process.data(), fleet)?.len() as u64)).then_some(()))
    })
}
