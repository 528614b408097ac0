//! `loadline run`: the whole pipeline in one process, on the embedded log.
//!
//! Every thread is owned here. One that ends before it was told to takes the process down, with its
//! reason. At the end each part stops after those that feed it, so that nothing is left half-said.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Unusable;
use super::config::{Config, ConfigArgs, LogFormat, RemovalLimit};
use super::documents::documents_in;
use crate::edge::actuate::{self, Actuator, ActuatorSettings, FreezeFiles, Hands, Scalable};
use crate::edge::ingest::{Appender, Bounds, Ingest};
use crate::edge::log_watch::LogWatch;
use crate::edge::observe::{Observer, Outbox};
use crate::edge::policies::{ParsedFile, PolicyWatcher, WatchError};
use crate::edge::processes::{self, FleetFiles, ProcessFleets};
use crate::edge::serve::{self, Hosts, Live, ManualScale, ScaleError, Services};
use crate::edge::shown::Shown;
use crate::edge::view::{Followed, Tail, View};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{Log, LogError, Partitions, Topic};
use crate::model::TargetId;
use crate::model::document::Severity;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::driver::{Stop, drive};
use crate::runtime::events::PartFailed;
use crate::runtime::publish;
use crate::runtime::retention::{Reader, Retention};
use crate::runtime::runner::check_snapshots;
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::{Aggregate, Limits};
use crate::stages::arbitrate::{Arbitrate, Pacing};
use crate::stages::decide::Decide;

/// The member name of every stage: one process holds the directory, so there is one member a group.
const MEMBER: &str = "loadline";
/// How often it is looked whether a part ended that nobody stopped.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long stopping fleets may take beyond the longest grace of their documents: endpoints that settle, and SIGKILL.
const STOP_FLEETS_WITHIN: Duration = Duration::from_secs(40);

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
        warn!("{warning}");
    }
    // Two threads: HTTP is all that is asynchronous here, and the stages need the cores more.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start the HTTP threads")?;
    runtime.block_on(async {
        // Both are told apart before anything is written: a port in use, a directory of somebody else.
        let listener = serve::bind(loaded.config.listen).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = EmbeddedLog::open(
            &loaded.config.data,
            Arc::clone(&clock),
            Options { partitions: Partitions::default(), max_bytes: Some(loaded.config.retention.reserve()) },
        )?;
        check_snapshots::<Admit>(&log)?;
        check_snapshots::<Aggregate>(&log)?;
        check_snapshots::<Decide>(&log)?;
        check_snapshots::<Arbitrate>(&log)?;
        processes::check_unclaimed(&loaded.config.data.join("fleets")).map_err(Unusable)?;
        let ended = Pipeline::start(&loaded.config, &log, clock);
        let code = match ended {
            Ok(pipeline) => pipeline.run(listener, &loaded.config).await,
            Err(error) => Err(error),
        };
        log.close();
        code
    })
}

fn logs(config: &Config) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::new(config.log_level.as_str());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
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

/// Everything that runs.
struct Pipeline {
    stop: Stop,
    stages: Vec<JoinHandle<()>>,
    failed: Receiver<String>,
    retention: Retention,
    view: Arc<View>,
    tail: Tail,
    ingest: Ingest,
    appender: Appender,
    watcher: PolicyWatcher,
    files: FleetFiles,
    fleets: Arc<ProcessFleets>,
    freeze: FreezeFiles,
    actuator: Actuator,
    observer: Observer,
    log_watch: LogWatch,
    embedded: EmbeddedLog,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
}

