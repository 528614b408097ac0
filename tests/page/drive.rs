//! The browser of the page's tests and of its benchmark, and a large fleet for it to look at.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use loadline::log::embedded::{EmbeddedLog, Options};
use loadline::log::{Log, Partitions, Topic};
use loadline::model::{FleetObservation, Instance, Message, Phase, Signal, TargetId};
use loadline::runtime::clock::{Clock, SystemClock};
use loadline::runtime::publish;
use loadline::stages::Effects;

use crate::common::{Running, wait_for};

const MEND: &str = "the browser tests need Chromium, Node.js and the packages of tests/page; install them with: tools/setup --tests";

fn chromium() -> PathBuf {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return named.into();
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name))).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("there is no Chromium in PATH; {MEND}"))
}

/// Runs one story of `run.mjs` to its end; what it printed.
pub(crate) fn story(name: &str, url: &str, pid: u32) -> String {
    story_of(name, url, pid, "")
}

/// As [`story`], for one about a fleet of this name.
pub(crate) fn story_of(name: &str, url: &str, pid: u32, fleet: &str) -> String {
    story_that_asks(name, url, pid, fleet, |asked| panic!("the story asks for {asked}"))
}

/// As [`story_of`], for one that asks for something on the way, by a line "ask: …".
pub(crate) fn story_that_asks(name: &str, url: &str, pid: u32, fleet: &str, mut asks: impl FnMut(&str)) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/page-tests");
    let lock = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let (wanted, there) = (lock(root.join("tests/page/package-lock.json")), lock(modules.join("installed-lock.json")));
    assert!(wanted == there, "target/page-tests is not what tests/page/package-lock.json says; {MEND}");
    let mut command = Command::new("node");
    command.arg(root.join("tests/page/run.mjs")).args([name, url, &pid.to_string(), fleet]);
    command.env("CHROMIUM", chromium()).env("PAGE_TESTS", &modules).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut node = command.spawn().unwrap_or_else(|error| panic!("node cannot be started ({error}); {MEND}"));
    let mut errors = node.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut said = String::new();
        errors.read_to_string(&mut said).map(|_| said).unwrap_or_default()
    });
    let mut out = String::new();
    for line in BufReader::new(node.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(asked) = line.strip_prefix("ask: ") {
            asks(asked);
        }
        writeln!(out, "{line}").unwrap();
    }
    let (done, errors) = (node.wait().unwrap(), errors.join().unwrap());
    assert!(done.success(), "{out}\n{errors}");
    out
}

/// A thousand targets, observed and evaluated, and the Loadline that shows them.
pub(crate) fn a_thousand_targets() -> (tempfile::TempDir, Running) {
    let home = tempfile::tempdir().unwrap();
    let policies = home.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    let (mut documents, mut samples) = (String::new(), String::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = EmbeddedLog::open(&home.path().join("data"), Arc::clone(&clock), Options { partitions: Partitions::default(), max_bytes: None }).unwrap();
    let mut effects = Effects::new();
    for n in 0..1_000_u32 {
        let name = format!("service-{n:04}");
        let target: TargetId = format!("prod/Deployment/{name}").parse().unwrap();
        write!(
            documents,
            "---\napiVersion: loadline.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {{ namespace: prod, name: {name} }}\nspec:\n  target: {{ apiVersion: apps/v1, kind: Deployment, name: {name} }}\n  mode: Advise\n  replicas: {{ min: 2, max: 40 }}\n  metrics:\n    - {{ name: queue_depth, track: {{ perReplica: 10 }}, staleAfter: 10m }}\n    - {{ name: response_time, kind: Gauge, staleAfter: 10m, threshold: {{ scaleOutAbove: 300ms, scaleInBelow: 120ms, for: 30s }} }}\n"
        )
        .unwrap();
        if n % 100 == 99 {
            std::fs::write(policies.join(format!("{n:04}.yaml")), std::mem::take(&mut documents)).unwrap();
        }
        let replicas = 3 + n % 5;
        let instances =
            (0..replicas).map(|i| Instance { name: format!("{name}-{i}").parse().unwrap(), phase: Phase::Running, ready: Some(true), ..Instance::default() });
        let fleet = FleetObservation {
            target: target.clone(),
            uid: name.clone(),
            term: 1,
            sequence: 1,
            revision: None,
            desired: replicas,
            status_replicas: replicas,
            updating: false,
            instances: instances.collect(),
        };
        effects.to_key(Topic::Signals, target.as_str(), Message::Signal(Signal::Fleet(fleet)));
        writeln!(samples, "{{\"target\":\"{target}\",\"metric\":\"queue_depth\",\"value\":{}}}", 5 + n % 70).unwrap();
        writeln!(samples, "{{\"target\":\"{target}\",\"metric\":\"response_time\",\"value\":0.{}}}", 100 + n % 300).unwrap();
    }
    publish(&log, effects).unwrap();
    log.close();
    let loadline = Running::start(home.path(), &[]);
    wait_for("the last one's policy", || loadline.status("prod/Deployment/service-0999").filter(|status| status["mode"] == "Advise").map(drop));
    loadline.post(&samples).unwrap();
    wait_for("decisions on samples", || loadline.status("prod/Deployment/service-0999").filter(|status| status["metrics"][0]["status"] == "Ok").map(drop));
    (home, loadline)
}
