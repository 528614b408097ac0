//! A steady load: from the end of a pane to the command that a reader of what is committed has.
//!
//! One process does all between samples and commands. Each target has five gauges. One of them says how many replicas it needs, and steps up by half now
//! and then; it is seen in a window of 1 s, so that a step makes a few commands. This process is the producer of the samples, the observer of the targets and
//! their actuator: a command is carried out at once, and told, so that the next one can come.
//!
//! The time is that at which the reader had the command, less the end of the pane up to which the decision behind it had measured (`through`), less the
//! grace. The decision is the first one in `audit` of this target from the command's count to the command's count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use loadline::log::Topic;
use loadline::model::{Audit, Command, Decision, Message, MetricName, TargetId, Timestamp};
use loadline::runtime::clock::{Clock as _, Stopwatch, SystemClock};

use super::Settings;
use super::cluster::{Cluster, Installation};
use super::fleet::{Fleet, REPEAT};
use super::process::{GRACE, PATIENCE};
use super::producer::{Ending, Producer, gauge, record_size, steadily};
use super::report::{Figures, Target};
use crate::random::Random;

/// The first one is that which steps.
const METRICS: [&str; 5] = ["load", "cpu", "memory", "rps", "latency"];

/// How many replicas each has to begin with.
const REPLICAS: u32 = 3;

/// A target steps once in so long, at most [`STEPS`] times.
const STEP_EVERY: Duration = Duration::from_secs(6);
const STEPS: u32 = 10;

/// How long a poll waits.
const SLICE: Duration = Duration::from_millis(10);

const POLICY: &str = "  replicas: { min: 1, max: 1000 }
  tolerance: { out: 0% }
  metrics:
    - { name: load, track: { perReplica: 10 }, window: 1s, staleAfter: 30s }
    - { name: cpu, track: { perReplica: 1000 } }
    - { name: memory, track: { perReplica: 1000 } }
    - { name: rps, track: { perReplica: 1000 } }
    - { name: latency, track: { perReplica: 1000 } }
  behavior:
    scaleOut: { stabilization: 0s, cooldown: 0s, policies: [{ percent: 100, period: 1s }, { replicas: 4, period: 1s }] }
";

/// What the threads share.
struct Load<'a> {
    installation: &'a Installation<'a>,
    targets: &'a [TargetId],
    /// How many replicas each needs.
    needs: Vec<AtomicU32>,
    ended: AtomicBool,
}

/// When a command was appended, and when a reader of what is committed had it.
struct Arrival {
    appended: Timestamp,
    at: Timestamp,
}

/// Up to when the decision behind a command had measured, when the signal was appended that it was made on, and when it was itself.
struct Decided {
    through: Timestamp,
    at: Timestamp,
    appended: Timestamp,
}

