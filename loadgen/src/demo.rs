//! The demo: Loadline, a fleet of workers and the driver in one terminal, until Ctrl-C.
//!
//! It starts `loadline run` as a child, drives load at the endpoints that Loadline publishes, and shows what happens
//! ([`screen`]). It scales nothing itself and knows no more of Loadline than its command line and its status ([`status`]).
//! Whatever ends it, it stops Loadline, which drains the fleet, and looks for workers that are left before it says that all is
//! stopped ([`child`]).

mod child;
pub mod screen;
pub mod status;
mod terminal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::Uri;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::Client;
use crate::drive::Driver;
use crate::drive::arrivals::Arrivals;
use crate::drive::endpoints::Watch;
use crate::drive::load::Load;
use crate::trace::Trace;
use crate::{clock, units};
use child::Child;
use screen::{Frame, History};
use status::TargetStatus;
use terminal::{Terminal, print};

/// From its start until Loadline answers: it opens a log and reads three small files; this is for slow disks.
const READY: Duration = Duration::from_secs(30);

/// The status is read on loopback; what takes longer is shown as missing.
const STATUS: Duration = Duration::from_secs(1);

/// A frame a second of history: a minute of the trace at 60 times its speed.
const FRAME: Duration = Duration::from_secs(1);

/// Requests of the demo fail after this long; a worker's full queue is served in four seconds.
const REQUEST: Duration = Duration::from_secs(10);

/// What `loadgen demo` is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The program `loadline` [default: the one beside this program, else the one in PATH].
    #[arg(long, value_name = "FILE")]
    pub loadline: Option<PathBuf>,
    /// The folder with loadline.yaml, policy.yaml, fleet.yaml and trace.csv.
    #[arg(long, value_name = "DIR", default_value = "examples/storefront")]
    pub example: PathBuf,
    /// Where Loadline keeps its data, and its log for this demo.
    #[arg(long, value_name = "DIR", default_value = "data/storefront")]
    pub data: PathBuf,
    /// Go on from the fleet and the history of the last demo; without it, each demo begins anew.
    #[arg(long)]
    pub keep: bool,
    /// The file of endpoints that fleet.yaml names.
    #[arg(long, value_name = "FILE", default_value = "data/storefront/endpoints.json")]
    pub endpoints: PathBuf,
    /// The address of Loadline's HTTP interface.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The target that is shown.
    #[arg(long, default_value = "local/ProcessFleet/storefront")]
    pub target: String,
    /// How many times faster than it was recorded the trace is replayed; the policy's windows are made for 60.
    #[arg(long, default_value_t = 60.0)]
    pub speed: f64,
    /// How many requests are sent for one of the trace.
    #[arg(long, default_value_t = 0.5)]
    pub scale: f64,
    /// The minute of the trace to begin with: 300 is five in the morning.
    #[arg(long, default_value_t = 300)]
    pub start_minute: u64,
    /// Ends after this long; without it, on Ctrl-C.
    #[arg(long = "for", value_parser = units::duration, value_name = "DURATION")]
    pub time: Option<Duration>,
}

/// Runs the demo until Ctrl-C or the time is over, and leaves no process behind.
///
/// # Errors
/// What is missing or in use before the start, with the mend; Loadline's last words where it ended early; workers that are left.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(demo(arguments))
}

async fn demo(arguments: Arguments) -> anyhow::Result<()> {
    // From here on a signal is heard, so nothing that is started below can be left.
    let mut stop = Stop::new()?;
    for file in ["loadline.yaml", "policy.yaml", "fleet.yaml", "trace.csv"] {
        let path = arguments.example.join(file);
        ensure!(path.is_file(), "{} is not there; run in the folder of the project, or name the example with --example", path.display());
    }
    let trace = Trace::read(&arguments.example.join("trace.csv"))?;
    let load = Load::trace(trace, arguments.start_minute, arguments.speed, arguments.scale)?;

    let mut child = Child::start(&arguments)?;
    print(&format!("Loadline runs (pid {}), its log is {}\n", child.id(), child.log().display()));
    let outcome = tokio::select! {
        outcome = show(&arguments, &mut child, load) => outcome,
        () = stop.heard() => Ok(()),
    };
    let stopped = child.stop(&mut stop).await;
    match (outcome, stopped) {
        (Err(ended), Err(left)) => Err(ended.context(left)),
        (outcome, stopped) => outcome.and(stopped),
    }
}

async fn show(arguments: &Arguments, child: &mut Child, load: Load) -> anyhow::Result<()> {
    let client = Client::new();
    let uri: Uri = format!("http://{}/api/v1/status", arguments.listen).parse().context("the address of the status")?;
    child.ready(&client, &uri, READY).await?;
    print(&hints(arguments, child.program()));

    let driver = Arc::new(Driver::new(REQUEST));
    let arrivals = Arrivals::new(load.clone(), 1);
    let driving = Arc::clone(&driver).run(arrivals, Watch::new(arguments.endpoints.clone()));
    let started = Instant::now();
    let showing = async {
        let mut terminal = Terminal::new();
        let mut history = History::default();
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            frames.tick().await;
            let status = read_status(&client, &uri, &arguments.target).await;
            let load_now = driver.snapshot();
            history.push(&load_now, status.as_ref().ok());
            terminal.show(&Frame {
                target: &arguments.target,
                time: load.time(started.elapsed()),
                speed: arguments.speed,
                elapsed: started.elapsed(),
                now: clock::unix_millis(),
                load: load_now,
                status,
                history: &history,
            });
        }
    };
    let end = async {
        match arguments.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = driving => Ok(()),
        () = showing => Ok(()),
        () = end => Ok(()),
        error = child.ended() => Err(error),
    }
}

async fn read_status(client: &Client, uri: &Uri, target: &str) -> Result<TargetStatus, String> {
    let answer = client.get(uri, STATUS).await.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("it answers {}", answer.status));
    }
    status::read(&answer.body, target)
}

fn hints(arguments: &Arguments, program: &Path) -> String {
    let server =
        if arguments.listen == SocketAddr::from(([127, 0, 0, 1], 8080)) { String::new() } else { format!("LOADLINE_SERVER=http://{} ", arguments.listen) };
    let here = std::env::current_dir().ok();
    let program = here.as_deref().and_then(|here| program.strip_prefix(here).ok()).unwrap_or(program);
    format!(
        "Look at http://{}/ in a browser. In another terminal:\n  {server}{} why {}   why it decided as it did\n  edit {}   a change takes effect while it runs\nCtrl-C drains and stops everything.\n\n",
        arguments.listen,
        program.display(),
        arguments.target,
        arguments.example.join("policy.yaml").display(),
    )
}

/// The signals that end the demo.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Stop { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, hangup: listen(SignalKind::hangup())? })
    }

    async fn heard(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
