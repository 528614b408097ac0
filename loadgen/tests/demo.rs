//! The demo around a stand-in for Loadline: what it says when something is missing, and that it leaves nothing behind.
//!
//! The stand-in is a shell script. Where Loadline has to answer, it becomes a `loadgen worker`, which answers everything.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::until;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

struct Stage {
    folder: tempfile::TempDir,
    port: u16,
}

impl Stage {
    /// A demo whose Loadline runs `script`, which knows the port as `$port`.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/storefront");
        std::os::unix::fs::symlink(example.canonicalize().unwrap(), folder.path().join("example")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let loadline = folder.path().join("loadline");
        std::fs::write(&loadline, format!("#!/bin/sh\nport={port}\nloadgen={LOADGEN}\n{script}\n")).unwrap();
        std::fs::set_permissions(&loadline, std::fs::Permissions::from_mode(0o755)).unwrap();
        Stage { folder, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(LOADGEN);
        command.args(["demo", "--for", "60s", "--listen", &format!("127.0.0.1:{}", self.port)]);
        for (flag, name) in [("--loadline", "loadline"), ("--example", "example"), ("--data", "data"), ("--endpoints", "data/endpoints.json")] {
            command.arg(flag).arg(self.path(name));
        }
        command
    }

    fn start(&self) -> Child {
        self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).unwrap()
}

fn said(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_loadline_that_ends_early_is_quoted() {
    let stage = Stage::new("echo first; for n in $(seq 20); do echo line $n >&2; done; exit 3");
    let (_, error) = said(&stage.command().output().unwrap());
    assert!(error.contains("error: loadline ended early (exit status: 3)") && error.contains("line 20") && !error.contains("first"), "{error}");
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let stage = Stage::new("exit 1");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", stage.port)).unwrap();
    let (_, error) = said(&stage.command().output().unwrap());
    assert!(error.contains(&format!("port {} of 127.0.0.1 is in use", stage.port)) && error.contains("--listen"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let stage = Stage::new("exit 1");
    std::fs::remove_file(stage.path("loadline")).unwrap();
    let (_, error) = said(&stage.command().output().unwrap());
    assert!(error.contains("loadline is not there; build it with `cargo build`"), "{error}");
    std::fs::write(stage.path("loadline"), "").unwrap();
    std::fs::write(stage.path("data"), "a file where a folder should be").unwrap();
    let (_, error) = said(&stage.command().output().unwrap());
    assert!(error.contains("is not writable; choose another with --data"), "{error}");
    std::fs::remove_file(stage.path("example")).unwrap();
    let (_, error) = said(&stage.command().output().unwrap());
    assert!(error.contains("loadline.yaml is not there") && error.contains("--example"), "{error}");
}

#[test]
fn a_signal_stops_loadline_and_everything_is_gone() {
    let stage = Stage::new("echo $$ > \"$(dirname \"$0\")/pid\"\nexec $loadgen worker --port $port --report off");
    let demo = stage.start();
    let child = until("loadline has started", || std::fs::read_to_string(stage.path("pid")).ok()?.trim().parse::<i32>().ok());
    until("it listens", || std::net::TcpStream::connect(("127.0.0.1", stage.port)).ok());
    kill_process(pid(demo.id()), Signal::INT).unwrap();
    let output = demo.wait_with_output().unwrap();
    let (out, error) = said(&output);
    assert!(output.status.success(), "{error}");
    assert!(out.ends_with("all is stopped\n"), "{out}");
    assert!(test_kill_process(Pid::from_raw(child).unwrap()).is_err(), "loadline is gone");
}

#[test]
fn a_worker_that_is_left_is_named() {
    let stage = Stage::new("$loadgen worker --port 0 & echo $! > \"$(dirname \"$0\")/left\"\nexec $loadgen worker --port $port --report off");
    let demo = stage.start();
    let left = until("the other has started", || std::fs::read_to_string(stage.path("left")).ok()?.trim().parse::<i32>().ok());
    until("loadline listens", || std::net::TcpStream::connect(("127.0.0.1", stage.port)).ok());
    kill_process(pid(demo.id()), Signal::TERM).unwrap();
    let output = demo.wait_with_output().unwrap();
    kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    let (out, error) = said(&output);
    assert!(!output.status.success() && !out.contains("all is stopped"), "{out}");
    assert!(error.contains(&format!("left these workers running: [{left}]")), "{error}");
}

/// Two demos of one folder: the second one touches nothing of the first, and says what to choose.
#[test]
fn the_data_of_a_running_loadline_is_left_alone() {
    let stage = Stage::new("exit 3");
    std::fs::create_dir_all(stage.path("data")).unwrap();
    for file in ["data/log.db", "data/loadline.log"] {
        std::fs::write(stage.path(file), "kept").unwrap();
    }
    std::fs::write(stage.path("data/lock"), "4711\n").unwrap();
    let running = std::fs::File::open(stage.path("data/lock")).unwrap();
    running.lock().unwrap();
    let (_, error) = said(&stage.command().output().unwrap());
    assert!(error.contains("process 4711") && error.contains("--data"), "{error}");
    assert_eq!(std::fs::read_to_string(stage.path("data/log.db")).unwrap(), "kept");
    drop(running);
    let (told, _) = said(&stage.command().output().unwrap());
    assert!(told.contains("beginning anew"), "{told}");
    assert!(!stage.path("data/log.db").exists(), "it is the demo's own, and nobody runs on it");
}
