//! Fleets of local processes: real autoscaling without an orchestrator.
//!
//! A `ProcessFleet` document names a command; Loadline starts copies of it, asks whether they can
//! serve, measures their cpu and memory, lists those that can serve for a load balancer, restarts
//! those that end, and removes them in order. Each fleet has a [supervisor](supervisor) thread and a
//! directory:
//!
//! ```text
//! <fleets>/<namespace>/<name>/state.json       count, uid, revision, epoch: the truth, by compare-and-set
//!                             instances.json   the supervisor's notes about its instances
//!                             output/          what instances wrote, rotated
//!                             hook.log         what the hook wrote
//! ```
//!
//! An incarnation of a fleet has one supervisor on a machine, whatever directory it runs from, and an installation one fleet
//! of a name ([`claim`]).
//!
//! The instances outlive Loadline: when it ends (unless it is told to drain) or is killed, they run
//! on, and the next start takes them over by their identity, pid and start time.
//!
//! A changed document applies to instances that are started from then on, and to how all are probed,
//! measured and removed; running ones are not restarted for it. A document that is gone leaves its
//! processes as they are, unsupervised, until it is there again. Linux only: it reads `/proc`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;

use self::health::Prober;
use self::record::{FleetRecord, RecordError, RecordFile};
use self::supervisor::{Mode, Shared, Supervisor, Surroundings};
use super::actuate::{Scalable, ScaleError, ScaleRecord};
use super::events::{self, OfFleet};
use super::observe::Outbox;
use crate::model::TargetId;
use crate::runtime::clock::{Clock, Stopwatch};

mod claim;
mod condition;
mod document;
mod endpoints;
mod files;
mod firing;
mod group;
mod health;
mod instance;
mod launch;
mod meter;
mod notes;
mod output;
mod procfs;
mod record;
mod restore;
mod site;
mod status;
mod supervisor;

pub use claim::{Claimed, check_unclaimed, claimed_fleets};
pub use condition::Condition;
pub use document::{API_VERSION, Endpoints, FleetDocument, FleetSpec, Health, KIND, MAX_REPLICAS, Output, Probe, Restart, fleet_of, outline, parse_documents};
pub use files::FleetFiles;
pub(crate) use meter::own_usage;
#[cfg(feature = "kafka")]
pub(crate) use procfs::new_uid;
pub use restore::{Raised, check_kept, directory_of, fleet_directories, no_directories, raise_to_running, unreadable_records};
pub use site::{has_site, site};
pub use status::{FleetStatus, InstanceStatus};

/// How often a change by hand that lost against another one is tried again.
const HAND_TRIES: u32 = 10;

/// How long a change by hand may wait for the record.
const HAND_DEADLINE: Duration = Duration::from_secs(2);

/// All fleets of this process. Dropping it leaves their instances running.
pub struct ProcessFleets {
    directory: PathBuf,
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    prober: Arc<Prober>,
    installation: Option<Arc<str>>,
    fleets: Mutex<BTreeMap<TargetId, Fleet>>,
}

struct Fleet {
    record: Arc<RecordFile>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl ProcessFleets {
    /// No fleets yet; what they keep goes into `directory`, what is seen of them into `outbox`.
    ///
    /// # Errors
    /// When the system gives no thread for the probes.
    pub fn new(directory: impl Into<PathBuf>, outbox: Arc<Outbox>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let prober = Arc::new(Prober::start()?);
        Ok(ProcessFleets { directory: directory.into(), outbox, clock, prober, installation: None, fleets: Mutex::default() })
    }

    /// The same for an installation that other processes share: a fleet that another one of this machine has under the same name is left alone.
    #[must_use]
    pub fn of_installation(mut self, name: Option<&str>) -> Self {
        self.installation = name.map(Arc::from);
        self
    }

    /// The documents are these from now on: new fleets start, changed ones go on with the new
    /// document, and those without a document any more are let go, their processes running on.
    /// Of two documents for one target the first counts.
    ///
    /// # Errors
    /// When the system gives no thread for a supervisor; the fleets before it are started.
    pub fn set_documents(&self, documents: Vec<FleetDocument>) -> io::Result<()> {
        let mut wanted = BTreeMap::new();
        for FleetDocument { target, spec } in documents {
            match wanted.entry(target) {
                Entry::Occupied(first) => OfFleet { target: first.key(), what: events::Fleet::DocumentTwice }.emit(),
                Entry::Vacant(place) => {
                    place.insert(spec);
                }
            }
        }
        let mut fleets = self.lock();
        let gone: Vec<TargetId> = fleets.keys().filter(|target| !wanted.contains_key(*target)).cloned().collect();
        for target in gone {
            if let Some(fleet) = fleets.remove(&target) {
                OfFleet { target: &target, what: events::Fleet::DocumentGone }.emit();
                fleet.shared.gone.store(true, Ordering::SeqCst);
                fleet.let_go(&target);
            }
        }
        for (target, spec) in wanted {
            if let Some(fleet) = fleets.get(&target) {
                let mut orders = fleet.shared.orders.lock().unwrap_or_else(PoisonError::into_inner);
                if *orders.0 != spec {
                    OfFleet { target: &target, what: events::Fleet::DocumentChanged }.emit();
                    orders.0 = Arc::new(spec);
                    fleet.shared.bell.ring();
                }
            } else {
                let fleet = self.start(&target, spec)?;
                fleets.insert(target, fleet);
            }
        }
        Ok(())
    }

