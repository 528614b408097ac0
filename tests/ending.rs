//! Whoever tells it to end, at whatever moment, ends it in order.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{LOADLINE, fleet_of_sleepers, sleepers, wait_for};
use rustix::process::{Pid, Signal, kill_process};

fn run(home: &Path) -> Command {
    let mut command = Command::new(LOADLINE);
    command.current_dir(home).args(["run", "--data", "data", "--policies", "policies", "--stop-fleets-on-exit"]);
    command.env_remove("LOADLINE_CONFIG").stderr(Stdio::piped());
    command
}

/// Tells it to end; how it ended.
fn ended(mut child: Child) -> Option<i32> {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut said = child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    let status = wait_for("it to end", || child.try_wait().unwrap());
    drop(reading.join());
    status.code()
}

/// Starts it, and waits until it has its port: that is before its log is open, its fleets run, and it says that it is ready.
fn started(mut command: Command) -> (Child, String) {
    let address = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    let child = command.args(["--listen", &address]).spawn().unwrap();
    wait_for("the port to be taken", || TcpStream::connect(&address).ok());
    (child, address)
}

#[test]
fn in_the_middle_of_a_start() {
    let (home, _) = fleet_of_sleepers(2, "");
    for _ in 0..5 {
        assert_eq!(ended(started(run(home.path())).0), Some(0));
        assert_eq!(sleepers(&home.path().join("data")), 0, "nothing is left running");
    }
}

/// A cluster that is not there is waited for, and not longer than one is told to.
#[cfg(feature = "kafka")]
#[test]
fn while_a_cluster_is_waited_for() {
    let (home, _) = fleet_of_sleepers(1, "");
    // Taken, so that nobody else comes to listen there, and never answered.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = run(home.path());
    let brokers = nobody.local_addr().unwrap().to_string();
    command.args(["--brokers", &brokers]);
    let (child, address) = started(command);
    // It lives, and says what it waits for; whoever sends samples is told to come again.
    let answer = |path: &str, send: Option<&str>| {
        let url = format!("http://{address}{path}");
        let answer = match send {
            None => ureq::get(url).config().http_status_as_error(false).build().call(),
            Some(body) => ureq::post(url).config().http_status_as_error(false).build().header("content-type", "application/x-ndjson").send(body),
        };
        let mut answer = answer.unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let (status, said) = wait_for("it to say what it waits for", || Some(answer("/readyz", None)).filter(|(_, said)| said.contains(&brokers)));
    assert_eq!(status, 503, "{said}");
    assert_eq!(answer("/healthz", None), (200, "ok\n".to_owned()));
    for (path, send) in [("/api/v1/metrics", Some("{}")), ("/", None), ("/metrics", None)] {
        let (status, said) = answer(path, send);
        assert!(status == 503 && said.contains("the log cannot be reached") && said.contains(&brokers), "{path}: {status} {said}");
    }
    assert_eq!(ended(child), Some(0));
}

/// What TLS uses is taken down by nobody at the end of the program: threads that used it may still end then.
#[cfg(feature = "kafka")]
#[test]
fn tls_is_left_as_it_is() {
    let (home, _) = fleet_of_sleepers(1, "");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let (called, brokers) = (home.path().join("called"), nobody.local_addr().unwrap().to_string());
    let mut command = run(home.path());
    std::fs::write(home.path().join("kafka.properties"), "security.protocol=ssl\n").unwrap();
    command.args(["--brokers", &brokers, "--set", "kafka.config=kafka.properties"]);
    command.env("LD_PRELOAD", common::shim(home.path(), "ending/called_at_the_end.c")).env("CALLED_AT_THE_END", &called);
    let (child, address) = started(command);
    let client = || ureq::get(format!("http://{address}/readyz")).config().http_status_as_error(false).build().call().unwrap().body_mut().read_to_string().ok();
    wait_for("a client to be made", || client().filter(|said| said.contains(&brokers)));
    let loaded = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    assert!(loaded.contains("libcrypto"), "it is a library of its own, or nothing is shown here");
    assert_eq!(ended(child), Some(0));
    let called = std::fs::read_to_string(&called).unwrap();
    assert!(called.contains("called_at_the_end"), "it is written down: {called}");
    assert!(!called.contains("libcrypto"), "{called}");
}
