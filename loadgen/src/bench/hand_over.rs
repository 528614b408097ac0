//! Two processes that decide; one is killed. How long until each of its partitions is decided on again, and how fast states are restored.
//!
//! Each target has a policy in mode Advise with two gauges, measured every 5 s: one that goes up and down, so that there is always something new to decide, and
//! one with the usual window. Both processes were started anew before, in order, so that they have restored what there is from snapshots.
//!
//! The time runs from the moment at which the process is gone (`kill -9`, waited for) until a reader of what is committed has a decision of the partition
//! that was appended after that.
//!
//! Restoring is what a process does with a partition before it reads on: it reads the snapshots from the cluster, by clients that are connected since it restored its own, and makes the
//! state of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use loadline::log::{Log as _, Topic};
use loadline::model::{Audit, Message, MetricName, TargetId};
use loadline::runtime::clock::{Clock as _, Stopwatch, SystemClock};
use loadline::runtime::side_by_side;
use loadline::runtime::snapshots::{self, Restored};
use loadline::stages::Stage as _;
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::{Decide, State};

use super::Settings;
use super::cluster::{Cluster, Installation};
use super::fleet::{Fleet, REPEAT};
use super::process::{Process, wait_for};
use super::producer::{Ending, Producer, gauge, record_size, steadily};
use super::report::{Figures, Target};

const METRICS: [&str; 2] = ["queue", "cpu"];

/// A target is measured once in so long.
const EVERY: u32 = 5;

const PANE: Duration = Duration::from_secs(1);

/// What a process sent and the broker had not taken when it was killed has been appended so soon after.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// Beyond the session's time-out.
const BEYOND: Duration = Duration::from_secs(2);

/// How long a poll waits.
const SLICE: Duration = Duration::from_millis(20);

const POLICY: &str = "  mode: Advise
  replicas: { min: 1, max: 50 }
  metrics:
    - { name: queue, track: { perReplica: 10 }, window: 5s, staleAfter: 60s }
    - { name: cpu, track: { perReplica: 1 } }
  behavior:
    scaleOut: { stabilization: 0s, cooldown: 0s, policies: [{ percent: 100, period: 1s }] }
    scaleIn: { stabilization: 0s, cooldown: 0s, policies: [{ percent: 100, period: 1s }] }
";

