//! `loadline run`: the whole pipeline in one process on the log in its data directory; on Kafka, the parts of its roles.
//!
//! Every thread is owned here. One that ends before it was told to takes the process down, with its
//! reason. At the end each part stops after those that feed it, so that nothing is left half-said.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::Unusable;
use super::config::{Config, ConfigArgs, LogFormat, RemovalLimit, Role};
use super::documents::documents_in;
use crate::edge::actuate::{self, Actuator, ActuatorSettings, FreezeFiles, Hands, Reach, Scalable};
use crate::edge::events::Program;
use crate::edge::ingest::{Appender, Bounds, Ingest};
use crate::edge::lag::LagSources;
use crate::edge::log_watch::LogWatch;
use crate::edge::observe::{self, Observer, Outbox};
use crate::edge::policies::{ParsedFile, PolicyWatcher, WatchError};
use crate::edge::processes::{self, FleetFiles, ProcessFleets};
use crate::edge::serve::{self, Door, Hosts, Live, ManualScale, ScaleError, Services};
use crate::edge::shown::Shown;
use crate::edge::stop::WhenUnwound;
use crate::edge::view::{Followed, Tail, View};
use crate::log::{Log, LogError, Topic, directory};
use crate::model::TargetId;
use crate::model::document::Severity;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::driver::{Stop, drive};
use crate::runtime::events::PartFailed;
use crate::runtime::publish;
use crate::runtime::retention::{Retention, Room};
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::{Aggregate, Limits};
use crate::stages::arbitrate::{Arbitrate, Pacing};
use crate::stages::decide::Decide;

mod lag;
mod storage;

use storage::Storage;

/// The name of this process within its groups: of weight where a member keeps its partitions over a restart, and on Kafka alone.
fn member(config: &Config) -> &str {
    config.kafka.member.as_deref().unwrap_or("loadline")
}

/// How often it is looked whether a part ended that nobody stopped.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long stopping fleets may take beyond the longest grace of their documents: endpoints that settle, and SIGKILL.
const STOP_FLEETS_WITHIN: Duration = Duration::from_secs(40);

/// How long what feeds the stages may take to end before they do.
const FEEDERS_WITHIN: Duration = Duration::from_secs(5);

/// Run Loadline: metrics in over HTTP, policies from files, fleets of local processes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline run --policies examples/storefront --data /tmp/loadline
  LOADLINE_PANE=1s loadline run --config loadline.yaml

Ends on SIGTERM or Ctrl-C. The processes of fleets go on, and are found again at the next start,
unless --stop-fleets-on-exit is given.

Exit codes: 0 ended when told to, 1 a part failed (its reason is the last line), 2 wrong configuration,
a port in use, or a data directory that cannot be used.")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs until it is told to end.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let loaded = Config::load(&args.config)?;
    logs(&loaded.config);
    for warning in &loaded.warnings {
        warn!(event = "configuration", "{warning}");
    }
    // Two threads: HTTP is all that is asynchronous here, and the stages need the cores more.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start the HTTP threads")?;
    let ended = runtime.block_on(async {
        // First of all: whoever tells it to end, at whatever moment, ends it in order.
        let mut told = Told { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())?, already: false };
        // Both are told apart before anything is written: a port in use, a directory of somebody else.
        let listener = serve::bind(loaded.config.listen).await?;
        let server = Server::start(listener, &loaded.config)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // It waits for a cluster that is not there, and its clients block.
        let waits = loaded.config.kafka.is_used();
        let door = server.door.clone();
        let mut opening = tokio::task::spawn_blocking(move || {
            let storage = Storage::open(&loaded.config, &clock, &|reason| door.waits_for(reason));
            storage.map(|storage| (storage, loaded.config, clock))
        });
        let (storage, config, clock) = tokio::select! {
            opened = &mut opening => opened??,
            () = told.comes() => {
                // A cluster may never come, and nothing runs yet; a log in the directory is open soon, and what stands in it is ended in order.
                if waits {
                    Program::Ending.emit();
                    return Ok(0);
                }
                opening.await??
            }
        };
        if config.roles.contains(&Role::Fleets) {
            processes::check_kept(&config.data).map_err(Unusable)?;
            processes::check_unclaimed(&processes::directory_of(&config.data)).map_err(Unusable)?;
        }
        let log = storage.log();
        let code = match Pipeline::start(&config, storage, clock) {
            Ok(pipeline) => pipeline.run(server, &config, told).await,
            Err(error) => Err(error),
        };
        log.close();
        code
    });
    // What still waits for a cluster is not waited for.
    runtime.shutdown_background();
    ended
}