    fn start(&self, target: &TargetId, spec: FleetSpec) -> io::Result<Fleet> {
        let record = Arc::new(RecordFile::new(record_path(&self.directory, target)));
        let shared = Arc::new(Shared::new(target.clone(), spec));
        let around = Surroundings {
            directory: fleet_directory(&self.directory, target),
            record: Arc::clone(&record),
            prober: Arc::clone(&self.prober),
            outbox: Arc::clone(&self.outbox),
            clock: Arc::clone(&self.clock),
            installation: self.installation.clone(),
        };
        let supervisor = Supervisor::new(target.clone(), Arc::clone(&shared), around).map_err(io::Error::other)?;
        let (alive, ended) = channel::<()>();
        let thread = std::thread::Builder::new().name(format!("fleet {}", target.name())).spawn(move || {
            let _until_the_end = alive;
            supervisor.run();
        })?;
        Ok(Fleet { record, shared, thread, ended })
    }

    /// Sets a fleet's count by hand, whatever it is now: as any change from outside, it gives the
    /// record a new revision and leaves the epoch of commands alone.
    ///
    /// # Errors
    /// [`ScaleError::NotFound`] without a document; [`ScaleError::Rejected`] beyond the port range or
    /// [`MAX_REPLICAS`]; else as [`scale_by_hand`].
    pub fn scale(&self, target: &TargetId, replicas: u32, actor: &str) -> Result<ByHand, ScaleError> {
        let shared = self.with(target, |fleet| Arc::clone(&fleet.shared))?;
        if shared.elsewhere.load(Ordering::SeqCst) {
            let reason = format!("another process supervises {target} (FleetSupervisedElsewhere in `loadline status` says which): ask that one");
            return Err(ScaleError::Rejected { reason });
        }
        let ports = shared.orders.lock().unwrap_or_else(PoisonError::into_inner).0.ports.clone();
        if let Some(count) = ports.map(|range| u32::from(*range.end() - *range.start()) + 1).filter(|count| replicas > *count) {
            return Err(ScaleError::Rejected { reason: format!("{replicas} replicas do not fit: spec.ports has {count} ports; widen the range") });
        }
        let changed = scale_by_hand(&self.directory, target, replicas, actor, self.clock.as_ref())?;
        shared.bell.ring();
        Ok(changed)
    }