pub(super) fn measure(settings: &Settings, cluster: &Cluster, figures: &mut Figures<'_>) -> anyhow::Result<()> {
    ensure!(settings.partitions > 1, "two processes share the partitions: --partitions must be at least 2");
    let installation = cluster.installation("hand-over", settings.partitions)?;
    let mut fleet = Fleet::new(settings.states, 4)?;
    fleet.write_policies(&installation.home("feed"), POLICY)?;
    fleet.say_all(&*installation.log)?;
    let audit = installation.tail(Topic::Audit)?;
    let mut feed = installation.start("feed", "policies,admit,aggregate", PANE)?;
    let start = |name: &str| installation.start(name, Decide::NAME, PANE);
    let [mut one, mut other] = [start("one")?, start("other")?];

    let ended = &AtomicBool::new(false);
    let targets = fleet.targets().to_vec();
    let times = std::thread::scope(|scope| -> anyhow::Result<_> {
        let ending = Ending(ended);
        let sending = scope.spawn(|| send(&installation, &targets, ended));
        fleet.are_decided_on(&audit, METRICS[0], || [&mut feed, &mut one, &mut other].into_iter().try_for_each(Process::is_there))?;
        let observing = scope.spawn(|| observe(&installation, &mut fleet, ended));
        one.stop()?;
        other.stop()?;
        let [killed, mut survivor] = [start("one")?, start("other")?];
        let its = wait_for("both to have a share", || {
            let owned = |process: &Process| partitions_of(&installation, process.id());
            let (its, others) = (owned(&killed)?, owned(&survivor)?);
            Ok((!its.is_empty() && !others.is_empty() && its.len() + others.len() == settings.partitions as usize).then_some(its))
        })?;
        each_decides(&installation, settings.partitions)?;
        std::thread::sleep(settings.undisturbed);

        let audit = installation.tail(Topic::Audit)?;
        killed.kill()?;
        let (gone, mut times) = (SystemClock.now(), BTreeMap::new());
        wait_for("each partition to be decided on again", || {
            survivor.is_there()?;
            while let Some(arrived) = audit.next(SLICE)? {
                let is_decision = matches!(arrived.message, Message::Audit(Audit::Decision(_)));
                if is_decision && its.contains(&arrived.partition) && arrived.appended > gone + UNDER_WAY {
                    times.entry(arrived.partition).or_insert_with(|| arrived.at.since(gone));
                }
                if times.len() == its.len() {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })?;
        survivor.stop()?;
        drop(ending);
        sending.join().ok().context("the producer panicked")??;
        observing.join().ok().context("the observer panicked")??;
        figures.count(
            format!("partitions of the killed process, {} targets on {}", settings.states, settings.partitions),
            times.len() as u64,
            its.len() as u64,
        );
        Ok(times)
    })?;
    feed.stop()?;
    let most = (installation.options.session_timeout + BEYOND).as_secs_f64();
    let seconds = |time: Option<&Duration>| time.map(Duration::as_secs_f64);
    figures.add("killed, until the first of them is decided on again", seconds(times.values().min()), "s", None);
    figures.add("killed, until each of them is decided on again", seconds(times.values().max()), "s", Some(Target::AtMost(most)));
    restore(settings, &installation, figures)
}

/// The partitions of decide that the process of this id has.
fn partitions_of(installation: &Installation<'_>, id: u32) -> anyhow::Result<Vec<u32>> {
    let owners = installation.log.owners(Decide::NAME, Topic::Signals)?.unwrap_or_default();
    let mark = format!("-{id} at ");
    Ok(owners.into_iter().filter(|(_, owner)| owner.contains(&mark)).map(|(partition, _)| partition).collect())
}

/// Waits until each partition has a decision from now on.
fn each_decides(installation: &Installation<'_>, partitions: u32) -> anyhow::Result<()> {
    let audit = installation.tail(Topic::Audit)?;
    let mut waiting: Vec<u32> = (0..partitions).collect();
    wait_for("each partition to be decided on", || {
        while let Some(arrived) = audit.next(SLICE)? {
            if let Message::Audit(Audit::Decision(_)) = arrived.message {
                waiting.retain(|partition| *partition != arrived.partition);
            }
            if waiting.is_empty() {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
}

/// Measures each target once in [`EVERY`] seconds.
fn send(installation: &Installation<'_>, targets: &[TargetId], ended: &AtomicBool) -> anyhow::Result<()> {
    let metrics = METRICS.iter().map(|name| Ok(name.parse()?)).collect::<anyhow::Result<Vec<MetricName>>>()?;
    let producer = Producer::new(&installation.options.brokers, installation.topic(Topic::Metrics), Duration::ZERO)?;
    let series = targets.len() * METRICS.len();
    let rate = u32::try_from(series)?.div_ceil(EVERY);
    let mut number = 0;
    let next = || {
        let (round, place) = (number / series, number % series);
        let (target, metric) = (place / METRICS.len(), place % METRICS.len());
        number += 1;
        let value = match (metric, (round + target) % 2) {
            (0, 0) => 35.0,
            (0, _) => 75.0,
            _ => 0.5,
        };
        Ok(gauge(&targets[target], &metrics[metric], SystemClock.now(), value))
    };
    steadily(&producer, (rate, record_size(rate), installation.partitions), next, || ended.load(Ordering::SeqCst))?;
    Ok(())
}

/// Says from time to time what there is.
fn observe(installation: &Installation<'_>, fleet: &mut Fleet, ended: &AtomicBool) -> anyhow::Result<()> {
    let mut said = Stopwatch::start();
    while !ended.load(Ordering::SeqCst) {
        if said.elapsed() >= REPEAT {
            fleet.say_all(&*installation.log)?;
            said = Stopwatch::start();
        }
        std::thread::sleep(SLICE);
    }
    Ok(())
}

/// The states of all partitions, as many at once as a process restores.
fn restore(settings: &Settings, installation: &Installation<'_>, figures: &mut Figures<'_>) -> anyhow::Result<()> {
    let partitions: Vec<u32> = (0..settings.partitions).collect();
    // Whoever takes over has restored its own before: its clients are connected. Here by what the arbiter has not kept.
    for connected in side_by_side(&vec![0; installation.log.readers()], |partition| installation.log.states(Arbitrate::NAME, *partition)) {
        ensure!(connected?.is_empty(), "the arbiter runs");
    }
    let (mut restored, mut read, mut made) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let restoring = Stopwatch::start();
    for some in partitions.chunks(installation.log.readers()) {
        for one in side_by_side(some, |partition| restore_one(installation, *partition)) {
            let (state, reading, making) = one?;
            (read, made) = (read + reading, made + making);
            restored.push(state);
        }
    }
    let took = restoring.elapsed();
    let restored: u64 = restored.iter().map(|state| state.keys as u64).sum();
    figures.count("targets restored from snapshots", restored, u64::from(settings.states));
    figures.add("targets restored a second", Some(restored as f64 / took.as_secs_f64()), "/s", Some(Target::AtLeast(50_000.0)));
    let share = read.as_secs_f64() / (read + made).as_secs_f64();
    figures.add("of that time, reading them from the cluster", Some(share * 100.0), "%", None);
    ensure!(restored == u64::from(settings.states), "{restored} of {} targets were restored", settings.states);
    Ok(())
}

/// The state of a partition, and how long it took to read it and to make it.
fn restore_one(installation: &Installation<'_>, partition: u32) -> anyhow::Result<(Restored<State>, Duration, Duration)> {
    let position = installation.log.committed(Decide::NAME, Topic::Signals, partition)?.context("decide has committed nothing")?;
    let reading = Stopwatch::start();
    let rows = installation.log.states(Decide::NAME, partition)?;
    let (read, making) = (reading.elapsed(), Stopwatch::start());
    let restored = snapshots::restore::<Decide>(&rows, position)?;
    Ok((restored, read, making.elapsed()))
}
