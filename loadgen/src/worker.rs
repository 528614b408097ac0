//! A worker: an HTTP server with a capacity, so that its latency and its queue are real.
//!
//! It serves `concurrency` requests at once, each for `service_time`; further ones wait in a bounded queue, and beyond that they
//! are refused with 503. The service time is a timer; of it, only `cpu_per_request` is spent computing, so that many workers fit
//! on few cores. What it measures it pushes to Loadline ([`report`]); its cpu and memory are measured from outside.
//!
//! On SIGTERM (or SIGINT) it drains: `/healthz` and new requests get 503, what it accepted is served, then it ends with 0.

pub mod gate;
pub mod report;
mod service;
mod work;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::http::Uri;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::units;
use gate::{Gate, Phase};
use report::{Buffer, Identity, Reporter};

pub(crate) use service::REFUSED;
pub use work::Work;

/// After the last response has been given, connections have this long to close.
const LINGER: Duration = Duration::from_secs(1);

/// The last push, on the way out, gets this long.
const LAST_PUSH: Duration = Duration::from_secs(1);

/// What `loadgen worker` is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The port of 127.0.0.1 to listen on; 0 takes a free one.
    #[arg(long)]
    pub port: u16,
    /// How many requests are in service at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: u32,
    /// How many more may wait.
    #[arg(long, default_value_t = 50)]
    pub queue: u32,
    /// How long each request is in service.
    #[arg(long, default_value = "100ms", value_parser = units::duration)]
    pub service_time: Duration,
    /// CPU time that each request costs.
    #[arg(long, default_value = "2ms", value_parser = units::duration)]
    pub cpu_per_request: Duration,
    /// Memory that each request holds while it is in service.
    #[arg(long, default_value = "1MiB", value_parser = units::bytes)]
    pub memory_per_request: usize,
    /// Memory that is held all the time, beside what the program itself needs.
    #[arg(long, default_value = "4MiB", value_parser = units::bytes)]
    pub memory_base: usize,
    /// How long it warms up before it serves.
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    pub startup: Duration,
    /// The target that its samples count for, as namespace/Kind/name.
    #[arg(long, default_value = "local/ProcessFleet/storefront")]
    pub target: String,
    /// The name of this instance.
    #[arg(long, default_value = "worker")]
    pub instance: String,
    /// Where samples are posted as JSON lines, or off.
    #[arg(long, env = "LOADGEN_REPORT", value_name = "URL", default_value = "http://127.0.0.1:8080/api/v1/metrics", value_parser = destination)]
    pub report: Destination,
    /// How often samples are posted.
    #[arg(long, default_value = "250ms", value_parser = units::duration)]
    pub every: Duration,
}

/// Where samples go; nowhere when it is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(pub Option<Uri>);

fn destination(text: &str) -> Result<Destination, String> {
    if text == "off" {
        return Ok(Destination(None));
    }
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(Destination(Some(uri))),
        _ => Err(format!("{text:?} is not an address; write http://HOST:PORT/PATH, or off")),
    }
}

/// Serves until SIGTERM or SIGINT, drains, and returns.
///
/// # Errors
/// The port is in use, or the server ended by itself.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    // One thread: a worker uses a few hundredths of a core, and twenty of them share a machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}; choose another with --port"))?;
    println!("listening on {}", listener.local_addr()?);

    let gate = Arc::new(Gate::new(arguments.concurrency, arguments.queue));
    let buffer = Arc::new(Buffer::new(Identity { target: arguments.target.clone(), instance: arguments.instance.clone() }));
    let work = Work::new(arguments.service_time, arguments.cpu_per_request, arguments.memory_per_request);
    let _base = work::hold(arguments.memory_base);

    let (close, closed) = oneshot::channel::<()>();
    let router = service::router(Arc::clone(&gate), Arc::clone(&buffer), work);
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        // Either way it is time to close.
        let _ = closed.await;
    });

    let reporter = arguments.report.0.map(|to| Reporter::new(to, arguments.every, Arc::clone(&gate), Arc::clone(&buffer)));
    let life = async {
        tokio::select! {
            () = tokio::time::sleep(arguments.startup) => gate.enter(Phase::Serving),
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let close_when_drained = async {
        life.await;
        println!("draining: {} requests are open", gate.open());
        gate.enter(Phase::Draining);
        gate.idle().await;
        // The server may have ended by itself meanwhile.
        let _ = close.send(());
        tokio::time::sleep(LINGER).await;
    };
    let reporting = async {
        match &reporter {
            Some(reporter) => reporter.run().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = async { server.await } => ended.context("serve")?,
        () = close_when_drained => {}
        never = reporting => match never {},
    }
    if let Some(reporter) = reporter {
        reporter.last(LAST_PUSH).await;
    }
    println!("ended: {} served, {} refused, {} samples dropped", gate.served(), gate.refused(), buffer.dropped());
    Ok(())
}