    /// Every fleet, as its supervisor last saw it, by target.
    pub fn status(&self) -> Vec<FleetStatus> {
        self.lock().values().map(|fleet| fleet.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// The longest that an instance of any fleet may take to end.
    pub fn longest_grace(&self) -> Duration {
        let grace = |fleet: &Fleet| fleet.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).0.drain_grace;
        self.lock().values().map(grace).max().unwrap_or_default()
    }

    /// A fleet whose supervisor has ended by itself, which only a fault in the program does.
    pub fn failed(&self) -> Option<TargetId> {
        self.lock().iter().find(|(_, fleet)| fleet.thread.is_finished()).map(|(target, _)| target.clone())
    }

    /// Removes all instances of all fleets in order, out of the endpoints first; the counts stay, so
    /// that the next start brings them back. Returns when all are gone, or `deadline` has passed.
    ///
    /// # Errors
    /// The fleets that still had instances at the deadline: those run on.
    pub fn stop_all(&self, deadline: Duration) -> Result<(), Vec<TargetId>> {
        let waiting = Stopwatch::start();
        let fleets = std::mem::take(&mut *self.lock());
        for fleet in fleets.values() {
            fleet.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).1 = Mode::Drain;
            fleet.shared.bell.ring();
        }
        let mut left = Vec::new();
        for (target, fleet) in fleets {
            let remaining = deadline.saturating_sub(waiting.elapsed());
            if fleet.ended.recv_timeout(remaining) == Err(RecvTimeoutError::Timeout) {
                left.push(target.clone());
            }
            fleet.let_go(&target);
        }
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// Ends the supervisors and leaves all instances running, for the next start to take over.
    pub fn detach(&self) {
        let fleets = std::mem::take(&mut *self.lock());
        // All are told first, so that none waits for the turn of another.
        for fleet in fleets.values() {
            fleet.shared.bell.stop();
        }
        for (target, fleet) in fleets {
            fleet.let_go(&target);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TargetId, Fleet>> {
        self.fleets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, target: &TargetId, take: impl FnOnce(&Fleet) -> T) -> Result<T, ScaleError> {
        self.lock().get(target).map(take).ok_or_else(|| ScaleError::NotFound { target: target.clone() })
    }
}

impl Drop for ProcessFleets {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Fleet {
    /// Ends the supervisor after its turn.
    fn let_go(self, target: &TargetId) {
        self.shared.bell.stop();
        if self.thread.join().is_err() {
            error!(event = "part-failed", target_id = %target, "the supervisor of {target} ended by a fault in the program; its instances run on");
        }
    }
}

impl Scalable for ProcessFleets {
    fn serves(&self, target: &TargetId) -> bool {
        self.with(target, |fleet| !fleet.shared.elsewhere.load(Ordering::SeqCst)).unwrap_or(false)
    }

    fn read(&self, target: &TargetId) -> Result<ScaleRecord, ScaleError> {
        let record = self.with(target, |fleet| Arc::clone(&fleet.record))?;
        record.read().map(scale_record).map_err(scale_error)
    }

    fn write(&self, target: &TargetId, expected: &ScaleRecord, replicas: u32, epoch: i64, deadline: Duration) -> Result<ScaleRecord, ScaleError> {
        check_count(replicas)?;
        let (record, shared) = self.with(target, |fleet| (Arc::clone(&fleet.record), Arc::clone(&fleet.shared)))?;
        let by = ("command", self.clock.now());
        let written = record.compare_and_set((&expected.uid, expected.revision), replicas, Some(epoch), by, deadline).map_err(scale_error)?;
        shared.bell.ring();
        Ok(scale_record(written))
    }
}

/// Sets a fleet's count by hand in its record below `directory`, which another process of Loadline
/// may be supervising: that one sees it within a tenth of a second.
///
/// # Errors
/// [`ScaleError::NotFound`] where no such fleet was ever started; [`ScaleError::Rejected`] beyond
/// [`MAX_REPLICAS`]; [`ScaleError::Conflict`] where others change it without end;
/// [`ScaleError::Failed`] where the record cannot be used.
pub fn scale_by_hand(directory: &Path, target: &TargetId, replicas: u32, actor: &str, clock: &dyn Clock) -> Result<ByHand, ScaleError> {
    check_count(replicas)?;
    if target.kind() != KIND || !document::is_path_name(target.namespace()) || !document::is_path_name(target.name()) {
        return Err(ScaleError::NotFound { target: target.clone() });
    }
    let file = RecordFile::new(record_path(directory, target));
    let mut tries = 0;
    loop {
        let found = match file.read() {
            Err(RecordError::Missing(_)) => return Err(ScaleError::NotFound { target: target.clone() }),
            read => read.map_err(scale_error)?,
        };
        tries += 1;
        match file.compare_and_set((&found.uid, found.revision), replicas, None, (actor, clock.now()), HAND_DEADLINE) {
            Err(RecordError::Conflict { .. }) if tries < HAND_TRIES => {}
            written => {
                let written = written.map_err(scale_error)?;
                OfFleet { target, what: events::Fleet::ByHand { from: found.replicas, to: replicas, actor } }.emit();
                return Ok(ByHand { from: found.replicas, record: scale_record(written) });
            }
        }
    }
}

/// A count that was set by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// The count before.
    pub from: u32,
    /// The record as it stands now.
    pub record: ScaleRecord,
}

fn check_count(replicas: u32) -> Result<(), ScaleError> {
    if replicas <= MAX_REPLICAS {
        return Ok(());
    }
    Err(ScaleError::Rejected { reason: format!("{replicas} replicas are too many: a {KIND} has at most {MAX_REPLICAS}") })
}

fn scale_record(record: FleetRecord) -> ScaleRecord {
    ScaleRecord { uid: record.uid, replicas: record.replicas, revision: record.revision, epoch: record.epoch, frozen: false }
}

fn scale_error(error: RecordError) -> ScaleError {
    match error {
        RecordError::Conflict { expected, found } => ScaleError::Conflict { expected, found },
        error => ScaleError::Failed { reason: error.to_string() },
    }
}

fn fleet_directory(directory: &Path, target: &TargetId) -> PathBuf {
    directory.join(target.namespace()).join(target.name())
}

fn record_path(directory: &Path, target: &TargetId) -> PathBuf {
    fleet_directory(directory, target).join("state.json")
}
