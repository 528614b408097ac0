//! Fleets of real processes: they follow their count, survive Loadline, and nothing else is touched.
//!
//! The workers, and the Loadline that is killed, are this test binary itself, started again with a
//! role in its environment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use loadline::edge::actuate::{Scalable, ScaleError};
use loadline::edge::observe::{Outbox, Posted};
use loadline::edge::processes::{FleetStatus, ProcessFleets, parse_documents, scale_by_hand};
use loadline::model::{AlertState, Phase, TargetId};
use loadline::runtime::clock::{Stopwatch, SystemClock};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(300);

// ---- the roles of this binary -------------------------------------------------------------------

/// As a worker: answers health checks until it is ended.
#[test]
fn role_worker() {
    if std::env::var("TEST_ROLE").as_deref() != Ok("worker") {
        return;
    }
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let sick = std::env::var("TEST_SICK").map(PathBuf::from).unwrap_or_default();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _request = stream.read(&mut [0; 1024]);
        let status = if sick.exists() { "503 Sick" } else { "200 OK" };
        let _answer = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
}

/// As Loadline: supervises the fleets of a document until it is killed.
#[test]
fn role_loadline() {
    if std::env::var("TEST_ROLE").as_deref() != Ok("loadline") {
        return;
    }
    let directory = PathBuf::from(std::env::var("TEST_DIRECTORY").unwrap());
    let fleets = ProcessFleets::new(directory.join("fleets"), Arc::new(Outbox::default()), Arc::new(SystemClock)).unwrap();
    fleets.set_documents(parse_documents("fleet.yaml", &fs::read_to_string(directory.join("fleet.yaml")).unwrap()).unwrap()).unwrap();
    loop {
        std::thread::park();
    }
}

// ---- the world of one test ----------------------------------------------------------------------

struct World {
    directory: tempfile::TempDir,
    outbox: Arc<Outbox>,
    fleets: Option<ProcessFleets>,
    installation: Option<String>,
    target: TargetId,
    document: String,
}

impl World {
    /// A fleet `name` of `replicas`, with these lines in its spec; not started yet.
    fn new(name: &str, replicas: u32, spec: &str) -> World {
        let directory = tempfile::tempdir().unwrap();
        let document = format!(
            "apiVersion: loadline.dev/v1alpha1\nkind: ProcessFleet\nmetadata: {{ namespace: t{}, name: {name} }}\nspec:\n  replicas: {replicas}\n{spec}",
            std::process::id()
        )
        .replace("DIR", directory.path().to_str().unwrap());
        let target = TargetId::new(&format!("t{}", std::process::id()), "ProcessFleet", name).unwrap();
        World { directory, outbox: Arc::new(Outbox::default()), fleets: None, installation: None, target, document }
    }

    /// A fleet of workers with a health check, endpoints, and a range of ports.
    fn of_workers(name: &str, replicas: u32) -> World {
        World::new(name, replicas, &workers(&free_range(12)))
    }

    /// Of an installation that several processes share.
    fn of(mut self, installation: &str) -> World {
        self.installation = Some(installation.to_owned());
        self
    }

    fn start(&mut self) {
        let fleets = ProcessFleets::new(self.path("fleets"), Arc::clone(&self.outbox), Arc::new(SystemClock)).unwrap();
        let fleets = fleets.of_installation(self.installation.as_deref());
        fleets.set_documents(parse_documents("fleet.yaml", &self.document).unwrap()).unwrap();
        self.fleets = Some(fleets);
    }

    fn started(mut self) -> World {
        self.start();
        self
    }

    fn fleets(&self) -> &ProcessFleets {
        self.fleets.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn fleet_path(&self, name: &str) -> PathBuf {
        self.path("fleets").join(self.target.namespace()).join(self.target.name()).join(name)
    }

    fn status(&self) -> FleetStatus {
        self.fleets().status().remove(0)
    }

    fn scale(&self, replicas: u32) {
        self.fleets().scale(&self.target, replicas, "test").unwrap();
    }

    /// The groups of this fleet's instances that run, whoever supervises them.
    fn leaders(&self) -> BTreeSet<i32> {
        processes().filter(|p| p.pid == p.group && p.environ.contains(&format!("LOADLINE_TARGET={}", self.target))).map(|p| p.pid).collect()
    }

    fn endpoints(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("endpoints.json")).unwrap_or_default();
        let groups: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
        groups.first().map_or_else(Vec::new, |group| serde_json::from_value(group["targets"].clone()).unwrap())
    }

