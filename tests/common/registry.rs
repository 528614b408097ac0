//! A real schema registry for the tests of one process, ended with whoever started it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use loadline::runtime::clock::Stopwatch;

use crate::kafka::{installed, script};

/// How long one may take to start on a busy machine.
const START: Duration = Duration::from_secs(300);

/// A registry.
pub(crate) struct Registry {
    /// Where its interface is.
    pub(crate) url: String,
    port: u16,
    /// It ends when this does: its standard input is ours.
    child: Option<Child>,
    directory: PathBuf,
}

impl Registry {
    /// An empty one at this port.
    pub(crate) fn start(port: u16) -> Registry {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("registry-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut registry = Registry { url: format!("http://127.0.0.1:{port}/apis/ccompat/v7"), port, child: None, directory };
        registry.start_again();
        registry
    }

    /// Starts it at the same place. It holds nothing: it has what it holds in memory.
    pub(crate) fn start_again(&mut self) {
        installed("registry.sh");
        let mut command = Command::new(script("registry.sh"));
        command.arg("run").arg(self.port.to_string()).arg(&self.directory).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let started = Stopwatch::start();
        while ureq::get(format!("{}/subjects", self.url)).call().is_err() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the registry ended, {ended:?}: see above, and {}/registry.log", self.directory.display());
            assert!(started.elapsed() < START, "the registry is not ready: see {}/registry.log", self.directory.display());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    /// Ends it, and waits until it has ended.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}
