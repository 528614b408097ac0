//! The thread that keeps one fleet's processes at its count.
//!
//! Ten times a second it takes a *turn*: it reads the count, sees what ended, brings the set of
//! instances to the count, starts what is due, asks for health, publishes the endpoints, moves
//! removals on, measures, and reports. A turn never waits for an instance, a hook or the log.
//!
//! Invariants: without a readable count nothing is started or removed; no instance is started
//! before its name is on disk; none is asked to end before the endpoints without it are settled
//! (or 30 s have passed); a process is signalled only when it is beyond doubt the instance's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tracing::warn;

use super::claim::{self, Claim, Holder};
use super::condition::{Condition, Conditions};
use super::document::FleetSpec;
use super::endpoints::Publisher;
use super::firing::FiringFile;
use super::group;
use super::health::{Prober, Question};
use super::instance::{Instance, Leaving, Life, Moment, Running, Trouble, first_to_leave};
use super::launch::{self, Launch};
use super::meter::Meter;
use super::notes::{Notes, NotesFile};
use super::procfs::{self, ProcessId};
use super::record::{FleetRecord, RecordFile};
use super::status::FleetStatus;
use crate::edge::events::{Fleet, OfFleet};
use crate::edge::observe::{Outbox, Sighting};
use crate::edge::stop::Bell;
use crate::model::{InstanceName, MetricName, TargetId, Timestamp};
use crate::runtime::clock::{Clock, Stopwatch};

mod adopt;
mod report;

/// The time between two turns: what an exit, a due start or a change of the count by another
/// process waits at most. A turn reads one small file and one line per instance.
const TURN: Duration = Duration::from_millis(100);

/// How long a removal waits for the endpoints without it to be written and for the hook; a hook
/// ends within 10 s, so this covers one that ran when the change came, and the one after.
const ENDPOINTS_WAIT: Duration = Duration::from_secs(30);

/// How long after SIGKILL it is sent again, to what was forked meanwhile.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How often the sighting is renewed, outputs are looked at, and ports are looked for again.
const SLOW: Duration = Duration::from_secs(1);

/// What the supervisor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Keep the instances at the count.
    Supervise,
    /// Remove all of them in order, then end; the count stays.
    Drain,
}

/// What others say to a supervisor, and what it lets them see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bell: Bell,
    /// Its document is gone: nobody looks after it any more.
    pub(crate) gone: AtomicBool,
    /// Another process supervises a fleet of this name for the installation.
    pub(crate) elsewhere: AtomicBool,
    pub(crate) orders: Mutex<(Arc<FleetSpec>, Mode)>,
    pub(crate) status: Mutex<FleetStatus>,
    /// Answers of probes; one an instance at most is under way.
    answers: Mutex<Vec<Answer>>,
}

#[derive(Debug)]
struct Answer {
    instance: InstanceName,
    process: ProcessId,
    healthy: bool,
}

impl Shared {
    pub(crate) fn new(target: TargetId, spec: FleetSpec) -> Self {
        Shared {
            bell: Bell::default(),
            gone: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            orders: Mutex::new((Arc::new(spec), Mode::Supervise)),
            status: Mutex::new(FleetStatus::unknown(target)),
            answers: Mutex::default(),
        }
    }
}

/// What is said where whoever had a fleet is gone.
const NOBODY: &str =
    "nobody supervises it now: the process that did has ended, and its instances run on; start that one again, or, where it shall be this one's, this one";

fn held_by(holder: &Holder) -> String {
    format!(
        "{holder} supervises a fleet of this name for the same installation, and this one would start instances beside its own; leave the role fleets out here, or give this \
         process other fleets, and start it again"
    )
}

/// Why a fleet is left alone whose name cannot be claimed.
fn unclaimed(name: &str, error: &std::io::Error, held: impl FnOnce(Holder) -> String) -> String {
    let why = Holder::of(name).map_or_else(|| format!("that nobody else supervises it cannot be made sure: {error}"), held);
    format!("nothing is started or stopped: {why}")
}