pub(super) fn measure(settings: &Settings, cluster: &Cluster, figures: &mut Figures<'_>) -> anyhow::Result<()> {
    let installation = cluster.installation("steady", settings.steady_partitions)?;
    let mut fleet = Fleet::new(settings.targets, REPLICAS)?;
    fleet.write_policies(&installation.home("all"), POLICY)?;
    fleet.say_all(&*installation.log)?;
    let [audit, commands] = [Topic::Audit, Topic::Commands].map(|topic| installation.tail(topic));
    let (audit, commands) = (audit?, commands?);
    let mut process = installation.start("all", "policies,admit,aggregate,decide,arbitrate", settings.pane)?;

    let targets = fleet.targets().to_vec();
    let needs = targets.iter().map(|_| AtomicU32::new(REPLICAS)).collect();
    let load = Load { installation: &installation, targets: &targets, needs, ended: AtomicBool::new(false) };
    let (arrivals, sent, over) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let ending = Ending(&load.ended);
        let sending = scope.spawn(|| load.send(settings.rate));
        fleet.are_decided_on(&audit, METRICS[0], || process.is_there())?;
        let (carry, carrying) = channel();
        let (load, fleet) = (&load, &mut fleet);
        let acting = scope.spawn(move || load.act(fleet, &carrying));
        let mut steps = steps(settings).into_iter().peekable();
        let (begun, mut over) = (Stopwatch::start(), None);
        let mut arrivals: Vec<(Command, Arrival)> = Vec::new();
        let mut counts: BTreeMap<TargetId, u32> = BTreeMap::new();
        loop {
            while let Some((_, target)) = steps.next_if(|(due, _)| *due <= begun.elapsed()) {
                let needs = &load.needs[target];
                needs.store(stepped(needs.load(Ordering::SeqCst)), Ordering::SeqCst);
            }
            if let Some(arrived) = commands.next(SLICE)? {
                let Message::Command(command) = arrived.message else { continue };
                counts.insert(command.target.clone(), command.to);
                carry.send(command.clone()).ok().context("the actuator ended")?;
                arrivals.push((command, Arrival { appended: arrived.appended, at: arrived.at }));
            }
            if steps.peek().is_none() && begun.elapsed() >= settings.time {
                let over = over.get_or_insert_with(Stopwatch::start);
                let all = targets.iter().zip(&load.needs).all(|(target, needs)| counts.get(target) == Some(&needs.load(Ordering::SeqCst)));
                if all {
                    break;
                }
                ensure!(over.elapsed() < PATIENCE, "not every target was given what it needs: {counts:?}");
            }
            process.is_there()?;
        }
        drop((ending, carry));
        acting.join().ok().context("the actuator panicked")??;
        let (sent, over) = sending.join().ok().context("the producer panicked")??;
        Ok((arrivals, sent, over))
    })?;
    process.stop()?;
    ensure!(targets.iter().zip(&load.needs).all(|(target, needs)| fleet.count(target) == Some(needs.load(Ordering::SeqCst))), "the actuator has other counts");

    let mut decided: BTreeMap<(TargetId, u32, u32), Decided> = BTreeMap::new();
    installation.each(Topic::Audit, |_, appended, message| {
        if let Message::Audit(Audit::Decision(decision)) = message {
            let Decision { target, current, desired, through, at, .. } = decision;
            decided.entry((target, current, desired)).or_insert(Decided { through, at, appended });
        }
    })?;
    let mut times: [Vec<Duration>; 5] = Default::default();
    for (command, arrival) in arrivals {
        let Some(decided) = decided.get(&(command.target.clone(), command.from, command.to)) else {
            bail!("command {} from {} to {} is of no decision", command.id, command.from, command.to);
        };
        times[0].push(arrival.at.since(decided.through).saturating_sub(GRACE));
        times[1].push(decided.at.since(decided.through).saturating_sub(GRACE));
        times[2].push(decided.appended.since(decided.at));
        times[3].push(arrival.appended.since(decided.appended));
        times[4].push(arrival.at.since(arrival.appended));
    }
    let [all, mark, decision, command, read] = &mut times;
    let rate = sent as f64 / over.as_secs_f64();
    figures.add(format!("samples a second, of {} targets, panes of {} ms", settings.targets, settings.pane.as_millis()), Some(rate), "/s", {
        Some(Target::AtLeast(f64::from(settings.rate) * 0.99))
    });
    let of = format!("from the end of a pane to the command, {} partitions", settings.steady_partitions);
    figures.spread(&of, all, Some(Target::AtMost(60.0)), Some(Target::AtMost(200.0)));
    // Where it goes.
    figures.spread("of that, until the signal that it is decided on is appended", mark, None, None);
    figures.spread("of that, until the decision is appended", decision, None, None);
    figures.spread("of that, until the command is appended", command, None, None);
    figures.spread("of that, until it is committed and read", read, None, None);
    Ok(())
}

impl Load<'_> {
    fn send(&self, rate: u32) -> anyhow::Result<(u64, Duration)> {
        let metrics = METRICS.iter().map(|name| Ok(name.parse()?)).collect::<anyhow::Result<Vec<MetricName>>>()?;
        let producer = Producer::new(&self.installation.options.brokers, self.installation.topic(Topic::Metrics), Duration::ZERO)?;
        let mut series = (0..self.targets.len()).flat_map(|target| (0..METRICS.len()).map(move |metric| (target, metric))).cycle();
        let next = || {
            let (target, metric) = series.next().context("there is no series")?;
            // Halfway between two counts: no rounding is near.
            let value = if metric == 0 { f64::from(self.needs[target].load(Ordering::SeqCst)) * 10.0 - 5.0 } else { 1.0 };
            Ok(gauge(&self.targets[target], &metrics[metric], SystemClock.now(), value))
        };
        steadily(&producer, (rate, record_size(rate), self.installation.partitions), next, || self.ended.load(Ordering::SeqCst))
    }

    /// Carries out what it is given, and says from time to time what there is.
    fn act(&self, fleet: &mut Fleet, commands: &Receiver<Command>) -> anyhow::Result<()> {
        let mut said = Stopwatch::start();
        loop {
            match commands.recv_timeout(REPEAT.saturating_sub(said.elapsed())) {
                Ok(command) => fleet.carry_out(&command, &*self.installation.log)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    fleet.say_all(&*self.installation.log)?;
                    said = Stopwatch::start();
                }
            }
        }
    }
}

fn stepped(needs: u32) -> u32 {
    needs + (needs / 2).max(2)
}

/// When which target steps: each in every period of its own, at a moment that the seed draws.
fn steps(settings: &Settings) -> Vec<(Duration, usize)> {
    let mut random = Random::new(settings.seed);
    let count = u32::try_from(settings.time.as_secs() / STEP_EVERY.as_secs()).unwrap_or(STEPS).clamp(1, STEPS);
    let period = settings.time / count;
    let mut steps: Vec<(Duration, usize)> = (0..count)
        .flat_map(|step| (0..settings.targets as usize).map(move |target| (step, target)))
        .map(|(step, target)| (period.mul_f64(f64::from(step) + random.unit()), target))
        .collect();
    steps.sort_unstable();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_goes_beyond_what_the_policy_allows() {
        let most = (0..STEPS).fold(REPLICAS, |needs, _| stepped(needs));
        assert!(most <= 1_000, "{most}");
    }
}