    /// Waits until the fleet is exactly `count` ready instances and their processes.
    fn settle(&self, count: usize) -> FleetStatus {
        wait_for(&format!("{count} ready instances"), || {
            let status = self.status();
            let ready = status.instances.len() == count && status.instances.iter().all(|i| i.ready && !i.leaving && i.pid.is_some());
            (ready && self.leaders().len() == count).then_some(status)
        })
    }

    fn wait_for_condition(&self, name: &str) -> String {
        wait_for(name, || self.status().conditions.get(name).cloned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.fleets.take());
        for process in processes().filter(|p| p.environ.contains(&format!("LOADLINE_TARGET={}", self.target))) {
            end(process.pid);
        }
    }
}

fn workers(ports: &str) -> String {
    format!(
        r#"  command: {}
  args: [--exact, role_worker, --nocapture]
  env: {{ TEST_ROLE: worker, TEST_SICK: DIR/sick }}
  ports: "{ports}"
  requests: {{ cpu: 100m, memory: 16Mi }}
  health: {{ http: {{ path: /healthz }}, period: 50ms, timeout: 5s, failures: 2 }}
  startup: {{ timeout: 60s }}
  drain: {{ grace: 20s }}
  endpoints: {{ file: DIR/endpoints.json, labels: {{ job: test }} }}
  measure: {{ every: 250ms }}
"#,
        std::env::current_exe().unwrap().display()
    )
}

/// A shell command as the fleet's command.
fn shell(script: &str) -> String {
    format!("  command: /bin/sh\n  args: [-c, {script:?}]\n")
}

/// A range of ports around one that is free now.
fn free_range(count: u16) -> String {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().min(u16::MAX - count);
    format!("{port}-{}", port + count - 1)
}

struct Process {
    pid: i32,
    group: i32,
    environ: Vec<String>,
}

/// All processes that run, but for those that only wait to be reaped.
fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
        if fields[0] == "Z" {
            return None;
        }
        let environ = fs::read(entry.path().join("environ")).ok()?;
        let environ = environ.split(|b| *b == 0).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        Some(Process { pid, group: fields[2].parse().ok()?, environ })
    })
}

fn is_running(pid: i32) -> bool {
    processes().any(|process| process.pid == pid)
}

