//! `make run LOG=kafka`, from its script on: the same demo on a broker of its own, which follows its load, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::until;
use loadgen::demo::status;
use rustix::process::{Pid, Signal, kill_process};

const TARGET: &str = "local/ProcessFleet/storefront";

/// The first of `count` ports in a row that nobody listens at, below those that the system gives away.
fn free(count: u16) -> u16 {
    let from = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let is_free = |first: &u16| (0..count).all(|n| TcpListener::bind(("127.0.0.1", first + n)).is_ok());
    (from..from + 2_000).step_by(usize::from(count)).find(is_free).unwrap()
}

fn body_of(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn the_demo_runs_on_kafka_and_leaves_nothing_behind() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let loadgen = Path::new(env!("CARGO_BIN_EXE_loadgen"));
    assert!(loadgen.with_file_name("loadline").exists(), "the demo runs it: cargo build -p loadline");
    // What of the project it needs, with data of its own and ports that nobody has.
    let first = free(104);
    let [broker, listen, workers] = [first, first + 2, first + 4];
    let here = tempfile::tempdir().unwrap();
    let place = |name: &str| here.path().join(name);
    for (folder, name) in [("tools", "demo-on"), ("tests", "env")] {
        std::fs::create_dir(place(folder)).unwrap();
        symlink(project.join(folder).join(name), place(folder).join(name)).unwrap();
    }
    std::fs::create_dir_all(place("examples/storefront")).unwrap();
    for file in ["loadline.yaml", "policy.yaml", "fleet.yaml", "trace.csv"] {
        std::fs::copy(project.join("examples/storefront").join(file), place("examples/storefront").join(file)).unwrap();
    }
    let fleet = std::fs::read_to_string(place("examples/storefront/fleet.yaml")).unwrap();
    assert!(fleet.contains("18100-18199"));
    let fleet = fleet.replace("18100-18199", &format!("{workers}-{}", workers + 99));
    std::fs::write(place("examples/storefront/fleet.yaml"), fleet).unwrap();

    let mut command = Command::new(place("tools/demo-on"));
    command.arg("kafka").arg(loadgen).args(["demo", "--listen", &format!("127.0.0.1:{listen}"), "--scale", "2"]);
    command.env("PORT", broker.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if std::env::var_os("LOADLINE_TEST_TOOLS").is_none() {
        command.env("LOADLINE_TEST_TOOLS", project.join("target/test-tools"));
    }
    let mut demo = command.spawn().unwrap();
    let grown = until("a fleet that grew with its load", || {
        assert_eq!(demo.try_wait().unwrap(), None, "it ended");
        let status = status::read(body_of(listen, "/api/v1/status")?.as_bytes(), TARGET).ok()?;
        status.ready.filter(|ready| *ready > 3)
    });
    assert!(grown > 3);
    let log = std::fs::read_to_string(place("data/storefront/loadline.log")).unwrap();
    assert!(log.contains("log-on-kafka") && !place("data/storefront/log.db").exists(), "{log}");
    kill_process(Pid::from_raw(demo.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let output = demo.wait_with_output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.ends_with("all is stopped\n"), "{out}\n{error}");
    until("the end of the broker", || TcpStream::connect(("127.0.0.1", broker)).is_err().then_some(()));
}