impl Pipeline {
    /// Starts every part; those that are fed before those that feed them.
    fn start(config: &Config, embedded: &EmbeddedLog, clock: Arc<dyn Clock>) -> anyhow::Result<Pipeline> {
        let log: Arc<dyn Log> = Arc::new(embedded.clone());
        let (failing, failed) = channel();
        let stop = Stop::new();
        let aggregate = Aggregate { pane: config.pane, grace: config.grace, sources: log.partitions(Topic::Metrics), limits: Limits::default() };
        let pacing = |limit: RemovalLimit| Pacing { percent: limit.percent, at_least: limit.at_least, period: limit.period };
        let arbitrate = Arbitrate {
            pacing: pacing(config.removals.default),
            fleets: config.removals.fleets.iter().map(|(name, limit)| (name.clone(), pacing(*limit))).collect(),
        };
        let outbox = Arc::new(Outbox::default());
        let fleets = Arc::new(ProcessFleets::new(config.data.join("fleets"), Arc::clone(&outbox), Arc::clone(&clock)).context("cannot keep fleets")?);
        let freeze = FreezeFiles::new(&config.freeze_file);
        let hands = Hands::new(freeze.clone(), Arc::clone(&clock)).with_kind(processes::KIND, Arc::clone(&fleets) as Arc<dyn Scalable>);

        let view = Arc::new(View::new());
        let followed = [
            Followed { group: Aggregate::NAME, input: Aggregate::INPUT },
            Followed { group: Admit::NAME, input: Admit::INPUT },
            Followed { group: Decide::NAME, input: Decide::INPUT },
            Followed { group: Arbitrate::NAME, input: Arbitrate::INPUT },
            Followed { group: actuate::GROUP, input: Topic::Commands },
        ];
        let readers = vec![
            Reader::stage::<Aggregate>(),
            Reader::stage::<Admit>(),
            Reader::stage::<Decide>(),
            Reader::stage::<Arbitrate>(),
            Reader::group(actuate::GROUP, Topic::Commands),
        ];
        let retention = Retention::start(embedded.clone(), Arc::clone(&clock), readers, config.retention)?;
        let telling = failing.clone();
        let tail = Tail::start(&view, &log, &clock, &followed, move |reason| drop(telling.send(reason)))?;
        let stages = vec![
            stage(Shown::new(Decide::default(), Arc::clone(&view)), &log, &clock, &stop, &failing)?,
            stage(arbitrate, &log, &clock, &stop, &failing)?,
            stage(Admit, &log, &clock, &stop, &failing)?,
            stage(aggregate, &log, &clock, &stop, &failing)?,
        ];
        let actuator = Actuator::start(Arc::clone(&log), hands, ActuatorSettings { member: MEMBER.to_owned() })?;
        let observer = Observer::start(Arc::clone(&log), outbox, Arc::clone(&clock), &config.data.join("term"), retention.room())?;
        let log_watch = LogWatch::start(Arc::clone(&log), Arc::clone(&clock))?;
        let bounds = Bounds { queue: config.ingest_queue, samples_per_second: config.samples_per_second, room: retention.room() };
        let (ingest, appender) = Ingest::start(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&view), bounds)?;
        let files = FleetFiles::start(config.policies.clone(), Arc::clone(&fleets)).map_err(Unusable)?;
        let publishing = Arc::clone(&log);
        let publish = Box::new(move |effects| publish(&*publishing, effects));
        let watcher = PolicyWatcher::start(&config.policies, Arc::clone(&clock), Box::new(parse), publish)?;
        Ok(Pipeline {
            stop,
            stages,
            failed,
            retention,
            view,
            tail,
            ingest,
            appender,
            watcher,
            files,
            fleets,
            freeze,
            actuator,
            observer,
            log_watch,
            embedded: embedded.clone(),
            log,
            clock,
        })
    }

    /// Serves until it is told to end or a part fails; then stops every part in order.
    async fn run(self, listener: TcpListener, config: &Config) -> anyhow::Result<u8> {
        let address = listener.local_addr()?;
        let hosts = Hosts::new(address, &config.hosts);
        let stop_fleets = config.stop_fleets_on_exit;
        let services = Services {
            view: Arc::clone(&self.view),
            log: Arc::clone(&self.log),
            room: self.retention.room(),
            clock: Arc::clone(&self.clock),
            ingest: self.ingest.clone(),
            manual: Arc::new(ByHand(Arc::clone(&self.fleets))),
            freeze: self.freeze.clone(),
            started_at: self.clock.now(),
            live: Live::default(),
        };
        let live = services.live.clone();
        let (end, ending) = oneshot::channel::<()>();
        let server = tokio::spawn(serve::serve(listener, serve::router(services), hosts, async move { drop(ending.await) }));
        info!("ready: http://{address}");
        let reason = self.wait().await;
        info!("ending");
        live.close();
        drop(end);
        if let Err(error) = server.await.map_err(anyhow::Error::from).and_then(|served| Ok(served?)) {
            error!(%error, "the HTTP interface failed");
        }
        tokio::task::spawn_blocking(move || self.end(stop_fleets)).await?;
        match reason {
            None => Ok(0),
            Some(reason) => bail!("{reason}"),
        }
    }

    /// Waits for a signal (`None`), or for a part that ended by itself (its reason).
    async fn wait(&self) -> Option<String> {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            return Some("signals cannot be received".to_owned());
        };
        let mut look = tokio::time::interval(WATCH_EVERY);
        loop {
            tokio::select! {
                _ = term.recv() => return None,
                _ = int.recv() => return None,
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
        if let Err(error) = self.embedded.check_place() {
            return Some(error.to_string());
        }
        if let Ok(reason) = self.failed.try_recv() {
            return Some(reason);
        }
        let parts = [
            ("the actuator", self.actuator.is_finished()),
            ("the observer", self.observer.is_finished()),
            ("the watch over the log", self.log_watch.is_finished()),
            ("the thread that deletes old records", self.retention.is_finished()),
            ("the thread that appends metrics", self.appender.is_finished()),
            ("the thread that watches policies", self.watcher.has_ended()),
        ];
        let part = parts.into_iter().find_map(|(part, ended)| ended.then(|| format!("{part} ended")));
        part.or_else(|| self.fleets.failed().map(|target| format!("the supervisor of {target} ended")))
    }

    fn end(self, stop_fleets: bool) {
        drop(self.files);
        let told = |part: &str, ended: Result<(), String>| {
            if let Err(error) = ended {
                PartFailed { part, reason: &error }.emit();
            }
        };
        told("the policy watcher", self.watcher.stop().map_err(|e| e.to_string()));
        told("the actuator", self.actuator.stop().map_err(|e| e.to_string()));
        if stop_fleets {
            if let Err(left) = self.fleets.stop_all(self.fleets.longest_grace() + STOP_FLEETS_WITHIN) {
                error!(?left, "these fleets did not stop in time; their processes may still run");
            }
        } else {
            self.fleets.detach();
        }
        told("the observer", self.observer.stop().map_err(|e| e.to_string()));
        drop(self.ingest);
        told("the thread that appends metrics", self.appender.join().map_err(str::to_owned));
        self.stop.ask();
        for stage in self.stages {
            if stage.join().is_err() {
                error!("a stage ended by a fault in the program");
            }
        }
        told("the thread that deletes old records", self.retention.stop().map_err(|e| e.to_string()));
        self.tail.stop();
        self.log_watch.stop();
    }
}

