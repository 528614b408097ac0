//! A real Loadline for tests: the program itself, on a directory of its own.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use loadline::runtime::clock::Stopwatch;
use serde_json::Value;

/// How long a test waits for a thing before it fails: far beyond what any of them takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const LOADLINE: &str = env!("CARGO_BIN_EXE_loadline");

/// Waits until `happened` has an answer.
pub fn wait_for<T>(what: &str, mut happened: impl FnMut() -> Option<T>) -> T {
    let waiting = Stopwatch::start();
    loop {
        if let Some(answer) = happened() {
            return answer;
        }
        assert!(waiting.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A running Loadline. Dropping it kills it.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub url: String,
}

impl Running {
    /// Starts it on `directory` (policies in `policies/`, its data in `data/`) and waits until it is ready.
    pub fn start(directory: &Path, flags: &[&str]) -> Running {
        let mut child = Command::new(LOADLINE)
            .current_dir(directory)
            .args(["run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0", "--pane", "250ms", "--grace", "100ms"])
            .args(flags)
            .env_remove("LOADLINE_CONFIG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            errors.lines().map_while(Result::ok).for_each(|line| {
                // Shown where the test fails.
                eprintln!("{line}");
                drop(say.send(line));
            })
        });
        let mut said = Vec::new();
        let url = loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => match line.split_once("ready: ") {
                    Some((_, url)) => break url.trim().to_owned(),
                    None => said.push(line),
                },
                Err(_) => panic!("loadline did not become ready; it said:\n{}", said.join("\n")),
            }
        };
        Running { child, url }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Posts samples; the answer's body, where it was 200.
    pub fn post(&self, lines: &str) -> Option<Value> {
        let mut answer = ureq::post(format!("{}/api/v1/metrics", self.url)).header("content-type", "application/x-ndjson").send(lines).ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    /// What the status says of a target.
    pub fn status(&self, target: &str) -> Option<Value> {
        let mut answer = ureq::get(format!("{}/api/v1/status", self.url)).call().ok()?;
        let status: Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
        status["targets"].as_array()?.iter().find(|t| t["target"] == target).cloned()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has; its exit code.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for("loadline to end", || self.child.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A directory with one fleet of sleeping processes and a policy that wants one for each 10 that wait.
pub fn fleet_of_sleepers(replicas: u32, behavior: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let policies = home.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("fleet.yaml"), fleet_yaml(replicas)).unwrap();
    std::fs::write(policies.join("policy.yaml"), policy_yaml(6, behavior)).unwrap();
    (home, policies)
}

/// The fleet's document.
pub fn fleet_yaml(replicas: u32) -> String {
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ProcessFleet
metadata: {{ namespace: local, name: sleepers }}
spec:
  command: sleep
  args: [\"3600\"]
  replicas: {replicas}
  drain: {{ grace: 2s }}
"
    )
}

/// The policy's document.
pub fn policy_yaml(max: u32, behavior: &str) -> String {
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: {{ namespace: local, name: sleepers }}
spec:
  target: {{ kind: ProcessFleet, name: sleepers }}
  replicas: {{ min: 1, max: {max} }}
  metrics:
    - name: queue_depth
      track: {{ perReplica: 10 }}
      window: 1s
      staleAfter: 30s
{behavior}"
    )
}

/// The target of [`fleet_of_sleepers`].
pub const SLEEPERS: &str = "local/ProcessFleet/sleepers";

/// A sample of how many wait.
pub fn waiting(value: f64) -> String {
    format!("{{\"target\":\"{SLEEPERS}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{value}}}\n")
}

/// The processes of the fleet that run under this directory's Loadline, by the identity in their environment.
pub fn sleepers(data: &Path) -> usize {
    let state = data.join("fleets/local/sleepers/state.json");
    let Some(uid) = std::fs::read_to_string(state).ok().and_then(|s| serde_json::from_str::<Value>(&s).ok()).and_then(|s| Some(s["uid"].as_str()?.to_owned()))
    else {
        return 0;
    };
    let mark = format!("LOADLINE_FLEET_UID={uid}");
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("environ")).ok())
        .filter(|environment| environment.split(|b| *b == 0).any(|v| v == mark.as_bytes()))
        .count()
}