/// The HTTP interface: it answers as soon as the port is open.
struct Server {
    address: SocketAddr,
    door: Door,
    end: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(listener: TcpListener, config: &Config) -> std::io::Result<Self> {
        let (address, door) = (listener.local_addr()?, Door::default());
        let (end, ending) = oneshot::channel::<()>();
        let serving = serve::serve(listener, door.router(), Hosts::new(address, &config.hosts), async move { drop(ending.await) });
        Ok(Server { address, door, end, serving: tokio::spawn(serving) })
    }

    async fn stop(self) -> anyhow::Result<()> {
        drop(self.end);
        Ok(self.serving.await??)
    }
}

/// The signals that tell it to end.
struct Told {
    term: Signal,
    int: Signal,
    /// One came before there was anything to end.
    already: bool,
}

impl Told {
    /// Returns when one has come.
    async fn comes(&mut self) {
        if !self.already {
            tokio::select! {
                _ = self.term.recv() => {}
                _ = self.int.recv() => {}
            }
            self.already = true;
        }
    }
}

fn logs(config: &Config) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::new(config.log_level.as_str());
    // Where nobody reads the lines any more, they are for nobody: else it would tell so there, and panic.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).log_internal_errors(false);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let text = match config.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    // A second subscriber in one process (tests) is not an error.
    let set =
        if text { lines.with_ansi(terminal).try_init() } else { lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init() };
    drop(set);
}

/// Everything that runs: of the parts, those of this process's roles.
struct Pipeline {
    stop: Stop,
    stages: Vec<JoinHandle<()>>,
    failed: Receiver<String>,
    retention: Option<Retention>,
    room: Arc<Room>,
    view: Arc<View>,
    tail: Option<Tail>,
    ingest: Option<(Ingest, Appender)>,
    watcher: Option<PolicyWatcher>,
    lag: LagSources,
    fleets: Option<Fleets>,
    freeze: FreezeFiles,
    log_watch: LogWatch,
    storage: Storage,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
}

/// What supervises process fleets.
struct Fleets {
    files: FleetFiles,
    supervised: Arc<ProcessFleets>,
    actuator: Actuator,
    observer: Observer,
}

