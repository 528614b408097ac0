//! Tells load balancers which instances can serve: a file in Prometheus `file_sd` format, and a
//! command that runs after it changed.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::Serialize;

use super::document::FleetSpec;
use crate::edge::durable_file;
use crate::model::TargetId;
use crate::runtime::clock::Stopwatch;

/// How long the hook may run; a reload of a load balancer takes far less.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// One group of the `file_sd` format.
#[derive(Serialize)]
struct Group<'a> {
    targets: Vec<String>,
    labels: &'a std::collections::BTreeMap<String, String>,
}

/// The endpoints of one fleet, and the hook that follows their changes.
///
/// Each change has a number. It is *settled* once the file is written and the hook that ran after
/// that has ended, well or not: then nobody is sent to what is not listed.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    /// What stands in the file, as far as this process knows.
    written: Option<(PathBuf, Vec<u8>)>,
    /// The number of the newest change, whether it could be written or not.
    wanted: u64,
    /// The newest change that is settled.
    settled: u64,
    /// The newest change that was written.
    on_disk: u64,
    hook: Option<RunningHook>,
    /// What went wrong last with the file, and with the hook.
    pub(crate) file_trouble: Option<String>,
    pub(crate) hook_trouble: Option<String>,
}

#[derive(Debug)]
struct RunningHook {
    child: Child,
    started: Stopwatch,
    change: u64,
}

impl Publisher {
    /// Brings the file up to `ports` (those that can serve, ascending), and the hook on its way.
    /// Returns the number of the newest change.
    pub(crate) fn publish(&mut self, spec: &FleetSpec, target: &TargetId, ports: &[u16], log: &Path) -> u64 {
        self.follow_hook();
        let Some(endpoints) = &spec.endpoints else {
            self.file_trouble = None;
            self.settled = self.wanted;
            return self.wanted;
        };
        let group = Group { targets: ports.iter().map(|port| format!("127.0.0.1:{port}")).collect(), labels: &endpoints.labels };
        match serde_json::to_vec_pretty(&[group]).map_err(io::Error::from).and_then(|bytes| self.write(&endpoints.file, bytes)) {
            Ok(()) => self.file_trouble = None,
            Err(error) => self.file_trouble = Some(format!("spec.endpoints.file {} cannot be written: {error}", endpoints.file.display())),
        }
        if self.hook.is_none() && self.settled < self.on_disk {
            self.start_hook(spec, target, &endpoints.file, log);
        }
        self.wanted
    }

    /// Whether the change of this number is settled.
    pub(crate) fn is_settled(&self, change: u64) -> bool {
        self.settled >= change
    }

    fn write(&mut self, file: &Path, bytes: Vec<u8>) -> io::Result<()> {
        if self.written.as_ref().is_some_and(|(path, old)| path == file && *old == bytes) {
            // What could not be written in between is of no meaning any more.
            self.on_disk = self.wanted;
            return Ok(());
        }
        // The first time it is always written, and the hook run: whether the last process of
        // Loadline came to that is not known.
        if self.wanted == self.on_disk {
            self.wanted += 1;
        }
        durable_file::replace_quickly(file, &bytes)?;
        self.written = Some((file.to_owned(), bytes));
        self.on_disk = self.wanted;
        Ok(())
    }

    fn start_hook(&mut self, spec: &FleetSpec, target: &TargetId, file: &Path, log: &Path) {
        let Some((program, args)) = spec.hook.split_first() else {
            self.settled = self.on_disk;
            self.hook_trouble = None;
            return;
        };
        let output = || File::options().create(true).append(true).open(log);
        let child = output().and_then(|out| {
            Command::new(program)
                .args(args)
                .env("LOADLINE_ENDPOINTS", file)
                .env("LOADLINE_TARGET", target.as_str())
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(output()?)
                .process_group(0)
                .spawn()
        });
        match child {
            Ok(child) => self.hook = Some(RunningHook { child, started: Stopwatch::start(), change: self.on_disk }),
            Err(error) => {
                self.hook_trouble = Some(format!("spec.hook {program} cannot be run: {error}"));
                self.settled = self.on_disk;
            }
        }
    }

    /// Sees whether the hook has ended; one that runs too long is ended.
    fn follow_hook(&mut self) {
        let Some(mut hook) = self.hook.take() else { return };
        let ended = match hook.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(format!("spec.hook ended with {status}")),
            Ok(None) if hook.started.elapsed() < HOOK_DEADLINE => {
                self.hook = Some(hook);
                return;
            }
            Ok(None) => {
                // Its group cannot have another's number: it was not waited for yet.
                if let Some(pid) = i32::try_from(hook.child.id()).ok().and_then(Pid::from_raw) {
                    let _ended_by_itself = rustix::process::kill_process_group(pid, Signal::KILL);
                }
                let _reaped = hook.child.wait();
                Err(format!("spec.hook ran longer than {} s and was ended", HOOK_DEADLINE.as_secs()))
            }
            Err(error) => Err(format!("spec.hook cannot be waited for: {error}")),
        };
        self.settled = self.settled.max(hook.change);
        self.hook_trouble = ended.err();
    }
}