/// Everything that a supervisor works with.
pub(crate) struct Supervisor {
    target: TargetId,
    directory: PathBuf,
    record: Arc<RecordFile>,
    notes: NotesFile,
    shared: Arc<Shared>,
    prober: Arc<Prober>,
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    since: Stopwatch,
    spec: Arc<FleetSpec>,
    mode: Mode,
    /// The incarnation whose instances these are; nothing is done before it is known.
    uid: Option<String>,
    /// What keeps others from supervising it.
    claim: Option<Claim>,
    /// The installation that the fleet belongs to, where several processes share one.
    installation: Option<Arc<str>>,
    /// What keeps others from supervising another one of its name.
    name_claim: Option<Claim>,
    boot: String,
    next: u64,
    instances: BTreeMap<InstanceName, Instance>,
    foreign: Vec<ProcessId>,
    publisher: Publisher,
    meter: Meter,
    conditions: Conditions,
    /// What was told of them, for the next Loadline.
    firing: FiringFile,
    /// Those of this turn.
    now_holding: Conditions,
    output_trouble: Option<String>,
    no_port_until: Moment,
    next_measure: Moment,
    next_slow: Moment,
    sighted: Option<(Sighting, Moment)>,
    metrics: Metrics,
}

/// The names of what is measured.
struct Metrics {
    cpu: MetricName,
    memory: MetricName,
}

/// Where a supervisor belongs.
pub(crate) struct Surroundings {
    pub(crate) directory: PathBuf,
    pub(crate) record: Arc<RecordFile>,
    pub(crate) prober: Arc<Prober>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) installation: Option<Arc<str>>,
}