impl Fleets {
    fn start(config: &Config, storage: &Storage, log: &Arc<dyn Log>, clock: &Arc<dyn Clock>, freeze: &FreezeFiles, room: &Arc<Room>) -> anyhow::Result<Self> {
        let outbox = Arc::new(Outbox::default());
        let place = processes::directory_of(&config.data);
        // Before the term: from then on it is missed where it is gone.
        directory::make(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let fleets = ProcessFleets::new(place, Arc::clone(&outbox), Arc::clone(clock)).context("cannot keep fleets")?;
        let fleets = Arc::new(fleets.of_installation(storage.installation()));
        let term = config.data.join(observe::TERM);
        let observer = Observer::start(Arc::clone(log), outbox, Arc::clone(clock), &term, Arc::clone(room)).map_err(|error| Unusable(error.to_string()))?;
        // Before their commands are read: what is none of ours then is left alone.
        let files = FleetFiles::start(config.policies.clone(), Arc::clone(&fleets)).map_err(Unusable)?;
        let hands = Hands::new(freeze.clone(), Arc::clone(clock)).with_kind(processes::KIND, Arc::clone(&fleets) as Arc<dyn Scalable>);
        let actuator = Actuator::start(Arc::clone(log), hands, ActuatorSettings { member: member(config).to_owned(), reach: storage.reach() })?;
        Ok(Fleets { files, supervised: fleets, actuator, observer })
    }

    /// Commands end before what they scale, and the observer after it.
    fn end(self, stop_fleets: bool) -> Option<String> {
        drop(self.files);
        let actuator = told("the actuator", self.actuator.stop().map_err(|e| e.to_string()));
        if stop_fleets {
            if let Err(left) = self.supervised.stop_all(self.supervised.longest_grace() + STOP_FLEETS_WITHIN) {
                error!(event = "fleets-left", ?left, "these fleets did not stop in time; their processes may still run");
            }
        } else {
            self.supervised.detach();
        }
        actuator.or(told("the observer", self.observer.stop().map_err(|e| e.to_string())))
    }
}

/// Tells of a part that ended with an error; gives that.
fn told(part: &str, ended: Result<(), String>) -> Option<String> {
    let reason = ended.err()?;
    PartFailed { part, reason: &reason }.emit();
    Some(reason)
}

impl Pipeline {
    /// Starts every part; those that are fed before those that feed them.
    fn start(config: &Config, storage: Storage, clock: Arc<dyn Clock>) -> anyhow::Result<Pipeline> {
        let log = storage.log();
        // Settings of a cluster that cannot be used are told before anything runs.
        let lag = lag::sources(config)?;
        let (failing, failed) = channel();
        let stop = Stop::new();
        let has = |role: Role| config.roles.contains(&role);
        let freeze = FreezeFiles::new(&config.freeze_file);
        let view = Arc::new(View::new());
        let retention = storage.retention(config, &clock)?;
        let room = retention.as_ref().map_or_else(|| Arc::new(Room::unlimited()), Retention::room);
        let tail = if has(Role::View) { Some(tail(config, &view, &log, &clock, storage.reach(), failing.clone())?) } else { None };
        let stages = stages(config, &view, &log, &clock, &stop, &failing)?;
        let fleets = if has(Role::Fleets) { Some(Fleets::start(config, &storage, &log, &clock, &freeze, &room)?) } else { None };
        let log_watch = LogWatch::start(Arc::clone(&log), Arc::clone(&clock))?;
        let ingest = if has(Role::Ingest) {
            let bounds = Bounds { queue: config.ingest_queue, samples_per_second: config.samples_per_second, room: Arc::clone(&room) };
            Some(Ingest::start(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&view), bounds)?)
        } else {
            None
        };
        // On Kafka others may watch files: who was told of none says nothing of policies, rather than that there are none.
        let watcher = if has(Role::Policies) && !(config.policies.is_empty() && config.kafka.is_used()) {
            let publishing = Arc::clone(&log);
            let publish = Box::new(move |effects| publish(&*publishing, effects));
            Some(PolicyWatcher::start(&config.policies, Arc::clone(&clock), Box::new(parse), publish)?)
        } else {
            None
        };
        let lag = LagSources::start(lag, &log, &clock, &room)?;
        Ok(Pipeline { stop, stages, failed, retention, room, view, tail, ingest, watcher, lag, fleets, freeze, log_watch, storage, log, clock })
    }

    /// Serves until it is told to end or a part fails; then stops every part in order.
    async fn run(self, server: Server, config: &Config, told: Told) -> anyhow::Result<u8> {
        let stop_fleets = config.stop_fleets_on_exit;
        let services = Services {
            view: Arc::clone(&self.view),
            log: Arc::clone(&self.log),
            room: Arc::clone(&self.room),
            clock: Arc::clone(&self.clock),
            ingest: self.ingest.as_ref().map(|(ingest, _)| ingest.clone()),
            manual: Arc::new(ByHand(self.fleets.as_ref().map(|fleets| Arc::clone(&fleets.supervised)))),
            shows: self.tail.is_some(),
            freeze: self.freeze.clone(),
            started_at: self.clock.now(),
            live: Live::default(),
            unrecorded: Arc::default(),
        };
        let (live, unrecorded) = (services.live.clone(), Arc::clone(&services.unrecorded));
        server.door.open(serve::router(services));
        Program::Ready(&server.address.to_string()).emit();
        let reason = self.wait(told).await;
        Program::Ending.emit();
        live.close();
        if let Err(error) = server.stop().await {
            PartFailed { part: "the HTTP interface", reason: &error.to_string() }.emit();
        }
        let within = self.storage.ends_within().map(|within| if stop_fleets { within + STOP_FLEETS_WITHIN } else { within });
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("end".to_owned()).spawn(move || ended.send(self.end(stop_fleets)))?;
        let why = match within {
            None => end.await?,
            Some(within) => {
                if let Ok(why) = tokio::time::timeout(within, end).await {
                    why?
                } else {
                    // What it has not committed is done again by whoever has its partitions next.
                    warn!(event = "ending", "not all has come to its end within {} s, as the cluster does not answer: it ends as it is", within.as_secs());
                    None
                }
            }
        };
        unrecorded.tell();
        match (reason, why) {
            (None, _) => Ok(0),
            (Some(reason), Some(why)) if !reason.contains(&why) => bail!("{reason}: {why}"),
            (Some(reason), _) => bail!("{reason}"),
        }
    }

