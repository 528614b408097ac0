//! What the pipeline costs on real servers: each figure beside its target.
//!
//! | module | what it is |
//! |---|---|
//! | [`report`] | figures, their targets, and how they are printed |
//! | [`cluster`] | a broker of its own, or one that is there; topics of one scenario, what stands on them, who reads them |
//! | [`process`] | a `loadline run` as a child, with its processor time and memory |
//! | [`bare`] | the bare client over the same records, as a child of its own |
//! | [`fleet`] | targets, their policies, and what an observer and an actuator say of them |
//! | [`producer`] | samples as any client writes them: all at once, or at a steady rate |
//! | [`aggregate`], [`commits`], [`steady`], [`hand_over`], [`idle`] | the scenarios |
//!
//! Processor time is that of the process that is measured alone: who produces and who checks is in this one. What is to happen is waited for; it sleeps to
//! keep a rate, and for the time over which something is measured. That the counts add up is checked in each scenario, and ends the run where they do not.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::units;
use cluster::Cluster;
use process::machine_ticks;
use report::{Output, Report};

mod aggregate;
mod bare;
mod cluster;
mod commits;
mod fleet;
mod hand_over;
mod idle;
mod process;
mod producer;
mod report;
mod steady;

/// What `loadgen bench` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The pipeline on Kafka, with the bare librdkafka consumer measured in the same run.
    Kafka(Box<Settings>),
    /// Reads what stands on a topic with librdkafka alone, and prints what that took: a child of `bench kafka`.
    #[command(hide = true)]
    BareConsumer(bare::Arguments),
}

/// How it is measured.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Measures these alone; all, where none is named.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<Scenario>,
    /// A cluster that is there: its topics `bench-…` are made, and deleted afterwards. Without it a broker is fetched and started on loopback.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// How many replicas the topics have.
    #[arg(long, default_value_t = 1)]
    replication: u32,
    /// The program that is measured [default: the one beside this one]
    #[arg(long, value_name = "FILE")]
    loadline: Option<PathBuf>,
    /// Where the broker and the processes have their files; what an earlier run left there is removed first.
    #[arg(long, value_name = "DIR", default_value = "data/bench")]
    data: PathBuf,
    /// How many partitions the topics have, but those of `steady` and `idle`.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// aggregate: how many samples the backlog has.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    samples: u64,
    /// commits: how many are measured.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    commits: u64,
    /// steady: samples a second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// steady: for so long.
    #[arg(long = "for", default_value = "60s", value_parser = units::duration, value_name = "DURATION")]
    time: Duration,
    /// steady: of so many targets, with five metrics each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    targets: u32,
    /// steady: the length of a pane.
    #[arg(long, default_value = "250ms", value_parser = units::duration, value_name = "DURATION")]
    pane: Duration,
    /// steady: how many partitions the topics have.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steady_partitions: u32,
    /// hand-over: targets with a policy and a state.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    states: u32,
    /// hand-over: for so long all goes its way before a process is killed.
    #[arg(long, default_value = "30s", value_parser = units::duration, value_name = "DURATION")]
    undisturbed: Duration,
    /// idle: over so long.
    #[arg(long, default_value = "60s", value_parser = units::duration, value_name = "DURATION")]
    idle: Duration,
    /// idle: how many partitions the topics have.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    idle_partitions: u32,
    /// The same seed, the same load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the figures are printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A backlog is aggregated, exactly once, beside the bare consumer.
    Aggregate,
    /// Commits of 10 records and a position.
    Commits,
    /// A steady load, from the end of a pane to the command that a reader of what is committed has.
    Steady,
    /// A killed process's partitions, until they are decided on again; and restoring the states.
    HandOver,
    /// All roles in one process that has nothing to do.
    Idle,
}

/// Measures, and prints.
///
/// # Errors
/// Something could not be set up, or counts do not add up. That a target is missed is no error.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Kafka(settings) => kafka(settings),
        What::BareConsumer(arguments) => bare::run(arguments),
    }
}

fn kafka(settings: &Settings) -> anyhow::Result<()> {
    let cluster = Cluster::reach(settings)?;
    let (mut report, mut outcome) = (Report::new(settings.seed, settings.brokers.as_deref()), Ok(()));
    for scenario in Scenario::value_variants() {
        if !settings.only.is_empty() && !settings.only.contains(scenario) {
            continue;
        }
        let named = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut figures = report.of(&named);
        eprintln!("measuring: {named}");
        let before = machine_ticks();
        let measured = match scenario {
            Scenario::Aggregate => aggregate::measure(settings, &cluster, &mut figures),
            Scenario::Commits => commits::measure(settings, &cluster, &mut figures),
            Scenario::Steady => steady::measure(settings, &cluster, &mut figures),
            Scenario::HandOver => hand_over::measure(settings, &cluster, &mut figures),
            Scenario::Idle => idle::measure(settings, &cluster, &mut figures),
        };
        // What a machine of several gave to another one is missing in each figure above.
        let stolen = before
            .zip(machine_ticks())
            .map(|((all, stolen), (all_now, stolen_now))| stolen_now.saturating_sub(stolen) as f64 / all_now.saturating_sub(all).max(1) as f64);
        figures.add("processor time of this machine that others had meanwhile", stolen.map(|share| share * 100.0), "%", None);
        outcome = measured.with_context(|| format!("{named} could not be measured; see {}", cluster.place().display()));
        if outcome.is_err() {
            break;
        }
    }
    report.print(settings.output)?;
    outcome
}