impl Supervisor {
    pub(crate) fn new(target: TargetId, shared: Arc<Shared>, around: Surroundings) -> Result<Self, crate::model::NameError> {
        let (spec, mode) = shared.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Supervisor {
            target,
            notes: NotesFile::new(&around.directory.join("instances.json")),
            firing: FiringFile::new(&around.directory.join("firing.json")),
            directory: around.directory,
            record: around.record,
            shared,
            prober: around.prober,
            outbox: around.outbox,
            clock: around.clock,
            since: Stopwatch::start(),
            spec,
            mode,
            uid: None,
            claim: None,
            installation: around.installation,
            name_claim: None,
            boot: String::new(),
            next: 1,
            instances: BTreeMap::new(),
            foreign: Vec::new(),
            publisher: Publisher::default(),
            meter: Meter::default(),
            conditions: Conditions::new(),
            now_holding: Conditions::new(),
            output_trouble: None,
            no_port_until: Moment::ZERO,
            next_measure: Moment::ZERO,
            next_slow: Moment::ZERO,
            sighted: None,
            metrics: Metrics { cpu: "cpu".parse()?, memory: "memory".parse()? },
        })
    }

    /// Takes turns until it is told to end, or has drained the fleet.
    pub(crate) fn run(mut self) {
        loop {
            self.turn();
            // Before the incarnation is known, nothing can be said to be gone.
            let known = self.uid.is_some() || self.conditions.contains_key(&Condition::SupervisedElsewhere);
            if self.mode == Mode::Drain && known && self.instances.is_empty() {
                if self.shared.elsewhere.load(Ordering::SeqCst) {
                    self.resolve_all();
                }
                return;
            }
            let until_measure = self.next_measure.saturating_sub(self.since.elapsed()).max(Duration::from_millis(1));
            if !self.shared.bell.wait(TURN.min(until_measure)) {
                // That another process has it is no trouble of the next Loadline here.
                if self.shared.gone.load(Ordering::SeqCst) || self.shared.elsewhere.load(Ordering::SeqCst) {
                    self.resolve_all();
                }
                return;
            }
        }
    }

    fn turn(&mut self) {
        let (moment, now) = (self.since.elapsed(), self.clock.now());
        let (spec, mode) = self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.spec, self.mode) = (spec, mode);
        let record = self.read_record(now);
        if self.uid.is_some() {
            self.take_answers(now);
            self.see_what_ended(moment, now);
            match (self.mode, &record) {
                (Mode::Supervise, Some(record)) => self.fit_to(record.replicas, moment, now),
                (Mode::Supervise, None) => {}
                (Mode::Drain, _) => self.leave(self.instances.keys().cloned().collect(), moment),
            }
            self.start_what_is_due(moment, now);
            self.ask_for_health(moment, now);
            self.move_removals_on(moment);
            self.measure(moment, now);
            self.look_after_outputs(moment);
            self.write_notes();
        }
        self.report(record.as_ref(), moment, now);
    }

    /// The count, and at first everything else that is known of the fleet.
    fn read_record(&mut self, now: Timestamp) -> Option<FleetRecord> {
        let read = if self.uid.is_some() { self.record.read() } else { self.record.read_or_create(self.spec.replicas, now) };
        if self.uid.is_none()
            && let Ok(record) = &read
            && !self.has_claimed(&record.uid)
        {
            return None;
        }
        let refused = match read {
            Ok(record) => match self.uid.as_deref() {
                None => match self.adopt(&record.uid, now) {
                    Ok(()) => return Some(record),
                    Err(error) => format!("running instances cannot be looked for: {error}"),
                },
                Some(uid) if uid == record.uid => return Some(record),
                Some(uid) => {
                    format!("{} is of another incarnation, {} instead of {uid}; restart Loadline to take it over", self.record.path().display(), record.uid)
                }
            },
            Err(error) => error.to_string(),
        };
        self.now_holding.insert(Condition::StateUnreadable, refused);
        None
    }

    /// Whether the supervision of incarnation `uid` is this supervisor's alone, and no other incarnation of the fleet has one.
    fn has_claimed(&mut self, uid: &str) -> bool {
        if self.shared.elsewhere.load(Ordering::SeqCst) {
            let words = self.elsewhere();
            return self.leaves_it(words);
        }
        if self.claim.is_none() {
            let name = claim::of_incarnation(uid);
            match self.take_claim(&name) {
                Some(Ok(claim)) => self.claim = Some(claim),
                Some(Err(error)) => {
                    let known = self.conditions.get(&Condition::SupervisedElsewhere).cloned();
                    let words = known.unwrap_or_else(|| {
                        unclaimed(&name, &error, |holder| format!("{holder} supervises it from a copy of the data directory, or from its original; stop one"))
                    });
                    return self.leaves_it(words);
                }
                None => return false,
            }
        }
        let Some(installation) = self.installation.as_deref().filter(|_| self.name_claim.is_none()) else { return true };
        let name = claim::of_target(installation, &self.target);
        match self.take_claim(&name) {
            Some(Ok(claim)) => self.name_claim = Some(claim),
            Some(Err(error)) => {
                let words = unclaimed(&name, &error, |holder| held_by(&holder));
                // For good: while the other one is started again, this one must not begin.
                self.shared.elsewhere.store(error.kind() == std::io::ErrorKind::AddrInUse, Ordering::SeqCst);
                return self.leaves_it(words);
            }
            None => return false,
        }
        true
    }

    /// Who has the fleet of this name now. Where nobody does, its instances still run, and whoever had it comes back to them: this one does not begin beside them.
    fn elsewhere(&self) -> String {
        let name = claim::of_target(self.installation.as_deref().unwrap_or_default(), &self.target);
        let known = self.conditions.get(&Condition::SupervisedElsewhere).filter(|known| *known != NOBODY);
        match (Claim::take(&name), known) {
            (Ok(_), _) => NOBODY.to_owned(),
            (Err(_), Some(known)) => known.clone(),
            (Err(error), None) => unclaimed(&name, &error, |holder| held_by(&holder)),
        }
    }

    fn leaves_it(&mut self, words: String) -> bool {
        self.now_holding.insert(Condition::SupervisedElsewhere, words);
        false
    }

    /// Nothing where it is told to end meanwhile.
    fn take_claim(&self, name: &str) -> Option<std::io::Result<Claim>> {
        let mut looks = 1;
        loop {
            match Claim::take(name) {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && looks < claim::LOOKS => {
                    looks += 1;
                    if !self.shared.bell.pause(claim::LOOK_AGAIN) {
                        return None;
                    }
                }
                taken => return Some(taken),
            }
        }
    }

    fn take_answers(&mut self, now: Timestamp) {
        let answers = std::mem::take(&mut *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let failures = self.spec.health.as_ref().map_or(u32::MAX, |health| health.failures);
        for Answer { instance, process, healthy } in answers {
            // An answer of a process that is gone says nothing about the one that followed.
            if let Some(instance) = self.instances.get_mut(&instance).filter(|i| i.running().is_some_and(|running| running.id == process)) {
                instance.probed(healthy, failures, now);
            }
        }
    }

    fn see_what_ended(&mut self, moment: Moment, now: Timestamp) {
        let Some(uid) = self.uid.clone() else { return };
        let mut gone = Vec::new();
        for (name, instance) in &mut self.instances {
            let Some(running) = instance.running_mut() else { continue };
            let ended = match running.child.as_mut().map(std::process::Child::try_wait) {
                Some(Ok(status)) => status.map(|status| format!("ended with {status}")),
                Some(Err(error)) => Some(format!("cannot be waited for: {error}")),
                None => (!procfs::is_running(running.id)).then(|| "ended".to_owned()),
            };
            let Some(how) = ended else { continue };
            let (after, doomed) = (moment.saturating_sub(running.since), running.doomed);
            // What its process left behind would hold its port, and be a second one beside the next.
            if let Err(error) = group::kill(&group::identity(&uid, name.as_str()), None) {
                warn!(event = "instance-not-ended", target_id = %self.target, instance = %name, "{}: what instance {name} left behind could not be ended: {error}", self.target);
            }
            if instance.leaving.is_some() {
                OfFleet { target: &self.target, what: Fleet::InstanceLeft { instance: name.as_str(), how: &how } }.emit();
                gone.push(name.clone());
                continue;
            }
            let output = output_path(&self.directory, name);
            let trouble = if doomed {
                Trouble::NeverHealthy(format!("not healthy within startup.timeout of {:?}; its output is in {}", self.spec.startup_timeout, output.display()))
            } else {
                Trouble::Ended(format!("{how} after {} ms; its output is in {}", after.as_millis(), output.display()))
            };
            OfFleet { target: &self.target, what: Fleet::InstanceFailed { instance: name.as_str(), why: trouble.words() } }.emit();
            instance.failed(trouble, self.spec.restart, moment, now);
        }
        self.instances.retain(|name, _| !gone.contains(name));
    }

    /// Brings the set of instances to the count.
    fn fit_to(&mut self, replicas: u32, moment: Moment, now: Timestamp) {
        let staying = self.instances.values().filter(|instance| instance.leaving.is_none()).count();
        let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
        if staying > wanted {
            self.leave(first_to_leave(&self.instances, staying - wanted), moment);
            return;
        }
        let mut missing = wanted - staying;
        while missing > 0 {
            let port = match &self.spec.ports {
                None => None,
                Some(_) if moment < self.no_port_until => break,
                Some(range) => {
                    let taken = |port| self.instances.values().any(|instance| instance.port == Some(port));
                    let free = launch::free_port(range.clone(), taken);
                    if free.is_none() {
                        self.no_port_until = moment + SLOW;
                        break;
                    }
                    free
                }
            };
            let Ok(name) = format!("{}-{}", self.target.name(), self.next).parse::<InstanceName>() else { break };
            self.instances.insert(name.clone(), Instance::new(name, self.next, port, self.spec.requests.clone(), now));
            self.next += 1;
            missing -= 1;
        }
        if missing > 0
            && let Some(range) = &self.spec.ports
        {
            let words = format!(
                "{missing} of {replicas} instances have no port: all of spec.ports {}-{} are taken; widen the range, or end what uses them",
                range.start(),
                range.end()
            );
            self.now_holding.insert(Condition::PortsExhausted, words);
        }
    }

    /// Begins the removal of instances.
    fn leave(&mut self, names: Vec<InstanceName>, moment: Moment) {
        for name in names {
            let Some(instance) = self.instances.get_mut(&name).filter(|instance| instance.leaving.is_none()) else { continue };
            instance.leaving = Some(Leaving::Endpoints { change: None, until: moment + ENDPOINTS_WAIT });
            if instance.running().is_none() {
                self.instances.remove(&name);
            }
        }
    }

    fn start_what_is_due(&mut self, moment: Moment, now: Timestamp) {
        let due = |instance: &Instance| instance.leaving.is_none() && matches!(instance.life, Life::Waiting { until } if until <= moment);
        let mut names: Vec<InstanceName> = self.instances.values().filter(|i| due(i)).map(|i| i.name.clone()).collect();
        let Some(uid) = self.uid.clone() else { return };
        if names.is_empty() || self.mode == Mode::Drain {
            return;
        }
        if !self.write_notes() {
            // On a full disk what ended is started again all the same: its name is on disk already.
            names.retain(|name| self.notes.has(&uid, name.as_str()));
        }
        for name in names {
            let output = output_path(&self.directory, &name);
            // Its port may have gone to another program since it ended: what answers there would pass for it.
            let own = self.instances.get(&name).and_then(|instance| instance.port);
            let lost = own.is_some_and(|port| launch::free_port(port..=port, |_| false).is_none());
            let other = self.spec.ports.clone().filter(|_| lost);
            let other = other.and_then(|range| launch::free_port(range, |port| self.instances.values().any(|i| i.port == Some(port))));
            let Some(instance) = self.instances.get_mut(&name) else { continue };
            if let Some(port) = other {
                warn!(
                    event = "port-taken", target_id = %self.target, instance = %name, ?own, port,
                    "{}: another program listens on the port of instance {name}, which gets port {port}", self.target
                );
                instance.port = Some(port);
            } else if lost {
                let why = format!("another program listens on its port {}, and no other is free", own.unwrap_or_default());
                instance.failed(Trouble::CannotStart(why), self.spec.restart, moment, now);
                continue;
            }
            let launch = Launch { target: &self.target, uid: &uid, name: name.as_str(), port: instance.port, output: &output };
            match launch::start(&self.spec, launch) {
                Ok((child, id)) => {
                    OfFleet { target: &self.target, what: Fleet::InstanceStarted { instance: name.as_str(), pid: id.pid, port: instance.port } }.emit();
                    instance.restarts += u32::from(instance.started_at.is_some());
                    instance.started_at.get_or_insert(now);
                    if matches!(instance.trouble, Some(Trouble::CannotStart(_))) {
                        instance.trouble = None;
                        instance.failures = 0;
                    }
                    instance.life = Life::Running(Running {
                        id,
                        child: Some(child),
                        since: moment,
                        was_healthy: false,
                        failed_probes: 0,
                        next_probe: moment,
                        probing: false,
                        doomed: false,
                    });
                }
                Err(error) => {
                    let why = error.to_string();
                    OfFleet { target: &self.target, what: Fleet::InstanceFailed { instance: name.as_str(), why: &why } }.emit();
                    instance.failed(Trouble::CannotStart(why), self.spec.restart, moment, now);
                }
            }
        }
        self.write_notes();
    }

    fn ask_for_health(&mut self, moment: Moment, now: Timestamp) {
        let Some(uid) = self.uid.as_deref() else { return };
        for instance in self.instances.values_mut() {
            instance.settle(self.spec.restart, moment);
            let Some(health) = &self.spec.health else {
                // Without a check it can serve as soon as it runs; a check that comes later finds it in service.
                if let Some(running) = instance.running_mut() {
                    running.was_healthy = true;
                    instance.set_ready(true, now);
                }
                continue;
            };
            let (name, its_port, leaving) = (instance.name.clone(), instance.port, instance.leaving.is_some());
            let Some(running) = instance.running_mut() else { continue };
            if !leaving && !running.was_healthy && !running.doomed && moment.saturating_sub(running.since) >= self.spec.startup_timeout {
                running.doomed = true;
                if let Err(error) = group::kill(&group::identity(uid, name.as_str()), Some(running.id)) {
                    warn!(event = "instance-not-ended", target_id = %self.target, instance = %name, "{}: instance {name} was not healthy in time, and could not be ended: {error}", self.target);
                }
                continue;
            }
            let Some(port) = health.port.or(its_port).filter(|_| !running.probing && running.next_probe <= moment) else { continue };
            let (shared, process) = (Arc::clone(&self.shared), running.id);
            let answer = Box::new(move |healthy| {
                shared.answers.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { instance: name, process, healthy });
                shared.bell.ring();
            });
            running.probing = self.prober.ask(Question { port, probe: health.probe.clone(), timeout: health.timeout, answer });
            running.next_probe = moment + health.period;
        }
    }

    /// Publishes the endpoints, and asks to end what nobody is sent to any more.
    fn move_removals_on(&mut self, moment: Moment) {
        let mut ports: Vec<u16> = self.instances.values().filter(|instance| instance.serves()).filter_map(|instance| instance.port).collect();
        ports.sort_unstable();
        let newest = self.publisher.publish(&self.spec, &self.target, &ports, &self.directory.join("hook.log"));
        let Some(uid) = self.uid.as_deref() else { return };
        for instance in self.instances.values_mut() {
            let (Some(leaving), Some(id)) = (instance.leaving, instance.running().map(|running| running.id)) else { continue };
            let (signal, next) = match leaving {
                Leaving::Endpoints { change, until } => {
                    let change = change.unwrap_or(newest);
                    if !self.publisher.is_settled(change) && moment < until {
                        instance.leaving = Some(Leaving::Endpoints { change: Some(change), until });
                        continue;
                    }
                    (Signal::TERM, Leaving::Asked { until: moment + self.spec.drain_grace })
                }
                Leaving::Asked { until } | Leaving::Forced { until } if moment < until => continue,
                Leaving::Asked { .. } | Leaving::Forced { .. } => (Signal::KILL, Leaving::Forced { until: moment + KILL_AGAIN }),
            };
            instance.leaving = Some(next);
            if let Err(error) = group::signal(&group::identity(uid, instance.name.as_str()), Some(id), signal) {
                warn!(
                    event = "instance-not-ended", target_id = %self.target, instance = %instance.name, ?signal,
                    "{}: instance {} could not be signalled, and is again: {error}", self.target, instance.name
                );
                instance.leaving = Some(leaving);
            }
        }
    }

    /// Writes down what is there; says whether it stands on disk.
    fn write_notes(&mut self) -> bool {
        let Some(uid) = self.uid.clone() else { return false };
        let instances = self.instances.values().map(Instance::note).collect();
        match self.notes.write(Notes { uid, boot: self.boot.clone(), next: self.next, instances }) {
            Ok(()) => true,
            Err(error) => {
                self.now_holding.insert(
                    Condition::NotesNotWritten,
                    format!("no new instance is started, the others are kept running: {}: {error}", self.directory.join("instances.json").display()),
                );
                false
            }
        }
    }
}

/// Where an instance writes.
fn output_path(directory: &std::path::Path, name: &InstanceName) -> PathBuf {
    directory.join("output").join(format!("{name}.log"))
}