    /// Waits for a signal (`None`), or for a part that ended by itself (its reason).
    async fn wait(&self, mut told: Told) -> Option<String> {
        let mut look = tokio::time::interval(WATCH_EVERY);
        loop {
            tokio::select! {
                () = told.comes() => return None,
                _ = look.tick() => {
                    if let Some(reason) = self.ended() {
                        return Some(reason);
                    }
                }
            }
        }
    }

    /// A part that ended though nobody stopped it.
    fn ended(&self) -> Option<String> {
        // First: it is what ends the parts, and says why.
        if let Err(error) = self.storage.check() {
            return Some(error.to_string());
        }
        if let Ok(reason) = self.failed.try_recv() {
            return Some(reason);
        }
        let parts = [
            ("the actuator", self.fleets.as_ref().is_some_and(|fleets| fleets.actuator.is_finished())),
            ("the observer", self.fleets.as_ref().is_some_and(|fleets| fleets.observer.is_finished())),
            ("the watch over the log", self.log_watch.is_finished()),
            ("the thread that deletes old records", self.retention.as_ref().is_some_and(Retention::is_finished)),
            ("the thread that appends metrics", self.ingest.as_ref().is_some_and(|(_, appender)| appender.is_finished())),
            ("the thread that watches policies", self.watcher.as_ref().is_some_and(PolicyWatcher::has_ended)),
        ];
        let part = parts.into_iter().find_map(|(part, ended)| ended.then(|| format!("{part} ended")));
        let part = part.or_else(|| self.lag.finished().map(|name| format!("the source of lag {name} ended")));
        let failed = || self.fleets.as_ref()?.supervised.failed().map(|target| format!("the supervisor of {target} ended"));
        part.or_else(failed)
    }

    /// Ends every part in order. Why the first of them ended that did with an error.
    fn end(self, stop_fleets: bool) -> Option<String> {
        // What feeds the stages may wait for a cluster that does not answer: they hand over what they have all the same.
        let stop = self.stop.clone();
        let asks = move || {
            std::thread::sleep(FEEDERS_WITHIN);
            stop.ask();
        };
        drop(std::thread::Builder::new().name("stop".to_owned()).spawn(asks));
        let mut why = self.watcher.and_then(|watcher| told("the policy watcher", watcher.stop().map_err(|e| e.to_string())));
        why = why.or(told("a source of lag", self.lag.stop().map_err(|e| e.to_string())));
        why = why.or(self.fleets.and_then(|fleets| fleets.end(stop_fleets)));
        if let Some((ingest, appender)) = self.ingest {
            drop(ingest);
            why = why.or(told("the thread that appends metrics", appender.join().map_err(str::to_owned)));
        }
        self.stop.ask();
        for stage in self.stages {
            if stage.join().is_err() {
                error!(event = "part-failed", "a stage ended by a fault in the program");
            }
        }
        if let Some(retention) = self.retention {
            why = why.or(told("the thread that deletes old records", retention.stop().map_err(|e| e.to_string())));
        }
        if let Some(tail) = self.tail {
            tail.stop();
        }
        self.log_watch.stop();
        why
    }
}

/// What shows the pipeline.
fn tail(config: &Config, view: &Arc<View>, log: &Arc<dyn Log>, clock: &Arc<dyn Clock>, reach: Reach, failing: Sender<String>) -> std::io::Result<Tail> {
    let followed = |group, input, holds| Followed { group, input, holds };
    let mut stages = vec![
        followed(Aggregate::NAME, Aggregate::INPUT, config.pane + config.grace),
        followed(Admit::NAME, Admit::INPUT, Duration::ZERO),
        followed(Decide::NAME, Decide::INPUT, Duration::ZERO),
        followed(Arbitrate::NAME, Arbitrate::INPUT, Duration::ZERO),
    ];
    // Each process with fleets carries out their commands in a group of its own.
    if config.roles.contains(&Role::Fleets) {
        stages.push(followed(reach.group(), Topic::Commands, Duration::ZERO));
    }
    Tail::start(view, log, clock, &stages, move |reason| drop(failing.send(reason)))
}

