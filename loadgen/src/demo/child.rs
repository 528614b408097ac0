//! Loadline as a child: started in its own process group, so that a Ctrl-C in the terminal reaches the demo alone, which then
//! stops things in their order.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use axum::http::Uri;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use super::terminal::print;
use super::{Arguments, Stop};
use crate::client::Client;
use crate::last_lines::last_lines;
use crate::program;

/// Draining takes the grace of fleet.yaml (5 s) at most, then SIGKILL; the rest is for a busy machine.
const STOP: Duration = Duration::from_secs(30);

/// How often it is asked whether it is ready, or whether a process is still there.
const ASK: Duration = Duration::from_millis(100);

/// The variable by which workers learn where to post; also how they are known as ours.
const REPORT: &str = "LOADGEN_REPORT";

/// `loadline run`.
pub(super) struct Child {
    process: tokio::process::Child,
    pid: Pid,
    program: PathBuf,
    log: PathBuf,
    report: String,
}

impl Child {
    /// Checks what it needs, and starts it.
    pub(super) fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("find this program's own path")?;
        let program = program::find(arguments.loadline.as_deref())?;
        let report = format!("http://{}/api/v1/metrics", arguments.listen);
        free(arguments.listen)?;
        if !arguments.keep {
            begin_anew(&arguments.data, &report)?;
        }
        let log = arguments.data.join("loadline.log");
        std::fs::create_dir_all(&arguments.data)
            .and_then(|()| File::create(&log))
            .with_context(|| format!("the data directory {} is not writable; choose another with --data", arguments.data.display()))?;
        if let Some(folder) = arguments.endpoints.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("{} cannot be created; choose another place with --endpoints, here and in fleet.yaml", folder.display()))?;
        }
        let output = File::options().append(true).open(&log).with_context(|| format!("open {}", log.display()))?;

        // `command: loadgen` in fleet.yaml means this very program.
        let folders = own.parent().map(Path::to_path_buf).into_iter();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))).context("extend PATH")?;
        let process = tokio::process::Command::new(&program)
            .arg("run")
            .arg("--config")
            .arg(arguments.example.join("loadline.yaml"))
            .arg("--data")
            .arg(&arguments.data)
            .arg("--listen")
            .arg(arguments.listen.to_string())
            .arg("--policies")
            .arg(arguments.example.join("policy.yaml"))
            .arg("--policies")
            .arg(arguments.example.join("fleet.yaml"))
            .arg("--stop-fleets-on-exit")
            // The log file is for people.
            .args(["--log-format", "text"])
            .env("PATH", path)
            .env(REPORT, &report)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the log file")?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("loadline ended at once")?;
        Ok(Child { process, pid, program, log, report })
    }

    pub(super) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Waits until it answers at `uri`.
    pub(super) async fn ready(&mut self, client: &Client, uri: &Uri, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            if let Ok(answer) = client.get(uri, Duration::from_secs(1)).await
                && answer.status.is_success()
            {
                return Ok(());
            }
            tokio::select! {
                error = self.ended() => return Err(error),
                () = sleep(ASK) => {}
            }
            if Instant::now() > end {
                bail!("loadline did not answer at {uri} within {deadline:?}; the end of {}:\n{}", self.log.display(), last_lines(&self.log));
            }
        }
    }

    /// Waits until it has ended, which it should not.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.process.wait().await {
            Ok(status) => anyhow!("loadline ended early ({status}); the end of {}:\n{}", self.log.display(), last_lines(&self.log)),
            Err(error) => anyhow!("cannot wait for loadline: {error}"),
        }
    }

    /// Has it drain and stop everything that it started, and looks whether anything is left.
    pub(super) async fn stop(mut self, stop: &mut Stop) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait().context("look for loadline")? {
            return self.say_what_is_left(status).await;
        }
        print(&format!("\nstopping: Loadline drains the fleet (at most {} s)\n", STOP.as_secs()));
        kill_process(self.pid, Signal::TERM).context("stop loadline")?;
        let waited = tokio::select! {
            waited = timeout(STOP, self.process.wait()) => waited,
            () = stop.heard() => bail!("not waited for: loadline (pid {}) is still stopping its fleet", self.id()),
        };
        if let Ok(status) = waited {
            return self.say_what_is_left(status.context("wait for loadline")?).await;
        }
        let left = workers(&self.report);
        self.process.kill().await.context("kill loadline")?;
        bail!(
            "loadline did not stop within {STOP:?} and was killed; workers that are left: {left:?}; the end of {}:\n{}",
            self.log.display(),
            last_lines(&self.log)
        )
    }

    async fn say_what_is_left(&self, status: ExitStatus) -> anyhow::Result<()> {
        // A process that got its SIGKILL may take a moment to be gone.
        let end = Instant::now() + Duration::from_secs(2);
        let mut left = workers(&self.report);
        while !left.is_empty() && Instant::now() < end {
            sleep(ASK).await;
            left = workers(&self.report);
        }
        ensure!(left.is_empty(), "loadline has ended ({status}) and left these workers running: {left:?}; end them with kill");
        if status.success() {
            print("all is stopped\n");
        } else {
            print(&format!("loadline ended with {status}, see {}; no worker is left\n", self.log.display()));
        }
        Ok(())
    }
}

/// Removes what the last demo left in `data`, unless its workers still run: those are found again by it.
fn begin_anew(data: &Path, report: &str) -> anyhow::Result<()> {
    let left = workers(report);
    if !left.is_empty() {
        print(&format!("workers of the last demo still run ({left:?}); going on from there\n"));
        return Ok(());
    }
    // Only what is known to be a demo's: whoever names another folder keeps what is in it.
    if data.join("log.db").is_file() && data.join("loadline.log").is_file() {
        let lock = data.join("lock");
        if let Ok(file) = File::options().read(true).write(true).open(&lock)
            && let Err(TryLockError::WouldBlock) = file.try_lock()
        {
            let owner = std::fs::read_to_string(&lock).unwrap_or_default();
            bail!(
                "another Loadline runs on {} (process {}); stop it, or choose another folder with --data, and another --listen",
                data.display(),
                owner.trim()
            );
        }
        print(&format!("beginning anew: {} of the last demo is removed (--keep goes on from there)\n", data.display()));
        std::fs::remove_dir_all(data).with_context(|| format!("{} cannot be removed; choose another folder with --data", data.display()))?;
    }
    Ok(())
}

/// Fails where somebody listens at `address`.
fn free(address: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let other = SocketAddr::new(address.ip(), address.port().wrapping_add(10).max(1024));
            bail!(
                "port {} of {} is in use, perhaps by another demo; choose another with --listen {other} (and --data, for a demo beside it)",
                address.port(),
                address.ip()
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen at {address}; choose another address with --listen")),
    }
}

/// The processes that were started with our [`REPORT`], Loadline itself left out.
fn workers(report: &str) -> Vec<i32> {
    let wanted = format!("{REPORT}={report}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let is_ours = environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            is_ours && command.split(|byte| *byte == 0).nth(1) == Some(b"worker")
        })
        .collect();
    pids.sort_unstable();
    pids
}