/// Runs a stage on a thread of its own; why it ended goes to `failing`.
fn stage<S: Stage + 'static>(stage: S, log: &Arc<dyn Log>, clock: &Arc<dyn Clock>, stop: &Stop, failing: &Sender<String>) -> anyhow::Result<JoinHandle<()>> {
    let (log, clock, stop, failing) = (Arc::clone(log), Arc::clone(clock), stop.clone(), failing.clone());
    let running = move || {
        let guard = Fault { stage: S::NAME, failing: failing.clone() };
        let ended = drive(stage, log, &*clock, MEMBER, &stop);
        std::mem::forget(guard);
        if let Err(error) = ended {
            drop(failing.send(format!("{} ended: {error}", S::NAME)));
        }
    };
    std::thread::Builder::new().name(S::NAME.to_owned()).spawn(running).with_context(|| format!("cannot start a thread for {}", S::NAME))
}

/// Tells of a stage whose thread unwinds.
struct Fault {
    stage: &'static str,
    failing: Sender<String>,
}

impl Drop for Fault {
    fn drop(&mut self) {
        drop(self.failing.send(format!("{} ended by a fault in the program", self.stage)));
    }
}

/// The policies of a file, or what is wrong with it.
fn parse(path: &Path, text: &str) -> ParsedFile {
    let file = documents_in(text, &path.display().to_string());
    let errors = file.all_problems().into_iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
    let policies = file.documents.into_iter().filter_map(|d| Some((d.target?, d.spec_json))).collect();
    ParsedFile { policies, errors }
}

/// Counts set by hand over HTTP.
struct ByHand(Arc<ProcessFleets>);

impl ManualScale for ByHand {
    fn scale(&self, target: &TargetId, replicas: u32, actor: &str) -> Result<u32, ScaleError> {
        self.0.scale(target, replicas, actor).map(|changed| changed.from).map_err(|error| match error {
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
