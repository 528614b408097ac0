//! All roles in one process that has nothing to do: its threads, its memory, its processor time.

use std::time::Duration;

use loadline::log::{Log as _, Topic};
use loadline::runtime::clock::Stopwatch;
use loadline::stages::Stage as _;
use loadline::stages::decide::Decide;

use super::Settings;
use super::cluster::Cluster;
use super::process::wait_for;
use super::report::{Figures, Target};

/// As a user's who says nothing.
const PANE: Duration = Duration::from_secs(5);

/// Until nothing is left to be started, at most.
const SETTLES: Duration = Duration::from_secs(10);

pub(super) fn measure(settings: &Settings, cluster: &Cluster, figures: &mut Figures<'_>) -> anyhow::Result<()> {
    let installation = cluster.installation("idle", settings.idle_partitions)?;
    let mut process = installation.start("all", "", PANE)?;
    wait_for("it to have its partitions", || {
        process.is_there()?;
        let owners = installation.log.owners(Decide::NAME, Topic::Signals)?.unwrap_or_default();
        Ok((owners.len() == settings.idle_partitions as usize).then_some(()))
    })?;
    std::thread::sleep(SETTLES.min(settings.idle));
    let (before, woken, watch) = (process.processor_time()?, process.wake_ups()?, Stopwatch::start());
    std::thread::sleep(settings.idle);
    let (used, woken, over) = (process.processor_time()?.saturating_sub(before), process.wake_ups()?.saturating_sub(woken), watch.elapsed());
    let of = |what: &str| format!("all roles, {} partitions: {what}", settings.idle_partitions);
    figures.add(of("share of a core"), Some(used.as_secs_f64() / over.as_secs_f64() * 100.0), "%", Some(Target::AtMost(5.0)));
    // What it does, whatever that costs on the machine.
    figures.add(of("wake-ups of its threads"), Some(woken as f64 / over.as_secs_f64()), "/s", None);
    figures.add(of("processor time a wake-up"), Some(used.as_secs_f64() / woken.max(1) as f64 * 1e6), "µs", None);
    figures.add(of("threads"), Some(process.status("Threads")? as f64), "", None);
    figures.add(of("resident memory"), Some(process.status("VmRSS")? as f64 / 1024.0), "MiB", None);
    figures.add(of("most resident memory"), Some(process.status("VmHWM")? as f64 / 1024.0), "MiB", None);
    process.stop()
}