/// The stages of this process's roles, each on a thread of its own.
fn stages(
    config: &Config,
    view: &Arc<View>,
    log: &Arc<dyn Log>,
    clock: &Arc<dyn Clock>,
    stop: &Stop,
    failing: &Sender<String>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut stages = Vec::new();
    if config.roles.contains(&Role::Decide) {
        // Whoever shows nothing does without what would be shown.
        stages.push(match config.roles.contains(&Role::View) {
            true => stage(Shown::new(Decide::default(), Arc::clone(view)), log, clock, member(config), stop, failing)?,
            false => stage(Decide::default(), log, clock, member(config), stop, failing)?,
        });
    }
    if config.roles.contains(&Role::Arbitrate) {
        stages.push(stage(arbitrate(config), log, clock, member(config), stop, failing)?);
    }
    if config.roles.contains(&Role::Admit) {
        stages.push(stage(Admit, log, clock, member(config), stop, failing)?);
    }
    if config.roles.contains(&Role::Aggregate) {
        let aggregate = Aggregate { pane: config.pane, grace: config.grace, sources: log.partitions(Topic::Metrics), limits: Limits::default() };
        stages.push(stage(aggregate, log, clock, member(config), stop, failing)?);
    }
    Ok(stages)
}

/// The arbiter of a configuration.
pub(super) fn arbitrate(config: &Config) -> Arbitrate {
    let pacing = |limit: RemovalLimit| Pacing { percent: limit.percent, at_least: limit.at_least, period: limit.period };
    Arbitrate { pacing: pacing(config.removals.default), fleets: config.removals.fleets.iter().map(|(name, limit)| (name.clone(), pacing(*limit))).collect() }
}

/// Runs a stage on a thread of its own; why it ended goes to `failing`.
fn stage<S: Stage + 'static>(
    stage: S,
    log: &Arc<dyn Log>,
    clock: &Arc<dyn Clock>,
    member: &str,
    stop: &Stop,
    failing: &Sender<String>,
) -> anyhow::Result<JoinHandle<()>> {
    let (log, clock, member, stop, failing) = (Arc::clone(log), Arc::clone(clock), member.to_owned(), stop.clone(), failing.clone());
    let running = move || {
        let _fault = WhenUnwound(|| drop(failing.send(format!("{} ended by a fault in the program", S::NAME))));
        let ended = drive(stage, log, &*clock, &member, &stop);
        if let Err(error) = ended {
            let reason = match error {
                LogError::Fenced { group, .. } => format!("another process has joined group {group} as {member}: give each a name of its own (kafka.member)"),
                error => error.to_string(),
            };
            drop(failing.send(format!("{} ended: {reason}", S::NAME)));
        }
    };
    std::thread::Builder::new().name(S::NAME.to_owned()).spawn(running).with_context(|| format!("cannot start a thread for {}", S::NAME))
}

/// The policies of a file, or what is wrong with it.
fn parse(path: &Path, text: &str) -> ParsedFile {
    let file = documents_in(text, &path.display().to_string());
    let errors = file.all_problems().into_iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
    let policies = file.documents.into_iter().filter_map(|d| Some((d.target?, d.spec_json))).collect();
    ParsedFile { policies, errors }
}

/// Counts set by hand over HTTP, where this process supervises fleets.
struct ByHand(Option<Arc<ProcessFleets>>);

impl ManualScale for ByHand {
    fn scale(&self, target: &TargetId, replicas: u32, actor: &str) -> Result<u32, ScaleError> {
        let fleets = self
            .0
            .as_ref()
            .ok_or_else(|| ScaleError::Refused(format!("this process supervises no fleets (role fleets): ask the one that supervises {target}")))?;
        fleets.scale(target, replicas, actor).map(|changed| changed.from).map_err(|error| match error {
            actuate::ScaleError::NotFound { target } => ScaleError::Unknown(target),
            actuate::ScaleError::Rejected { reason } => ScaleError::Refused(reason),
            error => ScaleError::Failed(error.to_string()),
        })
    }
}

/// What the process exits with where it could not start.
pub(super) fn exit_code(error: &anyhow::Error) -> u8 {
    let startup = error.is::<super::config::ConfigError>()
        || error.is::<serve::ListenError>()
        || error.is::<LogError>()
        || error.is::<WatchError>()
        || error.is::<Unusable>();
    if startup { 2 } else { 1 }
}