fn end(pid: i32) {
    let _gone = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(waiting.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Gathers what is posted until `enough`.
fn gather(outbox: &Outbox, what: &str, enough: impl Fn(&Posted) -> bool) -> Posted {
    let mut all = Posted::default();
    wait_for(what, || {
        let posted = outbox.take(Duration::from_millis(50));
        all.sightings.extend(posted.sightings);
        all.samples.extend(posted.samples);
        all.alerts.extend(posted.alerts);
        enough(&all).then(|| all.clone())
    })
}

// ---- the promises -------------------------------------------------------------------------------

#[test]
fn a_fleet_follows_its_count_out_and_in_and_its_endpoints_with_it() {
    let world = World::of_workers("follows", 2).started();
    let two = world.settle(2);
    world.scale(4);
    world.settle(4);
    wait_for("four endpoints", || (world.endpoints().len() == 4).then_some(()));
    world.scale(1);
    let one = world.settle(1);
    assert_eq!(one.instances[0].pid, two.instances[0].pid, "the newest leave, the oldest stays");
    wait_for("one endpoint", || (world.endpoints().len() == 1).then_some(()));
    world.scale(0);
    world.settle(0);
    assert_eq!(world.status().changed_by.as_deref(), Some("test"));
}

#[test]
fn what_is_seen_is_posted_with_the_record_it_belongs_to() {
    let world = World::of_workers("seen", 2).started();
    let posted = gather(&world.outbox, "two ready instances and their cpu", |all| {
        let ready = all.sightings.values().any(|s| s.instances.len() == 2 && s.instances.iter().all(|i| i.ready == Some(true)));
        ready && all.samples.iter().flat_map(|(_, samples)| samples).any(|s| s.metric.as_str() == "cpu")
    });
    let sighting = &posted.sightings[&world.target];
    let record = world.fleets().read(&world.target).unwrap();
    assert_eq!((sighting.desired, sighting.revision, &sighting.uid), (record.replicas, record.revision, &record.uid));
    assert_eq!(sighting.status_replicas, 2);
    for instance in &sighting.instances {
        assert_eq!((instance.phase, instance.deleting), (Phase::Running, false));
        assert_eq!(instance.requests["cpu"].to_string(), "0.1");
        assert!(instance.started_at.is_some_and(|started| Some(started) <= instance.ready_changed_at));
    }
    let memory = posted.samples.iter().flat_map(|(_, samples)| samples).find(|s| s.metric.as_str() == "memory").unwrap();
    assert!(memory.value > 100_000.0, "{memory:?}");
}

#[test]
fn a_busy_instance_uses_cpu_and_so_do_its_children() {
    let world = World::new("busy", 1, &(shell("while :; do :; done & wait") + "  measure: { every: 250ms }\n")).started();
    let posted = gather(&world.outbox, "some cpu", |all| all.samples.iter().flat_map(|(_, s)| s).any(|s| s.metric.as_str() == "cpu" && s.value > 0.1));
    assert!(posted.samples.iter().flat_map(|(_, s)| s).all(|s| s.value.is_finite() && s.value >= 0.0));
}

#[test]
fn instances_outlive_loadline_and_are_taken_over_without_leaving_the_endpoints() {
    let mut world = World::of_workers("outlive", 3).started();
    let before = world.settle(3);
    wait_for("three endpoints", || (world.endpoints().len() == 3).then_some(()));
    world.fleets().detach();
    world.outbox.take(Duration::ZERO);
    world.start();
    let after = wait_for("the first look", || Some(world.status()).filter(|status| status.uid.is_some()));
    assert_eq!(world.endpoints().len(), 3);
    assert_eq!(
        after.instances.iter().map(|i| (&i.name, i.pid, i.ready)).collect::<Vec<_>>(),
        before.instances.iter().map(|i| (&i.name, i.pid, true)).collect::<Vec<_>>()
    );
    world.scale(1);
    world.settle(1);
}

/// Whatever of its notes a killed Loadline came to write, the next one has each instance once.
#[test]
fn after_kill_9_every_instance_is_there_once() {
    let mut world = World::of_workers("killed", 3);
    fs::write(world.path("fleet.yaml"), &world.document).unwrap();
    let start_loadline = || -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role_loadline", "--nocapture"])
            .env("TEST_ROLE", "loadline")
            .env("TEST_DIRECTORY", world.directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let notes = world.fleet_path("instances.json");
    // At once as the first process appears: some are started, some only noted.
    let mut loadline = start_loadline();
    wait_for("a first process", || (!world.leaders().is_empty()).then_some(()));
    loadline.kill().unwrap();
    loadline.wait().unwrap();
    // With pids that were never written down, and then with no notes at all.
    for forget in [forget_pids as fn(&Path), |notes: &Path| fs::remove_file(notes).unwrap()] {
        let mut loadline = start_loadline();
        wait_for("three noted instances", || {
            let noted = fs::read_to_string(&notes).unwrap_or_default();
            (world.leaders().len() == 3 && noted.matches("\"ready\":true").count() == 3).then_some(())
        });
        loadline.kill().unwrap();
        loadline.wait().unwrap();
        let before = world.leaders();
        forget(&notes);
        let mut loadline = start_loadline();
        wait_for("three ready instances", || {
            let noted = fs::read_to_string(&notes).unwrap_or_default();
            (noted.matches("\"ready\":true").count() == 3).then_some(())
        });
        assert_eq!(world.leaders(), before, "the same processes, none doubled, none lost");
        loadline.kill().unwrap();
        loadline.wait().unwrap();
    }
    world.start();
    world.settle(3);
}

fn forget_pids(notes: &Path) {
    let mut noted: serde_json::Value = serde_json::from_slice(&fs::read(notes).unwrap()).unwrap();
    for instance in noted["instances"].as_array_mut().unwrap() {
        instance["pid"] = serde_json::Value::Null;
        instance["startTicks"] = serde_json::Value::Null;
    }
    fs::write(notes, noted.to_string()).unwrap();
}

#[test]
fn a_process_that_was_given_a_noted_pid_is_never_touched() {
    let mut world = World::of_workers("reused", 1).started();
    let pid = world.settle(1).instances[0].pid.unwrap();
    world.fleets().detach();
    end(pid);
    wait_for("the instance's end", || (!is_running(pid)).then_some(()));
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let strange_pid = i32::try_from(stranger.id()).unwrap();
    let notes = world.fleet_path("instances.json");
    let text = fs::read_to_string(&notes).unwrap().replace(&format!("\"pid\":{pid}"), &format!("\"pid\":{strange_pid}"));
    assert!(text.contains(&format!("\"pid\":{strange_pid}")));
    fs::write(&notes, text).unwrap();
    world.start();
    let status = world.settle(1);
    assert_ne!(status.instances[0].pid, Some(strange_pid));
    world.fleets().stop_all(PATIENCE).unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn one_that_ends_is_started_again_under_its_name() {
    let world = World::of_workers("again", 1).started();
    let before = world.settle(1).instances.remove(0);
    end(before.pid.unwrap());
    let after = wait_for("a new process", || Some(world.status().instances.remove(0)).filter(|i| i.restarts == 1 && i.ready));
    assert_eq!((&after.name, after.port), (&before.name, before.port));
    assert_ne!(after.pid, before.pid);
}

#[test]
fn a_command_that_does_not_exist_is_named_and_its_instances_are_pending() {
    let mut world = World::new("absent", 2, "  command: /no/such/command\n  restart: { initial: 50ms, max: 50ms }\n").started();
    assert!(world.wait_for_condition("CommandCannotStart").contains("/no/such/command does not exist"));
    let posted = gather(&world.outbox, "a sighting and an alert", |all| !all.sightings.is_empty() && !all.alerts.is_empty());
    let sighting = &posted.sightings[&world.target];
    assert_eq!((sighting.desired, sighting.status_replicas), (2, 2));
    assert!(sighting.instances.iter().all(|i| i.phase == Phase::Pending && i.ready == Some(false)));
    assert_eq!(posted.alerts.iter().filter(|a| a.name == "CommandCannotStart").count(), 1, "once, not at every try");
    // The mended document is taken while it runs.
    world.document = world.document.replace("/no/such/command", "/bin/sleep\n  args: [\"600\"]");
    world.fleets().set_documents(parse_documents("fleet.yaml", &world.document).unwrap()).unwrap();
    world.settle(2);
    gather(&world.outbox, "its end", |all| all.alerts.iter().any(|a| a.name == "CommandCannotStart" && a.state == AlertState::Resolved));
}

#[test]
fn a_command_that_ends_at_once_is_a_crash_loop_with_longer_and_longer_waits() {
    let spec = shell("echo broken; exit 3") + "  restart: { initial: 10ms, max: 1h }\n";
    let world = World::new("loop", 1, &spec).started();
    let words = world.wait_for_condition("CrashLoop");
    assert!(words.contains("exit status: 3") && words.contains("output"), "{words}");
    let instance = world.status().instances.remove(0);
    assert!(!instance.ready);
    assert!(fs::read_to_string(world.fleet_path("output/loop-1.log")).unwrap().contains("broken"));
}

#[test]
fn a_range_of_ports_that_is_used_up_is_named_and_the_fleet_stays_as_large_as_it_can() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let world = World::new("ports", 1, &workers(&format!("{port}-{port}"))).started();
    assert!(world.wait_for_condition("PortsExhausted").contains("1 of 1"));
    assert_eq!(world.leaders().len(), 0);
    assert!(matches!(world.fleets().scale(&world.target, 2, "test"), Err(ScaleError::Rejected { reason }) if reason.contains("1 ports")));
    drop(other);
    world.settle(1);
    wait_for("the end of the condition", || world.status().conditions.is_empty().then_some(()));
}

#[test]
fn one_that_lost_its_health_leaves_the_endpoints_and_is_not_restarted() {
    let world = World::of_workers("sick", 2).started();
    let before = world.settle(2);
    fs::write(world.path("sick"), "").unwrap();
    wait_for("no endpoints", || (world.endpoints().is_empty() && world.status().instances.iter().all(|i| !i.ready)).then_some(()));
    fs::remove_file(world.path("sick")).unwrap();
    let after = world.settle(2);
    assert_eq!(after.instances, before.instances);
    wait_for("two endpoints", || (world.endpoints().len() == 2).then_some(()));
}

#[test]
fn one_that_is_never_healthy_is_restarted_after_its_start_up_time() {
    let mut world = World::of_workers("never", 1);
    world.document = world.document.replace("timeout: 60s", "timeout: 300ms");
    fs::write(world.path("sick"), "").unwrap();
    world.start();
    assert!(world.wait_for_condition("NeverHealthy").contains("startup.timeout"));
    fs::remove_file(world.path("sick")).unwrap();
}

#[test]
fn nobody_is_sent_to_an_instance_that_is_asked_to_end() {
    let script = r"trap 'echo term >> DIR/order; exit 0' TERM; while :; do sleep 0.05; done";
    let hook =
        "  endpoints: { file: DIR/endpoints.json }\n  hook: [/bin/sh, -c, 'sleep 0.3; echo hook $(grep -c 127.0.0.1 $LOADLINE_ENDPOINTS) >> DIR/order']\n";
    let world = World::new("order", 2, &(shell(script) + &format!("  ports: \"{}\"\n", free_range(4)) + hook)).started();
    world.settle(2);
    let order = || fs::read_to_string(world.path("order")).unwrap_or_default();
    wait_for("both in the endpoints, as the hook saw it", || order().contains("hook 2").then_some(()));
    world.scale(1);
    world.settle(1);
    let order = order();
    let after: Vec<&str> = order.lines().skip_while(|line| *line != "hook 2").skip(1).collect();
    assert_eq!(after, ["hook 1", "term"], "{order}");
}

#[test]
fn one_that_does_not_end_is_ended_by_force_with_its_children() {
    let world = World::new(
        "stubborn",
        1,
        &(shell("trap '' TERM; sh -c 'trap \"\" TERM; sleep 600; sleep 600' & wait; sleep 600; sleep 600") + "  drain: { grace: 200ms }\n"),
    )
    .started();
    world.settle(1);
    let all = || processes().filter(|p| p.environ.contains(&format!("LOADLINE_TARGET={}", world.target))).count();
    wait_for("its children", || (all() >= 3).then_some(()));
    world.fleets().stop_all(PATIENCE).unwrap();
    wait_for("the end of all of them", || (all() == 0).then_some(()));
}

#[test]
fn a_count_that_cannot_be_read_is_not_zero() {
    let world = World::of_workers("unreadable", 2).started();
    world.settle(2);
    let pids = world.leaders();
    let state = fs::read(world.fleet_path("state.json")).unwrap();
    for broken in [Some("{"), None] {
        match broken {
            Some(text) => fs::write(world.fleet_path("state.json"), text).unwrap(),
            None => fs::remove_file(world.fleet_path("state.json")).unwrap(),
        }
        world.wait_for_condition("FleetStateUnreadable");
        world.outbox.take(Duration::ZERO);
        assert!(matches!(world.fleets().read(&world.target), Err(ScaleError::Failed { .. })));
        // Several turns later nothing has been said and nobody was ended.
        gather(&world.outbox, "measurements", |all| all.samples.len() >= 5);
        assert!(world.outbox.take(Duration::ZERO).sightings.is_empty());
        assert_eq!(world.leaders(), pids);
        fs::write(world.fleet_path("state.json"), &state).unwrap();
        wait_for("the end of the condition", || world.status().conditions.is_empty().then_some(()));
    }
}

/// Two of Loadline on two copies of one directory: the second leaves the fleet alone, and takes it over when the first ends.
#[test]
fn a_fleet_has_one_supervisor_whatever_directory_it_runs_from() {
    let mut world = World::of_workers("claimed", 2).started();
    world.settle(2);
    let pids = world.leaders();
    let mut copy = World::of_workers("claimed", 1);
    fs::create_dir_all(copy.fleet_path("")).unwrap();
    fs::copy(world.fleet_path("state.json"), copy.fleet_path("state.json")).unwrap();
    copy.start();
    let words = copy.wait_for_condition("FleetSupervisedElsewhere");
    assert!(words.contains(&format!("process {} (`", std::process::id())), "{words}");
    copy.scale(5);
    copy.fleets().stop_all(PATIENCE).unwrap();
    assert_eq!(world.leaders(), pids, "nothing was started or stopped");
    copy.start();
    copy.wait_for_condition("FleetSupervisedElsewhere");
    world.fleets = None;
    copy.settle(5);
    assert!(copy.leaders().is_superset(&pids), "the instances are taken over");
    assert!(copy.status().conditions.is_empty());
    copy.fleets().stop_all(PATIENCE).unwrap();
}

/// Two processes of one installation with the same document, each with a data directory of its own: the second has no fleet of that name, also not while the first is started
/// again. One of another installation has.
#[test]
fn an_installation_has_one_fleet_of_a_name() {
    let installation = format!("cluster {}", std::process::id());
    let mut world = World::of_workers("named", 2).of(&installation).started();
    world.settle(2);
    let pids = world.leaders();
    let second = World::of_workers("named", 1).of(&installation).started();
    let words = second.wait_for_condition("FleetSupervisedElsewhere");
    assert!(words.contains(&format!("process {} (`", std::process::id())) && words.contains("leave the role fleets out here"), "{words}");
    assert!(!second.fleets().serves(&second.target) && world.fleets().serves(&world.target), "whose commands these are");
    let refused = second.fleets().scale(&second.target, 3, "ana").unwrap_err().to_string();
    assert!(refused.contains("FleetSupervisedElsewhere"), "{refused}");
    world.fleets = None;
    wait_for("that nobody has it", || second.status().conditions.get("FleetSupervisedElsewhere")?.starts_with("nobody supervises it now").then_some(()));
    world.start();
    world.settle(2);
    wait_for("who has it", || second.status().conditions.get("FleetSupervisedElsewhere")?.contains("process ").then_some(()));
    assert_eq!((world.leaders(), second.leaders()), (pids.clone(), pids), "the first has its instances again, and nothing was started beside them");
    let other = World::of_workers("named", 1).of("another").started();
    wait_for("an instance of another installation", || other.status().instances.iter().any(|instance| instance.ready).then_some(()));
    for world in [&world, &other, &second] {
        world.fleets().stop_all(PATIENCE).unwrap();
    }
    // It ended, its last words never came to the log, and it is started where nobody has the fleet: the alert is over.
    drop(world);
    let mut again = second;
    again.fleets = None;
    again.outbox.take(Duration::ZERO);
    again.start();
    again.settle(1);
    assert!(
        gather(&again.outbox, "its end", |all| !all.alerts.is_empty())
            .alerts
            .iter()
            .any(|alert| { (alert.name.as_str(), alert.state) == ("FleetSupervisedElsewhere", AlertState::Resolved) })
    );
    again.fleets().stop_all(PATIENCE).unwrap();
}

#[test]
fn a_document_that_is_gone_leaves_its_processes_and_its_return_takes_them_over() {
    let world = World::of_workers("gone", 2).started();
    world.settle(2);
    let pids = world.leaders();
    world.fleets().set_documents(Vec::new()).unwrap();
    assert_eq!(world.fleets().read(&world.target), Err(ScaleError::NotFound { target: world.target.clone() }));
    assert_eq!(world.leaders(), pids);
    world.fleets().set_documents(parse_documents("fleet.yaml", &world.document).unwrap()).unwrap();
    world.settle(2);
    assert_eq!(world.leaders(), pids);
}

/// A health check that is added to a running fleet asks its instances before it judges them.
#[test]
fn a_health_check_that_is_added_ends_nobody() {
    let mut world = World::of_workers("checked-later", 2);
    let with_check = world.document.clone();
    let check = with_check.lines().find(|line| line.starts_with("  health:")).unwrap();
    // Older than the start-up time before the check comes.
    world.document = with_check.replace(&format!("{check}\n"), "").replace("timeout: 60s", "timeout: 1ms");
    let world = world.started();
    world.settle(2);
    let pids = world.leaders();
    let checked = world.document.clone() + check + "\n";
    world.fleets().set_documents(parse_documents("fleet.yaml", &checked).unwrap()).unwrap();
    world.scale(3);
    // The third has 1 ms to become healthy: it may be ended before it is seen running, which its condition tells.
    let was_there = || world.leaders().len() >= 3 || world.status().conditions.contains_key("NeverHealthy");
    wait_for("a third instance, some turns later", || was_there().then_some(()));
    assert!(world.leaders().is_superset(&pids), "the first two still run");
}

/// A port that another program took while its instance was down is not asked: that program would pass for the instance.
#[test]
fn a_port_that_was_lost_is_replaced() {
    let world = World::of_workers("lost-port", 1).started();
    world.settle(1);
    let (before, pid) = (world.endpoints(), *world.leaders().first().unwrap());
    let address = before[0].clone();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let _other = wait_for("its port", || TcpListener::bind(&address).ok());
    wait_for("another port", || {
        let now = world.endpoints();
        (now.len() == 1 && now != before).then_some(())
    });
    world.settle(1);
}

/// What fired before a restart and is over by then is resolved after it, and so is all of a fleet whose document is gone.
#[test]
fn alerts_do_not_outlive_their_cause() {
    let mut world = World::new("alerts", 1, "  command: /no/such/command\n  restart: { initial: 50ms, max: 50ms }\n").started();
    world.wait_for_condition("CommandCannotStart");
    world.fleets = None;
    world.document = world.document.replace("/no/such/command", "/bin/sleep\n  args: [\"600\"]");
    world.outbox = Arc::new(Outbox::default());
    world.start();
    world.settle(1);
    gather(&world.outbox, "its end", |all| all.alerts.iter().any(|a| a.name == "CommandCannotStart" && a.state == AlertState::Resolved));

    let world = World::new("alerts-gone", 1, "  command: /no/such/command\n  restart: { initial: 50ms, max: 50ms }\n").started();
    world.wait_for_condition("CommandCannotStart");
    world.fleets().set_documents(Vec::new()).unwrap();
    gather(&world.outbox, "its end", |all| all.alerts.iter().any(|a| a.name == "CommandCannotStart" && a.state == AlertState::Resolved));
}

#[test]
fn commands_and_hands_share_one_record() {
    let world = World::of_workers("record", 1).started();
    world.settle(1);
    let (fleets, target) = (world.fleets(), &world.target);
    let first = fleets.read(target).unwrap();
    let second = fleets.write(target, &first, 2, 700, PATIENCE).unwrap();
    assert_eq!((second.replicas, second.revision, second.epoch), (2, 2, 700));
    let by_hand = scale_by_hand(&world.path("fleets"), target, 3, "ana", &SystemClock).unwrap();
    assert_eq!(by_hand.from, 2);
    let by_hand = by_hand.record;
    assert_eq!((by_hand.replicas, by_hand.revision, by_hand.epoch), (3, 3, 700));
    assert!(matches!(fleets.write(target, &second, 1, 800, PATIENCE), Err(ScaleError::Conflict { expected: 2, found: 3 })));
    assert!(matches!(fleets.write(target, &by_hand, 1001, 800, PATIENCE), Err(ScaleError::Rejected { .. })));
    world.settle(3);
    assert_eq!(world.status().changed_by.as_deref(), Some("ana"));
    let elsewhere: TargetId = "x/ProcessFleet/..".parse().unwrap();
    assert!(matches!(scale_by_hand(&world.path("fleets"), &elsewhere, 1, "ana", &SystemClock), Err(ScaleError::NotFound { .. })));
}

#[test]
fn draining_all_leaves_nothing_and_the_count_for_the_next_start() {
    let mut world = World::of_workers("drain", 3).started();
    world.settle(3);
    world.fleets().stop_all(PATIENCE).unwrap();
    assert_eq!(world.leaders().len(), 0);
    assert_eq!(world.endpoints(), Vec::<String>::new());
    world.start();
    world.settle(3);
}
