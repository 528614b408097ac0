//! A real Loadline for tests: the program itself, on a directory of its own.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::match_wild_err_arm, reason = "only a time-out ends it")]

pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod random;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use loadline::log::Topic;
use loadline::log::embedded::EmbeddedLog;
use loadline::model::{Audit, Decision, Message};
use loadline::runtime::clock::Stopwatch;
use loadline::stages::decide::{Decide, State};
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire::{self, jsonl};
use serde_json::Value;

/// How long a test waits for a thing before it fails: far beyond what any of them takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The program under test.
pub(crate) const LOADLINE: &str = env!("CARGO_BIN_EXE_loadline");

/// Waits until `happened` has an answer.
pub(crate) fn wait_for<T>(what: &str, mut happened: impl FnMut() -> Option<T>) -> T {
    let waiting = Stopwatch::start();
    loop {
        if let Some(answer) = happened() {
            return answer;
        }
        assert!(waiting.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A library of one C file of the tests, made in `directory`: to be preloaded into the program.
pub(crate) fn shim(directory: &Path, source: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let shim = directory.join(source.file_stem().unwrap()).with_extension("so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    shim
}

/// What makes `command` run a Loadline on `directory`: policies in `policies/`, its data in `data/`.
pub(crate) fn arguments(command: &mut Command, directory: &Path, flags: &[&str]) {
    command.current_dir(directory).args(["run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0"]);
    command.args(["--pane", "250ms", "--grace", "100ms"]).args(flags).env_remove("LOADLINE_CONFIG");
}

/// A running Loadline. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    /// Where it listens.
    pub(crate) url: String,
}

impl Running {
    /// Starts it on `directory` (policies in `policies/`, its data in `data/`) and waits until it is ready.
    pub(crate) fn start(directory: &Path, flags: &[&str]) -> Running {
        let mut command = Command::new(LOADLINE);
        arguments(&mut command, directory, flags);
        Running::spawn(command)
    }

    /// Starts what `command` says and waits until it is ready.
    pub(crate) fn spawn(command: Command) -> Running {
        Running::begin(command, true)
    }

    /// As [`Running::spawn`], but nobody reads what it says once it is ready.
    pub(crate) fn spawn_unread(command: Command) -> Running {
        Running::begin(command, false)
    }

    /// Starts what `command` says, and waits until it has ended by itself; its exit code, and all that it said.
    pub(crate) fn refused(command: Command) -> (i32, String) {
        Running::heard(command, true).0.ended()
    }

    fn begin(command: Command, is_read: bool) -> Running {
        let (mut running, lines) = Running::heard(command, is_read);
        running.url = loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Some((_, url)) = line.split_once("ready: ") {
                        // Fields follow in text; in JSON the message ends with a quote.
                        break url.split(['"', ' ']).next().unwrap_or(url).to_owned();
                    }
                }
                Err(_) => panic!("loadline did not become ready; it said:\n{}", running.said().join("\n")),
            }
        };
        running
    }

    /// Starts it; what it says, line by line, and nothing more once it is ready unless `is_read`.
    fn heard(mut command: Command, is_read: bool) -> (Running, Receiver<String>) {
        // As people read it, unless a test says otherwise.
        if !command.get_envs().any(|(name, _)| name == "LOADLINE_LOG_FORMAT") {
            command.env("LOADLINE_LOG_FORMAT", "text");
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (say, lines) = channel();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let saying = Arc::clone(&said);
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                // Shown where the test fails.
                eprintln!("{line}");
                saying.lock().unwrap().push(line.clone());
                let is_ready = line.contains("ready: ");
                drop(say.send(line));
                if is_ready && !is_read {
                    break;
                }
            }
        });
        (Running { child, said, url: String::new() }, lines)
    }

    /// What it has said so far, a line each.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Posts samples; the answer's body, where it was 200.
    pub(crate) fn post(&self, lines: &str) -> Option<Value> {
        let mut answer = ureq::post(format!("{}/api/v1/metrics", self.url)).header("content-type", "application/x-ndjson").send(lines).ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    /// The whole status.
    pub(crate) fn all_status(&self) -> Option<Value> {
        let mut answer = ureq::get(format!("{}/api/v1/status", self.url)).call().ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    /// What the status says of a target.
    pub(crate) fn status(&self, target: &str) -> Option<Value> {
        let status = self.all_status()?;
        status["targets"].as_array()?.iter().find(|t| t["target"] == target).cloned()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.kill_in_place();
    }

    /// As [`Running::kill`], for one that is about to be replaced.
    pub(crate) fn kill_in_place(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself; its exit code, and all that it said.
    pub(crate) fn ended(mut self) -> (i32, String) {
        let code = wait_for("loadline to end by itself", || self.child.try_wait().unwrap()).code().unwrap_or(-1);
        // The last line is read when the pipe is at its end.
        let last = |said: &[String]| said.iter().any(|line| line.starts_with("loadline: "));
        let said = wait_for("its reason", || Some(self.said()).filter(|said| last(said)));
        (code, said.join("\n"))
    }

    /// Asks it to end, and waits until it has; its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.stop_in_place()
    }

    /// As [`Running::stop`], for one whose last words are asked for.
    pub(crate) fn stop_in_place(&mut self) -> i32 {
        self.end_by(rustix::process::Signal::TERM).code().unwrap_or(-1)
    }

    /// Sends a signal, and waits until it has ended.
    pub(crate) fn end_by(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
        wait_for("loadline to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A directory with one fleet of sleeping processes and a policy that wants one for each 10 that wait.
pub(crate) fn fleet_of_sleepers(replicas: u32, behavior: &str) -> (tempfile::TempDir, PathBuf) {
    fleet_called(&FLEET, replicas, behavior)
}

/// As [`fleet_of_sleepers`], under this name.
pub(crate) fn fleet_called(name: &str, replicas: u32, behavior: &str) -> (tempfile::TempDir, PathBuf) {
    let called = |document: String| document.replace(&*FLEET, name);
    let home = tempfile::tempdir().unwrap();
    let policies = home.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("fleet.yaml"), called(fleet_yaml(replicas))).unwrap();
    std::fs::write(policies.join("policy.yaml"), called(policy_yaml(6, behavior))).unwrap();
    (home, policies)
}

/// A name of this process alone: no fleet of it has instances that another test process left running.
pub(crate) fn own(name: &str) -> String {
    format!("{name}-{:x}", std::process::id())
}

/// A text that is made when it is first asked for.
pub(crate) struct Text(LazyLock<String>);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// The name of the fleet of [`fleet_of_sleepers`]: short, for small screens.
pub(crate) static FLEET: Text = Text(LazyLock::new(|| own("s")));

/// Its target.
pub(crate) static SLEEPERS: Text = Text(LazyLock::new(|| format!("local/ProcessFleet/{FLEET}")));

/// The fleet's document.
pub(crate) fn fleet_yaml(replicas: u32) -> String {
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ProcessFleet
metadata: {{ namespace: local, name: {FLEET} }}
spec:
  command: sleep
  args: [\"3600\"]
  replicas: {replicas}
  drain: {{ grace: 2s }}
"
    )
}

/// The policy's document.
pub(crate) fn policy_yaml(max: u32, behavior: &str) -> String {
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: {{ namespace: local, name: {FLEET} }}
spec:
  target: {{ kind: ProcessFleet, name: {FLEET} }}
  replicas: {{ min: 1, max: {max} }}
  metrics:
    - name: queue_depth
      track: {{ perReplica: 10 }}
      window: 1s
      staleAfter: 30s
{behavior}"
    )
}

/// A sample of how many wait.
pub(crate) fn waiting(value: f64) -> String {
    format!("{{\"target\":\"{SLEEPERS}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{value}}}\n")
}

/// The processes of [`fleet_of_sleepers`] that run under this directory's Loadline.
pub(crate) fn sleepers(data: &Path) -> usize {
    instances_of(data, &FLEET)
}

/// How many processes of a fleet run under this directory's Loadline.
pub(crate) fn instances_of(data: &Path, fleet: &str) -> usize {
    pids_of(data, fleet).len()
}

/// The processes of a fleet that run under this directory's Loadline, by the identity in their environment.
pub(crate) fn pids_of(data: &Path, fleet: &str) -> BTreeSet<u32> {
    let state = data.join("fleets/local").join(fleet).join("state.json");
    let Some(uid) = std::fs::read_to_string(state).ok().and_then(|s| serde_json::from_str::<Value>(&s).ok()).and_then(|s| Some(s["uid"].as_str()?.to_owned()))
    else {
        return BTreeSet::new();
    };
    let mark = format!("LOADLINE_FLEET_UID={uid}");
    let bears_it = |environment: Vec<u8>| environment.split(|b| *b == 0).any(|v| v == mark.as_bytes());
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let marked = processes.filter(|process| std::fs::read(process.join("environ")).is_ok_and(bears_it));
    marked.filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect()
}

/// Every decision that was written down in `data` is what an undisturbed fold over the exported signals writes down,
/// in the same order, and none is missing. How many there are.
pub(crate) fn decisions_are_those_of_an_undisturbed_fold(data: &Path) -> usize {
    let exported = Command::new(LOADLINE).args(["export", "--data"]).arg(data).output().unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let (mut state, mut undisturbed) = (State::default(), Vec::new());
    for (offset, line) in (0..).zip(String::from_utf8(exported.stdout).unwrap().lines()) {
        let (at, _, record) = jsonl::line_to_signal(line).unwrap();
        let mut effects = Effects::new();
        Decide::default().apply(&mut state, Input::Record(Located { partition: 0, offset, at, record }), &mut effects);
        undisturbed.extend(effects.take().into_iter().filter_map(|effect| decision(effect.message)));
    }
    let written = audited(data);
    for (written, undisturbed) in written.iter().zip(&undisturbed) {
        assert_eq!(written, undisturbed);
    }
    // Signals that came when decide had stopped already are decided on at the next start.
    let stopped = written.last().map(|decision| decision.at);
    let missing: Vec<&Decision> = undisturbed.iter().skip(written.len()).filter(|decision| Some(decision.at) < stopped).collect();
    assert!(missing.is_empty() && written.len() <= undisturbed.len(), "{} written, {} undisturbed, missing: {missing:?}", written.len(), undisturbed.len());
    written.len()
}

fn decision(message: Message) -> Option<Decision> {
    if let Message::Audit(Audit::Decision(decision)) = message { Some(decision) } else { None }
}

fn audited(data: &Path) -> Vec<Decision> {
    messages(data, Topic::Audit).into_iter().filter_map(decision).collect()
}

/// What stands in a topic's only partition, in `data` on which nothing runs.
pub(crate) fn messages(data: &Path, topic: Topic) -> Vec<Message> {
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let range = log.range(topic, 0).unwrap();
    let mut messages = Vec::new();
    let mut next = range.start;
    while next < range.end {
        for record in log.scan(topic, 0, next, 1000).unwrap() {
            next = record.offset + 1;
            messages.extend(wire::decode(topic, &record.value));
        }
    }
    messages
}
